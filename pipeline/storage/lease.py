"""The lease of a workspace: one driver writes, a second one waits or is told who holds it.

lease.json: holder (an id of the driver's process), host, pid, since, renewed (UTC). It is created
and renewed by compare-and-swap, so of two drivers one gets it. A lease that is not renewed for
STALE_S seconds, by the clock of the one who waits, is of a dead driver and is taken over.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import platform
import signal
import threading
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.files import Json


STALE_S, RENEW_S, POLL_S = 60.0, 15.0, 1.0
HOLDER = uuid.uuid4().hex  # of this process


@functools.cache
def of(url: str) -> Lease:
    """The lease of a URL; one object for the whole process."""
    return Lease(url)


class Lease:
    """The right to write into one workspace, held by one process at a time."""

    def __init__(self, url: str) -> None:
        """Nothing is taken yet."""
        self.url, self.lost = url, False
        self._written: bytes | None = None
        self._since = ""
        self._lock, self._over = threading.Lock(), threading.Event()

    @property
    def held(self) -> bool:
        """Whether this process holds it, as far as it knows."""
        return self._written is not None

    def take(self, say: Callable[[str], None]) -> None:
        """Take the lease, from a driver that died as well; keep one that is held.

        Args:
          say: is told, once, whom the driver waits for.

        Raises:
          StoreError: a driver that is alive holds it, or the place cannot be written.
        """
        if self.held:
            return
        self._since = _now()
        while True:
            found = _read(self.url)
            if found is not None and not self._is_dead(found, say):
                continue
            written = self._record()
            if files.swap(self.url, written, found):
                self._written, self.lost = written, False
                self._over = threading.Event()
                atexit.register(self.release)
                threading.Thread(target=self._keep, args=(self._over,), daemon=True).start()
                return

    def held_by_another(self) -> bool:
        """Whether the record is of another driver that may be alive; nobody is waited for."""
        found = None if self.held else _read(self.url)
        if found is None:
            return False
        record = _parsed(found)
        return record.get("host") != platform.node() or _runs(record.get("pid"))

    def check(self) -> None:
        """Make sure that it is held still.

        Raises:
          StoreError: it is not; another driver has taken it over, or somebody removed it.
        """
        if self.lost or not self._renew():
            found = _told(_read(self.url)) if files.exists(self.url) else "nobody"
            problem = f"lost to {found} while this driver did not answer; nothing was committed"
            raise StoreError(self.url, problem, remedy="run the verb again")

    def release(self) -> None:
        """Give it back, if it is held."""
        self._over.set()
        with self._lock:
            if self._written is not None and _read(self.url) == self._written:
                files.remove(self.url)
            self._written = None
        atexit.unregister(self.release)

    @contextlib.contextmanager
    def given_back(self) -> Iterator[None]:
        """Give it back at the end of the block; tell why, where its loss has stopped the block.

        Raises:
          StoreError: another driver has taken it over.
        """
        try:
            yield
            if self.lost:
                self.check()
        except KeyboardInterrupt:
            if self.lost:
                self.check()
            raise
        finally:
            self.release()

    def _is_dead(self, found: bytes, say: Callable[[str], None]) -> bool:
        """Whether its holder is; False where it has gone meanwhile.

        Raises:
          StoreError: the holder is alive.
        """
        record = _parsed(found)
        remedy = "wait for it to end, or keep your run apart with --name NEW"
        here = record.get("host") == platform.node()
        if here and not _runs(record.get("pid")):
            return True
        if not here:
            say(f"waiting to see whether {_told(found)} is alive, {STALE_S:.0f} s at most")
            end = time.monotonic() + STALE_S
            while time.monotonic() < end:
                time.sleep(POLL_S)
                now = _read(self.url)
                if now is None:
                    return False
                if now != found:
                    break
            else:
                return True
        raise StoreError(self.url, f"held by {_told(found)}", remedy=remedy)

    def _record(self) -> bytes:
        return json.dumps(
            {
                "holder": HOLDER,
                "host": platform.node(),
                "pid": os.getpid(),
                "since": self._since,
                "renewed": _now(),
            }
        ).encode()

    def _renew(self) -> bool:
        """Write it anew over what this process wrote before; False where it is not there."""
        with self._lock:
            if self._written is None:
                return False
            written = self._record()
            if not files.swap(self.url, written, self._written):
                self._written = None
                return False
            self._written = written
            return True

    def _keep(self, over: threading.Event) -> None:
        """Renew until it is given back; where another driver has it, stop this one."""
        while not over.wait(RENEW_S):
            try:
                if self._renew() or over.is_set():
                    continue
            except StoreError:
                continue  # the store does not answer now; the next turn or `check` tells
            with contextlib.suppress(StoreError):
                if _read(self.url) is not None:
                    self.lost = True
                    main = threading.main_thread().ident
                    assert main is not None
                    signal.pthread_kill(main, signal.SIGINT)  # wakes it, whatever it waits for
            return


def _read(url: str) -> bytes | None:
    try:
        return files.read_bytes(url)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _parsed(found: bytes) -> Json:
    try:
        return dict(json.loads(found))
    except ValueError:
        return {}


def _told(found: bytes | None) -> str:
    record = _parsed(found or b"")
    if "pid" not in record:
        return "a driver whose record is damaged"
    place = f"process {record.get('pid')} on {record.get('host')}"
    return f"{place}, at work since {record.get('since')}"


def _runs(pid: object) -> bool:
    """Whether a process of this machine runs."""
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
