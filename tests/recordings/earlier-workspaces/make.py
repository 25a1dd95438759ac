"""Make a small workspace with an earlier version of soilweave, and pack it.

The README beside this file has the command. Sources are random numbers with a fixed seed, on two
by two footprints of four by four cells: one entry for each driver that reads local files without
further libraries, a product to score against, and copies of the sources.
"""

from __future__ import annotations

import gzip
import os
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import xarray as xr
import yaml

from pipeline import cli

try:
    from pipeline.grid.ease import Window
except ImportError:  # of schema version 2
    from pipeline.grid import Window

WINDOW = Window(row=60, col=180, height=2, width=2, refinement=4)
DAYS = np.arange(np.datetime64("2020-01-01"), np.datetime64("2020-03-06")).astype("datetime64[ns]")
PERIOD = ["2020-01-01", "2020-02-20"]  # the sources of forcing go on, for `update`
N_SITES = 8
# The report is large, records of MLflow have absolute paths, and of `staged` the copies suffice.
LEFT_OUT = {"report.html", "mlflow.json", "mlflow.db", "mlartifacts", "staged"}
RNG = np.random.default_rng(0)


def main(archive: str) -> None:
    """Write the sources, run every stage on them, and pack the folder."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("sources").mkdir()
        write_sources()
        Path("sources/catalog.yaml").write_text(yaml.safe_dump(catalog(), sort_keys=False))
        Path("snow.yaml").write_text(yaml.safe_dump(experiment(), sort_keys=False))
        beside = ["--workspace", "workspace"]
        for verb in (["run"], ["prepare", "--stage-to", "copies", "--name", "staged"]):
            sys.argv = ["soilweave", verb[0], "snow.yaml", *verb[1:], *beside]
            try:
                cli.main()
            except SystemExit as end:
                if end.code:
                    raise
        pack(archive)


def pack(archive: str) -> None:
    """Pack the files of the working directory, but for those that are large and not needed."""
    files = (path for path in Path().rglob("*") if path.is_file())
    with (
        open(archive, "wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for path in sorted(files):
            if not LEFT_OUT.intersection(path.parts):
                tar.add(path, filter=anonymous)


def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A member of the archive without its owner and its time."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def write_sources() -> None:
    """Write forcing, elevation, a product, footprints and sites."""
    lat = np.arange(*np.round(WINDOW.cell_lat[[0, -1]] + [0.4, -0.4], 3), -0.25)
    lon = np.arange(*np.round(WINDOW.cell_lon[[0, -1]] + [-0.4, 0.4], 3), 0.25)
    shape = (len(DAYS), len(lat), len(lon))
    days = {"time": DAYS, "lat": lat, "lon": lon}
    field = ("time", "lat", "lon")
    write("forcing", {"SNOWF": (field, RNG.gamma(0.4, 8, shape), "kg m-2 day-1")}, days)
    write("product", {"SD": (field, RNG.gamma(2, 0.3, shape), "m")}, days)
    height = RNG.uniform(500, 2000, shape[1:])
    write("elevation", {"ELEV": (field[1:], height, "m")}, {"lat": lat, "lon": lon})
    depth = RNG.gamma(2, 0.3, (len(DAYS), *WINDOW.cell_shape))
    ny, nx = WINDOW.footprint_shape
    seen = depth.reshape(len(DAYS), ny, 4, nx, 4).mean((2, 4))
    seen[np.arange(len(DAYS)) % 2 == 1] = np.nan
    corners = np.meshgrid(WINDOW.footprint_lat, WINDOW.footprint_lon, indexing="ij")
    write_points("footprints", seen.reshape(len(DAYS), -1), *(a.ravel() for a in corners))
    chosen = RNG.permutation(np.argwhere(np.ones(WINDOW.cell_shape, bool)))[:N_SITES]
    y, x = chosen.T
    write_points("sites", depth[:, y, x], WINDOW.cell_lat[y], WINDOW.cell_lon[x])


def write_points(name: str, values: np.ndarray, lat: np.ndarray, lon: np.ndarray) -> None:
    """Write a variable (day, place) of places in the order in which a provider has them."""
    ids = [f"{name}-{i:02d}" for i in range(len(lat))]
    coords = {"time": DAYS, "lat": ("place", lat), "lon": ("place", lon), "place": ids}
    write(name, {"HS": (("place", "time"), values.T, "m")}, coords)


def write(name: str, variables: dict, coords: dict) -> None:
    """Write a NetCDF-4 file of single precision, compressed."""
    made = {
        key: (dims, np.asarray(values, "float32"), {"units": units})
        for key, (dims, values, units) in variables.items()
    }
    packed = {key: {"zlib": True, "complevel": 9} for key in made}
    dataset = xr.Dataset(made, coords)
    dataset.to_netcdf(f"sources/{name}.nc", engine="h5netcdf", encoding=packed)


def catalog() -> dict:
    """Entries with the paths that drivers had in version 2, files beside the catalog."""

    def entry(file: str, driver: str, support: str, mapping: dict, **args: str) -> dict:
        url = "{{ CATALOG_DIR }}/" + file
        return {
            "driver": f"pipeline.sources.{driver}",
            "args": {"urlpath": url, "mapping": mapping, **args},
            "metadata": {
                "support": support,
                "license": "CC0-1.0",
                "time_convention": "UTC day",
                "period": f"{str(DAYS[0])[:10]}..{str(DAYS[-1])[:10]}",
                "auth": "none",
            },
        }

    snowfall = {"snowfall": {"from": "SNOWF", "units": "kg m-2 day-1"}}
    elevation = {"elevation": {"from": "ELEV", "units": "m"}}
    depth = {"snow_depth": {"from": "HS", "units": "m"}}
    product = {"snow_depth": {"from": "SD", "units": "m"}}
    gridded, points = "gridded.GriddedSource", "points.PointsSource"
    sources = {
        "forcing": entry("forcing.nc", gridded, "cell", snowfall),
        "elevation": entry("elevation.nc", gridded, "cell", elevation),
        "product": entry("product.nc", gridded, "cell", product),
        "footprints": entry("footprints.nc", points, "footprint", depth, place="place"),
        "sites": entry("sites.nc", points, "site", depth, place="place"),
    }
    return {"metadata": {"version": 1}, "sources": sources}


def experiment() -> dict:
    """A recipe of few updates, and every setting by the name that it had in version 2."""

    def variable(kind: str, long_name: str, units: str, maximum: float) -> dict:
        limits = {"minimum": -500 if kind == "static" else 0, "maximum": maximum}
        return {"kind": kind, "long_name": long_name, "units": units, **limits}

    return {
        "name": "snow",
        "title": "random snow of an earlier version",
        "target": "snow_depth",
        "variables": {
            "snow_depth": variable("target", "depth of snow", "m", 20),
            "snowfall": variable("forcing", "precipitation", "kg m-2 day-1", 500),
            "elevation": variable("static", "elevation", "m", 9000),
        },
        "sources": {
            "catalog": "sources/catalog.yaml",
            "forcing": "forcing",
            "static": "elevation",
            "satellite": "footprints",
            "insitu": "sites",
        },
        "baselines": "product",
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
        "qc": {"several": "longest"},
        "folds": {"kind": "block", "n_folds": 2, "block_km": 36.0},
        "arms": ["multiscale"],
        "n_seeds": 1,
        "inputs": {"slow": []},
        "network": {"hidden_size": 4},
        "train": {
            "window_days": 20,
            "warmup_days": 5,
            "footprints_per_step": 2,
            "sites_per_step": 2,
            "updates": 4,
        },
        "judging": {"min_days": 10, "bootstrap_draws": 100},
    }


if __name__ == "__main__":
    main(sys.argv[1])
