"""The table of faults: its rows name what exists, and a promise that is broken is told."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import typer
import zarr
from faults import __main__, page, plan, registry, soak, trial
from results import differences, results
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cli.run_stages import RUN

TESTS = Path(__file__).resolve().parents[1]

# A test that holds, one that tells its tries, one that fails, one that is skipped.
SUITE = """
import pytest
pytestmark = pytest.mark.units

@pytest.mark.parametrize("how", ["flipped", "truncated"])
def test_holds(how):
    pass

def test_tells(record_property):
    record_property("tried", 5)

@pytest.mark.parametrize("how", ["flipped", "truncated"])
def test_breaks(how):
    assert how != "truncated", "a map was\\nwrong"

def test_waits():
    pytest.skip("no server here")
"""


def row(name, test, cases=""):
    return registry.Fault(name, "a promise", "verify", name, (f"test_it.py::{test}",), cases)


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """A registry of four rows above a suite of its own, and a page for its table."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = units: all of it\n")
    marks = "<!-- faults: made by make faults -->\n<!-- end of faults -->"
    (tmp_path / "reliability.md").write_text(marks)
    rows = [row("holds", "test_holds"), row("tells", "test_tells"), row("waits", "test_waits")]
    rows += [row("breaks", "test_breaks"), row("half", "test_breaks", "flipped")]
    monkeypatch.setattr(registry, "FAULTS", [*rows, row("gone", "test_holds", "stale")])
    monkeypatch.setattr(trial, "ROOT", tmp_path)
    monkeypatch.setattr(trial, "SESSIONS", {"quick": "units"})
    return tmp_path


def called(folder, *arguments):
    command = typer.Typer()
    command.command()(__main__.main)
    places = ("--folder", str(folder / "reports"), "--docs", str(folder))
    return CliRunner().invoke(command, [*places, *arguments])


def test_there_are_25_kinds_and_every_promise_has_rows():
    names = Counter(fault.name for fault in registry.FAULTS)
    assert [name for name, n in names.items() if n > 1] == []
    assert len({fault.kind for fault in registry.FAULTS}) >= 25
    assert len({fault.promise for fault in registry.FAULTS}) == len([*registry.TABLE.iterdir()])


def test_every_row_names_a_stage_and_tests_that_exist():
    verbs = {command.name or command.callback.__name__ for command in app.registered_commands}
    stages = {*RUN, *verbs, *registry.OTHER_STAGES}
    assert {fault.stage for fault in registry.FAULTS} <= stages
    missing = []
    for test in sorted({test for fault in registry.FAULTS for test in fault.tests}):
        file, _, function = test.partition("::")
        names = {
            node.name
            for node in ast.parse((TESTS / file).read_text()).body
            if isinstance(node, ast.FunctionDef)
        }
        missing += [test] if function not in names else []
    assert missing == []


def test_every_stage_of_run_has_rows():
    assert {*RUN} <= {fault.stage for fault in registry.FAULTS}


def test_rows_are_listed_and_chosen_by_patterns(tmp_path):
    told = called(tmp_path, "--list", "--only", "killed-*")
    assert told.exit_code == 0
    assert "killed-train" in told.stdout
    assert "mlflow-dead" not in told.stdout
    told = called(tmp_path, "--only", "nothing-*")
    assert told.exit_code == 2
    assert "faults --only nothing-*: no such row; --list names them" in told.output


def test_a_row_whose_check_fails_is_broken_and_the_exit_status_is_1(suite):
    assert called(suite).exit_code == 1
    written = (suite / "reliability.md").read_text()
    lines = {name: re.search(rf"^.*`{name}`.*$", written, re.M)[0] for name in ("holds", "breaks")}
    assert "| 2 | held, 2 of 2 |" in lines["holds"]
    assert "BROKEN: AssertionError: a map was" in lines["breaks"]
    assert "| 5 | held, 5 of 5 |" in written
    assert "| 0 | not tried: no server here |" in written
    assert "| 1 | held, 1 of 1 |" in written
    assert "BROKEN: test_it.py::test_holds did not run" in written
    assert "3 rows held, 2 broken, 1 not tried" in written


@pytest.mark.runs  # it takes some seconds
def test_rows_that_hold_end_with_0_and_leave_the_others_as_they_are(suite):
    before = (suite / "reliability.md").read_text()
    assert called(suite, "--only", "holds").exit_code == 0
    assert (suite / "reliability.md").read_text() == before  # its other rows would be lost
    assert called(suite).exit_code == 1
    assert called(suite, "--only", "holds", "--only", "half").exit_code == 0
    assert "3 rows held, 2 broken, 1 not tried" in (suite / "reliability.md").read_text()


def test_the_table_has_all_cells_in_each_row():
    outcomes = {fault.name: trial.Outcome(1, 1) for fault in registry.FAULTS}
    lines = page.for_page(registry.FAULTS, outcomes).splitlines()
    assert len(lines) == len(registry.FAULTS) + 2
    assert {line.count("|") for line in lines} == {len(page.HEAD) + 1}


def test_a_seed_draws_the_same_faults_again_and_all_kinds_occur():
    plans = [plan.draw(seed) for seed in range(200)]
    assert plans == [plan.draw(seed) for seed in range(200)]
    kinds = {kind for each in plans for kind in each.kinds()}
    expected = {f"store {fault}" for fault in plan.STORE_FAULTS}
    expected |= {f"MLflow {how}" for how in plan.MLFLOW[1:]} | {*plan.STOPS}
    assert kinds == expected | {f"object {how}" for how in plan.DAMAGES}


def test_what_differs_between_two_workspaces_is_named(tmp_path):
    for name in ("ours", "theirs"):
        group = zarr.create_group(str(tmp_path / name / "cube.zarr"))
        group.create_array("cells/rain", data=np.array([1.0, np.nan], np.float32))
        (tmp_path / name / "summary.json").write_text(json.dumps({"rmse": 0.05}))
        (tmp_path / name / "report.html").write_text(name)
    ours, theirs = (results(str(tmp_path / name)) for name in ("ours", "theirs"))
    assert ours.keys() == {"cube.zarr/cells/rain", "summary.json"}
    assert differences(ours, theirs) == []
    zarr.open_group(str(tmp_path / "ours" / "cube.zarr"))["cells/rain"][0] = np.nextafter(
        np.float32(1), np.float32(2)
    )
    (tmp_path / "ours" / "sites.parquet").write_bytes(b"")
    found = differences(results(str(tmp_path / "ours")), theirs)
    assert found == ["cube.zarr/cells/rain", "sites.parquet"]


def test_the_soak_damages_what_its_plan_says_and_never_a_model(tmp_path):
    for name in ("a.json", "b.json", "c.json"):
        (tmp_path / name).write_text(f"{name}: twenty bytes")
    safetensors.numpy.save_file({"bias": np.ones(2)}, tmp_path / "checkpoint.safetensors")
    damages = (("flipped", 0.0), ("exchanged", 0.9), ("deleted", 0.4))
    wanted = results(str(tmp_path))
    found = soak.damage(str(tmp_path), plan.Plan(1, False, (), "as usual", (), damages))
    assert found == {"a.json": "flipped", "b.json": "exchanged", "c.json": "exchanged"}
    assert differences(results(str(tmp_path)), wanted) == ["a.json", "b.json", "c.json"]
    assert (tmp_path / "b.json").read_text().startswith("c.json")  # nothing is damaged twice


def test_the_soak_tells_what_was_wrong():
    done = soak.Soak(seeds=[7, 8], wrong={8: "3 results differ: sites.parquet"})
    done.kinds.update(plan.draw(7).kinds())
    told = soak.report(done, 120.0)
    assert "2 loops, seeds 7 to 8" in told
    assert "**1 wrong results**" in told
    assert "Seed 8: 3 results differ: sites.parquet." in told
