"""Quality control of site values: rules named in the experiment, each one counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.config import QcConfig
    from pipeline.names import Variable


def screen(
    sites: xr.Dataset, target: str, variable: Variable, qc: QcConfig
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.bool_]]]:
    """Site values that pass every rule.

    Args:
      sites: (time, place) with the target, and provider_flag and soil_temperature where measured.
      target: name of the target.
      variable: its range.
      qc: the rules.

    Returns:
      (time, place) values, NaN where dropped or missing; and per rule what it dropped, a value
      counting under the first rule that drops it.
    """
    values = sites[target].values.astype("float32").copy()
    dropped: dict[str, NDArray[np.bool_]] = {}
    for rule, rejects in _rules(sites, values, variable, qc).items():
        dropped[rule] = rejects & ~np.isnan(values)
        values[dropped[rule]] = np.nan
    return values, dropped


def _rules(
    sites: xr.Dataset, values: NDArray[np.float32], variable: Variable, qc: QcConfig
) -> dict[str, NDArray[np.bool_]]:
    rules: dict[str, NDArray[np.bool_]] = {}
    if qc.provider and "provider_flag" in sites:
        rules |= _provider(sites["provider_flag"])
    if qc.range:
        rules["range"] = (values < variable.minimum) | (values > variable.maximum)
    if qc.frozen_below_degc is not None and "soil_temperature" in sites:
        rules["frozen"] = sites["soil_temperature"].values <= qc.frozen_below_degc
    if qc.stuck_days is not None:
        rules["stuck"] = stuck(values, sites["time"].values, qc.stuck_days)
    return rules


def _provider(flag: xr.DataArray) -> dict[str, NDArray[np.bool_]]:
    """One rule for each meaning the provider gives to a flag that is not good."""
    good, found = set(flag.attrs["good"]), flag.values
    values = np.atleast_1d(flag.attrs.get("flag_values", [])).tolist()
    meanings = dict(zip(values, str(flag.attrs.get("flag_meanings", "")).split(), strict=False))
    bad: list[Any] = sorted(set(np.unique(found).tolist()) - good)
    return {f"provider: {meanings.get(value, value)}": found == value for value in bad}


def stuck(
    values: NDArray[np.float32], times: NDArray[np.datetime64], days: int
) -> NDArray[np.bool_]:
    """(time, place) True in runs of `days` or more with one value; NaN or no day ends a run."""
    n = len(values)
    same = values[1:] == values[:-1]
    same &= (np.diff(times) == np.timedelta64(1, "D"))[:, None]
    new = np.vstack([np.ones((1, values.shape[1]), bool), ~same]) if n else same
    run = np.cumsum(new, 0)
    result = np.zeros(values.shape, bool)
    for place in range(values.shape[1]):
        length = np.bincount(run[:, place])
        result[:, place] = length[run[:, place]] >= days
    return result
