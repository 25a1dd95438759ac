"""What was tried, one change at a time: every variant on layout A of scan and on planets 0-4.

Each arm gets every variant. Results that are there are read, not made again; the tables go into
docs/experiments.md. Usage: PYTHONPATH=tests python -m studies.trials --help
"""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import track

from model import metrics
from pipeline.cluster import ray_cluster
from pipeline.experiment import load
from pipeline.prepare import folds
from pipeline.prepare import stage as prepare_stage
from pipeline.progress import SilentProgress
from pipeline.storage.artefacts import Workspace
from studies import text, trial, world
from studies.case import INPUTS
from studies.page import placed
from studies.variants import BASE, SHORT, VARIANTS

ROOT = Path(__file__).resolve().parents[2]
SITES = "sites"
ASIDE = {"correlation": 3, "rmse": 4, "ubrmse": 4}


def settings(variant, hidden):
    """Of a variant, over the short form."""
    return [*SHORT, *(s.replace("{half}", str(hidden // 2)) for s in variant.settings)]


def run(folder, name, where):
    """Make one result and keep it."""
    variant = VARIANTS[name]
    if where == SITES:
        made = trial.at_sites(folder, variant, settings(variant, 128))
    else:
        made = trial.on_planet(folder, where, variant, [*settings(variant, 64), INPUTS])
    kept(folder, name, where).write_text(json.dumps(made))


def kept(folder, name, where):
    """Where a result lies."""
    return folder / "trials" / f"{name.replace(' ', '-')}-{where}.json"


def prepared(folder, planets):
    """The cubes that all variants share."""
    (folder / "trials").mkdir(parents=True, exist_ok=True)
    with ray_cluster.connected():
        workspace = Workspace(str(folder / "scan-tuning"))
        experiment = workspace.place(load.load_experiment("scan-tuning"))
        for stage in (prepare_stage, folds):
            stage.run(experiment, workspace, SilentProgress())
        workspace.lease.release()
        for seed in planets:
            world.World(folder, f"planet{seed}", [f"planet.seed={seed}"])


def site_line(folder, name):
    """Medians of a variant at sites and paired differences to the base, a row per arm."""
    made = json.loads(kept(folder, name, SITES).read_text())
    base = json.loads(kept(folder, BASE, SITES).read_text())
    lines = []
    for arm in trial.ARMS:
        line = [name, arm]
        for metric, digits in ASIDE.items():
            mine, first = (np.array(m["arms"][arm][metric], float) for m in (made, base))
            line.append(f"{np.nanmedian(mine):.{digits}f}")
            found = metrics.paired_difference(mine, first, np.array(made["block"]))
            low, high = found["ci95"]
            told = f"{found['median_difference']:+.4f} [{low:+.4f}, {high:+.4f}]"
            line.append("" if name == BASE else told)
        lines.append(line)
    return lines


def planet_line(folder, name, planets):
    """Mean over planets of a variant's differences to the base, with t intervals."""
    made, base = (
        [json.loads(kept(folder, n, p).read_text())["arms"] for p in planets] for n in (name, BASE)
    )
    lines = []
    for arm in trial.ARMS:
        line = [name, arm]
        for metric, digits in ASIDE.items():
            mine, first = ([m[arm][metric] for m in many] for many in (made, base))
            line.append(f"{np.mean(mine):.{digits}f}")
            told = text.told(*text.interval(np.subtract(mine, first)))
            line.append("" if name == BASE else told)
        lines.append(line)
    return lines


def main(
    folder: Annotated[Path, typer.Option(help="Where results are kept.")] = Path(
        "workspace/trials"
    ),
    docs: Annotated[Path, typer.Option(help="Where experiments.md lies.")] = ROOT / "docs",
    planets: Annotated[int, typer.Option(help="Planets, from 0 on.")] = 5,
    workers: Annotated[int, typer.Option(help="Processes, of one thread each.")] = 2,
    only: Annotated[list[str] | None, typer.Option(help="These variants, not all.")] = None,
) -> None:
    """Run what is not run yet, then put the tables into docs/experiments.md."""
    folder, seeds = folder.absolute(), range(planets)
    chosen = list(dict.fromkeys([BASE, *(only or VARIANTS)]))
    prepared(folder, seeds)
    todo = [
        (name, where)
        for where in (SITES, *seeds)
        for name in chosen
        if not kept(folder, name, where).exists()
    ]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        jobs = [pool.submit(run, folder, *case) for case in todo]
        for job in track(as_completed(jobs), "trials", total=len(jobs)):
            job.result()
    header = ["", "arm", "R", "change", "RMSE", "change", "ubRMSE", "change"]
    page = docs / "experiments.md"
    at_sites = [name for name in VARIANTS if kept(folder, name, SITES).exists()]
    everywhere = [n for n in VARIANTS if all(kept(folder, n, p).exists() for p in seeds)]
    for title, lines in (
        ("sites", [line for name in at_sites for line in site_line(folder, name)]),
        ("planets", [line for n in everywhere for line in planet_line(folder, n, seeds)]),
    ):
        page.write_text(placed(page.read_text(), title, text.rows(header, lines), "make trials"))


if __name__ == "__main__":
    typer.run(main)
