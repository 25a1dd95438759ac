"""The cells of a CSV as text, each row with the number of its line."""

from __future__ import annotations

import codecs
import csv
import io
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

EMPTY = ("", "na", "n/a", "nan", "null", "none")
SHOWN = 5  # lines named of one kind of problem
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# What lines of units and of processing say below the names; a row of values begins otherwise.
_VALUE = re.compile(r"[-+.,]?\d")
_UNIT = re.compile(
    r"\W*(ts|rn|smp|avg|tot|utc|%|pct|percent|fraction|v/v|c?m\^?[3³]\W*c?m\W*[3³]|vol\W*%|"
    r"deg\W*[cfk]?|°?[cfk]|celsius|yyyy.*|[dm]{2}/[dm]{2}/yyyy.*)\W*",
    re.IGNORECASE,
)


def split(data: bytes) -> tuple[pd.DataFrame, list[str]]:
    """Cells of a CSV as text, stripped, the index the number of their line; and problems.

    The separator is the comma, semicolon or tab that its header has most of; with semicolons or
    tabs a comma in a number is a decimal point. Lines before the header that begin with `#`, and
    empty lines, are skipped; what stands for nothing (NA, nan, ...) becomes "". Of files of
    Campbell's loggers (TOA5, TOACI1) the line of the station is no row, nor are, of any file, lines
    of units and processing below the names: attributes `station` and `units` (by column) have what
    they say.
    """
    import pandas as pd

    encoding = "utf-16" if data.startswith(_UTF16) else "utf-8-sig"
    text = data.decode(encoding, errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    above = 0
    while above < len(lines) and (not lines[above].strip() or lines[above].startswith("#")):
        above += 1
    if above == len(lines):
        return pd.DataFrame(), ["empty: expected a header and rows"]
    station, units, above = _logger(lines, above)
    separator = max(",;\t", key=lines[above].count)
    width = len(next(csv.reader([lines[above]], delimiter=separator)))
    kept, problems = _even(lines[above:], separator, width, above + 1)
    options: dict[str, Any] = {"sep": separator, "dtype": str, "keep_default_na": False}
    raw = pd.read_csv(io.StringIO(kept), skip_blank_lines=False, index_col=False, **options)
    raw = raw.fillna("")
    raw.index = pd.RangeIndex(above + 2, above + 2 + len(raw), name="line")
    names = [name.strip() for name in next(csv.reader([lines[above]], delimiter=separator))]
    raw.columns = [name if n == 0 else f"{name}.{n}" for name, n in _counted(names)]
    raw = raw.apply(lambda column: column.str.strip())
    raw = raw.mask(raw.apply(lambda column: column.str.lower().isin(EMPTY)), "")
    raw.attrs["twice"] = [name for name, n in _counted(names) if n == 1]
    raw.attrs["station"] = station
    said = [] if units else _lines_of_units(raw)
    raw.attrs["units"] = dict(zip(raw.columns, units or (said[0] if said else []), strict=False))
    raw.attrs["decimal"] = "." if separator == "," else ","
    blank = (raw == "").all(axis=1)
    blank.iloc[: len(said)] = True
    return raw[~blank], problems


def _lines_of_units(raw: pd.DataFrame) -> list[list[str]]:
    """Cells of the lines below the names, two at most, that say units or processing."""
    made: list[list[str]] = []
    for cells in raw.iloc[:2].to_numpy().tolist():
        if any(map(_VALUE.match, cells)) or not any(map(_UNIT.fullmatch, cells)):
            break
        made.append(cells)
    return made


def _logger(lines: list[str], first: int) -> tuple[str, list[str], int]:
    """Station and units that a Campbell logger's header tells, and where the names stand.

    Lines of its header that are neither names nor rows are emptied.
    """
    about = [cell.strip() for cell in next(csv.reader([lines[first]]), [""])]
    if about[0] not in ("TOA5", "TOACI1") or first + 1 >= len(lines):
        return "", [], first
    station = about[1] if len(about) > 1 else ""
    if about[0] == "TOACI1":
        return station, [], first + 1
    units = next(csv.reader(lines[first + 2 : first + 3]), [])
    for at in range(first + 2, min(first + 4, len(lines))):
        lines[at] = ""
    return station, [unit.strip() for unit in units], first + 1


def _counted(names: Sequence[str]) -> list[tuple[str, int]]:
    """Names, with how many of them came before."""
    return [(name, names[:i].count(name)) for i, name in enumerate(names)]


def _even(lines: Sequence[str], separator: str, width: int, first: int) -> tuple[str, list[str]]:
    """The lines, without those that have too many cells; and those as a problem."""
    wide = [i for i, line in enumerate(lines) if line.count(separator) >= width]
    wide = [i for i in wide if len(next(csv.reader([lines[i]], delimiter=separator))) > width]
    if not wide:
        return "\n".join(lines).rstrip("\n"), []
    bad = set(wide)
    kept = "\n".join("" if i in bad else line for i, line in enumerate(lines))
    return kept.rstrip("\n"), [listed(f"more than the header's {width} columns", _at(wide, first))]


def at_lines(what: str, wrong: pd.Series, values: pd.Series | None = None) -> list[str]:
    """One problem of the rows that are wrong, with their lines; none where none is."""
    if not wrong.any():
        return []
    found = [] if values is None else [f"'{value}'" for value in values[wrong][:SHOWN]]
    return [listed(what, wrong.index[wrong], found)]


def _at(indices: Sequence[int], first: int) -> list[int]:
    return [first + i for i in indices]


def listed(what: str, lines: Iterable[Any], values: Sequence[str] = ()) -> str:
    """`what: line 3, 'x'; line 5, 'y'; and 12 more`."""
    numbers = [int(line) for line in lines]
    shown = [f"line {line}" for line in numbers[:SHOWN]]
    if values:
        shown = [f"{line}, {value}" for line, value in zip(shown, values, strict=False)]
    more = len(numbers) - SHOWN
    return f"{what}: {'; '.join(shown)}{f'; and {more} more' if more > 0 else ''}"
