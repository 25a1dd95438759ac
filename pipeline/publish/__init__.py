"""`publish`: an experiment's results as an immutable release at a URL, for others to read."""

from __future__ import annotations

from pipeline.publish.stage import publish, roll_back

__all__ = ["publish", "roll_back"]
