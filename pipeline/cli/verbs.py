"""Verbs that do more, or less, than run stages: `plan`, `doctor`, `evaluate` and `update`."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import files
from pipeline.cli import manners, run_stages, tables
from pipeline.cli.run_stages import (
    DebugOption,
    ExperimentArgument,
    NameOption,
    OverwriteOption,
    SetOption,
    WorkspaceOption,
    out,
    resolve_named,
)
from pipeline.doctor import recordings
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.experiment.config import Experiment
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace


TargetArgument = Annotated[
    str,
    typer.Argument(
        help="What to examine: an experiment, a catalog (a preset or a YAML file), a CSV file "
        "of probes, or a folder written with --record."
    ),
]

PlotsOption = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="For a CSV file: write one plot per probe to this folder; "
        "by default FILE-probes with --write, else none.",
    ),
]

ExperimentsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="EXPERIMENT...",
        help="One experiment (a preset, a YAML file or a URL) to score, or several to "
        "compare; these may also be folders in the workspace.",
    ),
]

DifferencesOption = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Draw the differences to this file, FILE.png or FILE.svg."),
]


def add_inspect_verbs(app: typer.Typer) -> None:
    """Add `plan` and `doctor`, which compute nothing."""
    for verb in (plan, doctor):
        app.command()(verb)


def plan(
    experiment: ExperimentArgument,
    workspace: WorkspaceOption = "workspace",
    name: NameOption = None,
    set_: SetOption = None,
    debug: DebugOption = False,
) -> None:
    """Estimate the bytes, requests, memory and hours of an experiment before any data is read.

    Example: soilweave plan conus --set period="[2018-01-01, 2018-12-31]"
    """
    from pipeline.doctor import plan

    resolved, _ = resolve_named(experiment, workspace, name, set_)
    parts = list(plan.plan_tables(resolved))
    for table in parts:
        out.print(table)
    manners.write_json(tables.as_json(parts))


def doctor(
    target: TargetArgument,
    write: Annotated[
        str | None,
        typer.Option(
            metavar="CATALOG.yaml:NAME",
            help="For a CSV file: add it to this catalog under this name.",
        ),
    ] = None,
    plots: PlotsOption = None,
    record: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Save a few requests of each entry and the servers' answers to this folder.",
        ),
    ] = None,
    set_: SetOption = None,
    debug: DebugOption = False,
) -> None:
    """Check the data that an experiment or a catalog names; say what is wrong and how to fix it.

    Every entry is opened and every year that is needed is sampled: variables, units, ranges, gaps,
    times, licence, credentials. The exit status is 1 if anything is wrong, else 0.

    For a CSV file of probes: columns, units, depth, coordinates, time zone and quality are guessed
    and checked, the cell and footprint of each probe are found, and its series is plotted.
    Override a wrong guess with --set: units=percent, time_zone=UTC-06:00, time_format=%d/%m/%Y,
    depth=0.05 (metres), columns.lat=NAME, license=...; for a file of one station also id=NAME,
    lat=41.3, lon=-105.5 (degrees).

    With --record, a few days of each entry are read over HTTP, and the requests and answers are
    saved in DIR without secrets, one folder per entry. `soilweave doctor DIR` replays them without
    a network, compares the values, and prints `verified: DATE` for every entry that agrees.

    Example: soilweave doctor conus; soilweave doctor my_probes.csv --write my.yaml:my_probes
    """
    with run_stages.show_progress() as progress:
        healthy, parts = _examine(target, write, plots, record, set_ or [], progress)
    for part in parts:
        out.print(part, soft_wrap=isinstance(part, str), highlight=False)
    manners.write_json({"healthy": healthy} | tables.as_json(parts))
    raise typer.Exit(0 if healthy else 1)


def _examine(
    target: str,
    write: str | None,
    plots: str | None,
    record: str | None,
    settings: list[str],
    progress: Progress,
) -> tuple[bool, list[Any]]:
    """Return whether the target of `doctor` has no problems, and what to print about it."""
    if target.endswith(".csv"):
        from pipeline.doctor import probe_file

        run_stages.check_exists(target, "give a CSV file of probes: soilweave doctor FILE.csv")
        if record is not None:
            problem = f"{target} is a file, not an entry that is read from a server"
            raise ConfigError("--record", problem, remedy="name an experiment or a catalog")
        return probe_file.examine_probes(target, write, progress, settings, plots)
    from pipeline import doctor

    if recordings.is_recording(target):
        return doctor.replay(target, progress)
    if record is not None:
        return doctor.record(target, settings, record, progress)
    return doctor.examine(target, settings, progress)


def add_evaluate_verb(app: typer.Typer, run: Callable[..., None]) -> None:
    """Add `evaluate`, for one experiment or a comparison of several.

    Args:
      app: The command line.
      run: Runs the stages of a verb for one experiment.
    """

    @app.command()
    def evaluate(
        experiments: ExperimentsArgument,
        figure: DifferencesOption = None,
        workspace: WorkspaceOption = "workspace",
        name: NameOption = None,
        overwrite: OverwriteOption = False,
        set_: SetOption = None,
        debug: DebugOption = False,
    ) -> None:
        """Score arms and baselines (scores.parquet, summary.json, report.html, a table).

        Scores are computed at held-out sites and, if the truth is known, at every cell away from
        sites.

        Two or more experiments are compared as they were trained, each with the first, on the sites
        and days that all of them have. Variants on one cube show the effect of a setting.

        Example: soilweave run scan --name wide --set cube=workspace/scan
        --set network.hidden_size=256; then: soilweave evaluate scan wide --figure wide.png
        """
        if len(experiments) == 1:
            if figure:
                hint = "name two experiments or more"
                raise ConfigError("--figure", "applies to a comparison", remedy=hint)
            from pipeline.cli.run_stages import STAGES

            resolved = resolve_named(experiments[0], workspace, name, set_)
            run(STAGES["evaluate"], *resolved, overwrite)
            return
        if name or set_ or overwrite:
            problem = "apply to one experiment; several are compared as they were run"
            raise ConfigError("--name, --set, --overwrite", problem)
        _compare(experiments, workspace, figure)


def _compare(experiments: Sequence[str], workspace: str, figure: str | None) -> None:
    """Compare experiments, print the tables, and write the files that the options name."""
    from pipeline.evaluate import compare
    from pipeline.evaluate.report import comparison

    image_format = "" if figure is None else figure.rpartition(".")[2].lower()
    if figure is not None and image_format not in comparison.FIGURE_FORMATS:
        raise ConfigError(f"--figure {figure}", "expected FILE.png or FILE.svg")
    files.check_writable(figure)
    stores = [_find_store(name, workspace) for name in experiments]
    roots = [store.root for store in stores]
    if twice := sorted({root.rpartition("/")[2] for root in roots if roots.count(root) > 1}):
        raise ConfigError("evaluate", f"named twice: {', '.join(twice)}")
    with run_stages.show_progress() as progress:
        progress.start("compare", 1, "table")
        result = compare.compare_experiments(stores)
        progress.finish(f"{len(stores)} experiments on {result['n_site_days']:,} site-days")
    for table in tables.comparison_tables(result):
        out.print(table)
    for note in result["notes"]:
        out.print(f"note: {note}", soft_wrap=True, highlight=False)
    manners.write_json(result)
    if figure:
        files.write_bytes(
            files.make_absolute(figure), comparison.draw_comparison(result, image_format)
        )


def _find_store(name: str, workspace: str) -> Workspace:
    """Return where an experiment was run: the folder of this name if it exists, else a preset's."""
    from pipeline.storage import artefacts

    folder = artefacts.Workspace(files.join(files.make_absolute(workspace), name))
    if "/" not in name and files.exists(folder.url("experiment.yaml")):
        return folder
    return resolve_named(name, workspace, None, None)[1]


def add_update_verb(app: typer.Typer, run: Callable[..., None]) -> None:
    """Add `update`.

    Args:
      app: The command line.
      run: Runs the stages of a verb for one experiment.
    """

    @app.command()
    def update(
        experiment: Annotated[
            str,
            typer.Argument(
                help="An experiment that was run: its folder in the workspace, or the preset, YAML "
                "file or URL that it was run from."
            ),
        ],
        through: Annotated[
            str | None,
            typer.Option(
                metavar="DAY",
                help="Last day, such as 2018-06-30; by default the last that all sources have.",
            ),
        ] = None,
        workspace: WorkspaceOption = "workspace",
        name: NameOption = None,
        set_: SetOption = None,
        debug: DebugOption = False,
    ) -> None:
        """Append new days to the maps of an experiment that was run; trains nothing.

        Only forcing is read, no satellite data and no sites. The maps continue from state/, so a
        new day costs no more than a block of 32 days. Old days do not change by a bit, unless their
        forcing has changed within the last three blocks of 32 days: the days with changed forcing
        are then listed, and the maps are computed again from the first of them. input_status in
        the maps marks days with preliminary forcing. If there is nothing new, the verb says so and
        writes nothing; if it was interrupted, it continues.

        If forcing changed earlier than that, run the experiment again with a longer period and
        --overwrite.

        Example: soilweave update demo --through 2018-07-15
        """
        from pipeline.cli.run_stages import STAGES

        day = _parse_day(through)
        resolved, store = _resolve_past_run(experiment, workspace, name, set_)
        run(STAGES["update"], resolved, store, False, through=day)


def _parse_day(text: str | None) -> date | None:
    """Return the day of the option --through."""
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"--through {text}", "expected a day, such as 2018-06-30") from error


def _resolve_past_run(
    experiment: str, workspace: str, name: str | None, settings: list[str] | None
) -> tuple[Experiment, Workspace]:
    """Return an experiment that was run, and its folder in the workspace.

    The folder's experiment.yaml has the settings that the experiment was run with; if there is
    none, the experiment is resolved as the argument names it. `settings` override either.

    Raises:
      ConfigError: If the argument names no folder, preset, file or URL.
    """
    from pipeline.experiment import load
    from pipeline.storage import artefacts

    folder = artefacts.Workspace(files.join(files.make_absolute(workspace), name or experiment))
    described = folder.url("experiment.yaml")
    if "/" not in experiment and files.exists(described):
        experiment, name = described, None
    elif not (
        "/" in experiment
        or experiment in load.list_presets("experiments")
        or experiment.endswith((".yaml", ".yml"))
    ):
        hint = f"run it first, or name a folder of {workspace} or a preset (`soilweave ls`)"
        raise ConfigError(f"experiment '{experiment}'", "was not run here", remedy=hint)
    return resolve_named(experiment, workspace, name, settings)
