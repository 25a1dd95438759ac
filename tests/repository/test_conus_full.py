"""What `make conus-full` makes of the lines of a job, of samples, and of published maps."""

from __future__ import annotations

import numpy as np
import pytest
from bench import conus_full, conus_full_page, truth_reader
from bench.watch import Watched

from model import metrics
from pipeline.experiment import load


def watched():
    """A driver and a worker for 100 s, which take a second of two cores each second."""
    seen = Watched(1000.0, seconds=100.0, names={7: "driver", 8: "worker"})
    seen.samples = {7: [(1010.0, 50.0, 5.0, 1.0)], 8: [(1050.0, 400.0, 20.0, 9.0)]}
    seen.cpu = [(1000.0 + s, 2.0 * s) for s in range(101)]
    return seen


def test_time_is_that_of_the_stage_that_a_line_names():
    lines = [
        (1002.0, "job conus-full-1: submitted to http://head"),
        (1005.0, "planet: planet complete"),
        (1020.0, "prepare: 2 of 9 blocks, 1/s"),
        (1030.0, "prepare: cube of 9 blocks"),
        (1040.0, "train: 3 of 9 updates"),
    ]
    found = conus_full.by_stage(lines, watched())
    assert {stage: own["seconds"] for stage, own in found.items()} == {
        "start": 5.0,
        "prepare": 25.0,
        "train": 70.0,
    }
    assert [found[stage]["cpu"] for stage in ("start", "prepare", "train")] == [10.0, 50.0, 140.0]
    assert (found["prepare"]["driver"], found["train"]["worker"]) == (55, 420)


def test_the_experiment_is_the_recipe_as_shipped(tmp_path):
    for size in conus_full.SIZES:
        path = tmp_path / f"{size}.yaml"
        conus_full.write_experiment(path, size)
        experiment = load.load_experiment(str(path))
        assert (len(experiment.arms), experiment.n_seeds, experiment.folds.n_folds) == (3, 3, 5)
    conus_full.write_experiment(path, "full")
    full, recipe = load.load_experiment(str(path)), load.read_settings("recipes", "default")
    for section in ("network", "loss", "train"):
        assert recipe[section].items() <= getattr(full, section).model_dump().items()


def test_money_is_machines_while_a_stage_runs_and_objects():
    own = {"seconds": 1800.0, "cpu": 100.0, "driver": 5, "worker": 6}
    kept = {
        "pieces": [{"stages": {"train": own}}, {"stages": {"train": own, "start": own}}],
        "stored": {"train": {"objects": 1000, "megabytes": 4.0}},
        "cluster": {"workers": 2, "cpus": 3, "gpus": 1},
        "prices": {"core": 0.05, "gpu": 4.0, "put": 1e-5, "month": 0.02},
    }
    assert conus_full_page.costs(kept) == pytest.approx({"start": 2.15, "train": 4.31})
    assert [*conus_full_page.total(kept)] == ["start", "train"]


def test_sums_give_the_scores_of_the_metrics():
    rng = np.random.default_rng(0)
    truth, error = rng.normal(0.2, 0.05, (2, 40, 2, 3))
    predicted, valid = truth + 0.3 * error, rng.uniform(size=truth.shape) < 0.8
    valid[:, 0, 0] = False
    sums = truth_reader.Sums(truth.shape[1:])
    for part in (slice(0, 25), slice(25, 40)):
        sums.add(truth[part], predicted[part], valid[part])
    found = sums.scores(min_days=5)
    assert np.isnan(found["rmse"][0, 0])
    for y, x in ((0, 1), (1, 2)):
        t, p = (values[valid[:, y, x], y, x] for values in (truth, predicted))
        assert found["bias"][y, x] == pytest.approx((p - t).mean())
        assert found["rmse"][y, x] == pytest.approx(np.sqrt(((p - t) ** 2).mean()))
        assert found["correlation"][y, x] == pytest.approx(np.corrcoef(t, p)[0, 1])


def test_the_mean_of_a_footprint_is_over_its_cells_with_scores():
    values = np.arange(24.0).reshape(4, 6)
    values[0, :2] = values[:2, 4:] = np.nan
    means = truth_reader._footprint_means(values, 2)
    np.testing.assert_allclose(means, [6.5, 5.5, np.nan, 15.5, 17.5, 19.5])


def test_what_is_shown_are_metrics_that_the_sums_give():
    found = truth_reader.Sums((1, 1)).scores(min_days=1)
    assert {*truth_reader.SHOWN} <= {*found} & {*metrics.METRICS}
