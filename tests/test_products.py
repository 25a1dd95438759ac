"""Products as baselines: sampled at their own cells, read in parts, in the table of the arms."""

import io
import re
import shutil

import numpy as np
import pytest
import rich.console
import xarray as xr
import yaml

from pipeline import evaluate, files, render, report, tables
from pipeline.cube import Cube
from pipeline.progress import Silent
from pipeline.store import Workspace

TARGET, SHIFT = "snow_depth", 0.25
METADATA = {
    "support": "cell",
    "license": "CC0-1.0",
    "doi": "10.1000/snow",
    "time_convention": "UTC day",
    "period": "2019-11-20..2020-04-27",
    "auth": "none",
}


def entry(driver, url, **args):
    mapping = {TARGET: {"from": "SD", "units": "cm", "to": "m"}}
    return {
        "driver": f"pipeline.sources.{driver}",
        "description": "a product",
        "args": {"urlpath": str(url), "mapping": mapping, **args},
        "metadata": METADATA,
    }


def write_points(path, values, days, lat, lon):
    """(day, place) values in metres, as a provider's file of points in centimetres."""
    coords = {"time": days.astype("datetime64[ns]"), "lat": ("spot", lat), "lon": ("spot", lon)}
    values = (100 * values).astype("float32")
    made = xr.Dataset({"SD": (("time", "spot"), values, {"units": "cm"})}, coords)
    made.to_netcdf(path, engine="h5netcdf")


def write_grid(path, values, days, lat, lon):
    """(day, lat, lon) values in metres, as a provider's file in centimetres."""
    coords = {"time": days.astype("datetime64[ns]"), "lat": lat, "lon": lon}
    values = (100 * values).astype("float32")
    made = xr.Dataset({"SD": (("time", "lat", "lon"), values, {"units": "cm"})}, coords)
    made.to_netcdf(path, engine="h5netcdf")


class Shelf:
    """A catalog of products of the small world, in a folder, and a workspace to judge them in."""

    def __init__(self, world, folder):
        self.world, self.folder, self.entries = world, folder, {}
        without = shutil.ignore_patterns("report.*", "scores.*", "summary.json", "maps", "state")
        root = shutil.copytree(world.workspace.root, folder / "snow", ignore=without)
        self.workspace = Workspace(str(root))
        self.cube = Cube.open(self.workspace.url("cube.zarr"))
        self.observed = self.cube.series(self.cube.sites, TARGET)
        self.lat, self.lon = (self.cube.sites[name].values for name in ("lat", "lon"))

    def put(self, name, spec):
        self.entries[name] = spec
        tree = {"metadata": {"version": 1}, "sources": self.entries}
        (self.folder / "shelf.yaml").write_text(yaml.safe_dump(tree))

    def points(self, name, values, days=None, **args):
        url = self.folder / f"{name}.nc"
        write_points(url, values, self.cube.days if days is None else days, self.lat, self.lon)
        self.put(name, entry("points.PointsSource", url, place="spot", **args))

    def on_the_cells(self, name, values):
        """A grid that is ours, southward up and from 0 to 360 degrees, the sites' cells filled."""
        cells = self.cube.cells
        field = np.full((len(values), cells.sizes["y"], cells.sizes["x"]), np.nan)
        field[:, self.cube.sites["y"].values, self.cube.sites["x"].values] = values
        url = self.folder / f"{name}.nc"
        lat, lon = cells["lat"].values[::-1], cells["lon"].values % 360
        write_grid(url, field[:, ::-1], self.cube.days, lat, lon)
        self.put(name, entry("gridded.GriddedSource", url))

    def experiment(self, *names, **changes):
        named = tuple(f"{self.folder / 'shelf.yaml'}:{name}" for name in names)
        return self.world.experiment.model_copy(update={"baselines": named, **changes})


@pytest.fixture
def shelf(world, tmp_path):
    return Shelf(world, tmp_path)


@pytest.fixture(scope="module")
def judged(world, tmp_path_factory):
    """Three products judged: a perfect one, a shifted one on a grid, one with half of the days."""
    shelf = Shelf(world, tmp_path_factory.mktemp("products"))
    shelf.points("perfect", shelf.observed)
    shelf.on_the_cells("shifted", shelf.observed + SHIFT)
    shelf.points("half", shelf.observed[::2], shelf.cube.days[::2])
    experiment = shelf.experiment("perfect", "shifted", "half")
    summary = evaluate.run(experiment, shelf.workspace, Silent())
    report.run(experiment, shelf.workspace, Silent())
    return shelf, experiment, summary


def test_products_stand_in_the_summary_beside_the_other_baselines(judged, world):
    _, _, summary = judged
    assert list(summary["baselines"]) == ["ridge", "footprint", "perfect", "shifted", "half"]
    for name in ("ridge", "footprint"):
        assert summary["baselines"][name] == world.summary["baselines"][name]
    assert summary["arms"] == world.summary["arms"]
    perfect, shifted, half = (summary["baselines"][n] for n in ("perfect", "shifted", "half"))
    n_sites = world.summary["arms"]["insitu"]["n_sites"]
    assert (perfect["n_sites"], shifted["n_sites"]) == (n_sites, n_sites)
    assert perfect["median"]["correlation"] == pytest.approx(1, abs=1e-6)
    assert perfect["median"]["rmse"] == pytest.approx(0, abs=1e-6)
    assert perfect["ci95"]["rmse"] == pytest.approx([0, 0], abs=1e-6)
    assert shifted["median"]["bias"] == pytest.approx(SHIFT, abs=1e-6)
    assert shifted["median"]["rmse"] == pytest.approx(SHIFT, abs=1e-6)
    assert shifted["median"]["ubrmse"] == pytest.approx(0, abs=1e-6)
    assert half["median"]["rmse"] == pytest.approx(0, abs=1e-6)
    assert perfect["distance_km"].keys() == set(judged[0].cube.site_ids)
    assert max(perfect["distance_km"].values()) == 0
    assert 0 <= max(shifted["distance_km"].values()) < 1e-3


def test_and_in_the_table_of_scores_with_pairs_of_their_own(judged):
    shelf, _, _ = judged
    scores = tables.read(shelf.workspace.url("scores.parquet"))
    assert not scores.duplicated(["id", "arm", "metric"]).any()
    pairs = np.isfinite(shelf.observed).sum(0)
    rows = scores[scores.metric == "rmse"].set_index(["arm", "id"])
    ids = list(shelf.cube.site_ids)
    for name, expected in (
        ("perfect", pairs),
        ("shifted", pairs),
        ("half", np.isfinite(shelf.observed[::2]).sum(0)),
    ):
        found = rows.loc[name].loc[ids]
        np.testing.assert_array_equal(found.n, expected)
        assert set(found.target) == {"site"}
    assert (rows.loc["half"].n < rows.loc["perfect"].n).all()


def test_paired_differences_are_on_common_days(judged):
    shelf, _, summary = judged
    differences = summary["paired"]
    others = ("insitu", "satellite", "ridge", "footprint", "perfect", "shifted", "half")
    assert differences.keys() == {f"multiscale-{other}" for other in others}
    multiscale = summary["arms"]["multiscale"]["median"]["rmse"]
    against = differences["multiscale-perfect"]["rmse"]
    assert against["median_difference"] == pytest.approx(multiscale, abs=1e-6)
    table = tables.read(shelf.workspace.url("sites.parquet"))
    own = table[table.arm == "multiscale"]
    both = own[own.time.isin(shelf.cube.days[::2].astype("datetime64[ns]"))]
    error = (both.prediction - both.observation) ** 2
    rmse = np.sqrt(error.groupby(both.site).mean())
    found = differences["multiscale-half"]["rmse"]
    assert found["median_difference"] == pytest.approx(rmse.median(), abs=1e-6)
    assert found["median_difference"] != pytest.approx(multiscale, abs=1e-6)


def test_and_are_printed_in_a_terminal_of_80_columns(judged):
    _, _, summary = judged
    console = rich.console.Console(width=80, record=True, file=io.StringIO())
    for table in render.tables(summary):
        console.print(table)
    told = console.export_text()
    assert re.search(r"^ *shifted +\d+ ", told, re.M)
    assert re.search(r"^ *multiscale-perfect +\d+ ", told, re.M)
    assert "+.2500" in told
    assert "…" not in told


def test_and_on_the_page_with_their_licence(judged):
    shelf, _, _ = judged
    html = files.read_bytes(shelf.workspace.url("report.html")).decode()
    row = re.search(r'<tr data-name="shifted".*?</tr>', html, re.S)[0]
    assert "+.250" in row
    assert re.search(r'<tr data-name="multiscale-shifted">', html)
    assert "Products (perfect, shifted, half) have at a site" in html
    cells = re.search(r"<tr><td>shifted</td>.*?</tr>", html[html.index('data-table="entries"') :])
    assert "CC0-1.0" in cells[0]
    assert "10.1000/snow" in cells[0]
