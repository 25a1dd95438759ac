"""The workspace on any URL: identity, template, whole-shard writes, manifest."""

from __future__ import annotations

import subprocess
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from pipeline import files, schema
from pipeline.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.config import Experiment
    from pipeline.files import Json
    from pipeline.schema import Array

ARTEFACTS = ("planet", "cube", "folds", "models", "maps", "scores", "report")
# Artefacts with a folder of their own.
FOLDERS = {"planet": "planet/", "cube": "cube.zarr/", "models": "models/", "maps": "maps/"}
VERBS = {"cube": "prepare", "folds": "prepare", "models": "train", "maps": "predict"}


@dataclass(frozen=True)
class Workspace:
    """The folder of one experiment, `{workspace}/{experiment}/`, on any URL."""

    root: str

    def url(self, *parts: str) -> str:
        """URL of something in it."""
        return files.join(self.root, *parts)

    def artefact(self, name: str) -> Artefact:
        """The artefact of a name, one of ARTEFACTS."""
        return Artefact(name, self.url(FOLDERS.get(name, f"{name}.")))

    def place(self, experiment: Experiment) -> Experiment:
        """The experiment with the place of its planet, where one is made: in this workspace."""
        if experiment.planet is None:
            return experiment
        url = files.absolute(experiment.planet.url or self.url("planet"))
        planet = experiment.planet.model_copy(update={"url": url})
        return experiment.model_copy(update={"planet": planet})

    def describe(self, experiment: Experiment) -> None:
        """Write `experiment.yaml`, unless it says the same already."""
        text = yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False).encode()
        url = self.url("experiment.yaml")
        if not files.exists(url) or files.read_bytes(url) != text:
            files.write_bytes(url, text)


@dataclass(frozen=True)
class Artefact:
    """One artefact: `begun.json` comes before its first object, `manifest.json` after its last."""

    name: str
    prefix: str

    def manifest(self) -> Json | None:
        """The manifest, None while the artefact is not complete."""
        return files.read_json(f"{self.prefix}manifest.json")

    def state(self) -> str:
        """One line: absent, begun, or complete with its size and age."""
        manifest = self.manifest()
        if manifest is None:
            begun = files.exists(f"{self.prefix}begun.json")
            return "begun, not complete" if begun else "absent"
        size = sum(shard["size"] for shard in manifest["shards"])
        n = len(manifest["shards"])
        return f"complete, {n} objects, {size / 1e6:.1f} MB, made {manifest['created']}"

    def digest(self, experiment: Experiment | None = None) -> str:
        """Digest of the complete artefact.

        Args:
          experiment: whose settings it must have been made with, None for any.

        Raises:
          StoreError: it is not complete, or was made with other settings.
        """
        manifest = self.manifest()
        verb = VERBS.get(self.name, "run")
        place = self.prefix.rstrip("./")
        if manifest is None:
            remedy = f"make it with: soilweave {verb}"
            raise StoreError(place, f"no complete {self.name} here", remedy=remedy)
        if experiment is not None:
            sections = ("schema", *schema.SECTIONS[self.name])
            found = {k: v for k, v in manifest["inputs"].items() if k.split(".")[0] in sections}
            if changed := _changed(found, schema.identity(experiment, self.name)):
                remedy = f"give --name NEW, or make it anew with: soilweave {verb} --overwrite"
                problem = f"was made with other settings: {changed}"
                raise StoreError(place, problem, remedy=remedy)
        return str(manifest["inputs_sha256"])

    def complete(self, inputs: Json, overwrite: bool = False) -> bool:
        """Whether the artefact is there, made from these inputs.

        Raises:
          StoreError: it was made from other inputs, and `overwrite` does not allow to replace it.
        """
        found = self.manifest() or files.read_json(f"{self.prefix}begun.json")
        if found is None:
            return False
        if found["inputs_sha256"] == files.sha256_of(inputs):
            return "shards" in found
        if overwrite:
            return False
        changed = _changed(found["inputs"], inputs)
        remedy = "keep it and give --name NEW, or replace it with --overwrite"
        place = self.prefix.rstrip("./")
        raise StoreError(place, f"was made with other settings: {changed}", remedy=remedy)

    def begin(self, inputs: Json) -> bool:
        """Mark the artefact as begun; True where the same one was begun before and goes on.

        What was made from other inputs is removed first.
        """
        digest = files.sha256_of(inputs)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        begun = files.read_json(f"{self.prefix}begun.json")
        if begun is not None and begun["inputs_sha256"] == digest:
            return True
        self._remove()
        record = {"inputs_sha256": digest, "inputs": inputs, "begun": now}
        files.write_json(f"{self.prefix}begun.json", record)
        return False

    def commit(self, inputs: Json, shards: Iterable[Json], **extra: Any) -> None:
        """Write the manifest: from now on the artefact is complete."""
        records = sorted(shards, key=lambda record: str(record["key"]))
        manifest = {
            "inputs_sha256": files.sha256_of(inputs),
            "inputs": inputs,
            "git_commit": git_commit(),
            "begun": (files.read_json(f"{self.prefix}begun.json") or {}).get("begun"),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            **extra,
            "shards": [record for record in records if record["size"]],
            "empty": [record["key"] for record in records if not record["size"]],
        }
        files.write_json(f"{self.prefix}manifest.json", manifest)
        files.remove(f"{self.prefix}begun.json")

    def _remove(self) -> None:
        if self.prefix.endswith("/"):
            files.remove(self.prefix.rstrip("/"))
        else:
            files.remove(f"{self.prefix}manifest.json")


def create_group(url: str, arrays: Sequence[Array], attrs: dict[str, Json]) -> None:
    """Write the template of a Zarr store: every array with its metadata, coordinates with values.

    Args:
      url: where; an existing template is replaced, shards stay as they are.
      arrays: all arrays.
      attrs: attributes by group; "" is the root.
    """
    import zarr

    root = zarr.open_group(url, mode="a", attributes=attrs.get("", {}))
    for group in sorted({a.path.split("/")[0] for a in arrays if "/" in a.path}):
        root.require_group(group).attrs.update(attrs.get(group, {}))
    for array in arrays:
        if array.path in root:
            continue
        made = root.create_array(
            array.path,
            shape=array.shape,
            dtype=array.dtype,
            chunks=array.chunks,
            shards=None if array.values is not None else array.shards,
            fill_value=array.fill,
            dimension_names=array.dims,
            attributes=array.attrs,
        )
        if array.values is not None:
            made[...] = array.values


def write_shards(url: str, path: str, region: Sequence[slice], values: NDArray[Any]) -> list[Json]:
    """Write whole shards of one array and read them back.

    Args:
      url: the Zarr store.
      path: the array.
      region: one slice per dim; every edge on a shard's edge or at the end of the array.
      values: of the region's shape.

    Returns:
      For each shard {"key", "size", "sha256"}; size 0 where all is fill and nothing is stored.

    Raises:
      StoreError: a slice cuts a shard, which two writers would then lose data in.
    """
    import zarr

    array = zarr.open_array(url, path=path, mode="r+")
    shards = array.shards or array.chunks
    aligned = zip(region, shards, array.shape, strict=True)
    for part, shard, size in aligned:
        if part.start % shard or (part.stop % shard and part.stop != size):
            found = [(p.start, p.stop) for p in region]
            remedy = "write whole shards only"
            raise StoreError(f"{url}/{path}", f"{found} cuts shards of {shards}", remedy=remedy)
    try:
        array[tuple(region)] = values
    except OSError as error:
        raise StoreError(f"{url}/{path}", f"cannot be written: {error}") from error
    counts = [
        range(part.start // shard, -(-part.stop // shard))
        for part, shard in zip(region, shards, strict=True)
    ]
    keys = np.stack(np.meshgrid(*counts, indexing="ij"), -1).reshape(-1, len(counts))
    return [record(url, f"{path}/c/{'/'.join(map(str, key))}") for key in keys.tolist()]


def record(url: str, key: str) -> Json:
    """{"key", "size", "sha256"} of an object under a URL; size 0 where there is none."""
    try:
        data = files.read_bytes(files.join(url, key))
    except FileNotFoundError:
        return {"key": key, "size": 0, "sha256": ""}
    return {"key": key, "size": len(data), "sha256": files.sha256(data)}


def consolidate(url: str) -> None:
    """Put all metadata into the root, so that a reader needs one request."""
    import zarr

    with warnings.catch_warnings():
        # Consolidated metadata is no part of the Zarr v3 text yet; readers we serve want it.
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
        # begun.json lies beside the arrays until the manifest takes its place.
        warnings.filterwarnings("ignore", ".*not recognized as a component of a Zarr hierarchy")
        zarr.consolidate_metadata(url)


def open_group(url: str, group: str) -> xr.Dataset:
    """One group of a Zarr store, lazily, without dask."""
    import xarray as xr

    where = group or None
    dataset: xr.Dataset = xr.open_zarr(url, group=where, chunks=None, consolidated=False)
    return dataset


def attributes(url: str, group: str = "") -> Json:
    """Attributes of a group of a Zarr store; empty where there is no such group."""
    import zarr

    try:
        return dict(zarr.open_group(url, path=group, mode="r").attrs)
    except FileNotFoundError:
        return {}


def git_commit() -> str | None:
    """Commit of the code, None where it is no checkout."""
    folder = Path(__file__).resolve().parents[1]
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _changed(found: Json, wanted: Json) -> str:
    keys = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
    return ", ".join(f"{key} {_short(found.get(key))} -> {_short(wanted.get(key))}" for key in keys)


def _short(value: Any) -> Any:
    """A digest by its beginning, anything else whole."""
    is_digest = isinstance(value, str) and len(value) == 64
    return value[:12] if is_digest else value
