"""What the drivers of grids share: which files and days are needed, and what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files
from pipeline.errors import DataError
from pipeline.sources.grids import days, variables
from pipeline.sources.grids.assembly import assembled
from pipeline.sources.grids.axes import AXES, Grid, grid_of
from pipeline.sources.grids.parts import from_template, looked_at
from pipeline.sources.shared import access, coordinates, dates, fingerprints, http_errors
from pipeline.sources.shared.driver import Source, calendar_problems, time_problems

if TYPE_CHECKING:
    import xarray as xr

    from pipeline.sources.grids.parts import Part


class GridSource(Source):
    """What drivers of grids share.

    Args:
      urlpath: the file; with `*` in it, the files; with `%Y`, `%m`, `%d`, `%j`, `%H`, the files
        of a period. Of those by month, day or hour one is opened as a template, the others when
        they are read.
      mapping: as `pipeline.sources.grids.derive` has it, or a list of such.
      day: {stamp, offset_hours, min_steps}, as `pipeline.sources.grids.days.Day` has them.
      gaps: `allowed`, or a list of MM-DD: days that may be missing, and are NaN then.
      period: first..last, where the entry's own is not wanted.
      login: `earthdata`, where the provider wants to know who reads.
      storage_options: passed to fsspec.
      metadata: what the catalog says of the entry.
    """

    strict = False  # whether only the period is wanted, and whole, though no date is in the URL

    def __init__(
        self,
        urlpath: str,
        mapping: dict[str, dict[str, Any]] | list[dict[str, dict[str, Any]]],
        day: dict[str, Any] | None = None,
        gaps: str | list[str] | None = None,
        period: str | None = None,
        login: str | None = None,
        storage_options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Keep the arguments; nothing is opened yet."""
        super().__init__(urlpath, mapping, login, storage_options, metadata)
        self.terms = variables.terms(self.mapping)
        self.day = days.Day(**(day or {}))
        self.gaps = gaps or []
        if period is not None:
            first, last = dates.period_of(period)
            self.period = (first, last or first)

    def to_dask(self) -> xr.Dataset:
        """The data in our names and units, lazily.

        Raises:
          DataError: listing every way in which the files are not as the catalog says.
        """
        parts = self.parts()
        with self.opened_part(next(part.url for part in parts if part.known)) as template:
            grid, problems = self.checked(template)
            if grid is None or problems:
                raise DataError(http_errors.shown(self.urlpath), *problems)
            return assembled(self, template, grid, parts)

    read = to_dask

    def opened_part(self, url: str) -> xr.Dataset:
        """One file, its time called `time`, nothing read yet.

        Raises:
          DataError: it is absent, refused or damaged.
        """
        raise NotImplementedError

    def named(self, raw: xr.Dataset) -> xr.Dataset:
        """A decoded file whose coordinates have the names that are looked for here."""
        return coordinates.named(raw, list(variables.inputs_of(self.terms)), AXES)

    def matching(self) -> list[str]:
        """URLs of the files, where there is no date in them.

        Raises:
          DataError: the store refuses, or does not answer.
        """
        if "*" not in self.urlpath:
            there = fingerprints.info(self.urlpath, self.storage_options, self.login) is not None
            return [self.urlpath] if there else []
        with http_errors.answering(self.urlpath, self.login):
            return files.matching(
                self.urlpath, **access.options(self.urlpath, self.storage_options, self.login)
            )

    def parts(self) -> list[Part]:
        """The files that are wanted, in order of time; all that can be told without reading them.

        Raises:
          DataError: they are absent, damaged, or not as the catalog says.
        """
        unit = dates.span(self.urlpath)
        if unit is None:
            urls = self.matching()
            if not urls:
                found = "no file matches" if "*" in self.urlpath else "not found"
                raise self.absence_error(http_errors.shown(self.urlpath), found)
            return looked_at(self, [(url, False) for url in urls])
        wanted = self._dated()
        if unit == "Y":
            return looked_at(self, [(url, optional) for url, _, optional in wanted])
        return from_template(self, wanted)

    def wanted_days(self) -> tuple[np.datetime64, np.datetime64] | None:
        """First and last day that are wanted; None for all there are.

        Raises:
          DataError: files are named by date, the entry has no last day, and nobody named one.
        """
        named = dates.span(self.urlpath) is not None
        if self.period is not None and (named or self.strict):
            return np.datetime64(self.period[0]), np.datetime64(self.period[1])
        if not named:
            return None
        told = str((self.metadata or {}).get("period", ""))
        try:
            first, last = dates.period_of(told)
        except ValueError:
            last = None
        if last is None:
            found = f"its files are named by date, and the entry's period is '{told}'"
            raise DataError(
                http_errors.shown(self.urlpath), found, remedy="say which with period: first..last"
            )
        return np.datetime64(first), np.datetime64(last)

    def may_not_lack(self, missing: days.Times) -> days.Times:
        """Those of the missing days that may not be missing."""
        if self.gaps == "allowed":
            return missing[:0]
        return np.array([d for d in missing if str(d)[5:10] not in self.gaps], "datetime64[D]")

    def remedy_of_gaps(self) -> str:
        """What to do about missing days."""
        origin = (self.metadata or {}).get("origin", "the provider")
        return f"get them from {origin}, or say gaps: allowed"

    def checked(self, raw: xr.Dataset) -> tuple[Grid | None, list[str]]:
        """The grid of one file, and what is wrong with the file."""
        names = list(variables.inputs_of(self.terms))
        grid, problems = grid_of(raw, names)
        problems = problems + variables.input_problems(raw, self.terms)
        if any("time" in raw[name].dims for name in names if name in raw):
            hourly = "time" in raw and any(term.daily for term in self.terms.values())
            times = raw["time"].values if "time" in raw else np.array([])
            ordered = days.order_problems(times) if hourly else time_problems(raw)
            problems += calendar_problems(times) or ordered
        return grid, problems

    def part_problems(self, raw: xr.Dataset, grid: Grid) -> list[str]:
        """What is wrong with a file that was not opened before, also that its grid is another."""
        found, problems = self.checked(raw)
        if found is None or problems:
            return problems
        return [
            f"another {axis} than the other files"
            for axis in found.clip_like(grid).differing_axes(grid)
        ]

    def digest(self) -> str:
        """Identifies the content: the names and tags of all files, not where they are.

        Files that may be absent count where they are there.

        Raises:
          DataError: another one is absent, or its store does not answer.
        """
        if dates.span(self.urlpath) is None:
            return super().digest()
        wanted = self._dated()
        found = fingerprints.of_files(
            [url for url, _, _ in wanted], self.storage_options, self.login
        )
        told = list(zip(wanted, found, strict=True))
        lacking = [held[0] for (_, held, optional), tag in told if tag is None and not optional]
        if lacking:
            absent = f"missing: {dates.shown(np.array(lacking))}"
            raise DataError(http_errors.shown(self.urlpath), absent, remedy=self.remedy_of_gaps())
        there = [(http_errors.file_name(url), tag) for (url, _, _), tag in told if tag is not None]
        if not there:
            raise self.absence_error(
                http_errors.shown(self.urlpath), "not found: none of its files"
            )
        return files.sha256_of([list(each) for each in zip(*there, strict=True)])

    def _dated(self) -> list[tuple[str, days.Times, bool]]:
        """(URL, when it begins and ends, whether it may be absent) of the files of the period."""
        wanted = self.wanted_days()
        assert wanted is not None
        first, last = wanted
        stamps = {term.stamp or self.day.stamp for term in self.terms.values() if term.daily}
        before = int(bool(self.day.offset_hours))
        after = int(bool(self.day.offset_hours or stamps & {"end", "middle"}))
        reach = (first - before * days.DAY, last + after * days.DAY)
        lenient = self.gaps == "allowed"
        return [
            (url, held, lenient or bool(held[1] <= first or held[0] >= last + days.DAY))
            for url, held in dates.urls(self.urlpath, reach[0], reach[1])
        ]
