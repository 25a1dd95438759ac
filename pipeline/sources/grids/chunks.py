"""Which chunks of an array in a Zarr store are there: one that is not reads as the fill value."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import fsspec
import numpy as np

from pipeline import files
from pipeline.sources import http_errors, remote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.sources.grids.days import Times
    from pipeline.sources.grids.gridsource import GridSource

MOST_LISTED = 200_000  # chunks of an array, above which they are not listed


class Layout(NamedTuple):
    """The chunks of an array: shape and dims of the array, chunks, and how their keys are made."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    prefix: str
    separator: str
    fill: Any


def of_source(
    source: GridSource, group: str | None
) -> tuple[dict[str, tuple[Times, Any]], int] | None:
    """Chunks of the wanted days and region that are absent, though others of their place are not.

    Args:
      source: in Zarr stores, told which period and region are wanted.
      group: in the stores, None for their root.

    Returns:
      By our name, the times of such chunks and the fill value that they read as; and how many
      chunks there should be. None where it cannot be told.
    """
    found: dict[str, tuple[Times, Any]] = {}
    expected = 0
    for part in source.parts():
        raw = source.opened_part(part.url)
        grid, _ = source.checked(raw)
        if grid is None:
            return None
        where = dict(zip(grid.dims, grid.over(source.region).taken, strict=True))
        where["time"] = _steps(source, part.times)
        options = remote.options(part.url, source.storage_options, source.login)
        for name, term in source.terms.items():
            for native, _ in term.inputs:
                dims = [str(dim) for dim in raw[native].dims]
                if dims[0] != "time":
                    continue
                wanted = [where[dim] for dim in dims]
                with http_errors.answering(part.url, source.login):
                    told = absent(part.url, group, native, wanted, options)
                if told is None:
                    return None
                expected += told[1]
                if told[0]:
                    steps = np.arange(len(part.times))[where["time"]]
                    spans = [np.arange(span.start, span.stop) for span in told[0]]
                    gone = np.intersect1d(np.concatenate(spans), steps)
                    found[name] = (part.times[gone], told[2])
    return found, expected


def _steps(source: GridSource, times: Times) -> slice:
    """Those of a store's steps that are wanted."""
    wanted = source.wanted_days()
    if wanted is None:
        return slice(0, len(times))
    ends = np.searchsorted(times, [wanted[0], wanted[1] + np.timedelta64(1, "D")])
    return slice(int(ends[0]), int(ends[1]))


def absent(
    url: str, group: str | None, name: str, wanted: Sequence[slice], options: dict[str, Any]
) -> tuple[list[slice], int, Any] | None:
    """Parts of the first dimension for which a chunk is absent that is there for others.

    A chunk that is absent all along the first dimension is taken for sea.

    Args:
      url: the store.
      group: in it, None for its root.
      name: of the array.
      wanted: of each dimension.
      options: of fsspec.

    Returns:
      Those parts in order; how many chunks there should be; and the fill value that is read in
      place of the absent ones. None where it cannot be told: the store does not list its objects,
      or has too many.
    """
    filesystem, root = fsspec.core.url_to_fs(files.join(url, group) if group else url, **options)
    if "http" in files.protocols(filesystem):
        return None
    layout = _layout(filesystem, f"{root}/{name}")
    if layout is None or np.prod(_counts(layout)) > MOST_LISTED:
        return None
    folder = f"{root}/{name}/"
    found = {str(path).rpartition(f"/{name}/")[2] for path in filesystem.find(folder)}
    within = [
        range(start // chunk, -(-stop // chunk))
        for (start, stop, _), chunk in zip(
            (part.indices(size) for part, size in zip(wanted, layout.shape, strict=True)),
            layout.chunks,
            strict=True,
        )
    ]
    there = {index for index in np.ndindex(*_counts(layout)) if _key(layout, index) in found}
    ever = {index[1:] for index in there}
    parts: list[slice] = []
    expected = 0
    for first in within[0]:
        here = [(first, *rest) for rest in itertools.product(*within[1:]) if rest in ever]
        expected += len(here)
        if any(index not in there for index in here):
            length = layout.chunks[0]
            parts.append(slice(first * length, min((first + 1) * length, layout.shape[0])))
    return parts, expected, layout.fill


def _counts(layout: Layout) -> tuple[int, ...]:
    return tuple(-(-size // chunk) for size, chunk in zip(layout.shape, layout.chunks, strict=True))


def _key(layout: Layout, index: tuple[int, ...]) -> str:
    return layout.prefix + layout.separator.join(map(str, index))


def _layout(filesystem: Any, path: str) -> Layout | None:
    """As the metadata of the array has it, in either format; None where there is none."""
    try:
        held = json.loads(filesystem.cat_file(f"{path}/zarr.json"))
    except FileNotFoundError:
        try:
            held = json.loads(filesystem.cat_file(f"{path}/.zarray"))
        except FileNotFoundError:
            return None
        separator = held.get("dimension_separator", ".")
        return Layout(
            tuple(held["shape"]), tuple(held["chunks"]), "", separator, held["fill_value"]
        )
    encoding = held["chunk_key_encoding"]
    default = encoding["name"] == "default"
    separator = encoding.get("configuration", {}).get("separator", "/" if default else ".")
    chunks = tuple(held["chunk_grid"]["configuration"]["chunk_shape"])  # of shards, where it has
    prefix = f"c{separator}" if default else ""
    return Layout(tuple(held["shape"]), chunks, prefix, separator, held["fill_value"])
