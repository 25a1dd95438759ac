"""Connect to Ray, check its nodes, collect progress, and run one task per item.

Stages run on the cluster of RAY_ADDRESS, or else on a local Ray that starts when it is needed. An
item whose receipt an earlier run left is not run again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import uuid
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline import files
from pipeline.errors import SoilweaveError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pipeline.files import Json
    from pipeline.progress import Progress

    Receipts = Callable[[Json], Json | None]


log = logging.getLogger(__name__)
PROBE_TIMEOUT_S = 60.0  # seconds after which a node that has not answered counts as unreachable
_session: ContextVar[contextlib.ExitStack | None] = ContextVar("_session", default=None)


@contextlib.contextmanager
def session(url: str) -> Iterator[None]:
    """Share one connection to Ray between all stages of a verb.

    A local Ray starts only when a stage needs it. On a cluster, every node must be able to read and
    write `url` before anything is computed.

    Raises:
      StoreError: If there is no cluster at RAY_ADDRESS, or nodes cannot read and write `url`; it
        names these nodes.
    """
    with contextlib.ExitStack() as stack:
        token = _session.set(stack)
        stack.callback(_session.reset, token)
        if "RAY_ADDRESS" in os.environ:
            stack.enter_context(connected())
            probe(url)
        yield


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Connect to Ray while the block runs; inside a `session`, until the session ends.

    Raises:
      StoreError: If there is no cluster at RAY_ADDRESS.
    """
    import ray

    _silence_ray()
    if ray.is_initialized():
        yield
        return
    # Never join a cluster by chance: "local" unless an address is given.
    try:
        ray.init(
            address=os.environ.get("RAY_ADDRESS", "local"),
            logging_level=logging.ERROR,
            log_to_driver=False,
            include_dashboard=False if "RAY_ADDRESS" not in os.environ else None,
        )
    except ConnectionError as error:
        hint = "start one with `ray start --head`, or unset RAY_ADDRESS to work on this machine"
        raise StoreError(os.environ["RAY_ADDRESS"], "no Ray cluster", remedy=hint) from error
    with contextlib.ExitStack() as stack:
        (_session.get() or stack).callback(ray.shutdown)
        yield


def probe(url: str) -> None:
    """Check that all nodes can read and write a URL, and that the driver sees their files.

    Raises:
      StoreError: If any node cannot; it names every such node, and why.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    folder = files.join(url, f".probe-{uuid.uuid4().hex[:8]}")
    files.write_bytes(files.join(folder, "driver"), b"driver")
    task = ray.remote(num_cpus=0, max_retries=0)(_try_storage)
    try:
        pending = {}
        for node_info in (n for n in ray.nodes() if n["Alive"]):  # type: ignore[no-untyped-call]
            on_node = NodeAffinitySchedulingStrategy(node_info["NodeID"], soft=False)
            run = task.options(scheduling_strategy=on_node)
            pending[run.remote(folder, node_info["NodeID"])] = node_info
        done, unanswered = ray.wait([*pending], num_returns=len(pending), timeout=PROBE_TIMEOUT_S)
        problems = [
            f"node {pending[r]['NodeManagerAddress']}: no answer within {PROBE_TIMEOUT_S:.0f} s"
            for r in unanswered
        ]
        for ref in done:
            node_info = pending[ref]
            try:
                problem = ray.get(ref) or _check_seen_by_driver(folder, node_info["NodeID"])
            except ray.exceptions.RayError as error:
                problem = str(error).strip().splitlines()[-1]
            if problem:
                problems.append(f"node {node_info['NodeManagerAddress']}: {problem}")
    finally:
        files.remove(folder)
    if problems:
        hint = "give all nodes the keys and the endpoint, or a workspace that all of them share"
        raise StoreError(url, *sorted(problems), remedy=hint)


def _try_storage(folder: str, node_id: str) -> str:
    """Return what goes wrong when this node reads and writes the folder, or an empty string."""
    try:
        if files.read_bytes(files.join(folder, "driver")) != b"driver":
            return "reads other bytes than the driver wrote"
        files.write_bytes(files.join(folder, node_id), node_id.encode())
    except FileNotFoundError:
        return "does not see the file that the driver wrote"
    except SoilweaveError as error:
        return error.problems[0]
    except files.storage_exceptions() as error:
        return f"cannot be read: {' '.join(str(error).split())}"
    return ""


def _check_seen_by_driver(folder: str, node_id: str) -> str:
    """Return a problem if the driver does not see a node's file, else an empty string."""
    written = files.join(folder, node_id)
    return "" if files.exists(written) else "the driver does not see the file that it wrote"


def node_address() -> str:
    """Return the address of the node that this process runs on."""
    import ray.util

    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class ProgressQueue:
    """Progress reported by workers.

    Attributes:
      queue: The queue that workers put (units, address of their node) into.
      nodes: Number of units done on each node, by its address.
    """

    queue: Any
    nodes: Counter[str] = field(default_factory=Counter)


@contextlib.contextmanager
def progress_queue(progress: Progress) -> Iterator[ProgressQueue]:
    """Start a queue on the driver's node; units that workers report to it advance the progress."""
    import ray
    from ray.util.queue import Empty, Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    on_this_node = NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    reported = ProgressQueue(
        Queue(actor_options={"num_cpus": 0, "scheduling_strategy": on_this_node})
    )
    stopped = threading.Event()

    def drain() -> None:
        while not stopped.is_set():
            with contextlib.suppress(Empty):
                units, address = reported.queue.get(timeout=0.5)
                reported.nodes[address] += units
                progress.advance(units)

    listener = threading.Thread(target=drain, daemon=True)
    listener.start()
    try:
        yield reported
    finally:
        stopped.set()
        listener.join()
        reported.queue.shutdown(force=True)


def report_progress(queue: Any, units: int) -> None:
    """Report units of work from a worker.

    If the queue is lost with its node, a warning is logged and the work continues. `queue` None
    reports nothing.
    """
    import ray.exceptions

    if queue is not None:
        try:
            queue.put_nowait((units, node_address()))
        except ray.exceptions.RayError as error:
            log.warning("progress not reported: %s", error)


def _silence_ray() -> None:
    """Silence Ray's own progress bars and messages, which would run across our progress line."""
    from ray.data import DataContext

    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
    # How often the controller checks whether its workers have ended; the default is 2 s.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    if "RAY_ADDRESS" not in os.environ:
        # Each run's process that asks whether a node is about to be taken away; this one stays.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)


def run_tasks(
    items: Iterable[Json],
    task: Callable[[Json], Json],
    receipts: Receipts | None = None,
    **options: Any,
) -> Iterator[tuple[Json, Json]]:
    """Yield every item with its receipt, those of an interrupted run first.

    Args:
      items: JSON values, one for each task.
      task: Takes an item and returns its receipt, a JSON value; called in another process.
      receipts: Returns the receipt that an earlier run left for an item, or None; omitted if every
        item is to be run.
      options: Passed to `ray.data.Dataset.map`, such as `num_cpus`.
    """
    finished, unfinished = split_by_receipt(items, receipts) if receipts else ([], [*items])
    yield from finished
    if not unfinished:
        return
    with connected():
        import ray.data

        dataset = ray.data.from_items(unfinished, override_num_blocks=len(unfinished))
        for row in dataset.map(_row_of(task), **options).iter_rows():
            yield json.loads(row["item"]), json.loads(row["receipt"])


def split_by_receipt(
    items: Iterable[Json], receipts: Receipts
) -> tuple[list[tuple[Json, Json]], list[Json]]:
    """Return the items that have a receipt, each with it, and the items that have none."""
    finished, unfinished = [], []
    for item in items:
        receipt = receipts(item)
        if receipt is None:
            unfinished.append(item)
        else:
            finished.append((item, receipt))
    return finished, unfinished


def _row_of(task: Callable[[Json], Json]) -> Callable[[Json], Json]:
    """Return a function that runs one task and returns a row of JSON text.

    Rows are text because receipts differ in their keys. The function has the name of the task, as
    Ray shows it.
    """

    def row_of(item: Json) -> Json:
        return {"item": json.dumps(item), "receipt": json.dumps(task(item))}

    row_of.__name__ = (task.func if isinstance(task, partial) else task).__name__
    return row_of
