"""The form of each artefact, pinned: a change of form is a change here."""

import json

import numpy as np
import pandas as pd
import pytest
import zarr

from model import checkpoint
from pipeline import files
from pipeline.storage import models, tables

FORCING, STATIC, TARGET = ["air_temperature", "snowfall"], ["elevation"], "snow_depth"
UNITS = {"air_temperature": "K", "snowfall": "kg m-2 day-1", "elevation": "m", "snow_depth": "m"}
SIZES = {"time": 160, "y": 12, "x": 16, "fy": 3, "fx": 4, "site": 24}
DIMS = {"cells": ("y", "x"), "footprints": ("fy", "fx"), "sites": ("site",)}
VARYING = {"cells": FORCING, "footprints": [TARGET], "sites": [TARGET, *FORCING]}
CONSTANT = {"cells": STATIC, "footprints": [], "sites": STATIC}
METRICS = {"bias", "rmse", "ubrmse", "correlation", "anomaly_correlation", "kge"}
TEXT, REAL, SINGLE, DAY = "str", "float64", "float32", "datetime64[ns]"


@pytest.fixture(scope="module")
def cube(world):
    return zarr.open_group(world.workspace.url("cube.zarr"), mode="r")


def table(world, *path):
    return tables.read_table(world.workspace.url(*path))


def columns(found):
    """Name and type of every column, text as `str`."""
    is_text = pd.api.types.is_string_dtype
    return {name: TEXT if is_text(values) else str(values.dtype) for name, values in found.items()}


def test_cube_has_three_groups_and_says_what_it_is(cube, world):
    assert cube.metadata.zarr_format == 3
    assert cube.metadata.consolidated_metadata is not None
    assert sorted(name for name, _ in cube.groups()) == ["cells", "footprints", "sites"]
    assert dict(cube.attrs) == {
        "title": world.experiment.title,
        "period": ["2019-11-20", "2020-04-27"],
        "target": TARGET,
        "forcing": FORCING,
        "static": STATIC,
        "refinement": 4,
        "window": [60, 180, 3, 4],
    }
    ids, network = [f"snow-{i:02d}" for i in range(24)], ["sites"] * 24
    assert dict(cube["sites"].attrs) == {"id": ids, "network": network}


@pytest.mark.parametrize("group", DIMS)
def test_cube_arrays_of_variables(cube, group):
    wanted = dict.fromkeys(VARYING[group], ("time", *DIMS[group]))
    wanted |= dict.fromkeys(CONSTANT[group], DIMS[group])
    for name, dims in wanted.items():
        array = cube[group][name]
        assert array.metadata.dimension_names == dims, name
        assert array.shape == tuple(SIZES[dim] for dim in dims)
        assert array.dtype == np.float32
        assert np.isnan(array.fill_value)
        assert array.shards == tuple(32 if dim == "time" else 256 for dim in dims)
        assert array.chunks == tuple(32 if dim == "time" else 64 for dim in dims)
        assert array.attrs["units"] == UNITS[name]
        assert array.attrs["long_name"]
    assert cube["cells"]["air_temperature"].attrs["standard_name"] == "air_temperature"


def test_cube_coordinates_and_mask(cube):
    found = {
        f"{group}/{name}": (array.metadata.dimension_names, array.dtype.str)
        for group, members in cube.groups()
        for name, array in members.arrays()
        if name not in (*VARYING[group], *CONSTANT[group])
    }
    time = {f"{group}/time": (("time",), "<i4") for group in DIMS}
    cells = {"y": ("y",), "x": ("x",), "lat": ("y",), "lon": ("x",)}
    sites = dict.fromkeys(("y", "x", "fy", "fx"), (("site",), "<i4"))
    sites |= dict.fromkeys(("lat", "lon"), (("site",), "<f8"))
    assert found == {
        **time,
        **{f"cells/{name}": (dims, "<f8") for name, dims in cells.items()},
        "cells/mask": (("y", "x"), "|u1"),
        "footprints/lat": (("fy",), "<f8"),
        "footprints/lon": (("fx",), "<f8"),
        **{f"sites/{name}": form for name, form in sites.items()},
    }
    assert (cube["cells/mask"].shards, cube["cells/mask"].fill_value) == ((256, 256), 0)
    for group in DIMS:
        attrs = cube[group]["time"].attrs
        assert attrs["units"] == "days since 1970-01-01"
        units = [cube[group][name].attrs["units"] for name in ("lat", "lon")]
        assert units == ["degrees_north", "degrees_east"]


def test_maps_and_state(world):
    maps = zarr.open_group(world.workspace.url("maps/insitu.zarr"), mode="r")
    assert maps.metadata.consolidated_metadata is not None
    coordinates = {"time", "time_bnds", "y", "x", "lat", "lon", "crs", "input_status"}
    fields = {TARGET: "<i2", f"{TARGET}_std": "<i2", "quality_flag": "|u1"}
    layers = {"attribute_distance", "probe_gain"}
    for group, chunks in ((maps, (1, 16, 16)), (maps["series"], (384, 16, 16))):
        beside = set() if group is not maps else layers
        assert {name for name, _ in group.arrays()} == coordinates | fields.keys() | beside
        for name, dtype in fields.items():
            array = group[name]
            assert (array.metadata.dimension_names, array.dtype.str) == (("time", "y", "x"), dtype)
            assert (array.shape, array.chunks) == ((160, 12, 16), chunks)
        assert group["time"].attrs["bounds"] == "time_bnds"
        status = group["input_status"]
        assert (status.metadata.dimension_names, status.dtype.str) == (("time",), "|u1")
        assert (status.fill_value, status.attrs["flag_meanings"]) == (1, "final preliminary")
    for array in (maps[name] for name in layers):
        form = (array.metadata.dimension_names, array.shape, array.dtype.str)
        assert form == (("y", "x"), (12, 16), "<f4")
        assert array.attrs.keys() >= {"long_name", "comment", "units", "grid_mapping"}
    assert maps[TARGET].attrs.keys() >= {"scale_factor", "add_offset", "_FillValue", "units"}
    assert maps["quality_flag"].attrs["flag_masks"] == [1, 2, 4, 8, 16, 32]
    state = zarr.open_group(world.workspace.url("state/insitu.zarr"), mode="r")
    dims = {name: array.metadata.dimension_names for name, array in state.arrays()}
    walked = ("block", "member", "y", "x", "unit")
    levels = dict.fromkeys(("site_level", "satellite_level"), ("member", "y", "x"))
    made_of = {"attributes": ("attribute", "y", "x"), "mean_variance": ("y", "x")}
    assert dims == {"hidden": walked, "cell": walked, "block": ("block",), **levels, **made_of}
    assert state["hidden"].shape == (3, 1, 12, 16, 16)


def test_folds(world):
    folds = table(world, "folds.parquet")
    places = {"site": TEXT, "lat": REAL, "lon": REAL}
    assert columns(folds) == places | {"block": "int64", "fold": "int64"}
    assert set(folds.fold) == {0, 1, 2}
    geojson = files.read_json(world.workspace.url("folds.geojson"))
    assert geojson["digest"] == world.workspace.artefact("folds").manifest()["digest"]
    first = geojson["features"][0]
    assert first["properties"].keys() == {"site", "block", "fold"}
    assert first["geometry"]["coordinates"] == [folds.lon[0], folds.lat[0]]


def test_sites(world):
    sites = table(world, "sites.parquet")
    assert columns(sites) == {
        **dict.fromkeys(("arm", "fold", "site", "status", "period"), TEXT),
        "time": DAY,
        **dict.fromkeys(("observation", "prediction", "std", "std_raw"), SINGLE),
        **dict.fromkeys(("site_head", "satellite_head"), SINGLE),
    }
    assert set(sites.arm) == {"multiscale", "insitu", "satellite", "ridge"}
    assert set(sites.period) == {"train"}
    status = sites.groupby("arm").status.unique().map(tuple).to_dict()
    out_of_fold = dict.fromkeys(("multiscale", "insitu", "ridge"), ("out_of_fold",))
    assert status == {**out_of_fold, "satellite": ("unseen",)}
    assert len(sites) == 4 * 24 * 160
    arm = sites[sites.arm == "satellite"]
    assert set(arm.fold) == {"all"}
    assert (arm.site_head.count(), arm.satellite_head.count()) == (0, 24 * 160)


def test_history(world):
    history = table(world, "models", "multiscale", "fold=all", "seed=0", "history.parquet")
    losses = ("loss_satellite", "loss_insitu", "empty_satellite", "empty_insitu")
    assert columns(history) == {"step": "int64"} | dict.fromkeys((*losses, "learning_rate"), REAL)
    assert history.step.iloc[-1] == world.experiment.train.updates


def test_scores(world):
    scores = table(world, "scores.parquet")
    text = dict.fromkeys(("target", "id", "arm", "fold", "seed", "period", "metric"), TEXT)
    analytic = dict.fromkeys(("n_eff", "low", "high"), REAL)
    assert columns(scores) == {**text, "n": "int64", "value": REAL, "reason": TEXT, **analytic}
    assert (set(scores.metric), set(scores.target)) == (METRICS, {"site"})
    assert not scores.duplicated(["id", "arm", "seed", "period", "metric"]).any()


def test_checkpoint(world):
    jobs = models.list_workspace_models(world.workspace, world.experiment)
    assert len(jobs) == 4 + 4 + 1  # arm satellite sees no site: it has no folds
    for folder in (models.model_folder(world.workspace.url("models"), job) for job in jobs):
        assert files.list_folder(folder) == ["checkpoint.safetensors", "history.parquet"]
    url = world.workspace.url("models/multiscale/fold=0/seed=0/checkpoint.safetensors")
    weights, header = checkpoint.unpack_safetensors(files.read_bytes(url))
    assert "linear.weights" in weights  # the recipe has a share of ridge
    inputs = {"forcing", "static", "slow", "scaler"}
    assert header.keys() == inputs | {
        "format",
        "network",
        "likelihood",
        "target",
        "heads",
        "origin",
        "penalty",
    }
    assert (header["forcing"], header["static"]) == (FORCING, STATIC)
    slow = ["snowfall_mean_7d", "snowfall_mean_30d"]
    assert header["scaler"].keys() == {*FORCING, *STATIC, *slow}
    assert header["heads"] == ["site", "satellite"]
    origin = header["origin"]
    named = {"arm", "fold", "seed", "updates", "target", "units", "inputs_sha256", "recipe"}
    assert origin.keys() == named | {"training_sites"}
    assert origin["inputs_sha256"] == world.workspace.artefact("models").digest()
    folds = table(world, "folds.parquet")
    assert set(origin["training_sites"]) <= set(folds.site[folds.fold != 0])


def test_calibration(world):
    for arm, folds in (("multiscale", {"0", "1", "2", "all"}), ("satellite", {"all"})):
        found = files.read_json(world.workspace.url("models", arm, "calibration.json"))
        assert found.keys() == folds
        for values in found.values():
            assert values.keys() == {"level_weight", "width_scale", "calibrated"}
            assert values["calibrated"] is (arm != "satellite")


def test_attributes_of_sites(world):
    found = files.read_json(world.workspace.url("models", "attributes.json"))
    sizes = {name: np.shape(values) for name, values in found.items()}
    n = len(STATIC + FORCING)
    assert sizes == {"mean": (n,), "std": (n,), "sites": (24, n), "learnt": (24,), "limit": ()}
    shards = world.workspace.artefact("models").manifest()["shards"]
    assert "attributes.json" in {record["key"] for record in shards}


def test_next_probes(world):
    found = pd.read_csv(world.workspace.url("next_probes.csv"))
    numbers = ("lat", "lon", "std", "attribute_distance", "gain")
    assert columns(found) == {"rank": "int64", **dict.fromkeys(numbers, REAL)}
    assert found["rank"].tolist() == list(range(1, 16))
    shards = world.workspace.artefact("maps").manifest()["shards"]
    keys = {record["key"] for record in shards}
    assert {"next_probes.csv", "maps/insitu.zarr/probe_gain/c/0/0"} <= keys


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("cube", {"complete_through", "dropped", "entries", "missing", "nodes", "preliminary"}),
        ("folds", {"digest"}),
        ("models", {"updates", "features", "tables", "nodes"}),
        ("maps", {"complete_through", "nodes", "preliminary", "cube_updates"}),
        ("scores", {"dropped", "entries"}),
    ],
)
def test_manifests(world, name, extra):
    artefact = world.workspace.artefact(name)
    manifest = artefact.manifest()
    always = {"inputs_sha256", "inputs", "git_commit", "begun", "created"}
    always |= {"shards", "empty", "artefact", "record_sha256"}
    always |= {"metadata"} if name in ("cube", "maps") else set()
    assert manifest.keys() == always | extra
    assert manifest["inputs"]["schema"] == 4
    assert manifest["inputs_sha256"] == files.sha256_of_json(manifest["inputs"])
    own = artefact.prefix.endswith("/") and name != "maps"  # maps and state lie side by side
    root = artefact.prefix if own else world.workspace.root
    for record in manifest["shards"]:
        data = files.read_bytes(files.join(root, record["key"]))
        assert (record["size"], record["sha256"]) == (len(data), files.sha256(data))


def test_summary(world):
    summary = json.loads(files.read_bytes(world.workspace.url("summary.json")))
    named = (summary["experiment"], summary["recipe"], summary["n_sites"])
    assert named == ("snow", "default", 24)
    assert summary["arms"].keys() == {"multiscale", "insitu", "satellite"}
    assert summary["baselines"].keys() == {"footprint", "ridge"}
    for name, judged in (summary["arms"] | summary["baselines"]).items():
        assert judged["median"].keys() == judged["ci95"].keys() == METRICS
        if name in summary["arms"]:
            assert judged["coverage"].keys() == {"50", "90"}
            assert all(c.keys() == {"before", "after"} for c in judged["coverage"].values())
    others = ("insitu", "satellite", "footprint", "ridge")
    assert summary["paired"].keys() == {f"multiscale-{other}" for other in others}
    for pair in summary["paired"].values():
        assert pair.keys() >= {"correlation", "rmse", "ubrmse"}
        for difference in pair.values():
            assert difference.keys() == {"median_difference", "ci95", "n_sites"}
            low, high = difference["ci95"]
            assert low <= difference["median_difference"] <= high


def test_summary_of_strata(world):
    summary = json.loads(files.read_bytes(world.workspace.url("summary.json")))
    assert all(d["n_eff"] > 1 for d in (summary["arms"] | summary["baselines"]).values())
    strata = summary["strata"]
    assert set(strata.pop("attribute distance", ())) <= {"under 1", "1 to 2", "2 and more"}
    assert {name: set(names) for name, names in strata.items()} == {
        "season": {"DJF", "MAM"},
        "frozen": {"frozen", "thawed"},
    }
    for judged in (judged for names in strata.values() for judged in names.values()):
        assert judged.keys() == {"n_sites", "arms", "baselines", "paired"}
        for group in ("arms", "baselines"):
            assert judged[group].keys() == summary[group].keys()
            for described in judged[group].values():
                assert described.keys() == {"n_sites", "median", "ci95"}
                assert described["median"].keys() == {"bias", "rmse", "ubrmse", "correlation"}
        assert judged["paired"].keys() == summary["paired"].keys()
    triple = summary["triple_collocation"]
    assert triple.keys() == {"multiscale", "insitu", "satellite", "ridge"}
    for found in triple.values():
        assert found.keys() == {"n_sites", "undefined", "site", "satellite", "model"}
        for record in ("site", "satellite", "model"):
            assert found[record].keys() == {"n_sites", "median", "ci95"}
            names = {"error_std", "correlation", "snr_db"}
            assert found[record]["median"].keys() == found[record]["ci95"].keys() == names
