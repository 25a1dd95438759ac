"""Round the Earth: a strip of the M36 grid with oceans, continents held out, in every stage."""

import json
from pathlib import Path

import numpy as np
import pytest

from model.recipe import ModelKey
from pipeline.evaluate import stage as evaluate_stage
from pipeline.evaluate.report import page
from pipeline.experiment import load, regions
from pipeline.grid import ease
from pipeline.planet import stage as planet_stage
from pipeline.predict import stage as predict_stage
from pipeline.prepare import folds
from pipeline.prepare import stage as prepare_stage
from pipeline.progress import SilentProgress
from pipeline.storage import models, tables, zarr_arrays
from pipeline.storage.artefacts import Workspace
from pipeline.storage.cube import Cube
from pipeline.train import stage as train_stage

pytestmark = pytest.mark.runs
PERIOD = "[2018-06-01, 2018-07-29]"

SETTINGS = (
    "domain.south_degrees=60.0",
    "domain.north_degrees=61.0",  # 3 rows
    *(f"{key}={PERIOD}" for key in ("period", "train_period", "test_period")),
    "planet.n_sites=40",
    "planet.forcing_degrees=1.0",
    "folds.kind=region",
    "folds.by=continent",
    "network.hidden_size=4",
    "train.updates=2",
    "train.window_days=20",
    "train.warmup_days=5",
    "judging.min_days=20",
)

EMPTY = slice(512, 768)  # the column of cells that lies in the ocean


@pytest.fixture(scope="module")
def globe(tmp_path_factory, local_ray):
    workspace = Workspace(str(tmp_path_factory.mktemp("workspace") / "load-globe"))
    experiment = workspace.place(load.load_experiment("load-globe", list(SETTINGS)))
    for stage in (
        planet_stage,
        prepare_stage,
        folds,
        train_stage,
        predict_stage,
        evaluate_stage,
        page,
    ):
        stage.run(experiment, workspace, SilentProgress())
    workspace.lease.release()
    return experiment, workspace, Cube.open(workspace.url("cube.zarr"))


def test_the_whole_grid_is_a_window():
    box = load.load_experiment("load-globe").domain
    edges = (box.west_degrees, box.south_degrees, box.east_degrees, box.north_degrees)
    window = ease.Window.from_bbox(*edges, box.refinement)
    assert (window.row, window.col, *window.cell_shape) == (0, 0, 406, 964)
    assert window.cell_lat[0] == pytest.approx(83.63197, abs=1e-4)
    assert window.cell_lat[0] == pytest.approx(-window.cell_lat[-1])
    assert window.cells_of([84.9, 0, 0], [0, 180, 179.99])[0].min() >= 0
    assert window.cells_of(0, [180, -180, 179.99])[1].tolist() == [0, 0, 963]


def test_cells_on_both_sides_of_the_antimeridian_have_their_own_forcing(globe):
    _, _, cube = globe
    lon = cube.cells["lon"].values
    assert lon[0] == pytest.approx(-lon[-1])
    pressure = cube.series(cube.cells, "surface_pressure").mean((0, 1))
    assert np.isfinite(pressure).all()
    # From the high west to the low east: what is shown near 180 W must not be that of 180 E.
    assert pressure[:40].mean() < pressure[-40:].mean() - 5_000


def test_a_column_in_the_ocean_is_legally_empty(globe):
    _, workspace, cube = globe
    mask = cube.cells["mask"].values.astype(bool)
    assert not mask[:, EMPTY].any()
    assert mask[:, :256].any()
    assert mask[:, -3:].any()
    manifest = workspace.artefact("maps").manifest()
    columns = {
        record["key"].split("/c/")[1].rsplit("/", 1)[1]
        for record in manifest["shards"]
        if "/soil_moisture/c/" in record["key"] and "series" not in record["key"]
    }
    assert columns == {"0", "1", "3"}
    mapped = zarr_arrays.open_group(workspace.url("maps", "multiscale.zarr"), "")
    days = slice("2018-06-01", "2018-07-29")
    known = np.isfinite(mapped["soil_moisture"].sel(time=days).values)
    assert (known == mask).all()
    assert np.isfinite(mapped["probe_gain"].values[mask]).all()


def test_sites_and_footprints_lie_on_land(globe):
    _, workspace, cube = globe
    mask = cube.cells["mask"].values.astype(bool)
    assert mask[cube.sites["y"].values, cube.sites["x"].values].all()
    seen = np.isfinite(cube.series(cube.footprints, cube.target)).any(0)
    assert seen[mask].mean() > 0.5
    assert not seen[~mask].any()
    cells, footprints, members = cube.membership()
    assert (cells == footprints).all()
    assert members.ravel().tolist() == [*range(len(cells))]
    summary = json.loads(Path(workspace.url("summary.json")).read_text())
    assert summary["truth"]["cells_away_from_sites"] < mask.sum()
    assert "Map of" in Path(workspace.url("report.html")).read_text()


def test_a_continent_is_judged_by_models_without_its_sites_and_mapped_by_one_with_all(globe):
    _, workspace, _ = globe
    table = tables.read_table(workspace.url("folds.parquet"))
    names = workspace.artefact("folds").manifest()["regions"]
    where = regions.regions_from_polygons(
        table.lat.to_numpy(), table.lon.to_numpy(), regions.continents_path()
    )
    assert [names[fold] for fold in table.fold] == where
    assert {"Asia", "Europe", "North America"} <= {*names}
    judged = tables.read_table(workspace.url("sites.parquet")).query("arm == 'multiscale'")
    root = workspace.url("models")
    learnable = table.site.isin(judged.dropna(subset="observation").site)
    assert learnable.sum() > 30
    for fold in range(len(names)):
        model = models.load_model(root, ModelKey("multiscale", fold, 0))
        others = table.site[learnable & (table.fold != fold)].tolist()
        assert model.origin["training_sites"] == others
        held = judged[judged.site.isin(table.site[table.fold == fold])]
        assert (held.status == "out_of_fold").all()
        assert held.prediction.notna().any()
    whole = models.load_model(root, ModelKey("multiscale", -1, 0))
    assert whole.origin["training_sites"] == table.site[learnable].tolist()
    strata = json.loads(Path(workspace.url("summary.json")).read_text())["strata"]
    assert {*strata["continent"]} <= {*names}
    assert len(strata["continent"]) > 1
