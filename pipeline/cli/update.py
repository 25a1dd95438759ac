"""Append new days to an experiment that was run: the cube, the maps and their state.

Only forcing is read. What an experiment is made from does not change, nor do its period, models
and scores; the cells of the cube and the maps reach further, which their manifests say
(`complete_through`, `updated`).
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import ConfigError, StoreError
from pipeline.predict import resume
from pipeline.prepare import append
from pipeline.storage import models, schema
from pipeline.storage.cube import Cube

if TYPE_CHECKING:
    from pipeline.experiment.config import Experiment as config_experiment
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace as Place


def run(
    experiment: config_experiment,
    workspace: Place,
    progress: Progress,
    overwrite: bool = False,
    through: date | None = None,
) -> None:
    """Bring the maps up to a day, by default as far as all sources of forcing reach.

    Args:
      experiment: that was run in the workspace.
      workspace: of it.
      progress: is told.
      overwrite: nothing is replaced here but what has changed.
      through: the last day.

    Raises:
      SoilweaveError: nothing was run, with other settings, or the day cannot be had.
    """
    progress.start("update", 0, "blocks")
    cube_url, cube_digest = Cube.source(experiment, workspace)
    root, digest = models.source(experiment, workspace)
    artefact = workspace.artefact("maps")
    inputs = schema.identity(experiment, "maps", cube=cube_digest, models=digest)
    place, manifest = workspace.url("maps"), artefact.manifest()
    if manifest is None:
        remedy = f"make them first: soilweave predict {experiment.name}"
        raise StoreError(place, "no complete maps to go on from", remedy=remedy)
    if manifest["inputs_sha256"] != files.sha256_of(artefact.recorded(inputs)):
        remedy = "make them anew with: soilweave predict --overwrite"
        raise StoreError(place, "were made from another cube or other models", remedy=remedy)
    done = date.fromisoformat(manifest["complete_through"])
    if through is not None and through < done:
        remedy = "give a later day, or none: as far as the sources reach"
        raise ConfigError(f"--through {through}", f"the maps reach {done} already", remedy=remedy)
    if files.exists(workspace.url("update")):  # of a driver that died
        workspace.lease.take(progress.note)
    ends = append.run(experiment, workspace, progress, through)
    told = resume.run(experiment, workspace, progress, (cube_url, root), through)
    if workspace.lease.held:
        files.remove(workspace.url("update"))
    progress.finish("; ".join([*told, *ends]))
