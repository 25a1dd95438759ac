"""Rows of a table: numbers and places of what is text, and everything that is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.sources.table.text import SHOWN, at_lines, listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd


def checked(
    raw: pd.DataFrame,
    columns: dict[str, str],
    numbers: dict[str, str],
    missing: Mapping[str, Sequence[float]],
) -> tuple[pd.DataFrame, list[str]]:
    """Rows with numbers, and every problem of the file, with the lines it is at.

    Args:
      raw: of `text.split`.
      columns: name in the file of id, lat, lon, time, and of sensor, depth, depth_from, depth_to
        and flag where there are such.
      numbers: names in the file of measured variables, under ours.
      missing: for each of these variables, numbers that stand for nothing.

    Returns:
      A frame with id, time, sensor, flag as text, lat, lon, depth_from, depth_to and what is
      measured, under our names, as floats, NaN where missing; and the problems.
    """
    import pandas as pd

    wanted = [*columns.values(), *numbers.values()]
    absent = [name for name in dict.fromkeys(wanted) if name not in raw]
    if absent:
        return pd.DataFrame(), [
            f"column '{name}' missing; the header has {', '.join(raw.columns)}" for name in absent
        ]
    twice = [name for name in dict.fromkeys(wanted) if name in raw.attrs["twice"]]
    if twice:
        return pd.DataFrame(), [f"column '{name}': more than one of that name" for name in twice]
    rows = pd.DataFrame(index=raw.index)
    for name in ("id", "time", "sensor", "flag"):
        rows[name] = raw[columns[name]] if name in columns else ""
    problems = []
    for name in ("id", "time"):
        problems += at_lines(f"{columns[name]} is empty", rows[name] == "")
    for name in ("lat", "lon", "depth", "depth_from", "depth_to"):
        if name in columns:
            rows[name], wrong = _numbers(raw, columns[name], required=True)
            problems += wrong
    for name, column in numbers.items():
        rows[name], wrong = _numbers(raw, column, required=False)
        rows[name] = rows[name].mask(rows[name].isin(list(missing[name])))
        problems += wrong
    return rows, problems + _place_problems(rows)


def _numbers(raw: pd.DataFrame, name: str, *, required: bool) -> tuple[pd.Series, list[str]]:
    import pandas as pd

    text = raw[name]
    if raw.attrs.get("decimal") == ",":
        text = text.str.replace(",", ".", regex=False)
    values = pd.to_numeric(text, errors="coerce").astype("float64")
    values = values.mask(np.isinf(values))
    wrong = values.isna() & ((text != "") | required)
    if not wrong.any():
        return values, []
    found = [f"'{value}'" for value in raw[name][wrong][:SHOWN]]
    return values, [listed(f"{name} is no number", raw.index[wrong], found)]


def _place_problems(rows: pd.DataFrame) -> list[str]:
    problems = []
    for name, most in (("lat", 90), ("lon", 180)):
        beyond = rows[name].abs() > most
        if beyond.any():
            found = [f"{value:g}" for value in rows[name][beyond][:SHOWN]]
            accepted = f"{name} outside -{most} to {most}"
            if name == "lon" and rows[name][beyond].between(180, 360).all():
                accepted += " (of 0 to 360: subtract 360 above 180)"
            problems.append(listed(accepted, rows.index[beyond], found))
    known = rows[rows["id"] != ""].dropna(subset=["lat", "lon"])
    first = known.groupby("id")[["lat", "lon"]].transform("first")
    moved = (first != known[["lat", "lon"]]).any(axis=1)
    for site, odd in known[moved].groupby("id"):
        problems.append(listed(f"id {site}: other lat, lon than in its first row", odd.index))
    for name in ("depth", "depth_from", "depth_to"):
        if name in rows:
            below = f"{name} below 0; depths count downward from the surface"
            problems += at_lines(below, rows[name] < 0)
    if "depth_from" in rows:
        inverted = rows["depth_from"] > rows["depth_to"]
        problems += at_lines("depth_from is deeper than depth_to", inverted)
    return problems


def duplicates(rows: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """Rows that have the keys of another before them, as one problem."""
    again = rows.duplicated(list(keys))
    return at_lines("another row of the same id, time, depth and sensor", again)
