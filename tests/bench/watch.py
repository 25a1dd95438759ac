"""A command and all processes it starts, watched: time, and the most memory each has held."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

EVERY_S = 0.25
# In the names that Ray gives to processes of tasks and actors.
WORK = ("write_block", "compare_block", "copy_block", "map_tile", "RayTrainWorker")
KINDS = ("RssAnon", "RssFile", "RssShmem")


@dataclass
class Watched:
    """What was seen: samples by process, each (time, anonymous, file, shared) in MB."""

    begun: float
    seconds: float = 0.0
    status: int = 0
    names: dict[int, str] = field(default_factory=dict)
    samples: dict[int, list[tuple[float, float, float, float]]] = field(default_factory=dict)
    total_mb: float = 0.0

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


def run(command: list[str], log: Path, environment: dict[str, str]) -> Watched:
    """Run a command to its end, its output in a log."""
    seen = Watched(time.time())
    over = threading.Event()
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        watcher = threading.Thread(target=_watch, args=(process.pid, seen, over), daemon=True)
        watcher.start()
        seen.status = process.wait()
        over.set()
        watcher.join()
    seen.seconds = time.time() - seen.begun
    return seen


def _watch(pid: int, seen: Watched, over: threading.Event) -> None:
    root = psutil.Process(pid)
    while not over.wait(EVERY_S):
        now, private, shared = time.time(), 0.0, 0.0
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in [root, *root.children(recursive=True)]:
                with contextlib.suppress(
                    psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError
                ):
                    sample = _resident(each.pid)
                    role = "driver" if each.pid == pid else _role(each)
                    # Ray names a process after what it does now, and IDLE when it is done.
                    if seen.names.get(each.pid) not in ("driver", "worker"):
                        seen.names[each.pid] = role
                    seen.samples.setdefault(each.pid, []).append((now, *sample))
                    private += sample[0]
                    shared = max(shared, sample[2])
        seen.total_mb = max(seen.total_mb, private + shared)


def _resident(pid: int) -> tuple[float, float, float]:
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    held = {words[0].rstrip(":"): words[1] for words in lines if len(words) == 3}
    return tuple(float(held.get(kind, 0)) / 1024 for kind in KINDS)


def _role(process: psutil.Process) -> str:
    name = " ".join(process.cmdline())
    work = name.startswith("ray::") and any(word in name for word in WORK)
    return "worker" if work else "ray"
