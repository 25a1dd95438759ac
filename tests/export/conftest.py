"""Maps of a made-up experiment, wide enough for overviews, over the turn of a year."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr

from pipeline.experiment import load
from pipeline.grid.ease import Window
from pipeline.progress import SilentProgress
from pipeline.storage import maps_schema, zarr_arrays
from pipeline.storage.artefacts import Workspace

if TYPE_CHECKING:
    from pathlib import Path

WINDOW = Window(60, 180, 2, 130, 4)  # 8 x 520 cells
FIRST, LAST = "2016-12-20", "2017-02-10"
TARGET = "soil_moisture"


@dataclass
class Made:
    """The maps: their workspace, and what is in them."""

    workspace: Workspace

    @property
    def root(self) -> str:
        return self.workspace.root

    @property
    def store(self) -> str:
        return self.workspace.url("maps", "insitu.zarr")

    def opened(self) -> xr.Dataset:
        """The mapped days, as any user opens them."""
        return xr.open_zarr(self.store, chunks=None).sel(time=slice(FIRST, LAST))

    def revise(self, path: str, first: int, change) -> None:
        """Write the block that begins at a position of the axis anew, as `update` does."""
        opened = zarr_arrays.open_group(self.store, "")
        n_days, *shape = opened[TARGET].shape
        region = [slice(first, min(first + 32, n_days)), *(slice(0, n) for n in shape)]
        values = change(zarr_arrays.read_packed(self.store, path, region))
        written = zarr_arrays.write_shards(self.store, path, region, values)
        records = [r | {"key": f"maps/insitu.zarr/{r['key']}"} for r in written]
        self.maps.amend(records)

    @property
    def maps(self):
        return dataclasses.replace(self.workspace.artefact("maps"), lease=None)


def make(folder: Path) -> Made:
    """Maps of random values, 10 % of them missing, with flags."""
    period = f"[{FIRST}, {LAST}]"
    settings = [f"{key}={period}" for key in ("period", "train_period", "test_period")]
    experiment = load.load_experiment("demo", [*settings, "arms=[insitu]"])
    made = Made(Workspace(str(folder / "demo")))
    made.workspace.describe(experiment)
    form, attrs = maps_schema.maps_template(experiment, WINDOW, "insitu", 1, sites=True)
    zarr_arrays.create_group(made.store, form, attrs)
    n_days, rng = len(zarr_arrays.open_group(made.store, "").time), np.random.default_rng(0)
    shape = (n_days, *WINDOW.cell_shape)
    missing = rng.random(shape) < 0.1
    flags = rng.choice(np.array([0, 2, 4, 6], np.uint8), shape)
    layers = {
        TARGET: np.where(missing, -32768, rng.integers(500, 4000, shape)).astype(np.int16),
        f"{TARGET}_std": np.where(missing, -32768, rng.integers(200, 900, shape)).astype(np.int16),
        "quality_flag": np.where(missing, 1, flags).astype(np.uint8),
    }
    written = [
        record | {"key": f"maps/insitu.zarr/{record['key']}"}
        for name, values in layers.items()
        for path in (name, f"series/{name}")
        for record in zarr_arrays.write_shards(made.store, path, [*map(whole, shape)], values)
    ]
    zarr_arrays.consolidate(made.store)
    made.maps.commit({}, written)
    return made


def whole(n: int) -> slice:
    return slice(0, n)


@dataclass
class Said(SilentProgress):
    """Keeps the last line and the number of days."""

    line: str = ""
    days: int = 0
    then: object = None
    total: int = field(default=0)

    def start(self, stage, total, unit):
        self.total, self.days = total, 0

    def advance(self, units=1):
        self.days += units
        if self.then is not None:
            self.then(self.days)

    def finish(self, note):
        self.line = note


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Made:
    """The maps, which no test changes."""
    return make(tmp_path_factory.mktemp("export"))


@pytest.fixture
def own(made, tmp_path) -> Made:
    """A copy, which a test may change."""
    shutil.copytree(made.root, tmp_path / "ws" / "demo")
    return Made(Workspace(str(tmp_path / "ws" / "demo")))


@pytest.fixture
def said() -> Said:
    return Said()
