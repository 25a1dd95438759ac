"""The maps brought as far as the cube's cells reach, from a state before what has changed."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from pipeline import arrays, columns, files, maps, models, schema, status, store
from pipeline.aside import Aside
from pipeline.cube import Cube
from pipeline.errors import StoreError
from pipeline.update.onward import GoOn, Onward

if TYPE_CHECKING:
    from pipeline.config import Experiment
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.store import Workspace

STATE = ("block", "hidden", "cell")


def oldest_state(experiment: Experiment, workspace: Workspace) -> int:
    """Number of the oldest block that every arm has a state for."""
    return max(min(held) for held in _held(experiment, workspace).values())


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
    aside = Aside(artefact, workspace.url("update", "maps"), workspace.root)
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
    shards = columns.shards_of(workspace.url("maps"), receipts)
    change["steps"] = max((receipt["steps"] for receipt in receipts), default=0)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    aside.seal(change | {"shards": shards, "made": now, "git_commit": store.git_commit()})
    _put(experiment, workspace, reads[1], aside)
    return _told(manifest, change)


def _held(experiment: Experiment, workspace: Workspace) -> dict[str, list[int]]:
    """By arm, the blocks whose state is kept, as they lie."""
    found: dict[str, list[int]] = {}
    for arm in experiment.arms:
        url = workspace.url("state", f"{arm}.zarr")
        if not arrays.attributes(url):
            remedy = "make it anew with: soilweave predict --overwrite"
            raise StoreError(url, "no state to go on from", remedy=remedy)
        found[arm] = [int(block) for block in arrays.open_group(url, "")["block"].values]
    return found


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
    spans = status.within(cube.get("preliminary", []), (experiment.period[0], last))
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
        wanted = maps.state_blocks((experiment.period[0], last))
        placed = {arm: maps.slots(blocks, wanted) for arm, blocks in held.items()}
        change |= {"begin": begin, "slots": placed}
    return change


def _mapped(
    experiment: Experiment,
    aside: Aside,
    reads: tuple[str, str],
    change: Json,
    progress: Progress,
) -> list[Json]:
    """Go on with every column, into the folder aside; their receipts."""
    for arm, maps_form, state_form in _forms(experiment, reads[1], change):
        arrays.create_group(files.join(aside.folder, "maps", f"{arm}.zarr"), maps_form, {})
        arrays.create_group(files.join(aside.folder, "state", f"{arm}.zarr"), state_form, {})
    last = date.fromisoformat(change["through"])
    n_blocks = schema.block_range((experiment.period[0], last)).stop - change["begin"]
    todo = columns.every(experiment)
    progress.start("update", len(todo) * n_blocks, "blocks of maps")
    orders = Onward(
        experiment.model_dump_json(),
        aside.folder,
        *reads,
        before=aside.place,
        through=change["through"],
        begin=change["begin"],
        changed=change["changed"],
        slots=tuple((arm, tuple(blocks)) for arm, blocks in change["slots"].items()),
    )
    return list(columns.mapped(orders, todo, n_blocks, progress, GoOn))


def _forms(
    experiment: Experiment, root: str, change: Json
) -> list[tuple[str, list[schema.Array], list[schema.Array]]]:
    """By arm, the arrays of the maps and of the state that change."""
    period = (experiment.period[0], date.fromisoformat(change["through"]))
    longer, window = experiment.model_copy(update={"period": period}), schema.window(experiment)
    made: list[tuple[str, list[schema.Array], list[schema.Array]]] = []
    for arm in experiment.arms:
        members = models.ensemble(root, arm)
        form, _ = maps.template(longer, window, arm, len(members), False, change["preliminary"])
        slots = change.get("slots", {}).get(arm, [])
        units = members[0].network.config.hidden_size
        state = maps.state_template(window, slots, len(members), units) if slots else []
        timed = [array for array in form if "time" in array.dims]
        made.append((arm, timed, [array for array in state if array.path in STATE]))
    return made


def _put(experiment: Experiment, workspace: Workspace, root: str, aside: Aside) -> None:
    """Put a change that is ready into maps and state."""
    change = aside.ready()
    assert change is not None
    aside.put(change["shards"])
    period = [str(experiment.period[0]), change["through"]]
    attrs = {"period": period, "time_coverage_end": period[1]}
    for arm, maps_form, state_form in _forms(experiment, root, change):
        url, state_url = (workspace.url(kind, f"{arm}.zarr") for kind in ("maps", "state"))
        arrays.extend_group(url, maps_form, {"": attrs, "series": attrs})
        arrays.consolidate(url)
        if state_form:
            arrays.extend_group(state_url, state_form, {})
            arrays.consolidate(state_url)
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
