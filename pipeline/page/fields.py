"""Fields of the maps, the truth and the satellite: one day, and means in blocks of days."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from model.attributes import RunningSum
from pipeline import arrays, domain, schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pipeline.config import Experiment
    from pipeline.cube import Cube
    from pipeline.store import Workspace

    Reader = Callable[[NDArray[np.datetime64]], NDArray[np.float32]]

ENOUGH = 0.8  # of the most footprints observed on a day: such days may be shown


@dataclass(frozen=True)
class Mapped:
    """What the report shows of one arm's maps.

    `contrast` (day,) is the standard deviation over cells; `level` (fy, fx) the mean over days of
    the footprint's mean minus the satellite, None without a satellite.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    contrast: NDArray[np.float64]
    level: NDArray[np.float64] | None


@dataclass(frozen=True)
class Fields:
    """Reads fields of an experiment's test period, never more than a block of days at once."""

    experiment: Experiment
    workspace: Workspace
    cube: Cube

    @property
    def days(self) -> NDArray[np.datetime64]:
        """Days of the test period."""
        days = self.cube.days[self.cube.day_index(self.experiment.test_period)]
        return days.astype("datetime64[ns]")

    def blocks(self) -> list[NDArray[np.datetime64]]:
        """Those days in pieces."""
        return schema.in_blocks(self.days)

    def arm(self, arm: str, name: str = "") -> Reader:
        """Reader of an arm's map, or of its standard deviation with `name` "_std"."""
        mapped = arrays.open_group(self.workspace.url("maps", f"{arm}.zarr"), "")
        array = mapped[f"{self.experiment.target}{name}"]
        return lambda days: np.asarray(array.sel(time=days).values, np.float32)

    def truth(self) -> Reader | None:
        """Reader of the truth, where there is one; only in cells that are mapped."""
        if self.experiment.sources.truth is None:
            return None
        truth = domain.open_truth(self.experiment)
        mask = self.cube.cells["mask"].values.astype(bool)
        return lambda days: np.where(mask, truth.days(days), np.float32(np.nan))

    def satellite(self) -> Reader | None:
        """Reader of the footprints, where there are any."""
        if self.cube.footprints is None:
            return None
        array = self.cube.footprints[self.cube.target]
        return lambda days: np.asarray(array.sel(time=days).values, np.float32)

    def mean(self, read: Reader) -> NDArray[np.float64]:
        """The mean over the test period."""
        kept = RunningSum(axis=0)
        for days in self.blocks():
            kept.add(read(days))
        return kept.mean

    def mapped(self, arm: str) -> Mapped:
        """Everything about an arm's maps, in one walk over the days."""
        read, read_std, satellite = self.arm(arm), self.arm(arm, "_std"), self.satellite()
        mean, std, level = (RunningSum(axis=0) for _ in range(3))
        contrast = []
        for days in self.blocks():
            values = read(days)
            mean.add(values)
            std.add(read_std(days))
            contrast.append(_spread(values))
            if satellite is not None:
                level.add(self.footprint_mean(values) - satellite(days))
        has_level = None if satellite is None else level.mean
        return Mapped(mean.mean, std.mean, np.concatenate(contrast), has_level)

    def footprint_mean(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(day, fy, fx) mean over the cells of each footprint that have a value."""
        r = self.cube.refinement
        days, ny, nx = values.shape
        parts = values.reshape(days, ny // r, r, nx // r, r)
        count = np.isfinite(parts).sum((2, 4))
        total = np.where(np.isfinite(parts), parts, 0).sum((2, 4))
        enough = 2 * count >= r * r
        return np.where(enough, total / np.maximum(count, 1), np.nan).astype(np.float32)

    def chosen_day(self, contrast: NDArray[np.float64]) -> NDArray[np.datetime64]:
        """The day with most contrast among those with nearly most footprints, as (1,)."""
        satellite = self.satellite()
        seen = np.zeros(len(contrast), np.int64)
        if satellite is not None:
            parts = [np.isfinite(satellite(days)).sum((1, 2)) for days in self.blocks()]
            seen = np.concatenate(parts)
        shown = np.where(seen >= ENOUGH * seen.max(), contrast, -np.inf)
        best = int(np.argmax(np.where(np.isnan(shown), -np.inf, shown)))
        return self.days[best : best + 1]


def _spread(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """(day,) standard deviation over cells with a value, NaN where there is none."""
    known = (day[np.isfinite(day)] for day in values)
    return np.array([day.std(dtype=np.float64) if day.size else np.nan for day in known])
