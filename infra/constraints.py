"""Write infra/constraints.txt: the versions that images have, as pip resolves them today.

Usage, from the repository's root: python infra/constraints.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = "3.12"  # of the image
SERVER = ("mlflow[auth]", "psycopg2-binary", "boto3")
HEADER = f"""\
# The versions of everything in an image, for Python {PYTHON} on x86-64 Linux: Ray refuses nodes
# whose versions differ. Written by: make constraints
"""


def resolve(requirements: list[str]) -> dict[str, str]:
    """Return the version of every package that pip would install, without local versions."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"]
    command += ["--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp"]
    command += ["--target=unused", "--report=-", *requirements]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    found = [item["metadata"] for item in report["install"]]
    return {each["name"].lower(): each["version"].partition("+")[0] for each in found}


def main() -> None:
    """Resolve the dependencies of the package and of the MLflow server, and write the file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["sources"], *extras["export"], *SERVER]
    lines = sorted(f"{name}=={version}" for name, version in resolve(needed).items())
    (ROOT / "infra" / "constraints.txt").write_text(HEADER + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
