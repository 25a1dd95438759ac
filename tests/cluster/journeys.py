"""Journeys on the cluster: submitted as a person would, watched, and compared with one at home."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import small_demo
import xarray as xr
from processes import BIN, MARK

from pipeline import files
from pipeline.storage import tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


STAGES = ("planet", "prepare", "folds", "train", "predict", "evaluate", "report")
SAVED = ("train.updates=40", "compute.checkpoint_every_updates=5")
SETTINGS = (*(s for s in small_demo.SETTINGS if not s.startswith("train.updates")), *SAVED)
OPTIONS = [part for setting in SETTINGS for part in ("--set", setting)]
JOURNEY_S = 600  # three times what it takes on an idle machine
MAPPED = ("soil_moisture", "soil_moisture_std", "quality_flag")
KEYS = ["target", "id", "arm", "fold", "seed", "period", "metric"]


@dataclass
class Journey:
    """A `soilweave` process: its lines with the seconds at which they came."""

    process: subprocess.Popen[str]
    since: float = field(default_factory=time.monotonic)
    lines: list[tuple[float, str]] = field(default_factory=list)

    def listen(self) -> None:
        """Read its output to the end."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((self.now(), line.rstrip()))

    def now(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self.since

    def wait_until(self, condition: Callable[[], bool], what: str) -> float:
        """Poll until something holds while it runs; returns the seconds since its start."""
        while not condition():
            if self.process.poll() is not None or self.now() > JOURNEY_S:
                raise AssertionError(f"not seen: {what}\n{self.text()}")
            time.sleep(0.1)
        return self.now()

    def end(self) -> int:
        """Its exit status."""
        return self.process.wait(max(1, JOURNEY_S - self.now()))

    def seconds(self) -> dict[str, float]:
        """How long each stage took: between the lines that stages end with."""
        found, before = {}, 0.0
        for at, line in self.lines:
            stage = line.split(":")[0]
            if stage in STAGES and stage not in found:
                found[stage], before = round(at - before, 1), at
        return found | {"all": round(self.lines[-1][0], 1)} if self.lines else found

    def text(self) -> str:
        """The end of what it said."""
        return "\n".join(f"{at:6.1f} {line}" for at, line in self.lines[-60:])


@contextlib.contextmanager
def soilweave(environment: Mapping[str, str], *arguments: str) -> Iterator[Journey]:
    """Run the command line; killed at the end of the block if it has not ended."""
    process = subprocess.Popen(
        [str(BIN / "soilweave"), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(environment) | MARK,
        start_new_session=True,
    )
    journey = Journey(process)
    listener = threading.Thread(target=journey.listen, daemon=True)
    listener.start()
    try:
        yield journey
        listener.join(10)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()


def at_home(folder: Path, environment: Mapping[str, str]) -> dict[str, float]:
    """The same experiment on this machine alone, without a cluster; returns its seconds."""
    with soilweave(environment, "run", "demo", "--workspace", str(folder), *OPTIONS) as home:
        assert home.end() == 0, home.text()
    return home.seconds()


@dataclass(frozen=True)
class Difference:
    """How far two workspaces are apart: scores, numbers of the summary, decoded maps."""

    scores: float
    summary: float
    maps: dict[str, float]
    n_scores: int

    def __str__(self) -> str:
        maps = ", ".join(f"{name} {value:.3g}" for name, value in self.maps.items())
        numbers = f"{self.n_scores} scores {self.scores:.3g}, summary {self.summary:.3g}"
        return f"{numbers}; maps: {maps}"


def difference(one: str, other: str) -> Difference:
    """The largest absolute differences between two workspaces of the same experiment."""
    pair = [tables.read_table(files.join(root, "scores.parquet")) for root in (one, other)]
    pair = [frame.set_index(KEYS).sort_index() for frame in pair]
    assert len(pair[0])
    assert list(pair[0].index) == list(pair[1].index)
    scores = largest(pair[0].value.to_numpy(float), pair[1].value.to_numpy(float))
    numbers = [dict(_numbers(files.read_json(files.join(r, "summary.json")))) for r in (one, other)]
    assert numbers[0].keys() == numbers[1].keys()
    assert numbers[0]
    summary = largest(*(np.array([n[k] for k in sorted(numbers[0])]) for n in numbers))
    maps = {}
    for arm in ("multiscale", "insitu", "satellite"):
        ours, theirs = (_maps(files.join(r, f"maps/{arm}.zarr")) for r in (one, other))
        assert set(ours.data_vars) == set(theirs.data_vars)
        for name in MAPPED:
            values = (np.asarray(m[name].values, float) for m in (ours, theirs))
            maps[name] = max(maps.get(name, 0.0), largest(*values))
        assert np.isfinite(ours[MAPPED[0]].values).any()
    return Difference(scores, summary, maps, len(pair[0]))


def largest(one: np.ndarray, other: np.ndarray) -> float:
    """The largest absolute difference; NaN must be in the same places."""
    np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
    return float(np.nan_to_num(np.abs(one - other)).max())


def _maps(url: str) -> xr.Dataset:
    return xr.open_zarr(url, chunks=None, storage_options=files.with_endpoint(url, {}) or None)


def _numbers(tree: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a JSON tree, by its path."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _numbers(value, f"{path}/{key}")
    elif isinstance(tree, list):
        for i, value in enumerate(tree):
            yield from _numbers(value, f"{path}/{i}")
    elif isinstance(tree, int | float) and not isinstance(tree, bool):
        yield path, math.nan if tree is None else float(tree)


def nodes_of(root: str) -> dict[str, dict[str, int]]:
    """Which node did how much: of the blocks of the cube, the models, the columns of the maps."""
    found = {}
    for artefact in ("cube.zarr", "models", "maps"):
        manifest = json.loads(files.read_bytes(files.join(root, artefact, "manifest.json")))
        found[artefact] = manifest["nodes"]
    return found
