"""Atomic changes in local folders, without fsspec; `files.py` uses them for local paths."""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


PART = ".part-"  # in the name of a file while it is being written


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
    """Yield the path of a new file beside a file, which it replaces at the end of the block.

    If the block fails, the new file is removed. The folder is created.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    part = f"{path}{PART}{uuid.uuid4().hex}"
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(part)
        raise


def compare_and_swap(path: str, data: bytes, expected: bytes | None) -> bool:
    """Write a file only if its content is still as expected; see `files.compare_and_swap`."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        content = Path(path).read_bytes() if os.path.exists(path) else None
        if content != expected:
            return False
        with replacing(path) as part:
            Path(part).write_bytes(data)
        return True
    finally:
        os.close(lock)


def link(source: str, target: str) -> bool:
    """Make a hard link; return False if the file system has none, or the target exists."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with contextlib.suppress(OSError):
        os.link(source, target)
        return True
    return False
