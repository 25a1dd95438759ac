"""The stage that generates a planet whose truth is known, as provider-like files in `planet/`.

Generate a planet: simulate and observe it in chunks of days, and pass on finished files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from pipeline import files
from pipeline.errors import StoreError
from pipeline.experiment import config
from pipeline.planet import files as planet_files
from pipeline.planet import land as planet_land
from pipeline.planet import observations
from pipeline.planet.land import simulate_land
from pipeline.planet.random_fields import planet_parameters
from pipeline.planet.soil_water import SoilWater, evaporative_demand
from pipeline.planet.weather import ObservedForcing, WeatherGenerator
from pipeline.storage import artefacts, schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import date

    from numpy.typing import NDArray

    from pipeline.experiment.config import Experiment, PlanetConfig
    from pipeline.files import Json
    from pipeline.grid.ease import FloatArray, Window
    from pipeline.planet.random_fields import Field, PlanetParameters
    from pipeline.planet.weather import Weather
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace


def run(
    experiment: Experiment, workspace: Workspace, progress: Progress, overwrite: bool = False
) -> None:
    """Write the files of the planet; do nothing if the experiment observes the Earth.

    If the planet is in another workspace or at `planet.url`, only its presence is checked.

    Raises:
      StoreError: If that other planet does not exist.
    """
    if experiment.planet is None:
        return
    n_days = (experiment.period[1] - experiment.period[0]).days + 1
    progress.start("planet", n_days, "days")
    url = workspace.url("planet")
    elsewhere = experiment.planet.url or workspace.prepared(experiment).url("planet")
    if elsewhere != url:
        if experiment.cube is not None and experiment.sources.truth is None:
            progress.finish("not needed: the cube exists already, and no truth is configured")
            return
        if not files.exists(files.join(elsewhere, "sites.nc")):
            hint = (
                "run soilweave prepare to generate it, or set planet.url to the folder of a planet"
            )
            raise StoreError(elsewhere, "there is no planet in this folder", remedy=hint)
        progress.finish(f"using the planet in {elsewhere}")
        return
    artefact = workspace.artefact("planet")
    inputs = schema.identity(experiment, "planet")
    if not artefact.claim(inputs, overwrite, progress):
        progress.finish("planet complete")
        return
    artefact.begin(inputs)
    workspace.describe(experiment)
    written: list[Json] = []

    def write(name: str, data: bytes) -> None:
        files.write_bytes(files.join(url, name), data)
        written.append(artefacts.shard_record(url, name))

    window = config.experiment_window(experiment)
    planet, period, target = experiment.planet, experiment.period, experiment.target
    # Its matrix products are small, so that several BLAS threads make it about 5 times slower.
    with threadpool_limits(1, user_api="blas"):
        generate_planet(planet, window, period, target, write, progress.advance)
    artefact.commit(inputs, written)
    size = "{} x {}".format(*window.cell_shape)
    progress.finish(f"planet {planet.seed} ({planet.kind}), {size} cells, {planet.n_sites} sites")


CHUNK_DAYS, CHUNK_CELL_DAYS = 366, 10_000_000


def generate_planet(
    planet: PlanetConfig,
    window: Window,
    period: tuple[date, date],
    target: str,
    write: Callable[[str, bytes], None],
    advance: Callable[[int], None] = lambda days: None,
    chunk_cell_days: int = CHUNK_CELL_DAYS,
) -> None:
    """Generate the files of a planet and pass each to `write(name, bytes)`.

    The files are forcing_{day}.nc and truth_{day}.nc (one per chunk, named by its first day),
    attributes.nc, footprints.nc, sites.nc, and one day of retrievals as
    SMAP_L3_SM_P_{day}_R18290_001.h5. The size of chunks determines where files are split, and
    nothing else.

    Args:
      planet: settings of the planet.
      window: window of the grid.
      period: first and last day to observe.
      target: name of the dataset of retrievals in the SMAP file.
      write: called with the name and the content of each file.
      advance: called with the number of observed days after each chunk.
      chunk_cell_days: largest number of cells times days in a chunk.
    """
    simulation = _PlanetGenerator(planet, window, period, write)
    n_spinup, n_days = simulation.parameters.spinup_days, len(simulation.days)
    step = max(1, min(CHUNK_DAYS, chunk_cell_days // simulation.n_cells))
    for chunk in _day_chunks(0, n_spinup, step):
        simulation.make(chunk, write_files=False)
    for chunk in _day_chunks(n_spinup, n_days, step):
        simulation.make(chunk, write_files=True)
        advance(chunk.stop - chunk.start)
    simulation.observe(target)


class _PlanetGenerator:
    """A planet during generation: its land, weather and soil water, and the truth at observers."""

    def __init__(
        self,
        planet: PlanetConfig,
        window: Window,
        period: tuple[date, date],
        write: Callable[[str, bytes], None],
    ) -> None:
        self.window, self.write, self.seed = window, write, planet.seed
        parameters: PlanetParameters = planet_parameters(planet)
        self.parameters = parameters
        first, last = (np.datetime64(day, "D") for day in period)
        self.days = np.arange(first - parameters.spinup_days, last + 1)
        self.land = simulate_land(window, parameters, self.seed, planet.ocean_share)
        self.sky = WeatherGenerator(window, self.land, parameters, self.seed)
        self.forcing = ObservedForcing(window, parameters, self.seed, planet.forcing_degrees)
        edges = (self.forcing.lat_edges, self.forcing.lon_edges)
        self.grid = planet_files.GridAxes(
            ("lat", "lon"), *edges, self.forcing.lat, self.forcing.lon
        )
        self.land_footprints = (
            observations.footprint_means(1.0 - self.land.ocean, window.refinement) >= 0.5
        )
        self.sites = observations.place_sites(
            window, planet.n_sites, self.seed, self.land_footprints
        )
        self.bucket: SoilWater | None = None
        self.cells = planet_files.GridAxes.of_cells(window)
        self.n_cells = window.cell_shape[0] * window.cell_shape[1]
        shape = (len(self.days), *window.footprint_shape)
        self.footprints = observations.FootprintTruth(self.days, np.empty(shape), np.empty(shape))
        self.at_sites: FloatArray = np.empty((2, len(self.days), planet.n_sites))

    def make(self, chunk: slice, *, write_files: bool) -> None:
        """Simulate the days of a chunk, which follow those of the last call.

        The files of the chunk are written if `write_files` is True.
        """
        days = self.days[chunk]
        weather = self.sky.days(days)
        moisture, soil_celsius = self._truth(weather, days)
        for record, values in (
            (self.footprints.moisture, moisture),
            (self.footprints.soil_celsius, soil_celsius),
        ):
            record[chunk] = observations.footprint_means(values, self.window.refinement)
        for record, values in zip(self.at_sites, (moisture, soil_celsius), strict=True):
            record[chunk] = values[:, self.sites.y, self.sites.x]
        if write_files:
            day = str(days[0]).replace("-", "")
            moisture[:, self.land.ocean] = np.nan
            self.write(
                f"truth_{day}.nc", planet_files.gridded_netcdf({"SM": moisture}, self.cells, days)
            )
            del moisture, soil_celsius
            file = planet_files.gridded_netcdf(self.forcing.days(weather), self.grid, days)
            self.write(f"forcing_{day}.nc", file)

    def _truth(self, weather: Weather, days: NDArray[np.datetime64]) -> tuple[Field, Field]:
        """Return moisture in m3 m-3 and soil temperature in degC, (day, y, x) float32 each."""
        potential = evaporative_demand(weather, self.land, days)
        if self.bucket is None:
            self.bucket = SoilWater(self.land, weather.air_temperature[0])
        moisture, soil_celsius = np.empty((2, len(days), *self.window.cell_shape), np.float32)
        for day in range(len(days)):
            self.bucket.advance(
                weather.precipitation[day],
                weather.air_temperature[day],
                potential.bare_mm[day],
                potential.plants_mm[day],
            )
            moisture[day], soil_celsius[day] = self.bucket.moisture, self.bucket.soil_celsius
        return moisture, soil_celsius

    def observe(self, target: str) -> None:
        """Write the files that cover the whole period: attributes, satellite and sites."""
        window, land, parameters, seed = self.window, self.land, self.parameters, self.seed
        observed_attributes = planet_land.observe_attributes(window, land, parameters, seed)
        self.write("attributes.nc", planet_files.gridded_netcdf(observed_attributes, self.cells))
        period = slice(parameters.spinup_days, None)
        days = self.days[period]
        retrieved = observations.observe_footprints(
            window, land, parameters, seed, self.footprints, period
        )
        retrieved[:, ~self.land_footprints] = np.nan
        lat, lon = np.meshgrid(window.footprint_lat, window.footprint_lon, indexing="ij")
        flat = {"SM_RETRIEVED": retrieved.reshape(len(days), -1).T}
        self.write(
            "footprints.nc",
            planet_files.point_netcdf(flat, "footprint", lat.ravel(), lon.ravel(), days),
        )
        truth, soil_celsius = self.at_sites[:, period]
        values, flags = observations.observe_sites(truth, soil_celsius, parameters, seed)
        table = {"SM": values.T, "qc": flags.T, "ST": soil_celsius.T}
        locations = self.sites
        file = planet_files.point_netcdf(
            table, "site", locations.lat, locations.lon, days, locations.ids
        )
        self.write("sites.nc", file)
        day = planet_files.fullest_day(retrieved)
        file = planet_files.spl3smp_bytes(retrieved[day], window, days[day], target)
        self.write(planet_files.spl3smp_name(days[day]), file)


def _day_chunks(first: int, stop: int, step: int) -> Iterator[slice]:
    for start in range(first, stop, step):
        yield slice(start, min(start + step, stop))
