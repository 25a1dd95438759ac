"""USCRN's daily texts: listed by year, limited to a region, fetched together; and bad lines."""

import datetime
import shutil
from pathlib import Path

import intake
import miniatures_insitu
import numpy as np
import pytest
import web
import xarray as xr
import yaml
from miniatures_insitu import Row, uscrn_year

from pipeline.catalog import intake_catalog
from pipeline.errors import DataError
from pipeline.sources.shared import folders
from pipeline.sources.uscrn import UscrnSource

SOCORRO, MARY = "NM_Socorro_20_N", "MT_St._Mary_1_SSW"
BARROW, TIKSI = "AK_Utqiagvik_formerly_Barrow_4_ENE", "SA_Tiksi_4_SSE"
ENTRIES = yaml.safe_load(Path(intake_catalog.catalog_url("insitu")).read_text("utf-8"))["sources"]
ENTRY = ENTRIES["uscrn"]
MAPPING = ENTRY["args"]["mapping"]
YEARS = (datetime.date(2019, 12, 30), datetime.date(2020, 3, 2))


def soil(i):
    return "-99.000" if i == 1 else f"{0.1 + i / 1000:.3f}"


@pytest.fixture
def daily01(tmp_path):
    """Two years; one site comes in the second, of which a day in February is not there."""
    later = uscrn_year(MARY, 2020, soil)
    del later[45]
    later[0].air, later[0].rain, later[0].sun = "-9999.0", "-9999.0", "-9999.00"
    later[2].soil_temperature = "-9999.0"
    files = {
        (SOCORRO, 2019): uscrn_year(SOCORRO, 2019),
        (SOCORRO, 2020): uscrn_year(SOCORRO, 2020),
        (MARY, 2020): later,
        (BARROW, 2020): uscrn_year(BARROW, 2020),
        (TIKSI, 2019): uscrn_year(TIKSI, 2019),
    }
    folder = miniatures_insitu.write_uscrn(tmp_path / "products", files)
    (folder / "readme.txt").write_text("USCRN/USRCRN DAILY FILES\n")
    (folder / "snapshots").mkdir()
    return folder


@pytest.fixture
def site(daily01):
    """The same, as the provider serves it, with pages that list the folders."""
    folders._download.cache_clear()  # the port may be that of an earlier server
    with web.serve(daily01.parent) as site:
        site.made.append((r"/$", miniatures_insitu.index(daily01.parent)))
        yield site


def source(url, period=YEARS, region=None, mapping=MAPPING):
    made = UscrnSource(str(url), mapping)
    made.period, made.region = period, region
    return made


def test_what_the_digest_has_downloaded_is_not_downloaded_again(site):
    made = source(f"{site.url}/daily01")
    made.digest()
    files = [path for path in site.paths() if path.endswith(".txt")]
    assert len(files) == len({*files}) > 0
    made.to_dask().load()
    assert [path for path in site.paths() if path.endswith(".txt")] == files


def test_values_in_our_units(daily01):
    dataset = source(daily01).to_dask().load()
    assert list(dataset.place.values) == [BARROW, MARY, SOCORRO, TIKSI]
    assert dataset.attrs["time_convention"] == "local standard time day"
    days = np.arange("2019-12-30", "2020-03-03", dtype="datetime64[D]")  # with 29 February
    np.testing.assert_array_equal(dataset.time.values, days.astype("datetime64[ns]"))
    mary = dataset.sel(place=MARY)
    assert np.isnan(mary.soil_moisture.values[:2]).all()  # not there yet
    found = mary.soil_moisture.values[2:]
    np.testing.assert_allclose(found[[0, 2, 59]], [0.1, 0.102, 0.159], rtol=1e-6)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(found)), [1, 45])  # fill, no line
    np.testing.assert_allclose(mary.soil_temperature.values[2:5], [1.1, 1.1, np.nan], rtol=1e-6)
    for name, wanted in {"air_temperature": 265.65, "precipitation": 0.2, "shortwave": 100}.items():
        np.testing.assert_allclose(mary[name].values[2:4], [np.nan, wanted], rtol=1e-6)
    assert dataset.shortwave.attrs["units"] == "W m-2"
    assert dataset.soil_moisture.dtype == "float32"
    np.testing.assert_allclose(
        [mary.lat, mary.lon, mary.elevation], [48.74, -113.43, 4555 * 0.3048]
    )
    assert str(mary.network.values) == "USCRN"
    assert float(mary.depth_from) == float(mary.depth_to) == 0.05
    tiksi = dataset.sel(place=TIKSI).soil_moisture
    assert np.isfinite(tiksi.values).sum() == 2  # closed with 2019


def test_only_what_the_region_and_period_need_is_fetched(site):
    wanted = source(f"{site.url}/daily01", region=(-125.0, 25.0, -67.0, 50.0))
    dataset = wanted.to_dask()
    assert list(dataset.place.values) == [MARY, SOCORRO]
    assert not [path for path in site.paths() if "CRND" in path]  # nothing before it is asked for
    dataset.load()
    texts = sorted(path.rsplit("/", 1)[-1] for path in site.paths() if "CRND" in path)
    names = [(2019, SOCORRO), (2020, MARY), (2020, SOCORRO)]
    assert texts == [f"CRND0103-{year}-{name}.txt" for year, name in names]
    assert float(dataset.soil_moisture.sel(place=SOCORRO)[0]) == pytest.approx(0.259)


def test_through_a_catalog_from_a_server(site, daily01, tmp_path):
    spec = dict(ENTRY, args={"urlpath": f"{site.url}/daily01", "mapping": MAPPING})
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"sources": {"uscrn": spec}}))
    opened = intake.open_catalog(str(tmp_path / "c.yaml"))["uscrn"]
    site.fails(r"2020/$", 503)
    site.fails(r"2019-NM", 503, 429)
    dataset = opened.to_dask().load()
    assert dataset.sizes == {"time": 731, "place": 4}  # all years there are
    xr.testing.assert_identical(dataset, source(daily01, period=None).to_dask().load())
    there = opened.digest()
    copy = shutil.copytree(daily01.parent, tmp_path / "copy") / "daily01"
    assert source(f"file://{copy}", period=None).digest() == there
    text = copy / "2020" / f"CRND0103-2020-{MARY}.txt"
    text.write_text(text.read_text().replace("0.102", "0.103"))
    assert source(copy, period=None).digest() != there


def test_a_site_that_the_list_lacks_is_placed_by_its_latest_file(daily01):
    table = daily01.parent / "stations.tsv"
    lines = table.read_text("utf-8").splitlines()
    table.write_text("\n".join(line for line in lines if "Socorro" not in line), "utf-8")
    rows = uscrn_year(SOCORRO, 2020)
    rows[-1].lat = 34.5
    miniatures_insitu.write_uscrn(daily01.parent, {(SOCORRO, 2020): rows})
    table.write_text("\n".join(line for line in lines if "Socorro" not in line), "utf-8")
    dataset = source(daily01, region=(-110.0, 30.0, -100.0, 40.0)).to_dask()
    assert list(dataset.place.values) == [SOCORRO]
    assert (float(dataset.lat[0]), float(dataset.lon[0])) == (34.5, -106.88)
    assert np.isfinite(dataset.soil_moisture.values).all()


BAD = {
    "27 columns, expected 28": lambda line: line.replace(" C ", " "),
    "29 columns, expected 28": lambda line: line + "7",
    r"SOIL_MOISTURE_5_DAILY 'wet', expected a number": lambda line: line.replace("0.259", "  wet"),
    r"day '20190103', expected a day of 2020": lambda line: line.replace("20200103", "20190103"),
    r"day '20200199': day": lambda line: line.replace("20200103", "20200199"),
    r"day 2020-01-02 occurs twice": lambda line: line.replace("20200103", "20200102"),
}


@pytest.mark.parametrize("told", BAD)
def test_bad_lines_are_named(daily01, told):
    file = daily01 / "2020" / f"CRND0103-2020-{SOCORRO}.txt"
    lines = file.read_text().splitlines()
    lines[2] = BAD[told](lines[2])
    file.write_text("\n".join(lines))
    with pytest.raises(DataError, match=rf"CRND0103-2020-{SOCORRO}.txt: line 3: {told}"):
        source(daily01).to_dask().load()


def test_damaged_texts_and_those_of_other_sites(daily01):
    file = daily01 / "2020" / f"CRND0103-2020-{SOCORRO}.txt"
    text = file.read_text()
    file.write_text("<html><body>Maintenance</body></html>\n" * 9)
    with pytest.raises(DataError, match=r"1 columns, expected 28") as told:
        source(daily01).to_dask().load()
    assert len(told.value.problems) == 6
    assert told.value.problems[-1] == "and 4 more"
    file.write_text("")
    with pytest.raises(DataError, match="the file is empty"):
        source(daily01).to_dask().load()
    file.write_text(text.replace("03048 ", "03049 "))
    with pytest.raises(DataError, match="the file is of site 03049, expected 03048"):
        source(daily01).to_dask().load()
    file.write_text(text + Row("03049", "20201231", 0, 0).line())
    with pytest.raises(DataError, match="the file has lines of several sites: 03048, 03049"):
        source(daily01).to_dask().load()
    file.write_text(text + "\0" * 40 + "\n")  # such lines are in the provider's files
    assert source(daily01).to_dask().load().sizes["place"] == 4


def test_refusals_and_absences(site, daily01):
    url = f"{site.url}/daily01"
    site.fails(r"2019/$", 403)
    with pytest.raises(DataError, match=r"2019.*refused \(403\)"):
        source(url).to_dask()
    dataset = source(url).to_dask()
    (daily01 / "2020" / f"CRND0103-2020-{MARY}.txt").unlink()
    with pytest.raises(DataError, match=f"2020-{MARY}.txt: not found"):
        dataset.load()  # it was listed
    source(url).to_dask().load()
    with pytest.raises(DataError, match="has no file of the years 1999 to 2000"):
        source(url, period=(datetime.date(1999, 1, 1), datetime.date(2000, 1, 1))).to_dask()
    with pytest.raises(DataError, match="none of its 3 sites of the years 2019 to 2020 lies in"):
        source(url, region=(0.0, 0.0, 1.0, 1.0)).to_dask()
    (daily01.parent / "stations.tsv").write_text("<html>moved</html>")
    with pytest.raises(DataError, match=r"stations.tsv: columns WBAN, STATE.* missing"):
        source(url).to_dask()
    (daily01.parent / "stations.tsv").unlink()
    with pytest.raises(DataError, match=r"stations.tsv: not found"):
        source(url).to_dask()
    with pytest.raises(ValueError, match="mapping: no numeric column SUR_TEMP_DAILY_TYPE"):
        source(url, mapping={"x": {"from": "SUR_TEMP_DAILY_TYPE", "units": "1"}})


@pytest.mark.parametrize("name", ["ismn", "uscrn"])
def test_entries_say_what_entries_must(name):
    entry = ENTRIES[name]
    wanted = {"support", "license", "doi", "auth", "region", "native_grid", "native_units"}
    wanted |= {"time_convention", "period", "origin", "verified", "volume"}
    assert wanted <= entry["metadata"].keys()
    assert entry["metadata"]["verified"] is False
