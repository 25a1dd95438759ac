"""Large planets through all verbs, as `make conus globe growth` has measured them before."""

from __future__ import annotations

import json

from bench import growth_page
from bench.rows import Aim, Row

SECTION = "large planets, by make conus globe growth"
KEPT = "conus.json"
ROLES = ("worker", "driver")
AREA, YEARS = 2.1, 1.1  # at most: time of twice the area, memory of twice the years
ALL = Aim(1.0, least=False, of_ratio=False, floor=0.5)  # of the memory that `plan` promised


def rows(context):
    """A row of every stage of every run, then what two runs together say."""
    path = context.folder / KEPT
    if not path.exists():
        return
    runs = json.loads(path.read_text())
    for name, run in runs.items():
        yield from _of_run(name, run)
    if (grown := growth_page.area(runs)) is not None:
        yield Row(
            SECTION,
            f"time of {grown.area:.2f} times the area, all verbs",
            "s",
            [runs["conus"]["seconds"]],
            "half of CONUS",
            [runs["half"]["seconds"]],
            Aim(AREA, least=False),
            way="what grows faster than the cells",
        )
    if {"quarter", "quarter, four years"} <= runs.keys():
        yield from _years(runs["quarter"], runs["quarter, four years"])


def _of_run(name, run):
    for stage, found in run["stages"].items():
        for role in ROLES:
            share = found.get("of_promised", {}).get(role)
            if share is None:
                continue
            yield Row(
                SECTION,
                f"{name}, {stage}: memory of the {role} of what plan promised",
                "",
                [share],
                aim=ALL,
                way="plan promises more than is needed"
                if share < 1
                else "plan promises too little",
                note=_told(run, found),
            )


def _told(run, found):
    rows, cols = run["cells"]
    return (
        f"{rows} x {cols} cells, {run['days']} days: {found['seconds']:,.0f} s, "
        f"{found['megabytes']:,.0f} MB in {found['objects']:,} objects, {found['all_mb']:,} MB of "
        "memory in all"
    )


def _years(two, four):
    for stage, found in two["stages"].items():
        for role in ROLES:
            before, after = found[role], four["stages"].get(stage, {}).get(role)
            if before and after:
                yield Row(
                    SECTION,
                    f"{stage}, memory of the {role} at four years",
                    "MB",
                    [after["own_mb"]],
                    "at two years",
                    [before["own_mb"]],
                    Aim(YEARS, least=False),
                    way="something is kept for every day",
                )
