"""Site records: each source screened over its whole length, joined, and written into the cube."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.catalog import quality_control
from pipeline.errors import DataError
from pipeline.grid import collocated_sites
from pipeline.storage import missing_values, schema, zarr_arrays

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.grid.ease import Window


class Records(NamedTuple):
    """What the sites report, fit for use.

    `data` has dims time (every day of the experiment's period) and place, coords lat, lon, network
    and entry (text), the target screened, and the forcing and statics that the sources have;
    `dropped` counts values by rule; `told` is what the catalog and the reader say of each source,
    with `unchecked`, counts of the values kept to which the provider applied no check; `repeated`
    has the ids, as `entry:id`, of sites whose id is in another source too.
    """

    data: xr.Dataset
    dropped: dict[str, int]
    told: dict[str, Json]
    repeated: tuple[str, ...] = ()


def records(experiment: Experiment, sources: Sequence[xr.Dataset], window: Window) -> Records:
    """Read every source of sites, screen each by its own flags, and join them.

    An id that is in more than one source becomes `entry:id` in each of them.

    Raises:
      DataError: a source cannot be read, or has one id twice.
    """
    import xarray as xr

    called = short_names([str(source.attrs["entry"]) for source in sources])
    parts, dropped = [], Counter[str]()
    for source in sources:
        part, counts = screened(experiment, source, called[str(source.attrs["entry"])])
        parts.append(part)
        dropped.update(counts)
    held = [name for name in parts[0].data_vars if all(name in part for part in parts)]
    kept = {"time", "place", "lat", "lon", "network", "entry"}
    alike = [part[held].drop_vars(set(part.coords) - kept) for part in parts]
    joined = xr.concat(alike, "place", join="exact") if len(alike) > 1 else alike[0]
    held_by = (joined[name].values.astype(str).tolist() for name in ("place", "entry"))
    ids, repeated = distinct(*held_by)
    joined = joined.assign_coords(place=ids)
    for rule in (_outside, _short, _duplicates):
        joined, lost = rule(joined, experiment, window)
        dropped.update(lost)
    told = {str(part.attrs["entry"]): dict(part.attrs) for part in parts}
    joined = joined.assign_attrs(entry=", ".join(told))
    return Records(joined, dict(dropped), told, repeated)


def names(entry: str, site: str) -> set[str]:
    """What a setting may call a site: its id, or `entry:id`, the entry with or without its catalog.

    Args:
      entry: name of its source.
      site: its id, qualified already or not.
    """
    short = _short_name(entry)
    own = site.removeprefix(f"{entry}:")
    own = site.removeprefix(f"{short}:") if own == site else own
    return {site, own, f"{entry}:{own}", f"{short}:{own}"}


def short_names(entries: Sequence[str]) -> dict[str, str]:
    """What each entry is called beside its ids: without its catalog, unless two share that name."""
    short = Counter(_short_name(entry) for entry in dict.fromkeys(entries))
    return {e: _short_name(e) if short[_short_name(e)] == 1 else e for e in entries}


def _short_name(entry: str) -> str:
    return entry.rpartition(":")[2]


def distinct(ids: Sequence[str], entry: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Ids that differ: those that are in several sources become `entry:id`.

    Args:
      ids: (site,) as the sources have them.
      entry: (site,) what the source of each is called.

    Returns:
      (site,) ids; and those of them that were qualified.

    Raises:
      DataError: one source has an id twice, or is named twice.
    """
    held = list(zip(ids, entry, strict=True))
    n_sources = Counter(site for site, _ in dict.fromkeys(held))
    made = [f"{source}:{site}" if n_sources[site] > 1 else site for site, source in held]
    if twice := [site for site, n in Counter(made).items() if n > 1]:
        problems = [f"site {site} is in more than one of them, or twice in one" for site in twice]
        remedy = "give each site an id of its own, and name each entry once"
        raise DataError("sources.insitu", *problems, remedy=remedy)
    repeated = (name for name, (site, _) in zip(made, held, strict=True) if n_sources[site] > 1)
    return made, tuple(repeated)


def screened(
    experiment: Experiment, source: xr.Dataset, called: str
) -> tuple[xr.Dataset, dict[str, int]]:
    """One source on the days of the period, its target screened; and what each rule dropped.

    Its sites have an entry, what the source is `called`, and a network: the provider's or else
    the entry.

    Raises:
      DataError: it cannot be read.
    """
    target, days = experiment.target, schema.period_days(experiment.period)
    margin = np.timedelta64(experiment.qc.stuck_days or 0, "D")  # runs begin before, and end after
    try:
        around = source.sel(time=slice(days[0] - margin, days[-1] + margin)).load()
    except OSError as error:
        found = f"cannot be read, truncated or damaged: {error}"
        raise DataError(
            f"catalog entry {source.attrs['entry']}", found, remedy="fetch it again"
        ) from error
    variable = experiment.table[target]
    values, rejects = quality_control.screen(around, target, variable, experiment.qc)
    around[target] = around[target].copy(data=values)
    inside = np.isin(around.time.values, days)
    dropped = {rule: int(rejected[inside].sum()) for rule, rejected in rejects.items()}
    unchecked = {}
    if "provider_flag" in around:
        kept = np.isfinite(values) & inside[:, None]
        unchecked = quality_control.unchecked(around["provider_flag"], kept)
    names = [
        n
        for n in around.data_vars
        if n == target or experiment.table.get(str(n), variable).kind in ("forcing", "static")
    ]
    made = around[names].reindex(time=days)
    told = made["network"].values if "network" in made.coords else [""] * made.sizes["place"]
    made = made.assign_coords(
        network=("place", [str(name) or called for name in told]),
        entry=("place", [called] * made.sizes["place"]),
    )
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


def write(records: Records, experiment: Experiment, url: str) -> tuple[list[Json], dict[str, Json]]:
    """Write the target, and the inputs where they are the sites' own, into the cube's group.

    Returns:
      The shards written; and what each variable lacks, as `missing.Counts` has it.

    Raises:
      DataError: an input is outside its range.
    """
    data, table = records.data, experiment.table
    axis = schema.time_axis(experiment.period).astype("datetime64[D]").astype("datetime64[ns]")
    names = [experiment.target]
    if experiment.inputs_from == "own":
        attrs = zarr_arrays.attributes(url)
        names += [*attrs["forcing"], *attrs["static"]]
    problems: list[str] = []
    shards: list[Json] = []
    lacking: dict[str, Json] = {}
    for name in names:
        dims = [dim for dim in ("time", "place") if dim in data[name].dims]
        values = data[name].transpose(*dims).values.astype(np.float32)
        lacking[name] = missing_values.of_sites(experiment, str(data.attrs["entry"]), values)
        if name != experiment.target:
            problems += range_problems(name, values, table, str(data.attrs["entry"]))
        if "time" in dims:
            values = data[name].transpose(*dims).copy(data=values).reindex(time=axis).values
        if not problems:
            region = [slice(0, size) for size in values.shape]
            shards += zarr_arrays.write_shards(
                url, f"sites/{name}", region, values.astype(np.float32)
            )
    if problems:
        raise DataError(
            "sources.insitu", *problems, remedy="correct the data, or the variable's range"
        )
    return shards, lacking


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


def _duplicates(
    data: xr.Dataset, experiment: Experiment, window: Window
) -> tuple[xr.Dataset, dict[str, int]]:
    """One site per place: that of the longest record, or there the mean of all.

    A place is a cell, or sites nearer than twins.SAME_KM, of whichever sources.
    """
    wanted = experiment.qc.duplicate_sites
    if wanted == "keep":
        return data, {}
    target, days = experiment.target, _good_days(data, experiment.target)
    lat, lon = data.lat.values, data.lon.values
    pairs = collocated_sites.find(lat, lon, collocated_sites.numbered(window, lat, lon))
    at = collocated_sites.places(len(lat), pairs)
    order = np.argsort(-days, kind="stable")
    _, first = np.unique(at[order], return_index=True)
    chosen = np.sort(order[first])
    if wanted == "mean":
        values = data[target].transpose("time", "place").values
        for site in chosen[np.bincount(at)[at[chosen]] > 1]:
            held = values[:, at == at[site]]
            n = np.isfinite(held).sum(1)
            values[:, site] = np.where(n, np.nansum(held, 1) / np.maximum(n, 1), np.nan)
        data = data.assign({target: (("time", "place"), values)})
        return data.isel(place=chosen), {}
    lost = np.setdiff1d(np.arange(len(lat)), chosen)
    return data.isel(place=chosen), {"another site in the cell": int(days[lost].sum())}
