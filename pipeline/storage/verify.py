"""Check every object of an experiment against what its artefacts record.

What is checked: the objects that a manifest records (shards, checkpoints, tables, the files of a
planet, and the metadata and coordinates of Zarr stores), the manifests and `begun.json` themselves,
their backups, `experiment.yaml`, and that no artefact was made from others than those that are
there. Files in `export/` are checked in the same way, although nothing is made from them, so that
they are no artefact. Manifests of earlier versions do not record everything; what cannot be checked
is counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import ConfigError, DamagedError, StoreError
from pipeline.experiment import shipped_models
from pipeline.storage import artefacts, backup, exports, records
from pipeline.storage.cube import Cube

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Artefact, Workspace


MISSING, DAMAGED, EXCHANGED, STALE, UNLISTED = KINDS = (
    "missing",
    "damaged",
    "exchanged",
    "stale",
    "not listed",
)

# Objects that are no part of an artefact, and folders that no artefact has.
OTHER_OBJECTS = ("experiment.yaml", "mlflow.json", "lease.json", *exports.OWN_KEYS)
OTHER_FOLDERS = ("update/", f"{backup.FOLDER}/")

EXPORT = exports.FOLDER  # stands for the name of an artefact
EXPORT_HINT = "the same soilweave export writes it anew"
BATCH = 1024  # objects that are read before their problems are reported


@dataclass(frozen=True)
class Problem:
    """One object that is not as it should be.

    Attributes:
      artefact: Name of its artefact; EXPORT for what `export` has made; "" for `experiment.yaml`
        and objects of no artefact.
      key: Its key in the folder of the experiment.
      kind: One of KINDS.
      detail: What was found.
    """

    artefact: str
    key: str
    kind: str
    detail: str = ""

    def __str__(self) -> str:
        """Return one line."""
        return f"{self.key}: {self.kind}" + (f", {self.detail}" if self.detail else "")


@dataclass
class Result:
    """What a verification has found.

    Attributes:
      root: URL of the experiment's folder.
      problems: All problems, in the order of the artefacts and keys.
      artefacts: Names of the complete artefacts that were checked.
      incomplete: Names of the artefacts that were begun and are not complete.
      n_objects: Number of objects that were read and compared.
      n_bytes: Their size.
      unchecked: Keys of objects that no manifest of that version records.
    """

    root: str
    problems: list[Problem] = field(default_factory=list)
    artefacts: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    n_objects: int = 0
    n_bytes: int = 0
    unchecked: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Return the number of problems of each kind that occurs."""
        n = Counter(problem.kind for problem in self.problems)
        return {kind: n[kind] for kind in KINDS if n[kind]}

    def as_dict(self) -> Json:
        """Return the result as JSON values."""
        return {
            "root": self.root,
            "artefacts": self.artefacts,
            "incomplete": self.incomplete,
            "n_objects": self.n_objects,
            "n_bytes": self.n_bytes,
            "n_unchecked": len(self.unchecked),
            "problems": [vars(problem) for problem in self.problems],
        }


def verify_workspace(workspace: Workspace, progress: Progress, read: bool = True) -> Result:
    """Read every object of an experiment and compare it with the records.

    Args:
      workspace: The experiment's folder in the workspace.
      progress: Receives the number of objects read.
      read: Whether to read the objects that manifests record; if not, only the manifests are
        checked, and what is stale is found.

    Raises:
      StoreError: If there is no experiment in the folder, or the store does not respond.
    """
    verification = _Verification(workspace, progress)
    if not verification.listed:
        hint = "give an experiment that was run, or the URL of its folder"
        raise StoreError(workspace.root, "there is nothing here to verify", remedy=hint)
    return verification.run(read)


class _Verification:
    """One verification: the listing of the folder, and the records of its artefacts."""

    def __init__(self, workspace: Workspace, progress: Progress) -> None:
        """List the folder."""
        self.workspace, self.progress = workspace, progress
        self.result = Result(workspace.root)
        self.listed = files.list_objects(workspace.root)
        self.manifests: dict[str, Json] = {}
        self.begun: dict[str, Json] = {}

    def run(self, read: bool) -> Result:
        """Check everything, or only the records."""
        for name in artefacts.ARTEFACTS:
            self._read_records(self.workspace.artefact(name))
        self._check_experiment()
        objects = {
            key: (name, record)
            for name, manifest in self.manifests.items()
            for key, record in records.recorded_objects(name, manifest).items()
        }
        recorded = exports.OWN_KEYS[0] in self.listed
        exported = exports.list_exports(self.workspace) if recorded else []
        objects |= {each.key: (EXPORT, each.record) for each in exported}
        if read:
            self.progress.start("verify", len(objects), "objects")
            self._check_objects(objects)
        for name in self.manifests:
            self._check_backup(name)
            self._check_origin(name, self.manifests[name])
        for name, record in self.begun.items():
            self._check_origin(name, record)
        damaged = {p.artefact for p in self.result.problems if p.kind in (MISSING, DAMAGED)}
        if "maps" in self.manifests and "maps" not in damaged:
            for each in (each for each in exported if not each.is_current):
                detail = f"made from other maps than those here; {EXPORT_HINT}"
                self._report(Problem(EXPORT, each.key, STALE, detail))
        self._check_unlisted(objects)
        return self.result

    def _report(self, problem: Problem) -> None:
        self.result.problems.append(problem)

    def _read_records(self, artefact: Artefact) -> None:
        """Read the manifest, or else begun.json, of an artefact."""
        name, keys = artefact.name, self._record_keys(artefact)
        for key, read, found in zip(
            keys, (artefact.manifest, artefact.begun), (self.manifests, self.begun), strict=True
        ):
            if key not in self.listed:
                continue
            record = self._read_record(name, key, read)
            if record is not None:
                found[name] = record
                (self.result.artefacts if found is self.manifests else self.result.incomplete
                 ).append(name)  # fmt: skip
            return
        objects = [key for key in self.listed if records.artefact_of(key) == name]
        if objects or backup.backup_key(name) in self.listed:
            n = f"{len(objects)} objects of {name}, or their backup, are here"
            self._report(Problem(name, keys[0], MISSING, n))

    def _record_keys(self, artefact: Artefact) -> tuple[str, str]:
        """Return the keys of an artefact's manifest and of its begun.json."""
        prefix = artefact.prefix.removeprefix(artefact.home).lstrip("/")
        return f"{prefix}manifest.json", f"{prefix}begun.json"

    def _read_record(self, name: str, key: str, read: object) -> Json | None:
        """Return a record; None, with a problem, if it is damaged or that of another artefact."""
        try:
            record: Json | None = read()  # type: ignore[operator]
        except DamagedError as error:
            self._report(Problem(name, key, DAMAGED, "; ".join(error.problems)))
            return None
        if record is None:
            return None
        if records.seal_is_broken(record):
            self._report(Problem(name, key, DAMAGED, "its content differs from its own digest"))
            return None
        if record.get("artefact", name) != name:
            self._report(Problem(name, key, EXCHANGED, f"it is that of {record['artefact']}"))
            return None
        if not records.is_sealed(record):
            self.result.unchecked.append(key)
        return record

    def _check_experiment(self) -> None:
        """Check experiment.yaml against its own digest."""
        key = backup.EXPERIMENT
        made = {**self.begun, **self.manifests}
        if key not in self.listed:
            if made:
                self._report(Problem("", key, MISSING))
            return
        broken = records.text_seal_is_broken(files.read_bytes(self.workspace.url(key)))
        if broken is None and any(map(records.is_sealed, made.values())):
            broken = True
        if broken is None:
            self.result.unchecked.append(key)
        elif broken:
            self._report(Problem("", key, DAMAGED, "its content differs from its own digest"))

    def _check_objects(self, objects: dict[str, tuple[str, Json]]) -> None:
        """Read all recorded objects and compare size and digest."""
        owners: dict[str, str] = {}
        for key, (_, record) in objects.items():
            owners.setdefault(record["sha256"], key)
        pending = self._pending_records()
        all_keys = list(objects)
        for start in range(0, len(all_keys), BATCH):
            keys = all_keys[start : start + BATCH]
            present = [key for key in keys if key in self.listed]
            read = records.read_records(self.workspace.root, present, self.listed)
            found = {record["key"]: record for record in read}
            for key in keys:
                name, record = objects[key]
                problem = _compare(name, record | {"key": key}, found.get(key), owners)
                if problem and found.get(key, {"sha256": ""})["sha256"] not in pending.get(key, ()):
                    self._report(problem)
            self.result.n_objects += len(present)
            self.result.n_bytes += sum(record["size"] for record in found.values())
            self.progress.advance(len(keys))

    def _pending_records(self) -> dict[str, set[str]]:
        """Return the digests of objects that an unfinished update may have put in place already."""
        found: dict[str, set[str]] = {}
        for name, folder in (("cube", "cube.zarr/"), ("maps", "")):
            change = files.read_receipt(self.workspace.url("update", name, "ready.json"), "shards")
            for record in change["shards"] if change else ():
                found.setdefault(f"{folder}{record['key']}", set()).add(record["sha256"])
        return found

    def _check_backup(self, name: str) -> None:
        """Check the backup of an artefact's manifest."""
        manifest, key = self.manifests[name], backup.backup_key(name)
        if not records.is_sealed(manifest):
            return
        if key not in self.listed:
            self._report(Problem(name, key, MISSING))
            return
        stored = backup.read_backup(self.workspace.root, name)
        if stored is None:
            self._report(Problem(name, key, DAMAGED, "its content differs from its own digest"))
        elif stored[0] != manifest:
            self._report(Problem(name, key, STALE, f"it is that of another {name}"))

    @cached_property
    def _experiment(self) -> Experiment | None:
        try:
            return self.workspace.place(self.workspace.described())
        except StoreError:
            return None  # `_check_experiment` says what is wrong with it

    def _check_origin(self, name: str, record: Json) -> None:
        """Check that an artefact was made from the artefacts and settings that are there."""
        artefact = self.workspace.artefact(name)
        key = self._record_keys(artefact)[name in self.begun]
        for source, digest in record["inputs"].items():
            if source not in artefacts.ARTEFACTS or digest == "none":
                continue
            present = self._present_digest(source)
            if present is not None and present != digest:
                detail = f"made from another {source} than the one here"
                self._report(Problem(name, key, STALE, detail))
        if self._experiment is not None:
            changes = artefact.changed_settings(record, self._experiment)
            if changes:
                detail = f"made with other settings than experiment.yaml has: {changes}"
                self._report(Problem(name, key, STALE, detail))

    def _present_digest(self, name: str) -> str | None:
        """Return the digest of an artefact; None if it is not complete."""
        if name in self.manifests:
            return artefacts.digest_of(self.manifests[name])
        experiment = self._experiment
        borrowed = {"cube": "cube", "models": "models"}.get(name)
        if experiment is None or borrowed is None or getattr(experiment, borrowed) is None:
            return None
        try:
            if name == "cube":
                cube = Cube.manifest(experiment, self.workspace)
                return Cube.digest(cube, experiment) if cube else None
            url = shipped_models.models_url(str(experiment.models))
            manifest = artefacts.Artefact("models", f"{url}/").manifest()
        except (ConfigError, StoreError):
            return None
        return None if manifest is None else artefacts.digest_of(manifest)

    def _check_unlisted(self, objects: dict[str, tuple[str, Json]]) -> None:
        """Find objects in the folders that no manifest records."""
        known = {*objects, *OTHER_OBJECTS}
        for name in artefacts.ARTEFACTS:
            known.update(self._record_keys(self.workspace.artefact(name)))
        unknown = [k for k in self.listed if k not in known and not k.startswith(OTHER_FOLDERS)]
        fill = {k for n, m in self.manifests.items() for k in records.recorded_fill(n, m)}
        accepted = {*self._not_recorded(unknown)}
        self.result.unchecked += sorted(accepted)
        settled = {problem.artefact for problem in self.result.problems
                   if problem.key.endswith(("manifest.json", "begun.json"))
                   and problem.kind != STALE}  # fmt: skip
        for key in sorted({*unknown} - accepted):
            name = records.artefact_of(key)
            if (name in self.begun and name not in self.manifests) or name in settled:
                continue  # an unfinished artefact, or one whose manifest cannot be read
            detail = "the manifest says that all of its values are fill" if key in fill else ""
            self._report(Problem(name, key, UNLISTED, detail))

    def _not_recorded(self, keys: list[str]) -> Iterator[str]:
        """Yield the objects that earlier versions wrote but did not record."""
        old = {name for name, m in self.manifests.items() if not records.is_sealed(m)}
        by_artefact: dict[str, list[str]] = {}
        for key in keys:
            by_artefact.setdefault(records.artefact_of(key), []).append(key)
        for name in old & by_artefact.keys():
            if name in ("cube", "maps"):
                yield from records.metadata_keys(self.workspace.root, by_artefact[name])
            yield from (key for key in by_artefact[name] if key.startswith("models/ridge/"))


def _compare(name: str, record: Json, found: Json | None, owners: dict[str, str]) -> Problem | None:
    """Return what is wrong with an object, or None.

    Args:
      name: Name of its artefact.
      record: Its record in the manifest.
      found: The record of what is there; None if nothing is.
      owners: The key of an object by its digest, for all recorded objects.
    """
    hint = EXPORT_HINT if name == EXPORT else ""
    if found is None or not found["sha256"]:
        return Problem(name, record["key"], MISSING, hint)
    if found["sha256"] == record["sha256"]:
        return None
    owner = owners.get(found["sha256"])
    if owner is not None:
        return Problem(name, record["key"], EXCHANGED, f"it has the content of {owner}")
    if found["size"] != record["size"]:
        detail = f"{found['size']} bytes, recorded are {record['size']}"
    else:
        detail = "its SHA-256 differs from the recorded one"
    return Problem(name, record["key"], DAMAGED, f"{detail}; remove it: {hint}" if hint else detail)


def summary_line(result: Result) -> str:
    """Return one line with the counts."""
    counts = ", ".join(f"{n} {kind}" for kind, n in result.counts().items()) or "no problem"
    parts = [f"{result.n_objects} objects of {len(result.artefacts)} artefacts"]
    parts.append(f"{result.n_bytes / 1e6:.1f} MB: {counts}")
    line = ", ".join(parts)
    if result.unchecked:
        n = len(result.unchecked)
        line += f"; {n} could not be checked, an earlier version did not record them"
    if result.incomplete:
        line += f"; begun, not complete: {', '.join(result.incomplete)}"
    return line
