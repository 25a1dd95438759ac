"""To be written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.progress import Progress


def examine(target: str, settings: Sequence[str], progress: Progress) -> tuple[bool, list[Any]]:
    """What is shown."""
    raise NotImplementedError
