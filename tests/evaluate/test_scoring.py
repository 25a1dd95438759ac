"""Judging: pairs on common days, few days not scored, the satellite's stand-in, and no leak."""

import dataclasses

import numpy as np
import pytest
import torch

from model.recipe import ModelKey
from model.ridge import SiteMoments
from model.trainer import Trainer
from pipeline.evaluate import scoring
from pipeline.evaluate.scoring import Candidate, Sites
from pipeline.experiment.config import JudgingConfig
from pipeline.grid import lookup
from pipeline.storage import ensemble, models, tables
from pipeline.storage.cube import Cube
from pipeline.train import predict_sites, training_data

N_SITES, N_DAYS, MIN_DAYS = 7, 60, 20
RULES = JudgingConfig(min_days=MIN_DAYS, bootstrap_draws=200)


@pytest.fixture(scope="module")
def judged():
    """Seven sites, three candidates whose gaps differ: what went in, table and summary."""
    rng = np.random.default_rng(3)
    observed = rng.normal(0.3, 0.1, (N_SITES, N_DAYS)).astype("float32")
    observed[5, 15:] = np.nan  # too few for anyone
    made, share = {}, {"multiscale": 0.1, "insitu": 0.4, "footprint": 0.6}
    for name, missing in share.items():
        prediction = (observed + rng.normal(0.02, 0.05, observed.shape)).astype("float32")
        prediction[rng.uniform(size=observed.shape) < missing] = np.nan
        made[name] = prediction
    made["footprint"][2] = np.nan
    sites = Sites(
        tuple("abcdefg"),
        np.array([0, 0, 1, 1, 2, 2, 3]),
        np.datetime64("2020-01-01") + np.arange(N_DAYS),
        observed,
    )
    std = {"multiscale": 0.05, "insitu": 0.02}
    candidates = [
        Candidate(
            name,
            name in std,
            np.array(["0"] * N_SITES),
            values,
            *(np.full_like(values, std[name] * k) for k in ((1, 0.5) if name in std else ())),
        )
        for name, values in made.items()
    ]
    return (sites, made, *scoring.score_candidates(sites, candidates, RULES))


def rmse(prediction, observed, days):
    return np.sqrt(np.mean((prediction[days].astype(float) - observed[days].astype(float)) ** 2))


@pytest.mark.parametrize("other", ["insitu", "footprint"])
def test_a_paired_difference_is_a_minus_b_on_common_site_days(judged, other):
    sites, made, _, summary = judged
    differences = []
    for site in range(N_SITES):
        series = (made["multiscale"][site], made[other][site], sites.observed[site])
        days = np.isfinite(series).all(0)
        if days.sum() >= MIN_DAYS:
            a, b = (rmse(values, sites.observed[site], days) for values in series[:2])
            differences.append(a - b)
    found = summary["paired"][f"multiscale-{other}"]["rmse"]
    assert found["n_sites"] == len(differences) < N_SITES
    assert found["median_difference"] == pytest.approx(np.median(differences), abs=1e-12)
    assert found["ci95"][0] <= found["median_difference"] <= found["ci95"][1]
    assert min(differences) <= found["ci95"][0] <= found["ci95"][1] <= max(differences)


def test_multiscale_is_compared_with_every_other_candidate(judged):
    assert judged[3]["paired"].keys() == {"multiscale-insitu", "multiscale-footprint"}


def test_sites_with_few_days_are_not_scored_and_the_table_says_why(judged):
    sites, made, table, summary = judged
    for name, prediction in made.items():
        pairs = (np.isfinite(prediction) & np.isfinite(sites.observed)).sum(1)
        rows = table[(table.arm == name) & (table.metric == "rmse")].set_index("id")
        np.testing.assert_array_equal(rows.n, pairs)
        few = pairs < MIN_DAYS
        assert few.any()
        np.testing.assert_array_equal(rows.value.isna(), few)
        reasons = [f"{n} pairs, fewer than {MIN_DAYS}" if n < MIN_DAYS else "" for n in pairs]
        assert list(rows.reason) == reasons
        group = "arms" if name in summary["arms"] else "baselines"
        assert summary[group][name]["n_sites"] == (~few).sum()
        expected = np.median(rows.value.dropna())
        assert summary[group][name]["median"]["rmse"] == pytest.approx(expected)


def test_coverage_is_the_mean_over_sites_of_the_share_within_the_interval(judged):
    sites, made, _, summary = judged
    for name, std in (("multiscale", 0.05), ("insitu", 0.02)):
        for level in (0.5, 0.9):
            for stage, width in (("after", std), ("before", std / 2)):
                half = width * np.sqrt(3) / np.pi * np.log((1 + level) / (1 - level))
                shares = []
                for prediction, observed in zip(made[name], sites.observed, strict=True):
                    error = np.abs(prediction - observed)
                    error = error[np.isfinite(error)]
                    if len(error) >= MIN_DAYS:
                        shares.append(np.mean(error <= half))
                found = summary["arms"][name]["coverage"][f"{100 * level:.0f}"][stage]
                assert found == pytest.approx(np.mean(shares), abs=1e-6)
    assert "coverage" not in summary["baselines"]["footprint"]


def test_whether_width_ranks_sites_has_an_interval(judged):
    sites, made, _, summary = judged
    constant = summary["arms"]["insitu"]["width_ranks_errors"]
    assert constant == {"sites": 0.0, "sites_ci95": [None, None], "site_days": 0.0}
    error = made["multiscale"] - sites.observed
    size = np.nanmean(np.abs(error), 1, keepdims=True)
    told = scoring._width_error_correlation(
        error, np.broadcast_to(size, error.shape), sites.block, 500
    )
    assert told["sites"] == pytest.approx(1)
    assert told["sites_ci95"] == pytest.approx([1, 1])


def test_the_footprint_at_a_site_is_the_one_that_holds_it_else_the_nearest_with_data():
    lat, lon = np.array([40.0, 40.0, 40.0]), np.array([-100.0, -99.58, -90.0])  # 36 km apart
    series = np.float32([[np.nan] * 4, [0.2, np.nan, 0.3, 0.4], [0.5, 0.6, np.nan, 0.8]])
    sites = {
        "held, with data": (40.1, -99.45, 1, 1),
        "held by 2, though 1 is nearer": (40.0, -95.5, 2, 2),
        "held, but that one is empty": (40.0, -100.0, 0, 1),
        "in none, near": (40.3, -99.58, -1, 1),
        "in none, far": (45.0, -99.58, -1, None),
    }
    site_lat, site_lon, holding, wanted = zip(*sites.values(), strict=True)
    found, km = lookup.satellite_at_sites(
        series, (lat, lon), (np.array(site_lat), np.array(site_lon)), np.array(holding), 40.0
    )
    expected = [series[i] if i is not None else np.full(4, np.nan) for i in wanted]
    np.testing.assert_array_equal(found, np.float32(expected))
    assert np.isnan(km[4])
    assert 35.5 < km[2] < 36.0
    assert km[1] > 400


def test_without_any_satellite_value_no_site_has_a_footprint():
    nothing = np.full((2, 3), np.nan, np.float32)
    place = (np.array([40.0, 41.0]), np.array([-100.0, -99.0]))
    found, km = lookup.satellite_at_sites(nothing, place, place, np.array([0, 1]), 1000.0)
    assert np.isnan(found).all()
    assert np.isnan(km).all()


@pytest.fixture(scope="module")
def leak(world):
    """The packed data of the world, and again with the observations of fold 1 made wrong."""
    cube = Cube.open(world.workspace.url("cube.zarr"))
    folds = tables.read_table(world.workspace.url("folds.parquet"))
    held_out = folds.fold.to_numpy() == 1
    changed = cube.sites.load().copy(deep=True)
    changed["snow_depth"].values[:, held_out] = 7.0 + np.arange(len(changed.time))[:, None] / 100
    altered = dataclasses.replace(cube, sites=changed)
    packs = [training_data.pack_data(world.experiment, c, folds) for c in (cube, altered)]
    return world.experiment, world.workspace, held_out, *packs


def fitted(experiment, job, data):
    """Weights after two updates."""
    fitting = Trainer(experiment.recipe_sections, job, data, 2)
    fitting.advance(2)
    return fitting.network.state_dict()


def test_a_model_learns_nothing_from_the_sites_it_is_judged_by(leak):
    experiment, _, held_out, plain, altered = leak
    assert not np.array_equal(plain.insitu, altered.insitu, equal_nan=True)
    job = ModelKey("insitu", 1, 0)
    datas = [packed.data(job, 0.0, "cpu") for packed in (plain, altered)]
    assert datas[0].scaler == datas[1].scaler
    assert datas[0].target == datas[1].target
    for data in datas:
        assert not set(data.trainable.tolist()) & set(np.flatnonzero(held_out))
    states = [fitted(experiment, job, data) for data in datas]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    other = ModelKey("insitu", 0, 0)  # which does learn from them
    states = [fitted(experiment, other, p.data(other, 0.0, "cpu")) for p in (plain, altered)]
    assert not all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_nor_do_the_baseline_and_the_calibration(leak):
    experiment, workspace, _, plain, altered = leak
    trainable = plain.training_sites(1, 0.0)
    ridges = [
        SiteMoments(p.sites("cpu"), p.learn_insitu).fit(trainable, p.fold) for p in (plain, altered)
    ]
    np.testing.assert_array_equal(ridges[0].weights, ridges[1].weights)
    root = workspace.url("models")
    members = ensemble.predict_members(
        experiment, root, "multiscale", plain.sites("cpu"), plain.fold
    )
    calibrations = [
        predict_sites._calibrate_folds(experiment, "multiscale", members, p)
        for p in (plain, altered)
    ]
    assert calibrations[0]["1"] == calibrations[1]["1"]
    for fold in ("0", "2", models.fold_name(models.ALL_SITES)):
        assert calibrations[0][fold] != calibrations[1][fold]


def test_a_buffer_keeps_near_sites_out_of_training(leak):
    *_, held_out, plain, _ = leak
    free, buffered = plain.training_sites(1, 0.0), plain.training_sites(1, 30.0)
    assert set(buffered) < set(free)
    assert not set(free) & set(np.flatnonzero(held_out))
