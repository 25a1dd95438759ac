"""`doctor` finds what a source lacks: in its values on all days, and in the chunks of a store."""

from __future__ import annotations

import clinic
import dask
import numpy as np
import pytest
import xarray as xr
import zarr

from pipeline import doctor
from pipeline.progress import SilentProgress


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return clinic.write(tmp_path_factory.mktemp("healthy") / "ward")


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def ward(healthy, tmp_path):
    """The experiment file of sources in good health, of which the test spoils the forcing."""
    path = clinic.copy(healthy, tmp_path / "ward")
    clinic.edit(path, lambda tree: tree["sources"].update(static=[], satellite=None))
    clinic.edit(path, lambda tree: tree.update(arms=["insitu"], baselines=[]))
    return path


def rows(path):
    """Rows of the table that are of the forcing: (year, check, found), and all that is shown."""
    _, (table, *_) = doctor.examine(str(path), [], SilentProgress())
    cells = [[str(cell) for cell in column._cells] for column in table.columns]
    every = list(zip(*cells, strict=True))
    return [row[1:4] for row in every if row[0] == "forcing"], every


def spoil(ward, year, change):
    clinic.rewrite(ward.parent / "forcing" / f"{year}.nc", change)


def lacking(name, days, value=np.nan, **where):
    """A file with a value on some days."""

    def change(ds):
        ds = ds.copy(deep=True)
        ds[name][{"time": days, **where}] = value
        return ds

    return change


def test_thirty_days_without_values_are_a_gap(ward):
    spoil(ward, 2020, lacking("PR", slice(100, 130)))
    found, _ = rows(ward)
    said = "precipitation: 30 of 366 days lack 100 % of the values: 2020-04-10..2020-05-09"
    assert found == [("2020", "gaps", said)]


def test_one_day_is_a_gap(ward):
    spoil(ward, 2020, lacking("T2", 59))
    said = "air_temperature: 1 of 366 days lack 100 % of the values: 2020-02-29"
    assert rows(ward)[0] == [("2020", "gaps", said)]


def test_precipitation_that_ends_is_a_gap_of_all_years_after(ward):
    spoil(ward, 2019, lacking("PR", slice(30, None)))
    spoil(ward, 2020, lacking("PR", slice(None)))
    found, _ = rows(ward)
    said = "precipitation: 12 of 42 days lack 100 % of the values: 2019-12-20..2019-12-31"
    assert found == [
        ("2019", "gaps", said),
        ("2020", "all fill", "precipitation: no value in the sample"),
    ]


def test_cells_that_lack_a_variable_which_others_have_are_a_gap(ward):
    spoil(ward, 2020, lacking("PR", slice(None), lat=slice(6, 9)))
    found, _ = rows(ward)
    assert [row[:2] for row in found] == [("2020", "gaps")]
    assert found[0][2].startswith("precipitation: 366 of 366 days lack 25 % of the values")


def test_cells_that_no_variable_has_are_sea(ward):
    for name in ("PR", "T2"):
        for year in (2019, 2020, 2021):
            spoil(ward, year, lacking(name, slice(None), lat=slice(6, 9)))
    found, _ = rows(ward)
    assert [row[1] for row in found] == ["healthy"]
    assert found[0][2].startswith("looked at 366 of 366 days, 12 of 16 lat")


def test_infinite_values_on_ten_days_are_a_gap(ward):
    spoil(ward, 2020, lacking("PR", slice(200, 300, 10), np.inf))
    [(year, check, said)], _ = rows(ward)
    assert (year, check) == ("2020", "gaps")
    assert said.startswith("precipitation: 10 of 366 days lack 100 % of the values: 2020-07-19, ")


def test_precipitation_24_times_too_large_is_found(ward):
    """Also where no day is beyond the range of the variable."""
    for year in (2019, 2020, 2021):
        spoil(ward, year, lambda ds: ds.assign(PR=(24 * ds.PR).assign_attrs(ds.PR.attrs)))
    found, _ = rows(ward)
    assert [row[1] for row in found] == ["units"]
    assert found[0][2].startswith("precipitation: ")
    assert "24 times too far" in found[0][2]


@pytest.mark.parametrize("factor", [1.0, 4.0])
def test_heavy_precipitation_is_healthy(ward, factor):
    """Four times 2.9 mm a day: 4,200 mm a year, as in the Olympic Mountains."""
    for year in (2019, 2020, 2021):
        spoil(ward, year, lambda ds: ds.assign(PR=(factor * ds.PR).assign_attrs(ds.PR.attrs)))
    assert [row[1] for row in rows(ward)[0]] == ["healthy"]


def stored(ward, fill):
    """The forcing as a Zarr v3 store of plain arrays, whose absent chunks read as a value."""
    files = [ward.parent / "forcing" / f"{year}.nc" for year in (2019, 2020, 2021)]
    parts = []
    for file in files:
        with xr.open_dataset(file, engine="h5netcdf") as dataset:
            parts.append(dataset.load())
    whole = xr.concat(parts, "time")
    folder = ward.parent / "forcing.zarr"
    group = zarr.open_group(str(folder), mode="w", zarr_format=3)
    chunks = {"time": 30, "lat": 8, "lon": 17}
    for name in ("PR", "T2"):
        array = group.create_array(
            name,
            shape=whole[name].shape,
            dtype="float32",
            chunks=tuple(chunks.values()),
            fill_value=fill,
            dimension_names=("time", "lat", "lon"),
            attributes={"units": whole[name].attrs["units"]},
        )
        array[...] = whole[name].values
    for name, units in (("lat", "degrees_north"), ("lon", "degrees_east")):
        group.create_array(name, data=whole[name].values, dimension_names=(name,)).attrs.update(
            units=units
        )
    days = (whole.time.values - np.datetime64("2019-11-20")) // np.timedelta64(1, "D")
    time = group.create_array("time", data=days.astype("int32"), dimension_names=("time",))
    time.attrs.update(units="days since 2019-11-20", calendar="proleptic_gregorian")

    def change(tree):
        spec = tree["sources"]["forcing"]
        spec["driver"] = "pipeline.sources.gridzarr.GridZarrSource"
        spec["args"]["urlpath"] = str(folder)

    clinic.edit(ward.parent / "catalog.yaml", change)
    return folder


def test_a_store_with_all_chunks_is_healthy(ward):
    stored(ward, float("nan"))
    found, _ = rows(ward)
    assert [row[1] for row in found] == ["healthy"]
    assert found[0][2].startswith("looked at 366 of 366 days")
    assert "chunks listed" in found[0][2]


def test_a_deleted_chunk_that_reads_as_missing_is_a_gap(ward):
    folder = stored(ward, float("nan"))
    (folder / "PR" / "c" / "3" / "1" / "0").unlink()  # days 90 to 119, the southern rows
    found, _ = rows(ward)
    assert [row[:2] for row in found] == [("2020", "gaps")]
    assert "30 of 366 days lack" in found[0][2]
    assert found[0][2].endswith("2020-02-18..2020-03-18")


def test_a_deleted_chunk_that_reads_as_no_precipitation_is_a_gap(ward):
    folder = stored(ward, 0.0)
    (folder / "PR" / "c" / "3" / "1" / "0").unlink()
    found, _ = rows(ward)
    said = "precipitation: chunks of 2020-02-18..2020-03-18 are absent and read as 0.0"
    assert ("2020", "gaps", said) in found


def test_the_table_says_what_was_looked_at_where_there_are_gaps(ward):
    spoil(ward, 2020, lacking("PR", slice(100, 130)))
    _, every = rows(ward)
    [row] = [row for row in every if row[0] == "forcing"]
    assert row[-1] == "366 of 366 days, 12 of 16 lat, 12 of 17 lon in 2020"
