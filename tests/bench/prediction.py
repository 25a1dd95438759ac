"""Prediction: what `predict` walks with, beside torch's bare LSTM on the same shapes."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn

from bench import data, machine
from bench.measure import fastest, in_turn, per_second
from bench.rows import Aim, Row
from model.checkpoint import TrainedModel
from model.device import places_per_pass
from model.recipe import ModelKey
from model.streaming import StatefulPredictor
from model.trainer import Trainer
from pipeline.storage.schema import BLOCK_DAYS

SECTION = "prediction, one process, one thread, as a worker has"
JOB = ModelKey("multiscale", -1, 0)
LARGEST = 5e-4  # m3 m-3, of a map in another precision from that in fp32
LONG = 6 * 365


def rows(context):
    """Recipe `default`, and the hidden size of `liu2022`; then precisions over six years."""
    torch.set_num_threads(context.threads or 1)
    differences = precisions(context)
    good = [name for name, row in differences.items() if max(row.samples) <= LARGEST]
    for name in ("default", "liu2022"):
        yield _rate(context, name, "bf16" in good)
    yield from differences.values()


def model(of, held, updates):
    """A model of a recipe after so many updates."""
    fitting = Trainer(of, JOB, held, max(updates, 10))
    fitting.advance(updates)
    heads = ("site", "satellite")
    return TrainedModel(
        fitting.network, held.features, held.scaler, held.target, heads, {"arm": "multiscale"}
    )


def _rate(context, name, bf16_is_good):
    of = data.recipe(name)
    held = data.training_data(of, n_footprints=128)
    trained = model(of, held, 0)
    n, hidden = len(held.cells.static), of.network.hidden_size
    walk = StatefulPredictor(trained, held.cells.static.numpy(), "cpu")
    forcing = held.cells.forcing.numpy()
    lead = trained.lead_days
    walk.warm_up(forcing[:, :lead], [forcing[:, :BLOCK_DAYS]])
    block = np.ascontiguousarray(forcing[:, BLOCK_DAYS : 2 * BLOCK_DAYS])
    inside = hidden if of.network.input_layer else len(held.features.names)
    bare = {}
    own = places_per_pass("cpu")
    for places in (own, 4 * own, n):
        bare[f"fp32, {places} cells at a time"] = bare_lstm(inside, hidden, n, places, False)
        if bf16_is_good:
            bare[f"bf16, {places} cells at a time"] = bare_lstm(inside, hidden, n, places, True)
    told = partial(context.told, name)
    chosen = fastest(bare, rounds=3, told=told)
    dtype = torch.bfloat16 if chosen.startswith("bf16") else torch.float32
    actions = {
        "walk": lambda: walk.advance(block),
        "bare": bare[chosen],
        "gemm": machine.gemm(own, hidden, 4 * hidden, dtype),
    }
    taken = in_turn(actions, context.rounds(10, 40), told=told)
    work = n * BLOCK_DAYS
    gflop = data.flops(of, len(held.features.names), backward=False) / 1e9
    return Row(
        SECTION,
        f"a block of {BLOCK_DAYS} days walked, recipe {name}, hidden {hidden}, {n} cells",
        "cell-days/s",
        per_second(taken["walk"], work),
        f"torch's bare LSTM ({chosen})",
        per_second(taken["bare"], work),
        Aim(0.9),
        f"GEMM {'bf16' if dtype == torch.bfloat16 else 'fp32'}",
        per_second(taken["gemm"], 1 / gflop),
        way="slow features and heads around the LSTM, and its precision",
    )


def bare_lstm(inside, hidden, n, places, bf16, device="cpu"):
    """An action: a block of days of n cells through nn.LSTM and nothing else."""
    torch.manual_seed(0)
    lstm = nn.LSTM(inside, hidden, batch_first=True).eval().to(device)
    x = torch.randn(n, BLOCK_DAYS, inside, device=device)
    if bf16:
        lstm, x = lstm.bfloat16(), x.bfloat16()

    def action():
        with torch.inference_mode():
            for part in torch.split(x, places):
                lstm(part)

    return action


def precisions(context):
    """Largest differences of series from those in fp32, by precision, over six years.

    The model has learnt a made-up moisture: what soil would keep of the made-up rain.
    """
    of = data.recipe("default", "train.footprint_operator=inputs")
    held = learnable(data.packed(of, n_footprints=64)).data(JOB, 0.0, "cpu")
    context.told("a model to compare precisions with", "is trained")
    trained = model(of, held, context.rounds(80, 300))
    forcing = np.tile(held.cells.forcing.numpy()[:256], (1, 2, 1))[:, :LONG]
    static = held.cells.static.numpy()[:256]
    context.told("six years in fp32 and in bf16", "")
    plain, half = (walked(trained, forcing, static, bf16) for bf16 in (False, True))
    error = np.abs(half - plain)
    spread = float(plain.std())
    return {
        "bf16": Row(
            SECTION,
            f"bf16 beside fp32, six years of 256 cells: largest difference (mean "
            f"{error.mean():.1e}, of series whose sd is {spread:.2g})",
            "m3 m-3",
            [float(error.max())],
            aim=Aim(LARGEST, least=False, of_ratio=False),
            way="eight bits of mantissa: maps stay in fp32",
        )
    }


def learnable(packed):
    """The data with a target that the inputs tell: rain, kept for some weeks."""
    cells, sites = kept_rain(packed.cell_forcing), kept_rain(packed.site_forcing)
    seen = cells[packed.members].mean(1)
    return replace(packed, learn_satellite=seen, learn_insitu=sites)


def kept_rain(forcing, keep=0.95):
    """(place, day) of what is left of rain, in m3 m-3."""
    rain = np.maximum(forcing[..., 0].astype(np.float32), 0)
    level, made = np.zeros(len(rain), np.float32), np.empty_like(rain)
    for day in range(rain.shape[1]):
        level = keep * level + (1 - keep) * rain[:, day]
        made[:, day] = 0.1 + 0.5 * level
    return made


def walked(trained, forcing, static, bf16):
    """(cell, day) site head of a walk through all days."""
    network = copy.deepcopy(trained.network)
    forward = network.forward

    def autocast(*inputs):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return forward(*inputs)

    network.forward = autocast
    walk = StatefulPredictor(replace(trained, network=network), static, "cpu")
    lead, parts = trained.lead_days, range(0, forcing.shape[1], BLOCK_DAYS)
    walk.warm_up(forcing[:, 365 - lead : 365], [forcing[:, :365]])
    series = [walk.advance(forcing[:, k : k + BLOCK_DAYS]).site for k in parts]
    return np.concatenate(series, 1)
