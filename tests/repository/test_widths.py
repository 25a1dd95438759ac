"""The study of the widths of intervals: its score, and its fit of the factor."""

import numpy as np
import pytest
from scipy import integrate, stats
from studies import widths


@pytest.mark.parametrize(("error", "std"), [(0.0, 0.02), (0.05, 0.02), (-0.1, 0.07)])
def test_the_crps_is_the_integral_that_defines_it(error, std):
    of = stats.logistic(0.0, std * np.sqrt(3) / np.pi)
    below, _ = integrate.quad(lambda x: of.cdf(x) ** 2, -1.0, error, limit=200)
    above, _ = integrate.quad(lambda x: of.sf(x) ** 2, error, 1.0, limit=200)
    assert widths.crps(np.array(error), np.array(std)) == pytest.approx(below + above, rel=1e-5)


def test_a_fit_finds_the_property_that_widens_errors_at_sites_that_it_has_not_seen():
    generator = np.random.default_rng(0)
    known, fold = generator.standard_normal((60, 2)), np.arange(60) % 3
    truly = 0.02 * np.exp(0.5 * known[:, 0])
    error = generator.logistic(0.0, truly[:, None] / widths.LOGISTIC, (60, 300))
    error[5, :100] = np.nan
    factor = widths.fitted_factors(error, np.full((60, 300), 0.01), known, fold)
    assert np.corrcoef(np.log(factor), known[:, 0])[0, 1] > 0.95
    assert factor * 0.01 == pytest.approx(truly, rel=0.5)
    error[fold == 0] *= 100.0
    again = widths.fitted_factors(error, np.full((60, 300), 0.01), known, fold)
    assert (again[fold == 0] == factor[fold == 0]).all()
