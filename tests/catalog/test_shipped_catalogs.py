"""Every entry of every catalog says what it is, and its names and units are in our table."""

from datetime import date
from pathlib import Path

import intake

from pipeline.catalog import intake_catalog
from pipeline.experiment.variables import VARIABLES
from pipeline.sources.shared.driver import Source

FOLDER = Path(intake_catalog.__file__).parents[2] / "catalogs"

SAID = (
    *("support", "license", "doi", "auth", "region", "native_grid", "native_units"),
    *("time_convention", "period", "origin"),
)

MADE_HERE = ("osse", "products:maps", "products:series")  # of places and sizes that vary


def entries():
    for file in sorted(FOLDER.glob("*.yaml")):
        for name, spec in intake_catalog.read_entries(str(file)).items():
            if spec["driver"] != "yaml_file_cat":
                yield file.stem, name, spec


def test_every_entry_says_all_that_a_reader_needs():
    assert len([*entries()]) > 40
    for file, name, spec in entries():
        entry, told = f"{file}:{name}", spec["metadata"]
        assert spec["description"], entry
        lacking = [key for key in SAID if not str(told.get(key, "")).strip()]
        assert not lacking, entry
        assert told["support"] in ("cell", "footprint", "site"), entry
        if not {file, entry} & {*MADE_HERE}:
            assert isinstance(told["verified"], bool | date), entry
            assert told["volume"]["megabytes"] > 0, entry


def test_every_entry_opens_as_a_driver_with_our_names_and_units(monkeypatch):
    for file, name, spec in entries():
        entry = f"{file}:{name}"
        for variable in intake_catalog.ENVIRONMENT_PATTERN.findall(str(spec)):
            monkeypatch.setenv(variable, "/nowhere")
        driver = intake.open_catalog(str(FOLDER / f"{file}.yaml"))[name]
        if not isinstance(driver, Source):
            assert entry in (*MADE_HERE, "scan-public:scan_sites")
            continue
        unknown = [ours for ours in driver.mapping if ours not in VARIABLES]
        assert not unknown, entry


def test_main_nests_the_others():
    nested = {
        name: intake_catalog.nested_catalog_url(str(FOLDER / "main.yaml"), spec)
        for name, spec in intake_catalog.read_entries(str(FOLDER / "main.yaml")).items()
    }
    assert sorted(nested) == ["forcing", "insitu", "products", "satellite", "static"]
    for name, url in nested.items():
        assert Path(url) == FOLDER / f"{name}.yaml"
    main = intake.open_catalog(str(FOLDER / "main.yaml"))
    assert "aorc" in list(main["forcing"])
    found = intake_catalog.find_entry("main", "forcing.aorc")
    assert found.name == "aorc"
    assert found.spec["metadata"]["auth"] == "anonymous"
