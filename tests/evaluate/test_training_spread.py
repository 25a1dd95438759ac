"""What the training of single members makes of medians and paired differences."""

import numpy as np
import pandas as pd
import pytest

from pipeline.cli import tables as cli_tables
from pipeline.evaluate import scoring, training_spread
from pipeline.evaluate.scoring import Candidate, Sites
from pipeline.experiment.config import JudgingConfig
from pipeline.storage import artefacts, tables
from pipeline.storage.artefacts import Workspace

N_MEMBERS, N_SITES, N_DAYS = 3, 5, 50
RULES = JudgingConfig(min_days=20, bootstrap_draws=100)


@pytest.fixture(scope="module")
def scored():
    """Two arms of three members, and a baseline that lacks days: what went in, and the spread."""
    rng = np.random.default_rng(8)
    observed = rng.normal(0.3, 0.1, (N_SITES, N_DAYS)).astype("float32")
    observed[4, 10:] = np.nan  # too few days
    days = np.datetime64("2020-01-01") + np.arange(N_DAYS)
    sites = Sites(tuple("abcde"), np.arange(N_SITES), days, observed)
    sizes = {"multiscale": 0.02, "insitu": 0.06}
    members = {
        arm: np.nan_to_num(observed, nan=0.2) + rng.normal(0, size, (N_MEMBERS, N_SITES, N_DAYS))
        for arm, size in sizes.items()
    }
    fold = np.array(["0"] * N_SITES)
    candidates = [Candidate(arm, True, fold, of.mean(0)) for arm, of in members.items()]
    satellite = np.nan_to_num(observed, nan=0.2) + rng.normal(0, 0.1, observed.shape)
    satellite[rng.uniform(size=observed.shape) < 0.3] = np.nan
    candidates.append(Candidate("footprint", False, fold, satellite))
    spread = training_spread.describe_spread(sites, candidates, members, RULES)
    return sites, members, satellite, candidates, spread


def rmses(prediction, observed):
    """RMSE of each site with enough pairs, in a plain loop."""
    found = []
    for p, o in zip(prediction, observed, strict=True):
        both = np.isfinite(p) & np.isfinite(o)
        error = p[both].astype(float) - o[both].astype(float)
        found.append(np.sqrt(np.mean(error**2)) if both.sum() >= 20 else np.nan)
    return np.array(found)


def test_the_spread_of_a_median_is_over_single_members(scored):
    sites, members, _, _, spread = scored
    assert spread["n_members"] == N_MEMBERS
    for arm, of in members.items():
        medians = [np.nanmedian(rmses(member, sites.observed)) for member in of]
        assert spread["median_sd"][arm]["rmse"] == pytest.approx(np.std(medians, ddof=1))
    assert spread["median_sd"].keys() == members.keys()


@pytest.mark.parametrize("other", ["insitu", "footprint"])
def test_the_spread_of_a_difference_is_of_members_with_one_seed_on_common_days(scored, other):
    sites, members, satellite, _, spread = scored
    medians = []
    for k, member in enumerate(members["multiscale"]):
        rival = members[other][k] if other in members else satellite
        common = np.where(np.isfinite(rival), member, np.nan)
        difference = rmses(common, sites.observed) - rmses(rival, sites.observed)
        medians.append(np.nanmedian(difference))
    found = spread["paired_sd"][f"multiscale-{other}"]["rmse"]
    assert found == pytest.approx(np.std(medians, ddof=1), rel=1e-9)


def test_differences_smaller_than_the_spread_are_named_and_no_others(scored):
    sites, _, _, candidates, spread = scored
    _, summary = scoring.score_candidates(sites, candidates, RULES)
    summary["training_spread"] = spread
    pair = summary["paired"]["multiscale-insitu"]
    assert training_spread.spread_warnings(summary) == []  # .02 and .06 are far apart
    pair["rmse"]["median_difference"] = -0.4 * spread["paired_sd"]["multiscale-insitu"]["rmse"]
    pair["correlation"]["median_difference"] = None
    (small,) = training_spread.list_small(pair, spread["paired_sd"]["multiscale-insitu"])
    assert small["metric"] == "rmse"
    (sentence,) = training_spread.spread_warnings(summary)
    assert sentence.startswith("multiscale minus insitu is smaller than its spread over the train")
    assert f"of {N_MEMBERS}: RMSE {small['difference']:+.4f} (spread {small['sd']:.4f})" in sentence


def test_the_terminal_shows_the_spread_of_arms_and_of_pairs(scored):
    sites, _, _, candidates, spread = scored
    _, summary = scoring.score_candidates(sites, candidates, RULES)
    without, _ = cli_tables.summary_tables(summary | {"training_spread": {}})
    assert "±" not in str([*without.columns[2].cells]) + without.title
    medians, paired = cli_tables.summary_tables(summary | {"training_spread": spread})
    for table in (medians, paired):
        assert "± sd over single members" in table.title
    told = f"± {spread['median_sd']['insitu']['rmse']:.4f}".replace("0.", ".")
    assert told in [*medians.columns[3].cells][1]
    assert "±" not in [*medians.columns[3].cells][2]  # the satellite is not trained


@pytest.mark.parametrize("members", [{}, {"insitu": np.zeros((1, N_SITES, N_DAYS))}])
def test_without_two_members_there_is_no_spread(scored, members):
    sites, _, _, candidates, _ = scored
    assert training_spread.describe_spread(sites, candidates, members, RULES) == {}
    assert training_spread.spread_warnings({"paired": {}, "training_spread": {}}) == []
    assert training_spread.spread_warnings({"paired": {}}) == []  # of an earlier version


def test_members_are_read_only_if_the_models_record_them(tmp_path):
    workspace = Workspace(str(tmp_path))
    values = np.arange(12, dtype="float32")
    rows = {"arm": "insitu", "site": np.repeat(["a", "b"], 3), "time": np.tile(np.arange(3), 2)}
    table = pd.DataFrame(rows | {tables.member_column(k): values[:6] + 6 * k for k in range(2)})
    tables.write_table(workspace.url(tables.MEMBERS), table)
    artefact = artefacts.Artefact("models", workspace.url("models/"))
    artefact.begin({})
    artefact.commit({}, [], tables=[])
    assert tables.read_members(workspace) == {}
    artefact.begin({})
    artefact.commit({}, [], tables=[artefacts.shard_record(workspace.root, tables.MEMBERS)])
    np.testing.assert_array_equal(tables.read_members(workspace)["insitu"], values.reshape(2, 2, 3))
