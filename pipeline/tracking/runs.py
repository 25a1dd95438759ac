"""The MLflow runs of one experiment: find or create them, and log to them.

Nothing is logged twice, even if a driver was killed before it recorded what it had logged. Runs are
found by a tag; points of a curve that the server has are left out; and scores have the time of
their artefact, so that logging one again adds no second point.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from model import checkpoint
from pipeline import files
from pipeline.errors import StoreError, redact_urls
from pipeline.experiment import config
from pipeline.storage import models, provenance, schema, tables
from pipeline.tracking import server

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from mlflow import MlflowClient
    from mlflow.entities import Run

    from model.recipe import ModelKey
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.storage.artefacts import Workspace


ERROR_TAG = "error"  # the tag with the error of a failed run
KEY_TAG = "soilweave.key"  # the tag that runs and models are found by
KIND_TAG = "mlflow.experimentKind"  # the tag by which MLflow 3 chooses the page of an experiment
PER_REQUEST = {"params": 100, "metrics": 1000}  # MLflow's limits for one request
MAX_VALUE_LENGTH = 6000  # characters of a parameter or a tag that MLflow takes


class Runs:
    """The parent run of an experiment's settings, and its child runs by arm and fold.

    Attributes:
      client: Client of the server.
      experiment: The experiment.
      workspace: The experiment's folder in the workspace.
      record: What was logged, as in mlflow.json.
      trained: Identity of the models that child runs are of.
      refused_keys: Keys of parameters and metrics that the server does not accept, and why.
      abandoned: Set once nobody waits for this object any more; it then writes no record.
    """

    def __init__(
        self, client: MlflowClient, experiment: Experiment, workspace: Workspace, record: Json
    ) -> None:
        """Prepare to log; the server is not asked yet.

        Args:
          client: Client of the server.
          experiment: The experiment.
          workspace: The experiment's folder in the workspace.
          record: What was logged before, from mlflow.json.
        """
        self.client, self.experiment, self.workspace = client, experiment, workspace
        empty: Json = {"logged": {}, "refused": {}, "children": {}, "versions": {}, "status": ""}
        self.record: Json = empty | record
        self.trained: str | None = None
        self._started = 0
        self.refused_keys: dict[str, str] = {}
        self.abandoned = threading.Event()
        self._children: dict[str, Run] = {}
        self._known: dict[tuple[str, int], set[tuple[str, int]]] = {}
        self._reopened: set[str] = set()

    def use_models(self, trained: str | None) -> None:
        """Log to the child runs of these models from now on.

        Args:
          trained: Identity of the models; None if there are none. Other models than those of the
            record get other child runs.
        """
        if trained != self.trained:
            self._children, self._known = {}, {}
        if trained is not None and self.record.get("models") not in (None, trained):
            self._forget("models/", "scores", "summary.json")
        if trained is not None:
            self.record["models"] = trained
        self.trained = trained

    @property
    def logged(self) -> dict[str, str]:
        """Digests of what MLflow has, by name."""
        return dict(self.record["logged"])

    @property
    def parent(self) -> str:
        """Id of the parent run."""
        return str(self.record["parent"])

    def keep(self, name: str = "", digest: str = "") -> None:
        """Write the record; if `name` is given, add it to what MLflow has."""
        if self.abandoned.is_set():
            raise TimeoutError("the verb has ended")
        if name:
            self.record["logged"][name] = digest
            self.record["refused"].pop(name, None)
        files.write_json(self.workspace.url("mlflow.json"), self.record)

    def open(self, artifacts: str | None) -> None:
        """Find or create the parent run, and set its status to RUNNING.

        Args:
          artifacts: Where a new MLflow experiment stores artifacts; None if the server decides.
        """
        name, tags = self._sweep()
        mlflow_experiment = self.client.get_experiment_by_name(name)
        if mlflow_experiment is None:
            experiment_id = self.client.create_experiment(name, artifact_location=artifacts)
        else:
            experiment_id = mlflow_experiment.experiment_id
            if mlflow_experiment.lifecycle_stage != "active":
                self.client.restore_experiment(experiment_id)
        previous, self.record["experiment"] = self.record.get("parent"), experiment_id
        root = redact_urls(files.make_absolute(self.workspace.root))
        tags |= {
            "git_commit": provenance.code_commit() or "unknown",
            "workspace": root,
            "recipe": self.experiment.recipe,
            "catalog": self.experiment.sources.catalog,
        }
        key = [root, self.record["settings"]]
        run = self._run(previous, key, tags, self.experiment.name)
        if run.data.tags.get("workspace", root) != root:
            # The record was copied with its workspace by a version that did not record its URL.
            run = self._run(None, key, tags, self.experiment.name)
        self.record["parent"], self._started = run.info.run_id, run.info.start_time
        if previous not in (None, self.parent):
            self._forget("")  # it was deleted on the server, so everything is logged again
        if run.info.status != "RUNNING":
            self.client.update_run(self.parent, status="RUNNING")
        if ERROR_TAG in run.data.tags:
            self.client.delete_tag(self.parent, ERROR_TAG)
        self.record["status"] = "RUNNING"
        self.keep()

    def _sweep(self) -> tuple[str, dict[str, str]]:
        """Return the MLflow experiment's name, and tags if the cube is another experiment's.

        Such an experiment is logged beside the one whose cube it uses, with the settings that it
        changes, so that a table of MLflow shows a whole sweep.
        """
        holder = self.workspace.prepared(self.experiment)
        if holder is self.workspace:
            return f"soilweave/{self.experiment.name}", {}
        tags = {"cube": redact_urls(holder.url("cube.zarr"))}
        with contextlib.suppress(StoreError):  # a cube without its experiment.yaml
            changed = schema.changed_settings(holder.described(), self.experiment)
            tags["changed"] = ", ".join(f"{k}={v}" for k, v in changed.items())[:MAX_VALUE_LENGTH]
        return f"soilweave/{holder.root.rpartition('/')[2]}", tags

    def close(self, status: str, error: str = "") -> None:
        """Set the status of the parent run and of child runs whose training did not end.

        Args:
          status: FINISHED or FAILED.
          error: The error that ended the verb, if any.
        """
        self.client.set_terminated(self.parent, status)
        if error:
            self.client.set_tag(self.parent, ERROR_TAG, error[:MAX_VALUE_LENGTH])
        if status == "FAILED":
            for name, run_id in self.record["children"].items():
                if not self._is_whole(name, self.logged):
                    self.client.set_terminated(run_id, "FAILED")
        self.record["status"] = status
        self.keep()

    def child(self, arm: str, fold: int) -> Run:
        """Return the run of an arm and a fold as it was at the first call; create it if needed."""
        name = f"{arm}/fold={models.fold_name(fold)}"
        if name not in self._children:
            tags = {
                "arm": arm,
                "fold": models.fold_name(fold),
                "mlflow.parentRunId": self.parent,
                "models": str(self.trained),
            }
            previous = self.record["children"].get(name)
            run = self._run(previous, [self.parent, name, self.trained], tags, name)
            self._children[name] = run
            if previous != run.info.run_id:
                self.record["children"][name] = run.info.run_id
                self.keep()
        return self._children[name]

    def log_kind(self) -> None:
        """Tell MLflow that the experiment trains models, so that it opens on its runs."""
        kind = "custom_model_development"
        self.client.set_experiment_tag(self.record["experiment"], KIND_TAG, kind)

    def log_settings(self) -> None:
        """Log the resolved settings as parameters of the parent run."""
        settings = config.shown_settings(self.experiment, exclude={*config.NOT_OF_THE_RUN})
        self._log_params(self.parent, dict(_flatten(settings)))

    def upload_settings(self) -> None:
        """Log the resolved settings as experiment.yaml."""
        settings = config.shown_settings(self.experiment, exclude={*config.NOT_OF_THE_RUN})
        self.upload("experiment.yaml", yaml.safe_dump(settings, sort_keys=False).encode())

    def log_curves(self, key: ModelKey, there: Collection[str]) -> None:
        """Log the training curve of a model to the run of its arm and fold.

        Args:
          key: Arm, fold and seed of the model.
          there: Names of all curves that the workspace has; if all seeds are there, the run is
            finished.
        """
        run_id = self.child(key.arm, key.fold).info.run_id
        folder = models.model_folder(self.workspace.url("models"), key)
        table = tables.read_table(files.join(folder, "history.parquet"))
        columns = {str(name): table[name].tolist() for name in table}
        points = [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]
        self.log_points(key, points)
        origin = checkpoint.unpack_safetensors(
            files.read_bytes(files.join(folder, "checkpoint.safetensors"))
        )
        about = {
            "seeds": self.experiment.n_seeds,
            "updates": origin[1]["origin"]["updates"],
            "training_sites": len(origin[1]["origin"]["training_sites"]),
        }
        self._log_params(run_id, about)
        if self._is_whole(f"{key.arm}/fold={models.fold_name(key.fold)}", there):
            self.client.set_terminated(run_id, "FINISHED")

    def log_points(self, key: ModelKey, points: Iterable[Mapping[str, float]]) -> None:
        """Log the points of a model's training curve that the server lacks.

        A point may come more than once: from a worker that repeats what a lost one had done since
        its last checkpoint, after a request whose answer was lost, and from the history.

        Args:
          key: Arm, fold and seed of the model.
          points: Points of its training curve, each with its `step`.
        """
        from mlflow.entities import Metric

        run = self.child(key.arm, key.fold)
        known = self._known_points(run, key.seed)
        # In the order of steps, at times that are the same whenever a point is logged.
        metrics = {
            (name, int(point["step"])): Metric(
                f"seed-{key.seed}/{name}",
                float(value),
                run.info.start_time + int(point["step"]),
                int(point["step"]),
            )
            for point in points
            for name, value in point.items()
            if name != "step" and (name, int(point["step"])) not in known
        }
        try:
            self._send(run.info.run_id, "metrics", list(metrics.values()))
        except BaseException:
            # Some may have arrived, so the server is asked before any is sent again.
            self._children.pop(f"{key.arm}/fold={models.fold_name(key.fold)}", None)
            self._known.pop((run.info.run_id, key.seed), None)
            raise
        known |= metrics.keys()

    def _known_points(self, run: Run, seed: int) -> set[tuple[str, int]]:
        """Return name and step of the points of a model's curve that the server has."""
        run_id, prefix = run.info.run_id, f"seed-{seed}/"
        if (run_id, seed) not in self._known:
            self._known[run_id, seed] = {
                (name.removeprefix(prefix), point.step)
                for name in run.data.metrics
                if name.startswith(prefix)
                for point in self.client.get_metric_history(run_id, name)
            }
        return self._known[run_id, seed]

    def log_new_points(self, key: ModelKey, points: Iterable[Mapping[str, float]]) -> None:
        """Log points of the training curve of a model that is in training, as `log_points`."""
        run = self.child(key.arm, key.fold)
        if run.info.status != "RUNNING" and run.info.run_id not in self._reopened:
            self.client.update_run(run.info.run_id, status="RUNNING")
            self._reopened.add(run.info.run_id)
        self.log_points(key, points)

    def log_progress(self, values: dict[str, float]) -> None:
        """Log how far the stages are, as metrics of the parent run at this time."""
        now = int(time.time() * 1000)
        self._log_values(self.parent, values, now, max(0, now - self._started) // 1000)

    def log_scores(self) -> None:
        """Log medians to the parent run and, by fold, to its children."""
        manifest = self.workspace.artefact("scores").manifest() or {}
        made = int(datetime.fromisoformat(manifest["created"]).timestamp() * 1000)
        summary = files.read_json(self.workspace.url("summary.json")) or {}
        values = dict(_summary_numbers(summary))
        values |= {f"truth/{k}": v for k, v in _summary_numbers(summary.get("truth", {}))}
        self._log_values(self.parent, values, made)
        table = tables.read_table(self.workspace.url("scores.parquet"))
        sites = table[(table.target == "site") & table.value.notna()]
        for name, run_id in self.record["children"].items():
            arm, fold = name.split("/fold=")
            own = sites[(sites.arm == arm) & (sites.fold == fold)]
            medians = own.groupby("metric").value.median()
            self._log_values(run_id, {f"test/{k}": float(v) for k, v in medians.items()}, made)

    def _run(self, previous: str | None, key: list[Any], tags: dict[str, str], name: str) -> Run:
        """Return the active run with this id, else the run with this key, else a new run."""
        from mlflow.exceptions import MlflowException

        if previous is not None:
            try:
                run = self.client.get_run(previous)
            except MlflowException as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
            else:
                if run.info.lifecycle_stage == "active":
                    return run
        experiment_id, digest = self.record["experiment"], files.sha256_of_json(key)
        runs = self.client.search_runs(
            [experiment_id], f"tags.`{KEY_TAG}` = '{digest}'", max_results=1
        )
        return (
            runs[0]
            if runs
            else self.client.create_run(experiment_id, tags={KEY_TAG: digest} | tags, run_name=name)
        )

    def _forget(self, *prefixes: str) -> None:
        """Count names with these prefixes as not logged, and the child runs as unknown."""
        for kept in ("logged", "refused"):
            items = self.record[kept].items()
            self.record[kept] = {k: v for k, v in items if not k.startswith(prefixes)}
        self.record["children"] = {}
        self._children, self._known = {}, {}

    def _is_whole(self, name: str, there: Collection[str]) -> bool:
        """Return whether all seeds of an arm and a fold are there."""
        seeds = range(self.experiment.n_seeds)
        return all(f"models/{name}/seed={seed}" in there for seed in seeds)

    def _log_params(self, run_id: str, values: dict[str, Any]) -> None:
        """Log parameters of a run."""
        from mlflow.entities import Param

        params = [Param(key, str(value)[:MAX_VALUE_LENGTH]) for key, value in values.items()]
        self._send(run_id, "params", params)

    def _log_values(
        self, run_id: str, values: dict[str, float], time_ms: int, step: int = 0
    ) -> None:
        """Log metrics of a run; `time_ms` is in milliseconds since 1970."""
        from mlflow.entities import Metric

        metrics = [Metric(key, value, time_ms, step) for key, value in values.items()]
        self._send(run_id, "metrics", metrics)

    def _send(self, run_id: str, kind: str, items: list[Any]) -> None:
        """Log parameters or metrics, all but those whose keys the server does not accept."""
        size = PER_REQUEST[kind]
        for start in range(0, len(items), size):
            self._send_batch(run_id, kind, items[start : start + size])

    def _send_batch(self, run_id: str, kind: str, items: list[Any]) -> None:
        """Send one request; if the server refuses its content, find the keys that it refuses."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.log_batch(run_id, **{kind: items})  # type: ignore[arg-type]
        except MlflowException as error:
            if error.error_code not in server.REFUSED_CODES:
                raise
            if len(items) == 1:
                reason = server.describe(error, self.client.tracking_uri)
                self.refused_keys[items[0].key] = reason
                return
            if self.client.get_run(run_id).info.lifecycle_stage != "active":
                raise RuntimeError(f"the run {run_id} was deleted") from error
            half = len(items) // 2
            self._send_batch(run_id, kind, items[:half])
            self._send_batch(run_id, kind, items[half:])

    def upload(self, name: str, data: bytes | None = None) -> None:
        """Log a file of the workspace, or other content under its name, to the parent run."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            path.write_bytes(files.read_bytes(self.workspace.url(name)) if data is None else data)
            self.client.log_artifact(self.parent, str(path))


def _summary_numbers(summary: Json) -> Iterator[tuple[str, float]]:
    """Yield the numbers of a summary by name: medians, paired differences, coverage."""
    for name, scores in (summary.get("arms", {}) | summary.get("baselines", {})).items():
        numbers = dict(scores["median"])
        for level, shares in scores.get("coverage", {}).items():
            numbers |= {f"coverage-{level}/{when}": share for when, share in shares.items()}
        yield from _finite_numbers(name, numbers)
    for pair, scores in summary.get("paired", {}).items():
        yield from _finite_numbers(pair, {k: v["median_difference"] for k, v in scores.items()})


def _finite_numbers(name: str, numbers: dict[str, float | None]) -> Iterator[tuple[str, float]]:
    """Yield the numbers that are finite, by `{name}/{key}`."""
    for key, value in numbers.items():
        if value is not None and math.isfinite(value):
            yield f"{name}/{key}", value


def _flatten(tree: Json, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of a nested dictionary by their dotted keys."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
