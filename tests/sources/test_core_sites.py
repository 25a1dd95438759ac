"""Match-ups of SMAP's core sites: pixels, versions, missing values, positions, and bad files."""

import datetime
from pathlib import Path

import miniatures_insitu
import numpy as np
import pytest
import web
import yaml
from miniatures_insitu import CoreSite, passes

from pipeline.catalog import intake_catalog
from pipeline.errors import DataError
from pipeline.sources.core_sites import CoreSitesSource
from pipeline.sources.shared import folders

ENTRIES = yaml.safe_load(Path(intake_catalog.catalog_url("insitu")).read_text("utf-8"))["sources"]
MAPPING = ENTRIES["smap_core_sites"]["args"]["mapping"]
WASHITA, MONTE = "16020907", "03010903"
DAYS = (datetime.date(2016, 5, 1), datetime.date(2016, 5, 8))


def soil(n, start=0.2):
    return [f"{start + i / 1000:.4f}" for i in range(n)]


@pytest.fixture
def folder(tmp_path):
    """Two pixels of 9 km, one of which has an earlier version too, and one of 36 km."""
    later = soil(6)
    later[1], later[2] = "-9999", "NaN"
    evening = [(np.datetime64("2016-05-04T00:30"), "0.3000")]
    records = sorted([*passes("2016-05-02", later), *evening])
    sites = [
        CoreSite(WASHITA, 34.95, -98.1, records),
        CoreSite(WASHITA, 34.95, -98.1, passes("2016-05-01", soil(3, 0.4)), version="R13080"),
        CoreSite(MONTE, 38.3, -120.9, passes("2016-05-05", ["0.1000", "0.0000"])),
        CoreSite("16023602", 34.9, -98.1, passes("2016-05-01", ["0.5000"]), "SMAPL2SMP"),
    ]
    return miniatures_insitu.write_core_sites(tmp_path / "NSIDC-0712.001", sites)


def source(url, grid=9, period=None, region=None, **args):
    made = CoreSitesSource(str(url), args.pop("mapping", MAPPING), grid, **args)
    made.period, made.region = period, region
    return made


def spoil(folder, pixel, change, version="T16500"):
    (file,) = folder.glob(f"*/*{pixel}*{version}*")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(change(lines)))
    return file.name


def test_daily_means_of_the_pixels(folder):
    data = source(folder, period=DAYS).to_dask().load()
    assert data.place.values.tolist() == [MONTE, WASHITA]
    assert [str(day)[:10] for day in data.time.values[[0, -1]]] == ["2016-05-01", "2016-05-08"]
    washita = data.sel(place=WASHITA)
    # The 1st is in the earlier version alone. The 2nd is that of the later version, whose missing
    # value on the 3rd counts too; the 4th has the evening alone.
    expected = [0.4, 0.2, np.nan, 0.3, 0.203, 0.204, 0.205, np.nan]
    np.testing.assert_allclose(washita.soil_moisture.values, expected, rtol=1e-6)
    # Zero is a value.
    found = data.soil_moisture.sel(place=MONTE).values
    np.testing.assert_allclose(found, [np.nan] * 4 + [0.1, 0.0] + [np.nan] * 2, rtol=1e-6)
    assert (float(washita.lat), float(washita.lon)) == (34.95, -98.1)
    assert (float(washita.depth_from), float(washita.depth_to)) == (0.0, 0.05)
    assert data.soil_moisture.dtype == np.float32
    assert data.soil_moisture.attrs["units"] == "m3 m-3"
    assert data.attrs == {"time_convention": "UTC day"}


def test_several_records_of_a_day_are_averaged(folder):
    noon = np.datetime64("2016-05-02T12:30")
    times = noon + np.array([0, 360, 0, 720], "timedelta64[m]")  # the last is on the next day
    site = CoreSite("48010902", 30.3, -98.7, list(zip(times, soil(4), strict=True)))
    miniatures_insitu.write_core_sites(folder, [site])
    data = source(folder).to_dask()
    np.testing.assert_allclose(data.soil_moisture.values[:, 0], [0.2005, 0.203], rtol=1e-6)


def test_other_sizes_of_pixels(folder):
    assert source(folder, 36).to_dask().place.values.tolist() == ["16023602"]
    with pytest.raises(DataError, match=r"no file of 3 km pixels; the folder has 9, 36 km; set"):
        source(folder, 3).to_dask()
    with pytest.raises(ValueError, match=r"grid: 10; accepted: 3, 9, 33, 36"):
        source(folder, 10)


def test_other_headings(folder):
    data = source(folder, mapping={"soil_moisture": {"from": "UPSM", "units": "m3 m-3"}}).to_dask()
    assert set(np.unique(data.soil_moisture)[:1]) == {np.float32(0.9)}


def test_region_and_period(folder):
    assert source(folder, region=(-125, 30, -110, 45)).to_dask().place.values.tolist() == [MONTE]
    with pytest.raises(DataError, match="none of its 2 pixels lies in the region"):
        source(folder, region=(0, 30, 10, 45)).to_dask()
    later = (datetime.date(2017, 1, 1), datetime.date(2017, 2, 1))
    with pytest.raises(DataError, match="their names say 20160501 to 20160507; choose another"):
        source(folder, period=later).to_dask()


def test_positions_as_the_team_and_spreadsheets_write_them(folder):
    expected = source(folder).to_dask()
    table = folder / "others.csv"
    table.write_text(
        f"Alias, RPID, Active, Lat, Lon\r\nA,{int(MONTE)},1,38.3,-120.9\r\n"
        f"B,{WASHITA},1,34.95,-98.1\r\n"
    )
    assert source(folder, pixels=str(table)).to_dask().identical(expected)


def test_pixels_without_a_position_are_told(folder):
    (folder / "pixels.csv").write_text(f"pixel,lat,lon\n{MONTE},38.3,-120.9\n")
    data = source(folder).to_dask()
    assert data.place.values.tolist() == [MONTE]
    assert data.attrs["notes"] == [
        f"not read, as the table has no position of the pixels: {WASHITA}"
    ]
    (folder / "pixels.csv").write_text("pixel,lat,lon\n48010902,30,-98\n")
    with pytest.raises(DataError, match=f"has none of the pixels of the files: {MONTE}; {WASHITA}"):
        source(folder).to_dask()
    (folder / "pixels.csv").unlink()
    with pytest.raises(DataError, match=r"pixels\.csv: not found; the match-ups have no coord"):
        source(folder).to_dask()


def test_a_bad_table_of_positions_is_told_at_once(folder):
    (folder / "pixels.csv").write_text(
        f"pixel,lat,lon\n{MONTE},-120.9,38.3\nwest,1,2\n{WASHITA},34.95,\n{MONTE},38,-120\n"
    )
    with pytest.raises(DataError) as told:
        source(folder).to_dask()
    assert told.value.problems == (
        "the pixel is not a number of eight digits: line 3, 'west 1 2'",
        f"the pixel occurs twice: line 5, '{MONTE} 38 -120'",
        f"the latitude is not between -90 and 90: line 2, '{MONTE} -120.9 38.3'",
        f"the longitude is not between -180 and 360: line 4, '{WASHITA} 34.95 '",
    )
    (folder / "pixels.csv").write_text("pixel;y;x\n1;2;3\n")
    with pytest.raises(DataError, match="no column lat, lon; it has pixel, y, x"):
        source(folder).to_dask()


def test_bad_files_are_told_together_by_kind(folder):
    monte = spoil(folder, MONTE, lambda lines: [*lines[:4], lines[4].replace("0.0000", "wet")])
    old = spoil(folder, WASHITA, lambda lines: lines[:3], version="R13080")
    new = spoil(
        folder,
        WASHITA,
        lambda lines: [
            *lines[:3],
            lines[3].replace(" 5, 2,", " 2, 30,"),
            lines[4].replace("12, 30,", "25, 30,"),
            lines[5].replace(" 0.9000", " 0.9000, 7"),
            *lines[6:],
        ],
    )
    with pytest.raises(DataError) as told:
        source(folder).to_dask()
    assert told.value.problems == (
        f"WASM is not a number: {monte} line 5, 'wet'",
        f"more columns than the 10 of the header: {new} line 6",
        f"there are no records: {old}",
    )
    spoil(folder, WASHITA, lambda lines: [*lines[:5], *lines[6:]])
    with pytest.raises(DataError) as told:
        source(folder).to_dask()
    assert told.value.problems[1] == (
        f"the date or time does not exist: {new} line 4, '2016 2 30 12 30'; "
        f"{new} line 5, '2016 5 3 25 30'"
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty"),
        (b"\x00\xff\xfe" * 50, "the file is empty"),
        (b"title\nYr,Mo,Day,Hr,Min\n", "has no heading WASM: .*it has Yr, Mo, Day, Hr, Min"),
        (b"<html>\n<body>no</body>", "has no heading Yr, Mo, Day, Hr, Min, WASM"),
        (b"title\nYr,Mo,Day,Hr,Min,WASM\n", "there are no records"),
        (b'title\nYr,Mo,Day,Hr,Min,WASM\n2016,1,1,1,1,"0.2\n', "quotation mark"),
        (b"title\nYr,Mo,Day,Hr,Min,WASM\n2016.5,1,1,1,1,0.2\n", "the date or time does not exist"),
        (b"title\nYr,Mo,Day,Hr,Min,WASM\ninf,1,1,1,1,0.2\n", "the date or time does not exist"),
        (b"title\nYr,Mo,Day,Hr,Min,WASM\n2016,1\n", "the date or time does not exist"),
        (b"title\nYr,Mo,Day,Hr,Min,WASM\n1e300,1,1,1,1,0.2\n", "the date or time does not exist"),
    ],
)
def test_a_damaged_file_is_one_error(folder, content, problem):
    (file,) = folder.glob(f"*/*{MONTE}*")
    file.write_bytes(content)
    with pytest.raises(DataError, match=problem):
        source(folder).to_dask()


def test_an_absent_folder_says_where_the_data_are(tmp_path):
    metadata = ENTRIES["smap_core_sites"]["metadata"]
    with pytest.raises(DataError, match=r"NSIDC-0712_\*\.txt; get it from https://nsidc\.org/data"):
        source(tmp_path / "none", metadata=metadata).to_dask()


def test_the_digest_is_of_contents_and_positions(folder, tmp_path):
    digest = source(folder).digest()
    moved = folder.rename(tmp_path / "elsewhere")
    assert source(moved).digest() == digest
    spoil(moved, "16023602", lambda lines: [*lines, lines[-1]])  # another size of pixels
    assert source(moved).digest() == digest
    spoil(moved, MONTE, lambda lines: [*lines, lines[-1]])
    assert source(moved).digest() != digest
    table = moved / "pixels.csv"
    changed = source(moved).digest()
    table.write_text(table.read_text().replace("34.95", "34.96"))
    assert source(moved).digest() != changed


def test_from_a_server_as_from_a_folder(folder):
    folders._download.cache_clear()  # the port may be that of an earlier server
    expected = source(folder).to_dask()
    with web.serve(folder.parent) as site:
        site.made.append((r"/$", miniatures_insitu.index(folder.parent)))
        assert source(f"{site.url}/NSIDC-0712.001").to_dask().identical(expected)
