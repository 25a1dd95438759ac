"""Read the cells of a CSV file as text, with the line number of each row."""

from __future__ import annotations

import codecs
import csv
import io
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd


EMPTY_CELLS = (
    "",
    "na",
    "n/a",
    "nan",
    "null",
    "none",
)  # cells that are read as empty, in lower case

MAX_HEADER = 100_000  # characters of the header, and of the lines with units below it
MAX_LINES_NAMED = 5  # largest number of lines that a message names
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

# Cells of a row of values begin with a number. Cells of a line with units or processing, below the
# column names, match `_UNIT`.
_VALUE = re.compile(r"[-+.,]?\d")

_UNIT = re.compile(
    r"\W*(ts|rn|smp|avg|tot|utc|%|pct|percent|fraction|v/v|c?m\^?[3³]\W*c?m\W*[3³]|vol\W*%|"
    r"deg\W*[cfk]?|°?[cfk]|celsius|yyyy.*|[dm]{2}/[dm]{2}/yyyy.*)\W*",
    re.IGNORECASE,
)


def parse_csv(data: bytes) -> tuple[pd.DataFrame, list[str]]:
    """Read the cells of a CSV file as text.

    The separator is whichever of comma, semicolon and tab is most frequent in the header. With
    semicolons or tabs, a comma in a number is a decimal comma. Empty lines, and lines before the
    header that begin with `#`, are skipped. Cells such as NA and nan become "".

    Files of Campbell loggers (TOA5, TOACI1) have a line about the station before the header, and
    files may have lines with units or processing below it. These lines are not rows.

    Args:
      data: The content of the file.

    Returns:
      A frame of stripped text with line numbers as index; its attributes are `station`, `units`
      (by column), `decimal` (the decimal sign) and `twice` (repeated column names). And messages
      about the file.
    """
    import pandas as pd

    encoding = "utf-16" if data.startswith(_UTF16) else "utf-8-sig"
    text = data.decode(encoding, errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    header, problem = _find_header(lines)
    if problem:
        return pd.DataFrame(), [problem]
    station, units, header = _parse_logger_header(lines, header)
    separator = max(",;\t", key=lines[header].count)
    width = len(next(csv.reader([lines[header]], delimiter=separator)))
    kept, problems = _drop_long_lines(lines[header:], separator, width, header + 1)
    options: dict[str, Any] = {"sep": separator, "dtype": str, "keep_default_na": False}
    try:
        raw = pd.read_csv(io.StringIO(kept), skip_blank_lines=False, index_col=False, **options)
    except pd.errors.ParserError as error:
        return pd.DataFrame(), [_explain_parser_error(error, header + 1)]
    raw = raw.fillna("")
    raw.index = pd.RangeIndex(header + 2, header + 2 + len(raw), name="line")
    names = [name.strip() for name in next(csv.reader([lines[header]], delimiter=separator))]
    raw.columns = [name if n == 0 else f"{name}.{n}" for name, n in _count_repeats(names)]
    raw = raw.apply(lambda column: column.str.strip())
    raw = raw.mask(raw.apply(lambda column: column.str.lower().isin(EMPTY_CELLS)), "")
    raw.attrs["twice"] = [name for name, n in _count_repeats(names) if n == 1]
    raw.attrs["station"] = station
    unit_lines = [] if units else _unit_lines(raw)
    units = unit_lines[0] if unit_lines else units
    raw.attrs["units"] = dict(zip(raw.columns, units, strict=False))
    raw.attrs["decimal"] = "." if separator == "," else ","
    blank = (raw == "").all(axis=1)
    blank.iloc[: len(unit_lines)] = True
    return raw[~blank], problems


def _find_header(lines: list[str]) -> tuple[int, str]:
    """Return the index of the first line of the header, and why it cannot be read, if so."""
    header = 0
    while header < len(lines) and (not lines[header].strip() or lines[header].startswith("#")):
        header += 1
    if header == len(lines):
        return header, "the file is empty: expected a header and rows"
    n_head = 4 if "TOA" in lines[header][:8] else 1  # lines that may be of a logger's header
    if max(map(len, lines[header : header + n_head])) > MAX_HEADER:
        problem = f"line {header + 1}, the header, or one below it has more than {MAX_HEADER:,}"
        return header, f"{problem} characters"
    return header, ""


def _explain_parser_error(error: Exception, first: int) -> str:
    """Return the message for an error of pandas, of a file whose header is in line `first`."""
    opened = re.search(r"EOF inside string starting at row (\d+)", str(error))
    if opened is None:
        return f"the file is no CSV: {' '.join(str(error).split())}"
    return f"a quotation mark that is opened in line {first + int(opened[1])} is not closed"


def _unit_lines(raw: pd.DataFrame) -> list[list[str]]:
    """Return the cells of up to two lines below the header that have units or processing."""
    unit_lines: list[list[str]] = []
    for cells in raw.iloc[:2].to_numpy().tolist():
        if any(map(_VALUE.match, cells)) or not any(map(_UNIT.fullmatch, cells)):
            break
        unit_lines.append(cells)
    return unit_lines


def _parse_logger_header(lines: list[str], first: int) -> tuple[str, list[str], int]:
    """Parse the header of a Campbell logger.

    Args:
      lines: Lines of the file. The lines with units and processing become empty.
      first: Index of the first line that is not a comment.

    Returns:
      Name of the station and units of the columns, empty if the file is not from such a logger;
      and the index of the line with the column names.
    """
    station_cells = [cell.strip() for cell in next(csv.reader([lines[first]]), [""])]
    if station_cells[0] not in ("TOA5", "TOACI1") or first + 1 >= len(lines):
        return "", [], first
    station = station_cells[1] if len(station_cells) > 1 else ""
    if station_cells[0] == "TOACI1":
        return station, [], first + 1
    units = next(csv.reader(lines[first + 2 : first + 3]), [])
    for i in range(first + 2, min(first + 4, len(lines))):
        lines[i] = ""
    return station, [unit.strip() for unit in units], first + 1


def _count_repeats(names: Sequence[str]) -> list[tuple[str, int]]:
    """Return each name with the number of earlier occurrences."""
    return [(name, names[:i].count(name)) for i, name in enumerate(names)]


def _count_cells(line: str, separator: str) -> int:
    """Return the number of cells of a line."""
    try:
        return len(next(csv.reader([line], delimiter=separator)))
    except csv.Error:  # a cell of more than 131,072 characters
        return line.count(separator) + 1


def _drop_long_lines(
    lines: Sequence[str], separator: str, width: int, first: int
) -> tuple[str, list[str]]:
    """Replace lines that have more cells than the header by empty lines.

    Args:
      lines: Lines from the header on.
      separator: Separator of cells.
      width: Number of cells in the header.
      first: Line number of the header.

    Returns:
      The text; and a message about the replaced lines, if any.
    """
    candidates = [i for i, line in enumerate(lines) if line.count(separator) >= width]
    too_long = [i for i in candidates if _count_cells(lines[i], separator) > width]
    if not too_long:
        return "\n".join(lines).rstrip("\n"), []
    replaced = set(too_long)
    kept = "\n".join("" if i in replaced else line for i, line in enumerate(lines))
    message = f"more columns than the {width} of the header"
    return kept.rstrip("\n"), [format_problem(message, _line_numbers(too_long, first))]


def line_problems(message: str, wrong: pd.Series, values: pd.Series | None = None) -> list[str]:
    """Return a message that names the lines of wrong rows; an empty list if there are none.

    Args:
      message: What is wrong.
      wrong: (row,) whether a row is wrong, with line numbers as index.
      values: (row,) values to quote.
    """
    if not wrong.any():
        return []
    examples = [] if values is None else [f"'{value}'" for value in values[wrong][:MAX_LINES_NAMED]]
    return [format_problem(message, wrong.index[wrong], examples)]


def _line_numbers(indices: Sequence[int], first: int) -> list[int]:
    """Return the line numbers of indices, of which 0 is line `first`."""
    return [first + i for i in indices]


def format_problem(message: str, lines: Iterable[Any], values: Sequence[str] = ()) -> str:
    """Return a message with lines, such as `message: line 3, 'x'; line 5, 'y'; and 12 more`.

    Args:
      message: What is wrong.
      lines: Line numbers, of which the first few are named.
      values: For each named line, the value to quote; may be empty.
    """
    numbers = [int(line) for line in lines]
    named = [f"line {line}" for line in numbers[:MAX_LINES_NAMED]]
    if values:
        named = [f"{line}, {value}" for line, value in zip(named, values, strict=False)]
    n_more = len(numbers) - MAX_LINES_NAMED
    return f"{message}: {'; '.join(named)}{f'; and {n_more} more' if n_more > 0 else ''}"
