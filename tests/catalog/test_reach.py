"""How far a source reaches, whether it tells, refuses what it lacks, or does not answer."""

import datetime

import numpy as np
import pytest
import xarray as xr

from pipeline.catalog import intake_catalog
from pipeline.errors import DataError
from pipeline.experiment import load
from pipeline.sources.shared.driver import Source

DAY = datetime.date.fromisoformat
DONE, UNTIL = DAY("2020-01-31"), DAY("2020-03-15")


@pytest.fixture
def source(monkeypatch):
    """Let the source have days up to one; gives the periods it is asked for."""

    def made(last, *, strict, partial=""):
        asked = []

        def open_source(experiment, entry, period):
            asked.append(period)
            if strict and str(period[1]) > last:
                raise DataError("store", "missing: some days")
            days = np.arange(np.datetime64("2019-12-01"), np.datetime64(last) + 1)
            attrs = {"partial_days": partial} if partial else {}
            return xr.Dataset(coords={"time": days.astype("datetime64[ns]")}, attrs=attrs)

        monkeypatch.setattr(intake_catalog, "open_source", open_source)
        monkeypatch.setattr(intake_catalog, "_is_staged", lambda *_: False)
        monkeypatch.setattr(intake_catalog, "driver_of_entry", lambda *_, **__: Source("store", {}))
        return asked

    return made


@pytest.mark.parametrize("last", ["2020-02-01", "2020-02-02", "2020-02-17", "2020-03-14"])
def test_a_source_that_refuses_what_it_lacks_is_asked_by_bisection(source, last):
    asked = source(last, strict=True)
    assert intake_catalog.last_day(None, "entry", DONE, UNTIL) == (
        DAY(last),
        "store: missing: some days",
    )
    assert len(asked) <= 8
    assert {first for first, _ in asked} == {DAY("2020-02-01")}


@pytest.mark.parametrize("last", ["2020-01-20", "2020-01-31"])
def test_a_source_without_new_days_says_so(source, last):
    source(last, strict=True)
    assert intake_catalog.last_day(None, "entry", DONE, UNTIL) == (
        DONE,
        "store: missing: some days",
    )
    source(last, strict=False)
    assert intake_catalog.last_day(None, "entry", DONE, UNTIL) == (DONE, "it ends on 2020-01-31")
    assert intake_catalog.last_day(None, "entry", DONE, DONE) == (DONE, "")


def test_a_source_that_tells_is_asked_once_and_a_part_of_a_day_is_none(source):
    asked = source("2020-02-17", strict=False)
    assert intake_catalog.last_day(None, "entry", DONE, UNTIL)[0] == DAY("2020-02-17")
    assert intake_catalog.last_day(None, "entry", DONE, DAY("2020-02-10")) == (
        DAY("2020-02-10"),
        "",
    )
    assert len(asked) == 2
    source("2020-02-17", strict=False, partial="2020-02-03, 2020-02-17")
    assert intake_catalog.last_day(None, "entry", DONE, UNTIL)[0] == DAY("2020-02-16")


def test_young_days_are_preliminary_where_an_entry_says_so(monkeypatch):
    monkeypatch.setattr(intake_catalog, "today", lambda: DAY("2019-02-10"))
    demo = load.load_experiment("demo")
    metadata = {}
    spec = {"metadata": metadata}
    monkeypatch.setattr(
        intake_catalog,
        "find_entry",
        lambda *_: intake_catalog.CatalogEntry("catalog", "forcing", spec),
    )
    assert intake_catalog.preliminary_span(demo, DAY("2019-02-05")) == []
    metadata["preliminary_days"] = 10  # 1 to 10 February
    assert intake_catalog.preliminary_span(demo, DAY("2019-02-05")) == [
        ["2019-02-01", "2019-02-05"]
    ]
    assert intake_catalog.preliminary_span(demo, DAY("2019-01-31")) == []
    metadata["preliminary_days"] = 10_000
    assert intake_catalog.preliminary_span(demo, DAY("2019-01-31")) == [
        ["2016-01-01", "2019-01-31"]
    ]
