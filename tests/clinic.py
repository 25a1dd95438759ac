"""Sources in good health, of every kind an experiment uses, for tests that plant one fault in them.

Forcing on a grid of one degree, a file per year as AORC has them; attributes, footprints, a product
on the same grid; sites. The days span three calendar years, the middle one with a leap day.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import h5py
import numpy as np
import world as small_world
import xarray as xr
import yaml

from pipeline.sources.gridded import GriddedSource

if TYPE_CHECKING:
    from pathlib import Path

PERIOD = ["2019-11-20", "2021-01-15"]
DAYS = np.arange(np.datetime64(PERIOD[0]), np.datetime64(PERIOD[1]) + 1)
LAT, LON = np.arange(44.5, 29.0, -1.0), np.arange(-106.5, -90.0, 1.0)
DOMAIN = {"west": -105, "south": 31, "east": -93, "north": 43}
ENTRIES = ("forcing", "attributes", "footprints", "sites", "product")


class YearlySource(GriddedSource):
    """A grid with a file per year, `urlpath`/2019.nc; those of the wanted period are opened."""

    def to_dask(self) -> xr.Dataset:
        first, last = self.period or (DAYS[0].item(), DAYS[-1].item())
        urls = [f"{self.urlpath}/{year}.nc" for year in range(first.year, last.year + 1)]
        parts = [GriddedSource(url, self.mapping).to_dask() for url in urls]
        return parts[0] if len(parts) == 1 else xr.concat(parts, "time", data_vars="minimal")


def write(folder: Path) -> Path:
    """Write all sources, catalog.yaml and clinic.yaml; returns the last."""
    rng = np.random.default_rng(3)
    (folder / "forcing").mkdir(parents=True)
    for year in (2019, 2020, 2021):
        days = DAYS[DAYS.astype("datetime64[Y]") == np.datetime64(str(year))]
        save(_forcing(days, rng), folder / "forcing" / f"{year}.nc")
    save(_attributes(rng), folder / "attributes.nc")
    save(_moisture(DAYS, rng), folder / "footprints.nc")
    save(_moisture(DAYS, rng), folder / "product.nc")
    save(_sites(rng), folder / "sites.nc")
    (folder / "catalog.yaml").write_text(yaml.safe_dump(_catalog(), sort_keys=False))
    path = folder / "clinic.yaml"
    path.write_text(yaml.safe_dump(_experiment(folder)))
    return path


def copy(healthy: Path, folder: Path) -> Path:
    """A copy of all that `write` has written, to be spoilt; its clinic.yaml."""
    shutil.copytree(healthy.parent, folder)
    path = folder / healthy.name
    edit(path, lambda tree: tree["sources"].update(catalog=str(folder / "catalog.yaml")))
    return path


def save(dataset: xr.Dataset, path: Path) -> None:
    """As NetCDF-4, its times in one compressed chunk."""
    encoding = {}
    if "time" in dataset:
        encoding["time"] = {"zlib": True, "chunksizes": (dataset.sizes["time"],)}
    dataset.to_netcdf(path, engine="h5netcdf", encoding=encoding)


def rewrite(path: Path, change) -> None:
    """Spoil one of the files."""
    with xr.open_dataset(path, engine="h5netcdf") as dataset:
        spoilt = change(dataset.load())
    for name in spoilt.variables:
        spoilt[name].encoding.clear()
    save(spoilt, path)


def edit(path: Path, change) -> None:
    """Change a YAML file."""
    tree = yaml.safe_load(path.read_text())
    change(tree)
    path.write_text(yaml.safe_dump(tree, sort_keys=False))


def spoil_times(path: Path) -> None:
    """Overwrite the chunk that holds the times, so that it cannot be inflated."""
    with h5py.File(path) as file:
        chunk = file["time"].id.get_chunk_info(0)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * chunk.size)


def _coords(days=None) -> dict:
    coords = {"lat": LAT, "lon": LON}
    return coords if days is None else coords | {"time": days.astype("datetime64[ns]")}


def _forcing(days, rng) -> xr.Dataset:
    shape = (len(days), len(LAT), len(LON))
    season = 10 * np.cos(2 * np.pi * (days.astype(int) % 365.25 - 200) / 365.25)
    kelvin = 300 + season[:, None, None] - 0.8 * (LAT[:, None] - 30) + rng.normal(0, 2, shape)
    dims = ("time", "lat", "lon")
    values = {
        "PR": (dims, rng.gamma(0.4, 0.3, shape).astype("float32"), {"units": "kg m-2 h-1"}),
        "T2": (dims, kelvin.astype("float32"), {"units": "K"}),
    }
    return xr.Dataset(values, _coords(days))


def _attributes(rng) -> xr.Dataset:
    shape = (len(LAT), len(LON))
    elevation, sand = rng.uniform(100, 2500, shape), rng.uniform(10, 80, shape)
    values = {
        "ELEV": (("lat", "lon"), elevation.astype("float32"), {"units": "m"}),
        "SAND": (("lat", "lon"), sand.astype("float32"), {"units": "percent"}),
    }
    return xr.Dataset(values, _coords())


def _moisture(days, rng) -> xr.Dataset:
    """Every third day, as a satellite sees a place; other days are not in the file."""
    values = rng.uniform(0.05, 0.45, (len(days), len(LAT), len(LON))).astype("float32")
    values[np.arange(len(days)) % 3 > 0] = np.nan
    return xr.Dataset({"SM": (("time", "lat", "lon"), values, {"units": "m3 m-3"})}, _coords(days))


def _sites(rng) -> xr.Dataset:
    n = 9
    values = rng.uniform(0.05, 0.45, (n, len(DAYS))).astype("float32")
    values[2, 40:90] = np.nan
    coords = {
        "time": DAYS.astype("datetime64[ns]"),
        "site": [f"site-{i}" for i in range(n)],
        "lat": ("site", rng.uniform(32, 42, n)),
        "lon": ("site", rng.uniform(-104, -94, n)),
    }
    return xr.Dataset({"SM": (("site", "time"), values, {"units": "m3 m-3"})}, coords)


def _catalog() -> dict:
    def entry(driver: str, urlpath: str, support: str, mapping: dict, **args) -> dict:
        return {
            "driver": driver,
            "description": f"{support}s in good health",
            "args": {"urlpath": f"{{{{CATALOG_DIR}}}}/{urlpath}", "mapping": mapping, **args},
            "metadata": {
                "support": support,
                "license": "CC0-1.0",
                "doi": "none",
                "auth": "none",
                "region": "CONUS, its middle",
                "native_units": "as ours, but rain per hour",
                "native_grid": "1 degree",
                "time_convention": "UTC day",
                "period": "..".join(PERIOD),
            },
        }

    gridded = "pipeline.sources.gridded.GriddedSource"
    forcing = {
        "precipitation": {"from": "PR", "units": "kg m-2 h-1", "to": "kg m-2 day-1"},
        "air_temperature": {"from": "T2", "units": "K"},
    }
    attributes = {
        "elevation": {"from": "ELEV", "units": "m"},
        "sand": {"from": "SAND", "units": "percent"},
    }
    moisture = {"soil_moisture": {"from": "SM", "units": "m3 m-3"}}
    points = "pipeline.sources.points.PointsSource"
    sources = {
        "forcing": entry("clinic.YearlySource", "forcing", "cell", forcing),
        "attributes": entry(gridded, "attributes.nc", "cell", attributes),
        "footprints": entry(gridded, "footprints.nc", "footprint", moisture),
        "sites": entry(points, "sites.nc", "site", moisture, place="site"),
        "product": entry(gridded, "product.nc", "footprint", moisture),
    }
    return {"metadata": {"version": 1}, "sources": sources}


def _experiment(folder: Path) -> dict:
    tree = small_world._experiment(folder)
    del tree["variables"]
    return tree | {
        "name": "clinic",
        "title": "sources in good health",
        "target": "soil_moisture",
        "sources": {
            "catalog": str(folder / "catalog.yaml"),
            "forcing": ["forcing"],
            "static": ["attributes"],
            "satellite": "footprints",
            "insitu": "sites",
        },
        "baselines": ["product"],
        "domain": {f"{side}_degrees": edge for side, edge in DOMAIN.items()} | {"refinement": 4},
        "period": PERIOD,
        "train_period": PERIOD,
        "test_period": PERIOD,
        "inputs": {},
    }
