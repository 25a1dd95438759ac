"""Schema of the maps, and of the model states that `update` continues them from.

maps/{arm}.zarr is in Zarr v3 format and follows the CF conventions:
  `{target}`, `{target}_std` int16 and `quality_flag` uint8, each (time, y, x): in the root with one
    day per chunk, and in the group `series` with chunks that are long in time. A flag that was
    never written reads as `no_inputs`.
  `{target}_percentile`, `{target}_anomaly`, also in both groups, if the reference period has at
    least three years; see `climatology.py`.
  `input_status` uint8 (time): whether the forcing of the day was preliminary.
  `attribute_distance`, `probe_gain` float32 (y, x), in the root, if the arm is trained on sites;
    the attribute `applicability_limit` of the former is the largest distance within the models'
    area of applicability, if sites were held out.
  Coordinates time (with bounds), y, x, lat, lon, depth; grid mapping `crs`. In the root lat and lon
    are (y, x), as software that reprojects maps expects; in `series` they are (y) and (x), so that
    they can be indexes.
state/{arm}.zarr:
  `hidden`, `cell` float32 (block, member, y, x, unit): the LSTM's state before the first day of
    each of the last blocks, up to the block with the day after the maps.
  `block`: number of the block, counted in 32 days from the first day of the maps, in any order.
  `site_level`, `satellite_level` float32 (member, y, x): mean of each head in the spin-up.
  `reference` int16 (time, y, x), if the maps have percentiles; see `climatology.py`.
  `attributes` (attribute, y, x), `mean_variance` (y, x), float32: what `attribute_distance` and
    `probe_gain` are calculated from; they exist if these do.
"""

from __future__ import annotations

from datetime import date, timedelta
from enum import IntFlag
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj

from model.calibration import interval_half_width
from pipeline.errors import StoreError
from pipeline.storage import climatology, schema, zarr_arrays
from pipeline.storage.schema import BLOCK_DAYS, SHARD, ArraySpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.experiment.config import Experiment
    from pipeline.experiment.variables import Variable
    from pipeline.files import Json
    from pipeline.grid.ease import Window
    from pipeline.storage.artefacts import Workspace


VALUE_FILL = -32768  # of int16 values

# A chunk of the group `series`: so many blocks of 32 days, so many cells along y and x.
SERIES_BLOCKS, SERIES_CHUNK = 12, 16

# The state is kept for so many blocks, in chunks of so many cells along y and x.
STATE_BLOCKS, STATE_CHUNK = 3, 64
DIMS = ("time", "y", "x")
NEXT_PROBES = "next_probes.csv"  # in the workspace
TEMPERATURE, FREEZING_K = "air_temperature", 273.15  # the limit of Quality.FROZEN


class Quality(IntFlag):
    """Bits of `quality_flag`; 0 if the value is like those in the evaluation."""

    NO_INPUTS = 1
    INPUT_MISSING = 2
    FROZEN = 4
    OUTSIDE_RANGE = 8
    UNCALIBRATED = 16
    NOT_PREDICTED = 32


# Stored as the comment of `quality_flag`.
QUALITY_MEANINGS = {
    Quality.NO_INPUTS: "the cell has no inputs, hence no value",
    Quality.INPUT_MISSING: "an input was missing that day, its mean stood in",
    Quality.FROZEN: "mean air temperature at or under 273.15 K, days that are not judged",
    Quality.OUTSIDE_RANGE: "the value lies outside the variable's range",
    Quality.UNCALIBRATED: "the standard deviation was not scaled on unseen sites",
    Quality.NOT_PREDICTED: "the models gave no finite value although the cell has inputs",
}

# The comment of the standard deviation, for arms that learn from sites and for arm satellite.
STD_OF_POINTS = (
    "error of the value as the reading of a probe at a point of the cell, scaled on sites that the "
    "models had not seen: value +- interval_factor_50 (interval_factor_90) standard deviations "
    "holds 50 % (90 %) of such readings; it covers how a point differs from its cell, so it is too "
    "large for the mean of the cell"
)
STD_OF_CELLS = (
    "error of the value as the satellite would see the cell, from the models alone and not scaled "
    "on sites: value +- interval_factor_50 (interval_factor_90) standard deviations would hold "
    "50 % (90 %) of such values"
)
STANDARD_NAMES = "CF Standard Name Table v93"

# Layers of the root that exist if the arm is trained on sites.
SITE_LAYERS = {
    "attribute_distance": {
        "long_name": "distance to the nearest site learnt from, in statics and climate",
        "comment": "1 is the median distance of a site to the site next to it; cells beyond "
        "applicability_limit, if it is given, are unlike all sites that the models were tested at",
    },
    "probe_gain": {
        "long_name": "share of all error variance that a further probe here would explain",
        "comment": "a probe explains exp(-2 d^2) of the variance at attribute distance d",
    },
}


def pack_values(values: NDArray[Any], step: float) -> NDArray[np.int16]:
    """Convert values to integer multiples of `step`, and NaN to the fill value.

    Raises:
      ValueError: If a value is too large for int16.
    """
    counts = np.round(values / step)
    if (np.abs(counts) > 32767).any():
        too_large = values[np.abs(counts) > 32767].flat[0]
        msg = f"{too_large:g} does not fit into int16 at a step of {step:g}"
        raise ValueError(msg)
    return np.where(np.isnan(counts), VALUE_FILL, counts).astype(np.int16)


def state_blocks(period: tuple[date, date]) -> range:
    """Return the blocks whose state is kept: the last ones, up to that of the day after a period.

    Args:
      period: First and last day of the maps.
    """
    return schema.block_range((period[0], period[1] + timedelta(1)))[-STATE_BLOCKS:]


def assign_positions(stored: Sequence[int], needed: Sequence[int]) -> list[int]:
    """Assign blocks to the positions of the state array.

    A new block replaces the oldest one, so the other blocks stay at their positions.

    Args:
      stored: The block at each position now.
      needed: The blocks whose state is to be kept.

    Returns:
      The block at each position afterwards.
    """
    blocks = list(stored)
    for block in needed:
        if block not in blocks and len(blocks) < STATE_BLOCKS:
            blocks.append(block)
        elif block not in blocks:
            blocks[blocks.index(min(blocks))] = block
    return blocks


def maps_template(
    experiment: Experiment,
    window: Window,
    arm: str,
    members: int,
    sites: bool = False,
    preliminary: schema.Spans | None = None,
) -> tuple[list[ArraySpec], dict[str, Json]]:
    """Describe the arrays of an arm's maps, and the attributes of their groups.

    Args:
      experiment: The experiment, whose period is that of the maps.
      window: The cells.
      arm: The arm.
      members: Number of members of its ensemble.
      sites: Whether the arm is trained on sites.
      preliminary: Spans of days with preliminary forcing.

    Returns:
      The arrays, and the attributes by group; "" is the root.
    """
    variable, period = experiment.table[experiment.target], experiment.period
    shape = (len(schema.time_axis(period)), *window.cell_shape)
    plane = _shard_of_plane(window, SERIES_CHUNK)
    root = ((BLOCK_DAYS, *plane), (1, *plane))
    length = BLOCK_DAYS * SERIES_BLOCKS
    series = ((length, *plane), (length, SERIES_CHUNK, SERIES_CHUNK))
    arrays = []
    for group, (shards, chunks) in (("", root), ("series", series)):
        arrays += _coordinates(group, window, period, variable)
        arrays.append(schema.input_status_array(group, period, preliminary or []))
        for name, dtype, fill, attrs in _describe_variables(experiment, arm):
            path = f"{group}/{name}" if group else name
            arrays.append(
                ArraySpec(path, DIMS, shape, dtype, shards, chunks, attrs, fill_value=fill)
            )
    for name, layer in SITE_LAYERS.items() if sites else ():
        about = {"units": "1", "grid_mapping": "crs", "coordinates": "lat lon"} | layer
        about["coverage_content_type"] = "auxiliaryInformation"
        arrays.append(ArraySpec(name, DIMS[1:], shape[1:], "<f4", plane, plane, about))
    attrs = _group_attributes(experiment, window, arm, members)
    return arrays, {"": attrs, "series": attrs | {"summary": "The root, chunked for series."}}


def revisable_days(period: tuple[date, date], reference: tuple[date, date] | None) -> slice | None:
    """Return the days of a reference period that updates may revise, as the state of them is kept.

    Args:
      period: First and last day of the first maps.
      reference: First and last day of the reference period; None if there is none.

    Returns:
      The days, counted from the first day of the maps; None if there are none.
    """
    if reference is None:
        return None
    first, last = ((day - period[0]).days for day in reference)
    start = max(first, state_blocks(period)[0] * BLOCK_DAYS)
    return slice(start, last + 1) if start <= last else None


def reference_array(window: Window, days: slice | None) -> list[ArraySpec]:
    """Describe `reference` of the state: the values on some days; nothing if there are none."""
    if days is None:
        return []
    n_days = days.stop - days.start
    shape, shard = (n_days, *window.cell_shape), (n_days, *_shard_of_plane(window, STATE_CHUNK))
    chunk = (n_days, STATE_CHUNK, STATE_CHUNK)
    return [ArraySpec("reference", DIMS, shape, "<i2", shard, chunk, fill_value=VALUE_FILL)]


def state_template(
    window: Window, blocks: Sequence[int], members: int, units: int, attributes: int = 0
) -> list[ArraySpec]:
    """Describe the arrays of an arm's state.

    Args:
      window: The cells.
      blocks: The blocks before whose first day the state is kept.
      members: Number of members of the ensemble.
      units: Number of hidden units of the LSTM.
      attributes: Number of site attributes; 0 if the arm is not trained on sites.
    """
    space, coarse = window.cell_shape, _shard_of_plane(window, STATE_CHUNK)
    fine = (STATE_CHUNK, STATE_CHUNK)
    arrays = [schema.coordinate("", ("block",), "block", np.array(blocks, np.int32), units="1")]
    for name in ("hidden", "cell"):
        shape = (len(blocks), members, *space, units)
        shards, chunks = (1, 1, *coarse, units), (1, 1, *fine, units)
        arrays.append(
            ArraySpec(name, ("block", "member", "y", "x", "unit"), shape, "<f4", shards, chunks)
        )
    dims = ("member", "y", "x")
    levels = [
        ArraySpec(name, dims, (members, *space), "<f4", (1, *coarse), (1, *fine))
        for name in ("site_level", "satellite_level")
    ]
    if attributes:
        sizes, shard, chunk = ((attributes, *size) for size in (space, coarse, fine))
        dims = ("attribute", "y", "x")
        levels.append(ArraySpec("attributes", dims, sizes, "<f4", shard, chunk))
        levels.append(ArraySpec("mean_variance", dims[1:], space, "<f4", coarse, fine))
    return arrays + levels


def _shard_of_plane(window: Window, chunk: int) -> tuple[int, int]:
    """Return the cells of a shard along y and x: whole chunks, no more than the domain needs.

    To encode and decode the empty part of a shard would take most of the time in small domains.
    """
    ny, nx = (min(SHARD, -(-n_cells // chunk) * chunk) for n_cells in window.cell_shape)
    return ny, nx


def _describe_variables(experiment: Experiment, arm: str) -> list[tuple[str, str, int, Json]]:
    """Return the name, dtype, fill value and attributes of each variable of the maps."""
    target, variable = experiment.target, experiment.table[experiment.target]
    step = variable.scale_factor
    common: Json = {"units": variable.units, "scale_factor": step, "add_offset": 0.0}
    common |= {"_FillValue": VALUE_FILL, "grid_mapping": "crs", "coordinates": "lat lon"}
    methods = "time: mean area: mean"
    of_points = arm != "satellite"
    if variable.depth_m is not None:
        common["coordinates"] += " depth"
        methods += " depth: mean"
    mean: Json = common | {
        "long_name": variable.long_name,
        "cell_methods": methods,
        "coverage_content_type": "modelResult",
        "ancillary_variables": f"{target}_std quality_flag input_status",
        "valid_range": [round(variable.minimum / step), round(variable.maximum / step)],
        "comment": "what a probe at a typical point of the cell would read"
        if of_points
        else "what the satellite would see, were its footprint the cell",
    }
    std: Json = common | {
        "long_name": f"standard deviation of the error of {variable.long_name}",
        "coverage_content_type": "qualityInformation",
        "comment": STD_OF_POINTS if of_points else STD_OF_CELLS,
        "interval_factor_50": round(interval_half_width(0.5), 4),
        "interval_factor_90": round(interval_half_width(0.9), 4),
        "uncertainty_of_cell_mean": "unknown",
    }
    if variable.standard_name:
        mean["standard_name"] = variable.standard_name
        std["standard_name"] = f"{variable.standard_name} standard_error"
    flag: Json = {
        "long_name": "quality of the value",
        "standard_name": "quality_flag",
        "coverage_content_type": "qualityInformation",
        "flag_masks": [bit.value for bit in Quality],
        "flag_meanings": " ".join(str(bit.name).lower() for bit in Quality),
        "comment": "; ".join(f"{str(b.name).lower()}: {QUALITY_MEANINGS[b]}" for b in Quality),
        "grid_mapping": "crs",
        "coordinates": common["coordinates"],
    }
    return [
        (target, "<i2", VALUE_FILL, mean),
        (f"{target}_std", "<i2", VALUE_FILL, std),
        # Without the attribute `_FillValue`, for which readers would convert the bits to floats.
        ("quality_flag", "|u1", Quality.NO_INPUTS.value, flag),
        *climatology.describe_variables(experiment, common | {"cell_methods": methods}),
    ]


def _coordinates(
    group: str, window: Window, period: tuple[date, date], variable: Variable
) -> list[ArraySpec]:
    def coordinate(dims: tuple[str, ...], name: str, values: Any, **attrs: Any) -> ArraySpec:
        return schema.coordinate(group, dims, name, values, **attrs)

    days = schema.time_axis(period)
    lat, lon = window.cell_lat, window.cell_lon
    lat_dims: tuple[str, ...] = ("y",)
    lon_dims: tuple[str, ...] = ("x",)
    if not group:
        lat, lon = np.meshgrid(lat, lon, indexing="ij")
        lat_dims = lon_dims = DIMS[1:]
    grid = "WGS 84 / NSIDC EASE-Grid 2.0 Global, EPSG:6933"
    y_name, x_name = "projection_y_coordinate", "projection_x_coordinate"
    arrays = [
        schema.time_coordinate(group, period, bounds="time_bnds"),
        coordinate(("time", "bnds"), "time_bnds", np.stack([days, days + 1], 1)),
        coordinate(("y",), "y", window.cell_y, units="m", standard_name=y_name, axis="Y"),
        coordinate(("x",), "x", window.cell_x, units="m", standard_name=x_name, axis="X"),
        coordinate(lat_dims, "lat", lat, **_degree_attributes("latitude", "north")),
        coordinate(lon_dims, "lon", lon, **_degree_attributes("longitude", "east")),
        coordinate((), "crs", np.int32(0), **pyproj.CRS.from_epsg(6933).to_cf(), long_name=grid),
    ]
    if variable.depth_m is not None:
        attrs = {"units": "m", "standard_name": "depth", "long_name": "depth", "positive": "down"}
        bounds = np.array(variable.depth_m)
        arrays.append(coordinate((), "depth", bounds.mean(), bounds="depth_bnds", **attrs))
        arrays.append(coordinate(("bnds",), "depth_bnds", bounds))
    return arrays


def _degree_attributes(name: str, towards: str) -> dict[str, str]:
    """Return the attributes of the latitude or longitude of the cells' centres."""
    long_name = f"{name} of the cell's centre"
    return {"units": f"degrees_{towards}", "standard_name": name, "long_name": long_name}


def coverage_attributes(period: tuple[date, date]) -> Json:
    """Return the attributes of maps that change when days are added."""
    first, last = map(str, period)
    return {
        "period": [first, last],
        "time_coverage_start": first,
        "time_coverage_end": last,
        "time_coverage_duration": f"P{(period[1] - period[0]).days + 1}D",
        "time_coverage_resolution": "P1D",
    }


def _spatial_coverage(window: Window, depth: tuple[float, float] | None) -> Json:
    """Return the attributes that say where the maps are: the centres and edges of the cells."""
    lat_edges, lon_edges = window.cell_edges
    north, south, west, east = lat_edges[0], lat_edges[-1], lon_edges[0], lon_edges[-1]
    corners = ((north, west), (north, east), (south, east), (south, west), (north, west))
    lat, lon = window.cell_lat, window.cell_lon
    attrs: Json = {
        "geospatial_lat_min": float(lat[-1]),
        "geospatial_lat_max": float(lat[0]),
        "geospatial_lon_min": float(lon[0]),
        "geospatial_lon_max": float(lon[-1]),
        "geospatial_bounds": f"POLYGON (({', '.join(f'{y:.5f} {x:.5f}' for y, x in corners)}))",
        "geospatial_bounds_crs": "EPSG:4326",
    }
    if depth is not None:
        attrs |= {"geospatial_vertical_min": depth[0], "geospatial_vertical_max": depth[1]}
        attrs["geospatial_vertical_positive"] = "down"
    return attrs


def _group_attributes(experiment: Experiment, window: Window, arm: str, members: int) -> Json:
    left, bottom, right, top = window.bounds
    size = (right - left) / window.cell_shape[1]
    product, depth = experiment.product, experiment.table[experiment.target].depth_m
    stated = {
        "creator_url": product.creator_url,
        "doi": product.doi,
        "references": "; ".join(product.references),
    }
    return {
        "Conventions": "CF-1.11, ACDD-1.3",
        "keywords": f"{experiment.target}, daily, EASE-Grid 2.0",
        "processing_level": "L4",
        "title": f"Daily {experiment.target} of {experiment.title}, arm {arm}",
        "summary": f"Mean and standard deviation over {members} model(s), from soilweave.",
        "source": "soilweave: an LSTM trained on satellite footprints and point sensors",
        "arm": arm,
        "experiment": experiment.name,
        "recipe": experiment.recipe,
        "id": f"{experiment.name}/{arm}",
        "license": product.stated_license,
        "creator_name": product.stated_creator,
        **{name: text for name, text in stated.items() if text},
        "standard_name_vocabulary": STANDARD_NAMES,
        # xarray then reads them as coordinates, where rioxarray finds the reference system.
        "coordinates": "crs time_bnds" + ("" if depth is None else " depth_bnds"),
        climatology.ATTRIBUTE: climatology.describe_period(experiment),
        **coverage_attributes(experiment.period),
        **_spatial_coverage(window, depth),
        "proj:code": "EPSG:6933",
        "spatial:dimensions": ["y", "x"],
        "spatial:shape": list(window.cell_shape),
        "spatial:bbox": [left, bottom, right, top],
        "spatial:transform": [size, 0.0, left, 0.0, -size, top],
    }


def oldest_state_block(experiment: Experiment, workspace: Workspace) -> int:
    """Return the number of the oldest block for which every arm has a state.

    Raises:
      StoreError: If an arm has no state.
    """
    return max(min(blocks) for blocks in stored_state_blocks(experiment, workspace).values())


def stored_state_blocks(experiment: Experiment, workspace: Workspace) -> dict[str, list[int]]:
    """Read the blocks whose state is stored, by arm, in the order of the state array.

    Raises:
      StoreError: If an arm has no state.
    """
    stored: dict[str, list[int]] = {}
    for arm in experiment.arms:
        url = workspace.url("state", f"{arm}.zarr")
        if not zarr_arrays.read_attributes(url):
            hint = "make the maps and their state again with: soilweave predict --overwrite"
            raise StoreError(url, "there is no state to continue from", remedy=hint)
        stored[arm] = [int(block) for block in zarr_arrays.open_group(url, "")["block"].values]
    return stored
