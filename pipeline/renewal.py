"""The verb `update`: new days for an experiment that was run."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.errors import ConfigError
from pipeline.options import Debug, Name, Set, Workspace, resolve_named

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.config import Experiment as Resolved
    from pipeline.store import Workspace as Place


def add_to(app: typer.Typer, run: Callable[..., None]) -> None:
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
        from pipeline.journey import STAGES

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
) -> tuple[Resolved, Place]:
    """The experiment as its folder describes it, with the settings it was run with, else as given.

    `--set` goes over those.
    """
    from pipeline import files, resolve, store

    folder = store.Workspace(files.join(files.absolute(workspace), name or experiment))
    described = folder.url("experiment.yaml")
    if "/" not in experiment and files.exists(described):
        experiment, name = described, None
    elif not (
        "/" in experiment
        or experiment in resolve.presets("experiments")
        or experiment.endswith((".yaml", ".yml"))
    ):
        remedy = f"run it first, or see what there is in {workspace} and among presets"
        raise ConfigError(f"experiment '{experiment}'", "was not run here", remedy=remedy)
    return resolve_named(experiment, workspace, name, settings)
