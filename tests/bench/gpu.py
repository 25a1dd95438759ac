"""Training at CONUS size on one GPU: five folds stacked, beside one fold, sampling included.

The published settings (recipe `liu2022`) in bf16: 6,200 footprints of 16 cells, 50 footprints and
50 sites a step, windows of 30 days. 500 steps are timed; 40 epochs are a projection from them.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from bench import data
from bench.measure import in_turn, per_second
from bench.rows import Aim, Row
from bench.training import bare_step
from model.recipe import ModelKey
from model.sampling import steps_per_epoch
from model.stacked_trainer import StackedTrainer
from model.trainer import Trainer

SECTION = "training on a GPU, CONUS size, recipe liu2022 in bf16"
FOLDS, STEPS, ROUNDS, EPOCHS, AIM = 5, 500, 5, 40, 232.0
SIZES = {"n_footprints": 6200, "n_sites": 400, "n_days": 1096}


def rows(context, device="cuda", sizes=None, steps=STEPS, settings=()):
    """Both footprint operators: steps a second of all folds and of one, TFLOP/s, the projection."""
    context.told("data of CONUS size", "are made")
    settings = ("train.precision=bf16", *settings)
    of = data.recipe("liu2022", *settings)
    packed = data.packed(of, **(sizes or SIZES))
    held = {}
    for fold in range(FOLDS):
        held[fold] = of_fold(packed, fold, device, held.get(0))
    limit = gemm_tflops(device)
    for operator in ("outputs", "inputs"):
        of = data.recipe("liu2022", *settings, f"train.footprint_operator={operator}")
        yield from _of_operator(context, of, held, device, steps, limit)


def of_fold(packed, fold, device, like):
    """Data of a fold's model; arrays on the device are shared with those that are there."""
    return packed.data(ModelKey("multiscale", fold, 0), 0.0, device, like)


def fitting_of(of, held, updates):
    """What trains models of one arm side by side: the stack of their fittings."""
    return StackedTrainer(
        [Trainer(of, ModelKey("multiscale", k, 0), d, updates) for k, d in held.items()]
    )


def _of_operator(context, of, held, device, steps, limit):
    name = of.train.footprint_operator
    total = (ROUNDS + 1) * steps
    n, days, n_features = data.sequences(of), data.days(of), len(held[0].features.names)
    alone = Trainer(of, ModelKey("multiscale", 0, 0), held[0], total)
    stacks = {
        "five": fitting_of(of, held, total),
        "one": fitting_of(of, {0: held[0]}, total),
        "unstacked": alone,
    }
    actions = {kind: timed(stack, steps, device) for kind, stack in stacks.items()}
    bare = bare_step(of, n_features, n, days, bf16=True, device=device)
    actions["bare"] = waited(lambda: [bare() for _ in range(steps)], device)
    taken = in_turn(actions, ROUNDS, told=lambda text: context.told(f"operator {name}", text))
    rates = {kind: per_second(seconds, steps) for kind, seconds in taken.items()}
    tflop = data.flops(of, n_features) * n * days / 1e12
    places = len(held[0].members)
    epochs = EPOCHS * steps_per_epoch(
        of.train.footprints_per_step, of.train.window_days, places, held[0].n_days
    )
    hours = epochs / np.median(rates["five"]) / 3600
    yield Row(
        SECTION,
        f"5 folds stacked, operator {name}, {n} sequences of {days} days a step and fold",
        "steps/s",
        rates["five"],
        "one fold in the same way",
        rates["one"],
        Aim(AIM, of_ratio=False),
        "GEMM bf16",
        [x / (FOLDS * tflop) for x in limit],
        way="the recurrence: days follow one another, each a small product",
        note=f"{FOLDS * tflop * np.median(rates['five']):.3g} TFLOP/s in all; projected, not run: "
        f"{EPOCHS} epochs, {epochs:,} steps, of all five in {hours:.2g} hours",
    )
    for kind, what in (("one", "stack of one"), ("unstacked", "fitting alone, cuDNN")):
        yield Row(
            SECTION,
            f"1 fold, operator {name}, {what}",
            "steps/s",
            rates[kind],
            "bare torch step, bf16 autocast, cuDNN",
            rates["bare"],
            limit_of="GEMM bf16",
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


def gemm_tflops(device, size=8192):
    """TFLOP/s of large products in bf16, round by round."""
    size = size if device == "cuda" else 256
    a, b = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    times = 20

    def action():
        for _ in range(times):
            torch.mm(a, b)

    taken = in_turn({"mm": waited(action, device)}, ROUNDS)["mm"]
    return [2 * size**3 * times / s / 1e12 for s in taken]
