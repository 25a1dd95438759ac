"""Make the sections of the report with lines: time series at sites, and losses of the training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from model.calibration import interval_half_width
from pipeline import files
from pipeline.evaluate import scoring
from pipeline.evaluate.report import style
from pipeline.evaluate.report.maps import main_arm
from pipeline.storage import models, tables

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from pipeline.evaluate.report.style import Picture
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.storage.artefacts import Workspace
    from pipeline.storage.cube import Cube
    from pipeline.storage.tables import SitePredictions


INTERVAL_LEVELS = (0.9, 0.5)  # of the prediction intervals that are shown, widest first
MAX_DAYS = 731  # shown of a series: two years are still legible
LOSS_COLUMNS = {"loss_insitu": "sites", "loss_satellite": "footprints"}


def site_series(
    experiment: Experiment, cube: Cube, scores: pd.DataFrame, table: SitePredictions
) -> list[Json]:
    """Draw the sites with the lowest, the median and the highest RMSE of the reference arm."""
    arm = main_arm(experiment)
    chosen = _choose_sites(scores, arm)
    if not chosen:
        return []
    test = cube.day_index(experiment.test_period)
    satellite = None
    if cube.footprints is not None:
        satellite = scoring.satellite_at_cube_sites(experiment, cube, test).prediction
    row_of_site = {site: cube.site_ids.index(site) for _, site, _ in chosen}
    shown = _choose_days(table.observed[sorted(set(row_of_site.values()))][:, test])
    days = table.days[test][shown].astype("datetime64[ns]")
    columns = [table.values(arm, name)[:, test] for name in ("observation", "prediction", "std")]
    variable = experiment.table[experiment.target]
    unit = style.format_units(variable.units)
    panels = []
    for rank, site, rmse in chosen:
        row = row_of_site[site]
        at_row = None if satellite is None else satellite[row][shown]
        has_satellite = at_row is not None and bool(np.isfinite(at_row).any())
        observed, mean, std = (values[row][shown] for values in columns)
        line = SiteSeries(days, observed, mean, std, at_row if has_satellite else None)
        axis_label = style.label_with_unit(experiment.target.replace("_", " "), unit)
        alt = f"Time series at {site}, the {rank} site"
        picture = draw_site_series(line, arm, axis_label, (variable.minimum, variable.maximum), alt)
        error = style.format_number(rmse, 4)
        panels.append({"rank": rank, "site": site, "rmse": error, "unit": unit, "picture": picture})
    return panels


def loss_curves(experiment: Experiment, workspace: Workspace) -> list[Json]:
    """Draw the losses of the models of all sites, first seed, by kind of observation."""
    root, _ = models.find_models(experiment, workspace)
    by_loss: dict[str, dict[str, Any]] = {name: {} for name in LOSS_COLUMNS}
    for arm in experiment.arms:
        seeds = models.list_seeds(root, arm)
        url = files.join(root, arm, "fold=all", f"seed={seeds[0]}", "history.parquet")
        history = tables.read_table(url)
        for name in LOSS_COLUMNS:
            # It is 0 throughout if the arm does not use this kind of observation.
            if (history[name].fillna(0) != 0).any():
                by_loss[name][arm] = (history.step.to_numpy(), history[name].to_numpy())
    return [
        {"title": f"loss on {LOSS_COLUMNS[name]}", "picture": draw_losses(arms, LOSS_COLUMNS[name])}
        for name, arms in by_loss.items()
        if arms
    ]


def _choose_sites(scores: pd.DataFrame, arm: str) -> list[tuple[str, str, float]]:
    """Choose the best, the median and the worst site by RMSE.

    Returns:
      Rank in words, id and RMSE of each. If fewer than three sites are scored, only the best.
    """
    rows = scores[(scores.target == "site") & (scores.arm == arm) & (scores.metric == "rmse")]
    rows = rows[rows.value.notna()].sort_values("value")
    positions = {"best": 0, "median": (len(rows) - 1) // 2, "worst": len(rows) - 1}
    if len(rows) < len(positions):
        positions = {"best": 0} if len(rows) else {}
    return [(rank, rows.id.iloc[k], float(rows.value.iloc[k])) for rank, k in positions.items()]


def _choose_days(observed: NDArray[np.float32]) -> slice:
    """Return the MOST_DAYS consecutive days with most observations (site, day) at all sites."""
    counts = np.cumsum([0, *np.isfinite(observed).sum(0)])
    if len(counts) <= MAX_DAYS:
        return slice(0, len(counts) - 1)
    first = int(np.argmax(counts[MAX_DAYS:] - counts[:-MAX_DAYS]))
    return slice(first, first + MAX_DAYS)


@dataclass(frozen=True)
class SiteSeries:
    """Time series at a site, (day,) each, in the target's unit; NaN where missing.

    Attributes:
      days: the days.
      observed: observations.
      mean: predictions.
      std: calibrated standard deviation of the predictions.
      satellite: the satellite at the site; None if no footprint with data is near.
    """

    days: NDArray[np.datetime64]
    observed: NDArray[np.float32]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    satellite: NDArray[np.float32] | None


def draw_site_series(
    series: SiteSeries, arm: str, axis_label: str, bounds: tuple[float, float], alt: str
) -> Picture:
    """Draw observation, prediction with its 50 and 90 % interval, and the satellite at a site.

    Args:
      series: the time series.
      arm: the arm that predicts.
      axis_label: label of the vertical axis.
      bounds: smallest and largest value of the target, to which the intervals are limited.
      alt: what the figure shows, in words.
    """
    colour = style.colour(arm)
    with style.canvas(10.4, 2.5) as figure:
        axes = figure.subplots()
        for level, alpha in zip(INTERVAL_LEVELS, (0.16, 0.3), strict=True):
            half = series.std * interval_half_width(level)
            low, high = (np.clip(series.mean + side * half, *bounds) for side in (-1, 1))
            shade: dict[str, Any] = {"color": colour, "alpha": alpha, "linewidth": 0}
            axes.fill_between(series.days, low, high, label=f"{level:.0%} interval", **shade)
        axes.plot(series.days, series.mean, color=colour, linewidth=1.2, label=style.label(arm))
        if series.satellite is not None:
            axes.plot(
                series.days,
                series.satellite,
                "o",
                color=style.colour("footprint"),
                markersize=2.2,
                alpha=0.7,
                label=style.label("footprint"),
            )
        axes.plot(series.days, series.observed, color="black", linewidth=0.9, label="observed")
        axes.set_xlim(series.days[0], series.days[-1])
        axes.set_ylabel(axis_label)
        style.short_ticks(axes.yaxis)
        set_month_ticks(axes)
        axes.grid(axis="y")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=5, columnspacing=1.4)
        return style.embed_figure(figure, alt)


def draw_losses(curves: dict[str, tuple[NDArray[Any], NDArray[Any]]], which: str) -> Picture:
    """Draw the loss by update with its running mean, for each arm.

    Args:
      curves: by arm, update numbers and losses, (update,) each.
      which: the kind of observation: sites or footprints.
    """
    with style.canvas(3.5, 2.2) as figure:
        axes = figure.subplots()
        for arm, (step, loss) in curves.items():
            axes.plot(step, loss, color=style.colour(arm), linewidth=0.5, alpha=0.25)
            smooth = _running_mean(loss, max(3, len(loss) // 20))
            axes.plot(step, smooth, color=style.colour(arm), linewidth=1.5, label=style.label(arm))
        axes.set_xlabel("update")
        axes.set_ylabel("loss")
        lows, highs = zip(
            *(np.nanquantile(loss, (0.0, 1.0)) for _, loss in curves.values()), strict=True
        )
        room = 0.05 * (max(highs) - min(lows) + 1e-9)
        axes.set_ylim(min(lows) - room, max(highs) + room)
        style.short_ticks(axes.yaxis)
        style.short_ticks(axes.xaxis)
        axes.grid(axis="y")
        axes.legend(loc="upper right")
        return style.embed_figure(figure, f"Training loss on {which} by update, for each arm.")


def set_month_ticks(axes: Axes) -> None:
    """Give a time axis few ticks with short labels."""
    from matplotlib import dates

    locator = dates.AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    formatter = dates.ConciseDateFormatter(locator, show_offset=False)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)


def _running_mean(values: NDArray[Any], width: int) -> NDArray[Any]:
    """Return the mean of the finite ones among the last `width` values; NaN if there are none."""
    finite = np.isfinite(values)
    sums = np.cumsum(np.where(finite, values, 0.0))
    counts = np.cumsum(finite)
    before = np.maximum(np.arange(len(values)) - width, -1)
    total = sums - np.where(before >= 0, sums[before], 0.0)
    number = counts - np.where(before >= 0, counts[before], 0)
    return np.asarray(np.where(number > 0, total / np.maximum(number, 1), np.nan))
