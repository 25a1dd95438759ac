"""The command line, `soilweave VERB EXPERIMENT`: verbs, options, help texts and exit codes.

This folder is the only one that prints. Heavy packages (Ray, PyTorch, xarray) are imported inside
the verbs, so that `--help` and mistakes in the arguments answer at once.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import (
    explain,
    export,
    init,
    last_resort,
    ls,
    manners,
    publish,
    run_stages,
    verbs,
    verify,
    view,
)
from pipeline.cli.run_stages import (
    DebugOption,
    ExperimentArgument,
    NameOption,
    OverwriteOption,
    SetOption,
    WorkspaceOption,
    err,
    out,
    resolve_named,
)
from pipeline.cluster import malloc
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.storage.artefacts import Workspace


app = typer.Typer(
    cls=manners.Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Learn soil moisture from satellite footprints and point sensors at once.",
    epilog="Start with `soilweave ls`, then `soilweave run demo`. Every verb has --help.",
)


@app.callback()
def _soilweave(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=manners.show_version,
            is_eager=True,
            expose_value=False,
            help="Print the version and end.",
        ),
    ] = False,
) -> None:
    """Take the options that stand before a verb."""


SitesOption = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="Your probes: a CSV file (read as `doctor` reads it), a file in the format of the "
        "experiment's in-situ source, or a catalog entry CATALOG.yaml:NAME.",
    ),
]

CurveOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="With --adjust, draw RMSE against the number of days learned on.",
    ),
]

AddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Dashboard of the cluster, such as http://HEAD:8265; by default "
        "RAY_API_SERVER_ADDRESS, else RAY_ADDRESS, else http://127.0.0.1:8265.",
    ),
]

# Verbs that only run stages; their functions differ in nothing but the name and the help text.
STAGE_VERBS = {
    "run": "Prepare, train, predict and evaluate: whatever is missing, in order.\n\n"
    "Complete artefacts are kept, and an interrupted stage continues where it stopped.\n\n"
    "Example: soilweave run scan --name published --set recipe=liu2022 "
    "--set train.updates=2000",
    "train": "Train every arm, fold and seed, predict at the sites, and calibrate.\n\n"
    "Writes models/ (checkpoints) and sites.parquet (predictions and their intervals).\n\n"
    "Example: soilweave train scan --set train.updates=2000 --overwrite",
}


def _add_stage_verb(name: str, text: str) -> None:
    """Add a verb that runs the stages of its name in order."""
    verb_name = name

    @app.command(name, help=text)
    def verb(
        experiment: ExperimentArgument,
        workspace: WorkspaceOption = "workspace",
        name: NameOption = None,
        overwrite: OverwriteOption = False,
        set_: SetOption = None,
        debug: DebugOption = False,
    ) -> None:
        from pipeline.cli.run_stages import STAGES

        _run_stages(STAGES[verb_name], *resolve_named(experiment, workspace, name, set_), overwrite)


def _run_stages(
    stages: tuple[str, ...],
    resolved: Experiment,
    store: Workspace,
    overwrite: bool,
    **options: Any,
) -> None:
    """Run stages in order, then print their scores and where the outputs are."""
    from pipeline.cli import run_stages

    with run_stages.show_progress() as progress:
        summary = run_stages.run(stages, resolved, store, progress, overwrite, **options)
    if summary:
        _print_summary(summary)
    manners.write_json(_print_outputs(resolved, store) | {"summary": summary})


for _name, _text in STAGE_VERBS.items():
    _add_stage_verb(_name, _text)


@app.command()
def prepare(
    experiment: ExperimentArgument,
    stage_to: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Copy the sources to this folder or URL first, and read them from there.",
        ),
    ] = None,
    workspace: WorkspaceOption = "workspace",
    name: NameOption = None,
    overwrite: OverwriteOption = False,
    set_: SetOption = None,
    debug: DebugOption = False,
) -> None:
    """Bring every source onto one grid and calendar (cube.zarr), and assign sites to folds.

    An experiment with a planet simulates it first. With --stage-to, the region and period that the
    experiment needs are copied once from every source to a folder or bucket of yours. The number
    of bytes and requests is printed before the copy starts, and an interrupted copy continues.
    Other verbs read the copy with --set sources.staged=URL.

    Example: soilweave prepare conus --stage-to s3://bucket/sources --workspace s3://bucket/ws
    """
    from pipeline import files
    from pipeline.cli.run_stages import STAGES

    stages, settings = STAGES["prepare"], [*(set_ or [])]
    if stage_to:
        settings.append(f"sources.staged={files.make_absolute(stage_to)}")
        stages = (stages[0], "stage", *stages[1:])
    _run_stages(stages, *resolve_named(experiment, workspace, name, settings), overwrite)


@app.command()
def predict(
    experiment: ExperimentArgument,
    models: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Map with the models of this models/ folder; nothing is trained."
        ),
    ] = None,
    bbox: Annotated[
        str | None,
        typer.Option(
            metavar="W,S,E,N",
            help="Region to map with --models, in degrees, such as --bbox=-103.8,39,-97.9,40.85; "
            "by default the experiment's.",
        ),
    ] = None,
    period: Annotated[
        str | None,
        typer.Option(
            metavar="FIRST..LAST",
            help="Days to map with --models, such as 2018-01-01..2018-06-30; "
            "by default the experiment's.",
        ),
    ] = None,
    workspace: WorkspaceOption = "workspace",
    name: NameOption = None,
    overwrite: OverwriteOption = False,
    set_: SetOption = None,
    debug: DebugOption = False,
) -> None:
    """Map every arm, with uncertainty (maps/{arm}.zarr), and save its state for `update`.

    With --models, the experiment only says where forcing and attributes are; models that were
    trained elsewhere map its region and period, or those of --bbox and --period.

    Example: soilweave predict demo --models workspace/demo/models --name north
    --bbox=-103.8,39,-97.9,40.85 --period 2017-01-01..2018-06-30
    --set planet.url=workspace/demo/planet
    """
    from pipeline.experiment import load

    settings = [*(set_ or []), *load.settings_for_mapping(models, bbox, period)]
    stages = ("planet", "prepare", "predict") if models else ("predict",)
    _run_stages(stages, *resolve_named(experiment, workspace, name, settings), overwrite)


@app.command()
def score(
    experiment: ExperimentArgument,
    sites: SitesOption,
    workspace: WorkspaceOption = "workspace",
    name: NameOption = None,
    adjust: Annotated[
        bool,
        typer.Option(
            "--adjust",
            help="Learn each site's offset on its first days, and score the later days.",
        ),
    ] = False,
    figure: CurveOption = None,
    set_: SetOption = None,
    debug: DebugOption = False,
) -> None:
    """Test trained models on probes of your own; trains nothing.

    A probe in the cell of a training site, or within 1 km of one, is scored with the models that
    have not seen that site, and listed separately. --adjust also shows how much the first 7, 30
    and 90 days of a probe improve the scores, and prints the offset of every site.

    Example: soilweave score scan --sites my_probes.nc --adjust --figure curve.png
    """
    from pipeline import files
    from pipeline.evaluate import probes

    if figure and not adjust:
        raise ConfigError("--figure", "shows the result of --adjust", remedy="add --adjust")
    resolved, store = resolve_named(experiment, workspace, name, set_)
    files.check_writable(figure)
    if not re.search(r"\.ya?ml:[^/]+$", sites):
        hint = f"give your probes: soilweave score {experiment} --sites FILE.csv"
        run_stages.check_exists(sites, hint)
    with run_stages.show_progress() as progress:
        summary = probes.score_probes(resolved, store, progress, files.make_absolute(sites), adjust)
    _print_scores(summary)
    manners.write_json(summary)
    if figure:
        _draw_adjustment(figure, summary, resolved)


def _draw_adjustment(figure: str, summary: Json, resolved: Experiment) -> None:
    """Write the figure of `score --adjust`."""
    from pipeline import files
    from pipeline.evaluate.report import comparison

    image = comparison.draw_adjustment_curve(summary, resolved.table[resolved.target].units)
    files.write_bytes(files.make_absolute(figure), image)


def _print_scores(summary: Json) -> None:
    """Print the scores of `score`, one group of sites after the other."""
    from pipeline.cli import tables

    for group in ("unseen", "out_of_fold", "trained"):
        if group in summary:
            out.print(f"[bold]{group}[/bold]")
            group_summary = summary | summary[group]
            _print_summary(group_summary)
            for table in (
                tables.adjustment_tables(group_summary) if "adjustment" in group_summary else ()
            ):
                out.print(table)
    for line in tables.not_scored_lines(summary["not_scored"]):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def submit(
    experiment: Annotated[
        str | None,
        typer.Argument(help="The experiment: a preset (see `soilweave ls`), a YAML file or a URL."),
    ] = None,
    follow: Annotated[
        str | None,
        typer.Option(metavar="JOB", help="Follow a job that was submitted before."),
    ] = None,
    address: AddressOption = None,
    verb: Annotated[
        str,
        typer.Option(help="Verb to run: run, prepare, train, predict, evaluate or update."),
    ] = "run",
    workspace: WorkspaceOption = "workspace",
    name: NameOption = None,
    overwrite: OverwriteOption = False,
    set_: SetOption = None,
    debug: DebugOption = False,
) -> None:
    """Run a verb as a job on a Ray cluster and follow its log.

    The job continues when this machine disconnects. The code, the resolved experiment and the
    local catalog and recipe files that it names are uploaded. Data, keys and tokens are not: the
    nodes have their own. The exit status is the job's.

    Example: soilweave submit scan --address http://head:8265 --workspace s3://bucket/ws
    """
    from pipeline.cluster import submit

    dashboard = submit.dashboard_url(address)
    if (experiment is None) == (follow is None):
        raise ConfigError("arguments", "expected EXPERIMENT, or --follow JOB")
    if experiment is not None:
        spec = submit.JobSpec(experiment, verb, workspace, name, overwrite, tuple(set_ or ()))
        follow = submit.submit_job(spec, dashboard)
        err.print(f"job {follow}: submitted to {dashboard}", highlight=False, soft_wrap=True)
    job = str(follow)
    try:
        code = submit.follow_job(job, dashboard, _print_line)
    except KeyboardInterrupt:
        follow_again = f"soilweave submit --follow {job} --address {dashboard}"
        stop = f"ray job stop {job} --address {dashboard}"
        message = f"job {job} continues; follow it with: {follow_again}; stop it with: {stop}"
        err.print(message, markup=False, highlight=False, soft_wrap=True)
        code = 130
    manners.write_json({"job": job, "exit_status": code})
    raise typer.Exit(code)


def _print_line(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)


init.add_init_verb(app)
ls.add_ls_verb(app)
verbs.add_inspect_verbs(app)


verbs.add_evaluate_verb(app, _run_stages)


verbs.add_update_verb(app, _run_stages)


verify.add_verify_verb(app)


publish.add_publish_verb(app)


explain.add_explain_verb(app)
export.add_export_verb(app)
view.add_view_verb(app)


def main() -> None:
    """Run the command line.

    An error that a user can correct is one message and exit code 2. A fault of soilweave is one
    line that says where its traceback is, and exit code 70.
    """
    malloc.keep_freed_memory()
    last_resort.keep_libraries_quiet()
    try:
        app()
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        message, status = last_resort.describe(error)
        verb = " ".join(["soilweave", *sys.argv[1:2]])
        err.print(f"{verb}: {message}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(status)


def _print_outputs(resolved: Experiment, store: Workspace) -> Json:
    """Print where the outputs are, and how to open them; return the URLs of those that exist."""
    from pipeline import files

    found = {"url": store.root}
    out.print(f"Outputs: {store.root}", soft_wrap=True, highlight=False)
    maps, report = store.url("maps", f"{resolved.arms[0]}.zarr"), store.url("report.html")
    if files.exists(maps):
        found["maps"] = maps
        out.print(f'  maps: xarray.open_zarr("{maps}")', soft_wrap=True, highlight=False)
    if files.exists(report):
        found["report"] = report
        out.print(f"  report: {report}", soft_wrap=True, highlight=False)
    return found


def _print_summary(summary: Json) -> None:
    """Print the tables of a summary and their caption."""
    from pipeline.cli import tables
    from pipeline.evaluate import training_spread

    for table in tables.summary_tables(summary):
        out.print(table)
    for sentence in training_spread.spread_warnings(summary):
        out.print(f"warning: {sentence}", soft_wrap=True, highlight=False, markup=False)
    out.print(tables.summary_caption(summary), soft_wrap=True)
