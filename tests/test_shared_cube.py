"""An experiment that names another's cube: nothing is prepared, everything else is its own."""

import pytest

from pipeline import files, folds, prepare, resolve, tables
from pipeline.cube import Cube
from pipeline.errors import StoreError
from pipeline.progress import Silent
from pipeline.store import Workspace


class Told(Silent):
    """Keeps what is told at the end of a stage."""

    def __init__(self):
        self.said = []

    def finish(self, outcome):
        self.said.append(outcome)


def test_a_variant_prepares_nothing_and_is_made_from_the_cube_it_names(world, variant):
    experiment, workspace = variant.experiment, variant.workspace
    told = Told()
    prepare.run(experiment, workspace, told)
    theirs = world.workspace.artefact("cube").manifest()
    assert told.said == [f"nothing: {world.workspace.url('cube.zarr')} is used"]
    assert not files.exists(workspace.url("cube.zarr"))
    for name in ("folds", "models", "maps", "scores"):
        made = workspace.artefact(name).manifest()
        assert made["inputs"]["cube"] == theirs["inputs_sha256"]
    # Beside the cube all is the variant's own: other models, predictions and scores.
    assert tables.read(workspace.url("folds.parquet")).equals(
        tables.read(world.workspace.url("folds.parquet"))
    )
    assert variant.summary["arms"].keys() == {"insitu"}
    assert variant.summary["n_sites"] == 24
    assert Cube.source(experiment, workspace) == Cube.source(world.experiment, world.workspace)


def test_the_folder_of_an_experiment_names_its_cube(world, tmp_path):
    folder = world.workspace.root
    for url in (folder, f"{folder}/", f"{folder}/cube.zarr", f"{folder}/cube.zarr/"):
        experiment = world.experiment.model_copy(update={"cube": url})
        found, _ = Cube.source(experiment, Workspace(str(tmp_path / "mine")))
        assert found == world.workspace.url("cube.zarr")


def test_a_cube_of_other_settings_is_refused_with_all_that_differ(world, tmp_path):
    url = world.workspace.root
    settings = [f"cube={url}", "qc.min_days=50", "domain.refinement=2", "target=snow_depth"]
    other = resolve.experiment(str(world.path), settings)
    with pytest.raises(StoreError) as caught:
        folds.run(other, Workspace(str(tmp_path / "mine")), Silent())
    said = str(caught.value)
    assert "domain.refinement 4 -> 2, qc.min_days 0 -> 50" in said
    assert f"{url}/cube.zarr" in said
    assert "leave cube out and prepare another" in said
    assert not (tmp_path / "mine").exists()


def test_a_cube_that_is_absent_is_one_error(world, tmp_path):
    experiment = world.experiment.model_copy(update={"cube": str(tmp_path / "nowhere")})
    with pytest.raises(StoreError, match=r"nowhere/cube.zarr: no complete cube here"):
        prepare.run(experiment, Workspace(str(tmp_path / "mine")), Silent())
