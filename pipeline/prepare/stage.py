"""Bring every source onto one grid and calendar: catalogs -> cube.zarr."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pipeline import files
from pipeline.catalog import experiment_sources, intake_catalog, preflight, site_records
from pipeline.cluster import ray_cluster
from pipeline.errors import DataError, StoreError
from pipeline.experiment import config
from pipeline.grid import collocated_sites
from pipeline.prepare import block_task
from pipeline.prepare.block_task import check_receipts, empty_receipt, write_block
from pipeline.storage import missing_values, models, schema, zarr_arrays
from pipeline.storage.cube import Cube

if TYPE_CHECKING:
    from pipeline.catalog.experiment_sources import Sources
    from pipeline.catalog.site_records import Records
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Artefact, Workspace


def run(
    experiment: Experiment, workspace: Workspace, progress: Progress, overwrite: bool = False
) -> None:
    """Write the cube; one task per block of 32 days. Nothing where the experiment names another's.

    Raises:
      SoilweaveError: if a source cannot be read or the workspace cannot be written, and finished
        blocks are kept; or if values are unsound, and nothing is kept.
    """
    if experiment.cube is not None:
        progress.start("prepare", 0, "blocks")
        url, _ = Cube.source(experiment, workspace)
        progress.finish(f"nothing: {url} is used")
        return
    cube = workspace.artefact("cube")
    inputs = schema.identity(experiment, "cube", **_digests(experiment))
    blocks = schema.block_range(experiment.period)
    progress.start("prepare", len(blocks), "blocks")
    if not cube.claim(inputs, overwrite, progress):
        progress.finish("cube complete")
        return
    sources = experiment_sources.open_sources(experiment)
    _check(experiment, workspace, sources)
    cube.begin(inputs)
    workspace.describe(experiment)
    url = workspace.url("cube.zarr")
    zarr_arrays.create_group(url, *_template(experiment, sources))
    receipts = _written(experiment, sources, cube, url, progress)
    files.remove(files.join(url, "receipts"))
    zarr_arrays.consolidate(url)
    shards = [shard for receipt in receipts for shard in receipt["shards"]]
    lacking = {where: r for receipt in receipts for where, r in receipt.get("missing", {}).items()}
    pairs = [pair for receipt in receipts for pair in receipt.get("twins", ())]
    cube.commit(
        inputs,
        shards,
        **({"twins": pairs} if pairs else {}),
        complete_through=str(experiment.period[1]),
        dropped=_counts(receipts),
        missing=lacking,
        nodes=Counter(receipt["node"] for receipt in receipts if receipt["node"]),
        **_as_read(experiment, sources),
    )
    told = [_dropped_line(_counts(receipts))]
    told += [f"{len(pairs)} pairs of sites at one place"] if pairs else []
    told += [missing_values.line(lacking, experiment.table)]
    progress.finish(f"cube of {len(blocks)} blocks, {'; '.join(told)}")


def _written(
    experiment: Experiment, sources: Sources, cube: Artefact, url: str, progress: Progress
) -> list[Json]:
    """Write all that a cube holds; the receipts.

    The mask of cells takes all blocks, and where sites have the inputs of their cells, which of
    them can be used takes the mask.

    Raises:
      SoilweaveError: a source is unsound or lacks too much, or the cube cannot be written.
    """
    receipts: list[Json] = []
    if experiment.inputs_from == "own":
        receipts.append(_sites(experiment, sources, url, progress))
        _check_written(cube, url, receipts)
        own = receipts[0].get("missing", {}).get("sites", {})
        missing_values.check(experiment, {n: own[n] for n in own if n != experiment.target})
    blocks = [{"block": block} for block in schema.block_range(experiment.period)]
    task = partial(write_block, experiment_json=experiment.model_dump_json(), url=url)
    for _, receipt in ray_cluster.run_tasks(blocks, task, partial(_receipt, url)):
        receipts.append(receipt)
        progress.advance()
        if receipt["outage"]:  # the other blocks would fail as well, each after its retries
            break
    _check_written(cube, url, receipts)
    receipts.append(_land(experiment, sources, url))
    if experiment.inputs_from == "cell":
        receipts.append(_sites(experiment, sources, url, progress))
        _check_written(cube, url, receipts)
    return receipts


def _check_written(cube: Artefact, url: str, receipts: list[Json]) -> None:
    """Check that everything was written; remove a cube of unsound values.

    No such cube could be continued: the data or the experiment must change, and its identity with
    them.

    Raises:
      SoilweaveError: if something could not be read or written, or values are unsound.
    """
    if any(receipt["problems"] for receipt in receipts):
        cube.remove()
    check_receipts(url, receipts)


def _land(experiment: Experiment, sources: Sources, url: str) -> Json:
    """Write the mask of cells, which takes all blocks; a receipt, with what the sources lack.

    Raises:
      DataError: a variable lacks more than is accepted.
    """
    given = sources.forcing | sources.static
    given |= {} if sources.satellite is None else {experiment.target: sources.satellite}
    entries = {name: str(dataset.attrs["entry"]) for name, dataset in given.items()}
    mask, lacking = block_task.settled(url, experiment, sources.window, entries)
    region = [slice(0, size) for size in mask.shape]
    shards = zarr_arrays.write_shards(url, "cells/mask", region, mask.astype("uint8"))
    return empty_receipt() | {"node": None, "shards": shards, "missing": lacking}


def _sites(experiment: Experiment, sources: Sources, url: str, progress: Progress) -> Json:
    """Write what the sites report; the receipt of it."""
    receipt = empty_receipt() | {"node": None}  # the driver's work, which no node was given
    if (insitu := sources.insitu) is None:
        return receipt
    try:
        if experiment.inputs_from == "cell":
            mask = zarr_arrays.open_group(url, "cells")["mask"].values.astype(bool)
            insitu, lost = site_records.on_land(insitu, experiment, sources.window, mask)
            if lost:
                progress.note(f"no cell with data, not used: {', '.join(lost)}")
        for line in _remarks(insitu.told):
            progress.note(line)
        receipt["dropped"] = {f"insitu: {rule}": n for rule, n in insitu.dropped.items()}
        receipt["twins"] = _twins(experiment, insitu, progress)
        receipt["shards"], found = site_records.write(insitu, experiment, url)
        receipt["missing"] = {"sites": found}
    except DataError as error:
        receipt["problems"] += [str(error)]
    except StoreError as error:
        receipt |= {"unwritten": [str(error)], "outage": True}
    return receipt


def _twins(experiment: Experiment, insitu: Records, progress: Progress) -> list[Json]:
    """Tell which sites are at one place, and which ids were qualified; the pairs."""
    if insitu.repeated:
        progress.note(f"ids of several sources, called entry:id: {', '.join(insitu.repeated)}")
    data = insitu.data
    found = config.find_collocated_pairs(experiment, data.lat.values, data.lon.values)
    values = data[experiment.target].transpose("time", "place").values
    pairs = collocated_sites.described(found, data.place.values.tolist(), values, data.time.values)
    if pairs:
        progress.note(
            f"sites at one place: {collocated_sites.line(pairs)}; {collocated_sites.REMEDY}"
        )
    return pairs


def _remarks(told: dict[str, Json]) -> list[str]:
    """What a person should know of the records of sites that were read."""
    lines = []
    for entry, attrs in told.items():
        lines += [f"{entry}: {note}" for note in attrs.get("notes", ())]
        if kept := attrs.get("unchecked"):
            counts = ", ".join(f"{n} {name}" for name, n in kept.items())
            text = f"values kept to which no check was applied: {counts}"
            lines.append(f"{entry}: {text}; --set qc.unchecked=drop leaves them out")
    return lines


def _digests(experiment: Experiment) -> dict[str, str]:
    """What identifies the content of every source."""
    names = intake_catalog.entries(experiment)
    try:
        return {f"source {name}": intake_catalog.digest(experiment, name) for name in names}
    except DataError:
        experiment_sources.open_sources(
            experiment
        )  # tells the faults of all sources, not of the first alone
        raise


def _receipt(url: str, item: Json) -> Json | None:
    """The receipt of a block that an interrupted run has written; None where there is none."""
    block = int(item["block"])
    receipt = files.read_receipt(files.join(url, "receipts", f"{block}.json"), *empty_receipt())
    return receipt if receipt is not None and block_task.kept(url, block) else None


def _template(
    experiment: Experiment, sources: Sources
) -> tuple[list[schema.Array], dict[str, Json]]:
    """All arrays of the cube, and the attributes of its groups."""
    window, period, table = sources.window, experiment.period, experiment.table
    (ny, nx), (fy, fx) = window.cell_shape, window.footprint_shape
    n_sites = 0 if sources.insitu is None else sources.insitu.data.sizes["place"]
    sizes = {"time": len(schema.time_axis(period)), "y": ny, "x": nx, "fy": fy, "fx": fx}
    sizes["site"] = n_sites
    target = experiment.target
    form = schema.grid_coordinates(window)
    form += [schema.time_coordinate("cells", period), schema.mask(sizes)]
    fields: dict[str, tuple[tuple[str, ...], list[str], list[str]]] = {
        "cells": (("y", "x"), [*sources.forcing], [*sources.static])
    }
    if sources.satellite is not None:
        fields["footprints"] = (("fy", "fx"), [target], [])
    if sources.insitu is not None:
        form += schema.site_coordinates(window, sources.insitu.data)
        fields["sites"] = (("site",), [target, *sources.forcing], [*sources.static])
    for group, (dims, varying, constant) in fields.items():
        if group != "cells":
            form.append(schema.time_coordinate(group, period))
        for name in varying:
            form.append(schema.field_array(group, name, table[name], ("time", *dims), sizes))
        for name in constant:
            form.append(schema.field_array(group, name, table[name], dims, sizes))
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
        held = sources.insitu.data
        attrs["sites"] = {"id": [str(i) for i in held.place.values]}
        attrs["sites"]["network"] = [str(n) for n in held.network.values]
        if len(experiment.sources.insitu) > 1:  # so that a setting may name a site as entry:id
            attrs["sites"]["entry"] = [str(e) for e in held.entry.values]
    return form, attrs


def _check(experiment: Experiment, workspace: Workspace, sources: Sources) -> None:
    """Faults that would be found after hours of work."""
    preflight.check_judging(experiment)
    if experiment.models is not None:
        root, members = models.check_models(experiment, workspace)
        models.check_inputs(root, members, sources.forcing, sources.static)
    _check_own_inputs(experiment, sources)
    _check_observed(experiment, sources)


def _check_own_inputs(experiment: Experiment, sources: Sources) -> None:
    """Where sites bring their own inputs, each must have all of them.

    Raises:
      DataError: naming the variables, or the sites, that are lacking.
    """
    if sources.insitu is None or experiment.inputs_from == "cell":
        return
    insitu = sources.insitu.data
    names = [*sources.forcing, *sources.static]
    absent = [f"{name} is not in the file" for name in names if name not in insitu]
    if absent:
        remedy = "add them to the entry's mapping, or set inputs_from: cell"
        raise DataError(f"own inputs of {insitu.attrs['entry']}", *absent, remedy=remedy)
    lacking = np.zeros(insitu.sizes["place"], bool)
    for name in sources.forcing:
        lacking |= ~np.isfinite(insitu[name].values).any(0)
    if lacking.any():
        ids = [str(i) for i in insitu.place.values[lacking]]
        problems = [f"site {i} has no own inputs" for i in ids[:5]]
        problems += [f"and {len(ids) - 5} more: {', '.join(ids[5:])}"] if len(ids) > 5 else []
        remedy = "leave them out with qc.exclude_sites, or set inputs_from: cell"
        raise DataError(f"catalog entry {insitu.attrs['entry']}", *problems, remedy=remedy)


def _check_observed(experiment: Experiment, sources: Sources) -> None:
    """Some site must have some value.

    Raises:
      DataError: none has.
    """
    if sources.insitu is None or np.isfinite(sources.insitu.data[experiment.target].values).any():
        return
    lost = ", ".join(f"{n} {rule}" for rule, n in sources.insitu.dropped.items() if n)
    found = f"{experiment.target} has no value in the domain and period"
    found += f" (dropped: {lost})" if lost else ""
    remedy = "choose another period or source, or loosen qc; soilweave doctor shows more"
    raise DataError(f"catalog entry {sources.insitu.data.attrs['entry']}", found, remedy=remedy)


def _all(receipts: list[Json], key: str) -> list[str]:
    """What the receipts say under a key, each once."""
    return sorted({line for receipt in receipts for line in receipt[key]})


def _counts(receipts: list[Json]) -> dict[str, int]:
    """Values dropped by each rule, over all blocks."""
    rules = sorted({rule for receipt in receipts for rule in receipt["dropped"]})
    return {rule: sum(r["dropped"].get(rule, 0) for r in receipts) for rule in rules}


def _dropped_line(counts: dict[str, int]) -> str:
    dropped = [f"{n} {rule}" for rule, n in counts.items() if n]
    return f"dropped {', '.join(dropped)}" if dropped else "nothing dropped"


def _as_read(experiment: Experiment, sources: Sources) -> Json:
    """What entries say: licence, DOI, time convention, period of statics; what is preliminary."""
    datasets = [*sources.forcing.values(), *sources.static.values()]
    if sources.satellite is not None:
        datasets.append(sources.satellite)
    told = {str(d.attrs["entry"]): d.attrs for d in datasets}
    told |= sources.insitu.told if sources.insitu else {}
    keys = ("license", "doi", "time_convention", "period", "static_period", "region")
    entries = {n: {k: attrs[k] for k in keys if k in attrs} for n, attrs in told.items()}
    for name, attrs in told.items():
        entries[name] |= {k: attrs[k] for k in ("unchecked", "notes") if attrs.get(k)}
    preliminary = intake_catalog.preliminary(experiment, experiment.period[1])
    return {"entries": entries, "preliminary": preliminary}
