"""Try every fault of the registry, print the table, and put it into docs/reliability.md."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from bench import machine
from rich.console import Console
from studies.page import placed

from faults import page, registry, trial
from pipeline.storage import artefacts

ROOT = Path(__file__).resolve().parents[2]


def told(seconds):
    """When, on what and at which commit the table was made, and how long it took."""
    words = machine.in_words(machine.described())
    commit = (artefacts.git_commit() or "?")[:12]
    when = datetime.now(UTC).isoformat(timespec="minutes")
    return f"{when}, commit {commit}, {seconds / 60:.0f} minutes on {words}."


def main(
    list_: Annotated[bool, typer.Option("--list", help="Name the rows; try nothing.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Rows of this name, or of a pattern such as killed-*; no page."),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where the reports of pytest are kept.")] = Path(
        "workspace/faults"
    ),
    docs: Annotated[Path, typer.Option(help="Where reliability.md lies.")] = ROOT / "docs",
) -> None:
    """Try every fault; the exit status is 1 if a promise is broken."""
    console = Console(width=None if os.isatty(1) else 180)
    try:
        faults = registry.chosen(only or ["*"])
    except KeyError as error:
        typer.echo(f"faults --only {error.args[0]}: no such row; --list names them", err=True)
        raise typer.Exit(2) from error
    if list_:
        console.print(page.for_terminal(faults))
        return
    begun = time.monotonic()
    cases = trial.run(faults, folder.absolute())
    outcomes = {fault.name: trial.outcome(fault, cases) for fault in faults}
    console.print(page.for_terminal(faults, outcomes))
    line = page.summary(faults, outcomes)
    console.print(line)
    if not only:
        written = f"{told(time.monotonic() - begun)}\n\n{line}.\n\n"
        target = docs / "reliability.md"
        text = placed(
            target.read_text(), "faults", written + page.for_page(faults, outcomes), "make faults"
        )
        target.write_text(text)
        console.print(str(target))
    if any(found.broken for found in outcomes.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
