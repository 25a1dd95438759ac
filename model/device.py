"""What follows from the kind of device: the precision of products, and how much runs at a time."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import torch

from model import recurrence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model.recipe import Arm, Recipe


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 in the float32 products of GPUs, in cuBLAS and in cuDNN alike.

    TF32 has the range of float32 and 10 bits of mantissa, and is several times as fast. Training
    allows it, one by one and side by side: it changes a gradient far less than the choice of the
    batch does. Prediction forbids it: with it, maps differ by 2e-5 m3 m-3 from those of a CPU,
    without it by 3e-7. It does nothing on a CPU. Use it as a context or as a decorator.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = allowed
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def trains_in_bf16(precision: str, device: str) -> bool:
    """Return whether models are trained in bf16: if the recipe asks for it and the device can.

    Otherwise they are trained in float32. On CPUs without AVX-512, oneDNN has no LSTM in bf16, and
    torch's own took six times as long as oneDNN's in float32. GPUs compute in bf16 from the
    generation of the A100 on.

    Args:
      precision: `train.precision` of the recipe.
      device: "cpu" or "cuda".
    """
    return precision == "bf16" and _lstm_runs_in_bf16(device)


@cache
def _lstm_runs_in_bf16(device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    x, weight, bias = torch.zeros(1, 1, 8), torch.zeros(32, 8), torch.zeros(32)
    try:  # torch has no public function that answers it
        with torch.autocast(device, torch.bfloat16):
            recurrence.lstm(x, (x, x), [weight, weight, bias, bias], training=True)
    except RuntimeError:
        return False
    return True


def places_per_pass(device: str) -> int:
    """Return the number of places per forward pass of a prediction, which bounds the memory.

    On a CPU, a day's states and gates of 512 places stay in its cache. A GPU of 4,096 places is
    3 times as fast as one of 512 (recipe default, an H200).
    """
    return 4_096 if device == "cuda" else 512


# Memory on a GPU of one unit of the LSTM on one day of one sequence, of a model in training:
# inputs, gates, states and their gradients. 36 models of 128 units, 64 sequences and 150 days took
# 2.0 GB in bf16, which is 45 bytes.
BYTES_PER_UNIT = {"bf16": 48, "fp32": 96}
GROUP_BYTES = 12e9  # for a group of models: with its data, it fits into a GPU of 16 GB
FREE_SHARE = 0.9  # of the free memory of a GPU that a group may take by its estimate


def bytes_per_model(recipe: Recipe, arm: Arm, cells_per_footprint: float) -> float:
    """Estimate the memory on a GPU of a model that is trained beside others.

    Args:
      recipe: the method.
      arm: the arm of the model.
      cells_per_footprint: mean number of cells of a footprint.
    """
    days = recipe.train.window_days + recipe.train.warmup_days
    units = recipe.sequences(arm, cells_per_footprint) * days * recipe.network.hidden_size
    return units * BYTES_PER_UNIT[recipe.train.precision]


def models_side_by_side(model_bytes: float, device: str | None = None) -> int:
    """Return how many models can be trained side by side, at least one.

    Args:
      model_bytes: estimated memory of a model.
      device: "cuda" for as many as this GPU has room for now. Otherwise `GROUP_BYTES` are counted
        on, so that the answer is the same everywhere.
    """
    room = GROUP_BYTES
    if device == "cuda":
        cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        room = (torch.cuda.mem_get_info()[0] + cached) * FREE_SHARE
    return max(1, int(room // model_bytes))
