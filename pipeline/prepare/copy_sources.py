"""Copy the window of every source into a folder, once (`prepare --stage-to`).

A Ray task copies a block of 32 days of an entry, or as many blocks as one object of the source
spans. The records of sites are one task. A copy is an artefact: an interrupted run resumes by its
receipts, and the manifest says that the copy is complete. Experiments with the same window and
period can share a folder.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pipeline import failures, files
from pipeline.catalog import intake_catalog
from pipeline.cluster import ray_cluster, resources
from pipeline.errors import DataError, SoilweaveError
from pipeline.experiment import config
from pipeline.experiment.config import Experiment
from pipeline.grid import remap
from pipeline.sources.shared import access
from pipeline.storage import artefacts, lease, schema, source_copies, zarr_arrays

if TYPE_CHECKING:
    from datetime import date

    import xarray as xr

    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Artefact, Workspace
    from pipeline.storage.earlier_versions import Digest


MAX_BLOCKS_PER_TASK = 12  # of one task, which has all of them in memory


def run(
    experiment: Experiment, workspace: Workspace, progress: Progress, overwrite: bool = False
) -> None:
    """Copy every entry of the cube to the folder `sources.staged`, except complete copies.

    Args:
      experiment: The settings.
      workspace: The workspace; nothing is written to it.
      progress: Receives the progress in pieces, the tasks.
      overwrite: Copy again what is complete.

    Raises:
      SoilweaveError: If a source cannot be read or the folder cannot be written.
    """
    folder = str(experiment.sources.staged)
    sources = experiment.sources.model_copy(update={"staged": None})
    origin = experiment.model_copy(update={"sources": sources})
    folder_lease = lease.get_lease(files.join(folder, "lease.json"))
    with folder_lease.given_back():
        todo = {}
        for entry in intake_catalog.cube_entries(origin):
            artefact = artefacts.Artefact(
                f"copy of {entry}", f"{source_copies.copy_url(folder, entry)}/", folder_lease
            )
            inputs = _copy_inputs(origin, entry)
            if artefact.claim(inputs, overwrite, progress):
                todo[entry] = (artefact, inputs)
        blocks = schema.block_range(origin.period)
        pieces = [piece for entry in todo for piece in _split_into_tasks(origin, entry, blocks)]
        progress.start("stage", len(pieces), "pieces")
        if not todo:
            progress.finish(f"all sources are already copied to {folder}")
            return
        progress.note(f"{intake_catalog.describe_volume(origin, list(todo))}, to {folder}")
        resources.wait_for_cpus(origin.compute, progress)
        for entry, (artefact, inputs) in todo.items():
            artefact.begin(inputs)
            zarr_arrays.create_group(
                source_copies.copy_url(folder, entry), *_copy_template(origin, entry)
            )
        receipts: dict[str, list[Json]] = {entry: [] for entry in todo}
        task = partial(copy_block, experiment_json=origin.model_dump_json(), folder=folder)
        for piece, receipt in ray_cluster.run_tasks(
            pieces, task, partial(_finished_receipt, folder)
        ):
            receipts[piece["entry"]].append(receipt)
            progress.advance()
        size = _commit_copies(origin, folder, todo, receipts)
    progress.finish(f"{len(todo)} entries, {size / 1e6:.1f} MB in {folder}")


def copy_block(item: Json, experiment_json: str, folder: str) -> Json:
    """Copy blocks of 32 days of one entry (a Ray task).

    Args:
      item: {"entry": its name, "block": number of the first block, "n": number of blocks}.
      experiment_json: The experiment as JSON, without `sources.staged`.
      folder: The folder of the copies.

    Returns:
      The receipt: {"shards": records of the shards written, "problem": the error, or None}.
    """
    experiment = Experiment.model_validate_json(experiment_json)
    entry, block = str(item["entry"]), int(item["block"])
    url = source_copies.copy_url(folder, entry)
    receipt: Json = {"shards": [], "problem": None}
    start = block * schema.BLOCK_DAYS
    period = schema.block_period(experiment.period, block, int(item["n"]))
    days = schema.period_days(period)
    try:

        def write() -> list[Json]:
            dataset = _open_window(experiment, entry, period)
            return source_copies.write_days(dataset, url, days, start, constants=start == 0)

        receipt["shards"] = access.retry_read(write)
        files.write_json(files.join(url, "receipts", f"{block}.json"), receipt)
    except SoilweaveError as error:
        receipt["problem"] = str(error)
    except failures.storage_exceptions(ImportError) as error:
        receipt["problem"] = f"catalog entry {entry}: {failures.read_problem(error)}"
    return receipt


def _copy_inputs(origin: Experiment, entry: str) -> Json:
    """Return the inputs that identify a copy."""
    window = config.experiment_window(origin)
    window_numbers = [window.row, window.col, window.height, window.width]
    period = [str(day) for day in origin.period]
    digest = intake_catalog.entry_digest(origin, entry)
    return {
        "schema": schema.SCHEMA_VERSION,
        "window": window_numbers,
        "period": period,
        "source": digest,
    }


def _open_window(
    origin: Experiment, entry: str, period: tuple[date, date] | None = None
) -> xr.Dataset:
    """Open an entry on the window, without scalar coordinates."""
    dataset = intake_catalog.open_source(origin, entry, period=period)
    dataset = remap.select_over_window(dataset, config.experiment_window(origin))
    return dataset.drop_vars([n for n in dataset.coords if not dataset[n].dims])


def _copy_template(
    origin: Experiment, entry: str
) -> tuple[list[schema.ArraySpec], dict[str, Json]]:
    return source_copies.copy_template(_open_window(origin, entry), origin.period)


def _finished_receipt(folder: str, piece: Json) -> Json | None:
    """Return the receipt of a piece that an interrupted run has copied, else None."""
    url = source_copies.copy_url(folder, piece["entry"])
    name = f"{piece['block']}.json"
    return files.read_receipt(files.join(url, "receipts", name), "shards", "problem")


def _split_into_tasks(origin: Experiment, entry: str, blocks: range) -> list[Json]:
    """Return the items for `copy_block`; a piece is the blocks that share an object."""
    if entry in origin.sources.insitu:
        return [{"entry": entry, "block": blocks.start, "n": len(blocks)}]
    volume = intake_catalog.entry_volume(origin, entry)
    step = min(volume.blocks, MAX_BLOCKS_PER_TASK) if volume else 1
    return [
        {"entry": entry, "block": block, "n": min(step, blocks.stop - block)}
        for block in range(blocks.start, blocks.stop, step)
    ]


def _commit_copies(
    origin: Experiment,
    folder: str,
    todo: dict[str, tuple[Artefact, Json]],
    receipts: dict[str, list[Json]],
) -> int:
    """Write the manifests of the complete copies and return their size in bytes.

    Raises:
      DataError: If some copies are incomplete; it lists why.
    """
    problems, size = set[str](), 0
    for entry, (artefact, inputs) in todo.items():
        entry_problems = {receipt["problem"] for receipt in receipts[entry]} - {None}
        problems |= entry_problems
        if entry_problems:
            continue
        url = source_copies.copy_url(folder, entry)
        files.remove(files.join(url, "receipts"))
        zarr_arrays.consolidate(url)
        shards = [shard for receipt in receipts[entry] for shard in receipt["shards"]]
        size += sum(int(shard["size"]) for shard in shards)
        digest: Digest = inputs["source"]
        digests = {"digest": digest, "digest_version2": digest.version2}
        artefact.commit(inputs, shards, **digests, period=inputs["period"])
    if problems:
        hint = "correct this and run again; what was copied is kept"
        raise DataError("sources", *sorted(problems), remedy=hint)
    return size
