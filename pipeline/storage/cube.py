"""Read a complete cube: its arrays on the days of its period, and its valid cells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files
from pipeline.errors import StoreError
from pipeline.grid import lookup
from pipeline.storage import artefacts, schema, zarr_arrays

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.storage.artefacts import Workspace


@dataclass(frozen=True)
class Cube:
    """A complete cube, opened lazily.

    Attributes:
      url: URL of the Zarr store.
      attrs: Attributes of the root group, among them `target`, `period` and `refinement`.
      cells: Forcing (time, y, x), static attributes (y, x), and `mask` (y, x).
      footprints: The target (time, fy, fx); None if the cube has no satellite.
      sites: The target (time, site), and inputs of the sites if they have their own; None if the
        cube has no sites.
      site_ids: The id of each site.
    """

    url: str
    attrs: dict[str, Any]
    cells: xr.Dataset
    footprints: xr.Dataset | None
    sites: xr.Dataset | None
    site_ids: tuple[str, ...]

    @classmethod
    def source(cls, experiment: Experiment, workspace: Workspace) -> tuple[str, str]:
        """Return the URL and the digest of an experiment's cube: its own one, or `cube: URL`.

        A cube of another experiment may have a longer period. The digest then covers the period of
        this experiment too, because what is made from a part of a cube differs from what is made
        from the whole.

        Raises:
          StoreError: If there is no complete cube, the cube or the planet in its workspace was
            made with other settings, or the period is no part of that of the cube.
        """
        owner = workspace.prepared(experiment)
        url, artefact = owner.url("cube.zarr"), owner.artefact("cube")
        if experiment.cube is None:
            return url, artefact.digest(experiment)
        if (manifest := artefact.manifest()) is None:
            hint = "give the URL of a complete cube, or omit cube and run: soilweave prepare"
            raise StoreError(url, "no complete cube here", remedy=hint)
        # The truth is not part of the cube, so it may differ.
        ignore = ("period", "sources.truth")
        changes = [artefact.changed_settings(manifest, experiment, ignore)]
        planet = owner.artefact("planet")
        if experiment.planet and (planet_manifest := planet.manifest()):
            changes.append(planet.changed_settings(planet_manifest, experiment, ignore))
        problems = [f"was made with other settings: {text}" for text in changes if text]
        recorded = manifest["inputs"]["period"]
        problems += _check_part(experiment.period, recorded)
        if problems:
            hint = "use the settings of the cube, or omit cube and prepare another one"
            raise StoreError(url, *problems, remedy=hint)
        artefact.check_objects(manifest)
        return url, cls.digest(manifest, experiment)

    @staticmethod
    def digest(manifest: Json, experiment: Experiment) -> str:
        """Return the digest that what is made from a cube records.

        Args:
          manifest: The manifest of the cube, which may have a longer period than the experiment.
          experiment: The experiment that uses the cube.
        """
        digest, period = artefacts.digest_of(manifest), [str(day) for day in experiment.period]
        if period == manifest["inputs"]["period"]:
            return digest
        return files.sha256_of_json([digest, period])

    @classmethod
    def of(cls, experiment: Experiment, workspace: Workspace) -> Cube:
        """Open an experiment's cube, on the days of its period.

        Raises:
          StoreError: If there is no complete cube that fits the experiment.
        """
        return cls.open(cls.source(experiment, workspace)[0]).within(experiment.period)

    @staticmethod
    def manifest(experiment: Experiment, workspace: Workspace) -> Json:
        """Return the manifest of an experiment's cube; empty if the cube is not complete."""
        return workspace.prepared(experiment).artefact("cube").manifest() or {}

    @classmethod
    def open(cls, url: str) -> Cube:
        """Open a cube without reading its arrays."""
        attrs = zarr_arrays.read_attributes(url)
        ids = tuple(zarr_arrays.read_attributes(url, "sites").get("id", ()))
        footprints = zarr_arrays.open_group(url, "footprints")
        return cls(
            url,
            attrs,
            zarr_arrays.open_group(url, "cells"),
            footprints if attrs["target"] in footprints else None,
            zarr_arrays.open_group(url, "sites") if ids else None,
            ids,
        )

    def within(self, period: tuple[date, date]) -> Cube:
        """Return the cube with another period, whose days it has."""
        return replace(self, attrs=self.attrs | {"period": [str(day) for day in period]})

    def until(self, day: date) -> Cube:
        """Return the cube with another last day, such as that of its cells after an update."""
        return replace(self, attrs=self.attrs | {"period": [self.attrs["period"][0], str(day)]})

    @property
    def target(self) -> str:
        """Name of the target variable."""
        return str(self.attrs["target"])

    @property
    def days(self) -> NDArray[np.datetime64]:
        """(day,) days of the period, datetime64[D]."""
        first, last = (np.datetime64(day, "D") for day in self.attrs["period"])
        return np.arange(first, last + 1)

    @property
    def axis_offset(self) -> int:
        """Number of days on the time axis before the first day of the period."""
        axis = self.cells["time"].values[:1].astype("datetime64[D]")
        return int((self.days[:1] - axis).astype(int)[0])

    @property
    def refinement(self) -> int:
        """Number of cells along a footprint's side."""
        return int(self.attrs["refinement"])

    def series(self, group: xr.Dataset, name: str) -> NDArray[np.float32]:
        """Read the (day, ...) values of a variable on all days of the period."""
        days = self.days.astype("datetime64[ns]")
        with zarr_arrays.intact_chunks(f"{self.url}, {name}"):
            values: NDArray[np.float32] = group[name].sel(time=slice(days[0], days[-1])).values
        return values

    def part(self, group: xr.Dataset, name: str, days: slice) -> NDArray[np.float32]:
        """Read the (day, ...) values of a variable on some days.

        Args:
          group: The cells, footprints or sites.
          name: Name of the variable.
          days: The days, counted from the first day of the period.
        """
        first = self.axis_offset
        on_axis = {"time": slice(first + days.start, first + days.stop)}
        with zarr_arrays.intact_chunks(f"{self.url}, {name}"):
            values: NDArray[np.float32] = group[name].isel(on_axis).values
        return values

    def blocks(self, days: slice) -> Iterator[slice]:
        """Split days, counted from the first day of the period, at the borders of shards."""
        shift = self.axis_offset % schema.BLOCK_DAYS
        start = days.start
        while start < days.stop:
            stop = (start + shift) // schema.BLOCK_DAYS * schema.BLOCK_DAYS + schema.BLOCK_DAYS
            yield slice(start, min(stop - shift, days.stop))
            start = stop - shift

    def satellite_at_sites(
        self, days: slice, max_footprint_km: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return the satellite's values at the sites; the cube must have both.

        They are those of the footprint that contains the site, else of the nearest footprint with
        data.

        Args:
          days: The days, counted from the first day of the period.
          max_footprint_km: Largest distance of a footprint that does not contain the site.

        Returns:
          (site, day) values, and (site,) distances in km from the centres of the footprints.
        """
        assert self.footprints is not None
        assert self.sites is not None
        values = self.series(self.footprints, self.target)[days]
        ny, nx = values.shape[1:]
        axes = self.footprints["lat"].values, self.footprints["lon"].values
        lat, lon = np.meshgrid(*axes, indexing="ij")
        fy, fx = self.sites["fy"].values, self.sites["fx"].values
        return lookup.satellite_at_sites(
            values.reshape(len(values), ny * nx).T,
            (lat.ravel(), lon.ravel()),
            (self.sites["lat"].values, self.sites["lon"].values),
            np.where(fy >= 0, fy.astype(np.int64) * nx + fx, -1),
            max_footprint_km,
        )

    def membership(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Find the usable footprints and their valid cells.

        A footprint is usable if at least half of its cells are valid.

        Returns:
          (cell, 2) row and column of every valid cell of the usable footprints.
          (footprint, 2) row and column of every usable footprint.
          (footprint, refinement^2) indices of a footprint's cells in the first array; -1 for
          cells that are not valid.
        """
        mask = self.cells["mask"].values.astype(bool)
        r = self.refinement
        fy, fx = mask.shape[0] // r, mask.shape[1] // r
        by_footprint = mask.reshape(fy, r, fx, r).transpose(0, 2, 1, 3).reshape(fy, fx, r * r)
        usable = by_footprint.sum(2) * 2 >= r * r
        footprints = np.argwhere(usable)
        valid = by_footprint[usable]
        cell_index = np.where(valid, valid.cumsum().reshape(valid.shape) - 1, -1)
        footprint_index, inner = np.nonzero(valid)
        cells = footprints[footprint_index] * r + np.stack([inner // r, inner % r], 1)
        return cells, footprints, cell_index.astype(np.int64)

    def day_index(self, period: tuple[Any, Any]) -> slice:
        """Return the days of a period, counted from the first day of the cube's period."""
        first = schema.epoch_day(np.datetime64(self.attrs["period"][0], "D").item())
        begin, end = (schema.epoch_day(day) - first for day in period)
        return slice(begin, end + 1)


def _check_part(period: tuple[date, date], recorded: list[str]) -> list[str]:
    """Check that a period is a part of a cube's period that begins with one of its blocks.

    Args:
      period: The period.
      recorded: First and last day of the cube, without days that updates added: they are not
        observed.

    Returns:
      The problem, or nothing.
    """
    first, last = map(date.fromisoformat, recorded)
    wanted = f"period {period[0]} to {period[1]}"
    if period[0] < first or period[1] > last:
        return [f"has the days {first} to {last}, which do not hold the {wanted}"]
    days = (period[0] - first).days
    before = first + timedelta(days // schema.BLOCK_DAYS * schema.BLOCK_DAYS)
    if period[0] == before:
        return []
    after = before + timedelta(schema.BLOCK_DAYS)
    problem = f"the {wanted} does not begin with a block of {schema.BLOCK_DAYS} days of the cube"
    return [f"{problem}: begin it on {before} or {after}"]
