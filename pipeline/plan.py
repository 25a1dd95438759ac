"""To be written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config import Experiment


def tables(experiment: Experiment) -> list[Any]:
    """What is shown."""
    raise NotImplementedError
