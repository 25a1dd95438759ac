"""Map every arm with the models of all sites: cube.zarr, models/ -> maps/, state/."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pipeline import (
    arrays,
    columns,
    files,
    mapper,
    maps,
    models,
    precheck,
    schema,
    siting,
    status,
    store,
)
from pipeline.cube import Cube

if TYPE_CHECKING:
    from model.checkpoint import Trained
    from pipeline.config import Experiment
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.store import Workspace


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
    todo = columns.every(experiment)
    blocks = schema.block_range(experiment.period)
    progress.start("predict", len(todo) * len(blocks), "blocks")
    if not artefact.claim(inputs, overwrite, progress):
        progress.finish("maps complete")
        return
    cube = Cube.open(cube_url)
    root, members = precheck.of_models(experiment, workspace)
    precheck.of_inputs(root, members, cube.attrs["forcing"], cube.attrs["static"])
    if not artefact.begin(inputs):
        files.remove(workspace.url("state"))
        files.remove(workspace.url(maps.NEXT_PROBES))
    workspace.describe(experiment)
    made_of = {"cube_sha256": cube_digest, "models_sha256": digest}
    space = models.space(root)
    read = _as_read(experiment, workspace)
    sited = [arm for arm, ensemble in members.items() if space and "site" in ensemble[0].heads]
    for arm, ensemble in members.items():
        n_attributes = len(space.mean) if space and arm in sited else 0
        _template(experiment, workspace, arm, ensemble, n_attributes, made_of, read)
    orders = mapper.Orders(experiment.model_dump_json(), workspace.root, cube_url, root)
    receipts = list(columns.mapped(orders, todo, len(blocks), progress))
    shards = columns.shards_of(workspace.url("maps"), receipts)
    shards += siting.write(workspace, root, sited)
    files.remove(workspace.url("maps", "receipts"))
    for arm in experiment.arms:
        arrays.consolidate(workspace.url("maps", f"{arm}.zarr"))
        arrays.consolidate(workspace.url("state", f"{arm}.zarr"))
    nodes = Counter(receipt["node"] for receipt in receipts)
    through = str(experiment.period[1])
    artefact.commit(inputs, shards, complete_through=through, nodes=nodes, **read)
    size = sum(shard["size"] for shard in shards) / 1e6
    advice = f"; where the next probes would tell most: {maps.NEXT_PROBES}" if sited else ""
    progress.finish(f"maps of {', '.join(experiment.arms)}, {size:.0f} MB{advice}")


def _as_read(experiment: Experiment, workspace: Workspace) -> Json:
    """Which days of the forcing are preliminary, and how many updates of the cube are seen."""
    made = Cube.manifest(experiment, workspace)
    preliminary = status.within(made.get("preliminary", []), experiment.period)
    return {"preliminary": preliminary, "cube_updates": len(made.get("updated", []))}


def _template(
    experiment: Experiment,
    workspace: Workspace,
    arm: str,
    ensemble: list[Trained],
    n_attributes: int,
    made_of: Json,
    read: Json,
) -> None:
    """Arrays and attributes of an arm's maps and state; those that are there stay."""
    window = schema.window(experiment)
    form, attrs = maps.template(
        experiment, window, arm, len(ensemble), n_attributes > 0, read["preliminary"]
    )
    attrs[""] |= made_of | {"code_commit": store.git_commit()}
    arrays.create_group(workspace.url("maps", f"{arm}.zarr"), form, attrs)
    blocks = maps.state_blocks(experiment.period)
    units = ensemble[0].network.config.hidden_size
    state = maps.state_template(window, blocks, len(ensemble), units, n_attributes)
    arrays.create_group(workspace.url("state", f"{arm}.zarr"), state, {"": {"arm": arm} | made_of})
