"""A digest covers all that is read: a file revised in place gives another one, whichever it is."""

from __future__ import annotations

import os
import shutil

import fsspec
import miniatures_raster
import numpy as np
import pytest
import web
import xarray as xr
import yaml
from fsspec.implementations.memory import MemoryFileSystem
from miniatures_smap import L3, Seen

from pipeline.catalog import intake_catalog
from pipeline.errors import DataError
from pipeline.experiment import load
from pipeline.sources.gridded import GriddedSource
from pipeline.sources.gridzarr import GridZarrSource
from pipeline.sources.raster import RasterSource
from pipeline.sources.smap import SmapL3Source

DAYS = np.arange("2020-01-01", "2020-02-10", dtype="datetime64[D]")  # 40 files
MAPPING = {"air_temperature": {"from": "T", "units": "K"}}
PERIOD = {"period": "2020-01-01..2020-02-09"}
REVISED = "20200121"


def forcing(folder, value=280.0):
    """A file a day; the same bytes wherever and whenever they are written."""
    for day in DAYS:
        held = (("time", "lat", "lon"), np.full((1, 2, 2), value, "f4"), {"units": "K"})
        axes = {"time": [day.astype("datetime64[ns]")], "lat": [1.0, 2.0], "lon": [1.0, 2.0]}
        path = folder / str(day)[:7] / f"a{str(day).replace('-', '')}.nc"
        path.parent.mkdir(parents=True, exist_ok=True)
        xr.Dataset({"T": held}, axes).to_netcdf(path, engine="h5netcdf")
    return f"{folder}/%Y-%m/a%Y%m%d.nc"


def revise(path):
    """Change a byte in the middle of a file: its size and its time of change stay."""
    data, told = bytearray(path.read_bytes()), path.stat()
    data[len(data) // 2] ^= 255
    path.write_bytes(bytes(data))
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))


def revised(folder):
    return folder / "2020-01" / f"a{REVISED}.nc"


def test_a_day_among_many_local_files(tmp_path):
    source = GriddedSource(forcing(tmp_path / "a"), MAPPING, **PERIOD)
    before = source.digest()
    elsewhere = GriddedSource(forcing(tmp_path / "b"), MAPPING, **PERIOD)
    assert elsewhere.digest() == before
    revise(revised(tmp_path / "a"))
    assert source.digest() != before


@pytest.mark.parametrize("tagged", [False, True], ids=["without tags", "with tags"])
def test_a_day_among_many_files_of_an_http_server(tmp_path, tagged, monkeypatch):
    if tagged:  # as nearly all servers do
        end = web._Handler.end_headers

        def with_tag(handler):
            data = handler._content() or b""
            handler.send_header("ETag", f'"{hash(data):x}"')
            end(handler)

        monkeypatch.setattr(web._Handler, "end_headers", with_tag)
    pattern = forcing(tmp_path).removeprefix(str(tmp_path))
    with web.serve(tmp_path) as site:
        source = GriddedSource(site.url + pattern, MAPPING, **PERIOD)
        before = source.digest()
        if tagged:
            assert {method for method, *_ in site.asked} == {"HEAD"}
            assert len(site.asked) == len(DAYS)
        revise(revised(tmp_path))
        assert source.digest() != before


def test_a_store_that_lists_is_asked_once_for_each_folder(tmp_path, monkeypatch):
    forcing(tmp_path)
    store = fsspec.filesystem("memory")
    store.store.clear()
    for path in tmp_path.rglob("*.nc"):
        store.pipe_file(f"/forcing/{path.relative_to(tmp_path)}", path.read_bytes())
    asked = []

    def ls(self, path, **how):
        asked.append(path)
        entries = listed(self, path, **how)
        tagged = [e | {"ETag": str(hash(self.store[e["name"]].getvalue()))} for e in entries]
        return tagged if how.get("detail") else [e["name"] for e in entries]

    listed = MemoryFileSystem.ls
    monkeypatch.setattr(MemoryFileSystem, "ls", ls)
    source = GriddedSource("memory://forcing/%Y-%m/a%Y%m%d.nc", MAPPING, **PERIOD)
    before = source.digest()
    content = bytearray(store.cat_file(f"/forcing/2020-01/a{REVISED}.nc"))
    content[100] ^= 255
    store.pipe_file(f"/forcing/2020-01/a{REVISED}.nc", bytes(content))
    assert source.digest() != before
    assert len(asked) == 4  # two folders, twice


def test_days_that_may_be_missing_count_where_they_are_there(tmp_path):
    source = GriddedSource(forcing(tmp_path), MAPPING, gaps="allowed", **PERIOD)
    before = source.digest()
    revise(revised(tmp_path))
    after = source.digest()
    assert after != before
    revised(tmp_path).unlink()
    assert source.digest() not in (before, after)


def test_a_day_that_is_missing_is_named(tmp_path):
    source = GriddedSource(forcing(tmp_path), MAPPING, **PERIOD)
    revised(tmp_path).unlink()
    with pytest.raises(DataError, match="missing: 2020-01-21"):
        source.digest()


def test_days_and_tiles_of_rasters(tmp_path):
    for day in ("20200101", "20200102", "20200103"):
        values = np.full((4, 4), 1.0, "f4")
        miniatures_raster.write(tmp_path / f"a{day}.tif", values, "EPSG:4326", (0, 4), 1.0)
    mapping = {"ndvi": {"from": "1", "units": "1"}}
    told = {"period": "2020-01-01..2020-01-03"}
    source = RasterSource(str(tmp_path / "a%Y%m%d.tif"), mapping, metadata=told)
    before = source.digest()
    revise(tmp_path / "a20200102.tif")
    assert source.digest() != before
    for south, west in ((0, 0), (0, 1), (1, 0)):  # none at 1, 1: the sea
        path = tmp_path / f"N{south:02d}E{west:03d}.tif"
        miniatures_raster.write(path, values, "EPSG:4326", (west, south + 1), 0.25)
    source = RasterSource(
        str(tmp_path / "{ns}{lat:02d}{ew}{lon:03d}.tif"),
        mapping,
        resolution=0.5,
        tiles={"degrees": 1},
    )
    source.region = (0.1, 0.1, 1.9, 1.9)
    before = source.digest()
    for name in ("N00E001", "N01E000", "N00E000"):
        revise(tmp_path / f"{name}.tif")
        after = source.digest()
        assert after != before, name
        before = after


@pytest.mark.parametrize("listed", [True, False], ids=["with a star", "one by one"])
def test_granules_of_ones_own(tmp_path, listed):
    mapping = {"soil_moisture": {"from": "soil_moisture", "units": "cm**3/cm**3", "to": "m3 m-3"}}
    paths = [
        L3(day, [Seen(100, 240, 0.2, f"{day}T12:00:00.000Z")]).write(tmp_path)
        for day in ("2015-04-06", "2015-04-07", "2015-04-08")
    ]
    urls = f"{tmp_path}/*.h5" if listed else [str(path) for path in paths]
    source = SmapL3Source(mapping, urlpath=urls)
    before = source.digest()
    revise(paths[1])
    assert source.digest() != before


@pytest.mark.parametrize("version", [2, 3])
def test_a_chunk_of_a_zarr_store(tmp_path, version):
    axes = {"time": DAYS.astype("datetime64[ns]"), "lat": [1.0, 2.0], "lon": [1.0, 2.0]}
    held = (("time", "lat", "lon"), np.full((40, 2, 2), 280, "f4"), {"units": "K"})
    data = xr.Dataset({"T": held, "other": held}, axes)
    how = {"T": {"chunks": (10, 2, 2)}, "other": {"chunks": (10, 2, 2)}}
    data.to_zarr(tmp_path / "a.zarr", zarr_format=version, consolidated=False, encoding=how)
    source = GridZarrSource(str(tmp_path / "a.zarr"), MAPPING)
    before = source.digest()
    shutil.copytree(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert GridZarrSource(str(tmp_path / "b.zarr"), MAPPING).digest() == before
    chunk = {2: "2.0.0", 3: "c/2/0/0"}[version]
    revise(tmp_path / "a.zarr" / "other" / chunk)
    assert source.digest() == before  # nothing that is read
    revise(tmp_path / "a.zarr" / "T" / chunk)
    assert source.digest() != before


def test_a_folder_in_place_of_a_file_is_told(tmp_path):
    driver = f"{GriddedSource.__module__}.{GriddedSource.__name__}"
    said = dict.fromkeys(("license", "time_convention", "auth"), "none")
    said |= {"support": "cell", "period": PERIOD["period"]}
    args = {"urlpath": str(tmp_path), "mapping": MAPPING}
    entry = {"driver": driver, "args": args, "metadata": said}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"sources": {"a": entry}}))
    experiment = load.load_experiment("scan", [f"sources.catalog={tmp_path}/c.yaml"])
    with pytest.raises(DataError, match="entry a: urlpath is a folder; name a file in it"):
        intake_catalog.entry_digest(experiment, "a")
