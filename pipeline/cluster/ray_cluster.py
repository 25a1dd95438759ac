"""Connect to Ray, check its nodes, collect progress, and run one task per item.

Stages run on the cluster of RAY_ADDRESS, or else on a local Ray that starts when it is needed. An
item whose receipt an earlier run left is not run again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import uuid
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline import failures, files
from pipeline.cluster import connect
from pipeline.errors import ClusterError, DamagedError, SoilweaveError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from model.recipe import ModelKey
    from pipeline.files import Json
    from pipeline.progress import Progress

    Receipts = Callable[[Json], Json | None]


log = logging.getLogger(__name__)
RETRIES = 3  # how often a task runs again after its worker or its store has failed
RETRY_WAIT_S = 10.0  # seconds before a task runs again after its store has failed
PROBE_TIMEOUT_S = 60.0  # seconds after which a node that has not answered counts as unreachable
REPORTS_END_S = 60.0  # seconds to wait at the end for reports that are still on their way
REPORTS_EVERY_S = 0.25  # seconds after which the driver looks for reports of progress again
_session: ContextVar[contextlib.ExitStack | None] = ContextVar("_session", default=None)


@contextlib.contextmanager
def session(url: str) -> Iterator[None]:
    """Share one connection to Ray between all stages of a verb.

    A local Ray starts only when a stage needs it. On a cluster, every node must be able to read and
    write `url` before anything is computed.

    Raises:
      ConfigError: If there is no cluster at RAY_ADDRESS, or it does not accept us.
      StoreError: If nodes cannot read and write `url`; it names these nodes.
    """
    with contextlib.ExitStack() as stack:
        token = _session.set(stack)
        stack.callback(_session.reset, token)
        if connect.names_cluster():
            stack.enter_context(connected())
            probe(url)
        yield


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Connect to Ray while the block runs; inside a `session`, until the session ends.

    Raises:
      ConfigError: If there is no cluster at RAY_ADDRESS, or a local Ray does not start.
    """
    with connect.loopback_only():
        import ray

        _silence_ray()
        if starts := not ray.is_initialized():
            connect.connect()
    with contextlib.ExitStack() as stack:
        if starts:
            (_session.get() or stack).callback(ray.shutdown, wait_for_processes=True)
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
    except failures.storage_exceptions() as error:
        return f"cannot be read: {failures.explain(error, folder).reason}"
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
      queue: The queue that workers put into: (units, address of their node), or (model, point of
        its training curve).
      nodes: Number of units done on each node, by its address.
    """

    queue: Any
    nodes: Counter[str] = field(default_factory=Counter)


@contextlib.contextmanager
def progress_queue(progress: Progress) -> Iterator[ProgressQueue]:
    """Start a queue on the driver's node; what workers report to it is passed to the progress.

    At the end of the block, reports that are still on their way are waited for, at most a minute.
    """
    import ray
    import ray.exceptions
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    on_this_node = NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    reported = ProgressQueue(
        Queue(actor_options={"num_cpus": 0, "scheduling_strategy": on_this_node})
    )
    stopped = threading.Event()

    def drain() -> None:
        while True:
            if ending := stopped.wait(REPORTS_EVERY_S):
                time.sleep(REPORTS_EVERY_S)
            try:
                # Waiting in the queue would fail at each time-out, which Ray shows as failed tasks.
                n_reports = reported.queue.qsize()
                reports = reported.queue.get_nowait_batch(n_reports) if n_reports else []
            except ray.exceptions.RayError:
                return  # the queue is lost
            for what, about in reports:
                if isinstance(what, int):
                    reported.nodes[about] += what
                    progress.advance(what)
                else:
                    progress.curve(what, about)
            if ending and not reports:
                return

    listener = threading.Thread(target=drain, daemon=True)
    listener.start()
    try:
        yield reported
    finally:
        stopped.set()
        listener.join(REPORTS_END_S)  # Ray may never answer if it has lost the node of the queue
        reported.queue.shutdown(force=True)


def report_progress(queue: Any, units: int) -> None:
    """Report units of work from a worker. `queue` None reports nothing.

    It does not wait for an answer: Ray gives the CPU of a task that waits to another task, and
    starts one more worker for it. If the queue is lost with its node, so is the report.
    """
    if queue is not None:
        queue.actor.put_nowait.remote((units, node_address()))


def report_point(queue: Any, key: ModelKey, point: Mapping[str, float]) -> None:
    """Report a point of a model's training curve from a worker, as `report_progress` does.

    A point that is lost is still in the model's history.
    """
    if queue is not None:
        queue.actor.put_nowait.remote((key, dict(point)))


def _silence_ray() -> None:
    """Silence Ray's own messages, which would run across our progress line."""
    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
    # How often the controller checks whether its workers have ended; the default is 2 s.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    if not connect.names_cluster():
        # Each run's process that asks whether a node is about to be taken away; this one stays.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    logging.getLogger("ray.train").setLevel(logging.ERROR)


def run_tasks(
    items: Iterable[Json],
    function: Callable[[Json], Json],
    receipts: Receipts | None = None,
    *,
    memory: float | None = None,
    retries: int = RETRIES,
    cpus: float = 1,
    gpus: float = 0,
) -> Iterator[tuple[Json, Json]]:
    """Yield every item with its receipt, those of an interrupted run first.

    A task whose worker or node is lost runs again, and so does one whose store fails, after a wait:
    a StoreError at a URL, or an OSError. Other errors end the run at once. When the caller stops
    taking receipts, tasks that have not finished are cancelled.

    Args:
      items: JSON values, one for each task.
      function: Takes an item and returns its receipt, a JSON value; called in another process.
      receipts: Returns the receipt that an earlier run left for an item, or None; omitted if every
        item is to be run.
      memory: Bytes that a task needs. Ray never runs more tasks on a node than fit its memory.
      retries: How often a task may run again.
      cpus: CPUs that a task needs.
      gpus: GPUs that a task needs, or the share of one.

    Raises:
      StoreError: If a task's store still fails after all retries.
      ClusterError: If no node has the memory for a task, or a task's worker is lost every time.
    """
    finished, unfinished = split_by_receipt(items, receipts) if receipts else ([], [*items])
    yield from finished
    if not unfinished:
        return
    name = (function.func if isinstance(function, partial) else function).__name__
    resources = {"num_cpus": cpus, "num_gpus": gpus, "memory": memory}
    with connected():
        import ray

        _check_node_memory(name, memory)
        pending = _submit(name, function, unfinished, retries, resources)
        try:
            while pending:
                (done,), _ = ray.wait([*pending])
                yield pending.pop(done), _result(done, name, retries)
        finally:
            for each in pending:
                ray.cancel(each)


def _submit(
    name: str,
    function: Callable[[Json], Json],
    items: list[Json],
    retries: int,
    resources: dict[str, Any],
) -> dict[Any, Json]:
    """Submit a task for each item; return the items by the references of their tasks."""
    import ray

    # max_calls=0: a process runs several tasks, on a GPU too.
    task: Any = ray.remote(max_calls=0)(_run_task).options(
        name=name,
        max_retries=retries,
        retry_exceptions=[_StoreFailure],
        scheduling_strategy="SPREAD",
        **resources,
    )
    return {task.remote(function, item, RETRY_WAIT_S): item for item in items}


class _StoreFailure(Exception):
    """Wraps the StoreError of a task that Ray is to run again."""


def _run_task(function: Callable[[Json], Json], item: Json, wait_s: float) -> Json:
    """Run a task; if its store fails, wait and raise what Ray retries.

    Damaged objects and local paths are not tried again: they would fail in the same way.
    """
    try:
        return function(item)
    except StoreError as error:
        if isinstance(error, DamagedError) or "://" not in error.place:
            raise
        failure = error
    except ImportError as error:
        found = failures.explain(error)
        node = f"node {node_address()}"
        raise ClusterError(node, found.reason, remedy=found.remedy) from error
    except failures.storage_exceptions() as error:
        found = failures.explain(error)
        place = str(getattr(error, "filename", None) or "storage")
        problem = f"cannot be read or written: {found.reason}"
        failure = StoreError(place, problem, remedy=found.remedy)
    log.warning("running again in %g s: %s", wait_s, failure)
    time.sleep(wait_s)  # the store may answer again by then
    raise _StoreFailure(failure) from failure


def _result(task: Any, name: str, retries: int) -> Json:
    """Return the receipt of a task that has ended, or raise its error as one of ours."""
    import ray
    from ray.exceptions import RayTaskError, WorkerCrashedError

    try:
        receipt: Json = ray.get(task)
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, _StoreFailure):
            raise cause.args[0] from None
        if isinstance(cause, SoilweaveError):
            raise cause from None
        raise
    except ray.exceptions.RayError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        times = f"{retries + 1} times" if isinstance(error, WorkerCrashedError) else "for good"
        hint = "run again to continue; if memory ran out, use nodes with more of it"
        raise ClusterError(f"task {name}", f"was lost {times}: {reason}", remedy=hint) from error
    return receipt


def _check_node_memory(name: str, memory: float | None) -> None:
    """Check that some node has the memory for a task, which Ray would else wait for without end.

    Raises:
      ClusterError: If no node has.
    """
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    largest = max((node["Resources"].get("memory", 0) for node in nodes), default=0)
    if memory is not None and memory > largest:
        problem = f"needs {memory / 1e9:.1f} GB of memory; the largest node has {largest / 1e9:.1f}"
        hint = "use nodes with more memory, or a smaller domain; `soilweave plan` estimates it"
        raise ClusterError(f"task {name}", f"{problem} GB for tasks", remedy=hint)


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
