"""How much memory each stage holds at most, in MB: what a process weighs, and the arrays of a task.

Resident memory, as the system counts it: private pages and those of files; what all processes of a
node share in Ray's object store is told apart, once. What processes weigh was measured
(`make conus`), and so was how many copies of an array are alive at once. No array but the training
data grows with the length of the record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pipeline import maps, schema

if TYPE_CHECKING:
    from pipeline.config import Experiment

WORKER_MB, DRIVER_MB = 680, 700  # of a process with torch, xarray, zarr, before it has data
FLOAT, HALF, DOUBLE = 4, 2, 8  # bytes
FIELDS = 8  # of a block of 32 days in float32 that prepare holds: read, regridded, compressed
PLANET_CHUNK_BYTES = 110  # a cell-day of a planet in the making
JUDGED_BYTES, MAPPED_BYTES = 110, 80  # a cell-day that is judged, that the report averages


class Sizes(NamedTuple):
    """How large an experiment is."""

    cells: int
    rows: int
    cols: int
    days: int
    blocks: int
    forcing: int
    static: int
    features: int


class Held(NamedTuple):
    """MB of a worker and of the driver; 0 where there is none."""

    worker: float
    driver: float


def planet(experiment: Experiment, sizes: Sizes) -> Held:
    """A chunk of days in the making, and footprints of all days."""
    footprints = sizes.cells // experiment.domain.refinement**2
    kept = footprints * sizes.days * (2 * DOUBLE + 2 * FLOAT)
    return Held(0, DRIVER_MB / 2 + _chunk_mb(sizes) + kept / 1e6)


def _chunk_mb(sizes: Sizes) -> float:
    """Days of a planet that are made at once."""
    from pipeline.osse.write import CHUNK_CELL_DAYS, CHUNK_DAYS

    chunk = min(CHUNK_CELL_DAYS, sizes.cells * min(CHUNK_DAYS, sizes.days))
    return chunk * PLANET_CHUNK_BYTES / 1e6


def prepare(experiment: Experiment, sizes: Sizes, source_mb: float) -> Held:
    """A block of one variable, of which a source has so many MB.

    The driver that has made a planet before keeps the memory that it took.
    """
    field = schema.BLOCK_DAYS * sizes.cells * FLOAT / 1e6
    before = _chunk_mb(sizes) if experiment.planet else 0
    return Held(WORKER_MB + FIELDS * field + 2 * source_mb, DRIVER_MB + before)


def train(experiment: Experiment, sizes: Sizes, step_mb: float) -> Held:
    """What a step takes, and observations; the packed data, before they are in the object store."""
    sampled = 250  # values that scales are fitted to
    observed = learnt(experiment, sizes) * sizes.days * FLOAT / 1e6
    driver = DRIVER_MB + sampled + packed_mb(experiment, sizes) + 3 * observed
    return Held(WORKER_MB + step_mb + observed, driver)


def packed_mb(experiment: Experiment, sizes: Sizes) -> float:
    """MB of the inputs that models learn from."""
    cells = learnt(experiment, sizes) * experiment.domain.refinement**2
    return cells * (sizes.days * sizes.forcing * HALF + sizes.static * FLOAT) / 1e6


def learnt(experiment: Experiment, sizes: Sizes) -> int:
    """Footprints that models learn from."""
    every = sizes.cells // experiment.domain.refinement**2
    return min(every, experiment.train.max_footprints or every)


def predict(experiment: Experiment, sizes: Sizes) -> Held:
    """A column: inputs and the days before them, its state, a year of maps in two bytes."""
    shard = min(schema.SHARD, sizes.rows) * min(schema.SHARD, sizes.cols)
    lead = max((max(slow.days) for slow in experiment.inputs.slow), default=1) - 1
    inputs = shard * (lead + schema.BLOCK_DAYS) * sizes.forcing * HALF
    year = maps.SERIES_BLOCKS * schema.BLOCK_DAYS * shard * (HALF + HALF + 1)
    states = shard * experiment.network.hidden_size * 2 * FLOAT
    series = 3 * schema.BLOCK_DAYS * shard * FLOAT
    members = experiment.n_seeds * (inputs + 2 * states + series)
    return Held(WORKER_MB + (2 * year + 3 * inputs + members) / 1e6, DRIVER_MB + 250)


def evaluate(experiment: Experiment, sizes: Sizes) -> Held:
    """Cells where the truth is known, and the sites."""
    from pipeline import truth

    first, last = experiment.test_period
    judged = min(truth.MOST_CELL_DAYS, truth.MOST * ((last - first).days + 1))
    if experiment.sources.truth is None:
        judged = 0
    mapped = sizes.cells * schema.BLOCK_DAYS
    return Held(0, DRIVER_MB + (judged * JUDGED_BYTES + mapped * MAPPED_BYTES) / 1e6)
