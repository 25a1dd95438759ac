"""neuralhydrology's own trainer on the same network, batch, windows, optimiser and data.

Its `BaseTrainer` runs its own epochs over its own loader and GenericDataset, one NetCDF file per
basin, as its users run it (tensorboard and the saving of weights switched off), in a process of
its own with the system's allocator as it is; soilweave learns from the same numbers as sites.
Dropout is 0 in both, the loss RMSE, the optimiser AdamW; both have all cores.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr

from bench import data, machine
from bench.aside import Aside
from bench.measure import in_turn, per_second
from bench.rows import Aim, Row
from bench.training import loop
from model.recipe import ModelKey

SECTION = "training, beside neuralhydrology"
N_DAYS, N_BASINS = 1096, 64
LACKING = "neuralhydrology is not installed: pip install --editable '.[bench]'"

# Sizes: what hydrologists train, 365 days of 256 basins; then the lengths of recipe `default`.
CASES = {
    "hidden 256, 256 windows of 365 days": (256, 256, 365, 0),
    "hidden 128, 256 windows of 120 + 30 days": (128, 256, 120, 30),
}


def rows(context):
    """Both sizes, each in bf16 and in fp32."""
    torch.set_num_threads(context.threads or os.cpu_count())
    try:
        import neuralhydrology  # noqa: F401
    except ImportError:
        yield Row(SECTION, LACKING, "", [float("nan")])
        return
    for name, sizes in CASES.items():
        yield from _case(context, name, *sizes)


def plain_recipe(hidden, batch, window, warmup, precision):
    """What both can do: one head, no dropout, no noise, RMSE, AdamW."""
    settings = {
        "network.hidden_size": hidden,
        "network.heads": "one",
        "network.weight_dropout": 0.0,
        "network.linear_weight": 0.0,
        "inputs.slow": "[]",
        "loss.anomaly": "false",
        "loss.likelihood": "none",
        "train.window_days": window,
        "train.warmup_days": warmup,
        "train.sites_per_step": batch,
        "train.static_noise": 0.0,
        "train.learning_rate": 1e-3,
        "train.precision": precision,
    }
    return data.recipe("default", *(f"{key}={value}" for key, value in settings.items()))


def _case(context, name, hidden, batch, window, warmup):
    ours = {
        precision: plain_recipe(hidden, batch, window, warmup, precision)
        for precision in ("bf16", "fp32")
    }
    held = basins(ours["bf16"])
    folder = context.scratch("neuralhydrology")
    write(folder, held)
    steps = 1 if hidden > 128 else 3
    sizes = {"hidden": hidden, "batch": batch, "window": window, "warmup": warmup}
    start = partial(
        Aside,
        "bench.peers:theirs",
        threads=context.threads,
        folder=str(folder),
        steps=steps,
        **sizes,
    )
    with start(folder / "log", keep=False) as as_it_is, start(folder / "log2", keep=True) as helped:
        actions = {"theirs": as_it_is, "helped": helped}
        for precision, of in ours.items():
            step = loop(of, held, ModelKey("insitu", 0, 0))
            actions[precision] = several(step, steps)
        for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
            actions[f"gemm {precision}"] = machine.gemm(batch, hidden, 4 * hidden, dtype)
        told = partial(context.told, name)
        taken = in_turn(actions, context.rounds(3, 9), told=told)
    work = batch * (window + warmup) * steps
    gflop = data.flops(ours["bf16"], len(held.features.names)) / 1e9
    for precision, against, note in (
        ("bf16", "theirs", ""),
        ("fp32", "theirs", "in fp32, as theirs"),
        ("bf16", "helped", "theirs with the memory kept between steps, as soilweave does"),
    ):
        judged = precision == "bf16" and against == "theirs"
        yield Row(
            SECTION,
            f"whole loop, {name}, {precision}",
            "sequence-days/s",
            per_second(taken[precision], work),
            "neuralhydrology's trainer",
            per_second(taken[against], work),
            Aim(2.0) if judged else None,
            f"GEMM {precision}",
            per_second(taken[f"gemm {precision}"], 1 / gflop),
            way="the LSTM itself: what is left of the step beside it is small",
            note=note,
        )


def basins(of):
    """What both learn from."""
    return data.training_data(of, n_footprints=1, n_sites=N_BASINS, n_days=N_DAYS)


def several(step, n):
    """An action of n steps, which gives its seconds."""

    def action():
        begun = time.perf_counter()
        for _ in range(n):
            step()
        return time.perf_counter() - begun

    return action


def theirs(folder, steps, hidden, batch, window, warmup):
    """An action: an epoch of so many updates of their trainer, the order of the epoch included."""
    from neuralhydrology.training.basetrainer import BaseTrainer
    from neuralhydrology.utils.config import Config

    of = plain_recipe(hidden, batch, window, warmup, "fp32")
    with quiet():
        trainer = BaseTrainer(Config(settings(Path(folder), basins(of), of, steps)))
        trainer.initialize_training()

    def action():
        with quiet():
            begun = time.perf_counter()
            trainer._train_epoch(epoch=1)
            return time.perf_counter() - begun

    return action


def write(folder, held):
    """The sites as basins: a NetCDF file each, and a table of attributes."""
    (folder / "time_series").mkdir(parents=True, exist_ok=True)
    (folder / "attributes").mkdir(exist_ok=True)
    names = [f"basin{i:03d}" for i in range(held.sites.forcing.shape[0])]
    days = pd.date_range("2015-01-01", periods=held.n_days, name="date")
    for i, name in enumerate(names):
        forcing = held.sites.forcing[i].float().numpy()
        series = {v: ("date", forcing[:, k]) for k, v in enumerate(held.features.forcing)}
        series["moisture"] = ("date", held.insitu[i].numpy())
        xr.Dataset(series, {"date": days}).to_netcdf(folder / "time_series" / f"{name}.nc")
    static = pd.DataFrame(held.sites.static.numpy(), names, list(held.features.static))
    static.to_csv(folder / "attributes" / "all.csv", index_label="basin")
    (folder / "basins.txt").write_text("\n".join(names))


def settings(folder, held, of, steps):
    """Their configuration."""
    first, last = (
        np.datetime64("2015-01-01") + np.timedelta64(n, "D") for n in (0, held.n_days - 1)
    )
    dates = [f"{d.astype(object):%d/%m/%Y}" for d in (first, last)]
    basins = str(folder / "basins.txt")
    periods = {
        f"{p}_{end}_date": d
        for p in ("train", "validation", "test")
        for end, d in zip(("start", "end"), dates, strict=True)
    }
    files = {f"{p}_basin_file": basins for p in ("train", "validation", "test")}
    return (
        periods
        | files
        | {
            "experiment_name": "bench",
            "run_dir": str(folder / f"runs-{time.time_ns()}"),
            "data_dir": str(folder),
            "dataset": "generic",
            "model": "cudalstm",
            "head": "regression",
            "hidden_size": of.network.hidden_size,
            "initial_forget_bias": of.network.forget_bias,
            "output_dropout": 0.0,
            "output_activation": "linear",
            "optimizer": "AdamW",
            "learning_rate": {0: of.train.learning_rate},
            "loss": "RMSE",
            "clip_gradient_norm": of.train.gradient_clip,
            "batch_size": of.train.sites_per_step,
            "epochs": 1,
            "max_updates_per_epoch": steps,
            "seq_length": data.days(of),
            "predict_last_n": of.train.window_days,
            "dynamic_inputs": list(held.features.forcing),
            "static_attributes": list(held.features.static),
            "target_variables": ["moisture"],
            "device": "cpu",
            "num_workers": 0,
            "seed": 0,
            "verbose": 0,
            "log_tensorboard": False,
            "log_n_figures": 0,
            "save_weights_every": 10**6,
            "save_git_diff": False,
            "metrics": [],
        }
    )


@contextlib.contextmanager
def quiet():
    """Without what it says and warns of."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
