"""Make what `verify` found damaged again, for `verify --repair`.

Manifests, metadata of Zarr stores and `experiment.yaml` are written back from their backup. Shards
of the cube and of the maps are computed again, a block or a tile at a time. A model that is damaged
is trained again, and tables, scores and the report are written again, by their stages. Artefacts
that are stale, or whose metadata is damaged as well as its backup, are made anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline import files, local_files
from pipeline.cli.run_stages import stage_modules
from pipeline.cluster import ray_cluster
from pipeline.errors import StoreError
from pipeline.experiment import load
from pipeline.storage import artefacts, backup, records, verify
from pipeline.storage.verify import EXPORT, STALE, UNLISTED

if TYPE_CHECKING:
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
            if _restore(workspace, result.problems):
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
    experiment = load.load_experiment(workspace.url(backup.EXPERIMENT), [], None)
    return workspace.place(experiment)


def _restore(workspace: Workspace, problems: list[Problem]) -> bool:
    """Write back manifests, metadata and experiment.yaml, and remove shards that nobody records.

    Returns:
      Whether anything was written or removed.
    """
    keys = {problem.key: problem for problem in problems if problem.kind != STALE}
    changed: list[str] = []
    newest: tuple[str, bytes] | None = None
    for name in artefacts.ARTEFACTS:
        stored = backup.read_backup(workspace.root, name)
        if stored is None:
            continue
        manifest, objects = stored
        artefact = workspace.artefact(name)
        url = f"{artefact.prefix}manifest.json"
        if url.removeprefix(workspace.root).lstrip("/") in keys:
            files.write_json(url, manifest)
            changed.append(url)
        present = artefact.manifest() or manifest
        digests = {record["key"]: record["sha256"] for record in present.get("metadata", ())}
        for key in objects.keys() & keys.keys():
            if files.sha256(objects[key]) == digests.get(key):
                files.write_bytes(workspace.url(key), objects[key])
                changed.append(key)
        text = objects.get(backup.EXPERIMENT, b"")
        if records.text_seal_is_broken(text) is False:
            newest = max(newest or ("", b""), (str(manifest["created"]), text))
    if backup.EXPERIMENT in keys and newest is not None:
        files.write_bytes(workspace.url(backup.EXPERIMENT), newest[1])
        changed.append(backup.EXPERIMENT)
    for key, problem in keys.items():
        if problem.kind == UNLISTED and problem.artefact and _is_ours(key):
            files.remove(workspace.url(key))
            changed.append(key)
    return bool(changed)


def _is_ours(key: str) -> bool:
    """Return whether an object is a chunk of an array, or was left by a run that was killed."""
    return bool(records.array_folder(key)) or "/receipts/" in key or local_files.PART in key


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
    manifest = artefact.manifest() or {}
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
    keys = sorted(url.removeprefix(workspace.root).lstrip("/") for url in urls)
    if name in ("cube", "maps"):
        for key in keys:
            files.remove(workspace.url(key))
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
