"""Specific humidity against the definition: mass of vapour over mass of moist air."""

from __future__ import annotations

import numpy as np
import pytest

from model.humidity import saturation_slope, specific_humidity
from pipeline.sources.shared.units import FORMULAS, GAS_RATIO


def test_humidity_is_the_share_of_vapour_in_the_mass_of_air():
    vapour, pressure = np.array([0.0, 500.0, 2338.0]), np.array([1e5, 9e4, 101_325.0])
    for ratio in (0.622, GAS_RATIO):
        of_vapour, of_dry_air = ratio * vapour, pressure - vapour  # ideal gases: m ~ p / R
        np.testing.assert_allclose(
            specific_humidity(vapour, pressure, ratio),
            of_vapour / (of_vapour + of_dry_air),
            rtol=1e-14,
        )
    assert specific_humidity(2338.0, 101_325.0) == pytest.approx(0.01448, abs=1e-5)


def test_float32_stays_float32():
    made = specific_humidity(np.float32([500.0]), np.float32([9e4]))
    expected = np.float32(0.622) * np.float32(500) / (np.float32(9e4) - np.float32(0.378) * 500)
    assert made.dtype == np.float32
    assert made[0] == expected


def test_the_rule_of_a_catalog_has_the_constants_of_the_ifs():
    made = FORMULAS["vapour_pressure"].compute(2338.0, 101_325.0)
    assert made == specific_humidity(2338.0, 101_325.0, 287.0597 / 461.5250)


def test_slope_is_that_of_the_saturation_vapour_pressure():
    def pressure(celsius):  # FAO 56, equation 11, kPa
        return 0.6108 * np.exp(17.27 * celsius / (celsius + 237.3))

    celsius, step = np.array([-20.0, 0.0, 25.0, 45.0]), 1e-4
    expected = (pressure(celsius + step) - pressure(celsius - step)) / (2 * step)
    np.testing.assert_allclose(saturation_slope(celsius), expected, rtol=1e-4)  # 4098 is rounded
    assert saturation_slope(25.0) == pytest.approx(0.189, abs=5e-4)  # FAO 56, annex 2, table 2.4
    assert saturation_slope(np.float32([25.0])).dtype == np.float32
