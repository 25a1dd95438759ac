"""Files are opened once while a block is read, and never give values that they no longer have."""

import io

import numpy as np
import pytest
import xarray as xr

from pipeline.sources.gridded import GriddedSource
from pipeline.sources.shared import open_files


def write(path, value):
    values = np.full((3, 4, 5), value, np.float32)
    coords = {
        "time": np.arange("2016-01-01", "2016-01-04", dtype="datetime64[D]").astype(
            "datetime64[ns]"
        )
    }
    coords |= {"lat": np.arange(4.0), "lon": np.arange(5.0)}
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
    with open_files.keep_open(), open_files.keep_open():
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
        with pytest.raises(Exception, match="not found"):
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
