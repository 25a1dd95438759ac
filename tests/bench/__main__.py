"""Measure, print the table, write the JSON, and put the table into docs/benchmarks.md."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from studies.page import placed

from bench import machine
from bench.rows import Row
from bench.table import for_page, for_terminal
from pipeline.cluster import malloc
from pipeline.storage import provenance

CPU = (
    "training",
    "peers",
    "several",
    "prediction",
    "windows",
    "preparing",
    "reading",
    "publishing",
    "fixed",
    "train_parts",
    "sizes",
)

GPU = ("gpu", "gpu_prediction", "gpu_stages")
# Sections that are measured alone, and what the files and the places of their tables are called.
ALONE = {"gpu": GPU, "viewer": ("viewer",)}
ROOT = Path(__file__).resolve().parents[2]


class Context:
    """What every section is told, and where it may write."""

    def __init__(self, folder, console, quick, threads=None):
        self.folder, self.console, self.quick, self.name = folder, console, quick, ""
        self.threads = threads

    def rounds(self, quick, full):
        """How often things are compared."""
        return quick if self.quick else full

    def scratch(self, name):
        """A folder that is empty."""
        path = self.folder / "scratch" / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def told(self, what, text=""):
        """Say on one line what is measured now."""
        self.status.update(f"{self.name}: {what} {text}")


def measured(context, names):
    """{section's name: when, at which commit, on what, its rows} of every one asked for."""
    found = {}
    for name in names:
        begun, context.name = time.perf_counter(), name
        described = machine.described()
        threads = torch.get_num_threads()
        with context.console.status(name) as context.status:
            made = [row.as_dict() for row in importlib.import_module(f"bench.{name}").rows(context)]
        torch.set_num_threads(threads)
        seconds = time.perf_counter() - begun
        context.console.print(f"{name}: {len(made)} rows in {seconds:.0f} s")
        found[name] = {
            "commit": provenance.code_commit(),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 1),
            "quick": context.quick,
            "machine": described,
            "rows": made,
        }
    return found


def page(sections):
    """The tables as Markdown, each machine and commit told once."""
    parts = {}
    for section in sections.values():
        told = (
            f"{machine.in_words(section['machine'] | {'load_at_start': 0})}; commit "
            f"{(section['commit'] or '?')[:12]}, {section['at'][:10]}"
            f"{', --quick' if section['quick'] else ''}."
        ).replace("load 0 at the start; ", "")
        parts.setdefault(told, []).extend(Row.from_dict(row) for row in section["rows"])
    return "\n\n".join(f"{told}\n\n{for_page(rows)}" for told, rows in parts.items())


def main(
    folder: Annotated[Path, typer.Option(help="Where bench.json is kept.")] = Path(
        "workspace/bench"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="Few rounds: under 10 minutes.")] = False,
    gpu: Annotated[bool, typer.Option("--gpu", help="The sections that need CUDA, alone.")] = False,
    viewer: Annotated[bool, typer.Option("--viewer", help="The page in Chromium, alone.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(CPU)}; with --gpu of {', '.join(GPU)}.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of what is compared, not those of each section.")
    ] = None,
    docs: Annotated[Path, typer.Option(help="Where benchmarks.md lies.")] = ROOT / "docs",
) -> None:
    """Measure in turn, beside peers and beside the machine's own limits."""
    if gpu and not torch.cuda.is_available():
        typer.echo("bench --gpu: no CUDA device here; run it on a machine with a GPU", err=True)
        raise typer.Exit(2)
    mark = "gpu" if gpu else "viewer" if viewer else "cpu"
    known = ALONE.get(mark, CPU)
    if unknown := sorted({*(only or [])} - {*known}):
        typer.echo(
            f"bench --only {unknown[0]}: no such section; there are {', '.join(known)}", err=True
        )
        raise typer.Exit(2)
    malloc.keep_freed_memory()  # as the command line does
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(width=None if os.isatty(1) else 180)
    kept = folder / (f"bench-{mark}.json" if mark in ALONE else "bench.json")
    sections = json.loads(kept.read_text()) if only and kept.exists() else {}
    context = Context(folder.absolute(), console, quick, threads)
    for name in known:
        if only and name not in only:
            continue
        sections |= measured(context, [name])
        kept.write_text(json.dumps(sections, indent=1))
    rows = [Row.from_dict(row) for section in sections.values() for row in section["rows"]]
    console.print(for_terminal(rows, "make bench"))
    told = docs / "benchmarks.md"
    if lacking := [name for name in known if name not in sections]:
        console.print(f"{kept}; {told} is unchanged, as {', '.join(lacking)} are not measured here")
        return
    told.write_text(placed(told.read_text(), mark, page(sections), "make bench"))
    console.print(f"{kept}, {told}")


if __name__ == "__main__":
    typer.run(main)
