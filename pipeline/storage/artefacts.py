"""The workspace on any URL: identity of artefacts, lease, manifest."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import yaml

from pipeline import files
from pipeline.errors import DamagedError, StoreError
from pipeline.experiment import renamed
from pipeline.storage import lease as storage_lease
from pipeline.storage import provenance, schema

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.storage.lease import Lease


ARTEFACTS = ("planet", "cube", "folds", "models", "maps", "scores", "report")

# Artefacts with a folder of their own.
FOLDERS = {"planet": "planet/", "cube": "cube.zarr/", "models": "models/", "maps": "maps/"}
IDENTITY_KEYS = ("inputs_sha256", "inputs")
MANIFEST_KEYS = (*IDENTITY_KEYS, "shards", "empty")
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
        return Artefact(name, self.url(FOLDERS.get(name, f"{name}.")), self.lease)

    @property
    def lease(self) -> Lease:
        """The right to write here, one driver's at a time."""
        return storage_lease.of(self.url("lease.json"))

    def prepared(self, experiment: Experiment) -> Workspace:
        """The workspace that holds an experiment's cube: this one, or that of `cube: URL`."""
        if experiment.cube is None:
            return self
        return Workspace(files.absolute(experiment.cube).rstrip("/").removesuffix("/cube.zarr"))

    def place(self, experiment: Experiment) -> Experiment:
        """The experiment with the place of its planet, where it has one: beside its cube."""
        if experiment.cube is not None:
            update = {"cube": self.prepared(experiment).url("cube.zarr")}
            experiment = experiment.model_copy(update=update)
        if experiment.planet is None:
            return experiment
        url = experiment.planet.url or self.prepared(experiment).url("planet")
        planet = experiment.planet.model_copy(update={"url": files.absolute(url)})
        return experiment.model_copy(update={"planet": planet})

    def described(self) -> Experiment:
        """The experiment that was run here.

        Raises:
          StoreError: none was.
        """
        from pipeline.experiment.config import Experiment

        url = self.url("experiment.yaml")
        if not files.exists(url):
            remedy = "run it, or see what there is with: soilweave ls"
            raise StoreError(url, "not found, so nothing was run here", remedy=remedy)
        try:
            return Experiment.model_validate(yaml.safe_load(files.read_bytes(url)))
        except ValueError as error:
            raise StoreError(url, f"is no experiment: {' '.join(str(error).split())}") from error

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
    lease: Lease | None = None

    def manifest(self) -> Json | None:
        """The manifest, None while the artefact is not complete.

        Raises:
          DamagedError: if it is there and is not whole.
        """
        return self._record("manifest.json", MANIFEST_KEYS)

    def begun(self) -> Json | None:
        """The record of a begun artefact, None where there is none.

        Raises:
          DamagedError: if it is there and is not whole.
        """
        return self._record("begun.json", IDENTITY_KEYS)

    def _record(self, name: str, keys: tuple[str, ...]) -> Json | None:
        url = f"{self.prefix}{name}"
        found = files.read_json(url)
        lacking = [key for key in keys if found is not None and key not in found]
        if lacking:
            problem = f"is damaged: it lacks {', '.join(lacking)}"
            raise DamagedError(url, problem, remedy=files.DAMAGED)
        return found

    def state(self) -> str:
        """One line: absent, begun, damaged, or complete with its size, age and last day."""
        try:
            manifest = self.manifest()
        except DamagedError as error:
            return f"damaged: {error}"
        if manifest is None:
            begun = files.exists(f"{self.prefix}begun.json")
            return "begun, not complete" if begun else "absent"
        size = sum(shard["size"] for shard in manifest["shards"])
        n = len(manifest["shards"])
        day = manifest.get("complete_through")
        reach = f", reaches {day}" if day else ""
        return f"complete, {n} objects, {size / 1e6:.1f} MB, made {manifest['created']}{reach}"

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
        if experiment is not None and (changed := self.differing(manifest, experiment)):
            remedy = f"give --name NEW, or make it anew with: soilweave {verb} --overwrite"
            problem = f"was made with other settings: {changed}"
            raise StoreError(place, problem, remedy=remedy)
        return str(manifest["inputs_sha256"])

    def differing(self, manifest: Json, experiment: Experiment, but: str = "") -> str:
        """Settings it was made with that an experiment has otherwise, but one; "" for none."""
        sections = ("schema", *schema.SECTIONS[self.name])
        inputs = manifest["inputs"].items()
        found = {k: v for k, v in inputs if renamed.new_name(k).split(".")[0] in sections}
        wanted = schema.as_recorded(schema.identity(experiment, self.name), found)
        return _changed(found | {but: None}, wanted | {but: None})

    def complete(self, inputs: Json, overwrite: bool = False) -> bool:
        """Whether the artefact is there, made from these inputs, or updated from them.

        Raises:
          StoreError: if it was made from other inputs, its records cannot be read, or its folder
            holds objects without a record, and `overwrite` does not allow to replace it.
        """
        try:
            found = self.manifest() or self.begun()
            if found is None:
                self._check_vacant(overwrite)
                return False
        except DamagedError:
            if overwrite:
                return False
            raise
        updates = [update.get("inputs_sha256") for update in found.get("updated", ())]
        wanted = schema.as_recorded(inputs, found["inputs"])
        if files.sha256_of(wanted) in (found["inputs_sha256"], *updates):
            return "shards" in found
        if overwrite:
            return False
        changed = _changed(found["inputs"], wanted)
        remedy = "keep it and give --name NEW, or replace it with --overwrite"
        place = self.prefix.rstrip("./")
        raise StoreError(place, f"was made with other settings: {changed}", remedy=remedy)

    def recorded(self, inputs: Json) -> Json:
        """What the artefact is made from, in the form of its record here, if it has one."""
        found = self.manifest() or self.begun()
        return inputs if found is None else schema.as_recorded(inputs, found["inputs"])

    def claim(self, inputs: Json, overwrite: bool, progress: Progress) -> bool:
        """Whether there is work to do; then this driver alone has the right to do it.

        A complete artefact is recognised before the lease is taken, and nothing is touched.

        Raises:
          StoreError: it was made from other inputs, or another driver is at work here.
        """
        if self.complete(inputs, overwrite):
            return False
        if self.lease is not None:
            self.lease.take(progress.note)
        return not self.complete(inputs, overwrite)  # the driver before may have made it

    def begin(self, inputs: Json) -> bool:
        """Mark the artefact as begun; True where the same one was begun before and goes on.

        What was made from other inputs is removed first. What was begun in an earlier version of
        the schema is completed in that version.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        if begun := files.read_receipt(f"{self.prefix}begun.json", *IDENTITY_KEYS):
            wanted = schema.as_recorded(inputs, begun["inputs"])
            if begun["inputs_sha256"] == files.sha256_of(wanted):
                return True
        self.remove()
        record = {"inputs_sha256": files.sha256_of(inputs), "inputs": inputs, "begun": now}
        files.write_json(f"{self.prefix}begun.json", record)
        return False

    def commit(self, inputs: Json, shards: Iterable[Json], **extra: Any) -> None:
        """Write the manifest: from now on the artefact is complete.

        Raises:
          StoreError: another driver has taken over meanwhile; nothing is written then.
        """
        if self.lease is not None:
            self.lease.check()
        begun = files.read_receipt(f"{self.prefix}begun.json") or {}
        inputs = schema.as_recorded(inputs, begun.get("inputs", {}))
        manifest = {
            "inputs_sha256": files.sha256_of(inputs),
            "inputs": inputs,
            "git_commit": git_commit(),
            "begun": begun.get("begun"),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            **extra,
            **_listed(shards),
        }
        files.write_json(f"{self.prefix}manifest.json", manifest)
        files.remove(f"{self.prefix}begun.json")

    def amend(self, shards: Iterable[Json], **changed: Any) -> None:
        """Write the manifest of a complete artefact anew; what it is made from stays.

        Args:
          shards: that were added or replaced.
          changed: other keys, as they are now.

        Raises:
          StoreError: another driver has taken over meanwhile; nothing is written then.
        """
        if self.lease is not None:
            self.lease.check()
        found = self.manifest() or {}
        empty = [{"key": key, "size": 0} for key in found["empty"]]
        records = {record["key"]: record for record in (*found["shards"], *empty, *shards)}
        files.write_json(f"{self.prefix}manifest.json", found | changed | _listed(records.values()))

    def remove(self) -> None:
        """Remove the artefact, or of a plain file its manifest.

        The manifest and the receipts go first and `begun.json` goes last, so that a removal that
        was interrupted is never taken for a complete artefact or for finished work.
        """
        files.remove(f"{self.prefix}manifest.json")
        if not self.prefix.endswith("/"):
            return
        folder = self.prefix.rstrip("/")
        names = sorted(files.listing(folder), key=lambda n: (n == "begun.json", n != "receipts"))
        for name in names:
            files.remove(files.join(folder, name))
        files.remove(folder)

    def _check_vacant(self, overwrite: bool) -> None:
        """Refuse a folder whose objects nothing records, as they would be deleted.

        Raises:
          StoreError: if there are any, and `overwrite` does not allow to replace them.
        """
        if overwrite or not self.prefix.endswith("/"):
            return
        folder = self.prefix.rstrip("/")
        if held := files.listing(folder):
            some = ", ".join(held[:5]) + (", ..." if len(held) > 5 else "")
            problem = f"holds {some}, but neither manifest.json nor begun.json"
            remedy = "restore its manifest, give --name NEW, or replace it with --overwrite"
            raise StoreError(folder, problem, remedy=remedy)


def _listed(shards: Iterable[Json]) -> Json:
    """Shards as a manifest has them: those that are stored, and those that are all fill."""
    records = sorted(shards, key=lambda record: str(record["key"]))
    return {
        "shards": [record for record in records if record["size"]],
        "empty": [record["key"] for record in records if not record["size"]],
    }


def record(url: str, key: str) -> Json:
    """{"key", "size", "sha256"} of an object under a URL; size 0 where there is none."""
    try:
        data = files.read_bytes(files.join(url, key))
    except FileNotFoundError:
        return {"key": key, "size": 0, "sha256": ""}
    return {"key": key, "size": len(data), "sha256": files.sha256(data)}


def git_commit() -> str | None:
    """Commit of the code; None where neither its build, a job nor its own checkout tells it."""
    return provenance.of_code()


def _changed(found: Json, wanted: Json) -> str:
    keys = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
    return ", ".join(
        f"{renamed.new_name(key)} {_short(found.get(key))} -> {_short(wanted.get(key))}"
        for key in keys
    )


def _short(value: Any) -> Any:
    """A digest by its beginning, anything else whole."""
    is_digest = isinstance(value, str) and len(value) == 64
    return value[:12] if is_digest else value
