"""Training and prediction on a GPU: beside a CPU, interrupted, and what they leave behind."""

from __future__ import annotations

import gc
import warnings
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import tiny
import torch

from model import recurrence
from model.checkpoint import pack_safetensors, unpack_safetensors
from model.ensemble import predict_series
from model.recipe import ModelKey
from model.sampling import Places
from model.scaling import Scale
from model.stacked_trainer import StackedTrainer
from model.streaming import StatefulPredictor
from model.trainer import Trainer
from pipeline.experiment import load

pytestmark = pytest.mark.cuda
DEVICE = "cuda"
STEPS, UPDATES = 6, 8  # the first two are run as they are, the third is recorded

RECIPES = ("default", "liu2022", "seen-cells")
ARMS = ("multiscale", "insitu", "satellite")
# Relative difference of losses, of models trained together and alone. TF32 keeps 10 bits.
CLOSE = {"fp32": 3e-3, "bf16": 2e-2}


def on_device(data, device=None):
    """The data on a device."""
    device = device or DEVICE

    def moved(places):
        return Places(places.forcing.to(device), places.static.to(device))

    return replace(
        data,
        cells=moved(data.cells),
        sites=moved(data.sites),
        satellite=data.satellite.to(device),
        insitu=data.insitu.to(device),
    )


def trainers(arm="multiscale", device=None, of=None, **changes):
    """Three models: what they may learn from and the scale of the target differ."""
    recipe, data = tiny.recipe(**changes), on_device(tiny.training_data(), device)
    if of is not None:  # the architecture and method of a recipe, on the tiny inputs
        recipe = of.model_copy(update={"inputs": recipe.inputs})
    others = [
        data,
        replace(data, trainable=np.array([0, 2, 5]), target=Scale(0.3, 0.1)),
        replace(data, seen=np.array([0, 1, 4])),
    ]
    keys = [ModelKey(arm, fold, 1) for fold in range(3)]
    return [Trainer(recipe, key, d, UPDATES) for key, d in zip(keys, others, strict=True)]


def losses(models):
    """(model, point, source) losses of the training curves."""
    names = ("loss_satellite", "loss_insitu")
    return np.array([[[point[n] for n in names] for point in m.history] for m in models])


def compare(together, alone, tolerance):
    for trainer in alone:
        trainer.advance(STEPS)
    StackedTrainer(together).advance(STEPS)
    one, other = losses(together), losses(alone)
    assert np.isfinite(one).all()
    np.testing.assert_allclose(one, other, rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_together_as_alone(name, arm, precision):
    of = load.load_experiment("scan", [f"recipe={name}"]).recipe_sections
    sizes = {"precision": precision, "footprints_per_step": 3, "sites_per_step": 4}
    sizes |= {"window_days": 12, "warmup_days": min(4, of.train.warmup_days)}
    of = of.model_copy(update={"train": of.train.model_copy(update=sizes)})
    compare(trainers(arm, of=of), trainers(arm, of=of), CLOSE[precision])


@pytest.mark.parametrize("units", [5, 64])  # in plain torch, and by the kernels
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("arm", "operator", "heads"),
    list(product(ARMS, ("outputs", "inputs"), ("one", "affine", "two"))),
)
def test_every_method_trains_together_as_alone(arm, operator, heads, precision, units):
    method = {"footprint_operator": operator, "heads": heads, "precision": precision}
    method |= {"hidden_size": units, "input_layer": operator == "inputs"}
    compare(trainers(arm, **method), trainers(arm, **method), CLOSE[precision])


def test_clipped_gradients_are_those_of_a_cpu():
    """Also those of the two biases, which are one tensor. Without dropout, whose draws differ.

    Adadelta moves a weight by nearly its gradient where this is small.
    """
    method = {"gradient_clip": 1e-2, "weight_dropout": 0.0, "hidden_size": 64}
    method |= {"optimiser": "adadelta", "learning_rate": 1.0}
    models, expected = trainers(**method), trainers(device="cpu", **method)
    compare(models, expected, CLOSE["fp32"])
    for one, other in zip(models, expected, strict=True):
        for name, weight in one.network.named_parameters():
            other_weight = other.network.get_parameter(name)
            torch.testing.assert_close(weight.cpu(), other_weight, rtol=0, atol=2e-4, msg=name)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimiser", ["adamw", "adadelta"])
def test_interrupted_training_goes_on_to_the_last_bit(optimiser, precision):
    method = {"optimiser": optimiser, "precision": precision, "hidden_size": 64}
    whole, first, second = (trainers(**method) for _ in range(3))
    StackedTrainer(whole).advance(UPDATES)
    StackedTrainer(first).advance(4)
    for before, after in zip(first, second, strict=True):
        after.restore(*unpack_safetensors(pack_safetensors(*before.state())))
    StackedTrainer(second).advance(UPDATES)
    for one, other in zip(whole, second, strict=True):
        assert one.history == other.history
        assert pack_safetensors(*one.state()) == pack_safetensors(*other.state())


def test_a_step_is_recorded_and_replayed():
    group = StackedTrainer(trainers())
    group.advance(2)
    assert group.record._graph is None
    group.advance(2)
    assert group.record._graph is not None


def test_finished_groups_leave_no_memory_and_warn_of_nothing():
    def held():
        gc.collect()
        torch.cuda.empty_cache()
        return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sizes = []
        for _ in range(4):
            models = trainers(hidden_size=64)
            StackedTrainer(models).advance(STEPS)
            for model in models:
                model.advance(1)
            del models, model
            sizes.append(held())
    assert sizes[1:] == sizes[1:2] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_compute_what_plain_torch_does(dtype):
    pytest.importorskip("triton", reason="Triton is not installed: extra [gpu]")
    from model import recurrence_triton

    torch.manual_seed(0)
    projected = torch.randn(3, 9, 130, 512, device=DEVICE).to(dtype)
    w_hh = (torch.randn(3, 512, 128, device=DEVICE) / 11).to(dtype)
    plain = recurrence.forward(projected, w_hh)
    slope = torch.randn_like(plain[0])
    mine, other = (
        (*m.forward(projected, w_hh), m.backward(slope, w_hh, *plain[1:]))
        for m in (recurrence_triton, recurrence)
    )
    for one, two in zip(mine, other, strict=True):
        error = (one.double() - two.double()).norm() / two.double().norm()
        assert error < (2e-3 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize(
    "changes", [{}, {"heads": "one", "likelihood": False}, {"linear_weight": 0.2}]
)
def test_predictions_are_those_of_a_cpu(changes):
    changes = {"hidden_size": 128} | changes
    expected, trained = tiny.trained(**changes), tiny.trained(**changes)
    places = tiny.places(70, 400)
    on_cpu = predict_series(expected, places)
    trained.network.to(DEVICE)
    moved = Places(places.forcing.to(DEVICE), places.static.to(DEVICE))
    for name, values in vars(predict_series(trained, moved)).items():
        np.testing.assert_allclose(values, getattr(on_cpu, name), rtol=0, atol=1e-5, err_msg=name)
    forcing = places.forcing.numpy()
    walk = StatefulPredictor(trained, places.static.numpy(), DEVICE)
    lead = trained.lead_days
    walk.warm_up(forcing[:, 365 - lead : 365], np.array_split(forcing[:, :365], 5, axis=1))
    series = [walk.advance(part).site for part in np.array_split(forcing, 7, axis=1)]
    np.testing.assert_allclose(np.concatenate(series, 1), on_cpu.site, rtol=0, atol=1e-5)
