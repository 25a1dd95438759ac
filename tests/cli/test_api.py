"""The Python API: what it opens, predicts and scores is what the stages have made."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pipeline import api
from pipeline.errors import ConfigError, DataError, StoreError
from pipeline.grid import lookup
from pipeline.storage import tables

TARGET = "snow_depth"


def test_names_and_arguments_stay_as_they_are():
    """Change them only with a new major version."""
    known = {name: [*inspect.signature(getattr(api, name)).parameters] for name in api.__all__}
    assert known == {
        "open_cube": ["url", "group"],
        "open_maps": ["url", "arm", "group", "chunks"],
        "predict_at": ["models", "forcing", "static", "arm"],
        "score": ["predictions", "observations", "min_days"],
    }


def test_maps_are_opened_by_any_of_their_urls(world):
    root = world.workspace.root
    maps = api.open_maps(root)
    assert maps.attrs["arm"] == "multiscale"
    for url, arm in ((root, "insitu"), (f"{root}/maps/insitu.zarr", None)):
        opened = api.open_maps(url, arm, "series")
        assert opened.attrs["arm"] == "insitu"
        direct = xr.open_zarr(f"{root}/maps/insitu.zarr", group="series")
        xr.testing.assert_identical(opened[TARGET].load(), direct[TARGET].load())
    with pytest.raises(ConfigError, match=r"has the maps of insitu"):
        api.open_maps(f"{root}/maps/insitu.zarr", "satellite")


def test_the_cube_is_opened_by_group(world):
    root = world.workspace.root
    cells, sites = api.open_cube(root), api.open_cube(f"{root}/cube.zarr", "sites")
    first, last = (np.datetime64(day, "ns") for day in world.experiment.period)
    for each in (cells, sites, api.open_cube(root, "footprints")):
        assert (each.time.values[0], each.time.values[-1]) == (first, last)
    assert {"snowfall", "elevation", "mask"} <= {*cells.data_vars}
    folds = tables.read_table(world.workspace.url("folds.parquet"))
    assert sites.site.values.tolist() == folds.site.tolist()
    with pytest.raises(ConfigError, match="the cube has the groups cells, footprints, sites"):
        api.open_cube(root, "truth")
    with pytest.raises(StoreError, match="nothing was run here"):
        api.open_cube(str(Path(root).parent / "none"))


@pytest.mark.parametrize("arm", ["multiscale", "insitu", "satellite"])
def test_predictions_from_the_inputs_of_cells_are_the_maps(world, arm):
    root = world.workspace.root
    maps = api.open_maps(root, arm, "series").load()
    cells = api.open_cube(root).load()
    valid = cells.mask.values == 1
    predicted = api.predict_at(root, cells, cells, arm).transpose("time", "y", "x")
    assert predicted.attrs["arm"] == arm
    assert predicted[TARGET].attrs["units"] == "m"
    for name in (TARGET, f"{TARGET}_std"):
        expected, found = maps[name].values[:, valid], predicted[name].values[:, valid]
        step = maps[name].encoding["scale_factor"]  # in which the maps are stored
        np.testing.assert_allclose(found, expected, rtol=0, atol=step / 2 + 1e-5, equal_nan=True)
    # The same of one place, and of a list of places, by the folder of the models.
    row, col = np.argwhere(valid)[3]
    one = cells.isel(y=row, x=col)
    some = cells.isel(
        y=xr.DataArray([row, row], dims="site"), x=xr.DataArray([col] * 2, dims="site")
    )
    for given in (one, some):
        again = api.predict_at(f"{root}/models", given, given, arm)[TARGET]
        alone = predicted[TARGET].isel(y=row, x=col)
        assert {*again.dims} == {*given.snowfall.dims}
        series = np.atleast_2d(again.transpose(..., "time").values)
        np.testing.assert_allclose(series[-1], alone, atol=1e-5)


def test_days_that_are_left_out_are_missing(world):
    cells = api.open_cube(world.workspace.root).load()
    row, col = np.argwhere(cells.mask.values == 1)[0]
    one = cells.isel(y=row, x=col)
    gone = one.time.values[[20, 21]]
    found = api.predict_at(world.workspace.root, one.drop_sel(time=gone), one)
    assert found.time.size == one.time.size
    assert found.time.values[found[TARGET].isnull()].tolist() == gone.tolist()


def test_inputs_that_do_not_fit_are_listed_at_once(world):
    cells = api.open_cube(world.workspace.root).isel(y=0, x=[8, 9]).load()
    wrong = cells.snowfall.assign_attrs(units="mm h-1").to_dataset()
    with pytest.raises(DataError) as caught:
        api.predict_at(world.workspace.root, wrong, cells.isel(x=[0]).drop_vars("elevation"))
    told = str(caught.value)
    assert "forcing snowfall is in 'mm h-1', not in 'kg m-2 day-1'" in told
    assert "static lacks elevation (m)" in told
    assert "forcing and static are not at the same places" in told
    with pytest.raises(DataError, match="inputs elevation: have other dimensions than x: "):
        api.predict_at(world.workspace.root, cells, cells.expand_dims(band=[1]))
    with pytest.raises(ConfigError, match=r"arm 'best': .* has models of the arms multiscale"):
        api.predict_at(world.workspace.root, cells, cells, "best")


def test_times_that_are_no_days_are_refused(world):
    cells = api.open_cube(world.workspace.root).isel(y=8, x=8).load()
    hours = cells.time.values[0] + np.arange(cells.time.size) * np.timedelta64(1, "h")
    for times, match in (
        (hours, r"forcing has 160 times on 7 days; give one value for each day"),
        (np.arange(160), "the times of forcing are of type int64, not datetime64"),
    ):
        with pytest.raises(DataError, match=match):
            api.predict_at(world.workspace.root, cells.assign_coords(time=times), cells)
    with pytest.raises(DataError, match="forcing has no days"):
        api.predict_at(world.workspace.root, cells.isel(time=[]), cells)
    noon = cells.assign_coords(time=cells.time + np.timedelta64(12, "h"))
    expected, found = (api.predict_at(world.workspace.root, c, c)[TARGET] for c in (cells, noon))
    xr.testing.assert_allclose(expected, found)


def test_scores_are_those_of_evaluate(world):
    root = world.workspace.root
    table = tables.read_table(f"{root}/sites.parquet")
    table = table[table.arm == "insitu"]
    sites = api.open_cube(root, "sites")
    wide = table.pivot_table(index="time", columns="site", values="prediction")
    days = pd.to_datetime(wide.index).values.astype("datetime64[ns]")
    predicted = xr.DataArray(wide.values, {"time": days, "site": [*wide.columns]},
                             ("time", "site"))  # fmt: skip
    found = api.score(predicted, sites[TARGET], world.experiment.judging.min_days)
    scores = tables.read_table(f"{root}/scores.parquet")
    scores = scores[(scores.target == "site") & (scores.arm == "insitu")]
    for metric in ("rmse", "bias", "correlation", "kge"):
        expected = scores[scores.metric == metric].set_index("id").value
        told = found[metric].to_series()
        np.testing.assert_allclose(told, expected[told.index], rtol=1e-5, atol=1e-7)


def test_one_place_and_what_cannot_be_compared():
    days = np.arange("2020-01-01", "2020-04-10", dtype="datetime64[D]").astype("datetime64[ns]")
    rng = np.random.default_rng(0)
    observed = xr.DataArray(rng.normal(size=100), {"time": days}, ("time",))
    found = api.score(observed[10:] + 0.5, observed, min_days=80)
    assert (found.n.item(), found.bias.item()) == (90, pytest.approx(0.5))
    assert found.rmse.dims == ()
    assert np.isnan(api.score(observed[:50], observed, min_days=80).rmse.item())
    with pytest.raises(DataError, match="have no days, or no places, in common"):
        api.score(observed[:50], observed[50:])
    with pytest.raises(DataError, match="give both the dimension time, and at most one other"):
        api.score(observed.expand_dims(site=["a"]), observed)


def test_places_are_matched_by_name(world):
    sites = api.open_cube(world.workspace.root, "sites")[TARGET].load()
    found = api.score(sites.isel(site=[3, 1]) + 0.1, sites, min_days=2)
    assert {*found.site.values} == {*sites.site.values[[1, 3]]}
    np.testing.assert_allclose(found.bias, 0.1, rtol=1e-5)
    assert lookup.find_nearest(found.lat.values, found.lon.values, sites.lat.values,
                               sites.lon.values)[1].max() == 0  # fmt: skip
