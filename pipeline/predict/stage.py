"""Stage `predict`: read the cube and the models, write maps/, state/ and next_probes.csv.

Every arm is mapped with the models that leave no site out. A tile of 256 x 256 cells of one arm is
a Ray task. A finished tile leaves a receipt, so an interrupted run continues with the others.

next_probes.csv ranks the places where further probes would help most, for arm multiscale or else
the first arm that learns from sites. Its columns:
  rank: from 1.
  lat, lon: degrees.
  std: root of the mean variance of the predictions there, in the target's unit.
  attribute_distance: distance to the sites in the space of their attributes.
  gain: share of all error variance that is explained beyond the sites and the probes ranked before.
"""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from model import probe_gain
from pipeline import __version__, files
from pipeline.catalog import task_memory
from pipeline.cluster import ray_cluster, resources
from pipeline.errors import StoreError
from pipeline.experiment import config
from pipeline.experiment.config import Experiment, reference_arm
from pipeline.predict import tile_task
from pipeline.storage import (
    artefacts,
    climatology,
    maps_schema,
    models,
    provenance,
    schema,
    zarr_arrays,
)
from pipeline.storage.cube import Cube
from pipeline.storage.maps_schema import NEXT_PROBES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from model.attribute_space import AttributeSpace
    from model.checkpoint import TrainedModel
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace


N_RANKED_PROBES = 15  # probes in the table
MAX_RANKED_CELLS = (
    4000  # cells whose variance is explained and that may be ranked; more are sampled evenly
)
TILES_PER_GPU = 4  # tiles at a time on a GPU, which is faster than one process reads and packs


def run(
    experiment: Experiment, workspace: Workspace, progress: Progress, overwrite: bool = False
) -> None:
    """Map every arm; one task per arm and tile of 256 x 256 cells.

    Raises:
      SoilweaveError: If the models do not fit the cube, or a value does not fit into the maps.
    """
    artefact = workspace.artefact("maps")
    _, models_digest = models.find_models(experiment, workspace)
    cube_url, cube_digest = Cube.source(experiment, workspace)
    inputs = schema.identity(experiment, "maps", cube=cube_digest, models=models_digest)
    tiles = all_tiles(experiment)
    blocks = schema.block_range(experiment.period)
    progress.start("predict", len(tiles) * len(blocks), "blocks")
    if not artefact.claim(inputs, overwrite, progress):
        progress.finish("maps complete")
        return
    cube = Cube.open(cube_url)
    models_root, ensembles = models.load_ensembles(experiment, workspace)
    models.check_inputs(models_root, ensembles, cube.attrs["forcing"], cube.attrs["static"])
    if not artefact.begin(inputs):
        files.remove(workspace.url("state"))
        files.remove(workspace.url(maps_schema.NEXT_PROBES))
    workspace.describe(experiment)
    origin = {"cube_sha256": cube_digest, "models_sha256": models_digest}
    origin |= _describe_origin(experiment, workspace)
    space = models.read_attribute_space(models_root)
    forcing_state = _forcing_state(experiment, workspace)
    site_arms = [
        arm for arm, ensemble in ensembles.items() if space and "site" in ensemble[0].heads
    ]
    for arm, ensemble in ensembles.items():
        own = space if arm in site_arms else None
        _create_arrays(experiment, workspace, arm, ensemble, own, origin, forcing_state)
    spec = tile_task.MapSpec(experiment.model_dump_json(), workspace.root, cube_url, models_root)
    receipts = list(map_tiles(spec, tiles, len(blocks), progress))
    shards = collect_shards(workspace.url("maps"), receipts)
    shards += write_next_probes(workspace, models_root, site_arms)
    files.remove(workspace.url("maps", "receipts"))
    for arm in experiment.arms:
        zarr_arrays.consolidate(workspace.url("maps", f"{arm}.zarr"))
        zarr_arrays.consolidate(workspace.url("state", f"{arm}.zarr"))
    nodes = Counter(receipt["node"] for receipt in receipts)
    last_day = str(experiment.period[1])
    artefact.commit(inputs, shards, complete_through=last_day, nodes=nodes, **forcing_state)
    size = sum(shard["size"] for shard in shards) / 1e6
    advice = f"; best places for further probes: {maps_schema.NEXT_PROBES}" if site_arms else ""
    progress.finish(f"maps of {', '.join(experiment.arms)}, {size:.0f} MB{advice}")


def _forcing_state(experiment: Experiment, workspace: Workspace) -> Json:
    """Return the preliminary days of forcing, and how many updates the cube has had."""
    manifest = Cube.manifest(experiment, workspace)
    preliminary = schema.clip_spans(manifest.get("preliminary", []), experiment.period)
    return {"preliminary": preliminary, "cube_updates": len(manifest.get("updated", []))}


def _create_arrays(
    experiment: Experiment,
    workspace: Workspace,
    arm: str,
    ensemble: list[TrainedModel],
    space: AttributeSpace | None,
    origin: Json,
    forcing_state: Json,
) -> None:
    """Create the arrays and attributes of an arm's maps and state; existing arrays are kept."""
    window = config.experiment_window(experiment)
    n_attributes = len(space.mean) if space else 0
    arrays, attrs = maps_schema.maps_template(
        experiment, window, arm, len(ensemble), n_attributes > 0, forcing_state["preliminary"]
    )
    if space and space.limit is not None:
        distance = next(each for each in arrays if each.path == "attribute_distance")
        distance.attrs["applicability_limit"] = space.limit
    attrs[""] |= origin
    attrs["series"] |= origin
    zarr_arrays.create_group(workspace.url("maps", f"{arm}.zarr"), arrays, attrs)
    blocks = maps_schema.state_blocks(experiment.period)
    units = ensemble[0].network.config.hidden_size
    state_arrays = maps_schema.state_template(window, blocks, len(ensemble), units, n_attributes)
    days = maps_schema.revisable_days(experiment.period, climatology.reference_period(experiment))
    state_arrays += maps_schema.reference_array(window, days)
    digests = {key: origin[key] for key in ("cube_sha256", "models_sha256")}
    zarr_arrays.create_group(
        workspace.url("state", f"{arm}.zarr"), state_arrays, {"": {"arm": arm} | digests}
    )


def _describe_origin(experiment: Experiment, workspace: Workspace) -> Json:
    """Return attributes of the maps that say when and with what they were made."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    inputs = Cube.manifest(experiment, workspace)["inputs"]
    sources = {key: digest for key, digest in inputs.items() if key.startswith("source ")}
    run = (files.read_json(workspace.url("mlflow.json")) or {}).get("parent")
    return {
        "date_created": now,
        "history": f"{now}: soilweave {__version__}, predict",
        "soilweave_version": __version__,
        "code_commit": provenance.code_commit(),
        "sources_sha256": files.sha256_of_json(sources),
        "mlflow_run": run or "not recorded",
    }


def all_tiles(experiment: Experiment) -> list[Json]:
    """Return the tiles of every arm, each by its upper left cell."""
    ny, nx = config.experiment_window(experiment).cell_shape
    return [
        {"arm": arm, "row": row, "col": col}
        for arm in experiment.arms
        for row in range(0, ny, schema.SHARD)
        for col in range(0, nx, schema.SHARD)
    ]


def map_tiles(
    spec: tile_task.MapSpec,
    tiles: list[Json],
    n_blocks: int,
    progress: Progress,
    task: type[tile_task.MapTile] = tile_task.MapTile,
) -> Iterator[Json]:
    """Map tiles and yield their receipts, those of an interrupted run first.

    Args:
      spec: What every task needs; the queue is added here.
      tiles: Tiles of every arm, as `every` returns them.
      n_blocks: Number of blocks of each tile.
      progress: Receives the number of blocks done.
      task: The class that maps a tile.
    """
    finished, unfinished = ray_cluster.split_by_receipt(tiles, partial(_read_receipt, spec.root))
    for _, receipt in finished:
        progress.advance(n_blocks)
        yield receipt
    if not unfinished:
        return
    experiment = Experiment.model_validate_json(spec.experiment_json)
    n_forcing = len(Cube.open(spec.cube).attrs["forcing"])
    memory = task_memory.predict_task_mb(experiment, n_forcing) * 1e6
    with ray_cluster.connected(), ray_cluster.progress_queue(progress) as reported:
        workers = resources.wait_for_workers(experiment.compute, progress)
        spec = replace(spec, run=uuid.uuid4().hex, queue=reported.queue)
        options: dict[str, Any] = {
            "memory": memory,
            "cpus": 1 if workers.on_gpus else experiment.compute.cpus_per_worker,
            "gpus": 1 / TILES_PER_GPU if workers.on_gpus else 0,
        }
        map_tile = partial(tile_task.map_tile, task=task, spec=spec)
        try:
            for _, receipt in ray_cluster.run_tasks(unfinished, map_tile, **options):
                yield receipt
        except StoreError as error:  # all other tiles would fail too
            yield {"problems": [str(error)]}


def _read_receipt(root: str, tile: Json) -> Json | None:
    """Return the receipt that an interrupted run left for a tile, or None."""
    name = tile_task.receipt_name(**tile)
    return files.read_receipt(files.join(root, "maps", "receipts", name), "shards")


def collect_shards(url: str, receipts: list[Json]) -> list[Json]:
    """Return the records of all shards that tiles have written.

    Args:
      url: URL of the maps, for the message.
      receipts: The receipts of the tiles.

    Raises:
      StoreError: If a tile could not be mapped; it lists every problem.
    """
    if problems := sorted({line for receipt in receipts for line in receipt["problems"]}):
        hint = "fix these and run again; finished tiles are kept"
        raise StoreError(url, *problems, remedy=hint)
    return [shard for receipt in receipts for shard in receipt["shards"]]


def write_next_probes(workspace: Workspace, models_root: str, arms: Sequence[str]) -> list[Json]:
    """Write the layer `probe_gain` of each arm and the table of next probes; return their records.

    Args:
      workspace: The experiment's folder in the workspace, with complete maps of these arms.
      models_root: URL of the models.
      arms: The arms that learn from sites.
    """
    space = models.read_attribute_space(models_root)
    if space is None or not arms:
        return []
    records: list[Json] = []
    table_arm = reference_arm(arms)
    for arm in arms:
        layer, table = _rank_probes(workspace, arm, space.unit)
        url, region = workspace.url("maps", f"{arm}.zarr"), [slice(0, n) for n in layer.shape]
        shards = zarr_arrays.write_shards(url, "probe_gain", region, layer)
        records += [record | {"key": f"maps/{arm}.zarr/{record['key']}"} for record in shards]
        if arm == table_arm:
            text = table.to_csv(index=False, float_format="%.6f")
            files.write_bytes(workspace.url(NEXT_PROBES), text.encode())
    return [*records, artefacts.shard_record(workspace.root, NEXT_PROBES)]


def _rank_probes(
    workspace: Workspace, arm: str, unit: float
) -> tuple[NDArray[np.float32], pd.DataFrame]:
    """Return the gain of a probe in every cell (y, x), and the table of next probes."""
    maps = zarr_arrays.open_group(workspace.url("maps", f"{arm}.zarr"), "")
    state = zarr_arrays.open_group(workspace.url("state", f"{arm}.zarr"), "")
    attributes, variance = state["attributes"].values, state["mean_variance"].values
    valid = np.isfinite(attributes).all(0)
    places, distance = attributes[:, valid].T, maps["attribute_distance"].values[valid]
    sampled = slice(None, None, max(1, -(-len(places) // MAX_RANKED_CELLS)))
    weight = probe_gain.variance_shares(variance[valid][sampled])
    layer = np.full(valid.shape, np.nan, np.float32)
    layer[valid] = probe_gain.probe_gains(places, places[sampled], weight, distance[sampled], unit)
    index, gain = probe_gain.rank_probes(
        places[sampled], weight, distance[sampled], unit, N_RANKED_PROBES
    )
    y, x = (rows[sampled][index] for rows in np.nonzero(valid))
    table = pd.DataFrame(
        {
            "rank": np.arange(1, len(index) + 1),
            "lat": maps["lat"].values[y, x],
            "lon": maps["lon"].values[y, x],
            "std": np.sqrt(variance[y, x]),
            "attribute_distance": distance[sampled][index],
            "gain": gain,
        }
    )
    return layer, table
