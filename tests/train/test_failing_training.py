"""Training that fails says so, and nothing that it leaves is taken for a model."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import xarray as xr

from model import checkpoint
from model.calibration import calibrate
from model.loss import footprint_mean, source_loss
from model.network import seeded_network
from model.recipe import ModelKey
from model.sampling import (
    DROPOUT_STREAM,
    FOOTPRINT_STREAM,
    SITE_STREAM,
    WEIGHT_STREAM,
    draw_batch,
    draw_windows,
    seeded_generator,
)
from model.scaling import Scale
from model.stacked_trainer import StackedTrainer
from model.trainer import Trainer, make_optimiser
from pipeline import evaluate, files, predict, train
from pipeline.errors import SoilweaveError
from pipeline.evaluate import report
from pipeline.experiment import load
from pipeline.progress import SilentProgress
from pipeline.storage import artefacts, ensemble, models, tables
from pipeline.storage.artefacts import Workspace
from pipeline.storage.cube import Cube
from pipeline.train import training_data, worker

JOB = ModelKey("multiscale", 1, 2)
UPDATES = 60
OVERFLOWS = 1e-25  # a scale of the target under which squared errors exceed float32


@pytest.fixture(autouse=True)
def one_thread():
    with tiny.one_thread():
        yield


def fitting(job=JOB, data=None, **changes):
    recipe = tiny.recipe(updates=UPDATES, **changes)
    return Trainer(recipe, job, data or tiny.training_data(), UPDATES)


def first_bad_update(job, data, recipe):
    """The first update, from 1, whose loss is not finite: training written as a plain loop."""
    key = (job.seed, job.fold + 1, WEIGHT_STREAM)
    net = seeded_network(recipe.network, 7, recipe.likelihood(job.arm), key)
    stepping, schedule = make_optimiser(net.parameters(), recipe.train, UPDATES)
    w, warm = recipe.insitu_weight(job.arm), recipe.train.warmup_days
    for step in range(UPDATES):
        batch = draw_batch(recipe, job, data, step)
        heads, _ = net(batch.x, generator=seeded_generator(job, step, DROPOUT_STREAM))
        loss, n = 0.0, 0
        if batch.members is not None:
            n = int((batch.members >= 0).sum())
            mean = footprint_mean(heads.satellite[:n, warm:], batch.members)
            loss = (1 - w) * source_loss(mean, batch.satellite, None, recipe.loss)
        if batch.insitu is not None:
            width = None if heads.width is None else heads.width[n:, warm:]
            loss = loss + w * source_loss(heads.site[n:, warm:], batch.insitu, width, recipe.loss)
        if not torch.isfinite(loss):
            return step + 1
        stepping.zero_grad()
        loss.backward()
        if recipe.train.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(net.parameters(), recipe.train.gradient_clip)
        stepping.step()
        if schedule:
            schedule.step()
    return None


def places_of(recipe, job, data, update):
    """Footprints and sites of the batch of an update, ascending."""
    drawn = [
        draw_windows(recipe.train, job, data, update - 1, s)[0]
        for s in (FOOTPRINT_STREAM, SITE_STREAM)
    ]
    footprints = sorted(set(data.seen[drawn[0]].tolist())) if job.arm != "insitu" else []
    sites = sorted(set(data.trainable[drawn[1]].tolist())) if job.arm != "satellite" else []
    return footprints, sites


@pytest.mark.parametrize("arm", ["multiscale", "insitu", "satellite"])
@pytest.mark.parametrize("changes", [{}, {"gradient_clip": None}, {"likelihood": "none"}])
def test_training_stops_at_the_first_loss_that_is_not_finite(arm, changes):
    """Also where the losses of several updates are looked at together, as at a checkpoint."""
    job, changes = JOB._replace(arm=arm), changes | {"learning_rate": 1e6}
    failing = fitting(job, **changes)
    update = first_bad_update(job, failing.data, failing.recipe)
    assert 1 < update < UPDATES
    footprints, sites = places_of(failing.recipe, job, failing.data, update)
    with pytest.raises(ArithmeticError) as caught:
        failing.advance(UPDATES)
    assert str(caught.value) == (
        f"arm {arm}, fold 1, seed 2: the loss is not finite at update {update} of 60; "
        f"the batch had footprints {footprints} and sites {sites}"
    )


def test_the_update_is_told_where_the_curve_has_a_point_for_many():
    """1000 updates have a point for every twentieth: the update itself is named all the same."""
    recipe = tiny.recipe(updates=1000)
    failing = Trainer(recipe, JOB, tiny.training_data(), 1000)
    failing.advance(27)  # points are at 20, 40, ...
    failing.data = replace(failing.data, target=Scale(0.2, OVERFLOWS))
    with pytest.raises(ArithmeticError, match="loss is not finite at update 28 of 1000"):
        failing.advance(13)
    assert len(failing.history) == 1


def test_a_gradient_that_is_not_finite_stops_training():
    failing = fitting(gradient_clip=None)
    failing.advance(3)
    failing.network.output.weight.register_hook(lambda slope: slope / 0.0)
    with pytest.raises(ArithmeticError, match="the gradient is not finite at update 4 of 60"):
        failing.advance(5)


def test_weights_that_are_not_finite_stop_training():
    """Even those of a head that no loss depends on: losses and gradients stay finite here."""
    failing = fitting(JOB._replace(arm="satellite"))
    failing.advance(3)
    with torch.no_grad():
        failing.network.output.bias[0] = torch.inf  # of the site head
    with pytest.raises(ArithmeticError, match="the weights are not finite at update 4 of 60"):
        failing.advance(1)


def stacked(**changes):
    """Three models side by side, of which the second cannot be trained."""
    data = tiny.training_data()
    scales = [data.target, Scale(0.2, OVERFLOWS), Scale(0.3, 0.1)]
    jobs = [ModelKey("multiscale", fold, 1) for fold in range(3)]
    datas = [replace(data, target=scale) for scale in scales]
    return [fitting(job, d, **changes) for job, d in zip(jobs, datas, strict=True)]


def test_a_stack_names_the_model_that_failed_and_trains_the_others():
    together, alone = stacked(), stacked()
    recipe, data = together[1].recipe, together[1].data
    update = first_bad_update(together[1].job, data, recipe)
    footprints, sites = places_of(recipe, together[1].job, data, update)
    with pytest.raises(ArithmeticError) as caught:
        StackedTrainer(together).advance(5)
    assert str(caught.value) == (
        f"arm multiscale, fold 1, seed 1: the loss is not finite at update {update} of 60; "
        f"the batch had footprints {footprints} and sites {sites}"
    )
    for one, other in ((together[0], alone[0]), (together[2], alone[2])):
        other.advance(5)
        assert one.step == 5
        for key, value in other.network.state_dict().items():
            torch.testing.assert_close(one.network.state_dict()[key], value, rtol=2e-3, atol=2e-4)


# --- the models of an experiment: data of 6 sites in 3 folds and 5 footprints, without a cube


def experiment_of(*settings):
    chosen = [
        "network.hidden_size=5",
        "loss.likelihood=none",
        "train.window_days=6",
        "train.warmup_days=2",
        "train.footprints_per_step=3",
        "train.sites_per_step=4",
        "train.updates=12",
        "train.precision=fp32",
        "compute.checkpoint_every_updates=5",
        "network.linear_weight=0",
    ]
    return load.load_experiment("scan", [*chosen, *settings])


def packed_of(odd_site=None):
    data = tiny.training_data()
    insitu = data.insitu.numpy().copy()
    if odd_site is not None:
        insitu[odd_site, data.first_day : data.first_day + data.n_days] = 1e25
    satellite, n = data.satellite.numpy(), tiny.N_SITES
    fields = training_data.PackedData.__dataclass_fields__
    return training_data.PackedData(
        **({"place": np.arange(n)} if "place" in fields else {}),
        features=data.features,
        scaler=data.scaler,
        first_day=data.first_day,
        n_days=data.n_days,
        cell_forcing=data.cells.forcing.numpy(),
        cell_static=data.cells.static.numpy(),
        members=data.members,
        footprints=np.array([[0, 0], [0, 1], [0, 2], [1, 0], [1, 1]]),
        satellite=satellite,
        learn_satellite=satellite,
        site_forcing=data.sites.forcing.numpy(),
        site_static=data.sites.static.numpy(),
        insitu=insitu,
        learn_insitu=insitu,
        site_ids=tuple(f"probe-{i}" for i in range(n)),
        lat=np.linspace(40, 45, n),
        lon=np.linspace(-100, -95, n),
        fold=np.arange(n) % 3,
        dropped=np.full(n, -1),
    )


def trained_in(root, experiment, packed, jobs):
    orders = worker.TrainSpec(experiment, str(root), "", experiment.train.updates, None)
    worker.train_models(orders, jobs, packed, "cpu")


def told(root):
    """All that is recorded of models that failed."""
    return " ".join(p.read_text() for p in sorted(Path(root).rglob("failed*")))


@pytest.mark.parametrize("side_by_side", [True, False])
def test_a_model_that_fails_is_not_kept_and_the_others_are(tmp_path, side_by_side):
    """Site 0, whose values cannot be squared, is in fold 0, so only that model is without it."""
    experiment, packed = experiment_of(), packed_of(odd_site=0)
    jobs = [ModelKey("multiscale", fold, 0) for fold in (0, 1, models.ALL_SITES)]
    for team in [jobs] if side_by_side else [[job] for job in jobs]:
        trained_in(tmp_path / "some", experiment, packed, team)
    kept = [
        job.fold for job in jobs if files.exists(models.checkpoint_url(f"{tmp_path}/some", job))
    ]
    assert kept == [0]
    assert not list((tmp_path / "some").rglob("fold=1/seed=0/progress*"))
    trained_in(tmp_path / "alone", experiment, packed, jobs[:1])
    weights = [
        models.load_model(str(tmp_path / name), jobs[0]).network.state_dict()
        for name in ("some", "alone")
    ]
    for key, value in weights[1].items():
        torch.testing.assert_close(weights[0][key], value, rtol=2e-3, atol=2e-4)
    recipe, said = experiment.recipe_sections, told(tmp_path / "some")
    for job in jobs[1:]:
        data = packed.data(job, 0.0, "cpu")
        steps = range(1, experiment.train.updates + 1)
        update = next(n for n in steps if 0 in places_of(recipe, job, data, n)[1])
        footprints, sites = places_of(recipe, job, data, update)
        cells = " ".join(",".join(map(str, packed.footprints[i])) for i in footprints)
        assert (
            f"arm multiscale, fold {models.fold_name(job.fold)}, seed 0: the loss is not finite at "
            f"step {update} of 12, whose batch has sites {' '.join(f'probe-{i}' for i in sites)} "
            f"and footprints (row,column) {cells}"
        ) in said


def test_a_model_that_goes_on_from_good_progress_keeps_it_when_it_fails(tmp_path):
    """What was saved before the failure is not replaced by what cannot be used."""
    experiment, packed = experiment_of("train.learning_rate=1e6"), packed_of()
    job = ModelKey("insitu", 1, 0)
    orders = worker.TrainSpec(experiment, str(tmp_path), "", 12, None)
    begun = Trainer(experiment.recipe_sections, job, packed.data(job, 0.0, "cpu"), 12)
    begun.advance(1)
    progress = Path(models.model_folder(str(tmp_path), job)) / "progress.safetensors"
    files.write_bytes(str(progress), checkpoint.pack_safetensors(*begun.state()))
    worker.train_models(orders, [job], packed, "cpu")
    assert not files.exists(models.checkpoint_url(str(tmp_path), job))
    tensors, values = checkpoint.unpack_safetensors(progress.read_bytes())
    assert values["step"] in (1, 6, 11)
    assert all(torch.isfinite(value).all() for value in tensors.values())


def test_a_trained_model_leaves_nothing_of_writes_that_were_killed(tmp_path):
    experiment, packed, job = experiment_of(), packed_of(), ModelKey("insitu", 1, 0)
    folder = Path(models.model_folder(str(tmp_path), job))
    folder.mkdir(parents=True)
    for name in ("progress.safetensors", "checkpoint.safetensors", "history.parquet"):
        (folder / f"{name}.part-0123abcd").write_bytes(b"half of it")
    trained_in(tmp_path, experiment, packed, [job])
    assert {path.name for path in folder.iterdir()} == {"checkpoint.safetensors", "history.parquet"}


def test_a_model_that_predicts_nothing_is_not_kept(tmp_path):
    """Its last update is made, but its weights are of no use."""
    experiment, packed, job = experiment_of(), packed_of(), ModelKey("insitu", 1, 0)
    done = Trainer(experiment.recipe_sections, job, packed.data(job, 0.0, "cpu"), 12)
    done.advance(12)
    with torch.no_grad():
        done.network.output.weight.fill_(torch.nan)
    progress = f"{models.model_folder(str(tmp_path), job)}/progress.safetensors"
    files.write_bytes(progress, checkpoint.pack_safetensors(*done.state()))
    trained_in(tmp_path, experiment, packed, [job])
    assert not files.exists(models.checkpoint_url(str(tmp_path), job))
    assert "arm insitu, fold 1, seed 0: no finite prediction on 160 of 160 days" in told(tmp_path)


def test_every_stored_model_that_predicts_nothing_is_named(tmp_path):
    experiment = experiment_of("n_seeds=2")
    by = np.array([0, 0, 1, 1, 2, 2])
    for fold in range(3):
        for seed in range(2):
            member = tiny.trained(seed, likelihood=False)
            if (fold, seed) in ((0, 1), (2, 0)):
                with torch.no_grad():
                    member.network.output.bias.fill_(torch.inf)
            url = models.checkpoint_url(str(tmp_path), ModelKey("multiscale", fold, seed))
            files.write_bytes(url, checkpoint.model_to_bytes(member))
    places = tiny.places(6, 40)
    with pytest.raises(SoilweaveError) as caught:
        ensemble.predict_members(experiment, str(tmp_path), "multiscale", places, by)
    assert caught.value.problems == (
        "arm multiscale, fold 2, seed 0: no finite prediction on 80 of 80 days, at 2 of 2 places",
        "arm multiscale, fold 0, seed 1: no finite prediction on 80 of 80 days, at 2 of 2 places",
    )


class Lines(SilentProgress):
    """Keeps what a person would be told."""

    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)

    def finish(self, note):
        self.said.append(note)


def begun_on(world, folder, *settings):
    """An experiment on the small world's cube and folds, with nothing trained yet."""
    chosen = [f"cube={world.workspace.root}", "train.updates=20", *settings]
    workspace = Workspace(str(folder))
    for name in ("folds.parquet", "folds.geojson", "folds.manifest.json"):
        subprocess.run(["cp", f"{world.workspace.root}/{name}", str(folder)], check=True)
    return load.load_experiment(str(world.path), chosen), workspace


@pytest.mark.runs  # it takes a quarter of a minute
def test_a_run_whose_training_fails_names_every_model_and_what_to_do(world, tmp_path, local_ray):
    experiment, workspace = begun_on(
        world, tmp_path, "arms=[insitu]", "train.learning_rate=1e6", "train.weight_decay=1"
    )
    with pytest.raises(SoilweaveError) as caught:
        train.run(experiment, workspace, SilentProgress())
    problems = caught.value.problems
    assert [problem.partition(": the ")[0] for problem in problems] == [
        f"arm insitu, fold {fold}, seed 0" for fold in (0, 1, 2, "all")
    ]
    for problem in problems:
        assert "not finite at step" in problem
        assert "of 20, whose batch has sites snow-" in problem
    assert "lower train.learning_rate (1e+06)" in str(caught.value)
    assert workspace.artefact("models").manifest() is None
    assert not list(tmp_path.rglob("checkpoint*"))


@pytest.mark.usefixtures("trained_here")
def test_a_member_unlike_the_others_is_told_at_the_end_of_training(world, tmp_path):
    experiment, workspace = begun_on(world, tmp_path, "arms=[insitu]", "n_seeds=3")
    train.run(experiment, workspace, SilentProgress())
    manifest = tmp_path / "models" / "manifest.json"
    begun = {k: json.loads(manifest.read_text())[k] for k in ("inputs", "inputs_sha256", "begun")}
    manifest.unlink()  # as if it had not come to its end
    (tmp_path / "models" / "begun.json").write_text(json.dumps(begun))
    job = ModelKey("insitu", models.ALL_SITES, 1)
    odd = models.load_model(workspace.url("models"), job)
    with torch.no_grad():
        odd.network.output.bias[0] += 25.0
    files.write_bytes(
        models.checkpoint_url(workspace.url("models"), job), checkpoint.model_to_bytes(odd)
    )
    lines = Lines()
    train.run(experiment, workspace, lines)
    warned = [line for line in lines.said if "arm insitu, fold all, seed 1" in line]
    assert len(warned) == 1
    assert "its median absolute difference from their mean is more than 5 times theirs" in warned[0]
    told = [{"arm": "insitu", "fold": "all", "seed": 1}]
    assert workspace.artefact("models").manifest()["unlike_members"] == told
    alone = tables.read_members(workspace)["insitu"]
    assert alone.shape == (3, 24, 160)
    mean = tables.read_site_predictions(workspace, "prediction").values("insitu", "prediction")
    np.testing.assert_allclose(alone.mean(0), mean, rtol=1e-4, atol=1e-6)
    spread = evaluate.run(experiment, workspace, SilentProgress())["training_spread"]
    assert spread["n_members"] == 3
    assert spread["median_sd"]["insitu"]["rmse"] > 0
    assert spread["paired_sd"].keys() == {"insitu-ridge", "insitu-footprint"}
    report.run(experiment, workspace, SilentProgress())
    page = (tmp_path / "report.html").read_text()
    assert "arm insitu, fold all, seed 1" in page
    assert "Each arm is the mean of 3 members; ±" in page


def test_maps_flag_what_the_models_did_not_predict(world, tmp_path, local_ray):
    root = tmp_path / "others"
    subprocess.run(["cp", "-r", world.workspace.url("models"), str(root)], check=True)
    job = ModelKey("insitu", models.ALL_SITES, 0)
    lost = models.load_model(str(root), job)
    with torch.no_grad():
        lost.network.output.bias[0] = torch.nan
    url = models.checkpoint_url(str(root), job)
    files.write_bytes(url, checkpoint.model_to_bytes(lost))
    manifest = files.read_json(f"{root}/manifest.json")
    keys = [record["key"] for record in manifest["shards"]]
    manifest["shards"] = [artefacts.shard_record(str(root), key) for key in keys]
    files.write_json(f"{root}/manifest.json", manifest)
    settings = [f"models={root}", f"cube={world.workspace.root}", "arms=[insitu, satellite]"]
    workspace = Workspace(str(tmp_path / "mapped"))
    predict.run(load.load_experiment(str(world.path), settings), workspace, SilentProgress())
    mask = Cube.open(world.workspace.url("cube.zarr")).cells["mask"].values.astype(bool)
    period = slice(*map(str, world.experiment.period))
    for arm, expected in (("insitu", 32), ("satellite", 0)):
        mapped = xr.open_zarr(workspace.url(f"maps/{arm}.zarr")).sel(time=period)
        flags = mapped.quality_flag.values.astype(int)
        assert np.isnan(mapped.snow_depth.values[:, mask]).all() == (arm == "insitu")
        assert (flags[:, mask] & 32 == expected).all()
        assert (flags[:, ~mask] == 1).all()
        masks = dict(
            zip(
                mapped.quality_flag.attrs["flag_meanings"].split(),
                mapped.quality_flag.attrs["flag_masks"],
                strict=True,
            )
        )
        assert masks["not_predicted"] == 32
        assert "although the cell has inputs" in mapped.quality_flag.attrs["comment"]


# --- calibration


def heads_at(sites, days=60, seed=0):
    """A member whose site head is right and whose satellite head is not, and the observations."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(0.2, 0.4, (sites, 1))
    observed = (level + rng.normal(0, 0.02, (sites, days))).astype(np.float32)
    right = np.broadcast_to(level, observed.shape).copy()
    return tiny.prediction(right, right - 0.1, 0.02, level[:, 0], level[:, 0] - 0.1), observed


def test_a_site_without_a_prediction_does_not_decide_the_calibration(caplog):
    member, observed = heads_at(5)
    gone = replace(member, site=np.array(member.site))
    gone.site[4] = np.nan
    four = replace(gone, **{k: v[:4] for k, v in vars(gone).items()})
    expected = calibrate([four], ("site", "satellite"), observed[:4], np.ones(4, bool))
    assert expected.level_weight == 1.0
    assert calibrate([gone], ("site", "satellite"), observed, np.ones(5, bool)) == expected
    assert "1 of 5 sites" in caplog.text


def test_a_calibration_without_any_error_is_refused():
    member, observed = heads_at(3)
    gone = replace(member, site=np.full_like(member.site, np.nan))
    with pytest.raises(ValueError, match="none of 3 sites"):
        calibrate([gone], ("site", "satellite"), observed, np.ones(3, bool))


def test_infinite_inputs_are_as_good_as_missing_ones():
    """The network, the linear model and the attributes of places see the same for either."""
    from model.attribute_space import RunningSum
    from model.ensemble import predict_series

    with_inf, with_nan = tiny.places(4, 60, seed=3), tiny.places(4, 60, seed=3)
    with_inf.forcing[1, 20:25, 0] = torch.inf
    with_nan.forcing[1, 20:25, 0] = torch.nan
    with_inf.static[2, 0], with_nan.static[2, 0] = -torch.inf, torch.nan
    member = tiny.trained(linear_weight=0.5)
    for one, other in zip(
        vars(predict_series(member, with_inf)).values(),
        vars(predict_series(member, with_nan)).values(),
        strict=True,
    ):
        assert np.isfinite(other).all()
        np.testing.assert_array_equal(one, other)
    means = [RunningSum.from_array(places.forcing.numpy()).mean for places in (with_inf, with_nan)]
    np.testing.assert_array_equal(*means)
