"""Prepare: one block of days of a planet, from a provider's files into the cube."""

from __future__ import annotations

import time

from bench import machine
from bench.measure import in_turn, per_second
from bench.rows import Row
from pipeline import planet
from pipeline.catalog import experiment_sources
from pipeline.experiment import config, load
from pipeline.prepare import stage
from pipeline.prepare.block_task import write_block
from pipeline.progress import SilentProgress
from pipeline.storage import schema, zarr_arrays
from pipeline.storage.artefacts import Workspace

SECTION = "prepare, one process"

SETTINGS = (
    "planet.kind=load",
    "domain.west_degrees=-110.0",
    "domain.east_degrees=-86.3",
    "domain.south_degrees=28.0",
    "domain.north_degrees=49.0",
    *(f"{key}=[2016-01-01, 2016-03-20]" for key in ("period", "train_period", "test_period")),
)


def rows(context):
    """The second block of 32 days, which holds no statics, of about 256 x 256 cells."""
    folder = context.scratch("prepare")
    experiment = load.load_experiment("demo", SETTINGS, "prepare")
    workspace = Workspace(str(folder / "prepare"))
    experiment = workspace.place(experiment)
    context.told("a planet", "is made")
    planet.run(experiment, workspace, SilentProgress())
    workspace.lease.release()
    url = workspace.url("cube.zarr")
    # The template of a cube, which the stage writes before it deals blocks to Ray.
    form = stage._cube_template(experiment, experiment_sources.open_sources(experiment))
    zarr_arrays.create_group(url, *form)
    block = schema.block_range(experiment.period)[1]
    ny, nx = config.experiment_window(experiment).cell_shape
    megabytes = ny * nx * 4 * schema.BLOCK_DAYS * len(form[1][""]["forcing"]) / 1e6
    write, read = machine.writing(folder), machine.reading(folder)
    for path in (folder / "prepare" / "planet").iterdir():
        machine.forget(path)
    begun = time.perf_counter()
    receipt = write_block({"block": block}, experiment.model_dump_json(), url)
    first = time.perf_counter() - begun
    assert receipt["problems"] == [], receipt
    actions = {
        "block": lambda: write_block({"block": block}, experiment.model_dump_json(), url),
        "written": lambda: write() * megabytes,
        "read": lambda: read() * megabytes,
    }
    taken = in_turn(
        actions, context.rounds(3, 9), warm=0, told=lambda text: context.told("a block", text)
    )
    yield Row(
        SECTION,
        f"a block of {ny} x {nx} cells, {schema.BLOCK_DAYS} days: "
        "read, regridded, checked, written",
        "MB/s of float32",
        per_second(taken["block"], megabytes),
        limit_of="storage, writing",
        limit=per_second(taken["written"], megabytes),
        note=f"{megabytes:.0f} MB; the first, from cold files, took {first:.1f} s",
    )
    for name in ("written", "read"):
        yield Row(
            SECTION,
            f"storage of the workspace, 256 MB {name}",
            "MB/s",
            per_second(taken[name], megabytes),
        )
