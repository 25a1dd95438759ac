"""Put the data of all sources on one grid and calendar: catalog entries -> cube.zarr."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pipeline import files
from pipeline.catalog import experiment_sources, intake_catalog, preflight, site_records
from pipeline.cluster import resources
from pipeline.errors import DataError, StoreError
from pipeline.experiment import config
from pipeline.grid import collocated_sites
from pipeline.prepare import block_task, folds
from pipeline.prepare.block_task import empty_receipt, write_block
from pipeline.prepare.run_blocks import check_receipts, run_blocks
from pipeline.progress import waiting
from pipeline.storage import missing_values, models, schema, zarr_arrays
from pipeline.storage.cube import Cube

if TYPE_CHECKING:
    from pipeline.catalog.experiment_sources import Sources
    from pipeline.catalog.site_records import SiteRecords
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Artefact, Workspace


def run(
    experiment: Experiment, workspace: Workspace, progress: Progress, overwrite: bool = False
) -> None:
    """Write the cube, with one Ray task per block of 32 days.

    Nothing is written if the experiment uses the cube of another one.

    Raises:
      SoilweaveError: If a source cannot be read or the workspace cannot be written; finished
        blocks are kept. Also if values are invalid; then the cube is removed.
    """
    if experiment.cube is not None:
        progress.start("prepare", 0, "blocks")
        url, _ = Cube.source(experiment, workspace)
        progress.finish(f"uses the cube {url}")
        return
    cube = workspace.artefact("cube")
    inputs = schema.identity(experiment, "cube", **source_digests(experiment))
    blocks = schema.block_range(experiment.period)
    progress.start("prepare", len(blocks), "blocks")
    if not cube.claim(inputs, overwrite, progress):
        progress.finish("cube complete")
        return
    sources = _open_sources(experiment, progress)
    _check_before_work(experiment, workspace, sources)
    resources.wait_for_cpus(experiment.compute, progress)
    cube.begin(inputs)
    workspace.describe(experiment)
    url = workspace.url("cube.zarr")
    zarr_arrays.create_group(url, *_cube_template(experiment, sources))
    receipts = _write_contents(experiment, sources, cube, url, progress)
    files.remove(files.join(url, "receipts"))
    zarr_arrays.consolidate(url)
    shards = [shard for receipt in receipts for shard in receipt["shards"]]
    missing = {group: m for receipt in receipts for group, m in receipt.get("missing", {}).items()}
    pairs = [pair for receipt in receipts for pair in receipt.get("twins", ())]
    cube.commit(
        inputs,
        shards,
        **({"twins": pairs} if pairs else {}),
        complete_through=str(experiment.period[1]),
        dropped=_count_dropped(receipts),
        missing=missing,
        nodes=Counter(receipt["node"] for receipt in receipts if receipt["node"]),
        **_source_metadata(experiment, sources),
    )
    parts = [_dropped_line(_count_dropped(receipts))]
    parts += [f"{len(pairs)} pairs of sites at one place"] if pairs else []
    parts += [missing_values.summarise_missing(missing, experiment.table)]
    progress.finish(f"cube of {len(blocks)} blocks, {'; '.join(parts)}")


def _open_sources(experiment: Experiment, progress: Progress) -> Sources:
    """Open all sources, which may take minutes where they are far away."""
    with waiting(progress, f"{', '.join(intake_catalog.cube_entries(experiment))} to open"):
        return experiment_sources.open_sources(experiment)


def _write_contents(
    experiment: Experiment, sources: Sources, cube: Artefact, url: str, progress: Progress
) -> list[Json]:
    """Write the contents of the cube and return the receipts.

    The order matters: the mask of cells needs all blocks; and where sites take the inputs of their
    cells, the mask decides which sites can be used.

    Raises:
      SoilweaveError: If a source has invalid values or too many missing values, or if the cube
        cannot be written.
    """
    receipts: list[Json] = []
    if experiment.inputs_from == "own":
        receipts.append(write_sites(experiment, sources, url, progress))
        _check_written(cube, url, receipts)
        missing = receipts[0].get("missing", {}).get("sites", {})
        inputs = {name: record for name, record in missing.items() if name != experiment.target}
        missing_values.check_limits(experiment, inputs)
    blocks = schema.block_range(experiment.period)
    task = partial(write_block, experiment_json=experiment.model_dump_json(), url=url)
    finished = partial(_finished_receipt, url)
    receipts += run_blocks(blocks, task, finished, experiment, len(sources.forcing), progress)
    _check_written(cube, url, receipts)
    receipts.append(_write_mask(experiment, sources, url))
    if experiment.inputs_from == "cell":
        receipts.append(write_sites(experiment, sources, url, progress))
        _check_written(cube, url, receipts)
    return receipts


def _check_written(cube: Artefact, url: str, receipts: list[Json]) -> None:
    """Check that everything was written, and remove a cube with invalid values.

    Such a cube could not be continued: to correct it, the data or the experiment must change, and
    the identity of the cube changes with them.

    Raises:
      SoilweaveError: If something could not be read or written, or if values are invalid.
    """
    if any(receipt["problems"] for receipt in receipts):
        cube.remove()
    check_receipts(url, receipts)


def _write_mask(experiment: Experiment, sources: Sources, url: str) -> Json:
    """Write the mask of cells, derived from all blocks.

    Returns:
      The receipt, with the missing values of all sources but the sites.

    Raises:
      DataError: If a variable has more missing values than the experiment accepts.
    """
    datasets = sources.forcing | sources.static
    datasets |= {} if sources.satellite is None else {experiment.target: sources.satellite}
    entries = {name: str(dataset.attrs["entry"]) for name, dataset in datasets.items()}
    mask, missing = block_task.finish_mask(url, experiment, sources.window, entries)
    region = [slice(0, size) for size in mask.shape]
    shards = zarr_arrays.write_shards(url, "cells/mask", region, mask.astype("uint8"))
    return empty_receipt() | {"node": None, "shards": shards, "missing": missing}


def write_sites(experiment: Experiment, sources: Sources, url: str, progress: Progress) -> Json:
    """Write the records of the sites and return the receipt."""
    receipt = empty_receipt() | {"node": None}  # the driver does this, not a task on a node
    if (insitu := sources.insitu) is None:
        return receipt
    try:
        if experiment.inputs_from == "cell":
            mask = zarr_arrays.open_group(url, "cells")["mask"].values.astype(bool)
            insitu, unused = site_records.drop_values_without_cells(
                insitu, experiment, sources.window, mask
            )
            if unused:
                progress.note(f"sites not used, their cells have no data: {', '.join(unused)}")
        for line in _notes_on_records(insitu.entry_attrs):
            progress.note(line)
        receipt["dropped"] = {f"insitu: {rule}": n for rule, n in insitu.dropped.items()}
        receipt["twins"] = _find_collocated_sites(experiment, insitu, progress)
        receipt["shards"], missing = site_records.write_records(insitu, experiment, url)
        receipt["missing"] = {"sites": missing}
    except DataError as error:
        receipt["problems"] += [str(error)]
    except StoreError as error:
        receipt |= {"unwritten": [str(error)], "outage": True}
    return receipt


def _find_collocated_sites(
    experiment: Experiment, insitu: SiteRecords, progress: Progress
) -> list[Json]:
    """Report the sites at one place and the ids that were qualified; return the pairs."""
    if insitu.repeated:
        ids = ", ".join(insitu.repeated)
        progress.note(f"site ids that several sources have, written as entry:id: {ids}")
    data = insitu.data
    indices = config.find_collocated_pairs(experiment, data.lat.values, data.lon.values)
    values = data[experiment.target].transpose("time", "place").values
    ids = data.place.values.tolist()
    pairs = collocated_sites.describe_twins(indices, ids, values, data.time.values)
    if pairs:
        progress.note(
            f"sites at one place: {collocated_sites.format_pairs(pairs)}; "
            f"{collocated_sites.TWINS_HINT}"
        )
    return pairs


def _notes_on_records(entry_attrs: dict[str, Json]) -> list[str]:
    """Return the notes of the readers of sites, and the counts of unchecked values, as lines."""
    lines = []
    for entry, attrs in entry_attrs.items():
        lines += [f"{entry}: {note}" for note in attrs.get("notes", ())]
        if unchecked := attrs.get("unchecked"):
            counts = ", ".join(f"{n} {name}" for name, n in unchecked.items())
            text = f"kept values that the provider did not check: {counts}"
            lines.append(f"{entry}: {text}; --set qc.unchecked=drop leaves them out")
    return lines


def source_digests(experiment: Experiment) -> dict[str, str]:
    """Return the digest of the content of every source."""
    names = intake_catalog.cube_entries(experiment)
    try:
        return {f"source {name}": intake_catalog.entry_digest(experiment, name) for name in names}
    except DataError:
        # This reports the problems of all sources, not only those of the first.
        experiment_sources.open_sources(experiment)
        raise


def _finished_receipt(url: str, item: Json) -> Json | None:
    """Return the receipt of a block that an interrupted run has finished, else None."""
    block = int(item["block"])
    receipt = files.read_receipt(files.join(url, "receipts", f"{block}.json"), *empty_receipt())
    return receipt if receipt is not None and block_task.has_presence(url, block) else None


def _cube_template(
    experiment: Experiment, sources: Sources
) -> tuple[list[schema.ArraySpec], dict[str, Json]]:
    """Return the arrays of the cube, and the attributes of its groups by name."""
    window, period, table = sources.window, experiment.period, experiment.table
    (ny, nx), (fy, fx) = window.cell_shape, window.footprint_shape
    n_sites = 0 if sources.insitu is None else sources.insitu.data.sizes["place"]
    sizes = {"time": len(schema.time_axis(period)), "y": ny, "x": nx, "fy": fy, "fx": fx}
    sizes["site"] = n_sites
    target = experiment.target
    arrays = schema.grid_coordinates(window)
    arrays += [schema.time_coordinate("cells", period), schema.mask_array(sizes)]
    fields: dict[str, tuple[tuple[str, ...], list[str], list[str]]] = {
        "cells": (("y", "x"), [*sources.forcing], [*sources.static])
    }
    if sources.satellite is not None:
        fields["footprints"] = (("fy", "fx"), [target], [])
    if sources.insitu is not None:
        arrays += schema.site_coordinates(window, sources.insitu.data)
        fields["sites"] = (("site",), [target, *sources.forcing], [*sources.static])
    for group, (dims, varying, constant) in fields.items():
        if group != "cells":
            arrays.append(schema.time_coordinate(group, period))
        for name in varying:
            arrays.append(schema.field_array(group, name, table[name], ("time", *dims), sizes))
        for name in constant:
            arrays.append(schema.field_array(group, name, table[name], dims, sizes))
    attrs: dict[str, Json] = {
        "": {
            "title": experiment.title,
            "period": [str(day) for day in period],
            "target": target,
            "forcing": [*sources.forcing],
            "static": [*sources.static],
            "refinement": window.refinement,
            "window": [window.row, window.col, window.height, window.width],
        }
    }
    if sources.insitu is not None:
        data = sources.insitu.data
        attrs["sites"] = {"id": [str(i) for i in data.place.values]}
        attrs["sites"]["network"] = [str(n) for n in data.network.values]
        if len(experiment.sources.insitu) > 1:  # so that settings may name a site as entry:id
            attrs["sites"]["entry"] = [str(e) for e in data.entry.values]
    return arrays, attrs


def _check_before_work(experiment: Experiment, workspace: Workspace, sources: Sources) -> None:
    """Check before the work what would otherwise fail only after hours.

    Raises:
      SoilweaveError: If products, the truth, models or the records of sites cannot be used, or the
        sites cannot be assigned to folds, as when all of them are in one block.
    """
    preflight.check_judging(experiment)
    if experiment.models is not None:
        root, members = models.load_ensembles(experiment, workspace)
        models.check_inputs(root, members, sources.forcing, sources.static)
    elif sources.insitu is not None:
        sites = sources.insitu.data
        networks = [str(network) for network in sites.network.values]
        folds.assign_sites(experiment, sites.lat.values, sites.lon.values, networks)
    _check_own_inputs(experiment, sources)
    _check_any_observation(experiment, sources)


def _check_own_inputs(experiment: Experiment, sources: Sources) -> None:
    """Check that sites with inputs of their own have all of them.

    Raises:
      DataError: If a variable is missing, or a site has no value of one; all are named.
    """
    if sources.insitu is None or experiment.inputs_from == "cell":
        return
    insitu = sources.insitu.data
    names = [*sources.forcing, *sources.static]
    place = f"catalog entry {insitu.attrs['entry']}"
    problems = [
        f"inputs_from is own, but {name} is not in the file" for name in names if name not in insitu
    ]
    if problems:
        hint = "add the variables to the entry's mapping, or set inputs_from: cell"
        raise DataError(place, *problems, remedy=hint)
    incomplete = np.zeros(insitu.sizes["place"], bool)
    for name in sources.forcing:
        incomplete |= ~np.isfinite(insitu[name].values).any(0)
    if incomplete.any():
        ids = [str(i) for i in insitu.place.values[incomplete]]
        problems = [f"site {i} has an input without any value" for i in ids[:5]]
        problems += [f"and {len(ids) - 5} more: {', '.join(ids[5:])}"] if len(ids) > 5 else []
        hint = "leave them out with qc.exclude_sites, or set inputs_from: cell"
        raise DataError(place, *problems, remedy=hint)


def _check_any_observation(experiment: Experiment, sources: Sources) -> None:
    """Check that the sites have a value of the target.

    Raises:
      DataError: If no site has any.
    """
    if sources.insitu is None or np.isfinite(sources.insitu.data[experiment.target].values).any():
        return
    dropped = ", ".join(f"{n} {rule}" for rule, n in sources.insitu.dropped.items() if n)
    problem = f"{experiment.target} has no value in the domain and period"
    problem += f" (dropped: {dropped})" if dropped else ""
    hint = "choose another period or source, or relax qc; soilweave doctor shows more"
    raise DataError(f"catalog entry {sources.insitu.data.attrs['entry']}", problem, remedy=hint)


def _count_dropped(receipts: list[Json]) -> dict[str, int]:
    """Return the number of values that each rule dropped, over all receipts."""
    rules = sorted({rule for receipt in receipts for rule in receipt["dropped"]})
    return {rule: sum(r["dropped"].get(rule, 0) for r in receipts) for rule in rules}


def _dropped_line(counts: dict[str, int]) -> str:
    """Return the counts of `_count_dropped` as text."""
    dropped = [f"{n} {rule}" for rule, n in counts.items() if n]
    return f"dropped {', '.join(dropped)}" if dropped else "nothing dropped"


def _source_metadata(experiment: Experiment, sources: Sources) -> Json:
    """Return what the manifest records of the sources.

    That is, by entry, the licence, DOI, time convention and periods that the catalog gives and the
    reader's notes; and the days that are preliminary.
    """
    datasets = [*sources.forcing.values(), *sources.static.values()]
    if sources.satellite is not None:
        datasets.append(sources.satellite)
    entry_attrs = {str(d.attrs["entry"]): d.attrs for d in datasets}
    entry_attrs |= sources.insitu.entry_attrs if sources.insitu else {}
    keys = ("license", "doi", "time_convention", "period", "static_period", "region")
    entries = {n: {k: attrs[k] for k in keys if k in attrs} for n, attrs in entry_attrs.items()}
    for name, attrs in entry_attrs.items():
        entries[name] |= {k: attrs[k] for k in ("unchecked", "notes") if attrs.get(k)}
    preliminary = intake_catalog.preliminary_span(experiment, experiment.period[1])
    return {"entries": entries, "preliminary": preliminary}
