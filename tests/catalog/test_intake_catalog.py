"""Catalogs: what a source must say of itself, and what is refused, by name and all at once."""

from pathlib import Path

import intake
import numpy as np
import pytest
import xarray as xr
import yaml

from pipeline.catalog import experiment_sources, intake_catalog
from pipeline.errors import ConfigError, DataError
from pipeline.experiment import load
from pipeline.experiment.variables import VARIABLES
from pipeline.sources.shared.units import linear_conversion

SCAN = yaml.safe_load(Path(intake_catalog.catalog_url("scan")).read_text())["sources"]


def opened(path, entry="cells"):
    return intake_catalog.open_source(load.load_experiment(str(path)), entry)


def refused(path, entry="cells", kind=DataError):
    with pytest.raises(kind) as caught:
        opened(path, entry)
    return caught.value


def rewrite(path, file, change):
    """Spoil one of a small world's files."""
    with xr.open_dataset(path.parent / file, engine="h5netcdf") as dataset:
        spoilt = change(dataset.load())
    spoilt.to_netcdf(path.parent / file, engine="h5netcdf")


def remap(path, entry, change):
    """Change one entry of a small world's catalog."""
    file = path.parent / "catalog.yaml"
    tree = yaml.safe_load(file.read_text())
    change(tree["sources"][entry])
    file.write_text(yaml.safe_dump(tree))


@pytest.mark.parametrize("entry", SCAN)
def test_every_entry_of_the_preset_says_what_it_is(entry):
    spec = SCAN[entry]
    assert spec["description"]
    keys = ("license", "time_convention", "support", "region", "period", "auth", "native_units")
    for key in (*keys, "doi", "origin"):
        assert str(spec["metadata"][key]).strip(), key
    assert spec["metadata"]["support"] in ("cell", "footprint", "site")
    mapping = spec["args"]["mapping"]
    for part in mapping if isinstance(mapping, list) else [mapping]:
        for name, variable in part.items():
            assert variable.get("to", variable["units"]) == VARIABLES[name].units, name


@pytest.mark.parametrize("entry", SCAN)
def test_without_the_data_one_line_names_both_public_origins(entry, monkeypatch):
    monkeypatch.delenv("SOILWEAVE_DATA", raising=False)
    error = refused("scan", entry)
    assert "SOILWEAVE_DATA" in str(error)
    assert "github.com/fkwai/geolearn" in str(error)
    assert "AWDB" in str(error)
    assert "\n" not in str(error)


def test_an_empty_data_folder_names_the_file_and_its_origin(monkeypatch, tmp_path):
    monkeypatch.setenv("SOILWEAVE_DATA", str(tmp_path))
    error = refused("scan", "cells36")
    assert str(tmp_path / "conus36_smap_nldas.nc") in str(error)
    assert "github.com/fkwai/geolearn" in str(error)
    assert "\n" not in str(error)


def test_an_unknown_entry_or_catalog_is_refused_with_what_there_is(snow):
    text = str(refused(snow, "cels", ConfigError))
    assert "no entry 'cels'; did you mean 'cells'?" in text
    assert "entries: cells, footprints, sites" in text
    experiment = load.load_experiment(str(snow), ["sources.catalog=scam"])
    with pytest.raises(ConfigError, match=r"catalog 'scam': not found.*scan"):
        intake_catalog.open_source(experiment, "cells")


def test_metadata_that_is_missing_is_listed(snow):
    remap(snow, "cells", lambda spec: [spec["metadata"].pop(k) for k in ("license", "support")])
    text = str(refused(snow, kind=ConfigError))
    assert "metadata 'license' missing" in text
    assert "metadata 'support' missing" in text


def test_every_fault_of_a_file_is_listed_at_once(snow):
    def spoil(dataset):
        dataset["T2C"].attrs["units"] = "K"
        days = dataset.time.values.copy()
        days[7] = days[6]
        return dataset.drop_vars("ELEV").assign_coords(time=days)

    rewrite(snow, "cells.nc", spoil)
    error = refused(snow)
    assert str(snow.parent / "cells.nc") in str(error)
    assert any("ELEV: missing; the file has ['SNOWF', 'T2C']" in p for p in error.problems)
    assert any("T2C: units 'K', expected 'degC'" in p for p in error.problems)
    assert any("day 2019-11-26 comes after 2019-11-26" in p for p in error.problems)
    assert len(error.problems) == 3


def test_places_without_positions_or_under_another_dim_are_refused(snow):
    rewrite(snow, "sites.nc", lambda ds: ds.drop_vars("lat").rename(station="probe"))
    text = str(refused(snow, "sites"))
    assert "coordinate lat missing" in text
    assert "dim station missing; dims are" in text


def test_a_truncated_file_is_refused(snow):
    file = snow.parent / "cells.nc"
    file.write_bytes(file.read_bytes()[:-5000])
    error = refused(snow)
    assert str(file) in str(error)
    assert "truncated" in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("content", [b"", b"lat,lon\n1,2\n"])
def test_a_file_of_another_kind_is_refused(snow, content):
    (snow.parent / "cells.nc").write_bytes(content)
    assert "no NetCDF-4" in str(refused(snow))


def test_an_absent_file_is_refused_and_has_no_digest(snow):
    (snow.parent / "cells.nc").unlink()
    assert "cells.nc: not found" in str(refused(snow))
    with pytest.raises(DataError, match=r"cells\.nc: not found"):
        intake_catalog.entry_digest(load.load_experiment(str(snow)), "cells")


def test_names_and_units_that_the_table_lacks_are_all_listed(snow):
    def spoil(spec):
        mapping = spec["args"]["mapping"]
        mapping["snowfal"] = mapping.pop("snowfall")
        del mapping["air_temperature"]["to"]

    remap(snow, "cells", spoil)
    text = str(refused(snow))
    assert "snowfal: no variable of that name; did you mean 'snowfall'?" in text
    assert "air_temperature: units 'degC', expected 'K'; add `to: K` to the mapping" in text
    assert "catalog entry cells" in text


def test_units_of_another_dimension_are_listed_with_the_other_faults(snow):
    def spoil(spec):
        mapping = spec["args"]["mapping"]
        mapping["elevation"]["units"] = "K"
        mapping["snowfal"] = mapping.pop("snowfall")

    remap(snow, "cells", spoil)
    rewrite(snow, "cells.nc", lambda ds: ds.assign(ELEV=ds.ELEV.assign_attrs(units="K")))
    text = str(refused(snow))
    assert "elevation: units 'K', expected 'm'" in text
    assert "snowfal: no variable of that name" in text


@pytest.mark.parametrize("spelling", ["furlongs per fortnite", "K"])
def test_a_unit_that_cannot_be_converted_is_refused_naming_file_and_variable(snow, spelling):
    remap(snow, "cells", lambda spec: spec["args"]["mapping"]["snowfall"].update(units=spelling))
    rewrite(snow, "cells.nc", lambda ds: ds.assign(SNOWF=ds.SNOWF.assign_attrs(units=spelling)))
    text = str(refused(snow))
    assert spelling in text
    assert "SNOWF" in text
    assert "cells.nc" in text


@pytest.mark.parametrize(
    ("found", "wanted", "value", "expected"),
    [
        ("kg m-2 h-1", "kg m-2 day-1", 0.5, 12.0),
        ("degC", "K", -40.0, 233.15),
        ("K", "degC", 300.0, 26.85),
        ("percent", "1", 55.0, 0.55),
        ("g cm-3", "kg m-3", 1.3, 1300.0),
        ("m3 m-3", "percent", 0.25, 25.0),
        ("m s-1", "m s-1", 3.0, 3.0),
    ],
)
def test_units_are_converted(found, wanted, value, expected):
    slope, offset = linear_conversion(found, wanted)
    assert slope * value + offset == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("found", "wanted"), [("smoots", "m"), ("m", "K"), ("", "furlongs?")])
def test_units_that_do_not_convert_are_refused(found, wanted):
    with pytest.raises(DataError, match=rf"units '{found}'"):
        linear_conversion(found, wanted)


def test_plain_intake_gives_our_names_and_units(snow):
    dataset = intake.open_catalog(str(snow.parent / "catalog.yaml"))["cells"].to_dask()
    raw = xr.open_dataset(snow.parent / "cells.nc", engine="h5netcdf")
    units = {name: dataset[name].attrs["units"] for name in dataset.data_vars}
    assert units == {"snowfall": "kg m-2 day-1", "air_temperature": "K", "elevation": "m"}
    assert dataset["snowfall"].dims == ("time", "place")
    assert dataset["snowfall"].dtype == np.float32
    np.testing.assert_allclose(dataset["snowfall"], 24 * raw["SNOWF"].T, rtol=1e-6)
    np.testing.assert_allclose(dataset["air_temperature"], raw["T2C"].T + 273.15, rtol=1e-6)
    np.testing.assert_array_equal(dataset["lat"], raw["lat"])
    raw.close()


def test_plain_intake_opens_the_preset(real_data):
    entries = intake.open_catalog(intake_catalog.catalog_url("scan"))
    for name in SCAN:
        dataset = entries[name].to_dask()
        for variable in set(dataset.data_vars) - {"provider_flag"}:
            assert dataset[variable].attrs["units"] == VARIABLES[variable].units
    assert entries["scan_sites"].to_dask().place.values[0] == "2038"
    assert set(entries) == set(SCAN)


def test_faults_of_several_entries_are_told_together(snow):
    with xr.open_dataset(snow.parent / "sites.nc", engine="h5netcdf") as opened:
        sites = opened.load()
    sites["HS"].attrs["units"] = "cm"
    sites.to_netcdf(snow.parent / "sites.nc", engine="h5netcdf")
    (snow.parent / "footprints.nc").unlink()
    with pytest.raises(DataError) as caught:
        experiment_sources.open_sources(load.load_experiment(str(snow)))
    told = str(caught.value)
    assert "2 problems" in told
    assert "footprints.nc: not found" in told
    assert "HS: units 'cm', expected 'm'" in told


def test_another_file_is_opened_as_an_entry_whose_own_place_is_unknown(monkeypatch):
    """`score --sites` reads a user's file, and needs neither SOILWEAVE_DATA nor a planet."""
    monkeypatch.delenv("SOILWEAVE_DATA", raising=False)
    for preset, entry in (("scan", "scan_sites"), ("demo", "sites")):
        experiment = load.load_experiment(preset)
        assert intake_catalog.driver_of_entry(experiment, entry, "mine.nc").urlpath == "mine.nc"
