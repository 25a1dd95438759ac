"""The text of an ISMN sensor: its layout, told by the first line, and its lines as columns."""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

HEAD = 4096  # bytes; the first line is within them
STAMP = "%Y/%m/%d %H:%M"
_DATE = re.compile(r"\d{4}/\d{2}/\d{2}$")


class Layout(NamedTuple):
    """What the first line of a text says.

    Attributes:
      network: its name.
      site: name of the station, blanks as hyphens.
      position: latitude and longitude in degrees, elevation in m.
      columns: of the date, the time, the value and the flag.
      begin: byte at which the values begin.
      line: number of the first line of values.
    """

    network: str
    site: str
    position: tuple[float, float, float]
    columns: tuple[int, int, int, int]
    begin: int
    line: int


def layout(data: bytes) -> Layout:
    """What the first line of a text says.

    Raises:
      ValueError: it is no line of either layout.
      LookupError: there is none.
    """
    first = lines(data[:HEAD])[0]
    cells = words(first)
    is_ceop = _DATE.match(cells[0]) is not None
    begin = 4 if is_ceop else 0  # after the nominal and the actual time
    at = _first_of_five_numbers(cells, begin + 3)
    network, site = cells[begin + 1], "-".join(cells[begin + 2 : at])
    position = (float(cells[at]), float(cells[at + 1]), float(cells[at + 2]))
    if is_ceop:
        return Layout(network, site, position, (0, 1, at + 5, at + 6), 0, 1)
    end = data.index(first) + len(first)
    return Layout(network, site, position, (0, 1, 2, 3), end, 2)


def _first_of_five_numbers(cells: list[str], start: int) -> int:
    """Where the position begins: latitude, longitude, elevation and two depths in a row.

    Raises:
      ValueError: nowhere.
    """
    number = re.compile(r"[-+]?\d+\.?\d*|nan", re.IGNORECASE)
    are = [number.fullmatch(cell) is not None for cell in cells]
    for at in range(start, len(cells) - 4):
        if all(are[at : at + 5]) and abs(float(cells[at])) <= 90:
            return at
    raise ValueError("no position")


def rows(data: bytes, told: Layout) -> pd.DataFrame:
    """Date, time, value and flag of every line, as text; NaN where a line is too short."""
    import pandas as pd

    return pd.read_csv(
        io.BytesIO(data[told.begin :]),
        sep=r"\s+",
        header=None,
        names=["date", "time", "value", "flag"],
        usecols=list(told.columns),
        dtype=str,
        keep_default_na=False,
        na_values=[""],
        quoting=csv.QUOTE_NONE,
        encoding="latin-1",  # any byte is a character; names of stations may have accents
    )


def numbers(text: pd.Series) -> NDArray[np.float32] | None:
    """(hour,) float32; None where one is no number."""
    import pandas as pd

    values = pd.to_numeric(text, errors="coerce")
    if (values.isna() & (text.str.lower() != "nan")).any():
        return None
    found: NDArray[np.float32] = values.to_numpy(np.float32)
    return found


def times(text: Any) -> Any:
    """Stamps of a text or a column of them, UTC.

    Raises:
      ValueError: one is no stamp.
    """
    import pandas as pd

    return pd.to_datetime(text, format=STAMP)


def lines(data: bytes) -> list[bytes]:
    """Lines with something in them, whichever way they end."""
    return [line for line in data.splitlines() if line.strip()]


def words(line: bytes) -> list[str]:
    """Words of a line, which may have accents in UTF-8 or Latin-1."""
    try:
        return line.decode("utf-8-sig").split()
    except UnicodeDecodeError:
        return line.decode("latin-1").split()
