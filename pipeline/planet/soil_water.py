"""The true soil water: a column of two layers, 50 mm over 950 mm, under snow, in daily steps.

On each day, precipitation falls as rain or snow, and snow melts by degree-days. Part of the water
that reaches the soil runs off, the more the fuller the lower layer is; the rest fills the upper
layer. Both layers drain with the conductivity of Brooks and Corey (1964). Capillarity brings the
wetness of the two layers together within some days. Evaporation is that of Priestley and Taylor
(1972), limited by moisture. Every step moves water from one store to another, so that the water
balance closes to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from model.humidity import saturation_slope
from pipeline.planet.land import FIELD_CAPACITY_MM, WILTING_POINT_MM, Land, daily_ndvi
from pipeline.planet.weather import FREEZING_K, STEFAN_BOLTZMANN, Weather

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.grid.ease import FloatArray
    from pipeline.planet.random_fields import Field


TOP_MM, ROOT_MM = 50.0, 950.0
_MELT_MM_PER_K = 3.0
_PRIESTLEY_TAYLOR = 1.26

# Free parameters, tuned to the e-folding time and the spread of SCAN:
_RUNOFF_POWER = 4.0

_RESIDUAL_FRACTION = (
    0.35  # residual moisture of the upper layer, as a fraction of the wilting point
)

_TOP_ROOT_SHARE = 0.25  # share of transpiration that comes from the upper layer
_SOIL_HEAT_DAYS = 5.0
_FROZEN_FACTOR = 0.1  # factor on infiltration, exchange and evaporation in frozen soil


@dataclass(frozen=True)
class EvaporativeDemand:
    """Evaporative demand of the atmosphere, (day, y, x) float32 each."""

    bare_mm: Field  # evaporation from wet bare soil, mm a day
    plants_mm: Field  # transpiration of plants with unlimited water, mm a day


def evaporative_demand(
    weather: Weather, land: Land, days: NDArray[np.datetime64]
) -> EvaporativeDemand:
    """Return potential evaporation (Priestley and Taylor 1972), split by vegetation cover.

    Args:
      weather: the true weather.
      land: the true land.
      days: (day,) the days of the weather.
    """
    temperature = weather.air_temperature
    celsius = np.maximum(temperature - np.float32(FREEZING_K), np.float32(-20))
    absorbed = (1 - land.albedo).astype(np.float32) * weather.shortwave
    emitted = np.float32(0.97 * STEFAN_BOLTZMANN) * temperature**4
    net = np.maximum(absorbed + np.float32(0.97) * weather.longwave - emitted, np.float32(0))
    slope = saturation_slope(celsius)
    psychrometric = np.float32(0.665e-6) * weather.surface_pressure
    millimetres = np.float32(86_400 / 2.45e6 * _PRIESTLEY_TAYLOR) * net
    potential = millimetres * slope / (slope + psychrometric)
    cover = np.clip((daily_ndvi(days, land.lat, land.ndvi) - 0.05) / 0.8, 0, 1).astype(np.float32)
    return EvaporativeDemand((1 - cover) * potential, cover * potential)


class SoilWater:
    """Water stores and fluxes of every cell, (y, x) float64 in mm; fluxes are sums since the start.

    Attributes:
      top, root: water of the upper and the lower layer.
      snow: water of the snow.
      soil_celsius: soil temperature, degC.
      precipitation, evaporation, runoff, drainage: sums of the fluxes.
    """

    def __init__(self, land: Land, first_day_temperature_k: FloatArray) -> None:
        """Start between wilting point and field capacity, by climate, and without snow."""
        soil = self.soil = land.soil
        self.wilting = soil.moisture_at(WILTING_POINT_MM)
        self.field = soil.moisture_at(FIELD_CAPACITY_MM)
        wetness = 0.2 + 0.6 * land.probability_index
        moisture = self.wilting + wetness * (self.field - self.wilting)
        self.top, self.root = TOP_MM * moisture, ROOT_MM * moisture
        self.snow = np.zeros_like(moisture)
        self.soil_celsius = np.asarray(first_day_temperature_k, float) - FREEZING_K
        self.precipitation, self.evaporation, self.runoff, self.drainage = np.zeros(
            (4, *moisture.shape)
        )
        self.full_top, self.full_root = TOP_MM * soil.porosity, ROOT_MM * soil.porosity
        self.power = 2 * soil.exponent + 2  # Brooks and Corey's exponent of conductivity minus one
        self.rate_top = self.power * soil.conductivity_mm_day / self.full_top
        self.rate_root = self.power * soil.conductivity_mm_day / self.full_root
        self.closing = 1 - np.exp(-1 / soil.exchange_days)
        self.first_storage = self.storage

    @property
    def storage(self) -> FloatArray:
        """Return the (y, x) water of all stores, mm."""
        return np.asarray(self.snow + self.top + self.root)

    @property
    def residual(self) -> FloatArray:
        """Return the (y, x) error of the water balance since the start, mm."""
        out = self.evaporation + self.runoff + self.drainage
        return np.asarray(self.first_storage + self.precipitation - out - self.storage)

    @property
    def moisture(self) -> FloatArray:
        """Return the (y, x) volumetric moisture of the upper 50 mm, m3 m-3."""
        return np.asarray(self.top / TOP_MM)

    def advance(
        self, rain_mm: Field, temperature_k: Field, bare_mm: Field, plants_mm: Field
    ) -> None:
        """Advance all stores by one day.

        Args:
          rain_mm: (y, x) precipitation of the day, mm.
          temperature_k: (y, x) air temperature, K.
          bare_mm: (y, x) potential evaporation of bare soil, mm.
          plants_mm: (y, x) potential transpiration, mm.
        """
        celsius = temperature_k.astype(float) - FREEZING_K
        heat = 1 / (_SOIL_HEAT_DAYS * np.where(self.snow > 5, 3.0, 1.0))  # snow insulates
        self.soil_celsius += heat * (celsius - self.soil_celsius)
        thawed = np.where(self.soil_celsius < 0, _FROZEN_FACTOR, 1.0)
        self._infiltrate(self._liquid(rain_mm.astype(float), celsius), thawed)
        self._drain()
        self._exchange(thawed)
        self._evaporate(bare_mm.astype(float) * thawed, plants_mm.astype(float) * thawed)

    def _liquid(self, rain: FloatArray, celsius: FloatArray) -> FloatArray:
        self.precipitation += rain
        falls = np.where(celsius < 0, rain, 0.0)
        melts = np.minimum(self.snow + falls, np.maximum(_MELT_MM_PER_K * celsius, 0.0))
        self.snow += falls - melts
        return np.asarray(rain - falls + melts)

    def _infiltrate(self, water: FloatArray, thawed: FloatArray) -> None:
        wetness = np.minimum(self.root / self.full_root, 1.0)
        enters = water * (1 - wetness**_RUNOFF_POWER) * thawed
        self.runoff += water - enters
        self.top += enters
        spill = np.maximum(self.top - self.full_top, 0.0)
        self.top -= spill
        self._fill_root(spill)

    def _fill_root(self, water: FloatArray) -> None:
        self.root += water
        spill = np.maximum(self.root - self.full_root, 0.0)
        self.root -= spill
        self.runoff += spill

    def _drain(self) -> None:
        """Drain both layers over a day.

        This is the exact solution of dW/dt = -Ks (W / full)^(2b + 3) without other fluxes.
        """
        down = self.top - _drain_one_day(self.top, self.full_top, self.power, self.rate_top)
        self.top -= down
        self._fill_root(down)
        out = self.root - _drain_one_day(self.root, self.full_root, self.power, self.rate_root)
        self.root -= out
        self.drainage += out

    def _exchange(self, thawed: FloatArray) -> None:
        """Move the wetness of the upper layer towards that of the lower layer.

        At equal wetness the two layers have equal suction.
        """
        gap = self.root / self.full_root - self.top / self.full_top
        up = self.closing * thawed * gap * self.full_top
        self.top += up
        self.root -= up

    def _evaporate(self, bare: FloatArray, plants: FloatArray) -> None:
        residual = _RESIDUAL_FRACTION * TOP_MM * self.wilting
        dry_top = np.clip((self.top - residual) / (TOP_MM * self.field - residual), 0.0, 1.0)
        wilted = ROOT_MM * self.wilting
        dry_root = np.clip((self.root - wilted) / (ROOT_MM * self.field - wilted), 0.0, 1.0)
        from_top = np.minimum(
            (bare + _TOP_ROOT_SHARE * plants) * dry_top, np.maximum(self.top - residual, 0.0)
        )
        from_root = np.minimum(
            (1 - _TOP_ROOT_SHARE) * plants * dry_root, np.maximum(self.root - wilted, 0.0)
        )
        self.top -= from_top
        self.root -= from_root
        self.evaporation += from_top + from_root


def _drain_one_day(
    water: FloatArray, full: FloatArray, power: FloatArray, rate: FloatArray
) -> FloatArray:
    """Return the (y, x) water in mm left after a day of drainage; `rate` is power x Ks / full."""
    return np.asarray(water * (1 + rate * (water / full) ** power) ** (-1 / power))
