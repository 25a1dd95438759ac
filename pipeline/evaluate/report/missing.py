"""Draw which share of each variable of the cube is present, day by day.

The target is read from the cube. Of other variables, the manifest of the cube counts the missing
values by block of 32 days, and lists the days on which they are missing: each of these days gets
the mean of its block.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.evaluate.report import style
from pipeline.storage import schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.evaluate.report.style import Picture
    from pipeline.files import Json
    from pipeline.storage.cube import Cube


PLACES = ("cells", "footprints", "sites")
MAX_COLUMNS = 900  # of the figure; of longer periods, each column is the mean of some days
_WIDTH, _ROW = 10.4, 0.19  # inches
_LEFT, _RIGHT, _TOP, _BOTTOM = 2.35, 0.15, 0.08, 0.62  # margins, inches


def missing_picture(cube: Cube, manifest: Json) -> Picture | None:
    """Draw the share of values that are present, by variable and day.

    Args:
      cube: the cube.
      manifest: its manifest.

    Returns:
      The figure; None if the manifest counts no missing values, as those of early versions.
    """
    shares = present_shares(cube, manifest)
    return draw_shares(shares, cube.days) if shares else None


def present_shares(cube: Cube, manifest: Json) -> dict[str, NDArray[np.float64]]:
    """Return the share of values that are present, (day,), by place and variable."""
    shares = {}
    for where in PLACES:
        for name, record in manifest.get("missing", {}).get(where, {}).items():
            if "of_days" not in record:  # does not change in time
                continue
            is_target = name == cube.target and where != "cells"
            share = _read_target(cube, where, record) if is_target else None
            label = f"{name.replace('_', ' ')}, {where}"
            shares[label] = _recorded_share(record, cube.days) if share is None else share
    return shares


def _read_target(cube: Cube, where: str, record: Json) -> NDArray[np.float64] | None:
    """Return the share of sites or footprints with an observation, (day,); None without any."""
    group = cube.sites if where == "sites" else cube.footprints
    n_places = record["of"] / max(record["of_days"], 1)
    if group is None or cube.target not in group or not n_places:
        return None
    counts = [
        np.isfinite(group[cube.target].sel(time=days).values).reshape(len(days), -1).sum(1)
        for days in schema.split_into_blocks(cube.days)
    ]
    return np.asarray(np.minimum(np.concatenate(counts) / n_places, 1.0))


def _recorded_share(record: Json, days: NDArray[np.datetime64]) -> NDArray[np.float64]:
    """Return the share of values that are present by the counts of a manifest, (day,)."""
    missing = np.zeros(len(days))
    incomplete = np.zeros(len(days), bool)
    for first, last in record["days"]:
        incomplete |= (days >= np.datetime64(first)) & (days <= np.datetime64(last))
    n_places = max(record["of"] / max(record["of_days"], 1), 1)
    for first, n in record["blocks"].items():
        start = np.datetime64(date.fromisoformat(first))
        block = (days >= start) & (days < start + schema.BLOCK_DAYS)
        concerned = block & incomplete if (block & incomplete).any() else block
        missing[concerned] = n / max(concerned.sum(), 1) / n_places
    return np.clip(1 - missing, 0.0, 1.0)


def draw_shares(shares: dict[str, NDArray[np.float64]], days: NDArray[np.datetime64]) -> Picture:
    """Draw shares (day,) as a row of colours for each variable."""
    from matplotlib import dates

    from pipeline.evaluate.report.series import set_month_ticks

    step = -(-len(days) // MAX_COLUMNS)
    edges = np.arange(0, len(days), step)
    field = np.stack([np.add.reduceat(row, edges) for row in shares.values()])
    field /= np.diff([*edges, len(days)])
    height = _TOP + _BOTTOM + _ROW * len(shares)
    with style.canvas(_WIDTH, height, layout="none") as figure:
        box = (_LEFT / _WIDTH, _BOTTOM / height, (_WIDTH - _LEFT - _RIGHT) / _WIDTH)
        axes = figure.add_axes((*box, _ROW * len(shares) / height))
        first, last = (float(dates.date2num(d)) for d in (days[0], days[-1] + 1))  # type: ignore[no-untyped-call]
        image = axes.imshow(
            field, extent=(first, last, len(shares), 0), aspect="auto", interpolation="nearest",
            cmap="magma", vmin=0, vmax=1,
        )  # fmt: skip
        axes.xaxis_date()
        set_month_ticks(axes)
        axes.set_yticks(np.arange(len(shares)) + 0.5, list(shares))
        axes.tick_params(axis="y", length=0)
        for row in range(1, len(shares)):
            axes.axhline(row, color="white", linewidth=1)
        bar_box = (_LEFT / _WIDTH, 0.27 / height, 1.6 / _WIDTH, 0.09 / height)
        bar = figure.colorbar(image, cax=figure.add_axes(bar_box), orientation="horizontal")
        bar.set_ticks([0, 0.5, 1], labels=["0", "50", "100 % present"])
        _quiet(bar)
        return style.embed_figure(figure, "Share of values present, by variable and day", "png")


def _quiet(bar: Any) -> None:
    """Draw a colour bar without an outline and ticks."""
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=7.5)
