"""`doctor FILE.csv`: what is guessed, found, drawn, and written into a catalog."""

from __future__ import annotations

from pathlib import Path

import intake
import numpy as np
import pytest
import web
import yaml
from matplotlib.image import imread
from rich.console import Console

import catalogs
from pipeline import cli, files
from pipeline.doctor import catalog_entry, probe_file
from pipeline.errors import ConfigError, DataError, StoreError
from pipeline.grid import ease
from pipeline.probes import columns, examine
from pipeline.progress import SilentProgress
from pipeline.sources.table.text import parse_csv

HEADER = "site,lat,lon,depth_m,time,vwc_m3m3\n"


def daily(site="A", lat=41.2512, lon=-105.5021, depth=0.05, n=120, **bad):
    """Lines of a probe; `bad` is {d3: value on day 3}."""
    rng = np.random.default_rng(len(site))
    values = dict(enumerate(np.round(0.2 + 0.02 * rng.normal(size=n), 4)))
    values |= {int(day[1:]): value for day, value in bad.items()}
    days = np.datetime64("2019-05-01") + np.arange(n)
    return "".join(f"{site},{lat},{lon},{depth},{d},{values[i]}\n" for i, d in enumerate(days))


HEALTHY = HEADER + daily("A", d3=0.9) + daily("B", lat=41.2561) + daily("C", lat=43.1234)


@pytest.fixture
def doctor(tmp_path):
    """Examines text as a CSV; returns whether it is healthy and what is shown, as one text."""

    def examined(text, *settings, write=None, plots=None):
        path = tmp_path / "mine.csv"
        path.write_text(text)
        target = str(tmp_path / write) if write else None
        healthy, parts = probe_file.examine_probes(
            str(path), target, SilentProgress(), settings, plots
        )
        console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, str), highlight=False)
        console.file.close()
        return healthy, console.export_text()

    return examined


def test_a_healthy_table(doctor, tmp_path):
    healthy, told = doctor(HEALTHY)
    assert healthy
    rows = [line.split() for line in told.splitlines()]
    row, col = (int(v) for v in ease.footprint_position(41.2512, -105.5021))
    fine = [int(v * 4) for v in ease.footprint_position(41.2512, -105.5021)]
    first = next(row for row in rows if row[:1] == ["A"])
    assert first[1:] == [
        *["41.2512", "N", f"{fine[0]},", str(fine[1]), f"{row},", str(col)],
        *["0.05", "120", "99%", "2019-05-01", "range", "1"],
    ]
    assert ["105.5021", "W", "2019-08-28"] in rows
    assert f"note: A, B: in one cell, {fine[0]}, {fine[1]}" in told
    assert "local standard time days" in told
    assert "problem" not in told
    assert list(tmp_path.iterdir()) == [tmp_path / "mine.csv"]


def test_the_grids_of_the_table_are_the_pipelines(doctor):
    window = ease.Window(row=0, col=0, height=406, width=964, refinement=4)
    _, told = doctor(HEADER + daily(lat=-33.8765, lon=151.2101))
    (y, x), (fy, fx) = (f(-33.8765, 151.2101) for f in (window.cells_of, window.footprints_of))
    row = next(line.split() for line in told.splitlines() if "33.8765 S" in line)
    assert row[3:7] == [f"{y},", str(x), f"{fy},", str(fx)]
    assert "151.2101 E" in told


def test_what_is_written_opens_anywhere(doctor, tmp_path):
    healthy, told = doctor(HEALTHY, write="my.yaml:mine")
    assert healthy
    assert "sources.insitu=[" in told
    assert "own data, not published" in told
    catalog = tmp_path / "my.yaml"
    data = intake.open_catalog(str(catalog))["mine"].to_dask()
    assert data.place.values.tolist() == ["A", "B", "C"]
    assert data.soil_moisture.attrs["units"] == "m3 m-3"
    assert data.soil_moisture.shape == (120, 3)
    metadata = yaml.safe_load(catalog.read_text())["sources"]["mine"]["metadata"]
    assert metadata["period"] == "2019-05-01..2019-08-28"
    assert metadata["volume"]["days"] == 120
    assert metadata["license"] == "own data, not published"
    wanted = "support license doi auth region native_grid native_units time_convention period"
    assert set(wanted.split()) < metadata.keys()
    args = yaml.safe_load(catalog.read_text())["sources"]["mine"]["args"]
    assert args["urlpath"] == "{{CATALOG_DIR}}/mine.csv"
    assert metadata["origin"] == "mine.csv"
    assert "verified" not in metadata  # nobody has read it at a live place


def test_what_is_written_is_found_from_the_catalog_on(doctor, tmp_path):
    """The folder with both can be moved."""
    (tmp_path / "home" / "catalogs").mkdir(parents=True)
    (tmp_path / "home" / "data").mkdir()
    table = tmp_path / "home" / "data" / "probes.csv"
    table.write_text(HEALTHY)
    catalog = tmp_path / "home" / "catalogs" / "my.yaml"
    healthy, _ = probe_file.examine_probes(str(table), f"{catalog}:mine", SilentProgress())
    assert healthy
    assert str(tmp_path) not in catalog.read_text()
    (tmp_path / "home").rename(tmp_path / "elsewhere")
    moved = tmp_path / "elsewhere" / "catalogs" / "my.yaml"
    assert "{{CATALOG_DIR}}/../data/probes.csv" in moved.read_text()
    data = intake.open_catalog(str(moved))["mine"].to_dask()
    assert data.place.values.tolist() == ["A", "B", "C"]


def test_a_long_header_is_told_once(doctor):
    names = [f"sensor_{i}_of_a_logger_with_many_columns" for i in range(20)]
    _, told = doctor(",".join(names) + "\n" + ",".join("1" for _ in names) + "\n")
    assert told.count("problem: no column for") == 5
    for name in names:
        assert told.count(name) == 1, name


def test_a_table_with_faults_is_written_nowhere(doctor, tmp_path):
    (tmp_path / "my.yaml").write_text("sources: {}\n")
    healthy, told = doctor(HEADER + daily(d2="x"), write="my.yaml:mine")
    assert not healthy
    assert "problem: vwc_m3m3 is not a number: line 4, 'x'" in told
    assert "nothing was written" in told
    assert (tmp_path / "my.yaml").read_text() == "sources: {}\n"
    assert not (tmp_path / "mine-probes").exists()


def test_a_picture_of_each_probe(doctor, tmp_path):
    text = HEADER + daily("A/1", d3=0.9, d4=-0.5, d5=7) + daily("A 1", lat=42.5123)
    _, told = doctor(text, plots=str(tmp_path / "seen"))
    assert f"in {tmp_path / 'seen'}" in told
    found = sorted((tmp_path / "seen").iterdir())
    assert [f.name for f in found] == ["A_1.png", "A_1_.png"]
    spoilt, fine = (imread(f)[..., :3] for f in found)
    assert spoilt.shape == (580, 2080, 3)
    orange = np.array([0xD5, 0x5E, 0x00]) / 255
    marks = [(np.abs(picture - orange).max(-1) < 0.02).sum() for picture in (spoilt, fine)]
    assert marks[0] > 100 > marks[1] == 0
    for picture in (spoilt, fine):
        assert (picture.max(-1) < 0.2).sum() > 2000  # the line


def test_writing_also_draws(doctor, tmp_path):
    doctor(HEALTHY, write="my.yaml:mine")
    names = [f.name for f in sorted((tmp_path / "mine-probes").iterdir())]
    assert names == ["A.png", "B.png", "C.png"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            HEADER.replace("m3m3", "percent") + daily(),
            "are not percent, rather m3 m-3: rename the column, or --set units='m3 m-3'",
        ),
        (HEADER + daily().replace(",0.", ",2"), "values about"),
        (
            HEADER + daily() + daily("B", lat=42.1234).replace(",0.", ",2"),
            "convert all to one unit",
        ),
        (HEADER.replace("_m,", "_cm,") + daily(), "are unlikely in cm: correct the header"),
        (HEADER + daily(depth=5), "are unlikely in m: correct the header"),
        (HEADER + daily(depth=0.5), "no sensor between 0 and 0.075 m; the depths are 0.5 m"),
        (HEADER + daily(lat=105.5, lon=41.2), "lat 105.5, lon 41.2 look swapped"),
        (HEADER + daily(lat=87.1234), "poleward of the grid's edge"),
        (
            HEADER + daily(lat=0, lon=0),
            "latitude and longitude are both 0; they are probably missing",
        ),
        (HEADER + daily().replace(",0.", ",9."), "are not m3 m-3, rather percent"),
        (HEADER + daily("A", n=3).replace("0.2", "0.9").replace("0.1", "0.9"), "no value passes"),
        (HEADER.replace("lat", "north") + daily(), "no column for lat (such as lat, latitude"),
        (HEADER.replace("depth_m", "colour") + daily(), "--set depth=0.05"),
        (HEADER.replace("vwc_m3m3", "a") + daily(), "--set columns.value=NAME"),
        (
            HEADER.strip() + ",clock\n" + daily().replace("\n", ",12:00\n"),
            "time is in two columns, time and clock: join them",
        ),
    ],
)
def test_faults(doctor, text, says):
    text = text.replace(",clock", ",timestamp")
    healthy, told = doctor(text)
    assert not healthy
    problems = [line for line in told.splitlines() if line.startswith("problem:")]
    assert any(says.replace("and clock", "and timestamp") in line for line in problems), told


@pytest.mark.parametrize("zone", ["UTC-07:00", "America/Denver"])
def test_a_longitude_without_its_sign_is_told_by_the_clock(doctor, zone):
    text = HEADER + daily(lon=105.5021).replace("2019", "2019")
    assert doctor(text)[0]  # nothing contradicts it
    healthy, told = doctor(text, f"time_zone={zone}")
    assert not healthy
    assert (
        "A: lon 105.502 contradicts a clock at UTC-7 h: longitudes in the west are "
        "negative; use -105.502"
    ) in told
    assert doctor(HEADER + daily(), f"time_zone={zone}")[0]


def test_coordinates_unlike_those_of_the_others(doctor):
    others = "".join(daily(f"P{i}", lat=41.1234 + i / 3) for i in range(4))
    mirrored = daily("M", lon=105.5021)
    swapped = daily("S", lat=-88.4021, lon=41.2512)
    healthy, told = doctor(HEADER + others + mirrored)
    assert not healthy
    assert "problem: M: lon 105.502 contradicts most others" in told
    west = "".join(daily(f"P{i}", lat=41.1234 + i / 3, lon=-88.5123) for i in range(4))
    assert (
        "problem: S: lat -88.4021, lon 41.2512 look swapped" in doctor(HEADER + west + swapped)[1]
    )
    assert doctor(HEADER + others)[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEADER + daily(n=20), "A: fewer than 90 days kept, so not scored by default"),
        (HEADER + daily(lat=41.3, lon=-105.5), "A: coordinates are given to a tenth of a degree"),
        (HEADER + daily() + daily("B"), "A, B: at one place, 41.2512, -105.502"),
        (HEADER + daily() + daily("B", lat=41.2561), "A, B: at one place, 41.2512, -105.502"),
        (
            HEADER + daily() + daily("B", lat=42.1234, depth=0.5),
            "B: left out, since no sensor is in the depth class",
        ),
        (HEADER + daily().replace("2019-", "2219-"), "some days are in the future"),
        (HEADER + daily(d1=-9999), "read as missing: -9999"),
        (HEADER.replace("_m,", ",") + daily(depth=5), "depth: 5 to 5, assumed to be in cm"),
        (
            HEADER.replace("_m3m3", "") + daily(),
            "assumed to be in m3 m-3, from the size of its values",
        ),
        (
            HEADER + daily().replace(",0.2", "T06:00,0.2").replace(",0.1", "T06:00,0.1"),
            "times have no UTC offset",
        ),
    ],
)
def test_what_is_to_be_minded_is_no_fault(doctor, text, says):
    healthy, told = doctor(text)
    assert healthy, told
    assert f"note: {says}" in told or any(
        says in line for line in told.splitlines() if line.startswith("note:")
    )


@pytest.mark.parametrize(
    ("header", "role", "units"),
    [
        ("Soil Moisture (%)", "value", "percent"),
        ("VWC [m³/m³]", "value", "m3 m-3"),
        ("soil_moisture_m3_m-3", "value", "m3 m-3"),
        ("sm", "value", None),
        ("Depth (cm)", "depth", "cm"),
        ("Sensor depth in", "depth", "inch"),
        ("Soil temperature degC", "temperature", "degC"),
        ("soil_temp_f", "temperature", "degF"),
        ("Date/Time (UTC)", "time", "UTC"),
        ("Timestamp", "time", None),
        ("Station ID", "id", None),
        ("Latitude_deg", "lat", None),
        ("lng", "lon", None),
        ("time_zone", None, None),
        ("air_temp", None, None),
        ("depth_class", None, None),
    ],
)
def test_spellings_of_headers(header, role, units):
    raw, _ = parse_csv(f"{header}\n5\n".encode())
    made = columns.recognise_header(raw, {})
    ours = {"value": columns.TARGET, "temperature": columns.TEMPERATURE}
    found = {ours.get(role, role): header} if role else {}
    assert made.columns == found
    assert made.hints == ({ours.get(role, role): units} if units else {})


def test_everything_of_a_richer_table_is_guessed(doctor, tmp_path):
    rng = np.random.default_rng(0)
    hours = np.datetime64("2019-05-01T00:00") + np.arange(24 * 100) * np.timedelta64(1, "h")
    lines = ["Station,Latitude,Longitude,Depth (cm),Sensor,Time (UTC),VWC (%),Soil temp F,QC"]
    for port, depth in ((1, 5), (2, 5), (1, 20)):
        values = 20 + rng.normal(size=len(hours))
        lines += [
            f"X,41.25121,-105.50213,{depth},{port},{hour},{value:.2f},50,{'G' if i % 9 else 'D'}"
            for i, (hour, value) in enumerate(zip(hours, values, strict=True))
        ]
    healthy, told = doctor("\n".join(lines), "license=CC0-1.0", write="my.yaml:mine")
    assert healthy, told
    made = yaml.safe_load((tmp_path / "my.yaml").read_text())["sources"]["mine"]
    assert made["metadata"]["license"] == "CC0-1.0"
    assert made["args"]["good"] == ["G"]
    assert made["args"]["time_zone"] == "UTC"
    data = intake.open_catalog(str(tmp_path / "my.yaml"))["mine"].to_dask()
    assert dict(data.sizes) == {"time": 100, "place": 1}
    assert data.time_convention == "UTC day"
    assert float(data.soil_moisture.mean()) == pytest.approx(0.2, abs=0.002)
    assert float(data.soil_temperature.mean()) == pytest.approx(10)
    assert set(np.unique(data.provider_flag)) == {0}


def test_what_is_guessed_can_be_told(doctor):
    text = HEADER.replace("site", "who").replace("_m,", ",").replace("_m3m3", "") + daily(depth=2)
    settings = ["columns.id=who", "depth_units=inch", "units=m3 m-3", "time_zone=UTC"]
    healthy, told = doctor(text, *settings)
    assert healthy
    assert " 0.0508 " in told
    assert "UTC days" in told
    healthy, told = doctor(text, "columns.id=who", "depth=0.07")
    assert healthy
    assert " 0.07 " in told
    for setting in ("depths=3", "columns=x", "depth"):
        with pytest.raises(ConfigError, match="expected key=value; keys of a table"):
            doctor(text, setting)
    assert "time_zone 'Mars': expected" in doctor(text, "columns.id=who", "time_zone=Mars")[1]


def test_a_single_station_is_told(doctor, tmp_path):
    """Its id, place and the form of its dates; and what is written opens as it was examined."""
    days = [f"{day:02d}/05/2019" for day in range(1, 13)]
    values = [round(0.2 + i / 100, 2) for i in range(12)]
    rows = (f"{day},{value},{value + 0.1:.2f}\n" for day, value in zip(days, values, strict=True))
    text = "TIMESTAMP,SM_5cm_Avg,SM_20cm_Avg\n" + "".join(rows)
    station = ["id=007", "lat=41.2512", "lon=-105.5021"]
    healthy, told = doctor(text, *station, "time_format=%d/%m/%Y", write="my.yaml:mine")
    assert healthy, told
    assert "id 007, lat 41.2512, lon -105.5021, time TIMESTAMP (local standard, %d/%m/%Y)" in told
    data = intake.open_catalog(str(tmp_path / "my.yaml"))["mine"].to_dask()
    assert data.place.values.tolist() == ["007"]
    assert (float(data.lat[0]), float(data.lon[0])) == (41.2512, -105.5021)
    np.testing.assert_allclose(data.soil_moisture.values[:, 0], values, rtol=1e-6)
    expected = np.datetime64("2019-05-01") + np.arange(12)
    np.testing.assert_array_equal(data.time.values.astype("datetime64[D]"), expected)
    american = doctor(text, *station, "time_format=%m/%d/%Y")[1]
    assert "2019-12-05" in american
    deep = doctor(text, *station, "time_format=%d/%m/%Y", "depth_class_m=[0.1, 0.3]")[1]
    assert " 0.2 " in deep


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["lat=91", "lon=0"], "lat 91: expected -90 to 90 degrees"),
        (["lat=north", "lon=0"], "lat north: expected -90 to 90 degrees"),
        (
            ["lat=41.25", "lon=-105.5", "depth=0.05"],
            "have different depths in their names, but `depth` is set",
        ),
        (["lat=41.25", "lon=-105.5", "time_format=dd/mm"], "time_format 'dd/mm': expected year"),
        (["lat=41.25", "lon=-105.5", "time_format=%m/%d"], "time_format '%m/%d': expected year"),
        (
            ["lat=41.25", "lon=-105.5", "time_format=%m/%d/%Y"],
            "time is not in the format %m/%d/%Y",
        ),
    ],
)
def test_settings_of_a_single_station_that_make_no_sense(doctor, settings, says):
    text = "time,vwc_5cm,vwc_20cm\n" + "".join(f"{d}/05/2019,0.2,0.3\n" for d in range(1, 29))
    healthy, told = doctor(text, "id=A", *settings)
    assert not healthy
    assert any(says in line for line in told.splitlines() if line.startswith("problem:")), told


def test_the_longitude_of_kansas_is_a_number(doctor):
    healthy, told = doctor(HEADER + daily(lon=-99.0))
    assert healthy, told
    assert "99.0000 W" in told


def test_it_says_how_the_table_is_read(doctor):
    text = HEADER.strip() + ",[colour]\n" + daily().replace("\n", ",[red]\n")
    _, told = doctor(text)
    assert (
        "read as: id site, lat lat, lon lon, time time (local standard), depth depth_m (m), "
        "soil_moisture vwc_m3m3 (m3 m-3)\n"
    ) in told
    assert "note: columns not used: [colour]" in told


def test_the_verb(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text(HEADER + daily())
    (tmp_path / "bad.csv").write_text(HEADER + daily(d0="[x]"))

    def soilweave(*args):
        monkeypatch.setattr("sys.argv", ["soilweave", *args])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, capsys.readouterr().out

    zone = "time_zone=UTC-07:00"
    code, told = soilweave("doctor", "mine.csv", "--write", "my.yaml:mine", "--set", zone)
    assert code == 0
    assert "sources.insitu=[my.yaml:mine]" in told
    assert (tmp_path / "mine-probes" / "A.png").exists()
    code, told = soilweave("doctor", "bad.csv", "--plots", "seen")
    assert code == 1
    assert "problem: vwc_m3m3 is not a number: line 2, '[x]'" in told
    assert not (tmp_path / "seen").exists()


def test_no_table(doctor, tmp_path):
    with pytest.raises(DataError, match="empty"):
        doctor("")
    with pytest.raises(DataError, match="not found"):
        probe_file.examine_probes(str(tmp_path / "lost.csv"), None, SilentProgress())
    for write in ("my.yaml", "my.txt:mine", "my.yaml:a b"):
        with pytest.raises(ConfigError, match=r"expected CATALOG\.yaml:NAME"):
            doctor(HEALTHY, write=write)


def test_a_table_on_a_server_keeps_its_secrets(tmp_path):
    (tmp_path / "mine.csv").write_text(HEALTHY)
    catalog = tmp_path / "my.yaml"
    with web.serve(tmp_path) as site:
        url, folder = f"{site.url}/mine.csv", str(tmp_path / "p")
        healthy, _ = probe_file.examine_probes(url, f"{catalog}:mine", SilentProgress(), (), folder)
        assert healthy
        assert intake.open_catalog(str(catalog))["mine"].to_dask().sizes["place"] == 3
        secret = url.replace("://", "://me:planted@")
        with pytest.raises(ConfigError, match="credentials are not allowed in a catalog") as caught:
            probe_file.examine_probes(secret, f"{catalog}:other", SilentProgress(), (), folder)
    assert "planted" not in str(caught.value) + catalog.read_text()


CATALOG = """# mine, by hand
metadata: {version: 1}
sources:
  # the first
  cells:   # a remark
    driver: x
    description: >-
      folded
      text
    args: &inputs {urlpath: "{{env(DATA)}}/a.nc"}
  mine:
    driver: old

  # the last
  sites: {driver: z, args: *inputs}

# the end
"""

ENTRY = {"driver": "y", "args": {"missing": [-1.0]}, "metadata": {"license": "mine: all"}}

LINES = """  {}:
    driver: y
    args:
      missing:
      - -1.0
    metadata:
      license: 'mine: all'
"""


@pytest.mark.parametrize(
    ("name", "before", "after", "done"),
    [
        ("mine", "  mine:\n    driver: old\n", LINES.format("mine"), "replaced"),
        (
            "new",
            "  sites: {driver: z, args: *inputs}\n",
            "  sites: {driver: z, args: *inputs}\n" + LINES.format("new"),
            "added",
        ),
    ],
)
def test_a_catalog_keeps_its_text(tmp_path, name, before, after, done):
    catalog = tmp_path / "c.yaml"
    catalog.write_text(CATALOG)
    assert catalog_entry.put(str(catalog), name, ENTRY) == done
    assert catalog.read_text() == CATALOG.replace(before, after)
    assert [f.name for f in tmp_path.iterdir()] == ["c.yaml"]


@pytest.mark.parametrize(
    ("catalog", "name"), [("static", "copernicus_dem30"), ("insitu", "uscrn"), ("osse", "truth")]
)
def test_only_the_lines_of_the_entry_change(tmp_path, catalog, name):
    """Line breaks, quotes and comments of other entries stay; texts like numbers stay texts."""
    before = (Path(catalogs.__file__).parent / f"{catalog}.yaml").read_text()
    (tmp_path / "c.yaml").write_text(before)
    entry = {"driver": "y", "args": {"column": "no", "time": "12:30"}}
    catalog_entry.put(str(tmp_path / "c.yaml"), name, entry)
    after = (tmp_path / "c.yaml").read_text()
    head, _, tail = after.partition(f"  {name}:\n    driver: y\n    args:\n")
    assert before.startswith(f"{head}  {name}:\n")
    assert before.endswith(tail.removeprefix("      column: 'no'\n      time: '12:30'\n"))


@pytest.mark.parametrize(
    "text", ["", "sources: {}\n", "sources:\n", "metadata: {version: 1}\n", "# only this\n"]
)
def test_a_catalog_without_entries(tmp_path, text):
    catalog = tmp_path / "c.yaml"
    if text:
        catalog.write_text(text)
    catalog_entry.put(str(catalog), "mine", ENTRY)
    assert yaml.safe_load(catalog.read_text())["sources"] == {"mine": ENTRY}
    catalog_entry.put(str(catalog), "other", ENTRY)
    assert yaml.safe_load(catalog.read_text())["sources"] == {"mine": ENTRY, "other": ENTRY}


@pytest.mark.parametrize(
    "text",
    [
        CATALOG.replace("mine:\n    driver: old", "mine: &old\n    driver: old\n  too: *old"),
        "sources: {a: {driver: x}}\n",
        "- a list\n",
        "sources: [",
        "sources:\n  a:\n    description: |\n      text\n      # of it\n",
    ],
)
def test_a_catalog_that_cannot_be_edited_stays(tmp_path, text):
    catalog = tmp_path / "c.yaml"
    catalog.write_text(text)
    with pytest.raises(ConfigError, match="name another file"):
        catalog_entry.put(str(catalog), "mine", ENTRY)
    assert catalog.read_text() == text


def test_a_write_that_fails_leaves_the_catalog(tmp_path, monkeypatch):
    catalog = tmp_path / "c.yaml"
    catalog.write_text(CATALOG)

    def fails(*_):
        raise StoreError(str(catalog), "full")

    monkeypatch.setattr(files, "write_bytes", fails)
    with pytest.raises(StoreError, match="full"):
        catalog_entry.put(str(catalog), "mine", ENTRY)
    assert catalog.read_text() == CATALOG


def test_places_on_edges_of_the_world():
    import pandas as pd

    found = pd.DataFrame(
        {"lat": [0.0, 10.0, -84.0], "lon": [180.0, -180.0, 0.0], "decimals": [4, 4, 4]},
        index=["a", "b", "c"],
    )
    placed, problems = examine.locate_probes(found, None)
    assert problems == []
    assert placed["a"].cell[1] == placed["b"].cell[1] == 0
    assert placed["c"].footprint[0] < ease.FOOTPRINT_ROWS
