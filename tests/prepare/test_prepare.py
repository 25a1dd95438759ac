"""The cube: the same answer as plain xarray, whatever was interrupted, and no half of one."""

from pathlib import Path

import numpy as np
import pytest
import world as world_module
import xarray as xr

from pipeline import evaluate, prepare
from pipeline.catalog import experiment_sources, intake_catalog
from pipeline.errors import DataError, SoilweaveError, StoreError
from pipeline.experiment import load
from pipeline.prepare import block_task, folds
from pipeline.prepare import stage as prepare_stage
from pipeline.progress import SilentProgress
from pipeline.storage import schema, zarr_arrays
from pipeline.storage.artefacts import Workspace
from pipeline.storage.cube import Cube
from pipeline.train import stage as train_stage

WINDOW = world_module.WINDOW
SHORT = ["2019-12-05", "2020-02-20"]  # inside the sources' days, and inside blocks
NAMES = {"snowfall": "SNOWF", "air_temperature": "T2C", "elevation": "ELEV"}


def mtimes(folder):
    """When each file under a folder was written, to the nanosecond."""
    return {p: p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}


def read(path):
    with xr.open_dataset(path, engine="h5netcdf") as dataset:
        return dataset.load()


def at(dataset, lat, lon):
    """Row and column of the centres nearest to the places of a file."""
    row = np.abs(lat[:, None] - dataset.lat.values).argmin(0)
    return row, np.abs(lon[:, None] - dataset.lon.values).argmin(0)


def on_axis(array, period, days):
    """A file's variable, (time, place), on the days of the cube; NaN outside the period."""
    inside = array.transpose("time", ...).sel(time=slice(*period))
    return inside.reindex(time=days).values


def plain(folder, period):
    """The arrays a cube should hold, straight from the files: {path: values}."""
    days = schema.time_axis(period).astype("datetime64[D]").astype("datetime64[ns]")
    period = [str(day) for day in period]
    cells, footprints, sites = (read(folder / f"{n}.nc") for n in ("cells", "footprints", "sites"))
    cells = cells.assign(SNOWF=cells.SNOWF * 24.0, T2C=cells.T2C + 273.15)
    at_cell = at(cells, WINDOW.cell_lat, WINDOW.cell_lon)
    at_site = at(sites, WINDOW.cell_lat, WINDOW.cell_lon)
    made = {}
    for name, provider in NAMES.items():
        values = cells[provider]
        values = on_axis(values, period, days) if "time" in values.dims else values.values
        field = np.full((*values.shape[:-1], *WINDOW.cell_shape), np.nan)
        field[..., at_cell[0], at_cell[1]] = values
        made[f"cells/{name}"], made[f"sites/{name}"] = field, field[..., at_site[0], at_site[1]]
    made["cells/mask"] = np.isfinite(made["cells/elevation"])
    field = np.full((len(days), *WINDOW.footprint_shape), np.nan)
    row, col = at(footprints, WINDOW.footprint_lat, WINDOW.footprint_lon)
    field[:, row, col] = on_axis(footprints.SD, period, days)
    made["footprints/snow_depth"] = field
    good = sites.HS.where(sites.qc == 0)
    made["sites/snow_depth"] = on_axis(good, period, days)
    return made


def compare(url, expected, chosen=slice(None)):
    for path, values in expected.items():
        group, name = path.split("/")
        found = zarr_arrays.open_group(url, group)[name].values
        wanted = values[..., chosen] if group == "sites" else values
        np.testing.assert_allclose(found, wanted, rtol=1e-6, err_msg=path)


def test_the_cube_is_the_plain_answer(world):
    url = world.workspace.url("cube.zarr")
    expected = plain(world.folder, world.experiment.period)
    compare(url, expected)
    sites = read(world.folder / "sites.nc")
    doubtful = int(((sites.qc == 1) & sites.HS.notnull()).sum())
    manifest = world.workspace.artefact("cube").manifest()
    assert sum(manifest["nodes"].values()) == 5  # a task for each block of 32 days
    dropped = manifest["dropped"]
    assert {rule: n for rule, n in dropped.items() if n} == {"insitu: provider: doubtful": doubtful}
    days = zarr_arrays.open_group(url, "cells").time.values.astype("datetime64[D]").astype(int)
    first, last = map(schema.epoch_day, world.experiment.period)
    assert (days[0], days[-1], len(days)) == (first, last, 160)
    assert (np.diff(days) == 1).all()


def test_footprints_are_ragged_and_the_emptiest_have_none(world):
    cells, footprints, members = Cube.open(world.workspace.url("cube.zarr")).membership()
    sizes = world_module._land().reshape(3, 4, 4, 4).sum((1, 3))
    assert {int(n) for n in sizes.ravel()} == {0, 7, 12, 15, 16}
    np.testing.assert_array_equal(footprints, np.argwhere(sizes >= 8))
    np.testing.assert_array_equal((members >= 0).sum(1), sizes[sizes >= 8])
    for (fy, fx), inside in zip(footprints, members, strict=True):
        np.testing.assert_array_equal(cells[inside[inside >= 0]] // 4 - [fy, fx], 0)


def test_an_interrupted_run_goes_on_and_keeps_what_was_done(snow, tmp_path, local_ray):
    settings = [f"{key}={SHORT}" for key in ("period", "train_period", "test_period")]
    settings += ["qc.exclude_sites=[snow-05]", "qc.stuck_days=null"]
    experiment = load.load_experiment(str(snow), settings)
    workspace = Workspace(str(tmp_path / "mine"))
    artefact, url = workspace.artefact("cube"), workspace.url("cube.zarr")
    digests = {
        f"source {e}": intake_catalog.entry_digest(experiment, e)
        for e in intake_catalog.cube_entries(experiment)
    }
    artefact.begin(schema.identity(experiment, "cube", **digests))
    zarr_arrays.create_group(
        url, *prepare_stage._cube_template(experiment, experiment_sources.open_sources(experiment))
    )
    blocks = list(schema.block_range(experiment.period))
    done = [blocks[2], blocks[0]]  # any of them, in any order
    for number in done:
        block_task.write_block({"block": number}, experiment.model_dump_json(), url)
    before = {p: t for p, t in mtimes(tmp_path / "mine").items() if "/c/" in str(p)}
    assert before
    assert len(blocks) == 3
    prepare.run(experiment, workspace, SilentProgress())
    after = mtimes(tmp_path / "mine")
    assert before.items() <= after.items()
    assert artefact.manifest()["complete_through"] == SHORT[1]
    chosen = np.arange(world_module.N_SITES) != 5
    compare(url, plain(snow.parent, experiment.period), chosen)
    assert zarr_arrays.read_attributes(url, "sites")["id"] == [
        f"snow-{i:02d}" for i in np.flatnonzero(chosen)
    ]
    prepare.run(experiment, workspace, SilentProgress())
    assert mtimes(tmp_path / "mine") == after


def test_a_second_run_of_every_stage_touches_no_file(world):
    before = mtimes(Path(world.workspace.root))
    assert before
    for stage in (prepare_stage, folds, train_stage):
        stage.run(world.experiment, world.workspace, SilentProgress())
    assert evaluate.run(world.experiment, world.workspace, SilentProgress()) == world.summary
    assert mtimes(Path(world.workspace.root)) == before


def spoil(path, file, change):
    """Rewrite one of a small world's files; returns its experiment and a new workspace."""
    change(spoilt := read(path.parent / file))
    spoilt.to_netcdf(path.parent / file, engine="h5netcdf")
    return load.load_experiment(str(path)), Workspace(str(path.parent / "workspace"))


def refused(experiment, workspace):
    """The error of prepare, after which no cube may be there."""
    with pytest.raises(DataError) as caught:
        prepare.run(experiment, workspace, SilentProgress())
    assert workspace.artefact("cube").state() == "absent"
    assert not (Path(workspace.root) / "cube.zarr").exists()
    return str(caught.value)


def test_sites_in_no_cell_with_data_are_left_out_counted_and_told(snow, local_ray):
    def move(sites):
        sites.lat.values[3] += 10  # out of the domain
        sites.lat.values[7], sites.lon.values[7] = WINDOW.cell_lat[0], WINDOW.cell_lon[0]  # sea

    told = []
    progress = SilentProgress()
    progress.note = told.append
    experiment, workspace = spoil(snow, "sites.nc", move)
    prepare.run(experiment, workspace, progress)
    assert told == ["sites not used, their cells have no data: snow-07"]
    good = read(snow.parent / "sites.nc")
    days = (good.HS.where(good.qc == 0).notnull()).sum("time").values
    dropped = workspace.artefact("cube").manifest()["dropped"]
    assert dropped["insitu: outside the domain"] == days[3]
    assert dropped["insitu: no cell with data"] == days[7]
    url = workspace.url("cube.zarr")
    ids = zarr_arrays.read_attributes(url, "sites")["id"]
    assert "snow-03" not in ids
    depth = zarr_arrays.open_group(url, "sites")["snow_depth"]
    assert depth[:, ids.index("snow-07")].isnull().all()
    assert depth[:, ids.index("snow-04")].notnull().any()


def test_no_site_in_a_cell_with_data_is_refused(snow, local_ray):
    def drown(sites):
        seas = np.array([(0, 0), (1, 4), (4, 0)])  # in three footprints, for three folds
        y, x = np.resize(seas, (sites.sizes["station"], 2)).T
        sites.lat.values[:], sites.lon.values[:] = WINDOW.cell_lat[y], WINDOW.cell_lon[x]

    text = refused(*spoil(snow, "sites.nc", drown))
    assert "none of its 24 sites is in a cell with data" in text


def test_forcing_out_of_range_is_refused_with_value_and_range_and_no_cube_is_left(snow, local_ray):
    def heat(cells):
        cells.T2C.values[11, 100] = 999.0

    text = refused(*spoil(snow, "cells.nc", heat))
    assert "catalog entry cells: air_temperature 1272.15 is outside [180.0, 340.0] K" in text
    assert "\n" not in text


def test_own_inputs_that_the_file_lacks_are_listed(snow):
    experiment = load.load_experiment(str(snow), ["inputs_from=own"])
    text = refused(experiment, Workspace(str(snow.parent / "workspace")))
    for name in NAMES:
        assert f"inputs_from is own, but {name} is not in the file" in text


def test_a_domain_or_a_grid_that_does_not_fit_the_source_is_refused(snow):
    workspace = Workspace(str(snow.parent / "workspace"))
    coarse = load.load_experiment(str(snow), ["domain.refinement=2"])
    assert "contain more than one of its places" in refused(coarse, workspace)
    box = ["domain.west_degrees=10", "domain.east_degrees=20"]
    assert "is in the domain" in refused(load.load_experiment(str(snow), box), workspace)


def test_sites_of_one_id_are_refused(snow):
    def double(sites):
        sites["station"] = [*sites.station.values[:-1], "snow-04"]

    assert "snow-04" in refused(*spoil(snow, "sites.nc", double))


def test_a_box_from_east_to_west_is_refused(snow):
    with pytest.raises(SoilweaveError, match="west"):
        experiment_sources.open_sources(
            load.load_experiment(str(snow), ["domain.west_degrees=100"])
        )


@pytest.mark.parametrize(
    ("old", "new"),
    [("from: SNOWF", "form: SNOWF"), ("place: cell", "plase: cell"), ("PointsSource", "Points")],
)
def test_an_entry_that_cannot_be_read_is_refused_by_name(snow, old, new):
    file = snow.parent / "catalog.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(SoilweaveError, match="cells"):
        intake_catalog.open_source(load.load_experiment(str(snow)), "cells")


def test_a_workspace_that_cannot_be_written_is_one_clear_line(world, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError) as caught:
        prepare.run(world.experiment, Workspace(str(tmp_path / "file" / "mine")), SilentProgress())
    assert str(tmp_path / "file") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_written_is_told_and_can_be_gone_on_with(snow, tmp_path, local_ray):
    experiment, workspace = load.load_experiment(str(snow)), Workspace(str(tmp_path / "w"))
    digests = {
        f"source {e}": intake_catalog.entry_digest(experiment, e)
        for e in intake_catalog.cube_entries(experiment)
    }
    workspace.artefact("cube").begin(schema.identity(experiment, "cube", **digests))
    obstacle = Path(workspace.url("cube.zarr", "cells", "snowfall", "c"))
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("a file where shards should go")
    with pytest.raises(StoreError, match="snowfall: cannot be written"):
        prepare.run(experiment, workspace, SilentProgress())
    assert workspace.artefact("cube").state() == "begun, not complete"
    obstacle.unlink()
    prepare.run(experiment, workspace, SilentProgress())
    assert workspace.artefact("cube").state().startswith("complete")


def test_sites_that_cannot_be_held_out_are_told_before_anything_is_written(snow, tmp_path):
    experiment = load.load_experiment(str(snow), ["folds.block_km=20000"])
    workspace = Workspace(str(tmp_path / "ws" / "snow"))
    said = r"all sites in one block, expected .* --set folds.kind=random"
    with workspace.lease.given_back(), pytest.raises(SoilweaveError, match=said):
        prepare_stage.run(experiment, workspace, SilentProgress())
    assert not (tmp_path / "ws" / "snow" / "cube.zarr").exists()
