"""Where the next probes would tell most: a layer of an arm's maps, and a ranked table.

next_probes.csv, of arm multiscale or the first that has learnt from sites: rank; lat, lon, degrees;
std, the root of the mean variance there, in the target's unit; attribute_distance to the sites;
gain, the share of all error variance explained beyond the sites and the probes ranked before.

The columns of all arms' maps, each a task of Ray Data; one that is done leaves a receipt.

Map every arm with the models of all sites: cube.zarr, models/ -> maps/, state/.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from model import probe_gain
from pipeline import files
from pipeline.cluster import ray_cluster
from pipeline.errors import StoreError
from pipeline.experiment import config
from pipeline.experiment.config import Experiment, reference_arm
from pipeline.predict import tile_task
from pipeline.storage import artefacts, maps_schema, models, schema, zarr_arrays
from pipeline.storage.cube import Cube
from pipeline.storage.maps_schema import NEXT_PROBES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from model.checkpoint import TrainedModel
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace


RANKED = 15  # probes in the table
MOST = 4000  # cells that are to be explained and may be ranked; of more, evenly spaced ones


def write(workspace: Workspace, models_root: str, arms: Sequence[str]) -> list[Json]:
    """Write the layer of each arm, all of whose columns are there, and the table; their records."""
    space = models.space(models_root)
    if space is None or not arms:
        return []
    records: list[Json] = []
    told = reference_arm(arms)
    for arm in arms:
        layer, table = _of_arm(workspace, arm, space.unit)
        url, whole = workspace.url("maps", f"{arm}.zarr"), [slice(0, n) for n in layer.shape]
        made = zarr_arrays.write_shards(url, "probe_gain", whole, layer)
        records += [record | {"key": f"maps/{arm}.zarr/{record['key']}"} for record in made]
        if arm == told:
            text = table.to_csv(index=False, float_format="%.6f")
            files.write_bytes(workspace.url(NEXT_PROBES), text.encode())
    return [*records, artefacts.record(workspace.root, NEXT_PROBES)]


def _of_arm(
    workspace: Workspace, arm: str, unit: float
) -> tuple[NDArray[np.float32], pd.DataFrame]:
    """The gain of a probe in every cell (y, x), and the table."""
    mapped = zarr_arrays.open_group(workspace.url("maps", f"{arm}.zarr"), "")
    state = zarr_arrays.open_group(workspace.url("state", f"{arm}.zarr"), "")
    attributes, variance = state["attributes"].values, state["mean_variance"].values
    valid = np.isfinite(attributes).all(0)
    places, distance = attributes[:, valid].T, mapped["attribute_distance"].values[valid]
    some = slice(None, None, max(1, -(-len(places) // MOST)))
    weight = probe_gain.variance_shares(variance[valid][some])
    layer = np.full(valid.shape, np.nan, np.float32)
    layer[valid] = probe_gain.probe_gains(places, places[some], weight, distance[some], unit)
    index, gain = probe_gain.rank_probes(places[some], weight, distance[some], unit, RANKED)
    y, x = (rows[some][index] for rows in np.nonzero(valid))
    table = pd.DataFrame(
        {
            "rank": np.arange(1, len(index) + 1),
            "lat": mapped["lat"].values[y],
            "lon": mapped["lon"].values[x],
            "std": np.sqrt(variance[y, x]),
            "attribute_distance": distance[some][index],
            "gain": gain,
        }
    )
    return layer, table


SHARING = 4  # columns at a time on a GPU, which is faster than one process reads and packs


def mapped(
    orders: tile_task.MapSpec,
    columns: list[Json],
    n_blocks: int,
    progress: Progress,
    task: type[tile_task.MapTile] = tile_task.MapTile,
) -> Iterator[Json]:
    """The receipt of each column: those of an interrupted run, then of the columns it left.

    Args:
      orders: of every task; the queue is made here.
      columns: of every arm, as `every` gives them.
      n_blocks: that each advances the progress by.
      progress: is told of them.
      task: what maps a column.
    """
    kept, todo = ray_cluster.split(columns, partial(_receipt, orders.root))
    for _, receipt in kept:
        progress.advance(n_blocks)
        yield receipt
    if not todo:
        return
    threads = Experiment.model_validate_json(orders.experiment_json).compute.threads_per_worker
    with ray_cluster.connected(), ray_cluster.progress_queue(progress) as told:
        import ray

        gpus = int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
        map_column = partial(
            tile_task.map_tile, task=task, orders=replace(orders, queue=told.queue)
        )
        resources: dict[str, Any] = {
            "num_cpus": 1 if gpus else threads,
            "num_gpus": 1 / SHARING if gpus else 0,
            "max_calls": 0,  # a process continues with the next column, on a GPU too
        }
        for _, receipt in ray_cluster.run_tasks(todo, map_column, **resources):
            yield receipt


def _receipt(root: str, column: Json) -> Json | None:
    """The receipt of a column that an interrupted run has mapped; None where there is none."""
    name = tile_task.receipt_name(**column)
    return files.read_receipt(files.join(root, "maps", "receipts", name), "shards")


def shards_of(url: str, receipts: list[Json]) -> list[Json]:
    """The records of all shards that columns have written.

    Args:
      url: of the maps, for the message.
      receipts: of the columns.

    Raises:
      StoreError: a column could not be mapped.
    """
    if problems := sorted({line for receipt in receipts for line in receipt["problems"]}):
        remedy = "mend that and run again; whole columns are kept"
        raise StoreError(url, *problems, remedy=remedy)
    return [shard for receipt in receipts for shard in receipt["shards"]]


def every(experiment: Experiment) -> list[Json]:
    """Every arm and column, by its upper left cell."""
    ny, nx = config.window(experiment).cell_shape
    return [
        {"arm": arm, "row": row, "col": col}
        for arm in experiment.arms
        for row in range(0, ny, schema.SHARD)
        for col in range(0, nx, schema.SHARD)
    ]


def run(
    experiment: Experiment, workspace: Workspace, progress: Progress, overwrite: bool = False
) -> None:
    """Write the maps; one task per arm and column of 256 x 256 cells.

    Raises:
      SoilweaveError: the models do not fit the cube, or a value does not fit into the maps.
    """
    artefact = workspace.artefact("maps")
    _, digest = models.source(experiment, workspace)
    cube_url, cube_digest = Cube.source(experiment, workspace)
    inputs = schema.identity(experiment, "maps", cube=cube_digest, models=digest)
    todo = every(experiment)
    blocks = schema.block_range(experiment.period)
    progress.start("predict", len(todo) * len(blocks), "blocks")
    if not artefact.claim(inputs, overwrite, progress):
        progress.finish("maps complete")
        return
    cube = Cube.open(cube_url)
    root, members = models.check_models(experiment, workspace)
    models.check_inputs(root, members, cube.attrs["forcing"], cube.attrs["static"])
    if not artefact.begin(inputs):
        files.remove(workspace.url("state"))
        files.remove(workspace.url(maps_schema.NEXT_PROBES))
    workspace.describe(experiment)
    made_of = {"cube_sha256": cube_digest, "models_sha256": digest}
    space = models.space(root)
    read = _as_read(experiment, workspace)
    sited = [arm for arm, ensemble in members.items() if space and "site" in ensemble[0].heads]
    for arm, ensemble in members.items():
        n_attributes = len(space.mean) if space and arm in sited else 0
        _template(experiment, workspace, arm, ensemble, n_attributes, made_of, read)
    orders = tile_task.MapSpec(experiment.model_dump_json(), workspace.root, cube_url, root)
    receipts = list(mapped(orders, todo, len(blocks), progress))
    shards = shards_of(workspace.url("maps"), receipts)
    shards += write(workspace, root, sited)
    files.remove(workspace.url("maps", "receipts"))
    for arm in experiment.arms:
        zarr_arrays.consolidate(workspace.url("maps", f"{arm}.zarr"))
        zarr_arrays.consolidate(workspace.url("state", f"{arm}.zarr"))
    nodes = Counter(receipt["node"] for receipt in receipts)
    through = str(experiment.period[1])
    artefact.commit(inputs, shards, complete_through=through, nodes=nodes, **read)
    size = sum(shard["size"] for shard in shards) / 1e6
    advice = f"; where the next probes would tell most: {maps_schema.NEXT_PROBES}" if sited else ""
    progress.finish(f"maps of {', '.join(experiment.arms)}, {size:.0f} MB{advice}")


def _as_read(experiment: Experiment, workspace: Workspace) -> Json:
    """Which days of the forcing are preliminary, and how many updates of the cube are seen."""
    made = Cube.manifest(experiment, workspace)
    preliminary = schema.within(made.get("preliminary", []), experiment.period)
    return {"preliminary": preliminary, "cube_updates": len(made.get("updated", []))}


def _template(
    experiment: Experiment,
    workspace: Workspace,
    arm: str,
    ensemble: list[TrainedModel],
    n_attributes: int,
    made_of: Json,
    read: Json,
) -> None:
    """Arrays and attributes of an arm's maps and state; those that are there stay."""
    window = config.window(experiment)
    form, attrs = maps_schema.template(
        experiment, window, arm, len(ensemble), n_attributes > 0, read["preliminary"]
    )
    attrs[""] |= made_of | {"code_commit": artefacts.git_commit()}
    zarr_arrays.create_group(workspace.url("maps", f"{arm}.zarr"), form, attrs)
    blocks = maps_schema.state_blocks(experiment.period)
    units = ensemble[0].network.config.hidden_size
    state = maps_schema.state_template(window, blocks, len(ensemble), units, n_attributes)
    zarr_arrays.create_group(
        workspace.url("state", f"{arm}.zarr"), state, {"": {"arm": arm} | made_of}
    )
