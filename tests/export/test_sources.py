"""From experiments and publications, local and on S3; to S3."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
import web
import xarray as xr
from made_maps import TARGET, Said

from pipeline import files, publish
from pipeline.export import Options, export
from pipeline.progress import SilentProgress

MONTH = Options("cog", every="month", period="2016-12-31..2017-01-01")


def contents(url):
    """The files, without what differs by the time and the place."""
    keys = files.list_objects(url)
    return {k: files.read_bytes(files.join(url, k)) for k in keys if k.endswith((".tif", ".csv"))}


@pytest.mark.runs  # it takes a quarter of a minute
def test_a_publication_gives_what_the_experiment_gives(world, tmp_path, said):
    publish.publish(world.workspace, str(tmp_path / "published"), SilentProgress())
    options = Options("cog", every="month", arm="insitu")
    export(world.workspace.root, str(tmp_path / "a"), options, said)
    export(str(tmp_path / "published"), str(tmp_path / "b"), options, said)
    names = sorted(path.name for path in (tmp_path / "a").glob("*.tif"))
    assert {name.split("_")[1] for name in names} == {"insitu"}
    for name in names:
        with (
            rasterio.open(tmp_path / "a" / name) as here,
            rasterio.open(tmp_path / "b" / name) as there,
        ):
            np.testing.assert_array_equal(here.read(), there.read())
            assert there.tags() == {**here.tags(), "release": there.tags()["release"]}
    # They are the same maps, so nothing is to be written.
    export(str(tmp_path / "published"), str(tmp_path / "a"), options, said)
    assert said.line.startswith(f"0 files written, {len(names)} were there already")
    assert len(names) == 2 * 6
    with web.serve(tmp_path / "published") as site:
        export(site.url, str(tmp_path / "a"), options, said)
        assert said.line.startswith(f"0 files written, {len(names)} were there already")
        export(site.url, str(tmp_path / "c"), options, said)
    for name in names:
        assert (tmp_path / "c" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_from_and_to_a_bucket(made, s3, tmp_path, said):
    root, to = s3.url(tmp_path.name, "ws", "demo"), s3.url(tmp_path.name, "out")
    for key in files.list_objects(made.root):
        files.write_bytes(files.join(root, key), files.read_bytes(files.join(made.root, key)))
    export(root, to, MONTH, said)
    assert said.line == f"4 files written: {to}"
    export(made.root, str(tmp_path / "here"), MONTH, said)
    assert contents(to) == contents(str(tmp_path / "here"))
    export(made.root, to, MONTH, said)  # the same maps, wherever they are
    assert said.line.startswith("0 files written, 4 were there already")

    export(root, to, Options("netcdf", period="2017-01-01.."), said)
    name = f"demo_insitu_{TARGET}_2017.nc"
    (tmp_path / name).write_bytes(files.read_bytes(files.join(to, name)))
    with xr.open_dataset(tmp_path / name, engine="h5netcdf") as year:
        maps = made.opened().sel(time=year.time)
        np.testing.assert_array_equal(year[TARGET].values, maps[TARGET].values)

    lat, lon = (float(made.opened()[name].values[3, 3]) for name in ("lat", "lon"))
    places = s3.url(tmp_path.name, "points.csv")
    files.write_bytes(places, f"lat,lon\n{lat},{lon}\n".encode())
    export(root, to, Options("csv", places=places), said)
    rows = files.read_bytes(files.join(to, f"demo_insitu_{TARGET}_points.csv")).decode()
    assert len(rows.splitlines()) == 1 + 53
    record = json.loads(files.read_bytes(files.join(to, "export.json")))["files"]
    assert {*record} == {*files.list_objects(to)} - {"export.json"}


def test_an_upload_that_fails_leaves_nothing(made, s3, tmp_path):
    """It is interrupted after the first year; then the bucket has the first year alone."""
    to = s3.url(tmp_path.name, "out")

    def stop(days):
        if days > 12:  # in the second year
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(made.root, to, Options("netcdf"), Said(then=stop))
    first, second = (f"demo_insitu_{TARGET}_{year}.nc" for year in (2016, 2017))
    assert {*files.list_objects(to)} == {first, "export.json"}
    said = Said()
    export(made.root, to, Options("netcdf"), said)
    assert said.line.startswith("1 file written, 1 was there already")
    assert second in files.list_objects(to)
