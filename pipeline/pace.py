"""How fast this machine trains and predicts: a few steps of an experiment's network, timed."""

from __future__ import annotations

import os
import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from model.network import Network
    from pipeline.config import Experiment

PLACES = 256  # of one timed step; a real one's time is in proportion
REPEATS = 3


class Pace(NamedTuple):
    """Seconds of a training step, cell-days per second of prediction, and what they take."""

    device: str
    step_s: float
    cell_days_per_s: float
    side_by_side: int
    step_mb: float
    checkpoint_mb: float


def measure(experiment: Experiment, n_features: int) -> Pace:
    """Time the network of an experiment on random numbers, as one worker would run it."""
    import torch

    from model.network import seeded_network

    train = experiment.train
    gpu = torch.cuda.is_available()
    threads = experiment.compute.threads_per_worker
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        network = seeded_network(experiment.network, n_features, likelihood=True, key=(0,))
        network = network.to("cuda" if gpu else "cpu")
        days = train.window_days + train.warmup_days
        x = torch.randn(PLACES, days, n_features, device="cuda" if gpu else "cpu")
        generator = torch.Generator().manual_seed(0)
        learn = _timed(lambda: _learn(network, x, generator, train.precision == "bf16"), gpu)
        with torch.no_grad():
            predict = _timed(lambda: network(x), gpu)
    finally:
        torch.set_num_threads(before)
    inner = 1 if train.footprint_operator == "inputs" else experiment.domain.refinement**2
    places = train.footprints_per_step * inner + train.sites_per_step
    weights = sum(p.numel() for p in network.parameters())
    hidden = experiment.network.hidden_size
    return Pace(
        torch.cuda.get_device_name() if gpu else f"{threads} thread(s) a worker",
        learn * places / PLACES,
        PLACES * days / predict,
        torch.cuda.device_count() if gpu else max(1, (os.cpu_count() or 1) // threads),
        places * days * hidden * 4 * 8 / 1e6,  # four gates, their gradients, state
        weights * 4 / 1e6,
    )


def _learn(network: Network, x: Tensor, generator: object, bf16: bool) -> None:
    import torch

    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        heads, _ = network(x, None, generator)
    loss = heads.site.abs().mean() + heads.satellite.abs().mean()
    loss.backward()
    network.zero_grad()


def _timed(step: Callable[[], object], gpu: bool) -> float:
    """Median seconds of a step, after one that warms up."""
    import torch

    step()
    taken = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        step()
        if gpu:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)
