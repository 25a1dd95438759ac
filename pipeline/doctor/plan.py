"""Estimate the peak memory of each stage in MB: that of a process, and the arrays of a task.

The estimate is resident memory as the system counts it: private pages and those of files. What all
processes of a node share in Ray's object store is stated separately, once. The memory of processes
and the number of copies of an array that are alive at once were measured (`make conus`). Apart from
the training data, no array grows with the length of the record. What a task of prepare and of
predict needs is in `catalog/task_memory.py`, because these stages declare it to Ray.

Estimate what an experiment takes, from its settings and the catalog, before any data are read.

Bytes and requests come from the sizes stated in the catalog; shards, models and steps from the
settings; hours from a few steps of the same network on random numbers, timed on this machine. The
estimate is an upper bound: every cell of the window counts as land, and every day as observed.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.catalog import intake_catalog, task_memory
from pipeline.catalog.task_memory import FLOAT_BYTES, HALF_BYTES, WORKER_MB
from pipeline.experiment import config
from pipeline.storage import climatology, maps_schema, models, schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from model.network import Network
    from pipeline.experiment.config import ComputeConfig, Experiment


DRIVER_MB = 700  # the driver's process when it has imported torch, xarray and zarr, without data
DOUBLE_BYTES = 8  # bytes
PLANET_CHUNK_BYTES = 110  # per cell and day while a planet is made
SCORED_BYTES, MAPPED_BYTES = 110, 80  # per cell and day that is scored, that the report averages


class Sizes(NamedTuple):
    """How large an experiment is.

    Attributes:
      cells: number of cells of the window, rows times cols.
      rows: rows of cells.
      cols: columns of cells.
      days: days of the period.
      blocks: blocks of days that the period touches.
      forcing: forcing variables.
      static: static variables.
      features: inputs of the network.
    """

    cells: int
    rows: int
    cols: int
    days: int
    blocks: int
    forcing: int
    static: int
    features: int


class PeakMemory(NamedTuple):
    """Peak memory in MB of a worker and of the driver; 0 if there is none."""

    worker: float
    driver: float


def planet_memory(experiment: Experiment, sizes: Sizes) -> PeakMemory:
    """Estimate `planet`: one chunk of days, and the footprints of all days."""
    footprints = sizes.cells // experiment.domain.refinement**2
    footprint_bytes = footprints * sizes.days * (2 * DOUBLE_BYTES + 2 * FLOAT_BYTES)
    return PeakMemory(0, DRIVER_MB / 2 + _chunk_mb(sizes) + footprint_bytes / 1e6)


def _chunk_mb(sizes: Sizes) -> float:
    """Return the MB of the days of a planet that are made at once."""
    from pipeline.planet.stage import CHUNK_CELL_DAYS, CHUNK_DAYS

    cell_days = min(CHUNK_CELL_DAYS, sizes.cells * min(CHUNK_DAYS, sizes.days))
    return cell_days * PLANET_CHUNK_BYTES / 1e6


def prepare_memory(experiment: Experiment, sizes: Sizes) -> PeakMemory:
    """Estimate `prepare`. A driver that has made a planet before keeps the memory that this took.

    Args:
      experiment: the experiment.
      sizes: its size.
    """
    planet_mb = _chunk_mb(sizes) if experiment.planet else 0
    worker_mb = task_memory.prepare_task_mb(experiment, sizes.forcing)
    return PeakMemory(worker_mb, DRIVER_MB + planet_mb)


def train_memory(experiment: Experiment, sizes: Sizes, step_mb: float) -> PeakMemory:
    """Estimate `train`: a step and the observations; the driver also packs the training data.

    Args:
      experiment: the experiment.
      sizes: its size.
      step_mb: memory of a training step, MB.
    """
    sample_mb = 250  # values that the scales of inputs are fitted to
    observed_mb = count_footprints(experiment, sizes) * sizes.days * FLOAT_BYTES / 1e6
    driver = DRIVER_MB + sample_mb + training_data_mb(experiment, sizes) + 3 * observed_mb
    return PeakMemory(WORKER_MB + step_mb + observed_mb, driver)


def training_data_mb(experiment: Experiment, sizes: Sizes) -> float:
    """Return the MB of the inputs that models are trained on."""
    cells = count_footprints(experiment, sizes) * experiment.domain.refinement**2
    return cells * (sizes.days * sizes.forcing * HALF_BYTES + sizes.static * FLOAT_BYTES) / 1e6


def count_footprints(experiment: Experiment, sizes: Sizes) -> int:
    """Return the number of footprints that models are trained on."""
    n_footprints = sizes.cells // experiment.domain.refinement**2
    return min(n_footprints, experiment.train.max_footprints or n_footprints)


def predict_memory(experiment: Experiment, sizes: Sizes) -> PeakMemory:
    """Estimate `predict`."""
    return PeakMemory(task_memory.predict_task_mb(experiment, sizes.forcing), DRIVER_MB + 250)


def evaluate_memory(experiment: Experiment, sizes: Sizes) -> PeakMemory:
    """Estimate `evaluate`: the cells whose truth is known, and the averages of maps."""
    from pipeline.evaluate import stage

    first, last = experiment.test_period
    scored = min(stage.MAX_CELL_DAYS, stage.MAX_CELLS * ((last - first).days + 1))
    if experiment.sources.truth is None:
        scored = 0
    mapped = sizes.cells * schema.BLOCK_DAYS
    return PeakMemory(0, DRIVER_MB + (scored * SCORED_BYTES + mapped * MAPPED_BYTES) / 1e6)


TIMED_PLACES = 256  # places in a timed step; the time of a real step is in proportion to its places
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


def measure_pace(experiment: Experiment, n_features: int) -> Pace:
    """Time the network of an experiment on random numbers, as one worker would run it.

    Args:
      experiment: the experiment.
      n_features: number of inputs of its network.
    """
    import torch

    from model.device import trains_in_bf16
    from model.network import seeded_network

    train = experiment.train
    gpu = torch.cuda.is_available() and experiment.compute.gpus != 0
    device = "cuda" if gpu else "cpu"
    threads = experiment.compute.cpus_per_worker
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        network = seeded_network(experiment.network, n_features, likelihood=True, key=(0,))
        network = network.to(device)
        days = train.window_days + train.warmup_days
        x = torch.randn(TIMED_PLACES, days, n_features, device=device)
        generator = torch.Generator(device).manual_seed(0)
        bf16 = trains_in_bf16(train.precision, device)
        train_s = _median_seconds(lambda: _train_step(network, x, generator, bf16), gpu)
        with torch.no_grad():
            predict_s = _median_seconds(lambda: network(x), gpu)
    finally:
        torch.set_num_threads(threads_before)
    measured = torch.cuda.get_device_name() if gpu else f"{threads} thread(s) a worker"
    if train.precision == "bf16" and not bf16:
        measured += " (in fp32, as it has no LSTM in bf16)"
    cells = 1 if train.footprint_operator == "inputs" else experiment.domain.refinement**2
    places = train.footprints_per_step * cells + train.sites_per_step
    n_weights = sum(p.numel() for p in network.parameters())
    hidden = experiment.network.hidden_size
    return Pace(
        device=measured,
        step_s=train_s * places / TIMED_PLACES,
        cell_days_per_s=TIMED_PLACES * days / predict_s,
        side_by_side=_count_workers(experiment.compute, torch.cuda.device_count() if gpu else 0),
        step_mb=places * days * hidden * 4 * 8 / 1e6,  # four gates, their gradients, state
        checkpoint_mb=n_weights * 4 / 1e6,
    )


def _count_workers(compute: ComputeConfig, gpus_here: int) -> int:
    """Return the number of workers: as declared, or as many as this machine has room for."""
    on_cpus = compute.workers or max(1, (os.cpu_count() or 1) // compute.cpus_per_worker)
    return compute.gpus or gpus_here or on_cpus


def _train_step(network: Network, x: Tensor, generator: object, bf16: bool) -> None:
    """Run one step forwards and backwards, with a simple loss."""
    import torch

    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        heads, _ = network(x, None, generator)
    loss = heads.site.abs().mean() + heads.satellite.abs().mean()
    loss.backward()
    network.zero_grad()


def _median_seconds(step: Callable[[], object], gpu: bool) -> float:
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


MEGABYTES_PER_SECOND = 50.0  # assumed speed of the network
PLANET_CELL_DAYS_PER_S = 1e6  # speed of making a synthetic planet
STORE_SHARE = 0.3  # share of a node's memory that Ray gives to its object store


class StageWork(NamedTuple):
    """What one stage takes.

    Attributes:
      stage: name of the stage.
      tasks: number and kind of its tasks, in words.
      objects: number of shards written, upper bound.
      megabytes: size of what is written, before compression.
      memory: peak memory of a worker and of the driver, MB.
      hours: time on this machine.
    """

    stage: str
    tasks: str
    objects: int
    megabytes: float
    memory: PeakMemory
    hours: float


def plan_tables(experiment: Experiment) -> list[Any]:
    """Return what `plan` prints: a table of sources, a table of stages, and the assumptions."""
    sizes = experiment_sizes(experiment)
    speed = measure_pace(experiment, sizes.features)
    stages = estimate_work(experiment, sizes, speed)
    return [
        _source_table(experiment),
        _stage_table(stages),
        _describe_basis(experiment, sizes, speed) + _advise_on_declared(experiment, speed, stages),
    ]


def experiment_sizes(experiment: Experiment) -> Sizes:
    """Count the cells, days and inputs of an experiment, from its settings and the catalog."""
    window = config.experiment_window(experiment)
    rows, cols = window.cell_shape
    first, last = experiment.period
    n_variables = {"forcing": 0, "static": 0}
    for kind, entries in (
        ("forcing", experiment.sources.forcing),
        ("static", experiment.sources.static),
    ):
        mapped = {name for entry in entries for name in _mapped_variables(experiment, entry)}
        known = [n for n in mapped if n in experiment.table and experiment.table[n].kind == kind]
        n_variables[kind] = len(known)
    forcing, static = n_variables["forcing"], n_variables["static"]
    slow = sum(len(feature.days) for feature in experiment.inputs.slow)
    n_blocks = len(schema.block_range(experiment.period))
    days = (last - first).days + 1
    features = forcing + static + slow
    return Sizes(rows * cols, rows, cols, days, n_blocks, forcing, static, features)


def updates_per_model(experiment: Experiment, sizes: Sizes) -> int:
    """Return the number of updates of one model: as configured, or by the published rule.

    The rule needs the number of sites, which is known before reading for synthetic planets only.
    For other experiments every cell is counted as a site.
    """
    days = (experiment.train_period[1] - experiment.train_period[0]).days + 1
    sites = experiment.planet.n_sites if experiment.planet else sizes.cells
    return models.updates_per_model(experiment, count_footprints(experiment, sizes), sites, days)


def estimate_work(experiment: Experiment, sizes: Sizes, speed: Pace) -> list[StageWork]:
    """Return what each stage takes; without prepare if another workspace's cube is used."""
    prepare = [] if experiment.cube else [_prepare_work(experiment, sizes)]
    if experiment.planet and not experiment.cube:
        prepare.insert(0, _planet_work(experiment, sizes))
    train, predict = _train_work(experiment, sizes, speed), _predict_work(experiment, sizes, speed)
    evaluate = StageWork("evaluate", "1 table", 2, 0.0, evaluate_memory(experiment, sizes), 0.0)
    return [*prepare, train, predict, evaluate]


def _planet_work(experiment: Experiment, sizes: Sizes) -> StageWork:
    cell_days = sizes.cells * sizes.days
    field_mb = cell_days * FLOAT_BYTES / 1e6
    hours = cell_days / PLANET_CELL_DAYS_PER_S / 3600
    peak = planet_memory(experiment, sizes)
    return StageWork("planet", f"{sizes.days} days", 0, 2 * field_mb, peak, hours)


def _prepare_work(experiment: Experiment, sizes: Sizes) -> StageWork:
    shards = _count_tiles(sizes) * sizes.blocks
    block_mb = schema.BLOCK_DAYS * sizes.cells * FLOAT_BYTES / 1e6
    written_mb = (
        sizes.forcing * sizes.blocks * block_mb + sizes.static * sizes.cells * FLOAT_BYTES / 1e6
    )
    volumes = {
        e: intake_catalog.entry_volume(experiment, e)
        for e in intake_catalog.cube_entries(experiment)
    }
    read_mb = sum(v.megabytes * v.blocks for v in volumes.values() if v is not None)
    hours = (read_mb + written_mb) / MEGABYTES_PER_SECOND / 3600
    objects = shards * sizes.forcing + _count_tiles(sizes) * sizes.static
    peak = prepare_memory(experiment, sizes)
    return StageWork("prepare", f"{sizes.blocks} blocks", objects, written_mb, peak, hours)


def _train_work(experiment: Experiment, sizes: Sizes, speed: Pace) -> StageWork:
    # How many regions serve as folds is known only after reading; n_folds stands for that number.
    folds = experiment.folds
    jobs = models.list_models(experiment, () if folds.kind == "none" else range(folds.n_folds))
    n_updates = updates_per_model(experiment, sizes)
    hours = len(jobs) * n_updates * speed.step_s / speed.side_by_side / 3600
    tasks = f"{len(jobs)} models x {n_updates:,} updates"
    written_mb = len(jobs) * speed.checkpoint_mb
    peak = train_memory(experiment, sizes, speed.step_mb)
    return StageWork("train", tasks, len(jobs) * 2, written_mb, peak, hours)


def _predict_work(experiment: Experiment, sizes: Sizes, speed: Pace) -> StageWork:
    n_arms, columns = len(experiment.arms), _count_tiles(sizes)
    days = sizes.blocks * schema.BLOCK_DAYS
    # Mean and spread in two bytes, flags in one; percentile and anomaly in two, if there are any;
    # written twice.
    layers = 3 if climatology.reference_period(experiment) is None else 5
    n_bytes = HALF_BYTES * (layers - 1) + 1
    written_mb = n_arms * sizes.cells * days * 2 * n_bytes / 1e6
    cell_days = n_arms * experiment.n_seeds * sizes.cells * (sizes.days + min(sizes.days, 366))
    hours = cell_days / speed.cell_days_per_s / speed.side_by_side / 3600
    per_block = layers * columns * n_arms
    objects = per_block * sizes.blocks + per_block * math.ceil(
        sizes.blocks / maps_schema.SERIES_BLOCKS
    )
    peak = predict_memory(experiment, sizes)
    return StageWork("predict", f"{columns * n_arms} tiles", objects, written_mb, peak, hours)


def _count_tiles(sizes: Sizes) -> int:
    """Return the number of tiles of a map."""
    return math.ceil(sizes.rows / schema.SHARD) * math.ceil(sizes.cols / schema.SHARD)


def _mapped_variables(experiment: Experiment, entry: str) -> set[str]:
    """Return the names of the variables that an entry provides."""
    args = intake_catalog.find_entry(experiment.sources.catalog, entry).spec.get("args") or {}
    mapping = args.get("mapping") or {}
    mappings = mapping if isinstance(mapping, list) else [mapping]
    return {name for part in mappings for name in part} | set(args.get("classes") or {})


def _source_table(experiment: Experiment) -> Any:
    from rich.table import Table

    table = Table(title=f"{experiment.name}: what is read", title_justify="left")
    table.add_column("entry", no_wrap=True)
    for name in ("requests", "size", "times"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("basis")
    table.add_column("login")
    prepared = [] if experiment.cube else intake_catalog.cube_entries(experiment)
    for entry in [*prepared, *experiment.baselines]:
        metadata = (
            intake_catalog.find_entry(experiment.sources.catalog, entry).spec.get("metadata") or {}
        )
        entry_volume = intake_catalog.entry_volume(experiment, entry)
        auth = str(metadata.get("auth", "not stated"))
        if entry_volume is None:
            table.add_row(entry, "?", "?", "1", "not stated", auth)
        else:
            requests, size = (
                f"{entry_volume.requests:,}",
                intake_catalog.format_size(entry_volume.megabytes),
            )
            times = str(entry_volume.blocks)
            table.add_row(entry, requests, size, times, entry_volume.basis, auth)
    return table


def _stage_table(stages: list[StageWork]) -> Any:
    from rich.table import Table

    table = Table(title="what is computed, on this machine", title_justify="left")
    for name in ("stage", "tasks", "shards", "writes", "a worker", "driver", "hours"):
        table.add_column(name, justify="left" if name in ("stage", "tasks") else "right")
    for stage in stages:
        peak = (intake_catalog.format_size(mb) if mb else "" for mb in stage.memory)
        size = intake_catalog.format_size(stage.megabytes)
        hours = f"{stage.hours:.2f}" if stage.hours < 10 else f"{stage.hours:,.0f}"
        table.add_row(stage.stage, stage.tasks, f"{stage.objects:,}", size, *peak, hours)
    return table


def _advise_on_memory(experiment: Experiment, sizes: Sizes, memory_mb: float) -> str:
    """Return what to set if the training data do not fit into this machine's memory; else ""."""
    packed, room = training_data_mb(experiment, sizes), STORE_SHARE * memory_mb
    if packed <= room:
        return ""
    most = int(count_footprints(experiment, sizes) * room / packed)
    needed, available, memory = map(intake_catalog.format_size, (packed, room, memory_mb))
    return (
        f"\nThe workers of train share {needed}, but Ray's object store has only {available} of "
        f"this machine's {memory}: "
        f"set train.max_footprints={most}, or use nodes with more memory."
    )


def _advise_on_declared(experiment: Experiment, speed: Pace, stages: list[StageWork]) -> str:
    """Return what does not fit to the declared resources; an empty string if there is nothing."""
    gpus, gb = experiment.compute.gpus, experiment.compute.memory or math.inf
    lines = [
        f"\ncompute.memory reserves {gb:g} GB for a worker, but one of {stage.stage} may take "
        f"{intake_catalog.format_size(stage.memory.worker)}: raise it."
        for stage in stages
        if stage.memory.worker > 1000 * gb
    ]
    if gpus and "thread" in speed.device:
        lines.append(f"\nThis machine has no GPU: hours are those of {gpus} CPU workers.")
    return "".join(lines)


def _describe_basis(experiment: Experiment, sizes: Sizes, speed: Pace) -> str:
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
    shared = intake_catalog.format_size(training_data_mb(experiment, sizes))
    return (
        "Times: how often prepare reads an object, block by block; once with --stage-to.\n"
        f"{sizes.rows} x {sizes.cols} cells, {sizes.days:,} days, {sizes.forcing} forcings, "
        f"{sizes.static} statics. Upper bounds: all cells land, sizes before compression. "
        f"Measured now on {speed.device}: {speed.step_s:.3f} s per training step, "
        f"{speed.cell_days_per_s:,.0f} cell-days per second in prediction, "
        f"{speed.side_by_side} workers in parallel; reading and writing are assumed to reach "
        f"{MEGABYTES_PER_SECOND:g} MB/s. Memory is the peak of a process; in train it includes "
        f"{shared} that all workers of a node share."
        + _advise_on_memory(experiment, sizes, memory_mb)
    )
