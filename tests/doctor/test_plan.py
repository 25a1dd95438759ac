"""The plan: what it counts is what a run then makes, and nothing is read for it."""

import pytest
import yaml

from model import device
from pipeline.cluster import ray_cluster
from pipeline.doctor import plan
from pipeline.doctor.plan import Pace
from pipeline.experiment import load
from pipeline.predict import stage as predict_stage
from pipeline.predict import tile_task
from pipeline.prepare import stage as prepare_stage
from pipeline.progress import SilentProgress
from pipeline.storage import models
from pipeline.storage.artefacts import Workspace

FIXED = Pace("a machine", 0.5, 1000.0, 2, 10.0, 1.0)


def counted(workspace, name):
    manifest = workspace.artefact(name).manifest()
    return manifest["shards"], manifest["empty"]


def test_shards_and_models_are_those_that_a_run_makes(world):
    experiment = world.experiment
    lines = plan.estimate_work(experiment, plan.experiment_sizes(experiment), FIXED)
    prepare, train, predict, evaluate = lines
    assert evaluate.stage == "evaluate"
    made = [record["key"] for record in counted(world.workspace, "cube")[0]]
    made += counted(world.workspace, "cube")[1]
    cells = [key for key in made if key.startswith("cells/") and "/mask/" not in key]
    assert prepare.objects == len(cells)
    n_models = len(models.list_models(experiment, range(3)))
    assert train.tasks == f"{n_models} models x 60 updates"
    assert train.hours == pytest.approx(n_models * 60 * 0.5 / 2 / 3600)
    shards, empty = counted(world.workspace, "maps")
    keys = [record["key"] for record in shards] + empty
    mapped = ("snow_depth/c/", "snow_depth_std/c/", "quality_flag/c/")
    fields = [key for key in keys if any(part in key for part in mapped)]
    assert predict.objects == len(fields)
    n = experiment.period[1] - experiment.period[0]
    assert predict.hours == pytest.approx(3 * 192 * 2 * (n.days + 1) / 1000 / 2 / 3600)


class Declared(Exception):
    """Carries the memory that a stage declares for its tasks."""


def test_stages_declare_to_ray_the_memory_that_plan_tells(world, tmp_path, monkeypatch):
    def run_tasks(items, function, receipts=None, *, memory, **options):
        raise Declared(memory)

    monkeypatch.setattr(ray_cluster, "run_tasks", run_tasks)
    experiment = world.experiment
    prepare, _, predict, _ = plan.estimate_work(
        experiment, plan.experiment_sizes(experiment), FIXED
    )
    with pytest.raises(Declared) as declared:
        prepare_stage.run(experiment, Workspace(str(tmp_path / "prepare")), SilentProgress())
    assert declared.value.args == (prepare.memory.worker * 1e6,)
    urls = [world.workspace.url(name) for name in ("cube.zarr", "models")]
    spec = tile_task.MapSpec(experiment.model_dump_json(), str(tmp_path / "predict"), *urls)
    with pytest.raises(Declared) as declared:
        [*predict_stage.map_tiles(spec, predict_stage.all_tiles(experiment), 6, SilentProgress())]
    assert declared.value.args == (predict.memory.worker * 1e6,)


def test_the_published_length_follows_from_its_rule(world):
    train = world.experiment.train.model_copy(update={"updates": None, "epochs": 40})
    experiment = world.experiment.model_copy(update={"train": train})
    # ln(0.01) / ln(1 - 4 x 60 / (12 x 160)), 12 footprints and 160 days
    assert plan.updates_per_model(experiment, plan.experiment_sizes(experiment)) == 40 * 35


def test_nothing_is_read_and_what_is_not_said_is_asked_for(snow):
    for file in snow.parent.glob("*.nc"):
        file.unlink()
    catalog = snow.parent / "catalog.yaml"
    tree = yaml.safe_load(catalog.read_text())
    tree["sources"]["cells"]["metadata"]["volume"] = {
        "days": 30,
        "per": "all",
        "megabytes": 400,
        "basis": "published",
    }
    catalog.write_text(yaml.safe_dump(tree))
    sources, stages, basis = plan.plan_tables(load.load_experiment(str(snow)))
    rows = list(zip(*(column._cells for column in sources.columns), strict=True))
    assert rows[0] == ("cells", "6", "2.4 GB", "1", "published", "none")
    assert rows[1] == ("footprints", "?", "?", "1", "not stated", "none")
    assert len(stages.rows) == 4
    assert "12 x 16 cells, 160 days, 2 forcings, 1 statics" in basis


def test_the_pace_is_in_proportion_to_a_step(world):
    twice = world.experiment.train.model_copy(
        update={"footprints_per_step": 8, "sites_per_step": 16}
    )
    one = plan.measure_pace(world.experiment, 5)
    two = plan.measure_pace(world.experiment.model_copy(update={"train": twice}), 5)
    assert one.step_s > 0
    assert one.cell_days_per_s > 0
    assert two.step_mb == pytest.approx(2 * one.step_mb)


def longer(experiment, years):
    period = (experiment.period[0], experiment.period[0].replace(year=2017 + years))
    keys = ("period", "train_period", "test_period")
    return experiment.model_copy(update=dict.fromkeys(keys, period))


def test_no_promise_but_that_of_training_data_grows_with_the_years():
    two, four = (longer(load.load_experiment("load"), years) for years in (2, 4))
    first, second = (
        {w.stage: w.memory for w in plan.estimate_work(e, plan.experiment_sizes(e), FIXED)}
        for e in (two, four)
    )
    for stage in ("prepare", "train", "predict"):
        assert second[stage].worker == pytest.approx(first[stage].worker, rel=0.1)
    for stage in ("predict", "evaluate"):
        assert second[stage].driver == pytest.approx(first[stage].driver, rel=0.1)
    for stage in ("planet", "prepare"):  # a planet keeps the footprints of all days
        assert second[stage].driver == pytest.approx(first[stage].driver, rel=0.15)
    more = second["train"].driver - first["train"].driver
    assert more == pytest.approx((284 * 628 * 6 * 2 + 71 * 157 * 3 * 4) * 731 / 1e6, rel=0.01)


def test_training_data_that_do_not_fit_are_told_and_what_to_set():
    experiment = load.load_experiment("load")
    sizes = plan.experiment_sizes(experiment)
    assert plan._advise_on_memory(experiment, sizes, 16_000.0) == ""
    told = plan._advise_on_memory(experiment, sizes, 2_000.0)  # 600 of 1569 MB
    n = int(told.split("train.max_footprints=")[1].split(",")[0])
    assert n == pytest.approx(71 * 157 * 600 / 1569, rel=0.01)
    fewer = experiment.train.model_copy(update={"max_footprints": n})
    experiment = experiment.model_copy(update={"train": fewer})
    assert plan._advise_on_memory(experiment, sizes, 2_000.0) == ""
    assert plan.training_data_mb(experiment, sizes) == pytest.approx(600, rel=0.01)


def test_declared_resources_are_planned_with():
    """Also where this machine has other ones."""
    experiment = load.load_experiment("load", ["compute.workers=7"])
    assert plan._count_workers(experiment.compute, gpus_here=0) == 7
    assert plan._count_workers(experiment.compute, gpus_here=2) == 2
    declared = load.load_experiment("load", ["compute.gpus=3", "compute.memory=0.7"])
    assert plan._count_workers(declared.compute, gpus_here=0) == 3
    sizes = plan.experiment_sizes(declared)
    stages = plan.estimate_work(declared, sizes, FIXED)
    on_cpu = FIXED._replace(device="1 thread(s) a worker")
    told = plan._advise_on_declared(declared, on_cpu, stages)
    assert "This machine has no GPU: hours are those of 3 CPU workers." in told
    for stage in ("prepare", "train", "predict"):
        assert f"compute.memory reserves 0.7 GB for a worker, but one of {stage} may take" in told
    enough = load.load_experiment("load", ["compute.memory=1000"])
    assert plan._advise_on_declared(enough, on_cpu, stages) == ""


def test_a_device_without_an_lstm_in_bf16_is_said_to_be_timed_in_fp32(snow, monkeypatch):
    monkeypatch.setattr(device, "_lstm_runs_in_bf16", lambda _: False)
    said = [
        plan.measure_pace(load.load_experiment(str(snow), [f"train.precision={kind}"]), 5).device
        for kind in ("bf16", "fp32")
    ]
    assert ["in fp32, as it has no LSTM in bf16" in text for text in said] == [True, False]
