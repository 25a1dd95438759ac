"""Try every fault of the registry, print the table, and put it into docs/reliability.md."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from bench import machine
from rich.console import Console
from studies.page import placed

from faults import page, registry, trial
from pipeline.storage import provenance

ROOT = Path(__file__).resolve().parents[2]


def here(seconds):
    """When, at which commit and on what something was tried, and how long it took."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": (provenance.code_commit() or "?")[:12],
        "machine": machine.in_words(machine.described() | {"load_at_start": 0}).replace(
            "load 0 at the start; ", ""
        ),
        "minutes": round(seconds / 60, 1),
    }


def main(
    list_: Annotated[bool, typer.Option("--list", help="Name the rows; try nothing.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Rows of this name or pattern, such as killed-*; others stay as they are."
        ),
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
    folder.mkdir(parents=True, exist_ok=True)
    cases = trial.run(faults, folder.absolute())
    outcomes = {fault.name: trial.outcome(fault, cases) for fault in faults}
    console.print(page.for_terminal(faults, outcomes))
    file = folder / "faults.json"
    kept = json.loads(file.read_text()) if only and file.exists() else {}
    where = here(time.monotonic() - begun)
    kept |= {name: {"outcome": asdict(found), "where": where} for name, found in outcomes.items()}
    file.write_text(json.dumps(kept, indent=1))
    target = docs / "reliability.md"
    untried_here = {
        fault.name for fault in registry.FAULTS
    } - kept.keys()  # the page may have outcomes of theirs
    if not untried_here:
        target.write_text(placed(target.read_text(), "faults", page.written(kept), "make faults"))
    unchanged = (
        f" is unchanged: {len(untried_here)} rows were not tried here" if untried_here else ""
    )
    console.print(f"{page.summary(faults, outcomes)}: {file}, {target}{unchanged}")
    if any(found.broken for found in outcomes.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
