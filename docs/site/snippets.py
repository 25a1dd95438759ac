"""Runs the commands and snippets of the documentation; a plugin of pytest, on Sybil.

Every block of bash, python and R of a page is run in order, in a folder of the page's own that has
what a clone has, and the workspace that all pages share. Blocks of Python share their names in a
page; blocks of bash are scripts of their own. A block below `<!-- skip: next "REASON" -->` is not
run. At the end all of them are listed.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import SkipTest

from sybil import Sybil
from sybil.integration.pytest import SybilItem
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

if TYPE_CHECKING:
    import pytest
    from sybil import Example

LONGEST = 1800  # seconds that a block may take, also on a busy machine
RUN, FAILED, NOT_RUN = "run", "FAILED", "not run"

_found: dict[str, list[tuple[str, str]]] = defaultdict(list)  # by page: what became of a block


def _run(command: list[str], text: str) -> None:
    """Run a block as a script.

    Raises:
      AssertionError: If it fails, with what it has printed.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([*command, text], start_new_session=True, **pipes) as script:
        try:
            printed, _ = script.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(script.pid, signal.SIGTERM)  # what it has started, too
            raise
    assert script.returncode == 0, f"exit status {script.returncode}\n{text}\n{printed}"


def _run_bash(example: Example) -> None:
    """Run a block of bash; a command that fails ends it."""
    _run(["bash", "-euo", "pipefail", "-c"], example.parsed)


def _run_r(example: Example) -> None:
    """Run a block of R, after the blocks before it on its page.

    Raises:
      SkipTest: If R, or a package that the page uses, is not installed.
    """
    script = "\n".join([*example.namespace.get("r_script", []), example.parsed])
    example.namespace["r_script"] = [script]
    if not shutil.which("Rscript"):
        raise SkipTest("Rscript is not installed")
    for package in re.findall(r"library\((\w+)\)", script):
        query = f'quit(status = !requireNamespace("{package}", quietly = TRUE))'
        if subprocess.run(["Rscript", "-e", query], check=False).returncode:
            raise SkipTest(f"the package {package} of R is not installed")
    _run(["Rscript", "-e"], script)


pytest_collect_file = Sybil(
    parsers=[
        CodeBlockParser("bash", _run_bash),
        CodeBlockParser("r", _run_r),
        PythonCodeBlockParser(),
        SkipParser(),
    ],
    path=str(Path(__file__).resolve().parents[1]),
    patterns=["*.md"],
).pytest()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Work in the folder of the page."""
    shared = Path(os.environ["SNIPPETS_FOLDER"])
    folder = shared / "pages" / item.path.stem
    if not folder.exists():
        folder.mkdir(parents=True)
        for each in shared.iterdir():
            if each.name != "pages":
                (folder / each.name).symlink_to(each)
    os.chdir(folder)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what became of a block."""
    is_marker = ("marker", "skip") in report.user_properties
    if report.passed and (report.when != "call" or is_marker):
        return
    page = report.nodeid.partition("::")[0]
    line = f"line {report.location[1]}"
    if report.failed:
        _found[page].append((FAILED, line))
    elif report.skipped:
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")  # type: ignore[index]
        _found[page].append((NOT_RUN, f"{line}: {reason}"))
    else:
        _found[page].append((RUN, f"{line}, {report.duration:.0f} s"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the markers out of the counts: they always pass."""
    for item in items:
        if isinstance(item, SybilItem) and isinstance(item.example.parsed, tuple):
            item.user_properties.append(("marker", "skip"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List what was run, and what was not and why."""
    write = terminalreporter.write_line
    for page, blocks in _found.items():
        counts = {kind: sum(each == kind for each, _ in blocks) for kind in (RUN, NOT_RUN, FAILED)}
        write(f"{page}: " + ", ".join(f"{n} {kind}" for kind, n in counts.items() if n))
        for kind, text in blocks:
            if kind != RUN:
                write(f"  {kind}, {text}")
