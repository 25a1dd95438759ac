"""A small planet with its cube and folds, which sections that need the pipeline share."""

from __future__ import annotations

from pipeline.experiment import load
from pipeline.planet import stage as planet_stage
from pipeline.prepare import folds
from pipeline.prepare import stage as prepare_stage
from pipeline.progress import SilentProgress
from pipeline.storage.artefacts import Workspace

# A fraction of the demo: its work is small beside what a stage costs anyhow.
TINY = (
    *(f"{key}=[2016-01-01, 2016-12-31]" for key in ("period", "train_period", "test_period")),
    "domain.east_degrees=-102.0",
    "domain.south_degrees=39.0",
    "planet.n_sites=12",
    "judging.min_days=40",
)


def prepared(folder, name, settings):
    """An experiment and its workspace, planet, cube and folds made; Ray is connected."""
    workspace = Workspace(str(folder / name))
    experiment = workspace.place(load.load_experiment("demo", settings, name))
    for stage in (planet_stage, prepare_stage, folds):
        stage.run(experiment, workspace, SilentProgress())
    workspace.lease.release()
    return experiment, workspace


def variant(folder, name, settings, cube):
    """Another experiment on a cube that is there; its folds are dealt."""
    workspace = Workspace(str(folder / name))
    settings = [*settings, f"cube={cube.url('cube.zarr')}"]
    experiment = workspace.place(load.load_experiment("demo", settings, name))
    folds.run(experiment, workspace, SilentProgress())
    return experiment, workspace
