"""Masked errors and the loss of one source, against loops over days."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.loss import LossConfig, laplace_nll, rmse, source_loss, window_anomaly


@pytest.fixture
def batch():
    """Prediction, observation with gaps (one place without any) and width, each (4, 5)."""
    rng = np.random.default_rng(2)
    prediction, observed = rng.normal(size=(2, 4, 5))
    observed[rng.random(observed.shape) < 0.3] = np.nan
    observed[2] = np.nan
    return prediction, observed, rng.uniform(0.1, 2, (4, 5))


def rmse_by_hand(rows):
    squares = [e**2 for row in rows for e, _ in row]
    return (sum(squares) / len(squares)) ** 0.5


def nll_by_hand(rows):
    terms = [abs(e) / b + np.log(2 * b) for row in rows for e, b in row]
    return sum(terms) / len(terms)


def pairs(prediction, observed, width):
    """Per place, (error, width) of each day with an observation."""
    return [
        [(p - o, b) for p, o, b in zip(*place, strict=True) if not np.isnan(o)]
        for place in zip(prediction, observed, width, strict=True)
    ]


def less_their_mean(rows):
    return [[(e - sum(d for d, _ in row) / len(row), b) for e, b in row] for row in rows]


def config(**changes):
    return LossConfig(**{"insitu_weight": 0.5, "anomaly": False, "likelihood": "none"} | changes)


@pytest.mark.parametrize("with_anomaly", [False, True])
@pytest.mark.parametrize("likelihood", [False, True])
def test_source_loss(batch, with_anomaly, likelihood):
    rows = pairs(*batch)
    judge = nll_by_hand if likelihood else rmse_by_hand
    expected = judge(rows)
    if with_anomaly:
        expected = (expected + judge(less_their_mean(rows))) / 2
    prediction, observed, width = (torch.from_numpy(a) for a in batch)
    actual = source_loss(
        prediction, observed, width if likelihood else None, config(anomaly=with_anomaly)
    )
    assert actual.item() == pytest.approx(expected, rel=1e-6)


def test_errors_are_pooled_over_places_not_averaged():
    error = torch.tensor([[1.0, 1.0, 1.0], [5.0, 0.0, 0.0]])
    valid = torch.tensor([[True, True, True], [True, False, False]])
    assert rmse(error, valid).item() == pytest.approx((28 / 4) ** 0.5)
    expected = (3 / 2 + 5 / 2) / 4 + np.log(4)
    nll = laplace_nll(error, torch.full_like(error, 2.0), valid)
    assert nll.item() == pytest.approx(expected)


def test_anomaly_leaves_out_each_places_own_mean():
    error = torch.tensor([[1.0, 2.0, 6.0], [4.0, 4.0, 9.0]])
    valid = torch.tensor([[True, True, False], [True, True, True]])
    actual = window_anomaly(error, valid)
    assert actual[valid].tolist() == pytest.approx([-0.5, 0.5, 4 - 17 / 3, 4 - 17 / 3, 9 - 17 / 3])


def test_anomaly_loss_ignores_a_places_level(batch):
    prediction, observed, _ = (torch.from_numpy(a) for a in batch)
    valid = torch.isfinite(observed)
    shifted = prediction + torch.tensor([0.5, -2.0, 7.0, 3.0])[:, None]
    error = torch.where(valid, prediction - observed, 0.0)
    moved = torch.where(valid, shifted - observed, 0.0)
    assert rmse(window_anomaly(moved, valid), valid).item() == pytest.approx(
        rmse(window_anomaly(error, valid), valid).item()
    )


@pytest.mark.parametrize("with_anomaly", [False, True])
@pytest.mark.parametrize("likelihood", [False, True])
def test_a_batch_without_a_target_contributes_nothing(with_anomaly, likelihood):
    prediction = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    width = torch.full((3, 4), 0.7, requires_grad=True)
    observed = torch.full((3, 4), torch.nan)
    loss = source_loss(
        prediction, observed, width if likelihood else None, config(anomaly=with_anomaly)
    )
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert (prediction.grad == 0).all()
    assert not likelihood or (width.grad == 0).all()


def test_the_gradient_is_finite_without_error():
    prediction = torch.zeros(2, 3, requires_grad=True)
    source_loss(prediction, torch.zeros(2, 3), None, config(anomaly=True)).backward()
    assert torch.isfinite(prediction.grad).all()


@pytest.mark.parametrize("likelihood", [False, True])
def test_gaps_have_no_gradient_whatever_is_predicted_there(batch, likelihood):
    _, observed, width = (torch.from_numpy(a) for a in batch)
    prediction = torch.from_numpy(batch[0].copy())
    prediction[2, 1] = torch.nan  # a footprint without a cell, never observed
    prediction.requires_grad_()
    source_loss(
        prediction, observed, width if likelihood else None, config(anomaly=True)
    ).backward()
    valid = torch.isfinite(observed)
    assert (prediction.grad[~valid] == 0).all()
    assert torch.isfinite(prediction.grad[valid]).all()
    assert (prediction.grad[valid] != 0).any()
