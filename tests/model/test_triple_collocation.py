"""Triple collocation against pytesmo and against records whose errors are known."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytesmo.metrics import tcol_metrics

from model import triple_collocation

EXACT = {"rtol": 1e-10, "atol": 1e-10}
FACTORS, ERRORS = (1.0, 0.7, 1.3), (0.04, 0.05, 0.02)


def records(n_places=20, n_times=400, missing=0.3, seed=0):
    """Site, satellite and model of one truth, (place, time) each."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0.25, 0.07, (n_places, n_times))
    made = [f * truth + rng.normal(0, e, truth.shape) for f, e in zip(FACTORS, ERRORS, strict=True)]
    for series in made:
        series[rng.random(series.shape) < missing] = np.nan
    return made


def pytesmos(series, place):
    held = np.stack([s[place] for s in series])
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return tcol_metrics(*held[:, np.isfinite(held).all(0)])


def assert_pytesmo_agrees(series):
    got = triple_collocation.collocate(*series)
    negative = np.array([reason.startswith("negative") for reason in got.reason], bool)
    for place in np.flatnonzero(negative | (got.reason == "")):
        snr, error, _ = pytesmos(series, place)
        defined = np.isfinite(error)
        assert defined.all() == (got.reason[place] == "")
        np.testing.assert_allclose(got.error_std[:, place], error, **EXACT)
        np.testing.assert_allclose(got.snr_db[defined, place], snr[defined], **EXACT)
        share = 1 / (1 + 10 ** (-snr[defined] / 10))  # of the truth in the variance
        np.testing.assert_allclose(got.correlation[defined, place] ** 2, share, rtol=1e-9)
    for values in got[1:4]:
        np.testing.assert_array_equal(np.isnan(values), np.isnan(got.error_std))
        np.testing.assert_array_equal(np.isnan(values).any(0), got.reason != "")
    return got


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_equals_pytesmo(missing):
    reasons = set(assert_pytesmo_agrees(records(missing=missing)).reason)
    assert reasons == {"", "negative error variance, model"}


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10**6), n_times=st.integers(0, 12))
def test_equals_pytesmo_on_few_days_where_both_are_defined(seed, n_times):
    assert_pytesmo_agrees(records(3, n_times, 0.2, seed))


def test_finds_the_errors_that_were_made():
    got = triple_collocation.collocate(*records(8, 20000, 0.1))
    on_site = np.array(ERRORS) / FACTORS
    np.testing.assert_allclose(np.median(got.error_std, 1), on_site, rtol=0.05)
    noise = np.array(ERRORS) / (np.array(FACTORS) * 0.07)
    np.testing.assert_allclose(np.median(got.correlation, 1), 1 / np.sqrt(1 + noise**2), atol=5e-3)
    np.testing.assert_allclose(np.median(got.snr_db, 1), -20 * np.log10(noise), atol=0.4)


def test_what_is_not_defined_has_a_reason():
    rng = np.random.default_rng(1)
    truth = rng.normal(0, 0.07, 200)
    site, satellite, model = (truth + rng.normal(0, 0.03, 200) for _ in range(3))
    few = np.where(np.arange(200) < 9, site, np.nan)
    drifting = np.full(200, 0.1) + np.spacing(0.1) * (np.arange(200) % 3)
    shared = rng.normal(0, 0.1, 200)
    rows = {
        "": (site, satellite, model),
        "fewer than 10 common days": (few, satellite, model),
        "a constant series": (site, drifting, model),
        "covariances not all positive": (site, -satellite, model),
        "negative error variance, model": (truth, truth + shared, truth + 0.5 * shared),
    }
    got = triple_collocation.collocate(*np.stack(list(rows.values()), axis=1), fewest=10)
    assert list(got.reason) == list(rows)
    np.testing.assert_array_equal(
        np.isfinite(got.snr_db[0]), [r[:8] in ("", "negative") for r in rows]
    )
    np.testing.assert_array_equal(np.isfinite(got.snr_db[2]), [r == "" for r in rows])
    assert got.n[1] == 9
    nothing = triple_collocation.collocate(*np.full((3, 2, 5), np.nan))
    assert (nothing.n == 0).all()
    assert set(nothing.reason) == {"fewer than 3 common days"}
