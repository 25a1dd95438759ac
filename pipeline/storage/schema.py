"""The form of each artefact: dims, dtypes, chunks, attributes; and which settings it is made from.

cube.zarr, Zarr v3, one group per kind of place:
  cells: forcing (time, y, x) float32, statics (y, x) float32, mask (y, x) uint8: 1 where valid
  footprints: target (time, fy, fx) float32
  sites: target and forcing (time, site) float32, statics (site) float32; y, x, fy, fx (site) int32:
    the cell and footprint that hold the site, -1 outside the domain
Coordinates: time int32, days since 1970-01-01 (UTC days), whole blocks of 32 days; y, x, lat, lon.
Values are NaN where missing and on days outside the attribute `period`.

Which days were made from preliminary forcing: spans in manifests, `input_status` in the maps.

A span is [first day, last day] as text; the spans of a manifest follow one another in time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.dates import runs_of_days
from pipeline.experiment import renamed
from pipeline.experiment.config import REGIONS
from pipeline.storage import version2

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.experiment.config import Experiment
    from pipeline.experiment.variables import Variable
    from pipeline.grid.ease import Window


EPOCH = date(1970, 1, 1)
VERSION = 3
BLOCK_DAYS, SHARD, CHUNK = 32, 256, 64

# Settings that an artefact is made from, beside what it reads: its identity.
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
    "maps": (),
    "scores": ("judging", "baselines"),
    "report": (),
}

# Settings that came later, and the value that leaves everything as it was before.
LATER = {
    "train.max_footprints": None,
    "planet.ocean_share": 0.0,
    "planet.forcing_degrees": 0.125,
    "qc.unchecked": "keep",
}

# Of an experiment, in no comparison of settings.
BESIDE = ("name", "title", "tuned_on", "cube", "compute")


@dataclass(frozen=True)
class Array:
    """One array of a Zarr group, before it has values."""

    path: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    shards: tuple[int, ...]
    chunks: tuple[int, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    values: NDArray[Any] | None = None  # coordinates are written with the template
    fill_value: int | None = None

    @property
    def fill(self) -> Any:
        """What an unwritten value reads as."""
        if self.fill_value is not None:
            return self.fill_value
        return {"f": np.nan, "i": -1, "u": 0}[np.dtype(self.dtype).kind]


def epoch_day(day: date) -> int:
    """Days since 1970-01-01."""
    return day.toordinal() - EPOCH.toordinal()


def date_of(epoch_day: int) -> date:
    """The day that is a number of days after 1970-01-01."""
    return EPOCH + timedelta(days=epoch_day)


def in_blocks(days: NDArray[np.datetime64]) -> list[NDArray[np.datetime64]]:
    """Days in pieces of as many as a block has, in the precision of datasets."""
    edges = range(BLOCK_DAYS, len(days), BLOCK_DAYS)
    return np.split(days.astype("datetime64[ns]"), list(edges))


def block_range(period: tuple[date, date]) -> range:
    """Numbers of the 32-day blocks, counted from 1970-01-01, that hold a period."""
    first, last = (epoch_day(day) // BLOCK_DAYS for day in period)
    return range(first, last + 1)


def time_axis(period: tuple[date, date]) -> NDArray[np.int32]:
    """Days since 1970-01-01 of all days of the blocks that hold a period."""
    blocks = block_range(period)
    return np.arange(blocks.start * BLOCK_DAYS, blocks.stop * BLOCK_DAYS, dtype=np.int32)


def coordinate(group: str, dims: tuple[str, ...], name: str, values: Any, **attrs: Any) -> Array:
    """A small array in one chunk, written by the driver."""
    array = np.asarray(values)
    shape = array.shape
    path = f"{group}/{name}" if group else name
    return Array(path, dims, shape, array.dtype.str, shape, shape, dict(attrs), array)


def period_days(period: tuple[date, date]) -> NDArray[np.datetime64]:
    """Every day of a period, in nanoseconds as xarray has them."""
    first, last = (np.datetime64(day, "D") for day in period)
    return np.arange(first, last + 1).astype("datetime64[ns]")


def time_coordinate(group: str, period: tuple[date, date], **attrs: Any) -> Array:
    """The time coordinate of a group."""
    return coordinate(
        group,
        ("time",),
        "time",
        time_axis(period),
        units="days since 1970-01-01",
        calendar="proleptic_gregorian",
        standard_name="time",
        long_name="UTC day",
        **attrs,
    )


def field_array(
    group: str, name: str, variable: Variable, dims: tuple[str, ...], sizes: dict[str, int]
) -> Array:
    """An array of a variable, in whole shards of one block x 256 x 256 (or x 256 sites)."""
    attrs = {"units": variable.units, "long_name": variable.long_name}
    if variable.standard_name:
        attrs["standard_name"] = variable.standard_name
    shards = tuple(BLOCK_DAYS if dim == "time" else SHARD for dim in dims)
    chunks = tuple(BLOCK_DAYS if dim == "time" else CHUNK for dim in dims)
    shape = tuple(sizes[dim] for dim in dims)
    return Array(f"{group}/{name}", dims, shape, "<f4", shards, chunks, attrs)


def identity(experiment: Experiment, artefact: str, **made_of: str) -> dict[str, Any]:
    """What an artefact is made from, flat: settings by dotted key, digests by name."""
    settings = experiment.model_dump(mode="json", include=set(SECTIONS[artefact]))
    for place in ("catalog", "staged"):  # where the sources lie; their digests tell what they hold
        settings.get("sources", {}).pop(place, None)
    settings.get("qc", {}).pop("max_missing", None)  # whether a cube is made, not what is in it
    if settings.get("folds") and settings["folds"]["by"] not in REGIONS:
        settings["folds"]["by"] = "polygons"  # a file, whose digest tells what it holds
    if settings.get("planet"):
        del settings["planet"]["url"]  # where a planet lies does not change it
    flat = {k: v for k, v in _flat(settings).items() if k not in LATER or v != LATER[k]}
    return {"schema": VERSION} | flat | dict(sorted(made_of.items()))


def as_recorded(inputs: dict[str, Any], recorded: dict[str, Any]) -> dict[str, Any]:
    """What an artefact is made from, in the form of a record that an earlier soilweave wrote.

    It equals the record where both say the same: settings have the names, and sources the digests,
    that they had when the record was written.

    Args:
      inputs: as of `identity`, or digests of sources by name.
      recorded: what the record has of the same.
    """
    named = {renamed.recorded_name(key, recorded): value for key, value in inputs.items()}
    return version2.as_recorded(named, recorded)


def changed(first: Experiment, other: Experiment) -> dict[str, Any]:
    """What another experiment sets otherwise than the first, by dotted key; None for not at all.

    Names and where things lie are left out.
    """
    before, after = (_flat(e.model_dump(mode="json", exclude=set(BESIDE))) for e in (first, other))
    keys = [k for k in before | after if before.get(k) != after.get(k)]
    return {k: after.get(k) for k in keys if k not in ("planet.url", "sources.staged")}


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def grid_coordinates(window: Window) -> list[Array]:
    """y, x, lat, lon of the cells and fy, fx, lat, lon of the footprints."""
    metres = {"units": "m"}
    made = []
    for group, dims, projected, lat, lon in (
        ("cells", ("y", "x"), (window.cell_y, window.cell_x), window.cell_lat, window.cell_lon),
        ("footprints", ("fy", "fx"), None, window.footprint_lat, window.footprint_lon),
    ):
        rows, cols = (dims[0],), (dims[1],)
        if projected is not None:
            made.append(coordinate(group, rows, dims[0], projected[0], **metres))
            made.append(coordinate(group, cols, dims[1], projected[1], **metres))
        made.append(coordinate(group, rows, "lat", lat, units="degrees_north"))
        made.append(coordinate(group, cols, "lon", lon, units="degrees_east"))
    return made


def site_coordinates(window: Window, sites: xr.Dataset) -> list[Array]:
    """lat, lon, and the cell and footprint that hold each site (-1 outside the domain)."""
    lat, lon = sites.lat.values, sites.lon.values
    (y, x), (fy, fx) = window.cells_of(lat, lon), window.footprints_of(lat, lon)
    made = [
        coordinate("sites", ("site",), "lat", lat, units="degrees_north"),
        coordinate("sites", ("site",), "lon", lon, units="degrees_east"),
    ]
    for name, values in (("y", y), ("x", x), ("fy", fy), ("fx", fx)):
        made.append(coordinate("sites", ("site",), name, values.astype("int32")))
    return made


def mask(sizes: dict[str, int]) -> Array:
    """The mask of valid cells."""
    shape = (sizes["y"], sizes["x"])
    attrs = {"long_name": "1 where a cell has data", "units": "1"}
    return Array("cells/mask", ("y", "x"), shape, "|u1", (SHARD, SHARD), (CHUNK, CHUNK), attrs)


FILL = 255
Spans = list[list[str]]


class Status(IntEnum):
    """Values of `input_status`."""

    FINAL = 0
    PRELIMINARY = 1


def array(group: str, period: tuple[date, date], preliminary: Spans) -> Array:
    """`input_status` (time,) of a group: the status of each day of the period, else the fill."""
    days = time_axis(period)
    values = np.full(len(days), Status.FINAL.value, np.uint8)
    values[np.isin(days, _days(preliminary))] = Status.PRELIMINARY.value
    begin, end = map(epoch_day, period)
    values[(days < begin) | (days > end)] = FILL
    attrs = {
        "long_name": "status of the forcing when the day was made",
        "standard_name": "status_flag",
        "flag_values": [status.value for status in Status],
        "flag_meanings": " ".join(status.name.lower() for status in Status),
        "_FillValue": FILL,
    }
    path = f"{group}/input_status" if group else "input_status"
    shape = values.shape
    return Array(path, ("time",), shape, "|u1", shape, shape, attrs, values, FILL)


def within(preliminary: Spans, period: tuple[date, date]) -> Spans:
    """The part of spans that lies in a period."""
    days = _days(preliminary)
    begin, end = map(epoch_day, period)
    return _spans(days[(days >= begin) & (days <= end)])


def read_again(preliminary: Spans, since: date, now: Spans) -> Spans:
    """Spans after all days since one were read again: before it as they were, then as now."""
    old, new, begin = _days(preliminary), _days(now), epoch_day(since)
    return _spans(np.concatenate([old[old < begin], new[new >= begin]]))


def _days(spans: Spans) -> NDArray[np.int64]:
    """All days of spans, counted from 1970-01-01."""
    edges: list[Sequence[int]] = [
        [epoch_day(date.fromisoformat(day)) for day in span] for span in spans
    ]
    runs = [np.arange(first, last + 1) for first, last in edges]
    return np.concatenate([np.zeros(0, np.int64), *runs])


def _spans(days: NDArray[np.int64]) -> Spans:
    """Spans of days that are counted from 1970-01-01."""
    runs = runs_of_days(days.astype("datetime64[D]"))
    return [[str(first), str(last)] for first, last in runs]
