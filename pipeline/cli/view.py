"""The verb `view`, which shows maps in a browser."""

from __future__ import annotations

import contextlib
import webbrowser
from typing import Annotated
from urllib.parse import urlencode

import typer

from pipeline import files
from pipeline.cli import run_stages, verify
from pipeline.cli.run_stages import DebugOption, NameOption, WorkspaceOption, out

ArmOption = Annotated[
    str | None,
    typer.Option(help="The arm to show first; by default multiscale, or else the first."),
]

PortOption = Annotated[
    int, typer.Option(min=0, max=65535, help="Port of the server; by default any that is free.")
]

BrowserOption = Annotated[
    bool, typer.Option("--no-browser", help="Print the address only, and open no browser.")
]


def add_view_verb(app: typer.Typer) -> None:
    """Add `view`."""
    app.command()(view)


def view(
    experiment: verify.TargetArgument,
    arm: ArmOption = None,
    port: PortOption = 0,
    no_browser: BrowserOption = False,
    workspace: WorkspaceOption = "workspace",
    name: NameOption = None,
    debug: DebugOption = False,
) -> None:
    """Show the maps in a browser: values with intervals and flags, days, series, sites.

    A server on this machine reads the maps where they are, in a folder, in a bucket or over HTTP,
    with the keys that other verbs use, and only this machine's browser is answered. It runs until
    Ctrl-C. A publication can also have the same page beside it, for everybody:
    `soilweave publish --viewer`.

    Example: soilweave view demo; soilweave view s3://bucket/demo --arm insitu --no-browser
    """
    from pipeline import viewer
    from pipeline.storage.artefacts import Workspace
    from pipeline.viewer import shown

    url = experiment if "://" in experiment else verify.find_store(experiment, workspace, name).root
    url = files.make_absolute(url).rstrip("/")
    found = viewer.find_shown(url, Workspace(url))
    shown.check_arm(found, arm, url)
    server = viewer.Server(found, port)
    address = server.url + (f"?{urlencode({'arm': arm})}" if arm else "")
    out.print(f"{url} is shown at {address} until Ctrl-C", soft_wrap=True, highlight=False)
    if not no_browser:
        webbrowser.open(address)
    stopped = contextlib.suppress(KeyboardInterrupt)
    with contextlib.closing(server), run_stages.signals_as_exit(), stopped:
        server.wait()
