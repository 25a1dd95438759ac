"""Records of sites: screen each source over its whole length, join them, write them to the cube."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline import failures
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


class SiteRecords(NamedTuple):
    """The screened records of all sites.

    Attributes:
      data: The target, screened, and the forcing and statics that all sources have. The dims are
        time (every day of the experiment's period) and place; the coords are lat, lon, network and
        entry (text).
      dropped: The number of values that each rule dropped.
      entry_attrs: By source, what the catalog and the reader say of it, and `unchecked`: counts of
        the values that were kept although the provider did not check them.
      repeated: The ids, as `entry:id`, of sites whose id is also in another source.
    """

    data: xr.Dataset
    dropped: dict[str, int]
    entry_attrs: dict[str, Json]
    repeated: tuple[str, ...] = ()


def read_records(
    experiment: Experiment, sources: Sequence[xr.Dataset], window: Window
) -> SiteRecords:
    """Read all sources of sites, screen each by its own flags, and join them.

    An id that several sources have becomes `entry:id` in each of them.

    Raises:
      DataError: If a source cannot be read or has an id twice.
    """
    import xarray as xr

    labels = short_entry_names([str(source.attrs["entry"]) for source in sources])
    parts, dropped = [], Counter[str]()
    for source in sources:
        part, counts = screen_source(experiment, source, labels[str(source.attrs["entry"])])
        parts.append(part)
        dropped.update(counts)
    common = [name for name in parts[0].data_vars if all(name in part for part in parts)]
    coords = {"time", "place", "lat", "lon", "network", "entry"}
    parts_alike = [part[common].drop_vars(set(part.coords) - coords) for part in parts]
    joined = xr.concat(parts_alike, "place", join="exact") if len(parts) > 1 else parts_alike[0]
    ids, repeated = qualify_duplicate_ids(
        joined.place.values.astype(str).tolist(), joined.entry.values.astype(str).tolist()
    )
    joined = joined.assign_coords(place=ids)
    for rule in (_drop_outside_domain, _drop_short_records, _merge_collocated_sites):
        joined, counts = rule(joined, experiment, window)
        dropped.update(counts)
    entry_attrs = {str(part.attrs["entry"]): dict(part.attrs) for part in parts}
    joined = joined.assign_attrs(entry=", ".join(entry_attrs))
    return SiteRecords(joined, dict(dropped), entry_attrs, repeated)


def screen_source(
    experiment: Experiment, source: xr.Dataset, label: str
) -> tuple[xr.Dataset, dict[str, int]]:
    """Read one source on the days of the period and screen its target.

    Args:
      experiment: The settings.
      source: The source, with dims time and place.
      label: The label of the source, which becomes the coord `entry` of its sites. It is also
        their `network` if the provider gives none.

    Returns:
      The screened dataset, and the number of values that each rule dropped.

    Raises:
      DataError: If the source cannot be read.
    """
    target, days = experiment.target, schema.period_days(experiment.period)
    # Runs of equal values may start before the period and end after it.
    margin = np.timedelta64(experiment.qc.stuck_days or 0, "D")
    try:
        around = source.sel(time=slice(days[0] - margin, days[-1] + margin)).load()
    except failures.storage_exceptions(ImportError) as error:
        place = f"catalog entry {source.attrs['entry']}"
        problem = failures.read_problem(error)
        raise DataError(place, problem, remedy="fetch it again") from error
    variable = experiment.table[target]
    values, rejects = quality_control.screen_sites(around, target, variable, experiment.qc)
    around[target] = around[target].copy(data=values)
    inside = np.isin(around.time.values, days)
    dropped = {rule: int(rejected[inside].sum()) for rule, rejected in rejects.items()}
    unchecked = {}
    if "provider_flag" in around:
        kept = np.isfinite(values) & inside[:, None]
        unchecked = quality_control.count_unchecked(around["provider_flag"], kept)
    names = [
        n
        for n in around.data_vars
        if n == target or experiment.table.get(str(n), variable).kind in ("forcing", "static")
    ]
    data = around[names].reindex(time=days)
    networks = data["network"].values if "network" in data.coords else [""] * data.sizes["place"]
    data = data.assign_coords(
        network=("place", [str(name) or label for name in networks]),
        entry=("place", [label] * data.sizes["place"]),
    )
    return data.assign_attrs(unchecked=unchecked), dropped


def drop_values_without_cells(
    records: SiteRecords, experiment: Experiment, window: Window, mask: NDArray[np.bool_]
) -> tuple[SiteRecords, list[str]]:
    """Drop the values of sites whose cell has no data.

    Args:
      records: The records of the sites.
      experiment: The settings, which name the target.
      window: The cells.
      mask: (y, x) the cells that have data.

    Returns:
      The records, and the ids of the sites that lost values.

    Raises:
      DataError: If no site is in a cell with data.
    """
    data, target = records.data, experiment.target
    y, x = window.cells_of(data.lat.values, data.lon.values)
    without_data = ~mask[y, x]
    if without_data.all():
        problem = f"none of its {len(y)} sites is in a cell with data"
        hint = "check with soilweave doctor that the forcing and the sites are in the same region"
        raise DataError(f"catalog entry {data.attrs['entry']}", problem, remedy=hint)
    days = _days_with_values(data, target)
    values = data[target].transpose("time", "place").values.copy()
    values[:, without_data] = np.nan
    dropped = records.dropped | {"no cell with data": int(days[without_data].sum())}
    ids = [str(i) for i in data.place.values[without_data & (days > 0)]]
    data = data.assign({target: (("time", "place"), values)})
    return records._replace(data=data, dropped=dropped), ids


def write_records(
    records: SiteRecords, experiment: Experiment, url: str
) -> tuple[list[Json], dict[str, Json]]:
    """Write the target, and the sites' own inputs if the experiment uses them, to the cube.

    Returns:
      The records of the shards written; and, by variable, the record of its missing values, as in
      `missing_values.MissingCounts`.

    Raises:
      DataError: If an input has values outside its range.
    """
    data, table = records.data, experiment.table
    axis = schema.period_days(experiment.period)
    names = [experiment.target]
    if experiment.inputs_from == "own":
        attrs = zarr_arrays.read_attributes(url)
        names += [*attrs["forcing"], *attrs["static"]]
    problems: list[str] = []
    shards: list[Json] = []
    missing: dict[str, Json] = {}
    for name in names:
        dims = [dim for dim in ("time", "place") if dim in data[name].dims]
        values = data[name].transpose(*dims).values.astype(np.float32)
        missing[name] = missing_values.count_at_sites(experiment, str(data.attrs["entry"]), values)
        if name != experiment.target:
            problems += find_range_problems(name, values, table, str(data.attrs["entry"]))
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
    return shards, missing


def find_range_problems(
    name: str, values: NDArray[np.float32], table: Json, entry: str
) -> list[str]:
    """Return a line with the first value of an input that is outside its range, if any."""
    variable = table[name]
    outside = (values < variable.minimum) | (values > variable.maximum)
    if not outside.any():
        return []
    accepted = f"[{variable.minimum}, {variable.maximum}] {variable.units}"
    return [f"catalog entry {entry}: {name} {values[outside].flat[0]:g} is outside {accepted}"]


def accepted_site_names(entry: str, site: str) -> set[str]:
    """Return the names by which settings may refer to a site.

    These are its id and `entry:id`, where the entry may have its catalog in front or not.

    Args:
      entry: The name of the site's source.
      site: The site's id, qualified with the entry or not.
    """
    short = _short_name(entry)
    bare_id = site.removeprefix(f"{entry}:")
    bare_id = site.removeprefix(f"{short}:") if bare_id == site else bare_id
    return {site, bare_id, f"{entry}:{bare_id}", f"{short}:{bare_id}"}


def short_entry_names(entries: Sequence[str]) -> dict[str, str]:
    """Return the label of each entry: its name without the catalog, unless two entries share it."""
    counts = Counter(_short_name(entry) for entry in dict.fromkeys(entries))
    return {e: _short_name(e) if counts[_short_name(e)] == 1 else e for e in entries}


def qualify_duplicate_ids(
    ids: Sequence[str], entry: Sequence[str]
) -> tuple[list[str], tuple[str, ...]]:
    """Make the ids of sites unique: an id that several sources have becomes `entry:id`.

    Args:
      ids: (site,) the ids in the sources.
      entry: (site,) the label of each site's source.

    Returns:
      The unique ids, (site,); and those of them that were qualified.

    Raises:
      DataError: If a source has an id twice, or is named twice.
    """
    pairs = list(zip(ids, entry, strict=True))
    n_sources = Counter(site for site, _ in dict.fromkeys(pairs))
    unique = [f"{source}:{site}" if n_sources[site] > 1 else site for site, source in pairs]
    if twice := [site for site, n in Counter(unique).items() if n > 1]:
        problems = [f"an entry has site {site} twice, or is named twice" for site in twice]
        hint = "give each site in an entry an id of its own, and name each entry once"
        raise DataError("sources.insitu", *problems, remedy=hint)
    qualified = (name for name, site in zip(unique, ids, strict=True) if n_sources[site] > 1)
    return unique, tuple(qualified)


def _short_name(entry: str) -> str:
    """Return the name of an entry without its catalog."""
    return entry.rpartition(":")[2]


def _days_with_values(data: xr.Dataset, target: str) -> NDArray[np.int64]:
    """Return the number of days with a value of the target, (site,)."""
    return np.asarray(np.isfinite(data[target].transpose("time", "place").values).sum(0))


def _drop_outside_domain(
    data: xr.Dataset, experiment: Experiment, window: Window
) -> tuple[xr.Dataset, dict[str, int]]:
    """Drop the sites outside the domain, unless sites have their own inputs."""
    if experiment.inputs_from == "own":
        return data, {}
    inside = window.cells_of(data.lat.values, data.lon.values)[0] >= 0
    if not inside.any():
        problem = f"none of its {len(inside)} sites is in the domain"
        entry = str(data.attrs.get("entry", "sources.insitu"))
        raise DataError(f"catalog entry {entry}", problem, remedy="widen the domain")
    days = _days_with_values(data, experiment.target)
    return data.isel(place=inside), {"outside the domain": int(days[~inside].sum())}


def _drop_short_records(
    data: xr.Dataset, experiment: Experiment, window: Window
) -> tuple[xr.Dataset, dict[str, int]]:
    """Drop the sites that have fewer than `qc.min_days` days with values."""
    if not experiment.qc.min_days:
        return data, {}
    days = _days_with_values(data, experiment.target)
    short = days < experiment.qc.min_days
    return data.isel(place=~short), {"short record": int(days[short].sum())}


def _merge_collocated_sites(
    data: xr.Dataset, experiment: Experiment, window: Window
) -> tuple[xr.Dataset, dict[str, int]]:
    """Reduce collocated sites to one: the site with the longest record, or the mean of all.

    Sites are collocated if they are in one cell or closer than `collocated_sites.TWIN_KM`,
    whichever sources they come from.
    """
    method = experiment.qc.duplicate_sites
    if method == "keep":
        return data, {}
    target, days = experiment.target, _days_with_values(data, experiment.target)
    lat, lon = data.lat.values, data.lon.values
    pairs = collocated_sites.find_twins(lat, lon, collocated_sites.cell_numbers(window, lat, lon))
    place = collocated_sites.label_places(len(lat), pairs)
    # The first site of each place in the order of descending length has the longest record.
    order = np.argsort(-days, kind="stable")
    _, first = np.unique(place[order], return_index=True)
    chosen = np.sort(order[first])
    if method == "mean":
        values = data[target].transpose("time", "place").values
        for site in chosen[np.bincount(place)[place[chosen]] > 1]:
            group = values[:, place == place[site]]
            n = np.isfinite(group).sum(1)
            values[:, site] = np.where(n, np.nansum(group, 1) / np.maximum(n, 1), np.nan)
        data = data.assign({target: (("time", "place"), values)})
        return data.isel(place=chosen), {}
    others = np.setdiff1d(np.arange(len(lat)), chosen)
    return data.isel(place=chosen), {"another site in the cell": int(days[others].sum())}
