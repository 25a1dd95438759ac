"""Scores by stratum: the same summary, of some of the sites or of some of their days."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline import judging

if TYPE_CHECKING:
    from pipeline.config import JudgingConfig
    from pipeline.files import Json
    from pipeline.judging import Candidate, Sites
    from pipeline.labels import Stratum

FEWEST_SITES = 3  # scored
FEWEST_DAYS = 30  # of a site in a stratum of days, where `judging.min_days` is not less


def judge(
    sites: Sites, candidates: list[Candidate], strata: dict[str, Stratum], rules: JudgingConfig
) -> Json:
    """Medians, intervals and paired differences by stratum and name, as judging.brief gives them.

    Names with too few scored sites are left out, and strata with fewer than two names.
    """
    made: Json = {}
    for stratum, (names, which) in strata.items():
        found = {}
        for number, name in enumerate(names):
            inside = which == number
            chosen = inside if inside.ndim == 1 else inside.any(1)
            if not chosen.any():
                continue
            part, fewest = sites.only(chosen), rules
            if inside.ndim == 2:
                part = replace(part, observed=np.where(inside[chosen], part.observed, np.nan))
                days = min(FEWEST_DAYS, rules.min_days)
                fewest = rules.model_copy(update={"min_days": days})
            judged = judging.brief(part, [c.only(chosen) for c in candidates], fewest)
            if judged["n_sites"] >= FEWEST_SITES:
                found[name] = judged
        if len(found) > 1:
            made[stratum] = found
    return made
