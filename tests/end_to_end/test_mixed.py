"""One journey from sources of different grids, calendars and units, on HTTP and S3 servers.

Hourly forcing on latitudes downward and longitudes 0..360 (Zarr v3, S3); daily forcing on a
Lambert grid whose leap years lack 31 December (Zarr v2, HTTP); a DEM and a soil map in Albers
metres (GeoTIFF, HTTP); SMAP's granules by way of CMR, with a token; USCRN's texts and a CSV.
"""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
from pathlib import Path

import earthdata_server
import miniatures_insitu
import miniatures_raster
import numpy as np
import processes
import pyproj
import pytest
import web
import xarray as xr
import yaml
from miniatures_forcing import LCC, hours, to_zarr
from miniatures_smap import L3, Repository, Seen, item

from pipeline import files
from pipeline.grid import ease
from pipeline.storage import zarr_arrays

pytestmark = pytest.mark.runs
BOX = (-104.0, 39.0, -102.4, 40.3)  # west, south, east, north
FIRST, LAST = "2016-12-01", "2017-01-25"
WINDOW = ease.Window.from_bbox(*BOX, 4)
TOKEN, PASSWORD = "eyJ-planted-token-of-a-reader", "planted-password-of-a-store"
ALBERS = "EPSG:5070"


def days(first, last):
    """Days of a period, whole."""
    return np.arange(first, np.datetime64(last) + 1, dtype="datetime64[D]")


def wetness(day, lat):
    """Soil moisture that all observers see: drying, wetter in the north, with storms."""
    day = np.asarray(day, float)
    return 0.18 + 0.06 * np.cos(day / 9) + 0.02 * (np.asarray(lat) - 39.6)


def rain(hour):
    """Metres of water in the hour that ends then: half a millimetre an hour in storms."""
    return np.where(np.sin(np.asarray(hour) / 24 / 9 * 2 * np.pi) > 0.9, 0.0005, 0.0)


def write_hourly(url):
    time = hours(FIRST, "2017-01-26")
    lat, lon = np.arange(40.75, 38.4, -0.25), np.arange(255.25, 258.4, 0.25)
    shape, dims = (len(time), len(lat), len(lon)), ("valid_time", "latitude", "longitude")
    hour = np.arange(len(time))[:, None, None]
    held = {
        "t2m": 283 + 5 * np.sin(hour * 2 * np.pi / 24) + np.zeros(shape),
        "d2m": 275 + np.zeros(shape),
        "sp": 85_000 + np.zeros(shape),
        "tp": rain(hour) * np.ones(shape),
    }
    units = {"t2m": "K", "d2m": "K", "sp": "Pa", "tp": "m"}
    made = {n: (dims, v.astype("f4"), {"units": units[n]}) for n, v in held.items()}
    coords = {"valid_time": time, "latitude": lat, "longitude": lon}
    return xr.Dataset(made, coords), url


def write_lambert(folder):
    time = days(FIRST, "2017-01-26")
    time = time[time != np.datetime64("2016-12-31")].astype("datetime64[ns]")
    time += np.timedelta64(12, "h")
    to_lambert = pyproj.Transformer.from_crs("EPSG:4326", LCC, always_xy=True)
    west, south, east, north = to_lambert.transform_bounds(*BOX)
    x = np.arange(west - 40_000, east + 40_000, 4000.0)
    y = np.arange(north + 40_000, south - 40_000, -4000.0)
    shape = (len(time), len(y), len(x))
    mapping = {"grid_mapping": "lambert_conformal_conic"}
    held = {
        "srad": (("time", "y", "x"), np.full(shape, 400, "f4"), {"units": "W/m2", **mapping}),
        "dayl": (("time", "y", "x"), np.full(shape, 43_200, "f4"), {"units": "s", **mapping}),
        "lambert_conformal_conic": ((), np.int16(-32767), LCC.to_cf()),
    }
    dataset = xr.Dataset(held, {"time": time, "y": y, "x": x})
    to_zarr(
        dataset, folder / "na.zarr", srad={"chunks": (40, 40, 40)}, dayl={"chunks": (40, 40, 40)}
    )


def write_rasters(folder):
    shape = (200, 240)  # south to 38.5, beyond the cells of the southernmost footprints
    lat = 41 - 0.0125 * (np.arange(shape[0]) + 0.5)
    height = np.broadcast_to(1500 + 100 * (lat[:, None] - 39), shape).astype("f4")
    miniatures_raster.write(folder / "dem.tif", height, "EPSG:4326", (-105, 41), 0.0125)
    west, south, east, north = pyproj.Transformer.from_crs(
        "EPSG:4326", ALBERS, always_xy=True
    ).transform_bounds(*BOX)
    size = (int((north - south) / 1000) + 100, int((east - west) / 1000) + 100)
    clay = np.full(size, 235, "i2")
    corner = (west - 50_000, north + 50_000)
    miniatures_raster.write(folder / "clay.tif", clay, ALBERS, corner, 1000.0, nodata=-32768)


def write_smap(folder, url):
    """A granule of each other day, flagged ones among them; CMR's items of them."""
    rows, cols = WINDOW.row + np.arange(WINDOW.height), WINDOW.col + np.arange(WINDOW.width)
    items = []
    for number, day in enumerate(days(FIRST, LAST)[::2]):
        seen = [
            Seen(
                int(row),
                int(col),
                float(wetness(2 * number, WINDOW.footprint_lat[i]) - 0.03),
                f"{day}T13:00:00.000Z",
                flag=int(col == cols[0]),
            )
            for i, row in enumerate(rows)
            for col in cols
        ]
        file = L3(str(day), seen).write(folder)
        produced = "2020-01-01T00:00:00.000Z"
        items.append(item(file.name, f"{url}/smap", produced, file.stat().st_size))
    return Repository(items)


def write_sites(folder):
    """Two sites of USCRN in the box, and four probes in a CSV, in percent, at 12 cm too."""
    rows = {}
    lines = []
    for name, wban, lat, lon in (
        ("CO_Nunn_7_NNE", "94074", 40.05, -103.7),
        ("CO_Dinosaur_2_E", "94082", 39.2, -102.6),
    ):
        cells = (
            f"{wban}\tUS\tCO\t{name[3:7]}\t2 E\tA place\t{lat}\t{lon}\t4847\tCommissioned\t"
            "2004-01-11 19:00:00.0\t\tOperational\t\tUSCRN\t1020"
        )
        lines.append(cells)
        for year in (2016, 2017):
            every = np.arange(f"{year}-01-01", f"{year + 1}-01-01", dtype="datetime64[D]")
            number = (every - np.datetime64(FIRST)).astype(int)
            rows[name, year] = [
                miniatures_insitu.Row(
                    wban,
                    str(day).replace("-", ""),
                    lon,
                    lat,
                    soil=f"{wetness(n, lat):.3f}" if n % 11 else "-99.000",
                    soil_temperature="4.0",
                )
                for day, n in zip(every, number, strict=True)
            ]
    miniatures_insitu.write_uscrn(folder, rows)
    (folder / "stations.tsv").write_text("\n".join([miniatures_insitu.LIST, *lines]) + "\n")
    table = ["probe,latitude,longitude,depth_cm,time,water"]
    for i, (lat, lon) in enumerate(
        ((39.3, -103.8), (39.9, -103.1), (40.1, -102.7), (39.5, -102.9))
    ):
        for n, day in enumerate(days(FIRST, LAST)):
            table.append(f"P{i},{lat},{lon},5,{day},{100 * wetness(n, lat):.2f}")
            table.append(f"P{i},{lat},{lon},12,{day},33.0")
    (folder / "probes.csv").write_text("\n".join(table) + "\n")


def catalog(site, raster, nasa, s3, folder):
    told = dict.fromkeys(("license", "doi", "region", "native_grid", "native_units"), "as tested")
    told |= {"time_convention": "UTC day", "period": f"{FIRST}..{LAST}", "auth": "none"}

    def entry(driver, support, urlpath, mapping, **args):
        metadata = {**told, "support": support}
        args = {"urlpath": urlpath, "mapping": mapping, **args}
        return {"driver": f"pipeline.sources.{driver}", "args": args, "metadata": metadata}

    def one(name, units, to=None, **more):
        return {"from": name, "units": units, **({"to": to} if to else {}), **more}

    hourly = {
        "precipitation": one(
            "tp", "m", "kg m-2 day-1", by="water", daily="sum", accumulated="hourly"
        ),
        "air_temperature": one("t2m", "K", daily="mean"),
        "specific_humidity": one(["d2m", "sp"], ["K", "Pa"], by="dew_point", daily="mean"),
        "surface_pressure": one("sp", "Pa", daily="mean"),
    }
    lambert = {"shortwave": one(["srad", "dayl"], ["W/m2", "s"], "W m-2", by="daylight")}
    retrieved = {"soil_moisture": one("soil_moisture", "cm**3/cm**3", "m3 m-3")}
    uscrn = {
        "soil_moisture": one("SOIL_MOISTURE_5_DAILY", "m3 m-3"),
        "soil_temperature": one("SOIL_TEMP_5_DAILY", "degC"),
    }
    columns = {
        "id": "probe",
        "lat": "latitude",
        "lon": "longitude",
        "depth": "depth_cm",
        "time": "time",
    }
    sources = {
        "hourly": entry("gridzarr.GridZarrSource", "cell", s3.url("mixed", "hourly.zarr"), hourly),
        "lambert": entry(
            "gridzarr.GridZarrSource", "cell", f"{site.url}/na.zarr", lambert, gaps="allowed"
        ),
        "dem": entry(
            "raster.RasterSource",
            "cell",
            f"{raster.url}/dem.tif",
            {"elevation": one("1", "m"), "slope": one("1", "degree", derive="slope")},
        ),
        "soil": entry(
            "raster.RasterSource",
            "cell",
            f"{raster.url}/clay.tif",
            {"clay": one("1", "g kg-1", "percent")},
            crs=ALBERS,
        ),
        "smap": entry(
            "smap.SmapL3Source",
            "footprint",
            None,
            retrieved,
            collection={"short_name": "SPL3SMP", "version": "009"},
            repository=nasa.url,
            login="earthdata",
            passes=["am"],
        ),
        "uscrn": entry(
            "uscrn.UscrnSource",
            "site",
            f"{site.url}/daily01",
            uscrn,
            sites=f"{site.url}/stations.tsv",
        ),
        "probes": entry(
            "table.TableSource",
            "site",
            f"{site.url}/probes.csv",
            {"soil_moisture": one("water", "percent", "m3 m-3")},
            columns=columns,
            depth_units="cm",
        ),
    }
    del sources["smap"]["args"]["urlpath"]
    path = folder / "catalog.yaml"
    path.write_text(yaml.safe_dump({"metadata": {"version": 1}, "sources": sources}))
    return path


def experiment(path, folder):
    west, south, east, north = BOX
    tree = {
        "name": "mixed",
        "title": "sources of every kind, in small",
        "recipe": "default",
        "target": "soil_moisture",
        "sources": {
            "catalog": str(path),
            "forcing": ["hourly", "lambert"],
            "static": ["dem", "soil"],
            "satellite": "smap",
            "insitu": ["uscrn", "probes"],
        },
        "baselines": ["smap"],
        "domain": {
            "west_degrees": west,
            "south_degrees": south,
            "east_degrees": east,
            "north_degrees": north,
            "refinement": 4,
        },
        **{key: [FIRST, LAST] for key in ("period", "train_period", "test_period")},
        "inputs_from": "cell",
        "folds": {"kind": "block", "n_folds": 2, "block_km": 36.0},
        "arms": ["multiscale"],
        "n_seeds": 1,
        "network": {"hidden_size": 8},
        "train": {
            "window_days": 30,
            "warmup_days": 5,
            "footprints_per_step": 4,
            "sites_per_step": 4,
            "updates": 20,
        },
        "judging": {"min_days": 15},
    }
    made = folder / "mixed.yaml"
    made.write_text(yaml.safe_dump(tree))
    return made


@pytest.fixture(scope="module")
def ray_folder():
    """Of Ray's sessions, whose sockets need a short path."""
    with processes.temporary("sw-r-") as folder:
        yield folder


@pytest.fixture(scope="module")
def journey(tmp_path_factory, s3, ray_folder):
    """The experiment run from the command line: what it printed, and where its workspace is."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "rasters").mkdir()
    hourly, url = write_hourly(s3.url("mixed", "hourly.zarr"))
    options = files.with_endpoint(url, {})  # of this server, whatever others were there before
    hourly.to_zarr(url, zarr_format=3, consolidated=False, storage_options=options)
    write_lambert(folder)
    write_rasters(folder / "rasters")
    write_sites(folder)
    environment = os.environ | {
        "EARTHDATA_TOKEN": TOKEN,
        "MY_STORE_PASSWORD": PASSWORD,
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "RAY_TMPDIR": str(ray_folder),
    }
    environment.pop("RAY_ADDRESS", None)
    with (
        web.serve(folder) as site,
        web.serve(folder) as locked,
        miniatures_raster.served(folder / "rasters") as raster,
        earthdata_server.serve() as nasa,
    ):
        locked.token = TOKEN
        nasa.repository = write_smap(folder / "smap", locked.url)
        site.made.append((r"/$", miniatures_insitu.index(folder)))
        site.fails("probes.csv", 503)
        path = experiment(catalog(site, raster, nasa, s3, folder), folder)
        command = [str(processes.BIN / "soilweave"), "run", str(path)]
        command += ["--workspace", s3.url("mixed", "workspace")]
        ran = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=400, check=False
        )
        refused = subprocess.run(
            [*command, "--name", "refused"],
            capture_output=True,
            text=True,
            env=environment | {"EARTHDATA_TOKEN": TOKEN + "-expired"},
            timeout=200,
            check=False,
        )
    return folder, ran, refused, s3.url("mixed", "workspace", "mixed")


def test_every_stage_ends_and_products_stand_beside_the_arms(journey):
    _, ran, _, root = journey
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "Outputs:" in ran.stdout
    options = files.with_endpoint(root, {})
    url = f"{root}/maps/multiscale.zarr"
    maps = xr.open_zarr(url, consolidated=True, storage_options=options)
    inside = maps.soil_moisture.sel(time=slice(FIRST, LAST))
    assert float(inside.notnull().mean()) > 0.9
    assert re.search(r"smap\W+6\b", ran.stdout), ran.stdout


def test_the_cube_holds_what_each_source_says(journey):
    root = journey[3]
    cells = zarr_arrays.open_group(f"{root}/cube.zarr", "cells").sel(time=slice(FIRST, LAST))
    sites = zarr_arrays.open_group(f"{root}/cube.zarr", "sites").sel(time=slice(FIRST, LAST))
    footprints = zarr_arrays.open_group(f"{root}/cube.zarr", "footprints").sel(
        time=slice(FIRST, LAST)
    )
    np.testing.assert_allclose(cells.air_temperature, 283, atol=0.3)
    held = cells.shortwave.sel(time="2016-12-30").values
    np.testing.assert_allclose(held, 200, rtol=1e-6)  # 400 W m-2 over half of the day
    assert cells.shortwave.sel(time="2016-12-31").isnull().all()
    expected = 1500 + 100 * (WINDOW.cell_lat - 39)
    np.testing.assert_allclose(cells.elevation, expected[:, None] + 0 * cells.elevation, atol=1)
    np.testing.assert_allclose(cells.clay, 23.5, rtol=1e-6)
    assert float(cells.slope.max()) < 0.2
    ends = np.arange(1, 24 * len(cells.time) + 1)  # of the hours that a stamp closes
    expected = (rain(ends) * 1000).reshape(-1, 24).sum(1)
    assert expected.max() > 10
    held = cells.precipitation.values
    np.testing.assert_allclose(held, expected[:, None, None] + 0 * held, rtol=1e-5)
    seen = footprints.soil_moisture
    assert seen[:, :, 0].isnull().all()  # flagged as not recommended
    number = np.arange(0, len(seen), 2)
    expected = wetness(number[:, None], WINDOW.footprint_lat[None]) - 0.03
    np.testing.assert_allclose(seen[::2, :, 1], expected, atol=1e-5)
    assert seen[1::2].isnull().all()
    ids = zarr_arrays.read_attributes(f"{root}/cube.zarr", "sites")["id"]
    assert len(ids) == 6
    probe = sites.soil_moisture[:, ids.index("P0")].values
    np.testing.assert_allclose(probe, wetness(np.arange(len(probe)), 39.3), atol=6e-5)


def test_what_was_dropped_is_counted(journey):
    dropped = files.read_json(f"{journey[3]}/cube.zarr/manifest.json")["dropped"]
    assert dropped["satellite: flag"] == WINDOW.height * len(days(FIRST, LAST)[::2])


def test_an_expired_token_is_told_in_one_line(journey):
    refused = journey[2]
    assert refused.returncode == 2
    last = [line for line in refused.stderr.splitlines() if line.startswith("soilweave run:")]
    assert len(last) == 1
    assert "401" in last[0]
    assert "EARTHDATA_TOKEN" in last[0]


def test_no_secret_is_anywhere(journey, s3, ray_folder):
    """In what was printed, in the workspace on S3, in MLflow's store and in Ray's logs."""
    folder, ran, refused, _ = journey
    secrets = [TOKEN, PASSWORD, s3.secret, s3.key]
    texts = {"stdout": ran.stdout + refused.stdout, "stderr": ran.stderr + refused.stderr}
    with sqlite3.connect(folder / "mlflow.db") as database:
        texts["mlflow"] = "\n".join(database.iterdump())
    database.close()
    assert "mixed" in texts["mlflow"]
    logs = [p for p in Path(ray_folder).rglob("session_*/logs/**/*") if p.is_file()]
    assert logs
    texts |= {str(path): path.read_bytes().decode("latin-1") for path in logs}
    client = s3.client()
    for key in s3.keys("mixed/workspace"):
        if "/c/" not in key:
            body = client.get_object(Bucket=s3.bucket, Key=key)["Body"].read()
            texts[key] = body.decode("latin-1")
    client.close()
    assert len(texts) > 20
    for place, text in texts.items():
        found = [secret for secret in secrets if secret in text]
        assert not found, place
