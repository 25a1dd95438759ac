"""New days of forcing into the cells of the cube, and the blocks read again that can be mended."""

from __future__ import annotations

from datetime import UTC, date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files
from pipeline.catalog import intake_catalog
from pipeline.cluster import ray_cluster
from pipeline.errors import ConfigError, StoreError
from pipeline.experiment import config
from pipeline.prepare import block_task
from pipeline.prepare.block_task import check_receipts, empty_receipt, write_block
from pipeline.storage import artefacts, maps_schema, schema, zarr_arrays
from pipeline.storage.cube import Cube
from pipeline.storage.pending_change import PendingChange

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace


def run(
    experiment: Experiment, workspace: Workspace, progress: Progress, through: date | None
) -> list[str]:
    """Bring the cells up to a day, and mend those whose forcing has changed; returns what to tell.

    The blocks whose state is kept are read again, and those that are new; where no source reaches
    further and none has changed, nothing is.

    Raises:
      SoilweaveError: a source lacks what is asked for.
    """
    artefact = workspace.artefact("cube")
    aside = PendingChange(artefact, workspace.url("update", "cube"), workspace.url("cube.zarr"))
    if experiment.cube is not None:
        return _others(experiment, workspace, through)
    if aside.ready() is not None:
        workspace.lease.take(progress.note)
        _put(experiment, aside)
    manifest = artefact.manifest() or {}
    done = date.fromisoformat(manifest["complete_through"])
    last, told = _reached(experiment, done, through)
    oldest = maps_schema.oldest_state(experiment, workspace)
    since = max(oldest * schema.BLOCK_DAYS, schema.epoch_day(experiment.period[0]))
    first = schema.date_of(since)
    wanted = longer(experiment, last)
    known = _known(manifest, experiment)
    now_read = {name: intake_catalog.digest(wanted, name) for name in experiment.sources.forcing}
    sources = schema.as_recorded(now_read, known)
    spans = manifest.get("preliminary", [])
    now = schema.read_again(spans, first, intake_catalog.preliminary(experiment, last))
    if last == done and sources == known and now == spans:
        return told
    workspace.lease.take(progress.note)
    blocks = range(oldest, schema.block_range(wanted.period).stop)
    aside.begin({"through": str(last), "sources": sources, "preliminary": now})
    receipts = _receipts(wanted, aside, blocks, done, progress)
    before = manifest.get("missing", {}).get("cells", {})
    lacking = block_task.went_on(aside.folder, wanted, blocks, aside.place, before)
    about = {"through": str(last), "sources": sources}
    about["inputs_sha256"] = _as_of_now(manifest, experiment)
    change = _change(manifest, receipts, about)
    if last == done and now == spans and not change["update"]["revised"]:
        aside.drop()
        return told
    aside.seal(change | {"preliminary": now, "missing": lacking})
    _put(experiment, aside)
    return told


def longer(experiment: Experiment, last: date) -> Experiment:
    """The experiment with a period that ends later."""
    return experiment.model_copy(update={"period": (experiment.period[0], last)})


def _others(experiment: Experiment, workspace: Workspace, through: date | None) -> list[str]:
    """What to tell of a cube that another experiment owns, and alone may change."""
    url, _ = Cube.source(experiment, workspace)
    last = date.fromisoformat(Cube.manifest(experiment, workspace)["complete_through"])
    owner = workspace.prepared(experiment).root.rpartition("/")[2]
    if through is not None and through > last:
        remedy = f"update the experiment that owns it first: soilweave update {owner}"
        raise StoreError(url, f"its forcing ends on {last}", remedy=remedy)
    return [f"the cube of {owner} reaches {last}"]


def _reached(experiment: Experiment, done: date, through: date | None) -> tuple[date, list[str]]:
    """The last day that all sources have, and what those say that end first.

    Raises:
      ConfigError: they do not reach the day that is asked for.
    """
    until = through or intake_catalog.today()
    found = {
        e: intake_catalog.last_day(experiment, e, done, until) for e in experiment.sources.forcing
    }
    last = min(day for day, _ in found.values())
    ends = [f"{entry}: {said}" for entry, (day, said) in found.items() if day == last and said]
    if through is not None and last < through:
        remedy = f"give --through {last}, or leave it out to take what there is"
        raise ConfigError(f"--through {through}", *ends, remedy=remedy)
    return max(last, done), ends


def _known(manifest: Json, experiment: Experiment) -> dict[str, str]:
    """Digests of the sources of forcing when they were read last."""
    if updates := manifest.get("updated"):
        return dict(updates[-1]["sources"])
    return {name: manifest["inputs"][f"source {name}"] for name in experiment.sources.forcing}


def _as_of_now(manifest: Json, experiment: Experiment) -> str:
    """Digest of what the cube would be made from now: its sources of forcing may have grown."""
    names = experiment.sources.forcing
    now = {f"source {name}": intake_catalog.digest(experiment, name) for name in names}
    return files.sha256_of(manifest["inputs"] | schema.as_recorded(now, manifest["inputs"]))


def _receipts(
    wanted: Experiment, aside: PendingChange, blocks: range, done: date, progress: Progress
) -> list[Json]:
    """Read blocks into the folder aside; the receipt of each.

    Raises:
      SoilweaveError: a source cannot be read, or the folder not be written.
    """
    zarr_arrays.create_group(aside.folder, _form(wanted, aside.place), {})
    progress.start("update", len(blocks), "blocks of forcing")
    found = []
    task = partial(
        read_block,
        experiment_json=wanted.model_dump_json(),
        folder=aside.folder,
        cube_url=aside.place,
        done=str(done),
    )
    items = [{"block": block} for block in blocks]
    for _, receipt in ray_cluster.run_tasks(items, task, partial(_receipt, aside.folder)):
        found.append(receipt)
        progress.advance()
        if receipt["outage"]:
            break
    check_receipts(f"update of {aside.place}", found)
    return found


def _receipt(folder: str, item: Json) -> Json | None:
    """The receipt of a block that an interrupted run has compared; None where there is none."""
    url = files.join(folder, "receipts", f"{item['block']}.compared.json")
    return files.read_receipt(url, *empty_receipt(), "revised")


def read_block(item: Json, experiment_json: str, folder: str, cube_url: str, done: str) -> Json:
    """Read a block of forcing and compare it with the cube's; a Ray Data task.

    Args:
      item: {"block": number of the block}.
      experiment_json: as of `longer`.
      folder: where the block is put.
      cube_url: the cube.
      done: the last day that the cube's cells reach.

    Returns:
      The receipt: as of `write_block`, and `revised`, the days that have another forcing.
    """
    receipt = write_block(item, experiment_json, folder, forcing_alone=True)
    if receipt["problems"] or receipt["unread"] or receipt["unwritten"]:
        return receipt
    first = int(item["block"]) * schema.BLOCK_DAYS
    days = np.arange(first, first + schema.BLOCK_DAYS)
    days = days[days <= schema.epoch_day(date.fromisoformat(done))]
    changed = np.zeros(len(days), bool)
    for name in map(str, zarr_arrays.attributes(cube_url)["forcing"]) if len(days) else ():
        new, old = (_field(url, name, days) for url in (folder, cube_url))
        changed |= ~((new == old) | (np.isnan(new) & np.isnan(old))).all((1, 2))
    receipt["revised"] = [str(day.astype("datetime64[D]")) for day in days[changed]]
    name = f"{item['block']}.compared.json"
    files.write_json(files.join(folder, "receipts", name), receipt)
    return receipt


def _field(url: str, name: str, days: NDArray[np.int64]) -> NDArray[np.float32]:
    """(day, y, x) values of days that follow one another in a block."""
    cells = zarr_arrays.open_group(url, "cells")
    when = days[[0, -1]].astype("datetime64[D]").astype("datetime64[ns]")
    values: NDArray[np.float32] = cells[name].sel(time=slice(*when)).values
    return values


def _form(wanted: Experiment, cube_url: str) -> list[schema.Array]:
    """The arrays of the cells that change in time, over the longer period."""
    ny, nx = config.window(wanted).cell_shape
    sizes = {"time": len(schema.time_axis(wanted.period)), "y": ny, "x": nx}
    names = [str(name) for name in zarr_arrays.attributes(cube_url)["forcing"]]
    dims = ("time", "y", "x")
    form = [schema.field_array("cells", n, wanted.table[n], dims, sizes) for n in names]
    return [schema.time_coordinate("cells", wanted.period), *form]


def _change(manifest: Json, receipts: list[Json], about: Json) -> Json:
    """The shards that are not as the manifest has them, and the entry of its list of updates."""
    held = {record["key"]: record["sha256"] for record in manifest["shards"]}
    shards = [record for receipt in receipts for record in receipt["shards"]]
    update: dict[str, Any] = {
        **about,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": artefacts.git_commit(),
        "revised": sorted(day for receipt in receipts for day in receipt["revised"]),
    }
    return {
        "shards": [s for s in shards if held.get(s["key"], "") != s["sha256"]],
        "update": update,
    }


def _put(experiment: Experiment, aside: PendingChange) -> None:
    """Put a change that is ready into the cube."""
    change = aside.ready()
    assert change is not None
    manifest = aside.artefact.manifest() or {}
    last = date.fromisoformat(change["update"]["through"])
    aside.put(change["shards"])
    form = _form(longer(experiment, last), aside.place)
    zarr_arrays.extend_group(aside.place, form, {"cells": {"complete_through": str(last)}})
    zarr_arrays.consolidate(aside.place)
    aside.artefact.amend(
        change["shards"],
        complete_through=str(last),
        preliminary=change["preliminary"],
        missing=manifest.get("missing", {}) | {"cells": change["missing"]},
        updated=[*manifest.get("updated", []), change["update"]],
    )
    aside.drop()
