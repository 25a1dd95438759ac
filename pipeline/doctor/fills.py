"""Find fill values that nothing declares as missing, so that they are read as data."""

from __future__ import annotations

from typing import Any

from pipeline.doctor.symptoms import Symptom

OFTEN = 0.05  # share of the sample from which a fill value is reported


def of_driver(driver: Any) -> list[Symptom]:
    """Find variables of a store whose undeclared fill value is frequent in a sample.

    Args:
      driver: driver of the entry. Only drivers of Zarr stores have a method `undeclared`; other
        file formats have no such value.

    Raises:
      SoilweaveError: If the driver cannot read the store.
    """
    findings = []
    for name, (fill, share) in driver.undeclared().items() if hasattr(driver, "undeclared") else ():
        if share >= OFTEN:
            message = (
                f"{name}: {share:.0%} of the sample are {fill:g}, the fill value of its array, "
                "which neither the store nor the entry declares as missing: read as data"
            )
            hint = (
                f"add `fill: {fill:g}` to the mapping if these values are missing, `fill: []` if "
                "they are data"
            )
            findings.append(Symptom("undeclared fill", message, hint))
    return findings
