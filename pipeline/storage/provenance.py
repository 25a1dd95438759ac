"""The commit of the running code.

The build runs this file by itself, so it imports nothing else of the package.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

# File in the folder `pipeline` that contains the commit, in wheels, source archives and jobs.
COMMIT_FILE = "COMMIT"
PROJECT_ROOT = Path(__file__).resolve().parents[2]

# Files that every checkout of this project tracks.
TRACKED_FILES = (
    "pyproject.toml",
    "pipeline/storage/provenance.py",
)

PROJECT_NAME_LINE = 'name = "soilweave"'  # line of the project's pyproject.toml


def code_commit(root: Path = PROJECT_ROOT) -> str | None:
    """Return the commit of the code in a folder, or None if it is unknown.

    The commit that the build recorded is used if there is one. Otherwise git is asked, but only
    if the folder is the top of a checkout that tracks this code: a virtual environment or an
    unpacked archive may be inside another repository, whose commit says nothing about this code.
    """
    record = root / "pipeline" / COMMIT_FILE
    if record.exists():
        return record.read_text().strip() or None
    project = root / "pyproject.toml"
    if not project.exists() or PROJECT_NAME_LINE not in project.read_text():
        return None
    top, commit = _git(root, "rev-parse", "--show-toplevel"), _git(root, "rev-parse", "HEAD")
    if top is None or Path(top).resolve() != root.resolve():
        return None
    return commit if _git(root, "ls-files", "--error-unmatch", *TRACKED_FILES) is not None else None


def _git(root: Path, *command: str) -> str | None:
    """Return the output of a git command, or None if it fails or git is not installed."""
    # A git hook sets these variables, and git would then answer for the repository of the hook.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        completed = subprocess.run(
            ["git", "-C", str(root), *command],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return completed.stdout.strip()
