"""What files of a grid there are: those looked at one by one, and those told from a template."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources import cadence, dated, http_errors, remote
from pipeline.sources.form import REMEDY
from pipeline.sources.grids import days, derive
from pipeline.sources.grids.parts import Part, lengths_of

if TYPE_CHECKING:
    import xarray as xr

    from pipeline.sources.grids.axes import Grid
    from pipeline.sources.grids.parts import Files

    Wanted = list[tuple[str, days.Times, bool]]


def looked_at(source: Files, wanted: list[tuple[str, bool]]) -> list[Part]:
    """Files that are all opened: there are few.

    Args:
      source: opens and checks them.
      wanted: (URL, whether it may be absent) of each.

    Returns:
      Those that are there, in order of time.

    Raises:
      DataError: listing what is wrong with all of them.
    """
    parts: dict[str, Part] = {}
    grids: dict[str, Grid] = {}
    problems, remedies = [], []
    for url, optional in wanted:
        prefix = f"{http_errors.file_name(url)}: " if len(wanted) > 1 else ""
        try:
            raw = source.opened_part(url)
        except DataError as error:
            if not (optional and is_absence(error)):
                problems += [prefix + problem for problem in error.problems]
                remedies.append(error.remedy)
            continue
        with raw:
            grid, wrong = source.checked(raw)
            problems += [prefix + problem for problem in wrong]
            if grid is not None and not wrong:
                parts[url] = Part(url, _times_of(raw, source), lengths_of(raw))
                grids[url] = grid
    problems += _disagreements(parts, grids)
    if not problems and not parts:
        problems = ["not found"]
    if problems:
        remedy = remedies[0] if len(problems) == len(remedies) == 1 else REMEDY
        raise DataError(http_errors.shown(source.urlpath), *problems, remedy=remedy)
    return sorted(parts.values(), key=lambda p: p.times[0].astype(int) if len(p.times) else 0)


def from_template(source: Files, wanted: Wanted) -> list[Part]:
    """Files of which one is opened: the times of the others are as those in it.

    Args:
      source: opens and checks it.
      wanted: (URL, when what it holds begins and ends, whether it may be absent) of each.

    Raises:
      DataError: a file is known to be absent, or the template is not as the catalog says.
    """
    options = remote.options(source.urlpath, source.storage_options, source.login)
    gone = dated.absent([url for url, _, _ in wanted], options)
    lacking = [held[0] for url, held, optional in wanted if url in gone and not optional]
    if lacking:
        found = f"missing: {dated.shown(np.array(lacking))}"
        raise DataError(http_errors.shown(source.urlpath), found, remedy=source.remedy_of_gaps())
    there = [each for each in wanted if each[0] not in gone]
    for url, held, optional in there:
        try:
            with source.opened_part(url) as raw:
                _, problems = source.checked(raw)
                if problems:
                    raise DataError(http_errors.shown(url), *problems, remedy=REMEDY)
                offsets = _times_of(raw, source) - held[0]
        except DataError as error:
            if optional and is_absence(error):
                continue
            raise
        return [
            Part(
                each,
                _expected(span, held, offsets),
                known=each == url,
                optional=may_lack,
                span=span,
            )
            for each, span, may_lack in there
        ]
    raise source.absent(http_errors.shown(source.urlpath), "not found: none of its files")


def is_absence(error: DataError) -> bool:
    """Whether a file is not there, rather than refused or damaged."""
    return error.problems[0].startswith("not found")


def _times_of(raw: xr.Dataset, source: Files) -> days.Times:
    names = derive.inputs_of(source.terms)
    if not any("time" in raw[name].dims for name in names):
        return np.array([], "datetime64[ns]")
    times: days.Times = raw["time"].values.astype("datetime64[ns]")
    return times


def _expected(held: days.Times, of_template: days.Times, offsets: Any) -> days.Times:
    """Times in a file that holds a span; those of months have more or fewer than the template."""
    count, span, length = len(offsets), held[1] - held[0], of_template[1] - of_template[0]
    if span != length and count > 1:
        step = offsets[1] - offsets[0]
        even = bool((np.diff(offsets) == step).all())
        count = round(count * (span / length) if even else span / step)
        offsets = offsets[0] + np.arange(count) * step
    made: days.Times = (held[0] + offsets).astype("datetime64[ns]")
    return made


def _disagreements(parts: dict[str, Part], grids: dict[str, Grid]) -> list[str]:
    """Files that are not of one grid, or whose days do not follow one another."""
    if len(parts) < 2:
        return []
    first, *others = parts
    problems = [
        f"{http_errors.file_name(url)}: another {axis} than {http_errors.file_name(first)}"
        for url in others
        for axis in grids[url].differs(grids[first])
    ]
    timeless = [url for url in parts if not len(parts[url].times)]
    if timeless:
        return problems + [
            f"{http_errors.file_name(url)}: no times, and not the only file" for url in timeless
        ]
    hourly = any(cadence.step_of(part.times) < days.DAY for part in parts.values())
    ends = {
        url: part.times[[0, -1]].astype("datetime64[m]" if hourly else "datetime64[D]")
        for url, part in parts.items()
    }
    for before, after in itertools.pairwise(sorted(parts, key=lambda url: ends[url][0])):
        if ends[after][0] <= ends[before][1]:
            earlier = http_errors.file_name(before)
            found = f"begins {ends[after][0]}, but {earlier} ends {ends[before][1]}"
            kind = "times" if hourly else "days"
            problems.append(
                f"{http_errors.file_name(after)}: {found}; {kind} must increase from file to file"
            )
    return problems
