"""Score arms and baselines on the same sites and days.

Predictions and observations go in; a table of scores and a summary over the sites come out.

A scores table has one row per place, candidate and metric, with columns
  target (site, footprint or truth), id, arm (or baseline), fold, seed (a number, or ensemble),
  period, metric
  n: number of days with both values
  value: the score, NaN where not scored; reason: why not, else empty
  n_eff: effective number of independent days; low, high: 95 % interval of the score of the place
    alone, which follows from n_eff. All three are NaN for metrics without an analytic interval.

The module also reads the satellite product as a baseline: at the sites of a cube
(`satellite_at_cube_sites`), and at any other places (`satellite_at_places`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from model import calibration, metrics, score_intervals
from model.score_intervals import Interval
from pipeline.catalog import intake_catalog
from pipeline.catalog.experiment_sources import read_footprints, screen_footprints
from pipeline.errors import redact_tree
from pipeline.experiment import config
from pipeline.experiment.config import REFERENCE_ARM, SATELLITE_BASELINE
from pipeline.grid import ease, lookup, remap

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date

    from numpy.typing import NDArray

    from pipeline.experiment.config import Experiment, JudgingConfig
    from pipeline.files import Json
    from pipeline.storage.cube import Cube


PAIRED_METRICS = (
    "correlation",
    "anomaly_correlation",
    "rmse",
    "ubrmse",
    "kge",
)  # paired differences
STRATUM_METRICS = ("bias", "rmse", "ubrmse", "correlation")  # scores by stratum
COVERAGE_LEVELS = (0.5, 0.9)  # prediction intervals whose coverage is reported
# Nominal coverage of the intervals of a reliability curve.
RELIABILITY_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
SCORED_AT_ONCE = 4  # candidates, or pairs of them, which bounds the memory

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Sites:
    """The observations that predictions are scored against.

    Attributes:
      ids: (site,) ids.
      block: (site,) label of the spatial block, for resampling.
      days: (day,) days.
      observed: (site, day) observations in the target's unit, NaN where missing.
    """

    ids: tuple[str, ...]
    block: NDArray[np.int64]
    days: NDArray[np.datetime64]
    observed: NDArray[np.float32]

    def select(self, chosen: NDArray[np.bool_]) -> Sites:
        """Return the chosen sites; `chosen` is (site,)."""
        ids = tuple(i for i, is_chosen in zip(self.ids, chosen, strict=True) if is_chosen)
        return Sites(ids, self.block[chosen], self.days, self.observed[chosen])


@dataclass(frozen=True)
class Candidate:
    """The predictions of an arm or a baseline.

    Attributes:
      name: name of the arm or baseline.
      is_arm: whether it is an arm.
      fold: (site,) the fold whose models predict the site; empty text for baselines without folds.
      prediction: (site, day) predictions in the target's unit, NaN where missing.
      std: (site, day) calibrated standard deviation; None if there is none.
      std_raw: (site, day) standard deviation before calibration; None if there is none.
      distance_km: (site,) distance to the location of the value used for the site, for the
        satellite and other products; NaN without a value.
    """

    name: str
    is_arm: bool
    fold: NDArray[Any]
    prediction: NDArray[np.float32]
    std: NDArray[np.float32] | None = None
    std_raw: NDArray[np.float32] | None = None
    distance_km: NDArray[np.float64] | None = None

    def select(self, chosen: NDArray[np.bool_]) -> Candidate:
        """Return the predictions at the chosen sites; `chosen` is (site,)."""
        std, raw = (None if s is None else s[chosen] for s in (self.std, self.std_raw))
        distance = None if self.distance_km is None else self.distance_km[chosen]
        fold, prediction = self.fold[chosen], self.prediction[chosen]
        return Candidate(self.name, self.is_arm, fold, prediction, std, raw, distance)


def summary_header(experiment: Experiment, test: tuple[date, date]) -> Json:
    """Return the first keys of a summary: the experiment, and what its models have not seen.

    Args:
      experiment: the experiment.
      test: first and last day that are scored.
    """
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
        "folds": redact_tree(experiment.folds.model_dump(mode="json")),
        "min_days": experiment.judging.min_days,
        "n_sites": 0,
        "arms": {},
        "baselines": {},
        "paired": {},
    }


def list_unscored(table: pd.DataFrame) -> list[Json]:
    """Return the sites without a score, with the reason, by candidate."""
    unscored = table[(table.reason != "") & (table.metric == "rmse")]
    return [
        {"id": row["id"], "arm": row["arm"], "reason": row["reason"]}
        for row in unscored.to_dict("records")
    ]


def score_candidates(
    sites: Sites, candidates: list[Candidate], judging: JudgingConfig
) -> tuple[pd.DataFrame, Json]:
    """Score candidates at sites.

    Returns:
      The scores table; and `n_sites`, `arms`, `baselines` and `paired` of a summary.
    """

    def score(c: Candidate) -> tuple[metrics.Scores, Json]:
        scored = _score_with_intervals(sites, c, judging)
        return scored, _describe(sites, c, scored, judging)

    results = map_in_threads(score, candidates)
    tables = [
        score_rows("site", sites.ids, c.name, c.fold, scored)
        for c, (scored, _) in zip(candidates, results, strict=True)
    ]
    described = {c.name: about for c, (_, about) in zip(candidates, results, strict=True)}
    summary = _split_arms_and_baselines(candidates, described) | {
        "paired": _paired_differences(sites, candidates, judging)
    }
    return pd.concat(tables, ignore_index=True), summary


def score_medians(sites: Sites, candidates: list[Candidate], judging: JudgingConfig) -> Json:
    """Return the summary of `judge`, but only medians, their intervals and paired differences."""
    described = {}
    for c in candidates:
        scored = score_at_sites(sites, c.prediction, judging)
        medians_of_metrics = median_intervals(
            {m: scored[m] for m in STRATUM_METRICS}, sites.block, judging
        )
        described[c.name] = {"n_sites": _count_scored(scored)} | medians_of_metrics
    paired = _paired_differences(sites, candidates, judging, STRATUM_METRICS)
    return _split_arms_and_baselines(candidates, described) | {"paired": paired}


def median_intervals(
    values: dict[str, NDArray[Any]], block: NDArray[np.int64], judging: JudgingConfig
) -> dict[str, Json]:
    """Return `median` and `ci95` of values (place,), by name; None where there is none.

    The 95 % interval of the median is from resampling spatial blocks.
    """
    draws = judging.bootstrap_draws
    bounds = {name: metrics.block_bootstrap(v, block, n_draws=draws) for name, v in values.items()}
    return {
        "median": {name: json_number(_finite_median(v)) for name, v in values.items()},
        "ci95": {name: [json_number(bound) for bound in pair] for name, pair in bounds.items()},
    }


def _split_arms_and_baselines(candidates: list[Candidate], described: dict[str, Json]) -> Json:
    """Split the descriptions of candidates into `arms` and `baselines` of a summary."""
    return {
        "n_sites": max((d["n_sites"] for d in described.values()), default=0),
        "arms": {c.name: described[c.name] for c in candidates if c.is_arm},
        "baselines": {c.name: described[c.name] for c in candidates if not c.is_arm},
    }


def score_rows(
    target: str, ids: tuple[str, ...], name: str, fold: Any, scored: metrics.Scores
) -> pd.DataFrame:
    """Return the rows of one candidate in the scores table, metric by metric.

    Args:
      target: what `ids` are: site, footprint or truth.
      ids: (place,) ids of the places.
      name: name of the candidate.
      fold: (place,) fold whose models predict each place.
      scored: scores by metric, (place,).
    """
    n_metrics = len(metrics.METRICS)
    no_interval = np.full((n_metrics, len(ids)), np.nan)
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
            **{bound: scored.get(bound, no_interval).ravel() for bound in Interval._fields},
        }
    )


def score_places(
    prediction: NDArray[Any], observed: NDArray[Any], days: NDArray[Any], min_days: int
) -> metrics.Scores:
    """Score each place; NaN and a `reason` where there are fewer than `min_days` pairs.

    Args:
      prediction: (place, day) predictions.
      observed: (place, day) observations.
      days: (day,) days.
      min_days: smallest number of days with both values.

    Returns:
      Scores by metric, `n` and `reason`, (place,) each.
    """
    scored = metrics.scores(prediction, observed, days)
    too_few = scored["n"] < min_days
    reasons = [f"{n} pairs, fewer than {min_days}" if n < min_days else "" for n in scored["n"]]
    by_metric = {metric: np.where(too_few, np.nan, scored[metric]) for metric in metrics.METRICS}
    return {**by_metric, "n": scored["n"], "reason": np.array(reasons, object)}


def median_scores(scored: metrics.Scores) -> dict[str, float | None]:
    """Return the median over the scored places, by metric; None if no place is scored."""
    return {metric: json_number(_finite_median(scored[metric])) for metric in metrics.METRICS}


def json_number(value: float) -> float | None:
    """Convert a number for JSON: None for NaN and infinity."""
    return float(value) if np.isfinite(value) else None


def score_at_sites(
    sites: Sites, prediction: NDArray[Any], judging: JudgingConfig
) -> metrics.Scores:
    """Score predictions (site, day) at sites, as `score_places` does."""
    return score_places(prediction, sites.observed, sites.days, judging.min_days)


def _score_with_intervals(
    sites: Sites, candidate: Candidate, judging: JudgingConfig
) -> metrics.Scores:
    """Return scores with `n_eff`, `low` and `high`, (metric, site) each; NaN without interval."""
    scored = score_at_sites(sites, candidate.prediction, judging)
    intervals = score_intervals.analytic_intervals(
        candidate.prediction, sites.observed, sites.days, scored
    )
    no_interval = Interval(*np.full((3, len(sites.ids)), np.nan))
    rows = [intervals.get(metric, no_interval) for metric in metrics.METRICS]
    return scored | {k: np.stack([getattr(i, k) for i in rows]) for k in Interval._fields}


def _count_scored(scored: metrics.Scores) -> int:
    return int(np.isfinite(scored["rmse"]).sum())


def _describe(
    sites: Sites, candidate: Candidate, scored: metrics.Scores, judging: JudgingConfig
) -> Json:
    """Return medians with their intervals, and how well the predicted uncertainty is calibrated."""
    is_scored = np.isfinite(scored["rmse"])
    by_metric = {metric: scored[metric] for metric in metrics.METRICS}
    described: Json = {"n_sites": _count_scored(scored)}
    described |= median_intervals(by_metric, sites.block, judging)
    n_eff = scored["n_eff"][metrics.METRICS.index("correlation")]
    described["n_eff"] = json_number(_finite_median(np.where(is_scored, n_eff, np.nan)))
    if candidate.std is not None and candidate.std_raw is not None:
        error = np.where(is_scored[:, None], candidate.prediction - sites.observed, np.nan)
        described["coverage"] = {
            f"{level:.0%}".rstrip("%"): {
                "before": _mean_coverage(error, candidate.std_raw, level),
                "after": _mean_coverage(error, candidate.std, level),
            }
            for level in COVERAGE_LEVELS
        }
        described["reliability"] = {
            "nominal": [*RELIABILITY_LEVELS],
            "before": _reliability(error, candidate.std_raw),
            "after": _reliability(error, candidate.std),
        }
        described["width_ranks_errors"] = _width_error_correlation(
            error, candidate.std, sites.block, judging.bootstrap_draws
        )
    if candidate.distance_km is not None:
        distances = zip(sites.ids, candidate.distance_km.tolist(), strict=True)
        described["distance_km"] = {site: json_number(km) for site, km in distances}
    return described


def _mean_coverage(error: NDArray[Any], std: NDArray[Any], level: float) -> float | None:
    """Return the share of errors inside the central interval, as the mean over sites."""
    share = calibration.interval_coverage(error, std, level)
    finite = share[np.isfinite(share)]
    return float(finite.mean()) if finite.size else None


def _reliability(error: NDArray[Any], std: NDArray[Any]) -> list[float | None]:
    """Return the mean coverage over sites for each of RELIABILITY_LEVELS."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.abs(error) / std
    n = np.isfinite(ratio).sum(1)
    has_value = n > 0
    if not has_value.any():
        return [None] * len(RELIABILITY_LEVELS)
    widths = [calibration.interval_half_width(level) for level in RELIABILITY_LEVELS]
    inside = (np.count_nonzero(ratio <= width, axis=1) for width in widths)
    return [float((count[has_value] / n[has_value]).mean()) for count in inside]


def _width_error_correlation(
    error: NDArray[Any], std: NDArray[Any], block: NDArray[np.int64], draws: int
) -> Json:
    """Return Spearman's correlation of the interval width with the absolute error.

    `site_days` is over all site-days; `sites`, with `sites_ci95`, is over the means of the sites.
    """
    both = np.isfinite(error) & np.isfinite(std)
    n = np.where(both.any(1), both.sum(1), np.nan)
    sums = (np.where(both, v, 0.0).sum(1, dtype=np.float64) for v in (std, np.abs(error)))
    # In float32, rounding errors of the sums do not rank widths that are equal.
    width, size = ((v / n).astype(np.float32) for v in sums)
    over_site_days = metrics.spearman(std[both], np.abs(error[both]))
    return {
        "sites": json_number(metrics.spearman(width, size)),
        "sites_ci95": [
            json_number(b) for b in metrics.spearman_interval(width, size, block, draws)
        ],
        "site_days": json_number(over_site_days),
    }


def _paired_differences(
    sites: Sites,
    candidates: list[Candidate],
    judging: JudgingConfig,
    names: tuple[str, ...] = PAIRED_METRICS,
) -> Json:
    """Compare the reference arm (else the first arm) with every other candidate.

    The key A-B stands for A minus B, by site, on the days that both predict. `names` are metrics.
    """
    pairs = compared_pairs(candidates)
    differences = map_in_threads(
        lambda pair: _paired_difference(sites, *pair, judging, names), pairs
    )
    return {f"{a.name}-{b.name}": of for (a, b), of in zip(pairs, differences, strict=True)}


def compared_pairs(candidates: list[Candidate]) -> list[tuple[Candidate, Candidate]]:
    """Return the pairs to compare: the reference arm, else the first, with every other one."""
    arms = [c for c in candidates if c.is_arm]
    references = [c for c in arms if c.name == REFERENCE_ARM] or arms[:1]
    return [(a, b) for a in references for b in candidates if a is not b]


def map_in_threads(function: Callable[[T], U], items: list[T]) -> list[U]:
    """Apply a function to every item, some at once: NumPy releases the GIL most of the time."""
    with ThreadPoolExecutor(SCORED_AT_ONCE) as pool:
        return list(pool.map(function, items))


def _paired_difference(
    sites: Sites, a: Candidate, b: Candidate, judging: JudgingConfig, names: tuple[str, ...]
) -> Json:
    """Return the median of the paired differences a minus b with its 95 % interval, by metric."""
    common = np.isfinite(a.prediction) & np.isfinite(b.prediction)
    first, second = (
        score_at_sites(sites, np.where(common, c.prediction, np.nan), judging) for c in (a, b)
    )
    draws = judging.bootstrap_draws
    differences = {
        m: metrics.paired_difference(first[m], second[m], sites.block, draws) for m in names
    }
    for difference in differences.values():
        difference["median_difference"] = json_number(difference["median_difference"])
        difference["ci95"] = [json_number(bound) for bound in difference["ci95"]]
    return differences


def _finite_median(values: NDArray[Any]) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float("nan")


def satellite_at_cube_sites(experiment: Experiment, cube: Cube, days: slice) -> Candidate:
    """Return the satellite baseline at every site of a cube.

    The value is that of the footprint that contains the site, else of the nearest footprint with
    data within `judging.max_footprint_km`.

    Args:
      experiment: has the settings of judging.
      cube: a cube with footprints and sites.
      days: the days of the cube to return.
    """
    series, distance = cube.satellite_at_sites(days, experiment.judging.max_footprint_km)
    fold = np.full(len(series), "")
    return Candidate(SATELLITE_BASELINE, False, fold, series, distance_km=distance)


def satellite_at_places(
    experiment: Experiment,
    lat_lon: tuple[NDArray[np.float64], NDArray[np.float64]],
    days: NDArray[np.datetime64],
) -> Candidate:
    """Return the satellite baseline at any places, read from the experiment's catalog.

    Args:
      experiment: names the satellite source.
      lat_lon: latitude and longitude (place,), degrees.
      days: (day,) consecutive days.
    """
    assert experiment.sources.satellite is not None
    source = intake_catalog.open_source(experiment, experiment.sources.satellite)
    window = config.experiment_window(experiment).of_footprints
    source = remap.select_over_window(source, window)
    days = days.astype("datetime64[ns]")
    values, flag = read_footprints(experiment, source, days)
    screen_footprints(experiment, values, flag)
    lat, lon = source.lat.values, source.lon.values
    if remap.is_grid(source):
        values = remap.remap_to_cells(source, values, window).reshape(len(days), -1)
        lat, lon = (a.ravel() for a in np.meshgrid(window.cell_lat, window.cell_lon, indexing="ij"))
    values = values.T
    rows = {footprint: i for i, footprint in enumerate(_footprint_indices(lat, lon))}
    containing = np.array([rows.get(footprint, -1) for footprint in _footprint_indices(*lat_lon)])
    series, distance = lookup.satellite_at_sites(
        values, (lat, lon), lat_lon, containing, experiment.judging.max_footprint_km
    )
    fold = np.full(len(series), "")
    return Candidate(SATELLITE_BASELINE, False, fold, series, distance_km=distance)


def _footprint_indices(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return row and column of the global footprint that contains each place."""
    row, col = (np.floor(position).astype(int) for position in ease.footprint_position(lat, lon))
    return list(zip(row.tolist(), col.tolist(), strict=True))
