"""The verb `publish`, which puts an experiment's results where others read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import manners, run_stages, verify
from pipeline.cli.run_stages import DebugOption, NameOption, WorkspaceOption, out
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.progress import Progress


MIN_KEEP = 2  # releases: readers may have opened the one before the latest a moment ago

ExperimentOption = Annotated[
    str | None,
    typer.Argument(
        help="An experiment that was run: its folder in the workspace, the URL of this folder, or "
        "the preset or YAML file that it was run from. Not needed with --rollback."
    ),
]

ToOption = Annotated[
    str,
    typer.Option(
        "--to", metavar="URL", help="Folder, or prefix of a bucket, for releases of the experiment."
    ),
]

KeepOption = Annotated[
    int | None,
    typer.Option(
        min=MIN_KEEP,
        help="Keep this many releases, the latest and those before it, and remove all others. "
        "By default all are kept.",
    ),
]

RollbackOption = Annotated[
    bool, typer.Option("--rollback", help="Make the release before the latest the latest again.")
]

ViewerOption = Annotated[
    bool,
    typer.Option("--viewer", help="Put a page beside the releases that shows the latest one."),
]


def add_publish_verb(app: typer.Typer) -> None:
    """Add `publish`."""
    app.command()(publish)


def publish(
    to: ToOption,
    experiment: ExperimentOption = None,
    keep: KeepOption = None,
    rollback: RollbackOption = False,
    viewer: ViewerOption = False,
    workspace: WorkspaceOption = "workspace",
    name: NameOption = None,
    debug: DebugOption = False,
) -> None:
    """Publish maps, scores, report, series at sites and a model card as a release.

    A release is stored in URL/releases/ID and never changes. Once it is complete and verified,
    URL/latest.json is switched to it, so that a reader sees the release before or this one, and
    nothing in between. What the release before has already is copied on the server: after an
    `update`, only what has changed is sent. If nothing has changed, nothing is written.

    A publisher that was interrupted changes nothing for readers, and the same command continues.
    Of two publishers at once, one is told that the other is at work.

    Licence, creator, DOI and references are the settings `product` of the experiment. Given a YAML
    file, its own are stated, also if the experiment was run before they were known. With --viewer,
    URL/index.html shows the latest release to whoever may read it over HTTP.

    `soilweave verify URL` reads the latest release and compares it with its manifest.
    `pipeline.api.open_maps(URL)` opens its maps; any reader of Zarr can open them at the path that
    latest.json names.

    Example: soilweave publish demo --to s3://bucket/demo --keep 7;
    soilweave publish --to s3://bucket/demo --rollback
    """
    from pipeline import publish as publishing
    from pipeline import viewer as viewing
    from pipeline.storage import publications

    if experiment is None and not rollback:
        raise ConfigError("arguments", "expected EXPERIMENT, or --rollback")
    if rollback and keep is not None:
        raise ConfigError("--keep", "does not apply to --rollback, which removes nothing")
    with run_stages.signals_as_exit(), run_stages.show_progress() as progress:
        if experiment is None or rollback:
            release = publishing.roll_back(to, progress)
        else:
            release = _publish(experiment, workspace, name, to, keep, progress)
        page = viewing.put_beside(to) if viewer else ""
    out.print(f"Release: {publications.release_url(to, release)}", soft_wrap=True, highlight=False)
    out.print(f'  maps: pipeline.api.open_maps("{to}")', soft_wrap=True, highlight=False)
    if page:
        out.print(f"  viewer: {page}", soft_wrap=True, highlight=False)
    manners.write_json({"release": release, "url": publications.release_url(to, release)})


def _publish(
    experiment: str, workspace: str, name: str | None, to: str, keep: int | None, progress: Progress
) -> str:
    """Publish an experiment that was run; return the id of the release."""
    from pipeline import publish as publishing

    store, product = verify.find_store(experiment, workspace, name), None
    if experiment.endswith((".yaml", ".yml")):
        product = run_stages.resolve_named(experiment, workspace, name, None)[0].product
    return publishing.publish(store, to, progress, keep, product)
