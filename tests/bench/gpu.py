"""Training on one GPU: models side by side, sampling included, beside one model and bare cuDNN.

The published settings (recipe `liu2022`) at CONUS size: 6,200 footprints of 16 cells, 50 footprints
and 50 sites a step, windows of 30 days; 40 epochs are a projection from the steps that are timed.
Recipe `default` at CONUS size, and 36 models of it at the size of `scan`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from bench import data
from bench.measure import in_turn, per_second
from bench.rows import Aim, Row
from bench.training import bare_step
from model.device import tf32
from model.recipe import ModelKey
from model.sampling import steps_per_epoch
from model.stacked_trainer import StackedTrainer
from model.trainer import Trainer

SECTION = "training on a GPU"
FOLDS, STEPS, ROUNDS, EPOCHS = 5, 500, 5, 40
AIMS = {"outputs": 275.0, "inputs": 560.0}  # steps/s of the published settings in bf16, by operator
SIZES = {"n_footprints": 6200, "n_sites": 400, "n_days": 1096}
SCAN = {"n_footprints": 412, "per_footprint": 1, "n_sites": 123, "n_days": 731}
WAY = "the recurrence: days follow one another, each a small product"


@dataclass(frozen=True)
class Group:
    """Models of recipe `default` that are trained together, and the steps a second aimed at."""

    what: str
    n_models: int
    sizes: dict[str, int]
    aim: float


GROUPS = (
    Group("8 models, CONUS size", 8, SIZES, 100.0),
    Group("36 models, the size of scan", 36, SCAN, 3000.0 / 36),
)


def rows(context, device="cuda", sizes=None, steps=STEPS, settings=()):
    """Steps a second of all folds and of one, TFLOP/s, the projection; then other groups."""
    limit = {name: gemm_tflops(device, name) for name in ("bf16", "fp32")}
    context.told("data of CONUS size", "are made")
    of = data.recipe("liu2022", *settings)
    packed = data.packed(of, **(sizes or SIZES))
    held = {}
    for fold in range(FOLDS):
        held[fold] = of_fold(packed, fold, device, held.get(0))
    for operator, precision in (("outputs", "bf16"), ("inputs", "bf16"), ("outputs", "fp32")):
        changes = f"train.footprint_operator={operator}", f"train.precision={precision}"
        of = data.recipe("liu2022", *settings, *changes)
        yield from _published(context, of, held, device, steps, limit[precision])
    del held, packed
    for group in GROUPS:
        of = data.recipe("default", *settings)
        yield _group(context, group, of, sizes or group.sizes, device, steps, limit["bf16"])


def _group(context, group, of, sizes, device, steps, limit):
    """A row of models that are trained together."""
    context.told(group.what, "data are made")
    packed, held = data.packed(of, **sizes), {}
    for k in range(group.n_models):
        held[k] = of_fold(packed, k % FOLDS, device, held.get(0))
    stack = fitting_of(of, held, (ROUNDS + 1) * steps)
    told = lambda text: context.told(group.what, text)  # noqa: E731
    taken = in_turn({"group": timed(stack, steps, device)}, ROUNDS, told=told)["group"]
    n, days = data.sequences(of, sizes.get("per_footprint", 16)), data.days(of)
    tflop = data.flops(of, len(held[0].features.names)) * n * days / 1e12
    rates = per_second(taken, steps)
    return Row(
        SECTION,
        f"recipe default in bf16, {group.what}, {n} sequences of {days} days a step and model",
        "steps/s",
        rates,
        aim=Aim(group.aim, of_ratio=False),
        limit_of="GEMM bf16",
        limit=[x / (group.n_models * tflop) for x in limit],
        way=WAY,
        note=f"{group.n_models * np.median(rates):,.0f} steps of a model a second",
    )


def of_fold(packed, fold, device, like):
    """Data of a fold's model; arrays on the device are shared with those that are there."""
    return packed.data(ModelKey("multiscale", fold, 0), 0.0, device, like)


def fitting_of(of, held, updates):
    """What trains models of one arm side by side: the stack of their fittings."""
    return StackedTrainer(
        [Trainer(of, ModelKey("multiscale", k, 0), d, updates) for k, d in held.items()]
    )


def _published(context, of, held, device, steps, limit):
    name, bf16 = of.train.footprint_operator, of.train.precision == "bf16"
    precision = "bf16" if bf16 else "fp32 with TF32"
    total = (ROUNDS + 1) * steps
    n, days, n_features = data.sequences(of), data.days(of), len(held[0].features.names)
    alone = Trainer(of, ModelKey("multiscale", 0, 0), held[0], total)
    stacks = {
        "five": fitting_of(of, held, total),
        "one": fitting_of(of, {0: held[0]}, total),
        "unstacked": alone,
    }
    actions = {kind: timed(stack, steps, device) for kind, stack in stacks.items()}
    bare = tf32(True)(bare_step(of, n_features, n, days, bf16=bf16, device=device))
    actions["bare"] = waited(lambda: [bare() for _ in range(steps)], device)
    taken = in_turn(
        actions, ROUNDS, told=lambda text: context.told(f"operator {name}, {precision}", text)
    )
    rates = {kind: per_second(seconds, steps) for kind, seconds in taken.items()}
    tflop = data.flops(of, n_features) * n * days / 1e12
    places = len(held[0].members)
    epochs = EPOCHS * steps_per_epoch(
        of.train.footprints_per_step, of.train.window_days, places, held[0].n_days
    )
    hours = epochs / np.median(rates["five"]) / 3600
    yield Row(
        SECTION,
        f"recipe liu2022 in {precision}, 5 folds stacked, operator {name}, {n} sequences of {days} "
        "days a step and fold",
        "steps/s",
        rates["five"],
        "one fold in the same way",
        rates["one"],
        Aim(AIMS[name], of_ratio=False) if bf16 else None,
        f"GEMM {precision}",
        [x / (FOLDS * tflop) for x in limit],
        way=WAY,
        note=f"{FOLDS * tflop * np.median(rates['five']):.3g} TFLOP/s in all; projected, not run: "
        f"{EPOCHS} epochs, {epochs:,} steps, of all five in {hours:.2g} hours",
    )
    for kind, what in (("one", "group of one"), ("unstacked", "trained alone, cuDNN")):
        yield Row(
            SECTION,
            f"recipe liu2022 in {precision}, 1 fold, operator {name}, {what}",
            "steps/s",
            rates[kind],
            f"bare torch step, {precision}, cuDNN",
            rates["bare"],
            limit_of=f"GEMM {precision}",
            limit=[x / tflop for x in limit],
        )


def timed(stack, steps, device):
    """An action: so many steps, until the device has done them."""
    return waited(lambda: stack.advance(steps), device)


def waited(action, device):
    """An action timed until the device is through."""

    def measured():
        begun = time.perf_counter()
        action()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    return measured


@tf32(True)
def gemm_tflops(device, precision="bf16", size=8192):
    """TFLOP/s of large products, in fp32 with TF32, round by round."""
    size, dtype = size if device == "cuda" else 256, torch.float32
    if precision == "bf16":
        dtype = torch.bfloat16
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    times = 20

    def action():
        for _ in range(times):
            torch.mm(a, b)

    taken = in_turn({"mm": waited(action, device)}, ROUNDS)["mm"]
    return [2 * size**3 * times / s / 1e12 for s in taken]
