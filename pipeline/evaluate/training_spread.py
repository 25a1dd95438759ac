"""Measure how far results at sites differ between the members of an ensemble.

Members differ by their seed alone: by first weights, and by what each update draws. The standard
deviation of a median over single members is thus what training alone makes of the same data. A
difference between two ensembles that is smaller than the standard deviation of this difference over
pairs of members may be due to training, whatever its interval from resampling sites is. The mean of
n members varies less than one of them, by about the square root of n.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from model import metrics
from pipeline.evaluate import scoring
from pipeline.evaluate.scoring import PAIRED_METRICS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.evaluate.scoring import Candidate, Sites
    from pipeline.experiment.config import JudgingConfig
    from pipeline.files import Json

    Members = dict[str, NDArray[np.float32]]  # by arm, (member, site, day)


def describe_spread(
    sites: Sites, candidates: list[Candidate], members: Members, judging: JudgingConfig
) -> Json:
    """Return the spread over training of medians and of paired differences.

    Args:
      sites: the observations.
      candidates: the ensembles and baselines that were scored.
      members: predictions of single members at these sites and days; empty if they are not known.
      judging: has the least number of days of a score.

    Returns:
      `n_members`; `median_sd`, by arm and metric the standard deviation of the median over sites
      between single members; `paired_sd`, by pair and metric that of the median paired difference,
      between members of the same seed if both are arms. Empty without two members.
    """
    if not members or min(map(len, members.values())) < 2:
        return {}
    n_members = min(map(len, members.values()))
    alone = _MemberScores(sites, candidates, members, judging)
    pairs = scoring.compared_pairs(candidates)
    return {
        "n_members": n_members,
        "median_sd": {arm: _spread(alone.medians(arm)) for arm in members},
        "paired_sd": {f"{a.name}-{b.name}": _spread(alone.differences(a, b)) for a, b in pairs},
    }


def list_small(differences: Json, sds: dict[str, float | None]) -> list[Json]:
    """Return the differences that are smaller than their spread over training.

    Args:
      differences: paired differences by metric, as in a summary.
      sds: standard deviations over members, by metric.

    Returns:
      The keys `metric`, `difference` and `sd` of each.
    """
    small = []
    for metric, sd in sds.items():
        difference = differences.get(metric, {}).get("median_difference")
        if difference is not None and sd is not None and abs(difference) < sd:
            small.append({"metric": metric, "difference": difference, "sd": sd})
    return small


def format_small(small: Json) -> str:
    """Return a small difference and its spread in words."""
    return (
        f"{metrics.LABELS[small['metric']]} {small['difference']:+.4f} (spread {small['sd']:.4f})"
    )


def spread_warnings(summary: Json) -> list[str]:
    """Return a sentence for each pair with differences smaller than their spread over training.

    Args:
      summary: the summary of an evaluation.
    """
    spread = summary.get("training_spread") or {}
    found = {
        pair: list_small(summary["paired"].get(pair, {}), sds)
        for pair, sds in spread.get("paired_sd", {}).items()
    }
    return [
        f"{pair.replace('-', ' minus ', 1)} is smaller than its spread over the training of single "
        f"members, of {spread['n_members']}: {', '.join(map(format_small, small))}; set n_seeds "
        "higher before you rely on it"
        for pair, small in found.items()
        if small
    ]


class _MemberScores:
    """Scores of single members at sites, on the days that each comparison needs."""

    def __init__(
        self,
        sites: Sites,
        candidates: list[Candidate],
        members: Members,
        judging: JudgingConfig,
    ) -> None:
        self.sites, self.members, self.judging = sites, members, judging
        self.n_members = min(map(len, members.values()))
        self.whole = {
            arm: scoring.map_in_threads(self._score, [*series]) for arm, series in members.items()
        }
        self.has_value = {c.name: np.isfinite(c.prediction) for c in candidates}

    def _score(self, prediction: NDArray[Any]) -> metrics.Scores:
        return scoring.score_at_sites(self.sites, prediction, self.judging)

    def medians(self, arm: str) -> dict[str, list[float]]:
        """Return the median over sites of each member, by metric."""
        names = (*PAIRED_METRICS, "bias")
        return {m: [_median(scored[m]) for scored in self.whole[arm]] for m in names}

    def differences(self, a: Candidate, b: Candidate) -> dict[str, list[float]]:
        """Return the median difference of each member of a minus that of b, by metric."""
        common = self.has_value[a.name] & self.has_value[b.name]
        first, second = (self._on_days(c, common) for c in (a, b))
        return {
            m: [_median(x[m] - y[m]) for x, y in zip(first, second, strict=True)]
            for m in PAIRED_METRICS
        }

    def _on_days(self, candidate: Candidate, days: NDArray[np.bool_]) -> list[metrics.Scores]:
        """Return the scores of each member on some site-days; a baseline has always the same."""
        series = self.members.get(candidate.name)
        if series is None:
            scored = self._score(np.where(days, candidate.prediction, np.nan))
            return [scored] * self.n_members
        if np.array_equal(days, self.has_value[candidate.name]):
            return self.whole[candidate.name][: self.n_members]
        masked = [np.where(days, member, np.nan) for member in series[: self.n_members]]
        return scoring.map_in_threads(self._score, masked)


def _median(values: NDArray[Any]) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float("nan")


def _spread(values: dict[str, list[float]]) -> dict[str, float | None]:
    """Return the standard deviation over members, by metric."""
    return {m: scoring.json_number(float(np.std(v, ddof=1))) for m, v in values.items()}
