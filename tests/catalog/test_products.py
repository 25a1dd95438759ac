"""Products as baselines: sampled at their own cells, read in parts, in the table of the arms."""

import io
import re
import shutil

import dask.array
import numpy as np
import pytest
import rich.console
import xarray as xr
import yaml

from pipeline import evaluate, files, prepare
from pipeline.catalog import products
from pipeline.cli import tables as cli_tables
from pipeline.errors import ConfigError, DataError, StoreError
from pipeline.evaluate import report
from pipeline.experiment import load
from pipeline.progress import SilentProgress
from pipeline.storage import tables
from pipeline.storage.artefacts import Workspace
from pipeline.storage.cube import Cube

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
    fewer = {"judging": experiment.judging.model_copy(update={"bootstrap_draws": 100})}
    experiment = experiment.model_copy(update=fewer)
    summary = evaluate.run(experiment, shelf.workspace, SilentProgress())
    report.run(experiment, shelf.workspace, SilentProgress())
    return shelf, experiment, summary


def test_products_stand_in_the_summary_beside_the_other_baselines(judged, world):
    _, _, summary = judged
    assert list(summary["baselines"]) == ["ridge", "footprint", "perfect", "shifted", "half"]
    for kind in ("arms", "baselines"):
        for name, made in world.summary[kind].items():
            assert summary[kind][name]["median"] == made["median"]
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
    scores = tables.read_table(shelf.workspace.url("scores.parquet"))
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
    table = tables.read_table(shelf.workspace.url("sites.parquet"))
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
    for table in cli_tables.summary_tables(summary):
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
    assert "Products (perfect, shifted, half) are evaluated with their grid cell" in html
    cells = re.search(r"<tr><td>shifted</td>.*?</tr>", html[html.index('data-table="entries"') :])
    assert "CC0-1.0" in cells[0]
    assert "10.1000/snow" in cells[0]


def test_scores_are_made_anew_when_a_product_is(shelf, judged):
    shelf.points("own", shelf.observed)
    experiment = shelf.experiment("own")
    made = {"own": products.product_digests(experiment)}
    assert made["own"].keys() == {"baseline own"}
    shelf.points("own", shelf.observed + SHIFT)
    assert products.product_digests(experiment) != made["own"]
    inputs = judged[0].workspace.artefact("scores").manifest()["inputs"]
    assert inputs["baseline half"] == products.product_digests(judged[1])["baseline half"]
    judged[0].points("half", judged[0].observed[::2] + SHIFT, judged[0].cube.days[::2])
    with pytest.raises(StoreError, match="baseline half"):
        evaluate.run(judged[1], judged[0].workspace, SilentProgress())


def test_every_product_that_fails_is_named_at_once(shelf):
    shelf.points("good", shelf.observed)
    shelf.points("late", shelf.observed, shelf.cube.days + 400)
    shelf.points("other", shelf.observed)
    other = {"air_temperature": {"from": "SD", "units": "cm", "to": "K"}}
    shelf.entries["other"]["args"]["mapping"] = other
    shelf.put("other", shelf.entries["other"])
    shelf.put("gone", entry("points.PointsSource", shelf.folder / "gone.nc", place="spot"))
    with pytest.raises(DataError) as error:
        evaluate.run(
            shelf.experiment("good", "late", "other", "gone"), shelf.workspace, SilentProgress()
        )
    told = str(error.value)
    late = "its days are 2020-12-24 to 2021-06-01, none of them in the test period 2019-11-20 to"
    assert late in told
    assert "move test_period, or remove it from baselines" in told
    assert "gone.nc: not found" in told
    assert "cannot be converted to 'K'" in told
    assert "good" not in told
    assert shelf.workspace.artefact("scores").manifest() is None


def test_prepare_tells_it_before_anything_is_trained(snow, tmp_path):
    experiment = load.load_experiment(str(snow), ["baselines=[nowhere]"])
    workspace = Workspace(str(tmp_path / "fresh"))
    with pytest.raises(ConfigError, match="no entry 'nowhere'"):
        prepare.run(experiment, workspace, SilentProgress())
    assert workspace.artefact("cube").manifest() is None


def test_a_product_without_the_target_is_refused(shelf):
    shelf.points("other", shelf.observed)
    shelf.entries["other"]["args"]["mapping"] = {
        "snowfall": {"from": "SD", "units": "cm", "to": "cm"}
    }
    snowfall = shelf.world.experiment.table["snowfall"].model_copy(update={"units": "cm"})
    variables = shelf.world.experiment.variables | {"snowfall": snowfall}
    shelf.put("other", shelf.entries["other"])
    with pytest.raises(DataError, match=r"no snow_depth; it has \['snowfall'\]; map its variable"):
        products.open_products(shelf.experiment("other", variables=variables))


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("ridge",), "would have the name ridge"),
        (("mine", "shelf.mine"), "would have the name mine"),
    ],
)
def test_names_that_are_taken_are_refused(shelf, names, found):
    with pytest.raises(ConfigError, match=found):
        products.product_digests(shelf.experiment(*names))


def test_products_need_sites(shelf):
    for changes in ({"models": "s3://elsewhere"}, {"sources": {"insitu": ()}}):
        if "sources" in changes:
            sources = shelf.world.experiment.sources.model_copy(update=changes["sources"])
            changes = {"sources": sources}
        with pytest.raises(ConfigError, match=r"set sources.insitu, or --set baselines=\[\]"):
            products.product_digests(shelf.experiment("mine", **changes))
    assert products.product_digests(shelf.experiment(models="s3://elsewhere")) == {}


LAT, LON = np.array([40.2, 39.6]), np.array([-100.1, 179.95])


def bounded(lat, lon, width):
    half = np.array([-width / 2, width / 2])
    axes = {"lat": lat, "lon": lon}
    bounds = {f"{n}_bnds": ((n, "bnds"), v[:, None] + half) for n, v in axes.items()}
    return xr.Dataset(coords=axes | bounds, attrs={"entry": "made"})


def test_only_chunks_with_a_site_on_days_that_are_judged_are_read(world):
    """A field that would take 26 GB, of which each chunk that is read is noted."""
    seen = []

    def block(block_info):
        (day, lat, lon), shape = block_info[None]["chunk-location"], block_info[None]["chunk-shape"]
        seen.append((day, lat, lon))
        return np.full(shape, day + lat / 100, np.float32)

    chunks, empty = ((1,) * 10, (1000,) * 18, (1000,) * 36), np.empty((0, 0, 0), "f4")
    field = dask.array.map_blocks(block, chunks=chunks, dtype="f4", meta=empty)
    dataset = bounded(np.arange(-89.995, 90, 0.01), np.arange(-179.995, 180, 0.01), 0.01)
    days = np.datetime64("2015-01-01") + np.arange(10)
    dataset = dataset.assign_coords(time=days.astype("datetime64[ns]"))
    dataset["snow_depth"] = (("time", "lat", "lon"), field)
    experiment = world.experiment.model_copy(update={"baselines": ("huge",)})
    places = LAT[[0, 1, 1]], LON[[0, 1, 1]]
    sampled = products.sample_products(experiment, {"huge": dataset}, places, days[3:5])["huge"]
    assert sorted(set(seen)) == [(day, *at) for day in (3, 4) for at in ((12, 35), (13, 7))]
    assert len(seen) == len(set(seen))
    expected = [[3.13, 4.13], [3.12, 4.12], [3.12, 4.12]]
    np.testing.assert_allclose(sampled.series, expected, rtol=1e-6)
    assert sampled.distance_km.max() < 1


def test_flags_and_ranges_drop_values_and_count_them(world):
    days = np.datetime64("2020-01-01") + np.arange(4)
    values = np.array([[1.0, 2.0], [3.0, 4.0], [-1.0, 6.0], [7.0, 8.0]], "float32")
    flag = np.array([[0, 1], [8, 0], [0, 2], [0, 0]], "uint16")
    experiment = world.experiment.model_copy(update={"baselines": ("flagged",)})

    def sampled(dims, coords, shape, **attrs):
        made = xr.Dataset(
            {
                "snow_depth": (("time", *dims), values.reshape(4, *shape)),
                "provider_flag": (("time", *dims), flag.reshape(4, *shape), attrs),
            },
            {"time": days.astype("datetime64[ns]"), **coords},
            {"entry": "flagged"},
        )
        where = np.array([40.2, 40.2]), np.array([-100.1, -99.1])
        return products.sample_products(experiment, {"flagged": made}, where, days)["flagged"]

    places = {"lat": ("place", [40.2, 40.2]), "lon": ("place", [-100.1, -99.1])}
    found = sampled(["place"], places, [2], good=[0])
    expected = [[1, np.nan, np.nan, 7], [np.nan, 4, np.nan, 8]]
    np.testing.assert_array_equal(found.series, expected)
    assert found.dropped == {"provider": 3, "range": 1}
    cells = bounded(np.array([40.0]), np.array([-100.0, -99.0]), 1).coords
    found = sampled(["lat", "lon"], cells, [1, 2])
    expected = [[1, 3, np.nan, 7], [np.nan, 4, 6, 8]]
    np.testing.assert_array_equal(found.series, expected)
    assert found.dropped == {"flag": 1, "range": 1}


def test_a_file_that_cannot_be_read_is_named(world):
    def fail(block_info=None):
        raise OSError("unexpected end of file")

    field = dask.array.map_blocks(
        fail, chunks=((1,), (1,), (1,)), dtype="f4", meta=np.empty((0, 0, 0))
    )
    dataset = bounded(np.array([40.0]), np.array([-100.0]), 1)
    days = np.array(["2020-01-01"], "datetime64[D]")
    dataset = dataset.assign_coords(time=days.astype("datetime64[ns]"))
    dataset["snow_depth"] = (("time", "lat", "lon"), field)
    names = ("one", "two")
    experiment = world.experiment.model_copy(update={"baselines": names})
    with pytest.raises(DataError) as error:
        products.sample_products(
            experiment, dict.fromkeys(names, dataset), (LAT[:1], LON[:1]), days
        )
    for name in names:
        assert f"catalog entry {name}: cannot be read, truncated or damaged" in str(error.value)
