"""The command line: what it says, what it refuses, what it leaves alone, and `score`."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import world as world_module
import xarray as xr

from pipeline import __main__, files
from pipeline.cli import run_stages
from pipeline.experiment import load
from pipeline.grid import lookup
from pipeline.storage import artefacts, zarr_arrays

VERBS = {
    "run": "Prepare, train, predict and evaluate: whatever is missing",
    "prepare": "Bring every source onto one grid and calendar",
    "train": "Train every arm, fold and seed",
    "predict": "Map every arm, with uncertainty",
    "evaluate": "Score arms and baselines (scores.parquet",
    "update": "Append new days to the maps of an experiment that was run",
    "score": "Test trained models on probes of your own; trains nothing",
    "export": "Write maps as GeoTIFF, NetCDF or a table",
    "submit": "Run a verb as a job on a Ray cluster and follow it",
    "init": "Write an experiment file of your own",
    "ls": "List the experiments of a workspace and presets",
}

SHORT = "[2019-12-05, 2020-03-10]"  # the sources go on until 27 April
PERIODS = ("period", "train_period", "test_period")
TINY = ["arms=[insitu]", "train.updates=4", *(f"{key}={SHORT}" for key in PERIODS)]
TINY_SET = [part for setting in TINY for part in ("--set", setting)]

SCRIPT = """
import json, sys
from pipeline import cli
try:
    cli.main()
except SystemExit as end:
    heavy = sorted({"ray", "mlflow"} & sys.modules.keys())
    print("\\n" + json.dumps({"code": end.code, "heavy": heavy}))
"""


@pytest.fixture
def at(world):
    """The options that name the finished world."""
    return [world.path, "--workspace", Path(world.workspace.root).parent]


def mtimes(world):
    folder = Path(world.workspace.root).parent
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def child(*args):
    command = [sys.executable, "-c", SCRIPT, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


class Interrupted:
    """A finder of modules during whose work somebody presses Ctrl-C."""

    @staticmethod
    def find_spec(name, *_):
        if name == "pipeline.cli":
            raise KeyboardInterrupt


def test_ctrl_c_while_modules_are_imported_is_one_line(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "pipeline.cli")
    monkeypatch.setattr(sys, "meta_path", [Interrupted, *sys.meta_path])
    with pytest.raises(SystemExit) as end:
        __main__.run()
    assert end.value.code == 130
    assert capsys.readouterr().err == "soilweave: interrupted\n"


@pytest.mark.parametrize("verb", VERBS)
def test_help_says_what_a_verb_does(soilweave, verb):
    code, out, _ = soilweave(verb, "--help")
    assert code == 0
    assert VERBS[verb] in " ".join(out.split())
    assert verb in soilweave("--help")[1]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["run", "snw"], "experiment 'snw': not found"),
        (["run", "scam"], "did you mean 'scan'"),
        (["prepare", "scan", "--set", "train.updtes=3"], "did you mean 'updates'"),
        (["run", "scan", "--set", "recipe=liu"], "recipe 'liu': not found"),
        (["train", "{snow}", "--workspace", "{tmp}/file/mine"], "soilweave prepare"),
        (["prepare", "{snow}", "--workspace", "{tmp}/file/mine"], "{tmp}/file/mine"),
        (["evaluate", "{snow}", "--workspace", "{tmp}/new"], "no complete cube"),
        (["score", "{snow}", "--sites", "{tmp}/file", "--workspace", "{tmp}/new"], "no complete"),
        (["ls", "scam"], "did you mean 'scan'"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_exit_code_2(soilweave, snow, tmp_path, args, says):
    (tmp_path / "file").write_text("in the way")
    code, out, err = soilweave(*(arg.format(snow=snow, tmp=tmp_path) for arg in args))
    assert code == 2
    assert out == ""
    assert err.startswith(f"soilweave {args[0]}: ")
    assert err.count("\n") == 1
    assert says.format(tmp=tmp_path) in err
    assert not (tmp_path / "new").exists()


def test_debug_shows_the_traceback():
    done = child("ls", "scam", "--debug")
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "not found; did you mean 'scan'?" in done.stderr


@pytest.mark.parametrize(
    ("verb", "setting", "change"),
    [
        ("train", "train.updates=61", "train.updates 60 -> 61"),
        ("run", "train.updates=61", "train.updates 60 -> 61"),
        ("run", "qc.stuck_days=20", "qc.stuck_days 30 -> 20"),
        ("prepare", "folds.seed=1", "folds.seed 0 -> 1"),
        ("evaluate", "judging.min_days=31", "judging.min_days 30 -> 31"),
        # What a later stage is made from was made with other settings too.
        ("train", "folds.n_folds=4", "folds.n_folds 3 -> 4"),
        ("train", "qc.stuck_days=20", "qc.stuck_days 30 -> 20"),
        ("evaluate", "train.updates=61", "train.updates 60 -> 61"),
        ("score", "n_seeds=2", "n_seeds 1 -> 2"),
        ("score", "folds.n_folds=4", "folds.n_folds 3 -> 4"),
        ("score", "network.hidden_size=8", "network.hidden_size 16 -> 8"),
    ],
)
def test_other_settings_on_a_finished_run_are_refused(soilweave, world, at, verb, setting, change):
    before = mtimes(world)
    sites = ["--sites", world.folder / "sites.nc"] if verb == "score" else []
    code, _, err = soilweave(verb, *at, *sites, "--set", setting)
    assert code == 2
    last = err.splitlines()[-1]
    assert last.startswith(f"soilweave {verb}: {world.workspace.root}")
    for part in (change, "--name NEW", "--overwrite"):
        assert part in last
    assert mtimes(world) == before


def test_a_second_run_starts_no_ray_and_touches_no_file(world, at):
    before = mtimes(world)
    done = child("run", *at)
    assert json.loads(done.stdout.splitlines()[-1]) == {"code": 0, "heavy": []}, done.stderr
    assert done.stderr.count("complete") == 6
    assert "multiscale" in done.stdout
    assert mtimes(world) == before


def test_verify_takes_the_file_of_an_experiment(soilweave, at):
    code, out, _ = soilweave("verify", *at)
    assert (code, "no problem" in out) == (0, True), out


@pytest.mark.runs  # it takes some seconds
def test_prepare_copies_the_sources_before_it_reads_them(soilweave, snow, tmp_path, local_ray):
    command = ["prepare", snow, *TINY_SET, "--workspace", tmp_path / "new"]
    code, _, said = soilweave(*command, "--stage-to", tmp_path / "copies")
    assert code == 0, said
    assert {path.stem for path in (tmp_path / "copies").glob("*.zarr")} >= {"cells", "sites"}
    assert (tmp_path / "new" / "snow" / "cube.zarr" / "manifest.json").exists()


def test_ls_lists_presets_artefacts_and_the_schema(soilweave, world, at):
    code, out, _ = soilweave("ls")
    assert code == 0
    for preset in ("scan", "scan-coarse", "default", "seen-cells", "liu2022"):
        assert preset in out
    code, out, _ = soilweave("ls", *at)
    assert [line.split()[:2] for line in out.splitlines()] == [
        [name, "complete,"] for name in artefacts.ARTEFACTS if name != "planet"
    ]
    _, out, _ = soilweave("ls", world.path, "--workspace", world.folder)
    assert out.count("absent") == 6
    assert json.loads(soilweave("ls", "--schema")[1]) == load.file_schema()


@pytest.fixture
def scored(soilweave, tmp_path):
    """Score a changed copy of a world's sites: the JSON, and what was printed."""

    def score(folder, options, change):
        with xr.open_dataset(folder / "sites.nc", engine="h5netcdf") as raw:
            change(raw.load()).to_netcdf(tmp_path / "probes.nc", engine="h5netcdf")
        result = tmp_path / "scores.json"
        code, out, err = soilweave(
            "score", *options, "--sites", tmp_path / "probes.nc", "--json", result
        )
        assert code == 0, err
        return files.read_json(str(result)), out

    return score


def medians(summary):
    """{(arm or baseline, metric): median}."""
    both = summary["arms"] | summary["baselines"]
    return {(name, m): v for name, judged in both.items() for m, v in judged["median"].items()}


def strangers(world, sites):
    """The sites under new ids, in cells of land that held none."""
    land = np.argwhere(
        zarr_arrays.open_group(world.workspace.url("cube.zarr"), "cells")["mask"].values
    )
    taken = set(zip(*world_module.WINDOW.cells_of(sites.lat, sites.lon), strict=True))
    free = np.array([cell for cell in land.tolist() if tuple(cell) not in taken])
    y, x = free[np.linspace(0, len(free) - 1, sites.sizes["station"]).astype(int)].T
    lat, lon = world_module.WINDOW.cell_lat[y], world_module.WINDOW.cell_lon[x]
    _, km = lookup.find_nearest(lat, lon, sites.lat.values, sites.lon.values)
    assert km.min() > 1
    ids = [f"new-{i:02d}" for i in range(len(lat))]
    return sites.assign_coords(station=ids, lat=("station", lat), lon=("station", lon))


def test_known_sites_are_judged_by_models_that_have_not_seen_them(world, at, scored):
    summary, out = scored(world.folder, at, lambda sites: sites)
    assert "unseen" not in summary
    assert medians(summary) == pytest.approx(medians(world.summary), abs=1e-4)
    assert medians(summary["out_of_fold"]) == medians(summary)
    assert summary["n_sites"] == world.summary["n_sites"]
    assert summary["paired"].keys() == world.summary["paired"].keys()
    of_cubes = {"strata", "triple_collocation", "statics_of_unknown_period", "training_spread"}
    assert summary.keys() >= world.summary.keys() - of_cubes
    assert "out_of_fold" in out


def test_a_site_within_a_kilometre_is_the_same_under_any_id(world, at, scored):
    def rename(sites):
        ids = [f"mine-{i}" for i in range(sites.sizes["station"])]
        return sites.assign_coords(station=ids, lat=sites.lat + 0.008)  # 0.9 km

    summary, _ = scored(world.folder, at, rename)
    assert "unseen" not in summary
    assert medians(summary) == pytest.approx(medians(world.summary), abs=1e-4)


def test_other_sites_are_unseen_and_have_medians_of_their_own(world, at, scored):
    alone, _ = scored(world.folder, at, lambda sites: strangers(world, sites))
    assert "out_of_fold" not in alone
    assert alone["n_sites"] == alone["unseen"]["n_sites"] > 15
    assert medians(alone) != medians(world.summary)

    def both(sites):
        return xr.concat([sites, strangers(world, sites)], "station")

    together, out = scored(world.folder, at, both)
    assert medians(together) == medians(together["unseen"])
    assert medians(together) == pytest.approx(medians(alone), abs=1e-4)
    assert medians(together["out_of_fold"]) == pytest.approx(medians(world.summary), abs=1e-4)
    assert out.index("unseen") < out.index("out_of_fold")


def test_sites_outside_the_domain_are_listed_and_spoil_no_median(world, at, scored):
    def move(sites):
        ids = ["far" if i == 2 else str(site) for i, site in enumerate(sites.station.values)]
        lat = sites.lat + np.where(np.arange(sites.sizes["station"]) == 2, 10.0, 0.0)
        return sites.assign_coords(station=ids, lat=lat)

    summary, out = scored(world.folder, at, move)
    reasons = [item["reason"] for item in summary["not_scored"] if item["id"] == "far"]
    assert "observed days without inputs" in str(reasons)
    assert "not scored: far" in out
    assert summary["n_sites"] == world.summary["n_sites"] - 1
    assert medians(summary)["multiscale", "rmse"] is not None


@pytest.mark.runs  # it takes half a minute
def test_days_beyond_the_experiments_period_are_scored(
    soilweave, scored, snow, tmp_path, local_ray
):
    options = [snow, "--workspace", tmp_path / "mine", *TINY_SET]
    code, out, err = soilweave("run", *options)
    assert code == 0, err
    assert f"Outputs: {tmp_path / 'mine' / 'snow'}" in out
    after = np.datetime64("2020-03-11")
    later, _ = scored(snow.parent, options, lambda sites: sites.sel(time=slice(after, None)))
    assert later["n_sites"] > 15
    assert medians(later)["insitu", "rmse"] is not None
    never, out = scored(
        snow.parent, options, lambda s: s.assign_coords(time=s.time + np.timedelta64(400, "D"))
    )
    assert never["n_sites"] == 0
    assert {item["id"] for item in never["not_scored"]} == {f"snow-{i:02d}" for i in range(24)}
    assert "observed days without inputs" in out


def test_a_log_line_has_no_rate_before_there_is_one(capsys, monkeypatch):
    monkeypatch.setattr(run_stages, "LOG_EVERY_S", -1.0)
    with run_stages.show_progress() as line:
        line.start("prepare", 3, "blocks")
        line.advance()
        line.advance()
    first, second = capsys.readouterr().err.splitlines()
    assert first == "prepare: 1 of 3 blocks"
    assert re.fullmatch(r"prepare: 2 of 3 blocks, \S+/s, \d+ s left", second)
