"""Large planets through all verbs: time, memory, bytes and objects of every stage.

Each verb runs as a person would run it, a process of its own; what its driver and Ray's workers
hold is sampled, and held against what `soilweave plan` promised before. `make conus`, `make globe`
and `make growth` run it; results go into one JSON file, run by run.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import psutil
import typer
from studies.page import placed

from bench import growth_page, watch
from pipeline.doctor import plan
from pipeline.experiment import load
from pipeline.storage import provenance
from pipeline.storage.artefacts import Workspace

if TYPE_CHECKING:
    from pipeline.experiment.config import Experiment

YEARS = ("period", "train_period", "test_period")
QUARTER = ["domain.east_degrees=-95.8", "domain.south_degrees=36.0"]

# By name: the preset, and what is set otherwise.
RUNS: dict[str, tuple[str, list[str]]] = {
    "conus": ("load", []),
    "half": ("load", ["domain.east_degrees=-95.8"]),
    "quarter": ("load", QUARTER),
    "quarter, four years": (
        "load",
        [*QUARTER, *(f"{key}=[2017-01-01, 2020-12-31]" for key in YEARS)],
    ),
    "globe": ("load-globe", []),
}

# Verbs, with the artefacts that each makes.
VERBS = {
    "prepare": ("planet", "cube", "folds"),
    "train": ("models",),
    "predict": ("maps",),
    "evaluate": ("scores", "report"),
}


def main(
    runs: Annotated[list[str] | None, typer.Argument(help=f"Any of {', '.join(RUNS)}.")] = None,
    folder: Annotated[Path, typer.Option(help="Where workspaces are made.")] = Path("workspace"),
    results: Annotated[Path, typer.Option(help="JSON that results are added to.")] = Path(
        "workspace/bench/conus.json"
    ),
    docs: Annotated[Path | None, typer.Option(help="Where scaling.md lies.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value of all.")] = None,
    keep: Annotated[bool, typer.Option(help="Keep the workspaces.")] = False,
) -> None:
    """Run planets from nothing to a report, and add what was measured to the results.

    Of no run: hold what was measured before against what is promised now.
    """
    if not runs:
        stored = json.loads(results.read_text())
        for made in stored.values():
            promised = _promised(load.load_experiment(made["preset"], made["settings"]))
            for stage, found in made["stages"].items():
                found |= _held_against(found, promised.get(stage))
        _keep(stored, results, docs)
    for name in runs or []:
        preset, changes = RUNS[name]
        made = measured(preset, [*changes, *(settings or [])], folder.absolute() / "growth", name)
        stored = json.loads(results.read_text()) if results.exists() else {}
        _keep(stored | {name: made}, results, docs)
        if not keep:
            shutil.rmtree(folder.absolute() / "growth" / _plain(name), ignore_errors=True)
        if made["failed"]:
            sys.exit(f"{name}: {made['failed']} failed; see its log in {folder}/growth")


def _keep(stored: dict[str, Any], results: Path, docs: Path | None) -> None:
    """Write the results, and the page where it is wanted."""
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(stored, indent=1))
    written = growth_page.page(stored)
    typer.echo(written)
    if docs is not None and (lacking := sorted(RUNS.keys() - stored.keys())):
        typer.echo(
            f"{docs / 'scaling.md'} is unchanged, as {', '.join(lacking)} are not in {results}"
        )
    elif docs is not None:
        page = docs / "scaling.md"
        page.write_text(placed(page.read_text(), "growth", written, "make conus globe growth"))


def _promised(experiment: Any) -> dict[str, plan.StageWork]:
    """What `soilweave plan` says, stage by stage."""
    sizes = plan.experiment_sizes(experiment)
    every = plan.estimate_work(experiment, sizes, plan.measure_pace(experiment, sizes.features))
    return {work.stage: work for work in every}


def measured(preset: str, settings: list[str], folder: Path, name: str) -> dict[str, Any]:
    """One planet through all verbs."""
    experiment = load.load_experiment(preset, settings, _plain(name))
    sizes, promised = plan.experiment_sizes(experiment), _promised(experiment)
    workspace = Workspace(str(folder / experiment.name))
    shutil.rmtree(workspace.root, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{experiment.name}.log"
    made: dict[str, Any] = {
        "preset": preset,
        "settings": settings,
        "commit": (provenance.code_commit() or "")[:12],
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "cells": [sizes.rows, sizes.cols],
        "days": sizes.days,
        "stages": {},
        "failed": None,
    }
    options = [part for setting in settings for part in ("--set", setting)]
    for verb, artefacts in VERBS.items():
        command = [Path(sys.executable).parent / "soilweave", verb, preset, *options]
        command += ["--name", experiment.name, "--workspace", folder]
        seen = watch.run([str(part) for part in command], log, dict(os.environ))
        if seen.status:
            made["failed"] = verb
            break
        for stage, found in _stages(verb, artefacts, workspace, seen).items():
            made["stages"][stage] = found | _held_against(found, promised.get(stage))
    made["seconds"] = round(sum(s["seconds"] for s in made["stages"].values()), 1)
    return made


def _stages(
    verb: str, artefacts: tuple[str, ...], workspace: Workspace, seen: watch.Watched
) -> dict[str, Any]:
    """What was measured of a verb; the planet, which `prepare` makes first, by itself."""
    parts = {verb: artefacts}
    edges = {verb: (seen.begun, seen.begun + seen.seconds)}
    if verb == "prepare":
        made = workspace.artefact("planet").manifest() or {}
        middle = datetime.datetime.fromisoformat(made["created"]).timestamp() + 1
        parts = {"planet": artefacts[:1], "prepare": artefacts[1:]}
        edges = {"planet": (seen.begun, middle), "prepare": (middle, edges[verb][1])}
    found = {}
    for stage, names in parts.items():
        since, until = edges[stage]
        found[stage] = {
            "seconds": round(until - since, 1),
            "driver": seen.peak("driver", since, until),
            "worker": seen.peak("worker", since, until),
            "all_mb": round(seen.total_mb),
            **written(workspace, names),
        }
    return found


def written(workspace: Workspace, names: tuple[str, ...]) -> dict[str, Any]:
    """Objects and megabytes of artefacts, as their manifests record them."""
    manifests = [workspace.artefact(name).manifest() or {} for name in names]
    shards = [shard for manifest in manifests for shard in manifest.get("shards", [])]
    return {
        "objects": len(shards),
        "empty": sum(len(manifest.get("empty", [])) for manifest in manifests),
        "megabytes": round(sum(shard["size"] for shard in shards) / 1e6, 1),
    }


def cells(experiment: Experiment) -> tuple[int, int]:
    """Rows and columns of the map."""
    sizes = plan.experiment_sizes(experiment)
    return sizes.rows, sizes.cols


def _held_against(found: dict[str, Any], promised: plan.StageWork | None) -> dict[str, Any]:
    if promised is None:
        return {}
    told = promised.memory._asdict()
    shares = {
        role: round(found[role]["own_mb"] / megabytes, 2)
        for role, megabytes in told.items()
        if found[role] and megabytes
    }
    return {"promised_mb": {role: round(mb) for role, mb in told.items()}, "of_promised": shares}


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "gigabytes": round(psutil.virtual_memory().total / 1e9, 1),
        "processor": platform.processor() or platform.machine(),
        "load_before": round(os.getloadavg()[0], 1),
    }


def _plain(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-")


if __name__ == "__main__":
    typer.run(main)
