"""The small demo in a loop under random faults; each finished loop is compared with a quiet run.

Every loop has a seed, that of the command plus its number; `--seed` of a loop begins with the same
faults. The moment at which a fault strikes is told in objects that are there, so it depends a
little on the speed of the machine.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import random
import re
import shutil
import signal
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import processes
import psutil
import s3_proxy
import servers
import small_demo
import typer
import web
from results import differences, results
from studies.page import placed

from faults.__main__ import ROOT, here
from faults.plan import draw
from pipeline import files

ENDS_S = 1200  # for one run
# Runs, or repairs, until one must have finished: in a bad store, or when Ray did not start.
FINISHES = 3
POLL_S = 0.1
# What Python itself says if SIGINT comes before it has read a module of soilweave.
PYTHON_STARTS = re.compile(
    r"(Could not import runpy module\n)?Traceback \(most recent call last\):\n"
    r"(  File \"<frozen [\w. ]+>\".*\n)+KeyboardInterrupt\n"
)
# A model that is trained again may differ in rounding; of the others, repair makes the same.
NOT_DAMAGED = ("checkpoint.safetensors", "history.parquet", "lease.json", "mlflow.json")


@dataclass
class Soak:
    """What has happened so far.

    Attributes:
      kinds: How often each fault was there.
      ended: Runs that ended with an error that nobody asked for, and went on afterwards.
      wrong: {seed: what is wrong}.
      seeds: Of the loops that are done.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    wrong: dict[int, str] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)


class Refusing(http.server.BaseHTTPRequestHandler):
    """Answers 500 to everything."""

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_error(500)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET

    def log_message(self, *args):
        """Keep quiet."""


@contextlib.contextmanager
def tracking(how):
    """The environment of an MLflow server that behaves so."""
    if how == "away":
        yield {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}
    elif how == "refusing":
        with web.running(Refusing) as url:
            yield {"MLFLOW_TRACKING_URI": url}
    elif how == "silent":
        with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
            yield {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{silent.getsockname()[1]}"}
    else:
        yield {}


class Place:
    """The workspace of a loop: how runs reach it, and how many objects it has."""

    def __init__(self, workspace, log, environment):
        self.workspace, self.log = workspace, log
        self.environment = environment | {"PYTHONPATH": str(ROOT)}
        self.root = f"{workspace}/demo"

    def running(self, verb, *options):
        """A verb in a process of its own."""
        command = [sys.executable, "-m", "pipeline", verb, "demo", "--workspace", self.workspace]
        return processes.running([*command, *options], self.log, self.environment)

    def run(self):
        """Run the small demo; its exit status."""
        with self.started() as run:
            return run.process.wait(ENDS_S)

    def started(self):
        """A driver of the small demo."""
        return self.running("run", *small_demo.OPTIONS)

    def verify(self, *options):
        """Run `verify`; its exit status."""
        with self.running("verify", *options) as verify:
            return verify.process.wait(ENDS_S)

    def objects(self):
        """Number of objects that are there."""
        return len(files.list_objects(self.root))

    def last_line(self):
        """The last line that a run has said."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "nothing"


def disturb(place, what, count, rng):
    """A run to which something happens once so many objects are there; its exit status."""
    before = processes.ours()
    with place.started() as run:
        while run.process.poll() is None and place.objects() < count:
            time.sleep(POLL_S)
        if run.process.poll() is None:
            strike(place, run.process, what, rng)
        status = run.process.wait(ENDS_S)
    end = time.monotonic() + processes.START_S
    while processes.leftovers(before) and time.monotonic() < end:
        time.sleep(POLL_S)
    return status


def strike(place, process, what, rng):
    """Let something happen to a driver that works."""
    if what == "second driver":
        with place.started() as second:
            second.process.wait(ENDS_S)
    elif what == "worker killed":
        if workers := ray_workers(process.pid):
            with contextlib.suppress(psutil.Error):
                rng.choice(workers).kill()
    elif what == "SIGINT":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it
    else:
        process.send_signal(signal.Signals[what])


def ray_workers(pid):
    """Processes of Ray that work for a driver, ordered by their ids."""
    found = []
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if " ".join(child.cmdline()).startswith("ray::"):
                    found.append(child)
    return sorted(found, key=lambda child: child.pid)


def damage(root, plan):
    """Damage objects of a finished workspace as the plan says; their keys."""
    keys = sorted(key for key in files.list_objects(root) if not key.endswith(NOT_DAMAGED))
    spoilt = {}
    for how, share in plan.damages:
        at = int(share * len(keys))
        touched = {keys[at], keys[at - 1]} if how == "exchanged" else {keys[at]}
        held = {key: files.read_bytes(files.join(root, key)) for key in touched - spoilt.keys()}
        if held.keys() != touched or not all(held.values()) or len({*held.values()}) < len(held):
            continue
        url, data = files.join(root, keys[at]), held[keys[at]]
        if how == "deleted":
            files.remove(url)
        elif how == "exchanged":
            files.write_bytes(url, held[keys[at - 1]])
            files.write_bytes(files.join(root, keys[at - 1]), data)
        elif how == "truncated":
            files.write_bytes(url, data[:-7])
        else:
            middle = len(data) // 2
            files.write_bytes(url, data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        spoilt |= dict.fromkeys(touched, how)
    return spoilt


def finished(soak, place, command):
    """Start a command until it has finished, with exit status 0; whether it has."""
    for _ in range(FINISHES):
        if command() == 0:
            return True
        soak.ended[place.last_line()] += 1
    return False


def judged(soak, plan, place, wanted, n_objects):
    """Run the loop of a plan; what is wrong, or an empty text."""
    rng = random.Random(plan.seed)
    # A signal that comes while Python starts ends the process as the system does.
    asked = {"SIGKILL": (-9,), "SIGTERM": (143, -15), "SIGINT": (130, -2)}
    for what, share in plan.stops:
        status = disturb(place, what, share * n_objects, rng)
        if status not in (0, *asked.get(what, ())):
            soak.ended[place.last_line()] += 1
    if not finished(soak, place, place.run):
        return f"{FINISHES} runs did not finish: {place.last_line()}"
    if different := differences(results(place.root), wanted):
        return f"{len(different)} results differ: {', '.join(different[:5])}"
    if spoilt := damage(place.root, plan):
        if (status := place.verify()) != 1:
            return f"verify ended with {status} although {spoilt} are damaged"
        if not finished(soak, place, lambda: place.verify("--repair")):
            return f"{FINISHES} repairs of {spoilt} did not finish: {place.last_line()}"
        if different := differences(results(place.root), wanted):
            return f"{len(different)} results differ after repair of {spoilt}: {different[:5]}"
    if "Traceback" in PYTHON_STARTS.sub("", place.log.read_text(errors="replace")):
        return "a run said a traceback"
    return ""


def loop(soak, seed, folder, s3, wanted, n_objects):
    """One loop: its faults, and what has come of it."""
    plan, home = draw(seed), folder / f"seed-{seed}"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    typer.echo(f"seed {seed}: {plan}")
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        environment = s3.environment | stack.enter_context(tracking(plan.mlflow))
        workspace = str(home / "workspace")
        if plan.bucket:
            proxy = stack.enter_context(s3_proxy.before(s3.endpoint))
            proxy.faults, proxy.random = plan.store, random.Random(seed)
            environment["AWS_ENDPOINT_URL"] = proxy.url
            workspace = s3.url("soak", str(seed))
        place = Place(workspace, home / "log", environment)
        wrong = judged(soak, plan, place, wanted, n_objects)
        if plan.bucket:
            files.remove(workspace)
    soak.seeds.append(seed)
    soak.kinds.update(plan.kinds())
    if wrong:
        soak.wrong[seed] = wrong
    else:
        shutil.rmtree(home)
    typer.echo(f"seed {seed}: {wrong or 'equal'}, {time.monotonic() - begun:.0f} s")


def report(soak, seconds):
    """What the loops have shown, for the page and the terminal."""
    kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(soak.kinds.items()))
    where = here(seconds)
    lines = [
        f"{where['at']}, commit {where['commit']}, {where['minutes']:g} minutes on "
        f"{where['machine']}.",
        f"{len(soak.seeds)} loops, seeds {soak.seeds[0]} to {soak.seeds[-1]}, "
        f"{sum(soak.kinds.values())} faults: **{len(soak.wrong)} wrong results**.",
        f"Faults: {kinds}.",
    ]
    if soak.ended:
        ended = "; ".join(f"{n} x `{line}`" for line, n in soak.ended.most_common())
        lines.append(f"Runs that ended with an error and went on when started again: {ended}.")
    lines += [f"Seed {seed}: {wrong}." for seed, wrong in soak.wrong.items()]
    return "\n\n".join(lines)


def main(
    minutes: Annotated[float, typer.Option(help="No loop is begun afterwards.")] = 60.0,
    seed: Annotated[
        int | None, typer.Option(help="Of the first loop; drawn and printed if not given.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where loops that went wrong are kept.")] = Path(
        "workspace/soak"
    ),
    docs: Annotated[Path, typer.Option(help="Where reliability.md lies.")] = ROOT / "docs",
) -> None:
    """Run loops until the time is over; the exit status is 1 if any result was wrong."""
    begun = time.monotonic()
    first = random.SystemRandom().randrange(100_000) if seed is None else seed
    typer.echo(f"--seed {first}")
    folder = folder.absolute()
    shutil.rmtree(folder / "quiet", ignore_errors=True)
    (folder / "quiet").mkdir(parents=True)
    soak = Soak()
    with servers.seaweed(folder / "quiet") as s3:
        os.environ.update(s3.environment)
        quiet = Place(str(folder / "quiet" / "workspace"), folder / "quiet" / "log", {})
        if not finished(soak, quiet, quiet.run):
            raise RuntimeError(f"the undisturbed run did not finish: {quiet.last_line()}")
        wanted, n_objects = results(quiet.root), quiet.objects()
        typer.echo(f"undisturbed: {len(wanted)} results, {n_objects} objects")
        while not soak.seeds or time.monotonic() - begun < 60 * minutes:
            loop(soak, first + len(soak.seeds), folder, s3, wanted, n_objects)
    written = report(soak, time.monotonic() - begun)
    typer.echo(written)
    page = docs / "reliability.md"
    page.write_text(placed(page.read_text(), "soak", written, "make soak"))
    if soak.wrong:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
