"""Counts of missing values and the limits on them: the rules by themselves, and the settings."""

from __future__ import annotations

import datetime

import clinic
import dask
import numpy as np
import pytest
import world
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import prepare
from pipeline.doctor import time_axis
from pipeline.errors import ConfigError, DataError
from pipeline.experiment import load
from pipeline.prepare import block_task, copy_sources
from pipeline.progress import SilentProgress
from pipeline.storage import missing_values, schema
from pipeline.storage.artefacts import Workspace

PERIOD = (datetime.date(2020, 1, 3), datetime.date(2020, 3, 20))  # in three blocks of 32 days
FIRST, N_DAYS = np.datetime64("2020-01-03"), 78
SHAPE = (4, 6)


def noted(url, fields, statics, period=PERIOD):
    """Note fields (day, y, x) of the period, block by block, as the tasks of prepare do."""
    for block in schema.block_range(period):
        found = block_task.ValuePresence()
        for name, field in fields.items():
            values = field[schema.block_slice(period, block)].copy()
            found.drop_infinite(name, values)
            found.record("forcing", name, values)
        for name, field in statics.items() if block == 0 else ():
            found.record("static", name, field)
        found.save(url, block)


@given(st.integers(0, 2**32 - 1))
@settings(derandomize=True, deadline=None, max_examples=25)
def test_counts_are_those_of_the_whole_arrays(tmp_path_factory, seed):
    """However the days lie in blocks: against arrays of all days at once."""
    url = str(tmp_path_factory.mktemp("cube"))
    rng = np.random.default_rng(seed)
    sea = rng.random(SHAPE) < 0.3
    sea[0, 0] = False
    fields = {name: rng.normal(size=(N_DAYS, *SHAPE)).astype("float32") for name in "abc"}
    for field in fields.values():
        field[:, sea] = np.nan
        field[rng.random(field.shape) < 0.02] = np.nan
        field[rng.random(field.shape) < 0.01] = np.inf
    noted(url, fields, {})
    entries = {"a": "one", "b": "one", "c": "two"}
    found = block_task.find_valid_cells(url, schema.block_range(PERIOD), entries)
    finite = {name: np.isfinite(field) for name, field in fields.items()}
    mask = np.all([there.any(0) for there in finite.values()], axis=0)
    np.testing.assert_array_equal(found.mask, mask)
    counts = {
        n: missing_values.MissingCounts(entries[n], int(c.sum())) for n, c in found.expected.items()
    }
    block_task._count_missing(url, PERIOD, schema.block_range(PERIOD), found.expected, counts)
    for name, there in finite.items():
        record = counts[name].record()
        lacking = (~there)[:, found.expected[name]]
        assert record["n"] == lacking.sum() == sum(record["blocks"].values())
        assert record["of"] == lacking.size
        assert record["infinite"] == np.isinf(fields[name]).sum()
        assert missing_values.count_incomplete_days(record) == lacking.any(1).sum()


def test_cells_that_are_not_valid_are_told_by_what_they_lack(tmp_path):
    """The west has neither variable of entry `one`, the east lacks `b` alone, the north soil."""
    fields = {name: np.ones((N_DAYS, *SHAPE), np.float32) for name in "abc"}
    fields["a"][:, :, :2] = fields["b"][:, :, :2] = np.nan
    fields["b"][:, :, 4:] = np.nan
    soil = np.ones(SHAPE, np.float32)
    soil[0] = np.nan
    noted(str(tmp_path), fields, {"soil": soil})
    blocks = schema.block_range(PERIOD)
    for entry, expected in (("three", 3 * 2), ("two", 4 * 2)):
        entries = {"a": "one", "b": "one", "c": "two", "soil": entry}
        found = block_task.find_valid_cells(str(tmp_path), blocks, entries)
        wanted = np.zeros(SHAPE, bool)
        wanted[1:, 2:4] = True
        np.testing.assert_array_equal(found.mask, wanted)
        for name in "abc":
            np.testing.assert_array_equal(found.expected[name], wanted)
        assert found.expected["soil"].sum() == expected  # where its entry has forcing, no sea
        assert found.without == {"forcing": 3 * 4, "static": 2, "alone": {"b": 3 * 2}}


def test_where_no_cell_is_valid_the_cells_of_each_variable_are_told(tmp_path):
    fields = {name: np.full((N_DAYS, *SHAPE), np.nan, np.float32) for name in "ab"}
    fields["a"][:, :, :2], fields["b"][:, :, 4:] = 1, 1
    noted(str(tmp_path), fields, {})
    with pytest.raises(DataError, match=r"no cell has .*: a of one in 8, b of two in 8"):
        block_task.find_valid_cells(
            str(tmp_path), schema.block_range(PERIOD), {"a": "one", "b": "two"}
        )


def record(n_days, of_days, n_places=1000):
    """Of a variable that lacks all values on its first days."""
    counts = missing_values.MissingCounts("cells", n_places)
    days = schema.epoch_day(datetime.date(2019, 11, 20)) + np.arange(of_days)
    counts.add(days, np.where(np.arange(of_days) < n_days, n_places, 0))
    return counts.record()


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    path = str(world.write(tmp_path_factory.mktemp("snow")))
    return lambda *given: load.load_experiment(path, [*given])


@pytest.mark.parametrize(
    ("n_days", "of_days", "accepted"),
    [
        (0, 10, True),
        (2, 10, True),
        (3, 10, False),
        (2, 731, True),
        (3, 731, False),
        (10, 2101, False),
        (7, 7305, True),
        (8, 7305, False),
    ],
)
def test_two_days_or_one_in_a_thousand_are_accepted(experiment, n_days, of_days, accepted):
    said = missing_values.describe_excess(experiment(), "snowfall", record(n_days, of_days))
    assert (said == "") == accepted
    if not accepted:
        assert f"snowfall of cells is missing on {n_days} of {of_days} days" in said


def test_a_day_that_one_place_in_a_thousand_lacks_is_complete(experiment):
    for lacking, n_days in ((1, 0), (2, 9)):
        counts = missing_values.MissingCounts("cells", 1000)
        counts.add(np.arange(18000, 18009), np.full(9, lacking))
        assert missing_values.count_incomplete_days(counts.record()) == n_days
        assert counts.record()["n"] == 9 * lacking


@pytest.mark.parametrize(
    ("given", "accepted"),
    [
        (["qc.max_missing.snowfall=0.2"], True),
        (["qc.max_missing.forcing=0.2"], True),
        (["qc.max_missing.forcing=0.2", "qc.max_missing.snowfall=0.1"], False),
        (["qc.max_missing.air_temperature=0.2"], False),
    ],
)
def test_limits_are_set_by_variable_or_kind(experiment, given, accepted):
    said = missing_values.describe_excess(experiment(*given), "snowfall", record(30, 160))
    assert (said == "") == accepted


@pytest.mark.parametrize(("given", "accepted"), [([], True), (["qc.max_missing.forcing=0"], False)])
def test_a_limit_that_was_asked_for_holds_as_it_is(experiment, given, accepted):
    said = missing_values.describe_excess(experiment(*given), "snowfall", record(1, 160))
    assert (said == "") == accepted


def test_a_limit_of_no_variable_is_refused(experiment):
    with pytest.raises(ConfigError, match=r"qc.max_missing.snowfal: there is no forcing or static"):
        experiment("qc.max_missing.snowfal=0.1")
    with pytest.raises(ConfigError, match="max_missing"):
        experiment("qc.max_missing.snowfall=2")


def test_what_is_accepted_does_not_make_another_cube(experiment, local_ray, tmp_path):
    """A run that was stopped goes on with a higher limit: no setting of the cube has changed."""
    path = world.write(tmp_path / "snow")
    held = clinic.xr.open_dataset(path.parent / "cells.nc", engine="h5netcdf").load()
    held.close()
    held.SNOWF[:, 60:90] = np.nan
    held.to_netcdf(path.parent / "cells.nc", engine="h5netcdf")
    workspace = Workspace(str(tmp_path / "workspace"))
    with pytest.raises(DataError, match="missing on 30 of 160 days"):
        prepare.run(load.load_experiment(str(path)), workspace, SilentProgress())
    assert workspace.artefact("cube").state() == "begun, not complete"
    laxer = load.load_experiment(str(path), ["qc.max_missing.snowfall=0.2"])
    prepare.run(laxer, workspace, SilentProgress())
    made = workspace.artefact("cube").manifest()["missing"]["cells"]["snowfall"]
    assert made["n"] == 30 * int(world._land().sum())
    assert made["days"] == [["2020-01-19", "2020-02-17"]]
    assert made["blocks"] == {"2019-12-22": 4 * 162, "2020-01-23": 26 * 162}
    workspace.lease.release()


def test_records_go_on_after_a_day(experiment):
    whole, part = (
        missing_values.MissingCounts("cells", 10),
        missing_values.MissingCounts("cells", 10),
    )
    begin = schema.epoch_day(datetime.date(2020, 1, 11))  # a block's first
    rng = np.random.default_rng(2)
    for block in range(4):
        days = begin + 32 * block + np.arange(32)
        lacking = np.where(rng.random(32) < 0.2, 3, 0)
        whole.add(days, lacking, block)
        if block < 3:
            part.add(days, lacking + (block == 2), 7 if block == 2 else block)
    again = missing_values.MissingCounts.until(part.record(), 10, range(begin, begin + 64))
    rng = np.random.default_rng(2)
    for block in range(4):
        lacking = np.where(rng.random(32) < 0.2, 3, 0)
        if block >= 2:
            again.add(begin + 32 * block + np.arange(32), lacking, block)
    assert again.record() == whole.record()


def test_much_is_looked_at_on_twelve_days_and_says_so(tmp_path, monkeypatch):
    path = clinic.write(tmp_path / "ward")
    clinic.edit(path, lambda tree: tree["sources"].update(static=[], satellite=None))
    clinic.edit(path, lambda tree: tree.update(arms=["insitu"], baselines=[]))
    monkeypatch.setattr(time_axis, "MAX_BYTES_READ", 1e4)
    with dask.config.set(scheduler="synchronous"):
        healthy, table, _ = clinic.rows(path)
    assert healthy
    assert [row[3] for row in table if row[0] == "forcing"] == [
        "looked at 12 of 366 days, 12 of 16 lat, 12 of 17 lon, files present: 1 in 2020"
    ]


def test_a_staged_copy_is_looked_at_as_its_source_is(tmp_path, local_ray):
    """A copy is read without a driver, and has no chunks of the source to be listed."""
    path, staged = world.write(tmp_path / "snow"), f"sources.staged={tmp_path / 'copies'}"
    copy_sources.run(
        load.load_experiment(str(path), [staged]), Workspace(str(tmp_path / "w")), SilentProgress()
    )
    for settings_given in ([], [staged]):
        _, table, _ = clinic.rows(path, *settings_given)
        rows = {row[0]: row for row in table}
        assert {row[2] for row in table} == {"metadata"}
        assert rows["cells"][5].startswith("118 of 118 days, 162 of 162 places")
