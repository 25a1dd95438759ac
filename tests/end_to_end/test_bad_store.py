"""The whole demo in a bucket whose server fails now and then: equal to that in a folder."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import processes
import pytest
import s3_proxy
import small_demo
from results import differences, results

ROOT = Path(__file__).resolve().parents[2]
ENDS_S = 900

pytestmark = pytest.mark.runs


def test_a_whole_run_in_a_bad_store(demo, s3, tmp_path, record_property):
    """One request in twenty is answered with 503, late, in half, or (if it writes) never."""
    workspace, log = s3.url("bad", "store"), tmp_path / "log"
    command = [sys.executable, "-m", "pipeline", "run", "demo", "--workspace", workspace]
    with s3_proxy.before(s3.endpoint) as proxy:
        proxy.faults, proxy.random = s3_proxy.FAULTS, random.Random(0)
        environment = {"AWS_ENDPOINT_URL": proxy.url, "PYTHONPATH": str(ROOT)}
        with processes.running([*command, *small_demo.OPTIONS], log, environment) as running:
            status = running.process.wait(ENDS_S)
        assert status == 0, log.read_text()
        met = proxy.met
    record_property("tried", sum(met.values()))
    assert all(met[fault] >= 10 for fault in s3_proxy.FAULTS), met
    assert differences(results(f"{workspace}/demo"), results(str(demo[0] / "demo"))) == []
