"""The verb `evaluate`: judge one experiment, or compare several."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline import console
from pipeline.console import out
from pipeline.errors import ConfigError
from pipeline.options import Debug, Name, Overwrite, Set, Workspace, resolve_named

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.store import Workspace as Place


def add_to(app: typer.Typer, run: Callable[..., None]) -> None:
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
            from pipeline.journey import STAGES

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
    from pipeline import compare, files, render
    from pipeline.figures import comparison

    form = "" if drawn is None else drawn.rpartition(".")[2].lower()
    if drawn is not None and form not in comparison.FORMS:
        raise ConfigError(f"--figure {drawn}", "expected FILE.png or FILE.svg")
    files.check_writable(into, drawn)
    places = [_place(name, workspace) for name in experiments]
    roots = [place.root for place in places]
    if twice := sorted({root.rpartition("/")[2] for root in roots if roots.count(root) > 1}):
        raise ConfigError("evaluate", f"named twice: {', '.join(twice)}")
    with console.progress() as progress:
        progress.start("compare", 1, "table")
        made = compare.run(places)
        progress.finish(f"{len(places)} experiments on {made['n_site_days']:,} site-days")
    for table in render.comparison(made):
        out.print(table)
    for note in made["notes"]:
        out.print(f"note: {note}", soft_wrap=True, highlight=False)
    if into:
        files.write_bytes(files.absolute(into), json.dumps(made, indent=1).encode())
    if drawn:
        files.write_bytes(files.absolute(drawn), comparison.forest(made, form))


def _place(name: str, workspace: str) -> Place:
    """Where it was run: in the workspace's folder of that name, else in that of a preset's."""
    from pipeline import files, store

    folder = store.Workspace(files.join(files.absolute(workspace), name))
    if "/" not in name and files.exists(folder.url("experiment.yaml")):
        return folder
    return resolve_named(name, workspace, None, None)[1]
