"""Types of settings that several sections of an experiment use."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from pipeline.experiment.product import as_tuple


def _in_order(period: tuple[date, date]) -> tuple[date, date]:
    """Check that a period does not end before it begins."""
    if period[1] < period[0]:
        msg = f"last day {period[1]} is before first day {period[0]}"
        raise ValueError(msg)
    return period


Names = Annotated[
    tuple[str, ...], BeforeValidator(as_tuple, json_schema_input_type=str | tuple[str, ...])
]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(le=1_000_000)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Days = Annotated[int, Field(le=36_600)]
Km = Annotated[float, Field(ge=0, le=40_000)]
Celsius = Annotated[float, Field(ge=-100, le=100)]
Bits = Annotated[int, Field(ge=0, le=2**32 - 1)]
Shift = Annotated[int, Field(ge=-10_000, le=10_000)]
Period = Annotated[tuple[date, date], AfterValidator(_in_order)]
