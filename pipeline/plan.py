"""Estimate what an experiment takes, from its settings and the catalog, before any data are read.

Bytes and requests come from the sizes stated in the catalog; shards, models and steps from the
settings; hours from a few steps of the same network on random numbers, timed on this machine. The
estimate is an upper bound: every cell of the window counts as land, and every day as observed.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline import catalog, maps, memory, models, pace, schema, volume
from pipeline.memory import FLOAT, HALF, Held, Sizes

if TYPE_CHECKING:
    from pipeline.config import Experiment
    from pipeline.pace import Pace
    from pipeline.volume import Volume

MEGABYTES_PER_SECOND = 50.0  # assumed speed of the network
PLANET_CELL_DAYS_PER_S = 1e6  # speed of making a synthetic planet
DECODED = 4  # size of decoded data, relative to that in storage
STORE_SHARE = 0.3  # share of a node's memory that Ray gives to its object store


class Work(NamedTuple):
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
    memory: Held
    hours: float


def tables(experiment: Experiment) -> list[Any]:
    """Return what `plan` prints: a table of sources, a table of stages, and the assumptions."""
    sizes = sizes_of(experiment)
    speed = pace.measure(experiment, sizes.features)
    stages = work(experiment, sizes, speed)
    return [_sources(experiment), _stages(stages), _basis(experiment, sizes, speed)]


def sizes_of(experiment: Experiment) -> Sizes:
    """Count the cells, days and inputs of an experiment, from its settings and the catalog."""
    window = schema.window(experiment)
    rows, cols = window.cell_shape
    first, last = experiment.period
    n_variables = {"forcing": 0, "static": 0}
    for kind, entries in (
        ("forcing", experiment.sources.forcing),
        ("static", experiment.sources.static),
    ):
        mapped = {name for entry in entries for name in _mapped(experiment, entry)}
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
    return models.updates_per_model(experiment, memory.learnt(experiment, sizes), sites, days)


def work(experiment: Experiment, sizes: Sizes, speed: Pace) -> list[Work]:
    """Return what each stage takes; without prepare if another workspace's cube is used."""
    prepare = [] if experiment.cube else [_prepare(experiment, sizes)]
    if experiment.planet and not experiment.cube:
        prepare.insert(0, _planet(experiment, sizes))
    train, predict = _train(experiment, sizes, speed), _predict(experiment, sizes, speed)
    evaluate = Work("evaluate", "1 table", 2, 0.0, memory.evaluate(experiment, sizes), 0.0)
    return [*prepare, train, predict, evaluate]


def _planet(experiment: Experiment, sizes: Sizes) -> Work:
    cell_days = sizes.cells * sizes.days
    field_mb = cell_days * FLOAT / 1e6
    hours = cell_days / PLANET_CELL_DAYS_PER_S / 3600
    peak = memory.planet(experiment, sizes)
    return Work("planet", f"{sizes.days} days", 0, 2 * field_mb, peak, hours)


def _prepare(experiment: Experiment, sizes: Sizes) -> Work:
    shards = _columns(sizes) * sizes.blocks
    block_mb = schema.BLOCK_DAYS * sizes.cells * FLOAT / 1e6
    written_mb = sizes.forcing * sizes.blocks * block_mb + sizes.static * sizes.cells * FLOAT / 1e6
    volumes = {e: volume.of(experiment, e) for e in catalog.entries(experiment)}
    read_mb = sum(v.megabytes * v.blocks for v in volumes.values() if v is not None)
    # Hours are averaged to days chunk by chunk, so that a task holds one decoded block of days of
    # one variable.
    daily_mb = [_daily_megabytes(experiment, e, v) for e, v in volumes.items() if v is not None]
    source_mb = DECODED * max(daily_mb, default=0.0) / sizes.blocks / max(sizes.forcing, 1)
    hours = (read_mb + written_mb) / MEGABYTES_PER_SECOND / 3600
    objects = shards * sizes.forcing + _columns(sizes) * sizes.static
    peak = memory.prepare(experiment, sizes, source_mb)
    return Work("prepare", f"{sizes.blocks} blocks", objects, written_mb, peak, hours)


def _train(experiment: Experiment, sizes: Sizes, speed: Pace) -> Work:
    # How many regions serve as folds is known only after reading; n_folds stands for that number.
    folds = experiment.folds
    jobs = models.jobs(experiment, () if folds.kind == "none" else range(folds.n_folds))
    n_updates = updates_per_model(experiment, sizes)
    hours = len(jobs) * n_updates * speed.step_s / speed.side_by_side / 3600
    tasks = f"{len(jobs)} models x {n_updates:,} updates"
    written_mb = len(jobs) * speed.checkpoint_mb
    peak = memory.train(experiment, sizes, speed.step_mb)
    return Work("train", tasks, len(jobs) * 2, written_mb, peak, hours)


def _predict(experiment: Experiment, sizes: Sizes, speed: Pace) -> Work:
    n_arms, columns = len(experiment.arms), _columns(sizes)
    days = sizes.blocks * schema.BLOCK_DAYS
    # Mean and spread in two bytes, flags in one; written twice, by day and as long series.
    written_mb = n_arms * sizes.cells * days * 2 * (HALF + HALF + 1) / 1e6
    cell_days = n_arms * experiment.n_seeds * sizes.cells * (sizes.days + min(sizes.days, 366))
    hours = cell_days / speed.cell_days_per_s / speed.side_by_side / 3600
    per_block = 3 * columns * n_arms
    objects = per_block * sizes.blocks + per_block * math.ceil(sizes.blocks / maps.SERIES_BLOCKS)
    peak = memory.predict(experiment, sizes)
    return Work("predict", f"{columns * n_arms} tiles", objects, written_mb, peak, hours)


def _daily_megabytes(experiment: Experiment, entry: str, size: Volume) -> float:
    """Return the megabytes of an entry once its hours are averaged to days."""
    spec = catalog.find(experiment.sources.catalog, entry).spec
    mapping = (spec.get("args") or {}).get("mapping") or {}
    return size.megabytes / (24 if "daily" in str(mapping) else 1)


def _columns(sizes: Sizes) -> int:
    """Return the number of tiles of a map."""
    return math.ceil(sizes.rows / schema.SHARD) * math.ceil(sizes.cols / schema.SHARD)


def _mapped(experiment: Experiment, entry: str) -> set[str]:
    """Return the names of the variables that an entry provides."""
    args = catalog.find(experiment.sources.catalog, entry).spec.get("args") or {}
    mapping = args.get("mapping") or {}
    mappings = mapping if isinstance(mapping, list) else [mapping]
    return {name for part in mappings for name in part} | set(args.get("classes") or {})


def _sources(experiment: Experiment) -> Any:
    from rich.table import Table

    table = Table(title=f"{experiment.name}: what is read", title_justify="left")
    table.add_column("entry", no_wrap=True)
    for name in ("requests", "size", "times"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("basis")
    table.add_column("login")
    prepared = [] if experiment.cube else catalog.entries(experiment)
    for entry in [*prepared, *experiment.baselines]:
        metadata = catalog.find(experiment.sources.catalog, entry).spec.get("metadata") or {}
        entry_volume = volume.of(experiment, entry)
        auth = str(metadata.get("auth", "not stated"))
        if entry_volume is None:
            table.add_row(entry, "?", "?", "1", "not stated", auth)
        else:
            requests, size = f"{entry_volume.requests:,}", volume.size(entry_volume.megabytes)
            times = str(entry_volume.blocks)
            table.add_row(entry, requests, size, times, entry_volume.basis, auth)
    return table


def _stages(stages: list[Work]) -> Any:
    from rich.table import Table

    table = Table(title="what is computed, on this machine", title_justify="left")
    for name in ("stage", "tasks", "shards", "writes", "a worker", "driver", "hours"):
        table.add_column(name, justify="left" if name in ("stage", "tasks") else "right")
    for stage in stages:
        peak = (volume.size(mb) if mb else "" for mb in stage.memory)
        size = volume.size(stage.megabytes)
        hours = f"{stage.hours:.2f}" if stage.hours < 10 else f"{stage.hours:,.0f}"
        table.add_row(stage.stage, stage.tasks, f"{stage.objects:,}", size, *peak, hours)
    return table


def _short(experiment: Experiment, sizes: Sizes, memory_mb: float) -> str:
    """Return what to set if the training data do not fit into this machine's memory; else ""."""
    packed, room = memory.packed_mb(experiment, sizes), STORE_SHARE * memory_mb
    if packed <= room:
        return ""
    most = int(memory.learnt(experiment, sizes) * room / packed)
    return (
        f"\nThe workers of train share {volume.size(packed)}, but Ray's object store has only "
        f"{volume.size(room)} of this machine's {volume.size(memory_mb)}: "
        f"set train.max_footprints={most}, or use nodes with more memory."
    )


def _basis(experiment: Experiment, sizes: Sizes, speed: Pace) -> str:
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
    return (
        "Times: how often prepare reads an object, block by block; once with --stage-to.\n"
        f"{sizes.rows} x {sizes.cols} cells, {sizes.days:,} days, {sizes.forcing} forcings, "
        f"{sizes.static} statics. Upper bounds: all cells land, sizes before compression. "
        f"Measured now on {speed.device}: {speed.step_s:.3f} s per training step, "
        f"{speed.cell_days_per_s:,.0f} cell-days per second in prediction, "
        f"{speed.side_by_side} workers in parallel; reading and writing are assumed to reach "
        f"{MEGABYTES_PER_SECOND:g} MB/s. Memory is the peak of a process; in train it includes "
        f"{volume.size(memory.packed_mb(experiment, sizes))} that all workers of a node share."
        + _short(experiment, sizes, memory_mb)
    )
