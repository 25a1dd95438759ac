"""A small planet with its cube and folds, which sections that need the pipeline share."""

from __future__ import annotations

from pipeline import folds, planet, prepare, resolve
from pipeline.progress import Silent
from pipeline.store import Workspace

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
    experiment = workspace.place(resolve.experiment("demo", settings, name))
    for stage in (planet, prepare, folds):
        stage.run(experiment, workspace, Silent())
    workspace.lease.release()
    return experiment, workspace


def variant(folder, name, settings, cube):
    """Another experiment on a cube that is there; its folds are dealt."""
    workspace = Workspace(str(folder / name))
    settings = [*settings, f"cube={cube.url('cube.zarr')}"]
    experiment = workspace.place(resolve.experiment("demo", settings, name))
    folds.run(experiment, workspace, Silent())
    return experiment, workspace
