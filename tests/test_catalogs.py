"""Every entry of every catalog says what it is, and its names and units are in our table."""

from datetime import date
from pathlib import Path

import intake
import pytest

from pipeline import catalog
from pipeline.names import VARIABLES
from pipeline.sources.form import Source

FOLDER = Path(catalog.__file__).parents[1] / "catalogs"
SAID = (
    *("support", "license", "doi", "auth", "region", "native_grid", "native_units"),
    *("time_convention", "period", "origin"),
)
MADE_HERE = ("osse", "products:maps", "products:series")  # of places and sizes that vary


def entries():
    for file in sorted(FOLDER.glob("*.yaml")):
        for name, spec in catalog.tree(str(file)).items():
            if spec["driver"] != "yaml_file_cat":
                yield pytest.param(file.stem, name, spec, id=f"{file.stem}:{name}")


@pytest.mark.parametrize(("file", "name", "spec"), [*entries()])
def test_an_entry_says_all_that_a_reader_needs(file, name, spec):
    told = spec["metadata"]
    assert spec["description"]
    lacking = [key for key in SAID if not str(told.get(key, "")).strip()]
    assert not lacking
    assert told["support"] in ("cell", "footprint", "site")
    if not {file, f"{file}:{name}"} & {*MADE_HERE}:
        assert isinstance(told["verified"], bool | date)
        assert told["volume"]["megabytes"] > 0


@pytest.mark.parametrize(("file", "name", "spec"), [*entries()])
def test_an_entry_opens_as_a_driver_with_our_names_and_units(file, name, spec, monkeypatch):
    for variable in catalog.ENVIRONMENT.findall(str(spec)):
        monkeypatch.setenv(variable, "/nowhere")
    driver = intake.open_catalog(str(FOLDER / f"{file}.yaml"))[name]
    if not isinstance(driver, Source):
        assert f"{file}:{name}" in (*MADE_HERE, "scan-public:scan_sites")
        return
    unknown = [ours for ours in driver.mapping if ours not in VARIABLES]
    assert not unknown


def test_main_nests_the_others():
    nested = {
        name: catalog.nested(str(FOLDER / "main.yaml"), spec)
        for name, spec in catalog.tree(str(FOLDER / "main.yaml")).items()
    }
    assert sorted(nested) == ["forcing", "insitu", "products", "satellite", "static"]
    for name, url in nested.items():
        assert Path(url) == FOLDER / f"{name}.yaml"
    main = intake.open_catalog(str(FOLDER / "main.yaml"))
    assert "aorc" in list(main["forcing"])
    found = catalog.find("main", "forcing.aorc")
    assert found.name == "aorc"
    assert found.spec["metadata"]["auth"] == "anonymous"
