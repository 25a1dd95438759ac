"""Numbers, days and names as the page writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    from pipeline.files import Json

UNITLESS = ("correlation", "anomaly_correlation", "kge")
ABSENT = "\N{EN DASH}"


def number(value: float | None, digits: int = 3, sign: str = "") -> str:
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
    return f"[{number(low, digits, sign)}, {number(high, digits, sign)}]"


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
