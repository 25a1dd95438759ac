"""What the figures and texts of the report share: colours, labels, and formats of numbers.

`canvas` gives a matplotlib figure with the settings of the report, and `picture` embeds it in the
page.
"""

from __future__ import annotations

import base64
import io
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from model.metrics import LABELS as METRIC_LABELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import date

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from pipeline.files import Json


# Colours of Okabe and Ito, which colour-blind readers can distinguish; the same in every figure.
COLOURS = {
    "multiscale": "#0072B2",
    "insitu": "#D55E00",
    "satellite": "#009E73",
    "ridge": "#AA6FA0",
    "footprint": "#767676",
}

LABELS = {
    "multiscale": "multiscale",
    "insitu": "in situ only",
    "satellite": "satellite only",
    "ridge": "ridge regression",
    "footprint": "satellite itself",
}

METRICS = {name: label for name, label in METRIC_LABELS.items() if name != "kge"}
UNITLESS = ("correlation", "anomaly_correlation", "kge")
# By unit of the target, the ubRMSE that a mission promises, drawn in figures: that of SMAP.
UBRMSE_GOALS = {"m3 m-3": 0.04}
MINUS = "\N{MINUS SIGN}"
ABSENT = "\N{EN DASH}"  # stands for a missing value
INK, FAINT = "#1d2430", "#c9ced6"
PIXELS_PER_INCH = 100  # CSS pixels; bitmaps have twice as many, for screens of high resolution

_SETTINGS: dict[str, Any] = {
    "font.size": 8.5,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e8ebef",
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.hashsalt": "soilweave",
    "svg.fonttype": "path",
}


@dataclass(frozen=True)
class Point:
    """A place in a figure that shows a text where the pointer is.

    Attributes:
      x: distance from the left edge, CSS pixels.
      y: distance from the upper edge, CSS pixels.
      text: the text.
      link: id of the element of the page that the place links to.
    """

    x: float
    y: float
    text: str
    link: str


@dataclass(frozen=True)
class Picture:
    """A figure that is embedded in the page.

    Attributes:
      uri: data URI of the image.
      width: width, CSS pixels.
      height: height, CSS pixels.
      alt: what the figure shows, in words.
      points: places that show a text where the pointer is.
    """

    uri: str
    width: int
    height: int
    alt: str
    points: tuple[Point, ...] = ()


@contextmanager
def canvas(width: float, height: float, layout: Any = "constrained") -> Iterator[Figure]:
    """Open a figure with the settings of the report instead of those of the user.

    Args:
      width: width, inches.
      height: height, inches.
      layout: layout engine of matplotlib.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = mpl.rcParamsDefault | _SETTINGS | {"backend": "agg"}
    with mpl.rc_context(settings):
        yield Figure(figsize=(width, height), layout=layout)


def figure_bytes(figure: Figure, form: str = "png") -> bytes:
    """Return the figure as the content of an `svg` or `png` file, identical in every run.

    Call it inside `canvas`.
    """
    if (engine := figure.get_layout_engine()) is not None:
        # Once is enough: matplotlib would lay the figure out twice, and draw it twice for that.
        engine.execute(figure)
        figure.set_layout_engine("none")
    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None} if form == "svg" else {"Software": None}
    figure.savefig(buffer, format=form, dpi=2 * PIXELS_PER_INCH, metadata=metadata)
    return buffer.getvalue()


def hover_points(
    axes: Axes, x: NDArray[Any], y: NDArray[Any], texts: list[str], links: list[str]
) -> tuple[Point, ...]:
    """Return the places in a figure without a layout engine that show texts.

    Args:
      axes: the axes that the places are in.
      x: (place,) horizontal positions in the units of the axes.
      y: (place,) vertical positions.
      texts: a text for each place.
      links: id of the element that each place links to.
    """
    axes.apply_aspect()
    height = axes.figure.bbox.height
    pixels = axes.transData.transform(np.column_stack([x, y])).tolist()
    return tuple(
        Point(round(left, 1), round(height - up, 1), text, link)
        for (left, up), text, link in zip(pixels, texts, links, strict=True)
    )


def embed_figure(
    figure: Figure, alt: str, form: str = "svg", points: tuple[Point, ...] = ()
) -> Picture:
    """Return the figure as part of the page; use `svg` for lines and `png` for fields.

    Call it inside `canvas`.
    """
    kind = {"svg": "image/svg+xml", "png": "image/png"}[form]
    uri = f"data:{kind};base64,{base64.b64encode(figure_bytes(figure, form)).decode()}"
    width, height = (round(size * PIXELS_PER_INCH) for size in figure.get_size_inches())
    return Picture(uri, width, height, alt, points)


def colour(name: str) -> str:
    """Return the colour of an arm or baseline."""
    return COLOURS.get(name, "#444444")


def label(name: str) -> str:
    """Return the label of an arm or baseline."""
    return LABELS.get(name, name)


def format_units(text: str) -> str:
    """Format a UDUNITS text with superscript exponents; "1" becomes empty."""
    superscripts = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    plain = "" if text == "1" else text.replace(" ", "\N{NO-BREAK SPACE}")
    return re.sub(r"(?<=[A-Za-z])-?\d+", lambda match: match[0].translate(superscripts), plain)


def label_with_unit(name: str, unit: str) -> str:
    """Return a name with its unit in brackets; without brackets if the unit is empty."""
    return f"{name} [{unit}]" if unit else name


def short_ticks(axis: Any, n_max: int = 5) -> None:
    """Give an axis few ticks at round values, with labels without the zero before the point."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(n_max, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: format_tick(value)))


def format_tick(value: float) -> str:
    """Format a number for an axis: `.25`, `-.1`, `12`."""
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return re.sub(r"^(-?)0\.", r"\1.", text).replace("-", MINUS) if text not in ("-0", "") else "0"


def finish_rows(axes: Any, axis_label: str) -> None:
    """Finish a figure of named rows: vertical grid lines, and the label of the horizontal axis."""
    short_ticks(axes.xaxis)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(axis_label)


def format_number(value: float | None, digits: int = 3, sign: str = "") -> str:
    """Format a number without the zero before the point; a dash stands for a missing one.

    Args:
      value: the number; None and NaN are missing.
      digits: number of decimals.
      sign: "+" to write the sign of positive numbers, too.
    """
    if value is None or not np.isfinite(value):
        return ABSENT
    text = f"{value:{sign}.{digits}f}"
    if abs(value) < 1:
        text = text.replace("0.", ".", 1)
    return text.replace("-", "\N{MINUS SIGN}")


def format_interval(bounds: Iterable[float | None], digits: int, sign: str = "") -> str:
    """Format an interval in brackets; empty if a bound is missing."""
    low, high = bounds
    if low is None or high is None:
        return ""
    return f"[{format_number(low, digits, sign)}, {format_number(high, digits, sign)}]"


def metric_decimals(metric: str, judged: Iterable[Json]) -> int:
    """Return the number of decimals of a metric: 3 for R and KGE, else 3 significant digits.

    Args:
      metric: the metric.
      judged: descriptions of candidates in a summary; the largest RMSE sets the digits of errors.
    """
    if metric in UNITLESS:
        return 3
    sizes = [abs(d["median"]["rmse"]) for d in judged if d["median"]["rmse"] is not None]
    largest = max(sizes, default=0.1)
    return int(np.clip(2 - np.floor(np.log10(max(largest, 1e-9))), 0, 6))


def format_percent(share: float | None) -> str:
    """Format a share as a whole number of per cent."""
    return ABSENT if share is None else f"{100 * share:.0f}"


def format_count(value: int) -> str:
    """Format a count with thousands separators."""
    return f"{value:,}"


def format_day(value: np.datetime64) -> str:
    """Format a day in words: 3 June 2017."""
    stamp = pd.Timestamp(value)
    return f"{stamp.day} {stamp:%B %Y}"


def format_period(period: tuple[date, date]) -> str:
    """Format a period by its first and last day."""
    return f"{period[0]} to {period[1]}"
