"""Say what a report was made from: artefacts with time and bytes, versions, and settings.

A page is often sent to others, so it names no folder of the machine that made it: local paths are
cut to their last part.
"""

from __future__ import annotations

import importlib.metadata
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import yaml

import pipeline
from pipeline import files
from pipeline.evaluate.report.style import ABSENT
from pipeline.experiment.config import shown_settings
from pipeline.storage import artefacts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.storage.artefacts import Workspace


PACKAGES = ("soilweave", "ray", "torch")

# The verb that makes each artefact.
STAGES = {"planet": "planet", "cube": "prepare", "folds": "prepare", "models": "train",
          "maps": "predict", "scores": "evaluate"}  # fmt: skip


def provenance(experiment: Experiment, workspace: Workspace) -> Json:
    """Return the artefacts with time and bytes, versions, and the settings of the experiment."""
    settings = hide_local_folders(shown_settings(experiment))
    rows = list(_artefact_rows(experiment, workspace))
    for key in ("seconds", "bytes"):
        longest = max((row[key] for row in rows), default=0)
        for row in rows:
            row[f"{key}_share"] = round(100 * row[key] / longest, 1) if longest else 0
    return {
        "artefacts": rows,
        "total": _format_duration(sum(row["seconds"] for row in rows)),
        "total_bytes": _format_bytes(sum(row["bytes"] for row in rows)),
        "versions": {name: _version(name) for name in PACKAGES},
        "yaml": yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
    }


def hide_local_folders(tree: Any) -> Any:
    """Return settings in which local absolute paths are cut to their last part."""
    if isinstance(tree, dict):
        return {key: hide_local_folders(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [hide_local_folders(value) for value in tree]
    return hide_local_folder(tree) if isinstance(tree, str) else tree


def hide_local_folder(text: str) -> str:
    """Return a text in which local absolute paths are cut to their last part."""
    path = r"(?<![\w.:/])(?:file:/*|~)?/(?:[^\s/'\",;]+/)*(?=[^\s/'\",;])"
    return re.sub(path, "\N{HORIZONTAL ELLIPSIS}/", text)


def opening_code(experiment: Experiment, workspace: Workspace, has_maps: bool) -> list[str]:
    """Return lines of Python that open the outputs, in the folder of the page."""
    target = experiment.target
    lines = ["import pandas as pd, xarray as xr  # in the folder of this page"]
    if has_maps:
        arm = "multiscale" if "multiscale" in experiment.arms else experiment.arms[0]
        lines.append(f'xr.open_zarr("maps/{arm}.zarr").{target}.isel(time=100).plot()')
    else:
        cube = workspace.prepared(experiment).url("cube.zarr")
        shown = "cube.zarr" if experiment.cube is None else hide_local_folder(cube)
        lines.append(f'xr.open_zarr("{shown}", group="cells")  # inputs of the models')
    if files.exists(workspace.url("scores.parquet")):
        lines.append('pd.read_parquet("scores.parquet")  # scores of every place')
    return lines


def _version(name: str) -> str:
    """Return the version of a package; a dash if the package is not installed."""
    if name == "soilweave":  # a job on a cluster runs it without installing it
        return pipeline.__version__
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ABSENT


def _artefact_rows(experiment: Experiment, workspace: Workspace) -> Iterator[Json]:
    """Yield a row of the table of artefacts for each complete artefact but the report."""
    for name in artefacts.ARTEFACTS:
        owner = workspace.prepared(experiment) if name in ("planet", "cube") else workspace
        manifest = owner.artefact(name).manifest()
        if manifest is None or name == "report":
            continue
        begun, created = manifest.get("begun"), datetime.fromisoformat(manifest["created"])
        seconds = (created - datetime.fromisoformat(begun)).total_seconds() if begun else 0.0
        kept = (*manifest["shards"], *manifest.get("tables", ()))
        size = sum(record["size"] for record in kept)
        yield {
            "stage": STAGES[name],
            "name": name,
            "digest": manifest["inputs_sha256"][:12],
            "commit": (manifest["git_commit"] or ABSENT)[:10],
            "finished": f"{created:%Y-%m-%d %H:%M} UTC",
            "bytes": size,
            "size": _format_bytes(size),
            "objects": f"{len(kept):,}",
            "seconds": seconds,
            "duration": _format_duration(seconds) if begun else ABSENT,
        }


def _format_bytes(size: int) -> str:
    """Format a number of bytes in megabytes, with a digit after the point below 100."""
    return f"{size / 1e6:,.{0 if size >= 1e8 else 1}f}"


def _format_duration(seconds: float) -> str:
    """Format a duration in minutes and seconds."""
    minutes, remainder = divmod(round(seconds), 60)
    return f"{minutes} min {remainder} s" if minutes else f"{remainder} s"
