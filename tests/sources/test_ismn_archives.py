"""ISMN archives as they are published now: replaced sensors, line ends, flags, folders."""

from __future__ import annotations

import datetime
import zipfile

import miniatures_insitu
import numpy as np
import pytest
import yaml
from miniatures_insitu import Sensor, hours

from pipeline import doctor
from pipeline.catalog import quality_control
from pipeline.experiment.config import QcConfig
from pipeline.experiment.variables import VARIABLES
from pipeline.progress import SilentProgress
from pipeline.sources.ismn import IsmnSource

MAPPING = {
    "soil_moisture": {"from": "soil_moisture", "units": "m3 m-3"},
    "soil_temperature": {"from": "soil_temperature", "units": "degC"},
}

SITE = ("SCAN", "Isbell", 34.82, -97.0)


def sensor(name, first, days, value, flag="G", **other):
    """An hourly sensor of one value and flag."""
    rows = hours(first, 24 * days, lambda i: value, lambda i: flag)
    return Sensor(*other.pop("site", SITE), rows, name=name, **other)


def opened(path, period=None, **settings):
    source = IsmnSource(str(path), MAPPING, **settings)
    if period:
        source.period = tuple(datetime.date.fromisoformat(day) for day in period)
    return source.to_dask().load()


def moisture(dataset, place="SCAN_Isbell"):
    return dataset["soil_moisture"].sel(place=place).values


def screened(dataset, **rules):
    """Values that pass quality control, and the counts of what is dropped."""
    rules = QcConfig(stuck_days=None, **rules)
    values, dropped = quality_control.screen_sites(
        dataset, "soil_moisture", VARIABLES["soil_moisture"], rules
    )
    return values, {rule: int(rejected.sum()) for rule, rejected in dropped.items()}


@pytest.fixture
def replaced(tmp_path):
    """Sensor A for 60 days, then B in its place for 20; and a temperature replaced likewise."""
    sensors = [
        sensor("Hydraprobe-A", "2016-01-01", 60, 0.1),
        sensor("Hydraprobe-B", "2016-03-05", 20, 0.3),
        sensor("Hydraprobe-A", "2016-01-01", 60, 5.0, variable="soil_temperature"),
        sensor("Hydraprobe-B", "2016-03-05", 20, 15.0, variable="soil_temperature"),
    ]
    return miniatures_insitu.write_ismn(tmp_path / "archive", sensors)


def test_a_replacement_is_read_in_the_period_it_was_there(replaced):
    dataset = opened(replaced, ("2016-03-05", "2016-03-24"))
    np.testing.assert_allclose(moisture(dataset), np.full(20, 0.3), rtol=1e-6)
    warm = dataset["soil_temperature"].sel(place="SCAN_Isbell").values
    np.testing.assert_allclose(warm, np.full(20, 15.0))


def test_successive_sensors_are_one_record_and_named(replaced):
    dataset = opened(replaced)
    expected = np.r_[np.full(60, 0.1), np.full(4, np.nan), np.full(20, 0.3)]
    np.testing.assert_allclose(moisture(dataset), expected, rtol=1e-6)
    assert dataset.sensor.values.tolist() == ["Hydraprobe-A + Hydraprobe-B"]
    (note,) = dataset.attrs["notes"]
    assert note.startswith("2 records join successive sensors of one depth: SCAN_Isbell")
    assert "Hydraprobe-A 2016-01-01..2016-02-29, Hydraprobe-B 2016-03-05..2016-03-24" in note


@pytest.mark.parametrize("zipped", [False, True])
def test_a_sensor_that_is_not_read_with_days_of_its_own_is_named(tmp_path, zipped):
    """The replacement overlaps the first sensor by a day, so that the two are not joined."""
    archive = [sensor("Probe-A", "2016-01-01", 60, 0.1), sensor("Probe-B", "2016-02-29", 20, 0.3)]
    archive += [sensor("Probe-C", "2016-01-10", 51, 0.2)]  # beside A, with no day of its own
    folder = miniatures_insitu.write_ismn(tmp_path / "archive", archive)
    path = miniatures_insitu.zipped(folder) if zipped else folder
    dataset = opened(path)
    np.testing.assert_allclose(moisture(dataset), np.full(60, 0.1), rtol=1e-6)
    (note,) = dataset.attrs["notes"]
    assert note.endswith(
        ": SCAN_Isbell (Probe-A 2016-01-01..2016-02-29, not Probe-B 2016-02-29..2016-03-19)"
    )
    later = opened(path, ("2016-03-01", "2016-03-19"))
    np.testing.assert_allclose(moisture(later), np.full(19, 0.3), rtol=1e-6)
    assert "notes" not in later.attrs


def test_doctor_tells_of_joined_sensors_and_of_places_without_values(replaced, tmp_path):
    gone = Sensor("SCAN", "Gone", 34.9, -97.2, hours("2015-01-01", 48, lambda i: 0.2))
    miniatures_insitu.write_ismn(replaced, [gone])
    spec = {
        "driver": "pipeline.sources.ismn.IsmnSource",
        "args": {"urlpath": str(replaced), "mapping": MAPPING},
        "metadata": {
            **dict.fromkeys(("license", "doi", "auth", "region", "native_units"), "none"),
            **dict.fromkeys(("native_grid", "time_convention"), "none"),
            "period": "2016-03-05..2016-03-24",
            "support": "site",
        },
    }
    catalog = tmp_path / "c.yaml"
    catalog.write_text(yaml.safe_dump({"sources": {"ismn": spec}}))
    _, (table, *_) = doctor.examine(str(catalog), (), SilentProgress())
    found = list(table.columns[3].cells)
    shown = "\n".join(str(cell) for cell in found)
    assert "soil_moisture: 1 of 2 places have no value: SCAN_Gone" in shown
    assert "2 records join successive sensors of one depth" in shown


def test_the_record_with_most_good_days_in_the_period_is_read(tmp_path):
    archive = [
        sensor("Long", "2016-01-01", 90, 0.1, "D03"),
        sensor("Good", "2016-02-01", 20, 0.2),
        sensor("Late", "2016-02-15", 40, 0.3),
    ]
    folder = miniatures_insitu.write_ismn(tmp_path / "archive", archive)
    february = opened(folder, ("2016-02-01", "2016-02-29"))
    np.testing.assert_allclose(moisture(february)[:20], np.full(20, 0.2), rtol=1e-6)
    assert np.isnan(moisture(february)[20:]).all()
    march = opened(folder, ("2016-03-01", "2016-03-20"))
    np.testing.assert_allclose(moisture(march), np.full(20, 0.3), rtol=1e-6)
    assert march.sensor.values.tolist() == ["Late"]


def test_sensors_side_by_side_are_not_joined(tmp_path):
    """Two positions, each replaced once: four files, two records, the longer one is read."""
    archive = [
        sensor("Probe_1_1", "2016-01-01", 10, 0.11),
        sensor("Probe_2_1", "2016-01-01", 12, 0.21),
        sensor("Probe_1_2", "2016-01-11", 10, 0.12),
        sensor("Probe_2_2", "2016-01-13", 10, 0.22),
        sensor("Probe_3_1", "2016-01-25", 30, 0.4, depth=(0.02, 0.02)),
    ]
    folder = miniatures_insitu.write_ismn(tmp_path / "archive", archive)
    dataset = opened(folder, ("2016-01-01", "2016-01-22"))
    expected = np.r_[np.full(12, 0.21), np.full(10, 0.22)]
    np.testing.assert_allclose(moisture(dataset), expected, rtol=1e-6)
    mean = opened(folder, ("2016-01-01", "2016-01-22"), several="mean")
    both = np.r_[np.full(10, 0.16), np.full(2, 0.165), np.full(8, 0.17), np.full(2, 0.22)]
    np.testing.assert_allclose(moisture(mean), both, rtol=1e-6)


@pytest.mark.parametrize("layout", ["header_values", "ceop"])
def test_lines_may_end_in_any_way(tmp_path, layout):
    archive = [sensor("Probe", "2016-01-01", 5, 0.25, "G"), sensor("Other", "2016-01-03", 4, 0.35)]
    archive[1].site = "Another"
    found = {}
    for name, end in {"unix": b"\n", "windows": b"\r\n", "mac": b"\r"}.items():
        folder = miniatures_insitu.write_ismn(tmp_path / name, archive, layout)
        for file in folder.rglob("*.stm"):
            file.write_bytes(file.read_bytes().replace(b"\n", end))
        found[name] = [opened(folder), opened(miniatures_insitu.zipped(folder))]
    for dataset in [*found["windows"], *found["mac"], found["unix"][1]]:
        assert dataset.identical(found["unix"][0])
    np.testing.assert_allclose(moisture(found["mac"][0])[:5], np.full(5, 0.25))
    np.testing.assert_allclose(moisture(found["mac"][0], "SCAN_Another")[2:], np.full(4, 0.35))


def test_values_that_nobody_checked_are_kept_under_their_own_name(tmp_path):
    """Days of U alone, of 12 G and 12 U, of 8 G and 8 U, of 6 U, and of U with D."""
    flags = ["U"] * 24 + ["G"] * 12 + ["U"] * 12 + (["G", "U"] * 8 + ["M"] * 8)
    flags += ["U"] * 6 + ["M"] * 18 + ["U,D03"] * 24
    values = np.arange(len(flags)) / 1000 + 0.1
    rows = hours("2016-01-01", len(flags), lambda i: values[i], lambda i: flags[i])
    folder = miniatures_insitu.write_ismn(tmp_path / "archive", [Sensor(*SITE, rows)])
    dataset = opened(folder)
    kept, counts = screened(dataset)
    days = values.reshape(5, 24)
    expected = [days[0].mean(), days[1, :12].mean(), days[2, :16].mean(), np.nan, np.nan]
    np.testing.assert_allclose(kept[:, 0], expected, rtol=1e-5)
    assert counts.get("provider: M") == 1
    assert counts.get("provider: D03,U") == 1
    assert sum(counts.values()) == 2


@pytest.mark.parametrize("layout", ["header_values", "ceop"])
def test_network_and_station_stand_in_the_text(tmp_path, layout):
    """Whatever the folders are called."""
    archive = [
        sensor("Probe", "2016-01-01", 2, 0.1, folder="Data_separate_files_2016/SCAN"),
        sensor("Probe", "2016-01-01", 2, 0.2, folder="mine", site=("USCRN", "Goodwell", 36, -101)),
    ]
    folder = miniatures_insitu.write_ismn(tmp_path / layout, archive, layout)
    for path in (folder, miniatures_insitu.zipped(folder)):
        dataset = opened(path)
        assert dataset.place.values.tolist() == ["SCAN_Isbell", "USCRN_Goodwell"]
        assert dataset.network.values.tolist() == ["SCAN", "USCRN"]


def test_blanks_in_names_and_files_that_are_no_sensors(tmp_path):
    """Metadata that `ismn` leaves, hidden files of macOS, and a station's name with blanks."""
    archive = [
        sensor("Probe", "2016-01-01", 2, 0.1, folder="Data_separate_files_2016/SCAN"),
        sensor("Probe", "2016-01-01", 2, 0.2, folder="mine", site=("USCRN", "Goodwell", 36, -101)),
    ]
    for layout in ("header_values", "ceop"):
        folder = miniatures_insitu.write_ismn(tmp_path / layout, archive, layout)
        (folder / "python_metadata").mkdir()
        (folder / "python_metadata" / "archive.csv").write_text("network;station\n")
        text = next((folder / "mine").rglob("*.stm"))
        text.write_text(text.read_text().replace("Goodwell", "Goodwell 2 E"))
        for file in (folder / "mine", folder / "Data_separate_files_2016"):
            hidden = next(file.rglob("*.stm"))
            hidden.with_name(f"._{hidden.name}").write_bytes(b"\0\5\x16\7")
        dataset = opened(miniatures_insitu.zipped(folder))
        assert dataset.place.values.tolist() == ["SCAN_Isbell", "USCRN_Goodwell-2-E"]
        assert dataset.network.values.tolist() == ["SCAN", "USCRN"]
        assert dataset.lat.values.tolist() == [34.82, 36.0]
        np.testing.assert_allclose(moisture(dataset), [0.1, 0.1], rtol=1e-6)
        np.testing.assert_allclose(moisture(dataset, "USCRN_Goodwell-2-E"), [0.2, 0.2], rtol=1e-6)


def test_a_header_without_a_sensor_and_flags_of_the_provider_with_blanks(tmp_path):
    folder = tmp_path / "archive" / "any"
    folder.mkdir(parents=True)
    lines = ["RISMA RISMA MB11 50.11131 -97.57337 248.253 0.0000 0.0500"]
    lines += [f"2014/05/{d:02d} {h:02d}:00 0.379 G OK,OK" for d in (1, 2) for h in range(24)]
    lines[30:40] = [f"{line[:-5]}DLT >= 1.5,OK" for line in lines[30:40]]
    name = "RISMA_RISMA_MB11_sm_0.000000_0.050000_Hydraprobe-II-Sdi-12-C_19500101_20230521.stm"
    (folder / name).write_text("\r".join(lines) + "\r")
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.write(folder / name, f"any/{name}")
    for path in (tmp_path / "archive", tmp_path / "archive.zip"):
        dataset = opened(path)
        assert dataset.place.values.tolist() == ["RISMA_MB11"]
        np.testing.assert_allclose(moisture(dataset, "RISMA_MB11"), [0.379, 0.379], rtol=1e-6)
