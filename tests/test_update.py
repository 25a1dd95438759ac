"""New days appended to an experiment that was run: what changes, what does not, and after kills."""

from __future__ import annotations

import datetime
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import world as small_world
import xarray as xr
import yaml

from pipeline import arrays, files, folds, predict, prepare, resolve, status, train, update
from pipeline.errors import ConfigError, StoreError
from pipeline.progress import Silent
from pipeline.store import Workspace
from pipeline.update import forcing, mapping

TARGET = "snow_depth"
N_DAYS = 466  # of the sources
PERIOD = (
    "[2019-11-20, 2020-12-20]"  # more than a year, so that a longer record has the same spin-up
)
BEFORE, NEXT, FAR = "2020-12-20", "2020-12-22", "2021-02-10"
SETTINGS = (
    *(f"{key}={PERIOD}" for key in ("period", "train_period", "test_period")),
    "arms=[insitu]",
    "n_seeds=2",
    "train.updates=3",
    "network.hidden_size=8",
)


@dataclass(frozen=True)
class Ran:
    """Sources, an experiment, and its workspace."""

    folder: Path
    path: Path
    workspace: Workspace

    @property
    def experiment(self):
        return resolve.experiment(str(self.path), SETTINGS)

    def update(self, through=None):
        told = Told()
        day = through and datetime.date.fromisoformat(through)
        update.run(self.experiment, self.workspace, told, through=day)
        self.workspace.lease.release()
        return told.said[-1]

    def manifest(self, name="maps"):
        return self.workspace.artefact(name).manifest()

    def maps(self, group=None, **options):
        return xr.open_zarr(self.workspace.url("maps/insitu.zarr"), group=group, **options).load()

    def rewrite(self, change):
        """The provider's file of forcing, changed."""
        file = self.folder / "cells.nc"
        with xr.open_dataset(file, engine="h5netcdf") as held:
            dataset = held.load()
        change(dataset)
        dataset.to_netcdf(file, engine="h5netcdf")

    def recatalog(self, **metadata):
        url = self.folder / "catalog.yaml"
        tree = yaml.safe_load(url.read_text())
        tree["sources"]["cells"]["metadata"] |= metadata
        url.write_text(yaml.safe_dump(tree))


class Told(Silent):
    def __init__(self):
        self.said = []

    def finish(self, note):
        self.said.append(note)


@pytest.fixture(scope="module")
def ran(tmp_path_factory, local_ray) -> Ran:
    """An experiment whose period ends before its sources do, all stages run but evaluate."""
    root = tmp_path_factory.mktemp("ran")
    with pytest.MonkeyPatch.context() as longer:
        longer.setattr(small_world, "N_DAYS", N_DAYS)
        path = small_world.write(root / "snow")
    made = Ran(root / "snow", path, Workspace(str(root / "workspace" / "snow")))
    for stage in (prepare, folds, train, predict):
        stage.run(made.experiment, made.workspace, Silent())
    made.workspace.lease.release()
    return made


@pytest.fixture
def mine(ran, tmp_path) -> Ran:
    """A copy of it that may be changed."""
    shutil.copytree(ran.folder, tmp_path / "snow")
    shutil.copytree(ran.workspace.root, tmp_path / "workspace" / "snow")
    for name in ("snow.yaml", "catalog.yaml"):
        file = tmp_path / "snow" / name
        file.write_text(file.read_text().replace(str(ran.folder), str(tmp_path / "snow")))
    workspace = Workspace(str(tmp_path / "workspace" / "snow"))
    return Ran(tmp_path / "snow", tmp_path / "snow" / "snow.yaml", workspace)


def content(ran, *, manifests=True):
    """Every file of cube, maps and state; manifests without when and by what they were made."""
    found = {}
    for part in ("cube.zarr", "maps", "state"):
        for path in sorted(Path(ran.workspace.url(part)).rglob("*")):
            if path.is_file() and path.name != "manifest.json":
                found[str(path.relative_to(ran.workspace.root))] = path.read_bytes()
    for name in ("cube", "maps"):
        text = json.dumps(ran.manifest(name))
        made = [u["made"] for u in ran.manifest(name).get("updates", [])]
        for when in made:
            text = text.replace(when, "")
        found[f"{name} manifest"] = text
    return found


def mtimes(ran):
    root = Path(ran.workspace.root)
    return {p: p.stat().st_mtime_ns for p in root.rglob("*")}


def same(ours, theirs, last=None):
    for name in (TARGET, f"{TARGET}_std", "quality_flag", "input_status"):
        np.testing.assert_array_equal(
            ours[name].sel(time=slice(None, last)), theirs[name].sel(time=slice(None, last)), name
        )


def test_a_days_update_keeps_old_days_and_takes_one_block_of_steps(mine, monkeypatch):
    old = mine.maps(mask_and_scale=False)
    Path(mine.folder / "footprints.nc").unlink()  # no satellite, no site: neither is looked at
    Path(mine.folder / "sites.nc").unlink()
    assert mine.update(NEXT) == f"maps reach {NEXT}, before {BEFORE}"
    new = mine.maps(mask_and_scale=False)
    same(old, new, BEFORE)
    days = new[TARGET].sel(time=slice("2020-12-21", NEXT))
    assert (days.max(("y", "x")) != -32768).all()
    assert (new[TARGET].sel(time=slice("2020-12-23", None)) == -32768).all()
    assert new.attrs["period"] == ["2019-11-20", NEXT]
    manifest = mine.manifest()
    assert (manifest["complete_through"], mine.manifest("cube")["complete_through"]) == (NEXT, NEXT)
    assert [u["steps"] for u in manifest["updates"]] == [32]
    assert manifest["updates"][0]["revised"] == []
    for shard in (s for name in ("cube", "maps") for s in mine.manifest(name)["shards"]):
        assert shard["size"] > 0
    before = mtimes(mine)
    assert mine.update(NEXT) == f"nothing new, maps reach {NEXT}"
    assert mtimes(mine) == before


@pytest.fixture(scope="module")
def fresh(ran, tmp_path_factory) -> Ran:
    """What the same models map of the longer period at once."""
    settings = resolve.mapping(ran.workspace.url("models"), None, f"2019-11-20..{FAR}")
    experiment = resolve.experiment(str(ran.path), [*SETTINGS, *settings])
    workspace = Workspace(str(tmp_path_factory.mktemp("fresh") / "snow"))
    for stage in (prepare, predict):
        stage.run(experiment, workspace, Silent())
    workspace.lease.release()
    return Ran(ran.folder, ran.path, workspace)


def test_over_blocks_it_is_what_the_whole_period_gives(mine, fresh):
    assert mine.update("2020-12-25").startswith("maps reach 2020-12-25")  # into a new block
    assert mine.update(FAR).startswith(f"maps reach {FAR}, before 2020-12-25")
    for group in (None, "series"):
        ours, theirs = (r.maps(group, mask_and_scale=False) for r in (mine, fresh))
        same(ours, theirs)
        assert ours.attrs["time_coverage_end"] == FAR
        np.testing.assert_array_equal(ours.time_bnds, theirs.time_bnds)
        np.testing.assert_array_equal(ours.time, theirs.time)
    ours, theirs = (
        arrays.open_group(r.workspace.url("state/insitu.zarr"), "") for r in (mine, fresh)
    )
    assert sorted(ours["block"].values) == theirs["block"].values.tolist()
    for name in ("hidden", "cell"):
        np.testing.assert_array_equal(ours[name][np.argsort(ours["block"].values)], theirs[name])
    keys = [{s["key"]: s["sha256"] for s in r.manifest()["shards"]} for r in (mine, fresh)]
    assert {k for k in keys[1] if k.startswith("maps")} <= keys[0].keys()
    for shard in mine.manifest()["shards"]:
        data = files.read_bytes(mine.workspace.url(shard["key"]))
        assert files.sha256(data) == shard["sha256"], shard["key"]


def test_readers_of_the_experiment_see_its_own_period(mine):
    from pipeline.cube import Cube

    old = Cube.open(mine.workspace.url("cube.zarr"))
    snow = old.series(old.cells, "snowfall")
    mine.update(FAR)
    cube = Cube.open(mine.workspace.url("cube.zarr"))
    np.testing.assert_array_equal(cube.series(cube.cells, "snowfall"), snow)
    assert len(cube.days) == len(old.days) == len(cube.series(cube.sites, TARGET))
    told = Told()
    for stage in (prepare, folds, train, predict):
        stage.run(mine.experiment, mine.workspace, told)
    assert [note.rpartition(" ")[2] for note in told.said] == ["complete"] * 4


def test_changed_forcing_is_listed_and_mapped_again(mine):
    old = mine.maps(mask_and_scale=False)

    def rain(dataset):
        dataset["SNOWF"].loc[{"time": ["2020-11-30", "2020-12-04"]}] += 0.3

    def early(dataset):
        dataset["SNOWF"].loc[{"time": "2020-03-01"}] += 1.0  # before what state there is

    mine.rewrite(rain)
    mine.rewrite(early)
    said = mine.update(NEXT)
    assert "forcing has changed on 2020-11-30, 2020-12-04, maps from 2020-11-30 on" in said
    new = mine.maps(mask_and_scale=False)
    same(old, new, "2020-11-29")
    changed = (old[TARGET] != new[TARGET]).any(("y", "x")).sel(time=slice("2020-11-30", BEFORE))
    assert changed.values.mean() > 0.5
    assert mine.manifest("cube")["updates"][0]["revised"] == ["2020-11-30", "2020-12-04"]
    assert mine.manifest()["updates"][0]["revised"] == ["2020-11-30", "2020-12-04"]
    assert mine.update().startswith("maps reach 2021-02-27, before")


def test_preliminary_forcing_is_flagged_until_it_is_read_as_final(mine):
    today = datetime.date.today()
    day = datetime.date(2020, 12, 21)
    mine.recatalog(preliminary_days=(today - day).days + 1)
    mine.update("2020-12-23")
    found = mine.maps(mask_and_scale=False)
    flags = found.input_status.sel(time=slice("2020-12-19", "2020-12-24")).values.tolist()
    assert flags == [0, 0, 1, 1, 1, 255]
    assert found.input_status.attrs["flag_meanings"] == "final preliminary"
    assert found.input_status.attrs["flag_values"] == [0, 1]
    same_status = mine.maps("series", mask_and_scale=False).input_status
    np.testing.assert_array_equal(same_status, found.input_status)
    mine.recatalog(preliminary_days=0)
    assert "input_status alone has changed" in mine.update("2020-12-23")
    after = mine.maps(mask_and_scale=False)
    assert after.input_status.sel(time=slice("2020-12-19", "2020-12-24")).values.tolist() == [
        *[0] * 5,
        255,
    ]
    np.testing.assert_array_equal(after[TARGET], found[TARGET])


def test_spans_of_preliminary_days():
    day = datetime.date.fromisoformat
    spans = [["2020-01-30", "2020-02-02"], ["2020-02-05", "2020-02-05"]]
    assert status.within(spans, (day("2020-02-02"), day("2020-02-09"))) == [
        ["2020-02-02", "2020-02-02"],
        ["2020-02-05", "2020-02-05"],
    ]
    now = [["2020-02-03", "2020-02-08"]]
    assert status.read_again(spans, day("2020-02-01"), now) == [
        ["2020-01-30", "2020-01-31"],
        ["2020-02-03", "2020-02-08"],
    ]
    assert status.read_again(spans, day("2019-02-01"), []) == []


class Killed(BaseException):
    """The driver dies here."""


STEPS = [
    (forcing.Aside, "seal", 0),
    (forcing.Aside, "put", 0),
    (forcing.arrays, "extend_group", 0),
    (forcing.arrays, "consolidate", 0),
    (forcing.Aside, "drop", 2),  # `begin` drops first, then a put of the cube, then of the maps
    (mapping.Aside, "seal", 1),
    (mapping.arrays, "extend_group", 2),
    (mapping.Aside, "drop", 3),
]


def test_killed_anywhere_and_run_again_it_is_the_same(mine, tmp_path):
    def rain(dataset):
        dataset["SNOWF"].loc[{"time": "2020-12-04"}] += 0.3

    mine.rewrite(rain)
    start, whole = tmp_path / "start", mine.maps(mask_and_scale=False)
    root = Path(mine.workspace.root)
    shutil.copytree(root, start)
    mine.update("2020-12-26")
    wanted = content(mine)
    for owner, name, after in STEPS:
        shutil.rmtree(root)
        shutil.copytree(start, root)
        calls = []
        kept = getattr(owner, name)

        def dies(*args, kept=kept, calls=calls, after=after, **more):
            calls.append(1)
            if len(calls) > after:
                raise Killed
            return kept(*args, **more)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, dies)
            with pytest.raises(Killed):
                mine.update("2020-12-26")
        mine.workspace.lease.release()
        same(whole, mine.maps(mask_and_scale=False), "2020-12-03")
        mine.update("2020-12-26")
        assert content(mine) == wanted, name
        assert not (root / "update").exists()


def test_errors_name_the_remedy(mine, tmp_path):
    with pytest.raises(ConfigError, match="the maps reach 2020-12-20 already; give a later day"):
        mine.update("2020-12-01")
    with pytest.raises(ConfigError, match="it ends on 2021-02-27; give --through 2021-02-27, or"):
        mine.update("2021-03-05")
    empty = Ran(mine.folder, mine.path, Workspace(str(tmp_path / "empty")))
    with pytest.raises(StoreError, match="no complete cube here; make it with: soilweave prepare"):
        empty.update()
    other = mine.experiment.model_copy(update={"n_seeds": 1})
    with pytest.raises(StoreError, match="was made with other settings: n_seeds 2 -> 1"):
        update.run(other, mine.workspace, Silent())
    shutil.rmtree(Path(mine.workspace.root) / "maps")
    with pytest.raises(StoreError, match="no complete maps to go on from; make them first"):
        mine.update()
