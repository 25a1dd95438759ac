"""Specific humidity against the definition: mass of vapour over mass of moist air."""

import numpy as np
import pytest

from model.humidity import specific_humidity
from pipeline.sources.grids.rules import GAS_RATIO, RULES


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
    made = RULES["vapour_pressure"].make(2338.0, 101_325.0)
    assert made == specific_humidity(2338.0, 101_325.0, 287.0597 / 461.5250)
