"""What all figures share: colours, fonts, and how a drawing becomes part of a page."""

from __future__ import annotations

import base64
import io
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import date

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline.files import Json


# Okabe and Ito's colours, told apart by colour-blind readers; the same in every figure.
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

METRICS = {"correlation": "R", "rmse": "RMSE", "ubrmse": "ubRMSE", "bias": "bias"}
MINUS = "\N{MINUS SIGN}"
INK, FAINT = "#1d2430", "#c9ced6"
PIXELS_PER_INCH = 100  # of the page; pictures have twice as many

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
class Picture:
    """A figure of the page: a data URI, its size in CSS pixels, and what it shows in words."""

    uri: str
    width: int
    height: int
    alt: str


@contextmanager
def canvas(width: float, height: float, layout: Any = "constrained") -> Iterator[Figure]:
    """A figure of so many inches, with the settings of the page, whatever the user's are."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = mpl.rcParamsDefault | _SETTINGS | {"backend": "agg"}
    with mpl.rc_context(settings):
        yield Figure(figsize=(width, height), layout=layout)


def as_bytes(figure: Figure, form: str = "png") -> bytes:
    """The figure as a file, `svg` or `png`, that is the same in every run; inside `canvas`."""
    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None} if form == "svg" else {"Software": None}
    figure.savefig(buffer, format=form, dpi=2 * PIXELS_PER_INCH, metadata=metadata)
    return buffer.getvalue()


def picture(figure: Figure, alt: str, form: str = "svg") -> Picture:
    """The figure as part of a page: `svg` for lines, `png` for fields; inside `canvas`."""
    kind = {"svg": "image/svg+xml", "png": "image/png"}[form]
    uri = f"data:{kind};base64,{base64.b64encode(as_bytes(figure, form)).decode()}"
    width, height = (round(size * PIXELS_PER_INCH) for size in figure.get_size_inches())
    return Picture(uri, width, height, alt)


def colour(name: str) -> str:
    """Colour of an arm or baseline."""
    return COLOURS.get(name, "#444444")


def label(name: str) -> str:
    """An arm or baseline as people read it."""
    return LABELS.get(name, name)


def units(text: str) -> str:
    """UDUNITS as people read them: `m3 m-3` with raised exponents, nothing for a pure number."""
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    plain = "" if text == "1" else text.replace(" ", "\N{NO-BREAK SPACE}")
    return re.sub(r"(?<=[A-Za-z])-?\d+", lambda found: found[0].translate(raised), plain)


def quantity(name: str, unit: str) -> str:
    """A name with its unit in brackets, where it has one."""
    return f"{name} [{unit}]" if unit else name


def short_ticks(axis: Any, most: int = 5) -> None:
    """Few ticks at round values, written without the zero before the point."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def number(value: float) -> str:
    """A number of an axis: `.25`, `-.1`, `12`."""
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return re.sub(r"^(-?)0\.", r"\1.", text).replace("-", MINUS) if text not in ("-0", "") else "0"


def finish(axes: Any, what: str) -> None:
    """Named rows along a scale: a grid across it, and what it is."""
    short_ticks(axes.xaxis)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(what)


def bare(axes: Axes) -> None:
    """No frame, no ticks."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


UNITLESS = ("correlation", "anomaly_correlation", "kge")
ABSENT = "\N{EN DASH}"


def format_number(value: float | None, digits: int = 3, sign: str = "") -> str:
    """A number without the zero before the point; `sign` "+" shows it always; a dash for none."""
    if value is None or not np.isfinite(value):
        return ABSENT
    text = f"{value:{sign}.{digits}f}"
    if abs(value) < 1:
        text = text.replace("0.", ".", 1)
    return text.replace("-", "\N{MINUS SIGN}")


def interval(bounds: Iterable[float | None], digits: int, sign: str = "") -> str:
    """A 95 % interval in brackets, empty where there is none."""
    low, high = bounds
    if low is None or high is None:
        return ""
    return f"[{format_number(low, digits, sign)}, {format_number(high, digits, sign)}]"


def digits(metric: str, judged: Iterable[Json]) -> int:
    """Decimals of a metric: three for R, three significant ones for errors."""
    if metric in UNITLESS:
        return 3
    sizes = [abs(d["median"]["rmse"]) for d in judged if d["median"]["rmse"] is not None]
    largest = max(sizes, default=0.1)
    return int(np.clip(2 - np.floor(np.log10(max(largest, 1e-9))), 0, 6))


def percent(share: float | None) -> str:
    """A share as a whole number of per cent."""
    return ABSENT if share is None else f"{100 * share:.0f}"


def count(value: int) -> str:
    """A number of things."""
    return f"{value:,}"


def day(value: np.datetime64) -> str:
    """A day as people write it: 3 June 2017."""
    stamp = pd.Timestamp(value)
    return f"{stamp.day} {stamp:%B %Y}"


def span(period: tuple[date, date]) -> str:
    """First to last day."""
    return f"{period[0]} to {period[1]}"
