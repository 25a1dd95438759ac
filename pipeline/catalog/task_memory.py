"""Estimate the peak memory of a task of `prepare` and of `predict`, in MB.

`plan` shows these numbers, and the stages declare them to Ray, which then never runs more tasks on
a node than fit its memory. The memory of a process and the number of copies of an array that are
alive at once were measured (`make conus`). They do not grow with the length of the record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.catalog import intake_catalog
from pipeline.experiment import config
from pipeline.storage import maps_schema, schema

if TYPE_CHECKING:
    from pipeline.catalog.intake_catalog import Volume
    from pipeline.experiment.config import Experiment


WORKER_MB = 680  # a process that has imported torch, xarray and zarr, without data
FLOAT_BYTES, HALF_BYTES = 4, 2  # bytes
DECODED_RATIO = 4  # size of decoded data, relative to that in storage

# Copies of a block of 32 days in float32 that prepare holds: read, regridded, compressed.
BLOCK_COPIES = 8


def prepare_task_mb(experiment: Experiment, n_forcing: int) -> float:
    """Estimate a task of `prepare`, which handles a block of days, one variable at a time.

    Args:
      experiment: The experiment.
      n_forcing: Number of forcing variables.
    """
    rows, cols = config.experiment_window(experiment).cell_shape
    block_mb = schema.BLOCK_DAYS * rows * cols * FLOAT_BYTES / 1e6
    volumes = {
        entry: intake_catalog.entry_volume(experiment, entry)
        for entry in intake_catalog.cube_entries(experiment)
    }
    # Hours are averaged to days chunk by chunk, so that a task holds one decoded block of days of
    # one variable.
    daily_mb = [_daily_megabytes(experiment, e, v) for e, v in volumes.items() if v is not None]
    n_blocks = len(schema.block_range(experiment.period))
    source_mb = DECODED_RATIO * max(daily_mb, default=0.0) / n_blocks / max(n_forcing, 1)
    return WORKER_MB + BLOCK_COPIES * block_mb + 2 * source_mb


def predict_task_mb(experiment: Experiment, n_forcing: int) -> float:
    """Estimate a task of `predict`, which handles a tile.

    It holds the inputs of a block and of the days before it, the state of the network, and a year
    of maps in two bytes.

    Args:
      experiment: The experiment.
      n_forcing: Number of forcing variables.
    """
    rows, cols = config.experiment_window(experiment).cell_shape
    cells = min(schema.SHARD, rows) * min(schema.SHARD, cols)
    lead_days = max((max(slow.days) for slow in experiment.inputs.slow), default=1) - 1
    inputs = cells * (lead_days + schema.BLOCK_DAYS) * n_forcing * HALF_BYTES
    year = maps_schema.SERIES_BLOCKS * schema.BLOCK_DAYS * cells * (HALF_BYTES + HALF_BYTES + 1)
    states = cells * experiment.network.hidden_size * 2 * FLOAT_BYTES
    series = 3 * schema.BLOCK_DAYS * cells * FLOAT_BYTES
    members = experiment.n_seeds * (inputs + 2 * states + series)
    return WORKER_MB + (2 * year + 3 * inputs + members) / 1e6


def _daily_megabytes(experiment: Experiment, entry: str, size: Volume) -> float:
    """Return the megabytes of an entry once its hours are averaged to days."""
    spec = intake_catalog.find_entry(experiment.sources.catalog, entry).spec
    mapping = (spec.get("args") or {}).get("mapping") or {}
    return size.megabytes / (24 if "daily" in str(mapping) else 1)
