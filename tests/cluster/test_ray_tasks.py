"""Receipts of tasks: what an interrupted run has done is not done again."""

from functools import partial

from pipeline.cluster.ray_cluster import run_tasks, split_by_receipt

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


def test_options_are_those_of_ray(local_ray):
    import ray

    def task(item):
        return {"cpus": ray.get_runtime_context().get_assigned_resources().get("CPU")}

    receipts = [receipt for _, receipt in run_tasks(ITEMS, task, num_cpus=2)]
    assert receipts == [{"cpus": 2.0}] * len(ITEMS)
