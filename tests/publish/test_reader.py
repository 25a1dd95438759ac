"""Readers in a loop see one release or the other, never parts of both."""

from __future__ import annotations

import itertools
import json
import threading
import time
from contextlib import contextmanager

import numpy as np
import publishing
import xarray as xr
from publishing import TARGET

from pipeline import files, publish
from pipeline.progress import SilentProgress
from pipeline.storage.publications import open_maps

ARMS, COUNTS = ("insitu", "satellite"), (100, 200, 300)


def values_of(*maps):
    """All values that occur on some days, of which each lies in another shard."""
    return np.unique(np.concatenate([np.unique(each[TARGET][::40].values) for each in maps]))


def through_soilweave(url):
    """The release and all values of all arms, each opened by itself as a user would."""
    opened = open_maps(url, ARMS[0])
    release = opened.attrs["release"]
    of_release = files.join(url, "releases", release)
    groups = [(arm, group) for arm in ARMS for group in ("", "series")]
    maps = [open_maps(of_release, arm, group) for arm, group in groups]
    return release, values_of(opened, *maps)


def through_plain_zarr(url):
    """The same with no more than JSON and xarray."""
    latest = json.loads(files.read_bytes(files.join(url, "latest.json")))
    maps = [
        xr.open_zarr(files.join(url, latest["path"], "maps", f"{arm}.zarr"), group=group)
        for arm in ARMS
        for group in (None, "series")
    ]
    return latest["release"], values_of(*maps)


@contextmanager
def reading(how, url):
    """Reads in a loop until the block ends, and once more; gives what was seen, and the thread."""
    seen, failed, stop = [], [], threading.Event()

    def loop():
        try:
            while True:
                last = stop.is_set()
                seen.append(how(url))
                if last:
                    return
        except Exception as error:  # noqa: BLE001 - the test shows it
            failed.append(error)

    reader = threading.Thread(target=loop)
    reader.start()
    try:
        yield seen, reader
    finally:
        stop.set()
        reader.join()
    assert failed == []


def test_readers_in_a_loop(workspace, url):
    made, switched = {}, []

    def publish_and_note(**options):
        name = publish.publish(workspace, url, SilentProgress(), **options)
        switched.append(name)

    for count in COUNTS[:2]:
        publishing.fill_maps(workspace, count, ARMS)
        publish_and_note()
        made[switched[-1]] = count
    with reading(through_soilweave, url) as ours, reading(through_plain_zarr, url) as plain:

        def let_them_read():
            """Until each reader has begun and ended a reading of what is there now."""
            wanted = [(len(seen) + 2, seen, reader) for seen, reader in (ours, plain)]
            for n, seen, reader in wanted:
                while len(seen) < n and reader.is_alive():
                    time.sleep(0.01)

        switched.append(publish.roll_back(url, SilentProgress()))
        let_them_read()
        publishing.fill_maps(workspace, COUNTS[2], ARMS)
        publish_and_note()
        made[switched[-1]] = COUNTS[2]
        let_them_read()
        switched.append(publish.roll_back(url, SilentProgress()))
        publish_and_note()
    step = 0.01
    for seen, _ in (ours, plain):
        for release, values in seen:
            np.testing.assert_allclose(values, made[release] * step, rtol=1e-6)
        order = [release for release, _ in itertools.groupby(release for release, _ in seen)]
        assert {switched[2], switched[3]} <= {*order}
        assert order[-1] == switched[-1]
