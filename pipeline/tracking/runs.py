"""The runs of one experiment in MLflow: found again or made, and what is logged to each.

Nothing is logged twice, also where a driver was killed before it recorded what it had logged: runs
are found by a tag, points of a curve that the server has are left out, and the others' times are
those of their artefact, so that one point is one point.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from model import checkpoint
from pipeline import files
from pipeline.errors import StoreError
from pipeline.storage import artefacts, models, schema, tables

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from mlflow import MlflowClient
    from mlflow.entities import Run

    from model.recipe import ModelKey
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.storage.artefacts import Workspace


ERROR = "error"  # the tag of a failed run that says why
KEY = "soilweave.key"  # the tag that a run or a model is found by
AT_ONCE, POINTS_AT_ONCE, LONGEST = 100, 1000, 6000  # limits of MLflow


class Runs:
    """The parent run of an experiment's settings, and its children by arm and fold."""

    def __init__(
        self,
        client: MlflowClient,
        experiment: Experiment,
        workspace: Workspace,
        record: Json,
        trained: str | None,
    ) -> None:
        """Nothing is asked yet; `record` says what was logged, `trained` is the models' identity.

        Children belong to models: other models, other children.
        """
        self.client, self.experiment, self.workspace = client, experiment, workspace
        self.record: Json = {"logged": {}, "children": {}, "versions": {}, "status": ""} | record
        self.trained = trained
        if trained is not None and self.record.get("models") not in (None, trained):
            self._forget("models/", "scores")
        if trained is not None:
            self.record["models"] = trained
        self._children: dict[str, Run] = {}

    @property
    def logged(self) -> dict[str, str]:
        """Digests of what MLflow has, by name."""
        return dict(self.record["logged"])

    @property
    def parent(self) -> str:
        """Id of the parent run."""
        return str(self.record["parent"])

    def keep(self, name: str = "", digest: str = "") -> None:
        """Write the record, with one more thing that MLflow has."""
        if name:
            self.record["logged"][name] = digest
        files.write_json(self.workspace.url("mlflow.json"), self.record)

    def open(self, artifacts: str | None) -> None:
        """Find the parent run or make it, and say that it is at work.

        Args:
          artifacts: where artifacts of a new MLflow experiment go, None where the server knows.
        """
        name, tags = self._sweep()
        found = self.client.get_experiment_by_name(name)
        if found is None:
            number = self.client.create_experiment(name, artifact_location=artifacts)
        else:
            number = found.experiment_id
            if found.lifecycle_stage != "active":
                self.client.restore_experiment(number)
        before, self.record["experiment"] = self.record.get("parent"), number
        tags |= {
            "git_commit": artefacts.git_commit() or "unknown",
            "workspace": files.absolute(self.workspace.root),
            "recipe": self.experiment.recipe,
            "catalog": self.experiment.sources.catalog,
        }
        key = [files.absolute(self.workspace.root), self.record["settings"]]
        run = self._run(before, key, tags, self.experiment.name)
        self.record["parent"] = run.info.run_id
        if before not in (None, self.parent):
            self._forget("")  # it was deleted there, so all is logged anew
        if run.info.status != "RUNNING":
            self.client.update_run(self.parent, status="RUNNING")
        if ERROR in run.data.tags:
            self.client.delete_tag(self.parent, ERROR)
        self.record["status"] = "RUNNING"
        self.keep()

    def _sweep(self) -> tuple[str, dict[str, str]]:
        """The MLflow experiment, and tags of one on another's cube: beside it, and what it changes.

        So a table of MLflow shows a whole sweep.
        """
        holder = self.workspace.prepared(self.experiment)
        if holder is self.workspace:
            return f"soilweave/{self.experiment.name}", {}
        tags = {"cube": holder.url("cube.zarr")}
        with contextlib.suppress(StoreError):  # a cube without its experiment.yaml
            changed = schema.changed(holder.described(), self.experiment)
            tags["changed"] = ", ".join(f"{k}={v}" for k, v in changed.items())[:LONGEST]
        return f"soilweave/{holder.root.rpartition('/')[2]}", tags

    def close(self, status: str, error: str = "") -> None:
        """Set the status of the parent, and of children whose training failed; and the error."""
        if status == "RUNNING":
            return
        if error:
            self.client.set_tag(self.parent, ERROR, error[:LONGEST])
        if status == "FAILED":
            for name, run_id in self.record["children"].items():
                if not self._is_whole(name, self.logged):
                    self.client.set_terminated(run_id, "FAILED")
        self.client.set_terminated(self.parent, status)
        self.record["status"] = status
        self.keep()

    def child(self, arm: str, fold: int) -> Run:
        """The run of an arm and a fold as it was when first asked for, made if there is none."""
        name = f"{arm}/fold={models.fold_name(fold)}"
        if name not in self._children:
            tags = {
                "arm": arm,
                "fold": models.fold_name(fold),
                "mlflow.parentRunId": self.parent,
                "models": str(self.trained),
            }
            before = self.record["children"].get(name)
            run = self._run(before, [self.parent, name, self.trained], tags, name)
            self._children[name] = run
            if before != run.info.run_id:
                self.record["children"][name] = run.info.run_id
                self.keep()
        return self._children[name]

    def log_experiment(self) -> None:
        """The resolved settings: parameters of the parent, and experiment.yaml."""
        settings = self.experiment.model_dump(mode="json", exclude={"compute"})
        self._log_params(self.parent, dict(_flat(settings)))
        self._upload("experiment.yaml", yaml.safe_dump(settings, sort_keys=False).encode())

    def log_folds(self) -> None:
        """Where sites are held out."""
        self._upload("folds.geojson")

    def log_report(self) -> None:
        """The report."""
        self._upload("report.html")

    def log_curves(self, job: ModelKey, there: Collection[str]) -> None:
        """The curve of a model to the run of its arm and fold; `there` is what lies beside it."""
        from mlflow.entities import Metric

        run = self.child(job.arm, job.fold)
        run_id, folder = run.info.run_id, models.folder(self.workspace.url("models"), job)
        table = tables.read(files.join(folder, "history.parquet"))
        curves = {f"seed-{job.seed}/{name}": table[name] for name in table if name != "step"}
        steps = table["step"].astype(int)
        has = {
            (name, point.step)
            for name in curves.keys() & run.data.metrics.keys()
            for point in self.client.get_metric_history(run_id, name)
        }
        points = [
            Metric(name, float(value), run.info.start_time + step, step)
            for name, curve in curves.items()
            for step, value in zip(steps, curve, strict=True)
            if (name, step) not in has
        ]
        for start in range(0, len(points), POINTS_AT_ONCE):
            self.client.log_batch(run_id, metrics=points[start : start + POINTS_AT_ONCE])
        origin = checkpoint.unpack_safetensors(
            files.read_bytes(files.join(folder, "checkpoint.safetensors"))
        )
        about = {
            "seeds": self.experiment.n_seeds,
            "updates": origin[1]["origin"]["updates"],
            "training_sites": len(origin[1]["origin"]["training_sites"]),
        }
        self._log_params(run_id, about)
        if self._is_whole(f"{job.arm}/fold={models.fold_name(job.fold)}", there):
            self.client.set_terminated(run_id, "FINISHED")

    def log_scores(self) -> None:
        """Medians to the parent, those of the sites held out to the children, and the tables."""
        manifest = self.workspace.artefact("scores").manifest() or {}
        time = int(datetime.fromisoformat(manifest["created"]).timestamp() * 1000)
        summary = files.read_json(self.workspace.url("summary.json")) or {}
        values = dict(_medians(summary))
        values |= {f"truth/{k}": v for k, v in _medians(summary.get("truth", {}))}
        self._log_values(self.parent, values, time)
        table = tables.read(self.workspace.url("scores.parquet"))
        sites = table[(table.target == "site") & table.value.notna()]
        for name, run_id in self.record["children"].items():
            arm, fold = name.split("/fold=")
            own = sites[(sites.arm == arm) & (sites.fold == fold)]
            medians = own.groupby("metric").value.median()
            self._log_values(run_id, {f"test/{k}": float(v) for k, v in medians.items()}, time)
        self._upload("summary.json")
        self._upload("scores.parquet")

    def _run(self, before: str | None, key: list[Any], tags: dict[str, str], name: str) -> Run:
        """The run known by id, or found by its key, or a new one."""
        from mlflow.exceptions import MlflowException

        if before is not None:
            try:
                run = self.client.get_run(before)
            except MlflowException as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
            else:
                if run.info.lifecycle_stage == "active":
                    return run
        number, digest = self.record["experiment"], files.sha256_of(key)
        found = self.client.search_runs([number], f"tags.`{KEY}` = '{digest}'", max_results=1)
        return (
            found[0]
            if found
            else self.client.create_run(number, tags={KEY: digest} | tags, run_name=name)
        )

    def _forget(self, *beginnings: str) -> None:
        """Take what begins so as not logged, and children as unknown."""
        logged = self.record["logged"]
        self.record["logged"] = {k: v for k, v in logged.items() if not k.startswith(beginnings)}
        self.record["children"] = {}

    def _is_whole(self, name: str, there: Collection[str]) -> bool:
        """Whether all seeds of an arm and a fold are there."""
        seeds = range(self.experiment.n_seeds)
        return all(f"models/{name}/seed={seed}" in there for seed in seeds)

    def _log_params(self, run_id: str, values: dict[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(key, str(value)[:LONGEST]) for key, value in values.items()]
        for start in range(0, len(params), AT_ONCE):
            self.client.log_batch(run_id, params=params[start : start + AT_ONCE])

    def _log_values(self, run_id: str, values: dict[str, float], time: int) -> None:
        from mlflow.entities import Metric

        points = [Metric(key, value, time, 0) for key, value in values.items()]
        for start in range(0, len(points), POINTS_AT_ONCE):
            self.client.log_batch(run_id, metrics=points[start : start + POINTS_AT_ONCE])

    def _upload(self, name: str, data: bytes | None = None) -> None:
        """A file of the workspace as an artifact of the parent, or other content of that name."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            path.write_bytes(files.read_bytes(self.workspace.url(name)) if data is None else data)
            self.client.log_artifact(self.parent, str(path))


def _medians(summary: Json) -> Iterator[tuple[str, float]]:
    """Numbers of a summary by name: medians, paired differences, coverage."""
    for name, found in (summary.get("arms", {}) | summary.get("baselines", {})).items():
        numbers = dict(found["median"])
        for level, shares in found.get("coverage", {}).items():
            numbers |= {f"coverage-{level}/{when}": share for when, share in shares.items()}
        yield from _finite(name, numbers)
    for pair, found in summary.get("paired", {}).items():
        yield from _finite(pair, {k: v["median_difference"] for k, v in found.items()})


def _finite(name: str, numbers: dict[str, float | None]) -> Iterator[tuple[str, float]]:
    for key, value in numbers.items():
        if value is not None and math.isfinite(value):
            yield f"{name}/{key}", value


def _flat(tree: Json, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
