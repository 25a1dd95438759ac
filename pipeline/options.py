"""Arguments and options that verbs share, and what they name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.config import Experiment as Resolved
    from pipeline.store import Workspace as Place

Experiment = Annotated[
    str, typer.Argument(help="An experiment: a preset (see `soilweave ls`), a file.yaml or a URL.")
]
Workspace = Annotated[
    str, typer.Option(help="Folder or URL that holds every experiment's artefacts.")
]
Name = Annotated[
    str | None, typer.Option(help="Folder in the workspace, instead of the experiment's own name.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace artefacts that were made with other settings.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value over the experiment, such as train.updates=50."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def resolve_named(
    experiment: str, workspace: str, name: str | None, settings: list[str] | None
) -> tuple[Resolved, Place]:
    """The experiment that a verb is given, and its place in the workspace."""
    from pipeline import files, resolve, store

    resolved = resolve.experiment(experiment, settings or [], name)
    place = store.Workspace(files.join(files.absolute(workspace), resolved.name))
    return place.place(resolved), place
