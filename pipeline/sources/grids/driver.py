"""Base class of drivers of grids: which files and days are needed, and checks of the files."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files
from pipeline.errors import DataError
from pipeline.sources.grids import days, variables
from pipeline.sources.grids.assembly import assemble
from pipeline.sources.grids.axes import AXIS_NAMES, Grid, read_file_grid
from pipeline.sources.grids.parts import open_all_parts, parts_from_template
from pipeline.sources.shared import access, coordinates, dates, fingerprints, http_errors
from pipeline.sources.shared.driver import Source, calendar_problems, time_problems

if TYPE_CHECKING:
    import xarray as xr

    from pipeline.sources.grids.parts import FilePart


class GridSource(Source):
    """Base class of drivers of grids.

    Args:
      urlpath: A file; with `*`, several files; with `%Y`, `%m`, `%d`, `%j` and `%H`, the files of
        a period. If there is a file for each month, day or hour, one file is opened as a template,
        and the others when they are read.
      mapping: {soilweave's name: as described in `pipeline.sources.grids.variables`}, or a list of
        such dictionaries.
      day: {stamp, offset_hours, min_steps}, the definition of a day in
        `pipeline.sources.grids.days`.
      gaps: Days that may be missing and are NaN then: `allowed` for all, or a list of MM-DD.
        Files of days and hours on these days may be absent.
      period: first..last, to use instead of the entry's period.
      login: `earthdata` if the provider requires an Earthdata Login.
      storage_options: Options for fsspec.
      metadata: Metadata of the catalog entry.

    Attributes:
      limits_to_period: Whether the driver returns exactly the requested period even if the URL
        has no date.

    Raises:
      ValueError: If arguments are invalid.
    """

    limits_to_period = False

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
        """Check and keep the arguments; open nothing yet."""
        super().__init__(urlpath, mapping, login, storage_options, metadata)
        self.terms = variables.parse_mapping(self.mapping)
        self.day = days.DayDefinition(**(day or {}))
        self.gaps = gaps or []
        if period is not None:
            first, last = dates.parse_period(period)
            self.period = (first, last or first)

    def to_dask(self) -> xr.Dataset:
        """Return the data in soilweave's names and units, as lazy arrays.

        Raises:
          DataError: If the files are not as the catalog says; the error lists all differences.
        """
        parts = self.list_parts()
        with self.open_part(next(part.url for part in parts if part.checked)) as template:
            grid, problems = self.read_grid(template)
            if grid is None or problems:
                raise DataError(http_errors.format_url(self.urlpath), *problems)
            return assemble(self, template, grid, parts)

    read = to_dask

    def open_part(self, url: str) -> xr.Dataset:
        """Open one file and rename its coordinates; read only what that needs.

        Raises:
          DataError: If the file does not exist, is refused or is damaged.
        """
        raise NotImplementedError

    def rename_coordinates(self, raw: xr.Dataset) -> xr.Dataset:
        """Rename the coordinates of a decoded file as this class expects them."""
        return coordinates.rename_coordinates(
            raw, list(variables.provider_units(self.terms)), AXIS_NAMES
        )

    def find_urls(self) -> list[str]:
        """Return the URLs of the files that exist, if the entry's URL has no date.

        Raises:
          DataError: If the store refuses or does not answer.
        """
        if "*" not in self.urlpath:
            info = fingerprints.file_info(self.urlpath, self.storage_options, self.login)
            return [self.urlpath] if info is not None else []
        with http_errors.plain_http_errors(self.urlpath, self.login):
            return files.expand_glob(
                self.urlpath,
                **access.fsspec_options(self.urlpath, self.storage_options, self.login),
            )

    def list_parts(self) -> list[FilePart]:
        """Return the files of the requested period, in order of time, and their steps.

        Raises:
          DataError: If files are missing, damaged, or not as the catalog says.
        """
        unit = dates.pattern_unit(self.urlpath)
        if unit is None:
            urls = self.find_urls()
            if not urls:
                problem = "no file matches" if "*" in self.urlpath else "not found"
                raise self.absence_error(http_errors.format_url(self.urlpath), problem)
            return open_all_parts(self, [(url, False) for url in urls])
        requested = self._dated_files()
        if unit == "Y":
            return open_all_parts(self, [(url, optional) for url, _, optional in requested])
        return parts_from_template(self, requested)

    def requested_days(self) -> tuple[np.datetime64, np.datetime64] | None:
        """Return the first and last requested day; None for all days of the files.

        Raises:
          DataError: If files are named by date, but neither the request nor the entry has a last
            day.
        """
        is_dated = dates.pattern_unit(self.urlpath) is not None
        if self.period is not None and (is_dated or self.limits_to_period):
            return np.datetime64(self.period[0]), np.datetime64(self.period[1])
        if not is_dated:
            return None
        entry_text = str((self.metadata or {}).get("period", ""))
        try:
            first, last = dates.parse_period(entry_text)
        except ValueError:
            last = None
        if last is None:
            problem = (
                "its files are named by date, but its period has no last day: "
                f"'{entry_text}'; expected first..last"
            )
            hint = "request a period, or set `period: first..last` in the entry's arguments"
            raise DataError(http_errors.format_url(self.urlpath), problem, remedy=hint)
        return np.datetime64(first), np.datetime64(last)

    def disallowed_gaps(self, missing: days.Times) -> days.Times:
        """Return the missing days that the catalog entry does not allow."""
        if self.gaps == "allowed":
            return missing[:0]
        return np.array([d for d in missing if str(d)[5:10] not in self.gaps], "datetime64[D]")

    def gaps_hint(self) -> str:
        """Return what a user can do about missing days."""
        origin = (self.metadata or {}).get("origin", "the provider")
        return f"get them from {origin}, or set `gaps: allowed` in the entry"

    def read_grid(self, raw: xr.Dataset) -> tuple[Grid | None, list[str]]:
        """Return the grid of one file, and messages about what is wrong with the file."""
        names = list(variables.provider_units(self.terms))
        grid, problems = read_file_grid(raw, names)
        problems = problems + variables.input_problems(raw, self.terms)
        if any("time" in raw[name].dims for name in names if name in raw):
            has_steps = "time" in raw and any(term.daily for term in self.terms.values())
            times = raw["time"].values if "time" in raw else np.array([])
            order = days.order_problems(times) if has_steps else time_problems(raw)
            problems += calendar_problems(times) or order
        return grid, problems

    def part_problems(self, raw: xr.Dataset, grid: Grid) -> list[str]:
        """Return messages about a file that was not opened before, also about a different grid.

        Args:
          raw: The file.
          grid: The grid of the other files.
        """
        own_grid, problems = self.read_grid(raw)
        if own_grid is None or problems:
            return problems
        axes = own_grid.clip_like(grid).differing_axes(grid)
        return [f"another {axis} than the other files" for axis in axes]

    def digest(self) -> str:
        """Return a digest of the names and tags of all files, which does not depend on their place.

        Files that may be absent are included if they exist.

        Raises:
          DataError: If another file is missing, or the store does not answer.
        """
        if dates.pattern_unit(self.urlpath) is None:
            return super().digest()
        requested = self._dated_files()
        tags = fingerprints.tag_files(
            [url for url, _, _ in requested], self.storage_options, self.login
        )
        tagged = list(zip(requested, tags, strict=True))
        missing = [span[0] for (_, span, optional), tag in tagged if tag is None and not optional]
        if missing:
            raise self._missing_error(missing)
        named_tags = [
            (http_errors.file_name(url), tag) for (url, _, _), tag in tagged if tag is not None
        ]
        if not named_tags:
            raise self.absence_error(
                http_errors.format_url(self.urlpath), "not found: none of its files"
            )
        return files.sha256_of_json([list(column) for column in zip(*named_tags, strict=True)])

    def last_day_on_server(self) -> date | None:
        """Return the last requested day whose files a server has; None if it need not be asked.

        An HTTP server cannot list its files, so `to_dask` only finds out when it reads them. Of all
        others the dataset itself says how far it reaches.

        Raises:
          DataError: If a file before that day is missing that may not be, or the server refuses.
        """
        has_days = dates.pattern_unit(self.urlpath) in ("D", "h")
        if not has_days or not self.urlpath.startswith(files.HTTP_PREFIXES):
            return None
        requested, days_after = self._dated_files(), self._days_around()[1]
        there = fingerprints.find_existing(
            [url for url, _, _ in requested], self.storage_options, self.login
        )
        last = max((i for i, exists in enumerate(there) if exists), default=-1)
        missing = [
            span[0]
            for (_, span, optional), exists in zip(requested[:last], there[:last], strict=True)
            if not (exists or optional)
        ]
        if missing:
            raise self._missing_error(missing)
        end = requested[last][1][1] if last >= 0 else requested[0][1][0]
        # The last steps of a day can be in files of the next.
        day: date = end.astype("datetime64[D]").item()
        return day - timedelta(1 + days_after)

    def _missing_error(self, missing: list[np.datetime64]) -> DataError:
        """Return the error about days whose files are missing but may not be."""
        problem = f"missing: {dates.format_days(np.array(missing))}"
        return DataError(http_errors.format_url(self.urlpath), problem, remedy=self.gaps_hint())

    def _days_around(self) -> tuple[int, int]:
        """Return how many days before and after a period have files with steps of its days."""
        stamps = {term.stamp or self.day.stamp for term in self.terms.values() if term.daily}
        before = int(bool(self.day.offset_hours))
        return before, int(bool(self.day.offset_hours or stamps & {"end", "middle"}))

    def _dated_files(self) -> list[tuple[str, days.Times, bool]]:
        """Return the files of the requested period, if they are named by date.

        A file of the days around the period may be absent.

        Returns:
          For each file (URL, (2,) begin and end of the time it covers, whether it may be absent).
        """
        requested = self.requested_days()
        assert requested is not None
        first, last = requested
        before, after = self._days_around()
        begin, end = first - before * days.DAY, last + after * days.DAY
        by_day = dates.pattern_unit(self.urlpath) in ("D", "h")

        def may_be_absent(span: days.Times) -> bool:
            outside = bool(span[1] <= first or span[0] >= last + days.DAY)
            is_gap = by_day and not self.disallowed_gaps(span[:1].astype("datetime64[D]")).size
            return outside or self.gaps == "allowed" or is_gap

        return [
            (url, span, may_be_absent(span))
            for url, span in dates.dated_urls(self.urlpath, begin, end)
        ]
