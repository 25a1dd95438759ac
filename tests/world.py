"""A small world of another variable: snow depth in metres, described in YAML alone.

Cells of 9 km under footprints of 36 km (refinement 4), a coast that leaves footprints ragged, and
sites in cells. Snow falls below 0 degC and melts above, at a rate that depends on elevation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
import yaml

from pipeline import grid

if TYPE_CHECKING:
    from pathlib import Path

WINDOW = grid.Window(row=60, col=180, height=3, width=4, refinement=4)
N_SITES, N_DAYS, FIRST = 24, 160, np.datetime64("2019-11-20")
PERIOD = ["2019-11-20", "2020-04-27"]


def write(folder: Path, *, seed: int = 0) -> Path:
    """Write cells.nc, footprints.nc, sites.nc, catalog.yaml and snow.yaml; returns the last."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    forcing, elevation, depth = _nature(rng)
    land = _land()
    lat, lon = (a[land] for a in np.meshgrid(WINDOW.cell_lat, WINDOW.cell_lon, indexing="ij"))
    days = FIRST + np.arange(N_DAYS)
    celsius = forcing["air_temperature"][:, land].T - 273.15
    cells = {
        "SNOWF": (("cell", "time"), forcing["snowfall"][:, land].T / 24.0, {"units": "kg m-2 h-1"}),
        "T2C": (("cell", "time"), celsius, {"units": "degC"}),
        "ELEV": ("cell", elevation[land], {"units": "m"}),
    }
    _save(folder / "cells.nc", cells, "cell", days, lat, lon)
    _save_footprints(folder / "footprints.nc", depth, land, days, rng)
    _save_sites(folder / "sites.nc", depth, land, days, rng)
    (folder / "catalog.yaml").write_text(yaml.safe_dump(_catalog(folder)))
    path = folder / "snow.yaml"
    path.write_text(yaml.safe_dump(_experiment(folder), sort_keys=False))
    return path


def _nature(rng: np.random.Generator) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Forcing (day, y, x), elevation (y, x) and snow depth (day, y, x) of every cell."""
    ny, nx = WINDOW.cell_shape
    y, x = np.mgrid[0:ny, 0:nx]
    elevation = 800 + 60 * x + 25 * y + rng.normal(0, 120, (ny, nx))
    season = 275 - 9 * np.sin(np.pi * np.arange(N_DAYS) / N_DAYS)
    weather = rng.normal(0, 3, N_DAYS)
    temperature = (season + weather)[:, None, None] - 0.0065 * (elevation - 1200)
    storms = rng.gamma(0.4, 8, N_DAYS)[:, None, None] * rng.uniform(0.6, 1.4, (N_DAYS, ny, nx))
    depth = np.zeros((N_DAYS, ny, nx))
    swe = np.zeros((ny, nx))
    for day in range(N_DAYS):
        cold = temperature[day] < 273.15
        melt = 3.0 * np.maximum(temperature[day] - 273.15, 0)
        swe = np.maximum(swe + np.where(cold, storms[day], 0) - melt, 0)
        depth[day] = swe / 250.0
    return {"snowfall": storms, "air_temperature": temperature}, elevation, depth


def _land() -> np.ndarray:
    """(y, x) True on land: one footprint is sea, one keeps 5 of 16 cells, two are ragged."""
    land = np.ones(WINDOW.cell_shape, bool)
    land[0:4, 0:4] = False
    land[0:4, 4:7] = False
    land[0, 4:8] = True
    land[4:6, 0:2] = False
    land[11, 15] = False
    return land


def _save(path: Path, variables: dict, place: str, days: np.ndarray, lat, lon, ids=None) -> None:
    coords = {
        "time": days.astype("datetime64[ns]"),
        "lat": (place, lat),
        "lon": (place, lon),
        place: np.arange(len(lat)) if ids is None else ids,
    }
    typed = {
        name: (dims, np.asarray(values, "int8" if name == "qc" else "float32"), attrs)
        for name, (dims, values, attrs) in variables.items()
    }
    xr.Dataset(typed, coords).to_netcdf(path, engine="h5netcdf")


def _save_footprints(path: Path, depth, land, days, rng) -> None:
    fy, fx = WINDOW.footprint_shape
    masked = np.where(land, depth, np.nan).reshape(N_DAYS, fy, 4, fx, 4)
    n = land.reshape(fy, 4, fx, 4).sum((1, 3))
    seen = n >= 8
    mean = np.nansum(masked, (2, 4)) / np.maximum(n, 1)
    values = np.maximum(mean + 0.05 + rng.normal(0, 0.02, mean.shape), 0)
    values[np.arange(N_DAYS) % 3 != 0] = np.nan
    lat, lon = (
        a[seen] for a in np.meshgrid(WINDOW.footprint_lat, WINDOW.footprint_lon, indexing="ij")
    )
    variables = {"SD": (("pixel", "time"), values[:, seen].T, {"units": "m"})}
    _save(path, variables, "pixel", days, lat, lon)


def _save_sites(path: Path, depth, land, days, rng) -> None:
    chosen = rng.permutation(np.argwhere(land))[:N_SITES]
    y, x = chosen.T
    values = np.maximum(depth[:, y, x] + rng.normal(0, 0.01, (N_DAYS, N_SITES)), 0)
    qc = (rng.uniform(size=values.shape) < 0.05).astype("int8")
    flag = {"flag_values": np.array([0, 1], "int8"), "flag_meanings": "good doubtful"}
    variables = {
        "HS": (("station", "time"), values.T, {"units": "m"}),
        "qc": (("station", "time"), qc.T, flag),
    }
    ids = [f"snow-{i:02d}" for i in range(N_SITES)]
    _save(path, variables, "station", days, WINDOW.cell_lat[y], WINDOW.cell_lon[x], ids)


def _catalog(folder: Path) -> dict:
    def entry(file: str, place: str, support: str, mapping: dict, **args) -> dict:
        return {
            "driver": "pipeline.sources.points.PointsSource",
            "description": f"synthetic {support}s",
            "args": {"urlpath": str(folder / file), "place": place, "mapping": mapping, **args},
            "metadata": {
                "support": support,
                "license": "CC0-1.0",
                "time_convention": "UTC day",
                "period": "..".join(PERIOD),
                "auth": "none",
            },
        }

    cells = {
        "snowfall": {"from": "SNOWF", "units": "kg m-2 h-1", "to": "kg m-2 day-1"},
        "air_temperature": {"from": "T2C", "units": "degC", "to": "K"},
        "elevation": {"from": "ELEV", "units": "m"},
    }
    footprint = {"snow_depth": {"from": "SD", "units": "m"}}
    site = {"snow_depth": {"from": "HS", "units": "m"}}
    return {
        "metadata": {"version": 1},
        "sources": {
            "cells": entry("cells.nc", "cell", "cell", cells),
            "footprints": entry("footprints.nc", "pixel", "footprint", footprint),
            "sites": entry("sites.nc", "station", "site", site, flag={"from": "qc", "good": [0]}),
        },
    }


def _experiment(folder: Path) -> dict:
    def variable(kind: str, long_name: str, units: str, low: float, high: float) -> dict:
        return {
            "kind": kind,
            "long_name": long_name,
            "units": units,
            "minimum": low,
            "maximum": high,
        }

    return {
        "name": "snow",
        "title": "snow depth on a small made-up mountain",
        "recipe": "default",
        "target": "snow_depth",
        "variables": {
            "snow_depth": variable("target", "depth of snow", "m", 0, 20),
            "snowfall": variable("forcing", "precipitation", "kg m-2 day-1", 0, 500),
            "elevation": variable("static", "elevation", "m", -500, 9000),
        },
        "sources": {
            "catalog": str(folder / "catalog.yaml"),
            "forcing": ["cells"],
            "static": ["cells"],
            "satellite": "footprints",
            "insitu": "sites",
        },
        "domain": {
            "west_degrees": float(WINDOW.cell_lon[0]),
            "south_degrees": float(WINDOW.cell_lat[-1]),
            "east_degrees": float(WINDOW.cell_lon[-1]),
            "north_degrees": float(WINDOW.cell_lat[0]),
            "refinement": 4,
        },
        "period": PERIOD,
        "train_period": PERIOD,
        "test_period": PERIOD,
        "inputs_from": "cell",
        "folds": {"kind": "block", "n_folds": 3, "block_km": 36.0},
        "arms": ["multiscale", "insitu", "satellite"],
        "n_seeds": 1,
        "inputs": {"slow": [{"variable": "snowfall", "days": [7, 30], "transform": "log1p"}]},
        "network": {"hidden_size": 16},
        "train": {
            "window_days": 60,
            "warmup_days": 10,
            "footprints_per_step": 4,
            "sites_per_step": 8,
            "updates": 60,
            "static_noise": 0.2,
        },
        "judging": {"min_days": 30},
    }
