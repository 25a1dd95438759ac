"""The satellite as a baseline: at the sites of a cube, and at places that the cube has not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline import catalog, grid, placing, qc, satellite, schema
from pipeline.config import SATELLITE_BASELINE
from pipeline.judging import Candidate

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.config import Experiment
    from pipeline.cube import Cube


def in_cube(experiment: Experiment, cube: Cube, days: slice) -> Candidate:
    """The satellite at every site of a cube, on some of its days."""
    assert cube.footprints is not None
    assert cube.sites is not None
    values = cube.series(cube.footprints, cube.target)[days]
    ny, nx = values.shape[1:]
    lat, lon = np.meshgrid(
        cube.footprints["lat"].values, cube.footprints["lon"].values, indexing="ij"
    )
    fy, fx = cube.sites["fy"].values, cube.sites["fx"].values
    series, distance = satellite.at_sites(
        values.reshape(len(values), ny * nx).T,
        (lat.ravel(), lon.ravel()),
        (cube.sites["lat"].values, cube.sites["lon"].values),
        np.where(fy >= 0, fy.astype(np.int64) * nx + fx, -1),
        experiment.judging.max_footprint_km,
    )
    fold = np.full(len(series), "")
    return Candidate(SATELLITE_BASELINE, False, fold, series, distance_km=distance)


def at_places(
    experiment: Experiment,
    where: tuple[NDArray[np.float64], NDArray[np.float64]],
    on: NDArray[np.datetime64],
) -> Candidate:
    """The satellite from the experiment's catalog, on some days.

    Args:
      experiment: names the source.
      where: latitude and longitude (place,), degrees.
      on: (day,) consecutive days.
    """
    assert experiment.sources.satellite is not None
    source = catalog.open_source(experiment, experiment.sources.satellite)
    window = schema.window(experiment).of_footprints
    source = placing.near(source, window)
    days = on.astype("datetime64[ns]")
    values, flag = read(experiment, source, days)
    screen(experiment, values, flag)
    lat, lon = source.lat.values, source.lon.values
    if placing.is_grid(source):
        values = placing.placed(source, values, window).reshape(len(days), -1)
        lat, lon = (a.ravel() for a in np.meshgrid(window.cell_lat, window.cell_lon, indexing="ij"))
    values = values.T
    held = {place: i for i, place in enumerate(_footprint_of(lat, lon))}
    holding = np.array([held.get(p, -1) for p in _footprint_of(*where)])
    series, distance = satellite.at_sites(
        values, (lat, lon), where, holding, experiment.judging.max_footprint_km
    )
    fold = np.full(len(series), "")
    return Candidate(SATELLITE_BASELINE, False, fold, series, distance_km=distance)


def read(
    experiment: Experiment, source: xr.Dataset, days: NDArray[np.datetime64]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """A satellite's values and quality flags on some days, as the source has its places or cells.

    Args:
      experiment: names the target.
      source: the satellite, nothing read yet.
      days: (day,) consecutive days.

    Returns:
      (day, ...) values, NaN where missing; and flags of the same shape, None where it has none.
    """
    target = experiment.target
    names = [name for name in (target, "provider_flag") if name in source]
    # Both come from one file, which is read once.
    part = source[names].sel(time=slice(days[0], days[-1])).load()
    flag = placing.on_days(part, "provider_flag", days) if "provider_flag" in part else None
    return placing.on_days(part, target, days), flag


def screen(
    experiment: Experiment, values: NDArray[np.float32], flag: NDArray[np.float32] | None
) -> dict[str, int]:
    """Set what quality control rejects to NaN in place; returns how many values each rule rejects.

    For the cube, and wherever the satellite is judged.

    Args:
      experiment: names the target and the rules.
      values: of `read`.
      flag: of `read`.
    """
    rejects = qc.retrievals(values, flag, experiment.table[experiment.target], experiment.qc)
    for rejected in rejects.values():
        values[rejected] = np.nan
    return {rule: int(rejected.sum()) for rule, rejected in rejects.items()}


def _footprint_of(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Row and column of the global footprint that holds each place."""
    row, col = (np.floor(position).astype(int) for position in grid.footprint_position(lat, lon))
    return list(zip(row.tolist(), col.tolist(), strict=True))
