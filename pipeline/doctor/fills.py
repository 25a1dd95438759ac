"""Fill values that nothing declares as missing, and that are therefore read as data."""

from __future__ import annotations

from typing import Any

from pipeline.doctor.symptoms import Symptom

OFTEN = 0.05  # share of a sample


def of_driver(driver: Any) -> list[Symptom]:
    """Variables of a store in which the undeclared fill value of the array occurs often.

    Args:
      driver: of the entry; those without `undeclared` read files that have no such value.

    Raises:
      SoilweaveError: of the driver.
    """
    made = []
    for name, (fill, share) in driver.undeclared().items() if hasattr(driver, "undeclared") else ():
        if share >= OFTEN:
            found = f"{name}: {share:.0%} of the sample are {fill:g}, the fill value of its array, "
            found += "which neither the store nor the entry declares as missing: read as data"
            remedy = f"say `fill: {fill:g}` in the mapping if they are missing, `fill: []` if not"
            made.append(Symptom("undeclared fill", found, remedy))
    return made
