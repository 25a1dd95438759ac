"""Workspaces and artefacts: where they are stored, what they were made from, if they are complete.

An artefact is complete when its `manifest.json` exists. The manifest records the settings and
digests that the artefact was made from (its identity), and the size and digest of every object.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import yaml

from pipeline import files, safe_yaml
from pipeline.errors import ConfigError, DamagedError, StoreError
from pipeline.experiment import renamed
from pipeline.storage import backup, earlier_versions, provenance, records, schema
from pipeline.storage import lease as storage_lease

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.storage.lease import Lease


ARTEFACTS = ("planet", "cube", "folds", "models", "maps", "scores", "report")

# The other artefacts are single files, such as folds.parquet with folds.manifest.json.
FOLDERS = records.OWN_FOLDERS | {"maps": "maps/"}
IDENTITY_KEYS = ("inputs_sha256", "inputs")  # keys of begun.json
MANIFEST_KEYS = (*IDENTITY_KEYS, "shards", "empty")

# The command that makes each artefact.
COMMANDS = {"cube": "prepare", "folds": "prepare", "models": "train", "maps": "predict"}


@dataclass(frozen=True)
class Workspace:
    """The folder of one experiment, `{workspace}/{experiment}/`.

    Attributes:
      root: Path or URL of the folder.
    """

    root: str

    def url(self, *parts: str) -> str:
        """Return the URL of a file or folder in the workspace."""
        return files.join(self.root, *parts)

    def artefact(self, name: str) -> Artefact:
        """Return the artefact with a name from ARTEFACTS."""
        return Artefact(name, self.url(FOLDERS.get(name, f"{name}.")), self.lease)

    @property
    def lease(self) -> Lease:
        """The lease of the workspace: only the process that holds it may write here."""
        return storage_lease.get_lease(self.url("lease.json"))

    def prepared(self, experiment: Experiment) -> Workspace:
        """Return the workspace with the experiment's cube: this one, or that of `cube: URL`."""
        if experiment.cube is None:
            return self
        return Workspace(
            files.make_absolute(experiment.cube).rstrip("/").removesuffix("/cube.zarr")
        )

    def place(self, experiment: Experiment) -> Experiment:
        """Return the experiment with absolute URLs of its cube and its planet, if it has them.

        A planet without a URL belongs in the workspace of the cube.
        """
        if experiment.cube is not None:
            update = {"cube": self.prepared(experiment).url("cube.zarr")}
            experiment = experiment.model_copy(update=update)
        if experiment.planet is None:
            return experiment
        url = experiment.planet.url or self.prepared(experiment).url("planet")
        planet = experiment.planet.model_copy(update={"url": files.make_absolute(url)})
        return experiment.model_copy(update={"planet": planet})

    def described(self) -> Experiment:
        """Read `experiment.yaml`, the experiment that was run here.

        Raises:
          StoreError: If the file does not exist or does not describe an experiment.
        """
        from pipeline.experiment.config import Experiment

        url = self.url("experiment.yaml")
        if not files.exists(url):
            hint = "run an experiment first, or list the existing ones with: soilweave ls"
            raise StoreError(url, "not found, so nothing was run here", remedy=hint)
        try:
            text = files.read_limited(url, safe_yaml.MAX_BYTES)
            return Experiment.model_validate(safe_yaml.load(text, url))
        except (ValueError, ConfigError) as error:
            problem = f"is not a valid experiment: {' '.join(str(error).split())}"
            hint = "restore it with: soilweave verify --repair"
            raise StoreError(url, problem, remedy=hint) from error

    def describe(self, experiment: Experiment) -> None:
        """Write `experiment.yaml`, without secrets, unless the file is already up to date."""
        from pipeline.experiment.config import shown_settings

        text = yaml.safe_dump(shown_settings(experiment), sort_keys=False).encode()
        text = records.seal_text(text)
        url = self.url("experiment.yaml")
        if not files.exists(url) or files.read_bytes(url) != text:
            files.write_bytes(url, text)


@dataclass(frozen=True)
class Artefact:
    """One artefact of a workspace.

    `begun.json` is written before the first object of the artefact and `manifest.json` after the
    last one, so an artefact without a manifest is incomplete.

    Attributes:
      name: One of ARTEFACTS.
      prefix: URL that its objects start with: its folder with a final slash, or, for a single
        file, the URL up to and including the dot before the extension.
      lease: The lease of the workspace; None if no lease is needed, as for reading.
    """

    name: str
    prefix: str
    lease: Lease | None = None

    @property
    def home(self) -> str:
        """URL of the folder of the experiment."""
        return self.prefix.rstrip("/.").rpartition("/")[0]

    def manifest(self) -> Json | None:
        """Read the manifest; return None if the artefact is not complete.

        Raises:
          DamagedError: If the manifest exists but cannot be decoded or lacks keys.
        """
        return self._read_record("manifest.json", MANIFEST_KEYS)

    def begun(self) -> Json | None:
        """Read `begun.json`; return None if it does not exist.

        Raises:
          DamagedError: If the file exists but cannot be decoded or lacks keys.
        """
        return self._read_record("begun.json", IDENTITY_KEYS)

    def _read_record(self, name: str, keys: tuple[str, ...]) -> Json | None:
        url = f"{self.prefix}{name}"
        record = files.read_json(url)
        missing_keys = [key for key in keys if record is not None and key not in record]
        if missing_keys:
            problem = f"is damaged: it has no {', '.join(missing_keys)}"
            raise DamagedError(url, problem, remedy=files.DAMAGED_HINT)
        return record

    def state(self) -> str:
        """Return one line: absent, begun, damaged, or complete with size, age and last day."""
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
        last_day = f", up to {day}" if day else ""
        created = manifest["created"]
        return f"complete, {n} objects, {size / 1e6:.1f} MB, created {created}{last_day}"

    def check_objects(self, manifest: Json) -> None:
        """Check the sizes of all objects and the SHA-256 of the small ones against the manifest.

        Raises:
          DamagedError: If an object is missing or differs.
        """
        if records.was_checked(self.prefix, manifest):
            return
        # Models without a lease are those of `models: URL`, which may be a copy of the folder.
        tables = self.lease is not None
        folder = None if tables else f"{self.prefix.rstrip('/').rpartition('/')[2]}/"
        differences = records.find_differences(self.home, self.name, manifest, tables, folder)
        if differences and self._is_changing(manifest):
            return
        if differences:
            some = "; ".join(differences[:3])
            more = f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
            where, are = self.prefix.rstrip("./"), "is" if len(differences) == 1 else "are"
            which = f"{len(differences)} of its objects {are}"
            problem = f"{which} not as the manifest records: {some}{more}"
            hint = f"soilweave verify {self.home} names all, and with --repair makes them again"
            raise DamagedError(where, problem, remedy=hint)
        records.remember_check(self.prefix, manifest)

    def _is_changing(self, manifest: Json) -> bool:
        """Return whether an update of the artefact is being put in place, or was a moment ago."""
        change = files.join(self.home, "update", self.name, "ready.json")
        return files.exists(change) or self.manifest() != manifest

    def digest(self, experiment: Experiment | None = None, check: bool = True) -> str:
        """Return the digest of the complete artefact.

        Args:
          experiment: The experiment whose settings it must have been made with; None accepts any.
          check: Whether to check its objects, because they will be used.

        Raises:
          StoreError: If the artefact is not complete or was made with other settings.
          DamagedError: If an object is missing or differs from its record.
        """
        manifest = self.manifest()
        verb, where = COMMANDS.get(self.name, "run"), self.prefix.rstrip("./")
        if manifest is None:
            hint = f"make it with: soilweave {verb} {self.home.rpartition('/')[2]}"
            raise StoreError(where, f"no complete {self.name} here", remedy=hint)
        if experiment is not None and (changes := self.changed_settings(manifest, experiment)):
            hint = f"give --name NEW, or make it again with: soilweave {verb} --overwrite"
            problem = f"was made with other settings: {changes}"
            raise StoreError(where, problem, remedy=hint)
        if check:
            self.check_objects(manifest)
        return digest_of(manifest)

    def changed_settings(
        self, manifest: Json, experiment: Experiment, ignore: Collection[str] = ()
    ) -> str:
        """Describe the settings of an experiment that differ from those of the artefact.

        Args:
          manifest: The manifest of the artefact.
          experiment: The experiment to compare with.
          ignore: Settings that may differ.

        Returns:
          `setting old -> new`, separated by commas; "" if no setting differs.
        """
        sections = ("schema", *schema.SECTIONS[self.name])
        inputs = manifest["inputs"].items()
        recorded = {k: v for k, v in inputs if renamed.new_name(k).split(".")[0] in sections}
        current = schema.as_recorded(schema.identity(experiment, self.name), recorded)
        return _describe_changes(recorded, current, ignore)

    def complete(self, inputs: Json, overwrite: bool = False) -> bool:
        """Return whether the artefact is complete and was made from, or updated to, these inputs.

        Raises:
          StoreError: If `overwrite` is False and the artefact was made from other inputs, its
            records cannot be read, its folder contains objects but no record, or an object is
            missing or differs from its record.
        """
        try:
            record = self.manifest() or self.begun()
            if record is None:
                self._check_vacant(overwrite)
                return False
        except DamagedError:
            if overwrite:
                return False
            raise
        if self.made_from(record, inputs):
            return "shards" in record and self._is_sound(record, overwrite)
        if overwrite:
            return False
        changes = _describe_changes(record["inputs"], schema.as_recorded(inputs, record["inputs"]))
        hint = "keep it and give --name NEW, or replace it with --overwrite"
        where = self.prefix.rstrip("./")
        raise StoreError(where, f"was made with other settings: {changes}", remedy=hint)

    @staticmethod
    def made_from(record: Json, inputs: Json) -> bool:
        """Return whether a manifest or begun.json is of, or was updated to, these inputs."""
        updates = [update.get("inputs_sha256") for update in record.get("updated", ())]
        current = schema.as_recorded(inputs, record["inputs"])
        return files.sha256_of_json(current) in (record["inputs_sha256"], *updates)

    def _is_sound(self, manifest: Json, overwrite: bool) -> bool:
        """Return whether the objects are as recorded; if not, raise unless they are replaced."""
        try:
            self.check_objects(manifest)
        except DamagedError:
            if overwrite:
                return False
            raise
        return True

    def recorded(self, inputs: Json) -> Json:
        """Return inputs in the form of the artefact's record; unchanged if it has no record."""
        record = self.manifest() or self.begun()
        return inputs if record is None else schema.as_recorded(inputs, record["inputs"])

    def claim(self, inputs: Json, overwrite: bool, progress: Progress) -> bool:
        """Take the lease if the artefact must be made.

        The lease is not taken, and nothing is written, if the artefact is already complete.

        Returns:
          Whether there is work to do. If so, this process holds the lease.

        Raises:
          StoreError: If the artefact was made from other inputs, or another process is writing
            into the workspace.
        """
        if self.complete(inputs, overwrite):
            return False
        if self.lease is not None:
            self.lease.take(progress.note)
        # The process that held the lease before may have completed the artefact.
        return not self.complete(inputs, overwrite)

    def begin(self, inputs: Json) -> bool:
        """Mark the artefact as begun.

        An artefact of other inputs is removed first, and so are blocks of an earlier schema version
        that are counted differently. Others of an earlier version are completed in that version.

        Returns:
          Whether it was already begun from the same inputs, so that finished parts can be kept.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        begun = files.read_receipt(f"{self.prefix}begun.json", *IDENTITY_KEYS)
        # Beside a manifest it was left by a run that was killed; the artefact is made anew.
        if begun and not files.exists(f"{self.prefix}manifest.json"):
            current = schema.as_recorded(inputs, begun["inputs"])
            same = begun["inputs_sha256"] == files.sha256_of_json(current)
            if same and not earlier_versions.has_other_blocks(self.name, begun):
                return True
        self.remove()
        record = {"inputs_sha256": files.sha256_of_json(inputs), "inputs": inputs, "begun": now}
        files.write_json(f"{self.prefix}begun.json", records.seal(record, self.name))
        return False

    def commit(self, inputs: Json, shards: Iterable[Json], **extra: Any) -> None:
        """Write the manifest, which makes the artefact complete.

        Args:
          inputs: What the artefact was made from, as returned by `schema.identity`.
          shards: Records of all its objects, as returned by `record`.
          extra: Further keys of the manifest.

        Raises:
          StoreError: If another process has taken the lease. Nothing is written in that case.
        """
        if self.lease is not None:
            self.lease.check()
        begun = files.read_receipt(f"{self.prefix}begun.json") or {}
        inputs = schema.as_recorded(inputs, begun.get("inputs", {}))
        manifest = {
            "inputs_sha256": files.sha256_of_json(inputs),
            "inputs": inputs,
            "git_commit": provenance.code_commit(),
            "begun": begun.get("begun"),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            **extra,
            **_shard_lists(shards),
        }
        self._write_manifest(manifest | _repaired_identity(manifest, begun))
        files.remove(f"{self.prefix}begun.json")

    def amend(self, shards: Iterable[Json], **changed: Any) -> None:
        """Update the manifest of a complete artefact; its identity does not change.

        Args:
          shards: Records of the objects that were added or replaced.
          changed: New values of other keys of the manifest.

        Raises:
          StoreError: If another process has taken the lease. Nothing is written in that case.
        """
        if self.lease is not None:
            self.lease.check()
        manifest = self.manifest() or {}
        empty = [{"key": key, "size": 0} for key in manifest["empty"]]
        present = {record["key"]: record for record in (*manifest["shards"], *empty, *shards)}
        self._write_manifest(manifest | changed | _shard_lists(present.values()))

    def _write_manifest(self, manifest: Json) -> None:
        """Write the manifest, with records of the metadata that it describes, and its backup."""
        if metadata := records.metadata_records(self.home, self.name):
            manifest["metadata"] = metadata
        manifest = records.seal(manifest, self.name)
        files.write_json(f"{self.prefix}manifest.json", manifest)
        backup.write_backup(self.home, self.name, manifest)

    def remove(self) -> None:
        """Remove the folder of the artefact; of a single file, remove only the manifest.

        The manifest and the receipts are removed first and `begun.json` last, so that an
        interrupted removal is never mistaken for a complete artefact or for finished work.
        """
        files.remove(f"{self.prefix}manifest.json")
        backup.remove_backup(self.home, self.name)
        if not self.prefix.endswith("/"):
            return
        folder = self.prefix.rstrip("/")
        names = sorted(
            files.list_folder(folder), key=lambda n: (n == "begun.json", n != "receipts")
        )
        for name in names:
            files.remove(files.join(folder, name))
        files.remove(folder)

    def reopen(self, damaged: Iterable[str]) -> None:
        """Make a complete artefact one that was begun, so that its stage makes what is removed.

        Args:
          damaged: Keys, in the folder of the experiment, of the objects to remove.
        """
        manifest = self.manifest() or {}
        begun = {key: manifest[key] for key in IDENTITY_KEYS}
        digests = {record["key"]: record["sha256"] for record in manifest["shards"]}
        begun |= {"begun": manifest.get("begun"), "repairs": digests}
        begun |= {"identity": manifest["identity"]} if "identity" in manifest else {}
        files.write_json(f"{self.prefix}begun.json", records.seal(begun, self.name))
        files.remove(f"{self.prefix}manifest.json")
        for key in damaged:
            files.remove(files.join(self.home, key))

    def _check_vacant(self, overwrite: bool) -> None:
        """Check that the folder is empty, because `begin` would delete what is in it.

        Raises:
          StoreError: If the folder contains anything and `overwrite` is False.
        """
        if overwrite or not self.prefix.endswith("/"):
            return
        folder = self.prefix.rstrip("/")
        if names := files.list_folder(folder):
            some = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            problem = f"contains {some}, but neither manifest.json nor begun.json"
            hint = "restore its manifest, give --name NEW, or replace it with --overwrite"
            raise StoreError(folder, problem, remedy=hint)


def _shard_lists(shards: Iterable[Json]) -> Json:
    """Return the manifest's lists of shards: stored ones, and keys of those that are all fill."""
    records = sorted(shards, key=lambda record: str(record["key"]))
    return {
        "shards": [record for record in records if record["size"]],
        "empty": [record["key"] for record in records if not record["size"]],
    }


def shard_record(url: str, key: str) -> Json:
    """Return the record of an object below a URL: `key`, `size` in bytes, and `sha256`.

    The size is 0 if the object does not exist: Zarr does not store shards that are all fill.
    """
    try:
        data = files.read_bytes(files.join(url, key))
    except FileNotFoundError:
        return {"key": key, "size": 0, "sha256": ""}
    return {"key": key, "size": len(data), "sha256": files.sha256(data)}


def digest_of(manifest: Json) -> str:
    """Return the digest that other artefacts know a complete artefact by."""
    return str(manifest.get("identity", manifest["inputs_sha256"]))


def _repaired_identity(manifest: Json, begun: Json) -> Json:
    """Return the identity of an artefact that was repaired; empty if its inputs still identify it.

    Models that were trained again can differ in rounding from those that were lost. Then what was
    made from the latter must be made again, although the inputs of the models are the same.
    """
    before, kept = begun.get("repairs"), {k: begun[k] for k in ("identity",) if k in begun}
    digests = {record["key"]: record["sha256"] for record in manifest["shards"]}
    if before is None or before == digests:
        return kept
    return {"identity": files.sha256_of_json([manifest["inputs_sha256"], digests])}


def _describe_changes(before: Json, after: Json, ignore: Collection[str] = ()) -> str:
    """Describe the keys whose values differ: `setting old -> new`, separated by commas."""
    compared = (before.keys() | after.keys()) - {*ignore}
    keys = sorted(key for key in compared if before.get(key) != after.get(key))
    return ", ".join(
        f"{renamed.new_name(key)} {_shorten_digest(before.get(key))} -> "
        f"{_shorten_digest(after.get(key))}"
        for key in keys
    )


def _shorten_digest(value: Any) -> Any:
    """Return the first 12 characters of a digest; return any other value unchanged."""
    return value[:12] if isinstance(value, str) and len(value) == 64 else value
