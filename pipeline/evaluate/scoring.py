"""Scores of arms and baselines on the same sites and days, and what they say together.

A scores table has one row per place, candidate and metric:
  target (site or footprint), id, arm (or baseline), fold, seed (a number, or ensemble), period,
  metric, n (pairs), value (NaN where not scored), reason (why not, else empty), n_eff (independent
  days that the n are worth), low, high (the 95 % interval of the place alone that those give);
  NaN where there is no analytic interval

The satellite as a baseline: at the sites of a cube, and at places that the cube has not.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product as pairs_of
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from model import calibration, metrics, score_intervals
from model.score_intervals import Interval
from pipeline.catalog import intake_catalog
from pipeline.catalog.experiment_sources import read_footprints, screen_footprints
from pipeline.experiment import config
from pipeline.experiment.config import REFERENCE_ARM, SATELLITE_BASELINE
from pipeline.grid import ease, lookup, remap

if TYPE_CHECKING:
    from datetime import date

    from numpy.typing import NDArray

    from pipeline.experiment.config import Experiment, JudgingConfig
    from pipeline.files import Json
    from pipeline.storage.cube import Cube


COMPARED = ("correlation", "anomaly_correlation", "rmse", "ubrmse", "kge")
LEVELS = (0.5, 0.9)  # of the intervals whose coverage is reported
BRIEF = ("bias", "rmse", "ubrmse", "correlation")  # of strata


@dataclass(frozen=True)
class Sites:
    """What is judged against: observations (site, day), NaN where missing, and where sites lie."""

    ids: tuple[str, ...]
    block: NDArray[np.int64]
    days: NDArray[np.datetime64]
    observed: NDArray[np.float32]

    def only(self, chosen: NDArray[np.bool_]) -> Sites:
        """Some of the sites."""
        ids = tuple(i for i, is_chosen in zip(self.ids, chosen, strict=True) if is_chosen)
        return Sites(ids, self.block[chosen], self.days, self.observed[chosen])


@dataclass(frozen=True)
class Candidate:
    """An arm or a baseline: its prediction (site, day), and its standard deviation if it has one.

    `std_raw` is the one before calibration; `fold` (site,) says which models predicted a site;
    `distance_km` (site,) is how far away the value stands for the site, for the satellite.
    """

    name: str
    is_arm: bool
    fold: NDArray[Any]
    prediction: NDArray[np.float32]
    std: NDArray[np.float32] | None = None
    std_raw: NDArray[np.float32] | None = None
    distance_km: NDArray[np.float64] | None = None

    def only(self, chosen: NDArray[np.bool_]) -> Candidate:
        """Its predictions at some of the sites."""
        std, raw = (None if s is None else s[chosen] for s in (self.std, self.std_raw))
        distance = None if self.distance_km is None else self.distance_km[chosen]
        fold, prediction = self.fold[chosen], self.prediction[chosen]
        return Candidate(self.name, self.is_arm, fold, prediction, std, raw, distance)


def header(experiment: Experiment, test: tuple[date, date]) -> Json:
    """What a summary begins with: what was judged over the days `test`, and how it was unseen."""
    train = experiment.train_period
    overlaps = test[0] <= train[1] and train[0] <= test[1]
    return {
        "experiment": experiment.name,
        "title": experiment.title,
        "recipe": experiment.recipe,
        "updates": experiment.train.updates,
        "n_seeds": experiment.n_seeds,
        "train_period": [str(day) for day in train],
        "test_period": [str(day) for day in test],
        "time": "seen" if overlaps else "unseen",
        "place": "seen" if experiment.folds.kind == "none" else "unseen",
        "folds": experiment.folds.model_dump(mode="json"),
        "min_days": experiment.judging.min_days,
        "n_sites": 0,
        "arms": {},
        "baselines": {},
        "paired": {},
    }


def not_scored(table: pd.DataFrame) -> list[Json]:
    """Sites without a score, with the reason, per candidate."""
    lacking = table[(table.reason != "") & (table.metric == "rmse")]
    return [
        {"id": row["id"], "arm": row["arm"], "reason": row["reason"]}
        for row in lacking.to_dict("records")
    ]


def judge(
    sites: Sites, candidates: list[Candidate], judging: JudgingConfig
) -> tuple[pd.DataFrame, Json]:
    """The scores table, and arms, baselines and paired differences for the summary."""
    scored = {c.name: _with_analytic(sites, c, judging) for c in candidates}
    table = [site_rows("site", sites.ids, c.name, c.fold, scored[c.name]) for c in candidates]
    described = {c.name: _describe(sites, c, scored[c.name], judging) for c in candidates}
    summary = _summary(candidates, described) | {"paired": _paired(sites, candidates, judging)}
    return pd.concat(table, ignore_index=True), summary


def brief(sites: Sites, candidates: list[Candidate], judging: JudgingConfig) -> Json:
    """As the summary of `judge`, of medians, their intervals and paired differences alone."""
    described = {}
    for c in candidates:
        scored = _scores(sites, c.prediction, judging)
        told = with_intervals({m: scored[m] for m in BRIEF}, sites.block, judging)
        described[c.name] = {"n_sites": _n_scored(scored)} | told
    paired = _paired(sites, candidates, judging, BRIEF)
    return _summary(candidates, described) | {"paired": paired}


def with_intervals(
    values: dict[str, NDArray[Any]], block: NDArray[np.int64], judging: JudgingConfig
) -> dict[str, Json]:
    """`median` and `ci95` of each of some values (place,), None where there is none."""
    draws = judging.bootstrap_draws
    bounds = {name: metrics.block_bootstrap(v, block, n_draws=draws) for name, v in values.items()}
    return {
        "median": {name: number(_median(v)) for name, v in values.items()},
        "ci95": {name: [number(bound) for bound in pair] for name, pair in bounds.items()},
    }


def _summary(candidates: list[Candidate], described: dict[str, Json]) -> Json:
    """What was told of candidates, arms and baselines apart."""
    return {
        "n_sites": max((d["n_sites"] for d in described.values()), default=0),
        "arms": {c.name: described[c.name] for c in candidates if c.is_arm},
        "baselines": {c.name: described[c.name] for c in candidates if not c.is_arm},
    }


def site_rows(
    target: str, ids: tuple[str, ...], name: str, fold: Any, scored: metrics.Scores
) -> pd.DataFrame:
    """Rows of one candidate: place by place, metric by metric."""
    n_metrics = len(metrics.METRICS)
    none = np.full((n_metrics, len(ids)), np.nan)
    return pd.DataFrame(
        {
            "target": target,
            "id": np.tile(ids, n_metrics),
            "arm": name,
            "fold": np.tile(np.asarray(fold, str), n_metrics),
            "seed": "ensemble",
            "period": "test",
            "metric": np.repeat(metrics.METRICS, len(ids)),
            "n": np.tile(scored["n"], n_metrics),
            "value": np.concatenate([scored[metric] for metric in metrics.METRICS]),
            "reason": np.tile(scored["reason"], n_metrics),
            **{bound: scored.get(bound, none).ravel() for bound in Interval._fields},
        }
    )


def scores_of(
    prediction: NDArray[Any], observed: NDArray[Any], days: NDArray[Any], min_days: int
) -> metrics.Scores:
    """Scores per place, NaN and a reason where there are fewer than `min_days` pairs."""
    scored = metrics.scores(prediction, observed, days)
    few = scored["n"] < min_days
    reasons = [f"{n} pairs, fewer than {min_days}" if n < min_days else "" for n in scored["n"]]
    kept = {metric: np.where(few, np.nan, scored[metric]) for metric in metrics.METRICS}
    return {**kept, "n": scored["n"], "reason": np.array(reasons, object)}


def medians(scored: metrics.Scores) -> dict[str, float | None]:
    """Median over the places that are scored, by metric; None where none is."""
    return {metric: number(_median(scored[metric])) for metric in metrics.METRICS}


def number(value: float) -> float | None:
    """A number for JSON, None for NaN."""
    return float(value) if np.isfinite(value) else None


def _scores(sites: Sites, prediction: NDArray[Any], judging: JudgingConfig) -> metrics.Scores:
    return scores_of(prediction, sites.observed, sites.days, judging.min_days)


def _with_analytic(sites: Sites, candidate: Candidate, judging: JudgingConfig) -> metrics.Scores:
    """Scores, and `n_eff`, `low` and `high` (metric, site) where there is an analytic interval."""
    scored = _scores(sites, candidate.prediction, judging)
    found = score_intervals.analytic_intervals(
        candidate.prediction, sites.observed, sites.days, scored
    )
    none = Interval(*np.full((3, len(sites.ids)), np.nan))
    rows = [found.get(metric, none) for metric in metrics.METRICS]
    return scored | {k: np.stack([getattr(i, k) for i in rows]) for k in Interval._fields}


def _n_scored(scored: metrics.Scores) -> int:
    return int(np.isfinite(scored["rmse"]).sum())


def _describe(
    sites: Sites, candidate: Candidate, scored: metrics.Scores, judging: JudgingConfig
) -> Json:
    """Medians with their intervals, and how far the uncertainty can be trusted."""
    ok = np.isfinite(scored["rmse"])
    by_metric = {metric: scored[metric] for metric in metrics.METRICS}
    described: Json = {"n_sites": _n_scored(scored)}
    described |= with_intervals(by_metric, sites.block, judging)
    n_eff = scored["n_eff"][metrics.METRICS.index("correlation")]
    described["n_eff"] = number(_median(np.where(ok, n_eff, np.nan)))
    if candidate.std is not None and candidate.std_raw is not None:
        error = np.where(ok[:, None], candidate.prediction - sites.observed, np.nan)
        described["coverage"] = {
            f"{level:.0%}".rstrip("%"): {
                "before": _coverage(error, candidate.std_raw, level),
                "after": _coverage(error, candidate.std, level),
            }
            for level in LEVELS
        }
        described["width_ranks_errors"] = _ranking(
            error, candidate.std, sites.block, judging.bootstrap_draws
        )
    if candidate.distance_km is not None:
        kept = zip(sites.ids, candidate.distance_km.tolist(), strict=True)
        described["distance_km"] = {site: number(km) for site, km in kept}
    return described


def _coverage(error: NDArray[Any], std: NDArray[Any], level: float) -> float | None:
    """Share of errors inside the central interval, as the mean over sites."""
    share = calibration.interval_coverage(error, std, level)
    known = share[np.isfinite(share)]
    return float(known.mean()) if known.size else None


def _ranking(error: NDArray[Any], std: NDArray[Any], block: NDArray[np.int64], draws: int) -> Json:
    """Rank correlation of width and error: over site-days, and over the means of sites."""
    both = np.isfinite(error) & np.isfinite(std)
    n = np.where(both.any(1), both.sum(1), np.nan)
    sums = (np.where(both, v, 0.0).sum(1, dtype=np.float64) for v in (std, np.abs(error)))
    width, size = ((v / n).astype(np.float32) for v in sums)  # equal widths stay equal
    days = metrics.spearman(std[both], np.abs(error[both]))
    return {
        "sites": number(metrics.spearman(width, size)),
        "sites_ci95": [number(b) for b in metrics.spearman_interval(width, size, block, draws)],
        "site_days": number(days),
    }


def _paired(
    sites: Sites,
    candidates: list[Candidate],
    judging: JudgingConfig,
    names: tuple[str, ...] = COMPARED,
) -> Json:
    """The reference arm against every other candidate, and arms against baselines.

    A-B is A minus B, per site on the days that both have.
    """
    arms = [c for c in candidates if c.is_arm]
    firsts = [c for c in arms if c.name == REFERENCE_ARM] or arms[:1]
    chosen = [(a, b) for a, b in pairs_of(firsts, candidates) if a is not b]
    return {f"{a.name}-{b.name}": _difference(sites, a, b, judging, names) for a, b in chosen}


def _difference(
    sites: Sites, a: Candidate, b: Candidate, judging: JudgingConfig, names: tuple[str, ...]
) -> Json:
    common = np.isfinite(a.prediction) & np.isfinite(b.prediction)
    first, second = (
        _scores(sites, np.where(common, c.prediction, np.nan), judging) for c in (a, b)
    )
    draws = judging.bootstrap_draws
    made = {m: metrics.paired_difference(first[m], second[m], sites.block, draws) for m in names}
    for difference in made.values():
        difference["median_difference"] = number(difference["median_difference"])
        difference["ci95"] = [number(bound) for bound in difference["ci95"]]
    return made


def _median(values: NDArray[Any]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def in_cube(experiment: Experiment, cube: Cube, days: slice) -> Candidate:
    """The satellite at every site of a cube, on some of its days."""
    assert cube.footprints is not None
    assert cube.sites is not None
    values = cube.series(cube.footprints, cube.target)[days]
    ny, nx = values.shape[1:]
    lat, lon = np.meshgrid(
        cube.footprints["lat"].values, cube.footprints["lon"].values, indexing="ij"
    )
    fy, fx = cube.sites["fy"].values, cube.sites["fx"].values
    series, distance = lookup.at_sites(
        values.reshape(len(values), ny * nx).T,
        (lat.ravel(), lon.ravel()),
        (cube.sites["lat"].values, cube.sites["lon"].values),
        np.where(fy >= 0, fy.astype(np.int64) * nx + fx, -1),
        experiment.judging.max_footprint_km,
    )
    fold = np.full(len(series), "")
    return Candidate(SATELLITE_BASELINE, False, fold, series, distance_km=distance)


def at_places(
    experiment: Experiment,
    where: tuple[NDArray[np.float64], NDArray[np.float64]],
    on: NDArray[np.datetime64],
) -> Candidate:
    """The satellite from the experiment's catalog, on some days.

    Args:
      experiment: names the source.
      where: latitude and longitude (place,), degrees.
      on: (day,) consecutive days.
    """
    assert experiment.sources.satellite is not None
    source = intake_catalog.open_source(experiment, experiment.sources.satellite)
    window = config.window(experiment).of_footprints
    source = remap.near(source, window)
    days = on.astype("datetime64[ns]")
    values, flag = read_footprints(experiment, source, days)
    screen_footprints(experiment, values, flag)
    lat, lon = source.lat.values, source.lon.values
    if remap.is_grid(source):
        values = remap.placed(source, values, window).reshape(len(days), -1)
        lat, lon = (a.ravel() for a in np.meshgrid(window.cell_lat, window.cell_lon, indexing="ij"))
    values = values.T
    held = {place: i for i, place in enumerate(_footprint_of(lat, lon))}
    holding = np.array([held.get(p, -1) for p in _footprint_of(*where)])
    series, distance = lookup.at_sites(
        values, (lat, lon), where, holding, experiment.judging.max_footprint_km
    )
    fold = np.full(len(series), "")
    return Candidate(SATELLITE_BASELINE, False, fold, series, distance_km=distance)


def _footprint_of(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Row and column of the global footprint that holds each place."""
    row, col = (np.floor(position).astype(int) for position in ease.footprint_position(lat, lon))
    return list(zip(row.tolist(), col.tolist(), strict=True))
