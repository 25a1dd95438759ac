"""The place: the cell, its footprint, the nearest sites, and the inputs of the days before.

What a release does not have, as the inputs, is described by a sentence under `missing`.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from pipeline import files
from pipeline.grid.lookup import great_circle_km
from pipeline.storage import tables
from pipeline.storage.cube import Cube

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from pipeline.explain.subject import Subject
    from pipeline.files import Json


N_SITES, N_DAYS = 3, 5  # nearest sites, and days of inputs, that are described
SHOWN_SCORES = ("correlation", "rmse", "bias")
DEGREE_DECIMALS, DECIMALS = 5, 5
NOT_PUBLISHED = "a release has no inputs; ask for the experiment in its workspace"


def describe_cell(subject: Subject) -> Json:
    """Return row, column, centre and bounds of the cell."""
    window, row, col = subject.window, subject.row, subject.col
    lat, lon = window.cell_edges
    centre = [window.cell_lat[row], window.cell_lon[col]]
    bounds = {"south": lat[row + 1], "north": lat[row], "west": lon[col], "east": lon[col + 1]}
    return {
        "row": row,
        "column": col,
        "centre": [round(float(degrees), DEGREE_DECIMALS) for degrees in centre],
        "bounds": {side: round(float(edge), DEGREE_DECIMALS) for side, edge in bounds.items()},
        "side_km": round((window.bounds[2] - window.bounds[0]) / window.cell_shape[1] / 1000, 3),
    }


def describe_footprint(subject: Subject) -> Json:
    """Return row, column and centre of the footprint, and what the satellite saw on the day."""
    window, (row, col) = subject.window, subject.footprint
    centre = [window.footprint_lat[row], window.footprint_lon[col]]
    described: Json = {
        "row": row,
        "column": col,
        "row_in_m36": window.row + row,
        "column_in_m36": window.col + col,
        "centre": [round(float(degrees), DEGREE_DECIMALS) for degrees in centre],
    }
    read = _published_footprint if subject.release else _footprint_of_cube
    observation = read(subject)
    if isinstance(observation, str):
        return described | {"observation": None, "missing": observation}
    return described | {"observation": observation}


def _published_footprint(subject: Subject) -> float | str | None:
    """Return the value of the footprint in a release, None if the satellite saw none, or why."""
    (row, col), home = subject.footprint, subject.home
    index = files.read_json(home.url("footprints.json"))
    if index is None:
        return "the release has no footprints"
    day = (subject.day - subject.experiment.test_period[0]).days
    if not 0 <= day < index["n_days"]:
        return "the release has the footprints of the test period only"
    key = index["rows"].get(str(row))
    found = (files.read_json(home.url(key)) or {}).get("footprints", ()) if key else ()
    series = next((f["observation"] for f in found if f["column"] == col), None)
    return None if series is None or series[day] is None else float(series[day])


def _footprint_of_cube(subject: Subject) -> float | str | None:
    """Return the value of the footprint in the cube, None if the satellite saw none, or why."""
    cube = _open_cube(subject)
    if cube is None or cube.footprints is None:
        return "there is no cube" if cube is None else "the cube has no satellite"
    (row, col), day = subject.footprint, np.datetime64(subject.day)
    if day > cube.footprints["time"].values.max():
        return "the cube has no satellite on this day"
    at = cube.footprints[cube.target].isel(fy=row, fx=col).sel(time=day)
    return _rounded(float(at.values))


def describe_inputs(subject: Subject) -> Json:
    """Return the inputs of the cell: forcing on the day and those before it, and attributes."""
    if subject.release:
        return {"missing": NOT_PUBLISHED}
    cube = _open_cube(subject)
    if cube is None:
        return {"missing": "there is no complete cube; make it with: soilweave prepare"}
    first = max(subject.day - timedelta(N_DAYS - 1), subject.experiment.period[0])
    days = slice(np.datetime64(first), np.datetime64(subject.day))
    cell = cube.cells.isel(y=subject.row, x=subject.col)
    recent = cell.sel(time=days)
    times = recent["time"].values.astype("datetime64[D]")
    of_dims: dict[tuple[str, ...], list[str]] = {}
    for name in sorted(map(str, cube.cells.data_vars)):
        of_dims.setdefault(tuple(map(str, cube.cells[name].dims)), []).append(name)
    static = [name for name in of_dims.get(("y", "x"), ()) if name != "mask"]
    return {
        "days": [str(day) for day in times],
        "forcing": {name: _with_units(recent[name]) for name in of_dims["time", "y", "x"]},
        "attributes": {name: _with_units(cell[name]) for name in static},
    }


def _with_units(values: xr.DataArray) -> Json:
    """Return the values as a list, or as one number if they have no dimension."""
    rounded = [_rounded(value) for value in np.atleast_1d(values.values).tolist()]
    units = str(values.attrs.get("units", "1"))
    return {"units": units, "values": rounded if values.dims else rounded[0]}


def describe_sites(subject: Subject) -> list[Json]:
    """Return the nearest sites: distance, fold, whether the cell contains them, and scores."""
    home = subject.home
    if not files.exists(home.url("folds.parquet")):
        return []
    sites = tables.read_table(home.url("folds.parquet"))
    sites["km"] = great_circle_km(subject.lat, subject.lon, sites.lat, sites.lon)
    sites["row"], sites["col"] = subject.window.cells_of(sites.lat, sites.lon)
    scores = None
    if files.exists(home.url("scores.parquet")):
        scores = tables.read_table(home.url("scores.parquet"))
    nearest = sites.nsmallest(N_SITES, "km").to_dict("records")
    return [
        {
            "site": site["site"],
            "distance_km": round(float(site["km"]), 1),
            "lat": round(float(site["lat"]), DEGREE_DECIMALS),
            "lon": round(float(site["lon"]), DEGREE_DECIMALS),
            "fold": int(site["fold"]),
            "in_this_cell": (site["row"], site["col"]) == (subject.row, subject.col),
            "scores": {} if scores is None else _scores(scores, subject.arm, site["site"]),
        }
        for site in nearest
    ]


def _scores(table: pd.DataFrame, arm: str, site: str) -> Json:
    """Return the scores of an arm at a site in the test period, by metric."""
    chosen = table[
        (table.target == "site")
        & (table.period == "test")
        & (table.arm == arm)
        & (table.id == site)
        & table.metric.isin(SHOWN_SCORES)
    ]
    values = zip(chosen.metric, chosen.value.tolist(), strict=True)
    return {metric: _rounded(value) for metric, value in values if math.isfinite(value)}


def _open_cube(subject: Subject) -> Cube | None:
    """Open the cube of an experiment; None if there is no complete one."""
    owner = subject.home.prepared(subject.experiment)
    if owner.artefact("cube").manifest() is None:
        return None
    return Cube.open(owner.url("cube.zarr")).within(subject.experiment.period)


def _rounded(value: float) -> float | None:
    return round(value, DECIMALS) if math.isfinite(value) else None
