"""Lines: a site through time with its intervals, losses through training.

Lines on the page: three sites through time, and losses through training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from model.calibration import interval_half_width
from pipeline import files
from pipeline.evaluate import scoring
from pipeline.evaluate.report import style
from pipeline.evaluate.report.maps import reference
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


LEVELS = (0.9, 0.5)


@dataclass(frozen=True)
class Series:
    """A site through time, (day,) each, NaN where missing; `satellite` None where none is near."""

    days: NDArray[np.datetime64]
    observed: NDArray[np.float32]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    satellite: NDArray[np.float32] | None


def at_site(series: Series, arm: str, what: str, bounds: tuple[float, float], alt: str) -> Picture:
    """Observation, prediction with its 50 and 90 % interval, and the satellite."""
    colour = style.colour(arm)
    with style.canvas(10.4, 2.5) as figure:
        axes = figure.subplots()
        for level, strength in zip(LEVELS, (0.16, 0.3), strict=True):
            half = series.std * interval_half_width(level)
            low, high = (np.clip(series.mean + side * half, *bounds) for side in (-1, 1))
            shade: dict[str, Any] = {"color": colour, "alpha": strength, "linewidth": 0}
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
        axes.set_ylabel(what)
        style.short_ticks(axes.yaxis)
        months(axes)
        axes.grid(axis="y")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=5, columnspacing=1.4)
        return style.picture(figure, alt)


def losses(curves: dict[str, tuple[NDArray[Any], NDArray[Any]]], which: str) -> Picture:
    """Loss by update, as running means, a line for each arm."""
    with style.canvas(3.5, 2.2) as figure:
        axes = figure.subplots()
        for arm, (step, loss) in curves.items():
            axes.plot(step, loss, color=style.colour(arm), linewidth=0.5, alpha=0.25)
            smooth = _running(loss, max(3, len(loss) // 20))
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
        return style.picture(figure, f"Training loss on {which} by update, for each arm.")


def months(axes: Axes) -> None:
    """A time axis with few ticks, written short."""
    from matplotlib import dates

    locator = dates.AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    formatter = dates.ConciseDateFormatter(locator, show_offset=False)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)


def _running(values: NDArray[Any], width: int) -> NDArray[Any]:
    """Mean of the last `width` values that are numbers."""
    known = np.isfinite(values)
    sums = np.cumsum(np.where(known, values, 0.0))
    counts = np.cumsum(known)
    before = np.maximum(np.arange(len(values)) - width, -1)
    total = sums - np.where(before >= 0, sums[before], 0.0)
    number = counts - np.where(before >= 0, counts[before], 0)
    return np.asarray(np.where(number > 0, total / np.maximum(number, 1), np.nan))


MOST_DAYS = 731  # shown of a series: two years can still be read
LOSSES = {"loss_insitu": "sites", "loss_satellite": "footprints"}


def series(
    experiment: Experiment, workspace: Workspace, cube: Cube, scores: pd.DataFrame
) -> list[Json]:
    """The best, the median and the worst site of the reference arm, by RMSE."""
    arm = reference(experiment)
    chosen = _chosen(scores, arm)
    if not chosen:
        return []
    table = tables.read_site_predictions(workspace, "observation", "prediction", "std")
    test = cube.day_index(experiment.test_period)
    near = None
    if cube.footprints is not None:
        near = scoring.in_cube(experiment, cube, test).prediction
    numbers = {site: cube.site_ids.index(site) for _, site, _ in chosen}
    shown = _shown(table.observed[sorted(set(numbers.values()))][:, test])
    days = table.days[test][shown].astype("datetime64[ns]")
    of_arm = [table.values(arm, name)[:, test] for name in ("observation", "prediction", "std")]
    variable = experiment.table[experiment.target]
    unit = style.units(variable.units)
    made = []
    for rank, site, value in chosen:
        number = numbers[site]
        beside = None if near is None else near[number][shown]
        seen = beside is not None and bool(np.isfinite(beside).any())
        observed, mean, std = (values[number][shown] for values in of_arm)
        line = Series(days, observed, mean, std, beside if seen else None)
        what = style.quantity(experiment.target.replace("_", " "), unit)
        alt = f"Time series at {site}, the {rank} site"
        picture = at_site(line, arm, what, (variable.minimum, variable.maximum), alt)
        error = style.format_number(value, 4)
        made.append({"rank": rank, "site": site, "rmse": error, "unit": unit, "picture": picture})
    return made


def curves(experiment: Experiment, workspace: Workspace) -> list[Json]:
    """Losses of the models of all sites, first seed, a figure for each kind of observation."""
    root, _ = models.source(experiment, workspace)
    found: dict[str, dict[str, Any]] = {name: {} for name in LOSSES}
    for arm in experiment.arms:
        seeds = models.seeds(root, arm)
        url = files.join(root, arm, "fold=all", f"seed={seeds[0]}", "history.parquet")
        history = tables.read(url)
        for name in LOSSES:
            if (history[name].fillna(0) != 0).any():  # 0: the arm does not see them
                found[name][arm] = (history.step.to_numpy(), history[name].to_numpy())
    return [
        {"title": f"loss on {LOSSES[name]}", "picture": losses(arms, LOSSES[name])}
        for name, arms in found.items()
        if arms
    ]


def _chosen(scores: pd.DataFrame, arm: str) -> list[tuple[str, str, float]]:
    """Rank in words, id and RMSE of three sites that are scored, or of fewer where there are."""
    rows = scores[(scores.target == "site") & (scores.arm == arm) & (scores.metric == "rmse")]
    rows = rows[rows.value.notna()].sort_values("value")
    places = {"best": 0, "median": (len(rows) - 1) // 2, "worst": len(rows) - 1}
    if len(rows) < len(places):
        places = {"best": 0} if len(rows) else {}
    return [(rank, rows.id.iloc[k], float(rows.value.iloc[k])) for rank, k in places.items()]


def _shown(observed: NDArray[np.float32]) -> slice:
    """The two years with most observations (site, day), the same for all sites."""
    counts = np.cumsum([0, *np.isfinite(observed).sum(0)])
    if len(counts) <= MOST_DAYS:
        return slice(0, len(counts) - 1)
    first = int(np.argmax(counts[MOST_DAYS:] - counts[:-MOST_DAYS]))
    return slice(first, first + MOST_DAYS)
