"""A reader of published maps who knows the truth of the planet: every arm, paired.

    python -m bench.truth_reader PUBLICATION WORKSPACE OUT.json

The maps are opened by the URL of the publication. Of the workspace only the planet's truth is read.
Cells and days that an arm lacks, and frozen days, are left out for all arms.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from model import metrics
from pipeline import api
from pipeline.catalog import experiment_sources
from pipeline.experiment import config
from pipeline.storage import publications, schema
from pipeline.storage.artefacts import Workspace
from pipeline.storage.maps_schema import Quality

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

MIN_DAYS = 90
BLOCK = 11  # footprints: about 400 km
DRAWS = 500
SHOWN = {"correlation": "R", "rmse": "RMSE, m3 m-3", "bias": "bias, m3 m-3"}


class Sums:
    """Sums over days of truth and prediction, (y, x), from which the scores of cells follow."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.n, self.t, self.p, self.tt, self.pp, self.tp = np.zeros((6, *shape))

    def add(self, truth: NDArray, predicted: NDArray, valid: NDArray) -> None:
        """Add days, (day, y, x) each."""
        t, p = (np.where(valid, values, 0.0).astype(np.float64) for values in (truth, predicted))
        for total, values in (
            *((self.n, valid), (self.t, t), (self.p, p)),
            *((self.tt, t * t), (self.pp, p * p), (self.tp, t * p)),
        ):
            total += values.sum(0)

    def scores(self, min_days: int) -> dict[str, NDArray]:
        """Scores by name, (y, x); NaN where there are too few days."""
        with np.errstate(divide="ignore", invalid="ignore"):
            n = np.where(self.n >= min_days, self.n, np.nan)
            bias = (self.p - self.t) / n
            mse = (self.pp - 2 * self.tp + self.tt) / n
            covariance = self.tp / n - self.t * self.p / n**2
            spread = (self.tt / n - (self.t / n) ** 2) * (self.pp / n - (self.p / n) ** 2)
            correlation = covariance / np.sqrt(np.where(spread > 0, spread, np.nan))
        return {"correlation": correlation, "rmse": np.sqrt(np.maximum(mse, 0)), "bias": bias}


def scored(publication: str, workspace: str, min_days: int = MIN_DAYS) -> dict:
    """Score every arm of a publication against the truth.

    Args:
      publication: URL of the publication.
      workspace: URL of the experiment's folder, whose planet has the truth.
      min_days: Days that a cell needs to be scored.

    Returns:
      By arm, the median over footprints of each score of their cells and its 95 % interval; and the
      differences of the first arm from each other one, at the same cells and days.
    """
    release = publications.find_release(publication)
    assert release is not None
    experiment = Workspace(workspace).described()
    truth = experiment_sources.open_truth(experiment)
    arms = release.manifest["arms"]
    opened = {arm: api.open_maps(publication, arm) for arm in arms}
    shape = config.experiment_window(experiment).cell_shape
    sums = {arm: Sums(shape) for arm in arms}
    days = opened[arms[0]].time.values
    for start in range(0, len(days), schema.BLOCK_DAYS):
        part = days[start : start + schema.BLOCK_DAYS]
        true = truth.on_days(part)
        read = {arm: _values(opened[arm], experiment.target, part) for arm in arms}
        valid = np.isfinite(true) & np.all([np.isfinite(v) for v in read.values()], axis=0)
        for arm, values in read.items():
            sums[arm].add(true, values, valid)
    cells = {arm: each.scores(min_days) for arm, each in sums.items()}
    side = experiment.domain.refinement
    by_footprint = {
        arm: {name: _footprint_means(values, side) for name, values in scores.items()}
        for arm, scores in cells.items()
    }
    fy, fx = shape[0] // side, shape[1] // side
    y, x = np.mgrid[0:fy, 0:fx] // min(BLOCK, max(1, min(fy, fx) // 2))
    return _described(by_footprint, (y * (fx + 1) + x).ravel()) | {
        "release": release.name,
        "cells": int(np.isfinite(cells[arms[0]]["rmse"]).sum()),
        "days": len(days),
    }


def _values(maps: xr.Dataset, target: str, days: NDArray) -> NDArray:
    """Values (day, y, x) of some days; NaN where the soil is frozen."""
    part = maps[[target, "quality_flag"]].sel(time=days).load()
    frozen = (part.quality_flag.values.astype(int) & Quality.FROZEN) != 0
    return np.where(frozen, np.nan, part[target].values)


def _footprint_means(values: NDArray, side: int) -> NDArray:
    """Means of the cells (y, x) of each footprint, (footprint,); NaN where no cell has a value."""
    parts = values.reshape(values.shape[0] // side, side, -1, side)
    n = np.isfinite(parts).sum((1, 3))
    return (np.nansum(parts, (1, 3)) / np.where(n, n, np.nan)).ravel()


def _described(scores: dict[str, dict[str, NDArray]], block: NDArray) -> dict:
    """Medians with intervals of every arm, and differences of the first from the others."""
    first, *others = scores
    arms = {
        arm: {
            name: [
                float(np.nanmedian(values)),
                *metrics.block_bootstrap(values, block, n_draws=DRAWS),
            ]
            for name, values in each.items()
        }
        for arm, each in scores.items()
    }
    paired = {}
    for other in others:
        paired[other] = {}
        for name in SHOWN:
            found = metrics.paired_difference(
                scores[first][name], scores[other][name], block, DRAWS
            )
            paired[other][name] = [found["median_difference"], *found["ci95"]]
    return {
        "arms": arms,
        "paired": paired,
        "footprints": int(np.isfinite(scores[first]["rmse"]).sum()),
    }


def main(
    publication: Annotated[str, typer.Argument(help="URL of the publication.")],
    workspace: Annotated[str, typer.Argument(help="URL of the experiment's folder.")],
    out: Annotated[str, typer.Argument(help="JSON to write.")],
    min_days: Annotated[int, typer.Option(help="Days that a cell needs.")] = MIN_DAYS,
) -> None:
    """Score published maps against the truth of their planet."""
    Path(out).write_text(json.dumps(scored(publication, workspace, min_days), indent=1))


if __name__ == "__main__":
    typer.run(main)
