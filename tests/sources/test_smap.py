"""SMAP's daily retrievals, as published: days, passes, flags, versions, and faults."""

from __future__ import annotations

import importlib.resources
from datetime import date
from typing import TYPE_CHECKING

import earthdata_server
import intake
import numpy as np
import pytest
import web
import yaml
from miniatures_smap import L3, Repository, Seen, item

from pipeline.errors import DataError
from pipeline.grid import ease
from pipeline.planet import files
from pipeline.sources.shared import earthdata, http_errors
from pipeline.sources.smap import SmapL3Source

if TYPE_CHECKING:
    import xarray as xr


MAPPING = {"soil_moisture": {"from": "soil_moisture", "units": "cm**3/cm**3", "to": "m3 m-3"}}
CATALOG = importlib.resources.files("catalogs").joinpath("satellite.yaml")
ROW, COL = 100, 240  # in CONUS
CONUS = (-125.0, 25.0, -67.0, 50.0)
PERIOD = (date(2015, 4, 6), date(2015, 4, 6))


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(http_errors, "FIRST_WAIT_S", 0.01)


def at(dataset: xr.Dataset, name: str, row: int, col: int) -> np.ndarray:
    """(time,) values of a cell of the global grid, 36 km, wherever the dataset begins."""
    whole = ease.Window(0, 0, 406, 964, 1)
    place = {"lat": whole.cell_lat[row], "lon": whole.cell_lon[col]}
    return dataset[name].sel(place, method="nearest", tolerance=1e-6).values


def source(folder, period=PERIOD, region=CONUS, **args) -> SmapL3Source:
    made = SmapL3Source(MAPPING, urlpath=f"{folder}/*.h5", **args)
    made.period, made.region = period, region
    return made


def day(n: int, *seen: Seen, **args) -> L3:
    return L3(f"2015-04-{n:02d}", list(seen), **args)


def test_the_grid_form_of_the_morning(tmp_path):
    seen = Seen(ROW, COL, 0.21, "2015-04-06T12:31:07.123Z", 0)
    doubtful = Seen(ROW, COL + 1, 0.4, "2015-04-06T12:31:07.123Z", 1)
    evening = Seen(ROW, COL + 2, 0.3, "2015-04-06T00:31:07.123Z", 0, "pm")
    day(6, seen, doubtful, evening).write(tmp_path)
    dataset = source(tmp_path).to_dask()
    values = dataset.soil_moisture
    assert values.dims == ("time", "lat", "lon")
    assert values.dtype == "float32"
    assert values.attrs["units"] == "m3 m-3"
    assert (np.diff(dataset.lat) < 0).all()
    assert values.shape == (1, *ease.Window.from_bbox(*CONUS, 1).footprint_shape)
    assert np.isfinite(values.values).sum() == 2
    assert at(dataset, "soil_moisture", ROW, COL) == np.float32(0.21)
    assert at(dataset, "soil_moisture", ROW, COL + 1) == np.float32(0.4)  # QC is not the reader's
    assert at(dataset, "provider_flag", ROW, COL + 1) == 1
    assert at(dataset, "provider_flag", ROW, COL + 2) == 65535
    assert dataset.provider_flag.attrs["bad_bits"] == 1
    assert dataset.provider_flag.attrs["good"] == [0, 2, 4, 6, 8, 10, 12, 14]
    touching = dataset.lat_bnds.values
    np.testing.assert_array_equal(touching[1:, 0], touching[:-1, 1])


def test_both_passes_and_the_recommended_first(tmp_path):
    morning, evening = "2015-04-06T12:00:00.000Z", "2015-04-06T00:30:00.000Z"
    day(
        6,
        Seen(ROW, 240, 0.2, morning),
        Seen(ROW, 240, 0.4, evening, 8, "pm"),
        Seen(ROW, 241, 0.2, morning, 1),
        Seen(ROW, 241, 0.4, evening, 0, "pm"),
        Seen(ROW, 242, 0.2, morning, 1),
        Seen(ROW, 242, 0.4, evening, 9, "pm"),
        Seen(ROW, 243, 0.4, evening, 0, "pm"),
        Seen(ROW, 244, -9999, evening, 7, "pm"),
    ).write(tmp_path)
    dataset = source(tmp_path, passes=["am", "pm"]).to_dask().compute()
    found = [at(dataset, "soil_moisture", ROW, col).item() for col in range(240, 245)]
    np.testing.assert_allclose(found, [0.3, 0.4, 0.3, 0.4, np.nan], rtol=1e-6)
    flags = [at(dataset, "provider_flag", ROW, col).item() for col in range(240, 246)]
    assert flags == [8, 0, 9, 0, 7, 65535]
    alone = source(tmp_path, passes=["pm"]).to_dask()
    assert at(alone, "soil_moisture", ROW, 240) == np.float32(0.4)


def test_a_value_is_of_the_day_on_which_it_was_observed(tmp_path):
    east = 722  # 90 E, where it is 6 in the morning at midnight UTC
    day(5, Seen(ROW, east, 0.15, "2015-04-06T00:11:00.000Z")).write(tmp_path)
    day(
        6,
        Seen(ROW, east, 0.25, "2015-04-07T00:02:00.000Z"),
        Seen(ROW, east + 1, 0.26, "2015-04-06T23:59:59.999Z"),
    ).write(tmp_path)
    day(
        7,
        Seen(ROW, east + 1, 0.36, "2015-04-06T23:40:00.000Z"),
        Seen(ROW, east + 2, 0.37, "2015-04-06T23:40:00.000Z"),
        Seen(ROW, COL, 0.39, "2015-04-07T12:00:00.000Z"),
    ).write(tmp_path)
    whole = source(tmp_path, None, None).to_dask().compute()
    assert whole.time.values.astype("datetime64[D]").astype(str).tolist() == [
        "2015-04-05",
        "2015-04-06",
        "2015-04-07",
    ]
    series = [at(whole, "soil_moisture", ROW, col) for col in (east, east + 1, east + 2, COL)]
    nan = np.nan
    expected = [[nan, 0.15, 0.25], [nan, 0.26, nan], [nan, 0.37, nan], [nan, nan, 0.39]]
    np.testing.assert_allclose(series, expected, rtol=1e-6)
    alone = source(tmp_path, region=None).to_dask()  # the files beside the period are read too
    assert alone.sizes["time"] == 1
    assert at(alone, "soil_moisture", ROW, east) == np.float32(0.15)
    assert at(alone, "soil_moisture", ROW, east + 2) == np.float32(0.37)


def test_a_missing_day_is_a_gap_and_files_are_read_when_asked(tmp_path):
    for n in (1, 2, 4):
        day(n, Seen(ROW, COL, n / 10, f"2015-04-0{n}T12:00:00.000Z")).write(tmp_path)
    broken = tmp_path / day(6).name
    broken.write_bytes(b"\x89HDF\r\n\x1a\n")
    dataset = source(tmp_path, (date(2015, 4, 1), date(2015, 4, 6))).to_dask()
    first = dataset.isel(time=slice(4))  # of four days: the broken file is not read for them
    np.testing.assert_allclose(
        at(first, "soil_moisture", ROW, COL), [0.1, 0.2, np.nan, 0.4], rtol=1e-6
    )
    assert dataset.soil_moisture.chunks[0] == (1,) * 6
    with pytest.raises(DataError, match=r"20150406_R19240_001\.h5: cannot be read, truncated"):
        dataset.compute()


def test_the_enhanced_product(tmp_path):
    L3("2015-04-06", [Seen(400, 970, 0.21, "2015-04-06T12:31:07.123Z")], km=9).write(tmp_path)
    dataset = source(tmp_path).to_dask()
    whole = ease.Window(0, 0, 406, 964, 4)
    assert dataset.sizes["lat"] == ease.Window.from_bbox(*CONUS, 4).cell_shape[0]
    found = dataset.soil_moisture.sel(
        lat=whole.cell_lat[400], lon=whole.cell_lon[970], method="nearest", tolerance=1e-6
    )
    assert found.values == np.float32(0.21)
    assert np.isfinite(dataset.soil_moisture.values).sum() == 1


def test_a_region_across_180_degrees(tmp_path):
    time = "2015-04-06T18:30:00.000Z"
    day(6, Seen(200, 0, 0.1, time), Seen(200, 963, 0.2, time), Seen(20, 0, 0.3, time)).write(
        tmp_path
    )
    dataset = source(tmp_path, region=(175.0, -10.0, -175.0, 10.0)).to_dask()
    assert dataset.sizes["lon"] == 964
    assert at(dataset, "soil_moisture", 200, 0) == np.float32(0.1)
    assert at(dataset, "soil_moisture", 200, 963) == np.float32(0.2)
    assert dataset.lat.max() < 11


def test_the_files_that_a_planet_publishes(tmp_path):
    """What soilweave writes in this form is read as NASA's is."""
    window = ease.Window.from_bbox(-100, 35, -95, 40, 1)
    truth = np.full(window.footprint_shape, np.nan, np.float32)
    truth[2, 3] = 0.25
    when = np.datetime64("2015-04-06")
    (tmp_path / files.spl3smp_name(when)).write_bytes(
        files.spl3smp_bytes(truth, window, when, "soil_moisture")
    )
    values = source(tmp_path, region=(-100, 35, -95, 40)).to_dask().soil_moisture.values[0]
    np.testing.assert_array_equal(values, truth)


def test_the_latest_production_of_a_day_wins(tmp_path):
    time = "2015-04-06T12:00:00.000Z"
    for production, value in [("R18290_005", 0.1), ("R19240_002", 0.3), ("R19240_001", 0.2)]:
        day(6, Seen(ROW, COL, value, time), production=production).write(tmp_path)
    assert at(source(tmp_path).to_dask(), "soil_moisture", ROW, COL) == np.float32(0.3)


def test_a_digest_is_of_the_granules_not_of_their_place(tmp_path):
    made = day(6, Seen(ROW, COL, 0.1, "2015-04-06T12:00:00.000Z"))
    one, two = (source(made.write(tmp_path / name).parent) for name in "ab")
    day(8).write(tmp_path / "b")  # beside what is wanted
    assert one.digest() == two.digest()
    day(7).write(tmp_path / "b")
    assert one.digest() != two.digest()


AM = "Soil_Moisture_Retrieval_Data_AM"
UNLIMITED = {"valid_min": np.float32(-1e5)}
SEEN = Seen(ROW, COL, 0.2, "2015-04-06T12:00:00.000Z")


@pytest.mark.parametrize(
    ("spoiled", "told"),
    [
        ({"renamed": {AM: "Retrievals_AM"}}, f"group {AM}: missing; the file has .*Retrievals_AM"),
        ({"renamed": {"soil_moisture": None}}, f"{AM}/soil_moisture: missing"),
        ({"renamed": {"retrieval_qual_flag": "flag"}}, f"{AM}/retrieval_qual_flag: missing"),
        (
            {"attributes": {"soil_moisture": {"_FillValue": np.float32(0), **UNLIMITED}}},
            f"{AM}/soil_moisture: .* values such as -9999, which is not declared as missing",
        ),
        (
            {"fill": -999.0, "attributes": {"soil_moisture": UNLIMITED}},
            f"{AM}/soil_moisture: .* values such as -999, which is not declared as missing",
        ),
        (
            {"attributes": {"soil_moisture": {"units": np.bytes_("percent")}}},
            f"{AM}/soil_moisture: units 'percent', expected 'cm\\*\\*3/cm\\*\\*3'",
        ),
        (
            {"shift": 1},
            f"{AM}/EASE_row_index: 1 cells have another index .*, such as 101 at 100",
        ),
        (
            {"seen": [Seen(ROW, COL, 0.2, "2015-04-09T12:00:00.000Z")]},
            "tb_time_utc: 1 observations of another day, such as",
        ),
    ],
)
def test_faults_are_named(tmp_path, spoiled, told):
    good = day(5, Seen(ROW, COL, 0.1, "2015-04-05T12:00:00.000Z")).write(tmp_path / "good")
    arguments = {"seen": [SEEN]} | spoiled
    L3("2015-04-06", **arguments).write(tmp_path / "bad")
    with pytest.raises(DataError, match=rf"20150406_R19240_001\.h5: .*{told}"):
        source(tmp_path / "bad").to_dask().compute()
    good.rename(tmp_path / "bad" / good.name)  # and it need not be the first file
    dataset = source(tmp_path / "bad", (date(2015, 4, 5), date(2015, 4, 6))).to_dask()
    with pytest.raises(DataError, match=rf"20150406_R19240_001\.h5: .*{told}"):
        dataset.compute()


def test_no_file_and_no_date(tmp_path):
    with pytest.raises(DataError, match=r"no granule from 2015-04-05 to 2015-04-07"):
        source(tmp_path).to_dask()
    day(6).write(tmp_path).rename(tmp_path / "april.h5")
    with pytest.raises(DataError, match=r"april.h5: the file name has no date"):
        source(tmp_path).to_dask()
    with pytest.raises(DataError, match="files of an HTTP server cannot be listed"):
        source("http://127.0.0.1:9").to_dask()


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Three days at a host that wants a token, found through CMR."""
    monkeypatch.setenv("EARTHDATA_TOKEN", "planted-token")
    with web.serve(tmp_path) as site, earthdata_server.serve() as nasa:
        site.token = "planted-token"
        made = [
            day(6, Seen(ROW, COL, 0.9, "2015-04-06T12:00:00.000Z"), production="R19240_004"),
            day(6, Seen(ROW, COL, 0.2, "2015-04-06T12:00:00.000Z"), production="R19240_002"),
            day(7, Seen(ROW, COL, 0.4, "2015-04-07T12:00:00.000Z"), production="R19240_001"),
        ]
        produced = ["2024-01-01T00:00:00.000Z", "2024-06-02T00:00:00.000Z", "2024-06-02T00:00:00Z"]
        nasa.repository = Repository(
            [
                item(
                    one.name, f"{site.url}/deep", when, one.write(tmp_path / "deep").stat().st_size
                )
                for one, when in zip(made, produced, strict=True)
            ]
        )
        yield site, nasa


ENTRY = {
    "driver": "pipeline.sources.smap.SmapL3Source",
    "args": {
        "collection": {"short_name": "SPL3SMP", "version": "009"},
        "login": "earthdata",
        "mapping": MAPPING,
    },
}


def catalog(folder, entry: dict, **args):
    path = folder / "catalog.yaml"
    told = {"metadata": {"version": 1}, "sources": {"smap": entry | {"args": entry["args"] | args}}}
    path.write_text(yaml.safe_dump(told))
    return intake.open_catalog(str(path))["smap"]


def test_through_a_catalog_and_cmr(tmp_path, published):
    site, nasa = published
    entry = catalog(tmp_path, ENTRY, repository=nasa.url)
    dataset = entry.to_dask()
    found = at(dataset, "soil_moisture", ROW, COL)
    np.testing.assert_allclose(found, [0.2, 0.4], rtol=1e-6)  # produced last, whatever its name
    assert all(path.startswith("/deep/SMAP_L3_SM_P_2015040") for path in site.paths())
    assert {authorization for _, authorization in nasa.asked} == {None}  # CMR needs no token
    entry.period = PERIOD
    dataset = entry.to_dask()
    assert dataset.sizes["time"] == 1
    asked = nasa.repository.queries[-1]
    assert asked["short_name"] == "SPL3SMP"
    assert asked["temporal[]"] == "2015-04-05T00:00:00Z,2015-04-07T23:59:59Z"
    assert len(entry.digest()) == 64
    newer = {"short_name": "SPL3SMP", "version": "010"}
    entry = catalog(tmp_path, ENTRY, repository=nasa.url, collection=newer)
    with pytest.raises(DataError, match="collection SPL3SMP version 010: no granule at all"):
        entry.to_dask()


def test_refusals_are_told_and_busy_servers_asked_again(tmp_path, published, monkeypatch):
    site, nasa = published
    entry = catalog(tmp_path, ENTRY, repository=nasa.url)
    entry.period = PERIOD
    site.fails("/deep/", 503, 503)
    nasa.statuses = [503]
    assert at(entry.to_dask(), "soil_moisture", ROW, COL) == np.float32(0.2)
    dataset = entry.to_dask()
    site.fails("20150406", 403, 403)  # to HEAD and to GET
    with pytest.raises(DataError, match=r"_002.h5: refused \(403\).*Earthdata Login"):
        dataset.compute()
    site.answers.clear()
    site.token = "of-next-year"
    with pytest.raises(DataError, match=r"_00[12].h5: refused \(401\): .*expired") as told:
        dataset.compute()
    assert "planted-token" not in str(told.value)
    monkeypatch.delenv("EARTHDATA_TOKEN")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match=r"no credentials.*EARTHDATA_TOKEN"):
        dataset.compute()
    nasa.statuses = [503] * 9
    with pytest.raises(DataError, match="answers 503, asked 5 times"):
        entry.to_dask()


def test_a_moved_file_a_login_page_and_half_a_file(tmp_path, published):
    _, nasa = published
    entry = catalog(tmp_path, ENTRY, repository=nasa.url)
    entry.period = PERIOD
    path = tmp_path / "deep" / day(6, production="R19240_002").name
    whole = path.read_bytes()
    path.write_bytes(b"<!DOCTYPE html><title>Earthdata Login</title>")
    with pytest.raises(DataError, match=r"sent a web page instead of the file.*Earthdata Login"):
        entry.to_dask()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"_002\.h5: cannot be read, truncated"):
        entry.to_dask()
    path.unlink()
    with pytest.raises(DataError, match=r"_002\.h5: not found"):
        entry.to_dask()


def test_directly_from_the_bucket(tmp_path, s3, monkeypatch):
    made = day(6, Seen(ROW, COL, 0.2, "2015-04-06T12:00:00.000Z"))
    client = s3.client()
    client.upload_file(str(made.write(tmp_path)), s3.bucket, f"SMAP/{made.name}")
    client.close()
    monkeypatch.setenv("EARTHDATA_TOKEN", "planted-token")
    with earthdata_server.serve(token="planted-token", keys=(s3.key, s3.secret)) as nasa:
        monkeypatch.setitem(earthdata.KEY_ENDPOINTS, s3.bucket, f"{nasa.url}/s3credentials")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        nasa.repository = Repository(
            [item(made.name, "https://absent", "2024-01-01T00:00:00Z", 1, s3.url("SMAP"))]
        )
        entry = catalog(tmp_path, ENTRY, repository=nasa.url, direct=True)
        assert at(entry.to_dask(), "soil_moisture", ROW, COL) == np.float32(0.2)
        assert nasa.times("/s3credentials") == 1


def test_the_catalog(tmp_path, published):
    _, nasa = published
    entries = intake.open_catalog(str(CATALOG))
    assert sorted(entries) == ["smap36", "smap9", "smap_level4"]
    for name in entries:
        told = entries[name].metadata
        lacking = {"support", "license", "doi", "auth", "auth_note", "region", "native_grid"}
        lacking |= {"native_units", "time_convention", "period", "version", "origin", "volume"}
        assert lacking <= told.keys()
        assert told["verified"] is False
        assert str(entries[name].collection["version"]) == told["version"]
    found = entries["smap36"](repository=nasa.url).to_dask()
    np.testing.assert_allclose(at(found, "soil_moisture", ROW, COL), [0.2, 0.4], rtol=1e-6)
    assert entries["smap_level4"].min_steps == 8
