"""The verb `verify`, which reads every object of an experiment and says what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline import files
from pipeline.cli import manners, run_stages
from pipeline.cli.run_stages import DebugOption, NameOption, WorkspaceOption, out
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace
    from pipeline.storage.verify import Result


TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT",
        help="An experiment that was run: its folder in the workspace, the URL of this folder, or "
        "the preset or YAML file that it was run from. Or the URL of a publication.",
    ),
]

RepairOption = Annotated[
    bool, typer.Option("--repair", help="Make what is missing, damaged or stale again.")
]


def add_verify_verb(app: typer.Typer) -> None:
    """Add `verify`."""
    app.command()(verify)


def verify(
    experiment: TargetArgument,
    repair: RepairOption = False,
    workspace: WorkspaceOption = "workspace",
    name: NameOption = None,
    debug: DebugOption = False,
) -> None:
    """Read every object of an experiment and compare it with what the manifests record.

    An object is missing; or damaged: its size or SHA-256 differs; or exchanged: it has the content
    of another object; or stale: it was made from other artefacts or settings than those that are
    there; or not listed: no manifest records it. One line names each. The exit status is 1 if there
    is any, else 0.

    Of a publication, the latest release is read; the URL of a release names that one.

    Artefacts of earlier versions do not record the metadata and coordinates of Zarr stores, nor a
    digest of the manifest itself; the last line counts what could not be checked.

    With --repair, what is damaged is made again: shards of the cube and of the maps (a whole tile),
    tables and reports equal the lost ones on the same kind of machine. A model is trained again; if
    it then differs in rounding, what was made from the models is made again, too. Then everything
    is verified again. Files that soilweave does not write are left where they are.

    Example: soilweave verify demo; soilweave verify s3://bucket/workspace/demo --json found.json
    """
    store = find_store(experiment, workspace, name)
    with run_stages.signals_as_exit(), run_stages.show_progress() as progress:
        result = _verify(store, repair, progress)
        _print_result(result)
        if repair:
            from pipeline.cli import repair as repairs

            repaired = repairs.repair(store, result, progress)
            if repaired is not result:
                result = repaired
                out.print("after the repair:")
                _print_result(result)
    manners.write_json(result.as_dict())
    raise typer.Exit(1 if result.problems else 0)


def _verify(store: Workspace, repair: bool, progress: Progress) -> Result:
    """Verify an experiment, or the release at a URL.

    Raises:
      ConfigError: If a publication is to be repaired.
    """
    from pipeline.storage import publications
    from pipeline.storage import verify as verification

    release = publications.find_release(store.root)
    if release is None:
        return verification.verify_workspace(store, progress)
    if repair:
        hint = "remove the objects that verify names, and publish again: it sends them once more"
        raise ConfigError("--repair", f"{store.root} is a publication", remedy=hint)
    return publications.verify_release(release, progress)


def _print_result(result: Result) -> None:
    """Print one line for each problem, and the counts."""
    from pipeline.storage import verify as verification

    lines = [*map(str, result.problems), f"{result.root}: {verification.summary_line(result)}"]
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def find_store(experiment: str, workspace: str, name: str | None) -> Workspace:
    """Return the folder of an experiment that was run: by URL, by its name, or as its settings say.

    Raises:
      ConfigError: If the argument names no folder and no experiment.
    """
    from pipeline.storage import artefacts, publications

    if not experiment.endswith((".yaml", ".yml")):
        here = files.make_absolute(experiment).rstrip("/")
        in_workspace = files.join(files.make_absolute(workspace), name or experiment)
        url = here if "/" in experiment else in_workspace
        if files.list_folder(url):
            return artefacts.Workspace(url)
        if files.exists(files.join(here, publications.LATEST)):  # named without a slash
            return artefacts.Workspace(here)
    return run_stages.resolve_named(experiment, workspace, name, None)[1]
