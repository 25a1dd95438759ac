"""Site records: each source screened over its whole length, joined, and written into the cube."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline import arrays, qc, schema
from pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.config import Experiment
    from pipeline.files import Json
    from pipeline.grid import Window


class Records(NamedTuple):
    """What the sites report, fit for use.

    `data` has dims time (every day of the experiment's period) and place, coords lat, lon and
    network (text), the target screened, and the forcing and statics that the sources have;
    `dropped` counts values by rule; `told` is what the catalog and the reader say of each source,
    with `unchecked`, counts of the values kept to which the provider applied no check.
    """

    data: xr.Dataset
    dropped: dict[str, int]
    told: dict[str, Json]


def records(experiment: Experiment, sources: Sequence[xr.Dataset], window: Window) -> Records:
    """Read every source of sites, screen each by its own flags, and join them.

    Raises:
      DataError: a source cannot be read, or two have a site of one id.
    """
    import xarray as xr

    parts, dropped = [], Counter[str]()
    for source in sources:
        part, counts = screened(experiment, source)
        parts.append(part)
        dropped.update(counts)
    held = [name for name in parts[0].data_vars if all(name in part for part in parts)]
    kept = {"time", "place", "lat", "lon", "network"}
    alike = [part[held].drop_vars(set(part.coords) - kept) for part in parts]
    joined = xr.concat(alike, "place", join="exact") if len(alike) > 1 else alike[0]
    ids, n = np.unique(joined.place.values.astype(str), return_counts=True)
    if (n > 1).any():
        found = f"site {ids[n > 1][0]} is in more than one of them"
        raise DataError("sources.insitu", found, remedy="leave it out with qc.exclude_sites")
    for rule in (_outside, _short, _several):
        joined, lost = rule(joined, experiment, window)
        dropped.update(lost)
    told = {str(part.attrs["entry"]): dict(part.attrs) for part in parts}
    return Records(joined.assign_attrs(entry=", ".join(told)), dict(dropped), told)


def screened(experiment: Experiment, source: xr.Dataset) -> tuple[xr.Dataset, dict[str, int]]:
    """One source on the days of the period, its target screened; and what each rule dropped.

    Its sites have a network: the provider's, else the name of the source's entry.

    Raises:
      DataError: it cannot be read.
    """
    target, period = experiment.target, experiment.period
    first, last = (np.datetime64(day, "D") for day in period)
    days = np.arange(first, last + 1).astype("datetime64[ns]")
    margin = np.timedelta64(experiment.qc.stuck_days or 0, "D")  # runs begin before, and end after
    try:
        around = source.sel(time=slice(days[0] - margin, days[-1] + margin)).load()
    except OSError as error:
        found = f"cannot be read, truncated or damaged: {error}"
        raise DataError(
            f"catalog entry {source.attrs['entry']}", found, remedy="fetch it again"
        ) from error
    variable = experiment.table[target]
    values, rejects = qc.screen(around, target, variable, experiment.qc)
    around[target] = around[target].copy(data=values)
    inside = np.isin(around.time.values, days)
    dropped = {rule: int(rejected[inside].sum()) for rule, rejected in rejects.items()}
    unchecked = {}
    if "provider_flag" in around:
        kept = np.isfinite(values) & inside[:, None]
        unchecked = qc.unchecked(around["provider_flag"], kept)
    names = [
        n
        for n in around.data_vars
        if n == target or experiment.table.get(str(n), variable).kind in ("forcing", "static")
    ]
    made = around[names].reindex(time=days)
    entry = str(source.attrs["entry"]).rpartition(":")[2]  # whichever catalog it is in
    told = made["network"].values if "network" in made.coords else [""] * made.sizes["place"]
    made = made.assign_coords(network=("place", [str(name) or entry for name in told]))
    return made.assign_attrs(unchecked=unchecked), dropped


def on_land(
    records: Records, experiment: Experiment, window: Window, mask: NDArray[np.bool_]
) -> tuple[Records, list[str]]:
    """Without the values of sites whose cell has no data; and the ids of those that had some.

    Args:
      records: of the sites.
      experiment: its target.
      window: the cells.
      mask: (y, x) cells that have data.

    Raises:
      DataError: no site is left.
    """
    data, target = records.data, experiment.target
    y, x = window.cells_of(data.lat.values, data.lon.values)
    lacking = ~mask[y, x]
    if lacking.all():
        found = f"none of its {len(y)} sites lies in a cell with data"
        remedy = "are forcing and sites of one region? soilweave doctor tells"
        raise DataError(f"catalog entry {data.attrs['entry']}", found, remedy=remedy)
    days = _good_days(data, target)
    kept = data[target].transpose("time", "place").values.copy()
    kept[:, lacking] = np.nan
    dropped = records.dropped | {"no cell with data": int(days[lacking].sum())}
    lost = [str(i) for i in data.place.values[lacking & (days > 0)]]
    made = data.assign({target: (("time", "place"), kept)})
    return records._replace(data=made, dropped=dropped), lost


def write(records: Records, experiment: Experiment, url: str) -> list[Json]:
    """Write the target, and the inputs where they are the sites' own, into the cube's group.

    Returns:
      The shards written.

    Raises:
      DataError: an input is outside its range.
    """
    data, table = records.data, experiment.table
    axis = schema.time_axis(experiment.period).astype("datetime64[D]").astype("datetime64[ns]")
    names = [experiment.target]
    if experiment.inputs_from == "own":
        attrs = arrays.attributes(url)
        names += [*attrs["forcing"], *attrs["static"]]
    problems, shards = [], []
    for name in names:
        values = data[name].values.astype(np.float32)
        if name != experiment.target:
            problems += range_problems(name, values, table, str(data.attrs["entry"]))
        if "time" in data[name].dims:
            values = data[name].transpose("time", "place").reindex(time=axis).values
        if not problems:
            region = [slice(0, size) for size in values.shape]
            shards += arrays.write_shards(url, f"sites/{name}", region, values.astype(np.float32))
    if problems:
        raise DataError(
            "sources.insitu", *problems, remedy="correct the data, or the variable's range"
        )
    return shards


def range_problems(name: str, values: NDArray[np.float32], table: Json, entry: str) -> list[str]:
    """A value of an input that is outside its range, as one line."""
    variable = table[name]
    outside = (values < variable.minimum) | (values > variable.maximum)
    if not outside.any():
        return []
    accepted = f"[{variable.minimum}, {variable.maximum}] {variable.units}"
    found = f"{name} {values[outside].flat[0]:g}"
    return [f"catalog entry {entry}: {found} is outside {accepted}"]


def _good_days(data: xr.Dataset, target: str) -> NDArray[np.int64]:
    return np.asarray(np.isfinite(data[target].transpose("time", "place").values).sum(0))


def _outside(
    data: xr.Dataset, experiment: Experiment, window: Window
) -> tuple[xr.Dataset, dict[str, int]]:
    """Without the sites that lie outside the domain, where inputs are those of its cells."""
    if experiment.inputs_from == "own":
        return data, {}
    inside = window.cells_of(data.lat.values, data.lon.values)[0] >= 0
    if not inside.any():
        found = f"none of its {len(inside)} sites lies in the domain"
        entry = str(data.attrs.get("entry", "sources.insitu"))
        raise DataError(f"catalog entry {entry}", found, remedy="widen the domain")
    days = _good_days(data, experiment.target)
    return data.isel(place=inside), {"outside the domain": int(days[~inside].sum())}


def _short(
    data: xr.Dataset, experiment: Experiment, window: Window
) -> tuple[xr.Dataset, dict[str, int]]:
    """Without the sites whose record is too short."""
    if not experiment.qc.min_days:
        return data, {}
    days = _good_days(data, experiment.target)
    short = days < experiment.qc.min_days
    return data.isel(place=~short), {"short record": int(days[short].sum())}


def _several(
    data: xr.Dataset, experiment: Experiment, window: Window
) -> tuple[xr.Dataset, dict[str, int]]:
    """One site per cell: that of the longest record, or there the mean of all."""
    several = experiment.qc.several
    if several == "keep":
        return data, {}
    target, days = experiment.target, _good_days(data, experiment.target)
    y, x = window.cells_of(data.lat.values, data.lon.values)
    alone = np.arange(len(y))[y < 0]  # outside the domain there are no cells
    cell = np.where(y < 0, -1 - np.arange(len(y)), y * window.cell_shape[1] + x)
    order = np.argsort(-days, kind="stable")
    _, first = np.unique(cell[order], return_index=True)
    chosen = np.sort(order[first])
    values = data[target].transpose("time", "place").values
    if several == "mean":
        for place in np.setdiff1d(chosen, alone):
            held = values[:, cell == cell[place]]
            n = np.isfinite(held).sum(1)
            values[:, place] = np.where(n, np.nansum(held, 1) / np.maximum(n, 1), np.nan)
        data = data.assign({target: (("time", "place"), values)})
        return data.isel(place=chosen), {}
    lost = np.setdiff1d(np.arange(len(y)), chosen)
    return data.isel(place=chosen), {"another site in the cell": int(days[lost].sum())}
