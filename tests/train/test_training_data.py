"""Training data packed block by block: the same as all at once, and a part of the footprints."""

import numpy as np
import pytest

from model import scaling
from model.features import Features
from model.scaling import fit_trimmed_scale
from pipeline.errors import ConfigError
from pipeline.storage import schema, tables
from pipeline.storage.cube import Cube
from pipeline.train import training_data


@pytest.fixture(scope="module")
def cube(world):
    return Cube.open(world.workspace.url("cube.zarr"))


def packed(world, cube, **train):
    train = world.experiment.train.model_copy(update=train)
    experiment = world.experiment.model_copy(update={"train": train})
    return training_data.pack_data(
        experiment, cube, tables.read_table(world.workspace.url("folds.parquet"))
    )


@pytest.mark.parametrize("sample", [scaling.MAX_SAMPLE, 500])
def test_block_by_block_is_as_all_at_once(cube, sample, monkeypatch):
    monkeypatch.setattr(scaling, "MAX_SAMPLE", sample)
    features = Features(("snowfall", "air_temperature"), ("elevation",), ())
    cells, _, _ = cube.membership()
    train = slice(7, 121)
    scaler = training_data.fit_scaler(cube, features, cells, train)
    forcing, static = training_data.read_cells(cube, features, scaler, cells)
    assert forcing.shape == (len(cells), 160, 2)
    row, col = cells.T
    for i, name in enumerate(features.forcing):
        whole = cube.series(cube.cells, name)[:, row, col].T
        scale = fit_trimmed_scale(whole[:, train])
        assert scaler.scales[name] == scale
        mean, std = np.float32(scale.mean), np.float32(scale.std)
        np.testing.assert_array_equal(forcing[..., i], ((whole - mean) / std).astype(np.float16))
    elevation = cube.cells["elevation"].values[row, col]
    scale = fit_trimmed_scale(elevation)
    assert scaler.scales["elevation"] == scale
    np.testing.assert_allclose(static[:, 0], (elevation - scale.mean) / scale.std, rtol=1e-5)


@pytest.mark.parametrize("days", [slice(0, 160), slice(5, 6), slice(12, 13), slice(40, 141)])
def test_blocks_follow_one_another_and_cut_no_shard(cube, days):
    pieces = list(cube.blocks(days))
    assert [day for p in pieces for day in range(p.start, p.stop)] == [*range(160)][days]
    for piece in pieces:
        first, last = piece.start + cube.axis_offset, piece.stop - 1 + cube.axis_offset
        assert first // 32 == last // 32


def test_fewer_footprints_are_some_of_all(world, cube):
    every, some = packed(world, cube), packed(world, cube, max_footprints=4)
    assert len(some.footprints) == 4 < len(every.footprints)
    assert len(some.cell_static) == (some.members >= 0).sum() < len(every.cell_static)
    for number, place in enumerate(some.footprints):
        (same,) = np.flatnonzero((every.footprints == place).all(1))
        np.testing.assert_array_equal(some.satellite[number], every.satellite[same])
        mine, theirs = some.members[number], every.members[same]
        np.testing.assert_array_equal(mine >= 0, theirs >= 0)
        columns = [p.cell_static[m[m >= 0], 0] for p, m in ((some, mine), (every, theirs))]
        elevation = [
            c * p.scaler.scales["elevation"].std + p.scaler.scales["elevation"].mean
            for c, p in zip(columns, (some, every), strict=True)
        ]
        np.testing.assert_allclose(*elevation, rtol=1e-4)
    np.testing.assert_array_equal(packed(world, cube, max_footprints=4).footprints, some.footprints)
    assert len(packed(world, cube, max_footprints=99).footprints) == len(every.footprints)


def test_footprints_left_out_of_a_fold_are_the_same_of_fewer(world, cube):
    folds = world.experiment.folds.model_copy(update={"drop_footprints": True})
    experiment = world.experiment.model_copy(update={"folds": folds})
    table = tables.read_table(world.workspace.url("folds.parquet"))
    every = training_data.pack_data(experiment, cube, table)
    train = experiment.train.model_copy(update={"max_footprints": 5})
    some = training_data.pack_data(experiment.model_copy(update={"train": train}), cube, table)
    for wanted, found in zip(every.dropped, some.dropped, strict=True):
        place = every.footprints[wanted].tolist() if wanted >= 0 else None
        if place in some.footprints.tolist():
            assert some.footprints[found].tolist() == place
        else:
            assert found == -1


def choosing(world, n, seed=0):
    table = tables.read_table(world.workspace.url("folds.parquet"))
    folds = world.experiment.folds.model_copy(update={"train_sites": n, "train_sites_seed": seed})
    return world.experiment.model_copy(update={"folds": folds}), table


def test_a_random_choice_of_sites_is_learnt_from_and_all_are_scored(world, cube):
    every = packed(world, cube)
    usable = set(every.training_sites(-1, 0.0).tolist())
    few, more = (
        training_data.pack_data(experiment, cube, table)
        for experiment, table in (choosing(world, n) for n in (2, 4))
    )
    learnt = [set(p.training_sites(-1, 0.0).tolist()) for p in (few, more)]
    assert [len(sites) for sites in learnt] == [2, 4]
    assert learnt[0] < learnt[1] <= usable
    for fold in np.unique(every.fold).tolist():  # of these, the fold's own are held out
        held_out = {int(i) for i in np.flatnonzero(every.fold == fold)}
        assert set(more.training_sites(fold, 0.0).tolist()) == learnt[1] - held_out
    # Calibration and the ridge regression read these values, the scores read all of them.
    chosen = np.isfinite(more.learn_insitu).any(1)
    assert set(np.flatnonzero(chosen).tolist()) == learnt[1]
    np.testing.assert_array_equal(more.insitu, every.insitu)
    others = [
        frozenset(training_data.pack_data(e, cube, t).training_sites(-1, 0.0).tolist())
        for e, t in (choosing(world, 2, seed) for seed in range(1, 6))
    ]
    assert len({frozenset(learnt[0]), *others}) > 1


def test_more_training_sites_than_there_are_is_refused(world, cube):
    experiment, table = choosing(world, 999)
    with pytest.raises(ConfigError, match=r"folds.train_sites 999: only \d+ sites have at least"):
        training_data.pack_data(experiment, cube, table)


def test_models_of_all_sites_keep_the_identity_that_they_had(world):
    plain = schema.identity(world.experiment, "folds")
    assert not [key for key in plain if "train_sites" in key]
    some = schema.identity(choosing(world, 2, 1)[0], "folds")
    assert {key for key in some if key not in plain} == {
        "folds.train_sites",
        "folds.train_sites_seed",
    }
