"""Match-ups of core sites judge cell means: `score` and `baselines` on the small demo's planet."""

from __future__ import annotations

import json
from pathlib import Path

import miniatures_insitu
import numpy as np
import pytest
import xarray as xr
import yaml
from miniatures_insitu import CoreSite
from small_demo import OPTIONS, SETTINGS
from typer.testing import CliRunner

from pipeline.catalog import intake_catalog, products
from pipeline.cli import app
from pipeline.experiment import load
from pipeline.storage import tables
from pipeline.storage.artefacts import Workspace

N_PIXELS = 3


@pytest.fixture(scope="module")
def core(demo, tmp_path_factory):
    """Match-ups whose pixels are cells of the planet: {pixel: id of the cell}, and their entry."""
    workspace, folder = Workspace(str(demo[0] / "demo")), tmp_path_factory.mktemp("core")
    scores = tables.read_table(workspace.url("scores.parquet"))
    cells = sorted(scores[scores.target == "truth"].id.unique())[:N_PIXELS]
    paths = sorted(Path(workspace.url("planet")).glob("truth_*.nc"))
    truth = xr.concat([xr.open_dataset(path, engine="h5netcdf") for path in paths], "time")
    noons = truth.time.values.astype("datetime64[D]") + np.timedelta64(12 * 60 + 30, "m")
    pixels, sites = {}, []
    for i, cell in enumerate(cells):
        at = truth.isel(dict(zip(truth.SM.dims[1:], map(int, cell.split(",")), strict=True)))
        records = [(noon, f"{value:.7f}") for noon, value in zip(noons, at.SM.values, strict=True)]
        pixels[f"160109{i:02d}"] = cell
        lat, lon = (float(at[name]) for name in ("lat", "lon"))
        sites.append(CoreSite(f"160109{i:02d}", lat, lon, records))
    miniatures_insitu.write_core_sites(folder / "files", sites)
    entries = intake_catalog.read_entries(intake_catalog.catalog_url("insitu"))
    entry = entries["smap_core_sites"]
    entry = entry | {"args": entry["args"] | {"urlpath": str(folder / "files")}}
    del entry["environment"]
    (folder / "core.yaml").write_text(yaml.safe_dump({"sources": {"core": entry}}))
    return pixels, f"{folder}/core.yaml:core"


def test_scores_at_core_sites_are_those_against_the_truth(demo, core, tmp_path):
    pixels, entry = core
    command = ["score", "demo", "--workspace", str(demo[0]), *OPTIONS, "--sites", entry]
    found = CliRunner().invoke(app, [*command, "--json", str(tmp_path / "scores.json")])
    assert found.exit_code == 0, found.output
    summary = json.loads((tmp_path / "scores.json").read_text())
    assert summary["unseen"]["n_sites"] == N_PIXELS
    scores = tables.read_table(str(demo[0] / "demo" / "scores.parquet"))
    truth = scores[scores.target == "truth"].set_index(["id", "arm", "metric"]).value
    by_id = {probe["id"]: probe["scores"] for probe in summary["probes"]}
    assert by_id.keys() == pixels.keys()
    for pixel, cell in pixels.items():
        for arm in ("multiscale", "insitu"):
            # Maps round their values, which is nearly all of the difference.
            for metric, tolerance in (("rmse", 1e-4), ("bias", 1e-4), ("correlation", 1e-3)):
                expected = truth[cell, arm, metric]
                assert by_id[pixel][arm][metric] == pytest.approx(expected, abs=tolerance)


def test_products_are_sampled_at_core_sites(demo, core):
    """The planet's truth as a product: at the pixels it is what the match-ups say."""
    _, entry = core
    settings = [*SETTINGS, f"sources.insitu=[{entry}]", "baselines=[truth]"]
    experiment = Workspace(str(demo[0] / "demo")).place(load.load_experiment("demo", settings))
    sites = intake_catalog.open_source(experiment, entry)
    opened = products.open_products(experiment)
    days = sites.time.values
    places = (sites.lat.values, sites.lon.values)
    sampled = products.sample_products(experiment, opened, places, days)["truth"]
    observed = sites[experiment.target].values.T
    assert np.isfinite(observed).sum() == observed.size > 800
    np.testing.assert_allclose(sampled.series, observed, atol=1e-6)
    assert (sampled.distance_km < 0.1).all()
