"""Estimate the peak memory of each stage in MB: that of a process, and the arrays of a task.

The estimate is resident memory as the system counts it: private pages and those of files. What all
processes of a node share in Ray's object store is stated separately, once. The memory of processes
and the number of copies of an array that are alive at once were measured (`make conus`). Apart from
the training data, no array grows with the length of the record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pipeline import maps, schema

if TYPE_CHECKING:
    from pipeline.config import Experiment

WORKER_MB, DRIVER_MB = 680, 700  # a process that has imported torch, xarray and zarr, without data
FLOAT, HALF, DOUBLE = 4, 2, 8  # bytes
# Copies of a block of 32 days in float32 that prepare holds: read, regridded, compressed.
FIELDS = 8
PLANET_CHUNK_BYTES = 110  # per cell and day while a planet is made
JUDGED_BYTES, MAPPED_BYTES = 110, 80  # per cell and day that is scored, that the report averages


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


class Held(NamedTuple):
    """Peak memory in MB of a worker and of the driver; 0 if there is none."""

    worker: float
    driver: float


def planet(experiment: Experiment, sizes: Sizes) -> Held:
    """Estimate `planet`: one chunk of days, and the footprints of all days."""
    footprints = sizes.cells // experiment.domain.refinement**2
    footprint_bytes = footprints * sizes.days * (2 * DOUBLE + 2 * FLOAT)
    return Held(0, DRIVER_MB / 2 + _chunk_mb(sizes) + footprint_bytes / 1e6)


def _chunk_mb(sizes: Sizes) -> float:
    """Return the MB of the days of a planet that are made at once."""
    from pipeline.osse.write import CHUNK_CELL_DAYS, CHUNK_DAYS

    cell_days = min(CHUNK_CELL_DAYS, sizes.cells * min(CHUNK_DAYS, sizes.days))
    return cell_days * PLANET_CHUNK_BYTES / 1e6


def prepare(experiment: Experiment, sizes: Sizes, source_mb: float) -> Held:
    """Estimate `prepare`, a task of which handles a block of days of one variable.

    A driver that has made a planet before keeps the memory that this took.

    Args:
      experiment: the experiment.
      sizes: its size.
      source_mb: decoded size of a block of days of one variable, MB.
    """
    block_mb = schema.BLOCK_DAYS * sizes.cells * FLOAT / 1e6
    planet_mb = _chunk_mb(sizes) if experiment.planet else 0
    return Held(WORKER_MB + FIELDS * block_mb + 2 * source_mb, DRIVER_MB + planet_mb)


def train(experiment: Experiment, sizes: Sizes, step_mb: float) -> Held:
    """Estimate `train`: a step and the observations; the driver also packs the training data.

    Args:
      experiment: the experiment.
      sizes: its size.
      step_mb: memory of a training step, MB.
    """
    sample_mb = 250  # values that the scales of inputs are fitted to
    observed_mb = learnt(experiment, sizes) * sizes.days * FLOAT / 1e6
    driver = DRIVER_MB + sample_mb + packed_mb(experiment, sizes) + 3 * observed_mb
    return Held(WORKER_MB + step_mb + observed_mb, driver)


def packed_mb(experiment: Experiment, sizes: Sizes) -> float:
    """Return the MB of the inputs that models are trained on."""
    cells = learnt(experiment, sizes) * experiment.domain.refinement**2
    return cells * (sizes.days * sizes.forcing * HALF + sizes.static * FLOAT) / 1e6


def learnt(experiment: Experiment, sizes: Sizes) -> int:
    """Return the number of footprints that models are trained on."""
    n_footprints = sizes.cells // experiment.domain.refinement**2
    return min(n_footprints, experiment.train.max_footprints or n_footprints)


def predict(experiment: Experiment, sizes: Sizes) -> Held:
    """Estimate `predict`, a task of which handles a tile.

    It holds the inputs of a block and of the days before it, the state of the network, and a year
    of maps in two bytes.
    """
    cells = min(schema.SHARD, sizes.rows) * min(schema.SHARD, sizes.cols)
    lead_days = max((max(slow.days) for slow in experiment.inputs.slow), default=1) - 1
    inputs = cells * (lead_days + schema.BLOCK_DAYS) * sizes.forcing * HALF
    year = maps.SERIES_BLOCKS * schema.BLOCK_DAYS * cells * (HALF + HALF + 1)
    states = cells * experiment.network.hidden_size * 2 * FLOAT
    series = 3 * schema.BLOCK_DAYS * cells * FLOAT
    members = experiment.n_seeds * (inputs + 2 * states + series)
    return Held(WORKER_MB + (2 * year + 3 * inputs + members) / 1e6, DRIVER_MB + 250)


def evaluate(experiment: Experiment, sizes: Sizes) -> Held:
    """Estimate `evaluate`: the cells whose truth is known, and the averages of maps."""
    from pipeline import truth

    first, last = experiment.test_period
    scored = min(truth.MOST_CELL_DAYS, truth.MOST * ((last - first).days + 1))
    if experiment.sources.truth is None:
        scored = 0
    mapped = sizes.cells * schema.BLOCK_DAYS
    return Held(0, DRIVER_MB + (scored * JUDGED_BYTES + mapped * MAPPED_BYTES) / 1e6)
