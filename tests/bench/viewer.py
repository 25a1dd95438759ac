"""The page of the viewer in Chromium: first map, a day's step, a cell's series, memory.

Maps of the size of the demo, and of CONUS over ten years, lie in a bucket of SeaweedFS that anybody
may read, with the page beside them. Each first map is that of a new browser context, which has
nothing in its cache; "slow" is a network of 10 Mbit/s and 60 ms, as Chromium imitates it. The days
of CONUS that are shown, and one column of its series, have values; the rest is not needed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from unittest import mock

import fsspec
import numpy as np
import servers
from playwright.sync_api import sync_playwright

from bench.reading import Fields
from bench.rows import Aim, Row
from pipeline import files, viewer
from pipeline.experiment import config, load
from pipeline.storage import maps_schema, schema, zarr_arrays

ARM, TARGET = "multiscale", "soil_moisture"
NAMES = (TARGET, f"{TARGET}_std", "quality_flag")
SHOWN_DAYS = 3 * schema.BLOCK_DAYS  # of CONUS, from the first one
SLOW = {
    "offline": False,
    "latency": 60,
    "downloadThroughput": 10e6 / 8,
    "uploadThroughput": 10e6 / 8,
}
FIRST_MS, FIRST_SLOW_MS, STEP_MS, SERIES_MS = 1500.0, 3000.0, 150.0, 400.0
MEMORY_STEPS, MEMORY_MB = 200, 250.0  # the caches of the page hold 176 MB at most
OPTIONS = ("--no-sandbox", "--disable-dev-shm-usage", "--enable-precise-memory-info")
STORES = {
    "the demo, 48 x 64 cells": ("demo", "[2016-01-01, 2018-12-31]"),
    "CONUS, 284 x 628 cells": ("conus", "[2010-01-01, 2019-12-31]"),
}


def rows(context):
    """Every store in turn."""
    folder = context.scratch("viewer")
    with contextlib.ExitStack() as stack:
        s3 = stack.enter_context(servers.seaweed(folder))
        stack.enter_context(mock.patch.dict(os.environ, s3.environment))
        let_anybody_read(s3)
        browser = stack.enter_context(chromium())
        for section, (preset, period) in STORES.items():
            context.told("maps of", preset)
            days = published(folder / preset, s3, preset, period)
            address = f"{s3.endpoint}/{s3.bucket}/{preset}/index.html?date={days[0]}"
            yield from measured(context, browser, f"the page, {section}", address, days)


def let_anybody_read(s3):
    """Give the bucket a policy, as of a public one that cannot be listed."""
    anybody = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject"}
    statement = anybody | {"Resource": f"arn:aws:s3:::{s3.bucket}/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    with contextlib.closing(s3.client()) as client:
        client.put_bucket_policy(Bucket=s3.bucket, Policy=policy)


@contextlib.contextmanager
def chromium():
    """The browser of the system."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=[*OPTIONS]
        )
        yield browser
        browser.close()


def published(folder, s3, preset, period):
    """Put maps of a preset into the bucket, the page beside them; gives the days with values."""
    settings = [f"{key}={period}" for key in ("period", "train_period", "test_period")]
    experiment = load.load_experiment(preset, settings)
    window = config.experiment_window(experiment)
    release = folder / "releases" / "bench"
    url = str(release / "maps" / f"{ARM}.zarr")
    form, attrs = maps_schema.maps_template(experiment, window, ARM, 3)
    zarr_arrays.create_group(url, form, attrs)
    n_days = len(schema.time_axis(experiment.period))
    write(url, window.cell_shape, n_days, n_days if preset == "demo" else SHOWN_DAYS)
    zarr_arrays.consolidate(url)
    about = {"title": experiment.title, "links": [{"rel": "item", "href": f"./items/{ARM}.json"}]}
    (release / "collection.json").write_text(json.dumps(about))
    (folder / "latest.json").write_text(json.dumps({"path": "releases/bench"}))
    there = s3.url(preset)
    fsspec.filesystem("s3").put(f"{folder}/", f"{there}/", recursive=True)
    viewer.put_beside(there)
    assert files.exists(files.join(there, "latest.json"))
    first = np.datetime64(experiment.period[0])
    return [str(first + n) for n in range(min(n_days, SHOWN_DAYS))]


def write(url, shape, n_days, shown):
    """Values, errors and flags: the first days of the root, one column of shards of `series`."""
    made, side = Fields(shape), schema.SHARD
    for name, (row, col) in itertools.product(
        NAMES, itertools.product(range(0, shape[0], side), range(0, shape[1], side))
    ):
        cells = [slice(at, min(at + side, n)) for at, n in zip((row, col), shape, strict=True)]
        for start in range(0, shown, schema.BLOCK_DAYS):
            put(url, name, made, slice(start, min(start + schema.BLOCK_DAYS, shown)), cells)
    cells = [slice(0, min(side, n)) for n in shape]
    length = schema.BLOCK_DAYS * maps_schema.SERIES_BLOCKS
    for name, start in itertools.product(NAMES, range(0, n_days, length)):
        put(url, f"series/{name}", made, slice(start, min(start + length, n_days)), cells)


def put(url, path, made, days, cells):
    """Write shards of an array."""
    values = made.days(days.start, days.stop - days.start, *cells)
    if path.endswith("_std"):
        values //= 5
    if path.endswith("quality_flag"):
        values = np.where(values < 1200, 4, 0).astype(np.uint8)
    zarr_arrays.write_shards(url, path, [days, *cells], values)


def measured(context, browser, section, address, days):
    """All rows of one store."""
    n = context.rounds(5, 15)
    for what, network, most in (
        ("first map, from a bucket on this machine", None, FIRST_MS),
        ("first map, at 10 Mbit/s and 60 ms", SLOW, FIRST_SLOW_MS),
    ):
        context.told(section, what)
        samples = [first_map(browser, address, network) for _ in range(n)]
        yield row(section, what, samples, most)
    page = opened(browser, address)
    context.told(section, "steps and series")
    numbers = [int(np.datetime64(day).astype(int)) for day in days]
    steps = [timed(page, f"viewer.time.goTo({number})") for number in numbers[1 : 2 * n + 1]]
    yield row(section, "the next day", steps, STEP_MS)
    far = np.random.default_rng(0).permutation(numbers[2 * n + 4 :])[: 2 * n]
    jumps = [timed(page, f"viewer.time.goTo({number})") for number in far]
    yield row(section, "another day, which was not read ahead", jumps, STEP_MS)
    cells = np.random.default_rng(1).integers(0, 40, (n, 2)).tolist()
    series = [timed(page, f"viewer.choose({{row: {r}, col: {c}}})") for r, c in cells]
    yield row(section, "a cell's series, mean, error and flags", series, SERIES_MS)
    yield memory(page, section, numbers)
    page.context.close()


def opened(browser, address, network=None):
    """A new page, whose first map is drawn."""
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    if network is not None:
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.send("Network.emulateNetworkConditions", network)
    page.goto(address, wait_until="commit")
    page.wait_for_selector("#map[data-day]", timeout=120_000)
    return page


def first_map(browser, address, network):
    """Milliseconds from the request of the page to the first map."""
    page = opened(browser, address, network)
    taken = page.evaluate(
        """() => new Promise((done) => {
          const asked = () => performance.getEntriesByName('first-map')[0];
          const look = () => (asked() ? done(asked().startTime) : setTimeout(look, 10));
          look();
        })"""
    )
    page.context.close()
    return taken


def timed(page, action):
    """Milliseconds that an action of the page takes, up to the next frame on the screen."""
    return page.evaluate(
        f"""async () => {{
          const begun = performance.now();
          await {action};
          await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
          return performance.now() - begun;
        }}"""
    )


def memory(page, section, numbers):
    """Megabytes of the page after 200 steps, beside those after 50."""
    session = page.context.new_cdp_session(page)
    taken = []
    for number in itertools.islice(itertools.cycle(numbers), MEMORY_STEPS):
        page.evaluate(f"viewer.time.goTo({number})")
        taken.append(number)
        if len(taken) in (MEMORY_STEPS // 4, MEMORY_STEPS):
            session.send("HeapProfiler.collectGarbage")
            used = session.send("Runtime.getHeapUsage")
            taken_mb = (used["usedSize"] + used.get("backingStorageSize", 0)) / 1e6
            if len(taken) == MEMORY_STEPS:
                last = taken_mb
            else:
                early = taken_mb
    return Row(section, "memory of scripts after 200 steps", "MB", [last], "after 50 steps",
               [early], aim=Aim(MEMORY_MB, least=False, of_ratio=False))  # fmt: skip


def row(section, what, samples, most):
    """A row in milliseconds, with the most that is aimed at."""
    return Row(section, what, "ms", samples, aim=Aim(most, least=False, of_ratio=False))
