"""Parquet tables on any URL, written in one piece."""

from __future__ import annotations

import io

import pandas as pd

from pipeline import files


def write(url: str, table: pd.DataFrame) -> None:
    """Write a table; text columns as strings, no index."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    files.write_bytes(url, buffer.getvalue())


def read(url: str) -> pd.DataFrame:
    """The whole table.

    Raises:
      FileNotFoundError: there is none.
    """
    return pd.read_parquet(io.BytesIO(files.read_bytes(url)))
