"""Training: the whole loop beside the bare step of the fastest way to write it in torch."""

from __future__ import annotations

import contextlib
from functools import partial

import torch
from torch import nn

from bench import data, machine
from bench.aside import Aside
from bench.measure import fastest, in_turn, per_second
from bench.rows import Aim, Row
from model.device import trains_in_bf16
from model.recipe import ModelKey
from model.trainer import Trainer

SECTION = "training, one process, one thread, as a worker has"


class Bare(nn.Module):
    """The network of a recipe written plainly: LSTM and output, no dropout, no heads."""

    def __init__(self, of, n_features, batch_first):
        super().__init__()
        hidden = of.network.hidden_size
        self.input = nn.Linear(n_features, hidden) if of.network.input_layer else None
        inside = hidden if of.network.input_layer else n_features
        self.lstm = nn.LSTM(inside, hidden, batch_first=batch_first)
        self.output = nn.Linear(hidden, 2)

    def forward(self, x):
        if self.input is not None:
            x = torch.relu(self.input(x))
        return self.output(self.lstm(x)[0])


def bare_step(of, n_features, n_sequences, n_days, bf16, batch_first=True, device="cpu"):
    """One step on one batch that is there: forward, mean error, backward, clip, update."""
    torch.manual_seed(0)
    network = Bare(of, n_features, batch_first).to(device)
    shape = (n_sequences, n_days) if batch_first else (n_days, n_sequences)
    x = torch.randn(*shape, n_features, device=device)
    y = torch.randn(*shape, 2, device=device)
    optimiser = optimiser_of(of, network)
    amp = partial(torch.autocast, device, torch.bfloat16) if bf16 else contextlib.nullcontext

    def step():
        with amp():
            out = network(x)
        loss = (out.float() - y).square().mean().sqrt()
        optimiser.zero_grad()
        loss.backward()
        if of.train.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(network.parameters(), of.train.gradient_clip)
        optimiser.step()

    return step


def optimiser_of(of, network):
    """The recipe's optimiser, as torch has it."""
    if of.train.optimiser == "adadelta":
        return torch.optim.Adadelta(network.parameters(), 1.0)
    return torch.optim.AdamW(network.parameters(), 1e-3, fused=True)


def loop(of, held, job=None):
    """An action: `Fitting.advance` of one step, without end."""
    fitting = Trainer(of, job or ModelKey("multiscale", 0, 0), held, 10**9)
    return lambda: fitting.advance(1)


def loop_of(name):
    """An action: one step of a recipe's loop."""
    of = data.recipe(name)
    return loop(of, data.training_data(of))


def bare_steps(of, n_features, n_sequences):
    """Every formulation of the bare step, by name."""
    days = data.days(of)
    return {
        f"{'bf16 autocast' if bf16 else 'fp32'}, {'batch' if first else 'time'} first": bare_step(
            of, n_features, n_sequences, days, bf16, first
        )
        for bf16 in (True, False)
        if not bf16 or trains_in_bf16("bf16", "cpu")  # else torch ends with an error
        for first in (True, False)
    }


def rows(context):
    """Recipes `default` and `liu2022`, at full size."""
    torch.set_num_threads(context.threads or 1)
    for name in ("default", "liu2022"):
        yield from _of_recipe(context, name)


def _of_recipe(context, name):
    of = data.recipe(name)
    held = data.training_data(of)
    n, days, n_features = data.sequences(of), data.days(of), len(held.features.names)
    ways = bare_steps(of, n_features, n)
    told = partial(context.told, f"recipe {name}")
    chosen = fastest(ways, rounds=2, told=told)
    plain = "fp32, batch first"
    gflop = data.flops(of, n_features) * n * days / 1e9
    hidden = of.network.hidden_size
    actions = {"loop": loop(of, held), "bare": ways[chosen]}
    if of.train.precision == "fp32":
        actions["loop bf16"] = loop(data.recipe(name, "train.precision=bf16"), held)
    if chosen != plain:
        actions["bare fp32"] = ways[plain]
    for dtype in (torch.bfloat16, torch.float32):
        actions[f"gemm {dtype}"] = machine.gemm(n, hidden, 4 * hidden, dtype)
    log, threads = context.scratch("training") / "log", torch.get_num_threads()
    with Aside("bench.training:loop_of", log, False, threads, name=name) as given_back:
        actions["given back"] = given_back
        taken = in_turn(actions, context.rounds(5, 15), told=told)
    work = n * days
    limit = {
        dtype: per_second(taken[f"gemm {dtype}"], work / gflop)
        for dtype in (torch.bfloat16, torch.float32)
    }
    loops = [k for k in ("loop", "loop bf16") if k in taken]
    for kind in loops:
        bf16 = of.train.precision == "bf16" or kind == "loop bf16"
        dtype = torch.bfloat16 if bf16 else torch.float32
        precision = "bf16" if bf16 else "fp32"
        # A recipe in fp32 is beside the fp32 step: its precision is part of it.
        against = "bare" if bf16 or "bare fp32" not in taken else "bare fp32"
        yield Row(
            SECTION,
            f"whole loop, recipe {name}, {precision}, {n} sequences of {days} days a step",
            "sequence-days/s",
            per_second(taken[kind], work),
            f"bare torch step ({chosen if against == 'bare' else plain})",
            per_second(taken[against], work),
            Aim(0.95),
            f"GEMM {precision}",
            limit[dtype],
            way=WAY,
        )
    yield Row(
        SECTION,
        f"whole loop, recipe {name}, memory kept between steps",
        "sequence-days/s",
        per_second(taken["loop"], work),
        "the same, memory given back as the system has it",
        per_second(taken["given back"], work),
    )


WAY = "drawing and gathering the next batch, dropout masks, heads and losses in small operations"
