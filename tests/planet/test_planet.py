"""The planet whose truth is known: its balance, its statistics, its streams, its files."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import get_args

import h5py
import numpy as np
import pytest
import xarray as xr
import yaml

from pipeline.catalog import quality_control
from pipeline.experiment.config import ErrorName, PlanetConfig, QcConfig
from pipeline.experiment.variables import VARIABLES
from pipeline.grid import ease
from pipeline.planet import land, observations, random_fields, soil_water, stage, weather

INGREDIENTS = get_args(ErrorName)
TARGET = VARIABLES["soil_moisture"]
SMALL = ease.Window(row=72, col=207, height=3, width=5, refinement=2)
SMALL_PERIOD = (date(2017, 1, 1), date(2017, 12, 31))
DEMO = ease.Window.from_bbox(-103.8, 36.6, -97.9, 40.85, 4)
DEMO_PERIOD = (date(2016, 1, 1), date(2018, 12, 31))


def make(window=SMALL, period=SMALL_PERIOD, **settings):
    """Every file of a planet, opened; files cut in time are joined: {name without day: dataset}."""
    chunk = settings.pop("chunk_cell_days", stage.CHUNK_CELL_DAYS)
    config = PlanetConfig(**{"kind": "load", "n_sites": 8} | settings)
    written = {}
    stage.generate_planet(
        config, window, period, "moisture", written.__setitem__, lambda n: None, chunk
    )
    made = {}
    for kind in ("forcing", "truth", "attributes", "footprints", "sites"):
        names = sorted(name for name in written if name.startswith(kind))
        parts = [
            xr.load_dataset(io.BytesIO(written[name]), engine="h5netcdf", decode_coords="all")
            for name in names
        ]
        made[kind] = xr.concat(parts, "time", data_vars="minimal") if len(parts) > 1 else parts[0]
    made["files"] = written
    return made


@pytest.fixture(scope="module")
def small():
    return make()


@pytest.fixture(scope="module")
def perfect():
    return make(omit_errors=INGREDIENTS)


@pytest.fixture(scope="module", params=[0, 1])
def demo(request):
    return make(DEMO, DEMO_PERIOD, kind="hard", n_sites=30, seed=request.param)


def run(window, n_days, seed=0):
    """Land, weather, bucket and the moisture (day, y, x) that it had each day."""
    sizes = random_fields.PLANETS["hard"]
    made = land.simulate_land(window, sizes, seed)
    days = np.datetime64("2016-10-01") + np.arange(n_days)
    sky = weather.WeatherGenerator(window, made, sizes, seed).days(days)
    wanted = soil_water.evaporative_demand(sky, made, days)
    store = soil_water.SoilWater(made, sky.air_temperature[0])
    moisture = []
    for day in range(n_days):
        store.advance(
            sky.precipitation[day],
            sky.air_temperature[day],
            wanted.bare_mm[day],
            wanted.plants_mm[day],
        )
        moisture.append(store.moisture)
    return made, sky, store, np.array(moisture)


# The truth.


def test_the_water_balance_closes_in_every_cell():
    _, sky, store, _ = run(SMALL, 500)
    rain = sky.precipitation.sum(0, dtype=float)
    out = store.evaporation + store.runoff + store.drainage
    kept = store.snow + store.top + store.root - store.first_storage
    np.testing.assert_allclose(rain, out + kept, rtol=0, atol=1e-9)
    assert np.abs(store.residual).max() < 1e-9
    for flux in (store.evaporation, store.runoff, store.drainage):
        assert (flux > 0).all()


def test_frost_shuts_the_soil_and_snow_waits_for_warmth():
    made = land.simulate_land(SMALL, random_fields.PLANETS["hard"], 0)
    store = soil_water.SoilWater(made, np.full(SMALL.cell_shape, 260.0))
    cold, rain, nothing = (np.full(SMALL.cell_shape, v, np.float32) for v in (263.0, 10.0, 0.0))
    for _ in range(10):
        store.advance(rain, cold, nothing, nothing)
    np.testing.assert_allclose(store.snow, 100.0)
    assert (store.soil_celsius < 0).all()
    store.advance(nothing, cold + 20, nothing, nothing)  # 9.85 degC
    np.testing.assert_allclose(store.snow, 100 - 3 * 9.85, rtol=1e-4)


def test_drainage_is_brooks_and_corey_solved_over_a_day():
    full, power, conductivity = 22.0, 11.0, 300.0
    left = soil_water._drain_one_day(np.array([20.0]), full, power, power * conductivity / full)
    water, steps = 20.0, 200_000
    for _ in range(steps):
        water -= conductivity * (water / full) ** (power + 1) / steps
    assert left[0] == pytest.approx(water, rel=1e-3)


def test_hydraulics_are_those_of_cosby():
    porosity, suction, exponent, conductivity = land.hydraulic_parameters(
        np.array(60.0), np.array(10.0)
    )
    assert porosity == pytest.approx(0.4134)
    assert suction == pytest.approx(124.2, rel=1e-3)  # mm
    assert exponent == pytest.approx(4.5)
    assert conductivity == pytest.approx(659.1, rel=1e-3)  # mm a day


def test_moisture_at_a_suction_falls_to_wilting_and_never_exceeds_porosity():
    made = land.simulate_land(SMALL, random_fields.PLANETS["hard"], 0).soil
    assert (made.moisture_at(0.0) == made.porosity).all()
    assert (made.moisture_at(150_000) < made.moisture_at(3_300)).all()


def test_radiation_above_the_air_is_that_of_fao_56():
    days = np.array(["2015-09-03"], "datetime64[D]")  # example 8: 20 S, 32.2 MJ m-2 day-1
    radiation = weather.extraterrestrial_radiation(days, np.array([[-20.0]]))
    assert radiation.squeeze() * 0.0864 == pytest.approx(32.2, rel=5e-3)


# Fields.


@pytest.mark.parametrize("length_km", [15.0, 25.0, 150.0])
def test_fields_have_unit_variance_and_their_correlation_length(length_km):
    area = random_fields.FieldGrid(np.arange(60) * 5.0, np.arange(70) * 5.0, 300.0, 350.0)
    drawn = (
        random_fields.RandomFields(area, length_km)
        .draw(np.random.default_rng(1), 3000)
        .astype(float)
    )
    np.testing.assert_allclose(drawn.std(0), 1, atol=0.08)
    for step in (1, 3, 15, 59):
        expected = np.exp(-((5 * step / length_km) ** 2))
        down = (drawn[:, 0] * drawn[:, step]).mean()
        across = (drawn[:, :, 0] * drawn[:, :, step]).mean()
        assert (down, across) == pytest.approx((expected, expected), abs=0.06)


def test_a_field_depends_on_kilometres_not_on_cells():
    coarse = random_fields.FieldGrid(np.array([4.5, 13.5]), np.array([4.5, 31.5]), 300.0, 400.0)
    fine = random_fields.FieldGrid(np.arange(1.5, 16, 3), np.arange(1.5, 34, 3), 300.0, 400.0)
    one, other = (
        random_fields.RandomFields(area, 40.0).draw(np.random.default_rng(2), 2)
        for area in (coarse, fine)
    )
    np.testing.assert_allclose(one, other[:, [1, 4]][:, :, [1, 10]], rtol=0, atol=1e-5)


def test_a_persistent_field_is_an_autoregression_over_calls():
    area = random_fields.FieldGrid(np.array([1.0]), np.array([1.0]), 300.0, 400.0)
    waves = random_fields.RandomFields(area, 50.0)
    whole = random_fields.PersistentField(waves, np.random.default_rng(3), 0.75).days(4000).ravel()
    split = random_fields.PersistentField(waves, np.random.default_rng(3), 0.75)
    parts = [split.days(n).ravel() for n in (1, 999, 3000)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()
    assert np.corrcoef(whole[1:], whole[:-1])[0, 1] == pytest.approx(0.75, abs=0.03)
    assert whole.std() == pytest.approx(1, abs=0.06)


def test_soils_have_their_spread_and_two_lengths():
    sand = land.simulate_land(DEMO, random_fields.PLANETS["hard"], 0).sand_percent
    assert 12 < sand.std() < 22
    near = np.corrcoef(sand[:, 1:].ravel(), sand[:, :-1].ravel())[0, 1]
    # .6 of the variance is the long field's; a cell is 9 km, e-folding of the short is 15 km.
    assert near == pytest.approx(0.6 + 0.4 * np.exp(-0.36), abs=0.08)


# Statistics.


def percentiles(values):
    return np.percentile(values, [5, 50, 95])


def efolding(values):
    """(place,) days after which the autocorrelation of (day, place) is first under 1/e."""
    centred = values - values.mean(0)
    n, variance = len(values), (centred**2).mean(0)
    lags = range(1, 121)
    curve = np.array([(centred[: n - k] * centred[k:]).mean(0) / variance for k in lags])
    low = curve < np.exp(-1)
    return np.where(low.any(0), low.argmax(0) + 1, 121)


def anomalies(values):
    """(day, place) less the mean of the 35 days around each."""
    padded = np.pad(values, ((17, 17), (0, 0)), constant_values=np.nan)
    means = np.lib.stride_tricks.sliding_window_view(padded, 35, axis=0)
    return values - np.nanmean(means, axis=-1)


@pytest.mark.parametrize("seed", [0, 1])
def test_rain_is_like_that_of_nldas(seed):
    sizes = random_fields.PLANETS["hard"]
    made = land.simulate_land(DEMO, sizes, seed)
    days = np.arange("2015-01-01", "2019-01-01", dtype="datetime64[D]")
    rain = (
        weather.WeatherGenerator(DEMO, made, sizes, seed)
        .days(days)
        .precipitation.reshape(len(days), -1)
    )
    wet = rain > 1
    again = (wet[1:] & wet[:-1]).sum(0) / wet[:-1].sum(0)
    mean = np.where(wet, rain, 0).sum(0) / wet.sum(0)
    np.testing.assert_allclose(percentiles(wet.mean(0)), [0.10, 0.22, 0.40], rtol=0.2)
    np.testing.assert_allclose(percentiles(mean), [4.0, 7.6, 13.7], rtol=0.15)
    np.testing.assert_allclose(percentiles(again), [0.34, 0.45, 0.64], rtol=0.2)


def test_truth_varies_as_probes_do(demo):
    truth = demo["truth"].SM.values[:, ::4, ::4].reshape(1096, -1)
    assert TARGET.minimum < demo["truth"].SM.min()
    assert demo["truth"].SM.max() < TARGET.maximum
    assert 0.043 < np.median(truth.std(0)) < 0.058
    assert 27 < np.median(efolding(truth)) < 43
    assert 2.5 < np.median(efolding(anomalies(truth))) < 4.5


def test_satellite_and_sites_differ_as_smap_and_scan_do(demo):
    observed, retrieved = demo["sites"], demo["footprints"].SM_RETRIEVED.values
    fy, fx = DEMO.footprints_of(observed.lat.values, observed.lon.values)
    at_site = retrieved[fy * DEMO.width + fx]
    values = np.where(observed.qc == 0, observed.SM, np.nan)
    clean = ~(values > 0.65).any(1) & ~(np.diff(observed.SM, axis=1) == 0).any(1)
    rows = []
    for site, sat in zip(values[clean], at_site[clean], strict=True):
        both = np.isfinite(site) & np.isfinite(sat)
        assert both.sum() > 90
        gap = sat[both] - site[both]
        r = np.corrcoef(site[both], sat[both])[0, 1]
        rows.append([r, np.sqrt((gap**2).mean()), gap.std()])
    r, rmse, ubrmse = np.median(rows, axis=0)
    assert 0.60 < r < 0.78
    assert 0.05 < rmse < 0.075
    assert 0.035 < ubrmse < 0.05


def test_the_satellite_sees_about_four_days_of_ten(demo):
    assert 0.3 < np.isfinite(demo["footprints"].SM_RETRIEVED).mean() < 0.48


def test_half_of_the_bias_is_told_by_attributes():
    sizes = random_fields.PLANETS["hard"]
    made = land.simulate_land(DEMO, sizes, 3)
    bias = observations._satellite_bias(DEMO, made, sizes, 3).ravel()
    assert (bias.mean(), bias.std()) == pytest.approx((-0.02, 0.04), abs=1e-6)
    told = (made.sand_percent, made.clay_percent, made.bulk_density_g_cm3, made.ndvi)
    means = [observations.footprint_means(a, 4).ravel() for a in told]
    design = np.stack([*means, np.ones(bias.size)], 1)
    left = bias - design @ np.linalg.lstsq(design, bias, rcond=None)[0]
    assert left.var() / bias.var() == pytest.approx(0.5, abs=1e-6)


# Streams.

SHOWN_IN = {
    "forcing_error": {"forcing"},
    "attribute_error": {"attributes"},
    "satellite_bias": {"footprints"},
    "satellite_noise": {"footprints"},
    "fast_drying": {"footprints"},
    "seasonal_error": {"footprints"},
    "satellite_gaps": {"footprints"},
    "site_error": {"sites"},
    "site_gaps": {"sites"},
    "site_faults": {"sites"},
}

KINDS = ("forcing", "truth", "attributes", "footprints", "sites")


@pytest.mark.parametrize("ingredient", INGREDIENTS)
def test_an_error_switched_off_moves_no_other_file(ingredient, small):
    other = make(omit_errors=(ingredient,))
    changed = {kind for kind in KINDS if not small[kind].identical(other[kind])}
    assert changed == SHOWN_IN[ingredient]


def test_errors_of_the_satellite_have_streams_of_their_own():
    only = {
        name: make(omit_errors=tuple(i for i in INGREDIENTS if i != name))["footprints"]
        for name in ("satellite_bias", "satellite_noise", "fast_drying", "seasonal_error")
    }
    none = make(omit_errors=INGREDIENTS)["footprints"].SM_RETRIEVED
    parts = {name: made.SM_RETRIEVED - none for name, made in only.items()}
    gapless = make(omit_errors=("satellite_gaps",))["footprints"].SM_RETRIEVED
    total = (none + sum(parts.values())).clip(0.02, None)
    # Where the floor touches no single part, the errors add up.
    free = ~np.logical_or.reduce([m.SM_RETRIEVED.values <= 0.02 for m in only.values()])
    np.testing.assert_allclose(gapless.values[free], total.values[free], rtol=0, atol=1e-6)


def test_gaps_only_take_away(small):
    gapless = make(omit_errors=("satellite_gaps", "site_gaps"))
    for kind, name in (("footprints", "SM_RETRIEVED"), ("sites", "SM")):
        some, whole = small[kind][name].values, gapless[kind][name].values
        assert np.isfinite(whole).all()
        assert np.isnan(some).any()
        assert (some == whole)[np.isfinite(some)].all()


def test_noise_of_sites_moves_no_offset():
    full = random_fields.PLANETS["hard"]
    truth = np.full((50, 6), 0.3)
    quiet = replace(full, site_noise_m3_m3=0.0)
    gap = observations._add_probe_errors(truth, full, 0) - observations._add_probe_errors(
        truth, quiet, 0
    )
    assert np.abs(gap.mean(0)).max() < 0.006
    offsets = observations._add_probe_errors(truth, quiet, 0).mean(0) - 0.3
    assert offsets.mean() == pytest.approx(0, abs=1e-12)


def test_a_seed_makes_the_same_planet_again_and_another_makes_another(small):
    again = make()
    assert again["files"] == small["files"]
    other = make(seed=1)
    assert not any(small[kind].identical(other[kind]) for kind in KINDS)


def test_the_size_of_chunks_changes_no_value(small):
    cut = make(chunk_cell_days=60 * 37)
    assert sum(name.startswith("truth_") for name in cut["files"]) == 10
    for kind in KINDS:
        for name in small[kind].variables:
            whole, parts = small[kind][name].values, cut[kind][name].values
            assert whole.tobytes() == parts.tobytes(), (kind, name)


# Without errors.


def test_a_perfect_satellite_sees_the_footprints_mean(perfect):
    truth = perfect["truth"].SM.values.astype(float)
    mean = truth.reshape(365, 3, 2, 5, 2).mean((2, 4)).reshape(365, -1).T
    retrieved = perfect["footprints"].SM_RETRIEVED.values
    np.testing.assert_allclose(retrieved, mean, rtol=1e-6, atol=0)


def test_a_perfect_probe_tells_its_cells_truth(perfect):
    y, x = SMALL.cells_of(perfect["sites"].lat.values, perfect["sites"].lon.values)
    truth = perfect["truth"].SM.values[:, y, x].T
    assert perfect["sites"].SM.values.tobytes() == np.ascontiguousarray(truth).tobytes()


def test_perfect_forcing_keeps_the_mean_over_cells(perfect):
    _, sky, _, _ = run(SMALL, 3)
    shown = weather.ObservedForcing(
        SMALL, random_fields.planet_parameters(PlanetConfig(omit_errors=INGREDIENTS)), 0
    )
    made = shown.days(sky)
    rows = -np.diff(np.sin(np.radians(np.clip(shown.lat_edges, *_sides(SMALL)[0]))))
    cols = np.diff(np.clip(shown.lon_edges, *_sides(SMALL)[1]))
    weights = -rows[:, None] * cols
    for name, true in (("TMP", sky.air_temperature), ("PRES", sky.surface_pressure)):
        mean = (made[name] * weights).sum((1, 2)) / weights.sum()
        np.testing.assert_allclose(mean, true.mean((1, 2), dtype=float), rtol=2e-6)
    # 3e-4: areas are reckoned on a sphere, and the grid's cells are equal on an ellipsoid.
    rain = (made["APCP"] * 24 * weights).sum((1, 2)) / weights.sum()
    np.testing.assert_allclose(rain, sky.precipitation.mean((1, 2)), rtol=3e-4)


def _sides(window):
    left, bottom, right, top = window.bounds
    lat, lon = ease.unproject([left, right], [bottom, top])
    return lat, lon


# Files.


def test_forcing_lies_on_eighths_of_a_degree_that_cover_the_window(small):
    made = small["forcing"]
    lat, lon = _sides(SMALL)
    for axis, (low, high) in (("lat", lat), ("lon", lon)):
        bounds = made[f"{axis}_bnds"].values
        assert (bounds * 8 == np.round(bounds * 8)).all()
        assert (np.diff(bounds, axis=1) == 0.125).all()
        assert bounds.min() <= low < bounds.min() + 0.125
        assert bounds.max() - 0.125 < high <= bounds.max()
        np.testing.assert_allclose(made[axis], bounds.mean(1))
    assert np.isfinite(made.to_array()).all()


def test_bounds_of_cells_meet(small):
    for kind in ("truth", "attributes"):
        made = small[kind]
        assert (np.diff(made.lat) < 0).all()
        np.testing.assert_array_equal(made.lat_bnds[1:, 0], made.lat_bnds[:-1, 1])
        np.testing.assert_array_equal(made.lon_bnds[1:, 0], made.lon_bnds[:-1, 1])
        np.testing.assert_allclose(made.lat, SMALL.cell_lat)


def test_times_are_whole_days(small):
    days = np.arange("2017-01-01", "2018-01-01", dtype="datetime64[D]")
    for kind in ("forcing", "truth", "footprints", "sites"):
        assert (small[kind].time.values == days).all()
    raw = xr.load_dataset(
        io.BytesIO(small["files"]["sites.nc"]), engine="h5netcdf", decode_times=False
    )
    assert raw.time.attrs["units"] == "days since 1970-01-01"
    assert raw.time.dtype.kind == "i"


def test_the_catalog_names_what_is_in_the_files_and_all_is_in_range(small):
    path = Path(__file__).resolve().parents[2] / "catalogs" / "osse.yaml"
    entries = yaml.safe_load(path.read_text())["sources"]
    assert set(entries) == set(KINDS)
    slope = {("kg m-2 h-1", "kg m-2 day-1"): 24.0}
    for kind, entry in entries.items():
        for ours, spec in entry["args"]["mapping"].items():
            array, variable = small[kind][spec["from"]], VARIABLES[ours]
            assert array.dtype == np.float32
            assert array.attrs["units"] == spec["units"]
            assert spec.get("to", spec["units"]) == variable.units
            values = array.values * slope.get((spec["units"], variable.units), 1.0)
            if kind == "sites":
                values = values[values <= 0.65] if ours == "soil_moisture" else values
            assert np.nanmin(values) >= variable.minimum, ours
            assert np.nanmax(values) <= variable.maximum, ours


def test_the_day_of_spl3smp_agrees_with_the_footprints(small):
    (name,) = (n for n in small["files"] if n.startswith("SMAP_L3_SM_P_"))
    day = np.datetime64(f"{name[13:17]}-{name[17:19]}-{name[19:21]}")
    with h5py.File(io.BytesIO(small["files"][name])) as file:
        group = file["Soil_Moisture_Retrieval_Data_AM"]
        held = {key: group[key][:] for key in group}
    assert {a.shape for a in held.values()} == {(406, 964)}
    assert held["moisture"].dtype == np.float32
    seen = held["retrieval_qual_flag"] == 0
    assert (held["moisture"][~seen] == -9999).all()
    retrieved = small["footprints"].SM_RETRIEVED.sel(time=day).values.reshape(3, 5)
    here = np.s_[72:75, 207:212]
    assert seen.sum() == seen[here].sum() == np.isfinite(retrieved).sum() > 0
    np.testing.assert_array_equal(
        np.where(seen[here], held["moisture"][here], np.nan), retrieved.astype("f4")
    )
    np.testing.assert_array_equal(held["EASE_row_index"][here][:, 0], [72, 73, 74])
    np.testing.assert_array_equal(held["EASE_column_index"][here][0], range(207, 212))
    np.testing.assert_allclose(held["latitude"][here][:, 0], SMALL.footprint_lat, rtol=1e-6)
    assert set(held["tb_time_utc"][seen]) == {f"{day}T12:00:00.000Z".encode()}


# Sites.


def test_sites_lie_well_inside_cells_and_share_footprints_last():
    placed = observations.place_sites(SMALL, 22, 5)
    y, x = SMALL.cells_of(placed.lat, placed.lon)
    assert (y == placed.y).all()
    assert (x == placed.x).all()
    metres_x, metres_y = ease.project(placed.lat, placed.lon)
    side = ease.FOOTPRINT_SIZE_M / 2
    assert np.abs(metres_x - SMALL.cell_x[x]).max() <= side / 4 + 1
    assert np.abs(metres_y - SMALL.cell_y[y]).max() <= side / 4 + 1
    n = np.bincount(y // 2 * 5 + x // 2, minlength=15)
    assert (n[:15].min(), n.max()) == (1, 2)
    assert placed.ids[:2] == ["site-00", "site-01"]


def test_quality_control_catches_broken_sites():
    made = make(n_sites=12, omit_errors=("site_gaps",))["sites"]
    whole = make(n_sites=12, omit_errors=("site_gaps", "site_faults"))["sites"]
    broken = made.SM.values != whole.SM.values
    assert (broken.any(1).sum(), made.sizes["site"]) == (1, 12)
    many = make(ease.Window(72, 207, 5, 8, 1), n_sites=40, omit_errors=("site_gaps",))["sites"]
    table = xr.Dataset(
        {
            "moisture": many.SM,
            "soil_temperature": many.ST,
            "provider_flag": many.qc.assign_attrs(good=[0]),
        }
    ).transpose("time", "site")
    values, dropped = quality_control.screen_sites(table, "moisture", TARGET, QcConfig())
    spiky, stuck = (np.flatnonzero(dropped[rule].any(0)) for rule in ("range", "stuck"))
    assert len(spiky) == len(stuck) == 1
    assert (many.SM.values[spiky] > 0.65).sum() == (dropped["range"]).sum() + (
        (many.SM.values[spiky] > 0.65) & (many.qc.values[spiky] != 0)
    ).sum()
    assert quality_control.find_stuck(table.moisture.values, table.time.values, 30).sum() >= 40
    assert "provider: frozen_soil" in dropped
    assert np.nanmax(values) <= 0.65


def test_gaps_of_sites_have_their_share():
    sizes = random_fields.PLANETS["hard"]
    missing = observations._draw_gaps((3000, 50), sizes, 0)
    assert missing.mean() == pytest.approx(0.08, abs=0.015)
    runs = (missing[1:] & ~missing[:-1]).sum()
    assert missing.sum() / runs == pytest.approx(20, rel=0.15)


# Planets.


def test_the_easy_planet_differs_by_what_its_definition_says():
    hard, easy = random_fields.PLANETS["hard"], random_fields.PLANETS["easy"]
    differ = {k for k, v in vars(hard).items() if vars(easy)[k] != v}
    assert differ == {
        "fast_drying",
        "seasonal_m3_m3_per_half_ndvi",
        "amplitude_error",
        "site_offset_m3_m3",
        "rain_log_error",
    }
    assert random_fields.PLANETS["load"] == replace(hard, spinup_days=30)


def test_the_biased_planet_has_twice_the_satellite_bias_and_nothing_else():
    hard, biased = random_fields.PLANETS["hard"], random_fields.PLANETS["biased"]
    assert replace(biased, bias_mean_m3_m3=-0.02, bias_sd_m3_m3=0.04) == hard
    made = land.simulate_land(SMALL, hard, 0)
    once, twice = (observations._satellite_bias(SMALL, made, sizes, 0) for sizes in (hard, biased))
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-12)
    assert once.std() == pytest.approx(0.04)


@pytest.mark.parametrize("refinement", [1, 2, 4, 8])
def test_any_refinement_and_place_makes_a_planet(refinement):
    window = ease.Window(300, 400, 1, 2, refinement)  # southern hemisphere
    days = []
    period = (date(2016, 2, 27), date(2016, 3, 2))
    config = PlanetConfig(kind="load", n_sites=1)
    names = []
    stage.generate_planet(
        config, window, period, "m", lambda name, data: names.append(name), days.append
    )
    assert sum(days) == 5
    assert {"forcing_20160227.nc", "truth_20160227.nc", "attributes.nc"} < set(names)


def test_progress_counts_the_days_of_the_period_only():
    days = []
    config = PlanetConfig(kind="load")
    stage.generate_planet(config, SMALL, SMALL_PERIOD, "m", lambda *_: None, days.append, 60 * 100)
    assert days == [100, 100, 100, 65]


def test_the_ocean_has_forcing_and_nothing_else():
    wet = make(ocean_share=0.6, forcing_degrees=0.5)
    dry = make(forcing_degrees=0.5)
    assert wet["forcing"].sizes["lat"] < make()["forcing"].sizes["lat"]
    xr.testing.assert_equal(wet["forcing"], dry["forcing"])
    ocean = np.isnan(wet["attributes"]["SAND"].values)
    assert ocean.mean() == pytest.approx(0.6, abs=0.02)
    assert (np.isnan(wet["truth"]["SM"].values) == ocean).all()
    np.testing.assert_array_equal(
        wet["truth"]["SM"].values[:, ~ocean], dry["truth"]["SM"].values[:, ~ocean]
    )
    share = ocean.reshape(3, 2, 5, 2).mean((1, 3)).ravel()
    seen = np.isfinite(wet["footprints"]["SM_RETRIEVED"].values).any(1)
    assert (seen == (share <= 0.5)).all()
    y, x = SMALL.cells_of(wet["sites"].lat.values, wet["sites"].lon.values)
    assert (share.reshape(3, 5)[y // 2, x // 2] <= 0.5).all()
