"""Parse the text file of an ISMN sensor: detect its layout and read its columns."""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

HEAD = 4096  # bytes; a line is shorter than this
STAMP = "%Y/%m/%d %H:%M"
_DATE = re.compile(r"\d{4}/\d{2}/\d{2}$")


class Layout(NamedTuple):
    """The layout of a file and the description of the site, both from its first line.

    Attributes:
      network: Name of the network.
      site: Name of the station, with hyphens instead of blanks.
      position: Latitude and longitude in degrees, elevation in m.
      columns: Indices of the columns with the date, the time, the value and the flag.
      data_begin: Byte at which the values begin.
      line: Number of the first line with values, from 1.
    """

    network: str
    site: str
    position: tuple[float, float, float]
    columns: tuple[int, int, int, int]
    data_begin: int
    line: int


def layout(data: bytes) -> Layout:
    """Return the layout of a file.

    Args:
      data: Content of the file.

    Raises:
      ValueError: If the first line fits neither layout.
      LookupError: If the file has no line.
    """
    first = lines(data[:HEAD])[0]
    cells = words(first)
    is_ceop = _DATE.match(cells[0]) is not None
    start = 4 if is_ceop else 0  # CEOP begins with the date and time, nominal and actual
    lat = _first_of_five_numbers(cells, start + 3)
    network, site = cells[start + 1], "-".join(cells[start + 2 : lat])
    position = (float(cells[lat]), float(cells[lat + 1]), float(cells[lat + 2]))
    if is_ceop:
        return Layout(network, site, position, (0, 1, lat + 5, lat + 6), data_begin=0, line=1)
    data_begin = data.index(first) + len(first)
    return Layout(network, site, position, (0, 1, 2, 3), data_begin, line=2)


def _first_of_five_numbers(cells: list[str], start: int) -> int:
    """Return the index of the latitude.

    The name of the station before it may have several words, and words that are numbers. Hence the
    latitude is the first of five numbers in a row: latitude, longitude, elevation and two depths.

    Raises:
      ValueError: If there are no such numbers.
    """
    number = re.compile(r"[-+]?\d+\.?\d*|nan", re.IGNORECASE)
    is_number = [number.fullmatch(cell) is not None for cell in cells]
    for i in range(start, len(cells) - 4):
        if all(is_number[i : i + 5]) and abs(float(cells[i])) <= 90:
            return i
    raise ValueError("the first line has no position")


def rows(data: bytes, layout: Layout) -> pd.DataFrame:
    """Return the columns date, time, value and flag as text; NaN where a line is too short."""
    import pandas as pd

    return pd.read_csv(
        io.BytesIO(data[layout.data_begin :]),
        sep=r"\s+",
        header=None,
        names=["date", "time", "value", "flag"],
        usecols=list(layout.columns),
        dtype=str,
        keep_default_na=False,
        na_values=[""],
        quoting=csv.QUOTE_NONE,
        encoding="latin-1",  # accepts any byte: names of stations may have accents
    )


def numbers(text: pd.Series) -> NDArray[np.float32] | None:
    """Return (hour,) float32 numbers from text; None if a text is not a number."""
    import pandas as pd

    values = pd.to_numeric(text, errors="coerce")
    if (values.isna() & (text.str.lower() != "nan")).any():
        return None
    array: NDArray[np.float32] = values.to_numpy(np.float32)
    return array


def times(text: Any) -> Any:
    """Return the UTC time stamps of a text or of a column of texts.

    Raises:
      ValueError: If a text is not a date and time such as 2024/02/28 13:00.
    """
    import pandas as pd

    return pd.to_datetime(text, format=STAMP)


def lines(data: bytes) -> list[bytes]:
    """Return the lines that are not blank; lines may end in CR, LF or both."""
    return [line for line in data.splitlines() if line.strip()]


def words(line: bytes) -> list[str]:
    """Return the words of a line, which may be in UTF-8 or Latin-1."""
    try:
        return line.decode("utf-8-sig").split()
    except UnicodeDecodeError:
        return line.decode("latin-1").split()
