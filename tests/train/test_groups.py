"""Groups of models: their composition follows from the experiment; who trains them is dynamic."""

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Event

import pytest
import ray
import tiny
import torch
from test_failing_training import experiment_of, packed_of

from model.recipe import ModelKey
from model.stacked_trainer import StackedTrainer
from pipeline import files
from pipeline.cluster import turns
from pipeline.storage import models
from pipeline.train import stage, worker

KEYS = [ModelKey("insitu", fold, 0) for fold in range(3)]


@pytest.mark.parametrize(
    ("most", "sizes"),
    [(20, [18]), (17, [9, 9]), (8, [6, 6, 6]), (4, [3, 4, 3, 4, 4]), (1, [1] * 18)],
)
def test_models_are_dealt_evenly(most, sizes):
    keys = [ModelKey("multiscale", fold, seed) for fold in range(6) for seed in range(3)]
    parts = list(models.split_evenly(keys, most))
    assert [len(part) for part in parts] == sizes
    assert [key for part in parts for key in part] == keys


def test_a_group_on_a_gpu_has_one_arm_and_as_many_models_as_memory_allows(monkeypatch):
    experiment, packed = experiment_of("n_seeds=5"), packed_of()
    every = models.list_models(experiment, packed.fold)

    def sizes(*settings):
        groups = stage.list_groups(experiment_of("n_seeds=5", *settings), packed, "cuda")
        assert all(len({key.arm for key in group}) == 1 for group in groups)
        return {arm: sorted(len(g) for g in groups if g[0].arm == arm) for arm in experiment.arms}

    of_arm = {arm: sum(key.arm == arm for key in every) for arm in experiment.arms}
    assert sizes() == {arm: [n] for arm, n in of_arm.items()}
    # As many groups as GPUs that the experiment declares.
    declared = sizes(f"compute.gpus={2 * len(of_arm)}")
    assert declared == {arm: [n // 2, n - n // 2] for arm, n in of_arm.items()}
    model_bytes = packed.model_bytes(experiment.recipe_sections, "insitu")
    monkeypatch.setattr("model.device.GROUP_BYTES", 4.5 * model_bytes)
    assert max(sizes()["insitu"]) == 4
    assert sum(sizes()["insitu"]) == of_arm["insitu"]


def test_groups_are_the_same_whatever_is_finished_and_the_most_expensive_come_first(tmp_path):
    experiment, packed = experiment_of("n_seeds=5"), packed_of()
    alone = stage.list_groups(experiment, packed, "cpu")
    assert {len(group) for group in alone} == {1}
    costs = stage.update_costs(experiment, packed)
    assert [costs[group[0].arm] for group in alone] == sorted(
        (costs[group[0].arm] for group in alone), reverse=True
    )
    together = stage.list_groups(experiment, packed, "cuda")
    every = models.list_models(experiment, packed.fold)
    for groups in (alone, together):
        assert sorted(key for group in groups for key in group) == sorted(every)
    total = [len(group) * costs[group[0].arm] for group in together]
    assert total == sorted(total, reverse=True)


def test_every_group_of_workers_is_handed_all_items_once_and_in_order():
    queue = turns.Turns(3)
    assert [queue.take("first", rank, 0) for rank in (1, 0)] == [0, 1]
    assert [queue.take("second", 0, turn) for turn in range(5)] == [0, 1, 2, None, None]
    assert queue.take("first", 1, 1) == 2  # a worker that lives on disturbs nobody
    assert queue.take("first", 0, 1) is None


def test_who_asks_twice_for_the_same_turn_is_handed_the_same_item():
    """Ray sends a call again if the answer may be lost; no item may be lost with it."""
    queue = turns.Turns(3)
    assert [queue.take("a", 0, 0) for _ in range(3)] == [0, 0, 0]
    assert [queue.take("a", 1, 0), queue.take("a", 0, 1)] == [1, 2]


def test_a_queue_whose_process_is_lost_hands_out_all_items_again(local_ray):
    """As after its memory has run out: what was handed out is handed out twice, nothing is lost."""
    queue = turns.start(3)
    pid, has_torch = ray.get(
        queue.__ray_call__.remote(lambda self: (os.getpid(), "torch" in sys.modules))
    )
    assert not has_torch  # which takes seconds to import
    assert ray.get(queue.take.remote("a", 0, 0)) == 0
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 120
    while ray.get(queue.__ray_call__.remote(lambda self: os.getpid())) == pid:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert [ray.get(queue.take.remote("a", 0, 1 + n)) for n in range(4)] == [0, 1, 2, None]


def test_models_of_a_group_that_are_finished_are_skipped(tmp_path, monkeypatch):
    """Also where another worker has finished them since the queue was made."""
    experiment, packed = experiment_of(), packed_of()
    spec = worker.TrainSpec(experiment, str(tmp_path), "", experiment.train.updates, None)
    trained = []

    def train_models(spec, group, packed, device, like):
        trained.append(group)
        return like

    with tiny.one_thread():
        worker.train_models(spec, KEYS[1:2], packed, "cpu")
    before = files.read_bytes(models.checkpoint_url(str(tmp_path), KEYS[1]))
    monkeypatch.setattr(worker, "train_models", train_models)
    handed = iter([KEYS, KEYS[1:2], []])
    worker.train_from_queue(spec, packed, lambda: next(handed), "cpu")
    assert trained == [[KEYS[0], KEYS[2]]]
    assert files.read_bytes(models.checkpoint_url(str(tmp_path), KEYS[1])) == before


@pytest.mark.parametrize(("room", "sizes"), [(100, [3]), (2.5, [1, 2]), (0.5, [1, 1, 1])])
def test_a_worker_trains_as_many_at_once_as_memory_allows(tmp_path, monkeypatch, room, sizes):
    experiment, packed = experiment_of(), packed_of()
    spec = worker.TrainSpec(experiment, str(tmp_path), "", experiment.train.updates, None)
    model_bytes = packed.model_bytes(experiment.recipe_sections, "insitu")
    monkeypatch.setattr("model.device.GROUP_BYTES", room * model_bytes)
    together, kept = [], worker._train_to_end
    monkeypatch.setattr(worker, "_train_to_end", lambda *a: together.append(len(a[1])) or kept(*a))
    with tiny.one_thread():
        worker.train_models(spec, KEYS, packed, "cpu")
    assert together == sizes
    assert not models.unfinished_models(str(tmp_path), KEYS)


def test_a_group_that_memory_does_not_suffice_for_is_halved(tmp_path, monkeypatch):
    experiment, packed = experiment_of(), packed_of()
    spec = worker.TrainSpec(experiment, str(tmp_path), "", experiment.train.updates, None)
    tried, kept = [], StackedTrainer.advance

    def advance(self, n_steps):
        tried.append(len(self.trainers))
        if len(self.trainers) > 2:
            raise torch.OutOfMemoryError
        kept(self, n_steps)

    monkeypatch.setattr(StackedTrainer, "advance", advance)
    with tiny.one_thread():
        worker.train_models(spec, KEYS, packed, "cpu")
    assert tried[0] == 3
    assert set(tried[1:]) == {2}
    assert not models.unfinished_models(str(tmp_path), KEYS)


def test_a_slow_worker_holds_nobody_up(tmp_path, monkeypatch):
    """Of two workers one is stuck in its first group until the other has trained all the others."""
    experiment, packed = experiment_of(), packed_of()
    spec = worker.TrainSpec(experiment, str(tmp_path), "", experiment.train.updates, None)
    queue, started, others_done = turns.Turns(len(KEYS)), Event(), Event()
    trained = []

    def train_models(spec, group, packed, device, like):
        if group == [KEYS[0]]:
            started.set()
            assert others_done.wait(120)
        trained.append(group[0])

    def work(rank):
        numbers = (queue.take("a", rank, turn) for turn in count())
        groups = ([] if number is None else [KEYS[number]] for number in numbers)
        worker.train_from_queue(spec, packed, lambda: next(groups), "cpu")

    monkeypatch.setattr(worker, "train_models", train_models)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(work, 0)
        assert started.wait(120)
        work(1)
        assert trained == KEYS[1:]
        others_done.set()
        slow.result(120)
    assert trained == [*KEYS[1:], KEYS[0]]
