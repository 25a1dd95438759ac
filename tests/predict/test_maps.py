"""Maps against the models that made them, their form for readers, interruption, others' models."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
import zarr

from model.ensemble import combine_members
from model.ensemble import predict_series as whole_series
from model.sampling import Places
from model.streaming import StatefulPredictor
from pipeline import files, predict
from pipeline.errors import ConfigError, StoreError
from pipeline.experiment import config, load
from pipeline.predict import tile_task
from pipeline.predict.tile_task import TileInputs
from pipeline.progress import SilentProgress
from pipeline.storage import maps_schema, models, schema, tables, zarr_arrays
from pipeline.storage.artefacts import Workspace
from pipeline.storage.cube import Cube
from pipeline.storage.maps_schema import Quality
from pipeline.train import training_data

TARGET, STEP = "snow_depth", 0.01


@pytest.fixture(scope="module")
def cube(world):
    return Cube.open(world.workspace.url("cube.zarr"))


@pytest.fixture(scope="module")
def opened(world):
    return xr.open_zarr(world.workspace.url("maps/multiscale.zarr")).load()


def values(world, arm, name, group=None):
    """(day, y, x) of the period."""
    mapped = xr.open_zarr(world.workspace.url(f"maps/{arm}.zarr"), group=group)
    first, last = map(str, world.experiment.period)
    return mapped[name].sel(time=slice(first, last)).values


@pytest.mark.parametrize("arm", ["multiscale", "insitu", "satellite"])
def test_a_map_is_the_product_of_the_models_of_all_sites(world, cube, arm):
    folds = tables.read_table(world.workspace.url("folds.parquet"))
    packed = training_data.pack_data(world.experiment, cube, folds)
    members = models.load_ensemble(world.workspace.url("models"), arm)
    calibration = models.read_calibrations(world.workspace.url("models"), arm)["all"]
    series = [whole_series(member, packed.cells("cpu")) for member in members]
    mean, std = combine_members(series, members[0].heads, calibration.level_weight)
    cells, _, _ = cube.membership()
    y, x = cells.T
    mapped = values(world, arm, TARGET)[:, y, x].T
    assert mapped.shape == (len(cells), 160)
    np.testing.assert_allclose(mapped, mean, atol=0.51 * STEP)
    assert np.ptp(mapped) > 20 * STEP
    deviation = values(world, arm, f"{TARGET}_std")[:, y, x].T
    assert np.isnan(deviation).all() == (arm == "satellite")  # one member, no likelihood
    scaled = std * calibration.width_scale
    np.testing.assert_allclose(deviation, scaled, atol=0.51 * STEP)


def test_readers_find_coordinates_units_bounds_and_the_grid(opened, world, cube):
    assert opened[TARGET].dims == ("time", "y", "x")
    assert opened[TARGET].attrs["units"] == "m"
    assert opened[TARGET].encoding["dtype"] == np.int16
    assert {"lat", "lon"} <= set(opened[TARGET].coords)
    np.testing.assert_array_equal(opened.lat[:, 0], cube.cells["lat"])
    np.testing.assert_array_equal(opened.lon[0], cube.cells["lon"])
    assert (opened.lat.dims, opened.lon.dims) == (("y", "x"), ("y", "x"))
    series = xr.open_zarr(world.workspace.url("maps/multiscale.zarr"), group="series")
    one = series.swap_dims(y="lat", x="lon").sel(lat=44.5, lon=0, method="nearest")
    assert one[TARGET].dims == ("time",)
    np.testing.assert_array_equal(opened.x, cube.cells["x"])
    width = opened.time_bnds.values[:, 1] - opened.time_bnds.values[:, 0]
    assert (width == np.timedelta64(1, "D")).all()
    assert opened[opened[TARGET].attrs["grid_mapping"]].attrs["grid_mapping_name"] == (
        "lambert_cylindrical_equal_area"
    )
    assert opened.attrs["proj:code"] == "EPSG:6933"
    assert opened.attrs["models_sha256"] == world.workspace.artefact("models").digest()


def test_depth_and_standard_names_come_from_the_table_of_variables():
    experiment = load.load_experiment("demo")
    arrays, _ = maps_schema.maps_template(
        experiment, config.experiment_window(experiment), "insitu", 1
    )
    by_path = {array.path: array for array in arrays}
    mean, std = by_path[experiment.target].attrs, by_path[f"{experiment.target}_std"].attrs
    assert mean["standard_name"] == "volume_fraction_of_condensed_water_in_soil"
    assert std["standard_name"] == f"{mean['standard_name']} standard_error"
    assert mean["scale_factor"] == 1e-4
    assert (by_path["depth"].values, by_path["depth_bnds"].values.tolist()) == (0.025, [0, 0.05])
    assert "depth" in mean["coordinates"]


def test_the_days_are_those_of_the_period_and_unwritten_ones_would_be_missing(opened, world):
    days = opened.time.values.astype("datetime64[D]").astype("O")
    assert (days[0], days[-1]) == world.experiment.period
    assert len(days) % schema.BLOCK_DAYS == 0
    maps = zarr.open_group(world.workspace.url("maps/multiscale.zarr"), mode="r")
    assert maps["quality_flag"].fill_value == Quality.NO_INPUTS
    assert maps["input_status"].fill_value == schema.InputStatus.PRELIMINARY
    for name in ("quality_flag", "input_status"):
        assert "_FillValue" not in maps[name].attrs
        assert opened[name].dtype == np.uint8
    array = maps[TARGET]
    assert (array.fill_value, array.attrs["_FillValue"]) == (-32768, -32768)
    assert (array.shards, array.chunks) == ((32, 16, 16), (1, 16, 16))


def test_the_series_group_says_the_same_in_another_chunking(world):
    for name in (TARGET, f"{TARGET}_std", "quality_flag"):
        np.testing.assert_array_equal(
            values(world, "insitu", name), values(world, "insitu", name, "series")
        )
    array = zarr.open_group(world.workspace.url("maps/insitu.zarr"), mode="r")[f"series/{TARGET}"]
    assert (array.shards, array.chunks) == ((384, 16, 16), (384, 16, 16))


def test_quality_flags(world, cube):
    flags = values(world, "multiscale", "quality_flag").astype(int)
    mask = cube.cells["mask"].values.astype(bool)
    assert (flags[:, ~mask] == Quality.NO_INPUTS).all()
    assert not (flags[:, mask] & Quality.NO_INPUTS).any()
    cold = cube.series(cube.cells, "air_temperature") <= 273.15
    np.testing.assert_array_equal((flags & Quality.FROZEN > 0)[:, mask], cold[:, mask])
    assert not (flags[:, mask] & (Quality.INPUT_MISSING | Quality.UNCALIBRATED)).any()
    outside = values(world, "multiscale", TARGET) < -STEP / 2
    assert (flags[outside] & Quality.OUTSIDE_RANGE).all()
    assert (values(world, "satellite", "quality_flag").astype(int)[:, mask] & 16).all()


def test_the_state_goes_on_where_the_walk_was(world, cube):
    member = models.load_ensemble(world.workspace.url("models"), "multiscale")[0]
    state = zarr_arrays.open_group(world.workspace.url("state/multiscale.zarr"), "")
    blocks = state["block"].values.tolist()
    assert len(blocks) == 3
    column = TileInputs(cube, 0, 0, member)
    assert blocks == [3, 4, 5]  # 5 would begin with the day after the maps
    start = blocks[-2] * 32
    lead = member.lead_days
    walk = StatefulPredictor(member, column.static, "cpu")
    hidden, cell = (state[n].values[-2, 0][column.valid] for n in ("hidden", "cell"))
    walk.states = [tuple(torch.from_numpy(a)[None] for a in (hidden, cell))]
    walk.before = torch.from_numpy(column.forcing(slice(start - lead, start)))
    walk.levels = np.stack(
        [state[n].values[0][column.valid] for n in ("site_level", "satellite_level")]
    )
    tail = walk.advance(column.forcing(slice(start, 160)))
    weight = models.read_calibrations(world.workspace.url("models"), "multiscale")[
        "all"
    ].level_weight
    mean, _ = combine_members([tail], member.heads, weight)
    mapped = values(world, "multiscale", TARGET)[start:, column.valid].T
    np.testing.assert_allclose(mean, mapped, atol=0.51 * STEP)


def test_a_value_that_does_not_fit_is_an_error():
    assert maps_schema.pack_values(np.array([0.12344, np.nan, -1.0]), 1e-4).tolist() == [
        1234,
        -32768,
        -10000,
    ]
    with pytest.raises(ValueError, match=r"3\.3 does not fit into int16"):
        maps_schema.pack_values(np.array([0.1, 3.3]), 1e-4)


def test_cells_are_as_far_from_the_sites_as_their_attributes_say(world, cube, opened):
    mask = cube.cells["mask"].values.astype(bool)
    elevation = cube.cells["elevation"].values[mask]
    climate = [cube.series(cube.cells, n)[:, mask].mean(0) for n in cube.attrs["forcing"]]
    cells, _, _ = cube.membership()  # attributes are on the scale of usable footprints' cells
    usable = np.zeros_like(mask)
    usable[tuple(cells.T)] = True
    known = np.stack([elevation, *climate], 1)
    known = (known - known[usable[mask]].mean(0)) / known[usable[mask]].std(0)
    where = np.cumsum(mask).reshape(mask.shape) - 1
    y, x = (cube.sites[name].values for name in ("y", "x"))
    sites = np.unique(known[where[y, x]], axis=0)
    apart = np.linalg.norm(sites[:, None] - sites, axis=2)
    np.fill_diagonal(apart, np.inf)
    nearest = np.linalg.norm(known[:, None] - sites, axis=2).min(1) / np.median(apart.min(1))
    found = opened.attribute_distance.values
    np.testing.assert_allclose(found[mask], nearest, atol=0.03)  # forcing lies in two bytes
    assert np.isnan(found[~mask]).all()
    assert found[y, x].max() < 0.03
    assert found[mask].max() > 1
    space = models.read_attribute_space(world.workspace.url("models"))
    assert opened.attribute_distance.attrs["applicability_limit"] == space.limit > 0


def test_the_first_of_the_next_probes_stands_where_the_gain_is_highest(world, opened):
    table = pd.read_csv(world.workspace.url("next_probes.csv"))
    gain = opened.probe_gain
    best = gain.where(gain == gain.max(), drop=True)
    assert table.gain[0] == pytest.approx(float(gain.max()), abs=1e-6)
    where = (float(best.lat[0, 0]), float(best.lon[0, 0]))
    assert (table.lat[0], table.lon[0]) == pytest.approx(where, abs=1e-6)
    assert (np.diff(table.gain) <= 1e-9).all()
    assert table.gain.sum() < 1
    distance = opened.attribute_distance.where(gain == gain.max()).max()
    assert table.attribute_distance[0] == pytest.approx(float(distance), rel=1e-4)
    variance = (opened[f"{TARGET}_std"] ** 2).mean("time").where(gain == gain.max()).max()
    assert table["std"][0] == pytest.approx(float(variance) ** 0.5, abs=STEP)
    assert "probe_gain" not in xr.open_zarr(world.workspace.url("maps/satellite.zarr"))


def mtimes(folder):
    return {p: p.stat().st_mtime_ns for p in Path(folder).rglob("*") if p.is_file()}


def copied(world, root):
    """A workspace with the world's cube, folds and models, and no maps."""
    source = Path(world.workspace.root)
    for part in ("cube.zarr", "models"):
        subprocess.run(["cp", "-r", source / part, root], check=True)
    tables = ("folds.parquet", "folds.geojson", "folds.manifest.json", "sites.parquet")
    for name in (*tables, "experiment.yaml"):
        subprocess.run(["cp", source / name, root], check=True)
    return Workspace(str(root))


@pytest.mark.runs  # it takes half a minute
def test_killed_in_the_middle_predict_finishes_and_maps_are_equal(world, tmp_path, local_ray):
    root = tmp_path / "snow"
    root.mkdir()
    workspace = copied(world, root)
    code = "from pipeline import cli; cli.main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "predict", str(world.path), "--workspace", str(tmp_path)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    receipts = root / "maps" / "receipts"
    deadline = time.time() + 120
    while not list(receipts.glob("*.json")) and time.time() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = {p.name: p.stat().st_mtime_ns for p in receipts.glob("*.json")}
    assert 1 <= len(done) < 3
    arm = next(iter(done)).split("-")[0]
    shards = [p for p in (root / "maps" / f"{arm}.zarr" / TARGET / "c").rglob("*") if p.is_file()]
    before = {p: p.stat().st_mtime_ns for p in shards}
    predict.run(world.experiment, workspace, SilentProgress())
    assert {p: p.stat().st_mtime_ns for p in shards} == before
    ours, theirs = (w.artefact("maps").manifest()["shards"] for w in (workspace, world.workspace))
    assert ours == theirs
    assert not receipts.exists()


def test_a_process_loads_the_models_of_a_run_once(world, monkeypatch):
    loaded, load_ensemble = [], models.load_ensemble
    monkeypatch.setattr(
        models, "load_ensemble", lambda root, arm: loaded.append(arm) or load_ensemble(root, arm)
    )
    urls = [world.workspace.url(name) for name in ("", "cube.zarr", "models")]
    spec = tile_task.MapSpec(world.experiment.model_dump_json(), *urls, run="first")
    for arm in ("insitu", "satellite", "insitu", "insitu"):
        # Every task has its own handle of the queue.
        mapper = tile_task._mapper(tile_task.MapTile, replace(spec, queue=object()))
        assert mapper._load_models(arm) is mapper._load_models(arm)
    assert loaded == ["insitu", "satellite"]
    tile_task._mapper(tile_task.MapTile, replace(spec, run="second"))._load_models("insitu")
    assert loaded == ["insitu", "satellite", "insitu"]


def test_a_second_run_touches_nothing(world):
    before = mtimes(world.workspace.root)
    predict.run(world.experiment, world.workspace, SilentProgress())
    assert mtimes(world.workspace.root) == before


def test_models_of_someone_else_map_another_region_and_period(world, tmp_path, local_ray):
    from pipeline import prepare

    west, south, east, north = (
        getattr(world.experiment.domain, f"{side}_degrees")
        for side in ("west", "south", "east", "north")
    )
    middle = (west + east) / 2
    settings = load.settings_for_mapping(
        world.workspace.url("models"), f"{middle},{south},{east},{north}", "2019-12-10..2020-01-20"
    )
    experiment = load.load_experiment(str(world.path), settings, "east")
    workspace = Workspace(str(tmp_path / "east"))
    prepare.run(experiment, workspace, SilentProgress())
    predict.run(experiment, workspace, SilentProgress())
    mapped = xr.open_zarr(workspace.url("maps/insitu.zarr"))
    assert 0 < mapped.sizes["x"] < 16
    member = models.load_ensemble(world.workspace.url("models"), "insitu")[0]
    column = TileInputs(Cube.open(workspace.url("cube.zarr")), 0, 0, member)
    places = Places.from_arrays(column.forcing(slice(0, 42)), column.static, "cpu")
    mean, _ = combine_members([whole_series(member, places)], member.heads, 1.0)
    ours = mapped[TARGET].sel(time=slice("2019-12-10", "2020-01-20")).values
    assert ours.shape[0] == 42
    np.testing.assert_allclose(ours[:, column.valid].T, mean, atol=0.51 * STEP)
    assert not files.exists(workspace.url("models"))


def test_models_that_do_not_fit_are_refused(world, tmp_path):
    root = world.workspace.url("models")
    other = world.experiment.model_copy(update={"target": "snowfall", "models": root})
    workspace = world.workspace
    with pytest.raises(ConfigError, match="insitu predicts snow_depth, but the experiment"):
        models.load_ensembles(other, workspace)
    with pytest.raises(StoreError, match="no complete models here"):
        models.find_models(world.experiment.model_copy(update={"models": str(tmp_path)}), workspace)
    with pytest.raises(ConfigError, match="add --models URL"):
        load.settings_for_mapping(None, "1,2,3,4", None)
    with pytest.raises(ConfigError, match="expected west,south,east,north"):
        load.settings_for_mapping(root, "1,2,3", None)
