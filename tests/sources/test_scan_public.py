"""The public scan: from the set's repository and AWDB comes what the files of `scan` hold."""

from __future__ import annotations

from datetime import date

import miniatures_scan
import numpy as np
import pytest
from miniatures_scan import CONSTANTS, DAYS, PERIOD, opened

from pipeline.catalog import intake_catalog
from pipeline.errors import DataError
from pipeline.experiment import load
from pipeline.sources import geolearn, points
from pipeline.sources.awdb.service import humidity_in_standard_atmosphere

CELLS, SITES = ((40.0, -100.0), (41.0, -101.0)), ("2001:NE:SCAN", "2002:NE:SCAN")
SERIES = ("APCP", "TMP_2", "SPFH_2", "DSWRF", "DLWRF", "UGRD_10", "VGRD_10")


@pytest.fixture
def made_up(tmp_path):
    """Two cells and two sites, the second beside the second cell, of round numbers."""
    rng = np.random.default_rng(5)
    series = {f"{n}_FORA": rng.random((2, len(DAYS))).astype("float32") for n in SERIES}
    series["TMP_2_FORA"] += 280
    series["SMAP_AM"] = np.where(rng.random((2, len(DAYS))) < 0.5, np.nan, 0.2).astype("float32")
    constants = {n: rng.random(2).astype("float32") for n in CONSTANTS}
    miniatures_scan.geolearn(tmp_path / "set", np.array(CELLS), DAYS, series, constants)
    mini = miniatures_scan.Awdb()
    for triplet, lat in zip(SITES, (40.1, 40.8), strict=True):
        mini.add_site(triplet, lat, -100.1 - (lat > 40.5), 0.0, -6.0)
        hours = np.full((len(DAYS), 24), 20.0)
        mini.add(triplet, "SMS:-2", DAYS, hours)
        mini.add(triplet, "STO:-2", DAYS, hours + 30)
        mini.add(triplet, "TAVG", DAYS, np.full(len(DAYS), 50.0))
        mini.add(triplet, "RHUM", DAYS, hours * 4)
    mini.add(SITES[0], "PRCP", DAYS, np.where(np.arange(len(DAYS)) == 3, 99.0, 0.5))
    mini.add(SITES[0], "LRADT", DAYS, np.full(len(DAYS), 500.0))
    with miniatures_scan.published(tmp_path, mini, ["2001", "2002"]) as (site, path):
        yield site, path, series, constants


def test_cells_of_the_repository(made_up):
    site, path, series, constants = made_up
    source = opened(path, "cells36")
    made = source.to_dask()
    fetched = [p.rpartition("/")[2] for p in site.paths()]
    assert fetched == ["crd.csv", "timeStr.csv", "timeStr.csv"]  # the rest is lazy
    assert list(made.place.values) == ["0", "1"]
    np.testing.assert_array_equal(np.stack([made.lat, made.lon], 1), CELLS)
    np.testing.assert_array_equal(made.time.values.astype("datetime64[D]"), DAYS)
    np.testing.assert_array_equal(made.shortwave.values, series["DSWRF_FORA"].T)
    np.testing.assert_allclose(made.precipitation, series["APCP_FORA"].T * 24, rtol=1e-6)
    assert made.precipitation.attrs["units"] == "kg m-2 day-1"
    np.testing.assert_array_equal(made.sand.values, constants["Sand"])
    satellite = opened(path, "smap36").to_dask()["soil_moisture"]
    np.testing.assert_array_equal(satellite.values, series["SMAP_AM"].T)
    assert satellite.dtype == np.float32
    assert np.isnan(satellite.values).any()


def test_only_years_of_the_period_are_fetched(made_up):
    site, path, _, _ = made_up
    source = opened(path, "cells36", (date(2016, 3, 30), date(2016, 3, 31)))
    made = source.to_dask()
    assert str(made.time.values[-1])[:10] == "2016-03-31"
    made.load()
    assert not [p for p in site.paths() if "/2016/" in p]
    with pytest.raises(DataError, match=r"entry's period is 2015-04-01\.\.2018-03-31"):
        opened(path, "cells36", (date(2019, 1, 1), date(2019, 2, 1))).to_dask()


def test_damaged_files_of_the_repository_are_told(made_up, tmp_path):
    _, path, _, _ = made_up
    folder = tmp_path / "set" / "2015"
    good = (folder / "DSWRF_FORA.csv").read_text()
    for bad, words in (
        (good[: len(good) * 3 // 4], "truncated"),  # in the middle of a row
        (good[: good.index("\n") + 1], "1 x 41 numbers, expected 2 x 41"),
        ("<html>", "expected a table of numbers"),
    ):
        (folder / "DSWRF_FORA.csv").write_text(bad)
        with pytest.raises(DataError, match=words) as error:
            opened(path, "cells36").to_dask().shortwave.load()
        assert "set/2015/DSWRF_FORA.csv" in str(error.value)
    (folder / "DSWRF_FORA.csv").unlink()
    with pytest.raises(DataError, match=r"DSWRF_FORA.csv: not found"):
        opened(path, "cells36").to_dask().shortwave.load()
    days = (folder / "timeStr.csv").read_text().splitlines()
    (folder / "timeStr.csv").write_text("\n".join(days[:4] + days[5:]))
    with pytest.raises(DataError, match="days are not consecutive: day 2016-02-25 does not follow"):
        opened(path, "cells36").to_dask()


def test_the_digest_of_the_set_tells_its_values_alone(made_up, tmp_path):
    _, path, _, _ = made_up
    first = opened(path, "smap36").digest()
    source = opened(path, "smap36")
    source.urlpath = str(tmp_path / "set")  # a copy
    assert source.digest() == first
    file = tmp_path / "set" / "2016" / "SMAP_AM.csv"
    file.write_text(file.read_text().replace("0.2", "0.3", 1))
    geolearn.read_table.cache_clear()
    assert source.digest() != first


def test_what_a_site_lacks_comes_from_the_nearest_cell(made_up):
    _, path, series, constants = made_up
    made = opened(path, "scan_sites").to_dask().load()
    assert list(made.place.values) == ["2001", "2002"]
    assert (made.distance_km.values < 30).all()
    rain = np.full(len(DAYS), 12.7)
    rain[3] = series["APCP_FORA"][0, 3] * 24  # 99 inches are not believed
    np.testing.assert_allclose(made.precipitation[:, 0], rain, rtol=1e-6)
    np.testing.assert_allclose(made.precipitation[:, 1], series["APCP_FORA"][1] * 24, rtol=1e-6)
    np.testing.assert_allclose(made.shortwave[:, 0], 500 * 41840 / 86400, rtol=1e-6)
    np.testing.assert_array_equal(made.shortwave[:, 1], series["DSWRF_FORA"][1])
    np.testing.assert_array_equal(made.longwave.values, series["DLWRF_FORA"].T)
    np.testing.assert_array_equal(made.clay.values, constants["Clay"])
    np.testing.assert_allclose(made.air_temperature, 283.15, rtol=1e-6)
    humidity = humidity_in_standard_atmosphere(80.0, 283.15, 0.0)
    np.testing.assert_allclose(made.specific_humidity, humidity, rtol=1e-5)
    np.testing.assert_allclose(made["soil_moisture"], 0.2, rtol=1e-6)
    np.testing.assert_allclose(made.soil_temperature, 10.0, rtol=1e-6)
    assert made.precipitation.attrs["units"] == "kg m-2 day-1"
    assert made.precipitation.dtype == np.float32
    assert made.provider_flag.attrs["good"]


def test_the_digest_of_both_tells_either(made_up):
    _, path, _, _ = made_up
    first = opened(path, "scan_sites").digest()
    assert first == opened(path, "scan_sites").digest()
    other = opened(path, "scan_sites", (PERIOD[0], date(2016, 4, 9)))
    assert other.digest() != first
    with pytest.raises(ValueError, match="open this entry from a catalog"):
        points.FilledSource("a", "b").to_dask()


def test_the_experiment_differs_from_scan_in_its_catalog_alone():
    mine, theirs = (load.load_experiment(n).model_dump() for n in ("scan-public", "scan"))
    differing = {key for key in mine if mine[key] != theirs[key]}
    assert differing == {"name", "title", "sources"}
    assert mine["sources"] == theirs["sources"] | {"catalog": "scan-public"}


def test_the_pipeline_opens_the_entries(made_up, tmp_path):
    _, path, _, _ = made_up
    period = [str(day) for day in PERIOD]
    settings = [f"{key}={period}" for key in ("period", "train_period", "test_period")]
    experiment = load.load_experiment("scan-public", [f"sources.catalog={path}", *settings])
    for entry in intake_catalog.cube_entries(experiment):
        assert intake_catalog.open_source(experiment, entry).sizes["place"] == 2
        assert len(intake_catalog.entry_digest(experiment, entry)) == 64
