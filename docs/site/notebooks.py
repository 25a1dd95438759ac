"""Run a notebook, so that the site shows what it gives today."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nbformat
from jupyter_client.manager import AsyncKernelManager
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
    kernel = AsyncKernelManager(kernel_name="python3", transport="ipc")  # no port is opened
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, kernel, timeout=300, resources=resources).execute()
    return str(nbformat.writes(notebook))
