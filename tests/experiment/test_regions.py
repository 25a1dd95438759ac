"""Regions held out whole: bands, networks, continents, polygons; footprints left out with them."""

import json

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from model.recipe import ModelKey
from model.trainer import Trainer
from pipeline import files, train
from pipeline.cluster import submit
from pipeline.cluster.submit import JobSpec
from pipeline.errors import ConfigError
from pipeline.experiment import load, regions
from pipeline.grid import lookup
from pipeline.prepare import folds
from pipeline.progress import SilentProgress
from pipeline.storage import models, tables
from pipeline.storage.artefacts import Workspace
from pipeline.storage.cube import Cube
from pipeline.train import training_data

CITIES = {
    "Africa": [(30.1, 31.3), (35.8, -5.8), (28.1, -15.4), (-33.9, 18.4), (-18.9, 47.5)],
    "Antarctica": [(-77.8, 166.7)],
    "Asia": [(41.0, 29.2), (41.7, 44.8), (35.2, 33.4), (28.5, 34.5), (12.5, 54.0), (56.8, 60.8)],
    "Europe": [
        (41.0, 28.8),
        (39.1, 26.5),
        (35.3, 25.1),
        (64.1, -21.9),
        (37.7, -25.7),
        (43.6, 39.6),
    ],
    "North America": [(9.0, -79.5), (64.2, -51.7), (18.4, -66.1), (61.2, -149.9), (25.8, -80.2)],
    "Oceania": [(21.3, -157.9), (-12.5, 130.8), (-9.4, 147.2), (-36.8, 174.8), (-17.6, -149.5)],
    "South America": [(6.2, -75.6), (12.2, -71.7), (4.9, -52.3), (-54.8, -68.3), (-0.9, -89.6)],
    "elsewhere": [(-49.3, 69.2)],
}


def square(west, south, east, north):
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]


def polygons(path, **named):
    """A GeoJSON file of polygons, each of its rings."""
    features = [
        {
            "type": "Feature",
            "properties": {} if name.startswith("_") else {"name": name},
            "geometry": {"type": "Polygon", "coordinates": rings},
        }
        for name, rings in named.items()
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return str(path)


@given(
    lon=st.lists(st.integers(-1800, 1799), min_size=8, max_size=60, unique=True),
    n_folds=st.integers(2, 8),
    turn=st.integers(0, 3600),
)
def test_bands_are_neighbours_of_equal_number_wherever_the_meridian_is(lon, n_folds, turn):
    tenths, lon = np.sort(lon), np.array(lon) / 10
    band = regions.divide_by_longitude(lon, n_folds)
    sizes = np.bincount(band, minlength=n_folds)
    assert np.ptp(sizes) <= 1
    around = band[np.argsort(lon)]
    assert (np.diff(around, append=around[0]) != 0).sum() == n_folds  # each is in one piece
    gaps = np.diff(tenths, append=tenths[0] + 3600)
    if (gaps == gaps.max()).sum() == 1:
        turned = (lon + turn / 10 + 180) % 360 - 180
        np.testing.assert_array_equal(
            regions.divide_by_longitude(np.round(turned, 6), n_folds), band
        )


def test_sites_of_one_longitude_are_not_parted():
    band = regions.divide_by_longitude(np.array([1.0, 2, 2, 2, 2, 3]), 3)
    assert band.tolist() == [0, 1, 1, 1, 1, 2]
    with pytest.raises(
        ValueError, match=r"n_folds 4 with 6 sites at 3 longitudes.*a smaller n_folds"
    ):
        regions.divide_by_longitude(np.array([1.0, 2, 2, 2, 2, 3]), 4)


@pytest.mark.parametrize("continent", CITIES)
def test_continents(continent):
    lat, lon = np.array(CITIES[continent]).T
    assert set(regions.regions_from_polygons(lat, lon, regions.continents_path())) == {continent}


def test_polygons_have_holes_and_names_and_leave_an_elsewhere(tmp_path):
    url = polygons(
        tmp_path / "some.geojson",
        ring=[square(0, 0, 9, 9), square(3, 3, 6, 6)],
        _=[square(20, 0, 29, 9)],
        over=[square(8, 0, 12, 9)],
    )
    lon, lat = np.array([[1, 1], [4, 4], [8.5, 1], [10, 1], [21, 1], [-50, 1]]).T
    found = ["ring", "elsewhere", "ring", "over", "1", "elsewhere"]
    assert regions.regions_from_polygons(lat, lon, url) == found
    number, names = regions.number_regions(found)
    assert [names[i] for i in number] == found
    assert names == sorted(set(found))


def test_a_border_belongs_to_the_first_polygon_that_it_bounds(tmp_path):
    """Also at the antimeridian and the poles, where nothing lies beyond the border."""
    url = polygons(
        tmp_path / "two.geojson", west=[square(-180, -90, 0, 90)], east=[square(0, -90, 180, 90)]
    )
    lon, lat = np.array([[0, 5], [-180, 5], [180, 5], [3, 90], [-3, -90]]).T
    assert regions.regions_from_polygons(lat, lon, url) == ["west", "west", "east", "east", "west"]


def test_sites_without_a_position_are_elsewhere():
    nan = np.full(1, np.nan)
    assert regions.regions_from_polygons(nan, nan, regions.continents_path()) == ["elsewhere"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1]]]}', "feature 0 has no rings"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}', "feature 0 has no rings"),
        ('{"type": "Polygon"}', "feature 0 has no rings of longitude and latitude"),
        ('{"features": ["text"]}', "feature 0 has no rings of longitude and latitude"),
        ("no json", "is not GeoJSON"),
        ('{"type": "Point", "coordinates": [0, 0]}', "a feature of type Point"),
        (
            '{"type": "Polygon", "coordinates": [[[0, 0], [500000, 0], [0, 9]]]}',
            "corners beyond 180 degrees of longitude or 90",
        ),
        ('{"features": null}', "has no features"),
        ('{"features": {"a": 1}}', "has no features"),
        ('{"features": [null]}', "feature 0 has no rings"),
        ('{"features": [{"type": "Feature", "geometry": null}]}', "feature 0 has no geometry"),
        ('{"features": [{"geometry": [1, 2]}]}', "feature 0 has no geometry"),
        ('{"type": ["Polygon"], "coordinates": []}', "is a feature of type"),
        ('{"type": "Polygon", "coordinates": null}', "has no rings"),
        ('{"type": "Polygon", "coordinates": []}', "has no rings"),
        ('{"type": "Polygon", "coordinates": [[]]}', "has no rings"),
        ('{"type": "MultiPolygon", "coordinates": []}', "has no rings"),
        ('{"type": "MultiPolygon", "coordinates": [[[0, 0], [1, 1], [0, 1]]]}', "has no rings"),
        ('{"type": "Polygon", "coordinates": [[[[0, 0], [1, 1], [0, 1]]]]}', "has no rings"),
        ('{"type": "Polygon", "coordinates": [[["0", "0"], ["1", "1"], ["0", "1"]]]}', "no rings"),
        ('{"type": "Polygon", "coordinates": [[[NaN, 0], [1, 1], [0, 1]]]}', "has no rings"),
        ('{"type": "Polygon", "coordinates": [[[Infinity, 0], [1, 1], [0, 1]]]}', "has no rings"),
        ('{"type": "Polygon", "coordinates": [[[true, 0], [1, 1], [0, 1]]]}', "has no rings"),
        ('{"type": "Polygon", "coordinates": [[[null, 0], [1, 1], [0, 1]]]}', "has no rings"),
        ('{"type": "Polygon", "coordinates": {"a": [[0, 0], [1, 1], [0, 1]]}}', "has no rings"),
        (f'{{"type": "Polygon", "coordinates": [[[{"9" * 400}, 0], [1, 1], [0, 1]]]}}', "corners"),
        (f'{{"type": "Polygon", "coordinates": [[[{"9" * 5000}, 0], [1, 1]]]}}', "is not GeoJSON"),
        (f'{{"type": "Polygon", "coordinates": {"[" * 100_000}', "is not GeoJSON"),
        ('{"type": "GeometryCollection", "geometries": []}', "of type GeometryCollection"),
        ('{"features": [{"geometry": {"type": "Polygon"}, "properties": []}]}', "has no rings"),
    ],
)
def test_what_is_no_polygon_in_degrees_is_refused(tmp_path, text, problem):
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(ConfigError, match=problem) as caught:
        regions.regions_from_polygons(np.zeros(1), np.zeros(1), str(tmp_path / "odd.json"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("properties", ["null", "[1]", '"text"', "{}"])
def test_polygons_without_names_have_numbers(tmp_path, properties):
    ring = [[0, 0], [1, 0], [1, 1, 5.0], [0, 1]]
    geometry = json.dumps({"type": "Polygon", "coordinates": [ring]})
    feature = f'{{"geometry": {geometry}, "properties": {properties}}}'
    (tmp_path / "odd.json").write_text(f'{{"features": [{feature}]}}')
    half = np.full(1, 0.5)
    assert regions.regions_from_polygons(half, half, str(tmp_path / "odd.json")) == ["0"]


def dealt(world, folder, *settings):
    """The experiment on the world's cube with other folds, and its workspace with them."""
    base = [f"cube={world.workspace.root}", "arms=[insitu, satellite]", "train.updates=2"]
    experiment = load.load_experiment(str(world.path), [*base, *settings], folder.name)
    workspace = Workspace(str(folder))
    folds.run(experiment, workspace, SilentProgress())
    return experiment, workspace


def test_the_stage_deals_sites_by_longitude(world, tmp_path):
    experiment, workspace = dealt(world, tmp_path / "w", "folds.kind=region", "folds.n_folds=4")
    table = tables.read_table(workspace.url("folds.parquet"))
    spans = table.groupby("fold").lon.agg(["min", "max"]).to_numpy()
    assert (spans[1:, 0] > spans[:-1, 1]).all()
    assert len(models.list_workspace_models(workspace, experiment)) == 4 + 1 + 1
    assert experiment.folds.layout == "4 held-out bands of longitude"


def test_a_job_brings_a_local_file_of_regions_along(world, tmp_path):
    url = polygons(tmp_path / "two.geojson", west=[square(-179, -89, 0, 89)])
    settings = ("folds.kind=region", f"folds.by={url}")
    (tmp_path / "job").mkdir()
    submit.collect_upload(JobSpec(str(world.path), "run", "w", settings=settings), tmp_path / "job")
    experiment = yaml.safe_load((tmp_path / "job" / "experiment.yaml").read_text())
    brought = tmp_path / "job" / experiment["folds"]["by"]
    assert brought.read_bytes() == (tmp_path / "two.geojson").read_bytes()
    assert (tmp_path / "job" / "pipeline" / "experiment" / "continents.geojson").exists()


def test_one_region_is_not_enough(world, tmp_path):
    with pytest.raises(ConfigError, match="all 24 sites are in sites, expected several"):
        dealt(world, tmp_path / "w", "folds.kind=region", "folds.by=network")


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("folds.by=country", "by 'country': expected longitude, network, continent or"),
        (
            "folds={kind: none, drop_footprints: true}",
            "drop_footprints needs held-out sites, but kind is none",
        ),
    ],
)
def test_folds_that_cannot_be_are_refused(world, setting, problem):
    with pytest.raises(ConfigError, match=problem):
        load.load_experiment(str(world.path), [setting])


@pytest.mark.usefixtures("trained_here")
def test_regions_are_trained_without_their_sites_their_footprints_and_a_buffer(world, tmp_path):
    sites = tables.read_table(world.workspace.url("folds.parquet"))
    middle, north = sites.lon.median(), sites.lat.quantile(0.75)
    url = polygons(
        tmp_path / "two.geojson",
        west=[square(-179, -89, middle, 89)],
        north_east=[square(middle, north, 179, 89)],
    )
    settings = ["folds.kind=region", f"folds.by={url}", "folds.buffer_km=33"]
    experiment, workspace = dealt(world, tmp_path / "w", *settings, "folds.drop_footprints=true")
    manifest = workspace.artefact("folds").manifest()
    assert manifest["regions"] == ["elsewhere", "north_east", "west"]
    assert manifest["inputs"]["folds.by"] == "polygons"  # wherever the file lies
    assert manifest["inputs"]["polygons"] == files.content_digest(url)
    train.run(experiment, workspace, SilentProgress())
    table = tables.read_table(workspace.url("folds.parquet"))
    names = np.array(manifest["regions"])[table.fold]
    np.testing.assert_array_equal(names == "west", table.lon < middle)
    root, cube = workspace.url("models"), Cube.open(world.workspace.url("cube.zarr"))
    packed = training_data.pack_data(experiment, cube, table)
    for fold in range(3):
        own = table[table.fold == fold]
        away = lookup.find_nearest(table.lat, table.lon, own.lat, own.lon)[1]
        assert ((away > 0) & (away < 33)).any()
        learnt = models.load_model(root, ModelKey("insitu", fold, 0)).origin["training_sites"]
        assert learnt == table.site[away >= 33].tolist()
        left = {tuple(packed.footprints[i]) for i in packed.training_footprints(fold)}
        held = cube.sites.isel(site=(table.fold == fold).to_numpy())
        assert not left & set(zip(held.fy.values.tolist(), held.fx.values.tolist(), strict=True))
    seen = tables.read_table(workspace.url("sites.parquet")).groupby("arm")
    assert seen.status.unique().map(set).to_dict()["satellite"] == {"out_of_fold"}
    assert seen.fold.unique().map(set).to_dict()["satellite"] == {"0", "1", "2"}
    assert files.read_json(f"{root}/satellite/calibration.json").keys() == {"0", "1", "2", "all"}


def test_a_dropped_footprint_teaches_its_fold_nothing(world):
    settings = ["folds.drop_footprints=true", "train.updates=2"]
    experiment = load.load_experiment(str(world.path), settings)
    cube = Cube.open(world.workspace.url("cube.zarr"))
    table = tables.read_table(world.workspace.url("folds.parquet"))
    packed = training_data.pack_data(experiment, cube, table)
    gone = packed.dropped[table.fold == 1]
    assert (gone >= 0).all()
    states = {}
    for name, added in (("plain", 0.0), ("odd", 5.0)):
        packed.learn_satellite[np.unique(gone)] += added
        for fold in (1, models.ALL_SITES):
            job = ModelKey("satellite", fold, 0)
            fitting = Trainer(experiment.recipe_sections, job, packed.data(job, 0.0, "cpu"), 2)
            fitting.advance(2)
            states[name, fold] = [fitting.data.target, *fitting.network.state_dict().values()]
    same = {
        fold: all(
            bool(np.all(np.asarray(a == b)))
            for a, b in zip(states["plain", fold], states["odd", fold], strict=True)
        )
        for fold in (1, models.ALL_SITES)
    }
    assert same == {1: True, models.ALL_SITES: False}
