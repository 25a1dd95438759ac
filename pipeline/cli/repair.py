"""Make what `verify` found damaged again, for `verify --repair`.

Manifests, metadata of Zarr stores and `experiment.yaml` are written back from their backup, also
where others were put in their place. Shards of the cube and of the maps are computed again, a block
or a tile at a time. A model that is damaged is trained again, and tables, scores and the report are
written again, by their stages. Artefacts that are stale, or whose metadata is damaged as well as
its backup, are made anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline import files, local_files
from pipeline.cli.run_stages import stage_modules
from pipeline.cluster import ray_cluster
from pipeline.errors import ConfigError, DamagedError, StoreError
from pipeline.experiment import load
from pipeline.storage import artefacts, backup, records, verify
from pipeline.storage.verify import EXPORT, STALE, UNLISTED

if TYPE_CHECKING:
    from collections.abc import Collection

    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace
    from pipeline.storage.verify import Problem, Result


# The stage that makes each artefact, in order.
MAKERS = {
    "planet": "planet",
    "cube": "prepare",
    "folds": "folds",
    "models": "train",
    "maps": "predict",
    "scores": "evaluate",
    "report": "report",
}


def repair(workspace: Workspace, result: Result, progress: Progress) -> Result:
    """Repair the problems of a verification, finish interrupted repairs, and verify again.

    What was made from an artefact whose content has changed by its repair is made anew, too.

    Args:
      workspace: The experiment's folder in the workspace.
      result: What the verification has found.
      progress: Receives the progress of the stages.

    Returns:
      The result of another verification.

    Raises:
      SoilweaveError: If something cannot be made again; what is repaired by then is kept.
    """
    unfinished = unfinished_repairs(workspace, result)
    if all(problem.artefact == EXPORT for problem in result.problems) and not unfinished:
        return result  # `export` makes its files again, which nothing else is made from
    with workspace.lease.given_back(), ray_cluster.session(workspace.root):
        workspace.lease.take(progress.note)
        # With a manifest that is written back, the objects that it records can be checked.
        for _ in range(2):
            if _restore(workspace, result):
                result = verify.verify_workspace(workspace, progress)
        experiment = _experiment(workspace)
        for name in artefacts.ARTEFACTS:
            if name in unfinished:
                stage_modules()[MAKERS[name]].run(experiment, workspace, progress)
            damaged = [p for p in result.problems if p.artefact == name and p.kind != STALE]
            # An artefact before this one may have become another by its repair, or as before.
            records_now = verify.verify_workspace(workspace, progress, read=False).problems
            stale = [p for p in records_now if p.artefact == name and p.kind == STALE]
            _remake(experiment, workspace, progress, name, [*damaged, *stale])
        for name in artefacts.ARTEFACTS:
            _renew_backup(workspace, name)
        workspace.lease.check()
    return verify.verify_workspace(workspace, progress)


def unfinished_repairs(workspace: Workspace, result: Result) -> list[str]:
    """Return the names of the artefacts whose repair was interrupted, as after SIGKILL."""
    begun = {name: workspace.artefact(name).begun() or {} for name in result.incomplete}
    return [name for name, record in begun.items() if "repairs" in record]


def _experiment(workspace: Workspace) -> Experiment:
    """Return the experiment that was run in a workspace."""
    url = workspace.url(backup.EXPERIMENT)
    try:
        experiment = workspace.place(load.load_experiment(url, [], None))
    except ConfigError as error:
        hint = "no backup has it; remove report.html and report.manifest.json, then run `soilweave "
        hint += "evaluate` with the preset or file and the settings that were used before, which "
        hint += "writes all three again"
        raise StoreError(url, *error.problems, remedy=hint) from error
    own = workspace.url("planet")
    if experiment.planet is None or experiment.cube is not None or not files.list_folder(own):
        return experiment
    # The folder may have been moved or copied since it was run.
    planet = experiment.planet.model_copy(update={"url": files.make_absolute(own)})
    return experiment.model_copy(update={"planet": planet})


def _restore(workspace: Workspace, result: Result) -> bool:
    """Write back manifests, metadata and experiment.yaml, and remove shards that nobody records.

    Returns:
      Whether anything was written or removed.
    """
    keys = {problem.key: problem for problem in result.problems if problem.kind != STALE}
    changed: list[str] = []
    restored = {name for name in artefacts.ARTEFACTS if _restore_manifest(workspace, name, keys)}
    for name in artefacts.ARTEFACTS:
        stored = backup.read_backup(workspace.root, name)
        if stored is None:
            continue
        manifest, objects = stored
        present = workspace.artefact(name).manifest() or manifest
        digests = {record["key"]: record["sha256"] for record in present.get("metadata", ())}
        for key in objects.keys() & keys.keys():
            if files.sha256(objects[key]) == digests.get(key):
                files.write_bytes(workspace.url(key), objects[key])
                changed.append(key)
    if text := _experiment_to_restore(workspace, result):
        files.write_bytes(workspace.url(backup.EXPERIMENT), text)
        changed.append(backup.EXPERIMENT)
    for key, problem in keys.items():
        # What another manifest does not record may belong to the one that was written back.
        if problem.kind != UNLISTED or problem.artefact in {"", *restored} or not _is_ours(key):
            continue
        files.remove(workspace.url(key))
        changed.append(key)
    return bool(changed or restored)


def _restore_manifest(workspace: Workspace, name: str, keys: Collection[str]) -> bool:
    """Write the manifest of an artefact back from its backup, if that is the right one.

    A backup is removed before its artefact is made anew, and written after the manifest. So the
    manifest is right if the two differ, unless that of the backup is the later one, or others were
    made from it. In those cases an older manifest, or that of another artefact, is in its place.

    Args:
      workspace: The experiment's folder.
      name: Name of the artefact.
      keys: Keys of the objects that are damaged or missing.

    Returns:
      Whether the manifest was written.
    """
    stored = backup.read_backup(workspace.root, name)
    if stored is None:
        return False
    artefact = workspace.artefact(name)
    url, begun = (f"{artefact.prefix}{record}.json" for record in ("manifest", "begun"))
    if not {_key(workspace, each) for each in (url, begun)} & {*keys}:
        present = artefact.manifest()
        if present is None or present == stored[0] or not records.is_sealed(present):
            return False
        if present["inputs_sha256"] == stored[0]["inputs_sha256"]:
            if _version(stored[0]) <= _version(present):
                return False
        elif not _is_used(workspace, name, artefacts.digest_of(stored[0])):
            return False
    files.write_json(url, stored[0])
    files.remove(begun)
    return True


def _key(workspace: Workspace, url: str) -> str:
    """Return the key of an object in the folder of the experiment."""
    return url.removeprefix(workspace.root).lstrip("/")


def _version(manifest: Json) -> tuple[str, int]:
    """Return when an artefact was made and how often it was updated."""
    return str(manifest["created"]), len(manifest.get("updated", ()))


def _is_used(workspace: Workspace, name: str, digest: str) -> bool:
    """Return whether another artefact was made from the one with a digest."""
    others = (backup.read_backup(workspace.root, other) for other in artefacts.ARTEFACTS)
    return any(other[0]["inputs"].get(name) == digest for other in others if other is not None)


def _experiment_to_restore(workspace: Workspace, result: Result) -> bytes | None:
    """Return the experiment.yaml to write back; None to keep the one that is there.

    It is written back if it is damaged or missing. It is also written back if artefacts are stale
    because it differs from the one that the newest artefact was made with, provided that all
    manifests and backups are intact.
    """
    newest = ("", b"")
    for name in artefacts.ARTEFACTS:
        manifest, objects = backup.read_backup(workspace.root, name) or ({}, {})
        text = objects.get(backup.EXPERIMENT, b"")
        if records.text_seal_is_broken(text) is False:
            # Of two that were made in the same second, the later one in order is the newer one.
            newest = max((str(manifest["created"]), text), newest, key=lambda each: each[0])
    kinds = {problem.key: problem.kind for problem in result.problems}
    damaged = backup.EXPERIMENT in kinds
    records_are_sound = not result.incomplete and not any(
        key.startswith(backup.FOLDER) or (key.endswith("manifest.json") and kind != STALE)
        for key, kind in kinds.items()
    )
    stale = STALE in kinds.values() and records_are_sound
    if not newest[1] or not (damaged or stale):
        return None
    url = workspace.url(backup.EXPERIMENT)
    return newest[1] if damaged or files.read_bytes(url) != newest[1] else None


def _is_ours(key: str) -> bool:
    """Return whether an object is part of a Zarr store, or was left by a run that was killed."""
    store = bool(records.array_folder(key)) or key.endswith("/zarr.json")
    return store or "/receipts/" in key or local_files.PART in key


def _remake(
    experiment: Experiment,
    workspace: Workspace,
    progress: Progress,
    name: str,
    problems: list[Problem],
) -> None:
    """Make the damaged objects of one artefact again."""
    from pipeline.predict import repair as predict_repair
    from pipeline.prepare import repair as prepare_repair

    artefact, maker = workspace.artefact(name), stage_modules()[MAKERS[name]]
    records_of_it = {f"{artefact.prefix}{each}.json" for each in ("manifest", "begun")}
    urls = {workspace.url(problem.key) for problem in problems if problem.kind != UNLISTED}
    urls.discard(workspace.url(backup.backup_key(name)))
    if not urls:
        return
    try:
        manifest = artefact.manifest() or {}
    except DamagedError:
        manifest = {}  # and its backup is damaged, too
    metadata = {workspace.url(record["key"]) for record in manifest.get("metadata", ())}
    if urls & metadata and manifest.get("updated"):
        again = f"soilweave {MAKERS[name]} {experiment.name} --overwrite"
        days = f"soilweave update {experiment.name} --through {manifest['complete_through']}"
        raise StoreError(
            min(urls & metadata),
            f"it and the backup of {name} are damaged; made again, {name} would lose the days that "
            "were appended",
            remedy=f"{again}, then {days}",
        )
    if urls & (records_of_it | metadata):  # stale, or without a manifest or backup
        maker.run(experiment, workspace, progress, overwrite=True)
        return
    keys = sorted(_key(workspace, url) for url in urls)
    if name in ("cube", "maps"):
        repairs: Any = {"cube": prepare_repair, "maps": predict_repair}[name]
        repairs.repair(experiment, workspace, progress, keys)
    else:
        artefact.reopen(_to_remove(keys))
        maker.run(experiment, workspace, progress)


def _to_remove(keys: list[str]) -> list[str]:
    """Return what must be removed so that a stage makes these objects: a history with its model."""
    history, checkpoint = "history.parquet", "checkpoint.safetensors"
    return sorted({*keys, *(key.replace(history, checkpoint) for key in keys)})


def _renew_backup(workspace: Workspace, name: str) -> None:
    """Write the backup of an artefact if it is not that of its manifest."""
    manifest: Json | None = workspace.artefact(name).manifest()
    if manifest is None or not records.is_sealed(manifest):
        return
    stored = backup.read_backup(workspace.root, name)
    if stored is None or stored[0] != manifest:
        backup.write_backup(workspace.root, name, manifest)
