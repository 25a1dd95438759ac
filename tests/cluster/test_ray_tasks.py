"""Tasks: what an interrupted run has done is not done again, and what fails runs again."""

import contextlib
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from pipeline.cluster import ray_cluster
from pipeline.cluster.ray_cluster import run_tasks, split_by_receipt
from pipeline.errors import ClusterError, DamagedError, StoreError
from pipeline.progress import SilentProgress

ITEMS = [{"block": block, "name": f"b{block}"} for block in range(5)]
KEPT = {1: {"value": "kept 1"}, 3: {"value": "kept 3", "more": [1.5, None]}}


def receipt_of(item):
    return KEPT.get(item["block"])


def test_split_keeps_the_order_of_items():
    kept, todo = split_by_receipt(iter(ITEMS), receipt_of)
    assert kept == [(ITEMS[1], KEPT[1]), (ITEMS[3], KEPT[3])]
    assert todo == [ITEMS[0], ITEMS[2], ITEMS[4]]


def test_nothing_runs_where_every_item_has_a_receipt():
    def fails(item):
        raise AssertionError(item)

    every = run_tasks(ITEMS, fails, lambda item: {"of": item["name"]})
    assert [*every] == [(item, {"of": item["name"]}) for item in ITEMS]


def test_items_without_a_receipt_run_after_those_that_have_one(local_ray):
    def task(item, factor):
        return {"value": factor * item["block"], "keys differ": None} | {item["name"]: [{}]}

    found = [*run_tasks(ITEMS, partial(task, factor=10), receipt_of)]
    assert found[:2] == [(ITEMS[1], KEPT[1]), (ITEMS[3], KEPT[3])]
    assert sorted(found[2:], key=lambda pair: pair[0]["block"]) == [
        (item, {"value": 10 * item["block"], "keys differ": None, item["name"]: [{}]})
        for item in (ITEMS[0], ITEMS[2], ITEMS[4])
    ]


def test_a_task_is_given_what_it_declares(local_ray):
    def task(item):
        import ray

        return ray.get_runtime_context().get_assigned_resources()

    receipts = [receipt for _, receipt in run_tasks(ITEMS, task, cpus=2, memory=10e6)]
    assert receipts == [{"CPU": 2.0, "memory": 10e6}] * len(ITEMS)


def test_tasks_that_report_progress_do_not_give_their_cpus_to_others(local_ray):
    class Counted(SilentProgress):
        units = 0

        def advance(self, units=1):
            self.units += units

    def task(item, queue):
        begun = time.time()
        for _ in range(10):
            ray_cluster.report_progress(queue, 1)
            time.sleep(0.05)
        return {"begun": begun, "ended": time.time()}

    progress, items = Counted(), [{"block": block} for block in range(8)]
    with ray_cluster.connected(), ray_cluster.progress_queue(progress) as reported:
        found = [*run_tasks(items, partial(task, queue=reported.queue))]
    spans = [(receipt["begun"], receipt["ended"]) for _, receipt in found]
    running = [sum(begun <= at < ended for begun, ended in spans) for at, _ in spans]
    assert max(running) <= 2  # the CPUs of this Ray
    assert progress.units == 80


def test_a_queue_that_does_not_answer_any_more_does_not_hold_up_the_end(local_ray, monkeypatch):
    import ray

    monkeypatch.setattr(ray_cluster, "REPORTS_END_S", 0.5)
    stopped = []

    def use_a_queue_that_stops():
        with ray_cluster.progress_queue(SilentProgress()) as reported:
            actor = reported.queue.actor
            stopped.append(ray.get(actor.__ray_call__.remote(lambda _: os.getpid())))
            os.kill(stopped[0], signal.SIGSTOP)

    user = threading.Thread(target=use_a_queue_that_stops, daemon=True)
    user.start()
    user.join(60)
    waits = user.is_alive()
    with contextlib.suppress(ProcessLookupError):
        os.kill(stopped[0], signal.SIGKILL)
    assert not waits


def counter(folder: Path):
    """Returns a function that counts the attempts of an item, in a file."""

    def count(item) -> int:
        with (folder / item["name"]).open("a") as file:
            file.write("x")
        return len((folder / item["name"]).read_text())

    return count


STORE_ERRORS = {
    "ours": StoreError("s3://b/k", "cannot be written: 503"),
    "a reset connection": ConnectionResetError("connection reset by peer"),
}


@pytest.mark.parametrize("error", STORE_ERRORS.values(), ids=STORE_ERRORS.keys())
def test_a_task_whose_store_fails_runs_again_a_stated_number_of_times(tmp_path, local_ray, error):
    count = counter(tmp_path)

    def task(item, failures):
        if (n := count(item)) <= failures:
            raise error
        return {"attempts": n}

    found = run_tasks(ITEMS, partial(task, failures=2), retries=2)
    assert [receipt for _, receipt in found] == [{"attempts": 3}] * len(ITEMS)
    with pytest.raises(StoreError) as failed:
        [*run_tasks(ITEMS[:1], partial(task, failures=9), retries=2)]
    assert str(error) in str(failed.value)
    assert count(ITEMS[0]) == 7  # three of each run, and this one


PERMANENT = [
    ValueError("a bug"),
    DamagedError("s3://b/k", "is damaged"),
    StoreError("/full/disk", "cannot be written"),
]


@pytest.mark.parametrize("error", PERMANENT, ids=["a bug", "damage", "a local path"])
def test_other_errors_end_the_run_at_once(tmp_path, local_ray, error):
    count = counter(tmp_path)

    def task(item):
        count(item)
        raise error

    with pytest.raises(type(error), match=str(error)):
        [*run_tasks(ITEMS[:1], task)]
    assert (tmp_path / "b0").read_text() == "x"


def test_a_task_whose_worker_is_killed_runs_again(tmp_path, local_ray):
    count = counter(tmp_path)

    def task(item, deaths):
        if (n := count(item)) <= deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"attempts": n}

    found = run_tasks(ITEMS[:2], partial(task, deaths=1))
    assert [receipt for _, receipt in found] == [{"attempts": 2}] * 2
    with pytest.raises(ClusterError, match=r"task task: was lost"):
        [*run_tasks(ITEMS[:1], partial(task, deaths=9), retries=1)]


def test_a_task_that_fits_no_node_is_refused_at_once(local_ray):
    def task(item):
        return {}

    with pytest.raises(ClusterError, match=r"^task task: needs 1000000.0 GB of memory; the larg"):
        [*run_tasks(ITEMS, task, memory=1e15)]


def test_tasks_do_not_run_on_when_nobody_takes_their_receipts(tmp_path, local_ray):
    count = counter(tmp_path)

    def task(item):
        count(item)
        return {}

    for _ in run_tasks(ITEMS, task, cpus=2):  # one after the other
        break
    assert [*run_tasks(ITEMS[:1], task, cpus=2)]  # after those that were cancelled
    assert len([*tmp_path.iterdir()]) < len(ITEMS)
