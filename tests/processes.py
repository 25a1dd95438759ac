"""Processes of the tests: started with a log, ended with their children, looked for afterwards.

Each carries MARK in its environment, so that `leftovers` finds also one whose parent died.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

START_S, STOP_S, POLL_S = 120, 15, 0.1
MARK = {"SOILWEAVE_TEST": f"{os.getpid()}-{secrets.token_hex(4)}"}
BIN = Path(sys.executable).parent
Process = tuple[int, float]  # id and time of creation: ids are used again


@dataclass(frozen=True)
class Running:
    """A process of ours and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait_for(self, condition: Callable[[], bool], seconds: float = START_S) -> None:
        """Poll until it answers; an error with the end of its log if it ends or takes too long."""
        end = time.monotonic() + seconds
        while not condition():
            code = self.process.poll()
            if code is None and time.monotonic() < end:
                time.sleep(POLL_S)
                continue
            what = f"did not answer in {seconds:g} s" if code is None else f"ended with {code}"
            tail = self.log.read_text(errors="replace")[-3000:]
            raise RuntimeError(f"{self.process.args[0]} {what}; the end of {self.log}:\n{tail}")


@contextlib.contextmanager
def running(
    command: list[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    stop: signal.Signals = signal.SIGTERM,
    inherit: bool = True,
    **options: Any,
) -> Iterator[Running]:
    """A process with a session and a log of its own; it and its children are gone afterwards.

    `environment` comes on top of ours, or with `inherit=False` in its place.
    """
    given = (os.environ if inherit else {}) | MARK | dict(environment or {})
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=given,
            start_new_session=True,
            **options,
        )
    try:
        yield Running(process, log)
    finally:
        end(process, stop)


def end(process: subprocess.Popen[bytes], stop: signal.Signals = signal.SIGTERM) -> None:
    """Ask a process to stop; kill it and its children, in whatever session, if need be."""
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(stop)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    _, alive = psutil.wait_procs(family, 2)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for child in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait(STOP_S)
    psutil.wait_procs(alive, STOP_S)


@contextlib.contextmanager
def temporary(prefix: str) -> Iterator[Path]:
    """A folder with a short path that another user may pass through, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def free_ports(n: int, address: str = "127.0.0.1", twins: bool = False) -> list[int]:
    """Ports nobody listens on; with `twins`, the ports 10000 above are free too."""
    found: list[int] = []
    while len(found) < n:
        port = 20000 + secrets.randbelow(12000)  # below those the kernel gives to clients
        wanted = (port, port + 10000) if twins else (port,)
        if port not in found and all(is_free(p, address) for p in wanted):
            found.append(port)
    return found


def is_free(port: int, address: str = "127.0.0.1") -> bool:
    """Whether nobody listens on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def ours() -> set[Process]:
    """Processes that live and are children of this one, or carry its mark."""
    mine = {p.pid for p in psutil.Process().children(recursive=True)}
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            marked = process.pid in mine or MARK.items() <= process.environ().items()
            if marked and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.add((process.pid, process.create_time()))
    return found


def leftovers(before: set[Process]) -> list[str]:
    """What was started since `before` (from `ours`) and still lives: id and command line."""
    found = []
    for pid, _ in sorted(ours() - before):
        with contextlib.suppress(psutil.Error):
            found.append(f"{pid} {' '.join(psutil.Process(pid).cmdline())[:200]}")
    return found
