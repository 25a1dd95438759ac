"""Parquet tables on any URL, written in one piece."""

from __future__ import annotations

import io

import pandas as pd

from pipeline import files
from pipeline.errors import DamagedError, StoreError


def write(url: str, table: pd.DataFrame) -> None:
    """Write a table; text columns as strings, no index."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    files.write_bytes(url, buffer.getvalue())


def read(url: str, columns: list[str] | None = None) -> pd.DataFrame:
    """The whole table, or some of its columns.

    Raises:
      StoreError: there is none, or its store does not answer.
      DamagedError: it is there and is not a whole table.
    """
    try:
        data = files.read_bytes(url)
    except FileNotFoundError as error:
        remedy = "the stage that writes it must run again, with --overwrite"
        raise StoreError(url, "not found", remedy=remedy) from error
    try:
        return pd.read_parquet(io.BytesIO(data), columns=columns)
    except (ValueError, OSError) as error:  # of Arrow
        problem = f"is damaged: {len(data)} bytes that are not a whole table of Parquet"
        raise DamagedError(url, problem, remedy=files.DAMAGED) from error
