"""The presets `gsm3`: what they hold out and cost, and what `doctor` finds in their sources.

The files are small, in the forms of their providers; the entries are those of the shipped catalogs,
with other locations.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import dask
import miniatures_forcing
import miniatures_insitu
import miniatures_raster
import miniatures_smap
import numpy as np
import pyproj
import pytest
import yaml
from clinic import rows

import catalogs
from pipeline.doctor import plan
from pipeline.experiment import load
from pipeline.grid.ease import Window
from pipeline.prepare import folds

BOX = {"west": -107.2, "south": 39.6, "east": -106.0, "north": 40.6}  # in Colorado
CORNERS = [(south, west) for south in (39, 40) for west in (-108, -107, -106)]
ENTRIES = [
    "forcing.era5_land",
    "forcing.era5_land_surface",
    "static.copernicus_dem90",
    "static.worldcover",
    "static.soilgrids",
    "satellite.smap36",
    "insitu.ismn",
]
PERIOD = "[2016-05-01, 2016-05-30]"
DAYS = np.arange(np.datetime64("2016-04-30"), np.datetime64("2016-06-01"))
SETTINGS = (
    *(f"domain.{edge}_degrees={degrees}" for edge, degrees in BOX.items()),
    *(f"{key}={PERIOD}" for key in ("period", "train_period", "test_period")),
    "qc.min_days=10",
)


def write_forcing(folder: Path, rng: np.random.Generator) -> None:
    """The store of ERA5-Land: hours, longitudes from 0 to 360, sums since 00 UTC."""
    lat, lon = np.arange(42.0, 38.4, -0.25), np.arange(251.0, 255.6, 0.25)
    forcing = miniatures_forcing.era5("2016-04-30", "2016-06-02", lat=lat, lon=lon)
    surface = miniatures_forcing.era5_land_surface(forcing)
    made = miniatures_forcing.since_00(forcing).merge(surface)
    miniatures_forcing.to_zarr(made, folder / "era5-land-v0.zarr", version=3)


def write_rasters(folder: Path, rng: np.random.Generator) -> None:
    """Tiles of WorldCover and of the Copernicus DEM, and the five mosaics of SoilGrids."""
    classes = np.array([10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100], "uint8")
    cover = rng.choice(classes, (1200, 1200))
    miniatures_raster.worldcover(folder / "v200/2021/map", 39, -108, cover)
    for south, west in CORNERS:
        dem = rng.uniform(1500, 3500, (60, 60))
        miniatures_raster.copernicus(folder, south, west, dem)
    project = pyproj.Transformer.from_crs("EPSG:4326", "ESRI:54052", always_xy=True).transform
    x, y = project([-108.5, -105, -108.5, -105], [39, 39, 42, 42])
    shape = (int(np.ptp(y) // 1000), int(np.ptp(x) // 1000))
    for name, middle in {"sand": 412, "silt": 355, "clay": 233, "bdod": 137, "soc": 254}.items():
        values = rng.integers(middle - 50, middle + 50, shape).astype("int16")
        miniatures_raster.soilgrids(folder, name, values, (min(x), max(y)), 1000.0)


def write_observations(folder: Path, rng: np.random.Generator) -> None:
    """A file of SMAP for each day, and an archive of ISMN with a site in each of six cells."""
    window = Window.from_bbox(*BOX.values(), 1)
    rows_, cols = window.cell_shape
    for day in DAYS:
        seen = [
            miniatures_smap.Seen(
                window.row + row,
                window.col + col,
                float(rng.uniform(0.05, 0.4)),
                f"{day}T13:00:00.000Z",
            )
            for row in range(rows_)
            for col in range(cols)
        ]
        miniatures_smap.L3(str(day), seen).write(folder / "smap")
    sensors = []
    for i in range(6):
        at = ("SCAN", f"Site{i}", 40.0 + 0.3 * (i % 2), -107.0 + 0.35 * (i // 2))
        for variable, middle, size in (("soil_moisture", 0.2, 0.05), ("soil_temperature", 12, 4)):
            values = middle + size * np.sin(np.arange(24 * 30) / 50 + i)
            hours = miniatures_insitu.hours("2016-05-01", len(values), values.item)
            sensors.append(miniatures_insitu.Sensor(*at, hours, variable))
    miniatures_insitu.zipped(miniatures_insitu.write_ismn(folder / "ismn", sensors))


def write_catalogs(folder: Path) -> Path:
    """The shipped catalogs, with the locations of the small files."""
    copied = folder / "catalogs"
    copied.mkdir()
    for file in Path(catalogs.__path__[0]).glob("*.yaml"):
        shutil.copy(file, copied)
    static = (copied / "static.yaml").read_text()
    for host in (
        "https://files.isric.org",
        "https://esa-worldcover.s3.eu-central-1.amazonaws.com",
        "https://copernicus-dem-90m.s3.eu-central-1.amazonaws.com",
    ):
        assert host in static
        static = static.replace(host, str(folder))
    (copied / "static.yaml").write_text(static)
    for file, entry, args in (
        ("forcing", "era5_land", {"urlpath": f"{folder}/era5-land-v0.zarr"}),
        ("forcing", "era5_land_surface", {"urlpath": f"{folder}/era5-land-v0.zarr"}),
        ("satellite", "smap36", {"urlpath": f"{folder}/smap/*.h5", "collection": None}),
    ):
        tree = yaml.safe_load((copied / f"{file}.yaml").read_text())
        ours = tree["sources"][entry]["args"]
        ours.update(args, login=None, storage_options={})
        (copied / f"{file}.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    return copied / "main.yaml"


@pytest.fixture(scope="module")
def small_files(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("gsm3"), np.random.default_rng(0)
    for write in (write_forcing, write_rasters, write_observations):
        write(folder, rng)
    return write_catalogs(folder)


def test_doctor_finds_every_source_healthy(small_files, monkeypatch):
    monkeypatch.setenv("ISMN_ARCHIVE", str(small_files.parents[1] / "ismn.zip"))
    monkeypatch.setenv("EARTHDATA_TOKEN", "planted")  # the entry asks for one; no server does here
    with dask.config.set(scheduler="synchronous"):
        healthy, table, lines = rows("gsm3", *SETTINGS, f"sources.catalog={small_files}")
    assert healthy, [row for row in table if row[2] != "healthy"]
    assert [row[0] for row in table] == ENTRIES, lines
    assert {row[2] for row in table} == {"healthy"}


@pytest.mark.parametrize("name", ["gsm3", "gsm3-continents"])
def test_plan_knows_the_size_of_every_source_and_trains_within_a_computers_memory(name):
    experiment = load.load_experiment(name, ["network.hidden_size=8"])  # of a pace soon measured
    sources, stages, basis = plan.plan_tables(experiment)
    told = {cells[0]: cells for cells in zip(*(c._cells for c in sources.columns), strict=True)}
    assert [*told] == ENTRIES
    assert all("?" not in cells for cells in told.values())
    assert len(stages.rows) == 4
    assert "1512 x 3856 cells, 2,102 days, 11 forcings" in basis
    assert plan.training_data_mb(experiment, plan.experiment_sizes(experiment)) < 8_000


def test_only_what_is_held_out_differs():
    random, continents = (
        load.load_experiment(name).model_dump() for name in ("gsm3", "gsm3-continents")
    )
    assert {key for key in random if random[key] != continents[key]} == {"name", "title", "folds"}
    assert random["folds"]["kind"] == "random"
    assert (continents["folds"]["kind"], continents["folds"]["by"]) == ("region", "continent")


def test_each_continent_is_held_out_alone():
    experiment = load.load_experiment("gsm3-continents")
    lat = np.array([40.0, 64.8, 10.0, -35.0, 48.0, 34.0, -30.0])
    lon = np.array([-105.0, -147.7, 2.0, 146.0, 2.0, 100.0, -60.0])
    _, fold, names = folds.assign_sites(experiment, lat, lon, None)
    held = [names[k] for k in fold]
    assert held == [
        *("North America", "North America", "Africa", "Oceania", "Europe", "Asia"),
        "South America",
    ]
    assert len(names) == experiment.folds.n_folds
