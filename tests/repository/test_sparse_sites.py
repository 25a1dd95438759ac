"""The study of few sites: its controls, and intervals that resample everything that is random."""

from __future__ import annotations

import json

import numpy as np
import pytest
from studies import sparse, sparse_page

from model.ensemble import Prediction, combine_members


def member(site, satellite, site_level, satellite_level):
    series = np.zeros((2, 3), np.float32)
    levels = (np.full(2, level, np.float32) for level in (site_level, satellite_level))
    return Prediction(series + site, series + satellite, series + 0.1, *levels)


def test_late_fusion_has_the_dynamics_of_one_model_and_the_level_of_the_other():
    insitu, satellite = member(0.3, 9.0, 0.25, 9.0), member(9.0, 0.2, 9.0, 0.15)
    fused = sparse.fused(insitu, satellite)
    for weight, expected in ((1.0, 0.3), (0.5, 0.25), (0.0, 0.2)):
        series, _ = combine_members([fused], sparse.BOTH, weight)
        np.testing.assert_allclose(series, expected, atol=1e-6)


@pytest.mark.parametrize(("n_sites", "expected"), [(0, 0.5), (15, 0.75), (10_000, 1.0)])
def test_few_sites_hardly_move_the_level_weight_from_its_prior(n_sites, expected):
    assert sparse.shrunk(1.0, n_sites) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("n_members", "n_resampled"), [(1, 1), (2, 4), (3, sparse.RESAMPLES)])
def test_ensembles_are_all_members_each_alone_and_resampled_ones(n_members, n_resampled):
    every, alone, resampled = sparse.ensembles(n_members)
    assert every == tuple(range(n_members))
    assert alone == [(i,) for i in range(n_members)]
    assert len(resampled) == n_resampled
    assert all(len(chosen) == n_members for chosen in resampled)


def test_predictions_are_read_as_they_were_written(tmp_path):
    made = {"insitu": [member(0.1, 0.2, 0.3, 0.4), member(0.5, 0.6, 0.7, 0.8)]}
    sparse.write(tmp_path / "made.npz", made)
    (name, found), *_ = sparse.read(tmp_path / "made.npz").items()
    assert (name, len(found)) == ("insitu", 2)
    for mine, theirs in zip(found, made["insitu"], strict=True):
        for field, value in vars(theirs).items():
            np.testing.assert_array_equal(getattr(mine, field), value)


def scores(by_draw, by_member, by_block, noise=0.0):
    """(draw, ensemble, metric, site) values that differ where they are told to."""
    generator = np.random.default_rng(1)
    block = np.repeat(np.arange(10), 4)
    values = generator.normal(0, by_draw, (6, 1, 1, 1)) + generator.normal(
        0, by_member, (6, 4, 1, 1)
    )
    values = values + generator.normal(0, by_block, 10)[block]
    return values + generator.normal(0, noise, (6, 4, 1, 40)), block


@pytest.mark.parametrize("source", ["by_draw", "by_member", "by_block"])
def test_an_interval_knows_of_each_kind_of_noise(source):
    silent = dict.fromkeys(("by_draw", "by_member", "by_block"), 0.0)
    low, high = sparse_page.interval(*scores(**silent))
    assert float(high[0] - low[0]) == pytest.approx(0.0, abs=1e-12)
    low, high = sparse_page.interval(*scores(**silent | {source: 1.0}))
    assert 0.3 < float(high[0] - low[0]) < 4.0


def test_the_page_and_the_numbers_say_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(sparse_page, "DRAWS", 50)
    generator = np.random.default_rng(0)
    names = {name for pair in sparse_page.PAIRS for name in pair} | set(sparse_page.SHOWN)
    shape = (len(sparse_page.METRICS), 40)

    def case():
        of = {
            name: {
                "every": generator.normal(0.5, 0.1, shape).tolist(),
                "alone": generator.normal(0.5, 0.1, (2, *shape)).tolist(),
                "resampled": generator.normal(0.5, 0.1, (4, *shape)).tolist(),
            }
            for name in sorted(names)
        }
        levels = {name: [0.5, 1.0] for name in names}
        return {"block": np.repeat(np.arange(10), 4).tolist(), "scores": of, "level_weight": levels}

    kept = {8: [case(), case()], 30: [case(), case()]}
    (tmp_path / "results").mkdir()
    page = tmp_path / "results" / "sparse.md"
    page.write_text("<!-- sparse: made by make sparse -->\n<!-- end of sparse -->\n")
    sparse_page.publish(kept, 2, tmp_path)
    numbers = json.loads((tmp_path / "results" / "sparse.json").read_text())
    assert set(numbers) == {"about", "8", "30"}
    every = np.array([each["scores"]["insitu"]["every"] for each in kept[8]])
    expected = np.median(every.mean(0), axis=1)
    found = numbers["8"]["insitu"]["median"]
    np.testing.assert_allclose([found[m] for m in sparse_page.METRICS], expected)
    paired = numbers["30"]["multiscale"]["paired"]["late_fusion"]["rmse"]
    assert sparse_page.told({"rmse": paired}, "rmse") in page.read_text()
    assert (tmp_path / "results" / "sparse.png").read_bytes().startswith(b"\x89PNG")
