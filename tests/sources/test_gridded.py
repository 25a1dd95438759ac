"""Sources on a grid of their own: read as files say, regridded into the cube, refused by name."""

import gc

import intake
import numpy as np
import pytest
import world
import xarray as xr
import yaml

from pipeline import evaluate, files, prepare
from pipeline.catalog import experiment_sources, intake_catalog
from pipeline.errors import ConfigError, DataError
from pipeline.evaluate import probes
from pipeline.experiment import load
from pipeline.grid import remap
from pipeline.prepare import folds
from pipeline.prepare import stage as prepare_stage
from pipeline.progress import SilentProgress
from pipeline.sources.gridded import GriddedSource
from pipeline.storage import schema, zarr_arrays
from pipeline.storage.artefacts import Workspace
from pipeline.train import stage as train_stage

WINDOW = world.WINDOW
PERIOD = ["2019-12-05", "2020-02-20"]
DAYS = np.arange(np.datetime64("2019-12-01"), np.datetime64("2020-03-10")).astype("datetime64[ns]")
SPLIT = 41  # days of the first file
LAT = np.arange(*np.round(WINDOW.cell_lat[[0, -1]] + [0.4, -0.4], 3), -0.125)
LON = np.arange(*np.round(WINDOW.cell_lon[[0, -1]] + [-0.4, 0.4], 3), 0.125)

METADATA = {
    "support": "cell",
    "license": "CC0-1.0",
    "time_convention": "UTC day",
    "period": "2019-12-01..2020-03-09",
    "auth": "none",
}

FORCING = {
    "snowfall": {"from": "SNOWF", "units": "kg m-2 h-1", "to": "kg m-2 day-1"},
    "air_temperature": {"from": "T2C", "units": "degC", "to": "K"},
}


def nature():
    """Forcing (time, y, x), with a corner missing and one day missing, and elevation (y, x)."""
    rng = np.random.default_rng(5)
    shape = (len(DAYS), len(LAT), len(LON))
    snowfall = rng.gamma(0.4, 0.3, shape).astype("float32")
    celsius = rng.normal(-4, 3, shape).astype("float32")
    snowfall[:, -9:, :9] = celsius[30, 4:9, 6:8] = np.nan
    return snowfall, celsius, rng.uniform(500, 2000, shape[1:]).astype("float32")


def write_grid(folder):
    """forcing_1.nc, forcing_2.nc (y, x under lat, lon), static.nc (longitude first, 0 to 360)."""
    snowfall, celsius, elevation = nature()
    for part, days in (("1", slice(SPLIT, None)), ("2", slice(0, SPLIT))):  # in no order of names
        xr.Dataset(
            {
                "SNOWF": (("time", "y", "x"), snowfall[days], {"units": "kg m-2 h-1"}),
                "T2C": (("time", "y", "x"), celsius[days], {"units": "degC"}),
            },
            {"time": DAYS[days], "lat": ("y", LAT), "lon": ("x", LON)},
        ).to_netcdf(folder / f"forcing_{part}.nc", engine="h5netcdf")
    static = {"ELEV": (("longitude", "latitude"), elevation.T, {"units": "m"})}
    coords = {"latitude": LAT, "longitude": LON + 360}
    xr.Dataset(static, coords).to_netcdf(folder / "static.nc", engine="h5netcdf")


@pytest.fixture
def gridded(tmp_path):
    """A small world whose forcing and statics are on a grid of 0.125 degrees."""
    path = world.write(tmp_path / "snow")
    write_grid(path.parent)
    file = path.parent / "catalog.yaml"
    tree = yaml.safe_load(file.read_text())
    for name, mapping in (
        ("forcing_*", FORCING),
        ("static", {"elevation": {"from": "ELEV", "units": "m"}}),
    ):
        tree["sources"][name.rstrip("_*")] = {
            "driver": "pipeline.sources.gridded.GriddedSource",
            "parameters": {"planet": {"description": "its folder", "type": "str"}},
            "args": {"urlpath": f"{{{{planet}}}}/{name}.nc", "mapping": mapping},
            "metadata": METADATA,
        }
    file.write_text(yaml.safe_dump(tree))
    tree = yaml.safe_load(path.read_text())
    tree["sources"] |= {"forcing": ["forcing"], "static": ["static"]}
    tree |= dict.fromkeys(("period", "train_period", "test_period"), PERIOD)
    tree["planet"] = {"url": str(path.parent)}
    path.write_text(yaml.safe_dump(tree))
    return path


def shared_areas(window):
    """(y, x, lat, lon) area that each cell of a window shares with each of the grid's."""

    def lengths(edges, centres):
        low, high = centres - 0.0625, centres + 0.0625
        top, bottom = np.maximum(edges[:-1], edges[1:]), np.minimum(edges[:-1], edges[1:])
        upper, lower = np.minimum(top[:, None], high), np.maximum(bottom[:, None], low)
        return upper, lower

    upper, lower = lengths(window.cell_edges[0], LAT)
    rows = np.maximum(np.sin(np.radians(upper)) - np.sin(np.radians(lower)), 0)
    upper, lower = lengths(window.cell_edges[1], LON)
    return np.einsum("yk,xm->yxkm", rows, np.maximum(upper - lower, 0))


def plain(values, window=WINDOW):
    """(..., y, x) area-weighted means of the values of (..., lat, lon) that are there."""
    areas = shared_areas(window)
    whole = areas.sum((2, 3))  # the grid reaches over the window on all sides
    total = np.einsum("yxkm,...km->...yx", areas, np.nan_to_num(values.astype(float)))
    covered = np.einsum("yxkm,...km->...yx", areas, np.isfinite(values).astype(float))
    with np.errstate(invalid="ignore"):
        return np.where(covered >= 0.5 * whole, total / covered, np.nan)


def cube_days(experiment):
    """Days of the cube, their place in the grid's files, and which of them are in the period."""
    days = schema.time_axis(experiment.period).astype("datetime64[D]").astype("datetime64[ns]")
    inside = (days >= np.datetime64(PERIOD[0])) & (days <= np.datetime64(PERIOD[1]))
    return inside, np.searchsorted(DAYS, days[inside])


def leave_out_dry_sites(path):
    """Settings that leave out the sites in cells without data."""
    sites = xr.load_dataset(path.parent / "sites.nc", engine="h5netcdf")
    y, x = WINDOW.cells_of(sites.lat, sites.lon)
    dry = ~np.isfinite(plain(nature()[0][0]))[y, x]
    assert 0 < dry.sum() < 12
    return [f"qc.exclude_sites=[{', '.join(sites.station.values[dry])}]"], (y[~dry], x[~dry])


def test_the_cube_is_the_sum_over_overlaps(gridded, tmp_path, local_ray):
    settings, (y, x) = leave_out_dry_sites(gridded)
    experiment = load.load_experiment(str(gridded), settings)
    workspace = Workspace(str(tmp_path / "w"))
    prepare.run(experiment, workspace, SilentProgress())
    cells = zarr_arrays.open_group(workspace.url("cube.zarr"), "cells")
    sites = zarr_arrays.open_group(workspace.url("cube.zarr"), "sites")
    inside, index = cube_days(experiment)
    snowfall, celsius, elevation = nature()
    fields = {"snowfall": plain(24 * snowfall), "air_temperature": plain(celsius + 273.15)}
    for name, field in fields.items():
        found = cells[name].values
        assert np.isnan(found[~inside]).all()
        np.testing.assert_allclose(found[inside], field[index], rtol=2e-6, atol=1e-6, err_msg=name)
        np.testing.assert_array_equal(sites[name].values, found[:, y, x])
    np.testing.assert_allclose(cells.elevation.values, plain(elevation), rtol=2e-6)
    mask = cells["mask"].values
    np.testing.assert_array_equal(mask, np.isfinite(fields["snowfall"][0]))
    assert 0 < mask.sum() < mask.size
    footprints = zarr_arrays.open_group(workspace.url("cube.zarr"), "footprints")
    assert np.isfinite(footprints.snow_depth.values[inside]).any()


def satellite_on_a_grid(path):
    """Make the satellite a grid, and name it as the truth too; returns its values."""
    values = np.random.default_rng(8).uniform(0.1, 2, (78, len(LAT), len(LON))).astype("float32")
    values[3, :, 4:] = np.nan
    held = {"SD": (("time", "lat", "lon"), values, {"units": "m"})}
    coords = {"time": DAYS[10:88], "lat": LAT, "lon": LON}
    xr.Dataset(held, coords).to_netcdf(path.parent / "seen.nc", engine="h5netcdf")
    tree = yaml.safe_load((path.parent / "catalog.yaml").read_text())
    tree["sources"]["seen"] = {
        "driver": "pipeline.sources.gridded.GriddedSource",
        "args": {
            "urlpath": str(path.parent / "seen.nc"),
            "mapping": {"snow_depth": {"from": "SD", "units": "m"}},
        },
        "metadata": METADATA | {"support": "footprint"},
    }
    (path.parent / "catalog.yaml").write_text(yaml.safe_dump(tree))
    return values


@pytest.mark.usefixtures("local_ray", "trained_here")
def test_probes_are_scored_from_the_grid_as_sites_are_from_the_cube(gridded, tmp_path):
    satellite_on_a_grid(gridded)
    settings, _ = leave_out_dry_sites(gridded)
    settings += ["arms=[insitu]", "train.updates=3", "folds.kind=none", "sources.satellite=seen"]
    experiment = load.load_experiment(str(gridded), settings)
    workspace = Workspace(str(tmp_path / "w"))
    for stage in (prepare_stage, folds, train_stage):
        stage.run(experiment, workspace, SilentProgress())
    from_cube = evaluate.run(experiment, workspace, SilentProgress())
    found = probes.score_probes(
        experiment, workspace, SilentProgress(), str(gridded.parent / "sites.nc")
    ).summary
    assert found["n_sites"] == world.N_SITES - len(experiment.qc.exclude_sites)
    kept = from_cube["baselines"]["footprint"]["distance_km"]
    assert found["baselines"]["footprint"]["distance_km"] == pytest.approx(kept)


def test_a_satellite_and_a_truth_on_a_grid(gridded):
    values = satellite_on_a_grid(gridded)
    settings = ["sources.satellite=seen", "sources.truth=seen"]
    experiment = load.load_experiment(str(gridded), settings)
    sources = experiment_sources.open_sources(experiment)
    held = remap.read_days(sources.satellite, "snow_depth", DAYS[10:88])
    assert held.shape[1:] < values.shape[1:]  # the rows and columns over the window alone
    found = sources.on_footprints(held)
    assert found.shape == (78, 3, 4)
    np.testing.assert_allclose(found, plain(values, WINDOW.of_footprints), rtol=2e-6)
    truth = experiment_sources.open_truth(experiment).on_days(DAYS[79:91])
    np.testing.assert_allclose(truth[:9], plain(values[69:]), rtol=2e-6)
    assert truth.shape == (12, *WINDOW.cell_shape)
    assert np.isnan(truth[9:]).all()
    only_truth = load.load_experiment(str(gridded), ["sources.truth=seen"])
    assert intake_catalog.cube_entries(only_truth) == ["forcing", "static", "footprints", "sites"]
    with pytest.raises(ConfigError, match=r"no truth; set sources\.truth"):
        experiment_sources.open_truth(load.load_experiment(str(gridded)))


def test_plain_intake_gives_our_names_units_and_bounds(gridded):
    entries = intake.open_catalog(str(gridded.parent / "catalog.yaml"))
    dataset = entries["forcing"](planet=str(gridded.parent)).to_dask()
    snowfall, celsius, elevation = nature()
    assert dict(dataset.sizes) == {"time": len(DAYS), "lat": len(LAT), "lon": len(LON), "bnds": 2}
    assert {n: v.attrs["units"] for n, v in dataset.items()} == {
        "snowfall": "kg m-2 day-1",
        "air_temperature": "K",
    }
    assert dataset.snowfall.chunks is not None
    assert dataset.snowfall.dtype == np.float32
    np.testing.assert_array_equal(dataset.time, DAYS)
    np.testing.assert_allclose(dataset.snowfall, 24 * snowfall, rtol=1e-6)
    np.testing.assert_allclose(dataset.air_temperature, celsius + 273.15, rtol=1e-6)
    np.testing.assert_allclose(dataset.lat_bnds, np.stack([LAT + 0.0625, LAT - 0.0625], 1))
    static = entries.static(planet=str(gridded.parent)).to_dask()
    assert static.elevation.dims == ("lat", "lon")
    assert "time" not in static
    np.testing.assert_array_equal(static.elevation, elevation)
    np.testing.assert_allclose(static.lon_bnds, LON[:, None] + [359.9375, 360.0625])


def test_bounds_of_the_file_are_used_and_those_with_gaps_refused(tmp_path):
    lat, lon = [10.0, 20.0], [0.0, 5.0, 20.0]
    bounds = {
        "lat_bnds": (("lat", "bnds"), [[15.0, 5.0], [25.0, 15.0]]),
        "columns": (("lon", "bnds"), [[-2.0, 2.0], [2.0, 10.0], [10.0, 30.0]]),
    }
    values = {"A": (("lat", "lon"), np.zeros((2, 3), "f4"), {"units": "m"})}
    dataset = xr.Dataset(values | bounds, {"lat": lat, "lon": ("lon", lon, {"bounds": "columns"})})
    dataset.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    source = GriddedSource(str(tmp_path / "a.nc"), {"elevation": {"from": "A", "units": "m"}})
    opened = source.to_dask()
    np.testing.assert_array_equal(opened.lat_bnds, [[5, 15], [15, 25]])
    np.testing.assert_array_equal(opened.lon_bnds, bounds["columns"][1])
    opened.close()
    dataset["columns"][1, 1] = 8.0
    dataset.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(DataError, match="lon: bounds overlap or leave gaps"):
        source.to_dask()


def change(path, file, how):
    with xr.open_dataset(path.parent / file, engine="h5netcdf") as dataset:
        changed = how(dataset.load())
    changed.to_netcdf(path.parent / file, engine="h5netcdf")


def refused(path, entry="forcing"):
    with pytest.raises(DataError) as caught:
        intake_catalog.open_source(load.load_experiment(str(path)), entry)
    assert str(path.parent) in caught.value.place
    return caught.value.problems


def test_every_fault_of_every_file_is_listed_at_once(gridded):
    def spoil(dataset):
        dataset["SNOWF"].attrs["units"] = "mm"
        lat = dataset.lat.values.copy()
        lat[3] = lat[1]
        return dataset.assign_coords(lat=("y", lat)).drop_vars("T2C")

    change(gridded, "forcing_1.nc", spoil)
    change(gridded, "forcing_2.nc", lambda ds: ds.isel(time=[0, 2, 1]).drop_vars("lon"))
    problems = refused(gridded)
    for told in (
        "forcing_1.nc: lat: ",
        "forcing_1.nc: T2C: missing; the file has ['SNOWF']",
        "forcing_1.nc: SNOWF: units 'mm', expected 'kg m-2 h-1'",
        "forcing_2.nc: coordinate lon or longitude missing",
        "forcing_2.nc: time: day 2019-12-02 comes after 2019-12-03",
    ):
        assert [p for p in problems if p.startswith(told)], (told, problems)
    assert len(problems) == 5


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (lambda ds: ds.isel(y=[0]), "lat: one value without lat_bnds; its width is unknown"),
        (lambda ds: ds.assign_coords(lat=ds.lat + 60), "expected degrees of at most 90"),
        (lambda ds: ds.expand_dims(level=2), "dims (level, y, x), expected (time, y, x) or (y, x)"),
        (lambda ds: ds.assign_coords(lat=ds.lat.expand_dims(x=ds.x)), "expected one dim"),
        (lambda ds: ds.assign_coords(lon=("x", np.linspace(0, 360, len(LON)))), "at most"),
        (lambda ds: ds.isel(y=("p", [0, 1]), x=("p", [0, 1])), "both have the dim p; expected"),
    ],
)
def test_what_is_no_grid_is_refused(gridded, how, told):
    renamed = {"latitude": "y", "longitude": "x"}

    def spoil(dataset):
        dims = {dim: ("y" if dim == "latitude" else "x") for dim in renamed}
        lat, lon = dataset.latitude.values, dataset.longitude.values
        bare = dataset.drop_vars(list(renamed)).rename(dims)
        bare = bare.assign_coords(lat=("y", lat), lon=("x", lon), x=np.arange(len(lon)))
        return how(bare.transpose("y", "x"))

    change(gridded, "static.nc", spoil)
    (problem,) = refused(gridded, "static")
    assert told in problem


def test_files_that_overlap_or_differ_in_their_grid_are_refused(gridded):
    change(
        gridded, "forcing_2.nc", lambda ds: ds.assign_coords(time=ds.time + np.timedelta64(1, "D"))
    )
    first = DAYS[SPLIT].astype("datetime64[D]")
    expected = f"forcing_1.nc: begins {first}, but forcing_2.nc ends {first}"
    assert refused(gridded) == (f"{expected}; days must increase from file to file",)
    change(gridded, "forcing_1.nc", lambda ds: ds.assign_coords(lon=ds.lon + 1))
    assert "forcing_2.nc: another lon than forcing_1.nc" in refused(gridded)


def test_absent_truncated_and_timeless_files_are_refused_by_name(gridded):
    file = gridded.parent / "forcing_2.nc"
    file.write_bytes(file.read_bytes()[:-4000])
    (problem,) = refused(gridded)
    assert problem.startswith("forcing_2.nc: cannot be read, truncated or no NetCDF-4")
    for part in "12":
        (gridded.parent / f"forcing_{part}.nc").unlink()
    assert refused(gridded) == ("no file matches",)
    with pytest.raises(DataError, match="no file matches"):
        intake_catalog.entry_digest(load.load_experiment(str(gridded)), "forcing")


def test_a_grid_beside_the_domain_is_refused(gridded):
    change(gridded, "static.nc", lambda ds: ds.assign_coords(longitude=ds.longitude + 30))
    with pytest.raises(DataError, match=r"catalog entry static: its lon .* is outside the domain"):
        experiment_sources.open_sources(load.load_experiment(str(gridded)))


def test_sites_on_a_grid_are_refused(gridded):
    satellite_on_a_grid(gridded)
    with pytest.raises(DataError, match=r"sources\.insitu seen: is a grid; expected sites"):
        experiment_sources.open_sources(load.load_experiment(str(gridded), ["sources.insitu=seen"]))


def test_a_planet_that_is_not_there_yet_is_said(gridded):
    experiment = load.load_experiment(str(gridded))
    for planet in (None, experiment.planet.model_copy(update={"url": None})):
        nowhere = experiment.model_copy(update={"planet": planet})
        with pytest.raises(
            ConfigError, match="entry forcing: needs a planet, but the experiment has none"
        ):
            intake_catalog.open_source(nowhere, "forcing")
    opened = intake_catalog.open_source(nowhere, "static", str(gridded.parent / "static.nc"))
    assert "elevation" in opened


def test_a_digest_follows_names_and_contents_not_the_folder(gridded, tmp_path):
    def digest(url):
        planet = {
            "planet": load.load_experiment(str(gridded)).planet.model_copy(update={"url": url})
        }
        return intake_catalog.entry_digest(
            load.load_experiment(str(gridded)).model_copy(update=planet), "forcing"
        )

    before = digest(str(gridded.parent))
    other = tmp_path / "other [1]"
    other.mkdir()
    write_grid(other)
    for part in "12":
        content = (gridded.parent / f"forcing_{part}.nc").read_bytes()
        (other / f"forcing_{part}.nc").write_bytes(content)
    assert digest(str(other)) == before
    assert files.expand_glob(f"{other}/forcing_*.nc") == [f"{other}/forcing_{i}.nc" for i in "12"]
    (other / "forcing_2.nc").rename(other / "forcing_3.nc")
    assert digest(str(other)) != before


def test_urls_are_matched_and_read():
    for name in "ba":
        files.write_bytes(f"memory://grids/{name}.nc", name.encode())
    found = files.expand_glob("memory://grids/*.nc")
    assert [files.read_bytes(url) for url in found] == [b"a", b"b"]
    assert files.expand_glob("memory://grids/a.nc") == ["memory://grids/a.nc"]
    assert files.expand_glob("memory://grids/c.nc") == []
    files.remove("memory://grids")


def test_a_grid_is_read_from_an_object_store(gridded):
    for part in "12":
        content = (gridded.parent / f"forcing_{part}.nc").read_bytes()
        files.write_bytes(f"memory://planet/forcing_{part}.nc", content)
    dataset = GriddedSource("memory://planet/forcing_*.nc", FORCING).to_dask()
    np.testing.assert_allclose(dataset.snowfall, 24 * nature()[0], rtol=1e-6)
    del dataset
    gc.collect()
    files.remove("memory://planet")


def test_columns_round_the_earth_follow_one_another_over_the_window():
    lon = np.arange(0.5, 360, 1.0)
    lat = np.arange(-88.0, 89, 4)
    values = np.random.default_rng(2).normal(size=(len(lat), len(lon)))
    edges = {"lat": np.append(lat - 2, 90), "lon": np.append(lon - 0.5, 360)}
    bounds = {f"{n}_bnds": ((n, "bnds"), np.stack([e[:-1], e[1:]], 1)) for n, e in edges.items()}
    dataset = xr.Dataset({"a": (("lat", "lon"), values)}, {"lat": lat, "lon": lon, **bounds})
    window = type(WINDOW).from_bbox(-7, 30, 12, 48, 1)
    part = remap.select_over_window(dataset, window)
    np.testing.assert_allclose(np.diff(part.lon), 1)
    assert part.lon[0] < 0 < part.lon[-1]
    found = remap.remap_to_cells(part, part.a.values, window)
    np.testing.assert_allclose(found, remap.remap_to_cells(dataset, values, window), rtol=1e-6)
    assert np.isfinite(found).all()
