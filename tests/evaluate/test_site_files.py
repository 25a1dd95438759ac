"""site_scores.csv, and the series at sites in the form that QA4SM and its libraries read."""

import io
import zipfile

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pygeogrids.netcdf import load_grid
from pynetcf.time_series import GriddedNcContiguousRaggedTs

from pipeline import files
from pipeline.evaluate import site_files
from pipeline.evaluate.scoring import Candidate, Sites
from pipeline.storage import tables
from pipeline.storage.cube import Cube


@pytest.fixture(scope="module")
def unpacked(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("collocated")
    data = files.read_bytes(world.workspace.url(site_files.COLLOCATED))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert sorted(archive.namelist()) == ["0000.nc", "grid.nc"]  # QA4SM takes only .nc here
        archive.extractall(folder)
    return folder


def test_both_files_are_recorded(world):
    recorded = {record["key"] for record in world.workspace.artefact("scores").manifest()["shards"]}
    assert recorded == {"scores.parquet", "summary.json", "site_scores.csv", "collocated.zip"}


def test_the_csv_has_the_scores_of_every_site_and_candidate(world):
    table = pd.read_csv(world.workspace.url(site_files.SITE_SCORES))
    scores = tables.read_table(world.workspace.url("scores.parquet"))
    scores = scores[scores.target == "site"]
    cube = Cube.open(world.workspace.url("cube.zarr"))
    assert len(table) == scores.groupby(["id", "arm"]).ngroups == 24 * scores.arm.nunique()
    for (site, name), row in table.set_index(["site", "candidate"]).iterrows():
        of = scores[(scores.id == site) & (scores.arm == name)].set_index("metric")
        for metric in ("rmse", "correlation", "anomaly_correlation", "bias"):
            np.testing.assert_allclose(row[metric], of.value[metric], rtol=1e-5)
        ends = (row["bias_low"], row["bias_high"])
        np.testing.assert_allclose(ends, (of.low["bias"], of.high["bias"]), rtol=1e-4)
        assert (row["n"], row["lat"]) == (
            of.n["rmse"],
            pytest.approx(float(cube.sites.lat[cube.site_ids.index(site)]), rel=1e-5),
        )


def test_the_libraries_of_qa4sm_read_the_series(world, unpacked):
    grid = load_grid(unpacked / "grid.nc")
    reader = GriddedNcContiguousRaggedTs(str(unpacked), grid, ioclass_kws={"read_bulk": True})
    table = tables.read_site_predictions(world.workspace, "observation", "prediction", "std")
    cube = Cube.open(world.workspace.url("cube.zarr"))
    test = cube.day_index(world.experiment.test_period)
    for row in (0, 7):
        lat, lon = (float(cube.sites[name][row]) for name in ("lat", "lon"))
        series = reader.read(lon, lat)  # as a validation does: the nearest point of the grid
        np.testing.assert_array_equal(series.index, table.days[test].astype("datetime64[ns]"))
        np.testing.assert_array_equal(series.observation, table.observed[row, test])
        for column, name in (("prediction", "insitu"), ("std", "insitu_std")):
            expected = table.values("insitu", column)[row, test]
            np.testing.assert_array_equal(series[name], expected)
        assert {"multiscale", "satellite", "ridge", "footprint"} <= {*series.columns}
    reader.close()


def test_xarray_reads_them_as_a_ragged_array_of_cf(world, unpacked):
    with xr.open_dataset(unpacked / "0000.nc", engine="h5netcdf") as series:
        assert series.attrs["featureType"] == "timeSeries"
        assert series.row_size.attrs["sample_dimension"] == "obs"
        assert int(series.row_size.sum()) == series.sizes["obs"]
        assert series.observation.attrs["units"] == "m"
        named = series.location_description
        assert named.attrs["cf_role"] == "timeseries_id"
        cube = Cube.open(world.workspace.url("cube.zarr"))
        assert tuple(named.values.tolist()) == cube.site_ids


def test_names_keep_to_what_qa4sm_accepts_and_the_bytes_do_not_depend_on_the_time(world):
    cube = Cube.open(world.workspace.url("cube.zarr"))
    n = len(cube.site_ids)
    days = np.datetime64("2020-01-01") + np.arange(6)
    values = np.ones((n, 6), np.float32)
    sites = Sites(cube.site_ids, np.arange(n), days, values)
    odd = Candidate("era5:land/soil water of layer 1, daily", False, np.full(n, ""), values)
    one, other = (
        site_files.collocated_series(world.experiment, cube, sites, [odd]) for _ in range(2)
    )
    assert one == other
    with zipfile.ZipFile(io.BytesIO(one)) as archive:
        series = xr.open_dataset(io.BytesIO(archive.read("0000.nc")), engine="h5netcdf")
    assert "era5_land_soil_water_of_la" in series
