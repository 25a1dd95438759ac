"""Zarr stores and Icechunk repositories: local, HTTP and S3; what is wrong is said, by name."""

import datetime
import json

import icechunk
import numpy as np
import pytest
import web
import xarray as xr
from miniatures_forcing import aorc, days, era5, hours, noise, to_zarr

from pipeline import files
from pipeline.errors import DataError
from pipeline.sources.grids.axes import read_file_grid
from pipeline.sources.gridzarr import GridZarrSource

TEMPERATURE = {"air_temperature": {"from": "t2m", "units": "K", "daily": "mean"}}
AORC = {"air_temperature": {"from": "TMP_2maboveground", "units": "K", "daily": "mean"}}
PLAIN = {"air_temperature": {"from": "T", "units": "K"}}


def problem(source, compute=False):
    """The one error of opening, or of reading what was opened."""
    with pytest.raises(DataError) as caught:
        source.to_dask().load() if compute else source.to_dask()
    return str(caught.value)


def daily_store(path, version=3, **changes):
    """Four days of a daily store on 3 x 4 cells, changed."""
    time = changes.get("time", days("2020-02-27", "2020-03-02"))
    values = noise(1, len(time), 3, 4) + 280
    coords = {"time": time, "lat": [10.0, 11, 12], "lon": [178.0, 179, 180, 181]}
    dataset = xr.Dataset({"T": (("time", "lat", "lon"), values, {"units": "K"})}, coords)
    to_zarr(dataset, path, version, T={"chunks": (1, 3, 2)})
    return dataset


def repository(storage, dataset):
    """An Icechunk repository with a group single/temporal; gives the snapshot's id."""
    made = icechunk.Repository.create(storage)
    session = made.writable_session("main")
    dataset.to_zarr(session.store, group="single/temporal", zarr_format=3, consolidated=False)
    return made, session.commit("first")


def test_icechunk_in_a_folder_at_a_branch_or_a_snapshot(tmp_path):
    held = era5("2020-02-28", "2020-03-02")
    made, first = repository(icechunk.local_filesystem_storage(str(tmp_path / "era5")), held)
    args = {"group": "single/temporal", "icechunk": {"branch": "main"}}
    source = GridZarrSource(str(tmp_path / "era5"), TEMPERATURE, **args)
    assert source.digest() == first
    expected = held.t2m.values.reshape(3, 24, 5, 12).mean(1)
    np.testing.assert_allclose(source.to_dask().air_temperature, expected, rtol=1e-6)
    session = made.writable_session("main")
    changed = held[["t2m"]] + 1
    changed.t2m.attrs["units"] = "K"
    changed.to_zarr(session.store, group="single/temporal", mode="a", consolidated=False)
    second = session.commit("second")
    assert source.digest() == second != first
    np.testing.assert_allclose(source.to_dask().air_temperature, expected + 1, rtol=1e-6)
    args["icechunk"] = {"snapshot": first}
    pinned = GridZarrSource(str(tmp_path / "era5"), TEMPERATURE, **args)
    np.testing.assert_allclose(pinned.to_dask().air_temperature, expected, rtol=1e-6)
    assert pinned.digest() == first
    args["icechunk"] = {"branch": "other"}
    assert "not found" in problem(GridZarrSource(str(tmp_path / "era5"), TEMPERATURE, **args))
    assert "not found" in problem(GridZarrSource(str(tmp_path / "none"), TEMPERATURE, **args))
    with pytest.raises(ValueError, match="expected one of branch, tag, snapshot"):
        GridZarrSource("s3://a/b", TEMPERATURE, icechunk={"main": "branch"})


def test_icechunk_and_yearly_stores_in_a_bucket(tmp_path, s3):
    held = era5("2020-02-28", "2020-02-29")
    storage = icechunk.s3_storage(
        bucket=s3.bucket,
        prefix="era5/icechunkV2",
        region="us-east-1",
        endpoint_url=s3.endpoint,
        allow_http=True,
        force_path_style=True,
        from_env=True,
    )
    repository(storage, held)
    args = {"group": "single/temporal", "icechunk": {"branch": "main"}}
    found = GridZarrSource(s3.url("era5", "icechunkV2"), TEMPERATURE, **args).to_dask()
    np.testing.assert_allclose(found.air_temperature[0], held.t2m.mean("valid_time"), rtol=1e-6)
    assert "not found" in problem(GridZarrSource(s3.url("era5", "V1"), TEMPERATURE, **args))
    both = [aorc(tmp_path, 2019, "2019-12-31", "2020-01-01"), None]
    both[1] = aorc(tmp_path, 2020, "2020-01-01", "2020-01-02")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            key = path.relative_to(tmp_path).as_posix()
            files.write_bytes(s3.url("aorc", key), path.read_bytes())
    args = {"period": "2019-12-31..2020-01-01"}
    source = GridZarrSource(s3.url("aorc", "%Y.zarr"), AORC, **args)
    expected = [year.TMP_2maboveground.values.mean(0) for year in both]
    np.testing.assert_allclose(source.to_dask().air_temperature, expected, rtol=1e-6)
    assert source.digest() == GridZarrSource(str(tmp_path / "%Y.zarr"), AORC, **args).digest()


@pytest.mark.parametrize("version", [2, 3])
def test_a_store_over_http(tmp_path, version):
    held = daily_store(tmp_path / "a.zarr", version)
    with web.serve(tmp_path) as site:
        source = GridZarrSource(f"{site.url}/a.zarr", PLAIN)
        found = source.to_dask()
        assert not [path for path in site.paths() if "/T/" in path and "zar" not in path[8:]]
        site.fails("/T/", 503)
        np.testing.assert_allclose(found.air_temperature, held["T"])
        np.testing.assert_array_equal(found.lon, held.lon)  # across the date line
        with web.serve(tmp_path) as other:
            assert source.digest() == GridZarrSource(f"{other.url}/a.zarr", PLAIN).digest()
        site.fails("/T/", 403)
        with pytest.raises(DataError, match=r"refused \(403\): either it does not exist"):
            found.air_temperature.load()
        assert "not found" in problem(GridZarrSource(f"{site.url}/b.zarr", PLAIN))
        site.token = "secret-of-mine"
        told = problem(GridZarrSource(f"{site.url}/a.zarr?sig=abc", PLAIN, login="token"))
        assert "refused (401)" in told
        assert "personal token" in told
        assert "abc" not in told
        options = {"headers": {"Authorization": "Bearer secret-of-mine"}}
        allowed = GridZarrSource(f"{site.url}/a.zarr", PLAIN, storage_options=options)
        np.testing.assert_allclose(allowed.to_dask().air_temperature, held["T"])


def test_what_is_not_in_a_store_or_in_other_units_is_told_at_once(tmp_path):
    daily_store(tmp_path / "a.zarr")
    mapping = PLAIN | {
        "precipitation": {"from": "P", "units": "mm", "by": "water", "daily": "sum"},
        "surface_pressure": {"from": "T", "units": "Pa"},
    }
    told = problem(GridZarrSource(str(tmp_path / "a.zarr"), mapping))
    assert "P: missing; the file has ['T']" in told
    assert "T: units 'K', expected 'Pa'" in told
    assert "not found" in problem(GridZarrSource(str(tmp_path / "b.zarr"), PLAIN))
    told = problem(GridZarrSource(str(tmp_path / "a.zarr"), PLAIN, group="none"))
    assert "not found" in told


@pytest.mark.parametrize(
    ("index", "told"),
    [
        ([0, 2, 1, 3], "day 2020-02-28 comes after 2020-02-29"),
        ([0, 1, 1, 2, 3], "day 2020-02-28 comes after 2020-02-28"),
        ([0, 1, 3], r"missing: 2020-02-29; get them from the provider, or set `gaps: allowed`"),
    ],
)
def test_days_shuffled_twice_or_missing(tmp_path, index, told):
    time = days("2020-02-27", "2020-03-02")[index]
    held = daily_store(tmp_path / "a.zarr", time=time)
    source = GridZarrSource(str(tmp_path / "a.zarr"), PLAIN)
    assert told in problem(source)
    if len(index) == 3:
        lenient = GridZarrSource(str(tmp_path / "a.zarr"), PLAIN, gaps=["02-29"])
        found = lenient.to_dask()
        assert found.attrs["missing_days"] == "2020-02-29"
        assert np.isnan(found.air_temperature[2]).all()
        np.testing.assert_allclose(found.air_temperature[[0, 1, 3]], held["T"])
        source.period = (datetime.date(2020, 2, 26), datetime.date(2020, 2, 28))
        assert "missing: 2020-02-26" in problem(source)
        source.period = (datetime.date(2021, 2, 26), datetime.date(2021, 2, 28))
        assert "has 2020-02-27 to 2020-03-01, but nothing of 2021-02-26" in problem(source)


def test_a_year_that_is_missing_or_cannot_be_decoded_is_named(tmp_path):
    for year in (2019, 2020, 2021):
        aorc(tmp_path, year, f"{year}-01-01", f"{year}-01-03")
    source = GridZarrSource(str(tmp_path / "%Y.zarr"), AORC, period="2019-01-01..2021-01-02")
    for name in (".zmetadata", "time/.zattrs"):
        path = tmp_path / "2020.zarr" / name
        path.write_text(path.read_text().replace("hours since 2020-01-01", "hours since then"))
    assert "2020.zarr: its time cannot be decoded" in problem(source)
    aorc(tmp_path, 2020, "2020-01-01", "2020-01-03")
    chunk = tmp_path / "2020.zarr" / "time" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    assert "2020.zarr: its time cannot be decoded" in problem(source)
    for path in sorted((tmp_path / "2020.zarr").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (tmp_path / "2020.zarr").rmdir()
    assert "2020.zarr: not found" in problem(source)


def test_a_damaged_chunk_is_named_when_it_is_read(tmp_path):
    aorc(tmp_path, 2020, "2020-01-01", "2020-01-03")
    path = tmp_path / "2020.zarr" / "TMP_2maboveground" / "1.0.0"
    path.write_bytes(b"no chunk")
    source = GridZarrSource(str(tmp_path / "%Y.zarr"), AORC, period="2020-01-01..2020-01-02")
    told = problem(source, compute=True)
    assert "2020.zarr: TMP_2maboveground: cannot be read, damaged" in told


def test_hours_without_a_rule_are_refused(tmp_path):
    to_zarr(era5("2020-01-01", "2020-01-02"), tmp_path / "a.zarr", 3)
    mapping = {"air_temperature": {"from": "t2m", "units": "K"}}
    told = problem(GridZarrSource(str(tmp_path / "a.zarr"), mapping))
    assert "day 2020-01-01 comes after 2020-01-01" in told
    mixed = TEMPERATURE | {"surface_pressure": {"from": "sp", "units": "Pa"}}
    told = problem(GridZarrSource(str(tmp_path / "a.zarr"), mixed))
    assert "24 steps a day, but no `daily` for surface_pressure" in told


def test_days_of_another_clock(tmp_path):
    held = era5("2020-01-01", "2020-01-04")
    to_zarr(held, tmp_path / "a.zarr", 3)
    source = GridZarrSource(str(tmp_path / "a.zarr"), TEMPERATURE, day={"offset_hours": -6})
    found = source.to_dask()
    assert [str(day)[:10] for day in found.time.values] == ["2020-01-01", "2020-01-02"]
    assert found.attrs["time_convention"] == "UTC-6 h day"
    expected = held.t2m.values[6:54].reshape(2, 24, 5, 12).mean(1)
    np.testing.assert_allclose(found.air_temperature, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("region", "lat", "lon"),
    [
        ((85, 34, 95, 41), (45, 30), (60, 120)),
        ((-125, 34, -115, 41), (45, 30), (210, 270)),  # 0 to 360 in the store
        ((-25, 34, 5, 41), (45, 30), (0, 330)),  # across its first column: all of them
        ((175, 34, -175, 41), (45, 30), (150, 210)),  # across the date line
    ],
)
def test_rows_and_columns_over_a_region(tmp_path, region, lat, lon):
    held = era5("2020-01-01", "2020-01-02")
    to_zarr(held, tmp_path / "a.zarr", 3)
    source = GridZarrSource(str(tmp_path / "a.zarr"), TEMPERATURE)
    source.region = region
    found = source.to_dask()
    assert (*found.lat.values[[0, -1]], *found.lon.values[[0, -1]]) == (*lat, *lon)
    expected = held.t2m.mean("valid_time").sel(latitude=found.lat, longitude=found.lon)
    np.testing.assert_allclose(found.air_temperature[0], expected, rtol=1e-6)


def test_a_long_axis_makes_no_long_graph(tmp_path):
    """A year of hours, one in a chunk, of which two days are wanted."""
    time = hours("2019-01-01", "2020-01-01")
    coords = {"valid_time": time, "latitude": [1.0, 2], "longitude": [3.0, 4]}
    dims = tuple(coords)
    held = xr.Dataset({"t2m": (dims, np.zeros((len(time), 2, 2), "f4"), {"units": "K"})}, coords)
    to_zarr(held, tmp_path / "a.zarr", 3, t2m={"chunks": (512, 2, 2)})
    source = GridZarrSource(str(tmp_path / "a.zarr"), TEMPERATURE)
    source.period = (datetime.date(2019, 5, 1), datetime.date(2019, 5, 2))
    found = source.to_dask()
    assert found.sizes["time"] == 2
    assert len(dict(found.air_temperature.__dask_graph__())) < 10


def test_a_projection_needs_even_steps_and_a_known_mapping(tmp_path):
    coords = {"y": [0.0, 1, 3], "x": ("x", [0.0, 1, 2], {"units": "km"})}
    raw = xr.Dataset({"T": (("y", "x"), np.zeros((3, 3)), {"grid_mapping": "crs"})}, coords)
    raw["crs"] = ((), 0, {"grid_mapping_name": "no_such_thing"})
    grid, problems = read_file_grid(raw, ["T"])
    assert grid is None
    assert problems[0].startswith("y: steps of 1 to 2 m; expected evenly spaced values")
    assert problems[1].startswith("grid mapping: does not describe a projection")
    raw = raw.assign_coords(y=[0.0, -1, -2])
    raw["crs"].attrs = {"crs_wkt": "EPSG:6933", "grid_mapping_name": "lambert_cylindrical"}
    grid, problems = read_file_grid(raw, ["T"])
    assert problems == []
    np.testing.assert_array_equal(grid.coords["x"][1], [0, 1000, 2000])


def test_a_store_of_format_3_without_consolidated_metadata(tmp_path):
    held = daily_store(tmp_path / "a.zarr")
    path = tmp_path / "a.zarr" / "zarr.json"
    document = json.loads(path.read_text())
    document.pop("consolidated_metadata")
    path.write_text(json.dumps(document))
    source = GridZarrSource(str(tmp_path / "a.zarr"), PLAIN)
    np.testing.assert_allclose(source.to_dask().air_temperature, held["T"])
    before = source.digest()
    daily_store(tmp_path / "a.zarr", time=days("2020-02-27", "2020-03-03"))
    assert source.digest() != before
