"""What follows from the device: TF32 on for training and off for maps, and sizes that fit."""

import pytest
import tiny
import torch

from model import device
from model.ensemble import predict_series
from model.recipe import ModelKey
from model.stacked_trainer import StackedTrainer
from model.streaming import StatefulPredictor
from model.trainer import Trainer
from pipeline.experiment import load


def allowed():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def seen_in(module, name, action):
    """What is allowed whenever a method of a module is called in an action, and afterwards."""
    seen, original = set(), getattr(module, name)

    def watched(*args, **kwargs):
        seen.add(allowed())
        return original(*args, **kwargs)

    object.__setattr__(module, name, watched)
    action()
    return seen, allowed()


def trainers(n):
    recipe, data = tiny.recipe(), tiny.training_data()
    return [Trainer(recipe, ModelKey("multiscale", k, 0), data, 7) for k in range(n)]


def test_training_allows_tf32_alone_and_side_by_side_and_maps_do_not():
    before = allowed()
    alone, group = trainers(1)[0], StackedTrainer(trainers(2))
    on, off = ({(True, True)}, before), ({(False, False)}, before)
    assert seen_in(alone.network, "_outputs", lambda: alone.advance(2)) == on
    assert seen_in(group.network, "_outputs", lambda: group.advance(2)) == on
    trained, where = tiny.trained(), tiny.places(3, 12)
    walk = StatefulPredictor(trained, where.static.numpy(), "cpu")
    walk.before = where.forcing[:, : trained.lead_days]
    assert seen_in(trained.network, "_outputs", lambda: predict_series(trained, where)) == off
    assert seen_in(trained.network, "_outputs", lambda: walk.advance(where.forcing.numpy())) == off


def test_what_was_allowed_before_is_allowed_after_an_error():
    before = allowed()
    with pytest.raises(ZeroDivisionError), device.tf32(not before[0]):
        raise ZeroDivisionError
    assert allowed() == before


def test_a_gpu_predicts_more_places_at_a_time():
    assert (device.places_per_pass("cpu"), device.places_per_pass("cuda")) == (512, 4096)


def test_the_estimate_of_memory_is_that_of_a_measurement_and_a_little_more():
    """36 models took 2.0 GB: recipe default, 32 footprints of one cell and 32 sites."""
    recipe = load.load_experiment("scan").recipe_sections
    estimate = 36 * device.bytes_per_model(recipe, "multiscale", 1.0)
    assert 2.0e9 <= estimate <= 2.5e9
    assert device.bytes_per_model(recipe, "insitu", 1.0) == estimate / 36 / 2
    assert device.bytes_per_model(recipe, "satellite", 3.0) == 3 * estimate / 36 / 2
    assert device.models_side_by_side(1e9) == 12
    assert device.models_side_by_side(1e12) == 1
