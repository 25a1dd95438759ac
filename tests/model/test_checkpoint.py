"""A model as one safetensors object."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from model import checkpoint
from model.ensemble import predict_series
from model.recipe import ModelKey
from model.trainer import Trainer

SHAPES = [
    {},
    {"heads": "one", "likelihood": False},
    {"input_layer": True, "hidden_size": 9},
    {"heads": "affine", "linear_weight": 0.3},
]


@pytest.fixture(autouse=True)
def one_thread():
    with tiny.one_thread():
        yield


@pytest.mark.parametrize("shape", SHAPES)
def test_a_loaded_model_predicts_the_same(shape):
    trained, where = tiny.trained(**shape), tiny.places(3, 17)
    loaded = checkpoint.model_from_bytes(checkpoint.model_to_bytes(trained))
    for one, other in zip(
        vars(predict_series(trained, where)).values(),
        vars(predict_series(loaded, where)).values(),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("shape", SHAPES)
def test_all_that_is_needed_comes_back(shape):
    trained = tiny.trained(**shape)
    loaded = checkpoint.model_from_bytes(checkpoint.model_to_bytes(trained))
    for name in ("features", "scaler", "target", "heads", "origin"):
        assert getattr(loaded, name) == getattr(trained, name)
    assert loaded.network.config == trained.network.config
    assert not loaded.network.training


@pytest.mark.parametrize("shape", SHAPES)
def test_equal_models_are_equal_bytes(shape):
    first = checkpoint.model_to_bytes(tiny.trained(**shape))
    assert checkpoint.model_to_bytes(tiny.trained(**shape)) == first
    assert checkpoint.model_to_bytes(checkpoint.model_from_bytes(first)) == first
    assert checkpoint.model_to_bytes(tiny.trained(seed=1, **shape)) != first


def test_the_order_in_which_things_were_named_does_not_matter():
    one = tiny.trained()
    other = replace(one, origin=dict(reversed(one.origin.items())))
    assert list(one.origin) != list(other.origin)
    assert checkpoint.model_to_bytes(one) == checkpoint.model_to_bytes(other)


def test_a_checkpoint_is_a_header_and_plain_numbers():
    trained = tiny.trained()
    data = checkpoint.model_to_bytes(trained)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    n_numbers = sum(p.numel() for p in trained.network.parameters())
    assert len(data) == 8 + length + 4 * n_numbers
    assert {v["dtype"] for k, v in header.items() if k != "__metadata__"} == {"F32"}
    assert not data.startswith((b"PK", b"\x80"))  # neither torch's archive nor a pickle
    with pytest.raises(Exception):  # noqa: B017, PT011 - of whatever kind
        pickle.loads(data)


@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.3, 0.9, 0.999])
def test_truncated_bytes_are_refused(share):
    data = checkpoint.model_to_bytes(tiny.trained())
    with pytest.raises(ValueError, match="not a complete safetensors object"):
        checkpoint.model_from_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize("data", [b"not a checkpoint at all", b"\x80\x04K\x01.", bytes(64)])
def test_other_bytes_are_refused(data):
    with pytest.raises(ValueError, match="not a complete safetensors object"):
        checkpoint.model_from_bytes(data)


def test_a_safetensors_object_of_others_is_refused():
    import safetensors.torch

    for header in (None, {"framework": "pt"}, {"soilweave": "{"}):
        with pytest.raises(ValueError, match="not a complete safetensors object"):
            checkpoint.model_from_bytes(safetensors.torch.save({"w": torch.zeros(2)}, header))


def test_another_format_is_refused():
    tensors, values = checkpoint.unpack_safetensors(checkpoint.model_to_bytes(tiny.trained()))
    with pytest.raises(ValueError, match="format 2; this version of soilweave reads format 1"):
        checkpoint.model_from_bytes(checkpoint.pack_safetensors(tensors, values | {"format": 2}))


def test_a_model_in_training_is_no_checkpoint():
    fitting = Trainer(tiny.recipe(), ModelKey("multiscale", 0, 0), tiny.training_data(), 7)
    with pytest.raises(ValueError, match="format None"):
        checkpoint.model_from_bytes(checkpoint.pack_safetensors(*fitting.state()))


def test_packed_tensors_and_values_come_back_exactly():
    tensors = {
        "whole": torch.randn(3, 4, generator=torch.Generator().manual_seed(1)),
        "step": torch.tensor(7.0),
        "none": torch.zeros(0, 2),
    }
    tensors["turned"] = tensors["whole"].T
    values = {"rate": 0.1 + 0.2, "names": ["a", "b"], "nothing": None}
    back, told = checkpoint.unpack_safetensors(checkpoint.pack_safetensors(tensors, values))
    assert told == values
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
