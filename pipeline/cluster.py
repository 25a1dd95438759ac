"""The Ray cluster a stage runs on: the one of RAY_ADDRESS, or a local one for its time."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """A connection to Ray while the block runs; one that is already there is kept."""
    import ray

    _quiet()
    if ray.is_initialized():
        yield
        return
    # Never join a cluster by chance: "local" unless an address is given.
    ray.init(
        address=os.environ.get("RAY_ADDRESS", "local"),
        logging_level=logging.ERROR,
        log_to_driver=False,
        include_dashboard=False if "RAY_ADDRESS" not in os.environ else None,
    )
    try:
        yield
    finally:
        ray.shutdown()


def _quiet() -> None:
    """One progress line is ours; Ray's own bars and banners would run across it."""
    from ray.data import DataContext

    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
