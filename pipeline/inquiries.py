"""Verbs that only look: `ls`, `plan`, `doctor`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import console
from pipeline.console import out
from pipeline.errors import ConfigError
from pipeline.options import Debug, Experiment, Name, Set, Workspace, resolve_named

if TYPE_CHECKING:
    from pipeline.progress import Progress


def add_to(app: typer.Typer) -> None:
    """Make them verbs of the command line."""
    for verb in (ls, plan, doctor):
        app.command()(verb)


def ls(
    experiment: Annotated[str | None, typer.Argument(help="Show this one's artefacts.")] = None,
    workspace: Workspace = "workspace",
    name: Name = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of an experiment.")
    ] = False,
    debug: Debug = False,
) -> None:
    """List presets; or the artefacts of an experiment; or the JSON schema of experiment files."""
    from pipeline import resolve, store
    from pipeline.config import Experiment as Model

    if schema:
        out.print_json(json.dumps(Model.model_json_schema()))
    elif experiment is None:
        for kind in ("experiments", "recipes"):
            out.print(f"[bold]{kind}[/bold]")
            for preset in resolve.presets(kind):
                out.print(f"  {preset:12} {resolve.read(kind, preset)['title']}", soft_wrap=True)
    else:
        resolved, place = resolve_named(experiment, workspace, name, None)
        for artefact in store.ARTEFACTS:
            if artefact == "planet" and resolved.planet is None:
                continue
            theirs = resolved.cube is not None and artefact in ("planet", "cube")
            holder = place.prepared(resolved) if theirs else place
            beside = f", in {holder.root}" if theirs else ""
            out.print(f"{artefact:8} {holder.artefact(artefact).state()}{beside}", soft_wrap=True)


def plan(
    experiment: Experiment,
    workspace: Workspace = "workspace",
    name: Name = None,
    set_: Set = None,
    debug: Debug = False,
) -> None:
    """Say what an experiment will take before anything is read: bytes, requests, memory, hours.

    Example: soilweave plan conus --set period="[2018-01-01, 2018-12-31]"
    """
    from pipeline import plan as planning

    resolved, _ = resolve_named(experiment, workspace, name, set_)
    for part in planning.tables(resolved):
        out.print(part)


def doctor(
    target: Annotated[
        str,
        typer.Argument(
            help="An experiment, a catalog (a preset or file.yaml), probes.csv, or recordings."
        ),
    ],
    write: Annotated[
        str | None,
        typer.Option(help="Of probes.csv: write a catalog entry, CATALOG.yaml:NAME."),
    ] = None,
    plots: Annotated[
        str | None,
        typer.Option(help="Of probes.csv: folder for a picture of each, FILE-probes with --write."),
    ] = None,
    record: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Keep the answers of servers that prove each entry."),
    ] = None,
    set_: Set = None,
    debug: Debug = False,
) -> None:
    """Open what an experiment or a catalog names, and say what is wrong and how to mend it.

    Every entry, every year that is needed: variables, units, ranges, gaps, times, licence,
    credentials. Of a table of probes: columns, units, depth, coordinates, time zone, quality; the
    cell and footprint each falls in, a plot of each. What is guessed of a table, --set says
    otherwise: units=percent, time_zone=UTC-06:00, depth=0.05, columns.lat=NAME, license=...
    The exit status is 1 where something is wrong.

    With --record, a window of a few days of each entry is read over HTTP, and the requests and
    answers are kept in DIR, without secrets: a folder for each entry. `doctor DIR` replays them
    without a network, compares the values, and says which entries are `verified: DATE`.

    Example: soilweave doctor conus; soilweave doctor my_probes.csv --write my.yaml:my_probes
    """
    with console.progress() as progress:
        healthy, parts = _examined(target, write, plots, record, set_ or [], progress)
    for part in parts:
        out.print(part, soft_wrap=isinstance(part, str), highlight=False)
    raise typer.Exit(0 if healthy else 1)


def _examined(
    target: str,
    write: str | None,
    plots: str | None,
    record: str | None,
    settings: list[str],
    progress: Progress,
) -> tuple[bool, list[Any]]:
    """Whether nothing is wrong with what `doctor` is given, and what it shows."""
    if target.endswith(".csv"):
        from pipeline import probes

        if record is not None:
            found = f"{target} is a file, not an entry that is read from a server"
            raise ConfigError("--record", found, remedy="name an experiment or a catalog")
        return probes.examine(target, write, progress, settings, plots)
    from pipeline import doctor as examination

    if examination.recordings.is_recording(target):
        return examination.replay(target, progress)
    if record is not None:
        return examination.record(target, settings, record, progress)
    return examination.examine(target, settings, progress)
