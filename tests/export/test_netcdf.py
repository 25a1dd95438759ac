"""NetCDF-4 by calendar year: the values of the maps, and what checkers of CF and ACDD say."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from made_maps import FIRST, TARGET, Said

from pipeline.export import Options, export

# What checkers report although it is as it should be, or is not known to `export`.
ALLOWED = {
    "cf:1.11": (
        # The checker takes the letters of "longitude_of_central_meridian or ..." one by one.
        r"\b[a-z_] is a required attribute for grid mapping lambert_cylindrical_equal_area$",
        # CF 7.1: the bounds of a scalar have one dimension.
        r"Boundary variable depth_bnds specified by depth should have at least two dimensions",
    ),
    "acdd:1.3": (
        # The depth is a layer; the extent is that of its bounds.
        r"geospatial_vertical_(min|max) != ",
        # CF has no standard names for them.
        r'variable "(attribute_distance|probe_gain)" missing .*standard_name',
        # These are for the experiment to say; files have what the maps have.
        r"\b(acknowledgment/acknowledgement|comment|creator_\w+|publisher_\w+|id|institution"
        r"|license|naming_authority|project|geospatial_bounds_vertical_crs"
        r"|standard_name_vocabulary) not present$",
        r"Attr date_created is not present$",
    ),
}


@pytest.fixture(scope="module")
def exported(made, tmp_path_factory):
    folder, said = tmp_path_factory.mktemp("netcdf"), Said()
    export(made.root, str(folder), Options("netcdf"), said)
    assert said.days == said.total == 53
    return folder


def test_each_year_has_its_days_and_all_layers(exported, made):
    paths = sorted(exported.glob("*.nc"))
    assert [p.name for p in paths] == [f"demo_insitu_{TARGET}_{year}.nc" for year in (2016, 2017)]
    with xr.open_mfdataset(paths, chunks={}, data_vars="minimal", coords="minimal",
                           compat="override", combine_attrs="override",
                           engine="h5netcdf") as opened:  # fmt: skip
        maps = made.opened()
        assert [*opened.time.values] == [*maps.time.values]
        for name in (TARGET, f"{TARGET}_std"):
            np.testing.assert_array_equal(opened[name].values, maps[name].values)
        assert opened.quality_flag.dtype == np.uint8
        np.testing.assert_array_equal(opened.quality_flag, maps.quality_flag)
        assert (opened.quality_flag & 4).any()
        for name in ("x", "y", "lat", "lon", "attribute_distance"):
            np.testing.assert_array_equal(opened[name], maps[name])
    with xr.open_dataset(paths[0], engine="h5netcdf") as year:
        assert (year.attrs["time_coverage_start"], year.attrs["time_coverage_end"]) == (
            FIRST,
            "2016-12-31",
        )
        assert year.attrs["arm"] == "insitu"
        assert not [key for key in year.attrs if ":" in key]


# In a process of its own: netCDF4, h5py and GDAL bring an HDF5 each, and three in one process that
# write and read in turn have crashed.
READ = """
import json, sys
import netCDF4
from compliance_checker.runner import CheckSuite
def is_full(value):
    return isinstance(value, tuple) and value[0] == value[1]
told, path, *checkers = {}, *sys.argv[1:]
with netCDF4.Dataset(path) as file:
    for name, variable in file.variables.items():
        attrs = {key: variable.getncattr(key) for key in variable.ncattrs()}
        for key, value in attrs.items():
            attrs[key] = [str(value.dtype), value.tolist()] if hasattr(value, "dtype") else value
        told[name] = {"dtype": str(variable.dtype), "chunks": variable.chunking(), "attrs": attrs}
        told[name]["zlib"] = (variable.filters() or {}).get("zlib")
    told["model"] = file.data_model
CheckSuite.load_all_available_checkers()
suite = CheckSuite()
dataset = suite.load_dataset(path)
for checker in checkers:
    ((results, errors),) = suite.run_all(dataset, [checker]).values()
    bad = [r for r in results if r.weight >= 2 and not (r.value is True or is_full(r.value))]
    found = [f"{result.name} {message}" for result in bad for message in result.msgs or ()]
    told[checker] = {"errors": [*map(str, errors)], "found": found}
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(exported):
    """What the library of Unidata and the checkers say of the second year."""
    path = str(sorted(exported.glob("*.nc"))[1])
    command = [sys.executable, "-W", "ignore", "-c", READ, path, *ALLOWED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_library_of_unidata_reads_packed_and_compressed_values(told):
    assert told["model"] == "NETCDF4"
    value, flag = told[TARGET], told["quality_flag"]
    assert (value["dtype"], value["zlib"], value["chunks"]) == ("int16", True, [32, 8, 64])
    assert value["attrs"]["_FillValue"] == ["int16", -32768]
    assert value["attrs"]["scale_factor"] == ["float64", 1e-4]
    assert value["attrs"]["valid_range"][0] == "int16"
    assert flag["dtype"] == "uint8"
    assert flag["attrs"]["flag_masks"] == ["uint8", [1, 2, 4, 8, 16, 32]]
    assert "_FillValue" not in flag["attrs"]
    assert told["crs"]["attrs"]["grid_mapping_name"] == "lambert_cylindrical_equal_area"
    assert [told[name]["attrs"]["axis"] for name in ("time", "y", "x")] == ["T", "Y", "X"]


@pytest.mark.parametrize("checker", ALLOWED)
def test_checkers_find_nothing_else(told, checker):
    assert told[checker]["errors"] == []
    found = told[checker]["found"]
    unknown = [m for m in found if not any(re.search(known, m) for known in ALLOWED[checker])]
    assert unknown == []
