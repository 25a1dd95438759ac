"""Percentile and anomaly of maps: against xarray, updated, repaired, and where there are none."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import world as world_module
import xarray as xr
from test_open_everywhere import said_by_checkers

from pipeline.cli import repair
from pipeline.cli import update as cli_update
from pipeline.errors import ConfigError
from pipeline.experiment import config, load
from pipeline.explain import value
from pipeline.explain.subject import find_subject
from pipeline.predict import stage as predict_stage
from pipeline.predict import tile_climatology
from pipeline.prepare import stage as prepare_stage
from pipeline.progress import SilentProgress
from pipeline.storage import climatology, maps_schema, verify
from pipeline.storage.artefacts import Workspace

TARGET = "snow_depth"
LAYERS = PERCENTILE, ANOMALY = f"{TARGET}_percentile", f"{TARGET}_anomaly"
N_DAYS = 1308  # of the sources, to 2023-06-19
FIRST, LAST, LATER = "2019-12-10", "2023-05-30", "2023-06-14"
REFERENCE = f"{FIRST}..{LAST}"


@dataclass(frozen=True)
class Mapped:
    """Sources, an experiment of three years and a half, and its workspace."""

    folder: Path
    models: str
    workspace: Workspace

    @property
    def experiment(self):
        settings = [f"{key}=[{FIRST}, {LAST}]" for key in ("period", "train_period", "test_period")]
        settings += ["arms=[insitu]", f"models={self.models}"]
        return load.load_experiment(str(self.folder / "snow.yaml"), settings)

    def make(self):
        for stage in (prepare_stage, predict_stage):
            stage.run(self.experiment, self.workspace, SilentProgress())
        self.workspace.lease.release()

    def update(self, through=LATER):
        day = date.fromisoformat(through)
        cli_update.run(self.experiment, self.workspace, SilentProgress(), through=day)
        self.workspace.lease.release()

    def opened(self, group=None, **options):
        """The maps as any reader opens them."""
        url = self.workspace.url("maps/insitu.zarr")
        return xr.open_zarr(url, group=group, **options).load()

    def files(self):
        return {
            str(path.relative_to(self.workspace.root)): path.read_bytes()
            for kind in ("maps", "state")
            for path in sorted(Path(self.workspace.url(kind)).rglob("*"))
            if path.is_file() and path.name != "manifest.json"
        }


@pytest.fixture(scope="module")
def mapped(world, tmp_path_factory, local_ray) -> Mapped:
    root = tmp_path_factory.mktemp("mapped")
    with pytest.MonkeyPatch.context() as longer:
        longer.setattr(world_module, "N_DAYS", N_DAYS)
        world_module.write(root / "snow")
    models = world.workspace.url("models")
    made = Mapped(root / "snow", models, Workspace(str(root / "workspace" / "snow")))
    made.make()
    return made


@pytest.fixture
def mine(mapped, tmp_path) -> Mapped:
    """A copy of it that may be changed."""
    shutil.copytree(mapped.folder, tmp_path / "snow")
    shutil.copytree(mapped.workspace.root, tmp_path / "workspace" / "snow")
    for name in ("snow.yaml", "catalog.yaml"):
        file = tmp_path / "snow" / name
        file.write_text(file.read_text().replace(str(mapped.folder), str(tmp_path / "snow")))
    workspace = Workspace(str(tmp_path / "workspace" / "snow"))
    return replace(mapped, folder=tmp_path / "snow", workspace=workspace)


def season(reference, day):
    """The reference's values at most 15 days from a date, in every year."""
    found = []
    for year in range(2018, 2026):
        first_of_month = np.datetime64(f"{year}-{day:%m}-01")
        centre = first_of_month + (day.day - 1)
        days = slice(centre - 15, centre + 15)
        found.append(reference.sel(time=days))
    return xr.concat(found, "time")


def is_of_the_season(maps, reference, day):
    today, others = maps[TARGET].sel(time=day), season(reference, date.fromisoformat(day))
    ranks = (others < today).mean("time") + (others == today).mean("time") / 2
    there = today.notnull()
    assert there.any()
    percentile, anomaly = (maps[name].sel(time=day) for name in LAYERS)
    np.testing.assert_allclose(percentile, 100 * ranks.where(there), atol=0.05 + 1e-9)
    wanted = (today - others.mean("time")).where(there)
    np.testing.assert_allclose(anomaly, wanted, atol=0.005 + 1e-9)


DAYS = ("2019-12-10", "2020-02-29", "2021-03-01", "2022-01-02", "2022-12-31", "2023-05-30")


@pytest.mark.runs  # it takes some seconds
def test_they_are_what_xarray_says_of_the_days_of_the_season_of_all_years(mapped):
    maps, series = mapped.opened(), mapped.opened("series")
    for day in DAYS:
        is_of_the_season(maps, maps[TARGET], day)
    for name in LAYERS:
        np.testing.assert_array_equal(maps[name], series[name])
        np.testing.assert_array_equal(maps[name].notnull(), maps[TARGET].notnull())
    assert 45 < float(maps[PERCENTILE].mean()) < 55
    assert float(maps[PERCENTILE].max() - maps[PERCENTILE].min()) > 90
    assert abs(float(maps[ANOMALY].mean())) < 0.05


@pytest.mark.runs  # it takes some seconds
def test_attributes_name_the_reference_and_what_is_missing(mapped):
    maps = mapped.opened(mask_and_scale=False)
    assert maps.attrs["reference_period"] == REFERENCE
    share, difference = (maps[name] for name in LAYERS)
    assert (share.dtype, share.attrs["units"], share.attrs["scale_factor"]) == ("int16", "%", 0.1)
    assert (difference.dtype, difference.attrs["units"]) == ("int16", "m")
    assert difference.attrs["cell_methods"] == "time: mean area: mean"
    for layer in (share, difference):
        assert layer.attrs["reference_period"] == REFERENCE
        assert "31 days" in layer.attrs["comment"]
        assert layer.attrs["ancillary_variables"] == "quality_flag input_status"
        assert "standard_name" not in layer.attrs
    assert set(np.unique(share)) <= {*range(1001), maps_schema.VALUE_FILL}


# netCDF4 warns for every array whose type states its byte order, as those of Zarr do.
@pytest.mark.runs
@pytest.mark.filterwarnings("ignore:endian-ness of dtype")
@pytest.mark.filterwarnings("ignore:Problem fetching standard name table")  # no network
@pytest.mark.filterwarnings("ignore:Passing the dataset to every:DeprecationWarning")
def test_checkers_say_no_more_of_maps_with_them(mapped, tmp_path):
    maps = mapped.opened().isel(time=slice(0, 3))
    said = {}
    for name, opened in (("with", maps), ("without", maps.drop_vars(LAYERS))):
        (tmp_path / name).mkdir()
        opened.to_netcdf(tmp_path / name / "maps.nc")
        said[name] = said_by_checkers(tmp_path / name / "maps.nc", tmp_path / name)
    more = {*said["with"]} - {*said["without"]}
    assert more == {
        f'variable "{name}" missing the following attributes: standard_name' for name in LAYERS
    }


@pytest.mark.runs  # it takes some seconds
def test_an_update_compares_its_days_with_the_same_reference_and_changes_no_others(mine):
    old = mine.opened(mask_and_scale=False)
    mine.update("2023-06-03")
    mine.update()
    for group in (None, "series"):
        new = mine.opened(group, mask_and_scale=False)
        for name in LAYERS:
            kept = new[name].sel(time=slice(None, LAST))
            np.testing.assert_array_equal(kept, old[name])
        assert str(new.time.values[-1])[:10] == LATER
    maps = mine.opened()
    assert maps.attrs["reference_period"] == REFERENCE
    reference = maps[TARGET].sel(time=slice(None, LAST))
    for day in ("2023-06-01", "2023-06-03", LATER):
        is_of_the_season(maps, reference, day)
    assert verify.verify_workspace(mine.workspace, SilentProgress()).problems == []


@pytest.mark.runs  # it takes a quarter of a minute
def test_revised_days_are_compared_again_with_the_reference_as_it_was(mine):
    first = mine.opened()
    file = mine.folder / "cells.nc"
    with xr.open_dataset(file, engine="h5netcdf") as held:
        forcing = held.load()
    forcing["SNOWF"].loc[{"time": ["2023-05-10"]}] += 2.0
    forcing.to_netcdf(file, engine="h5netcdf")
    mine.update()
    maps = mine.opened()
    same = slice(None, "2023-05-09")
    for name in (TARGET, *LAYERS):
        np.testing.assert_array_equal(maps[name].sel(time=same), first[name].sel(time=same))
    days = slice("2023-05-10", LAST)
    assert (maps[TARGET] != first[TARGET]).sel(time=days).any()
    for day in ("2023-05-09", "2023-05-12", LAST, LATER):
        is_of_the_season(maps, first[TARGET], day)
    is_repaired_to_the_last_bit(mine)


def is_repaired_to_the_last_bit(mine):
    before = mine.files()
    broken = (
        f"maps/insitu.zarr/{PERCENTILE}/c/39/0/0",
        f"maps/insitu.zarr/series/{ANOMALY}/c/0/0/0",
        f"maps/insitu.zarr/series/{TARGET}/c/3/0/0",
    )
    for key in broken:
        Path(mine.workspace.url(key)).unlink()
    result = verify.verify_workspace(mine.workspace, SilentProgress())
    assert len(result.problems) == len(broken)
    remaining = repair.repair(mine.workspace, result, SilentProgress()).problems
    # What describes the climate of the first maps cannot be made from revised forcing.
    of_climate = ("attribute_distance/", "probe_gain/", "attributes/", "mean_variance/")
    left = {p.key for p in remaining if not any(name in p.key for name in of_climate)}
    assert left <= {"next_probes.csv"}
    after = mine.files()
    for key in before:
        if not any(name in key for name in of_climate):
            assert after[key] == before[key], key


@pytest.mark.runs  # it maps twice
@pytest.mark.parametrize("array", [f"series/{PERCENTILE}", ANOMALY])
def test_maps_are_the_same_if_predict_was_killed_while_it_wrote_them(mine, tmp_path, array):
    before = chunks(mine)
    assert any(f"insitu.zarr/{array}/c/" in key for key in before)
    for kind in ("maps", "state"):
        shutil.rmtree(mine.workspace.url(kind))
    described = tmp_path / "experiment.json"
    described.write_text(mine.experiment.model_dump_json())
    script = Path(__file__).parents[1] / "fixtures" / "killed_prediction.py"
    command = [sys.executable, str(script), str(described), mine.workspace.root, array]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = {key for key in chunks(mine) if f"insitu.zarr/{array}/c/" in key}
    assert 0 < len(left) < sum(f"insitu.zarr/{array}/c/" in key for key in before)
    assert mine.workspace.artefact("maps").manifest() is None
    mine.make()
    assert chunks(mine) == before
    assert verify.verify_workspace(mine.workspace, SilentProgress()).problems == []


def chunks(mapped):
    """The values; attributes say when the maps were made."""
    found = mapped.files()
    return {key: data for key, data in found.items() if not key.endswith("zarr.json")}


@pytest.mark.runs  # it takes some seconds
def test_explain_tells_both_for_a_day(mapped):
    cell = mapped.opened().isel(y=7, x=9).sel(time="2022-02-01")
    place = float(cell.lat), float(cell.lon), date(2022, 2, 1)
    layers = value.read_value(find_subject(mapped.workspace.root, *place, None))["layers"]
    told = [layers[name]["value"] for name in LAYERS]
    assert told == pytest.approx([float(cell[name]) for name in LAYERS], abs=1e-5)
    assert layers[PERCENTILE]["unit"] == f"%, reference period {REFERENCE}"


@pytest.mark.runs  # it takes some seconds
def test_a_lost_reference_is_made_again_from_the_maps(mine):
    before = mine.files()
    key = "state/insitu.zarr/reference/c/0/0/0"
    Path(mine.workspace.url(key)).unlink()
    result = verify.verify_workspace(mine.workspace, SilentProgress())
    assert [problem.key for problem in result.problems] == [key]
    assert repair.repair(mine.workspace, result, SilentProgress()).problems == []
    assert mine.files() == before


@pytest.mark.runs  # it takes some seconds
def test_pieces_of_any_size_give_the_same(mapped, monkeypatch):
    """In one piece and in many, with a reference that ends before the maps do."""
    maps = mapped.workspace.url("maps/insitu.zarr")
    opened = mapped.opened()
    valid = opened[TARGET].notnull().any("time").values
    ny, nx = valid.shape
    tile = tile_climatology.TileClimatology(
        target=TARGET,
        first_day=date.fromisoformat(FIRST),
        reference=(date(2020, 1, 5), date(2023, 1, 20)),
        maps=maps,
        before=maps,
        rows=slice(0, ny),
        cols=slice(0, nx),
        valid=valid,
        frozen_days=None,
        frozen=None,
    )
    written = {}
    for together, rows, cols in ((4, 16, 64), (1, 5, 7)):
        monkeypatch.setattr(tile_climatology, "TOGETHER", together)
        monkeypatch.setattr(tile_climatology, "ROWS", rows)
        monkeypatch.setattr(tile_climatology, "COLS", cols)
        fields = {}
        for path, start, values in tile.compared(0, opened.sizes["time"]):
            fields.setdefault(path, []).append((start, values))
        written[together] = {
            path: np.concatenate([values for _, values in sorted(parts, key=lambda part: part[0])])
            for path, parts in fields.items()
        }
    for path, values in written[4].items():
        np.testing.assert_array_equal(values, written[1][path], path)
    reference = opened[TARGET].sel(time=slice("2020-01-05", "2023-01-20"))
    compared = opened.copy()
    for name, step in zip(LAYERS, (0.1, 0.01), strict=True):
        steps = written[4][name]
        compared[name][:] = np.where(steps == maps_schema.VALUE_FILL, np.nan, steps * step)
    for day in ("2019-12-31", "2020-02-29", "2023-01-15", LAST):
        is_of_the_season(compared, reference, day)


@pytest.mark.runs  # it makes the maps anew
def test_maps_that_were_made_without_them_stay_so(mine, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr(climatology, "describe_variables", lambda *_: [])
        earlier.setattr(climatology, "describe_period", lambda *_: climatology.NO_LAYERS)
        for kind in ("maps", "state"):
            shutil.rmtree(mine.workspace.url(kind))
        predict_stage.run(mine.experiment, mine.workspace, SilentProgress())
    mine.update()
    for group in (None, "series"):
        maps = mine.opened(group)
        assert str(maps.time.values[-1])[:10] == LATER
        assert maps[TARGET].isel(time=-1).notnull().any()
        assert {*LAYERS}.isdisjoint(maps)
    assert verify.verify_workspace(mine.workspace, SilentProgress()).problems == []


def test_less_than_three_years_have_no_layers_and_say_why(world):
    maps = xr.open_zarr(world.workspace.url("maps/insitu.zarr"))
    assert maps.attrs["reference_period"] == (
        "no percentiles and anomalies, because 2019-11-20..2020-04-27 has less than 3 years"
    )
    assert not any(str(name).endswith(("percentile", "anomaly")) for name in maps)
    assert not Path(world.workspace.url("state/insitu.zarr/reference")).exists()


def test_the_reference_may_be_set_within_the_period():
    given = load.load_experiment("demo", ["reference_period=[2016-01-01, 2018-12-31]"])
    window = config.experiment_window(given)
    arrays, attrs = maps_schema.maps_template(given, window, "insitu", 1)
    assert attrs[""]["reference_period"] == "2016-01-01..2018-12-31"
    assert {"soil_moisture_anomaly", "series/soil_moisture_percentile"} <= {a.path for a in arrays}
    for setting, found in (
        (
            "[2015-01-01, 2018-12-31]",
            "reference_period 2015-01-01..2018-12-31 is not inside period",
        ),
        ("[2016-01-01, 2018-12-01]", "reference_period has less than three years"),
    ):
        with pytest.raises(ConfigError, match=found):
            load.load_experiment("demo", [f"reference_period={setting}"])


def test_only_the_last_days_of_a_reference_can_be_revised():
    period = date(2019, 12, 10), date(2023, 5, 30)  # of 1268 days, 40 blocks; 37 to 39 have states
    days = maps_schema.revisable_days
    assert days(period, period) == slice(37 * 32, 1268)
    assert days(period, (date(2020, 1, 1), date(2023, 3, 31))) == slice(37 * 32, 1208)
    assert days(period, (date(2019, 12, 10), date(2023, 1, 31))) is None
    assert days(period, None) is None
