"""Run what is not run yet, draw the figures, and put the tables into docs/studies.md."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from studies import arms, bias, refinement, sites
from studies.case import results
from studies.page import placed

STUDIES = {"arms": arms, "sites": sites, "bias": bias, "refinement": refinement}
ROOT = Path(__file__).resolve().parents[2]


def main(
    folder: Annotated[Path, typer.Option(help="Where cases are kept.")] = Path("workspace/studies"),
    docs: Annotated[Path, typer.Option(help="Where studies.md and figures lie.")] = ROOT / "docs",
    first: Annotated[int, typer.Option(help="First planet.")] = 100,
    planets: Annotated[int, typer.Option(help="Planets of the study of arms.")] = 8,
    few: Annotated[int, typer.Option(help="Planets of the studies of sites and bias.")] = 4,
    only: Annotated[list[str] | None, typer.Option(help="These studies, not all.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value of all.")] = None,
) -> None:
    """Four studies; cases that are done are read, not run again."""
    chosen = only or list(STUDIES)
    seeds = {name: range(first, first + (planets if name == "arms" else few)) for name in STUDIES}
    cases = [case for name in chosen for case in STUDIES[name].cases(seeds[name])]
    found = results(cases, folder.absolute(), settings or [])
    page = docs / "studies.md"
    for name in chosen:
        written = STUDIES[name].report(found, seeds[name], docs)
        page.write_text(placed(page.read_text(), name, written, "make studies"))
        print(f"\n{written}")


if __name__ == "__main__":
    typer.run(main)
