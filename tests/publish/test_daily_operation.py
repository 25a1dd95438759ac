"""Days in a row of `update` and `publish`, as `make daily` runs them, in short."""

from __future__ import annotations

import datetime

import pytest
import s3_proxy
from bench import daily, daily_page
from bench.provider import Script

from pipeline.storage import publications

FIRST = datetime.date(2017, 4, 1)


def test_what_comes_when():
    script = Script(FIRST, n_days=9, late=3, missing=5, allowed=7, reissued=6, reissued_back=20)
    sent = {
        number: [f"{day:%m-%d} {version}" for day, version in script.sent(number)]
        for number in range(1, 10)
    }
    assert sent == {
        1: ["04-01 preliminary", "03-29 final"],
        2: ["04-02 preliminary", "03-30 final"],
        3: [],
        4: ["04-03 preliminary", "03-31 final", "04-04 preliminary", "04-01 final"],
        5: ["04-02 final"],
        6: ["04-06 preliminary", "04-03 final", "03-19 reissued"],
        7: ["04-07 preliminary", "04-04 final"],
        8: ["04-08 preliminary"],
        9: ["04-09 preliminary", "04-06 final"],
    }
    assert script.gap == datetime.date(2017, 4, 5)


@pytest.mark.runs  # it takes a minute
def test_every_day_is_what_a_reader_expects(s3, local_ray, trained_here, tmp_path, monkeypatch):
    # The reissued day lies after the first year of the record, over which the network first runs.
    script = Script(FIRST, 5, late=2, missing=4, allowed=5, reissued=4, reissued_back=20)
    url = s3.url(tmp_path.name)
    with s3_proxy.before(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        found = daily.operate(tmp_path, script, proxy, url)
    days = found["days"]
    assert found["problems"] == found["differing"] == []
    reached = ["04-01", "04-01", "04-03", "04-03", "04-05"]
    assert [day["reached"][5:] for day in days] == reached
    assert days[3]["revised"] == ["2017-03-17", "2017-04-01"]
    assert any("missing: 2017-04-04; get them from" in text for text in days[3]["said"])
    assert [day["sent_objects"] < day["release_objects"] for day in days] == [True] * 5
    assert all(day["sent_bytes"] < day["release_bytes"] for day in days)
    latest = publications.read_latest(url)
    assert latest is not None
    assert len(latest[0]["releases"]) == 6
    told = daily_page.page(found | {"machine": MACHINE, "commit": None, "at": "2026-11-30"})
    assert told.count("| yes |") == 5
    assert "nothing differs" in told


MACHINE = {"processor": "a", "cores": 2, "memory_gb": 8, "gpu": None} | {
    "load_at_start": 0,
    "versions": {},
}
