"""The command line, `soilweave VERB EXPERIMENT`: verbs, options, help texts and exit codes.

This folder is the only one that prints. Heavy packages (Ray, PyTorch, xarray) are imported inside
the verbs, so that `--help` and mistakes in the arguments answer at once.
"""

from __future__ import annotations

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
    score,
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
            metavar="NAME|URL",
            help="Map with these models: a name of `soilweave ls`, or the URL of a models/ folder.",
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
    trained elsewhere map its region and period, or those of --bbox and --period, for those of its
    arms that they have.

    Example: soilweave predict demo --models workspace/demo/models --name north
    --bbox=-103.8,39,-97.9,40.85 --period 2017-01-01..2018-06-30
    --set planet.url=workspace/demo/planet
    """
    from pipeline.experiment import load, shipped_models
    from pipeline.storage import models as stored_models

    settings = [*(set_ or []), *load.settings_for_mapping(models, bbox, period)]
    stages = ("planet", "prepare", "predict") if models else ("predict",)
    resolved, store = resolve_named(experiment, workspace, name, settings)
    if models and not any(setting.startswith("arms=") for setting in settings):
        resolved = stored_models.with_arms_of(shipped_models.models_url(models), resolved)
    _run_stages(stages, resolved, store, overwrite)


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


score.add_score_verb(app)


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
