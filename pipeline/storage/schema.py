"""Schema of the artefacts: the settings each is made from, and the arrays of cube.zarr.

cube.zarr is in Zarr v3 format, with one group per kind of place:
  cells: forcing (time, y, x) float32; static attributes (y, x) float32; mask (y, x) uint8, which
    is 1 in valid cells.
  footprints: target (time, fy, fx) float32.
  sites: target and forcing (time, site) float32; static attributes (site) float32; y, x, fy, fx
    (site) int32, the cell and the footprint that contain the site, -1 outside the domain.
The coordinate time is int32, days since 1970-01-01 (UTC days), and has exactly the days of the
experiment's period, to which `update` adds those after it. A shard has one block of 32 days, and
blocks are counted from the first day, so the last one may be shorter. The other coordinates are y,
x, lat and lon. Values are NaN where missing.

In versions 2 and 3 blocks were counted from 1970-01-01, so that the time axis began and ended with
days outside of the period; such cubes can still be read.

Days with preliminary forcing are recorded as spans in manifests and as `input_status` in maps. A
span is [first day, last day] as ISO dates; the spans of a manifest are in order of time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.dates import runs_of_days
from pipeline.experiment import renamed
from pipeline.experiment.config import shown_settings
from pipeline.experiment.folds_config import REGIONS
from pipeline.storage import earlier_versions

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.experiment.config import Experiment
    from pipeline.experiment.variables import Variable
    from pipeline.grid.ease import Window


EPOCH = date(1970, 1, 1)
SCHEMA_VERSION = 4  # of the schema; part of every identity

# Length of shards and chunks: days along time, cells, footprints or sites along other dimensions.
BLOCK_DAYS, SHARD, CHUNK = 32, 256, 64

# The settings in the identity of each artefact. Digests of what it reads are added to them.
SECTIONS: dict[str, tuple[str, ...]] = {
    "cube": ("target", "variables", "sources", "domain", "period", "inputs_from", "qc"),
    "folds": ("folds",),
    "models": (
        "inputs",
        "network",
        "loss",
        "train",
        "train_period",
        "arms",
        "n_seeds",
    ),
    "planet": ("planet", "domain", "period", "target"),
    "maps": ("reference_period",),
    "scores": ("judging", "baselines"),
    "report": (),
}

# Settings that were added to the schema later. With the value given here an artefact is made as
# before, so the setting is left out of the identity and older artefacts remain valid.
LATER_DEFAULTS = {
    "train.max_footprints": None,
    "planet.ocean_share": 0.0,
    "planet.forcing_degrees": 0.125,
    "qc.unchecked": "keep",
    "reference_period": None,
    "folds.train_sites": None,
    "folds.train_sites_seed": 0,
}

# Settings of an experiment that `changed` ignores, because they do not change results.
IGNORED_SETTINGS = ("name", "title", "tuned_on", "cube", "compute", "product")
Spans = list[list[str]]


class InputStatus(IntEnum):
    """Values of `input_status`."""

    FINAL = 0
    PRELIMINARY = 1


@dataclass(frozen=True)
class ArraySpec:
    """Description of one array of a Zarr store.

    Attributes:
      path: Its group and name, `group/name`; only the name in the root group.
      dims: Names of the dimensions.
      shape: Size of each dimension.
      dtype: NumPy type string.
      shards: Shape of a shard.
      chunks: Shape of a chunk.
      attrs: Attributes.
      values: Values to write with the template, as for coordinates; None for other arrays.
      fill_value: Fill value; None for that of the dtype.
    """

    path: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    shards: tuple[int, ...]
    chunks: tuple[int, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    values: NDArray[Any] | None = None
    fill_value: int | None = None

    @property
    def fill(self) -> Any:
        """The value of elements that were not written."""
        if self.fill_value is not None:
            return self.fill_value
        return {"f": np.nan, "i": -1, "u": 0}[np.dtype(self.dtype).kind]


def epoch_day(day: date) -> int:
    """Return the number of days from 1970-01-01 to a day."""
    return day.toordinal() - EPOCH.toordinal()


def split_into_blocks(days: NDArray[np.datetime64]) -> list[NDArray[np.datetime64]]:
    """Split days into pieces of 32 days, counted from the first one, as datetime64[ns]."""
    edges = range(BLOCK_DAYS, len(days), BLOCK_DAYS)
    return np.split(days.astype("datetime64[ns]"), list(edges))


def time_axis(period: tuple[date, date]) -> NDArray[np.int32]:
    """Return the days of a period, since 1970-01-01."""
    first, last = map(epoch_day, period)
    return np.arange(first, last + 1, dtype=np.int32)


def block_range(period: tuple[date, date]) -> range:
    """Return the numbers of the blocks of 32 days of a period: from 0, for its first day."""
    return range(block_of_day(period, period[1]) + 1)


def block_of_day(period: tuple[date, date], day: date) -> int:
    """Return the number of the block that has a day, which may be after the period."""
    return (day - period[0]).days // BLOCK_DAYS


def block_slice(period: tuple[date, date], block: int) -> slice:
    """Return the days of a block along the time axis of a period; the last block may be shorter."""
    start, n_days = block * BLOCK_DAYS, (period[1] - period[0]).days + 1
    return slice(start, min(start + BLOCK_DAYS, n_days))


def block_period(period: tuple[date, date], block: int, n: int = 1) -> tuple[date, date]:
    """Return the first and last day of `n` blocks of a period, from a block on."""
    first = period[0] + timedelta(block * BLOCK_DAYS)
    return first, min(first + timedelta(n * BLOCK_DAYS - 1), period[1])


def block_days(period: tuple[date, date], block: int) -> NDArray[np.datetime64]:
    """Return the days of a block as datetime64[ns]; the last block may have less than 32 days."""
    return period_days(block_period(period, block))


def coordinate(
    group: str, dims: tuple[str, ...], name: str, values: Any, **attrs: Any
) -> ArraySpec:
    """Describe a small array in one chunk, whose values are written with the template."""
    array = np.asarray(values)
    shape = array.shape
    path = f"{group}/{name}" if group else name
    return ArraySpec(path, dims, shape, array.dtype.str, shape, shape, dict(attrs), array)


def period_days(period: tuple[date, date]) -> NDArray[np.datetime64]:
    """Return every day of a period as datetime64[ns], the precision of xarray."""
    first, last = (np.datetime64(day, "D") for day in period)
    return np.arange(first, last + 1).astype("datetime64[ns]")


def time_coordinate(group: str, period: tuple[date, date], **attrs: Any) -> ArraySpec:
    """Describe the time coordinate of a group."""
    return coordinate(
        group,
        ("time",),
        "time",
        time_axis(period),
        units="days since 1970-01-01",
        calendar="proleptic_gregorian",
        standard_name="time",
        long_name="UTC day",
        units_metadata="leap_seconds: none",
        axis="T",
        **attrs,
    )


def field_array(
    group: str, name: str, variable: Variable, dims: tuple[str, ...], sizes: dict[str, int]
) -> ArraySpec:
    """Describe the array of a variable.

    A shard has one block of 32 days x 256 x 256 cells (or x 256 sites).

    Args:
      group: The group.
      name: Name of the variable.
      variable: Its units and names.
      dims: Names of the dimensions.
      sizes: Size of each dimension.
    """
    attrs = {"units": variable.units, "long_name": variable.long_name}
    if variable.standard_name:
        attrs["standard_name"] = variable.standard_name
    shards = tuple(BLOCK_DAYS if dim == "time" else SHARD for dim in dims)
    chunks = tuple(BLOCK_DAYS if dim == "time" else CHUNK for dim in dims)
    shape = tuple(sizes[dim] for dim in dims)
    return ArraySpec(f"{group}/{name}", dims, shape, "<f4", shards, chunks, attrs)


def identity(experiment: Experiment, artefact: str, **digests: str) -> dict[str, Any]:
    """Return the identity of an artefact: everything that its content depends on.

    Args:
      experiment: The experiment.
      artefact: Name of the artefact, one of the keys of SECTIONS.
      digests: Digests of what the artefact is made from, by name.

    Returns:
      The schema version, settings by dotted key, and the digests.
    """
    settings = experiment.model_dump(mode="json", include=set(SECTIONS[artefact]))
    # Only the content of sources matters, which their digests identify, not where they are.
    for key in ("catalog", "staged"):
        settings.get("sources", {}).pop(key, None)
    # The limit decides if a cube is made, but does not change it.
    settings.get("qc", {}).pop("max_missing", None)
    if settings.get("folds") and settings["folds"]["by"] not in REGIONS:
        settings["folds"]["by"] = "polygons"  # the digest of the file identifies its content
    if settings.get("planet"):
        del settings["planet"]["url"]  # a planet is the same wherever it is stored
    flat = {
        k: v
        for k, v in _flatten(settings).items()
        if k not in LATER_DEFAULTS or v != LATER_DEFAULTS[k]
    }
    return {"schema": SCHEMA_VERSION} | flat | dict(sorted(digests.items()))


def as_recorded(inputs: dict[str, Any], recorded: dict[str, Any]) -> dict[str, Any]:
    """Return inputs in the form in which an earlier version of soilweave would record them.

    Settings get the names, and sources the digests, that they had when the record was written. The
    result equals the record if the artefact was made from the same inputs.

    Args:
      inputs: Inputs as returned by `identity`, or digests of sources by name.
      recorded: The inputs in the record.
    """
    named = {renamed.recorded_name(key, recorded): value for key, value in inputs.items()}
    return earlier_versions.in_recorded_form(named, recorded)


def changed_settings(first: Experiment, other: Experiment) -> dict[str, Any]:
    """Return the settings of another experiment that differ from those of the first.

    Names, and the URLs of things, are ignored.

    Returns:
      The other experiment's values by dotted key; None where it does not have the setting.
    """
    before, after = (
        _flatten(shown_settings(e, exclude=set(IGNORED_SETTINGS))) for e in (first, other)
    )
    keys = [k for k in before | after if before.get(k) != after.get(k)]
    return {k: after.get(k) for k in keys if k not in ("planet.url", "sources.staged")}


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def grid_coordinates(window: Window) -> list[ArraySpec]:
    """Describe y, x, lat and lon of the cells, and lat and lon of the footprints."""
    metres = {"units": "m"}
    arrays = []
    for group, dims, projected, lat, lon in (
        ("cells", ("y", "x"), (window.cell_y, window.cell_x), window.cell_lat, window.cell_lon),
        ("footprints", ("fy", "fx"), None, window.footprint_lat, window.footprint_lon),
    ):
        rows, cols = (dims[0],), (dims[1],)
        if projected is not None:
            arrays.append(coordinate(group, rows, dims[0], projected[0], **metres))
            arrays.append(coordinate(group, cols, dims[1], projected[1], **metres))
        arrays.append(coordinate(group, rows, "lat", lat, units="degrees_north"))
        arrays.append(coordinate(group, cols, "lon", lon, units="degrees_east"))
    return arrays


def site_coordinates(window: Window, sites: xr.Dataset) -> list[ArraySpec]:
    """Describe lat, lon, and the cell and footprint that contain each site; -1 for none."""
    lat, lon = sites.lat.values, sites.lon.values
    (y, x), (fy, fx) = window.cells_of(lat, lon), window.footprints_of(lat, lon)
    arrays = [
        coordinate("sites", ("site",), "lat", lat, units="degrees_north"),
        coordinate("sites", ("site",), "lon", lon, units="degrees_east"),
    ]
    for name, values in (("y", y), ("x", x), ("fy", fy), ("fx", fx)):
        arrays.append(coordinate("sites", ("site",), name, values.astype("int32")))
    return arrays


def mask_array(sizes: dict[str, int]) -> ArraySpec:
    """Describe the mask of valid cells."""
    shape = (sizes["y"], sizes["x"])
    attrs = {"long_name": "1 where a cell has data", "units": "1"}
    return ArraySpec("cells/mask", ("y", "x"), shape, "|u1", (SHARD, SHARD), (CHUNK, CHUNK), attrs)


def input_status_array(group: str, period: tuple[date, date], preliminary: Spans) -> ArraySpec:
    """Describe `input_status` (time,): whether the forcing of each day was preliminary.

    Args:
      group: The group; "" is the root.
      period: First and last day.
      preliminary: Spans of days with preliminary forcing.
    """
    days = time_axis(period)
    values = np.full(len(days), InputStatus.FINAL.value, np.uint8)
    values[np.isin(days, _days_of_spans(preliminary))] = InputStatus.PRELIMINARY.value
    attrs = {
        "long_name": "status of the forcing when the day was made",
        "standard_name": "status_flag",
        "flag_values": [status.value for status in InputStatus],
        "flag_meanings": " ".join(status.name.lower() for status in InputStatus),
    }
    path = f"{group}/input_status" if group else "input_status"
    shape, fill = values.shape, InputStatus.PRELIMINARY.value
    return ArraySpec(path, ("time",), shape, "|u1", shape, shape, attrs, values, fill)


def clip_spans(preliminary: Spans, period: tuple[date, date]) -> Spans:
    """Return the part of spans that is inside a period."""
    days = _days_of_spans(preliminary)
    begin, end = map(epoch_day, period)
    return _spans_of_days(days[(days >= begin) & (days <= end)])


def replace_spans(preliminary: Spans, since: date, now: Spans) -> Spans:
    """Replace the spans from a day on.

    Args:
      preliminary: The old spans, which are kept before `since`.
      since: The first day that is replaced.
      now: The new spans, which are used from `since` on.
    """
    old, new, begin = _days_of_spans(preliminary), _days_of_spans(now), epoch_day(since)
    return _spans_of_days(np.concatenate([old[old < begin], new[new >= begin]]))


def _days_of_spans(spans: Spans) -> NDArray[np.int64]:
    """Return all days of spans, since 1970-01-01."""
    edges: list[Sequence[int]] = [
        [epoch_day(date.fromisoformat(day)) for day in span] for span in spans
    ]
    runs = [np.arange(first, last + 1) for first, last in edges]
    return np.concatenate([np.zeros(0, np.int64), *runs])


def _spans_of_days(days: NDArray[np.int64]) -> Spans:
    """Return the spans of sorted days, since 1970-01-01."""
    runs = runs_of_days(days.astype("datetime64[D]"))
    return [[str(first), str(last)] for first, last in runs]
