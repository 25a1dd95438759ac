"""Maps of CONUS published to S3, as releases of plain Zarr and as snapshots of Icechunk.

The maps are made up: one arm, with the variables, shards and chunks that `predict` writes. They are
published, then a day is added as `update` does it (the last shard of each tile is written again),
and they are published again. Both write the same bytes of the same shards to the same SeaweedFS,
through a proxy that counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from unittest import mock

import icechunk
import numpy as np
import s3_proxy
import servers
import xarray as xr

from bench.measure import in_turn
from bench.reading import Fields
from bench.rows import Row
from pipeline import files
from pipeline.experiment import config, load
from pipeline.progress import SilentProgress
from pipeline.publish import stage
from pipeline.publish.content import Content, Item
from pipeline.storage import maps_schema, publications, records, schema, zarr_arrays

SECTION = "maps of CONUS published to S3"
BESIDE = "Icechunk"
ARM = "multiscale"
FOLDER = f"maps/{ARM}.zarr"
FIRST = np.datetime64("2018-01-01")
CONNECTIONS = 8


def rows(context):
    """Publishing twice, then reading."""
    n_days = 64 if context.quick else 365
    folder = context.scratch("publishing")
    with contextlib.ExitStack() as stack:
        s3 = stack.enter_context(servers.seaweed(folder))
        proxy = stack.enter_context(s3_proxy.before(s3.endpoint))
        environment = s3.environment | {"AWS_ENDPOINT_URL": proxy.url}
        stack.enter_context(mock.patch.dict(os.environ, environment))
        ours, theirs = Releases(s3.url("published")), Snapshots(s3, proxy)
        maps = Maps(folder / "experiment", context)
        for what, add in (("first publish", n_days), ("the next day's", 1)):
            maps.add(add)
            yield from _published(what, maps, proxy, ours, theirs)
        n_days += 1
        yield from _stored(s3)
        yield from _read(context, proxy, ours, theirs, n_days)


class Maps:
    """The maps of one arm in a folder, to which days are added."""

    def __init__(self, folder, context):
        self.root, self.n_days, self.context = str(folder), 0, context

    def add(self, n):
        """Add days: all shards that have one of them are written, and the metadata."""
        before, self.n_days = self.n_days, self.n_days + n
        period = f"[{FIRST}, {FIRST + np.timedelta64(self.n_days - 1, 'D')}]"
        settings = [f"{key}={period}" for key in ("period", "train_period", "test_period")]
        self.experiment = load.load_experiment("conus", settings)
        window = config.experiment_window(self.experiment)
        form, attrs = maps_schema.maps_template(self.experiment, window, ARM, 3)
        url = files.join(self.root, FOLDER)
        make = zarr_arrays.extend_group if before else zarr_arrays.create_group
        make(url, form, attrs)
        made = Fields(window.cell_shape)
        first = schema.epoch_day(self.experiment.period[0])
        shift = schema.epoch_day(self.experiment.period[0]) - first
        for array in form:
            if array.values is None and len(array.shape) == 3:
                self._write(url, array, made, shift + before, shift + self.n_days)
        zarr_arrays.consolidate(url)

    def _write(self, url, array, made, changed, end):
        """Write the shards of an array that have days from the first changed one to the last."""
        self.context.told(array.path, f"to day {self.n_days}")
        length, (ny, nx), side = array.shards[0], array.shape[1:], schema.SHARD
        for start in range(changed // length * length, array.shape[0], length):
            n = min(length, array.shape[0] - start)
            for row, col in itertools.product(range(0, ny, side), range(0, nx, side)):
                cells = [slice(row, min(row + side, ny)), slice(col, min(col + side, nx))]
                made.rng = np.random.default_rng([start, row, col])  # the same values every time
                values = made.days(start, length, *cells)[:n]
                if array.dtype != "<i2":
                    values = (values < 1200).astype(array.dtype)
                elif array.path.endswith("_std"):
                    values //= 8
                values[max(0, end - start) :] = array.fill_value
                region = [slice(start, start + n), *cells]
                zarr_arrays.write_shards(url, array.path, region, values)

    def keys(self):
        """Keys of all objects."""
        listed = files.list_objects(files.join(self.root, FOLDER))
        return [f"{FOLDER}/{key}" for key in sorted(listed)]

    def content(self):
        """What a release contains."""
        items = (
            Item(r["key"], r["size"], r["sha256"], files.join(self.root, r["key"]))
            for r in records.read_records(self.root, self.keys())
        )
        return Content(self.experiment, tuple(items), str(self.experiment.period[1]))


class Releases:
    """Plain Zarr under a prefix for each release."""

    def __init__(self, url):
        self.url = url

    def publish(self, maps):
        stage.publish_content(maps.content(), self.url, SilentProgress())

    def open(self, group):
        return publications.open_maps(self.url, ARM, group)


class Snapshots:
    """A repository of Icechunk, a commit for each release."""

    def __init__(self, s3, proxy):
        self.storage = icechunk.s3_storage(
            bucket=s3.bucket,
            prefix="icechunk",
            endpoint_url=proxy.url,
            region="us-east-1",
            access_key_id=s3.key,
            secret_access_key=s3.secret,
            allow_http=True,
            force_path_style=True,
        )
        self.digests = {}

    def publish(self, maps):
        """Send what has changed, and commit it."""
        made = icechunk.Repository.open_or_create(self.storage)
        session = made.writable_session("main")
        items = [i for i in maps.content().items if self.digests.get(i.key) != i.sha256]
        asyncio.run(self._send(session.store, items))
        session.commit(str(maps.experiment.period[1]))
        self.digests |= {item.key: item.sha256 for item in items}

    async def _send(self, store, items):
        from zarr.core.buffer import default_buffer_prototype

        turns = asyncio.Semaphore(CONNECTIONS)

        async def send(item):
            async with turns:
                buffer = default_buffer_prototype().buffer.from_bytes(item.read())
                await store.set(item.key.removeprefix(f"{FOLDER}/"), buffer)

        # Metadata first: a chunk needs its array.
        for part in (True, False):
            chosen = [item for item in items if item.key.endswith("zarr.json") == part]
            await asyncio.gather(*map(send, chosen))

    def open(self, group):
        session = icechunk.Repository.open(self.storage).readonly_session("main")
        return xr.open_zarr(session.store, group=group or None, consolidated=False)


@contextlib.contextmanager
def counted(proxy):
    """Bytes sent and received and requests by method of the block, and its seconds."""
    found = {}
    proxy.counted.clear()
    begun = time.perf_counter()
    yield found
    found["seconds"] = time.perf_counter() - begun
    done = [*proxy.counted]
    found["sent"] = sum(each.sent for each in done) / 1e6
    found["received"] = sum(each.received for each in done) / 1e6
    found["requests"] = len(done)
    found["by"] = ", ".join(
        f"{n} {name}"
        for name in ("GET", "HEAD", "PUT", "COPY", "POST", "DELETE")
        if (n := sum(each.method == name for each in done))
    )


def _published(what, maps, proxy, ours, theirs):
    found = {}
    for name, to in (("ours", ours), ("theirs", theirs)):
        maps.context.told(what, name)
        with counted(proxy) as found[name]:
            to.publish(maps)
    us, them = found["ours"], found["theirs"]
    how = f"{maps.n_days} days, {len(maps.keys())} objects"
    yield Row(SECTION, f"{what} publish: sent".replace("publish publish", "publish"), "MB",
              [us["sent"]], BESIDE, [them["sent"]], note=how)  # fmt: skip
    note = f"{us['by']}; {BESIDE}: {them['by']}"
    yield Row(SECTION, f"{what}: requests", "", [us["requests"]], BESIDE, [them["requests"]],
              note=note)  # fmt: skip
    yield Row(SECTION, f"{what}: time", "s", [us["seconds"]], BESIDE, [them["seconds"]])


def _stored(s3):
    with contextlib.closing(s3.client()) as client:
        sizes = {}
        for prefix in ("published", "icechunk"):
            pages = client.get_paginator("list_objects_v2").paginate(
                Bucket=s3.bucket, Prefix=prefix
            )
            sizes[prefix] = [o["Size"] for page in pages for o in page.get("Contents", ())]
    ours, theirs = (sum(each) / 1e6 for each in sizes.values())
    note = f"{len(sizes['published'])} objects; {BESIDE}: {len(sizes['icechunk'])}"
    yield Row(SECTION, "both releases stored", "MB", [ours], BESIDE, [theirs], note=note)


def _read(context, proxy, ours, theirs, n_days):
    rng = np.random.default_rng(1)
    target = "soil_moisture"

    def day(opened):
        when = FIRST + int(rng.integers(0, n_days))
        return opened[target].sel(time=when.astype("datetime64[ns]")).values

    def cell(opened):
        y, x = rng.integers(0, schema.SHARD, 2)
        return opened[target][:, int(y), int(x)].values

    same = (ours.open("series"), theirs.open("series"))
    assert np.array_equal(*(each[target][:, 5, 7].values for each in same), equal_nan=True)
    wholes = (ours.open(""), theirs.open(""))
    assert np.array_equal(*(each[target][-1].values for each in wholes), equal_nan=True)
    for what, group, read in (("a day's map", "", day), ("a cell's series", "series", cell)):
        actions, requests = {}, {}
        for name, of in (("ours", ours), ("theirs", theirs)):
            actions[name] = lambda of=of, read=read, group=group: read(of.open(group))
            with counted(proxy) as requests[name]:
                actions[name]()
        told = lambda text, what=what: context.told(what, text)  # noqa: E731
        taken = in_turn(actions, context.rounds(5, 15), told=told)
        us, them = requests["ours"], requests["theirs"]
        yield Row(SECTION, f"opened and {what} read: time", "ms",
                  [1e3 * s for s in taken["ours"]], BESIDE,
                  [1e3 * s for s in taken["theirs"]])  # fmt: skip
        note = f"{us['by']}; {BESIDE}: {them['by']}"
        yield Row(SECTION, f"opened and {what} read: requests", "", [us["requests"]], BESIDE,
                  [them["requests"]], note=note)  # fmt: skip
        yield Row(SECTION, f"opened and {what} read: received", "MB", [us["received"]], BESIDE,
                  [them["received"]])  # fmt: skip
