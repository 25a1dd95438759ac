"""Rows of a long CSV: text with line numbers, then numbers and places, and what is wrong there."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

EMPTY = ("", "na", "n/a", "nan", "null", "none")
SHOWN = 5  # lines named of one kind of problem


def split(data: bytes) -> tuple[pd.DataFrame, list[str]]:
    """Cells of a CSV as text, stripped, the index the number of their line; and problems.

    The separator is the comma, semicolon or tab that its header has most of; with semicolons or
    tabs a comma in a number is a decimal point. Lines before the header that begin with `#`, and
    empty lines, are skipped; what stands for nothing (NA, nan, ...) becomes "".
    """
    import pandas as pd

    text = data.decode("utf-8-sig", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    above = 0
    while above < len(lines) and (not lines[above].strip() or lines[above].startswith("#")):
        above += 1
    if above == len(lines):
        return pd.DataFrame(), ["empty: expected a header and rows"]
    separator = max(",;\t", key=lines[above].count)
    width = len(next(csv.reader([lines[above]], delimiter=separator)))
    kept, problems = _even(lines[above:], separator, width, above + 1)
    options: dict[str, Any] = {"sep": separator, "dtype": str, "keep_default_na": False}
    raw = pd.read_csv(io.StringIO(kept), skip_blank_lines=False, index_col=False, **options)
    raw = raw.fillna("")
    raw.index = pd.RangeIndex(above + 2, above + 2 + len(raw), name="line")
    raw.columns = [str(name).strip() for name in raw.columns]
    raw = raw.apply(lambda column: column.str.strip())
    raw = raw.mask(raw.apply(lambda column: column.str.lower().isin(EMPTY)), "")
    raw.attrs["decimal"] = "." if separator == "," else ","
    blank = (raw == "").all(axis=1)
    return raw[~blank], problems


def _even(lines: Sequence[str], separator: str, width: int, first: int) -> tuple[str, list[str]]:
    """The lines, without those that have too many cells; and those as a problem."""
    wide = [i for i, line in enumerate(lines) if line.count(separator) >= width]
    wide = [i for i in wide if len(next(csv.reader([lines[i]], delimiter=separator))) > width]
    if not wide:
        return "\n".join(lines).rstrip("\n"), []
    bad = set(wide)
    kept = "\n".join("" if i in bad else line for i, line in enumerate(lines))
    return kept.rstrip("\n"), [_listed(f"more than the header's {width} columns", _at(wide, first))]


def checked(
    raw: pd.DataFrame, columns: dict[str, str], numbers: dict[str, str], missing: Sequence[float]
) -> tuple[pd.DataFrame, list[str]]:
    """Rows with numbers, and every problem of the file, with the lines it is at.

    Args:
      raw: of `split`.
      columns: name in the file of id, lat, lon, time, and of sensor, depth, depth_from, depth_to
        and flag where there are such.
      numbers: names in the file of measured variables, under ours.
      missing: numbers that stand for nothing.

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
    twice = [name for name in dict.fromkeys(wanted) if list(raw.columns).count(name) > 1]
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
        rows[name] = rows[name].mask(rows[name].isin(list(missing)))
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
    found = [f"'{raw[name][line]}'" for line in raw.index[wrong][:SHOWN]]
    return values, [_listed(f"{name} is no number", raw.index[wrong], found)]


def _place_problems(rows: pd.DataFrame) -> list[str]:
    problems = []
    for name, most in (("lat", 90), ("lon", 180)):
        beyond = rows[name].abs() > most
        if beyond.any():
            found = [f"{value:g}" for value in rows[name][beyond][:SHOWN]]
            accepted = f"{name} outside -{most} to {most}"
            problems.append(_listed(accepted, rows.index[beyond], found))
    known = rows[rows["id"] != ""].dropna(subset=["lat", "lon"])
    first = known.groupby("id")[["lat", "lon"]].transform("first")
    moved = (first != known[["lat", "lon"]]).any(axis=1)
    for site, odd in known[moved].groupby("id"):
        problems.append(_listed(f"id {site}: other lat, lon than in its first row", odd.index))
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


def at_lines(what: str, wrong: pd.Series, values: pd.Series | None = None) -> list[str]:
    """One problem of the rows that are wrong, with their lines; none where none is."""
    if not wrong.any():
        return []
    found = [] if values is None else [f"'{value}'" for value in values[wrong][:SHOWN]]
    return [_listed(what, wrong.index[wrong], found)]


def _at(indices: Sequence[int], first: int) -> list[int]:
    return [first + i for i in indices]


def _listed(what: str, lines: Iterable[Any] | NDArray[Any], values: Sequence[str] = ()) -> str:
    """`what: line 3, 'x'; line 5, 'y'; and 12 more`."""
    numbers = [int(line) for line in lines]
    shown = [f"line {line}" for line in numbers[:SHOWN]]
    if values:
        shown = [f"{line}, {value}" for line, value in zip(shown, values, strict=False)]
    more = len(numbers) - SHOWN
    return f"{what}: {'; '.join(shown)}{f'; and {more} more' if more > 0 else ''}"
