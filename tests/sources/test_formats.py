"""Files as users have them: other formats, names, units and servers than the providers' own."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
from datetime import date

import cftime
import earthdata_server
import miniatures_raster
import numpy as np
import pytest
import web
import xarray as xr
import yaml
from miniatures_forcing import noise, to_zarr
from miniatures_smap import L3, Repository, Seen, item

from pipeline.catalog import intake_catalog
from pipeline.errors import DataError
from pipeline.experiment import load
from pipeline.sources.gridded import GriddedSource
from pipeline.sources.gridzarr import GridZarrSource
from pipeline.sources.points import PointsSource
from pipeline.sources.raster import RasterSource
from pipeline.sources.smap import SmapL3Source

DAYS = np.arange("2020-01-01", "2020-01-04", dtype="datetime64[D]").astype("datetime64[ns]")
LAT, LON = [10.0, 11.0], [20.0, 21.0, 22.0]
VALUES = np.arange(18, dtype="float32").reshape(3, 2, 3) + 280
MAPPING = {"air_temperature": {"from": "T", "units": "K"}}


def grid(**coords):
    axes = {"time": DAYS, "lat": LAT, "lon": LON} | coords
    return xr.Dataset({"T": (tuple(axes), VALUES, {"units": "K"})}, axes)


def problem(source):
    with pytest.raises(DataError) as caught:
        source.to_dask().load()
    return str(caught.value)


@pytest.mark.parametrize("form", ["NETCDF3_CLASSIC", "NETCDF3_64BIT"])
@pytest.mark.parametrize("packed", [False, True], ids=["as it is", "packed"])
def test_netcdf_3(tmp_path, form, packed):
    how = {"dtype": "int16", "scale_factor": 0.5, "add_offset": 280.0, "_FillValue": -1}
    data = grid()
    data["T"][0, 0, 0] = np.nan
    data.to_netcdf(
        tmp_path / "a.nc", format=form, engine="scipy", encoding={"T": how} if packed else {}
    )
    expected = VALUES.copy()
    expected[0, 0, 0] = np.nan
    found = GriddedSource(str(tmp_path / "a.nc"), MAPPING).to_dask()
    np.testing.assert_array_equal(found.air_temperature, expected)
    with web.serve(tmp_path) as site:
        found = GriddedSource(f"{site.url}/a.nc", MAPPING).to_dask()
        np.testing.assert_array_equal(found.air_temperature, expected)


def test_points_in_netcdf_3(tmp_path):
    held = {"T": (("time", "site"), VALUES[:, 0], {"units": "K"})}
    held |= {"lat": ("site", [1.0, 2, 3]), "lon": ("site", [4.0, 5, 6])}
    data = xr.Dataset(held, {"time": DAYS})
    data.to_netcdf(tmp_path / "a.nc", format="NETCDF3_64BIT", engine="scipy")
    found = PointsSource(str(tmp_path / "a.nc"), "site", MAPPING).to_dask()
    np.testing.assert_array_equal(found.air_temperature, VALUES[:, 0])


@pytest.mark.parametrize(
    ("begin", "told"), [(b"GRIB\0\0\0\2", "is GRIB"), (b"CDF\x05\0\0\0\0", "CDF-5")]
)
def test_other_formats_are_named(tmp_path, begin, told):
    (tmp_path / "a.nc").write_bytes(begin + bytes(1000))
    found = problem(GriddedSource(str(tmp_path / "a.nc"), MAPPING))
    assert told in found
    assert "fetch it again" not in found
    assert "convert it to NetCDF-4" in found


@pytest.mark.parametrize("order", [("swvl1", "lsm"), ("lsm", "swvl1")])
@pytest.mark.parametrize("kind", ["netcdf", "zarr"])
def test_variables_with_times_of_their_own(tmp_path, order, kind):
    """ERA5-Land from the Climate Data Store: `swvl1` is on `valid_time`, `lsm` on `time`."""
    units = {"swvl1": "m**3 m**-3", "lsm": "(0 - 1)"}
    held = {
        "swvl1": (
            ("valid_time", "latitude", "longitude"),
            VALUES / 1000,
            {"units": units["swvl1"]},
        ),
        "lsm": (("time", "latitude", "longitude"), VALUES[:1], {"units": units["lsm"]}),
    }
    axes = {"valid_time": DAYS, "time": DAYS[:1], "latitude": LAT, "longitude": LON}
    data = xr.Dataset({name: held[name] for name in order}, axes)
    ours = {"swvl1": "soil_moisture", "lsm": "water_fraction"}
    said = {"swvl1": {"units": "m3 m-3"}, "lsm": {"units": "(0 - 1)", "to": "(0 - 1)"}}
    if kind == "netcdf":
        data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    else:
        data.to_zarr(tmp_path / "a.zarr", zarr_format=2, consolidated=True)

    def opened(*names):
        mapping = {ours[name]: {"from": name, **said[name]} for name in names}
        if kind == "netcdf":
            return GriddedSource(str(tmp_path / "a.nc"), mapping).to_dask()
        return GridZarrSource(str(tmp_path / "a.zarr"), mapping).to_dask()

    found = opened("swvl1")
    np.testing.assert_array_equal(found.soil_moisture, VALUES / 1000)
    np.testing.assert_array_equal(found.time, DAYS)
    found = opened(*order)
    np.testing.assert_array_equal(found.soil_moisture, VALUES / 1000)
    np.testing.assert_array_equal(found.water_fraction, VALUES[0])  # one value is a constant
    assert found.water_fraction.dims == ("lat", "lon")


@pytest.mark.parametrize("spelled", ["m**3 m**-3", "m3/m3", "m^3 m^-3", "cm**3/cm**3", "m3 m-3"])
def test_units_of_points_are_equal_however_they_are_spelled(tmp_path, spelled):
    held = {"SM": (("time", "site"), VALUES[:, 0] / 1000, {"units": spelled})}
    held |= {"lat": ("site", [1.0, 2, 3]), "lon": ("site", [4.0, 5, 6])}
    xr.Dataset(held, {"time": DAYS}).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    mapping = {"soil_moisture": {"from": "SM", "units": "m3 m-3"}}
    found = PointsSource(str(tmp_path / "a.nc"), "site", mapping).to_dask()
    np.testing.assert_array_equal(found.soil_moisture, VALUES[:, 0] / 1000)


NAMED = {
    "capitals": {"Time": DAYS, "Lat": LAT, "Lon": LON},
    "another order of words": {"date": DAYS, "lats": LAT, "lons": LON},
    "short": {"t": DAYS, "nav_lat": LAT, "nav_lon": LON},
    "by units alone": {
        "when": DAYS,
        "rows": ("rows", LAT, {"units": "degrees_north"}),
        "columns": ("columns", LON, {"units": "degrees_east"}),
    },
    "by standard names": {
        "n": ("n", DAYS, {"standard_name": "time"}),
        "y": ("y", LAT, {"standard_name": "latitude"}),
        "x": ("x", LON, {"standard_name": "longitude"}),
    },
}


@pytest.mark.parametrize("kind", ["netcdf", "netcdf 3", "zarr 2", "zarr 3"])
@pytest.mark.parametrize("coords", NAMED.values(), ids=NAMED)
def test_a_grid_of_ones_own_with_any_names(tmp_path, coords, kind):
    data = xr.Dataset({"T": (tuple(coords), VALUES, {"units": "K"})}, coords)
    if kind.startswith("zarr"):
        data.to_zarr(tmp_path / "a.zarr", zarr_format=int(kind[-1]), consolidated=False)
        found = GridZarrSource(str(tmp_path / "a.zarr"), MAPPING).to_dask()
    else:
        data.to_netcdf(tmp_path / "a.nc", engine="scipy" if "3" in kind else "h5netcdf")
        found = GriddedSource(str(tmp_path / "a.nc"), MAPPING).to_dask()
    np.testing.assert_array_equal(found.air_temperature, VALUES)
    np.testing.assert_array_equal(found.lat, LAT)
    np.testing.assert_array_equal(found.lon, LON)
    np.testing.assert_array_equal(found.time, DAYS)


def test_dimensions_of_one_value_are_no_matter(tmp_path):
    """`height` of a model, `band` of a raster, `number` of an ensemble."""
    data = grid().expand_dims({"height": [2.0]}, 1).expand_dims("band")
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    found = GriddedSource(str(tmp_path / "a.nc"), MAPPING).to_dask()
    np.testing.assert_array_equal(found.air_temperature, VALUES)


def test_points_of_ones_own_with_any_names(tmp_path):
    held = {
        "T": (("Date", "station"), VALUES[:, 0], {"units": "K"}),
        "Latitude": ("station", [1.0, 2, 3]),
        "Longitude": ("station", [4.0, 5, 6]),
        "code": ("station", ["a", "b", "c"], {"cf_role": "timeseries_id"}),
    }
    xr.Dataset(held, {"Date": DAYS}).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    found = PointsSource(str(tmp_path / "a.nc"), "station", MAPPING).to_dask()
    np.testing.assert_array_equal(found.air_temperature, VALUES[:, 0])
    np.testing.assert_array_equal(found.lat, [1, 2, 3])
    assert list(found.place.values) == ["a", "b", "c"]


@pytest.mark.parametrize("calendar", ["360_day", "all_leap", "julian"])
@pytest.mark.parametrize("form", ["grid", "hours", "points"])
def test_a_calendar_that_is_not_ours_is_named(tmp_path, calendar, form):
    times = [cftime.datetime(2020, 2, 1 + i, calendar=calendar) for i in range(3)]
    if form == "points":
        held = {"T": (("time", "site"), VALUES[:, 0], {"units": "K"})}
        held |= {"lat": ("site", [1.0, 2, 3]), "lon": ("site", [4.0, 5, 6])}
        xr.Dataset(held, {"time": times}).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
        source = PointsSource(str(tmp_path / "a.nc"), "site", MAPPING)
    else:
        grid(time=times).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
        mapping = {"air_temperature": MAPPING["air_temperature"] | {"daily": "mean"}}
        source = GriddedSource(str(tmp_path / "a.nc"), MAPPING if form == "grid" else mapping)
    told = problem(source)
    assert f"calendar '{calendar}'" in told
    assert "accepted: standard" in told


@contextlib.contextmanager
def plain_server(folder):
    """Python's own server, which sends whole files whatever `Range` asks for."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_servers_that_send_whole_files_only(tmp_path):
    """Of files larger than what is asked for at once, whose parts are read."""
    many = noise(1, 3, 900, 900)
    axes = {"time": DAYS, "lat": np.arange(900) / 100, "lon": np.arange(900) / 100}
    data = xr.Dataset({"T": (tuple(axes), many, {"units": "K"})}, axes)
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    raster = noise(2, 1500, 1500)
    miniatures_raster.write(tmp_path / "a.tif", raster, "EPSG:4326", (0, 15), 0.01)
    L3("2015-04-06", [Seen(100, 240, 0.2, "2015-04-06T12:00:00.000Z")]).write(tmp_path)
    name = "SMAP_L3_SM_P_20150406_R19240_001.h5"
    smap = {"soil_moisture": {"from": "soil_moisture", "units": "cm**3/cm**3", "to": "m3 m-3"}}
    with plain_server(tmp_path) as url:
        found = GriddedSource(f"{url}/a.nc", MAPPING).to_dask()
        np.testing.assert_array_equal(found.air_temperature, many)
        mapping = {"sand": {"from": "1", "units": "percent"}}
        found = RasterSource(f"{url}/a.tif", mapping).to_dask()
        np.testing.assert_array_equal(found.sand, raster)
        found = SmapL3Source(smap, urlpath=f"{url}/{name}").to_dask()
        assert found.soil_moisture.values[0, 100, 240] == np.float32(0.2)


@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("status", [404, 403])
def test_a_store_that_cannot_be_listed(tmp_path, monkeypatch, consolidated, version, status):
    """HTTP lists nothing; a public bucket may answer 403 for what it does not hold."""
    to_zarr(grid(), tmp_path / "a.zarr", version, consolidated)
    end = web._Handler._end

    def refused(handler, code, *args, **how):
        return end(handler, status if code == 404 else code, *args, **how)

    monkeypatch.setattr(web._Handler, "_end", refused)
    with web.serve(tmp_path) as site:
        source = GridZarrSource(f"{site.url}/a.zarr", MAPPING)
        np.testing.assert_array_equal(source.to_dask().air_temperature, VALUES)
        assert len(source.digest()) == 64
        told = problem(GridZarrSource(f"{site.url}/b.zarr", MAPPING))
        assert ("not found" if status == 404 else "refused (403)") in told
        assert "expired" not in told


def test_a_refusal_tells_no_more_than_is_known(tmp_path):
    grid().to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with web.serve(tmp_path) as site:
        site.fails("a.nc", *[403] * 9)
        told = problem(GriddedSource(f"{site.url}/a.nc", MAPPING))
        assert "refused (403): either it does not exist, or it needs other credentials" in told
        assert "expired" not in told
    with web.serve(tmp_path) as site:
        site.token = "mine"
        told = problem(GriddedSource(f"{site.url}/a.nc", MAPPING))
        assert "refused (401): missing, wrong or expired credentials" in told  # it was tested


SMAP = {"soil_moisture": {"from": "soil_moisture", "units": "cm**3/cm**3", "to": "m3 m-3"}}


def smap(folder, *passes):
    return SmapL3Source(SMAP, urlpath=f"{folder}/*.h5", passes=list(passes or ("am",)))


def test_a_test_production_of_smap_never_wins(tmp_path):
    for production, value in (("R19240_001", 0.1), ("T99999_009", 0.4), ("R18290_002", 0.3)):
        seen = [Seen(100, 240, value, "2015-04-06T12:00:00.000Z")]
        L3("2015-04-06", seen, production=production).write(tmp_path)
    found = smap(tmp_path).to_dask().soil_moisture
    assert found.values[0, 100, 240] == np.float32(0.1)


def test_nor_does_it_in_the_archive(tmp_path):
    """Which granule is used is asked of CMR, where the test was made after the other."""
    made = [
        item(f"SMAP_L3_SM_P_20150406_{name}.h5", "https://absent", when)
        for name, when in (
            ("R19240_001", "2023-01-01T00:00:00.000Z"),
            ("T99999_001", "2024-01-01T00:00:00.000Z"),
        )
    ]
    with earthdata_server.serve() as nasa:
        nasa.repository = Repository(made)
        source = SmapL3Source(
            SMAP,
            collection={"short_name": "SPL3SMP", "version": "009"},
            repository=nasa.url,
        )
        source.period = (date(2015, 4, 6), date(2015, 4, 6))
        used = [one.name for one in source.granules().values()]
        assert used == ["SMAP_L3_SM_P_20150406_R19240_001.h5"]


@pytest.mark.parametrize("passes", [("am",), ("am", "pm")])
@pytest.mark.parametrize("first", [True, False], ids=["the first day", "a later day"])
def test_a_day_of_smap_without_its_morning_is_a_missing_day(tmp_path, passes, first):
    lacking, whole = ("2015-04-06", "2015-04-07")[:: 1 if first else -1]
    group = "Soil_Moisture_Retrieval_Data_AM"
    seen = [
        Seen(100, 240, 0.2, f"{lacking}T12:00:00.000Z"),
        Seen(100, 250, 0.3, f"{lacking}T18:00:00.000Z", key="pm"),
    ]
    L3(lacking, seen, renamed={group: None}).write(tmp_path)
    L3(whole, [Seen(100, 240, 0.1, f"{whole}T12:00:00.000Z")]).write(tmp_path)
    found = smap(tmp_path, *passes).to_dask().load().soil_moisture
    day, other = (0, 1) if first else (1, 0)
    assert found.values[other, 100, 240] == np.float32(0.1)
    assert np.isnan(found.values[day, 100, 240])
    evening = found.values[day, 100, 250]
    assert evening == np.float32(0.3) if "pm" in passes else np.isnan(evening)


def table(folder, rows):
    """An experiment whose sites are a table with its own forcing and static attributes."""
    path = folder / "a.csv"
    path.write_text("id,lat,lon,time,sm,rain,sand\n" + "\n".join(rows) + "\n")
    spec = {
        "driver": "pipeline.sources.table.TableSource",
        "args": {
            "urlpath": str(path),
            "columns": {"id": "id", "lat": "lat", "lon": "lon", "time": "time"},
            "depth": 0.05,
            "mapping": {
                "soil_moisture": {"from": "sm", "units": "m3 m-3"},
                "precipitation": {"from": "rain", "units": "kg m-2 day-1"},
                "sand": {"from": "sand", "units": "percent"},
            },
        },
        "metadata": {
            **dict.fromkeys(("support", "license", "time_convention", "period", "auth"), "none")
        },
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump({"sources": {"mine": spec}}))
    experiment = load.load_experiment("scan")
    return experiment, f"{folder / 'mine.yaml'}:mine"


def test_a_table_with_constants_of_its_own(tmp_path):
    rows = [f"a,1,2,2020-01-0{d},0.{d},1,30" for d in (1, 2, 3)]
    rows += [f"b,3,4,2020-01-0{d},0.{d},2,{sand}" for d, sand in ((1, ""), (2, 50), (3, 50))]
    found = intake_catalog.open_source(*table(tmp_path, rows))
    assert found.sand.dims == ("place",)
    np.testing.assert_array_equal(found.sand, [30, 50])
    assert found.sand.attrs["units"] == "percent"
    assert set(found.precipitation.dims) == {"time", "place"}


def test_a_constant_of_a_table_that_changes_is_named(tmp_path):
    rows = [f"a,1,2,2020-01-0{d},0.{d},1,{30 + d}" for d in (1, 2, 3)]
    with pytest.raises(DataError, match="sand: 31 to 33 at a, expected one value per site"):
        intake_catalog.open_source(*table(tmp_path, rows))


@pytest.mark.parametrize("units", ["-", "(0 - 1)", "10 K", "m3 m-3)", "1/", "mm [3h]-1"])
def test_units_that_are_none_are_named(tmp_path, units):
    data = grid()
    data["T"].attrs["units"] = units
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    told = problem(GriddedSource(str(tmp_path / "a.nc"), MAPPING))
    assert f"T: units '{units}', expected 'K'" in told


@pytest.mark.parametrize("units", ["-", "(0 - 1)", "fraction", "unitless", "1"])
def test_fractions_without_units_are_one(tmp_path, units):
    data = grid()
    data["T"].attrs["units"] = units
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    mapping = {"water_fraction": {"from": "T", "units": "1"}}
    found = GriddedSource(str(tmp_path / "a.nc"), mapping).to_dask()
    np.testing.assert_array_equal(found.water_fraction, VALUES)


@pytest.mark.parametrize(
    ("units", "calendar"),
    [
        ("months since 2020-01-01", "standard"),
        ("days since 2020-01-01", "none"),
        ("days since 0000-01-01", "standard"),
    ],
)
def test_a_time_that_cannot_be_decoded_is_no_damage(tmp_path, units, calendar):
    data = grid().drop_vars("time")
    data["time"] = ("time", [0, 1, 2], {"units": units, "calendar": calendar})
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    told = problem(GriddedSource(str(tmp_path / "a.nc"), MAPPING))
    assert "its time cannot be decoded" in told
    assert units in told
    assert "fetch it again" not in told
