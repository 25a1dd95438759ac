"""New days appended to an experiment that was run: what changes, what does not, and after kills."""

from __future__ import annotations

import datetime
import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import world as world_module
import xarray as xr
import yaml

from pipeline import __version__, cli, files, prepare
from pipeline.cli import repair
from pipeline.cli import update as cli_update
from pipeline.errors import ConfigError, DataError, StoreError
from pipeline.experiment import load
from pipeline.predict import stage as predict_stage
from pipeline.prepare import stage as prepare_stage
from pipeline.progress import SilentProgress
from pipeline.storage import maps_schema, schema, verify, zarr_arrays
from pipeline.storage.artefacts import Workspace
from pipeline.storage.cube import Cube
from pipeline.storage.pending_change import PendingChange

TARGET = "snow_depth"
MADE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")  # when something was made
N_DAYS = 466  # of the sources, to 2021-02-27

# More than a year, so that a longer record has the same spin-up; seven days before a block ends.
PERIOD = "[2019-12-10, 2020-12-20]"
BEFORE, NEXT, WHOLE, LATER = "2020-12-20", "2020-12-22", "2020-12-27", "2020-12-28"
LAST = "2021-02-27"

SETTINGS = (
    *(f"{key}={PERIOD}" for key in ("period", "train_period", "test_period")),
    "arms=[insitu]",
)


@dataclass(frozen=True)
class Ran:
    """Sources, an experiment, and its workspace."""

    folder: Path
    path: Path
    models: str
    workspace: Workspace
    settings: tuple[str, ...] = ()

    @property
    def experiment(self):
        settings = [*SETTINGS, f"models={self.models}", *self.settings]
        return load.load_experiment(str(self.path), settings)

    def update(self, through=None):
        told = Told()
        day = through and datetime.date.fromisoformat(through)
        cli_update.run(self.experiment, self.workspace, told, through=day)
        self.workspace.lease.release()
        return told.said[-1]

    def manifest(self, name="maps"):
        return self.workspace.artefact(name).manifest()

    def maps(self, group=None):
        url = self.workspace.url("maps/insitu.zarr")
        return xr.open_zarr(url, group=group, mask_and_scale=False).load()

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


class Told(SilentProgress):
    def __init__(self):
        self.said = []

    def finish(self, note):
        self.said.append(note)


@pytest.fixture(scope="module")
def ran(world, tmp_path_factory, local_ray) -> Ran:
    """The maps of a period that ends before its sources do, by two models that others trained."""
    root = tmp_path_factory.mktemp("ran")
    with pytest.MonkeyPatch.context() as longer:
        longer.setattr(world_module, "N_DAYS", N_DAYS)
        path = world_module.write(root / "snow")
    workspace, members = Workspace(str(root / "workspace" / "snow")), root / "models"
    shutil.copytree(world.workspace.url("models"), members)
    other = members / "multiscale" / "fold=all" / "seed=0"
    shutil.copytree(other, members / "insitu" / "fold=all" / "seed=1")
    made = Ran(root / "snow", path, str(members), workspace)
    for stage in (prepare_stage, predict_stage):
        stage.run(made.experiment, workspace, SilentProgress())
    workspace.lease.release()
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
    return replace(
        ran, folder=tmp_path / "snow", path=tmp_path / "snow" / "snow.yaml", workspace=workspace
    )


def content(ran):
    """Every file of cube, maps and state, without the times at which they were made.

    The maps' attributes name such times, so their metadata is compared as text, and the digests of
    that metadata are left out of the manifests.
    """
    found = {}
    for part in ("cube.zarr", "maps", "state"):
        for path in sorted(Path(ran.workspace.url(part)).rglob("*")):
            name = str(path.relative_to(ran.workspace.root))
            if path.name == "zarr.json":
                found[name] = MADE.sub("", path.read_text())
            elif path.is_file() and path.name != "manifest.json":
                found[name] = path.read_bytes()
    for name in ("cube", "maps"):
        manifest = ran.manifest(name)
        del manifest["record_sha256"]  # it is that of the rest, with the times
        del manifest["metadata"]
        found[f"{name} manifest"] = MADE.sub("", json.dumps(manifest))
    return found


def mtimes(ran):
    root = Path(ran.workspace.root)
    return {p: p.stat().st_mtime_ns for p in root.rglob("*")}


def same(ours, theirs, last=None):
    for name in (TARGET, f"{TARGET}_std", "quality_flag", "input_status"):
        np.testing.assert_array_equal(
            ours[name].sel(time=slice(None, last)), theirs[name].sel(time=slice(None, last)), name
        )


@pytest.fixture(scope="module")
def fresh(ran, tmp_path_factory) -> Ran:
    """What the same models map of the longer period at once."""
    longer = tuple(f"{key}=[2019-12-10, {LATER}]" for key in ("period", "train_period"))
    workspace = Workspace(str(tmp_path_factory.mktemp("fresh") / "snow"))
    made = replace(ran, workspace=workspace, settings=longer)
    for stage in (prepare_stage, predict_stage):
        stage.run(made.experiment, workspace, SilentProgress())
    workspace.lease.release()
    return made


@pytest.mark.runs  # it takes some seconds
def test_days_are_appended_and_old_ones_stay_and_steps_are_few(mine, fresh):
    old, cube = mine.maps(), Cube.open(mine.workspace.url("cube.zarr"))
    snow = cube.series(cube.cells, "snowfall")
    for name in ("footprints.nc", "sites.nc"):  # no satellite, no site: neither is looked at
        (mine.folder / name).rename(mine.folder / f"{name}.away")
    assert mine.update(NEXT) == f"maps reach {NEXT}, before {BEFORE}"
    new = mine.maps()
    same(old, new, BEFORE)
    assert (
        new[TARGET].sel(time=slice("2020-12-21", NEXT)).max(("y", "x")) != maps_schema.VALUE_FILL
    ).all()
    assert str(new.time.values[-1])[:10] == NEXT
    assert new.attrs["period"] == ["2019-12-10", NEXT]
    assert [mine.manifest(n)["complete_through"] for n in ("cube", "maps")] == [NEXT, NEXT]
    before = mtimes(mine)
    assert mine.update(NEXT) == f"nothing new, maps reach {NEXT}"
    assert mtimes(mine) == before
    mine.update(WHOLE)
    assert mine.update(LATER) == f"maps reach {LATER}, before {WHOLE}"
    assert [u["steps"] for u in mine.manifest()["updated"]] == [27, 32, 1]  # NEXT is a 27th day
    is_what_the_whole_period_gives(mine, fresh)
    own = Cube.open(mine.workspace.url("cube.zarr"))
    np.testing.assert_array_equal(own.series(own.cells, "snowfall"), snow)
    assert len(own.days) == len(snow) == len(own.series(own.sites, TARGET))
    told = Told()
    for name in ("footprints.nc", "sites.nc"):
        (mine.folder / f"{name}.away").rename(mine.folder / name)
    for stage in (prepare_stage, predict_stage):
        stage.run(mine.experiment, mine.workspace, told)
    assert told.said == ["cube complete", "maps complete"]


def is_what_the_whole_period_gives(mine, fresh):
    for group in (None, "series"):
        ours, theirs = (r.maps(group) for r in (mine, fresh))
        same(ours, theirs)
        assert ours.attrs["time_coverage_end"] == LATER
        made, updated = ours.attrs["history"].splitlines()
        assert made == f"{ours.attrs['date_created']}: soilweave {__version__}, predict"
        assert updated == f"{ours.attrs['date_modified']}: soilweave, update to {LATER}"
        np.testing.assert_array_equal(ours.time_bnds, theirs.time_bnds)
        np.testing.assert_array_equal(ours.time, theirs.time)
    url = "state/insitu.zarr"
    ours, theirs = (zarr_arrays.open_group(r.workspace.url(url), "") for r in (mine, fresh))
    order = np.argsort(ours["block"].values)
    assert ours["block"].values[order].tolist() == theirs["block"].values.tolist()
    for name in ("hidden", "cell"):
        np.testing.assert_array_equal(ours[name].values[order], theirs[name].values)
    ours, theirs = ({s["key"] for s in r.manifest()["shards"]} for r in (mine, fresh))
    assert ours == theirs
    for name, root in (("cube", mine.workspace.url("cube.zarr")), ("maps", mine.workspace.root)):
        for shard in mine.manifest(name)["shards"]:
            data = files.read_bytes(files.join(root, shard["key"]))
            assert files.sha256(data) == shard["sha256"], shard["key"]


@pytest.mark.runs  # it takes a quarter of a minute
def test_changed_forcing_is_listed_and_preliminary_forcing_flagged(mine):
    old, today = mine.maps(), datetime.datetime.now(datetime.UTC).date()

    def change(dataset):
        dataset["SNOWF"].loc[{"time": ["2020-11-30", "2020-12-04"]}] += 0.3
        dataset["SNOWF"].loc[{"time": "2020-03-01"}] += 1.0  # before what state there is

    mine.rewrite(change)
    mine.recatalog(preliminary_days=(today - datetime.date(2020, 12, 21)).days + 1)
    said = mine.update("2020-12-23")
    assert "forcing has changed on 2020-11-30, 2020-12-04, maps from 2020-11-30 on" in said
    new = mine.maps()
    same(old, new, "2020-11-29")
    changed = (old[TARGET] != new[TARGET]).any(("y", "x")).sel(time=slice("2020-11-30", BEFORE))
    assert changed.values.mean() > 0.5
    for name in ("cube", "maps"):
        assert mine.manifest(name)["updated"][0]["revised"] == ["2020-11-30", "2020-12-04"]
    for group in (None, "series"):
        flags = mine.maps(group).input_status
        shown = flags.sel(time=slice("2020-12-19", "2020-12-24")).values.tolist()
        assert shown == [0, 0, 1, 1, 1]
    mine.recatalog(preliminary_days=0)
    assert mine.update("2020-12-23").endswith("input_status alone has changed")
    flags = mine.maps().input_status.sel(time=slice(BEFORE, "2020-12-24")).values.tolist()
    assert flags == [0, 0, 0, 0]
    np.testing.assert_array_equal(mine.maps()[TARGET], new[TARGET])
    told = Told()  # the source is another file now, and what it has changed is known
    prepare.run(mine.experiment, mine.workspace, told)
    assert told.said == ["cube complete"]


def test_new_days_that_lack_values_are_counted_and_stop_where_they_are_many(mine):
    def lose(*days):
        def change(dataset):
            dataset["SNOWF"].loc[{"time": [*days]}] = np.nan

        return change

    n_cells = int(world_module._land().sum())
    whole = mine.manifest("cube")["missing"]["cells"]["snowfall"]
    assert (whole["n"], whole["of_days"]) == (0, 377)
    mine.rewrite(lose("2020-12-22"))
    assert mine.update(NEXT) == f"maps reach {NEXT}, before {BEFORE}"
    one = mine.manifest("cube")["missing"]["cells"]["snowfall"]
    assert (one["n"], one["of_days"]) == (n_cells, 379)
    assert one["days"] == [["2020-12-22", "2020-12-22"]]
    before, maps_before = mine.manifest("cube"), mine.maps()
    mine.rewrite(lose("2020-12-24", "2020-12-25"))
    with pytest.raises(DataError) as caught:
        mine.update(WHOLE)
    said = "snowfall of cells is missing on 3 of 384 days (2020-12-22, 2020-12-24..2020-12-25)"
    assert said in str(caught.value)
    mine.workspace.lease.release()
    assert mine.manifest("cube") == before
    same(maps_before, mine.maps())


@pytest.mark.runs  # it takes a quarter of a minute
def test_a_shared_cube_is_updated_by_its_owner_as_far_as_its_sources_reach(mine):
    root = Path(mine.workspace.root)
    for name in ("maps", "state"):
        shutil.copytree(root / name, root.parent / "variant" / name)
    shutil.copy(root / "next_probes.csv", root.parent / "variant")
    workspace = Workspace(str(root.parent / "variant"))
    theirs = replace(mine, workspace=workspace, settings=(f"cube={root}",))
    with pytest.raises(StoreError, match=r"ends on 2020-12-20, .* first: soilweave update snow"):
        theirs.update(NEXT)
    assert mine.update() == f"maps reach {LAST}, before {BEFORE}; cells: it ends on {LAST}"
    assert mine.update() == f"nothing new, maps reach {LAST}; cells: it ends on {LAST}"
    assert theirs.update() == f"maps reach {LAST}, before {BEFORE}; the cube of snow reaches {LAST}"
    same(mine.maps(), theirs.maps())


def test_spans_of_preliminary_days():
    day = datetime.date.fromisoformat
    spans = [["2020-01-30", "2020-02-02"], ["2020-02-05", "2020-02-05"]]
    assert schema.clip_spans(spans, (day("2020-02-02"), day("2020-02-09"))) == [
        ["2020-02-02", "2020-02-02"],
        ["2020-02-05", "2020-02-05"],
    ]
    now = [["2020-02-03", "2020-02-08"]]
    assert schema.replace_spans(spans, day("2020-02-01"), now) == [
        ["2020-01-30", "2020-01-31"],
        ["2020-02-03", "2020-02-08"],
    ]
    assert schema.replace_spans(spans, day("2019-02-01"), []) == []


class Killed(BaseException):
    """The driver dies here."""


# The calls that a driver dies at, one after the other, and how often each was made before.
DEATHS = (
    *(
        (Told, "advance", 0),
        (PendingChange, "seal", 0),
        (PendingChange, "put", 0),
        (files, "copy", 3),
    ),
    *(
        (zarr_arrays, "extend_group", 0),
        (zarr_arrays, "consolidate", 0),
        (PendingChange, "drop", 0),
    ),
    *((PendingChange, "seal", 0), (files, "copy", 3), (zarr_arrays, "extend_group", 1)),
    *((zarr_arrays, "consolidate", 1), (PendingChange, "drop", 0)),
)


@pytest.mark.runs  # it takes half a minute
def test_killed_anywhere_and_run_again_it_is_the_same(mine, tmp_path):
    def rain(dataset):
        dataset["SNOWF"].loc[{"time": "2020-12-04"}] += 0.3

    mine.rewrite(rain)
    root, old = Path(mine.workspace.root), mine.maps()
    shutil.copytree(root, tmp_path / "start")
    mine.update(LATER)
    wanted = content(mine)
    shutil.rmtree(root)
    shutil.copytree(tmp_path / "start", root)
    for owner, name, after in DEATHS:
        calls, kept = [], getattr(owner, name)

        def dies(*args, kept=kept, calls=calls, after=after, **more):
            calls.append(1)
            if len(calls) > after:
                raise Killed
            return kept(*args, **more)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, dies)
            with pytest.raises(Killed):
                mine.update(LATER)
        mine.workspace.lease.release()
        same(old, mine.maps(), "2020-12-03")
        assert mine.manifest()["complete_through"] in (BEFORE, LATER)
    mine.update(LATER)
    assert content(mine) == wanted
    assert not (root / "update").exists()


def test_errors_name_the_remedy(mine, tmp_path):
    with pytest.raises(ConfigError, match="the maps already reach 2020-12-20; give a later day"):
        mine.update("2020-12-01")
    with pytest.raises(ConfigError, match="it ends on 2021-02-27; give --through 2021-02-27, or"):
        mine.update("2021-03-05")
    empty = replace(mine, workspace=Workspace(str(tmp_path / "empty")))
    with pytest.raises(StoreError, match="no complete cube here; make it with: soilweave prepare"):
        empty.update()
    other = replace(mine, settings=("qc.stuck_days=20",))
    with pytest.raises(StoreError, match=r"other settings: qc\.stuck_days 30 -> 20"):
        other.update()
    shutil.rmtree(Path(mine.workspace.root) / "maps")
    with pytest.raises(StoreError, match="no complete maps to continue from; make them first"):
        mine.update()


def test_the_verb_takes_the_experiment_as_it_was_run(mine, monkeypatch, capsys):
    place = str(Path(mine.workspace.root).parent)
    for args, found in (
        (
            ["snow", "--through", "2020-12-01"],
            "--through 2020-12-01: the maps already reach 2020-12-20",
        ),
        (
            ["snow", "--through", "yesterday"],
            "--through yesterday: expected a day, such as 2018-06-30",
        ),
        (["nowhere"], "experiment 'nowhere': was not run here; run it first, or name a folder"),
        (["demo"], "no complete cube here; make it with: soilweave prepare"),
    ):
        monkeypatch.setattr("sys.argv", ["soilweave", "update", *args, "--workspace", place])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 2
        assert found in capsys.readouterr().err


@pytest.mark.runs  # it takes some seconds
@pytest.mark.parametrize("through", [NEXT, LATER])
def test_damage_after_an_update_is_repaired_to_the_last_bit(mine, through):
    mine.update(through)
    before = content(mine)
    for name, how in (
        ("cube.zarr/cells/snowfall/c/11/0/0", "flipped"),
        ("cube.zarr/cells/snowfall/c/0/0/0", "deleted"),
        ("cube.zarr/sites/snow_depth/c/11/0", "deleted"),
        ("cube.zarr/footprints/snow_depth/c/11/0/0", "flipped"),
        ("maps/insitu.zarr/snow_depth/c/11/0/0", "deleted"),
        ("maps/insitu.zarr/series/quality_flag/c/0/0/0", "flipped"),
        ("maps/insitu.zarr/attribute_distance/c/0/0", "flipped"),
        ("state/insitu.zarr/cell/c/0/0/0/0/0", "deleted"),
        ("state/insitu.zarr/mean_variance/c/0/0", "deleted"),
    ):
        path = Path(mine.workspace.url(name))
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        if how == "deleted":
            path.unlink()
    result = verify.verify_workspace(mine.workspace, SilentProgress())
    assert len(result.problems) == 9
    assert repair.repair(mine.workspace, result, SilentProgress()).problems == []
    assert content(mine) == before


@pytest.mark.runs  # half a minute each
@pytest.mark.parametrize(
    ("name", "key", "stage"),
    [
        ("cube", "cube.zarr/zarr.json", prepare_stage),
        ("maps", "maps/insitu.zarr/zarr.json", predict_stage),
    ],
)
def test_the_remedy_for_metadata_damaged_with_its_backup_after_an_update(mine, name, key, stage):
    mine.update(NEXT)
    before = content(mine)
    for damaged in (key, f"backup/{name}.json"):
        path = Path(mine.workspace.url(damaged))
        path.write_bytes(path.read_bytes()[:-7])
    result = verify.verify_workspace(mine.workspace, SilentProgress())
    remedy = f"--overwrite, then soilweave update snow --through {NEXT}"
    with pytest.raises(StoreError, match=remedy):
        repair.repair(mine.workspace, result, SilentProgress())
    stage.run(mine.experiment, mine.workspace, SilentProgress(), overwrite=True)
    mine.update(NEXT)
    assert verify.verify_workspace(mine.workspace, SilentProgress()).problems == []
    assert content(mine) == before
