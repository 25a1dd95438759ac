"""The command line: `soilweave VERB EXPERIMENT`. The only module that prints."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import run_stages, verbs
from pipeline.cli.run_stages import (
    Debug,
    Experiment,
    Name,
    Overwrite,
    Set,
    Workspace,
    err,
    out,
    resolve_named,
)
from pipeline.cluster import malloc
from pipeline.errors import ConfigError, SoilweaveError

if TYPE_CHECKING:
    from pipeline.experiment.config import Experiment as Resolved
    from pipeline.files import Json
    from pipeline.storage.artefacts import Workspace as Place


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Learn soil moisture from satellite footprints and point sensors at once.",
    epilog="Begin with `soilweave ls`, then `soilweave run demo`. Every verb has --help.",
)

TEXTS = {
    "run": "Prepare, train, predict and evaluate: whatever is missing, in order.\n\n"
    "What is complete stays as it is; what was interrupted goes on where it stopped.\n\n"
    "Example: soilweave run scan --name published --set recipe=liu2022 "
    "--set train.updates=2000",
    "train": "Train every arm, fold and seed, predict at the sites, calibrate (models/, "
    "sites.parquet).",
}


def _add_verb(name: str, text: str) -> None:
    """A verb that runs stages in order; Ray, torch and the rest are imported only then."""
    verb_name = name

    @app.command(name, help=text)
    def verb(
        experiment: Experiment,
        workspace: Workspace = "workspace",
        name: Name = None,
        overwrite: Overwrite = False,
        set_: Set = None,
        debug: Debug = False,
    ) -> None:
        from pipeline.cli.run_stages import STAGES

        _run(STAGES[verb_name], *resolve_named(experiment, workspace, name, set_), overwrite)


def _run(
    stages: tuple[str, ...], resolved: Resolved, place: Place, overwrite: bool, **wishes: Any
) -> None:
    """Stages in order, then what they say together, and where the outputs are."""
    from pipeline.cli import run_stages

    with run_stages.progress() as progress:
        summary = run_stages.run(stages, resolved, place, progress, overwrite, **wishes)
    if summary:
        _show(summary)
    _say_where(resolved, place)


for _name, _text in TEXTS.items():
    _add_verb(_name, _text)


@app.command()
def prepare(
    experiment: Experiment,
    stage_to: Annotated[
        str | None,
        typer.Option(help="Copy what the sources hold there first, and read it from there."),
    ] = None,
    workspace: Workspace = "workspace",
    name: Name = None,
    overwrite: Overwrite = False,
    set_: Set = None,
    debug: Debug = False,
) -> None:
    """Bring every source onto one grid and calendar (cube.zarr), deal the sites into folds.

    An experiment with a planet makes that first. With --stage-to, the window and period of every
    source is copied once to a folder of your own, in your bucket say; the bytes and requests that
    takes are told first, and an interrupted copy goes on. Other verbs read it with
    --set sources.staged=URL.

    Example: soilweave prepare conus --stage-to s3://bucket/sources --workspace s3://bucket/ws
    """
    from pipeline import files
    from pipeline.cli.run_stages import STAGES

    stages, settings = STAGES["prepare"], [*(set_ or [])]
    if stage_to:
        settings.append(f"sources.staged={files.absolute(stage_to)}")
        stages = (stages[0], "stage", *stages[1:])
    _run(stages, *resolve_named(experiment, workspace, name, settings), overwrite)


@app.command()
def predict(
    experiment: Experiment,
    models: Annotated[
        str | None, typer.Option(help="URL of a models/ folder that someone else trained.")
    ] = None,
    bbox: Annotated[
        str | None, typer.Option(help="West,south,east,north in degrees, with --models.")
    ] = None,
    period: Annotated[
        str | None, typer.Option(help="First..last day, such as 2018-01-01..2018-06-30.")
    ] = None,
    workspace: Workspace = "workspace",
    name: Name = None,
    overwrite: Overwrite = False,
    set_: Set = None,
    debug: Debug = False,
) -> None:
    """Map every arm, with uncertainty: maps/{arm}.zarr, and state/ to go on from.

    With --models nothing is trained: the experiment says where forcing and attributes are, the
    models of that folder map its region and period, or those given.

    Example: soilweave predict demo --models workspace/demo/models --name north
    --bbox=-103.8,39,-97.9,40.85 --period 2017-01-01..2018-06-30
    --set planet.url=workspace/demo/planet
    """
    from pipeline.experiment import load

    settings = [*(set_ or []), *load.mapping(models, bbox, period)]
    stages = ("planet", "prepare", "predict") if models else ("predict",)
    _run(stages, *resolve_named(experiment, workspace, name, settings), overwrite)


@app.command()
def score(
    experiment: Experiment,
    sites: Annotated[
        str,
        typer.Option(
            help="A CSV (read as doctor reads it), a file in the form of the experiment's in-situ "
            "source, or CATALOG.yaml:NAME."
        ),
    ],
    workspace: Workspace = "workspace",
    name: Name = None,
    json_: Annotated[
        str | None, typer.Option("--json", help="Write the scores there, as summary.json's form.")
    ] = None,
    adjust: Annotated[
        bool,
        typer.Option(
            "--adjust", help="Learn each site's offset on its first days, score the later ones."
        ),
    ] = False,
    figure: Annotated[
        str | None, typer.Option(help="Draw RMSE against days learned on there, with --adjust.")
    ] = None,
    set_: Set = None,
    debug: Debug = False,
) -> None:
    """Test trained models on probes of your own; trains nothing.

    Sites in the cell of a training site, or within 1 km of one, are judged by models that have not
    seen it, and listed apart. With --adjust, also: what the first 7, 30 and 90 days of a probe are
    worth, and every site's offset.

    Example: soilweave score scan --sites my_probes.nc --adjust --figure curve.png
    """
    from pipeline import files
    from pipeline.evaluate import probes

    if figure and not adjust:
        raise ConfigError("--figure", "shows what --adjust finds", remedy="add --adjust")
    resolved, place = resolve_named(experiment, workspace, name, set_)
    files.check_writable(json_, figure)
    with run_stages.progress() as progress:
        summary = probes.run(resolved, place, progress, files.absolute(sites), adjust)
    _show_scores(summary)
    if json_:
        files.write_bytes(files.absolute(json_), json.dumps(summary, indent=1).encode())
    if figure:
        _draw_adjustment(figure, summary, resolved)


def _draw_adjustment(figure: str, summary: Json, resolved: Resolved) -> None:
    """Write a figure of what `score --adjust` found."""
    from pipeline import files
    from pipeline.evaluate.report import comparison

    drawn = comparison.curve(summary, resolved.table[resolved.target].units)
    files.write_bytes(files.absolute(figure), drawn)


def _show_scores(summary: Json) -> None:
    """What `score` found, by group of sites."""
    from pipeline.cli import tables

    for group in ("unseen", "out_of_fold", "trained"):
        if group in summary:
            out.print(f"[bold]{group}[/bold]")
            judged = summary | summary[group]
            _show(judged)
            for table in tables.adjustment(judged) if "adjustment" in judged else ():
                out.print(table)
    for line in tables.not_scored(summary["not_scored"]):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def submit(
    experiment: Annotated[
        str | None, typer.Argument(help="An experiment: a preset, a file.yaml or a URL.")
    ] = None,
    follow: Annotated[
        str | None, typer.Option(metavar="JOB", help="Follow this job again; submit nothing.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="The cluster's dashboard, http://HEAD:8265; else RAY_API_SERVER_ADDRESS, "
            "RAY_ADDRESS, or this machine's."
        ),
    ] = None,
    verb: Annotated[str, typer.Option(help="The verb to run.")] = "run",
    workspace: Workspace = "workspace",
    name: Name = None,
    overwrite: Overwrite = False,
    set_: Set = None,
    debug: Debug = False,
) -> None:
    """Run a verb as a job on a Ray cluster and follow it; it goes on without this machine.

    The code and the resolved experiment are uploaded (with its catalog and recipe, where these are
    files); data, keys and tokens are not: nodes have their own. The exit status is the job's.

    Example: soilweave submit scan --address http://head:8265 --workspace s3://bucket/ws
    """
    from pipeline.cluster import submit

    dashboard = submit.dashboard(address)
    if (experiment is None) == (follow is None):
        raise ConfigError("arguments", "expected EXPERIMENT, or --follow JOB")
    if experiment is not None:
        order = submit.Order(experiment, verb, workspace, name, overwrite, tuple(set_ or ()))
        follow = submit.submit(order, dashboard)
        err.print(f"job {follow}: submitted to {dashboard}", highlight=False, soft_wrap=True)
    job = str(follow)
    try:
        code = submit.follow(job, dashboard, _line)
    except KeyboardInterrupt:
        again = f"soilweave submit --follow {job} --address {dashboard}"
        stop = f"ray job stop {job} --address {dashboard}"
        said = f"job {job} goes on; follow it with: {again}; stop it with: {stop}"
        err.print(said, markup=False, highlight=False, soft_wrap=True)
        code = 130
    raise typer.Exit(code)


def _line(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)


verbs.add_inspect_verbs(app)


verbs.add_evaluate_verb(app, _run)


verbs.add_update_verb(app, _run)


def main() -> None:
    """Run; an error a user can mend is one line and exit code 2."""
    malloc.keep()
    try:
        app()
    except SoilweaveError as error:
        if "--debug" in sys.argv:
            raise
        err.print(
            f"soilweave {sys.argv[1]}: {error}", markup=False, highlight=False, soft_wrap=True
        )
        sys.exit(2)


def _say_where(resolved: Resolved, place: Place) -> None:
    """Where the outputs are, and how to open them."""
    from pipeline import files

    out.print(f"Outputs: {place.root}", soft_wrap=True, highlight=False)
    maps, page = place.url("maps", f"{resolved.arms[0]}.zarr"), place.url("report.html")
    if files.exists(maps):
        out.print(f'  maps: xarray.open_zarr("{maps}")', soft_wrap=True, highlight=False)
    if files.exists(page):
        out.print(f"  report: {page}", soft_wrap=True, highlight=False)


def _show(summary: Json) -> None:
    from pipeline.cli import tables

    for table in tables.tables(summary):
        out.print(table)
    out.print(tables.caption(summary), soft_wrap=True)
