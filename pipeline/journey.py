"""A verb: its stages in order, on one connection to Ray; under one lease, mirrored in MLflow."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pipeline import cluster, tracking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.config import Experiment
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.store import Workspace

RUN = ("planet", "prepare", "folds", "train", "predict", "evaluate", "report")
STAGES = {
    "run": RUN,
    "prepare": ("planet", "prepare", "folds"),
    "train": ("train",),
    "predict": ("predict",),
    "evaluate": ("evaluate", "report"),
    "update": ("update",),
}


def run(
    stages: Sequence[str],
    experiment: Experiment,
    workspace: Workspace,
    progress: Progress,
    overwrite: bool = False,
    **wishes: Any,
) -> Json | None:
    """Run stages in order; returns the summary of scores, if one of them makes it.

    `wishes` go to every stage.

    Raises:
      SoilweaveError: something a user can mend; what is complete stays as it is.
    """
    summary = None
    with workspace.lease.given_back(), cluster.session(workspace.root):
        try:
            for name in stages:
                stage = importlib.import_module(f"pipeline.{name}")
                made = stage.run(experiment, workspace, progress, overwrite, **wishes)
                summary = made or summary
                tracking.mirror(experiment, workspace, progress, "RUNNING")
        except BaseException:
            if workspace.lease.held:
                tracking.mirror(experiment, workspace, progress, "FAILED")
            raise
        tracking.mirror(experiment, workspace, progress, "FINISHED")
    return summary
