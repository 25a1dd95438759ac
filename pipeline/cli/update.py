"""Append new days to an experiment that was run: the cube, the maps and their state.

Only forcing is read. The experiment's settings, period, models and scores do not change; the cells
of the cube and the maps reach further, as their manifests say (`complete_through`, `updated`).
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import ConfigError, StoreError
from pipeline.predict import resume
from pipeline.prepare import append
from pipeline.storage import earlier_versions, models, schema
from pipeline.storage.cube import Cube

if TYPE_CHECKING:
    from pipeline.experiment.config import Experiment
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace


def run(
    experiment: Experiment,
    workspace: Workspace,
    progress: Progress,
    overwrite: bool = False,
    through: date | None = None,
) -> None:
    """Extend the maps to a day, by default the last day that all sources of forcing have.

    Args:
      experiment: The experiment that was run in the workspace.
      workspace: The experiment's folder in the workspace.
      progress: Receives the progress.
      overwrite: Ignored; an update replaces only days whose forcing has changed.
      through: The last day; None for the last day that all sources of forcing have.

    Raises:
      SoilweaveError: If there are no complete maps, if they were made with other settings, or if
        the day is not available.
    """
    progress.start("update", 0, "blocks")
    cube_url, cube_digest = Cube.source(experiment, workspace)
    models_root, models_digest = models.find_models(experiment, workspace)
    artefact = workspace.artefact("maps")
    inputs = schema.identity(experiment, "maps", cube=cube_digest, models=models_digest)
    maps_url, manifest = workspace.url("maps"), artefact.manifest()
    if manifest is None:
        hint = f"make them first: soilweave predict {experiment.name}"
        raise StoreError(maps_url, "no complete maps to continue from", remedy=hint)
    if manifest["inputs_sha256"] != files.sha256_of_json(artefact.recorded(inputs)):
        hint = f"make them again: soilweave predict {experiment.name} --overwrite"
        raise StoreError(maps_url, "were made from another cube or other models", remedy=hint)
    artefact.check_objects(manifest)
    cube = Cube.manifest(experiment, workspace)
    owner = workspace.prepared(experiment).root.rpartition("/")[2]
    for url, record, name in ((maps_url, manifest, experiment.name), (cube_url, cube, owner)):
        hint = f"make them again, then update: soilweave run {name} --overwrite"
        earlier_versions.check_same_blocks(url, record, "it cannot be continued", hint)
    done = date.fromisoformat(manifest["complete_through"])
    if through is not None and through < done:
        hint = "give a later day, or leave --through out to use all days that the sources have"
        raise ConfigError(f"--through {through}", f"the maps already reach {done}", remedy=hint)
    if files.exists(workspace.url("update")):  # left by a driver that was killed
        workspace.lease.take(progress.note)
    cube_notes = append.run(experiment, workspace, progress, through)
    map_notes = resume.run(experiment, workspace, progress, (cube_url, models_root), through)
    if workspace.lease.held:
        files.remove(workspace.url("update"))
    progress.finish("; ".join([*map_notes, *cube_notes]))
