"""Every promise, the faults that try it, and the tests that show what happens.

The rows are data: `table/` has one file a promise. A row is one promise under one mechanism in one
stage. It names tests, and is held if all of their cases that match `cases` pass. To add a fault,
write a test and add a row.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path

import yaml

TABLE = Path(__file__).with_name("table")

# Stages that are no verb and no stage of `run`.
OTHER_STAGES = ("every stage", "MLflow", "reading maps")


@dataclass(frozen=True)
class Fault:
    """One row of the table.

    Attributes:
      name: For `--only`; unique.
      promise: What must hold.
      stage: Where the fault strikes: a stage, a verb or one of OTHER_STAGES.
      mechanism: What is done. Rows of one promise and one mechanism are one kind of fault.
      tests: Node ids of test functions, without parameters, below `tests/`.
      cases: A regular expression that the parameters of a case must contain; empty for all.
    """

    name: str
    promise: str
    stage: str
    mechanism: str
    tests: tuple[str, ...]
    cases: str = ""

    @property
    def kind(self) -> tuple[str, str]:
        """Promise and mechanism: variants in other stages count once."""
        return self.promise, self.mechanism


def read(file):
    """The rows of a file.

    A fault in several stages has `stages`, {stage: cases}, and a row for each of them, whose name
    ends with the stage.
    """
    content = yaml.safe_load(file.read_text())
    rows = []
    for given in content["faults"]:
        shared = given | {"promise": content["promise"], "tests": tuple(given["tests"])}
        stages = shared.pop("stages", None)
        if stages is None:
            rows.append(Fault(**shared))
        for stage, cases in (stages or {}).items():
            name = f"{given['name']}-{stage}"
            rows.append(Fault(**shared | {"name": name, "stage": stage, "cases": cases}))
    return rows


FAULTS = [row for file in sorted(TABLE.glob("*.yaml")) for row in read(file)]


def chosen(patterns: list[str]) -> list[Fault]:
    """The rows whose name matches one of the patterns, such as `killed-*`.

    Raises:
      KeyError: If a pattern matches no name.
    """
    for pattern in patterns:
        if not fnmatch.filter([fault.name for fault in FAULTS], pattern):
            raise KeyError(pattern)
    return [f for f in FAULTS if any(fnmatch.fnmatchcase(f.name, p) for p in patterns)]
