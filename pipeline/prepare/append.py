"""Append new days of forcing to the cells of the cube, and correct recent days that changed.

The blocks whose model state is kept are read again together with the new blocks. They are written
to a folder of their own, compared with the cube, and then moved into the cube as one change.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files
from pipeline.catalog import intake_catalog
from pipeline.cluster import resources
from pipeline.errors import ConfigError, StoreError
from pipeline.experiment import config
from pipeline.experiment.config import Experiment
from pipeline.prepare import block_task
from pipeline.prepare.block_task import empty_receipt, write_block
from pipeline.prepare.run_blocks import check_receipts, run_blocks
from pipeline.storage import maps_schema, provenance, schema, zarr_arrays
from pipeline.storage.cube import Cube
from pipeline.storage.pending_change import PendingChange

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace


def run(
    experiment: Experiment, workspace: Workspace, progress: Progress, through: date | None
) -> list[str]:
    """Append days to the cells of the cube, and correct days whose forcing has changed.

    The last day to append is `through`, or if it is None the last day that all sources have. If no
    source has new days and none has changed, nothing is read.
    The returned lines say to the user why the forcing ends on its last day.

    Raises:
      SoilweaveError: If a source does not have the requested days, or cannot be read.
    """
    artefact = workspace.artefact("cube")
    pending = PendingChange(artefact, workspace.url("update", "cube"), workspace.url("cube.zarr"))
    if experiment.cube is not None:
        return _check_borrowed_cube(experiment, workspace, through)
    if pending.ready() is not None:
        workspace.lease.take(progress.note)
        _apply_change(experiment, pending)
    manifest = artefact.manifest() or {}
    done = date.fromisoformat(manifest["complete_through"])
    last, notes = _last_common_day(experiment, done, through)
    oldest = maps_schema.oldest_state_block(experiment, workspace)
    first, _ = schema.block_period(experiment.period, oldest)
    extended = extend_period(experiment, last)
    recorded = _recorded_digests(manifest, experiment)
    forcing = experiment.sources.forcing
    present = {name: intake_catalog.entry_digest(extended, name) for name in forcing}
    sources = schema.as_recorded(present, recorded)
    spans = manifest.get("preliminary", [])
    preliminary = intake_catalog.preliminary_span(experiment, last)
    new_spans = schema.replace_spans(spans, first, preliminary)
    if last == done and sources == recorded and new_spans == spans:
        return notes
    workspace.lease.take(progress.note)
    blocks = range(oldest, schema.block_range(extended.period).stop)
    pending.begin({"through": str(last), "sources": sources, "preliminary": new_spans})
    receipts = _read_blocks(extended, pending, blocks, done, progress)
    before = manifest.get("missing", {}).get("cells", {})
    missing = block_task.count_appended(pending.folder, extended, blocks, pending.place, before)
    digest = _present_inputs_digest(manifest, experiment)
    metadata = {"through": str(last), "sources": sources, "inputs_sha256": digest}
    change = _describe_change(manifest, receipts, metadata)
    if last == done and new_spans == spans and not change["update"]["revised"]:
        pending.drop()
        return notes
    pending.seal(change | {"preliminary": new_spans, "missing": missing})
    _apply_change(experiment, pending)
    return notes


def extend_period(experiment: Experiment, last: date) -> Experiment:
    """Return the experiment with a period that ends on a later day."""
    return experiment.model_copy(update={"period": (experiment.period[0], last)})


def _check_borrowed_cube(
    experiment: Experiment, workspace: Workspace, through: date | None
) -> list[str]:
    """Handle a cube that belongs to another experiment, which alone may change it.

    Returns:
      A line that says which day the cube reaches.

    Raises:
      StoreError: If the cube does not reach the requested day.
    """
    url, _ = Cube.source(experiment, workspace)
    last = date.fromisoformat(Cube.manifest(experiment, workspace)["complete_through"])
    owner = workspace.prepared(experiment).root.rpartition("/")[2]
    if through is not None and through > last:
        problem = f"the forcing of this cube ends on {last}, before --through {through}"
        hint = f"update the experiment that owns it first: soilweave update {owner}"
        raise StoreError(url, problem, remedy=hint)
    return [f"the cube of {owner} reaches {last}"]


def _last_common_day(
    experiment: Experiment, done: date, through: date | None
) -> tuple[date, list[str]]:
    """Find the last day that all sources have.

    Args:
      experiment: The settings, which name the sources of forcing.
      done: The last day in the cube.
      through: The requested day; None for today.

    Returns:
      The day; and, for the sources that end first, lines that say why they end there.

    Raises:
      ConfigError: If a source does not reach the requested day.
    """
    until = through or intake_catalog.today()
    last_days = {
        e: intake_catalog.last_day(experiment, e, done, until) for e in experiment.sources.forcing
    }
    last = min(day for day, _ in last_days.values())
    ends = [f"{e}: {reason}" for e, (day, reason) in last_days.items() if day == last and reason]
    if through is not None and last < through:
        hint = f"give --through {last}, or omit --through to append all available days"
        raise ConfigError(f"--through {through}", *ends, remedy=hint)
    return max(last, done), ends


def _recorded_digests(manifest: Json, experiment: Experiment) -> dict[str, str]:
    """Return the digests that the sources of forcing had when they were last read, by entry."""
    if updates := manifest.get("updated"):
        return dict(updates[-1]["sources"])
    return {name: manifest["inputs"][f"source {name}"] for name in experiment.sources.forcing}


def _present_inputs_digest(manifest: Json, experiment: Experiment) -> str:
    """Return the digest of the inputs of the cube with the present content of its forcing."""
    names = experiment.sources.forcing
    present = {f"source {name}": intake_catalog.entry_digest(experiment, name) for name in names}
    return files.sha256_of_json(
        manifest["inputs"] | schema.as_recorded(present, manifest["inputs"])
    )


def _read_blocks(
    extended: Experiment, pending: PendingChange, blocks: range, done: date, progress: Progress
) -> list[Json]:
    """Read blocks into the folder of the pending change, and return their receipts.

    Raises:
      SoilweaveError: If a source cannot be read or the folder cannot be written.
    """
    arrays = _forcing_arrays(extended, pending.place)
    zarr_arrays.create_group(pending.folder, arrays, {}, like=pending.place)
    progress.start("update", len(blocks), "blocks of forcing")
    resources.wait_for_cpus(extended.compute, progress)
    task = partial(
        compare_block,
        experiment_json=extended.model_dump_json(),
        folder=pending.folder,
        cube_url=pending.place,
        done=str(done),
    )
    finished = partial(_finished_receipt, pending.folder)
    n_forcing = len(zarr_arrays.read_attributes(pending.place)["forcing"])
    receipts = run_blocks(blocks, task, finished, extended, n_forcing, progress)
    check_receipts(f"update of {pending.place}", receipts)
    return receipts


def _finished_receipt(folder: str, item: Json) -> Json | None:
    """Return the receipt of a block that an interrupted run has compared, else None."""
    url = files.join(folder, "receipts", f"{item['block']}.compared.json")
    return files.read_receipt(url, *empty_receipt(), "revised")


def compare_block(item: Json, experiment_json: str, folder: str, cube_url: str, done: str) -> Json:
    """Read a block of forcing and compare it with the cube (a Ray task).

    Args:
      item: {"block": number of the block}.
      experiment_json: The experiment with the extended period, as JSON.
      folder: The folder that the block is written to.
      cube_url: The cube.
      done: The last day in the cells of the cube.

    Returns:
      The receipt of `write_block` with one more key, `revised`: the days in the cube whose forcing
      differs.
    """
    receipt = write_block(item, experiment_json, folder, forcing_only=True)
    if receipt["problems"] or receipt["unread"] or receipt["unwritten"]:
        return receipt
    period = Experiment.model_validate_json(experiment_json).period
    days = schema.block_days(period, int(item["block"])).astype("datetime64[D]")
    days = days[days <= np.datetime64(done)]
    changed = np.zeros(len(days), bool)
    for name in map(str, zarr_arrays.read_attributes(cube_url)["forcing"]) if len(days) else ():
        new, old = (_read_days(url, name, days) for url in (folder, cube_url))
        changed |= ~((new == old) | (np.isnan(new) & np.isnan(old))).all((1, 2))
    receipt["revised"] = [str(day) for day in days[changed]]
    name = f"{item['block']}.compared.json"
    files.write_json(files.join(folder, "receipts", name), receipt)
    return receipt


def _read_days(url: str, name: str, days: NDArray[np.datetime64]) -> NDArray[np.float32]:
    """Read the values (day, y, x) of consecutive days of a block."""
    cells = zarr_arrays.open_group(url, "cells")
    first, last = days[[0, -1]].astype("datetime64[ns]")
    values: NDArray[np.float32] = cells[name].sel(time=slice(first, last)).values
    return values


def _forcing_arrays(extended: Experiment, cube_url: str) -> list[schema.ArraySpec]:
    """Return the time-dependent arrays of the cells, over the extended period."""
    ny, nx = config.experiment_window(extended).cell_shape
    sizes = {"time": len(schema.time_axis(extended.period)), "y": ny, "x": nx}
    names = [str(name) for name in zarr_arrays.read_attributes(cube_url)["forcing"]]
    dims = ("time", "y", "x")
    fields = [schema.field_array("cells", n, extended.table[n], dims, sizes) for n in names]
    return [schema.time_coordinate("cells", extended.period), *fields]


def _describe_change(manifest: Json, receipts: list[Json], metadata: Json) -> Json:
    """Return the shards that differ from the manifest's, and the record of this update."""
    digests = {record["key"]: record["sha256"] for record in manifest["shards"]}
    shards = [record for receipt in receipts for record in receipt["shards"]]
    update: dict[str, Any] = {
        **metadata,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": provenance.code_commit(),
        "revised": sorted(day for receipt in receipts for day in receipt["revised"]),
    }
    return {
        "shards": [s for s in shards if digests.get(s["key"], "") != s["sha256"]],
        "update": update,
    }


def _apply_change(experiment: Experiment, pending: PendingChange) -> None:
    """Move a pending change that is complete into the cube."""
    change = pending.ready()
    assert change is not None
    manifest = pending.artefact.manifest() or {}
    last = date.fromisoformat(change["update"]["through"])
    pending.put(change["shards"])
    arrays = _forcing_arrays(extend_period(experiment, last), pending.place)
    zarr_arrays.extend_group(pending.place, arrays, {"cells": {"complete_through": str(last)}})
    zarr_arrays.consolidate(pending.place)
    pending.artefact.amend(
        change["shards"],
        complete_through=str(last),
        preliminary=change["preliminary"],
        missing=manifest.get("missing", {}) | {"cells": change["missing"]},
        updated=[*manifest.get("updated", []), change["update"]],
    )
    pending.drop()
