"""`explain`: numbers are those of maps, cube and tables, and the chain of digests is followed."""

from __future__ import annotations

import json
import math
import shutil
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import web
import xarray as xr

from pipeline import cli, files, publish
from pipeline.errors import ConfigError, StoreError
from pipeline.experiment.config import experiment_window
from pipeline.explain import explain
from pipeline.explain.value import as_bits
from pipeline.progress import SilentProgress
from pipeline.storage.artefacts import Workspace, digest_of

LAT, LON, DAY = 40.0, -103.3, "2016-09-22"
NORMAL_90 = math.log(19) * math.sqrt(3) / math.pi  # of the logistic distribution
DEGREES_TO_KM = 6371.2 * math.pi / 180


@pytest.fixture(scope="module")
def home(demo):
    """The folder of the finished demo."""
    return demo[0] / "demo"


@pytest.fixture(scope="module")
def answer(home):
    return explain(str(home), LAT, LON, date.fromisoformat(DAY))


@pytest.fixture
def copy(home, tmp_path):
    """A copy of the demo, whose manifests a test may change."""
    return Path(shutil.copytree(home, tmp_path / "demo"))


def in_the_cell(dataset):
    """The cell that is nearest to the place, found without the grid's arithmetic."""
    lat, lon = dataset.lat.values, dataset.lon.values
    if lat.ndim > 1:  # in the root of the maps, not in the cube
        lat, lon = lat[:, 0], lon[0]
    return dataset.isel(y=int(np.abs(lat - LAT).argmin()), x=int(np.abs(lon - LON).argmin()))


def manifest(folder, name):
    return json.loads((folder / name / "manifest.json").read_text())


def test_value_and_interval_are_those_of_the_maps(home, answer):
    maps = in_the_cell(xr.open_zarr(home / "maps" / "multiscale.zarr")).sel(time=DAY)
    value = answer["value"]
    mean, std = float(maps.soil_moisture), float(maps.soil_moisture_std)
    assert value["mean"] == pytest.approx(mean, abs=1e-5)
    assert value["std"] == pytest.approx(std, abs=1e-5)
    low, high = value["intervals"]["90%"]
    assert low == pytest.approx(max(mean - NORMAL_90 * std, 0.005), abs=0.01)
    assert high == pytest.approx(mean + NORMAL_90 * std, abs=1e-4)
    assert low < value["intervals"]["50%"][0] < mean < value["intervals"]["50%"][1] < high
    assert (value["flags"], value["calibrated"], value["forcing"]) == ({}, True, "final")
    for name in ("attribute_distance", "probe_gain"):
        told = value["layers"][name]["value"]
        assert told == pytest.approx(float(maps[name]), abs=1e-5)
    distance = maps.attribute_distance
    within = float(distance) <= distance.attrs["applicability_limit"]
    where = "within the area" if within else "OUTSIDE the area"
    assert where in value["layers"]["attribute_distance"]["is"]


def test_the_cell_contains_the_place_and_the_footprint_the_cell(home, answer):
    cell, footprint = answer["cell"], answer["footprint"]
    bounds = cell["bounds"]
    assert bounds["south"] <= LAT < bounds["north"]
    assert bounds["west"] <= LON < bounds["east"]
    maps = in_the_cell(xr.open_zarr(home / "maps" / "multiscale.zarr"))
    assert cell["centre"] == pytest.approx([float(maps.lat), float(maps.lon)], abs=1e-5)
    seen = xr.open_zarr(home / "cube.zarr", group="footprints", consolidated=False)
    nearest = {
        "fy": int(np.abs(seen.lat.values - LAT).argmin()),
        "fx": int(np.abs(seen.lon.values - LON).argmin()),
    }
    assert (footprint["row"], footprint["column"]) == (nearest["fy"], nearest["fx"])
    expected = float(seen.soil_moisture.isel(nearest).sel(time=DAY))
    told = np.nan if footprint["observation"] is None else footprint["observation"]
    np.testing.assert_allclose(told, expected, atol=1e-5)


def test_the_nearest_sites_come_with_their_scores(home, answer):
    sites = pd.read_parquet(home / "folds.parquet").set_index("site")
    east = (sites.lon - LON) * math.cos(math.radians(LAT))
    km = np.hypot(sites.lat - LAT, east) * DEGREES_TO_KM
    found = answer["sites"]
    assert [site["site"] for site in found] == list(km.nsmallest(3).index)
    scores = pd.read_parquet(home / "scores.parquet")
    for site in found:
        assert site["distance_km"] == pytest.approx(km[site["site"]], rel=0.01)
        assert site["fold"] == sites.fold[site["site"]]
        rows = scores[(scores.id == site["site"]) & (scores.arm == "multiscale")]
        rmse = rows[(rows.metric == "rmse") & (rows.target == "site")].value.item()
        assert site["scores"]["rmse"] == pytest.approx(rmse, abs=1e-5)
        assert not site["in_this_cell"]


def test_a_site_in_the_cell_is_said_to_be_so(home):
    site = pd.read_parquet(home / "folds.parquet").iloc[3]
    (first, *_) = explain(str(home), site.lat, site.lon, date(2016, 5, 1))["sites"]
    assert (first["site"], first["in_this_cell"], first["distance_km"]) == (site.site, True, 0)


def test_the_inputs_of_the_last_days_are_those_of_the_cube(home, answer):
    cells = in_the_cell(xr.open_zarr(home / "cube.zarr", group="cells", consolidated=False))
    inputs = answer["inputs"]
    assert inputs["days"] == [f"2016-09-{day}" for day in range(18, 23)]
    forcing = inputs["forcing"]
    assert {"precipitation", "air_temperature"} <= {*forcing}
    for name, found in forcing.items():
        expected = cells[name].sel(time=slice("2016-09-18", DAY))
        np.testing.assert_allclose(found["values"], expected.values, rtol=1e-5, atol=1e-5)
        assert found["units"] == expected.units
    assert inputs["attributes"]["sand"]["values"] == pytest.approx(float(cells.sand), rel=1e-5)
    early = explain(str(home), LAT, LON, date(2016, 3, 2))["inputs"]["days"]
    assert early == ["2016-03-01", "2016-03-02"]


def test_the_chain_is_that_of_the_manifests(home, answer):
    origin = answer["origin"]
    maps, models, cube = (manifest(home, name) for name in ("maps", "models", "cube.zarr"))
    digests = {name: about["digest"] for name, about in origin["artefacts"].items()}
    assert digests == {
        "maps": digest_of(maps),
        "models": maps["inputs"]["models"],
        "folds": models["inputs"]["folds"],
        "cube": maps["inputs"]["cube"],
    }
    assert origin["artefacts"]["maps"]["commit"] == maps["git_commit"]
    assert origin["stale"] == []
    (member,) = origin["models"]
    checkpoint = home / "models" / "multiscale" / "fold=all" / "seed=0" / "checkpoint.safetensors"
    assert member == {"seed": 0, "sha256": files.sha256(checkpoint.read_bytes())}
    assert origin["entries"]["sites"] == {"license": "CC0-1.0", "doi": "none"}
    assert {*origin["entries"]} == {*cube["entries"]}
    logged = json.loads((home / "mlflow.json").read_text())
    assert origin["mlflow"]["run"] == logged["parent"]
    assert origin["mlflow"]["run_of_the_models"] == logged["children"]["multiscale/fold=all"]


def test_what_was_made_from_others_is_stale(copy):
    models = manifest(copy, "models") | {"identity": "0" * 64}
    (copy / "models" / "manifest.json").write_text(json.dumps(models))
    (copy / "cube.zarr" / "manifest.json").unlink()
    found = explain(str(copy), LAT, LON, date.fromisoformat(DAY))
    maps = manifest(copy, "maps")["inputs"]
    made = f"maps: made from models {maps['models'][:12]}, but 000000000000 is there: stale"
    gone = f"maps: made from cube {maps['cube'][:12]}, which is not there"
    assert {made, gone} <= {*found["origin"]["stale"]}
    assert found["origin"]["mlflow"] is None  # the run is that of the other models
    assert "there is no complete cube" in found["inputs"]["missing"]
    assert found["footprint"]["missing"] == "there is no cube"


def test_damaged_maps_are_not_explained(copy):
    shards = (copy / "maps" / "multiscale.zarr" / "soil_moisture" / "c").rglob("*")
    shard = next(path for path in shards if path.is_file())
    shard.write_bytes(b"short")
    with pytest.raises(StoreError, match="not as the manifest records"):
        explain(str(copy), LAT, LON, date.fromisoformat(DAY))


def test_flags_are_told_in_words(home):
    maps = xr.open_zarr(home / "maps" / "multiscale.zarr")
    bits = as_bits(maps.quality_flag.values)
    day, row, col = np.argwhere(bits & 4)[0]
    at = maps.isel(time=day, y=row, x=col)
    found = explain(
        str(home), float(at.lat), float(at.lon), date.fromisoformat(str(at.time.values)[:10])
    )
    assert "days that are not judged" in found["value"]["flags"]["frozen"]
    assert (found["cell"]["row"], found["cell"]["column"]) == (row, col)


def test_what_was_not_written_has_no_inputs():
    decoded = np.array([0.0, 4.0, np.nan])  # with a fill value of CF; without, bit 1 is stored
    assert as_bits(decoded).tolist() == [0, 4, 1]
    assert as_bits(np.array([1, 36], np.uint8)).tolist() == [1, 36]


def test_on_the_sea_the_nearest_land_is_named(world):
    root, window = world.workspace.root, experiment_window(world.experiment)
    mask = xr.open_zarr(f"{root}/cube.zarr", group="cells", consolidated=False).mask.values
    row, col = np.argwhere(mask == 0)[0]
    lat, lon = float(window.cell_lat[row]), float(window.cell_lon[col])
    day = world.experiment.period[0]
    with pytest.raises(ConfigError, match="has no inputs, as on sea, hence no value") as caught:
        explain(root, lat, lon, day)
    assert "\n" not in str(caught.value)
    words = caught.value.remedy.replace(",", "").split()
    there = [float(words[words.index(option) + 1]) for option in ("--lat", "--lon")]
    found = explain(root, *there, day)
    assert mask[found["cell"]["row"], found["cell"]["column"]] == 1
    assert found["value"]["mean"] is not None
    # No other land is nearer.
    land = np.argwhere(mask == 1)
    apart = [np.hypot(window.cell_y[r] - window.cell_y[row], window.cell_x[c] - window.cell_x[col])
             for r, c in land]  # fmt: skip
    chosen = found["cell"]["row"], found["cell"]["column"]
    own = apart[[tuple(cell) for cell in land].index(chosen)]
    assert own <= min(apart) * 1.5  # distances in the projection are not those on the sphere


def test_all_that_is_outside_is_told_at_once(home):
    with pytest.raises(ConfigError) as caught:
        explain(str(home), 10.0, 20.0, date(2018, 1, 1), "best")
    assert caught.value.problems == (
        "arm best: the maps have the arms multiscale, insitu, satellite",
        "10.000 N 20.000 E is outside of the maps, which cover 38.68 to 40.87 degrees north and "
        "-103.82 to -101.95 degrees east",
        "2018-01-01 is outside of the maps, which cover 2016-03-01 to 2016-12-20",
    )
    with pytest.raises(StoreError, match="nothing was run here"):
        explain(str(home.parent / "none"), LAT, LON, date(2016, 5, 1))


def same_of_release(found, answer, published_by):
    """What a release has is the same, and what it has not is said."""
    for key in ("value", "cell", "sites"):
        assert found[key] == answer[key], key
    step = 1e-4  # in which values are published
    for key, expected in answer["footprint"].items():
        assert found["footprint"][key] == pytest.approx(expected, abs=step), key
    assert "a release has no inputs" in found["inputs"]["missing"]
    origin, before = found["origin"], answer["origin"]
    for key in ("artefacts", "models", "entries", "catalog"):
        assert origin[key] == before[key], key
    assert origin["release"]["release"] == published_by


def test_a_publication_says_the_same(published, answer):
    found = explain(published, LAT, LON, date.fromisoformat(DAY))
    name = json.loads(Path(published, "latest.json").read_text())["release"]
    same_of_release(found, answer, name)
    assert found["product"]["license"] == "CC-BY-4.0"
    named = explain(f"{published}/releases/{name}", LAT, LON, date.fromisoformat(DAY))
    assert named == found


def test_the_maps_of_an_arm_are_explained_by_their_url(home, published):
    asked = (LAT, LON, date.fromisoformat(DAY))
    insitu = explain(str(home), *asked, "insitu")
    assert explain(str(home / "maps" / "insitu.zarr"), *asked) == insitu
    with pytest.raises(ConfigError, match=r"--arm satellite: .*insitu.zarr has the maps of insitu"):
        explain(str(home / "maps" / "insitu.zarr"), *asked, "satellite")
    with pytest.raises(
        ConfigError, match=r"maps alone do not say .*; give the experiment's folder"
    ):
        explain(str(home / "insitu.zarr"), *asked)


def test_a_place_on_an_edge_of_the_maps_is_in_the_outer_cell(home, answer):
    window = experiment_window(Workspace(str(home)).described())
    lat, lon = window.cell_edges
    ny, nx = window.cell_shape
    places = {(lat[-1], LON): (ny - 1, answer["cell"]["column"])}
    places |= {(LAT, lon[-1]): (answer["cell"]["row"], nx - 1)}
    places |= {(lat[0], lon[0]): (0, 0), (lat[-1], lon[-1]): (ny - 1, nx - 1)}
    for (north, east), cell in places.items():
        found = explain(str(home), float(north), float(east), date.fromisoformat(DAY))
        assert (found["cell"]["row"], found["cell"]["column"]) == cell


def test_a_publication_is_found_by_a_name_without_a_slash(published, monkeypatch, capsys):
    monkeypatch.chdir(Path(published).parent)
    asked = ("--lat", str(LAT), "--lon", str(LON), "--date", DAY)
    assert run(monkeypatch, Path(published).name, *asked) == 0
    assert "Release    " in capsys.readouterr().out
    assert run(monkeypatch, f"{Path(published).name}-not", *asked) == 2


def test_a_publication_on_a_web_server_says_the_same(published, answer):
    with web.serve(Path(published)) as site:
        found = explain(site.url, LAT, LON, date.fromisoformat(DAY))
    name = json.loads(Path(published, "latest.json").read_text())["release"]
    same_of_release(found, answer, name)


@pytest.mark.runs  # it needs the whole demo
def test_a_publication_in_a_bucket_says_the_same(home, answer, s3, tmp_path):
    url = s3.url(tmp_path.name)
    name = publish.publish(Workspace(str(home)), url, SilentProgress())
    same_of_release(explain(url, LAT, LON, date.fromisoformat(DAY)), answer, name)


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["soilweave", "explain", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code or 0


def test_the_verb_tells_it_in_words(home, answer, tmp_path, monkeypatch, capsys):
    asked = ("--lat", str(LAT), "--lon", str(LON), "--date", DAY)
    out = tmp_path / "why.json"
    assert run(monkeypatch, str(home), *asked, "--json", str(out)) == 0
    told = capsys.readouterr().out
    low, high = answer["value"]["intervals"]["90%"]
    for text in (
        f"Value      {answer['value']['mean']:.4g} m3 m-3",
        f"In 9 cases of 10, a probe at a typical point of the cell would read {low:.3f} to "
        f"{high:.3f} m3 m-3.",
        "Flags      none",
        "Nearest sites",
        "precipitation",
        "kg m-2 day-1",
        "licence CC0-1.0",
        answer["origin"]["artefacts"]["cube"]["digest"][:12],
        "The digests agree",
    ):
        assert text in told, text
    assert "…" not in told  # no number is cut off, although the screen has 80 columns
    assert json.loads(out.read_text()) == answer
    assert run(monkeypatch, str(home), *asked, "--arm", "satellite") == 0
    told = capsys.readouterr().out
    assert "arm satellite" in told
    assert "Flag       uncalibrated: the standard deviation was not scaled" in told
    assert run(monkeypatch, str(home), *asked[:-1], "22/9/2016") == 2
    assert "--date 22/9/2016: expected a day as YYYY-MM-DD" in capsys.readouterr().err
