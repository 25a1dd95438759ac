"""The commit of the code; imports nothing else of the package, because the build runs it too."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

RECORD = "COMMIT"  # in the folder `pipeline`: written into wheels, source archives and jobs
ROOT = Path(__file__).resolve().parents[2]

OWN = (
    "pyproject.toml",
    "pipeline/storage/provenance.py",
)  # tracked in every checkout of this project

NAME = 'name = "soilweave"'


def of_code(root: Path = ROOT) -> str | None:
    """The commit of the code under a folder, None where it is not known.

    A record made by the build comes first. Git is asked only where the folder is itself the top
    of a checkout that tracks this code: an environment, or an unpacked archive, may lie inside
    somebody else's repository, whose commit says nothing about this code.
    """
    record = root / "pipeline" / RECORD
    if record.exists():
        return record.read_text().strip() or None
    project = root / "pyproject.toml"
    if not project.exists() or NAME not in project.read_text():
        return None
    top, commit = _git(root, "rev-parse", "--show-toplevel"), _git(root, "rev-parse", "HEAD")
    if top is None or Path(top).resolve() != root.resolve():
        return None
    return commit if _git(root, "ls-files", "--error-unmatch", *OWN) is not None else None


def _git(root: Path, *command: str) -> str | None:
    """What git prints, None where it fails or is not installed."""
    # Set inside a hook of another repository, these would answer for that one.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        ran = subprocess.run(
            ["git", "-C", str(root), *command],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return ran.stdout.strip()
