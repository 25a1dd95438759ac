"""Extend the maps of `predict` to the last day of the cube, for the verb `update`.

The maps continue from the saved state before the first block with new or changed forcing. Each tile
is a task, as in `predict`. All tiles are first written to a folder of their own (a pending change),
which then replaces the affected shards of maps/ and state/.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from model.sampling import SPINUP_DAYS
from pipeline import files
from pipeline.cluster import ray_cluster
from pipeline.experiment import config
from pipeline.predict import stage
from pipeline.predict.tile_task import BlockInputs, MapSpec, MapTile, TileWriter
from pipeline.storage import climatology, maps_schema, models, provenance, schema, zarr_arrays
from pipeline.storage.cube import Cube
from pipeline.storage.maps_schema import stored_state_blocks
from pipeline.storage.pending_change import PendingChange

if TYPE_CHECKING:
    from model.checkpoint import TrainedModel
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.predict.tile_task import Fields, TileInputs
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace


UPDATE_LINE = "soilweave, update to"  # in the attribute `history`
UPDATED_STATE = ("block", "hidden", "cell")  # arrays of the state that an update changes


def run(
    experiment: Experiment,
    workspace: Workspace,
    progress: Progress,
    urls: tuple[str, str],
    through: date | None,
) -> list[str]:
    """Map the days that the cube has and the maps lack, and those after a change of forcing.

    Args:
      experiment: The experiment that was run.
      workspace: The experiment's folder in the workspace.
      progress: Receives the number of blocks done.
      urls: URLs of the cube and of the models.
      through: The last day; None for the last day of the cube.

    Returns:
      Notes on what was done, for the user.

    Raises:
      StoreError: If a tile cannot be mapped.
    """
    artefact = workspace.artefact("maps")
    pending = PendingChange(artefact, workspace.url("update", "maps"), workspace.root)
    if pending.ready() is not None:
        _apply_change(experiment, workspace, urls[1], pending)
    manifest = artefact.manifest() or {}
    cube = Cube.manifest(experiment, workspace)
    change = _plan_change(experiment, workspace, manifest, cube, through)
    if change is None:
        return [f"nothing new, maps reach {manifest['complete_through']}"]
    workspace.lease.take(progress.note)
    pending.begin(change)
    receipts = _map_tiles(experiment, pending, urls, change, progress) if change["changed"] else []
    shards = stage.collect_shards(workspace.url("maps"), receipts)
    change["steps"] = max((receipt["steps"] for receipt in receipts), default=0)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    pending.seal(change | {"shards": shards, "made": now, "git_commit": provenance.code_commit()})
    _apply_change(experiment, workspace, urls[1], pending)
    return _describe_change(manifest, change)


def _plan_change(
    experiment: Experiment,
    workspace: Workspace,
    manifest: Json,
    cube: Json,
    through: date | None,
) -> Json | None:
    """Plan the change: its days and the state to continue from; None if there is nothing to do."""
    done = date.fromisoformat(manifest["complete_through"])
    reached = date.fromisoformat(cube["complete_through"])
    last_day = max(done, min(reached, through or reached))
    updates = cube.get("updated", [])
    seen = manifest.get("cube_updates", 0)
    revised_days = {day for update in updates[seen:] for day in update["revised"]}
    # A shared cube may have begun earlier, with days that these maps were not made from.
    revised = sorted(day for day in revised_days if str(experiment.period[0]) <= day <= str(done))
    spans = schema.clip_spans(cube.get("preliminary", []), (experiment.period[0], last_day))
    days = [*revised[:1], *([str(done + timedelta(1))] if last_day > done else [])]
    if not days and spans == manifest.get("preliminary", []):
        return None
    stored = stored_state_blocks(experiment, workspace)
    common = sorted(set.intersection(*map(set, stored.values())))
    change: Json = {"through": str(last_day), "revised": revised, "preliminary": spans}
    change |= {"cube_updates": len(updates), "changed": days[0] if days else None}
    if days:
        block = schema.block_of_day(experiment.period, date.fromisoformat(days[0]))
        begin = max((b for b in common if b <= block), default=common[0])
        state_blocks = maps_schema.state_blocks((experiment.period[0], last_day))
        slots = {
            arm: maps_schema.assign_positions(blocks, state_blocks)
            for arm, blocks in stored.items()
        }
        change |= {"begin": begin, "slots": slots}
    return change


def _map_tiles(
    experiment: Experiment,
    pending: PendingChange,
    urls: tuple[str, str],
    change: Json,
    progress: Progress,
) -> list[Json]:
    """Map every tile into the folder of the pending change; return the receipts."""
    for arm, maps_form, state_form in _changed_arrays(experiment, pending.place, urls[1], change):
        for kind, form in (("maps", maps_form), ("state", state_form)):
            url, old = (
                files.join(root, kind, f"{arm}.zarr") for root in (pending.folder, pending.place)
            )
            zarr_arrays.create_group(url, form, {}, like=old)
    last = date.fromisoformat(change["through"])
    n_blocks = schema.block_range((experiment.period[0], last)).stop - change["begin"]
    tiles = stage.all_tiles(experiment)
    progress.start("update", len(tiles) * n_blocks, "blocks of maps")
    spec = ResumeSpec(
        experiment.model_dump_json(),
        pending.folder,
        *urls,
        before=pending.place,
        through=change["through"],
        begin=change["begin"],
        changed=change["changed"],
        slots=tuple((arm, tuple(blocks)) for arm, blocks in change["slots"].items()),
    )
    return list(stage.map_tiles(spec, tiles, n_blocks, progress, ResumeTile))


def _changed_arrays(
    experiment: Experiment, place: str, root: str, change: Json
) -> list[tuple[str, list[schema.ArraySpec], list[schema.ArraySpec]]]:
    """Return the arrays of the maps and of the state in a folder that change, by arm."""
    period = (experiment.period[0], date.fromisoformat(change["through"]))
    reference = experiment.reference_period or experiment.period
    extended = experiment.model_copy(update={"period": period, "reference_period": reference})
    window = config.experiment_window(experiment)
    forms: list[tuple[str, list[schema.ArraySpec], list[schema.ArraySpec]]] = []
    for arm in experiment.arms:
        members = models.load_ensemble(root, arm)
        form, _ = maps_schema.maps_template(
            extended, window, arm, len(members), False, change["preliminary"]
        )
        slots = change.get("slots", {}).get(arm, [])
        units = members[0].network.config.hidden_size
        state = maps_schema.state_template(window, slots, len(members), units) if slots else []
        timed = [array for array in form if "time" in array.dims]
        if climatology.stored_reference(files.join(place, "maps", f"{arm}.zarr")) is None:
            without = climatology.layer_names(experiment.target)  # older maps stay as they are
            timed = [array for array in timed if not array.path.endswith(without)]
        forms.append((arm, timed, [array for array in state if array.path in UPDATED_STATE]))
    return forms


def _apply_change(
    experiment: Experiment, workspace: Workspace, root: str, pending: PendingChange
) -> None:
    """Move a complete pending change into maps and state."""
    change = pending.ready()
    assert change is not None
    pending.put(change["shards"])
    period = (experiment.period[0], date.fromisoformat(change["through"]))
    for arm, maps_form, state_form in _changed_arrays(experiment, workspace.root, root, change):
        url, state_url = (workspace.url(kind, f"{arm}.zarr") for kind in ("maps", "state"))
        attrs = maps_schema.coverage_attributes(period) | {"date_modified": change["made"]}
        # All updates are in the manifest; the attribute would grow from day to day.
        history = str(zarr_arrays.read_attributes(url).get("history", "")).splitlines()
        kept = [line for line in history if UPDATE_LINE not in line]
        last = f"{change['made']}: {UPDATE_LINE} {change['through']}"
        attrs["history"] = "\n".join([*kept, last])
        zarr_arrays.extend_group(url, maps_form, {"": attrs, "series": attrs})
        zarr_arrays.consolidate(url)
        if state_form:
            zarr_arrays.extend_group(state_url, state_form, {})
            zarr_arrays.consolidate(state_url)
    manifest = pending.artefact.manifest() or {}
    keys = ("through", "made", "git_commit", "revised", "changed", "begin", "steps")
    update = {key: change[key] for key in keys if key in change}
    pending.artefact.amend(
        change["shards"],
        complete_through=change["through"],
        preliminary=change["preliminary"],
        cube_updates=change["cube_updates"],
        updated=[*manifest.get("updated", []), update],
    )
    pending.drop()


def _describe_change(manifest: Json, change: Json) -> list[str]:
    """Return notes on what was done, for the user."""
    before, last = manifest["complete_through"], change["through"]
    notes = [f"maps reach {last}, before {before}" if last != before else f"maps reach {last}"]
    if revised := change["revised"]:
        notes.append(f"forcing has changed on {', '.join(revised)}, maps from {revised[0]} on")
    if change["changed"] is None:
        notes.append("input_status alone has changed")
    return notes


@dataclass(frozen=True)
class ResumeSpec(MapSpec):
    """What every task needs to continue a tile; `root` is the folder of the pending change.

    Attributes:
      before: URL of the workspace whose maps and state are continued.
      through: The last day, as text.
      begin: Number of the block that is computed first, from the state before it.
      changed: The first day with new or changed forcing, as text.
      slots: By arm, the block of each slot of the state.
    """

    before: str = ""
    through: str = ""
    begin: int = 0
    changed: str = ""
    slots: tuple[tuple[str, tuple[int, ...]], ...] = ()


class ResumeTile(MapTile):
    """Maps tiles from a saved state: writes the blocks after it and the series that hold them."""

    spec: ResumeSpec

    def __init__(self, spec: ResumeSpec) -> None:
        """Open the cube up to the last day."""
        super().__init__(spec)
        self.cube = self.cube.until(date.fromisoformat(spec.through))

    def write_tile(self, arm: str, tile: TileInputs, members: list[TrainedModel]) -> Json:
        """Write the blocks of one tile that are new or have changed.

        Returns:
          `shards` and `steps`, as `MapTile.write_tile`.
        """
        writing = _ResumedTileWriter(self, arm, tile, members)
        return {"shards": writing.write(), "steps": writing.steps}


class _ResumedTileWriter(TileWriter):
    """Predicts one tile from a saved state, block by block, and writes its maps and its state."""

    def __init__(
        self, task: ResumeTile, arm: str, tile: TileInputs, members: list[TrainedModel]
    ) -> None:
        """Prepare to continue a tile; nothing is read yet."""
        super().__init__(task, arm, tile, members)
        spec = task.spec
        self.begin = spec.begin
        self.old_maps = files.join(spec.before, "maps", f"{arm}.zarr")
        self.old_state = files.join(spec.before, "state", f"{arm}.zarr")
        self.state_blocks = [*dict(spec.slots)[arm]]
        # Days before the record are the first year of what the maps were begun with.
        first_day, last_day = task.experiment.period
        self.spinup_days = min(SPINUP_DAYS, (last_day - first_day).days + 1)
        self.n_unchanged = (date.fromisoformat(spec.changed) - first_day).days

    def write(self) -> list[Json]:
        """Predict and write the blocks; return the records of the shards."""
        self._restore()
        n_together = maps_schema.SERIES_BLOCKS
        self.write_blocks(self.begin // n_together * n_together)
        self.write_state(self.n_blocks)
        self.write_climatology(max(self.n_unchanged, self.begin * schema.BLOCK_DAYS))
        return self.shards

    def read_block(self, block: int) -> BlockInputs:
        """Read what a block is mapped from; its days before the change are those of the old maps.

        So they stay the same to the last bit, whatever machine computes the update.
        """
        kept = {}
        if block * schema.BLOCK_DAYS < self.n_unchanged:
            kept = self._read_old_block(block)
        if block < self.begin:
            return BlockInputs(np.empty((0, 0, 0), np.float16), np.empty((0, 0), bool), kept)
        return super().read_block(block)._replace(kept=kept)

    def map_block(self, block: int, inputs: BlockInputs) -> Fields:
        """Return the packed fields (day, y, x) of a block, predicted or from the old maps."""
        if block < self.begin:
            return inputs.kept
        if block > self.begin:
            self.write_state(block)
        fields = self.predict_block(block, inputs)
        n_days = self.n_unchanged - block * schema.BLOCK_DAYS
        for name, values in inputs.kept.items():
            fields[name][:n_days] = values[:n_days]
        ray_cluster.report_progress(self.queue, 1)
        return fields

    def write_root(self, block: int, fields: Fields) -> None:
        """Write a block of fields to the root group, if it is new or has changed."""
        if block >= self.begin:
            super().write_root(block, fields)

    def _restore(self) -> None:
        """Restore the saved state of every member."""
        state = zarr_arrays.open_group(self.old_state, "")
        slot = state["block"].values.tolist().index(self.begin)
        before = self.tile.before(self.spinup_days, self.begin * schema.BLOCK_DAYS)
        for member, predictor in enumerate(self.predictors):
            hidden, cell = (
                state[name][slot, member, self.tile.rows, self.tile.cols].values
                for name in ("hidden", "cell")
            )
            levels = [
                state[name][member, self.tile.rows, self.tile.cols].values[self.tile.valid]
                for name in ("site_level", "satellite_level")
            ]
            valid = self.tile.valid
            predictor.restore(before, (hidden[valid], cell[valid]), np.stack(levels))

    def _read_old_block(self, block: int) -> Fields:
        """Return the days of a block that the old maps have: packed fields (day, y, x) by name."""
        start = block * schema.BLOCK_DAYS
        region = [slice(start, start + schema.BLOCK_DAYS), self.tile.rows, self.tile.cols]
        names = (self.target, f"{self.target}_std", "quality_flag")
        return {name: zarr_arrays.read_packed(self.old_maps, name, region) for name in names}
