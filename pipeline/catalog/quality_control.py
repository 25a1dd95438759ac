"""Quality control of observations by the rules in the experiment, with counts for each rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.experiment.config import QcConfig
    from pipeline.experiment.variables import Variable


_DEPTH_TOLERANCE_M = 1e-6  # m, tolerance for rounded depths


def screen_sites(
    sites: xr.Dataset, target: str, variable: Variable, qc: QcConfig
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.bool_]]]:
    """Apply all rules to the values of sites.

    Args:
      sites: A dataset (time, place) with the target, and with provider_flag and soil_temperature
        if they are available.
      target: The name of the target.
      variable: The target's entry in the table of variables, which has its range.
      qc: The rules.

    Returns:
      The values (time, place), NaN where dropped or missing; and, by rule, a mask (time, place) of
      the values it dropped. A value counts for the first rule that drops it.
    """
    values = sites[target].values.astype("float32").copy()
    dropped: dict[str, NDArray[np.bool_]] = {}
    for rule, rejects in _rejected_by_rule(sites, values, variable, qc).items():
        dropped[rule] = rejects & ~np.isnan(values)
        values[dropped[rule]] = np.nan
    return values, dropped


def reject_retrievals(
    values: NDArray[np.float32], flag: NDArray[np.float32] | None, variable: Variable, qc: QcConfig
) -> dict[str, NDArray[np.bool_]]:
    """Return, by rule, a mask of the satellite's values that it rejects.

    A value counts for the first rule that rejects it.

    Args:
      values: The retrievals, NaN where missing.
      flag: Their quality flags, of the same shape; None if there are none.
      variable: The target's entry in the table of variables, which has its range.
      qc: The rules.
    """
    rules = {}
    missing = np.isnan(values)
    if flag is not None and qc.satellite_bits is not None:
        bits = np.where(np.isnan(flag), 0, flag).astype(np.int64)
        rules["flag"] = (bits & qc.satellite_bits > 0) & ~missing
        missing = missing | rules["flag"]
    outside = (values < variable.minimum) | (values > variable.maximum)
    return rules | {"range": outside & ~missing}


def find_spikes(values: NDArray[np.float32], times: NDArray[np.datetime64]) -> NDArray[np.bool_]:
    """Find single values that differ strongly from their neighbours.

    The three conditions of Dorigo et al. (2013, doi:10.2136/vzj2012.0097) are applied to the time
    steps of the record: the value differs by more than 15 % from the one before; the second
    differences before and after it agree within 20 %; and the variance of the values within 12
    steps before and after it, divided by their mean, is below 1. The conditions were developed for
    hourly values in percent, so values in m3 m-3 are converted to percent. A value is examined only
    if the two values before it and the two after it are at equal steps.

    Args:
      values: (time, place) in m3 m-3, NaN where missing.
      times: (time,).

    Returns:
      (time, place) True for spikes.
    """
    percent = values.astype(np.float64) * 100
    n = len(percent)
    result = np.zeros(values.shape, bool)
    if n < 5:
        return result
    step = np.diff(times)
    # `even`, `jump` and `alike` have one row for each of the values 2 .. n - 3.
    even = (step[:-3] == step[1:-2]) & (step[1:-2] == step[2:-1]) & (step[2:-1] == step[3:])
    second = percent[:-2] - 2 * percent[1:-1] + percent[2:]  # of the values 1 .. n - 2
    with np.errstate(divide="ignore", invalid="ignore"):
        change = percent[2:-2] / percent[1:-3]
        ratio = np.abs(second[:-2] / second[2:])
    jump = (change > 1.15) | (change < 0.85)
    alike = (ratio > 0.8) & (ratio < 1.2)
    for row, place in np.argwhere(jump & alike & even[:, None]):
        i = row + 2
        near = np.arange(max(0, i - 12), min(i + 13, n))
        near = near[(np.abs(times[near] - times[i]) <= 12 * step[i]) & (near != i)]
        neighbours = percent[near, place]
        neighbours = neighbours[np.isfinite(neighbours)]
        result[i, place] = len(neighbours) > 2 and neighbours.var(ddof=1) < abs(neighbours.mean())
    return result


def find_stuck(
    values: NDArray[np.float32], times: NDArray[np.datetime64], days: int
) -> NDArray[np.bool_]:
    """Find runs of equal values on consecutive days.

    Args:
      values: (time, place), NaN where missing. A NaN or a day that is not in `times` ends a run.
      times: (time,).
      days: The shortest length of a run that is rejected.

    Returns:
      (time, place) True in such runs.
    """
    same = values[1:] == values[:-1]
    same &= (np.diff(times) == np.timedelta64(1, "D"))[:, None]
    starts = np.vstack([np.ones((1, values.shape[1]), bool), ~same]) if len(values) else same
    run = np.cumsum(starts, 0)  # the number of the run that a value belongs to
    result = np.zeros(values.shape, bool)
    for place in range(values.shape[1]):
        length = np.bincount(run[:, place])
        result[:, place] = length[run[:, place]] >= days
    return result


def accepted_flags(flag: xr.DataArray, qc: QcConfig) -> set[Any]:
    """Return the values of a provider's flag to keep: good ones, and by default unchecked ones."""
    good, unchecked = set(flag.attrs["good"]), set(_flag_attribute(flag, "unchecked"))
    return good | unchecked if qc.unchecked == "keep" else good - unchecked


def count_unchecked(flag: xr.DataArray, kept: NDArray[np.bool_]) -> dict[str, int]:
    """Count the kept values that the provider did not check, by the flag's meaning.

    Args:
      flag: The provider's flag. Its attribute `unchecked` lists the flags of unchecked values.
      kept: Which values were kept, in the shape of the flag.
    """
    values = _flag_attribute(flag, "unchecked")
    names = _flag_meanings(flag, values)
    counts = {str(names[value]): int((kept & (flag.values == value)).sum()) for value in values}
    return {name: n for name, n in counts.items() if n}


def _rejected_by_rule(
    sites: xr.Dataset, values: NDArray[np.float32], variable: Variable, qc: QcConfig
) -> dict[str, NDArray[np.bool_]]:
    """Return, by rule, a mask (time, place) of the values it rejects, missing values included."""
    rules: dict[str, NDArray[np.bool_]] = {}
    if qc.depth_m is not None and "depth_to" in sites.coords:
        below_top = sites["depth_from"].values >= qc.depth_m[0] - _DEPTH_TOLERANCE_M
        inside = below_top & (sites["depth_to"].values <= qc.depth_m[1] + _DEPTH_TOLERANCE_M)
        rules["depth"] = np.broadcast_to(~inside, values.shape)
    if qc.provider and "provider_flag" in sites:
        rules |= _provider_rules(sites["provider_flag"], qc)
    if qc.range:
        rules["range"] = (values < variable.minimum) | (values > variable.maximum)
    if qc.frozen_below_degc is not None and "soil_temperature" in sites:
        rules["frozen"] = sites["soil_temperature"].values <= qc.frozen_below_degc
    if qc.stuck_days is not None:
        rules["stuck"] = find_stuck(values, sites["time"].values, qc.stuck_days)
    if qc.spike:
        rules["spike"] = find_spikes(values, sites["time"].values)
    return rules


def _provider_rules(flag: xr.DataArray, qc: QcConfig) -> dict[str, NDArray[np.bool_]]:
    """Return one rule for each meaning of the flags that are not accepted."""
    values = flag.values
    rejected = sorted(set(np.unique(values).tolist()) - accepted_flags(flag, qc))
    meanings = _flag_meanings(flag, rejected)
    return {f"provider: {meanings[value]}": values == value for value in rejected}


def _flag_attribute(flag: xr.DataArray, key: str) -> list[Any]:
    """Return an attribute of a flag as a list; empty if the flag does not have it."""
    values: list[Any] = np.atleast_1d(flag.attrs.get(key, [])).tolist()
    return values


def _flag_meanings(flag: xr.DataArray, needed: list[Any]) -> dict[Any, Any]:
    """Return the meaning of each value of a flag; for several bits, the meanings of all of them.

    The attributes flag_values, flag_masks and flag_meanings are those of the CF conventions.
    """
    values = _flag_attribute(flag, "flag_values")
    meanings = dict(zip(values, str(flag.attrs.get("flag_meanings", "")).split(), strict=False))
    masks = _flag_attribute(flag, "flag_masks")
    for value in set(needed) - meanings.keys():
        meanings[value] = ",".join(meanings[mask] for mask in masks if value & mask) or value
    return meanings
