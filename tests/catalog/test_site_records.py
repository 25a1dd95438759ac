"""Sites of several sources: joined, those of one cell, those with short records."""

import numpy as np
import pytest
import world
import xarray as xr
import yaml

from pipeline.catalog import experiment_sources, intake_catalog, site_records
from pipeline.errors import ConfigError, DataError
from pipeline.experiment import load
from pipeline.prepare import stage

WINDOW = world.WINDOW
DAYS = world.FIRST + np.arange(world.N_DAYS)


def source(values, ids, y, x, entry="some"):
    """Sites (time, place) in given cells."""
    place = {
        "place": [*ids],
        "lat": ("place", WINDOW.cell_lat[y]),
        "lon": ("place", WINDOW.cell_lon[x]),
    }
    data = {"snow_depth": (("time", "place"), np.asarray(values, "float32"))}
    return xr.Dataset(data, {"time": DAYS.astype("datetime64[ns]"), **place}, {"entry": entry})


def three():
    """A and B in one cell, B with the longer record; C alone."""
    values = np.full((len(DAYS), 3), np.nan)
    values[:50, 0], values[:80, 1], values[:20, 2] = 1.0, 2.0, 3.0
    return source(values + 1e-6 * np.arange(len(DAYS))[:, None], "ABC", [4, 4, 6], [8, 8, 8])


def records(snow, *sources, **rules):
    settings = [f"qc.{rule}={value}" for rule, value in rules.items()]
    return site_records.read_records(load.load_experiment(str(snow), settings), sources, WINDOW)


def test_all_sites_of_a_cell_are_kept_by_default(snow):
    made = records(snow, three())
    assert made.data.place.values.tolist() == ["A", "B", "C"]
    assert sum(made.dropped.values()) == 0


def test_the_longest_record_of_a_cell(snow):
    made = records(snow, three(), duplicate_sites="longest")
    assert made.data.place.values.tolist() == ["B", "C"]
    assert made.dropped["another site in the cell"] == 50


def test_the_mean_of_a_cell(snow):
    made = records(snow, three(), duplicate_sites="mean")
    assert made.data.place.values.tolist() == ["B", "C"]
    mean = made.data.snow_depth.sel(place="B").values
    np.testing.assert_allclose(mean[:50], 1.5, atol=1e-3)
    np.testing.assert_allclose(mean[50:80], 2.0, atol=1e-3)
    assert np.isnan(mean[80:]).all()


def test_what_is_known_of_the_records_is_told(snow):
    """Notes of the reader, and how many values were kept to which no check was applied."""
    data = three().assign_attrs(notes=["two sensors are one record"])
    flags = np.zeros(data.snow_depth.shape, int)
    flags[:10, 1] = 4
    attrs = {"good": [0], "unchecked": [4], "flag_values": [0, 4], "flag_meanings": "G U"}
    data["provider_flag"] = (("time", "place"), flags, attrs)
    made = records(snow, data)
    assert made.entry_attrs["some"]["unchecked"] == {"U": 10}
    assert stage._notes_on_records(made.entry_attrs) == [
        "some: two sensors are one record",
        "some: kept values that the provider did not check: 10 U; --set qc.unchecked=drop leaves "
        "them out",
    ]
    assert records(snow, data, unchecked="drop").dropped["provider: U"] == 10


def test_short_records_are_left_out_and_counted(snow):
    made = records(snow, three(), min_days=50)
    assert made.data.place.values.tolist() == ["A", "B"]
    assert made.dropped["short record"] == 20


def test_sources_are_screened_by_their_own_flags_and_joined(snow):
    flag = {"good": [0], "flag_values": [0, 1], "flag_meanings": "good wet"}
    other = three().assign_coords(place=["D", "E", "F"])
    ones = np.ones((len(DAYS), 3), "int8")
    other["provider_flag"] = (("time", "place"), ones * [1, 0, 1], flag)
    other.attrs["entry"] = "other"
    made = records(snow, three(), other.isel(time=slice(0, 60)))
    assert made.data.place.values.tolist() == list("ABCDEF")
    assert made.dropped["provider: wet"] == 50 + 20
    held = made.data.snow_depth.notnull().sum("time").values.tolist()
    assert held == [50, 80, 20, 0, 60, 0]
    assert set(made.entry_attrs) == {"some", "other"}


def test_a_source_named_twice_is_an_error_that_names_every_site(snow):
    with pytest.raises(DataError) as error:
        records(snow, three(), three())
    assert error.value.problems == tuple(
        f"an entry has site {site} twice, or is named twice" for site in "ABC"
    )


def test_entries_of_nested_and_of_other_catalogs(snow):
    """The same sources, named through a catalog of catalogs and by file and entry."""
    folder = snow.parent
    nested = {
        "sources": {
            "all": {"driver": "yaml_file_cat", "args": {"path": "{{CATALOG_DIR}}/catalog.yaml"}}
        }
    }
    (folder / "main.yaml").write_text(yaml.safe_dump(nested))
    settings = [
        f"sources.catalog={folder}/main.yaml",
        "sources.forcing=all.cells",
        "sources.static=[all.cells]",
        "sources.satellite=all.footprints",
        f"sources.insitu=[{folder}/catalog.yaml:sites]",
    ]
    plain, named = load.load_experiment(str(snow)), load.load_experiment(str(snow), settings)
    assert intake_catalog.cube_entries(named) == [
        "all.cells",
        "all.footprints",
        f"{folder}/catalog.yaml:sites",
    ]
    ours, theirs = experiment_sources.open_sources(named), experiment_sources.open_sources(plain)
    xr.testing.assert_equal(ours.insitu.data, theirs.insitu.data)
    assert ours.satellite.equals(theirs.satellite)
    assert intake_catalog.entry_digest(named, "all.cells") == intake_catalog.entry_digest(
        plain, "cells"
    )
    for name, known in (("all.cell", "did you mean 'cells'"), ("none.cells", "entries: all")):
        with pytest.raises(ConfigError, match=known):
            intake_catalog.find_entry(f"{folder}/main.yaml", name)
