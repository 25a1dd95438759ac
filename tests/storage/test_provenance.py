"""Provenance: which commit and version made something, wherever the code was installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import pipeline

ROOT = Path(__file__).resolve().parents[2]
CODE = ("model", "pipeline", "catalogs")
TELL = "from pipeline.storage import provenance; print(provenance.code_commit())"


def git(folder: Path, *command: str) -> str:
    """Run git in a folder; what it prints."""
    who = {
        f"GIT_{role}_{what}": "t@e.org"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | who
    done = subprocess.run(
        ["git", "-C", str(folder), *command],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return done.stdout.strip()


def repository(folder: Path) -> str:
    """Make all that a folder holds one commit of a new repository; its commit."""
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "all")
    return git(folder, "rev-parse", "HEAD")


def copy_code(folder: Path, *more: str) -> Path:
    """Copy the packages, and other files of the top folder that there are."""
    folder.mkdir(parents=True, exist_ok=True)
    ignored = shutil.ignore_patterns("__pycache__", "COMMIT")
    for name in CODE:
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in more:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, folder / name)
    return folder


def told(folder: Path, **environment: str) -> str:
    """The commit that the code of a folder tells."""
    here = os.environ | {"PYTHONPATH": str(folder)} | environment
    done = subprocess.run(
        [sys.executable, "-c", TELL],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env=here,
    )
    return done.stdout.strip()


PROJECT = ("pyproject.toml", "README.md", "LICENSE", "setup.py")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> tuple[Path, str]:
    """A checkout of this project, and its commit."""
    folder = copy_code(tmp_path_factory.mktemp("checkout") / "soilweave", *PROJECT)
    return folder, repository(folder)


def build(source: Path, into: Path, what: str) -> Path:
    """Build `wheel` or `sdist` of a source tree, as pip does."""
    into.mkdir(parents=True)
    code = f"import sys; from setuptools import build_meta as b; print(b.build_{what}(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(into)],
        capture_output=True,
        text=True,
        check=True,
        cwd=source,
    )
    assert "Warning" not in done.stderr, done.stderr  # of setuptools
    return into / done.stdout.splitlines()[-1]


def recorded(wheel: Path) -> str:
    """The commit recorded in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        return (
            archive.read("pipeline/COMMIT").decode().strip() if "pipeline/COMMIT" in names else ""
        )


def test_a_wheel_records_the_commit_that_it_was_built_from(checkout, tmp_path):
    source, commit = checkout
    wheel = build(source, tmp_path / "wheel", "wheel")
    assert recorded(wheel) == commit
    assert git(source, "status", "--porcelain", "--", "pipeline") == ""
    with zipfile.ZipFile(wheel) as archive:
        held = {
            name for name in archive.namelist() if name.startswith(tuple(f"{c}/" for c in CODE))
        }
        archive.extractall(tmp_path / "installed")
    tracked = git(source, "ls-files", "--", *CODE).splitlines()
    assert held == {*tracked, "pipeline/COMMIT"}  # data are there too, and nothing else
    repository(tmp_path)
    assert told(tmp_path / "installed") == commit


def test_a_wheel_built_from_a_source_archive_has_its_commit(checkout, tmp_path):
    source, commit = checkout
    archive = build(source, tmp_path / "sdist", "sdist")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.glob("soilweave-*")
    repository(tmp_path)  # somebody else's, which tracks the unpacked archive
    assert recorded(build(unpacked, tmp_path / "wheel", "wheel")) == commit


def test_a_checkout_tells_its_commit_even_inside_a_hook_of_another(checkout, tmp_path):
    source, commit = checkout
    other = repository(tmp_path)
    assert commit != other
    assert told(source) == commit
    assert told(source, GIT_DIR=str(tmp_path / ".git")) == commit


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("place", ["venv/lib/site-packages", "."])
def test_the_commit_of_a_repository_around_the_environment_is_not_told(tmp_path, place, tracked):
    """Installed without a record into somebody else's repository: the commit is not known."""
    around = tmp_path / "theirs"
    around.mkdir()
    (around / "pyproject.toml").write_text('[project]\nname = "theirs"\n')
    if not tracked:
        repository(around)
    installed = copy_code(around / place)
    if tracked:
        repository(around)
    assert told(installed) == "None"


JOB = """
import importlib.metadata as metadata
def of_nodes(name, inner=metadata.version):
    if name == "soilweave":
        raise metadata.PackageNotFoundError(name)
    return inner(name)
metadata.version = of_nodes  # the nodes of a cluster have Ray and torch; soilweave is uploaded
import sys
from pipeline.experiment import load
from pipeline.evaluate.report import provenance
from pipeline.storage.artefacts import Workspace
found = provenance.provenance(load.load_experiment("experiment.yaml"), Workspace(sys.argv[1]))
print(found["versions"]["soilweave"])
"""


def test_a_report_made_in_a_job_tells_the_version(tmp_path):
    """A job runs uploaded code: there is no installed distribution that has a version."""
    from pipeline.cluster import submit

    folder = tmp_path / "job"
    folder.mkdir()
    submit.collect_upload(submit.JobSpec("demo", "run", "s3://bucket/ws"), folder)
    done = subprocess.run(
        [sys.executable, "-c", JOB, str(tmp_path / "empty")],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
    )
    assert done.stdout.strip() == pipeline.__version__
    assert done.stderr.strip().rpartition("\n")[2] == ""
