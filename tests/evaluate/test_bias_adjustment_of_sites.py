"""Local adjustment in `score`: what it learns from, which days it is judged on, what is said."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from model import bias_adjustment
from model.bias_adjustment import OffsetPrior
from pipeline import cli, files
from pipeline.errors import DataError
from pipeline.evaluate import bias_adjustment as evaluate_bias_adjustment
from pipeline.evaluate.scoring import Candidate, Sites
from pipeline.experiment.config import JudgingConfig
from pipeline.storage import tables
from pipeline.storage.cube import Cube

N_SITES, N_DAYS, SHORT = 8, 300, 5  # site 5 has 20 days
CONFIG = JudgingConfig(min_days=40, bootstrap_draws=100)
FOLD = np.array([0, 0, 0, 0, 1, 1, 1, -1])

PRIORS = {
    "multiscale": {0: OffsetPrior(0.05, 0.03, 5.0, 9), 1: OffsetPrior(0.01, 0.06, 30.0, 9)},
    "footprint": {0: OffsetPrior(0.09, 0.03, 2.0, 9), 1: OffsetPrior(0.08, 0.06, 3.0, 9)},
}


for _priors in PRIORS.values():
    _priors[-1] = OffsetPrior(0.04, 0.04, 9.0, 9)


@pytest.fixture
def case():
    """Sites with gaps, an arm without values on the first 10 days, a satellite on half the days."""
    rng = np.random.default_rng(0)
    truth = 0.2 + 0.05 * rng.normal(size=(N_SITES, N_DAYS))
    observed = truth + 0.06 * rng.normal(size=(N_SITES, 1))
    observed[rng.random(observed.shape) < 0.2] = np.nan
    observed[SHORT, 40:] = np.nan
    few = np.isfinite(observed[SHORT, 10:]).cumsum() > 20
    observed[SHORT, 10:][few] = np.nan
    arm = truth + 0.02 * rng.normal(size=truth.shape)
    arm[:, :10] = np.nan
    seen = np.where(np.arange(N_DAYS) % 2, np.nan, truth - 0.03)
    days = np.datetime64("2016-01-01") + np.arange(N_DAYS)
    ids = tuple(f"s{i}" for i in range(N_SITES))
    sites = Sites(ids, np.arange(N_SITES) // 2, days, observed.astype(np.float32))
    fold = FOLD.astype(str)
    both = Candidate("multiscale", True, fold, arm), Candidate("footprint", False, fold, seen)
    return sites, list(both)


def by_hand(sites, candidate, k):
    """(site,) RMSE of the days after the first 90 with values, less what the first k tell."""
    made = []
    for i, observed in enumerate(sites.observed):
        with_values = np.flatnonzero(np.isfinite(observed[10:])) + 10
        if len(with_values) < 90 + CONFIG.min_days:
            continue
        error = observed - candidate.prediction[i]
        first = np.full(N_DAYS, np.nan)
        first[with_values[:k]] = error[with_values[:k]]
        offset, _ = bias_adjustment.posterior_offset(first[None], PRIORS[candidate.name][FOLD[i]])
        made.append(np.sqrt(np.nanmean((error[with_values[90:]] - offset) ** 2)))
    return np.array(made)


def test_every_k_is_judged_on_the_days_after_the_first_ninety(case):
    sites, candidates = case
    made = evaluate_bias_adjustment.score_adjusted(sites, candidates, FOLD, PRIORS, CONFIG)
    assert list(made["by_days"]) == ["0", "7", "30", "90"]
    for k, judged in made["by_days"].items():
        for candidate in candidates:
            found = {**judged["arms"], **judged["baselines"]}[candidate.name]
            expected = by_hand(sites, candidate, int(k))
            assert found["n_sites"] == len(expected) == N_SITES - 1
            assert found["median"]["rmse"] == pytest.approx(np.median(expected), rel=1e-5)
            less = judged["minus_0"][candidate.name]["rmse"]["median_difference"]
            before = by_hand(sites, candidate, 0)
            assert less == pytest.approx(np.median(expected - before), rel=1e-4, abs=1e-9)
    first, *others = (judged["arms"]["multiscale"]["median"] for judged in made["by_days"].values())
    for other in others:
        assert other["rmse"] < first["rmse"]
        for same in ("correlation", "ubrmse"):
            assert other[same] == pytest.approx(first[same], abs=1e-6)


def test_what_is_scored_is_not_learned_from(case):
    sites, candidates = case
    rank = (np.isfinite(sites.observed[:, 10:])).cumsum(1)
    changed = sites.observed.copy()
    changed[:, 10:][rank > 90] += 1.0
    other = Sites(sites.ids, sites.block, sites.days, changed)
    before, after = (
        evaluate_bias_adjustment.score_adjusted(s, candidates, FOLD, PRIORS, CONFIG)["by_days"]
        for s in (sites, other)
    )
    for k in before:
        biases = (made[k]["arms"]["multiscale"]["median"]["bias"] for made in (before, after))
        assert next(biases) - next(biases) == pytest.approx(1.0, abs=1e-5)


def test_a_site_of_few_days_is_in_no_curve_and_has_its_offset(case):
    sites, candidates = case
    made = evaluate_bias_adjustment.score_adjusted(sites, candidates, FOLD, PRIORS, CONFIG)
    assert made["not_in_curve"] == [{"id": "s5", "reason": "20 days, fewer than 90 + 40"}]
    offset = made["offsets"][SHORT]
    error = sites.observed[SHORT] - candidates[0].prediction[SHORT]
    value, std = bias_adjustment.posterior_offset(error[None], PRIORS["multiscale"][1])
    found = offset["multiscale"]
    assert (offset["id"], found["days"]) == ("s5", 20)
    assert (found["offset"], found["std"]) == pytest.approx((value[0], std[0]))
    alone = np.arange(N_SITES) == SHORT
    few = [c.select(alone) for c in candidates]
    only = evaluate_bias_adjustment.score_adjusted(
        sites.select(alone), few, FOLD[alone], PRIORS, CONFIG
    )
    assert (only["n_sites"], only["by_days"]) == (0, {})
    assert only["offsets"] == [offset]


def test_a_site_is_shrunk_by_what_sites_of_other_folds_say(world):
    cube = Cube.open(world.workspace.url("cube.zarr"))
    folds = tables.read_table(world.workspace.url("folds.parquet"))
    made = evaluate_bias_adjustment.learn_priors(world.experiment, world.workspace, cube, folds)
    assert list(made) == [*world.experiment.arms, "ridge", "footprint"]
    rows = tables.read_table(world.workspace.url("sites.parquet")).query("arm == 'insitu'")
    fold = folds.set_index("site").fold
    for k, prior in made["insitu"].items():
        others = rows[rows.site.map(fold) != k].sort_values(["site", "time"])
        error = (others.observation - others.prediction).to_numpy()
        assert prior == pytest.approx(
            bias_adjustment.estimate_prior(error.reshape(prior.n_sites, -1))
        )
    assert {k: p.n_sites for k, p in made["footprint"].items()} == {
        **{k: int((fold != k).sum()) for k in range(3)},
        -1: 24,
    }


def test_without_errors_at_held_out_sites_nothing_can_be_adjusted(world):
    cube = Cube.open(world.workspace.url("cube.zarr"))
    table = tables.read_table(world.workspace.url("folds.parquet"))
    none = world.experiment.folds.model_copy(update={"kind": "none"})
    experiment = world.experiment.model_copy(update={"folds": none})
    with pytest.raises(DataError, match="no errors at held-out sites"):
        evaluate_bias_adjustment.learn_priors(experiment, world.workspace, cube, table)
    lonely = table.assign(fold=np.where(np.arange(24) < 4, 1, 0))
    with pytest.raises(DataError, match="5 sites of 30 days outside fold 0"):
        evaluate_bias_adjustment.learn_priors(world.experiment, world.workspace, cube, lonely)


def test_score_adjusts_and_draws_the_curve(world, tmp_path, monkeypatch, capsys):
    url = str(world.folder / "sites.nc")
    result, picture = tmp_path / "scores.json", tmp_path / "curve.png"
    argv = ["soilweave", "score", str(world.path), "--sites", url, "--json", str(result)]
    workspace = world.workspace.root.rpartition("/")[0]
    argv += ["--workspace", workspace, "--adjust", "--figure", str(picture)]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    summary = files.read_json(str(result))
    assert summary["adjustment"] == summary["out_of_fold"]["adjustment"]
    assert summary["adjustment"]["n_sites"] == 24
    assert picture.read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    assert "an offset learned on the first k days" in shown
    assert "k = 90" in shown
