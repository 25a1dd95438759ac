"""Processes that are watched: time, processor time, and the most memory each has held."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EVERY_S = 0.25
# In the names that Ray gives to processes of tasks and actors.
WORK = ("write_block", "compare_block", "copy_block", "map_tile", "RayTrainWorker")
KINDS = ("RssAnon", "RssFile", "RssShmem")


@dataclass
class Watched:
    """What was seen: samples by process, each (time, anonymous, file, shared) in MB.

    Attributes:
      begun: When.
      seconds: How long.
      status: Exit status of a command.
      names: By process, its role.
      samples: By process, its memory.
      total_mb: The most private memory that all held at once, and what they shared then.
      cpu: (time, seconds of processor time that all had taken until then).
    """

    begun: float
    seconds: float = 0.0
    status: int = 0
    names: dict[int, str] = field(default_factory=dict)
    samples: dict[int, list[tuple[float, float, float, float]]] = field(default_factory=dict)
    total_mb: float = 0.0
    cpu: list[tuple[float, float]] = field(default_factory=list)

    def peak(self, role: str, since: float = 0.0, until: float = float("inf")) -> dict | None:
        """The largest of the processes of a role, in MB: its own memory, and what it shared then.

        Its own is private (anonymous) memory and pages of files, which the system takes back when
        it needs them; shared are pages of Ray's object store.
        """
        found = [
            sample
            for pid, name in self.names.items()
            if name == role
            for sample in self.samples[pid]
            if since <= sample[0] <= until
        ]
        if not found:
            return None
        resident = max(found, key=lambda sample: sample[1] + sample[2])
        return {
            "own_mb": round(resident[1] + resident[2]),
            "private_mb": round(max(sample[1] for sample in found)),
            "files_mb": round(resident[2]),
            "shared_mb": round(max(sample[3] for sample in found)),
            "n": len({p for p, name in self.names.items() if name == role}),
        }

    def cpu_seconds(self, since: float = 0.0, until: float = float("inf")) -> float:
        """Processor time that all took between two times."""
        times = [0.0, *(when for when, _ in self.cpu)]
        taken = [0.0, *(seconds for _, seconds in self.cpu)]
        return taken[bisect_right(times, until) - 1] - taken[bisect_right(times, since) - 1]


def run(
    command: list[str], log: Path, environment: dict[str, str], limit_s: float | None = None
) -> Watched:
    """Run a command to its end, or for so long, its output in a log."""
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        with watching(process.pid, lambda each: each.pid == process.pid) as seen:
            try:
                seen.status = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                process.terminate()
                seen.status = process.wait() or 1
    return seen


@contextlib.contextmanager
def watching(
    root: int, is_driver: Callable[[psutil.Process], bool], every_s: float = EVERY_S
) -> Iterator[Watched]:
    """Watch a process and all of its children while the block runs.

    Args:
      root: Its id; this process itself is not counted.
      is_driver: Which of them is the driver of a verb.
      every_s: Seconds between two looks.
    """
    seen, over = Watched(time.time()), threading.Event()
    given = (root, is_driver, seen, over, every_s)
    watcher = threading.Thread(target=_watch, args=given, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()
        seen.seconds = time.time() - seen.begun


def _watch(
    pid: int,
    is_driver: Callable[[psutil.Process], bool],
    seen: Watched,
    over: threading.Event,
    every_s: float,
) -> None:
    root = psutil.Process(pid)
    taken: dict[int, float] = {}
    before: dict[int, float] = {}  # what ran already
    while not over.wait(every_s):
        now, private, shared = time.time(), 0.0, 0.0
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in [root, *root.children(recursive=True)]:
                if each.pid == os.getpid():
                    continue
                with contextlib.suppress(
                    psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError
                ):
                    # Ray names a process after what it does now, and IDLE when it is done.
                    if seen.names.get(each.pid) not in ("driver", "worker", "server"):
                        seen.names[each.pid] = "driver" if is_driver(each) else _role(each)
                    if seen.names[each.pid] == "server":
                        continue
                    sample = _resident(each.pid)
                    seen.samples.setdefault(each.pid, []).append((now, *sample))
                    private += sample[0]
                    shared = max(shared, sample[2])
                    times = each.cpu_times()
                    taken[each.pid] = times.user + times.system
                    if each.create_time() < seen.begun:
                        before.setdefault(each.pid, taken[each.pid])
        seen.total_mb = max(seen.total_mb, private + shared)
        seen.cpu.append((now, sum(taken.values()) - sum(before.values())))


def _resident(pid: int) -> tuple[float, float, float]:
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    held = {words[0].rstrip(":"): words[1] for words in lines if len(words) == 3}
    return tuple(float(held.get(kind, 0)) / 1024 for kind in KINDS)


def _role(process: psutil.Process) -> str:
    """Worker, or server if it is one of those that a cloud runs for its users, else Ray."""
    name = " ".join(process.cmdline())
    if "/weed server" in name or "mlflow" in name:
        return "server"
    work = name.startswith("ray::") and any(word in name for word in WORK)
    return "worker" if work else "ray"
