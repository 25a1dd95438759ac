"""Maps of CONUS: a block written, a day and a cell's ten years read as a user reads them.

The store has the form that `predict` writes (its template, its shards); only the part that is read
here is there. It is read from the disk, whose files the system forgets before each reading, and
from an S3 server on this machine: by zarr alone, by xarray, and by xarray with dask.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from functools import partial
from unittest import mock

import fsspec
import numpy as np
import servers
import xarray as xr
import zarr

from bench import machine
from bench.measure import in_turn, per_second
from bench.rows import Aim, Row
from pipeline.experiment import config, load
from pipeline.storage import maps_schema, schema, zarr_arrays

SECTION = "maps of CONUS, 284 x 628 cells"
PERIOD = "[2010-01-01, 2019-12-31]"
DAY_MS, SERIES_MS = 10.0, 20.0
TARGET = "soil_moisture"


def rows(context):
    """Writing, then reading with and without opening."""
    settings = [f"{key}={PERIOD}" for key in ("period", "train_period", "test_period")]
    experiment = load.load_experiment("conus", settings)
    window = config.experiment_window(experiment)
    folder = context.scratch("maps")
    url = str(folder / "multiscale.zarr")
    form, attrs = maps_schema.maps_template(experiment, window, "multiscale", 3)
    zarr_arrays.create_group(url, form, attrs)
    made = Fields(window.cell_shape)
    yield from written(context, url, made, folder)
    context.told("ten years of a column", "are written")
    n_days = len(schema.time_axis(experiment.period))
    fill(url, made, n_days)
    zarr_arrays.consolidate(url)
    files = [path for path in (folder / "multiscale.zarr").rglob("*") if path.is_file()]
    yield from read(context, "from disk", url, n_days, files)
    with contextlib.ExitStack() as stack:
        s3 = stack.enter_context(servers.seaweed(folder))
        stack.enter_context(mock.patch.dict(os.environ, s3.environment))
        there = s3.url("maps", "multiscale.zarr")
        fsspec.filesystem("s3").put(url, there, recursive=True)
        yield from read(context, "from S3 on this machine", there, n_days)


class Fields:
    """Moisture that looks like moisture to a compressor: smooth in space, drying, with noise."""

    def __init__(self, shape):
        self.rng = np.random.default_rng(0)
        coarse = self.rng.normal(0, 600, (shape[0] // 8 + 1, shape[1] // 8 + 1))
        self.mean = (2500 + np.kron(coarse, np.ones((8, 8))))[: shape[0], : shape[1]]

    def days(self, first, n, rows, cols):
        """(day, y, x) int16, multiples of 1e-4 m3 m-3."""
        mean = self.mean[rows, cols].astype(np.float32)
        noise = self.rng.standard_normal((n, *mean.shape), np.float32)
        season = 400 * np.sin(np.arange(first, first + n, dtype=np.float32) / 58)[:, None, None]
        return (mean + season + 60 * noise).astype(np.int16)


def written(context, url, made, folder):
    """A shard of 32 days x 256 x 256 of the root, and one of 384 days of `series`."""
    cells = slice(0, schema.SHARD)
    sizes = {TARGET: schema.BLOCK_DAYS, f"series/{TARGET}": schema.BLOCK_DAYS * 12}
    write = machine.writing(folder)
    actions, megabytes = {"storage": write}, {}
    for path, n in sizes.items():
        values = made.days(0, n, cells, cells)
        megabytes[path] = values.nbytes / 1e6
        region = [slice(0, n), cells, cells]
        actions[path] = partial(zarr_arrays.write_shards, url, path, region, values)
    taken = in_turn(
        actions, context.rounds(5, 15), told=lambda text: context.told("shards written", text)
    )
    for path, n in sizes.items():
        yield Row(
            SECTION,
            f"a shard of {n} days x 256 x 256 written and read back, "
            f"{'the root' if path == TARGET else 'the group series'}",
            "MB/s of int16",
            per_second(taken[path], megabytes[path]),
            limit_of="storage, writing",
            limit=per_second(taken["storage"], 1.0),
        )


def fill(url, made, n_days):
    """The root's first three blocks of all columns, and ten years of one column of `series`."""
    shape, length = made.mean.shape, schema.BLOCK_DAYS * maps_schema.SERIES_BLOCKS
    for row in range(0, shape[0], schema.SHARD):
        for col in range(0, shape[1], schema.SHARD):
            cells = [
                slice(row, min(row + schema.SHARD, shape[0])),
                slice(col, min(col + schema.SHARD, shape[1])),
            ]
            for start in range(0, 3 * schema.BLOCK_DAYS, schema.BLOCK_DAYS):
                values = made.days(start, schema.BLOCK_DAYS, *cells)
                region = [slice(start, start + schema.BLOCK_DAYS), *cells]
                zarr_arrays.write_shards(url, TARGET, region, values)
    cells = slice(0, schema.SHARD)
    for start in range(0, n_days, length):
        n = min(length, n_days - start)
        values = made.days(start, n, cells, cells)
        zarr_arrays.write_shards(
            url, f"series/{TARGET}", [slice(start, start + n), cells, cells], values
        )


def read(context, place, url, n_days, files=()):
    """A day of the whole region, and ten years of a cell, by each reader.

    Args:
      context: The context of the section.
      place: Where the store is, in words.
      url: URL of the store.
      n_days: Number of days of the store.
      files: Files that the system forgets before each reading.
    """
    rng = np.random.default_rng(1)

    def cold(action):
        for path in files:
            machine.forget(path)
        begun = time.perf_counter()
        action()
        return time.perf_counter() - begun

    def day(array):
        return np.asarray(array[int(rng.integers(0, 3 * schema.BLOCK_DAYS))])

    def cell(array):
        y, x = rng.integers(0, schema.SHARD, 2)
        return np.asarray(array[:, int(y), int(x)])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kinds = {"day": ("", day), "cell": ("series", cell)}
        actions = {}
        for kind, (group, take) in kinds.items():
            arrays = opened(url, group)
            assert np.isfinite(take(arrays["xarray"])).all()
            for reader, array in arrays.items():
                actions[kind, reader] = partial(cold, partial(take, array))
            actions[kind, "anew"] = partial(cold, partial(opened_and_taken, url, group, take))
        taken = in_turn(
            actions, context.rounds(15, 50), told=lambda text: context.told(place, str(text))
        )
    for kind, what, most in (
        ("day", "a day's map", DAY_MS),
        ("cell", f"a cell's ten years, {n_days} days", SERIES_MS),
    ):
        aimed = Aim(most, least=False, of_ratio=False)
        for reader, how, aim in (
            ("xarray", "by xarray, as open_maps does", aimed if files else None),
            ("dask", "by xarray with dask, the default of open_zarr", None),
            ("anew", "by xarray, opening counted", None),
        ):
            yield Row(
                SECTION,
                f"{what} {place}, {how}",
                "ms",
                [1e3 * s for s in taken[kind, reader]],
                beside="zarr alone",
                beside_samples=[1e3 * s for s in taken[kind, "zarr"]],
                aim=aim,
                way="reading and decoding of chunks",
            )


def opened(url, group):
    """The array of values, by reader."""
    options = {"group": group or None, "consolidated": not group}
    return {
        "zarr": zarr.open_group(url, mode="r")[f"{group}/{TARGET}".lstrip("/")],
        "xarray": xr.open_zarr(url, chunks=None, **options)[TARGET],
        "dask": xr.open_zarr(url, **options)[TARGET],
    }


def opened_and_taken(url, group, take):
    """What is taken from a store that is opened for it."""
    options = {"group": group or None, "consolidated": not group}
    return take(xr.open_zarr(url, chunks=None, **options)[TARGET])
