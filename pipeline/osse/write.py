"""Generate a planet: simulate and observe it in chunks of days, and pass on finished files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.osse import attributes, netcdf, satellite, sites, spl3smp
from pipeline.osse.bucket import Bucket, demand
from pipeline.osse.forcing import ShownForcing
from pipeline.osse.land import make_land
from pipeline.osse.planet import magnitudes
from pipeline.osse.weather import Sky

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import date

    from numpy.typing import NDArray

    from pipeline.config import PlanetConfig
    from pipeline.grid import FloatArray, Window
    from pipeline.osse.fields import Field
    from pipeline.osse.planet import Magnitudes
    from pipeline.osse.weather import Weather

CHUNK_DAYS, CHUNK_CELL_DAYS = 366, 10_000_000


def generate(
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
    simulation = _Planet(planet, window, period, write)
    n_spinup, n_days = simulation.parameters.spinup_days, len(simulation.days)
    step = max(1, min(CHUNK_DAYS, chunk_cell_days // simulation.n_cells))
    for chunk in _chunks(0, n_spinup, step):
        simulation.make(chunk, write_files=False)
    for chunk in _chunks(n_spinup, n_days, step):
        simulation.make(chunk, write_files=True)
        advance(chunk.stop - chunk.start)
    simulation.observe(target)


class _Planet:
    """A planet during generation: its land, weather and soil water, and the truth at observers."""

    def __init__(
        self,
        planet: PlanetConfig,
        window: Window,
        period: tuple[date, date],
        write: Callable[[str, bytes], None],
    ) -> None:
        self.window, self.write, self.seed = window, write, planet.seed
        parameters: Magnitudes = magnitudes(planet)
        self.parameters = parameters
        first, last = (np.datetime64(day, "D") for day in period)
        self.days = np.arange(first - parameters.spinup_days, last + 1)
        self.land = make_land(window, parameters, self.seed, planet.ocean_share)
        self.sky = Sky(window, self.land, parameters, self.seed)
        self.forcing = ShownForcing(window, parameters, self.seed, planet.forcing_degrees)
        edges = (self.forcing.lat_edges, self.forcing.lon_edges)
        self.grid = netcdf.Axes(("lat", "lon"), *edges, self.forcing.lat, self.forcing.lon)
        self.land_footprints = (
            satellite.footprint_mean(1.0 - self.land.ocean, window.refinement) >= 0.5
        )
        self.sites = sites.place(window, planet.n_sites, self.seed, self.land_footprints)
        self.bucket: Bucket | None = None
        self.cells = netcdf.Axes.of_cells(window)
        self.n_cells = window.cell_shape[0] * window.cell_shape[1]
        shape = (len(self.days), *window.footprint_shape)
        self.footprints = satellite.Passed(self.days, np.empty(shape), np.empty(shape))
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
            record[chunk] = satellite.footprint_mean(values, self.window.refinement)
        for record, values in zip(self.at_sites, (moisture, soil_celsius), strict=True):
            record[chunk] = values[:, self.sites.y, self.sites.x]
        if write_files:
            day = str(days[0]).replace("-", "")
            moisture[:, self.land.ocean] = np.nan
            self.write(f"truth_{day}.nc", netcdf.gridded({"SM": moisture}, self.cells, days))
            del moisture, soil_celsius
            file = netcdf.gridded(self.forcing.days(weather), self.grid, days)
            self.write(f"forcing_{day}.nc", file)

    def _truth(self, weather: Weather, days: NDArray[np.datetime64]) -> tuple[Field, Field]:
        """Return moisture in m3 m-3 and soil temperature in degC, (day, y, x) float32 each."""
        potential = demand(weather, self.land, days)
        if self.bucket is None:
            self.bucket = Bucket(self.land, weather.air_temperature[0])
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
        observed_attributes = attributes.shown(window, land, parameters, seed)
        self.write("attributes.nc", netcdf.gridded(observed_attributes, self.cells))
        period = slice(parameters.spinup_days, None)
        days = self.days[period]
        retrieved = satellite.observe(window, land, parameters, seed, self.footprints, period)
        retrieved[:, ~self.land_footprints] = np.nan
        lat, lon = np.meshgrid(window.footprint_lat, window.footprint_lon, indexing="ij")
        flat = {"SM_RETRIEVED": retrieved.reshape(len(days), -1).T}
        self.write(
            "footprints.nc", netcdf.points(flat, "footprint", lat.ravel(), lon.ravel(), days)
        )
        truth, soil_celsius = self.at_sites[:, period]
        values, flags = sites.observe(truth, soil_celsius, parameters, seed)
        table = {"SM": values.T, "qc": flags.T, "ST": soil_celsius.T}
        locations = self.sites
        file = netcdf.points(table, "site", locations.lat, locations.lon, days, locations.ids)
        self.write("sites.nc", file)
        day = spl3smp.fullest_day(retrieved)
        file = spl3smp.day_bytes(retrieved[day], window, days[day], target)
        self.write(spl3smp.name(days[day]), file)


def _chunks(first: int, stop: int, step: int) -> Iterator[slice]:
    for start in range(first, stop, step):
        yield slice(start, min(start + step, stop))
