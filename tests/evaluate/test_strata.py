"""Strata: who is in which, and that scores of a stratum are those of its sites and days alone."""

import numpy as np
import pytest
import xarray as xr

from model import aridity
from pipeline.errors import ConfigError
from pipeline.evaluate import scoring, stage, strata
from pipeline.evaluate.scoring import Candidate, Sites
from pipeline.evaluate.strata import Stratum
from pipeline.experiment.config import JudgingConfig
from pipeline.grid import lookup, spatial_blocks
from pipeline.storage import tables
from pipeline.storage.cube import Cube

RULES = JudgingConfig(min_days=20, bootstrap_draws=100)
N_SITES, N_DAYS = 8, 120


@pytest.fixture(scope="module")
def judged():
    """Eight sites of four blocks, an arm that errs by site and season, and two baselines."""
    rng = np.random.default_rng(0)
    days = np.datetime64("2020-01-01") + np.arange(N_DAYS)
    truth = rng.normal(0.3, 0.08, (N_SITES, N_DAYS))
    observed = truth + rng.normal(0, 0.02, truth.shape)
    sites = Sites(tuple("abcdefgh"), np.arange(N_SITES) // 2, days, observed.astype("float32"))
    made = {
        name: (truth + rng.normal(0, error, truth.shape)).astype("float32")
        for name, error in (("multiscale", 0.03), ("footprint", 0.06), ("ridge", 0.05))
    }
    made["multiscale"][:4] += 0.1
    made["footprint"][rng.random(truth.shape) < 0.4] = np.nan
    fold = np.array(["0"] * N_SITES)
    candidates = [Candidate(n, n == "multiscale", fold, v) for n, v in made.items()]
    return sites, candidates


def rmse(prediction, observed):
    return np.sqrt(np.nanmean((prediction.astype(float) - observed) ** 2, axis=1))


def test_a_stratum_of_sites_holds_those_sites_alone(judged):
    sites, candidates = judged
    place = Stratum(("wet", "dry", "empty"), np.array([0, 0, 0, 0, 1, 1, 1, -1]))
    found = strata.score_strata(sites, candidates, {"place": place}, RULES)["place"]
    assert found.keys() == {"wet", "dry"}
    for name, chosen in (("wet", slice(0, 4)), ("dry", slice(4, 7))):
        expected = np.median(rmse(candidates[0].prediction, sites.observed)[chosen])
        told = found[name]["arms"]["multiscale"]
        assert told["median"]["rmse"] == pytest.approx(expected)
        assert told["n_sites"] == found[name]["n_sites"] == chosen.stop - chosen.start
        low, high = told["ci95"]["rmse"]
        assert low <= expected <= high
        assert found[name]["paired"].keys() == {"multiscale-footprint", "multiscale-ridge"}
    worse, better = (found[n]["paired"]["multiscale-ridge"]["rmse"] for n in ("wet", "dry"))
    assert worse["median_difference"] > 0 > better["median_difference"]


def test_a_stratum_of_days_holds_those_days_alone(judged):
    sites, candidates = judged
    which = np.tile(np.arange(N_DAYS) // 50, (N_SITES, 1))  # the last of them has 20 days
    which[0] = -1
    found = strata.score_strata(sites, candidates, {"time": Stratum(("x", "y", "z"), which)}, RULES)
    assert found["time"].keys() == {"x", "y", "z"}
    for part, name in enumerate("xyz"):
        days = slice(50 * part, 50 * (part + 1))
        expected = rmse(candidates[0].prediction[1:, days], sites.observed[1:, days])
        told = found["time"][name]["arms"]["multiscale"]
        assert told["median"]["rmse"] == pytest.approx(np.median(expected))
        assert told["n_sites"] == N_SITES - 1
    footprint = found["time"]["z"]["baselines"]["footprint"]
    assert footprint["n_sites"] == 0  # of its 20 days, too many lack the satellite
    assert footprint["median"]["rmse"] is None


def test_what_does_not_part_the_sites_is_left_out(judged):
    sites, candidates = judged
    alike = Stratum(("all", "none"), np.zeros(N_SITES, int))
    unknown = Stratum(("a", "b"), np.full(N_SITES, -1))
    assert strata.score_strata(sites, candidates, {"one": alike, "no": unknown}, RULES) == {}


def test_sites_are_divided_by_continent_and_those_at_sea_are_in_none():
    lat, lon = np.array([[-26.2, 31.6], [40.0, -105.0], [-12.5, 130.8], [-49.3, 69.2]]).T
    found = strata._continent_stratum(xr.Dataset({"lat": ("site", lat), "lon": ("site", lon)}))
    assert found.names == ("Africa", "North America", "Oceania")
    assert found.indices.tolist() == [0, 1, 2, -1]


def test_triple_collocation_at_sites_tells_the_errors(judged):
    sites, candidates = judged
    found = stage.score_triple_collocation(sites, candidates, RULES)
    assert found.keys() == {"multiscale", "ridge"}
    for name, error in (("multiscale", 0.03), ("ridge", 0.05)):
        told = found[name]
        assert told["n_sites"] == N_SITES
        for record, expected in (("site", 0.02), ("satellite", 0.06), ("model", error)):
            assert told[record]["median"]["error_std"] == pytest.approx(expected, abs=0.012)
            low, high = told[record]["ci95"]["correlation"]
            assert low <= told[record]["median"]["correlation"] <= high
    lonely = sites.select(np.arange(N_SITES) < 3)
    few = RULES.model_copy(update={"min_days": 100})
    told = stage.score_triple_collocation(
        lonely, [c.select(np.arange(N_SITES) < 3) for c in candidates], few
    )
    assert told["ridge"]["undefined"] == {"fewer than 100 common days": 3}
    assert (
        stage.score_triple_collocation(
            sites, [c for c in candidates if c.name != "footprint"], RULES
        )
        == {}
    )


def test_the_table_has_the_interval_of_each_place(judged):
    sites, candidates = judged
    table, summary = scoring.score_candidates(sites, candidates, RULES)
    for metric in ("correlation", "bias", "ubrmse"):
        rows = table[(table.arm == "ridge") & (table.metric == metric)]
        assert ((rows.low < rows.value) & (rows.value < rows.high)).all()
        assert ((rows.n_eff > 3) & (rows.n_eff <= rows.n)).all()
    assert table[table.metric == "rmse"].n_eff.isna().all()
    rows = table[(table.arm == "multiscale") & (table.metric == "correlation")]
    assert summary["arms"]["multiscale"]["n_eff"] == pytest.approx(rows.n_eff.median())


@pytest.fixture(scope="module")
def snow(world):
    cube = Cube.open(world.workspace.url("cube.zarr"))
    return cube, tables.read_table(world.workspace.url("folds.parquet")).fold.to_numpy()


def test_strata_of_the_small_world(world, snow):
    cube, fold = snow
    found = strata.find_strata(world.experiment, cube, fold, slice(10, 160))
    assert found.keys() == {"network", "continent", "season", "frozen", "nearest training site"}
    days = cube.days[10:].astype("datetime64[M]").astype(int) % 12 + 1
    season = {1: "DJF", 2: "DJF", 12: "DJF", 3: "MAM", 4: "MAM", 11: "SON"}
    for which in found["season"].indices:
        assert [found["season"].names[i] for i in which] == [season[m] for m in days]
    kelvin = cube.series(cube.sites, "air_temperature")
    week = np.array([kelvin[day - 6 : day + 1].mean(0) for day in range(10, 160)])
    np.testing.assert_array_equal(found["frozen"].indices.T == 0, week < 273.15)
    assert 0 < (found["frozen"].indices == 0).mean() < 1


@pytest.mark.parametrize("buffer_km", [0.0, 20.0, 40.0])
def test_distance_to_the_nearest_site_that_was_learnt_from(world, snow, buffer_km):
    cube, fold = snow
    folds = world.experiment.folds.model_copy(update={"buffer_km": buffer_km})
    experiment = world.experiment.model_copy(update={"folds": folds})
    found = strata.find_strata(experiment, cube, fold, slice(0, 160))["nearest training site"]
    lat, lon = cube.sites.lat.values, cube.sites.lon.values
    expected = []
    for i in range(len(fold)):
        near = spatial_blocks.select_buffer(lat, lon, fold, fold[i], buffer_km)
        others = np.flatnonzero((fold != fold[i]) & ~near)
        km = [lookup.great_circle_km(lat[i], lon[i], lat[j], lon[j]) for j in others]
        expected.append(
            np.searchsorted(strata.DISTANCE_EDGES_KM, min(km), side="right") if km else -1
        )
    np.testing.assert_array_equal(found.indices, expected)


def test_groups_are_scored_beside_all_others(world, tmp_path):
    groups = {"low": ("snow-01", "snow-05"), "odd": ("snow-77",)}
    rules = world.experiment.judging.model_copy(update={"groups": groups})
    wrong = world.experiment.model_copy(update={"judging": rules})
    cube = Cube.open(world.workspace.url("cube.zarr"))
    fold = np.full(24, -1)
    with pytest.raises(ConfigError, match=r"odd: no site snow-77; give ids .* such as snow-00"):
        strata.find_strata(wrong, cube, fold, slice(0, 160))
    del groups["odd"]
    found = strata.find_strata(wrong, cube, fold, slice(0, 160))
    assert "nearest training site" not in found
    assert found["low"].names == ("low", "other")
    assert np.flatnonzero(found["low"].indices == 0).tolist() == [1, 5]


def held(**values):
    """Statics of sites, as a cube holds them."""
    return xr.Dataset({name: ("site", np.float32(v)) for name, v in values.items()})


def test_land_cover_irrigation_and_unknown():
    classes, share = [1, 7, 12, 17, np.nan], [0, 0.5, 0.1, 0.09, np.nan]
    found = strata._static_strata(None, held(land_cover=classes, irrigated=share))
    cover = found["land cover"]
    named = [cover.names[i] if i >= 0 else "" for i in cover.indices]
    assert named == ["forest", "shrubland", "cropland", "", ""]
    np.testing.assert_array_equal(found["irrigated"].indices, [0, 1, 1, 0, -1])
    shares = {"cover_tree": [0.6, 0.1, np.nan], "cover_crop": [0.4, 0.9, np.nan]}
    cover = strata._static_strata(None, held(**shares))["land cover"]
    assert cover.names == ("tree", "crop")
    np.testing.assert_array_equal(cover.indices, [0, 1, -1])


def test_climate_from_forcing():
    # FAO 56: at 20 degC s is 0.1447 kPa K-1, so 0.65 * 0.687 * 200 W m-2 / 28.36 W m-2 per mm.
    np.testing.assert_allclose(aridity.potential_evaporation(293.15, 200.0), 3.148, rtol=2e-3)
    cold = aridity.potential_evaporation(np.float32([270.0, np.nan]), np.float32([200, 200]))
    np.testing.assert_array_equal(cold, [0, np.nan])
    rain = np.float32([[3.148, 0], [1, np.nan], [np.nan, np.nan]])
    warm, sun = np.full((3, 2), 293.15), np.full((3, 2), 200.0)
    np.testing.assert_allclose(
        aridity.aridity_index(rain, warm, sun), [0.5, 0.3177, np.nan], rtol=2e-3
    )
    assert len(aridity.CLIMATE_CLASSES) == len(aridity.CLASS_EDGES) + 1
