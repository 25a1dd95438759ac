"""Stage `predict`: cube and models in, daily maps and the state to continue from out."""

from __future__ import annotations

from pipeline.predict.stage import run

__all__ = ["run"]
