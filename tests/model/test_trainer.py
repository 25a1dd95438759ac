"""Training: the loss of two sources, stopping and going on, what a seed decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from model import device, recurrence
from model.checkpoint import pack_safetensors, unpack_safetensors
from model.network import seeded_network
from model.recipe import ModelKey
from model.sampling import DROPOUT_STREAM, WEIGHT_STREAM, draw_batch, seeded_generator
from model.trainer import Trainer

JOB = ModelKey("multiscale", 1, 2)
W = 0.3


@pytest.fixture(autouse=True)
def one_thread():
    with tiny.one_thread():
        yield


def fitted(n_steps=None, job=JOB, data=None, **changes):
    recipe = tiny.recipe(**changes)
    fitting = Trainer(recipe, job, data or tiny.training_data(), recipe.train.updates)
    fitting.advance(fitting.updates if n_steps is None else n_steps)
    return fitting


def weights(fitting):
    return pack_safetensors(fitting.network.state_dict(), {})


def losses_by_hand(fitting):
    """Losses of the next update (satellite, in-situ), from the arithmetic of the method."""
    recipe, net = fitting.recipe, fitting.network
    batch = draw_batch(recipe, fitting.job, fitting.data, fitting.step)
    laplace = recipe.loss.likelihood == "laplace"
    masks = tiny.masks_by_hand(net, seeded_generator(fitting.job, fitting.step, DROPOUT_STREAM))
    out = tiny.forward_by_hand(net, batch.x, masks)[0][:, recipe.train.warmup_days :]
    cells, footprints = out, []
    for members in batch.members:
        n = int((members >= 0).sum())
        column = 1 if recipe.network.heads == "two" else 0
        footprints.append(sum(cells[:n, :, column]) / n)
        cells = cells[n:]
    width = np.log(1 + np.exp(cells[..., -1])) + 1e-3 if laplace else None
    satellite = loss_by_hand(np.array(footprints), batch.satellite, None, recipe)
    return satellite, loss_by_hand(cells[..., 0], batch.insitu, width, recipe)


def loss_by_hand(prediction, observed, width, recipe):
    error = prediction - observed.double().numpy()
    halves = [error]
    if recipe.loss.anomaly:
        halves.append(np.array([row - np.nanmean(row) for row in error]))
    if width is None:
        return np.mean([np.nanmean(e**2) ** 0.5 for e in halves])
    return np.mean([np.nanmean(np.abs(e) / width + np.log(2 * width)) for e in halves])


@pytest.mark.parametrize("operator", ["outputs", "inputs"])
@pytest.mark.parametrize(
    "method",
    [
        {"heads": "one", "anomaly": False, "likelihood": "none", "input_layer": True},
        {"heads": "one", "anomaly": True, "likelihood": "laplace"},
        {"heads": "two", "anomaly": True, "likelihood": "none"},
        {"heads": "two", "anomaly": True, "likelihood": "laplace"},
    ],
)
def test_losses_of_an_update_are_those_of_the_method(method, operator):
    fitting = fitted(0, **method, footprint_operator=operator)
    for step in (1, 2):
        satellite, insitu = losses_by_hand(fitting)
        fitting.advance(1)
        told = fitting.history[-1]
        assert told["step"] == step
        assert told["loss_satellite"] == pytest.approx(satellite, rel=1e-4)
        assert told["loss_insitu"] == pytest.approx(insitu, rel=1e-4)


@pytest.mark.parametrize("w", [0.0, W, 1.0])
def test_the_total_loss_is_weighted_between_the_sources(w):
    def gradient(arm):
        changes = {"likelihood": "none", "gradient_clip": None, "insitu_weight": w}
        net = fitted(1, JOB._replace(arm=arm), **changes).network
        return torch.cat([p.grad.flatten() for p in net.parameters()])

    expected = (1 - w) * gradient("satellite") + w * gradient("insitu")
    torch.testing.assert_close(gradient("multiscale"), expected, rtol=1e-4, atol=1e-6)


def test_an_arm_without_a_source_has_no_loss_of_it():
    satellite, insitu = (fitted(3, JOB._replace(arm=arm)) for arm in ("satellite", "insitu"))
    assert satellite.history[-1]["loss_insitu"] == insitu.history[-1]["loss_satellite"] == 0
    assert (satellite.network.likelihood, insitu.network.likelihood) == (False, True)


def test_the_gradient_is_clipped():
    net = fitted(1, gradient_clip=0.01).network
    norm = sum((p.grad**2).sum() for p in net.parameters()) ** 0.5
    assert float(norm) == pytest.approx(0.01, rel=1e-3)


def test_adadelta_has_the_published_decay():
    settings = {"optimiser": "adadelta", "learning_rate": 0.7, "weight_decay": 0.0}
    before, after = (fitted(n, **settings).network.parameters() for n in (0, 1))
    for old, new in zip(before, after, strict=True):
        move = new.grad * (1e-6 / (0.1 * new.grad**2 + 1e-6)) ** 0.5
        torch.testing.assert_close(new, old - 0.7 * move)


@pytest.mark.parametrize("optimiser", ["adamw", "adadelta"])
@pytest.mark.parametrize(("k", "updates"), [(0, 7), (3, 7), (7, 7), (55, 130)])
def test_stopping_changes_nothing(optimiser, k, updates):
    changes = {"optimiser": optimiser, "updates": updates}
    undisturbed, stopped = fitted(**changes), fitted(k, **changes)
    left, other = pack_safetensors(*stopped.state()), fitted(0, **changes)
    other.restore(*unpack_safetensors(left))
    assert other.step == k
    other.advance(updates)
    assert other.done
    assert other.history == undisturbed.history
    assert pack_safetensors(*other.state()) == pack_safetensors(*undisturbed.state())


def test_a_finished_model_is_not_trained_further():
    fitting = fitted()
    before = weights(fitting)
    fitting.advance(5)
    assert (fitting.step, weights(fitting)) == (7, before)


def test_history_covers_every_update_once():
    each, thinned = fitted(130, updates=130).history, fitted(60, updates=60).history
    assert [point["step"] for point in thinned] == list(range(1, 61))
    assert [point["step"] for point in each] == [*range(2, 131, 2)]


def test_the_rate_rises_to_its_peak_and_falls():
    rates = [point["learning_rate"] for point in fitted(updates=40).history]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(0.01, rel=0.02)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:-1] == sorted(rates[peak:-1], reverse=True)
    steady = fitted(optimiser="adadelta", learning_rate=1.0).history
    assert {point["learning_rate"] for point in steady} == {1.0}


def test_the_seed_and_fold_decide_everything():
    first = weights(fitted())
    torch.manual_seed(99)
    assert weights(fitted()) == first
    assert weights(fitted(job=JOB._replace(seed=3))) != first
    assert weights(fitted(job=JOB._replace(fold=-1))) != first
    fresh = seeded_network(tiny.network_config(), 7, True, (JOB.seed, JOB.fold + 1, WEIGHT_STREAM))
    assert weights(fitted(0)) == pack_safetensors(fresh.state_dict(), {})


def nothing(data, *names):
    return replace(data, **{n: torch.full_like(getattr(data, n), torch.nan) for n in names})


@pytest.mark.parametrize("missing", [("satellite",), ("insitu",), ("satellite", "insitu")])
@pytest.mark.parametrize("likelihood", ["none", "laplace"])
def test_a_batch_without_a_target_counts_as_empty_and_spoils_nothing(missing, likelihood):
    data = nothing(tiny.training_data(), *missing)
    fitting = fitted(data=data, likelihood=likelihood)
    for source in ("satellite", "insitu"):
        empty = source in missing
        assert sum(point[f"empty_{source}"] for point in fitting.history) == 7 * empty
        losses = [point[f"loss_{source}"] for point in fitting.history]
        assert all(abs(loss) < 1e-5 for loss in losses) == empty
    assert all(torch.isfinite(p).all() for p in fitting.network.parameters())


@pytest.mark.parametrize("input_layer", [False, True])
@pytest.mark.parametrize("arm", ["multiscale", "insitu", "satellite"])
def test_both_precisions_train(arm, input_layer):
    full, half = (
        fitted(job=JOB._replace(arm=arm), precision=p, input_layer=input_layer)
        for p in ("fp32", "bf16")
    )
    for one, other in zip(full.network.parameters(), half.network.parameters(), strict=True):
        assert one.dtype == other.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0.1, atol=0.05)
    assert (weights(full) == weights(half)) == (not device.trains_in_bf16("bf16", "cpu"))


def test_a_cpu_without_an_lstm_in_bf16_trains_in_fp32(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("could not create a primitive descriptor for the LSTM")

    with monkeypatch.context() as patch:
        patch.setattr(recurrence, "lstm", refuse)
        assert not device._lstm_runs_in_bf16.__wrapped__("cpu")
    monkeypatch.setattr(device, "_lstm_runs_in_bf16", lambda _: False)
    assert weights(fitted(precision="bf16")) == weights(fitted(precision="fp32"))


def test_the_loss_falls_where_there_is_something_to_learn():
    data = tiny.training_data()
    wet = torch.nan_to_num(data.sites.forcing[..., 0].float())
    data = replace(data, insitu=data.target.invert(wet))
    told = fitted(job=ModelKey("insitu", 0, 0), data=data, updates=150, likelihood="none").history
    assert told[-1]["loss_insitu"] < 0.7 * told[0]["loss_insitu"]
