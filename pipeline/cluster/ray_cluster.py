"""The Ray cluster that stages run on: the one of RAY_ADDRESS, or a local one.

Run one Ray Data task per item; an item whose receipt is already there is not run again.
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
PROBE_S = 60.0  # a node that has not answered by then cannot reach the storage
_session: ContextVar[contextlib.ExitStack | None] = ContextVar("_session", default=None)


@contextlib.contextmanager
def session(url: str) -> Iterator[None]:
    """One connection to Ray for all stages of a verb; a local Ray starts only when one needs it.

    On a cluster every node must be able to read and write `url` before anything is computed.

    Raises:
      StoreError: naming the nodes that cannot.
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
    """A connection to Ray while the block runs, or the session it runs in."""
    import ray

    _quiet()
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
        remedy = "start it with `ray start --head`, or unset RAY_ADDRESS to work on this machine"
        raise StoreError(os.environ["RAY_ADDRESS"], "no Ray cluster", remedy=remedy) from error
    with contextlib.ExitStack() as own:
        (_session.get() or own).callback(ray.shutdown)
        yield


def probe(url: str) -> None:
    """Write and read from every node, and from the driver what the nodes have written.

    Raises:
      StoreError: naming every node that cannot, and why.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    folder = files.join(url, f".probe-{uuid.uuid4().hex[:8]}")
    files.write_bytes(files.join(folder, "driver"), b"driver")
    task = ray.remote(num_cpus=0, max_retries=0)(_try)
    try:
        waiting = {}
        for each in (n for n in ray.nodes() if n["Alive"]):  # type: ignore[no-untyped-call]
            there = NodeAffinitySchedulingStrategy(each["NodeID"], soft=False)
            run = task.options(scheduling_strategy=there)
            waiting[run.remote(folder, each["NodeID"])] = each
        done, late = ray.wait([*waiting], num_returns=len(waiting), timeout=PROBE_S)
        problems = [f"node {waiting[r]['NodeManagerAddress']}: no answer" for r in late]
        for ref in done:
            each = waiting[ref]
            try:
                problem = ray.get(ref) or _seen(folder, each["NodeID"])
            except ray.exceptions.RayError as error:
                problem = str(error).strip().splitlines()[-1]
            if problem:
                problems.append(f"node {each['NodeManagerAddress']}: {problem}")
    finally:
        files.remove(folder)
    if problems:
        remedy = "give all nodes the keys and the endpoint, or a workspace that all of them share"
        raise StoreError(url, *sorted(problems), remedy=remedy)


def _try(folder: str, node_id: str) -> str:
    """What goes wrong on this node, empty where nothing does."""
    try:
        if files.read_bytes(files.join(folder, "driver")) != b"driver":
            return "reads something else than the driver wrote"
        files.write_bytes(files.join(folder, node_id), node_id.encode())
    except FileNotFoundError:
        return "does not see what the driver has written"
    except SoilweaveError as error:
        return error.problems[0]
    except files.failures() as error:
        return f"cannot be read: {' '.join(str(error).split())}"
    return ""


def _seen(folder: str, node_id: str) -> str:
    written = files.join(folder, node_id)
    return "" if files.exists(written) else "what it has written is not seen by the driver"


def node() -> str:
    """Address of the node this runs on."""
    import ray.util

    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class ProgressQueue:
    """What workers have told so far: `nodes` counts the units of each node's address."""

    queue: Any
    nodes: Counter[str] = field(default_factory=Counter)


@contextlib.contextmanager
def progress_queue(progress: Progress) -> Iterator[ProgressQueue]:
    """A queue on the driver's node; what workers put there advances the progress."""
    import ray
    from ray.util.queue import Empty, Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    listened = ProgressQueue(Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here}))
    over = threading.Event()

    def drain() -> None:
        while not over.is_set():
            with contextlib.suppress(Empty):
                units, place = listened.queue.get(timeout=0.5)
                listened.nodes[place] += units
                progress.advance(units)

    listener = threading.Thread(target=drain, daemon=True)
    listener.start()
    try:
        yield listened
    finally:
        over.set()
        listener.join()
        listened.queue.shutdown(force=True)


def report_progress(queue: Any, units: int) -> None:
    """Report progress from a worker; a queue that went with its node stops nothing."""
    import ray.exceptions

    if queue is not None:
        try:
            queue.put_nowait((units, node()))
        except ray.exceptions.RayError as error:
            log.warning("progress not reported: %s", error)


def _quiet() -> None:
    """One progress line is ours; Ray's own bars and banners would run across it."""
    from ray.data import DataContext

    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
    # How often the controller looks whether its workers have ended: 2 s otherwise.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
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
    kept, todo = split(items, receipts) if receipts else ([], [*items])
    yield from kept
    if not todo:
        return
    with connected():
        import ray.data

        data = ray.data.from_items(todo, override_num_blocks=len(todo))
        for row in data.map(_row_of(task), **options).iter_rows():
            yield json.loads(row["item"]), json.loads(row["receipt"])


def split(items: Iterable[Json], receipts: Receipts) -> tuple[list[tuple[Json, Json]], list[Json]]:
    """Return the items that have a receipt, each with it, and the items that have none."""
    kept, todo = [], []
    for item in items:
        receipt = receipts(item)
        if receipt is None:
            todo.append(item)
        else:
            kept.append((item, receipt))
    return kept, todo


def _row_of(task: Callable[[Json], Json]) -> Callable[[Json], Json]:
    """Return a function that runs one task and returns a row of JSON text.

    Rows are text because receipts differ in their keys. The function has the name of the task, as
    Ray shows it.
    """

    def row_of(item: Json) -> Json:
        return {"item": json.dumps(item), "receipt": json.dumps(task(item))}

    row_of.__name__ = (task.func if isinstance(task, partial) else task).__name__
    return row_of
