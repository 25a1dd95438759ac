"""CONUS at its own size on a cluster: from a job to verified maps in a bucket, and their scores.

A planet of 284 x 628 cells over two years, recipe `default` as shipped, all arms, 5 folds and 3
seeds: submitted with `soilweave submit` to a Ray head and two workers that share a bucket and an
MLflow server, then verified, published, and read by URL by someone who knows the truth. It works in
pieces: after `--minutes` the job is stopped, and the same command continues it. What was measured
is kept beside, piece by piece.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import journeys
import nodes
import servers
import typer
import yaml
from processes import temporary
from studies.page import placed

from bench import conus_full_page, growth, machine, projection, watch
from pipeline import files
from pipeline.experiment import load
from pipeline.storage import provenance
from pipeline.storage.artefacts import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psutil

    from bench.watch import Watched

NAME = "conus-full"
BIN = Path(sys.executable).parent
NOT_DONE = 75  # exit status: run it again
STOP_S = 120  # for a job to end after it was told to
ROLES = ("driver", "worker")
# What is set otherwise than in the preset `load`, whose small network and short training are left
# out.
FULL: dict[str, Any] = {
    "name": NAME,
    "title": "a synthetic planet of the size of CONUS, the recipe as shipped",
    "folds": {"kind": "block", "n_folds": 5, "block_km": 400.0, "seed": 0},
    "arms": ["multiscale", "insitu", "satellite"],
    "n_seeds": 3,
}
PERIOD = ["2016-03-01", "2016-12-20"]
# The same path on a planet that takes minutes.
SMALL = FULL | {
    "title": "the path of conus-full on a small planet; its scores mean nothing",
    "planet": {"kind": "load", "seed": 0, "n_sites": 15},
    "domain": {
        "west_degrees": -103.8,
        "south_degrees": 37.5,
        "east_degrees": -101.0,
        "north_degrees": 40.85,
        "refinement": 4,
    },
    **dict.fromkeys(("period", "train_period", "test_period"), PERIOD),
    "folds": {"kind": "block", "n_folds": 5, "block_km": 72.0, "seed": 0},
    "network": {"hidden_size": 12},
    "train": {"updates": 12, "window_days": 60},
    "judging": {"min_days": 40},
    "compute": {"checkpoint_every_updates": 5},
}
SIZES = {"full": FULL, "small": SMALL}
# Artefacts of each stage of `run`.
MADE = {
    "planet": ("planet",),
    "prepare": ("cube",),
    "folds": ("folds",),
    "train": ("models",),
    "predict": ("maps",),
    "evaluate": ("scores",),
    "report": ("report",),
}


class Failed(RuntimeError):
    """A piece has failed; says which and where its log is."""


@dataclass
class Place:
    """Where pieces run.

    Attributes:
      folder: Logs, and what was measured.
      dashboard: Where jobs are submitted.
      token: Of the Ray cluster.
      environment: Of every command: keys of the bucket, and the cluster's token.
      workspace: URL of the workspace.
      published: URL of the publication.
      until: When this call is to end.
      kept: What was measured.
    """

    folder: Path
    dashboard: str
    token: str
    environment: dict[str, str]
    workspace: str
    published: str
    until: float
    kept: dict[str, Any]

    @property
    def root(self) -> str:
        """The experiment's folder."""
        return files.join(self.workspace, NAME)

    def left(self) -> float:
        """Seconds until this call is to end."""
        return max(1.0, self.until - time.time())

    def keep(self, piece: dict[str, Any]) -> None:
        """Add a piece to what was measured, at once."""
        self.kept["pieces"].append(piece)
        results(self.folder).write_text(json.dumps(self.kept, indent=1))


def results(folder: Path) -> Path:
    """The file of what was measured."""
    return folder / "conus-full.json"


def write_experiment(path: Path, size: str) -> None:
    """Write the experiment of a size: the preset `load` with the recipe's own network."""
    tree = load.read_settings("experiments", "load")
    tree = {key: value for key, value in tree.items() if key not in ("network", "train")}
    path.write_text(yaml.safe_dump(tree | SIZES[size], sort_keys=False))


@contextlib.contextmanager
def cluster(
    folder: Path, kept: dict[str, Any], minutes: float, cpus: int, gpus: int
) -> Iterator[Place]:
    """A head, two workers, S3 and MLflow of this machine; the bucket and the runs stay."""
    store = 200_000_000 if kept["size"] == "small" else 2_500_000_000
    until = time.time() + 60 * minutes
    with contextlib.ExitStack() as stack:
        logs = stack.enter_context(temporary("sw-full-"))
        stack.callback(shutil.copytree, logs, folder / "logs", dirs_exist_ok=True)
        net = stack.enter_context(nodes.machines())
        s3 = stack.enter_context(servers.seaweed(logs, net.address, kept=folder / "bucket"))
        database = f"sqlite:///{folder / 'mlflow.db'}"
        given = (logs, database, s3.url("mlflow"), net.address, s3.environment)
        tracking = stack.enter_context(servers.mlflow_server(*given))
        environment = s3.environment | {"MLFLOW_TRACKING_URI": tracking}
        made = stack.enter_context(
            nodes.cluster(logs, environment, cpus, net, store_bytes=store, gpus=gpus)
        )
        environment = nodes.clean() | environment | made.access
        with _environment(environment):
            urls = (s3.url("ws"), s3.url("published"))
            yield Place(folder, made.dashboard, made.token, environment, *urls, until, kept)


@contextlib.contextmanager
def _environment(given: dict[str, str]) -> Iterator[None]:
    """The environment of this process, for what it reads itself."""
    before = dict(os.environ)
    os.environ |= given
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def run_job(place: Place) -> bool:
    """Submit `run`, follow it, and stop it when time is over; returns whether it has ended."""
    path, begun = place.folder / f"{NAME}.yaml", time.time()
    words = ["submit", str(path), "--address", place.dashboard, "--workspace", place.workspace]
    with watch.watching(os.getpid(), _is_driver, every_s=1.0) as seen:
        with journeys.soilweave(place.environment, *words) as journey:
            stopped = False
            while journey.process.poll() is None:
                time.sleep(0.5)
                if time.time() > place.until and not stopped:
                    stopped = _stop(place, journey)
                if time.time() > place.until + STOP_S:
                    break
        status = journey.process.wait()
    lines = [(begun + at, text) for at, text in journey.lines]
    (place.folder / "logs").mkdir(exist_ok=True)
    with (place.folder / "logs" / "job.log").open("a") as log:
        log.writelines(f"{at - begun:8.1f} {text}\n" for at, text in lines)
    place.keep({"what": "run", "status": status, "stages": by_stage(lines, seen)} | _when(seen))
    if status and not stopped:
        raise Failed(f"the job ended with status {status}: {place.folder / 'logs' / 'job.log'}")
    return status == 0


def _is_driver(process: psutil.Process) -> bool:
    """Whether a process is the driver of a job: not its shell, nor the client that follows it."""
    words = process.cmdline()
    return words[1:3] == ["-m", "pipeline"] and "experiment.yaml" in words


def _stop(place: Place, journey: journeys.Journey) -> bool:
    """Tell the cluster to stop the job; returns whether its id was known."""
    known = [text.split()[1].rstrip(":") for _, text in journey.lines if text.startswith("job ")]
    if not known:
        return False
    url = f"{place.dashboard}/api/jobs/{known[0]}/stop"
    ask = urllib.request.Request(url, b"", {"Authorization": f"Bearer {place.token}"})
    urllib.request.urlopen(ask, timeout=60).close()
    return True


def by_stage(lines: list[tuple[float, str]], seen: Watched) -> dict[str, Any]:
    """Seconds, processor time and memory of every stage, from the lines of the job.

    The time before a line is that of the stage that the line names. What precedes a line that says
    that a stage is complete is the start of the job.

    Args:
      lines: (time, text).
      seen: What was watched meanwhile.
    """
    edges, before, last = [], seen.begun, "start"
    for at, text in lines:
        stage, _, said = text.partition(": ")
        if stage not in MADE:
            continue
        last = "start" if said.endswith("complete") else stage
        edges.append((last, before, at))
        before, last = at, stage
    edges.append((last, before, seen.begun + seen.seconds))
    found: dict[str, Any] = {}
    for stage, since, until in edges:
        own = found.setdefault(stage, {"seconds": 0.0, "cpu": 0.0})
        own["seconds"] = round(own["seconds"] + until - since, 1)
        own["cpu"] = round(own["cpu"] + seen.cpu_seconds(since, until), 1)
        for role in ROLES:
            peak = (seen.peak(role, since, until) or {}).get("own_mb", 0)
            own[role] = max(own.get(role, 0), peak)
    return found


def _when(seen: Watched) -> dict[str, Any]:
    at = datetime.datetime.fromtimestamp(seen.begun, datetime.UTC).isoformat(timespec="seconds")
    return {
        "at": at,
        "seconds": round(seen.seconds, 1),
        "all_mb": round(seen.total_mb),
        "commit": (provenance.code_commit() or "")[:12],
    }


def run_command(place: Place, what: str, *command: str) -> bool:
    """Run a command in what is left of the time; returns whether it has ended."""
    log = place.folder / "logs" / f"{what}.log"
    log.parent.mkdir(exist_ok=True)
    left = place.left()
    seen = watch.run([*command], log, place.environment, left)
    peak = (seen.peak("driver") or {}).get("own_mb", 0)
    cpu = round(seen.cpu_seconds(), 1)
    stage = {"seconds": round(seen.seconds, 1), "cpu": cpu, "driver": peak, "worker": 0}
    place.keep({"what": what, "status": seen.status, "stages": {what: stage}} | _when(seen))
    if seen.status and seen.seconds < left:
        raise Failed(f"{what} ended with status {seen.status}: {log}")
    return seen.status == 0


def run_verb(place: Place, what: str, *words: str) -> bool:
    """Run a verb of the command line."""
    return run_command(place, what, str(BIN / "soilweave"), *words)


def read_maps(place: Place) -> bool:
    """Score the published maps, as a reader by URL."""
    out, script = place.folder / "scores.json", Path(__file__).with_name("truth_reader.py")
    least = yaml.safe_load((place.folder / f"{NAME}.yaml").read_text())["judging"]["min_days"]
    words = [place.published, place.root, str(out), f"--min-days={least}"]
    if not run_command(place, "read", sys.executable, str(script), *words):
        return False
    place.kept["scores"] = json.loads(out.read_text())
    return True


# In order; each is run until it has ended once.
PIECES: dict[str, Callable[[Place], bool]] = {
    "run": run_job,
    "verify": lambda place: run_verb(place, "verify", "verify", place.root),
    "publish": lambda place: run_verb(
        place, "publish", "publish", place.root, "--to", place.published
    ),
    "verify the publication": lambda place: run_verb(
        place, "verify the publication", "verify", place.published
    ),
    "read": read_maps,
}


def go_on(place: Place) -> None:
    """Run the pieces that are not done, as far as time allows."""
    for what, piece in PIECES.items():
        if what in place.kept["done"]:
            continue
        if time.time() > place.until or not piece(place):
            return
        place.kept["done"].append(what)
        place.kept["stored"] = stored(place)
        results(place.folder).write_text(json.dumps(place.kept, indent=1))


def stored(place: Place) -> dict[str, Any]:
    """Objects and megabytes that each stage has written, and those of the publication."""
    workspace = Workspace(place.root)
    found = {stage: growth.written(workspace, names) for stage, names in MADE.items()}
    sizes = files.list_objects(place.published).values()
    published = {"objects": len(sizes), "megabytes": round(sum(sizes) / 1e6, 1)}
    return found | ({"publish": published} if sizes else {})


def main(
    size: Annotated[str, typer.Option(help=f"One of {', '.join(SIZES)}.")] = "full",
    folder: Annotated[
        Path | None, typer.Option(help="Where all is kept; by default workspace/conus-full-SIZE.")
    ] = None,
    docs: Annotated[Path | None, typer.Option(help="Where scaling.md lies.")] = None,
    minutes: Annotated[
        float, typer.Option(help="Stop the job so long after the call has begun.")
    ] = 9.0,
    cpus: Annotated[int, typer.Option(help="CPUs of each of the two workers.")] = 1,
    gpus: Annotated[int, typer.Option(help="GPUs of the first worker.")] = 0,
    core_hour: Annotated[
        float, typer.Option(help="USD of a CPU core; AWS us-east-1 on demand, June 2026: 0.041.")
    ] = projection.CORE_HOUR,
    gpu_hour: Annotated[
        float, typer.Option(help="USD of a GPU with its share of a machine; A10G there: 1.01.")
    ] = projection.GPU_HOUR,
    put: Annotated[
        float, typer.Option(help="USD of an object written; S3 there: 5e-6.")
    ] = projection.PUT,
    gigabyte_month: Annotated[
        float, typer.Option(help="USD of a GB stored for a month; S3 there: 0.023.")
    ] = projection.GIGABYTE_MONTH,
) -> None:
    """From a job to verified maps in a bucket; the same command goes on where it has stopped.

    The exit status is 0 when all is done, 75 if the same command is to be run again, else 1.
    """
    if size not in SIZES:
        raise typer.BadParameter(f"--size {size}: expected one of {', '.join(SIZES)}")
    folder = (folder or Path("workspace") / f"{NAME}-{size}").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    write_experiment(folder / f"{NAME}.yaml", size)
    kept: dict[str, Any] = {"size": size, "pieces": [], "done": []}
    if results(folder).exists():
        kept = json.loads(results(folder).read_text())
    experiment = load.load_experiment(str(folder / f"{NAME}.yaml"))
    kept |= {
        "machine": machine.described(),
        "cluster": {"workers": 2, "cpus": cpus, "gpus": gpus},
        "cells": [*growth.cells(experiment)],
        "prices": {"core": core_hour, "gpu": gpu_hour, "put": put, "month": gigabyte_month},
    }
    failed = ""
    if kept["done"] != [*PIECES]:
        with cluster(folder, kept, minutes, cpus, gpus) as place:
            try:
                go_on(place)
            except Failed as error:
                failed = str(error)
    written = conus_full_page.page(kept)
    typer.echo(written)
    if failed:
        sys.exit(failed)
    if kept["done"] != [*PIECES]:
        left = [what for what in PIECES if what not in kept["done"]]
        typer.echo(f"\nnot done yet: {', '.join(left)}; run the same command again")
        sys.exit(NOT_DONE)
    if docs is not None:
        page, mark = docs / "scaling.md", NAME if size == "full" else f"{NAME}-{size}"
        page.write_text(placed(page.read_text(), mark, written, "make conus-full"))


if __name__ == "__main__":
    typer.run(main)
