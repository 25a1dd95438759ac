"""Quality control: each rule, what it counts, and that the first rule wins."""

import numpy as np
import pytest
import xarray as xr

from pipeline.catalog import experiment_sources, intake_catalog, quality_control, site_records
from pipeline.experiment import load
from pipeline.experiment.config import QcConfig
from pipeline.experiment.variables import VARIABLES
from pipeline.prepare import stage
from pipeline.storage import schema, zarr_arrays

SOIL = VARIABLES["soil_moisture"]

OFF = {
    "provider": False,
    "range": False,
    "frozen_below_degc": None,
    "stuck_days": None,
    "depth_m": None,
}


def sites(values, temperature=None, flag=None):
    """(time, place) observations, with soil temperature and provider flags where given."""
    values = np.asarray(values, "float32")
    variables = {"soil_moisture": (("time", "place"), values)}
    if temperature is not None:
        variables["soil_temperature"] = (("time", "place"), np.asarray(temperature, "float32"))
    if flag is not None:
        attrs = {"flag_values": [0, 1, 2], "flag_meanings": "good doubtful frozen", "good": [0]}
        variables["provider_flag"] = (("time", "place"), np.asarray(flag, "int8"), attrs)
    days = np.datetime64("2020-01-01", "ns") + np.arange(len(values)) * np.timedelta64(1, "D")
    return xr.Dataset(variables, {"time": days})


def screened(dataset, **rules):
    values, dropped = quality_control.screen_sites(
        dataset, "soil_moisture", SOIL, QcConfig(**(OFF | rules))
    )
    return values, {rule: int(rejected.sum()) for rule, rejected in dropped.items()}


def spiky(jump, n=40):
    """A slow drying with one step that stands out, (time, 1)."""
    values = 0.30 * 0.99 ** np.arange(n) + 0.002 * np.sin(np.arange(n))
    values[20] *= jump
    return values[:, None]


@pytest.mark.parametrize(("jump", "found"), [(1.4, [20]), (0.7, [20]), (1.1, []), (1.0, [])])
def test_a_spike_is_one_step_that_stands_out(jump, found):
    values, counts = screened(sites(spiky(jump)), spike=True)
    assert np.flatnonzero(np.isnan(values[:, 0])).tolist() == found
    assert counts["spike"] == len(found)


def test_rain_that_drains_over_days_is_no_spike():
    values = spiky(1.0)
    values[20:, 0] += 0.12 * 0.8 ** np.arange(20)
    assert screened(sites(values), spike=True)[1]["spike"] == 0


def test_a_spike_needs_its_neighbours_and_even_steps():
    values = spiky(1.4)
    values[18] = np.nan
    assert screened(sites(values), spike=True)[1]["spike"] == 0
    assert screened(sites(spiky(1.4)[18:22]), spike=True)[1]["spike"] == 0


def test_a_sensor_at_another_depth_is_dropped_and_counted():
    depths = {"depth_from": ("place", [0.05, 0.0, 0.2]), "depth_to": ("place", [0.05, 0.075, 0.2])}
    dataset = sites(np.full((4, 3), 0.2)).assign_coords(depths)
    values, counts = screened(dataset, depth_m=(0.0, 0.075))
    assert np.isnan(values).all(0).tolist() == [False, False, True]
    assert counts["depth"] == 4
    assert screened(dataset, depth_m=None)[1] == {}


@pytest.mark.parametrize(("bits", "flagged"), [(1, 2), (2, 1), (3, 3), (None, 0)])
def test_retrievals_are_dropped_by_the_bits_that_are_chosen(bits, flagged):
    values = np.float32([0.1, 0.2, np.nan, 0.3, 0.9, 0.4])
    flags = np.float32([1, 2, 1, 0, 1, np.nan])
    rejects = quality_control.reject_retrievals(values, flags, SOIL, QcConfig(satellite_bits=bits))
    assert {rule: int(r.sum()) for rule, r in rejects.items()} == {
        **({} if bits is None else {"flag": flagged}),
        "range": 0 if bits in (1, 3) else 1,  # a value counts under the first rule
    }


def test_no_rule_drops_nothing():
    values, counts = screened(sites([[9.0, np.nan], [-1.0, 0.2]]))
    np.testing.assert_array_equal(values, np.float32([[9.0, np.nan], [-1.0, 0.2]]))
    assert counts == {}


def test_the_range_includes_its_ends():
    low, high = np.float32(SOIL.minimum), np.float32(SOIL.maximum)
    inside = [low, high, 0.3]
    outside = [np.nextafter(low, np.float32(-1)), np.nextafter(high, np.float32(2)), -9.0, np.inf]
    values, counts = screened(sites([[*inside, *outside, np.nan]]), range=True)
    np.testing.assert_array_equal(values[0], np.float32([*inside] + [np.nan] * 5))
    assert counts["range"] == 4  # a missing value is not dropped


def test_frozen_soil_is_at_or_under_the_threshold():
    temperature = [[1.0, 0.9, 1.1, -5.0, np.nan, 0.0]]
    values, counts = screened(
        sites([[0.2, 0.2, 0.2, 0.2, 0.2, np.nan]], temperature), frozen_below_degc=1.0
    )
    np.testing.assert_array_equal(np.isfinite(values[0]), [False, False, True, False, True, False])
    assert counts["frozen"] == 3


def test_a_providers_flags_are_rules_of_their_own():
    values, counts = screened(sites([[0.1, 0.2, 0.3, 0.4]], flag=[[0, 1, 2, 1]]), provider=True)
    np.testing.assert_array_equal(np.isfinite(values[0]), [True, False, False, False])
    assert counts == {"provider: doubtful": 2, "provider: frozen": 1}


@pytest.mark.parametrize("setting", ["keep", "drop"])
@pytest.mark.parametrize("good", [[0], [0, 2]])
def test_values_that_nobody_checked_are_kept_or_dropped(setting, good):
    data = sites([[0.1, 0.2, 0.3, np.nan]], flag=[[0, 1, 2, 2]])
    data.provider_flag.attrs |= {"flag_meanings": "good bad U", "good": good, "unchecked": [2]}
    values, counts = screened(data, provider=True, unchecked=setting)
    kept = setting == "keep"
    np.testing.assert_array_equal(np.isfinite(values[0]), [True, False, kept, False])
    assert counts == {"provider: bad": 1} | ({} if kept else {"provider: U": 1})
    found = quality_control.count_unchecked(data.provider_flag, np.isfinite(values))
    assert found == ({"U": 1} if kept else {})


@pytest.mark.parametrize(("length", "drops"), [(4, 0), (5, 5), (6, 6)])
def test_a_run_of_one_value_is_dropped_from_its_full_length_on(length, drops):
    series = [0.1, *[0.2] * length, 0.3, 0.2]
    values, counts = screened(sites(np.transpose([series, np.arange(len(series))])), stuck_days=5)
    assert counts["stuck"] == drops
    assert np.isnan(values[:, 0]).sum() == drops
    assert np.isfinite(values[:, 1]).all()


def test_a_missing_day_ends_a_run():
    series = [0.2, 0.2, 0.2, np.nan, 0.2, 0.2, 0.2]
    _, counts = screened(sites(np.transpose([series])), stuck_days=4)
    assert counts["stuck"] == 0
    absent = sites(np.transpose([series])).isel(time=[0, 1, 2, 4, 5, 6])  # no row of that day
    _, counts = screened(absent, stuck_days=4)
    assert counts["stuck"] == 0


def test_the_first_rule_that_drops_a_value_counts_it():
    rules = {"provider": True, "range": True, "frozen_below_degc": 1.0, "stuck_days": 2}
    data = sites(
        [[9.0, 9.0, 9.0, 0.2], [9.0, 9.0, 9.0, 0.2]], [[0] * 4, [0, 9, 9, 9]], [[2] * 4] * 2
    )
    data["provider_flag"].values[:, 1:] = 0
    values, counts = screened(data, **rules)
    assert np.isnan(values).all()
    assert counts == {"provider: frozen": 2, "range": 4, "frozen": 1, "stuck": 1}


def test_a_run_across_a_block_border_is_found_whole(snow, tmp_path):
    """A run of 30 days, 9 of them in one block of the cube and 21 in the next."""
    border = int(schema.time_axis(load.load_experiment(str(snow)).period)[64])
    first = np.datetime64(border - 9, "D")
    file = snow.parent / "sites.nc"
    with xr.open_dataset(file, engine="h5netcdf") as dataset:
        changed = dataset.load()
    run = (changed.time.values >= first) & (changed.time.values < first + 30)
    changed["HS"].values[3, run] = 0.625
    changed["qc"].values[3, run] = 0
    changed.to_netcdf(file, engine="h5netcdf")
    for stuck_days, dropped in ((30, 30), (31, 0)):
        rules = [f"qc.stuck_days={stuck_days}"]
        experiment = load.load_experiment(str(snow), rules)
        url = str(tmp_path / f"{stuck_days}.zarr")
        sources = experiment_sources.open_sources(experiment)
        zarr_arrays.create_group(url, *stage._cube_template(experiment, sources))
        assert sources.insitu.dropped["stuck"] == dropped
        assert site_records.write_records(sources.insitu, experiment, url)
        depth = zarr_arrays.open_group(url, "sites")["snow_depth"].isel(site=3)
        kept = depth.sel(time=slice(first, first + 29))
        assert len(kept) == 30
        assert int(kept.isnull().sum()) == dropped


def test_real_counts_of_scan(real_data):
    experiment = load.load_experiment("scan")
    dataset = intake_catalog.open_source(experiment, "scan_sites")
    values, dropped = quality_control.screen_sites(dataset, "soil_moisture", SOIL, experiment.qc)
    counts = {rule: int(rejected.sum()) for rule, rejected in dropped.items()}
    assert counts["provider: frozen_soil"] == 7016
    assert counts["provider: out_of_range"] == 1199
    assert (np.isfinite(values).sum(0) >= 60).sum() == 123
    assert np.nanmin(values) >= SOIL.minimum
    assert np.nanmax(values) <= SOIL.maximum
