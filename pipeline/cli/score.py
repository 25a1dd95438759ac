"""The verb `score`, which tests trained models on a user's probes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import manners, run_stages
from pipeline.cli.run_stages import (
    DebugOption,
    NameOption,
    SetOption,
    WorkspaceOption,
    out,
    resolve_named,
)
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.evaluate.probes import Scored
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.storage.artefacts import Workspace


# What the headings of the groups of sites say of them.
GROUPS = {
    "unseen": "the models have learnt from no site at these places",
    "out_of_fold": "places of training sites, scored by the models that have not seen them",
    "trained": "places of training sites, which these models have seen: not a test",
}

TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="FILE.csv|CATALOG.yaml:NAME|EXPERIMENT",
        help="Your probes, a table or a catalog entry, which the models that come with soilweave "
        "are tested on; or an experiment (a preset, a YAML file or a URL), with --sites.",
    ),
]

SitesOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Your probes: a CSV file (read as `doctor` reads it), a file in the format of the "
        "experiment's in-situ source, or a catalog entry CATALOG.yaml:NAME.",
    ),
]

ModelsOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|URL",
        help="The models to test: a name of `soilweave ls`, or the models/ folder of an "
        "experiment; by default those of the experiment. The experiment then only says where "
        "inputs are.",
    ),
]

NearestOption = Annotated[
    float,
    typer.Option(
        metavar="KM",
        min=0,
        help="Give a probe that is in no cell with forcing the inputs of the nearest such cell "
        "within this distance.",
    ),
]

FigureOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.png",
        help="Draw the series of the probes; with --adjust, RMSE against the days learned on.",
    ),
]


def add_score_verb(app: typer.Typer) -> None:
    """Add `score`."""
    app.command()(score)


def score(
    target: TargetArgument,
    sites: SitesOption = None,
    models: ModelsOption = None,
    nearest: NearestOption = 0.0,
    workspace: WorkspaceOption = "workspace",
    name: NameOption = None,
    adjust: Annotated[
        bool,
        typer.Option(
            "--adjust",
            help="Learn each site's offset on its first days, and score the later days.",
        ),
    ] = False,
    figure: FigureOption = None,
    set_: SetOption = None,
    debug: DebugOption = False,
) -> None:
    """Test trained models on probes of your own; trains nothing.

    A probe in the cell of a training site, or within 1 km of one, is scored with the models that
    have not seen that site, if there are such, and listed separately. --adjust also shows how much
    the first 7, 30 and 90 days of a probe change the scores; --json has the offset of every site.

    Example: soilweave score my_probes.csv --nearest 50 --figure series.png; soilweave score scan
    --sites my_probes.nc --adjust --figure curve.png
    """
    from pipeline import files
    from pipeline.evaluate import probes
    from pipeline.probes import columns

    resolved, store, sites = _resolve(target, sites, models, workspace, name, set_)
    files.check_writable(figure)
    if not columns.is_catalog_entry(sites):
        hint = f"give your probes: soilweave score {target} --sites FILE.csv"
        run_stages.check_exists(sites, "correct the path" if sites == target else hint)
        sites = files.make_absolute(sites)
    with run_stages.show_progress() as progress:
        scored = probes.score_probes(resolved, store, progress, sites, adjust, nearest)
    print_scores(scored.summary)
    if figure:
        files.write_bytes(files.make_absolute(figure), _draw(scored, resolved, adjust))
        out.print(f"figure: {figure}", markup=False, highlight=False, soft_wrap=True)
    elif not adjust:
        out.print("draw the series: --figure FILE.png; all scores: --json FILE", highlight=False)
    manners.write_json(scored.summary)


def _resolve(
    target: str,
    sites: str | None,
    models: str | None,
    workspace: str,
    name: str | None,
    settings: list[str] | None,
) -> tuple[Experiment, Workspace, str]:
    """Return the experiment, its folder, and the probes that the arguments name.

    Raises:
      ConfigError: If no probes are named, or two files; or an experiment is missing.
    """
    from pipeline.experiment import shipped_models
    from pipeline.probes import columns

    if not columns.is_table(target) and not (sites is None and columns.is_catalog_entry(target)):
        if sites is None:
            hint = f"name your probes: soilweave score {target} --sites FILE.csv"
            raise ConfigError("--sites", "not given", remedy=hint)
        given = [f"models={models}"] if models else []
        return *resolve_named(target, workspace, name, [*given, *(settings or [])]), sites
    if sites is not None:
        one = sites if columns.is_catalog_entry(sites) else target
        hint = f"name one of them: soilweave score {one}; or an experiment: soilweave score "
        hint += f"EXPERIMENT --sites {one}"
        raise ConfigError("--sites", f"{target} is a table of probes, too", remedy=hint)
    models = models or shipped_models.DEFAULT
    if models not in shipped_models.list_names():
        problem = "an experiment must say where the inputs of these models are"
        hint = f"name it: soilweave score EXPERIMENT.yaml --models {models} --sites {target}"
        raise ConfigError(f"--models {models}", problem, remedy=hint)
    experiment, given = shipped_models.experiment_of_inputs(models)
    return *resolve_named(experiment, workspace, name, [*given, *(settings or [])]), target


def _draw(scored: Scored, resolved: Experiment, adjust: bool) -> bytes:
    """Return the figure of `score`, as a PNG."""
    from pipeline.evaluate.report import comparison, probe_series

    variable = resolved.table[resolved.target]
    if adjust:
        return comparison.draw_adjustment_curve(scored.summary, variable.units)
    label = resolved.target.replace("_", " ")
    return probe_series.draw_probes(scored, label, variable)


def print_scores(summary: Json) -> None:
    """Print the scores of `score`, one group of sites after the other."""
    from pipeline.cli import tables

    for group, meaning in GROUPS.items():
        if group not in summary:
            continue
        of_group = [probe for probe in summary.get("probes", ()) if probe["group"] == group]
        out.print(f"[bold]{group}[/bold]: {meaning}", highlight=False, soft_wrap=True)
        for line in tables.known_places_lines(of_group):
            out.print(line, markup=False, highlight=False, soft_wrap=True)
        group_summary = summary | summary[group]
        parts = [*tables.probe_tables(of_group, group_summary)]
        parts += tables.summary_tables(group_summary)
        if "adjustment" in group_summary:
            parts += tables.adjustment_tables(group_summary)
        for table in parts:
            out.print(table)
    lines = tables.not_scored_lines(summary["not_scored"])
    lines += tables.nearest_cell_lines(summary.get("probes", ()))
    if "experiment" in summary:
        lines.append(tables.summary_caption(summary))
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
