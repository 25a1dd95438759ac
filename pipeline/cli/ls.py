"""The verb `ls`: the experiments of a workspace, the artefacts of one, presets, and the schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline import files
from pipeline.cli import manners, verify
from pipeline.cli.run_stages import DebugOption, NameOption, WorkspaceOption, out, resolve_named
from pipeline.errors import DamagedError

if TYPE_CHECKING:
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.storage.artefacts import Workspace


# What an experiment is whose last complete artefact is this one.
STATES = {
    "planet": "simulated",
    "cube": "prepared, without folds",
    "folds": "prepared",
    "models": "trained",
    "maps": "mapped",
    "scores": "scored, without a report",
    "report": "evaluated",
}


def add_ls_verb(app: typer.Typer) -> None:
    """Add `ls`."""
    app.command()(ls)


def ls(
    experiment: Annotated[
        str | None,
        typer.Argument(
            help="Show the artefacts of this experiment: its folder in the workspace, the URL of "
            "this folder, a preset or a YAML file. By default, list experiments and presets."
        ),
    ] = None,
    workspace: WorkspaceOption = "workspace",
    name: NameOption = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of experiment files.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """List the experiments of a workspace and presets; or the artefacts of an experiment.

    Of an experiment in the workspace, its state is shown: what is complete, what is begun, and
    whether a process is at work. An artefact is absent, begun, damaged or complete, with its size
    and when it was made. With --schema, an editor can check experiment files.

    Example: soilweave ls demo
    """
    from pipeline.experiment import load

    if schema:
        described = load.file_schema()
        out.print_json(json.dumps(described))
        manners.write_json(described)
    elif experiment is None:
        _list_all(files.make_absolute(workspace))
    else:
        _list_artefacts(experiment, workspace, name)


def _list_all(workspace: str) -> None:
    """List the experiments of a workspace, the presets, and the models that come with soilweave."""
    from pipeline.experiment import load, shipped_models
    from pipeline.storage.artefacts import Workspace

    found: Json = {"workspace": workspace, "in_workspace": {}}
    for folder in files.list_folder(workspace):
        store = Workspace(files.join(workspace, folder))
        if files.exists(store.url("experiment.yaml")):
            found["in_workspace"][folder] = _describe_state(store)
    for kind in ("experiments", "recipes"):
        titles = {name: load.read_settings(kind, name)["title"] for name in load.list_presets(kind)}
        found[kind] = titles
    found["models"] = {name: shipped_models.title(name) for name in shipped_models.list_names()}
    headings = {"in_workspace": f"in {workspace}"} if found["in_workspace"] else {}
    headings |= {"experiments": "experiments", "recipes": "recipes", "models": "models, trained"}
    for kind, heading in headings.items():
        out.print(f"[bold]{heading}[/bold]", soft_wrap=True, highlight=False)
        for name, text in found[kind].items():
            out.print(f"  {name:12} {text}", soft_wrap=True, highlight=False, markup=False)
    manners.write_json(found)


def _describe_state(store: Workspace) -> str:
    """Return the state of an experiment in one line."""
    done, parts = "", []
    for name, state in reversed(STATES.items()):
        artefact = store.artefact(name)
        try:
            manifest = artefact.manifest()
        except DamagedError:
            parts.append(f"{name} damaged")
            continue
        if manifest is not None:
            done = state
            break
        if artefact.begun() is not None:
            parts.append(f"{name} begun")
    if done and (through := _last_day(store)):
        done += f", maps up to {through}"
    if store.lease.held_by_another():
        parts.append("a process is at work")
    return "; ".join([done or "nothing complete", *parts])


def _last_day(store: Workspace) -> str | None:
    """Return the last day of the maps; None if there are none."""
    try:
        return (store.artefact("maps").manifest() or {}).get("complete_through")
    except DamagedError:
        return None


def _list_artefacts(experiment: str, workspace: str, name: str | None) -> None:
    """List the artefacts of an experiment, with size, age and state, and exported files."""
    from pipeline.storage import artefacts, exports

    resolved, store = _resolve(experiment, workspace, name)
    found: Json = {"experiment": resolved.name, "url": store.root, "artefacts": {}}
    for each in artefacts.ARTEFACTS:
        if each == "planet" and resolved.planet is None:
            continue
        shared = resolved.cube is not None and each in ("planet", "cube")
        holder = store.prepared(resolved) if shared else store
        state = holder.artefact(each).state() + (f", in {holder.root}" if shared else "")
        found["artefacts"][each] = state
        out.print(f"{each:8} {state}", soft_wrap=True, highlight=False)
    if exported := exports.list_exports(store):
        size = sum(each.record["size"] for each in exported)
        n_stale = sum(not each.is_current for each in exported)
        text = f"{len(exported)} files, {size / 1e6:.1f} MB" + (
            f", {n_stale} stale" * bool(n_stale)
        )
        found["export"] = text
        out.print(f"{exports.FOLDER:8} {text}", soft_wrap=True, highlight=False)
    manners.write_json(found)


def _resolve(experiment: str, workspace: str, name: str | None) -> tuple[Experiment, Workspace]:
    """Return an experiment that was run, or that a preset or a file describes, and its folder."""
    store = verify.find_store(experiment, workspace, name)
    if files.exists(store.url("experiment.yaml")):
        return store.place(store.described()), store
    return resolve_named(experiment, workspace, name, None)
