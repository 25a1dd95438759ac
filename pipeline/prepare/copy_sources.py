"""Copy the window of every source once into a folder of one's own: catalogs -> copies.

One Ray task per entry and block of 32 days, or per so many blocks as an object of the source
spans; one for the records of sites. A copy is an artefact: begun, resumed by receipts, complete
with its manifest. Several experiments share a folder where window and period agree.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pipeline import files
from pipeline.catalog import experiment_sources, intake_catalog
from pipeline.cluster import ray_cluster
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
    from pipeline.storage.version2 import Digest


MOST_BLOCKS = 12  # of one task, which holds them in memory


def run(
    experiment: Experiment, workspace: Workspace, progress: Progress, overwrite: bool = False
) -> None:
    """Copy every entry of the cube to `sources.staged`; what is complete there stays.

    Raises:
      SoilweaveError: a source cannot be read, or the folder cannot be written.
    """
    folder = str(experiment.sources.staged)
    sources = experiment.sources.model_copy(update={"staged": None})
    origin = experiment.model_copy(update={"sources": sources})
    held = lease.of(files.join(folder, "lease.json"))
    with held.given_back():
        todo = {}
        for entry in intake_catalog.entries(origin):
            artefact = artefacts.Artefact(
                f"copy of {entry}", f"{source_copies.url_of(folder, entry)}/", held
            )
            inputs = _inputs(origin, entry)
            if artefact.claim(inputs, overwrite, progress):
                todo[entry] = (artefact, inputs)
        blocks = schema.block_range(origin.period)
        pieces = [piece for entry in todo for piece in _pieces(origin, entry, blocks)]
        progress.start("stage", len(pieces), "pieces")
        if not todo:
            progress.finish(f"every source is copied to {folder}")
            return
        progress.note(f"{intake_catalog.told(origin, list(todo))}, to {folder}")
        for entry, (artefact, inputs) in todo.items():
            artefact.begin(inputs)
            zarr_arrays.create_group(source_copies.url_of(folder, entry), *_template(origin, entry))
        receipts: dict[str, list[Json]] = {entry: [] for entry in todo}
        task = partial(copy_block, experiment_json=origin.model_dump_json(), folder=folder)
        for piece, receipt in ray_cluster.run_tasks(pieces, task, partial(_receipt, folder)):
            receipts[piece["entry"]].append(receipt)
            progress.advance()
        size = _commit(origin, folder, todo, receipts)
    progress.finish(f"{len(todo)} entries, {size / 1e6:.1f} MB in {folder}")


def copy_block(item: Json, experiment_json: str, folder: str) -> Json:
    """Copy blocks of 32 days of one entry; a Ray Data task.

    Args:
      item: {"entry": its name, "block": number of the first block, "n": of blocks}.
      experiment_json: the experiment, reading from the sources themselves.
      folder: of the copies.

    Returns:
      {"shards": records of what was written, "problem": what went wrong, None where nothing did}.
    """
    experiment = Experiment.model_validate_json(experiment_json)
    entry, block = str(item["entry"]), int(item["block"])
    url = source_copies.url_of(folder, entry)
    receipt: Json = {"shards": [], "problem": None}
    blocks = range(block, block + int(item["n"]))
    days = np.concatenate([experiment_sources.days_of(number) for number in blocks])
    start = (block - schema.block_range(experiment.period).start) * schema.BLOCK_DAYS
    try:

        def written() -> list[Json]:
            dataset = _opened(experiment, entry, experiment_sources.within(experiment, days))
            return source_copies.write(dataset, url, days, start, constants=start == 0)

        receipt["shards"] = access.patiently(written)
        files.write_json(files.join(url, "receipts", f"{block}.json"), receipt)
    except SoilweaveError as error:
        receipt["problem"] = str(error)
    except OSError as error:
        receipt["problem"] = f"catalog entry {entry}: cannot be read ({type(error).__name__})"
    return receipt


def _inputs(origin: Experiment, entry: str) -> Json:
    """What a copy is made from."""
    window = config.window(origin)
    edges = [window.row, window.col, window.height, window.width]
    period = [str(day) for day in origin.period]
    digest = intake_catalog.digest(origin, entry)
    return {"schema": schema.VERSION, "window": edges, "period": period, "source": digest}


def _opened(origin: Experiment, entry: str, period: tuple[date, date] | None = None) -> xr.Dataset:
    dataset = intake_catalog.open_source(origin, entry, period=period)
    dataset = remap.near(dataset, config.window(origin))
    return dataset.drop_vars([n for n in dataset.coords if not dataset[n].dims])


def _template(origin: Experiment, entry: str) -> tuple[list[schema.Array], dict[str, Json]]:
    return source_copies.template(_opened(origin, entry), origin.period)


def _receipt(folder: str, piece: Json) -> Json | None:
    """The receipt of a piece that an interrupted run has copied; None where there is none."""
    url = source_copies.url_of(folder, piece["entry"])
    name = f"{piece['block']}.json"
    return files.read_receipt(files.join(url, "receipts", name), "shards", "problem")


def _pieces(origin: Experiment, entry: str, blocks: range) -> list[Json]:
    """The items of `copy_block`: each piece is the blocks that share objects, read at once."""
    if entry in origin.sources.insitu:
        return [{"entry": entry, "block": blocks.start, "n": len(blocks)}]
    found = intake_catalog.of(origin, entry)
    step = min(found.blocks, MOST_BLOCKS) if found else 1
    return [
        {"entry": entry, "block": block, "n": min(step, blocks.stop - block)}
        for block in range(blocks.start, blocks.stop, step)
    ]


def _commit(
    origin: Experiment,
    folder: str,
    todo: dict[str, tuple[Artefact, Json]],
    receipts: dict[str, list[Json]],
) -> int:
    """Write the manifests of the copies that are whole; returns the bytes in them.

    Raises:
      DataError: what kept the others from being whole.
    """
    problems, size = set[str](), 0
    for entry, (artefact, inputs) in todo.items():
        wrong = {receipt["problem"] for receipt in receipts[entry]} - {None}
        problems |= wrong
        if wrong:
            continue
        url = source_copies.url_of(folder, entry)
        files.remove(files.join(url, "receipts"))
        zarr_arrays.consolidate(url)
        shards = [shard for receipt in receipts[entry] for shard in receipt["shards"]]
        size += sum(int(shard["size"]) for shard in shards)
        digest: Digest = inputs["source"]
        digests = {"digest": digest, "digest_version2": digest.version2}
        artefact.commit(inputs, shards, **digests, period=inputs["period"])
    if problems:
        remedy = "mend that and run again; what was copied is kept"
        raise DataError("sources", *sorted(problems), remedy=remedy)
    return size
