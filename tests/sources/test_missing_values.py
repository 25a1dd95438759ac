"""What an entry declares as missing with `fill`: in every driver whose mapping may say so."""

from __future__ import annotations

import miniatures_raster
import numpy as np
import pytest
import xarray as xr
from miniatures_smap import L3, Seen

from pipeline.sources.awdb.service import parse_element
from pipeline.sources.geolearn import GeolearnSource
from pipeline.sources.gridded import GriddedSource
from pipeline.sources.gridzarr import GridZarrSource
from pipeline.sources.ismn import IsmnSource
from pipeline.sources.points import PointsSource
from pipeline.sources.raster import RasterSource
from pipeline.sources.shared import missing_values
from pipeline.sources.smap import SmapL3Source
from pipeline.sources.table import TableSource

STORED = np.array([[0, -999, 5], [100, 7, 1]], "int16")
AXES = {"lat": [-1.0, 0.0], "lon": [0.0, 1.0, 2.0]}


def spec(fill, name="P"):
    return {"sand": {"from": name, "units": "percent", "fill": fill}}


@pytest.mark.parametrize("fill", [-999, [-999], [-999, 100], []])
@pytest.mark.parametrize("driver", ["netcdf", "zarr 2", "zarr 3", "points", "geotiff"])
def test_a_fill_of_the_entry_is_of_what_is_stored_before_unpacking(tmp_path, driver, fill):
    packed = {"units": "percent", "scale_factor": 0.5, "add_offset": 10.0}
    data = xr.Dataset({"P": (("lat", "lon"), STORED, packed)}, AXES)
    if driver == "netcdf":
        data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
        source = GriddedSource(str(tmp_path / "a.nc"), spec(fill))
    elif driver.startswith("zarr"):
        data.to_zarr(tmp_path / "a.zarr", zarr_format=int(driver[-1]), consolidated=False)
        source = GridZarrSource(str(tmp_path / "a.zarr"), spec(fill))
    elif driver == "points":
        held = {"P": ("site", STORED.ravel(), packed)}
        held |= {name: ("site", np.arange(6.0)) for name in ("lat", "lon")}
        days = np.array(["2020-01-01"], "datetime64[ns]")
        xr.Dataset(held, {"time": days}).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
        source = PointsSource(str(tmp_path / "a.nc"), "site", spec(fill))
    else:
        how = {"scale": 0.5, "offset": 10.0}
        miniatures_raster.write(tmp_path / "a.tif", STORED, "EPSG:4326", (0, 2), 1.0, **how)
        source = RasterSource(str(tmp_path / "a.tif"), spec(fill, "1"))
    expected = np.where(np.isin(STORED, fill), np.nan, STORED * 0.5 + 10)
    np.testing.assert_allclose(source.to_dask().sand.values.ravel(), expected.ravel())


def test_bytes_without_sign_and_limits_of_either_kind():
    attrs = {"scale_factor": 0.5, "add_offset": 10.0}
    whole, real = np.int16([0, 50]), np.float32([12, 20])
    assert missing_values.valid_limits(attrs | {"valid_range": whole}, "int16") == (9.75, 35.25)
    assert missing_values.valid_limits(attrs | {"valid_range": real}, "int16") == (
        12,
        20,
    )  # as unpacked
    assert missing_values.valid_limits({"valid_min": 3}, "int16") == (3, None)
    negative = {"scale_factor": -0.5, "valid_range": whole}
    assert missing_values.valid_limits(negative, "int16") == (-25.25, 0.25)
    signed = {"_Unsigned": "true", "scale_factor": 2.0, "valid_range": np.int8([0, -6])}
    assert missing_values.valid_limits(signed, "int8") == (-1, 501)  # -6 is 250 without its sign
    assert missing_values.valid_limits({"valid_range": "none"}, "int16") == (None, None)


def test_fills_of_sites_tables_and_granules(tmp_path):
    folder = tmp_path / "cells"
    (folder / "const").mkdir(parents=True)
    (folder / "2015").mkdir()
    (folder / "crd.csv").write_text("1,2\n3,4\n5,6\n")
    (folder / "const" / "P.csv").write_text("0\n-999\n-9999\n")
    days = np.arange("2015-04-01", "2016-04-01", dtype="datetime64[D]")
    (folder / "2015" / "timeStr.csv").write_text("\n".join(map(str, days)))
    told = {"period": "2015-04-01..2016-03-31"}
    found = GeolearnSource(str(folder), spec(-999, "const/P"), metadata=told).to_dask().sand
    np.testing.assert_array_equal(found, [0, np.nan, np.nan])
    (tmp_path / "a.csv").write_text(
        "site,y,x,t,v\na,1,2,2020-01-01,0.1\na,1,2,2020-01-02,0\na,1,2,2020-01-03,-9999\n"
    )
    columns = {"id": "site", "lat": "y", "lon": "x", "time": "t"}
    mapping = {"soil_moisture": {"from": "v", "units": "m3 m-3", "fill": 0.1}}
    table = TableSource(str(tmp_path / "a.csv"), mapping, columns, depth=0.05).to_dask()
    assert np.isnan(table.soil_moisture[[0, 2]]).all()
    seen = [Seen(100, 240 + i, v, "2015-04-06T12:00:00.000Z") for i, v in enumerate((0.1, 0.3))]
    L3("2015-04-06", seen).write(tmp_path)
    mapping = {"soil_moisture": {"from": "soil_moisture", "units": "cm**3/cm**3", "fill": 0.3}}
    granules = SmapL3Source(mapping, urlpath=f"{tmp_path}/*.h5").to_dask().soil_moisture[0]
    np.testing.assert_allclose(granules.values[100, 240:242], [0.1, np.nan], rtol=1e-6)
    assert parse_element("sand", spec([-1, 2])["sand"]).fills == (-1, 2)


def test_a_fill_that_is_none_is_refused(tmp_path):
    for wrong in ("-999", None, [True]):
        with pytest.raises(ValueError, match="expected a number or a list of them"):
            GriddedSource(str(tmp_path), spec(wrong))
    with pytest.raises(ValueError, match="ISMN uses -999 and lower for missing values"):
        IsmnSource(str(tmp_path), spec(-1))


def test_fills_of_a_variable_made_of_several_are_those_of_each():
    told = {"wind_speed": {"from": ["u", "v"], "units": "m s-1", "by": "speed", "fill": -1}}
    assert missing_values.declared_fills(told | spec(0, "u")) == {"u": (-1, 0), "v": (-1,)}
