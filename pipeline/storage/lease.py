"""The lease of a workspace: only the process that holds it may write there.

`lease.json` contains `holder` (a random id), `host`, `boot` (the id of the machine's present boot),
`pid_namespace`, `pid`, `started` (when the process started, in clock ticks since the boot), `since`
and `renewed` (UTC). It is created and renewed by compare-and-swap, so only one of two processes
gets it. A lease that is not renewed for STALE_S seconds, by the clock of the process that waits,
belongs to a dead process and can be taken. The same holds for a damaged record, and for one that an
earlier version wrote, without `boot`. A holder on this machine and in this container is looked up
in /proc instead, so that nobody waits for a process that has ended.
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
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import failures, files
from pipeline.errors import HeldError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.files import Json


STALE_S, RENEW_S, POLL_S = 60.0, 15.0, 1.0


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
        self._holder = uuid.uuid4().hex
        self._written: bytes | None = None
        self._since = ""  # when `take` was called; empty once the lease is released
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
          HeldError: If a living process holds the lease.
          StoreError: If `lease.json` cannot be read or written.
        """
        with self._taking:  # a stage and the mirror in MLflow may take it at the same time
            while not self.held:
                self._since = _now()
                content = _read_content(self.url)
                usable = content is None or self._is_own(content) or self._is_dead(content, say)
                if not usable:
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
        if content is None or self._is_own(content):
            return False
        return _is_alive(_parse_record(content)) is not False

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
                f"lost to {holder}, so this process must not write any more; nothing was committed"
            )
            raise StoreError(self.url, problem, remedy="run the command again")

    def release(self) -> None:
        """Release the lease if this process holds it.

        If the store does not respond, the lease becomes stale by itself.
        """
        self._stop.set()
        with self._lock, contextlib.suppress(StoreError, *failures.storage_exceptions()):
            # A record of this process may be there although `take` did not return: a signal came
            # first, or the store's response was lost.
            if self._since and self._is_own(_read_content(self.url)):
                files.remove(self.url)
        self._written, self._since = None, ""
        atexit.unregister(self.release)

    @contextlib.contextmanager
    def given_back(self) -> Iterator[None]:
        """Release the lease at the end of the block.

        Raises:
          StoreError: If another process has taken the lease, which also interrupts the block.
        """
        try:
            with self._interrupted_if_lost():
                yield
            if self.lost:
                self.check()
        except KeyboardInterrupt:
            if self.lost:
                self.check()
            raise
        finally:
            self.release()

    @contextlib.contextmanager
    def _interrupted_if_lost(self) -> Iterator[None]:
        """Let the loss of the lease interrupt the block also where SIGINT is ignored.

        It is ignored in what a script starts with `&`.
        """
        in_main = threading.current_thread() is threading.main_thread()
        if not in_main or signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            yield
            return

        def interrupt(number: int, frame: object) -> None:
            if self.lost:
                raise KeyboardInterrupt

        signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _is_dead(self, content: bytes, say: Callable[[str], None]) -> bool:
        """Return whether the holder is dead; False if it released the lease in the meantime.

        Raises:
          HeldError: If the holder is alive.
        """
        alive = _is_alive(_parse_record(content))
        hint = "wait for it to end, or use another workspace with --name NEW"
        if alive is False:
            return True
        if alive is None:
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
        raise HeldError(self.url, f"held by {_describe_holder(content)}", remedy=hint)

    def _record(self) -> bytes:
        return json.dumps(
            {
                "holder": self._holder,
                **_this_place(),
                "pid": os.getpid(),
                "started": _start_time("self"),
                "since": self._since,
                "renewed": _now(),
            }
        ).encode()

    def _is_own(self, content: bytes | None) -> bool:
        """Return whether this object wrote a record, not necessarily as its last."""
        return content is not None and _parse_record(content).get("holder") == self._holder

    def _renew(self) -> bool:
        """Renew the lease; return False if another process wrote the record or nobody did."""
        with self._lock:
            if self._written is None:
                return False
            written, expected = self._record(), self._written
            while not files.compare_and_swap(self.url, written, expected):
                # An earlier renewal may have succeeded although its response was lost.
                latest = _read_content(self.url)
                if latest is None or not self._is_own(latest):
                    self._written = None
                    return False
                expected = latest
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
    """Return the content of a lease; None if there is none.

    Raises:
      StoreError: If it cannot be read.
    """
    try:
        return files.read_bytes(url)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _parse_record(content: bytes) -> Json:
    """Return the record in `lease.json`; empty if it is damaged."""
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _describe_holder(content: bytes | None) -> str:
    """Describe the holder of a lease in a message, in one line."""
    record = _parse_record(content or b"")
    if "pid" not in record:
        return "a process whose record is damaged"
    text = f"process {record['pid']} on {record.get('host')}, since {record.get('since')}"
    return " ".join(text.split())[:200]


def _this_place() -> Json:
    """Return where this process runs: `host`, `boot` and `pid_namespace`.

    Process ids mean the same only where all three are the same: machines and containers can have
    equal host names. None means unknown, as on systems without /proc.
    """
    boot = namespace = None
    with contextlib.suppress(OSError):
        # Otherwise /proc belongs to another namespace than os.getpid().
        if os.readlink("/proc/self") == str(os.getpid()):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            namespace = os.stat("/proc/self/ns/pid").st_ino
    return {"host": platform.node(), "boot": boot, "pid_namespace": namespace}


def _is_alive(record: Json) -> bool | None:
    """Return whether the process that wrote a record is running; None if that is unknown."""
    place, pid, started = _this_place(), record.get("pid"), record.get("started")
    if None in place.values() or any(record.get(key) != value for key, value in place.items()):
        return None
    if not isinstance(pid, int) or not isinstance(started, int):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass  # it belongs to another user; or the number cannot be a process id
    present = _start_time(str(pid))
    # A later process can have the same id; 0 means that the process has ended.
    return None if present is None else present == started


def _start_time(pid: str) -> int | None:
    """Return when a process started, in clock ticks since the boot.

    Returns:
      The time; 0 for a process that has ended and that its parent has not yet waited for; None if
        the time is unknown.
    """
    try:
        # The second field is the name, which may contain spaces and brackets.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return 0 if fields[0] in "ZX" else int(fields[19])
    except (OSError, IndexError, ValueError):
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
