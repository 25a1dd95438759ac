"""Parameters of the planets, fixed before methods are compared, and their random streams.

| what | fields | source |
|---|---|---|
| soils: 200 and 15 km, share .6, sd 19 and 11 % | `soil_*` to `bulk_*` | free |
| hydraulic parameters from texture | functions of the land | Cosby et al. (1984) |
| hidden: log-sd .35, porosity .03 | `hidden_*` | free; sets the lowest possible RMSE |
| rain | `storm_km` to `rain_seasonal_*` | fitted to NLDAS: wet days, their mean, persistence |
| exchange of two layers, 4 days | `exchange_days` | free; e-folding of SCAN, 29 and 4 days |
| errors of forcing | `forcing_error_km` to `humidity_error` | free; set the level of R |
| errors of attributes | `sand_error_*` to `ndvi_error` | plausible |
| satellite noise .035 | `noise_*` | mission requirement: .04 m3 m-3 |
| fast drying .6 in 6 days | `fast_drying*` | Shellito et al. (2016): twice as fast as probes |
| satellite bias, seasons, amplitude | `bias_*`, `seasonal_*`, `amplitude_*` | free |
| swaths, loss, frost, dense plants | `observed_*` to `dense_ndvi` | SMAP, rounded |
| sites: .05, 15 %, .01; 5 % faulty | `site_*` | free; satellite against SCAN: .645 / .0875 / .058 |

Parameters marked as free are not taken from a publication. `easy` has no fast drying and no
seasonal error, and smaller site offsets and rain errors. `biased` has twice the satellite bias.
`load` is `hard` with 30 days of spin-up, for a window of any size. Lengths are distances in km at
which a correlation has fallen to 1/e.

The following were tuned on seeds 0 to 4 of the demo's window to reach the statistics in
tests/test_osse.py: the two ranges of rain (any amount, from the driest place to the wettest; a
prototype had .13-.36 and 4.5-9 mm, which left out the tails of NLDAS), its seasonal amplitude, the
persistence of rain cells, the share of the trend in the climate, and the free parameters of the
soil water (the residual moisture of the upper layer and its share of transpiration).

Gaussian random fields with unit variance and correlation exp(-(d / length)^2).

The covariance is the product of one in y and one in x, so a field is Y Z X^T with fixed Fourier
waves Y (y, wave) and X (x, wave), and standard normal Z (wave, wave). This takes far less work than
a two-dimensional FFT of a padded grid, and works on any rectilinear grid. The waves have a period
three correlation lengths longer than the window, so that opposite edges are uncorrelated (1e-4).
Positions are in km from the window's upper left corner: a finer grid samples the same field.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pipeline.experiment.config import ErrorName, PlanetConfig
    from pipeline.grid.ease import FloatArray, Window


@dataclass(frozen=True)
class PlanetParameters:
    """All parameters of a planet, by default those of `hard`.

    Units are in the names; fractions and NDVI have none.
    """

    spinup_days: int = 365
    # Land. Pairs are a long and a short length.
    soil_lengths_km: tuple[float, float] = (200.0, 15.0)
    soil_long_share: float = 0.6
    sand_mean_percent: float = 44.0
    sand_sd_percent: float = 19.0
    clay_mean_percent: float = 24.0
    clay_sd_percent: float = 11.0
    bulk_density_sd_g_cm3: float = 0.12
    hidden_log_sd: float = 0.35
    hidden_porosity: float = 0.03
    # Rain. Pairs are values at the dry and at the wet end of the climate.
    storm_km: float = 150.0
    rain_cell_km: float = 25.0
    rain_cell_share: float = 0.35
    rain_persistence: float = 0.75
    rain_cell_persistence: float = 0.15
    rain_weibull_shape: float = 0.75
    wet_probability: tuple[float, float] = (0.15, 0.51)
    wet_day_mean_mm: tuple[float, float] = (2.4, 11.0)
    rain_seasonal_amplitude: float = 0.30
    exchange_days: float = 4.0
    # Errors of the observed forcing.
    forcing_error_km: float = 80.0
    rain_log_error: float = 0.6
    rain_missed: float = 0.06
    rain_false: float = 0.02
    temperature_error_k: float = 1.0
    shortwave_error: float = 0.08
    longwave_error_w_m2: float = 8.0
    humidity_error: float = 0.06
    # Errors of the observed attributes.
    sand_error_percent: float = 8.0
    clay_error_percent: float = 5.0
    bulk_density_error_g_cm3: float = 0.08
    ndvi_error: float = 0.03
    # Satellite.
    bias_mean_m3_m3: float = -0.02
    bias_sd_m3_m3: float = 0.04
    bias_predictable_share: float = 0.5
    noise_m3_m3: float = 0.035
    noise_factor_bare_dense: tuple[float, float] = (0.75, 1.5)
    fast_drying: float = 0.6
    fast_drying_days: int = 6
    seasonal_m3_m3_per_half_ndvi: float = 0.02
    amplitude_error: float = 0.1
    observed_days_of_8: int = 4
    swath_footprints: int = 4
    lost_share: float = 0.03
    frozen_below_degc: float = 0.0
    dense_ndvi: float = 0.75
    retrieval_floor_m3_m3: float = 0.02
    # Sites.
    site_offset_m3_m3: float = 0.05
    site_scale: float = 0.15
    site_noise_m3_m3: float = 0.01
    site_missing_share: float = 0.08
    site_gap_days: float = 20.0
    site_faulty_share: float = 0.05
    site_stuck_days: int = 60
    site_spike_share: float = 0.02

    @property
    def retrieval_errs(self) -> bool:
        """Return whether retrievals differ from the truth at all."""
        errors = (
            self.bias_mean_m3_m3,
            self.bias_sd_m3_m3,
            self.noise_m3_m3,
            self.fast_drying,
            self.seasonal_m3_m3_per_half_ndvi,
            self.amplitude_error,
        )
        return any(errors)


HARD = PlanetParameters()

PLANETS: dict[str, PlanetParameters] = {
    "hard": HARD,
    "easy": replace(
        HARD,
        fast_drying=0.0,
        seasonal_m3_m3_per_half_ndvi=0.0,
        amplitude_error=0.0,
        site_offset_m3_m3=0.03,
        rain_log_error=0.3,
    ),
    "biased": replace(
        HARD,
        bias_mean_m3_m3=2 * HARD.bias_mean_m3_m3,
        bias_sd_m3_m3=2 * HARD.bias_sd_m3_m3,
    ),
    "load": replace(HARD, spinup_days=30),
}

# Values of the parameters of an ingredient that is switched off.
_SWITCHED_OFF: dict[ErrorName, dict[str, float]] = {
    "forcing_error": {
        "rain_log_error": 0.0,
        "rain_missed": 0.0,
        "rain_false": 0.0,
        "temperature_error_k": 0.0,
        "shortwave_error": 0.0,
        "longwave_error_w_m2": 0.0,
        "humidity_error": 0.0,
    },
    "attribute_error": {
        "sand_error_percent": 0.0,
        "clay_error_percent": 0.0,
        "bulk_density_error_g_cm3": 0.0,
        "ndvi_error": 0.0,
    },
    "satellite_bias": {"bias_mean_m3_m3": 0.0, "bias_sd_m3_m3": 0.0},
    "satellite_noise": {"noise_m3_m3": 0.0},
    "fast_drying": {"fast_drying": 0.0},
    "seasonal_error": {"seasonal_m3_m3_per_half_ndvi": 0.0, "amplitude_error": 0.0},
    "satellite_gaps": {
        "observed_days_of_8": 8,
        "lost_share": 0.0,
        "frozen_below_degc": -np.inf,
        "dense_ndvi": np.inf,
    },
    "site_error": {"site_offset_m3_m3": 0.0, "site_scale": 0.0, "site_noise_m3_m3": 0.0},
    "site_gaps": {"site_missing_share": 0.0},
    "site_faults": {"site_faulty_share": 0.0},
}


def planet_parameters(planet: PlanetConfig) -> PlanetParameters:
    """Return the parameters of a planet, with the ingredients in `omit_errors` switched off."""
    parameters = PLANETS[planet.kind]
    for ingredient in planet.omit_errors:
        parameters = replace(parameters, **_SWITCHED_OFF[ingredient])  # type: ignore[arg-type]
    if not parameters.retrieval_errs:
        # A perfect retrieval needs no lower limit.
        parameters = replace(parameters, retrieval_floor_m3_m3=-np.inf)
    return parameters


def random_stream(seed: int, name: str) -> np.random.Generator:
    """Return the random stream of one ingredient.

    Its draws depend on the seed and the name only, so that switching one ingredient off leaves all
    others unchanged.
    """
    return np.random.default_rng([seed, *name.encode()])


Field = NDArray[np.float32]
_PADDING_LENGTHS = 3.0
_MIN_VARIANCE_SHARE = 1e-4  # smallest variance of a wave, as a share of that of the longest wave


@dataclass(frozen=True)
class FieldGrid:
    """A rectilinear grid over a window.

    Attributes:
      y_km: (y,) distances of rows from the upper edge of the window, km.
      x_km: (x,) distances of columns from its left edge, km.
      height_km: height of the window, km.
      width_km: width of the window, km.
    """

    y_km: FloatArray
    x_km: FloatArray
    height_km: float
    width_km: float

    @classmethod
    def from_positions(cls, window: Window, y_m: FloatArray, x_m: FloatArray) -> FieldGrid:
        """Build the grid of projected rows (y,) and columns (x,), in metres, over a window."""
        left, bottom, right, top = window.bounds
        height, width = (top - bottom) / 1000, (right - left) / 1000
        return cls((top - y_m) / 1000, (x_m - left) / 1000, height, width)


class RandomFields:
    """Random fields with one correlation length on one grid."""

    def __init__(self, area: FieldGrid, length_km: float) -> None:
        """Compute the waves of both directions."""
        self.rows = _fourier_waves(area.y_km, area.height_km, length_km)
        self.cols = np.ascontiguousarray(_fourier_waves(area.x_km, area.width_km, length_km).T)

    def draw(self, rng: np.random.Generator, n: int) -> Field:
        """Draw the next n independent fields, (n, y, x)."""
        fields = np.empty((n, len(self.rows), self.cols.shape[1]), np.float32)
        for field in fields:  # one by one, as the waves of a large window outnumber its cells
            size = (self.rows.shape[1], self.cols.shape[0])
            field[:] = self.rows @ rng.standard_normal(size, dtype=np.float32) @ self.cols
        return fields


class PersistentField:
    """A field that changes from day to day as a first-order autoregression with unit variance."""

    def __init__(self, waves: RandomFields, rng: np.random.Generator, persistence: float) -> None:
        """Set up the field; `persistence` is the correlation of consecutive days."""
        self.waves, self.rng, self.persistence = waves, rng, np.float32(persistence)
        self.last: Field | None = None

    def days(self, n: int) -> Field:
        """Draw the next n days, (n, y, x)."""
        field = self.waves.draw(self.rng, n)
        innovation = np.sqrt(1 - self.persistence**2)
        for day in range(n):
            if self.last is not None:
                field[day] = self.persistence * self.last + innovation * field[day]
            self.last = field[day].copy()
        return field


def two_scale_fields(
    area: FieldGrid,
    rng: np.random.Generator,
    n: int,
    lengths_km: tuple[float, float],
    long_share: float,
) -> FloatArray:
    """Draw fields of unit variance with a long and a short correlation length.

    Args:
      area: the grid.
      rng: random generator.
      n: number of fields.
      lengths_km: the long and the short correlation length, km.
      long_share: share of the long length in the variance.

    Returns:
      (n, y, x) fields.
    """
    long, short = (RandomFields(area, length).draw(rng, n).astype(float) for length in lengths_km)
    return np.asarray(np.sqrt(long_share) * long + np.sqrt(1 - long_share) * short)


def _fourier_waves(position_km: FloatArray, extent_km: float, length_km: float) -> Field:
    """Return the (position, wave) values of a constant, cosines and sines.

    The squares of each row sum to one.
    """
    period = extent_km + _PADDING_LENGTHS * length_km
    n_waves = int(np.ceil(np.sqrt(-np.log(_MIN_VARIANCE_SHARE)) * period / (np.pi * length_km)))
    number = np.arange(n_waves + 1)
    power = np.exp(-((np.pi * number * length_km / period) ** 2))
    power[1:] *= 2
    amplitude = np.sqrt(power / power.sum())
    angle = 2 * np.pi * position_km[:, None] * number / period
    waves = np.hstack([amplitude * np.cos(angle), amplitude[1:] * np.sin(angle[:, 1:])])
    return waves.astype(np.float32)
