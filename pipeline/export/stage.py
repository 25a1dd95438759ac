"""Export maps as files: what is to be written, what is there already, and the record of both.

`storage/exports.py` describes the record, `export.json` beside the files. A file is written under
another name and then put in place, so it is complete or absent. It is written anew if it is not as
recorded, or if `made_from` would be another, because its days were revised or the options are
others.
"""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import ConfigError, HeldError, StoreError, UnwritableError
from pipeline.export import cog, netcdf, table
from pipeline.export.maps import open_maps
from pipeline.local_files import PART
from pipeline.storage import lease as storage_lease
from pipeline.storage.exports import LEASE, RECORD, read_record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.export.maps import Maps
    from pipeline.export.pieces import Piece
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.storage.lease import Lease

    Pieces = list[tuple[Piece, str | None]]  # with the digest of what each is made from


RECORD_EVERY_S = 1.0  # seconds; what was written since is written again after a kill
FORMAT_VERSION = 1  # of the files; part of `made_from`
FORMATS = ("cog", "netcdf", "csv")
EVERY = tuple(cog.UNITS)


@dataclass(frozen=True)
class Options:
    """What to export.

    Attributes:
      format: One of FORMATS.
      arm: The arm; None for `multiscale`, or else the first.
      period: `FIRST..LAST`, of which either may be left out, or one day; None for all days.
      every: For cog: "day" or "month"; None for days.
      crs: For cog: one of `cog.CRS`; None for that of the maps.
      places: For csv: URL of the points or polygons.
    """

    format: str
    arm: str | None = None
    period: str | None = None
    every: str | None = None
    crs: str | None = None
    places: str | None = None


def export(source: str, to: str, options: Options, progress: Progress) -> str:
    """Export maps; what is there already is kept.

    Args:
      source: URL of a publication, of the folder of an experiment, or of a Zarr store of maps.
      to: Folder or URL to export to.
      options: What to export.
      progress: Receives the number of days done.

    Returns:
      The absolute path or URL that was exported to.

    Raises:
      ConfigError: If the options do not fit together, or not to the maps.
      StoreError: If there are no maps, or something cannot be read or written.
    """
    check(options)
    to = files.make_absolute(to).rstrip("/")
    maps = open_maps(source, options.arm)
    planned = _plan(maps, maps.positions(options.period), options)
    pieces = [(piece, _made_from(maps, piece)) for piece in planned]
    progress.start("export", sum(len(piece.days) for piece, _ in pieces), "days")
    n_written, record = 0, _Record(to)
    record.check_places(pieces)
    if record.lacking(pieces):
        lease = storage_lease.get_lease(files.join(to, LEASE))
        with _named(to), lease.given_back():
            _take(lease, progress)
            _remove_parts(to, maps)
            n_written = _write(maps, pieces, to, progress)
    n_kept = sum(len(piece.names) for piece, _ in pieces) - n_written
    kept = f", {n_kept} {'was' if n_kept == 1 else 'were'} there already" if n_kept else ""
    written = f"{n_written} file{'s' * (n_written != 1)} written"
    progress.finish(f"{written}{kept}: {to}")
    return to


def _write(maps: Maps, pieces: Pieces, to: str, progress: Progress) -> int:
    """Write the pieces that are not there; return the number of files."""
    n_written = 0
    with _Record(to).kept() as record:
        waiting = record.lacking(pieces)
        n_days, n_left = (sum(len(piece.days) for piece, _ in part) for part in (pieces, waiting))
        progress.advance(n_days - n_left)
        for piece, made_from in waiting:
            record.add(maps, piece, made_from, piece.write(to, progress.advance))
            n_written += len(piece.names)
    return n_written


def check(options: Options) -> None:
    """Check that options fit together.

    Raises:
      ConfigError: If they do not.
    """
    known = {"--format": (options.format, FORMATS), "--every": (options.every, EVERY)}
    known["--crs"] = (options.crs, cog.CRS)
    for option, (given, accepted) in known.items():
        if given is not None and given not in accepted:
            raise ConfigError(f"{option} {given}", f"expected {', '.join(accepted)}")
    only = {"--every": options.every, "--crs": options.crs} if options.format != "cog" else {}
    if options.format != "csv":
        only["--places"] = options.places
    for option, given in only.items():
        if given is not None:
            raise ConfigError(option, f"does not apply to --format {options.format}")
    if options.format == "csv" and options.places is None:
        hint = "give --places POINTS.csv or POLYGONS.geojson"
        raise ConfigError("--format csv", "needs places", remedy=hint)


def _plan(maps: Maps, days: range, options: Options) -> Iterator[Piece]:
    """Return the pieces of an export."""
    if options.format == "cog":
        return cog.plan(maps, days, options.every or EVERY[0], options.crs or cog.CRS[0])
    if options.format == "netcdf":
        return netcdf.plan(maps, days)
    return table.plan(maps, days, str(options.places))


class _Record:
    """`export.json` of a folder."""

    def __init__(self, to: str) -> None:
        """Read it, if it is there, and which files are."""
        self.url, self.to = files.join(to, RECORD), to
        self.files = read_record(to)
        self._saved, self._changed = 0.0, False

    def lacking(self, pieces: Pieces) -> Pieces:
        """Return the pieces that are not there, or were made from something else."""
        sizes = files.list_objects(self.to) if self.files else {}

        def is_there(piece: Piece, made_from: str | None) -> bool:
            found = [(name, self.files.get(name, {})) for name in piece.names]
            return made_from is not None and all(
                record.get("made_from") == made_from
                and "maps" in record  # versions before 0.2 did not record it
                and sizes.get(name) == record.get("size")
                for name, record in found
            )

        return [each for each in pieces if not is_there(*each)]

    def check_places(self, pieces: Pieces) -> None:
        """Check that no table replaces that of another file of places.

        Raises:
          ConfigError: If one would.
        """
        for piece, _ in pieces:
            for name in piece.names:
                before, url = self.files.get(name, {}).get("places"), files.join(self.to, name)
                if before not in (None, piece.made_from.get("places")) and files.exists(url):
                    problem = "was made at other places: those of another file of this name, or of "
                    problem += "this one before it was changed"
                    hint = "remove it, or rename the file of places, or give another --to"
                    raise ConfigError(url, problem, remedy=hint)

    def add(
        self, maps: Maps, piece: Piece, made_from: str | None, written: dict[str, Json]
    ) -> None:
        """Record the files of a piece that was written."""
        first, last = (str(maps.days[day]) for day in (piece.days.start, piece.days.stop - 1))
        about = piece.made_from | {"first": first, "last": last, "made_from": made_from}
        about |= {key: maps.root.attrs.get(key) for key in ("experiment", "arm")}
        about["maps"] = maps.digest(piece.days)
        self.files |= {name: record | about for name, record in written.items()}
        self._changed = True
        if time.monotonic() - self._saved > RECORD_EVERY_S:
            self._save()

    @contextlib.contextmanager
    def kept(self) -> Iterator[_Record]:
        """Write the record at the end of the block, however it ends."""
        try:
            yield self
        finally:
            if self._changed:
                self._save()

    def _save(self) -> None:
        files.write_json(self.url, {"files": dict(sorted(self.files.items()))})
        self._saved, self._changed = time.monotonic(), False


def _made_from(maps: Maps, piece: Piece) -> str | None:
    """Return the digest of what a piece is made from; None if that cannot be known."""
    digest = maps.digest(piece.days)
    return digest and files.sha256_of_json([FORMAT_VERSION, digest, piece.made_from])


@contextlib.contextmanager
def _named(to: str) -> Iterator[None]:
    """Say of what cannot be written what to do."""
    try:
        yield
    except UnwritableError as error:
        if not error.place.startswith(to):
            raise
        hint = "correct this, or give another place with --to; the same command continues"
        raise StoreError(error.place, *error.problems, remedy=hint) from error


def _remove_parts(to: str, maps: Maps) -> None:
    """Remove what a process that was killed has left of files of these maps."""
    part = re.compile(rf"({re.escape(maps.stem)}_.+|{RECORD}){re.escape(PART)}[0-9a-f]{{32}}")
    for name in filter(part.fullmatch, files.list_folder(to)):
        files.remove(files.join(to, name))


def _take(lease: Lease, progress: Progress) -> None:
    """Take the lease of the folder.

    Raises:
      StoreError: If another process exports to it, or it cannot be written.
    """
    try:
        lease.take(progress.note)
    except HeldError as error:
        hint = "another export to this place is at work; wait for it to end, or export elsewhere"
        raise StoreError(error.place, *error.problems, remedy=hint) from error
