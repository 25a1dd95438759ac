"""A place is where it is, not what it is called.

The same stations in two sources, ids that clash, probes beside sites: who is learnt from, who is
held out, and what is told. Cubes are made without Ray: its tasks are called one after the other.
"""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import clinic
import numpy as np
import pandas as pd
import pytest
import world
import xarray as xr
import yaml

from model.features import Features
from pipeline import doctor, prepare
from pipeline.catalog import experiment_sources, site_records
from pipeline.errors import SoilweaveError
from pipeline.evaluate import probes as evaluate_probes
from pipeline.evaluate import scoring
from pipeline.evaluate import strata as evaluate_strata
from pipeline.experiment import load
from pipeline.grid import spatial_blocks
from pipeline.prepare import folds
from pipeline.prepare import stage as prepare_stage
from pipeline.progress import SilentProgress
from pipeline.storage import tables
from pipeline.storage.artefacts import Workspace
from pipeline.storage.cube import Cube
from pipeline.train import training_data

pytestmark = pytest.mark.usefixtures("prepared_here")
WINDOW = world.WINDOW
DAYS = world.FIRST + np.arange(world.N_DAYS)

FEATURES = SimpleNamespace(
    features=Features(("snowfall", "air_temperature"), ("elevation",), ())
)  # all that reading probes needs of a trained model

KM_PER_DEGREE = 6371.0088 * math.pi / 180


class Told(SilentProgress):
    """Keeps what a stage says."""

    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)

    def finish(self, note):
        self.lines.append(note)


def km(lat1, lon1, lat2, lon2):
    """Haversine distance of two places in degrees."""
    a, b, c, d = map(math.radians, (lat1, lon1, lat2, lon2))
    h = math.sin((c - a) / 2) ** 2 + math.cos(a) * math.cos(c) * math.sin((d - b) / 2) ** 2
    return 2 * 6371.0088 * math.asin(math.sqrt(h))


def read(path):
    with xr.open_dataset(path, engine="h5netcdf") as dataset:
        return dataset.load()


def add_source(snow, name, change):
    """A second source of sites beside the small world's: its sites, changed."""
    stations = read(snow.parent / "sites.nc")
    made = change(stations)
    for variable in made.variables:
        made[variable].encoding.clear()
    made.to_netcdf(snow.parent / f"{name}.nc", engine="h5netcdf")
    path = snow.parent / "catalog.yaml"
    tree = yaml.safe_load(path.read_text())
    entry = json.loads(json.dumps(tree["sources"]["sites"]))
    entry["args"]["urlpath"] = str(snow.parent / f"{name}.nc")
    tree["sources"][name] = entry
    path.write_text(yaml.safe_dump(tree))


def renamed(prefix, north_km=0.0, n=None):
    """The same stations under other ids, some way north; the first n of them."""

    def change(stations):
        ids = [f"{prefix}-{i:02d}" for i in range(stations.sizes["station"])]
        moved = stations.lat + north_km / KM_PER_DEGREE
        return stations.assign_coords(station=ids, lat=moved).isel(station=slice(n))

    return change


def dealt(snow, folder, *settings):
    """The experiment with two sources, its cube and folds; and what the stages said."""
    both = ["sources.insitu=[sites, twins]", *settings]
    experiment = load.load_experiment(str(snow), both)
    workspace, told = Workspace(str(folder)), Told()
    for stage in (prepare_stage, folds):
        stage.run(experiment, workspace, told)
    workspace.lease.release()
    return experiment, workspace, tables.read_table(workspace.url("folds.parquet")), told.lines


def parted(table, column="fold"):
    """Stations that are not alike in both sources, by number."""
    by_id = table.set_index("site")[column]
    names = [i.removeprefix("twin-") for i in by_id.index if i.startswith("twin-")]
    return [n for n in names if by_id[f"twin-{n}"] != by_id[f"snow-{n}"]]


@pytest.mark.parametrize("north_km", [0.0, 0.4, 3.0])  # 3 km north is mostly the same 9 km cell
def test_random_folds_deal_the_stations_of_two_sources_together(snow, tmp_path, north_km):
    add_source(snow, "twins", renamed("twin", north_km))
    settings = ["folds.kind=random", "folds.n_folds=5"]
    _, _, table, _ = dealt(snow, tmp_path / "w", *settings)
    assert len(table) == 48
    assert parted(table) == []
    assert sorted(np.bincount(table.fold)) == [8, 10, 10, 10, 10]
    assert parted(table, "block") == []  # which intervals resample


def test_matched_folds_deal_the_stations_of_two_sources_together(snow, tmp_path):
    add_source(snow, "twins", renamed("twin", 0.4))
    _, _, table, _ = dealt(snow, tmp_path / "w", "folds.kind=knndm", "folds.n_folds=3")
    assert parted(table) == []
    assert set(table.fold) == {0, 1, 2}


def test_sites_of_own_inputs_are_dealt_together_in_chains_within_a_kilometre(snow, tmp_path):
    """0.9 km from one to the next, 1.8 km from end to end; more than 1 km between the chains."""
    steps = np.array([0.0, 0.9, 1.8, 2.9, 3.8, 4.9, 5.8])
    own_inputs(snow, [*"abcdefg"], WINDOW.cell_lat[5] + steps / KM_PER_DEGREE, WINDOW.cell_lon[5])
    settings = ["sources.insitu=own", "inputs_from=own", "folds.kind=random", "folds.n_folds=3"]
    workspace = Workspace(str(tmp_path / "w"))
    prepare.run(load.load_experiment(str(snow), settings), workspace, SilentProgress())
    for seed in range(8):
        experiment = load.load_experiment(str(snow), [*settings, f"folds.seed={seed}"])
        folds.run(experiment, workspace, SilentProgress(), overwrite=True)
        table = tables.read_table(workspace.url("folds.parquet"))
        fold = dict(zip(table.site, table.fold, strict=True))
        chains = [{fold[i] for i in chain} for chain in ("abc", "de", "fg")]
        assert [len(chain) for chain in chains] == [1, 1, 1]
        assert len(set().union(*chains)) == 3
    workspace.lease.release()


def own_inputs(snow, ids, lat, lon):
    """A source `own` of sites that have inputs of their own, in our units."""
    rng = np.random.default_rng(0)

    def change(_):
        low = {"HS": 0.0, "SNOWF": 0.0, "T2C": 270.0}
        shape = (len(ids), len(DAYS))
        made = {n: (("station", "time"), v + rng.uniform(0, 1, shape)) for n, v in low.items()}
        made["qc"] = (("station", "time"), np.zeros(shape, "int8"))
        made["ELEV"] = ("station", np.ones(len(ids)))
        coords = {
            "time": DAYS.astype("datetime64[ns]"),
            "station": ids,
            "lat": ("station", lat),
            "lon": ("station", np.full(len(ids), lon)),
        }
        return xr.Dataset(made, coords)

    add_source(snow, "own", change)
    path = snow.parent / "catalog.yaml"
    tree = yaml.safe_load(path.read_text())
    for name, spec in tree["sources"]["cells"]["args"]["mapping"].items():
        ours = {"from": spec["from"], "units": spec.get("to", spec["units"])}
        tree["sources"]["own"]["args"]["mapping"][name] = ours
    path.write_text(yaml.safe_dump(tree))


@pytest.mark.runs  # it takes some seconds
def test_block_folds_deal_twins_on_both_sides_of_a_border_together(snow, tmp_path):
    """A pair of sites 0.4 km apart, the border of two blocks between them, in each row."""
    south, north = WINDOW.footprint_lat[1], WINDOW.footprint_lat[0]
    lat_edge, lon_edge = WINDOW.cell_edges
    border = lat_edge[4]  # between the first and the second row of footprints
    assert south < border < north
    wide = lon_edge[[6, 10, 14]]
    step = 0.2 / KM_PER_DEGREE
    place = {"first": border + step, "second": border - step}

    def astride(side):
        def change(stations):
            some = stations.isel(station=slice(3))
            ids = [f"{side}-{i}" for i in range(3)]
            lat = ("station", np.full(3, place[side]))
            return some.assign_coords(station=ids, lat=lat, lon=("station", wide))

        return change

    add_source(snow, "twins", astride("first"))
    add_source(snow, "others", astride("second"))
    settings = ["sources.insitu=[sites, twins, others]", "folds.block_km=36"]
    for seed in range(4):
        _, _, table, _ = dealt(snow, tmp_path / str(seed), *settings, f"folds.seed={seed}")
        by_id = table.set_index("site")
        for i in range(3):
            first, second = by_id.loc[f"first-{i}"], by_id.loc[f"second-{i}"]
            assert km(first.lat, first.lon, second.lat, second.lon) == pytest.approx(0.4)
            assert (first.fold, first.block) == (second.fold, second.block)
        squares = spatial_blocks.block_labels(table.lat, table.lon, 36.0)
        assert table.groupby(squares).fold.nunique().max() == 1  # and no square is split


def test_a_twin_of_a_held_out_site_is_left_out_of_the_training_of_its_region(snow, tmp_path):
    add_source(snow, "twins", renamed("twin", 0.3, n=10))
    settings = ["folds.kind=region", "folds.by=network"]
    experiment, workspace, table, told = dealt(snow, tmp_path / "w", *settings)
    cube = Cube.open(workspace.url("cube.zarr"))
    packed = training_data.pack_data(experiment, cube, table)
    ours, theirs = (table.site[table.fold == k].tolist() for k in (0, 1))
    assert (len(ours), len(theirs)) == (24, 10)
    learnt = {k: [packed.site_ids[i] for i in packed.training_sites(k, 0.0)] for k in (-1, 0, 1)}
    assert learnt[0] == []  # every site of the other region is a twin of one that is held out
    assert learnt[1] == [f"snow-{i:02d}" for i in range(10, 24)]
    assert len(learnt[-1]) == 34
    left_out = workspace.artefact("folds").manifest().get("left_out")
    assert left_out == {"0": theirs, "1": [f"snow-{i:02d}" for i in range(10)]}
    assert (
        "because a held-out site is at the same place: 10 from fold 0, 10 from fold 1" in told[-1]
    )


def test_a_twin_that_is_left_out_is_not_the_nearest_training_site(snow, tmp_path):
    """The distance to it would say that a held-out site lies beside one that is learnt from."""
    add_source(snow, "twins", renamed("twin", 0.3, n=10))
    settings = ["folds.kind=region", "folds.by=network"]
    experiment, workspace, table, _ = dealt(snow, tmp_path / "w", *settings)
    cube = Cube.open(workspace.url("cube.zarr"))
    fold = table.fold.to_numpy()
    found = evaluate_strata.find_strata(experiment, cube, fold, slice(0, 100))[
        "nearest training site"
    ]
    assert set(found.indices[fold == 0].tolist()) == {-1}  # there is none


def records(snow, parts, **rules):
    settings = [f"{rule}={value}" for rule, value in rules.items()]
    return site_records.read_records(load.load_experiment(str(snow), settings), parts, WINDOW)


def source(entry, ids, lat, lon, values):
    coords = {
        "time": DAYS.astype("datetime64[ns]"),
        "place": [*ids],
        "lat": ("place", np.asarray(lat, float)),
        "lon": ("place", np.asarray(lon, float)),
    }
    data = {"snow_depth": (("time", "place"), np.asarray(values, "float32"))}
    return xr.Dataset(data, coords, {"entry": entry})


EDGE = WINDOW.cell_edges[0][5]  # between two cells
BEYOND = WINDOW.cell_edges[0][0] + 2.0  # north of the domain


@pytest.mark.parametrize(
    ("middle", "inputs_from"), [(EDGE, "cell"), (EDGE, "own"), (BEYOND, "own")]
)
def test_several_makes_one_site_of_a_place_across_sources_and_cells(snow, middle, inputs_from):
    """A of one source and B of another are 0.6 km apart, C is 24 km away."""
    lat = middle + np.array([0.3, -0.3, -24.0]) / KM_PER_DEGREE
    values = np.full((len(DAYS), 3), np.nan)
    values[:50, 0], values[:80, 1], values[:20, 2] = 1.0, 2.0, 3.0
    values += 1e-4 * np.arange(len(DAYS))[:, None]
    lon = np.full(3, WINDOW.cell_lon[5])
    parts = [
        source("a", ["A"], lat[:1], lon[:1], values[:, :1]),
        source("b", ["B", "C"], lat[1:], lon[1:], values[:, 1:]),
    ]
    rules = {"inputs_from": inputs_from, "qc.stuck_days": "null"}
    longest = records(snow, parts, **rules, **{"qc.duplicate_sites": "longest"})
    assert longest.data.place.values.tolist() == ["B", "C"]
    assert longest.dropped["another site in the cell"] == 50
    mean = records(snow, parts, **rules, **{"qc.duplicate_sites": "mean"}).data.snow_depth
    assert mean.place.values.tolist() == ["B", "C"]
    np.testing.assert_allclose(
        mean.values[:50, 0], (values[:50, 0] + values[:50, 1]) / 2, rtol=1e-6
    )
    np.testing.assert_allclose(mean.values[50:, 0], values[50:, 1], rtol=1e-6)
    np.testing.assert_allclose(mean.values[:, 1], values[:, 2], rtol=1e-6)


def test_prepare_lists_sites_at_one_place_with_distance_and_correlation(snow, tmp_path):
    add_source(snow, "twins", renamed("twin", 0.3, n=2))
    _, workspace, _, told = dealt(snow, tmp_path / "w")
    stations = read(snow.parent / "sites.nc")
    listed = workspace.artefact("cube").manifest().get("twins")
    assert listed is not None
    assert [pair["sites"] for pair in listed] == [["snow-00", "twin-00"], ["snow-01", "twin-01"]]
    for i, pair in enumerate(listed):
        n_good = int(((stations.qc[i] == 0) & stations.HS[i].notnull()).sum())
        assert pair["km"] == pytest.approx(0.3, abs=1e-3)
        assert pair["correlation"] == pytest.approx(1.0)
        assert pair["days"] == n_good
    line = next(text for text in told if text.startswith("sites at one place"))
    assert "snow-00 and twin-00: 0.30 km, r 1.00; snow-01 and twin-01: 0.30 km, r 1.00" in line
    assert "qc.duplicate_sites" in line
    assert any("2 pairs of sites at one place" in text for text in told)


def test_doctor_lists_sites_at_one_place_and_ids_of_two_sources(tmp_path):
    """Two sites of a second network, 0.2 km beside the first's, whose records are half noise."""
    path = clinic.write(tmp_path / "ward")
    stations = read(path.parent / "sites.nc")
    noise = np.random.default_rng(1).uniform(0.05, 0.45, (2, len(clinic.DAYS)))
    other = stations.isel(site=[0, 3]).copy(deep=True)
    other["SM"].values[:] = (other.SM.values + noise) / 2
    other = other.assign_coords(site=["site-0", "other"], lat=other.lat + 0.2 / KM_PER_DEGREE)
    clinic.save(other.assign(SM=other.SM.astype("float32")), path.parent / "second.nc")

    def add(tree):
        entry = json.loads(json.dumps(tree["sources"]["sites"]))
        entry["args"]["urlpath"] = entry["args"]["urlpath"].replace("sites.nc", "second.nc")
        tree["sources"]["second"] = entry

    clinic.edit(path.parent / "catalog.yaml", add)
    clinic.edit(path, lambda tree: tree["sources"].update(insitu=["sites", "second"]))
    healthy, (table, *_) = doctor.examine(str(path), ["qc.stuck_days=null"], SilentProgress())
    rows = zip(*([str(cell) for cell in column._cells] for column in table.columns), strict=True)
    told = [row for row in rows if row[2] in ("twins", "ids")]
    r = [
        np.corrcoef(stations.SM.values[at], other.SM.values[i])[0, 1] for i, at in ((0, 0), (1, 3))
    ]
    expected = {
        f"sites:site-0 and second:site-0: 0.20 km, r {r[0]:.2f}",
        f"site-3 and other: 0.20 km, r {r[1]:.2f}",
        "ids in more than one source; these sites are named sites:site-0, second:site-0",
    }
    assert {row[3] for row in told} == expected
    assert {row[0] for row in told} == {"sites, second"}
    assert healthy


def attempt(snow, *settings):
    """Ids of the sites that are used, or what is said against it."""
    both = ["sources.insitu=[sites, twins]", *settings]
    try:
        opened = experiment_sources.open_sources(load.load_experiment(str(snow), both))
    except SoilweaveError as error:
        return str(error)
    return opened.insitu.data.place.values.tolist()


def test_an_id_of_two_sources_is_qualified_and_nothing_has_to_be_left_out(snow):
    def change(stations):
        ids = ["snow-00", "snow-01", "other"]
        return stations.isel(station=slice(3)).assign_coords(station=ids)

    add_source(snow, "twins", change)
    ours = [f"snow-{i:02d}" for i in range(24)]
    expected = ["sites:snow-00", "sites:snow-01", *ours[2:]]
    expected += ["twins:snow-00", "twins:snow-01", "other"]
    assert attempt(snow) == expected


def test_a_site_is_left_out_of_one_source_alone(snow):
    add_source(snow, "twins", lambda stations: stations)
    ours = [f"snow-{i:02d}" for i in range(24)]
    all_of = ", ".join(f"twins:{i}" for i in ours)
    assert attempt(snow, f"qc.exclude_sites=[{all_of}]") == ours
    file = f"{snow.parent}/catalog.yaml"
    named = [f"{file}:twins:{i}" for i in ours[:23]]
    settings = [f"sources.insitu=[sites, '{file}:twins']", f"qc.exclude_sites={json.dumps(named)}"]
    assert attempt(snow, *settings) == [*ours[:23], "sites:snow-23", "twins:snow-23"]
    assert attempt(snow, f"qc.exclude_sites=[{', '.join(ours)}]") == (
        "qc.exclude_sites: excludes all 48 sites; exclude fewer; `entry:id` names the site of "
        "one source only"
    )


def test_a_group_names_the_site_of_one_source(snow, tmp_path):
    add_source(snow, "twins", lambda stations: stations.isel(station=slice(4)))
    groups = {"a": ["twins:snow-01", "sites:snow-20"], "b": ["snow-01", "snow-20"]}
    settings = [f"judging.groups={json.dumps(groups)}"]
    try:
        experiment, workspace, table, _ = dealt(snow, tmp_path / "w", *settings)
        cube = Cube.open(workspace.url("cube.zarr"))
        strata = evaluate_strata.find_strata(experiment, cube, table.fold.to_numpy(), slice(0, 100))
        found = {
            name: [
                i for i, which in zip(cube.site_ids, strata[name].indices, strict=True) if not which
            ]
            for name in groups
        }
    except SoilweaveError as error:
        found = str(error)
    a, b = ["snow-20", "twins:snow-01"], ["sites:snow-01", "snow-20", "twins:snow-01"]
    assert found == {"a": a, "b": b}


def probes(snow, folder, ids, lat, lon, **settings):
    """What `score` makes of some probes beside the sites of the small world."""
    stations = read(snow.parent / "sites.nc").isel(station=slice(len(ids)))
    made = stations.assign_coords(
        station=ids, lat=("station", np.asarray(lat)), lon=("station", np.asarray(lon))
    )
    for variable in made.variables:
        made[variable].encoding.clear()
    made.to_netcdf(folder / "probes.nc", engine="h5netcdf")
    experiment = load.load_experiment(str(snow), [f"{k}={v}" for k, v in settings.items()])
    table = pd.DataFrame(
        {
            "site": [f"snow-{i:02d}" for i in range(world.N_SITES)],
            "lat": read(snow.parent / "sites.nc").lat.values,
            "lon": read(snow.parent / "sites.nc").lon.values,
            "block": 0,
            "fold": np.arange(world.N_SITES) % 3,
        }
    )
    return evaluate_probes.read_probes(experiment, table, FEATURES, str(folder / "probes.nc"))


def test_a_probe_in_the_cell_of_a_training_site_is_not_unseen(snow, tmp_path):
    """Its inputs are the site's to the last digit, 3 km away as 0 km."""
    stations = read(snow.parent / "sites.nc")
    lat, lon = (stations[axis].values[[4, 5, 7]] for axis in ("lat", "lon"))
    shifted = lon + [0.0, 3.0, 20.0] / (KM_PER_DEGREE * np.cos(np.radians(lat)))
    found = probes(snow, tmp_path, ["p", "q", "r"], lat, shifted)
    cells = [tuple(int(v) for v in WINDOW.cells_of(*at)) for at in zip(lat, lon, strict=True)]
    moved = [tuple(int(v) for v in WINDOW.cells_of(*at)) for at in zip(lat, shifted, strict=True)]
    assert [a == b for a, b in zip(cells, moved, strict=True)] == [True, True, False]
    taken = {
        tuple(int(v) for v in WINDOW.cells_of(*at)): i % 3
        for i, at in enumerate(zip(stations.lat.values, stations.lon.values, strict=True))
    }
    assert found.known.tolist() == [True, True, moved[2] in taken]
    assert found.fold.tolist() == [4 % 3, 5 % 3, taken.get(moved[2], -1)]


def test_a_probe_that_shares_only_the_id_of_a_training_site_is_unseen(snow, tmp_path):
    stations = read(snow.parent / "sites.nc")
    taken = {
        tuple(int(v) for v in WINDOW.cells_of(*at))
        for at in zip(stations.lat.values, stations.lon.values, strict=True)
    }
    y, x = next((y, x) for y in range(8, 12) for x in range(16) if (y, x) not in taken)
    where = [WINDOW.cell_lat[y]] * 2, [WINDOW.cell_lon[x]] * 2
    found = probes(snow, tmp_path, ["snow-03", "mine"], *where)
    assert found.known.tolist() == [False, False]
    assert found.fold.tolist() == [-1, -1]


def test_probes_that_are_left_out_are_named(snow, tmp_path):
    ids = ["snow-01", "snow-02", "snow-03", "snow-04"]
    lat, lon = np.full(4, WINDOW.cell_lat[9]), WINDOW.cell_lon[[9, 10, 11, 12]]
    found = probes(snow, tmp_path, ids, lat, lon, **{"qc.exclude_sites": "[snow-01, snow-03]"})
    assert found.sites.ids == ("snow-02", "snow-04")
    assert getattr(found, "excluded", ()) == ("snow-01", "snow-03")


def test_the_satellite_baseline_of_score_is_that_of_evaluate(snow, tmp_path):
    """Every second retrieval has the first bit of its flag set: not recommended."""
    seen = read(snow.parent / "footprints.nc")
    flag = np.zeros(seen.SD.shape, "int8")
    flag[:, 0::6] = 1
    seen["qf"] = (seen.SD.dims, flag, {"flag_values": np.int8([0, 1]), "flag_meanings": "good bad"})
    for variable in seen.variables:
        seen[variable].encoding.clear()
    seen.to_netcdf(snow.parent / "footprints.nc", engine="h5netcdf")
    path = snow.parent / "catalog.yaml"
    tree = yaml.safe_load(path.read_text())
    tree["sources"]["footprints"]["args"]["flag"] = {"from": "qf", "good": [0]}
    path.write_text(yaml.safe_dump(tree))
    experiment = load.load_experiment(str(snow))
    workspace = Workspace(str(tmp_path / "w"))
    prepare.run(experiment, workspace, SilentProgress())
    cube = Cube.open(workspace.url("cube.zarr"))
    where = cube.sites["lat"].values, cube.sites["lon"].values
    evaluated = scoring.satellite_at_cube_sites(experiment, cube, slice(0, len(cube.days)))
    scored = scoring.satellite_at_places(experiment, where, cube.days)
    np.testing.assert_array_equal(scored.prediction, evaluated.prediction)
    n_days = np.isfinite(scored.prediction).sum(1)
    assert set(n_days.tolist()) == {27}  # of 54 days with retrievals
    workspace.lease.release()
