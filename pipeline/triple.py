"""Triple collocation at the sites: site, satellite and each arm or product, none the truth."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from model import collocation
from pipeline import judging
from pipeline.config import SATELLITE_BASELINE

if TYPE_CHECKING:
    from pipeline.config import JudgingConfig
    from pipeline.files import Json
    from pipeline.judging import Candidate, Sites


def judge(sites: Sites, candidates: list[Candidate], rules: JudgingConfig) -> Json:
    """By candidate: how many sites, why not more, and of each record medians with intervals.

    Records are `site`, `satellite` and `model`; each has `n_sites` where it is defined, `error_std`
    (on the site's scale), `correlation` (with the truth) and `snr_db`. Empty without a satellite.
    """
    by_name = {c.name: c.prediction for c in candidates}
    satellite = by_name.pop(SATELLITE_BASELINE, None)
    if satellite is None:
        return {}
    made: Json = {}
    for name, prediction in by_name.items():
        found = collocation.triple(sites.observed, satellite, prediction, rules.min_days)
        reasons = Counter(found.reason[found.reason != ""].tolist())
        described: Json = {"n_sites": len(sites.ids), "undefined": dict(reasons.most_common())}
        for i, record in enumerate(collocation.SERIES):
            values = {
                "error_std": found.error_std[i],
                "correlation": found.correlation[i],
                "snr_db": found.snr_db[i],
            }
            n = int(np.isfinite(found.error_std[i]).sum())
            told = judging.with_intervals(values, sites.block, rules)
            described[record] = {"n_sites": n} | told
        made[name] = described
    return made
