"""Stage `evaluate`: predictions and maps in, scores, comparisons and the report out."""

from pipeline.evaluate.stage import run

__all__ = ["run"]
