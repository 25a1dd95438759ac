"""The product of an arm as one object: what the pipeline gives, from raw inputs alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.calibration import Calibration
from model.checkpoint import model_to_bytes
from model.ensemble import combine_members, predict_series
from model.pyfunc import CALIBRATION_FILE, ProductModel
from model.recipe import ModelKey
from pipeline.storage import models, tables
from pipeline.storage.cube import Cube
from pipeline.train import training_data

CHOSEN = Calibration(level_weight=0.25, width_scale=1.7, calibrated=True)


@pytest.fixture(scope="module")
def members(world):
    """Two members of arm multiscale: that of all sites, and that of a fold as another seed."""
    root = world.workspace.url("models")
    jobs = (ModelKey("multiscale", models.ALL_SITES, 0), ModelKey("multiscale", 0, 0))
    return [models.load_model(root, job) for job in jobs]


@pytest.fixture(scope="module")
def raw(world, members):
    """(site, day, feature) inputs of every site in the cube's units."""
    cube, features = Cube.open(world.workspace.url("cube.zarr")), members[0].features
    forcing = [cube.series(cube.sites, name).T for name in features.forcing]
    static = [
        np.broadcast_to(cube.sites[name].values[:, None], forcing[0].shape)
        for name in features.static
    ]
    return np.stack(forcing + static, 2).astype(np.float32)


def test_raw_inputs_give_what_the_pipeline_gives(world, members, raw):
    cube = Cube.open(world.workspace.url("cube.zarr"))
    folds = tables.read_table(world.workspace.url("folds.parquet"))
    places = training_data.pack_data(world.experiment, cube, folds).sites("cpu")
    series = [predict_series(member, places) for member in members]
    mean, std = combine_members(series, members[0].heads, CHOSEN.level_weight)
    made = ProductModel(members, CHOSEN).predict(raw)
    np.testing.assert_array_equal(made["mean"], mean)
    np.testing.assert_allclose(made["std"], std * CHOSEN.width_scale, rtol=1e-6)
    assert made["mean"].dtype == made["std"].dtype == np.float32


def test_a_missing_input_is_an_average_one(members, raw):
    product_ = ProductModel(members, CHOSEN)
    missing, average = raw[:2].copy(), raw[:2].copy()
    elevation = product_.inputs.index("elevation")
    missing[..., elevation] = np.nan
    average[..., elevation] = members[0].scaler.scales["elevation"].mean
    given = product_.predict(missing)["mean"]
    np.testing.assert_allclose(given, product_.predict(average)["mean"], atol=1e-6)
    missing[:, 40:60] = np.nan
    assert np.isfinite(product_.predict(missing)["mean"]).all()


def test_it_is_loaded_from_a_folder(tmp_path, members, raw):
    for seed, member in enumerate(members):
        (tmp_path / f"seed-{seed:03d}.safetensors").write_bytes(model_to_bytes(member))
    (tmp_path / CALIBRATION_FILE).write_text(CHOSEN.model_dump_json())
    loaded, given = ProductModel.load(tmp_path), ProductModel(members, CHOSEN)
    assert loaded.inputs == given.inputs == ("air_temperature", "snowfall", "elevation")
    np.testing.assert_array_equal(loaded.predict(raw)["std"], given.predict(raw)["std"])


def test_its_example_is_an_input(members):
    product_ = ProductModel(members, CHOSEN)
    example = product_.example(7)
    assert example.shape == (1, 7, 3)
    assert product_.predict(example)["mean"].shape == (1, 7)


@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 2)])
def test_another_shape_is_refused_by_the_names_wanted(members, shape):
    wanted = r"expected \(batch, time, 3\): air_temperature, snowfall, elevation"
    with pytest.raises(ValueError, match=wanted):
        ProductModel(members, CHOSEN).predict(np.zeros(shape, np.float32))


def test_an_arm_without_sites_has_no_deviation_of_one_member(members, raw):
    alone = replace(members[0], heads=("satellite",))
    made = ProductModel([alone], CHOSEN).predict(raw)
    assert np.isnan(made["std"]).all()
    np.testing.assert_array_equal(
        made["mean"],
        ProductModel([alone], CHOSEN.model_copy(update={"level_weight": 1.0})).predict(raw)["mean"],
    )
