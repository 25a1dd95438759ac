"""Verbs that only look: `ls`, `plan`, `doctor`.

The verb `evaluate`: judge one experiment, or compare several.

Append new days to an experiment that was run: cube.zarr, maps/ and state/ go on.

Only forcing is read. What an experiment is made from does not change, nor do its period, models
and scores; the cells of the cube and the maps reach further, which their manifests say
(`complete_through`, `updated`).

The verb `update`: new days for an experiment that was run.
"""

from __future__ import annotations

import json
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import files
from pipeline.cli import run_stages
from pipeline.cli.run_stages import Debug, Name, Overwrite, Set, Workspace, out, resolve_named
from pipeline.cli.run_stages import Experiment as run_stages_experiment
from pipeline.doctor import recordings
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.experiment.config import Experiment
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace as Place


def add_inspect_verbs(app: typer.Typer) -> None:
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
    from pipeline.experiment import load
    from pipeline.experiment.config import Experiment
    from pipeline.storage import artefacts

    if schema:
        out.print_json(json.dumps(Experiment.model_json_schema()))
    elif experiment is None:
        for kind in ("experiments", "recipes"):
            out.print(f"[bold]{kind}[/bold]")
            for preset in load.presets(kind):
                out.print(f"  {preset:12} {load.read(kind, preset)['title']}", soft_wrap=True)
    else:
        resolved, place = resolve_named(experiment, workspace, name, None)
        for artefact in artefacts.ARTEFACTS:
            if artefact == "planet" and resolved.planet is None:
                continue
            theirs = resolved.cube is not None and artefact in ("planet", "cube")
            holder = place.prepared(resolved) if theirs else place
            beside = f", in {holder.root}" if theirs else ""
            out.print(f"{artefact:8} {holder.artefact(artefact).state()}{beside}", soft_wrap=True)


def plan(
    experiment: run_stages_experiment,
    workspace: Workspace = "workspace",
    name: Name = None,
    set_: Set = None,
    debug: Debug = False,
) -> None:
    """Say what an experiment will take before anything is read: bytes, requests, memory, hours.

    Example: soilweave plan conus --set period="[2018-01-01, 2018-12-31]"
    """
    from pipeline.doctor import plan

    resolved, _ = resolve_named(experiment, workspace, name, set_)
    for part in plan.plan_tables(resolved):
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
    otherwise: units=percent, time_zone=UTC-06:00, time_format=%d/%m/%Y, depth=0.05,
    columns.lat=NAME, license=..., and of a single station id=NAME, lat=41.3, lon=-105.5.
    The exit status is 1 where something is wrong.

    With --record, a window of a few days of each entry is read over HTTP, and the requests and
    answers are kept in DIR, without secrets: a folder for each entry. `doctor DIR` replays them
    without a network, compares the values, and says which entries are `verified: DATE`.

    Example: soilweave doctor conus; soilweave doctor my_probes.csv --write my.yaml:my_probes
    """
    with run_stages.progress() as progress:
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
        from pipeline.doctor import probe_file

        if record is not None:
            found = f"{target} is a file, not an entry that is read from a server"
            raise ConfigError("--record", found, remedy="name an experiment or a catalog")
        return probe_file.examine_probes(target, write, progress, settings, plots)
    from pipeline import doctor

    if recordings.is_recording(target):
        return doctor.replay(target, progress)
    if record is not None:
        return doctor.record(target, settings, record, progress)
    return doctor.examine(target, settings, progress)


def add_evaluate_verb(app: typer.Typer, run: Callable[..., None]) -> None:
    """Make it a verb of the command line; `run` runs the stages for one experiment."""

    @app.command()
    def evaluate(
        experiments: Annotated[
            list[str],
            typer.Argument(
                metavar="EXPERIMENT...",
                help="A preset, a file.yaml or a URL; to compare, also folders in the workspace.",
            ),
        ],
        json_: Annotated[
            str | None, typer.Option("--json", help="Write the comparison there.")
        ] = None,
        figure: Annotated[
            str | None, typer.Option(help="Draw the differences there, FILE.png or FILE.svg.")
        ] = None,
        workspace: Workspace = "workspace",
        name: Name = None,
        overwrite: Overwrite = False,
        set_: Set = None,
        debug: Debug = False,
    ) -> None:
        """Judge arms and baselines (scores.parquet, summary.json, report.html, a table).

        At held-out sites, and where the truth is known at every cell away from sites.

        Two experiments or more are compared as they were trained, each with the first, on the sites
        and days that all of them have: variants on one cube say what a setting is worth.

        Example: soilweave run scan --name wide --set cube=workspace/scan
        --set network.hidden_size=256; then: soilweave evaluate scan wide --figure wide.png
        """
        if len(experiments) == 1:
            if json_ or figure:
                remedy = "name two experiments or more"
                raise ConfigError("--json, --figure", "are of a comparison", remedy=remedy)
            from pipeline.cli.run_stages import STAGES

            resolved = resolve_named(experiments[0], workspace, name, set_)
            run(STAGES["evaluate"], *resolved, overwrite)
            return
        if name or set_ or overwrite:
            found = "are of one experiment; several are compared as they were run"
            raise ConfigError("--name, --set, --overwrite", found)
        _compare(experiments, workspace, json_, figure)


def _compare(
    experiments: Sequence[str], workspace: str, into: str | None, drawn: str | None
) -> None:
    """Compare, show, and write what is asked for."""
    from pipeline.cli import tables
    from pipeline.evaluate import compare
    from pipeline.evaluate.report import comparison

    form = "" if drawn is None else drawn.rpartition(".")[2].lower()
    if drawn is not None and form not in comparison.FORMS:
        raise ConfigError(f"--figure {drawn}", "expected FILE.png or FILE.svg")
    files.check_writable(into, drawn)
    places = [_place(name, workspace) for name in experiments]
    roots = [place.root for place in places]
    if twice := sorted({root.rpartition("/")[2] for root in roots if roots.count(root) > 1}):
        raise ConfigError("evaluate", f"named twice: {', '.join(twice)}")
    with run_stages.progress() as progress:
        progress.start("compare", 1, "table")
        made = compare.run(places)
        progress.finish(f"{len(places)} experiments on {made['n_site_days']:,} site-days")
    for table in tables.comparison(made):
        out.print(table)
    for note in made["notes"]:
        out.print(f"note: {note}", soft_wrap=True, highlight=False)
    if into:
        files.write_bytes(files.absolute(into), json.dumps(made, indent=1).encode())
    if drawn:
        files.write_bytes(files.absolute(drawn), comparison.forest(made, form))


def _place(name: str, workspace: str) -> Place:
    """Where it was run: in the workspace's folder of that name, else in that of a preset's."""
    from pipeline.storage import artefacts

    folder = artefacts.Workspace(files.join(files.absolute(workspace), name))
    if "/" not in name and files.exists(folder.url("experiment.yaml")):
        return folder
    return resolve_named(name, workspace, None, None)[1]


def add_update_verb(app: typer.Typer, run: Callable[..., None]) -> None:
    """Make it a verb of the command line; `run` runs the stages for one experiment."""

    @app.command()
    def update(
        experiment: Annotated[
            str,
            typer.Argument(
                help="An experiment that was run: its folder in the workspace, or as it was given."
            ),
        ],
        through: Annotated[
            str | None,
            typer.Option(help="Last day, 2018-06-30; by default as far as all forcing reaches."),
        ] = None,
        workspace: Workspace = "workspace",
        name: Name = None,
        set_: Set = None,
        debug: Debug = False,
    ) -> None:
        """Append new days to the maps of an experiment that was run; trains nothing.

        Forcing is read, not the satellite and no site. The maps go on from state/, so a day costs
        no more than a block of 32 days. Old days stay as they are, to the last bit, unless their
        forcing has changed within the last three blocks: those days are listed. Days with
        preliminary forcing are told by input_status in the maps. Again with nothing new, it says
        so and touches nothing; interrupted, it goes on.

        Example: soilweave update demo --through 2018-07-15
        (Forcing that has changed longer ago: run it with a longer period and --overwrite.)
        """
        from pipeline.cli.run_stages import STAGES

        day = _day(through)
        resolved, place = _was_run(experiment, workspace, name, set_)
        run(STAGES["update"], resolved, place, False, through=day)


def _day(text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"--through {text}", "expected a day, 2018-06-30") from error


def _was_run(
    experiment: str, workspace: str, name: str | None, settings: list[str] | None
) -> tuple[Experiment, Place]:
    """The experiment as its folder describes it, with the settings it was run with, else as given.

    `--set` goes over those.
    """
    from pipeline.experiment import load
    from pipeline.storage import artefacts

    folder = artefacts.Workspace(files.join(files.absolute(workspace), name or experiment))
    described = folder.url("experiment.yaml")
    if "/" not in experiment and files.exists(described):
        experiment, name = described, None
    elif not (
        "/" in experiment
        or experiment in load.presets("experiments")
        or experiment.endswith((".yaml", ".yml"))
    ):
        remedy = f"run it first, or see what there is in {workspace} and among presets"
        raise ConfigError(f"experiment '{experiment}'", "was not run here", remedy=remedy)
    return resolve_named(experiment, workspace, name, settings)
