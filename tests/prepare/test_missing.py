"""What the sources lack is counted where it is read, and stops a run where it is more than a gap.

A small world has snowfall and temperature in cells, an elevation, footprints and sites; or the
forcing comes from a Zarr store, by day or by hour, on a grid of its own.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import world
import xarray as xr
import yaml
from missing_store import N_CELLS, N_DAYS, STORE, day, prepared, with_store

from pipeline.storage import zarr_arrays


def counted(manifest, where):
    """{variable: (missing values, infinite values)} of cells, footprints or sites."""
    found = manifest.get("missing", {}).get(where, {})
    return {name: (record["n"], record["infinite"]) for name, record in found.items()}


def cube(path, group):
    return zarr_arrays.open_group(str(Path(path).parent / "workspace" / "cube.zarr"), group).load()


def spoil(path, file, change):
    """Change one of the world's NetCDF files."""
    with xr.open_dataset(path.parent / file, engine="h5netcdf") as dataset:
        spoilt = dataset.load()
    change(spoilt)
    spoilt.to_netcdf(path.parent / file, engine="h5netcdf")


@pytest.mark.parametrize("version", [2, 3])
def test_a_deleted_chunk_stops_the_run_and_names_variable_and_days(snow, prepared_here, version):
    folder = with_store(snow, version=version)
    (folder / "PR" / {2: "1.0.1", 3: "c/1/0/1"}[version]).unlink()
    text, _, _ = prepared(snow, *STORE)
    assert "precipitation of weather is missing on 20 of 92 days" in text
    assert f"({day(20)}..{day(39)})" in text
    assert "air_temperature" not in text


def test_a_refused_run_goes_on_with_a_higher_limit_and_keeps_whole_blocks(snow, local_ray):
    folder = with_store(snow)
    (folder / "PR" / "1.0.1").unlink()
    text, _, _ = prepared(snow, *STORE)
    assert "precipitation of weather is missing on 20 of 92 days" in text
    receipts = snow.parent / "workspace" / "cube.zarr" / "receipts"
    # Days 20 to 39 are in the first two blocks of 32 days.
    assert sorted(int(p.stem) for p in receipts.glob("*.json")) == [2]
    lenient = "qc.max_missing={precipitation: 0.3}"
    text, _, manifest = prepared(snow, *STORE, lenient)
    assert text == ""
    assert counted(manifest, "cells")["precipitation"][0] > 0
    resumed = {group: cube(snow, group) for group in ("cells", "sites", "footprints")}
    shutil.rmtree(snow.parent / "workspace")
    prepared(snow, *STORE, lenient)
    for group, found in resumed.items():
        xr.testing.assert_identical(found, cube(snow, group))


def test_a_part_without_one_variable_on_all_days_is_counted(snow, prepared_here):
    """It cannot be told from a source that does not reach there; its cells are not used."""
    folder = with_store(snow)
    for chunk in range(5):
        (folder / "PR" / f"{chunk}.0.1").unlink()
    text, line, manifest = prepared(snow, *STORE)
    assert text == ""
    cells = cube(snow, "cells")
    warm = np.isfinite(cells.air_temperature.values).any(0) & np.isfinite(cells.elevation.values)
    n = int((warm & (cells["mask"].values == 0)).sum())
    assert n > 40
    assert f"only precipitation in {n} cells, which are not used" in line
    assert manifest.get("missing", {}).get("no_cells", {}).get("alone") == {"precipitation": n}


def test_one_missing_hour_is_counted_and_stops_nothing(snow, prepared_here):
    def lose(held):
        held.PR[24 * 33 + 7] = np.nan

    with_store(snow, hourly=True, change=lose)
    text, line, manifest = prepared(snow, *STORE)
    assert text == ""
    cells = counted(manifest, "cells")
    assert cells == {"precipitation": (N_CELLS, 0), "air_temperature": (0, 0), "elevation": (0, 0)}
    assert manifest["missing"]["cells"]["precipitation"]["blocks"] == {day(32): N_CELLS}
    assert manifest["missing"]["cells"]["precipitation"]["days"] == [[day(33), day(33)]]
    assert f"missing: precipitation {N_CELLS} values on 1 of 92 days" in line


@pytest.mark.parametrize(
    ("lost", "days", "share"),
    [
        (slice(60, 90), f"30 of 160 days ({day(60)}..{day(89)})", "18.8 %"),
        (slice(50, None), f"110 of 160 days ({day(50)}..{day(159)})", "68.8 %"),
    ],
)
def test_days_without_any_value_stop_the_run(snow, prepared_here, lost, days, share):
    def lose(cells):
        cells.SNOWF[:, lost] = np.nan

    spoil(snow, "cells.nc", lose)
    text, _, _ = prepared(snow)
    assert f"snowfall of cells is missing on {days}, {share} of its values" in text
    assert "air_temperature" not in text
    assert "\n" not in text


def test_all_variables_that_lack_days_are_named_at_once(snow, prepared_here):
    def lose(cells):
        cells.SNOWF[:, 60:90] = np.nan
        cells.T2C[:4, 100:105] = np.nan

    spoil(snow, "cells.nc", lose)
    text, _, _ = prepared(snow)
    assert "2 problems" in text
    assert f"snowfall of cells is missing on 30 of 160 days ({day(60)}..{day(89)})" in text
    assert f"air_temperature of cells is missing on 5 of 160 days ({day(100)}..{day(104)})" in text


def test_infinite_values_on_ten_days_stop_the_run(snow, prepared_here):
    def spoilt(cells):
        cells.SNOWF[:, 40:130:9] = np.inf

    spoil(snow, "cells.nc", spoilt)
    text, _, _ = prepared(snow)
    days = f"({day(40)}, {day(49)}, {day(58)} and 7 more runs)"
    assert f"snowfall of cells is missing on 10 of 160 days {days}, 6.25 % of its values" in text
    assert f"{10 * N_CELLS} values are infinite" in text


def test_infinite_values_of_a_grid_on_ten_days_stop_the_run(snow, prepared_here):
    """Where cells are means of a grid's, infinite values are left out of them."""

    def spoilt(held):
        held.PR[40:80:4, 3] = np.inf

    with_store(snow, change=spoilt)
    text, _, _ = prepared(snow, *STORE)
    days = f"({day(40)}, {day(44)}, {day(48)} and 7 more runs)"
    assert f"precipitation of weather is missing on 10 of 92 days {days}" in text


@pytest.mark.parametrize("sign", [1, -1])
def test_an_infinite_value_is_never_data_and_is_counted(snow, prepared_here, sign):
    def of_cells(cells):
        cells.SNOWF[5, 70] = sign * np.inf
        cells.ELEV[9] = sign * np.inf

    def of_footprints(footprints):
        footprints.SD[2, 3] = sign * np.inf

    def of_sites(sites):
        sites.HS[4, 6] = sign * np.inf

    for file, change in (("cells", of_cells), ("footprints", of_footprints), ("sites", of_sites)):
        spoil(snow, f"{file}.nc", change)
    text, line, manifest = prepared(snow, "qc.range=false")
    assert text == ""
    for group in ("cells", "footprints", "sites"):
        for name, values in cube(snow, group).items():
            assert not np.isinf(values).any(), f"{group}/{name}"
    assert counted(manifest, "cells") == {
        "snowfall": (1, 1),
        "air_temperature": (0, 0),
        "elevation": (1, 1),
    }
    assert counted(manifest, "footprints")["snow_depth"][1] == 1
    assert counted(manifest, "sites")["snow_depth"][1] == 1
    assert "snowfall 1 values (1 infinite) on 1 of 160 days, elevation 1 values" in line


@pytest.mark.parametrize(("name", "ours"), [("SNOWF", "snowfall"), ("T2C", "air_temperature")])
def test_a_variable_without_any_value_is_named(snow, prepared_here, name, ours):
    spoil(snow, "cells.nc", lambda cells: cells[name].values.fill(np.nan))
    text, _, _ = prepared(snow)
    assert f"{ours} of cells has no value in the domain and period" in text
    assert "site" not in text


def test_a_satellite_without_any_value_is_named(snow, prepared_here):
    spoil(snow, "footprints.nc", lambda footprints: footprints.SD.values.fill(np.nan))
    text, _, _ = prepared(snow)
    assert "snow_depth of footprints has no value in the domain and period" in text


def test_sites_without_any_value_are_named(snow, prepared_here):
    spoil(snow, "sites.nc", lambda sites: sites.HS.values.fill(np.nan))
    text, _, _ = prepared(snow)
    assert "catalog entry sites: snow_depth has no value in the domain and period" in text


def test_a_static_without_any_value_is_named(snow, prepared_here):
    spoil(snow, "cells.nc", lambda cells: cells.ELEV.values.__setitem__(slice(None), np.nan))
    text, _, _ = prepared(snow)
    assert "elevation of cells has no value in the domain and period" in text


def test_a_static_that_a_part_of_the_domain_lacks_stops_the_run(snow, prepared_here):
    spoil(snow, "cells.nc", lambda cells: cells.ELEV.values[:40].fill(np.nan))
    text, _, _ = prepared(snow)
    share = f"{100 * 40 / N_CELLS:.3g} %"
    assert f"elevation of cells is missing at {share} of the valid places" in text


def test_a_static_that_a_few_cells_lack_is_counted(snow, prepared_here):
    spoil(snow, "cells.nc", lambda cells: cells.ELEV.values[:3].fill(np.nan))
    text, line, manifest = prepared(snow)
    assert text == ""
    assert counted(manifest, "cells").get("elevation") == (3, 0)
    assert "missing: elevation 3 values" in line


def test_the_mask_of_cells_is_that_of_the_whole_record(snow, prepared_here):
    """Cells that have no value in the first block of 32 days, of which two are in the period."""

    def late(cells):
        cells.SNOWF[:20, :20] = np.nan

    spoil(snow, "cells.nc", late)
    period = f"[{day(18)},{day(100)}]"
    keys = ("period", "train_period", "test_period")
    text, _, manifest = prepared(snow, *(f"{key}={period}" for key in keys))
    assert text == ""
    np.testing.assert_array_equal(cube(snow, "cells")["mask"].values == 1, world._land())
    assert counted(manifest, "cells").get("snowfall") == (2 * 20, 0)


def test_sites_in_cells_with_values_from_a_later_block_on_are_used(snow, prepared_here):
    spoil(snow, "cells.nc", lambda cells: cells.SNOWF.values[:, :20].fill(np.nan))
    period = f"[{day(18)},{day(100)}]"
    keys = ("period", "train_period", "test_period")
    text, _, manifest = prepared(snow, *(f"{key}={period}" for key in keys))
    assert text == ""
    assert manifest["dropped"].get("insitu: no cell with data") == 0
    depth = cube(snow, "sites")["snow_depth"]
    assert np.isfinite(depth).any("time").all()


def test_what_satellite_and_sites_lack_is_counted_and_stops_nothing(snow, prepared_here):
    text, line, manifest = prepared(snow)
    assert text == ""
    assert "no forcing or static is missing" in line
    n_usable = int((world._land().reshape(3, 4, 4, 4).sum((1, 3)) >= 8).sum())
    seen_days = len(range(0, N_DAYS, 3))
    lacking = n_usable * (N_DAYS - seen_days)
    assert counted(manifest, "footprints") == {"snow_depth": (lacking, 0)}
    kept = int(np.isfinite(cube(snow, "sites")["snow_depth"].values).sum())
    assert counted(manifest, "sites") == {"snow_depth": (world.N_SITES * N_DAYS - kept, 0)}


def with_own_inputs(path, change):
    """Let the sites have inputs of their own, changed."""
    rng = np.random.default_rng(8)
    n = world.N_SITES

    def add(sites):
        dims = ("station", "time")
        rain = rng.gamma(0.4, 0.3, (n, N_DAYS)).astype("float32")
        warm = rng.uniform(-10, 5, (n, N_DAYS)).astype("float32")
        sites["SNOWF"] = (dims, rain, {"units": "kg m-2 h-1"})
        sites["T2C"] = (dims, warm, {"units": "degC"})
        sites["ELEV"] = ("station", rng.uniform(0, 900, n).astype("float32"), {"units": "m"})
        change(sites)

    spoil(path, "sites.nc", add)
    catalog = path.parent / "catalog.yaml"
    tree = yaml.safe_load(catalog.read_text())
    tree["sources"]["sites"]["args"]["mapping"] |= tree["sources"]["cells"]["args"]["mapping"]
    catalog.write_text(yaml.safe_dump(tree))


def test_own_inputs_that_lack_days_stop_the_run(snow, prepared_here):
    def lose(sites):
        sites.SNOWF[:, 50:] = np.nan

    with_own_inputs(snow, lose)
    text, _, _ = prepared(snow, "inputs_from=own")
    days = f"110 of 160 days ({day(50)}..{day(159)})"
    assert f"snowfall of sites is missing on {days}, 68.8 % of its values" in text


def test_what_own_inputs_lack_is_counted(snow, prepared_here):
    def lose(sites):
        sites.SNOWF[3, 70] = np.nan
        sites.T2C[7, 20:22] = np.inf
        sites.ELEV[1] = np.nan

    with_own_inputs(snow, lose)
    text, line, manifest = prepared(snow, "inputs_from=own")
    assert text == ""
    found = counted(manifest, "sites")
    found.pop("snow_depth", None)
    assert found == {"snowfall": (1, 0), "air_temperature": (2, 2), "elevation": (1, 0)}
    assert "air_temperature 2 values (2 infinite) on 2 of 160 days, snowfall 1 values on 1" in line
    assert not np.isinf(cube(snow, "sites")["air_temperature"]).any()
