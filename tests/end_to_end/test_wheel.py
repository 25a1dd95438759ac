"""A wheel, installed into an environment of its own: it has its data, and runs the demo."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from small_demo import OPTIONS

import pipeline
from pipeline.experiment import load

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789" * 4  # of the sources, which the build is told

pytestmark = pytest.mark.runs  # building, installing and the small demo take a minute


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Run a command of the wheel in an empty folder, without the sources; its standard output.

    The packages that soilweave needs are those of this environment, so that nothing is fetched.
    """
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("model", "pipeline", "catalogs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", str(source), "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    _run([*pip, *build], folder)
    (wheel,) = folder.glob("*.whl")
    assert wheel.stat().st_size < 10e6
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    _run([*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)], folder)
    site = Path(_run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                     folder).strip())  # fmt: skip
    (site / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    empty = folder / "empty"
    empty.mkdir()
    return lambda *command: _run([folder / "env" / "bin" / command[0], *command[1:]], empty)


def _run(command, folder):
    """Run a command without what points to the sources or to the real files."""
    ours = ("PYTHONPATH", "SOILWEAVE_DATA", "MLFLOW_TRACKING_URI", "RAY_ADDRESS")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    environment["SOILWEAVE_COMMIT"] = COMMIT
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_version_is_that_of_the_sources_and_the_commit_is_known(installed):
    assert installed("soilweave", "--version") == f"soilweave {pipeline.__version__}\n"
    tell = "import pipeline; from pipeline.storage import provenance as p; "
    tell += "print(pipeline.__file__, p.code_commit())"
    where, commit = installed("python", "-c", tell).split()
    assert not Path(where).is_relative_to(ROOT)
    assert commit == COMMIT


def test_it_has_presets_catalogs_models_the_page_and_the_report(installed):
    listed = json.loads(installed("soilweave", "ls", "--json", "-"))
    for kind in ("experiments", "recipes", "models"):
        assert [*listed[kind]] == load.list_presets(kind)
    tell = "import importlib.resources as r, json\n"
    tell += "print(json.dumps([sorted(p.name for p in r.files(n).iterdir()) for n in "
    tell += "('catalogs', 'pipeline.viewer.static', 'pipeline.evaluate.report')]))"
    catalogs, viewer, report = json.loads(installed("python", "-c", tell))
    assert {"main.yaml", "scan.yaml", "scan-public.yaml"} <= {*catalogs}
    assert {"index.html", "viewer"} <= {*viewer}
    assert {"page.html", "page.css", "borders.json"} <= {*report}
    told = "from pipeline.experiment import shipped_models as s; "
    told += "from pipeline.storage import models as m; "
    told += "print(len(m.load_ensemble(s.models_url('scan'), 'multiscale')))"
    assert installed("python", "-c", told) == "6\n"


def test_it_runs_the_demo(installed):
    out = installed("soilweave", "run", "demo", "--workspace", "ws", *OPTIONS)
    assert "report: " in out
    listed = json.loads(installed("soilweave", "ls", "demo", "--workspace", "ws", "--json", "-"))
    assert listed["artefacts"]["report"].startswith("complete, ")
    assert "no problem" in installed("soilweave", "verify", "demo", "--workspace", "ws")


@pytest.mark.data
def test_it_scores_a_table_of_probes(installed, real_data, tmp_path):
    days = [f"2016-{month:02}-{day:02}" for month in range(4, 9) for day in range(1, 29)]
    with (tmp_path / "my.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["site", "lat", "lon", "depth_cm", "time", "vwc_percent"])
        for i, day in enumerate(days):  # in one of the cells, at no training site
            table.writerow(["meadow", 37.3904, -111.393, 5, day, 25 + i % 9])
    given = f"SOILWEAVE_DATA={real_data}"
    out = installed("python", "-c", SCORE, given, str(tmp_path / "my.csv"))
    assert "unseen: the models have learnt from no site at these places" in out
    assert "meadow" in out


SCORE = """
import os, subprocess, sys
name, _, value = sys.argv[1].partition("=")
command = [os.path.join(os.path.dirname(sys.executable), "soilweave"), "score", sys.argv[2]]
sys.exit(subprocess.run(command, env=os.environ | {name: value}).returncode)
"""
