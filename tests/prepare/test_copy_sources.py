"""Copies of sources: the cube made of them is the cube made of the sources, and resumable."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

from pipeline import prepare
from pipeline.catalog import intake_catalog
from pipeline.cluster import ray_cluster
from pipeline.errors import DataError, SoilweaveError
from pipeline.experiment import load
from pipeline.prepare import copy_sources
from pipeline.storage import source_copies
from pipeline.storage.artefacts import Workspace
from pipeline.storage.cube import Cube

SHORT = "[2019-12-05, 2020-02-20]"
PERIODS = [f"{key}={SHORT}" for key in ("period", "train_period", "test_period")]


class Heard:
    """Keeps what a stage says."""

    def __init__(self):
        self.notes = []

    def start(self, stage, total, unit):
        self.notes.append(f"{stage} {total} {unit}")

    def advance(self, units=1):
        pass

    def finish(self, note):
        self.notes.append(note)

    def note(self, text):
        self.notes.append(text)


def experiments(snow, folder):
    """Reading from the sources, and from their copies."""
    plain = load.load_experiment(str(snow), PERIODS)
    return plain, load.load_experiment(str(snow), [*PERIODS, f"sources.staged={folder}"])


def arrays_of(url):
    cube = Cube.open(url)
    groups = {"cells": cube.cells, "footprints": cube.footprints, "sites": cube.sites}
    return {f"{g}/{n}": ds[n].values for g, ds in groups.items() for n in ds.variables}


def tell(snow, **said):
    file = snow.parent / "catalog.yaml"
    tree = yaml.safe_load(file.read_text())
    tree["sources"]["cells"]["metadata"]["volume"] = said
    file.write_text(yaml.safe_dump(tree))


def test_the_cube_of_the_copies_is_the_cube_of_the_sources(snow, tmp_path, local_ray):
    tell(snow, days=10, degrees=[10, 10], per="variable", megabytes=2.5, basis="estimated")
    plain, staged = experiments(snow, tmp_path / "copies")
    heard = Heard()
    direct = Workspace(str(tmp_path / "direct"))
    prepare.run(plain, direct, heard)
    copied = Workspace(str(tmp_path / "copied"))
    copy_sources.run(staged, copied, heard)
    box = plain.domain
    tiles = 1
    for low, high in ((box.south_degrees, box.north_degrees), (box.west_degrees, box.east_degrees)):
        tiles *= int(np.ceil(high / 10) - np.floor(low / 10))
    n = 8 * tiles * 3  # blocks of ten days, tiles, variables
    said = [note for note in heard.notes if "requests" in note]
    assert said == [
        f"about {n * 2.5:.1f} MB in {n} requests; unknown for footprints, sites, "
        f"to {tmp_path}/copies"
    ]
    for file in ("cells", "footprints", "sites"):
        (snow.parent / f"{file}.nc").unlink()  # nothing but the copies is read from here on
    prepare.run(staged, copied, heard)
    made = [arrays_of(w.url("cube.zarr")) for w in (direct, copied)]
    assert made[0].keys() == made[1].keys()
    for name, values in made[0].items():
        np.testing.assert_array_equal(values, made[1][name], err_msg=name)
    first, second = (w.artefact("cube").manifest() for w in (direct, copied))
    assert first["inputs_sha256"] == second["inputs_sha256"]
    assert first["dropped"] == second["dropped"]


def test_an_interrupted_copy_goes_on(snow, tmp_path, local_ray, monkeypatch):
    _, staged = experiments(snow, tmp_path / "copies")
    broken = snow.parent / "footprints.nc"
    whole = broken.read_bytes()
    with xr.open_dataset(broken, engine="h5netcdf") as dataset:
        longer = dataset.load()
    workspace = Workspace(str(tmp_path / "w"))
    real, calls = source_copies.write_days, []

    def write(dataset, *args, **kwargs):
        if dataset.attrs["entry"] == "footprints" and len(calls) == 2:
            raise OSError("the line was cut")
        calls.append(dataset.attrs["entry"])
        return real(dataset, *args, **kwargs)

    def here(pieces, task, receipts):  # in this process, where writing can be cut
        return ((piece, task(piece)) for piece in pieces)

    with monkeypatch.context() as patch:
        patch.setattr(source_copies, "write_days", write)
        patch.setattr(ray_cluster, "run_tasks", here)
        patch.setattr(intake_catalog, "cube_entries", lambda experiment: ["footprints"])
        with pytest.raises(
            DataError, match=r"entry footprints: cannot be read, .*: the line was cut"
        ):
            copy_sources.run(staged, workspace, Heard())
    url = Path(source_copies.copy_url(f"{tmp_path}/copies", "footprints"))
    kept = {p: p.stat().st_mtime_ns for p in url.glob("data/*/c/**/*") if p.is_file()}
    assert kept
    assert not (url / "manifest.json").exists()
    with pytest.raises(DataError, match="no complete copy of footprints"):
        source_copies.open_copy(f"{tmp_path}/copies", "footprints")
    heard = Heard()
    copy_sources.run(staged, workspace, heard)
    assert kept.items() <= {p: p.stat().st_mtime_ns for p in kept}.items()
    assert not (url / "receipts").exists()
    copy_sources.run(staged, workspace, heard)
    assert heard.notes[-1] == f"all sources are already copied to {tmp_path}/copies"
    # Another content at the origin is another copy.
    longer["SD"] = longer["SD"] + 1
    longer.to_netcdf(broken, engine="h5netcdf")
    with pytest.raises(SoilweaveError, match=r"made with other settings.*source"):
        copy_sources.run(staged, workspace, heard)
    broken.write_bytes(whole)
    copy_sources.run(staged, workspace, heard)


def test_volumes_count_objects_in_time_and_space(snow):
    tell(snow, days=0, per="all", megabytes=5)
    assert intake_catalog.entry_volume(load.load_experiment(str(snow)), "cells") == (
        1,
        5.0,
        "estimated",
        1,
    )
    tell(snow, days=365, degrees=[180, 360], per="all", megabytes=1500, basis="published")
    experiment = load.load_experiment(str(snow))
    found = intake_catalog.entry_volume(experiment, "cells")
    assert found == intake_catalog.Volume(found.requests, found.requests * 1500.0, "published", 1)
    assert intake_catalog.format_size(found.megabytes).endswith("GB")
    assert intake_catalog.entry_volume(load.load_experiment(str(snow)), "sites") is None
    assert (
        intake_catalog.describe_volume(experiment, ["sites"])
        == "bytes and requests unknown for sites"
    )
    # An object of three blocks is read three times block by block, and copied in one piece.
    tell(snow, days=90, degrees=[180, 360], per="variable", megabytes=1)
    experiment = load.load_experiment(str(snow))
    assert intake_catalog.entry_volume(experiment, "cells").blocks == 3

    def pieces(entry):
        return [
            tuple(p.values())
            for p in copy_sources._split_into_tasks(experiment, entry, range(100, 108))
        ]

    assert pieces("cells") == [("cells", 100, 3), ("cells", 103, 3), ("cells", 106, 2)]
    assert pieces("sites") == [("sites", 100, 8)]
    assert pieces("footprints")[:2] == [("footprints", 100, 1), ("footprints", 101, 1)]
