"""Tiny files and stores with the groups, names, units, chunks and quirks of the providers' own."""

from __future__ import annotations

import shutil
import warnings

import h5py
import numpy as np
import pyproj
import xarray as xr

LCC = pyproj.CRS.from_proj4(
    "+proj=lcc +lat_1=25 +lat_2=60 +lat_0=42.5 +lon_0=-100 +x_0=0 +y_0=0 +datum=WGS84 +units=m"
)
WRF = pyproj.CRS.from_proj4(
    "+proj=lcc +lat_1=30 +lat_2=50 +lat_0=39.1 +lon_0=-97.9 +x_0=0 +y_0=0 +R=6370000 +units=m"
)


def hours(first: str, last: str) -> np.ndarray:
    """Hours from one to before another."""
    return np.arange(np.datetime64(first, "h"), np.datetime64(last, "h")).astype("datetime64[ns]")


def days(first: str, last: str) -> np.ndarray:
    """Days from one to before another."""
    return np.arange(np.datetime64(first), np.datetime64(last)).astype("datetime64[ns]")


def noise(seed: int, *shape: int) -> np.ndarray:
    """Values in 0 to 1."""
    return np.random.default_rng(seed).uniform(size=shape).astype("float32")


def to_zarr(dataset: xr.Dataset, store, version: int = 2, consolidated: bool = True, **encoding):
    """Write a Zarr store of one of the two formats."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*onsolidated metadata.*")
        dataset.to_zarr(
            store, mode="w", zarr_format=version, consolidated=consolidated, encoding=encoding
        )


AORC_UNITS = {
    "APCP_surface": ("kg/m^2", 0.1),
    "TMP_2maboveground": ("K", 0.1),
    "SPFH_2maboveground": ("g/g", 1e-4),
    "DSWRF_surface": ("W/m^2", 0.1),
    "DLWRF_surface": ("W/m^2", 0.1),
    "PRES_surface": ("Pa", 10.0),
    "UGRD_10maboveground": ("m/s", 0.1),
    "VGRD_10maboveground": ("m/s", 0.1),
}


def aorc(folder, year: int, first: str, last: str) -> xr.Dataset:
    """`{year}.zarr`: Zarr v2, int16 with scale_factor and fill -32767, hours, latitude upward."""
    time, lat, lon = hours(first, last), 40 + np.arange(4) / 120, -100 + np.arange(5) / 120
    scale = {"TMP_2maboveground": 300, "PRES_surface": 90000, "SPFH_2maboveground": 0.01}
    held, encoding = {}, {}
    for seed, (name, (units, step)) in enumerate(AORC_UNITS.items()):
        values = noise(seed + year, len(time), 4, 5) * scale.get(name, 10)
        values = (np.round(values / step) * step).astype("float32")
        values[:, 0, 0] = np.nan
        held[name] = (("time", "latitude", "longitude"), values, {"units": units})
        encoding[name] = {"dtype": "int16", "scale_factor": step, "_FillValue": -32767}
        encoding[name]["chunks"] = (24, 2, 5)
    dataset = xr.Dataset(held, {"time": time, "latitude": lat, "longitude": lon})
    to_zarr(dataset, folder / f"{year}.zarr", **encoding)
    return dataset


ERA5_UNITS = {"t2m": "K", "d2m": "K", "sp": "Pa", "u10": "m s**-1", "v10": "m s**-1"}
ERA5_SUMS = {"tp": "m", "ssrd": "J m**-2", "strd": "J m**-2"}
ARCO_NAMES = {
    "t2m": "2m_temperature",
    "d2m": "2m_dewpoint_temperature",
    "sp": "surface_pressure",
    "u10": "10m_u_component_of_wind",
    "v10": "10m_v_component_of_wind",
    "tp": "total_precipitation",
    "ssrd": "surface_solar_radiation_downwards",
    "strd": "surface_thermal_radiation_downwards",
}


def era5(first: str, last: str, time: str = "valid_time") -> xr.Dataset:
    """Hours on all longitudes 0..360, latitude downward; sums are of the hour before."""
    held_at, lat, lon = hours(first, last), np.arange(50.0, 29, -5), np.arange(0, 360.0, 30)
    shape, dims = (len(held_at), len(lat), len(lon)), (time, "latitude", "longitude")
    middle = {
        "t2m": (260, 40),
        "d2m": (255, 30),
        "sp": (9e4, 1e4),
        "u10": (-8, 16),
        "v10": (-8, 16),
    }
    held = {}
    for seed, (name, units) in enumerate(ERA5_UNITS.items()):
        low, range_ = middle[name]
        held[name] = (dims, low + range_ * noise(seed, *shape), {"units": units})
    for seed, (name, units) in enumerate(ERA5_SUMS.items()):
        size = 1e-3 if name == "tp" else 2e6
        held[name] = (dims, size * noise(50 + seed, *shape), {"units": units})
    return xr.Dataset(held, {time: held_at, "latitude": lat, "longitude": lon})


def since_00(dataset: xr.Dataset) -> xr.Dataset:
    """The same with sums since 00 UTC: at 00 UTC stands the total of the day before (ERA5-Land)."""
    made = dataset.copy()
    begun = (dataset.valid_time - np.timedelta64(1, "h")).dt.floor("D")
    for name in ERA5_SUMS:
        made[name] = dataset[name].groupby(begun).cumsum().transpose(*dataset[name].dims)
        made[name].attrs = dataset[name].attrs
    return made.drop_vars("floor", errors="ignore")


def arco(folder) -> xr.Dataset:
    """ARCO-ERA5: Zarr v2, one step in a chunk, an axis of time with room for years to come."""
    held = era5("2019-12-30", "2020-01-04", "time").rename(ARCO_NAMES)
    room = held.reindex(time=hours("2019-12-30", "2020-01-12"))
    room.attrs = {"valid_time_start": "2019-12-30", "valid_time_stop": "2020-01-03"}
    chunks = {name: {"chunks": (1, 5, 12)} for name in room.data_vars}
    to_zarr(room, folder / "arco.zarr-v3", **chunks)
    return held


def daymet(folder) -> xr.Dataset:
    """Daymet: Zarr v2, Lambert conformal metres, noons of 365 days, 31 December not in 2020."""
    time = days("2020-12-28", "2021-01-03") + np.timedelta64(12, "h")
    time = time[days("2020-12-28", "2021-01-03") != np.datetime64("2020-12-31")]
    x, y = -50_000.0 + 1000 * np.arange(5), 30_000.0 - 1000 * np.arange(4)
    units = {
        "tmin": "degrees C",
        "tmax": "degrees C",
        "prcp": "mm/day",
        "srad": "W/m2",
        "dayl": "s",
        "vp": "Pa",
    }
    size = {"tmin": -10, "tmax": 20, "srad": 400, "dayl": 40000, "vp": 900, "prcp": 12}
    mapping = {"grid_mapping": "lambert_conformal_conic"}
    held = {
        name: (("time", "y", "x"), size[name] * noise(i, 5, 4, 5), {"units": told, **mapping})
        for i, (name, told) in enumerate(units.items())
    }
    held["lambert_conformal_conic"] = ((), np.int16(-32767), LCC.to_cf())
    to_degrees = pyproj.Transformer.from_crs(LCC, "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform(*np.meshgrid(x, y))
    coords = {"time": time, "y": y, "x": x, "lat": (("y", "x"), lat), "lon": (("y", "x"), lon)}
    dataset = xr.Dataset(held, coords)
    to_zarr(dataset, folder / "na.zarr", **{name: {"chunks": (3, 2, 5)} for name in units})
    return dataset


def conus404(folder) -> xr.Dataset:
    """CONUS404, daily: Zarr v2, WRF's sphere, mapping `crs`; sums of a day, winds of the grid."""
    time = days("2019-12-30", "2020-01-02")
    x, y = -20_000.0 + 4000 * np.arange(5), -8000.0 + 4000 * np.arange(4)
    units = {
        "T2": ("K", 300),
        "Q2": ("kg kg-1", 0.01),
        "PSFC": ("Pa", 9e4),
        "U10": ("m s-1", 5),
        "V10": ("m s-1", 5),
        "PREC_ACC_NC": ("mm", 20),
        "ACSWDNB": ("J m-2", 2e7),
        "ACLWDNB": ("J m-2", 3e7),
    }
    held = {
        name: (("time", "y", "x"), size * noise(i, 3, 4, 5), {"units": u, "grid_mapping": "crs"})
        for i, (name, (u, size)) in enumerate(units.items())
    }
    held["crs"] = ((), np.int64(0), WRF.to_cf())
    dataset = xr.Dataset(held, {"time": time, "y": y, "x": x})
    to_zarr(dataset, folder / "conus404_daily.zarr")
    return dataset


def gridmet(folder) -> xr.Dataset:
    """gridMET: Zarr v2, dim `day`, latitude downward, uint16 with scale and offset."""
    day, lat, lon = days("2020-02-27", "2020-03-02"), 49.4 - np.arange(4) / 24, -124.7
    lon = lon + np.arange(5) / 24
    units = {
        "daily_maximum_temperature": ("K", 0.1, 220.0, 290),
        "daily_minimum_temperature": ("K", 0.1, 210.0, 270),
        "precipitation_amount": ("mm", 0.1, 0.0, 0),
        "daily_mean_specific_humidity": ("kg/kg", 1e-5, 0.0, 0),
        "daily_mean_shortwave_radiation_at_surface": ("W m-2", 0.1, 0.0, 100),
        "daily_mean_wind_speed": ("m/s", 0.1, 0.0, 0),
    }
    held, encoding = {}, {}
    for i, (name, (told, step, offset, low)) in enumerate(units.items()):
        values = low + 100 * step * np.round(noise(i, 4, 4, 5) * 10)
        attrs = {"units": told, "grid_mapping": "crs"}
        held[name] = (("day", "lat", "lon"), values.astype("float32"), attrs)
        encoding[name] = {"dtype": "uint16", "scale_factor": step, "add_offset": offset}
        encoding[name] |= {"_FillValue": 32767, "chunks": (2, 4, 5)}
    held["crs"] = ((), np.int16(3), {"grid_mapping_name": "latitude_longitude"})
    dataset = xr.Dataset(held, {"day": day, "lat": lat, "lon": lon})
    to_zarr(dataset, folder / "gridMET.zarr", **encoding)
    return dataset


NLDAS2_UNITS = {
    "Tair": "K",
    "Qair": "kg kg-1",
    "PSurf": "Pa",
    "Wind_E": "m s-1",
    "Wind_N": "m s-1",
    "LWdown": "W m-2",
    "SWdown": "W m-2",
    "Rainf": "kg m-2",
}


def nldas2(folder, first: str, last: str, names=tuple(NLDAS2_UNITS)) -> xr.Dataset:
    """NLDAS-2 FORA0125_H 2.0: a NetCDF-4 file for each hour, in folders by day of the year."""
    time, lat, lon = hours(first, last), 25.0625 + np.arange(4) / 8, -124.9375 + np.arange(5) / 8
    held = {
        name: (("time", "lat", "lon"), noise(i, len(time), 4, 5), {"units": NLDAS2_UNITS[name]})
        for i, name in enumerate(names)
    }
    dataset = xr.Dataset(held, {"time": time, "lat": lat, "lon": lon})
    encoding = {name: {"_FillValue": np.float32(-9999)} for name in held}
    encoding["time"] = {"units": "hours since 1979-01-01", "dtype": "float64"}
    template = folder / "template.nc"
    dataset.isel(time=[0]).to_netcdf(template, engine="h5netcdf", encoding=encoding)
    for i, each in enumerate(time):
        stamp = each.astype("datetime64[s]").item()
        place = folder / f"{stamp:%Y/%j}"
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"NLDAS_FORA0125_H.A{stamp:%Y%m%d}.{stamp:%H}00.020.nc"
        shutil.copy(template, path)
        with h5py.File(path, "r+") as file:
            file["time"][:] = (each - np.datetime64("1979-01-01")) / np.timedelta64(1, "h")
            for name in held:
                file[name][:] = dataset[name].values[i : i + 1]
    template.unlink()
    return dataset


def nldas3(folder, first: str, last: str) -> xr.Dataset:
    """NLDAS-3 beta, daily: a NetCDF-4 file for each day, in folders by month, fill -9999."""
    time, lat, lon = days(first, last), 40.005 + np.arange(4) / 100, -100.005 + np.arange(5) / 100
    held = {
        name: (("time", "lat", "lon"), noise(i, len(time), 4, 5), {"units": told})
        for i, (name, told) in enumerate(NLDAS2_UNITS.items())
    }
    held["Tair_max"] = (("time", "lat", "lon"), noise(9, len(time), 4, 5), {"units": "K"})
    dataset = xr.Dataset(held, {"time": time, "lat": lat, "lon": lon})
    dataset["Tair"][:, 0, 0] = np.nan
    encoding = {name: {"_FillValue": np.float32(-9999), "chunksizes": (1, 2, 3)} for name in held}
    encoding["time"] = {"units": "days since 2001-01-01"}
    for i, each in enumerate(time):
        stamp = each.astype("datetime64[s]").item()
        (folder / f"{stamp:%Y%m}").mkdir(parents=True, exist_ok=True)
        path = folder / f"{stamp:%Y%m}" / f"NLDAS_FOR0010_D.A{stamp:%Y%m%d}.030.beta.nc"
        dataset.isel(time=[i]).to_netcdf(path, engine="h5netcdf", encoding=encoding)
    return dataset
