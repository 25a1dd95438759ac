"""Measure how fast this machine trains and predicts: time a few steps of a network."""

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

PLACES = 256  # places in a timed step; the time of a real step is in proportion to its places
REPEATS = 3


class Pace(NamedTuple):
    """How fast a machine trains and predicts.

    Attributes:
      device: what was measured, in words.
      step_s: seconds of a training step.
      cell_days_per_s: cells times days that are predicted in a second.
      side_by_side: number of workers that run in parallel.
      step_mb: memory of a training step, MB.
      checkpoint_mb: size of a checkpoint, MB.
    """

    device: str
    step_s: float
    cell_days_per_s: float
    side_by_side: int
    step_mb: float
    checkpoint_mb: float


def measure(experiment: Experiment, n_features: int) -> Pace:
    """Time the network of an experiment on random numbers, as one worker would run it.

    Args:
      experiment: the experiment.
      n_features: number of inputs of its network.
    """
    import torch

    from model.network import seeded_network

    train = experiment.train
    gpu = torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    threads = experiment.compute.threads_per_worker
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        network = seeded_network(experiment.network, n_features, likelihood=True, key=(0,))
        network = network.to(device)
        days = train.window_days + train.warmup_days
        x = torch.randn(PLACES, days, n_features, device=device)
        generator = torch.Generator().manual_seed(0)
        train_s = _timed(lambda: _learn(network, x, generator, train.precision == "bf16"), gpu)
        with torch.no_grad():
            predict_s = _timed(lambda: network(x), gpu)
    finally:
        torch.set_num_threads(threads_before)
    cells = 1 if train.footprint_operator == "inputs" else experiment.domain.refinement**2
    places = train.footprints_per_step * cells + train.sites_per_step
    n_weights = sum(p.numel() for p in network.parameters())
    hidden = experiment.network.hidden_size
    return Pace(
        device=torch.cuda.get_device_name() if gpu else f"{threads} thread(s) a worker",
        step_s=train_s * places / PLACES,
        cell_days_per_s=PLACES * days / predict_s,
        side_by_side=torch.cuda.device_count() if gpu else max(1, (os.cpu_count() or 1) // threads),
        step_mb=places * days * hidden * 4 * 8 / 1e6,  # four gates, their gradients, state
        checkpoint_mb=n_weights * 4 / 1e6,
    )


def _learn(network: Network, x: Tensor, generator: object, bf16: bool) -> None:
    """Run one step forwards and backwards, with a simple loss."""
    import torch

    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        heads, _ = network(x, None, generator)
    loss = heads.site.abs().mean() + heads.satellite.abs().mean()
    loss.backward()
    network.zero_grad()


def _timed(step: Callable[[], object], gpu: bool) -> float:
    """Return the median seconds of a step; a first run that is not timed warms up."""
    import torch

    step()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        step()
        if gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
