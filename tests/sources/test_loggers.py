"""What loggers write, and what `doctor` and `score` make of it; USCRN files without their list."""

from __future__ import annotations

import datetime
import sys
from types import SimpleNamespace

import clinic
import miniatures_insitu
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from model.features import Features
from pipeline.cli import score
from pipeline.doctor import probe_file
from pipeline.errors import DataError
from pipeline.evaluate import probes
from pipeline.experiment import load
from pipeline.probes import examine
from pipeline.progress import SilentProgress
from pipeline.sources.table import TableSource
from pipeline.sources.uscrn import UscrnSource

MAPPING = {"soil_moisture": {"from": "vwc", "units": "m3 m-3"}}
COLUMNS = {"id": "site", "lat": "lat", "lon": "lon", "depth": "depth_m", "time": "date"}
LONG = "site,lat,lon,depth_m,date,vwc\n"
START = datetime.datetime(2019, 5, 1)


def doctor(path, *settings):
    """Whether a file is healthy, and what is shown."""
    healthy, parts = probe_file.examine_probes(str(path), None, SilentProgress(), settings)
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str), highlight=False)
    console.file.close()
    return healthy, console.export_text()


def moments(n, step, form):
    return [f"{START + k * step:{form}}" for k in range(n)]


def dated(form, n):
    """A long table with one row a day, of values from 0.2 on."""
    days = enumerate(moments(n, datetime.timedelta(days=1), form))
    return LONG + "".join(
        f"A,41.2512,-105.5021,0.05,{day},{0.2 + k / 1000:.3f}\n" for k, day in days
    )


def test_a_single_station_without_columns_for_its_place(tmp_path):
    """Each problem names the setting that helps."""
    file = tmp_path / "logger.csv"
    stamps = moments(48, datetime.timedelta(hours=1), "%Y-%m-%d %H:%M")
    lines = (f"{stamp},0.21,0.31\n" for stamp in stamps)
    file.write_text("TIMESTAMP,SM_5cm_Avg,SM_20cm_Avg\n" + "".join(lines))
    healthy, told = doctor(file)
    assert not healthy
    wrong = [line for line in told.splitlines() if line.startswith("problem:")]
    assert len(wrong) == 3
    for role, line in zip(("id", "lat", "lon"), wrong, strict=True):
        assert f"no column for {role}" in line
        assert f"--set {role}=" in line


def test_depths_stand_in_the_names_of_columns(tmp_path):
    file = tmp_path / "wide.csv"
    stamps = moments(24 * 100, datetime.timedelta(hours=1), "%Y-%m-%d %H:%M")
    header = "site,lat,lon,TIMESTAMP,SM_20cm_Avg,SM_5cm_Std,SM_5cm_Avg\n"
    rows = (
        f"A,41.2512,-105.5021,{stamp},0.31,0.01,{0.2 + k // 24 / 1000}\n"
        for k, stamp in enumerate(stamps)
    )
    file.write_text(header + "".join(rows))
    healthy, told = doctor(file)
    assert healthy, told
    assert "SM_20cm_Avg at 0.2 m, SM_5cm_Avg at 0.05 m" in told
    assert "columns not used: SM_5cm_Std" in told
    data = examine.read_probes(str(file), {}).data
    np.testing.assert_allclose(
        data["soil_moisture"].values[:, 0], 0.2 + np.arange(100) / 1000, rtol=1e-5
    )
    assert data.depth_from.values.tolist() == data.depth_to.values.tolist() == [0.05]


@pytest.mark.parametrize(
    ("header", "depths"),
    [
        ("VWC 10 cm (%),VWC 5 cm (%)", [0.1, 0.05]),
        ("Soil Moisture @ 5cm [m³/m³],Soil Moisture @ 50cm [m³/m³]", [0.05, 0.5]),
        ("theta_2in,theta_8in", [0.0508, 0.2032]),
        ("swc_0.05m_avg,swc_0.3m_avg", [0.05, 0.3]),
        ("5cm_VWC,100mm_VWC", [0.05, 0.1]),
        ("SM_0_5cm,SM_5_30cm", [[0.0, 0.05], [0.05, 0.3]]),
        ("VWC 2-4 cm,VWC 10\N{EN DASH}20cm", [[0.02, 0.04], [0.1, 0.2]]),
        ("VW_1_5cm_Avg,VW_2_20cm_Avg", [0.05, 0.2]),
        ("VWC1_5cm,VWC2_5cm", [0.05, 0.05]),
        ("VWC-1-5cm,VWC-2-20cm", [0.05, 0.2]),
        ('VWC 2",VWC 8"', [0.0508, 0.2032]),
    ],
)
def test_spellings_of_depths(tmp_path, header, depths):
    file = tmp_path / "wide.csv"
    scale = 100 if "%" in header else 1
    stamps = moments(100, datetime.timedelta(days=1), "%Y-%m-%d")
    values = [f"{scale * (0.2 + k / 1000):.3f}" for k in range(100)]
    rows = (
        f"A,41.2512,-105.5021,{stamp},{value},{value}\n"
        for stamp, value in zip(stamps, values, strict=True)
    )
    file.write_text(f"site,lat,lon,time,{header}\n" + "".join(rows), encoding="utf-8")
    found = examine.read_probes(str(file), {})
    assert found.problems == []
    columns = found.guess.args["mapping"]["soil_moisture"]["from"]
    assert columns == dict(zip(header.split(","), depths, strict=True))


@pytest.mark.parametrize(
    ("below", "scale"),
    [
        (",m3/m3,m3/m3", 1),
        ("TS,%,%", 100),
        ("yyyy-mm-dd hh:mm,m\N{SUPERSCRIPT THREE}/m\N{SUPERSCRIPT THREE},-", 1),
        ("TS,%,%\n,Avg,Avg", 100),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_lines_of_units_below_the_names(tmp_path, below, scale, encoding):
    file = tmp_path / "logger.csv"
    stamps = moments(24 * 60, datetime.timedelta(hours=1), "%Y-%m-%d %H:%M")
    rows = (f"{stamp},{scale * (0.2 + k // 24 / 1000):.4f},9\n" for k, stamp in enumerate(stamps))
    text = f"TIMESTAMP,SM_5cm_Avg,RECORD\n{below}\n" + "".join(rows)
    file.write_text(text, encoding=encoding)
    found = examine.read_probes(str(file), {"id": "A", "lat": 41.25, "lon": -105.5})
    assert found.problems == []
    expected = 0.2 + np.arange(60)[:, None] / 1000
    np.testing.assert_allclose(found.data["soil_moisture"].values, expected, rtol=1e-5)


def test_a_first_row_that_is_wrong_is_no_line_of_units(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text(dated("%Y-%m-%d", 60).replace("2019-05-01,0.200", "first,dry"))
    healthy, told = doctor(file)
    assert not healthy
    assert "line 2, 'dry'" in told


def test_the_four_header_lines_of_a_campbell_logger(tmp_path):
    file = tmp_path / "meadow.csv"
    header = (
        '"TOA5","Meadow","CR1000","1234","CR1000.Std.32","CPU:sm.CR1","8434","Hourly"\n'
        '"TIMESTAMP","RECORD","lat","lon","VW_5cm_Avg","T_5cm_Avg"\n'
        '"TS","RN","deg","deg","%","Deg C"\n'
        '"","","Smp","Smp","Avg","Avg"\n'
    )
    stamps = moments(24 * 100, datetime.timedelta(hours=1), "%Y-%m-%d %H:%M:%S")
    rows = (
        f'"{stamp}",{k},41.2512,-105.5021,{"NAN" if k % 24 == 3 else 20 + k // 24 / 10},15.25\n'
        for k, stamp in enumerate(stamps)
    )
    file.write_text(header + "".join(rows))
    found = examine.read_probes(str(file), {})
    assert found.problems == []
    assert found.data.place.values.tolist() == ["Meadow"]
    expected = 0.2 + np.arange(100)[:, None] / 1000
    np.testing.assert_allclose(found.data["soil_moisture"].values, expected, rtol=1e-6)
    np.testing.assert_allclose(found.data["soil_temperature"].values, np.full((100, 1), 15.25))
    wrong = file.read_text().replace("20.0", "wet", 1)
    file.write_text(wrong)
    assert "is not a number: line 5, 'wet'" in examine.read_probes(str(file), {}).problems[0]


@pytest.mark.parametrize(
    ("form", "other"),
    [("%d/%m/%Y", "%m/%d/%Y"), ("%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M"), ("%d-%m-%y", "%m-%d-%y")],
)
def test_an_ambiguous_date_is_an_error_that_names_the_remedy(tmp_path, form, other):
    file = tmp_path / "mine.csv"
    file.write_text(dated(form, 12))  # the 1st to the 12th
    healthy, told = doctor(file)
    assert not healthy
    (wrong,) = [line for line in told.splitlines() if line.startswith("problem:")]
    for choice in (form, other):
        assert f"--set time_format='{choice}'" in wrong


def test_dates_that_only_one_form_fits_are_read_and_told(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text(dated("%d/%m/%Y", 100))
    healthy, told = doctor(file)
    assert healthy, told
    assert "date: read as %d/%m/%Y; --set time_format=... changes it" in told
    data = examine.read_probes(str(file), {}).data
    expected = np.datetime64("2019-05-01") + np.arange(100)
    np.testing.assert_array_equal(data.time.values.astype("datetime64[D]"), expected)
    with pytest.raises(DataError, match="`time_format` says how times are written"):
        TableSource(str(file), MAPPING, COLUMNS).to_dask()


@pytest.mark.parametrize("form", ["%y/%m/%d", "%y-%m-%d", "%d/%m/%y", "%Y.%m.%d"])
@pytest.mark.parametrize("days", [60, 400])
def test_a_year_of_two_digits_is_where_the_days_are_near_one_another(tmp_path, form, days):
    """19/05/01 would be the 19th of May 2001, too, and 19/05/02 that of 2002."""
    file = tmp_path / "mine.csv"
    file.write_text(dated(form, days))
    data = examine.read_probes(str(file), {}).data
    expected = np.datetime64("2019-05-01") + np.arange(days)
    np.testing.assert_array_equal(data.time.values.astype("datetime64[D]"), expected)


def test_a_form_of_dates_that_is_not_known_names_the_setting(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text(dated("%b %d; %Y", 60))
    healthy, told = doctor(file)
    assert not healthy
    assert "state it, as in --set time_format=" in told
    healthy, told = doctor(file, "time_format=%b %d; %Y")
    assert healthy, told


@pytest.fixture
def ward(tmp_path):
    """An experiment of soil moisture whose sources are files."""
    return clinic.write(tmp_path / "ward")


NONE = pd.DataFrame({"site": [], "fold": [], "lat": [], "lon": []})


def trained(*forcing):
    """What `probing` asks of a model: its inputs."""
    return SimpleNamespace(features=Features(forcing, ("sand",)))


def test_score_reads_a_table_as_doctor_does(tmp_path, ward):
    file = tmp_path / "mine.csv"
    text = dated("%Y-%m-%d", 100).replace("depth_m", "Depth (cm)").replace(",0.05,", ",5,")
    file.write_text(text.replace("-105.5021", "-99.5021").replace("41.2512", "37.5"))
    experiment = load.load_experiment(str(ward))
    found = probes.read_probes(experiment, NONE, trained("air_temperature"), str(file))
    assert found.sites.ids == ("A",)
    assert found.lat.tolist() == [37.5]
    observed = found.sites.observed[0]
    held = np.isfinite(observed)
    np.testing.assert_allclose(observed[held], 0.2 + np.arange(100) / 1000, rtol=1e-5)
    assert str(found.sites.days[held][0]) == "2019-05-01"


def test_inputs_that_a_file_of_sites_lacks_are_explained(tmp_path):
    """Models of `scan` take the inputs of each site, and a table of probes has none."""
    file = tmp_path / "mine.csv"
    file.write_text(dated("%Y-%m-%d", 100))
    experiment = load.load_experiment("scan")
    with pytest.raises(DataError) as told:
        probes.read_probes(experiment, NONE, trained("air_temperature", "precipitation"), str(file))
    (problem,) = told.value.problems
    assert "own inputs missing" in problem
    assert "the models of scan were trained on inputs" in problem
    assert "of each site itself (inputs_from: own)" in problem
    assert "each day air_temperature (K), precipitation (kg m-2 day-1)" in problem
    assert "once sand (percent)" in problem
    assert "inputs_from: cell" in told.value.remedy


def test_a_table_that_needs_to_be_told_more_names_doctor(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text(dated("%d/%m/%Y", 12))
    with pytest.raises(DataError) as told:
        probes.read_probes(
            load.load_experiment("scan"), NONE, trained("air_temperature"), str(file)
        )
    assert "--set time_format='%d/%m/%Y'" in told.value.problems[0]
    assert f"soilweave doctor {file} --set KEY=VALUE --write my.yaml:mine" in told.value.remedy


def test_sites_without_satellite_values_are_counted(capsys, monkeypatch):
    few = {"id": "far", "arm": "all arms", "reason": "3 of 20 observed days without inputs"}
    none = [
        {"id": f"s{i}", "arm": "footprint", "reason": "0 pairs, fewer than 90"} for i in range(124)
    ]
    short = [
        {"id": f"t{i}", "arm": "multiscale", "reason": f"{i} pairs, fewer than 90"}
        for i in range(7, 19)  # 10 among them
    ]
    monkeypatch.setattr(sys, "argv", ["soilweave"])
    score.print_scores({"not_scored": [few, *none, *short]})
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines == [
        "not scored: far all arms: 3 of 20 observed days without inputs",
        "not scored: 124 sites, footprint: no satellite values on their observed days "
        "(s0, s1, s2 and 121 more)",
        "not scored: 12 sites, multiscale: 7 to 18 pairs, fewer than 90 (t7, t8, t9 and 9 more)",
    ]


def test_the_longest_record_of_a_table_is_that_of_the_period(tmp_path):
    """Sensor 1 has the longer record, and sensor 2 the longer one of the period."""
    file = tmp_path / "mine.csv"
    first = (
        f"A,41.25,-105.5,0.05,{START + datetime.timedelta(k):%Y-%m-%d},0.1,1" for k in range(60)
    )
    second = (
        f"A,41.25,-105.5,0.05,{START + datetime.timedelta(50 + k):%Y-%m-%d},0.3,2"
        for k in range(40)
    )
    file.write_text("\n".join([f"{LONG.strip()},port", *first, *second]) + "\n")
    columns = COLUMNS | {"sensor": "port"}
    source = TableSource(str(file), MAPPING, columns, sensors="longest")
    source.period = (datetime.date(2019, 6, 20), datetime.date(2019, 7, 29))
    found = source.to_dask()["soil_moisture"].sel(time=slice("2019-06-20", "2019-07-29"))
    np.testing.assert_allclose(found.values[:, 0], np.full(40, 0.3), rtol=1e-6)


def test_a_list_of_sites_may_end_its_lines_in_any_way(tmp_path):
    years = {("NM_Socorro_20_N", 2020): miniatures_insitu.uscrn_year("NM_Socorro_20_N", 2020)}
    folder = miniatures_insitu.write_uscrn(tmp_path / "products", years)
    table = folder.parent / "stations.tsv"
    table.write_bytes(table.read_bytes().replace(b"\n", b"\r"))
    for file in folder.rglob("*.txt"):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r"))
    mapping = {"soil_moisture": {"from": "SOIL_MOISTURE_5_DAILY", "units": "m3 m-3"}}
    dataset = UscrnSource(str(folder), mapping).to_dask().load()
    assert dataset.lat.values.tolist() == [34.35]
    assert float(dataset.elevation[0]) == pytest.approx(4847 * 0.3048)
    np.testing.assert_allclose(dataset["soil_moisture"].values, 0.259, rtol=1e-6)


def test_uscrn_files_without_their_list_lie_where_they_say(tmp_path):
    names = ("NM_Socorro_20_N", "MT_St._Mary_1_SSW")
    years = {(name, 2020): miniatures_insitu.uscrn_year(name, 2020) for name in names}
    folder = miniatures_insitu.write_uscrn(tmp_path / "products", years)
    (folder.parent / "stations.tsv").unlink()
    mapping = {"soil_moisture": {"from": "SOIL_MOISTURE_5_DAILY", "units": "m3 m-3"}}
    for url in (str(folder), f"file://{folder}"):
        dataset = UscrnSource(url, mapping).to_dask().load()
        assert dataset.place.values.tolist() == sorted(names)
        assert dataset.lat.values.tolist() == [48.74, 34.35]
        assert dataset.lon.values.tolist() == [-113.43, -106.88]
        np.testing.assert_allclose(dataset["soil_moisture"].values, 0.259, rtol=1e-6)
