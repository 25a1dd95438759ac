"""To be written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.progress import Progress


def examine(target: str, write: str | None, progress: Progress) -> tuple[bool, list[Any]]:
    """What is shown."""
    raise NotImplementedError
