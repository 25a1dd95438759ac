"""Records of the objects of an artefact, and a quick comparison of them with what is there.

A record has the `key`, the `size` in bytes and the `sha256` of an object. A manifest has records in
three lists: `shards`, `tables` beside the folder of the models, and `metadata`, the zarr.json files
and coordinates of its Zarr stores. The last list, `artefact` and `record_sha256` are missing from
manifests of earlier versions.

All keys here are relative to the folder of the experiment, whatever they are relative to in the
manifest.
"""

from __future__ import annotations

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import TYPE_CHECKING

from pipeline import files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pipeline.files import Json


# The folders that artefacts have alone; the keys in their manifests are relative to them.
OWN_FOLDERS = {"planet": "planet/", "cube": "cube.zarr/", "models": "models/"}

# Every folder in which an artefact has objects.
FOLDERS = {name: (folder,) for name, folder in OWN_FOLDERS.items()} | {"maps": ("maps/", "state/")}

# The objects of artefacts that are in the folder of the experiment itself.
FILES = {
    "folds": ("folds.parquet", "folds.geojson"),
    "models": ("sites.parquet", "footprints.parquet", "members.parquet"),
    "maps": ("next_probes.csv",),
    "scores": ("scores.parquet", "summary.json", "site_scores.csv", "collocated.zip"),
    "report": ("report.html",),
}

SEAL = "record_sha256"  # key of the digest of a record's own content
TEXT_SEAL = "# sha256 of the lines below: "
_checked: ContextVar[set[tuple[str, str]] | None] = ContextVar("checked", default=None)
READERS = 16  # objects that are read at a time


def seal(record: Json, artefact: str) -> Json:
    """Return a record with the name of its artefact, and the digest of its own content."""
    named = record | {"artefact": artefact}
    named.pop(SEAL, None)
    return named | {SEAL: _digest(named)}


def is_sealed(record: Json) -> bool:
    """Return whether a record has a digest of its own content; those of old versions have none."""
    return SEAL in record and "artefact" in record


def seal_is_broken(record: Json) -> bool:
    """Return whether the content of a sealed record differs from what was written."""
    if SEAL not in record and "artefact" not in record:  # written by an earlier version
        return False
    return record.get(SEAL) != _digest({k: v for k, v in record.items() if k != SEAL})


def seal_text(text: bytes) -> bytes:
    """Return a YAML text with a first line, a comment, that has the digest of the others."""
    return f"{TEXT_SEAL}{files.sha256(text)}\n".encode() + text


def text_seal_is_broken(text: bytes) -> bool | None:
    """Return whether a sealed text differs from what was written; None if it was not sealed."""
    first, _, rest = text.partition(b"\n")
    if not first.startswith(TEXT_SEAL.encode()):
        return None
    return first != f"{TEXT_SEAL}{files.sha256(rest)}".encode()


@contextlib.contextmanager
def check_once() -> Iterator[set[tuple[str, str]]]:
    """Let `remember_check` remember the artefacts that were checked, while the block runs."""
    token = _checked.set(set())
    try:
        yield _checked.get() or set()
    finally:
        _checked.reset(token)


def was_checked(prefix: str, manifest: Json) -> bool:
    """Return whether an artefact was already checked within the block of `check_once`."""
    checked = _checked.get()
    return checked is not None and (prefix, files.sha256_of_json(manifest)) in checked


def remember_check(prefix: str, manifest: Json) -> None:
    """Remember that an artefact is as its manifest says, within the block of `check_once`."""
    checked = _checked.get()
    if checked is not None:
        checked.add((prefix, files.sha256_of_json(manifest)))


def _digest(record: Json) -> str:
    # The text as it is read again: keys are text, and dates too.
    return files.sha256_of_json(json.loads(json.dumps(record, default=str)))


def recorded_objects(artefact: str, manifest: Json, folder: str | None = None) -> dict[str, Json]:
    """Return the records of all objects of an artefact, by key in the experiment's folder.

    Args:
      artefact: Name of the artefact.
      manifest: Its manifest.
      folder: Its own folder with a final slash, if it has another name, as copied models may.
    """
    folder = folder or OWN_FOLDERS.get(artefact, "")
    objects = {f"{folder}{record['key']}": record for record in manifest["shards"]}
    objects |= {record["key"]: record for record in manifest.get("tables", ())}
    return objects | {record["key"]: record for record in manifest.get("metadata", ())}


def artefact_of(key: str) -> str:
    """Return the artefact that an object of an experiment belongs to by its key; "" for none."""
    in_folders = (name for name, folders in FOLDERS.items() if key.startswith(folders))
    single = (name for name, keys in FILES.items() if key in keys)
    return next(in_folders, "") or next(single, "")


def recorded_fill(artefact: str, manifest: Json) -> set[str]:
    """Return the keys of the shards that are not stored, because all their values are fill."""
    return {f"{OWN_FOLDERS.get(artefact, '')}{key}" for key in manifest["empty"]}


def read_records(root: str, keys: Iterable[str], sizes: dict[str, int] | None = None) -> list[Json]:
    """Read objects of an experiment, several at a time, and return their records.

    Args:
      root: URL of the experiment's folder.
      keys: Keys of the objects. An object that does not exist has size 0 and no digest.
      sizes: Sizes by key, where they are known: large objects are read in pieces, others with one
        request.
    """
    sizes = sizes or {}

    def read(key: str) -> Json:
        url = files.join(root, key)
        try:
            if sizes.get(key, 0) > files.HASHED_BYTES:
                size, digest = files.sha256_of_object(url)
            else:
                data = files.read_bytes(url)
                size, digest = len(data), files.sha256(data)
        except FileNotFoundError:
            return {"key": key, "size": 0, "sha256": ""}
        return {"key": key, "size": size, "sha256": digest}

    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(read, keys))


def find_differences(
    root: str, artefact: str, manifest: Json, tables: bool = True, folder: str | None = None
) -> list[str]:
    """Compare an artefact with its manifest, without reading what is large.

    The sizes of all objects are compared, from one listing of each folder. The SHA-256 is compared
    for all objects but shards and the files of a planet: these are checkpoints, calibration,
    tables, and metadata.

    Args:
      root: URL of the experiment's folder.
      artefact: Name of the artefact.
      manifest: Its manifest.
      tables: Whether the tables beside the folder of the models belong to the artefact.
      folder: As in `recorded_objects`.

    Returns:
      `key: what is wrong` for each object that differs.
    """
    objects = recorded_objects(artefact, manifest, folder)
    folders = (folder,) if folder else FOLDERS.get(artefact, ())
    sizes: dict[str, int] = {}
    for each in folders:
        listed = files.list_objects(files.join(root, each.rstrip("/")))
        sizes |= {f"{each}{key}": size for key, size in listed.items()}
    small = {r["key"] for name in ("metadata", "tables") for r in manifest.get(name, ())}
    small |= {key for key in objects if artefact != "planet" and not array_folder(key)}
    if not tables:
        small -= {record["key"] for record in manifest.get("tables", ())}
    in_folders = {key for key in objects if key.startswith(folders)}
    found = {key: {"size": sizes.get(key, 0)} for key in in_folders}
    read = [key for key in small if key in sizes or key not in in_folders]
    found |= {record["key"]: record for record in read_records(root, read, sizes)}
    lines = [_describe_difference(key, objects[key], present) for key, present in found.items()]
    fill = recorded_fill(artefact, manifest) & sizes.keys()
    lines += [f"{key}: its values should all be fill" for key in fill]
    return sorted(filter(None, lines))


def _describe_difference(key: str, record: Json, found: Json) -> str:
    """Return what is wrong with an object; "" if it is as recorded."""
    if not found["size"]:
        return f"{key}: missing" if record["size"] else ""
    if found["size"] != record["size"]:
        return f"{key}: {found['size']} bytes, recorded are {record['size']}"
    differs = found.get("sha256", record["sha256"]) != record["sha256"]
    return f"{key}: its SHA-256 differs from the recorded one" if differs else ""


def metadata_keys(root: str, keys: Iterable[str]) -> list[str]:
    """Return which objects are metadata of Zarr stores: zarr.json files, and chunks of coordinates.

    Coordinates are the arrays that are not divided into shards. They are written with the metadata.

    Args:
      root: URL of the experiment's folder.
      keys: Keys of all objects of the stores.
    """
    keys = list(keys)
    descriptions = [key for key in keys if key.rpartition("/")[2] == "zarr.json"]
    with ThreadPoolExecutor(READERS) as readers:
        whole = list(readers.map(lambda key: _is_unsharded(files.join(root, key)), descriptions))
    folders = {
        key.removesuffix("zarr.json") for key, unsharded in zip(descriptions, whole, strict=True)
        if unsharded
    }  # fmt: skip
    chunks = [key for key in keys if f"{array_folder(key)}" in folders and key not in descriptions]
    return sorted({*descriptions, *chunks})


def array_folder(key: str) -> str:
    """Return the folder of the array that a chunk is in, with a final slash; "" for other objects.

    Chunks of an array have keys such as c/0/0, and a scalar has the only chunk c.
    """
    parts = key.split("/")
    if "c" not in parts:
        return ""
    return "/".join([*parts[: len(parts) - 1 - parts[::-1].index("c")], ""])


def _is_unsharded(url: str) -> bool:
    """Return whether a zarr.json describes an array without shards."""
    try:
        described = json.loads(files.read_bytes(url))
        codecs = [codec["name"] for codec in described.get("codecs", ())]
    except (ValueError, TypeError, KeyError, AttributeError):  # damaged: `verify` names it
        return False
    return described.get("node_type") == "array" and "sharding_indexed" not in codecs


def metadata_records(root: str, artefact: str) -> list[Json]:
    """Read the metadata of an artefact's Zarr stores and return their records."""
    if artefact not in ("cube", "maps"):
        return []
    listed = [
        f"{folder}{key}"
        for folder in FOLDERS[artefact]
        for key in files.list_objects(files.join(root, folder.rstrip("/")))
    ]
    return read_records(root, metadata_keys(root, listed))
