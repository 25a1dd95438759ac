"""The true land of a planet: climate, terrain, vegetation, soil and its hydraulic parameters.

Observed attributes of the planet: true ones with errors, and quantities derived from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr

from pipeline.planet.random_fields import (
    FieldGrid,
    PlanetParameters,
    RandomFields,
    random_stream,
    two_scale_fields,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.grid.ease import FloatArray, Window


# Free parameters. Climate and terrain change from a dry, high west to a wet, low east, with a
# smooth random variation around this trend.
_CLIMATE_KM, _TREND_SHARE = 150.0, 0.9
_BASIN_KM = 4000.0
_ELEVATION_M = (1350.0, 350.0, 120.0)  # west, east, sd of hills
_NDVI = (0.18, 0.60, 0.05)  # dry, wet, sd
_NDVI_SEASONAL = 0.35

FIELD_CAPACITY_MM, WILTING_POINT_MM = (
    3_300.0,
    150_000.0,
)  # suction at field capacity and wilting point

_WARMEST_DAY, _GREENEST_DAY = 201.0, 213.0


@dataclass(frozen=True)
class Soil:
    """True hydraulic parameters of the soil, (y, x) each; no observation shows them."""

    porosity: FloatArray  # m3 m-3
    suction_mm: FloatArray  # at saturation, positive
    exponent: FloatArray  # b of Clapp and Hornberger (1978)
    conductivity_mm_day: FloatArray  # at saturation
    exchange_days: FloatArray  # time scale of the exchange between the layers

    def moisture_at(self, suction_mm: float) -> FloatArray:
        """Return the (y, x) moisture in m3 m-3 at a suction in mm (Clapp and Hornberger 1978)."""
        wetness = (np.maximum(suction_mm, self.suction_mm) / self.suction_mm) ** (
            -1 / self.exponent
        )
        return np.asarray(self.porosity * wetness)


@dataclass(frozen=True)
class Land:
    """The true surface of a planet, (y, x) each; lat is (y, 1) in degrees."""

    lat: FloatArray
    probability_index: FloatArray  # how often it rains, from 0 (dry) to 1 (wet)
    amount_index: FloatArray  # how much it rains on wet days, from 0 (dry) to 1 (wet)
    elevation_m: FloatArray
    ndvi: FloatArray  # annual mean
    sand_percent: FloatArray
    clay_percent: FloatArray
    bulk_density_g_cm3: FloatArray
    soil: Soil
    ocean: NDArray[np.bool_]

    @property
    def albedo(self) -> FloatArray:
        """Return the (y, x) albedo: higher for sand and for little vegetation (free)."""
        return np.asarray(0.27 + 0.0005 * self.sand_percent - 0.2 * self.ndvi)


def simulate_land(
    window: Window, parameters: PlanetParameters, seed: int, ocean_share: float = 0.0
) -> Land:
    """Simulate the land of a window.

    Random streams: `climate`, `terrain`, `vegetation`, `soil`, `ocean`. The ocean covers the cells
    with the lowest values of its stream; weather and soil water are simulated there too.

    Args:
      window: window of the grid.
      parameters: parameters of the planet.
      seed: seed of the planet.
      ocean_share: share of cells in the ocean.
    """
    area = FieldGrid.from_positions(window, window.cell_y, window.cell_x)
    probability, amount = _climate_indexes(area, seed)
    hills = two_scale_fields(area, random_stream(seed, "terrain"), 1, (200.0, 25.0), 0.7)[0]
    east = (area.x_km / area.width_km)[None, :]
    west_m, east_m, hills_m = _ELEVATION_M
    elevation = np.maximum(west_m + (east_m - west_m) * east + hills_m * hills, 0.0)
    green = two_scale_fields(area, random_stream(seed, "vegetation"), 1, (100.0, 15.0), 0.6)[0]
    dry, wet, ndvi_sd = _NDVI
    ndvi = np.clip(dry + (wet - dry) * probability + ndvi_sd * green, 0.05, 0.85)
    draws = two_scale_fields(
        area, random_stream(seed, "soil"), 7, parameters.soil_lengths_km, parameters.soil_long_share
    )
    sand, clay = _texture(draws[0], draws[1], parameters)
    density = 1.45 + 0.002 * (sand - 44) + parameters.bulk_density_sd_g_cm3 * draws[2]
    return Land(
        lat=window.cell_lat[:, None],
        probability_index=probability,
        amount_index=amount,
        elevation_m=elevation,
        ndvi=ndvi,
        sand_percent=sand,
        clay_percent=clay,
        bulk_density_g_cm3=np.clip(density, 0.9, 1.9),
        soil=_soil_parameters(sand, clay, draws[3:], parameters),
        ocean=_ocean_mask(area, seed, ocean_share),
    )


def hydraulic_parameters(
    sand_percent: FloatArray, clay_percent: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return hydraulic parameters for soil texture.

    These are the univariate regressions of Cosby et al. (1984), in the form of the Community Land
    Model.

    Args:
      sand_percent: sand, percent, in any shape.
      clay_percent: clay, percent, in the same shape.

    Returns:
      porosity in m3 m-3, suction at saturation in mm, exponent b, conductivity at saturation in mm
        a day.
    """
    porosity = 0.489 - 0.00126 * sand_percent
    suction = 10 * 10 ** (1.88 - 0.0131 * sand_percent)
    exponent = 2.91 + 0.159 * clay_percent
    conductivity = 86400 * 0.0070556 * 10 ** (-0.884 + 0.0153 * sand_percent)
    return porosity, suction, exponent, conductivity


def available_water_percent(sand_percent: FloatArray, clay_percent: FloatArray) -> FloatArray:
    """Return the available water capacity for soil texture, percent.

    It is the moisture at field capacity (suction 3.3 m) minus that at wilting point (150 m).
    """
    porosity, suction, exponent, _ = hydraulic_parameters(sand_percent, clay_percent)
    suctions = np.stack([np.maximum(mm, suction) for mm in (FIELD_CAPACITY_MM, WILTING_POINT_MM)])
    wet, dry = (suctions / suction) ** (-1 / exponent)
    return np.asarray(100 * porosity * (wet - dry))


def seasonal_cycle(
    days: NDArray[np.datetime64], lat: FloatArray, peak_day: float = _WARMEST_DAY
) -> FloatArray:
    """Return a seasonal cycle from -1 to 1 with a maximum on a given day of the year.

    The cycle is shifted by half a year in the southern hemisphere.

    Args:
      days: (day,) days.
      lat: (y, 1) latitudes in degrees.
      peak_day: day of the year of the maximum in the northern hemisphere.

    Returns:
      (day, y, 1) values.
    """
    day_of_year = (days - days.astype("datetime64[Y]")).astype("timedelta64[D]").astype(float)
    wave = np.cos(2 * np.pi * (day_of_year + 1 - peak_day) / 365.25)
    return np.asarray(wave[:, None, None] * np.where(lat >= 0, 1.0, -1.0))


def daily_ndvi(
    days: NDArray[np.datetime64], lat: FloatArray, mean: FloatArray
) -> NDArray[np.float64]:
    """Return the NDVI on given days.

    Args:
      days: (day,) days.
      lat: (y, 1) latitudes in degrees.
      mean: (y, x) annual means of NDVI.

    Returns:
      (day, y, x) NDVI.
    """
    return np.asarray(mean * (1 + _NDVI_SEASONAL * seasonal_cycle(days, lat, _GREENEST_DAY)))


def _climate_indexes(area: FieldGrid, seed: int) -> tuple[FloatArray, FloatArray]:
    """Return two (y, x) indexes, roughly uniform from 0 to 1 over the window, drier in the west."""
    fields = RandomFields(area, _CLIMATE_KM).draw(random_stream(seed, "climate"), 2).astype(float)
    fields -= fields.mean((1, 2), keepdims=True)  # gives all planets the same range of climates
    trend = np.sqrt(3) * (2 * area.x_km / area.width_km - 1)[None, :]
    index = ndtr(np.sqrt(_TREND_SHARE) * trend + np.sqrt(1 - _TREND_SHARE) * fields)
    return index[0], index[1]


def _ocean_mask(area: FieldGrid, seed: int, share: float) -> NDArray[np.bool_]:
    """Return the (y, x) mask of the ocean: wide basins that may contain whole tiles of cells."""
    if share == 0:
        return np.zeros((len(area.y_km), len(area.x_km)), bool)
    height = RandomFields(area, _BASIN_KM).draw(random_stream(seed, "ocean"), 1)[0]
    return np.asarray(height < np.quantile(height, share))


def _texture(
    first: FloatArray, second: FloatArray, parameters: PlanetParameters
) -> tuple[FloatArray, FloatArray]:
    """Return sand and clay in percent; they have a correlation of about -0.6."""
    sand = np.clip(parameters.sand_mean_percent + parameters.sand_sd_percent * first, 4, 92)
    clayey = -0.6 * first + 0.8 * second
    clay = np.clip(parameters.clay_mean_percent + parameters.clay_sd_percent * clayey, 3, 60)
    return sand, np.minimum(clay, 97 - sand)


def _soil_parameters(
    sand: FloatArray, clay: FloatArray, hidden: FloatArray, parameters: PlanetParameters
) -> Soil:
    """Return soil parameters from texture, with variations (4, y, x) that no attribute explains."""
    porosity, suction, exponent, conductivity = hydraulic_parameters(sand, clay)
    factor = np.exp(parameters.hidden_log_sd * hidden)
    return Soil(
        porosity=np.clip(porosity + parameters.hidden_porosity * hidden[3], 0.3, 0.6),
        suction_mm=suction * factor[0],
        exponent=exponent,
        conductivity_mm_day=conductivity * factor[1],
        exchange_days=parameters.exchange_days * factor[2],
    )


AttributeFields = dict[str, "FloatArray"]


def observe_attributes(
    window: Window, land: Land, parameters: PlanetParameters, seed: int
) -> AttributeFields:
    """Return the observed attributes under the provider's names.

    Errors are drawn from the random stream `attribute_error`.

    Args:
      window: window of the grid.
      land: the true land.
      parameters: parameters of the planet.
      seed: seed of the planet.

    Returns:
      (y, x) values per attribute, NaN in the ocean.
    """
    area = FieldGrid.from_positions(window, window.cell_y, window.cell_x)
    rng = random_stream(seed, "attribute_error")
    error = two_scale_fields(area, rng, 4, parameters.soil_lengths_km, parameters.soil_long_share)
    sand = np.clip(land.sand_percent + parameters.sand_error_percent * error[0], 1, 96)
    clay = np.clip(land.clay_percent + parameters.clay_error_percent * error[1], 1, 70)
    clay = np.minimum(clay, 99 - sand)
    density = land.bulk_density_g_cm3 + parameters.bulk_density_error_g_cm3 * error[2]
    ndvi = np.clip(land.ndvi + parameters.ndvi_error * error[3], 0.02, 0.9)
    attributes = {
        "SAND": sand,
        "SILT": 100 - sand - clay,
        "CLAY": clay,
        "BULK": np.clip(density, 0.8, 2.0),
        "AWC": available_water_percent(sand, clay),
        "NDVI": ndvi,
        "ELEV": land.elevation_m,
        "ALBEDO": land.albedo,
        "LANDCOVER": _land_cover(ndvi),
    }
    return {name: np.where(land.ocean, np.nan, values) for name, values in attributes.items()}


def _land_cover(ndvi: FloatArray) -> FloatArray:
    """Return the (y, x) land cover class of the IGBP for NDVI.

    From low to high NDVI: barren, open shrubland, grassland, cropland, mixed forest.
    """
    classes = np.array([16, 7, 10, 12, 5], float)
    return np.asarray(classes[np.digitize(ndvi, (0.12, 0.25, 0.42, 0.62))])
