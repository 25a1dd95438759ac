"""Places walked block by block against the whole series at once."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from model import ensemble
from model.streaming import StatefulPredictor, warm_up


@pytest.fixture(autouse=True)
def one_thread():
    with tiny.one_thread():
        yield


def last_days(forcing, n_days):
    """The last days of the first year, repeated where it is shorter than they are."""
    year = forcing[:, : min(365, forcing.shape[1])]
    return year[:, np.arange(-n_days, 0) % year.shape[1]]


@pytest.mark.parametrize("linear_weight", [0.0, 0.3])
@pytest.mark.parametrize(("n_days", "edges"), [(3, [1]), (50, [7, 39]), (400, [32, 64, 365, 366])])
def test_a_walk_in_blocks_is_the_whole_series(n_days, edges, linear_weight):
    trained, where = tiny.trained(linear_weight=linear_weight), tiny.places(4, n_days)
    whole = ensemble.predict_series(trained, where)
    forcing = where.forcing.numpy()
    walk = StatefulPredictor(trained, where.static.numpy(), "cpu")
    assert not np.any(walk.state())
    year = forcing[:, :365]
    walk.warm_up(last_days(forcing, trained.lead_days), np.array_split(year, 3, axis=1))
    blocks = [walk.advance(block) for block in np.split(forcing, edges, axis=1)]
    for name in ("site", "satellite", "width"):
        series = np.concatenate([getattr(block, name) for block in blocks], 1)
        assert series.shape == (4, n_days)
        np.testing.assert_allclose(series, getattr(whole, name), rtol=1e-5, atol=1e-7)
    for name in ("site_level", "satellite_level"):
        np.testing.assert_allclose(getattr(blocks[-1], name), getattr(whole, name), rtol=1e-5)


def test_the_state_is_that_of_every_place(monkeypatch):
    trained, where = tiny.trained(), tiny.places(5, 30)
    forcing, before = where.forcing.numpy(), last_days(where.forcing.numpy(), 4)
    walks = []
    for places in (512, 2):
        monkeypatch.setattr("model.streaming.places_per_pass", lambda device, n=places: n)
        walk = StatefulPredictor(trained, where.static.numpy(), "cpu")
        walk.warm_up(before, [forcing])
        walks.append(walk)
    for one, other in zip(*(walk.state() for walk in walks), strict=True):
        assert one.shape == (5, tiny.NETWORK["hidden_size"])
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    assert np.abs(walks[0].state()[0]).max() > 0.01


def test_models_that_are_warmed_up_together_read_the_year_once():
    members, where = [tiny.trained(seed) for seed in (0, 1, 2)], tiny.places(4, 30)
    forcing, before = where.forcing.numpy(), last_days(where.forcing.numpy(), 4)
    alone, together = (
        [StatefulPredictor(member, where.static.numpy(), "cpu") for member in members]
        for _ in range(2)
    )
    for walk in alone:
        walk.warm_up(before, np.array_split(forcing, 3, axis=1))
    warm_up(together, before, iter(np.array_split(forcing, 3, axis=1)))  # can be read only once
    for one, other in zip(alone, together, strict=True):
        for mine, expected in zip(
            (*one.state(), one.levels), (*other.state(), other.levels), strict=True
        ):
            np.testing.assert_array_equal(mine, expected)
