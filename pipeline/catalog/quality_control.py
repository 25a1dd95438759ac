"""Quality control of observations: rules named in the experiment, each one counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.experiment.config import QcConfig
    from pipeline.experiment.variables import Variable


_TINY = 1e-6  # m


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
    if qc.depth_m is not None and "depth_to" in sites.coords:
        shallow = sites["depth_from"].values >= qc.depth_m[0] - _TINY
        inside = shallow & (sites["depth_to"].values <= qc.depth_m[1] + _TINY)
        rules["depth"] = np.broadcast_to(~inside, values.shape)
    if qc.provider and "provider_flag" in sites:
        rules |= _provider(sites["provider_flag"], qc)
    if qc.range:
        rules["range"] = (values < variable.minimum) | (values > variable.maximum)
    if qc.frozen_below_degc is not None and "soil_temperature" in sites:
        rules["frozen"] = sites["soil_temperature"].values <= qc.frozen_below_degc
    if qc.stuck_days is not None:
        rules["stuck"] = stuck(values, sites["time"].values, qc.stuck_days)
    if qc.spike:
        rules["spike"] = spikes(values, sites["time"].values)
    return rules


def retrievals(
    values: NDArray[np.float32], flag: NDArray[np.float32] | None, variable: Variable, qc: QcConfig
) -> dict[str, NDArray[np.bool_]]:
    """What each rule rejects of a satellite's values, a value counting under the first rule.

    Args:
      values: retrievals, NaN where missing.
      flag: their quality flags, of the same shape; None where there are none.
      variable: its range.
      qc: the rules.
    """
    rules = {}
    missing = np.isnan(values)
    if flag is not None and qc.satellite_bits is not None:
        bits = np.where(np.isnan(flag), 0, flag).astype(np.int64)
        rules["flag"] = (bits & qc.satellite_bits > 0) & ~missing
        missing = missing | rules["flag"]
    outside = (values < variable.minimum) | (values > variable.maximum)
    return rules | {"range": outside & ~missing}


def accepted(flag: xr.DataArray, qc: QcConfig) -> set[Any]:
    """Values of a provider's flag that are kept: good ones, and unchecked ones by default."""
    good, unchecked = set(flag.attrs["good"]), set(_listed(flag, "unchecked"))
    return good | unchecked if qc.unchecked == "keep" else good - unchecked


def unchecked(flag: xr.DataArray, kept: NDArray[np.bool_]) -> dict[str, int]:
    """How many values were kept that no check was applied to, by the provider's name for that.

    Args:
      flag: the provider's; its attribute `unchecked` lists the values that say so.
      kept: which values were kept, of the flag's shape.
    """
    values = _listed(flag, "unchecked")
    names = _meanings(flag, values)
    counts = {str(names[value]): int((kept & (flag.values == value)).sum()) for value in values}
    return {name: n for name, n in counts.items() if n}


def _provider(flag: xr.DataArray, qc: QcConfig) -> dict[str, NDArray[np.bool_]]:
    """One rule for each meaning the provider gives to a flag that is not accepted."""
    found = flag.values
    bad = sorted(set(np.unique(found).tolist()) - accepted(flag, qc))
    meanings = _meanings(flag, bad)
    return {f"provider: {meanings[value]}": found == value for value in bad}


def _listed(flag: xr.DataArray, key: str) -> list[Any]:
    listed: list[Any] = np.atleast_1d(flag.attrs.get(key, [])).tolist()
    return listed


def _meanings(flag: xr.DataArray, wanted: list[Any]) -> dict[Any, Any]:
    """What values of a flag mean; of several bits, the meanings of all."""
    values = _listed(flag, "flag_values")
    meanings = dict(zip(values, str(flag.attrs.get("flag_meanings", "")).split(), strict=False))
    masks = _listed(flag, "flag_masks")
    for value in set(wanted) - meanings.keys():
        meanings[value] = ",".join(meanings[mask] for mask in masks if value & mask) or value
    return meanings


def spikes(values: NDArray[np.float32], times: NDArray[np.datetime64]) -> NDArray[np.bool_]:
    """(time, place) True where a value alone stands out from its neighbours.

    The three conditions of Dorigo et al. (2013, doi:10.2136/vzj2012.0097), on the record's own
    steps: a change of more than 15 % from the step before; second differences before and after it
    alike within 20 %; variance over mean of the 12 steps on both sides below 1. They were made for
    hourly values in percent; m3 m-3 are brought to percent here. A value is looked at where the
    two before and the two after it are one step apart.
    """
    percent = values.astype(np.float64) * 100
    n = len(percent)
    result = np.zeros(values.shape, bool)
    if n < 5:
        return result
    step = np.diff(times)
    even = (step[:-3] == step[1:-2]) & (step[1:-2] == step[2:-1]) & (step[2:-1] == step[3:])
    second = percent[:-2] - 2 * percent[1:-1] + percent[2:]  # of steps 1 .. n - 2
    with np.errstate(divide="ignore", invalid="ignore"):
        change = percent[2:-2] / percent[1:-3]
        ratio = np.abs(second[:-2] / second[2:])
    jump = (change > 1.15) | (change < 0.85)
    alike = (ratio > 0.8) & (ratio < 1.2)
    for before, place in np.argwhere(jump & alike & even[:, None]):
        at = before + 2
        near = np.arange(max(0, at - 12), min(at + 13, n))
        near = near[(np.abs(times[near] - times[at]) <= 12 * step[at]) & (near != at)]
        around = percent[near, place]
        around = around[np.isfinite(around)]
        result[at, place] = len(around) > 2 and around.var(ddof=1) < abs(around.mean())
    return result


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
