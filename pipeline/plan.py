"""What an experiment will take, before any data are read: from the catalog and the settings alone.

Bytes and requests come from what the catalog says of its objects; shards, models and steps from
the settings; hours from a few steps of the same network on random numbers, timed on this machine.
Every cell of the window is counted as land, and every day as seen: an upper bound.
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

MEGABYTES_PER_SECOND = 50.0  # of a network, assumed
PLANET_CELL_DAYS_PER_S = 1e6
DECODED = 4  # times the size as stored
STORE_SHARE = 0.3  # of a node's memory, that Ray gives to its object store


class Work(NamedTuple):
    """What one stage takes."""

    stage: str
    tasks: str
    objects: int
    megabytes: float
    memory: Held
    hours: float


def tables(experiment: Experiment) -> list[Any]:
    """Two tables, of sources and of stages, and what they rest on."""
    sizes = sizes_of(experiment)
    measured = pace.measure(experiment, sizes.features)
    lines = work(experiment, sizes, measured)
    return [_sources(experiment), _stages(lines), _basis(experiment, sizes, measured)]


def sizes_of(experiment: Experiment) -> Sizes:
    """Cells, days and inputs of an experiment, by its settings and what its entries map."""
    window = schema.window(experiment)
    rows, cols = window.cell_shape
    first, last = experiment.period
    kinds = {"forcing": 0, "static": 0}
    for kind, entries in (
        ("forcing", experiment.sources.forcing),
        ("static", experiment.sources.static),
    ):
        named = {n for e in entries for n in _mapped(experiment, e)}
        known = [n for n in named if n in experiment.table and experiment.table[n].kind == kind]
        kinds[kind] = len(known)
    slow = sum(len(feature.days) for feature in experiment.inputs.slow)
    n_blocks = len(schema.block_range(experiment.period))
    inputs = kinds["forcing"] + kinds["static"] + slow
    days = (last - first).days + 1
    forcing, static = kinds["forcing"], kinds["static"]
    return Sizes(rows * cols, rows, cols, days, n_blocks, forcing, static, inputs)


def updates_per_model(experiment: Experiment, sizes: Sizes) -> int:
    """Updates of one model: as configured, or by the published rule over all places.

    How many sites there are is known of a planet alone; else every cell is counted as one.
    """
    days = (experiment.train_period[1] - experiment.train_period[0]).days + 1
    sites = experiment.planet.n_sites if experiment.planet else sizes.cells
    return models.updates_per_model(experiment, memory.learnt(experiment, sizes), sites, days)


def work(experiment: Experiment, sizes: Sizes, measured: Pace) -> list[Work]:
    """What each stage takes; not prepare, where another's cube is used."""
    prepare = [] if experiment.cube else [_prepare(experiment, sizes)]
    if experiment.planet and not experiment.cube:
        prepare.insert(0, _planet(experiment, sizes))
    train, predict = _train(experiment, sizes, measured), _predict(experiment, sizes, measured)
    judged = Work("evaluate", "1 table", 2, 0.0, memory.evaluate(experiment, sizes), 0.0)
    return [*prepare, train, predict, judged]


def _planet(experiment: Experiment, sizes: Sizes) -> Work:
    fields = sizes.cells * sizes.days * FLOAT / 1e6
    held, hours = (
        memory.planet(experiment, sizes),
        sizes.cells * sizes.days / PLANET_CELL_DAYS_PER_S,
    )
    return Work("planet", f"{sizes.days} days", 0, 2 * fields, held, hours / 3600)


def _prepare(experiment: Experiment, sizes: Sizes) -> Work:
    shards = _columns(sizes) * sizes.blocks
    field = schema.BLOCK_DAYS * sizes.cells * FLOAT / 1e6
    held = sizes.forcing * sizes.blocks * field + sizes.static * sizes.cells * FLOAT / 1e6
    volumes = {e: volume.of(experiment, e) for e in catalog.entries(experiment)}
    read = sum(v.megabytes * v.blocks for v in volumes.values() if v is not None)
    # A block of one variable as read, of days (hours become days chunk by chunk), decoded.
    daily = [_daily_megabytes(experiment, e, v) for e, v in volumes.items() if v is not None]
    source = DECODED * max(daily, default=0.0) / sizes.blocks / max(sizes.forcing, 1)
    hours = (read + held) / MEGABYTES_PER_SECOND / 3600
    tasks = f"{sizes.blocks} blocks"
    objects = shards * sizes.forcing + _columns(sizes) * sizes.static
    return Work("prepare", tasks, objects, held, memory.prepare(experiment, sizes, source), hours)


def _train(experiment: Experiment, sizes: Sizes, measured: Pace) -> Work:
    folds = experiment.folds  # how many other regions than bands there are is not known yet
    jobs = models.jobs(experiment, () if folds.kind == "none" else range(folds.n_folds))
    steps = updates_per_model(experiment, sizes)
    hours = len(jobs) * steps * measured.step_s / measured.side_by_side / 3600
    tasks = f"{len(jobs)} models x {steps:,} updates"
    size = len(jobs) * measured.checkpoint_mb
    held = memory.train(experiment, sizes, measured.step_mb)
    return Work("train", tasks, len(jobs) * 2, size, held, hours)


def _predict(experiment: Experiment, sizes: Sizes, measured: Pace) -> Work:
    arms, columns = len(experiment.arms), _columns(sizes)
    days = sizes.blocks * schema.BLOCK_DAYS
    held = arms * sizes.cells * days * 2 * (HALF + HALF + 1) / 1e6  # root and series
    runs = arms * experiment.n_seeds * sizes.cells * (sizes.days + min(sizes.days, 366))
    hours = runs / measured.cell_days_per_s / measured.side_by_side / 3600
    per_block = 3 * columns * arms
    objects = per_block * sizes.blocks + per_block * math.ceil(sizes.blocks / maps.SERIES_BLOCKS)
    tasks = f"{columns * arms} columns"
    return Work("predict", tasks, objects, held, memory.predict(experiment, sizes), hours)


def _daily_megabytes(experiment: Experiment, entry: str, found: Volume) -> float:
    """Megabytes of an entry once its hours are days."""
    spec = catalog.find(experiment.sources.catalog, entry).spec
    mapping = (spec.get("args") or {}).get("mapping") or {}
    return found.megabytes / (24 if "daily" in str(mapping) else 1)


def _columns(sizes: Sizes) -> int:
    return math.ceil(sizes.rows / schema.SHARD) * math.ceil(sizes.cols / schema.SHARD)


def _mapped(experiment: Experiment, entry: str) -> set[str]:
    """Our names of what an entry maps."""
    args = catalog.find(experiment.sources.catalog, entry).spec.get("args") or {}
    mapping = args.get("mapping") or {}
    parts = mapping if isinstance(mapping, list) else [mapping]
    return {name for part in parts for name in part} | set(args.get("classes") or {})


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
        said = catalog.find(experiment.sources.catalog, entry).spec.get("metadata") or {}
        found = volume.of(experiment, entry)
        auth = str(said.get("auth", "not said"))
        if found is None:
            table.add_row(entry, "?", "?", "1", "not said", auth)
        else:
            size = volume.size(found.megabytes)
            times = str(found.blocks)
            table.add_row(entry, f"{found.requests:,}", size, times, found.basis, auth)
    return table


def _stages(lines: list[Work]) -> Any:
    from rich.table import Table

    table = Table(title="what is computed, on this machine", title_justify="left")
    for name in ("stage", "tasks", "shards", "writes", "a worker", "driver", "hours"):
        table.add_column(name, justify="left" if name in ("stage", "tasks") else "right")
    for line in lines:
        held = (volume.size(mb) if mb else "" for mb in line.memory)
        size = volume.size(line.megabytes)
        hours = f"{line.hours:.2f}" if line.hours < 10 else f"{line.hours:,.0f}"
        table.add_row(line.stage, line.tasks, f"{line.objects:,}", size, *held, hours)
    return table


def _short(experiment: Experiment, sizes: Sizes, has_mb: float) -> str:
    """What to set where the training data do not fit into this machine's memory; else empty."""
    packed, room = memory.packed_mb(experiment, sizes), STORE_SHARE * has_mb
    if packed <= room:
        return ""
    most = int(memory.learnt(experiment, sizes) * room / packed)
    return (
        f"\ntrain shares {volume.size(packed)} among its workers; of this machine's "
        f"{volume.size(has_mb)} Ray's object store takes {volume.size(room)}: "
        f"set train.max_footprints={most}, or use nodes with more memory."
    )


def _basis(experiment: Experiment, sizes: Sizes, measured: Pace) -> str:
    return (
        "Times: how often prepare reads an object, block by block; with --stage-to once.\n"
        f"{sizes.rows} x {sizes.cols} cells, {sizes.days:,} days, {sizes.forcing} forcings, "
        f"{sizes.static} statics. Upper bounds: all cells land, sizes before compression. "
        f"Measured now, {measured.device}: {measured.step_s:.3f} s a training step, "
        f"{measured.cell_days_per_s:,.0f} cell-days a second in prediction, "
        f"{measured.side_by_side} side by side; reading and writing assumed at "
        f"{MEGABYTES_PER_SECOND:g} MB/s. Memory is what a process holds at most, of it in train "
        f"{volume.size(memory.packed_mb(experiment, sizes))} that all workers of a node share."
        + _short(experiment, sizes, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6)
    )
