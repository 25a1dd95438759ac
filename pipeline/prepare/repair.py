"""Make damaged shards of the cube again, for `verify --repair`.

A damaged shard of a block is written again by the task that wrote it. The sources must have the
content that they had; then the shards are the same to the last bit on the same kind of machine.
"""

from __future__ import annotations

from datetime import date
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pipeline import files
from pipeline.catalog import experiment_sources
from pipeline.errors import StoreError
from pipeline.prepare import append, stage
from pipeline.prepare.block_task import write_block
from pipeline.prepare.run_blocks import check_receipts, run_blocks
from pipeline.storage import earlier_versions, schema, zarr_arrays

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace


def repair(
    experiment: Experiment, workspace: Workspace, progress: Progress, keys: Sequence[str]
) -> None:
    """Make shards of a complete cube again.

    Args:
      experiment: The experiment that was run.
      workspace: Its folder; the metadata of the cube must be intact.
      progress: Receives the number of blocks done.
      keys: Keys of the damaged objects in the folder.

    Raises:
      SoilweaveError: If the sources have changed since or cannot be read.
    """
    artefact, url = workspace.artefact("cube"), workspace.url("cube.zarr")
    manifest = artefact.manifest() or {}
    inputs = schema.identity(experiment, "cube", **stage.source_digests(experiment))
    if not artefact.made_from(manifest, inputs):
        problem = "its sources or settings have changed since, so its shards cannot be made again"
        hint = "restore the sources, or make another cube with: soilweave prepare --overwrite"
        raise StoreError(url, problem, remedy=hint)
    hint = "make another cube with: soilweave prepare --overwrite"
    earlier_versions.check_same_blocks(url, manifest, "its shards cannot be made again", hint)
    sources = experiment_sources.open_sources(experiment)
    for key in keys:  # only now, since parts of a damaged shard can still be read
        files.remove(workspace.url(key))
    arrays = [_array_and_index(key) for key in keys if "/c/" in key]
    statics = {*sources.static}
    sites = [name for group, name, _ in arrays if group == "sites"]
    own = {experiment.target} if experiment.inputs_from == "cell" else {*sites}
    # Sites that have own records, and the mask, are no part of a block.
    of_blocks = {
        (group, 0 if name in statics else index)
        for group, name, index in arrays
        if name != "mask" and not (group == "sites" and name in own)
    }
    last = date.fromisoformat(manifest["complete_through"])
    updated = append.extend_period(experiment, last) if manifest.get("updated") else None
    n = len({block for _, block in of_blocks})
    progress.start("prepare", n * (2 if updated else 1), "blocks")
    _write_blocks(experiment, updated, url, of_blocks, len(sources.forcing), progress)
    if any(name == "mask" for _, name, _ in arrays):
        mask = find_mask(url, [*sources.forcing], [*sources.static])
        region = [slice(0, size) for size in mask.shape]
        zarr_arrays.write_shards(url, "cells/mask", region, mask.astype("uint8"))
    if own & {*sites}:
        check_receipts(url, [stage.write_sites(experiment, sources, url, progress)])
    progress.finish(f"{n} blocks of the cube made again")


def _array_and_index(key: str) -> tuple[str, str, int]:
    """Return group, name and the first index of a shard, from its key in the workspace."""
    path, _, index = key.removeprefix("cube.zarr/").partition("/c/")
    group, name = path.split("/")
    return group, name, int(index.split("/")[0])


def _write_blocks(
    experiment: Experiment,
    updated: Experiment | None,
    url: str,
    of_blocks: set[tuple[str, int]],
    n_forcing: int,
    progress: Progress,
) -> None:
    """Write blocks again: all groups as at first, then the forcing of cells as updates left it."""
    period = schema.block_range(experiment.period)
    every = sorted({block for _, block in of_blocks})
    n_days = zarr_arrays.open_group(url, "cells").sizes["time"]
    passes = [(experiment, [block for block in every if block in period], False)]
    if updated is not None:
        passes.append((updated, every, True))
    for settings, blocks, forcing_only in passes:
        files.remove(files.join(url, "receipts"))
        task = partial(
            write_block,
            experiment_json=settings.model_dump_json(),
            url=url,
            forcing_only=forcing_only,
            extended_days=n_days,
        )
        receipts = run_blocks(blocks, task, _no_receipt, settings, n_forcing, progress)
        check_receipts(url, receipts)
    files.remove(files.join(url, "receipts"))


def _no_receipt(item: Json) -> Json | None:
    """Return None: nothing of an earlier run is kept."""
    return None


def find_mask(url: str, forcing: list[str], static: list[str]) -> NDArray[np.bool_]:
    """Return the mask of valid cells (y, x), from the values in the cube.

    A cell is valid if every forcing has a value on some day, and any static has one.
    """
    cells = zarr_arrays.open_group(url, "cells")
    n_days = cells.sizes["time"]
    with zarr_arrays.intact_chunks(url):
        mask = np.ones((cells.sizes["y"], cells.sizes["x"]), bool)
        for name in forcing:
            present = np.zeros_like(mask)
            for start in range(0, n_days, schema.BLOCK_DAYS):
                days = slice(start, start + schema.BLOCK_DAYS)
                present |= np.isfinite(cells[name].isel(time=days).values).any(0)
            mask &= present
        if static:
            mask &= np.any([np.isfinite(cells[name].values) for name in static], axis=0)
    return mask
