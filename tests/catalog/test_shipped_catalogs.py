"""Every entry of every catalog says what it is, and its names and units are in our table."""

from datetime import date
from pathlib import Path

import intake

from pipeline import files
from pipeline.catalog import entries as entries_module
from pipeline.catalog import intake_catalog, templates
from pipeline.experiment.variables import VARIABLES
from pipeline.sources import drivers
from pipeline.sources.shared.driver import Source

FOLDER = Path(intake_catalog.__file__).parents[2] / "catalogs"

SAID = (
    *("support", "license", "doi", "auth", "region", "native_grid", "native_units"),
    *("time_convention", "period", "origin"),
)

# SHA-256 of how the entries of each catalog are read: their drivers, and their arguments without
# locations. Whoever changes one makes the cubes that were made with the entry out of date.
READ = {
    "forcing": "9ba9ecdec1b6c21c617276f737aa5856b2917b34d78011a386c4af0929586707",
    "insitu": "b778ce483541621f1702de506c47057e17a7bb2a8ddae2205f85ddaeceb503b1",
    "osse": "d5e45e9f065fb5054bf4bff97e1b285b266fcac74e1f8c9e1cd3d736f2229384",
    "products": "b2465c118b889f7c3b602936a5c0a2098d6bc82bff506bb3475615dde338b935",
    "satellite": "6c4df809c97e5b9988e43514fe53ec6994e4955df3ef6db5eb6d740e36e22f1e",
    "scan-public": "1f3f82583077eb14c66dc23896afb60b00d263f236fb424e2aa6ab15f8e217d6",
    "scan": "824b8e617853a3605a42ff380d573d5e1f8d0fd85f6291bd46b8d2242fdc5c7a",
    "static": "63eb42737e91d389e04d259dfd9168e837553bb9cb6bfb46d7be76eaf891259d",
}

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
        for variable in spec.get("environment", ()):
            monkeypatch.setenv(variable, "/nowhere")
        assert templates.environment_names(spec) == spec.get("environment", []), entry
        url = str(FOLDER / f"{file}.yaml")
        driver = intake.open_catalog(url)[name]
        ours = entries_module.make_driver(entries_module.CatalogEntry(url, name, spec), {})
        assert type(ours) is type(driver), entry
        assert getattr(ours, "urlpath", "") == getattr(driver, "urlpath", ""), entry
        assert (ours.metadata, ours.name) == (driver.metadata, driver.name), entry
        if not isinstance(driver, Source):
            assert entry in (*MADE_HERE, "scan-public:scan_sites")
            continue
        unknown = [ours for ours in driver.mapping if ours not in VARIABLES]
        assert not unknown, entry


def test_main_nests_the_others():
    nested = {
        name: intake_catalog.nested_catalog_url(str(FOLDER / "main.yaml"), name, spec)
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


def test_how_entries_are_read_has_not_changed():
    found = {}
    for file, name, spec in entries():
        kind = drivers.driver_class(spec["driver"])
        read = {k: v for k, v in spec["args"].items() if k not in intake_catalog.LOCATION_ARGUMENTS}
        rows = found.setdefault(file, [])
        rows.append([name, vars(kind)["name"], drivers.published_path(spec["driver"]), read])
    assert {file: files.sha256_of_json(rows) for file, rows in found.items()} == READ
