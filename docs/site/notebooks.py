"""Run a notebook, so that the site shows what it gives today."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nbformat
from nbclient import NotebookClient

if TYPE_CHECKING:
    from pathlib import Path


def run(text: str, folder: Path) -> str:
    """Return a notebook with the outputs of its cells.

    Args:
      text: The notebook, as JSON.
      folder: Where its cells run: a folder with a workspace in it.

    Raises:
      CellExecutionError: If a cell fails.
    """
    notebook = nbformat.reads(text, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    waits = {"timeout": 600, "startup_timeout": 600}
    quiet = ["--log-level=40"]  # it warns of its port on the loopback interface
    NotebookClient(notebook, resources=resources, extra_arguments=quiet, **waits).execute()
    return str(nbformat.writes(notebook))
