"""Stage `evaluate`: predictions and maps in, scores, comparisons and the report out."""

from __future__ import annotations

from pipeline.evaluate.stage import run

__all__ = ["run"]
