"""Stage `train`: cube and folds in, models, out-of-fold predictions and calibration out."""

from pipeline.train.stage import run

__all__ = ["run"]
