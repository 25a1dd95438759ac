"""Reading a cube: arrays of its period, in the order that models want."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import StoreError
from pipeline.storage import schema, zarr_arrays

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.storage.artefacts import Workspace


@dataclass(frozen=True)
class Cube:
    """A complete cube: what it holds, and its groups."""

    url: str
    attrs: dict[str, Any]
    cells: xr.Dataset
    footprints: xr.Dataset | None
    sites: xr.Dataset | None
    site_ids: tuple[str, ...]

    @staticmethod
    def source(experiment: Experiment, workspace: Workspace) -> tuple[str, str]:
        """Where the cube of an experiment lies, and its digest: prepared here, or named by URL.

        Raises:
          StoreError: there is no complete cube, or it, or the planet beside it, was made with
            other settings.
        """
        owner = workspace.prepared(experiment)
        url, artefact = owner.url("cube.zarr"), owner.artefact("cube")
        if experiment.cube is None:
            return url, artefact.digest(experiment)
        if (manifest := artefact.manifest()) is None:
            remedy = "give the URL of one, or leave cube out and run: soilweave prepare"
            raise StoreError(url, "no complete cube here", remedy=remedy)
        changed = [artefact.differing(manifest, experiment, but="sources.truth")]  # not in it
        planet = owner.artefact("planet")
        if experiment.planet and (made := planet.manifest()):
            changed.append(planet.differing(made, experiment))
        if problems := [f"was made with other settings: {text}" for text in changed if text]:
            remedy = "set what the cube has, or leave cube out and prepare another"
            raise StoreError(url, *problems, remedy=remedy)
        return url, artefact.digest()

    @staticmethod
    def manifest(experiment: Experiment, workspace: Workspace) -> Json:
        """What is recorded of an experiment's cube: how far it reaches, its updates."""
        return workspace.prepared(experiment).artefact("cube").manifest() or {}

    @classmethod
    def open(cls, url: str) -> Cube:
        """Open the groups; arrays are read when asked for."""
        attrs = zarr_arrays.attributes(url)
        ids = tuple(zarr_arrays.attributes(url, "sites").get("id", ()))
        footprints = zarr_arrays.open_group(url, "footprints")
        return cls(
            url,
            attrs,
            zarr_arrays.open_group(url, "cells"),
            footprints if attrs["target"] in footprints else None,
            zarr_arrays.open_group(url, "sites") if ids else None,
            ids,
        )

    def until(self, day: date) -> Cube:
        """The cube with a longer period, as far as its cells reach after an update."""
        return replace(self, attrs=self.attrs | {"period": [self.attrs["period"][0], str(day)]})

    @property
    def target(self) -> str:
        """Name of the target."""
        return str(self.attrs["target"])

    @property
    def days(self) -> NDArray[np.datetime64]:
        """Days of the period."""
        first, last = (np.datetime64(day, "D") for day in self.attrs["period"])
        return np.arange(first, last + 1)

    @property
    def axis_offset(self) -> int:
        """Days of the time axis before the first day of the period."""
        axis = self.cells["time"].values[:1].astype("datetime64[D]")
        return int((self.days[:1] - axis).astype(int)[0])

    @property
    def refinement(self) -> int:
        """Cells along a footprint's side."""
        return int(self.attrs["refinement"])

    def series(self, group: xr.Dataset, name: str) -> NDArray[np.float32]:
        """(day, ...) values of a variable on the days of the period."""
        days = self.days.astype("datetime64[ns]")
        values: NDArray[np.float32] = group[name].sel(time=slice(days[0], days[-1])).values
        return values

    def part(self, group: xr.Dataset, name: str, days: slice) -> NDArray[np.float32]:
        """(day, ...) values of a variable on some days, counted along the period."""
        first = self.axis_offset
        where = {"time": slice(first + days.start, first + days.stop)}
        values: NDArray[np.float32] = group[name].isel(where).values
        return values

    def blocks(self, days: slice) -> Iterator[slice]:
        """Those days in pieces that each lie in one shard."""
        shift = self.axis_offset % schema.BLOCK_DAYS
        start = days.start
        while start < days.stop:
            stop = (start + shift) // schema.BLOCK_DAYS * schema.BLOCK_DAYS + schema.BLOCK_DAYS
            yield slice(start, min(stop - shift, days.stop))
            start = stop - shift

    def membership(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Valid cells and the footprints they make.

        Returns:
          (cell, 2) row and column of every valid cell of a usable footprint; (footprint, 2) row
          and column of every footprint of which at least half is valid; (footprint, refinement^2)
          index of its cells, -1 for none.
        """
        mask = self.cells["mask"].values.astype(bool)
        r = self.refinement
        fy, fx = mask.shape[0] // r, mask.shape[1] // r
        by_footprint = mask.reshape(fy, r, fx, r).transpose(0, 2, 1, 3).reshape(fy, fx, r * r)
        usable = by_footprint.sum(2) * 2 >= r * r
        footprints = np.argwhere(usable)
        valid = by_footprint[usable]
        number = np.where(valid, valid.cumsum().reshape(valid.shape) - 1, -1)
        which, inner = np.nonzero(valid)
        cells = footprints[which] * r + np.stack([inner // r, inner % r], 1)
        return cells, footprints, number.astype(np.int64)

    def day_index(self, period: tuple[Any, Any]) -> slice:
        """Days of a period, as indexes into the cube's."""
        first = schema.epoch_day(np.datetime64(self.attrs["period"][0], "D").item())
        begin, end = (schema.epoch_day(day) - first for day in period)
        return slice(begin, end + 1)
