"""Convert the text cells of a table to numbers and check them."""

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
    """Return the rows of a table as numbers, and messages that name the lines of every problem.

    Args:
      raw: The cells as text, with line numbers as index.
      columns: {role: column} for id, lat, lon and time, and for sensor, depth, depth_from,
        depth_to and flag if the table has them.
      numbers: {soilweave's name: column} of the measured variables.
      missing: {soilweave's name: numbers that stand for missing values}.

    Returns:
      A frame with id, time, sensor and flag as text; lat, lon, depth, depth_from and depth_to if
      there are such columns, and the measured variables under soilweave's names, as floats, NaN
      where missing. The frame is empty if a column is missing or repeated. And the
      messages.
    """
    import pandas as pd

    required = dict.fromkeys([*columns.values(), *numbers.values()])
    absent = [name for name in required if name not in raw]
    if absent:
        return pd.DataFrame(), [
            f"column '{name}' missing; the header has {', '.join(raw.columns)}" for name in absent
        ]
    repeated = [name for name in required if name in raw.attrs["twice"]]
    if repeated:
        return pd.DataFrame(), [
            f"column '{name}': the header has this name more than once" for name in repeated
        ]
    rows = pd.DataFrame(index=raw.index)
    for name in ("id", "time", "sensor", "flag"):
        rows[name] = raw[columns[name]] if name in columns else ""
    problems = []
    for name in ("id", "time"):
        problems += at_lines(f"{columns[name]} is empty", rows[name] == "")
    for name in ("lat", "lon", "depth", "depth_from", "depth_to"):
        if name in columns:
            rows[name], column_problems = _numbers(raw, columns[name], required=True)
            problems += column_problems
    for name, column in numbers.items():
        rows[name], column_problems = _numbers(raw, column, required=False)
        rows[name] = rows[name].mask(rows[name].isin(list(missing[name])))
        problems += column_problems
    return rows, problems + _place_problems(rows)


def _numbers(raw: pd.DataFrame, name: str, *, required: bool) -> tuple[pd.Series, list[str]]:
    """Return a column as floats, and a message if cells are not numbers.

    Args:
      raw: The cells as text.
      name: The column.
      required: Whether an empty cell is a problem.
    """
    import pandas as pd

    text = raw[name]
    if raw.attrs.get("decimal") == ",":
        text = text.str.replace(",", ".", regex=False)
    values = pd.to_numeric(text, errors="coerce").astype("float64")
    values = values.mask(np.isinf(values))
    wrong = values.isna() & ((text != "") | required)
    if not wrong.any():
        return values, []
    examples = [f"'{value}'" for value in raw[name][wrong][:SHOWN]]
    return values, [listed(f"{name} is not a number", raw.index[wrong], examples)]


def _place_problems(rows: pd.DataFrame) -> list[str]:
    """Return messages about coordinates and depths that are not possible or change at a site."""
    problems = []
    for name, limit in (("lat", 90), ("lon", 180)):
        outside = rows[name].abs() > limit
        if outside.any():
            examples = [f"{value:g}" for value in rows[name][outside][:SHOWN]]
            message = f"{name} outside -{limit} to {limit}"
            if name == "lon" and rows[name][outside].between(180, 360).all():
                message += " (these are from 0 to 360: subtract 360 from those above 180)"
            problems.append(listed(message, rows.index[outside], examples))
    known = rows[rows["id"] != ""].dropna(subset=["lat", "lon"])
    first = known.groupby("id")[["lat", "lon"]].transform("first")
    moved = (first != known[["lat", "lon"]]).any(axis=1)
    for site, moved_rows in known[moved].groupby("id"):
        message = f"id {site}: lat or lon differs from its first row"
        problems.append(listed(message, moved_rows.index))
    for name in ("depth", "depth_from", "depth_to"):
        if name in rows:
            message = f"{name} is negative; depths are positive downward from the surface"
            problems += at_lines(message, rows[name] < 0)
    if "depth_from" in rows:
        inverted = rows["depth_from"] > rows["depth_to"]
        problems += at_lines("depth_from is deeper than depth_to", inverted)
    return problems


def duplicates(rows: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """Return a message about rows whose keys equal those of an earlier row."""
    repeated = rows.duplicated(list(keys))
    return at_lines("an earlier row has the same id, time, depth and sensor", repeated)
