"""What `publish` leaves at a URL, and how it is read and verified.

A publication is a folder or a bucket's prefix with `latest.json` and releases:

  latest.json: `experiment`; `release`, the id of the latest release; `path`, its folder here;
    `published` (UTC); `releases`, the ids that were latest one after the other, the latest first.
    It is a STAC catalog too, whose only child is the collection of the latest release.
  index.html, viewer/: the viewer, where `publish --viewer` has put it.
  releases/{id}/: the objects of one release, which never change, and `manifest.json`, written last.
    The manifest has the key, size, SHA-256 and MD5 of every object, and describes the maps.

A reader follows latest.json once and then reads one release only, so that what it reads belongs
together.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import ConfigError, DamagedError, StoreError
from pipeline.experiment.config import reference_arm
from pipeline.storage import records, verify, zarr_arrays
from pipeline.storage.artefacts import Workspace
from pipeline.storage.verify import DAMAGED, MISSING, UNLISTED, Problem, Result

if TYPE_CHECKING:
    import xarray as xr

    from pipeline.files import Json
    from pipeline.progress import Progress


LATEST, RELEASES, MANIFEST = "latest.json", "releases", "manifest.json"
VIEWER = ("index.html", "viewer")  # the page and the folder of its files
COLLECTION = "collection.json"  # of a release, in STAC
STORE = ".zarr"
RELEASE = "release"  # stands for the name of an artefact in a release's manifest
LATEST_KEYS = ("experiment", "release", "path", "releases")
NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{12}")  # when it was begun, and a digest of its content
MANIFEST_KEYS = ("release", "experiment", "arms", "content_sha256", "objects")
OBJECT_KEYS = {"key", "size", "sha256"}  # of each object in a release's manifest
HINT = "publish again, which writes it anew"
LATEST_HINT = "remove it and publish again; releases stay as they are"
MAX_BYTES = 256 * 2**20  # of a manifest


@dataclass(frozen=True)
class Release:
    """A complete release.

    Attributes:
      url: URL of its folder.
      manifest: Its manifest.
    """

    url: str
    manifest: Json

    @property
    def name(self) -> str:
        """The id of the release."""
        return str(self.manifest["release"])

    @cached_property
    def objects(self) -> dict[str, Json]:
        """The records of all objects but the manifest, by key in the folder of the release."""
        return {record["key"]: record for record in self.manifest["objects"]}


def release_url(root: str, name: str) -> str:
    """Return the URL of the folder of a release."""
    return files.join(root, RELEASES, name)


def read_release(url: str) -> Release | None:
    """Read the manifest of a release; None if there is none, so that it is not complete.

    Raises:
      DamagedError: If the manifest cannot be decoded or is not that of a release.
    """
    where = files.join(url, MANIFEST)
    manifest = files.read_json(where, HINT, MAX_BYTES)
    if manifest is None:
        return None
    missing = [key for key in MANIFEST_KEYS if key not in manifest]
    if missing or records.seal_is_broken(manifest):
        problem = f"it has no {', '.join(missing)}" if missing else "its content was changed"
        raise DamagedError(where, f"is damaged: {problem}", remedy=HINT)
    if not (_is_list_of(manifest["arms"], str) and _is_list_of(manifest["objects"], dict)) or any(
        OBJECT_KEYS - record.keys() for record in manifest["objects"]
    ):
        problem = "is damaged: its arms or objects have another form than those of a release"
        raise DamagedError(where, problem, remedy=HINT)
    return Release(url, manifest)


def _is_list_of(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(each, kind) for each in value)


def read_latest(root: str) -> tuple[Json, bytes] | None:
    """Read `latest.json`; return it decoded and as it is stored, or None if there is none.

    Raises:
      DamagedError: If it cannot be decoded or lacks keys.
    """
    url = files.join(root, LATEST)
    try:
        content = files.read_limited(url, MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        latest = json.loads(content)
    except (ValueError, RecursionError):
        latest = {}
    if not (isinstance(latest, dict) and latest.keys() >= {*LATEST_KEYS}):
        problem = f"is damaged: expected a JSON object with {', '.join(LATEST_KEYS)}"
        raise DamagedError(url, problem, remedy=LATEST_HINT)
    names = latest["releases"] if isinstance(latest["releases"], list) else [None]
    if not all(NAME.fullmatch(str(name)) for name in (latest["release"], *names)):
        raise DamagedError(url, "is damaged: it has an id that no release has", remedy=LATEST_HINT)
    if latest["path"] != f"{RELEASES}/{latest['release']}":
        raise DamagedError(
            url, "is damaged: its path is not that of its release", remedy=LATEST_HINT
        )
    return latest, content


def find_release(url: str) -> Release | None:
    """Return the release at a URL, or the latest one of a publication; None if there is neither.

    Raises:
      StoreError: If `latest.json` names a release that is not there, or is damaged.
    """
    if url.rstrip("/").rpartition("/")[0].endswith(f"/{RELEASES}"):
        return read_release(url)
    seen: bytes | None = None
    while (found := read_latest(url)) is not None:
        latest, content = found
        if (release := read_release(release_url(url, latest["release"]))) is not None:
            return release
        if content == seen:
            where = files.join(url, LATEST)
            problem = f"names release {latest['release']}, which is not there"
            raise StoreError(where, problem, remedy="publish again, or use publish --rollback")
        seen = content  # it may have been removed since; then latest.json has changed
    return None


def split_store(url: str) -> tuple[str, str | None]:
    """Split the URL of the maps of an arm, `FOLDER/maps/ARM.zarr`.

    Returns:
      The folder of the experiment or release and the arm; or the URL and None if it has not this
      form.
    """
    folder, _, name = url.removesuffix(STORE).rpartition("/")
    if url.endswith(STORE) and folder.endswith("/maps"):
        return folder.removesuffix("/maps"), name
    return url, None


def open_maps(
    url: str,
    arm: str | None = None,
    group: str = "",
    packed: bool = False,
    chunks: Json | None = None,
) -> xr.Dataset:
    """Open the maps of an arm, of a publication or of an experiment in a workspace.

    Of a publication, all values come from one release, also if others are published meanwhile; an
    object that was removed or lost since is an error, whereas Zarr would read fill values. The
    attribute `release` names the release. Call the function again to see a later one.

    Args:
      url: URL of a publication, whose latest release is opened; of one release; or of the folder of
        an experiment. With HTTP, publications and releases need no listing.
      arm: The arm; by default `multiscale`, or else the first.
      group: "" for maps of a day, or "series" for the series of a cell.
      packed: Leave values and attributes as they are stored.
      chunks: The chunks of dask, as in `xarray.open_zarr`, such as {} for those of the store. By
        default dask is not used: to read a day or a cell takes a fifth of the time without it, but
        then what is computed from many days must fit into memory.

    Returns:
      The maps, opened lazily.

    Raises:
      StoreError: If there are no maps at the URL.
      ConfigError: If the arm has no maps.
    """
    url = files.make_absolute(url).rstrip("/")
    release = find_release(url)
    arms = Workspace(url).described().arms if release is None else release.manifest["arms"]
    arm = arm or reference_arm(arms)
    if arm not in arms:
        raise ConfigError(f"arm '{arm}'", f"{url} has the arms {', '.join(arms)}")
    if release is None:
        store = files.join(url, "maps", f"{arm}.zarr")
        return zarr_arrays.open_recorded(store, group, packed=packed, chunks=chunks)
    folder = f"maps/{arm}.zarr/"
    keys = {key.removeprefix(folder) for key in release.objects if key.startswith(folder)}
    store = files.join(release.url, folder.rstrip("/"))
    opened = zarr_arrays.open_recorded(store, group, keys, packed, chunks)
    return opened.assign_attrs(release=release.name)


def verify_release(release: Release, progress: Progress) -> Result:
    """Read every object of a release and compare it with the manifest.

    Args:
      release: The release.
      progress: Receives the number of objects read.
    """
    result = Result(release.url, artefacts=[RELEASE])
    listed = files.list_objects(release.url)
    progress.start("verify", len(release.objects), "objects")
    keys = list(release.objects)
    for start in range(0, len(keys), verify.BATCH):
        part = keys[start : start + verify.BATCH]
        present = [key for key in part if key in listed]
        found = {record["key"]: record for record in records.read_records(release.url, present)}
        for key in part:
            if problem := _compare(release.objects[key], found.get(key)):
                result.problems.append(problem)
        result.n_objects += len(present)
        result.n_bytes += sum(record["size"] for record in found.values())
        progress.advance(len(part))
    unlisted = sorted(listed.keys() - release.objects.keys() - {MANIFEST})
    result.problems += [Problem(RELEASE, key, UNLISTED) for key in unlisted]
    return result


def _compare(record: Json, found: Json | None) -> Problem | None:
    """Return what is wrong with an object of a release, or None."""
    key = record["key"]
    if found is None or (record["size"] and not found["sha256"]):
        return Problem(RELEASE, key, MISSING)
    if found["sha256"] == record["sha256"]:
        return None
    return Problem(RELEASE, key, DAMAGED, "its SHA-256 differs from the recorded one")
