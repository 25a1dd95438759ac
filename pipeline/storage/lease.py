"""The lease of a workspace: only the process that holds it may write there.

`lease.json` contains `holder` (a random id of the process), `host`, `pid`, `since` and `renewed`
(UTC). It is created and renewed by compare-and-swap, so only one of two processes gets it. A lease
that is not renewed for STALE_S seconds, by the clock of the process that waits, belongs to a dead
process and can be taken.
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
HOLDER = uuid.uuid4().hex  # the id of this process


@functools.cache
def get_lease(url: str) -> Lease:
    """Return the lease of a URL; the same object in the whole process."""
    return Lease(url)


class Lease:
    """The right to write into one workspace, held by one process at a time.

    Attributes:
      url: URL of `lease.json`.
      lost: Whether another process took the lease while this one held it.
    """

    def __init__(self, url: str) -> None:
        """Create the object; `take` takes the lease."""
        self.url, self.lost = url, False
        self._written: bytes | None = None
        self._since = ""
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._taking = threading.Lock()

    @property
    def held(self) -> bool:
        """Whether this process holds the lease, as far as it knows."""
        return self._written is not None

    def take(self, say: Callable[[str], None]) -> None:
        """Take the lease, also from a dead process; do nothing if this process holds it.

        Args:
          say: Called with a message if this process must wait to see whether the holder is alive.

        Raises:
          StoreError: If a living process holds the lease, or `lease.json` cannot be written.
        """
        with self._taking:  # a stage and the mirror in MLflow may take it at the same time
            while not self.held:
                self._since = _now()
                content = _read_content(self.url)
                if content is not None and not self._is_dead(content, say):
                    continue
                written = self._record()
                if files.compare_and_swap(self.url, written, content):
                    self._written, self.lost = written, False
                    self._stop = threading.Event()
                    atexit.register(self.release)
                    renewing = (self._stop,)
                    threading.Thread(target=self._renew_until, args=renewing, daemon=True).start()

    def held_by_another(self) -> bool:
        """Return whether another process, which may be alive, holds the lease, without waiting."""
        content = None if self.held else _read_content(self.url)
        if content is None:
            return False
        record = _parse_record(content)
        return record.get("host") != platform.node() or _is_running(record.get("pid"))

    def check(self) -> None:
        """Check that this process still holds the lease.

        Raises:
          StoreError: If another process has taken the lease or somebody removed `lease.json`.
        """
        if self.lost or not self._renew():
            holder = (
                _describe_holder(_read_content(self.url)) if files.exists(self.url) else "nobody"
            )
            problem = (
                f"lost to {holder}, because this process did not renew it in time; "
                "nothing was committed"
            )
            raise StoreError(self.url, problem, remedy="run the command again")

    def release(self) -> None:
        """Release the lease if this process holds it."""
        self._stop.set()
        with self._lock:
            if self._written is not None and _read_content(self.url) == self._written:
                files.remove(self.url)
            self._written = None
        atexit.unregister(self.release)

    @contextlib.contextmanager
    def given_back(self) -> Iterator[None]:
        """Release the lease at the end of the block.

        Raises:
          StoreError: If another process has taken the lease, which also interrupts the block.
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

    def _is_dead(self, content: bytes, say: Callable[[str], None]) -> bool:
        """Return whether the holder is dead; False if it released the lease in the meantime.

        Raises:
          StoreError: If the holder is alive.
        """
        record = _parse_record(content)
        hint = "wait for it to end, or use another workspace with --name NEW"
        same_host = record.get("host") == platform.node()
        if same_host and not _is_running(record.get("pid")):
            return True
        if not same_host:
            say(
                f"waiting up to {STALE_S:.0f} s to see whether {_describe_holder(content)} is alive"
            )
            end = time.monotonic() + STALE_S
            while time.monotonic() < end:
                time.sleep(POLL_S)
                latest = _read_content(self.url)
                if latest is None:
                    return False
                if latest != content:
                    break
            else:
                return True
        raise StoreError(self.url, f"held by {_describe_holder(content)}", remedy=hint)

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
        """Renew the lease; return False if the content is not what this process wrote last."""
        with self._lock:
            if self._written is None:
                return False
            written = self._record()
            if not files.compare_and_swap(self.url, written, self._written):
                self._written = None
                return False
            self._written = written
            return True

    def _renew_until(self, stop: threading.Event) -> None:
        """Renew the lease until it is released; interrupt this process if another one took it."""
        while not stop.wait(RENEW_S):
            try:
                if self._renew() or stop.is_set():
                    continue
            except StoreError:
                continue  # the store does not answer; the next turn or `check` tries again
            with contextlib.suppress(StoreError):
                if _read_content(self.url) is not None:
                    self.lost = True
                    main = threading.main_thread().ident
                    assert main is not None
                    # A signal interrupts the main thread even while it waits.
                    signal.pthread_kill(main, signal.SIGINT)
            return


def _read_content(url: str) -> bytes | None:
    try:
        return files.read_bytes(url)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _parse_record(content: bytes) -> Json:
    """Return the record in `lease.json`; empty if it is damaged."""
    try:
        return dict(json.loads(content))
    except ValueError:
        return {}


def _describe_holder(content: bytes | None) -> str:
    """Describe the holder of a lease in a message."""
    record = _parse_record(content or b"")
    if "pid" not in record:
        return "a process whose record is damaged"
    return f"process {record.get('pid')} on {record.get('host')}, since {record.get('since')}"


def _is_running(pid: object) -> bool:
    """Return whether a process of this machine is running."""
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
