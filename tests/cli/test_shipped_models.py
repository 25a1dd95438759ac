"""The models that come with soilweave: whole, described, and used by `score FILE.csv`."""

from __future__ import annotations

import re
from pathlib import Path

import miniatures_scan
import numpy as np
import pytest
import web
import xarray as xr
from miniatures_scan import CONSTANTS, PUBLIC, SETS
from packaging.version import Version

import pipeline
from pipeline import files
from pipeline.experiment import shipped_models
from pipeline.grid import ease
from pipeline.storage import models, records, tables
from pipeline.storage.artefacts import Artefact, Workspace

SERIES = ("APCP", "TMP_2", "SPFH_2", "DSWRF", "DLWRF", "UGRD_10", "VGRD_10")
DAYS = np.arange(np.datetime64("2015-04-01"), np.datetime64("2018-04-01"))
HEADER = "site,lat,lon,depth_cm,time,vwc_percent\n"


@pytest.fixture(params=shipped_models.list_names())
def shipped(request) -> Workspace:
    return Workspace(shipped_models.home(request.param))


def test_they_are_whole_and_small(shipped):
    """A recording of the format: a later version must still read every one of these files."""
    root = shipped.url("models")
    artefact = Artefact("models", f"{root}/")
    artefact.digest()  # checks size and SHA-256 of every file
    assert not records.seal_is_broken(artefact.manifest())
    assert not records.text_seal_is_broken(files.read_bytes(shipped.url("experiment.yaml")))
    experiment = shipped.described()
    for arm in {*experiment.arms} & {*files.list_folder(root)}:
        members = models.load_ensemble(root, arm)
        assert len(members) == experiment.n_seeds
        assert {member.origin["target"] for member in members} == {experiment.target}
        assert models.read_calibrations(root, arm)["all"].calibrated
    sites = tables.read_table(shipped.url("folds.parquet")).site
    assert {*members[0].origin["training_sites"]} <= {*sites}
    assert models.read_attribute_space(root) is not None
    assert models.load_ridge(root, models.ALL_SITES).weights.size
    assert sum(files.list_objects(shipped.root).values()) < 3e6


def test_their_card_describes_them(shipped):
    card, page = files.read_json(shipped.url("card.json")), Path(shipped.url("card.md")).read_text()
    manifest = Artefact("models", f"{shipped.url('models')}/").manifest()
    assert card["files"] == manifest["shards"]
    assert re.fullmatch("[0-9a-f]{40}", card["code_commit"])
    assert Version(card["version"]) <= Version(pipeline.__version__)
    assert card["arm"]["members"] == shipped.described().n_seeds
    for entry in card["data"].values():
        assert entry["license"] in page
    held_out = card["scores"]["held-out sites"]
    assert held_out["by_name"]["insitu"]["correlation"]["ci95"][0] > 0.7
    assert "The strongest rival in R is `insitu`" in page
    text = page + Path(shipped.url("card.json")).read_text()
    text += Path(shipped.url("models/manifest.json")).read_text()
    assert not re.search(r"/(tmp|home|work|root)/|\d+\.\d+\.\d+\.\d+", text)


def test_ls_names_them(soilweave):
    _, out, _ = soilweave("ls")
    assert "models, trained" in out
    assert "6 members of arm multiscale" in out


def table(folder, sites):
    """A CSV of made-up daily values of probes {id: (lat, lon, first day)}."""
    rng = np.random.default_rng(1)
    lines = [
        f"{site},{lat},{lon},5,{np.datetime64(first) + i},{value:.1f}"
        for site, (lat, lon, first) in sites.items()
        for i, value in enumerate(25 + np.cumsum(rng.normal(0, 1, 150)) % 9)
    ]
    file = folder / "my.csv"
    file.write_text(HEADER + "\n".join(lines) + "\n")
    return file


def test_without_the_files_the_inputs_come_from_public_servers(soilweave, tmp_path, monkeypatch):
    """Of the public set, here with two cells on this machine; nothing else is asked for."""
    monkeypatch.delenv("SOILWEAVE_DATA", raising=False)
    rng = np.random.default_rng(5)
    window = ease.Window(row=60, col=180, height=1, width=5, refinement=1)
    lat, lon = window.cell_lat[[0, 0]], window.cell_lon[[0, 4]]
    series = {f"{n}_FORA": rng.random((2, len(DAYS))).astype("float32") for n in SERIES}
    series["TMP_2_FORA"] += 280
    series["SMAP_AM"] = np.where(rng.random((2, len(DAYS))) < 0.5, np.nan, 0.2).astype("float32")
    constants = {n: rng.random(2).astype("float32") for n in CONSTANTS}
    miniatures_scan.geolearn(tmp_path / "set", np.stack([lat, lon], 1), DAYS, series, constants)
    file = table(tmp_path, {
        "in": (lat[0], lon[0] + 0.05, "2016-05-01"),  # a tenth of a cell from its centre
        "off": (lat[0], lon[0] + 0.5, "2017-05-01"),  # in the next cell, after the training
    })  # fmt: skip
    with web.serve(tmp_path) as site:
        (tmp_path / "catalog.yaml").write_text(PUBLIC.replace(SETS, f"{site.url}/set"))
        options = ["--set", f"sources.catalog={tmp_path}/catalog.yaml", "--json", tmp_path / "j"]
        code, out, err = soilweave("score", file, *options)
        assert code == 0, err
        assert "models of scan, 6 members; inputs: cells36 of catalog" in err
        rows = {row["id"]: row for row in files.read_json(str(tmp_path / "j"))["probes"]}
        assert (rows["in"]["cell_km"], rows["in"]["scores"]["multiscale"]["n"]) == (0, 150)
        assert rows["off"]["scores"]["multiscale"]["n"] == 0
        km = rows["off"]["cell_km"]
        assert (
            f"not scored: off all arms: 150 of 150 observed days without inputs; the nearest "
            f"cell with forcing is {km:.0f} km away" in out
        )
        assert (
            f"to score 1 more with the inputs of the nearest cell: --nearest {np.ceil(km):.0f}"
            in out
        )
        code, out, err = soilweave("score", file, *options, "--nearest", np.ceil(km))
        assert code == 0, err
        rows = {row["id"]: row for row in files.read_json(str(tmp_path / "j"))["probes"]}
        assert rows["off"]["scores"]["multiscale"]["n"] == 150, out


@pytest.mark.data
def test_a_table_without_depths_is_described_and_then_scored(soilweave, tmp_path, real_data):
    file, entry = tmp_path / "my.csv", f"{tmp_path}/my.yaml:mine"
    rows = table(tmp_path, {"a": (40.2677, -93.5977, "2016-05-01")}).read_text().splitlines()
    file.write_text("\n".join(",".join(row.split(",")[:3] + row.split(",")[4:]) for row in rows))
    code, _, err = soilweave("score", file)
    assert code == 2
    assert f"doctor {file} --set KEY=VALUE --write my.yaml:mine" in err
    assert soilweave("doctor", file, "--set", "depth=0.05", "--write", entry)[0] == 0
    code, out, err = soilweave("score", entry)
    assert code == 0, err
    assert "a at 2047" in out


@pytest.mark.data
def test_days_without_forcing_are_one_line(soilweave, tmp_path, real_data):
    file = table(tmp_path, {"late": (40.2677, -93.5977, "2020-05-01")})
    code, _, err = soilweave("score", file)
    assert code == 2
    said = "catalog scan has no forcing for late on any of the days observed, 2020-05-01 to 2020-09"
    assert said in err


@pytest.mark.data
def test_a_table_of_real_probes_is_scored_and_drawn(soilweave, real_data, tmp_path):
    """Values of SCAN sites: one in the cell of its site, one moved to a cell without a site."""
    places = {"creek": (2047, 40.2677, -93.5977), "bench": (2158, 37.3904, -111.393)}
    with xr.open_dataset(real_data / "scan_sites.nc", engine="h5netcdf") as raw:
        good = raw.sm_insitu.where(raw.qc == 0).load().assign_coords(site=raw.site.values)
    lines = []
    for name, (number, lat, lon) in places.items():
        series = good.sel(site=number).dropna("time")
        for day, value in zip(series.time.values.astype("datetime64[D]"), series, strict=True):
            lines.append(f"{name},{lat},{lon},5,{day},{100 * float(value):.1f}")
    file, found = tmp_path / "my.csv", tmp_path / "found.json"
    file.write_text(HEADER + "\n".join(lines) + "\n")
    code, out, err = soilweave("score", file, "--figure", tmp_path / "my.png", "--json", found)
    assert code == 0, err
    assert (tmp_path / "my.png").read_bytes()[:4] == b"\x89PNG"
    assert "1 probe in the cell of a training site, or within 1 km: creek at 2047" in out
    rows = {row["id"]: row for row in files.read_json(str(found))["probes"]}
    assert {name: row["group"] for name, row in rows.items()} == {
        "creek": "trained",
        "bench": "unseen",
    }
    # What the models of 0.2.0 scored when they were made; CPUs of other kinds round otherwise.
    for name, correlation, rmse in (("creek", 0.8711, 0.0918), ("bench", 0.7422, 0.0637)):
        scores = rows[name]["scores"]["multiscale"]
        assert scores["correlation"] == pytest.approx(correlation, abs=0.005)
        assert scores["rmse"] == pytest.approx(rmse, abs=0.002)
    code, out, err = soilweave("score", file, "--adjust", "--figure", tmp_path / "curve.png")
    assert code == 0, err
    assert "k = 90" in out
