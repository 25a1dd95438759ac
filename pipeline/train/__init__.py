"""Stage `train`: cube and folds in, models, out-of-fold predictions and calibration out."""

from __future__ import annotations

from pipeline.train.stage import run

__all__ = ["run"]
