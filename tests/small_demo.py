"""The demo made smaller: its settings, and a run of it in this process."""

from __future__ import annotations

import sys

import pytest

from pipeline import cli

PERIOD = "[2016-03-01, 2016-12-20]"
SETTINGS = (
    *(f"{key}={PERIOD}" for key in ("period", "train_period", "test_period")),
    "domain.east_degrees=-102.0",  # 6 footprints
    "domain.south_degrees=39.0",  # 6 footprints
    "planet.n_sites=7",
    "folds.n_folds=2",
    "network.hidden_size=12",
    "train.updates=12",
    "train.window_days=60",
    "judging.min_days=40",
)
OPTIONS = [part for setting in SETTINGS for part in ("--set", setting)]


def run(folder, *more):
    argv = sys.argv
    sys.argv = ["soilweave", "run", "demo", "--workspace", str(folder), *OPTIONS, *more]
    try:
        with pytest.raises(SystemExit) as end:
            cli.main()
    finally:
        sys.argv = argv
    return end.value.code or 0
