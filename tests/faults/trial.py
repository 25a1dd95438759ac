"""Run the tests of rows, and tell of each row how often it was tried and how it ended."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import typer

ROOT = Path(__file__).resolve().parents[2]
# The marks of a session's tests.
SESSIONS = {"quick": "not cluster and not runs", "runs": "runs", "cluster": "cluster"}
SESSION_S = 3600


@dataclass(frozen=True)
class Case:
    """A test case that ran.

    Attributes:
      function: Node id below `tests/`, without parameters.
      parameters: What stands in brackets after it.
      tried: How often the case says it has tried the fault, by `record_property`; else 1.
      broken: First line of what went wrong; empty if nothing did.
      skipped: Why it did not run; empty if it did.
    """

    function: str
    parameters: str = ""
    tried: int = 1
    broken: str = ""
    skipped: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a row: tries, those that held, and what is wrong or missing."""

    tried: int
    held: int
    broken: str = ""
    skipped: str = ""

    @property
    def text(self):
        """For the table."""
        if self.broken:
            return f"BROKEN: {self.broken}"
        if not self.tried:
            return f"not tried: {self.skipped}"
        left = f"; not tried: {self.skipped}" if self.skipped else ""
        return f"held, {self.held} of {self.tried}{left}"


UNTRIED = Outcome(0, 0, skipped="not run yet")


def run(faults, folder):
    """Run the tests of all rows; the cases, from one session of pytest after the other."""
    tests = sorted({test for fault in faults for test in fault.tests})
    cases = []
    for name, marks in SESSIONS.items():
        report = folder / f"{name}.xml"
        report.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-q", "-m", marks, "-p", "no:cacheprovider"]
        command += ["-o", "junit_family=xunit1", f"--junitxml={report}"]
        command += ["-o", "faulthandler_timeout=900", "--durations=0", "--no-header", "-r", "fE"]
        try:
            subprocess.run(
                [*command, *(f"tests/{test}" for test in tests)],
                cwd=ROOT,
                timeout=SESSION_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            typer.echo(f"the session of {name} did not end in {SESSION_S} s")
        if report.exists():
            cases += read(report)
    return cases


def read(report):
    """The cases that a report of pytest tells of."""
    return [_case(element) for element in ET.parse(report).iter("testcase")]


def _case(element):
    name, _, parameters = element.get("name").partition("[")
    file = (element.get("file") or f"{element.get('classname').replace('.', '/')}.py").removeprefix(
        "tests/"
    )
    tried = 1
    for told in element.iter("property"):
        if told.get("name") == "tried":
            tried = int(told.get("value"))
    wrong = [*element.findall("failure"), *element.findall("error")]
    skipped = element.find("skipped")
    return Case(
        f"{file}::{name}",
        parameters.removesuffix("]"),
        tried,
        first_line(wrong[0].get("message") or "?") if wrong else "",
        "" if skipped is None else first_line(skipped.get("message") or "?"),
    )


def first_line(text):
    """The first line of a text, short enough for a table."""
    return text.strip().splitlines()[0][:200] if text.strip() else "?"


def outcome(fault, cases):
    """What became of a row, from all cases that ran."""
    tried = held = 0
    broken, skipped = "", ""
    for test in fault.tests:
        of_test = [case for case in cases if case.function == test]
        matching = [case for case in of_test if re.search(fault.cases, case.parameters)]
        if not matching:
            broken = broken or f"{test} did not run"
        for case in matching:
            if case.skipped:
                skipped = case.skipped
                continue
            tried += case.tried
            if case.broken:
                broken = broken or case.broken
            else:
                held += case.tried
    return Outcome(tried, held, broken, skipped)
