"""The studies against truth: models as the pipeline trains them, judged where they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from small_demo import SETTINGS
from studies import arms, changes, refinement, text
from studies.case import Case, results
from studies.page import placed
from studies.world import World

from model.recipe import ModelKey
from pipeline.evaluate.stage import cells_away_from_sites
from pipeline.storage import models


@pytest.fixture(scope="module")
def small(demo):
    assert demo[1] == 0
    return World(demo[0], "demo", SETTINGS)


def test_a_model_its_level_and_ridge_are_those_of_the_pipeline(demo, small):
    root = str(demo[0] / "demo" / "models")
    kept = models.load_model(root, ModelKey("multiscale", models.ALL_SITES, 0)).network.state_dict()
    for name, weights in small.model("multiscale").network.state_dict().items():
        torch.testing.assert_close(weights, kept[name], rtol=0, atol=0)
    calibration = models.read_calibrations(root, "multiscale")["all"]
    assert small.level_weight("multiscale") == calibration.level_weight
    expected = models.load_ridge(root, models.ALL_SITES).predict(small.places)
    np.testing.assert_array_equal(small.ridge(), expected)


def test_cells_away_from_sites_are_scored_against_their_truth(small):
    away = cells_away_from_sites(small.cube)
    np.testing.assert_array_equal(small.cells[small.where], away)
    scored = small.score(small.truth + np.float32(0.01))
    assert scored["bias"] == pytest.approx(0.01, abs=1e-6)
    assert scored["correlation"] == pytest.approx(1, abs=1e-6)
    fy, fx = away[3] // 4
    held = small.cube.series(small.cube.footprints, small.cube.target)[:, fy, fx]
    np.testing.assert_array_equal(small.footprint()[3], held)


def test_the_first_sites_report_and_are_dealt_anew(small):
    few, every = small.with_sites(4).packed, small.with_sites(7).packed
    assert {few.site_ids[i] for i in few.training_sites(models.ALL_SITES, 0.0)} == {
        f"site-0{i}" for i in range(4)
    }
    parts = [set(few.training_sites(fold, 0.0)) for fold in (0, 1)]
    assert parts[0] | parts[1] == set(few.training_sites(models.ALL_SITES, 0.0))
    assert not parts[0] & parts[1]
    np.testing.assert_array_equal(every.fold, small.packed.fold)
    np.testing.assert_array_equal(every.learn_insitu, small.packed.learn_insitu)


def test_fine_cells_are_18_km_from_sites_whose_footprints_they_do_not_share(small):
    experiment, cells = refinement.finest(small)
    assert experiment.domain.refinement == 8
    sites = small.cube.sites
    y, x = (sites[name].values[:, None] for name in ("y", "x"))
    own = cells // 2  # of 9 km
    away = {tuple(cell) for cell in cells_away_from_sites(small.cube).tolist()}
    assert {tuple(cell) for cell in own.tolist()} <= away
    far = np.maximum(np.abs(own[:, 0] - y), np.abs(own[:, 1] - x)).min(0)
    assert far.min() == 2


def test_cases_are_judged_once_and_again_with_other_settings(demo, small):
    judged = []
    case = Case("demo", SETTINGS, "once", lambda w: judged.append(len(w.where)) or {"n": 1})
    for more in ((), (), ("judging.min_days=41",)):
        assert results([case], demo[0], more) == {"once": {"n": 1}}
    assert judged == [len(small.where)] * 2


def test_intervals_are_those_of_a_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 8))
    found = [{"a": {"rmse": p}, "b": {"rmse": q}} for p, q in zip(a, b, strict=True)]
    mean, half = text.difference(found, "a", "b", "rmse")
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx((low, high))


def test_tables_replace_what_stands_between_their_marks(tmp_path):
    marks = ("<!-- arms: made by make studies -->", "<!-- end of arms -->")
    page = f"before\n{marks[0]}\nold\n{marks[1]}\nafter\n"
    made = placed(placed(page, "arms", "new \\1", "make studies"), "arms", "newer", "make studies")
    assert made == f"before\n{marks[0]}\n\nnewer\n\n{marks[1]}\nafter\n"
    with pytest.raises(ValueError, match="0 places marked"):
        placed(page, "bias", "new", "make studies")


def test_the_study_of_arms_draws_and_tells_what_was_found(tmp_path):
    def scores(r):
        values = {"correlation": r, "rmse": 0.05 * r, "ubrmse": 0.02, "bias": 0.0}
        return dict.fromkeys(arms.OTHERS, values)

    seeds = range(100, 103)
    found = {
        f"arms-{s}": {"scores": scores(0.9 + i / 100), "level_weight": 0.25, "n_cells": 9}
        for i, s in enumerate(seeds)
    }
    told = arms.report(found, seeds, tmp_path)
    assert "| multiscale | 0.910 | 0.0455 | 0.0200 | 0.0000 |  |  |  |" in told
    assert "chosen: 0.25, 0.25, 0.25." in told
    assert (tmp_path / "studies-arms.png").stat().st_size > 10_000


def test_bent_rain_has_its_scale_and_comes_back():
    rain = np.array([0.0, 0.4, 9.0, 40.0], np.float32)
    for kind, bent in (("root", np.sqrt(rain)), ("log1p", np.log1p(rain))):
        scale = changes.Bent(0.5, 0.25, kind)
        np.testing.assert_allclose(scale.apply(rain), (bent - 0.5) / 0.25, rtol=1e-6)
        back = scale.invert(torch.from_numpy(scale.apply(rain)))
        np.testing.assert_allclose(back, rain, rtol=1e-4, atol=1e-6)


def test_the_last_value_is_of_a_day_before():
    values = np.array([[np.nan, 0.1, np.nan, np.nan, 0.3]], np.float32)
    expected = [[np.nan, np.nan, 0.1, 0.1, 0.1]]
    np.testing.assert_array_equal(changes._last(values), np.array(expected, np.float32))
