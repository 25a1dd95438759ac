"""What a contributor is told, and what checks a contribution: it agrees with what is there."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
NAMED = sorted(set(re.findall(r"(?:catalogs|model|pipeline|tests|docs)/[\w./-]*[\w/]", PAGE)))


@pytest.mark.parametrize("path", NAMED)
def test_what_the_page_names_exists(path):
    assert (ROOT / path).exists()


def test_the_hooks_run_what_make_lint_runs():
    """`ruff format` alone differs: a hook formats what `make lint` only checks."""
    rule = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    lint = [line.strip().replace("$(BIN)", ".venv/bin") for line in rule[1].splitlines()]
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"  # nothing is fetched from elsewhere
    hooks = [hook["entry"] + " ." * hook.get("pass_filenames", True) for hook in repo["hooks"]]
    assert hooks == [command.replace(" --check", "") for command in lint]
    assert {hook["language"] for hook in repo["hooks"]} == {"system"}


def test_the_workflow_tests_on_the_oldest_python_that_is_supported():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    assert set(workflow[True]) == {"push", "pull_request"}  # YAML 1.1 reads the key `on` as true
    (job,) = workflow["jobs"].values()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pythons = job["strategy"]["matrix"]["python"]
    assert pythons == [project["requires-python"].removeprefix(">="), "3.13"]
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands == ["make test", "make test-servers"]
