"""Draw whether intervals hold what they promise, and predictions against observations.

The reliability curve shows the share of observations inside intervals of ten nominal levels. The
density of predictions and observations at sites shows where an arm is too dry or too wet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.evaluate.report import scores, style
from pipeline.evaluate.report.site_table import site_anchor, site_texts

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from pipeline.evaluate.report.style import Picture
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.storage.cube import Cube
    from pipeline.storage.tables import SitePredictions


BINS = 56  # of the density, along each axis
SHOWN_SHARE = 0.999  # of the values that the axes of the density span
_SIZE = 3.2  # width and height of a figure, inches
_BOX = (0.16, 0.14, 0.79, 0.81)  # of the axes in a figure: left, bottom, width, height


def reliability_curves(summary: Json) -> list[Json]:
    """Return a reliability curve for each reference; empty if the summary has none."""
    curves = []
    for key, judged, where in scores.references(summary):
        arms = {
            name: described["reliability"]
            for name, described in judged["arms"].items()
            if None not in described.get("reliability", {}).get("after", [None])
        }
        if arms:
            picture = draw_reliability(arms, f"at {where}")
            curves.append({"key": key, "title": where, "picture": picture})
    return curves


def draw_reliability(arms: dict[str, Json], where: str) -> Picture:
    """Draw observed against nominal coverage, before (thin) and after (thick) calibration.

    Args:
      arms: by arm, `nominal` levels and the shares `before` and `after`.
      where: which places, for the text alternative.
    """
    with style.canvas(_SIZE, _SIZE, layout="none") as figure:
        axes = figure.add_axes(_BOX)
        axes.plot([0, 100], [0, 100], color=style.INK, linewidth=0.9, linestyle=(0, (4, 3)))
        for name, curve in arms.items():
            nominal, before, after = (
                100 * np.array(curve[k], float) for k in ("nominal", "before", "after")
            )
            colour = style.colour(name)
            if None not in curve["before"]:
                axes.plot(nominal, before, color=colour, linewidth=0.8, alpha=0.55)
            axes.plot(
                nominal, after, "o-", color=colour, linewidth=1.5, markersize=3.5,
                label=style.label(name),
            )  # fmt: skip
        axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="nominal coverage [%]")
        axes.set_ylabel("observed coverage [%]")
        axes.grid()
        axes.legend(loc="upper left")
        return style.embed_figure(figure, f"Reliability of the intervals, {where}")


def density_pictures(
    experiment: Experiment, cube: Cube, table: SitePredictions, rows: pd.DataFrame
) -> list[Json]:
    """Draw the density of predictions against observations at the scored sites, for each arm.

    Args:
      experiment: the experiment.
      cube: its cube, for the days of the test period.
      table: observations and predictions at the sites.
      rows: the scores table.
    """
    test = cube.day_index(experiment.test_period)
    variable = experiment.table[experiment.target]
    unit = style.format_units(variable.units)
    observed = table.observed[:, test]
    predicted: dict[str, NDArray[Any]] = {
        arm: table.values(arm, "prediction")[:, test] for arm in experiment.arms
    }
    pairs: dict[str, NDArray[np.bool_]] = {}
    for arm, values in predicted.items():
        of_arm = rows[(rows.target == "site") & (rows.arm == arm) & (rows.metric == "rmse")]
        scored = np.isin(table.ids, of_arm.id[of_arm.value.notna()].to_numpy(str))
        pairs[arm] = np.isfinite(values) & np.isfinite(observed) & scored[:, None]
    pairs = {arm: both for arm, both in pairs.items() if both.any()}
    if not pairs:
        return []
    bounds = _shared_bounds([observed[b] for b in pairs.values()]
                            + [predicted[arm][b] for arm, b in pairs.items()])  # fmt: skip
    panels = []
    for arm, both in pairs.items():
        counts, _, _ = np.histogram2d(observed[both], predicted[arm][both], BINS, (bounds, bounds))
        texts, rows_shown = site_texts(rows, arm, unit), np.flatnonzero(both.any(1)).tolist()
        sites = SiteMeans(
            _masked_mean(observed, both)[rows_shown],
            _masked_mean(predicted[arm], both)[rows_shown],
            [texts.get(table.ids[row], table.ids[row]) for row in rows_shown],
            [site_anchor(row) for row in rows_shown],
        )
        picture = draw_density(counts, bounds, sites, unit, style.label(arm))
        panels.append({"title": style.label(arm), "picture": picture})
    return panels


@dataclass(frozen=True)
class SiteMeans:
    """The means of sites over the days with both values, (site,).

    Attributes:
      observed: mean observation.
      predicted: mean prediction.
      texts: what to show where the pointer is.
      links: id of the element of the page that the site links to.
    """

    observed: NDArray[np.float64]
    predicted: NDArray[np.float64]
    texts: list[str]
    links: list[str]


def draw_density(
    counts: NDArray[Any], bounds: tuple[float, float], sites: SiteMeans, unit: str, arm: str
) -> Picture:
    """Draw the number of site-days by observation and prediction, and the mean of each site.

    Args:
      counts: (observation, prediction) numbers of site-days.
      bounds: both ends of both axes.
      sites: the means of the sites.
      unit: unit of the values.
      arm: label of the arm that predicts.
    """
    from matplotlib.colors import LogNorm

    x, y = sites.observed, sites.predicted
    with style.canvas(_SIZE, _SIZE, layout="none") as figure:
        axes = figure.add_axes(_BOX)
        axes.imshow(
            np.ma.masked_equal(counts.T, 0),
            extent=(*bounds, *bounds),
            origin="lower",
            cmap="cividis_r",
            norm=LogNorm(1, max(counts.max(), 2)),
            interpolation="nearest",
            aspect="auto",
        )
        axes.plot(bounds, bounds, color=style.INK, linewidth=0.9)
        axes.scatter(x, y, s=14, c="white", edgecolors="black", linewidths=0.7, zorder=3)
        axes.set(xlim=bounds, ylim=bounds)
        axes.set_xlabel(style.label_with_unit("observed", unit))
        axes.set_ylabel(style.label_with_unit("predicted", unit))
        style.short_ticks(axes.xaxis)
        style.short_ticks(axes.yaxis)
        points = style.hover_points(axes, x, y, sites.texts, sites.links)
        alt = f"Density of predictions of {arm} and observations at held-out sites"
        return style.embed_figure(figure, alt, "png", points)


def _masked_mean(values: NDArray[Any], both: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the mean of each row over the days that count; 0 where there are none."""
    total = np.where(both, values, 0.0).sum(1, dtype=np.float64)
    return np.asarray(total / np.maximum(both.sum(1), 1))


def _shared_bounds(values: list[NDArray[Any]]) -> tuple[float, float]:
    """Return the range of all but a few of the values."""
    out = (1 - SHOWN_SHARE) / 2
    low = min(float(np.quantile(v, out)) for v in values)
    high = max(float(np.quantile(v, 1 - out)) for v in values)
    return low, max(high, low + 1e-9)
