"""The Ray cluster a stage runs on: the one of RAY_ADDRESS, or a local one for its time."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ray.util.queue import Queue

    from pipeline.progress import Progress

log = logging.getLogger(__name__)


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


@contextlib.contextmanager
def told(progress: Progress) -> Iterator[Queue]:
    """A queue on the driver's node; what workers put there advances the progress."""
    import ray
    from ray.util.queue import Empty, Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    over = threading.Event()

    def drain() -> None:
        while not over.is_set():
            with contextlib.suppress(Empty):
                progress.advance(queue.get(timeout=0.5))

    listener = threading.Thread(target=drain, daemon=True)
    listener.start()
    try:
        yield queue
    finally:
        over.set()
        listener.join()
        queue.shutdown(force=True)


def tell(queue: Any, units: int) -> None:
    """Report progress from a worker; a queue that went with its node stops nothing."""
    import ray.exceptions

    if queue is not None:
        try:
            queue.put_nowait(units)
        except ray.exceptions.RayError as error:
            log.warning("progress not reported: %s", error)


def _quiet() -> None:
    """One progress line is ours; Ray's own bars and banners would run across it."""
    from ray.data import DataContext

    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
