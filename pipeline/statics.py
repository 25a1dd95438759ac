"""Statics of the test period are refused: a model may not know attributes of days it is judged on.

An entry says of which days its statics are: `static_period` in its metadata, else `period`.
"""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING

from pipeline import catalog
from pipeline.dates import period_as_text
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.config import Experiment

SPAN = re.compile(r"(\d{4}-\d{2}-\d{2})\s*\.\.\s*(\d{4}-\d{2}-\d{2})?$")
CONSTANT = "constant"  # of no time: soils, terrain


def check(experiment: Experiment) -> list[str]:
    """Entries of statics whose period is not known, after all others were found fit.

    None where the models were trained elsewhere.

    Raises:
      ConfigError: naming every entry whose statics are of the test period and not of training.
    """
    train, test = experiment.train_period, experiment.test_period
    unknown, problems = [], []
    for entry in _entries(experiment):
        metadata = catalog.find(experiment.sources.catalog, entry).spec.get("metadata") or {}
        told = str(metadata.get("static_period", metadata.get("period", "")))
        match = SPAN.match(told.strip())
        if match is None:
            unknown += [entry] if told != CONSTANT else []
            continue
        first, last = date.fromisoformat(match[1]), date.fromisoformat(match[2] or str(date.max))
        if _meet((first, last), test) and not _meet((first, last), train):
            periods = (
                f"test_period {period_as_text(test)} and not train_period {period_as_text(train)}"
            )
            problems.append(f"statics of {entry} are of {told}, which meets {periods}")
    if problems:
        remedy = "name statics of the training period or before it, or choose other periods"
        raise ConfigError("sources.static", *problems, remedy=remedy)
    return unknown


def _entries(experiment: Experiment) -> list[str]:
    """Entries that statics come from: the cells', and the sites' where these have their own."""
    sources = experiment.sources
    if experiment.models is not None:
        return []
    own = sources.insitu if experiment.inputs_from == "own" else ()
    return [*dict.fromkeys([*sources.static, *own])]


def _meet(one: tuple[date, date], other: tuple[date, date]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]
