"""Make damaged shards of the maps and of their state again, for `verify --repair`.

A tile with a damaged shard is mapped again from its first day, because the state in between is not
kept. All of its shards are written again, with the same values to the last bit on the same kind of
machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.predict import stage
from pipeline.predict.tile_task import MapSpec, MapTile, TileInputs, TileWriter
from pipeline.storage import earlier_versions, maps_schema, models, schema
from pipeline.storage.cube import Cube

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from model.checkpoint import TrainedModel
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace


WALKED = ("hidden", "cell")  # arrays of the state with dimensions (block, member, y, x, unit)


def repair(
    experiment: Experiment, workspace: Workspace, progress: Progress, keys: Sequence[str]
) -> None:
    """Make shards of complete maps again.

    Args:
      experiment: The experiment that was run.
      workspace: Its folder; the metadata of the stores must be intact.
      progress: Receives the number of blocks done.
      keys: Keys of the damaged objects in the folder.

    Raises:
      SoilweaveError: If cube or models cannot be read, or a tile cannot be mapped.
    """
    manifest = workspace.artefact("maps").manifest() or {}
    hint = "make other maps with: soilweave predict --overwrite"
    what = "their shards cannot be made again"
    earlier_versions.check_same_blocks(workspace.url("maps"), manifest, what, hint)
    cube_url, _ = Cube.source(experiment, workspace)
    models_root, members = models.load_ensembles(experiment, workspace)
    tiles = damaged_tiles(keys)
    through = date.fromisoformat(manifest["complete_through"])
    n_blocks = len(schema.block_range((experiment.period[0], through)))
    stored = maps_schema.stored_state_blocks(experiment, workspace)
    spec = RepairSpec(
        experiment.model_dump_json(),
        workspace.root,
        cube_url,
        models_root,
        through=str(through),
        slots=tuple((arm, tuple(blocks)) for arm, blocks in stored.items()),
    )
    progress.start("predict", len(tiles) * n_blocks, "blocks")
    for key in keys:  # only now, since parts of a damaged shard can still be read
        files.remove(workspace.url(key))
    files.remove(workspace.url("maps", "receipts"))
    receipts = list(stage.map_tiles(spec, tiles, n_blocks, progress, RepairTile))
    stage.collect_shards(workspace.url("maps"), receipts)
    files.remove(workspace.url("maps", "receipts"))
    space = models.read_attribute_space(models_root)
    site_arms = [arm for arm, each in members.items() if space and "site" in each[0].heads]
    stage.write_next_probes(workspace, models_root, site_arms)
    progress.finish(f"{len(tiles)} tiles of maps made again")


def damaged_tiles(keys: Iterable[str]) -> list[Json]:
    """Return the tiles that have shards among some keys, each by its arm and upper left cell.

    Keys that are no shards of a tile are ignored; `next_probes.csv` and the layers `probe_gain`
    are made from all tiles, and are written anew in any case.
    """
    tiles = set()
    for key in keys:
        path, found, index = key.partition("/c/")
        parts = path.split("/")
        if not found or parts[0] not in ("maps", "state") or parts[-1] == "probe_gain":
            continue
        numbers = [int(number) for number in index.split("/")]
        row, col = numbers[2:4] if parts[-1] in WALKED else numbers[-2:]
        tiles.add((parts[1].removesuffix(".zarr"), row * schema.SHARD, col * schema.SHARD))
    return [{"arm": arm, "row": row, "col": col} for arm, row, col in sorted(tiles)]


@dataclass(frozen=True)
class RepairSpec(MapSpec):
    """What every task needs to make a tile again.

    Attributes:
      through: The last day of the maps, as text.
      slots: By arm, the block of each slot of the state.
    """

    through: str = ""
    slots: tuple[tuple[str, tuple[int, ...]], ...] = ()


class RepairTile(MapTile):
    """Maps tiles from the first day to the last day that updates have added."""

    spec: RepairSpec

    def __init__(self, spec: RepairSpec) -> None:
        """Open the cube up to the last day of the maps."""
        super().__init__(spec)
        self.n_days_before_updates = len(self.cube.days)
        self.cube = self.cube.until(date.fromisoformat(spec.through))

    def write_tile(self, arm: str, tile: TileInputs, members: list[TrainedModel]) -> Json:
        """Write all shards of one tile; returns as `MapTile.write_tile`."""
        writing = TileWriter(self, arm, tile, members)
        writing.state_blocks = [*dict(self.spec.slots)[arm]]
        writing.described_days = self.n_days_before_updates
        writing.old_state = writing.state_url  # it has the reference as first mapped
        return {"shards": writing.write(), "steps": writing.steps}
