"""Parts of the report: borders, missing values, reliability, and no path of the machine."""

import types

import numpy as np
import pytest

from pipeline.evaluate import scoring
from pipeline.evaluate.report import maps, missing, provenance, scores
from pipeline.evaluate.scoring import Candidate, Sites
from pipeline.experiment import config, load
from pipeline.experiment.config import JudgingConfig

DAYS = np.datetime64("2016-01-01") + np.arange(70)


@pytest.mark.parametrize(
    ("place", "around"),
    [
        ("the Four Corners", (-110.0, 36.0, -108.0, 38.0)),
        ("Gibraltar", (-7.0, 35.0, -4.0, 37.5)),
        ("Java", (105.0, -9.0, 115.0, -5.0)),
    ],
)
def test_coasts_and_borders_are_of_the_whole_earth(place, around):
    west, south, east, north = around
    domain = {"west_degrees": west, "south_degrees": south, "east_degrees": east}
    settings = [f"domain.{key}={value}" for key, value in domain.items()]
    experiment = load.load_experiment("scan", [*settings, f"domain.north_degrees={north}"])
    lines = maps.read_borders(config.experiment_window(experiment).bounds)
    assert lines
    assert all(len(x) == len(y) > 1 for x, y in lines)


def test_there_are_no_borders_in_the_middle_of_an_ocean():
    assert maps.read_borders((-13.5e6, -3.0e6, -13.0e6, -2.5e6)) == []


def test_missing_values_are_spread_over_the_incomplete_days_of_their_block():
    """Of 10 places: 30 values on three days in the first block, 5 on unknown days in the second."""
    record = {"of": 700, "of_days": 70, "days": [["2016-01-03", "2016-01-05"]]}
    record["blocks"] = {"2016-01-01": 30, "2016-02-02": 5}
    share = missing._recorded_share(record, DAYS)
    np.testing.assert_array_equal(np.flatnonzero(share[:32] < 1), [2, 3, 4])
    np.testing.assert_allclose(share[2:5], 0.0)
    np.testing.assert_allclose(share[32:64], 1 - 5 / 32 / 10)
    np.testing.assert_array_equal(share[64:], 1.0)


def test_the_share_of_observed_sites_is_counted_day_by_day():
    import xarray as xr

    values = np.ones((70, 4), np.float32)
    values[10, :3] = np.nan
    values[:, 3] = np.nan
    sites = xr.Dataset({"moisture": (("time", "site"), values)})
    sites = sites.assign_coords(time=DAYS.astype("datetime64[ns]"))
    cube = types.SimpleNamespace(target="moisture", sites=sites, footprints=None, days=DAYS)
    record = {"of": 280, "of_days": 70, "days": [], "blocks": {}}
    fixed = {"of": 9, "n": 1}  # a static attribute
    manifest = {"missing": {"sites": {"moisture": record}, "cells": {"slope": fixed}}}
    shares = missing.present_shares(cube, manifest)
    assert [*shares] == ["moisture, sites"]
    expected = np.full(70, 0.75)
    expected[10] = 0.0
    np.testing.assert_array_equal(shares["moisture, sites"], expected)
    picture = missing.missing_picture(cube, manifest)
    assert picture.uri.startswith("data:image/png")
    assert missing.missing_picture(cube, {}) is None


def test_the_reliability_curve_has_the_coverage_of_ten_levels():
    rng = np.random.default_rng(1)
    n_sites, n_days = 6, 70
    observed = rng.normal(0, 1, (n_sites, n_days)).astype("float32")
    observed[2, 5:9] = np.nan
    std = rng.uniform(0.5, 1.5, (n_sites, n_days)).astype("float32")
    fold = np.array(["0"] * n_sites)
    candidate = Candidate("insitu", True, fold, np.zeros_like(observed), std, std / 2)
    sites = Sites(tuple("abcdef"), np.arange(n_sites), DAYS, observed)
    rules = JudgingConfig(min_days=10, bootstrap_draws=100)
    _, summary = scoring.score_candidates(sites, [candidate], rules)
    described = summary["arms"]["insitu"]
    curve = described["reliability"]
    assert [len(values) for values in curve.values()] == [10, 10, 10]
    for key in ("before", "after"):
        assert curve[key] == sorted(curve[key])
        for level in (0.5, 0.9):
            of_level = curve[key][curve["nominal"].index(level)]
            assert of_level == pytest.approx(described["coverage"][f"{level:.0%}"[:-1]][key])


def test_the_goal_of_a_mission_is_a_line_in_the_ubrmse_alone():
    values = {"insitu": np.array([0.03, 0.05, 0.06])}
    with_goal, without = (
        scores.draw_boxes(values, "ubrmse", "m³ m⁻³", "at sites", goal) for goal in (0.04, None)
    )
    assert with_goal.uri != without.uri


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/me/ws/scan/cube.zarr", "…/cube.zarr"),
        ("~/data/sites.csv", "…/sites.csv"),
        ("file:///data/x.nc", "…/x.nc"),
        ("/data", "…/data"),
        ("s3://bucket/ws/cube.zarr", "s3://bucket/ws/cube.zarr"),
        ("https://host/a/b.nc", "https://host/a/b.nc"),
        ("doi:10.1029/2021GL096847", "doi:10.1029/2021GL096847"),
        ("held-out polygons of /srv/regions/a.geojson", "held-out polygons of …/a.geojson"),
        ("catalogs/osse.yaml", "catalogs/osse.yaml"),
    ],
)
def test_local_folders_are_hidden_and_nothing_else(text, shown):
    assert provenance.hide_local_folder(text) == shown
    assert provenance.hide_local_folders({"a": [text, 1]}) == {"a": [shown, 1]}
