"""Files are opened once while a block is read, and never give values that they no longer have."""

import io

import numpy as np
import pandas as pd
import pytest
import small_demo
import xarray as xr

from pipeline import planet
from pipeline.errors import DataError
from pipeline.experiment import load
from pipeline.prepare import stage as prepare_stage
from pipeline.progress import SilentProgress
from pipeline.sources.gridded import GriddedSource
from pipeline.sources.shared import open_files
from pipeline.storage.artefacts import Workspace


def write(path, value):
    values = np.full((3, 4, 5), value, np.float32)
    days = pd.date_range("2016-01-01", periods=3)
    coords = {"time": days, "lat": np.arange(4.0), "lon": np.arange(5.0)}
    variables = {"P": (("time", "lat", "lon"), values, {"units": "percent"})}
    xr.Dataset(variables, coords).to_netcdf(path, engine="h5netcdf")


def source(path, **args):
    mapping = {"sand": {"from": "P", "units": "percent", **args}}
    return GriddedSource(urlpath=str(path), mapping=mapping)


@pytest.fixture
def opened(monkeypatch):
    """URLs in the order in which files were opened."""
    urls, open_netcdf = [], GriddedSource.open_netcdf

    def count(self, url, *args, **kwargs):
        urls.append(url)
        return open_netcdf(self, url, *args, **kwargs)

    monkeypatch.setattr(GriddedSource, "open_netcdf", count)
    return urls


def value(of, path):
    with of.open_part(str(path)) as dataset:
        return float(dataset["P"].values[1, 2, 3])


def test_a_file_is_opened_once_and_closed_at_the_end(tmp_path, opened):
    write(tmp_path / "a.nc", 40)
    grids = source(tmp_path / "a.nc")
    with open_files.keep_open():
        assert [value(grids, tmp_path / "a.nc") for _ in range(3)] == [40, 40, 40]
    assert len(opened) == 1
    assert value(grids, tmp_path / "a.nc") == 40
    assert len(opened) == 2


def test_a_file_that_was_written_again_is_read_again(tmp_path, opened):
    write(tmp_path / "a.nc", 40)
    first, other = (source(tmp_path / "a.nc") for _ in range(2))
    with open_files.keep_open():
        assert value(first, tmp_path / "a.nc") == value(other, tmp_path / "a.nc") == 40
        content = io.BytesIO()
        write(content, 70)
        (tmp_path / "a.nc").write_bytes(content.getvalue())  # in place
        assert value(first, tmp_path / "a.nc") == value(other, tmp_path / "a.nc") == 70
        (tmp_path / "b.nc").write_bytes(content.getvalue())
        write(tmp_path / "b.nc", 80)
        (tmp_path / "b.nc").replace(tmp_path / "a.nc")
        assert value(first, tmp_path / "a.nc") == 80
        (tmp_path / "a.nc").unlink()
        with pytest.raises(DataError, match="not found"):
            value(first, tmp_path / "a.nc")
    assert len(opened) == 6


def test_each_source_has_its_own_view_of_a_file(tmp_path):
    write(tmp_path / "a.nc", 40)
    plain, filled = source(tmp_path / "a.nc"), source(tmp_path / "a.nc", fill=[40])
    with open_files.keep_open():
        assert value(plain, tmp_path / "a.nc") == 40
        assert np.isnan(value(filled, tmp_path / "a.nc"))
        assert value(plain, tmp_path / "a.nc") == 40


def test_only_so_many_files_are_kept_open(tmp_path, opened, monkeypatch):
    monkeypatch.setattr(open_files, "MOST_OPEN", 2)
    paths = [tmp_path / f"{i}.nc" for i in range(3)]
    for i, path in enumerate(paths):
        write(path, i)
    grids = source(paths[0])
    with open_files.keep_open():
        assert [value(grids, path) for path in [*paths, paths[2], paths[0]]] == [0, 1, 2, 2, 0]
    assert [url[-4] for url in opened] == ["0", "1", "2", "0"]


def test_prepare_opens_a_file_once_for_a_block(tmp_path, opened, prepared_here):
    period = "[2016-03-01, 2016-05-10]"  # 3 blocks
    periods = [f"{name}={period}" for name in ("period", "train_period", "test_period")]
    experiment = load.load_experiment("demo", [*small_demo.SETTINGS, *periods])
    workspace = Workspace(str(tmp_path / "demo"))
    planet.run(experiment, workspace, SilentProgress())
    prepare_stage.run(workspace.place(experiment), workspace, SilentProgress())
    workspace.lease.release()
    forcing = [url for url in opened if "forcing_" in url]
    assert 3 <= len(forcing) <= 5  # the stage itself looks at the file too
