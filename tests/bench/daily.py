"""`update` and `publish` for 30 days in a row, with a provider that behaves as real ones do.

A planet's forcing is cut into one file for each day, and `provider.Script` says which of them come
when, and which are replaced. After every day the publication is verified, read by its URL and
compared with what the script lets expect. At the end the maps are compared with maps that are made
at once. Every verb runs in this process, as the command line runs it, on one local Ray.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from unittest import mock

import numpy as np
import s3_proxy
import servers
import small_demo
import typer
import xarray as xr
from studies.page import placed

from bench import daily_page, machine
from bench.provider import Provider, Script, write_catalog
from pipeline import publish
from pipeline.catalog import intake_catalog
from pipeline.cli import run_stages
from pipeline.cluster import malloc, ray_cluster
from pipeline.experiment import load
from pipeline.progress import SilentProgress
from pipeline.storage import maps_schema, provenance, publications
from pipeline.storage.artefacts import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import date

ROOT = Path(__file__).resolve().parents[2]
BEGIN, FIRST = datetime.date(2016, 3, 1), datetime.date(2017, 4, 1)
DAY = datetime.timedelta(1)
KEEP = 7  # releases
ARM, TARGET = "multiscale", "soil_moisture"
MAPPED = (TARGET, f"{TARGET}_std", "quality_flag")
PERIODS = ("period", "train_period", "test_period")
OTHERS = [each for each in small_demo.SETTINGS if not each.startswith(PERIODS)]


class Said(SilentProgress):
    """Keeps the lines of stages."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def finish(self, note: str) -> None:
        self.lines.append(note)

    note = finish


@contextlib.contextmanager
def on(day: date) -> Iterator[None]:
    """Let it be a day: `update` looks that far, and counts preliminary days back from it."""
    with mock.patch.object(intake_catalog, "today", return_value=day):
        yield


@dataclass
class Operation:
    """An experiment that is updated and published every day.

    Attributes:
      folder: Where everything lies.
      provider: Its source of forcing.
      url: Where it is published.
      proxy: Stands before the S3 server, and counts.
      maps: The maps that the reader read last, by group.
      reached: Their last day.
      n_updates: How many updates the manifest of the maps had then.
    """

    folder: Path
    provider: Provider
    url: str
    proxy: s3_proxy.Proxy
    maps: dict[str, xr.Dataset] = field(default_factory=dict)
    reached: date | None = None
    n_updates: int = 0

    @property
    def script(self) -> Script:
        """What the provider does when."""
        return self.provider.script

    @property
    def catalog(self) -> Path:
        """The catalog that names the provider's files."""
        return self.folder / "catalog.yaml"

    def run(self, stages: Sequence[str], name: str, settings: Sequence[str] = ()) -> list[str]:
        """Run stages as the verbs do, and return what they said."""
        settings = [f"{p}=[{BEGIN}, {self.script.first - DAY}]" for p in PERIODS] + [*settings]
        settings += [*OTHERS, f"arms=[{ARM}]", f"sources.catalog={self.catalog}"]
        settings += [f"planet.url={self.folder / 'planet' / 'planet'}"]
        store, said = self.store(name), Said()
        experiment = store.place(load.load_experiment("demo", settings, name))
        run_stages.run(stages, experiment, store, said)
        return said.lines

    def store(self, name: str = "daily") -> Workspace:
        """The folder of an experiment."""
        return Workspace(str(self.folder / "workspace" / name))

    def begin(self) -> None:
        """Run the experiment over the days before the first, and publish it."""
        write_catalog(self.catalog, self.provider)
        with on(self.script.today(0)):
            self.run(run_stages.STAGES["run"], "daily")
        publish.publish(self.store(), self.url, SilentProgress(), KEEP)
        self.maps = read(self.url)
        self.reached = self.script.first - DAY

    def day(self, number: int) -> dict[str, Any]:
        """One day: what comes, `update`, `publish`, `verify`, and a reader."""
        came, today = self.provider.send(number), self.script.today(number)
        if number == self.script.allowed:
            write_catalog(self.catalog, self.provider, [self.script.gap])
        begun = time.perf_counter()
        with on(today):
            said = self.run(run_stages.STAGES["update"], "daily")
        updated = time.perf_counter()
        self.proxy.counted.clear()
        publish.publish(self.store(), self.url, SilentProgress(), KEEP)
        published, sent = time.perf_counter(), [*self.proxy.counted]
        release = publications.find_release(self.url)
        assert release is not None
        verified = publications.verify_release(release, SilentProgress())
        ended = time.perf_counter()
        problems = [str(problem) for problem in verified.problems]
        return {
            "number": number,
            "today": str(today),
            "came": [[str(day), version] for day, version in came],
            "said": [text.replace(f"{self.folder}/", "") for text in said],
            **self._look(number, [day for day, _ in came], problems),
            **_counted(sent, release),
            "seconds": {
                "update": round(updated - begun, 2),
                "publish": round(published - updated, 2),
                "verify": round(ended - published, 2),
            },
            "problems": problems,
        }

    def _look(self, number: int, came: list[date], problems: list[str]) -> dict[str, Any]:
        """Read what is published and compare it with what the script lets expect.

        Args:
          number: The day of operation.
          came: The days whose files came.
          problems: Receives what is not as expected.
        """
        assert self.reached is not None
        before, self.maps = self.maps, read(self.url)
        expected, reached = self.provider.reach(number), last_day(self.maps[""])
        revised = sorted(day for day in came if day <= self.reached)
        told = self._revised()
        changed = min([*revised, self.reached + DAY])
        if reached != expected:
            problems.append(f"maps reach {reached}, expected {expected}")
        if told != revised:
            problems.append(f"revised: {told}, expected {revised}")
        for group, maps in self.maps.items():
            where = group or "root"
            kept = slice(None, str(changed - DAY))
            old, new = (each.sel(time=kept) for each in (before[group], maps))
            problems += [
                f"{where}: old days of {n} differ" for n in MAPPED if not same(old, new, n)
            ]
            problems += [f"{where}: {text}" for text in self._unexpected(maps, number)]
        same_day = [self.maps[group].sel(time=str(reached)) for group in ("", "series")]
        problems += [f"groups differ in {n}" for n in MAPPED if not same(*same_day, n)]
        self.reached = reached
        return {"reached": str(reached), "revised": [str(day) for day in told]}

    def _revised(self) -> list[date]:
        """The days that the last update has named as revised, if it changed anything."""
        updates = (self.store().artefact("maps").manifest() or {}).get("updated", [])
        days = [day for update in updates[self.n_updates :] for day in update.get("revised", [])]
        self.n_updates = len(updates)
        return sorted(datetime.date.fromisoformat(day) for day in days)

    def _unexpected(self, maps: xr.Dataset, number: int) -> Iterator[str]:
        """What a reader finds that the script does not let expect in the days of operation."""
        script = self.script
        status = maps.input_status.values
        days = maps.time.values.astype("datetime64[D]")
        young = days > np.datetime64(script.today(number) - script.preliminary * DAY)
        if not np.array_equal(status == 1, young):
            yield f"preliminary: {days[status == 1]}, expected {days[young]}"
        lacking = (maps.quality_flag.values & maps_schema.Quality.INPUT_MISSING).any((1, 2))
        gaps = days == np.datetime64(script.gap)
        if not np.array_equal(lacking, gaps):
            yield f"without inputs: {days[lacking]}, expected {days[gaps]}"
        land = (maps.quality_flag.values[-1] & maps_schema.Quality.NO_INPUTS) == 0
        if not land.any() or (maps[TARGET].values[-1][land] == maps_schema.VALUE_FILL).any():
            yield "the last day lacks values"

    def at_once(self) -> list[str]:
        """Make the maps at once from the files as they stand, and return what differs."""
        assert self.reached is not None
        settings = [f"period=[{BEGIN}, {self.reached}]", f"models={self.store().url('models')}"]
        with on(self.script.today(self.script.n_days)):
            self.run(("prepare", "predict"), "once", settings)
        differing = []
        for group, ours in self.maps.items():
            theirs = opened(self.store("once").root, group)
            names = [*MAPPED, "input_status", "time", "time_bnds"]
            differing += [f"{group or 'root'}: {n}" for n in names if not same(ours, theirs, n)]
        return differing


def opened(url: str, group: str) -> xr.Dataset:
    """The maps as they are stored, but with times as times, in memory."""
    maps = publications.open_maps(url, ARM, group, packed=True).load()
    return xr.decode_cf(maps, mask_and_scale=False, decode_coords=False)


def read(url: str) -> dict[str, xr.Dataset]:
    """What a reader of a publication gets: both groups."""
    return {group: opened(url, group) for group in ("", "series")}


def last_day(maps: xr.Dataset) -> date:
    """The last day of maps."""
    day: date = maps.time.values[-1].astype("datetime64[D]").item()
    return day


def same(one: xr.Dataset, other: xr.Dataset, name: str) -> bool:
    """Whether two maps have the same bits."""
    return np.array_equal(one[name].values, other[name].values)


def _counted(requests: Sequence[s3_proxy.Counted], release: publications.Release) -> dict[str, Any]:
    """What was sent and copied, and how large the release is in all."""
    folder = f"/{release.url.removeprefix('s3://')}/"
    put = [r for r in requests if r.method == "PUT"]
    own = [r for r in put if r.path.partition("?")[0].removeprefix(folder) in release.objects]
    sizes = [record["size"] for record in release.objects.values()]
    return {
        "sent_objects": len(own),
        "sent_bytes": sum(r.sent for r in put),
        "copied_objects": sum(r.method == "COPY" for r in requests),
        "requests": len(requests),
        "release_objects": len(sizes),
        "release_bytes": sum(sizes),
    }


def operate(
    folder: Path, script: Script, proxy: s3_proxy.Proxy, url: str, told: Any = lambda text: None
) -> dict[str, Any]:
    """Do all days of a script, then compare with maps that are made at once.

    Args:
      folder: An empty folder.
      script: What the provider does.
      proxy: Stands before the S3 server.
      url: Where to publish.
      told: Called with a line for every day.

    Returns:
      What `daily_page` shows: the days, and what differs at the end.
    """
    begun = time.perf_counter()
    planet = Workspace(str(folder / "planet"))
    period = f"[{BEGIN}, {script.first + (script.n_days - 1) * DAY}]"
    settings = [*OTHERS, *(f"{name}={period}" for name in PERIODS)]
    run_stages.run(("planet",), load.load_experiment("demo", settings), planet, SilentProgress())
    provider = Provider.of_planet(folder / "provider", script, folder / "planet" / "planet")
    operation = Operation(folder, provider, url, proxy)
    operation.begin()
    first = publications.find_release(url)
    assert first is not None
    told(f"experiment run and published in {time.perf_counter() - begun:.0f} s")
    days = []
    for number in range(1, script.n_days + 1):
        days.append(operation.day(number))
        told(daily_page.line(days[-1]))
    return {
        "script": {name: str(value) for name, value in vars(script).items()},
        "gap": str(script.gap),
        "first_objects": len(first.objects),
        "cells": [*operation.maps[""][TARGET].shape[1:]],
        "days": days,
        "differing": operation.at_once(),
        "problems": [f"day {day['number']}: {p}" for day in days for p in day["problems"]],
        "seconds": round(time.perf_counter() - begun, 1),
    }


def main(
    folder: Annotated[Path, typer.Option(help="Where everything is made, anew each time.")] = Path(
        "workspace/daily"
    ),
    docs: Annotated[
        Path | None, typer.Option(help="Where daily-operation.md lies; by default not written.")
    ] = None,
    days: Annotated[int, typer.Option(min=22, help="Days of operation.")] = 30,
) -> None:
    """Update and publish a small planet every day, and check every day what a reader gets."""
    folder = folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    malloc.keep_freed_memory()  # as the command line does
    with contextlib.ExitStack() as stack:
        s3 = stack.enter_context(servers.seaweed(folder))
        proxy = stack.enter_context(s3_proxy.before(s3.endpoint))
        given = s3.environment | {"AWS_ENDPOINT_URL": proxy.url}
        stack.enter_context(mock.patch.dict(os.environ, given))
        stack.enter_context(ray_cluster.session(str(folder)))
        stack.enter_context(ray_cluster.connected())
        script = Script(FIRST, n_days=days)
        found = operate(folder, script, proxy, s3.url("daily"), print)
    found |= {"machine": machine.described(), "commit": provenance.code_commit()}
    found["at"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    (folder / "daily.json").write_text(json.dumps(found, indent=1))
    written = daily_page.page(found)
    print(f"\n{written}\n\n{folder / 'daily.json'}")
    if docs is not None:
        page = docs / "daily-operation.md"
        page.write_text(placed(page.read_text(), "daily", written, "make daily"))
    if wrong := [*found["problems"], *(f"not as made at once: {n}" for n in found["differing"])]:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    typer.run(main)
