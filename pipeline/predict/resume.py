"""One column of an arm's maps, gone on with from its state: the task of the verb update.

The maps brought as far as the cube's cells reach, from a state before what has changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from model.sampling import SPINUP_DAYS
from pipeline import files
from pipeline.cluster import ray_cluster
from pipeline.experiment import config
from pipeline.predict import stage
from pipeline.predict.tile_task import MapSpec, MapTile, Writing
from pipeline.storage import artefacts, maps_schema, models, schema, zarr_arrays
from pipeline.storage.cube import Cube
from pipeline.storage.maps_schema import _held
from pipeline.storage.pending_change import PendingChange

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.checkpoint import TrainedModel
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.predict.tile_task import TileInputs
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace


@dataclass(frozen=True)
class ResumeSpec(MapSpec):
    """What a task is told; `root` is a folder aside, in the form of a workspace.

    Attributes:
      before: the workspace whose maps and state are gone on from.
      through: the last day.
      begin: number of the block whose state is the start.
      changed: the first day that is not as before.
      slots: by arm, the block that each place of the state is for.
    """

    before: str = ""
    through: str = ""
    begin: int = 0
    changed: str = ""
    slots: tuple[tuple[str, tuple[int, ...]], ...] = ()


class ResumeTile(MapTile):
    """Maps one column: writes the blocks from the state's on, and the series that hold them."""

    orders: ResumeSpec

    def __init__(self, orders: ResumeSpec) -> None:
        """Open the cube as far as it is wanted."""
        super().__init__(orders)
        self.cube = self.cube.until(date.fromisoformat(orders.through))

    def written(self, arm: str, column: TileInputs, members: list[TrainedModel]) -> Json:
        """`shards` and `steps`, as of `MapColumn`."""
        writing = _ResumedTile(self, arm, column, members)
        return {"shards": writing.write(), "steps": writing.steps}


class _ResumedTile(Writing):
    """The walk of one column from a state on."""

    def __init__(
        self, task: ResumeTile, arm: str, column: TileInputs, members: list[TrainedModel]
    ) -> None:
        super().__init__(task, arm, column, members)
        orders = task.orders
        self.begin = orders.begin - self.first_block
        self.old_maps = files.join(orders.before, "maps", f"{arm}.zarr")
        self.old_state = files.join(orders.before, "state", f"{arm}.zarr")
        self.kept = [*dict(orders.slots)[arm]]
        # Days before the record are the first year of what the maps were begun with.
        first, last = task.experiment.period
        self.year = min(SPINUP_DAYS, (last - first).days + 1)
        changed = schema.epoch_day(date.fromisoformat(orders.changed))
        self.unchanged = changed - self.first_block * schema.BLOCK_DAYS  # days of the axis

    def write(self) -> list[Json]:
        """Records of every shard that is written."""
        self._restore()
        length = maps_schema.SERIES_BLOCKS
        for first in range(self.begin // length * length, self.blocks, length):
            together = range(first, min(first + length, self.blocks))
            self.put_series(first, [self._next(block) for block in together])
        self.put_state(self.blocks)
        return self.shards

    def _next(self, block: int) -> dict[str, NDArray[Any]]:
        """A block as the maps shall have it; (day, y, x) packed, by name."""
        if block < self.begin:
            return self._stored(block)
        if block > self.begin:
            self.put_state(block)
        made = self._as_before(block, self.block(block, self.read(block)))
        self.put_root(block, made)
        ray_cluster.report_progress(self.queue, 1)
        return made

    def _restore(self) -> None:
        """Let every member's walk stand before the first block."""
        state = zarr_arrays.open_group(self.old_state, "")
        place = state["block"].values.tolist().index(self.first_block + self.begin)
        day = max(0, self.begin * schema.BLOCK_DAYS - self.first)
        before = self.column.before(self.year, day)
        for member, walk in enumerate(self.walks):
            hidden, cell = (
                state[name][place, member, self.column.rows, self.column.cols].values
                for name in ("hidden", "cell")
            )
            levels = [
                state[name][member, self.column.rows, self.column.cols].values[self.column.valid]
                for name in ("site_level", "satellite_level")
            ]
            valid = self.column.valid
            walk.restore(before, (hidden[valid], cell[valid]), np.stack(levels))

    def _as_before(self, block: int, made: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """A block with its unchanged days as they were, to the last bit on any machine."""
        n_days = self.unchanged - block * schema.BLOCK_DAYS
        if n_days > 0:
            for name, values in self._stored(block).items():
                made[name][:n_days] = values[:n_days]
        return made

    def _stored(self, block: int) -> dict[str, NDArray[Any]]:
        """A block as the maps have it; (day, y, x) packed, by name."""
        start = block * schema.BLOCK_DAYS
        region = [slice(start, start + schema.BLOCK_DAYS), self.column.rows, self.column.cols]
        names = (self.target, f"{self.target}_std", "quality_flag")
        return {name: zarr_arrays.packed(self.old_maps, name, region) for name in names}


STATE = ("block", "hidden", "cell")


def run(
    experiment: Experiment,
    workspace: Workspace,
    progress: Progress,
    reads: tuple[str, str],
    through: date | None,
) -> list[str]:
    """Map the days that the cube has and the maps lack, and those after a change of forcing.

    Args:
      experiment: that was run.
      workspace: of it.
      progress: is told.
      reads: where the cube and the models lie.
      through: the last day, None for as far as the cube reaches.

    Returns:
      What to tell.

    Raises:
      StoreError: a column cannot be mapped.
    """
    artefact = workspace.artefact("maps")
    aside = PendingChange(artefact, workspace.url("update", "maps"), workspace.root)
    if aside.ready() is not None:
        _put(experiment, workspace, reads[1], aside)
    manifest = artefact.manifest() or {}
    cube = Cube.manifest(experiment, workspace)
    change = _wanted(experiment, workspace, manifest, cube, through)
    if change is None:
        return [f"nothing new, maps reach {manifest['complete_through']}"]
    workspace.lease.take(progress.note)
    aside.begin(change)
    receipts = _mapped(experiment, aside, reads, change, progress) if change["changed"] else []
    shards = stage.shards_of(workspace.url("maps"), receipts)
    change["steps"] = max((receipt["steps"] for receipt in receipts), default=0)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    aside.seal(change | {"shards": shards, "made": now, "git_commit": artefacts.git_commit()})
    _put(experiment, workspace, reads[1], aside)
    return _told(manifest, change)


def _wanted(
    experiment: Experiment,
    workspace: Workspace,
    manifest: Json,
    cube: Json,
    through: date | None,
) -> Json | None:
    """What is to change: days, from which state on; None where nothing is."""
    done = date.fromisoformat(manifest["complete_through"])
    reached = date.fromisoformat(cube["complete_through"])
    last = max(done, min(reached, through or reached))
    updates = cube.get("updated", [])
    seen = manifest.get("cube_updates", 0)
    later = {day for update in updates[seen:] for day in update["revised"]}
    revised = sorted(day for day in later if day <= str(done))
    spans = schema.within(cube.get("preliminary", []), (experiment.period[0], last))
    days = [*revised[:1], *([str(done + timedelta(1))] if last > done else [])]
    if not days and spans == manifest.get("preliminary", []):
        return None
    held = _held(experiment, workspace)
    common = sorted(set.intersection(*map(set, held.values())))
    change: Json = {"through": str(last), "revised": revised, "preliminary": spans}
    change |= {"cube_updates": len(updates), "changed": days[0] if days else None}
    if days:
        block = schema.epoch_day(date.fromisoformat(days[0])) // schema.BLOCK_DAYS
        begin = max((b for b in common if b <= block), default=common[0])
        wanted = maps_schema.state_blocks((experiment.period[0], last))
        placed = {arm: maps_schema.slots(blocks, wanted) for arm, blocks in held.items()}
        change |= {"begin": begin, "slots": placed}
    return change


def _mapped(
    experiment: Experiment,
    aside: PendingChange,
    reads: tuple[str, str],
    change: Json,
    progress: Progress,
) -> list[Json]:
    """Go on with every column, into the folder aside; their receipts."""
    for arm, maps_form, state_form in _forms(experiment, reads[1], change):
        zarr_arrays.create_group(files.join(aside.folder, "maps", f"{arm}.zarr"), maps_form, {})
        zarr_arrays.create_group(files.join(aside.folder, "state", f"{arm}.zarr"), state_form, {})
    last = date.fromisoformat(change["through"])
    n_blocks = schema.block_range((experiment.period[0], last)).stop - change["begin"]
    todo = stage.every(experiment)
    progress.start("update", len(todo) * n_blocks, "blocks of maps")
    orders = ResumeSpec(
        experiment.model_dump_json(),
        aside.folder,
        *reads,
        before=aside.place,
        through=change["through"],
        begin=change["begin"],
        changed=change["changed"],
        slots=tuple((arm, tuple(blocks)) for arm, blocks in change["slots"].items()),
    )
    return list(stage.mapped(orders, todo, n_blocks, progress, ResumeTile))


def _forms(
    experiment: Experiment, root: str, change: Json
) -> list[tuple[str, list[schema.Array], list[schema.Array]]]:
    """By arm, the arrays of the maps and of the state that change."""
    period = (experiment.period[0], date.fromisoformat(change["through"]))
    longer, window = experiment.model_copy(update={"period": period}), config.window(experiment)
    made: list[tuple[str, list[schema.Array], list[schema.Array]]] = []
    for arm in experiment.arms:
        members = models.ensemble(root, arm)
        form, _ = maps_schema.template(
            longer, window, arm, len(members), False, change["preliminary"]
        )
        slots = change.get("slots", {}).get(arm, [])
        units = members[0].network.config.hidden_size
        state = maps_schema.state_template(window, slots, len(members), units) if slots else []
        timed = [array for array in form if "time" in array.dims]
        made.append((arm, timed, [array for array in state if array.path in STATE]))
    return made


def _put(experiment: Experiment, workspace: Workspace, root: str, aside: PendingChange) -> None:
    """Put a change that is ready into maps and state."""
    change = aside.ready()
    assert change is not None
    aside.put(change["shards"])
    period = [str(experiment.period[0]), change["through"]]
    attrs = {"period": period, "time_coverage_end": period[1]}
    for arm, maps_form, state_form in _forms(experiment, root, change):
        url, state_url = (workspace.url(kind, f"{arm}.zarr") for kind in ("maps", "state"))
        zarr_arrays.extend_group(url, maps_form, {"": attrs, "series": attrs})
        zarr_arrays.consolidate(url)
        if state_form:
            zarr_arrays.extend_group(state_url, state_form, {})
            zarr_arrays.consolidate(state_url)
    manifest = aside.artefact.manifest() or {}
    told = ("through", "made", "git_commit", "revised", "changed", "begin", "steps")
    update = {key: change[key] for key in told if key in change}
    aside.artefact.amend(
        change["shards"],
        complete_through=change["through"],
        preliminary=change["preliminary"],
        cube_updates=change["cube_updates"],
        updated=[*manifest.get("updated", []), update],
    )
    aside.drop()


def _told(manifest: Json, change: Json) -> list[str]:
    before, last = manifest["complete_through"], change["through"]
    told = [f"maps reach {last}, before {before}" if last != before else f"maps reach {last}"]
    if revised := change["revised"]:
        told.append(f"forcing has changed on {', '.join(revised)}, maps from {revised[0]} on")
    if change["changed"] is None:
        told.append("input_status alone has changed")
    return told
