"""Models trained side by side against the same models trained one by one."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from model import device
from model.recipe import ModelKey
from model.scaling import Scale
from model.stacked_trainer import StackedTrainer
from model.trainer import Trainer


@pytest.fixture(autouse=True)
def one_thread():
    with tiny.one_thread():
        yield


def fittings(arm="multiscale", **changes):
    """Three models: what they may learn from and the scale of the target differ."""
    recipe, data = tiny.recipe(**changes), tiny.training_data()
    others = [
        data,
        replace(data, trainable=np.array([0, 2, 5]), target=Scale(0.3, 0.1)),
        replace(data, seen=np.array([0, 1, 4])),
    ]
    jobs = [ModelKey(arm, fold, 1) for fold in range(3)]
    return [Trainer(recipe, job, d, 7) for job, d in zip(jobs, others, strict=True)]


def close(stacked, alone):
    for a, b in zip(stacked, alone, strict=True):
        (tensors, values), (expected, told) = a.state(), b.state()
        assert values["step"] == told["step"]
        for key, value in expected.items():
            torch.testing.assert_close(tensors[key], value, rtol=1e-3, atol=2e-5, msg=key)
        for mine, other in zip(values["history"], told["history"], strict=True):
            assert mine == pytest.approx(other, rel=1e-3, abs=1e-5)


METHODS = [
    {},
    {"heads": "one", "anomaly": False, "likelihood": "none", "input_layer": True},
    {"footprint_operator": "inputs", "static_noise": 0.0},
    {"heads": "affine", "weight_dropout": 0.0, "gradient_clip": None},
    {"optimiser": "adadelta", "learning_rate": 1.0, "gradient_clip": 1e-2},
]


@pytest.mark.parametrize("changes", METHODS)
@pytest.mark.parametrize("arm", ["multiscale", "insitu", "satellite"])
def test_a_stack_trains_what_its_models_would_become_alone(arm, changes):
    stacked, alone = fittings(arm, **changes), fittings(arm, **changes)
    StackedTrainer(stacked).advance(5)
    for fitting in alone:
        fitting.advance(5)
    close(stacked, alone)


def test_a_stack_goes_on_from_models_on_their_way_and_they_from_it():
    stacked, alone = fittings(), fittings()
    for fitting in stacked:
        fitting.advance(2)
    StackedTrainer(stacked).advance(3)
    for fitting in stacked:
        fitting.advance(2)
    for fitting in alone:
        fitting.advance(7)
    assert all(fitting.done for fitting in stacked)
    close(stacked, alone)


def test_a_group_of_one_trains_what_its_model_would_become_alone():
    """As on a GPU, where a single model is trained so."""
    stacked, alone = fittings()[:1], fittings()[:1]
    StackedTrainer(stacked).advance(7)
    alone[0].advance(7)
    close(stacked, alone)


def test_steps_beyond_those_drawn_at_once_and_less_than_those(monkeypatch):
    monkeypatch.setattr("model.stacked_trainer.STEPS_AHEAD", 3)
    stacked, alone = fittings(), fittings()
    trainer = StackedTrainer(stacked)
    for n in (1, 4, 2):
        trainer.advance(n)
    for fitting in alone:
        fitting.advance(7)
    close(stacked, alone)


def test_a_finished_group_is_freed_at_once():
    """Its memory on a GPU must not wait for Python to find circles."""
    trainer = StackedTrainer(fittings())
    trainer.advance(2)
    freed = weakref.ref(trainer), weakref.ref(trainer.network)
    gc.disable()
    try:
        del trainer
        assert [ref() for ref in freed] == [None, None]
    finally:
        gc.enable()


def test_in_two_bytes_it_differs_by_their_rounding_alone(monkeypatch):
    # On a CPU, a stack has no LSTM of oneDNN, so that every CPU can run it in bf16.
    monkeypatch.setattr(device, "_lstm_runs_in_bf16", lambda _: True)
    precise, rough = fittings(), fittings(precision="bf16")
    for of in (precise, rough):
        StackedTrainer(of).advance(1)
    for a, b in zip(precise, rough, strict=True):
        losses = [[f.history[-1][k] for k in ("loss_satellite", "loss_insitu")] for f in (a, b)]
        np.testing.assert_allclose(*losses, rtol=0.02)
        assert losses[0] != losses[1]


@pytest.mark.parametrize("side_by_side", [True, False])
def test_points_of_a_curve_are_reported_as_they_are_made(side_by_side):
    models, told = fittings(), []
    for fitting in models:
        fitting.on_point = lambda job, point: told.append((job, point))
    if side_by_side:
        StackedTrainer(models).advance(3)
        assert [job.fold for job, _ in told] == [0, 1, 2] * 3
    else:
        for fitting in models:
            fitting.advance(3)
    for fitting in models:
        assert [point for job, point in told if job == fitting.job] == fitting.history
        assert [point["step"] for point in fitting.history] == [1, 2, 3]
