"""The journey of the demo, smaller: planet, cube, models, maps, scores against truth, report."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from small_demo import SETTINGS, run
from typer.testing import CliRunner

from pipeline import files
from pipeline.cli import app
from pipeline.evaluate import compare
from pipeline.evaluate import stage as evaluate_stage
from pipeline.experiment import load
from pipeline.storage import tables, zarr_arrays
from pipeline.storage.artefacts import Workspace
from pipeline.storage.cube import Cube


@pytest.fixture(scope="module")
def place(demo):
    workspace = Workspace(str(demo[0] / "demo"))
    return workspace, workspace.place(load.load_experiment("demo", SETTINGS))


def test_all_stages_end_and_a_second_run_touches_nothing(demo, capsys):
    folder, code = demo
    assert code == 0
    made = {p.name for p in (folder / "demo").iterdir()}
    assert made >= {"planet", "cube.zarr", "models", "maps", "state", "summary.json", "report.html"}
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert run(folder) == 0
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == before
    told = capsys.readouterr()
    for stage in ("planet", "cube", "folds", "maps", "scores", "report"):
        assert f"{stage} complete" in told.err
    assert "Against the truth" in told.out
    assert "at reduced settings; published results use demo-full" in told.out
    assert "xarray.open_zarr(" in told.out


def test_cells_judged_are_away_from_every_site(place):
    workspace, _ = place
    cube = Cube.open(workspace.url("cube.zarr"))
    away = {tuple(cell) for cell in evaluate_stage.cells_away_from_sites(cube).tolist()}
    sites = list(zip(cube.sites["y"].values.tolist(), cube.sites["x"].values.tolist(), strict=True))
    ny, nx = cube.cells["mask"].shape
    expected = set()
    for y in range(ny):
        for x in range(nx):
            far = all(max(abs(y - a), abs(x - b)) >= 2 for a, b in sites)
            empty = all((y // 4, x // 4) != (a // 4, b // 4) for a, b in sites)
            if far and empty:
                expected.add((y, x))
    assert away == expected
    assert 0 < len(away) < ny * nx


def test_scores_against_the_truth_are_those_of_plain_xarray(place):
    workspace, experiment = place
    scores = tables.read_table(workspace.url("scores.parquet"))
    rows = scores[(scores.target == "truth") & (scores.metric == "rmse")]
    paths = sorted(Path(workspace.url("planet")).glob("truth_*.nc"))
    known = xr.concat([xr.open_dataset(p, engine="h5netcdf") for p in paths], "time").SM
    known = known.sel(time=slice(*map(str, experiment.test_period)))
    for arm in ("multiscale", "satellite"):
        mapped = xr.open_zarr(workspace.url(f"maps/{arm}.zarr"))[experiment.target]
        mapped = mapped.sel(time=known.time)
        error = np.sqrt(((mapped.values - known.values) ** 2).mean(0))
        found = rows[rows.arm == arm].set_index("id").value
        assert len(found) > 50
        for cell, value in found.items():
            y, x = map(int, str(cell).split(","))
            assert value == pytest.approx(error[y, x], abs=1e-6)
    summary = json.loads(files.read_bytes(workspace.url("summary.json")))["truth"]
    assert summary["n_cells"] == len(rows[rows.arm == "insitu"]) == summary["cells_away_from_sites"]
    median = rows[rows.arm == "insitu"].value.median()
    assert summary["arms"]["insitu"]["median"]["rmse"] == pytest.approx(median)
    assert summary["paired"].keys() == {
        f"multiscale-{o}" for o in ("insitu", "satellite", "footprint")
    }


def test_a_comparison_shows_the_scores_against_the_truth(place, tmp_path):
    workspace, _ = place
    (tmp_path / "demo").symlink_to(workspace.root)
    few = tmp_path / "few"
    (few / "models").mkdir(parents=True)
    names = ("sites.parquet", "folds.parquet", "folds.manifest.json", "models/manifest.json")
    for name in (*names, "experiment.yaml", "summary.json"):
        shutil.copyfile(workspace.url(name), few / name)
    summary = json.loads((few / "summary.json").read_text())
    known = summary["truth"]
    known["arms"]["insitu"]["median"]["rmse"] = 0.4321
    (few / "summary.json").write_text(json.dumps(summary))
    command = ["evaluate", "demo", "few", "--workspace", str(tmp_path)]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 0, found.output
    assert "Against the truth" in found.output
    assert ".4321" in found.output
    truth = compare.compare_experiments([workspace, Workspace(str(few))])["truth"]
    assert truth["few"]["paired"] == known["paired"]
    assert truth["few"]["arms"]["insitu"]["median"] == known["arms"]["insitu"]["median"]


@pytest.mark.runs  # it takes a quarter of a minute
def test_a_planet_made_elsewhere_is_used_as_it_is(place, tmp_path, local_ray):
    from pipeline import planet, prepare
    from pipeline.errors import StoreError
    from pipeline.progress import SilentProgress

    first, _ = place
    url = first.url("planet")
    experiment = load.load_experiment("demo", [*SETTINGS, f"planet.url={url}"], "other")
    other = Workspace(str(tmp_path / "other"))
    experiment = other.place(experiment)
    planet.run(experiment, other, SilentProgress())
    prepare.run(experiment, other, SilentProgress())
    assert not files.exists(other.url("planet"))
    ours, theirs = (zarr_arrays.open_group(w.url("cube.zarr"), "cells") for w in (other, first))
    np.testing.assert_array_equal(ours.precipitation.values, theirs.precipitation.values)
    lost = load.load_experiment("demo", [f"planet.url={tmp_path}/none"])
    with pytest.raises(StoreError, match="there is no planet in this folder"):
        planet.run(lost, other, SilentProgress())


def test_the_readme_reads_a_value_and_plots_a_series(demo, capsys, monkeypatch, tmp_path):
    readme = Path(__file__).resolve().parents[2] / "README.md"
    (code,) = re.findall(r"```python\n(.*?)```", readme.read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    figure = plt.figure()
    exec(code.replace('"workspace/', f'"{demo[0]}/'))
    (line,) = figure.axes[0].lines
    plt.close(figure)
    assert (tmp_path / "series.png").stat().st_size > 0

    maps = xr.open_zarr(demo[0] / "demo" / "maps" / "multiscale.zarr")
    y = int(abs(maps.lat.values[:, 0] - 39.12).argmin())
    x = int(abs(maps.lon.values[0] + 101.35).argmin())
    np.testing.assert_array_equal(line.get_ydata(), maps.soil_moisture.values[:, y, x])
    day = maps.time.values == np.datetime64("2016-09-22")
    mean, std = (maps[name].values[day, y, x][0] for name in ("soil_moisture", "soil_moisture_std"))
    assert np.isfinite([mean, std]).all()
    assert capsys.readouterr().out == f"{mean:.3f} +- {std:.3f} m3 m-3\n"
