"""Which stored values are missing: what a file or an entry declares, in every format, and no other.

`expected` says the rule in plain arrays; each test writes one format and compares.
"""

from __future__ import annotations

import json
import warnings

import h5py
import miniatures_raster
import numpy as np
import pytest
import xarray as xr
import yaml
import zarr
from miniatures_smap import L3, L4, Seen

from pipeline import doctor
from pipeline.grid.ease import Window
from pipeline.progress import SilentProgress
from pipeline.sources.gridded import GriddedSource
from pipeline.sources.gridzarr import GridZarrSource
from pipeline.sources.points import PointsSource
from pipeline.sources.raster import RasterSource
from pipeline.sources.smap import SmapL3Source, SmapL4Source

MAPPING = {"sand": {"from": "P", "units": "percent"}}
PACKED = {"scale_factor": 0.5, "add_offset": 10.0}
STORED = [0, -9999, 5, 100, 7, 1]

DECLARED = {
    "nothing": {},
    "_FillValue": {"_FillValue": -9999},
    "_FillValue 0": {"_FillValue": 0},
    "missing_value": {"missing_value": -9999},
    "two of them": {"_FillValue": -9999, "missing_value": 100},
    "valid_range": {"valid_range": [0, 50]},
    "valid_min": {"valid_min": 1},
    "valid_max": {"valid_max": 7},
    "all": {"_FillValue": -9999, "valid_range": [1, 50]},
}


def expected(declared, packed=False, fills=()):
    """(6,) what the stored values mean, plainly."""
    stored = np.array(STORED, float)
    missing = np.isin(stored, [*fills, *(declared[k] for k in declared if "alue" in k)])
    low, high = declared.get("valid_range", (-np.inf, np.inf))
    low, high = declared.get("valid_min", low), declared.get("valid_max", high)
    missing |= (stored < low) | (stored > high)
    return np.where(missing, np.nan, stored * 0.5 + 10 if packed else stored)


def attributes(declared, packed):
    """Attributes of the variable, numbers of the type of what is stored."""
    kind = np.int16 if packed else np.float32
    typed = {key: np.asarray(value, kind) for key, value in declared.items()}
    return {"units": "percent", **typed, **(PACKED if packed else {})}


def stored(packed):
    return np.array(STORED, "int16" if packed else "float32").reshape(2, 3)


def zarr_of(path, version, declared, packed, **array):
    """A store as zarr alone writes it: attributes in JSON, `fill_value` what it is by default."""
    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    told = {"units": "percent", **declared, **(PACKED if packed else {})}
    axes = {"lat": [-1.0, 0.0], "lon": [0.0, 1.0, 2.0]}
    arrays = {name: ([name], np.array(values), {}) for name, values in axes.items()}
    arrays["P"] = (["lat", "lon"], stored(packed), told)
    for name, (dims, values, attrs) in arrays.items():
        how = array if name == "P" else {}
        more = {"dimension_names": dims} if version == 3 else {}
        made = group.create_array(name, shape=values.shape, dtype=values.dtype, **how, **more)
        made[...] = values
        made.attrs.update(attrs | ({"_ARRAY_DIMENSIONS": dims} if version == 2 else {}))


def values(source):
    """(6,) of the one variable."""
    return source.to_dask().sand.values.ravel()


@pytest.mark.parametrize("packed", [False, True], ids=["as it is", "packed"])
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("declared", DECLARED.values(), ids=DECLARED)
def test_a_zarr_store_of_zarrs_own_defaults(tmp_path, version, declared, packed):
    zarr_of(tmp_path / "a.zarr", version, declared, packed)
    source = GridZarrSource(str(tmp_path / "a.zarr"), MAPPING)
    np.testing.assert_allclose(values(source), expected(declared, packed))
    np.testing.assert_array_equal(source.to_dask().lat, [-1, 0])  # 0 degrees is a place


@pytest.mark.parametrize("packed", [False, True], ids=["as it is", "packed"])
@pytest.mark.parametrize("version", [2, 3])
def test_the_fill_value_of_a_zarr_array_masks_in_format_2_unless_it_is_0(tmp_path, version, packed):
    zarr_of(tmp_path / "a.zarr", version, {}, packed, fill_value=-9999)
    masks = {"_FillValue": -9999} if version == 2 else {}
    source = GridZarrSource(str(tmp_path / "a.zarr"), MAPPING)
    np.testing.assert_allclose(values(source), expected(masks, packed))
    zarr_of(tmp_path / "a.zarr", version, {"_FillValue": 100}, packed, fill_value=-9999)
    masks |= {"missing_value": 100}
    source = GridZarrSource(str(tmp_path / "a.zarr"), MAPPING)
    np.testing.assert_allclose(values(source), expected(masks, packed))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("fill", [-9999, None], ids=["-9999", "none"])
def test_a_zarr_store_written_by_xarray(tmp_path, version, fill):
    """The attribute `_FillValue` is not in a store of format 2: it is the array's fill_value."""
    axes = {"lat": [-1.0, 0.0], "lon": [0.0, 1.0, 2.0]}
    held = stored(False).astype("float32")
    given = np.where(held == -9999, np.nan, held) if fill else held
    data = xr.Dataset({"P": (("lat", "lon"), given, {"units": "percent"})}, axes)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*onsolidated metadata.*")
        how = {"P": {"_FillValue": fill}}
        data.to_zarr(tmp_path / "a.zarr", zarr_format=version, encoding=how)
    source = GridZarrSource(str(tmp_path / "a.zarr"), MAPPING)
    np.testing.assert_array_equal(values(source), expected({"_FillValue": fill} if fill else {}))
    np.testing.assert_array_equal(source.to_dask().lat, [-1, 0])


@pytest.mark.parametrize("packed", [False, True], ids=["as it is", "packed"])
@pytest.mark.parametrize("declared", DECLARED.values(), ids=DECLARED)
def test_a_file_of_netcdf(tmp_path, declared, packed):
    attrs = attributes(declared, packed)
    axes = {"lat": [-1.0, 0.0], "lon": [0.0, 1.0, 2.0]}
    data = xr.Dataset({"P": (("lat", "lon"), stored(packed), attrs)}, axes)
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    source = GriddedSource(str(tmp_path / "a.nc"), MAPPING)
    np.testing.assert_allclose(values(source), expected(declared, packed))


@pytest.mark.parametrize("packed", [False, True], ids=["as it is", "packed"])
@pytest.mark.parametrize("declared", DECLARED.values(), ids=DECLARED)
def test_a_file_of_hdf5_whose_arrays_have_fill_values_of_their_own(tmp_path, declared, packed):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, axis in (("lat", [-1.0, 0.0]), ("lon", [0.0, 1.0, 2.0])):
            file[name] = axis
            file[name].make_scale(name)
        file.create_dataset("P", data=stored(packed), fillvalue=5)  # of parts never written
        for axis, name in enumerate(("lat", "lon")):
            file["P"].dims[axis].attach_scale(file[name])
        file["P"].attrs.update(attributes(declared, packed))
    source = GriddedSource(str(tmp_path / "a.h5"), MAPPING)
    np.testing.assert_allclose(values(source), expected(declared, packed))


@pytest.mark.parametrize("packed", [False, True], ids=["as it is", "packed"])
@pytest.mark.parametrize("declared", DECLARED.values(), ids=DECLARED)
def test_points(tmp_path, declared, packed):
    attrs = attributes(declared, packed)
    held = {
        "P": (("site",), stored(packed).ravel(), attrs),
        "lat": (("site",), [0.0, 1, 2, 3, 4, 5]),
        "lon": (("site",), [0.0, 1, 2, 3, 4, 5]),
    }
    days = np.array(["2020-01-01"], "datetime64[ns]")
    xr.Dataset(held, {"time": days}).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    source = PointsSource(str(tmp_path / "a.nc"), "site", MAPPING)
    np.testing.assert_allclose(values(source), expected(declared, packed))
    np.testing.assert_array_equal(source.to_dask().lat, [0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize("packed", [False, True], ids=["as it is", "packed"])
@pytest.mark.parametrize("nodata", [None, 0, -9999])
@pytest.mark.parametrize("whose", ["the file's", "the entry's"])
def test_a_geotiff(tmp_path, nodata, whose, packed):
    how = {"nodata": nodata if whose == "the file's" else None}
    how |= {"scale": 0.5, "offset": 10.0} if packed else {}
    miniatures_raster.write(tmp_path / "a.tif", stored(packed), "EPSG:4326", (0, 2), 1.0, **how)
    mapping = {"sand": {"from": "1", "units": "percent"}}
    entry = {} if whose == "the file's" else {"nodata": nodata}
    source = RasterSource(str(tmp_path / "a.tif"), mapping, **entry)
    declared = {} if nodata is None else {"_FillValue": nodata}
    np.testing.assert_allclose(values(source), expected(declared, packed))


@pytest.mark.parametrize("entry", [{"nodata": -9999}, {"valid": [0, 50]}], ids=["nodata", "valid"])
def test_what_an_entry_declares_is_not_in_the_means_of_a_coarser_geotiff(tmp_path, entry):
    """GDAL leaves out of a mean what the file declares as missing, and takes -9999 otherwise."""
    held = np.array([[1, 3, -9999, 8], [-9999, 5, -9999, 4]], "float32")
    miniatures_raster.write(tmp_path / "a.tif", held, "EPSG:4326", (0, 2), 1.0)
    spec = {"from": "1", "units": "percent", **{k: v for k, v in entry.items() if k == "valid"}}
    given = {k: v for k, v in entry.items() if k == "nodata"}
    source = RasterSource(
        str(tmp_path / "a.tif"), {"sand": spec}, read_step=2, resolution=2.0, **given
    )
    np.testing.assert_allclose(values(source), [(1 + 3 + 5) / 3, (8 + 4) / 2])


def test_the_mask_of_a_geotiff_declares_too(tmp_path):
    import rasterio

    path = miniatures_raster.write(tmp_path / "a.tif", stored(False), "EPSG:4326", (0, 2), 1.0)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(stored(False) != -9999)
    source = RasterSource(str(path), {"sand": {"from": "1", "units": "percent"}})
    np.testing.assert_allclose(values(source), expected({"_FillValue": -9999}))


SMAP = {"soil_moisture": {"from": "soil_moisture", "units": "cm**3/cm**3", "to": "m3 m-3"}}
TIME = "2015-04-06T12:31:07.123Z"


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ({}, [0.1, 0.3, 0.6]),
        ({"missing_value": np.float32(0.3)}, [0.1, np.nan, 0.6]),
        ({"valid_max": np.float32(0.5)}, [0.1, 0.3, np.nan]),
        ({"_FillValue": np.float32(0.3)}, [0.1, np.nan, 0.6]),
        ({"valid_range": np.array([0.2, 0.5], "f4")}, [np.nan, 0.3, np.nan]),
    ],
)
def test_smaps_daily_retrievals(tmp_path, told, kept):
    seen = [Seen(100, 240 + i, value, TIME) for i, value in enumerate((0.1, 0.3, 0.6))]
    L3("2015-04-06", seen, attributes={"soil_moisture": told}).write(tmp_path)
    found = SmapL3Source(SMAP, urlpath=f"{tmp_path}/*.h5").to_dask().soil_moisture[0]
    np.testing.assert_allclose(found.values[100, 240:243], kept, rtol=1e-6)


def test_smaps_level_4_as_an_attribute_declares(tmp_path):
    path = L4("2015-04-06T01:30:00", {(400, 960): 0.2, (400, 961): 0.9}).write(tmp_path)
    with h5py.File(path, "r+") as file:
        file["Geophysical_Data/sm_surface"].attrs["valid_max"] = np.float32(0.8)
    mapping = {"soil_moisture": {"from": "sm_surface", "units": "m3 m-3"}}
    source = SmapL4Source(mapping, urlpath=f"{tmp_path}/*.h5", min_steps=1)
    window = Window(0, 0, 406, 964, 4)
    found = (
        source.to_dask()
        .soil_moisture[0]
        .sel(lat=window.cell_lat[400], lon=window.cell_lon[960:962], method="nearest")
    )
    np.testing.assert_allclose(found, [0.2, np.nan], rtol=1e-6)


def hourly(path, version=2):
    """A day of stored [0 0 5 0 0 1 0 0] mm, three hours each, as zarr alone writes it."""
    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    hours = np.arange(24, 48, 3)
    steps = np.array([0, 0, 5, 0, 0, 1, 0, 2], "float32")
    arrays = {
        "time": (["time"], hours, {"units": "hours since 2019-12-31"}),
        "lat": (["lat"], np.array([1.0, 2.0]), {}),
        "lon": (["lon"], np.array([1.0, 2.0, 3.0]), {}),
        "P": (
            ["time", "lat", "lon"],
            np.broadcast_to(steps[:, None, None], (8, 2, 3)),
            {"units": "mm"},
        ),
    }
    for name, (dims, held, attrs) in arrays.items():
        more = {"dimension_names": dims} if version == 3 else {}
        made = group.create_array(name, shape=held.shape, dtype=held.dtype, **more)
        made[...] = held
        made.attrs.update(attrs | ({"_ARRAY_DIMENSIONS": dims} if version == 2 else {}))


@pytest.mark.parametrize("version", [2, 3])
def test_a_dry_hour_is_no_missing_hour(tmp_path, version):
    """With one step wanted, a day without its dry hours would sum to a multiple of its rain."""
    hourly(tmp_path / "a.zarr", version)
    spec = {"from": "P", "units": "mm", "to": "mm day-1", "daily": "sum"}
    source = GridZarrSource(
        str(tmp_path / "a.zarr"), {"precipitation": spec}, day={"stamp": "start", "min_steps": 1}
    )
    found = source.to_dask()
    np.testing.assert_array_equal(found.precipitation, np.full((1, 2, 3), 8.0))
    assert str(found.time.values[0])[:10] == "2020-01-01"


@pytest.mark.parametrize("kind", ["netcdf", "zarr"])
def test_a_fill_told_in_eight_bytes_masks_values_of_four(tmp_path, kind):
    """1e20 in four bytes is another number than in eight; NCL and JSON tell the latter."""
    held = np.array([[1, 1e20, 3], [4, 5, 1e20]], "float32")
    attrs = {"units": "percent", "missing_value": np.float64(1e20)}
    axes = {"lat": [-1.0, 0.0], "lon": [0.0, 1.0, 2.0]}
    data = xr.Dataset({"P": (("lat", "lon"), held, attrs)}, axes)
    if kind == "netcdf":
        data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
        source = GriddedSource(str(tmp_path / "a.nc"), MAPPING)
    else:
        data.to_zarr(tmp_path / "a.zarr", zarr_format=2, encoding={"P": {"_FillValue": None}})
        source = GridZarrSource(str(tmp_path / "a.zarr"), MAPPING)
    np.testing.assert_array_equal(values(source), [1, np.nan, 3, 4, 5, np.nan])


def test_doctor_finds_a_fill_value_that_is_often_there_and_nowhere_declared(tmp_path):
    zarr_of(tmp_path / "a.zarr", 2, {}, False)
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="r+")
    group["P"][...] = np.array([[0, 0, 0], [20, 30, 40]])
    zarr.consolidate_metadata(str(tmp_path / "a.zarr"))
    entry = {
        "driver": "pipeline.sources.gridzarr.GridZarrSource",
        "args": {"urlpath": str(tmp_path / "a.zarr"), "mapping": MAPPING},
        "metadata": {
            **dict.fromkeys(("license", "doi", "auth", "native_units", "native_grid"), "none"),
            **{"time_convention": "UTC day", "period": "constant", "support": "cell"},
            "region": [-1, -2, 3, 1],
        },
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"sources": {"mine": entry}}))
    healthy, (table, *_) = doctor.examine(str(path), [], SilentProgress())
    rows = list(zip(*([str(cell) for cell in c._cells] for c in table.columns), strict=True))
    assert not healthy, json.dumps(rows)
    (row,) = rows
    assert row[2] == "undeclared fill"
    assert "P: 50% of the sample are 0, the fill value of its array" in row[3]
    assert "add `fill: 0` to the mapping if these values are missing" in row[4]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    "declared",
    [
        {"_FillValue": -1},
        {"_FillValue": 255},
        {"missing_value": -1},
        {"missing_value": 255},
        {"valid_range": [0, -56]},
        {"valid_range": [0, 200]},
        {"valid_max": -56, "scale_factor": 1.0},
    ],
    ids=str,
)
def test_bytes_without_a_sign_are_declared_missing_either_way(tmp_path, version, declared):
    """`_Unsigned` says that the stored -1 is 255, and attributes may tell either."""
    zarr_of(tmp_path / "a.zarr", version, {"_Unsigned": "true", **declared}, False)
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="r+")
    held = group["P"]
    attrs, more = dict(held.attrs), {"dimension_names": ["lat", "lon"]} if version == 3 else {}
    made = group.create_array("P", shape=(2, 3), dtype="i1", overwrite=True, **more)
    made[...] = np.array([[0, -1, 5], [100, 7, 1]], "i1")
    made.attrs.update(attrs)
    source = GridZarrSource(str(tmp_path / "a.zarr"), MAPPING)
    np.testing.assert_array_equal(values(source), [0, np.nan, 5, 100, 7, 1])


@pytest.mark.parametrize("version", [2, 3])
def test_a_limit_that_no_stored_value_can_have_is_no_limit(tmp_path, version):
    zarr_of(tmp_path / "a.zarr", version, {"valid_max": 60000}, True)
    source = GridZarrSource(str(tmp_path / "a.zarr"), MAPPING)
    np.testing.assert_allclose(values(source), expected({}, packed=True))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("told", ["", "none", "garbage!"])
def test_a_fill_that_is_no_number_declares_nothing(tmp_path, version, told):
    zarr_of(tmp_path / "a.zarr", version, {"_FillValue": told}, False)
    source = GridZarrSource(str(tmp_path / "a.zarr"), MAPPING)
    np.testing.assert_array_equal(values(source), STORED)
