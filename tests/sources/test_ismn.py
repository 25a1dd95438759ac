"""ISMN archives: both layouts, zips and folders, days, flags, depths; and damaged ones."""

import datetime
import pickle
import zipfile

import intake
import miniatures_insitu
import numpy as np
import pytest
import web
import xarray as xr
import yaml
from miniatures_insitu import Sensor, hours

from pipeline.catalog import quality_control
from pipeline.errors import DataError
from pipeline.experiment.config import QcConfig
from pipeline.experiment.variables import VARIABLES
from pipeline.sources.ismn import IsmnSource
from pipeline.sources.ismn import archive as ismn_archive
from pipeline.sources.shared import sites, time_steps

MAPPING = {
    "soil_moisture": {"from": "soil_moisture", "units": "m3 m-3"},
    "soil_temperature": {"from": "soil_temperature", "units": "degC"},
}

# Days of the main site, from 28 February of a leap year on: good, good for 13 hours, frozen for
# most, missing for most, and too short.
BAD = {1: "D04", 2: "D02,D03", 3: "M"}
N_GOOD = {0: 24, 1: 13, 2: 5, 3: 11, 4: 9}


def flag(i):
    day, hour = divmod(i, 24)
    return "G" if hour < N_GOOD[day] or day not in BAD else BAD[day]


def value(i):
    return -9999 if flag(i) == "M" else 0.1 + i // 24 / 100 + (0.05 if flag(i) != "G" else 0)


def archive(**changes):
    main = Sensor("RSMN", "Adamclisi", 44.08829, 27.96591, hours("2024-02-28", 105, value, flag))
    warm = Sensor(
        *("RSMN", "Adamclisi", 44.08829, 27.96591),
        hours("2024-02-28", 105, lambda i: 5 + i % 24, lambda i: "C02" if 48 <= i < 72 else "G"),
        variable="soil_temperature",
    )
    scan = [
        Sensor(
            *("SCAN", "Isbell-Farms", 34.82, -179.0),
            hours("2024-02-29", n, lambda i, at=at: at + i // 24 / 10),
            depth=(0.0508, 0.0508),
            name=f"Hydraprobe-Analog-(2.5-Volt)-{name}",
        )
        for name, n, at in (("A", 48, 0.3), ("B", 72, 0.2))
    ]
    deep = Sensor("RSMN", "Adamclisi", 44.08829, 27.96591, hours("2024-02-28", 24, float))
    deep.depth = (0.2, 0.2)
    air = Sensor("RSMN", "Adamclisi", 44.08829, 27.96591, hours("2024-02-28", 24, float))
    air.depth, air.variable = (-2.0, -2.0), "air_temperature"
    french = Sensor("FR_Aqui", "fraye", 44.46713, -0.7269, hours("2024-03-01", 24, lambda i: 0.25))
    return [main, warm, *scan, deep, air, french]


@pytest.fixture
def folder(tmp_path):
    return miniatures_insitu.write_ismn(tmp_path / "given" / "Data_separate_files", archive())


def opened(path, **kwargs):
    return IsmnSource(str(path), MAPPING, **kwargs).to_dask()


def of(dataset, place, name="soil_moisture"):
    return dataset[name].sel(place=place).values


@pytest.mark.parametrize("layout", ["header_values", "ceop"])
def test_days_of_both_layouts(tmp_path, layout):
    folder = miniatures_insitu.write_ismn(tmp_path / "archive", archive(), layout)
    before = sorted(tmp_path.rglob("*"))
    dataset = opened(folder).load()
    assert sorted(tmp_path.rglob("*")) == before  # nothing is written beside the user's data
    assert list(dataset.place.values) == ["FR_Aqui_fraye", "RSMN_Adamclisi", "SCAN_Isbell-Farms"]
    days = np.arange("2024-02-28", "2024-03-04", dtype="datetime64[D]")
    np.testing.assert_array_equal(dataset.time.values, days.astype("datetime64[ns]"))
    assert dataset.attrs["time_convention"] == "UTC day"
    found = of(dataset, "RSMN_Adamclisi")
    frozen = (5 * 0.12 + 19 * 0.17) / 24
    np.testing.assert_allclose(found, [0.1, 0.11, frozen, 0.13, 0.14], rtol=1e-5)
    meanings = dict(
        zip(
            dataset.provider_flag.flag_values,
            dataset.provider_flag.flag_meanings.split(),
            strict=True,
        )
    )
    codes = of(dataset, "RSMN_Adamclisi", "provider_flag")
    assert [meanings.get(code) for code in codes] == ["G", "G", None, "M", "too_few_hours"]
    assert codes[2] == ismn_archive.flag_bits("D03,D02")
    warm = of(dataset, "RSMN_Adamclisi", "soil_temperature")
    np.testing.assert_allclose(warm, [16.5, 16.5, np.nan, 16.5, np.nan])
    assert np.isnan(of(dataset, "FR_Aqui_fraye", "soil_temperature")).all()
    assert dataset.soil_moisture.dtype == dataset.soil_temperature.dtype == "float32"
    where = dataset.sel(place="SCAN_Isbell-Farms")
    assert (float(where.lat), float(where.lon), float(where.elevation)) == (34.82, -179, 158)
    depth = 0.05 if layout == "ceop" else 0.0508
    assert float(where.depth_from) == float(where.depth_to) == pytest.approx(depth, abs=1e-3)
    assert (str(where.network.values), str(where.sensor.values)) == (
        "SCAN",
        "Hydraprobe-Analog-(2.5-Volt)-B",
    )


def test_what_is_dropped_is_counted_by_flag(folder):
    dataset = opened(folder).load()
    variable = VARIABLES["soil_moisture"]
    values, dropped = quality_control.screen_sites(
        dataset, "soil_moisture", variable, QcConfig(stuck_days=None)
    )
    counts = {rule: int(rejected.sum()) for rule, rejected in dropped.items()}
    wanted = {"provider: M": 1, "provider: D02,D03": 1, "provider: too_few_hours": 1}
    assert {rule: n for rule, n in counts.items() if rule.startswith("provider")} == wanted
    place = list(dataset.place.values).index("RSMN_Adamclisi")
    np.testing.assert_array_equal(np.isfinite(values[:, place]), [1, 1, 0, 0, 0])


def test_local_days_begin_at_local_midnight(folder):
    dataset = opened(folder, day="local").load()
    assert dataset.attrs["time_convention"] == "local standard time day"
    assert dict(zip(dataset.place.values, dataset.utc_offset_hours.values, strict=True)) == {
        "FR_Aqui_fraye": 0,
        "RSMN_Adamclisi": 2,
        "SCAN_Isbell-Farms": -12,
    }
    # 29 February 00:00 UTC is noon of the 28th there: 12 hours of each UTC day make a local day.
    found = dataset.soil_moisture.sel(place="SCAN_Isbell-Farms", time=slice("2024-02-28", None))
    np.testing.assert_allclose(found.values[:4], [0.2, 0.25, 0.35, 0.4], rtol=1e-6)


def test_several_sensors_and_other_depths(folder):
    mean = opened(folder, several="mean").load()
    np.testing.assert_allclose(
        of(mean, "SCAN_Isbell-Farms"), [np.nan, 0.25, 0.35, 0.4, np.nan], rtol=1e-6
    )
    np.testing.assert_array_equal(
        of(mean, "SCAN_Isbell-Farms", "provider_flag") == 1, [0, 1, 1, 1, 0]
    )
    deep = opened(folder, depth=(0.1, 0.3))
    assert list(deep.place.values) == ["RSMN_Adamclisi"]
    few = opened(folder, min_hours=5).load()
    np.testing.assert_allclose(of(few, "RSMN_Adamclisi")[2], 0.12, rtol=1e-6)
    with pytest.raises(
        DataError, match=r"no sensor of soil_moisture at 1 to 2 m; the archive has air"
    ):
        opened(folder, depth=(1, 2))


def test_only_the_period_and_region_are_read(folder, monkeypatch):
    source = IsmnSource(str(folder), MAPPING)
    source.period = (datetime.date(2024, 2, 29), datetime.date(2024, 3, 8))
    source.region = (170.0, 30.0, -170.0, 40.0)  # across the antimeridian
    dataset = source.to_dask()
    assert list(dataset.place.values) == ["SCAN_Isbell-Farms"]
    assert dataset.sizes["time"] == 9
    np.testing.assert_allclose(dataset.soil_moisture.values[:3, 0], [0.2, 0.3, 0.4], rtol=1e-6)
    assert np.isnan(dataset.soil_moisture.values[3:]).all()
    source.region = (0.0, 0.0, 1.0, 1.0)
    with pytest.raises(DataError, match="in the region"):
        source.to_dask()


def test_through_a_catalog_from_a_server(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = miniatures_insitu.zipped(folder)
    with web.serve(file.parent) as site:
        spec = {
            "driver": "pipeline.sources.ismn.IsmnSource",
            "args": {"urlpath": f"{site.url}/{file.name}", "mapping": MAPPING},
        }
        (tmp_path / "c.yaml").write_text(yaml.safe_dump({"sources": {"ismn": spec}}))
        source = intake.open_catalog(str(tmp_path / "c.yaml"))["ismn"]
        site.fails(r"\.zip$", 503)
        dataset = source.to_dask()
        there = source.digest()
        assert source.to_dask().place.size == 3
        whole = [a for a in site.asked if a[0] == "GET" and a[2] is None]
        assert len(whole) <= 3  # refused, asked for its size, fetched; later it is in the cache
    assert len(list((tmp_path / "cache").rglob("*.zip"))) == 1
    xr.testing.assert_identical(dataset.load(), opened(folder).load())
    urls = (file, folder, f"file://{file}")
    assert {there} == {IsmnSource(str(url), MAPPING).digest() for url in urls}
    text = next(folder.rglob("*fraye*.stm"))
    text.write_text(text.read_text().replace("0.2500", "0.2600"))
    assert IsmnSource(str(folder), MAPPING).digest() != there
    assert pickle.loads(pickle.dumps(dataset)).place.size == 3


def test_refusals(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with web.serve(tmp_path) as site:
        site.fails("gone", 403, 403, 403)
        with pytest.raises(DataError, match="refused") as told:
            opened(f"{site.url}/gone.zip?signature=s3cr3t")
        assert "s3cr3t" not in str(told.value)
        with pytest.raises(DataError, match="not found"):
            opened(f"{site.url}/none.zip")
    with pytest.raises(DataError, match="not found"):
        opened(tmp_path / "none.zip")
    with pytest.raises(ValueError, match="day: 'moon'; accepted: utc, local"):
        IsmnSource("x", MAPPING, day="moon")
    with pytest.raises(DataError, match="ISMN has no variable soil_wetness; accepted: soil_"):
        IsmnSource(str(folder), {"x": {"from": "soil_wetness", "units": "1"}}).to_dask()


def test_damaged_archives_are_named(folder, tmp_path):
    file = miniatures_insitu.zipped(folder)
    short = tmp_path / "short.zip"
    short.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(DataError, match="cannot be read as a zip file; it may be truncated"):
        opened(short)
    text = next(folder.rglob("*fraye*.stm"))
    whole = text.read_text()
    text.write_text(whole[:-12])  # the last line loses its flags
    with pytest.raises(DataError, match=r"fraye.*line 25 has no value or no flag; is it truncated"):
        opened(folder).load()
    text.write_text(whole.replace("0.2500 G", "wet G", 1))
    with pytest.raises(DataError, match=r"fraye.*has values that are not numbers"):
        opened(folder).load()
    text.write_text("")
    other = text.parent / "notes.stm"
    other.write_text("mine")
    with pytest.raises(DataError) as told:
        opened(folder)
    assert len(told.value.problems) == 2
    assert "fraye_sm" in told.value.problems[0]
    assert "notes.stm: the file name does not have the form" in told.value.problems[1]


def test_a_damaged_member_is_named_when_it_is_read(folder):
    file = miniatures_insitu.zipped(folder)
    dataset = opened(file)
    with zipfile.ZipFile(file) as archive:
        member = next(i for i in archive.infolist() if "fraye_sm" in i.filename)
    data = bytearray(file.read_bytes())
    begin = member.header_offset + 30 + len(member.filename)
    data[begin : begin + member.compress_size] = bytes(member.compress_size)
    file.write_bytes(data)
    with pytest.raises(DataError, match=r"fraye_sm.*cannot be read, truncated or damaged"):
        dataset.load()


def test_an_hour_told_twice_counts_once_and_fill_is_no_value():
    times = np.datetime64("2024-02-29T00") + np.array([0, 0, 1, 2], "timedelta64[h]")
    values = np.array([0.1, 0.9, 0.3, np.nan], np.float32)
    codes = time_steps.QualityCodes(good=1, few=2, missing=4)
    record = time_steps.SensorRecord(times.astype("datetime64[s]"), values, np.full(4, 1, np.int32))
    days = np.array(["2024-02-29", "2024-03-01"], "datetime64[D]")
    found = time_steps.average_days(record, days, codes, min_hours=2)
    np.testing.assert_allclose(found.values, [0.2, np.nan])
    np.testing.assert_array_equal(found.flags, [1, 4])
    short = time_steps.average_days(record, days, codes, min_hours=3)
    np.testing.assert_array_equal(short.flags, [4, 4])  # the hour without a value is missing
    assert [time_steps.utc_offset(lon) for lon in (-97.5, 179.9, 352.5, 0)] == [-6, 12, 0, 0]


def test_regions():
    lat, lon = [10, 10, 10, -60], [170, -170, 190, 175]
    np.testing.assert_array_equal(sites.is_inside(lat, lon, (165, 0, -165, 20)), [1, 1, 1, 0])
    np.testing.assert_array_equal(sites.is_inside(lat, lon, (-180, -90, 180, 90)), [1, 1, 1, 1])
    np.testing.assert_array_equal(sites.is_inside(lat, lon, (-175, 0, -160, 20)), [0, 1, 1, 0])
    assert sites.is_inside(lat, lon, None).all()


def test_the_target_leads_whatever_the_order(folder):
    turned = dict(reversed(MAPPING.items()))
    assert sites.target_first(turned) == ["soil_moisture", "soil_temperature"]
    xr.testing.assert_identical(
        IsmnSource(str(folder), turned).to_dask().load(), opened(folder).load()
    )
