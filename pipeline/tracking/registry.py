"""Register an arm's product as an MLflow model, which can be loaded without soilweave installed."""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import model
from model.pyfunc import CALIBRATION_FILE, ProductModel
from model.recipe import ModelKey
from pipeline import files
from pipeline.errors import redact_urls
from pipeline.storage import models, product_facts, provenance
from pipeline.tracking.runs import KEY_TAG

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel

    from pipeline.tracking.runs import Runs


ALIAS = "champion"
REQUIREMENTS = ("numpy", "pydantic", "safetensors", "torch")  # packages that `model` imports
SHOWN_SCORES = ("correlation", "rmse", "ubrmse", "bias")  # in the description of a product
EXAMPLE_DAYS = 40  # length of the input example that is saved with the model


def register_product(runs: Runs, arm: Any, digest: str, scored: bool) -> None:
    """Register the models of an arm that leave no site out, as a version of `{experiment}-{arm}`.

    The alias `champion` is moved to that version. If the server has a version with the same digest,
    only the alias is moved and the description is updated.

    Args:
      runs: The runs of the experiment.
      arm: Name of the arm.
      digest: Digest of the product.
      scored: Whether the workspace has scores of it, which are then part of its description.
    """
    client, name = runs.client, f"{runs.experiment.name}-{arm}"
    by_digest = {v.tags.get(KEY_TAG): v for v in client.search_model_versions(f"name = '{name}'")}
    registered = by_digest.get(digest)
    if registered is None:
        logged = _log_model(runs, arm, digest)
        if not by_digest:
            _create_registered_model(runs, name)
        tags = {
            KEY_TAG: digest,
            "git_commit": provenance.code_commit() or "unknown",
            "workspace": redact_urls(files.make_absolute(runs.workspace.root)),
        }
        registered = client.create_model_version(
            name,
            f"models:/{logged.model_id}",
            run_id=logged.source_run_id,
            tags=tags,
            model_id=logged.model_id,
        )
    client.set_registered_model_alias(name, ALIAS, registered.version)
    runs.record["versions"][arm] = str(registered.version)
    description = describe_product(runs, arm, scored)
    client.update_model_version(name, registered.version, description)
    client.update_registered_model(name, description)


def describe_product(runs: Runs, arm: Any, scored: bool) -> str:
    """Return the description of an arm's product: arm, recipe, data and, if known, scores."""
    experiment, sources = runs.experiment, runs.experiment.sources
    facts = product_facts.read_facts(experiment, runs.workspace.url("models"), arm)
    target = experiment.target
    first_day, last_day = experiment.train_period
    lines = [
        f"{experiment.name}: {experiment.title}",
        f"Predicts {target} ({experiment.table[target].units}) daily, with a standard deviation.",
        f"Arm: {arm}. Recipe: {experiment.recipe}, {len(facts.seeds)} seeds.",
        f"Data: catalog {sources.catalog}; inputs: {', '.join(facts.inputs)}; "
        f"learnt from {'; '.join(facts.learnt_from())}; {first_day} to {last_day}.",
    ]
    if scored:
        summary = files.read_json(runs.workspace.url("summary.json")) or {}
        median = summary.get("arms", {}).get(arm, {}).get("median", {})
        shown = [f"{k} {median[k]:.3g}" for k in SHOWN_SCORES if median.get(k) is not None]
        lines += [f"Median over held-out sites: {', '.join(shown)}."] if shown else []
    return "\n\n".join(lines)


def _create_registered_model(runs: Runs, name: str) -> None:
    """Create a registered model, if the server has none of that name."""
    from mlflow.exceptions import MlflowException

    try:
        runs.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _log_model(runs: Runs, arm: Any, digest: str) -> LoggedModel:
    """Log the model to the run of the models that leave no site out; return it.

    A model whose upload was interrupted is continued.
    """
    from mlflow.entities import LoggedModelOutput

    client, run_id = runs.client, runs.child(arm, models.ALL_SITES).info.run_id
    experiment_id = runs.record["experiment"]
    candidates = client.search_logged_models([experiment_id], f"tags.`{KEY_TAG}` = '{digest}'")
    logged = next((m for m in candidates if m.source_run_id == run_id), None)
    if logged is None:
        logged = client.create_logged_model(experiment_id, arm, run_id, tags={KEY_TAG: digest})
    if logged.status != "READY":
        with tempfile.TemporaryDirectory() as folder:
            save_pyfunc(runs, arm, Path(folder), logged)
            client.log_model_artifacts(logged.model_id, str(Path(folder, "model")))
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, 0)])
        client.finalize_logged_model(logged.model_id, "READY")
    return logged


def save_pyfunc(runs: Runs, arm: Any, folder: Path, logged: LoggedModel) -> None:
    """Write a pyfunc model to `folder`/model: weights, calibration, and the code of `model`."""
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    product = _collect_product(runs, arm, folder / "data")
    float32, n = np.dtype("float32"), len(product.inputs)
    outputs = [TensorSpec(float32, (-1, -1), name) for name in ("mean", "std")]
    signature = ModelSignature(
        Schema([TensorSpec(float32, (-1, -1, n))]),
        Schema(outputs),  # type: ignore[arg-type]
    )
    table, target = runs.experiment.table, runs.experiment.target
    metadata = {
        "inputs": list(product.inputs),
        "units": {name: table[name].units for name in product.inputs},
        "target": target,
        "target_units": table[target].units,
        "training_sites": len(product.members[0].origin["training_sites"]),
    }
    pyfunc.save_model(
        folder / "model",
        loader_module="model.pyfunc",
        data_path=str(folder / "data"),
        code_paths=[str(Path(model.__file__).parent)],
        mlflow_model=Model(
            artifact_path=logged.artifact_location,
            run_id=logged.source_run_id,
            model_uuid=logged.model_id,
            model_id=logged.model_id,
        ),
        signature=signature,
        input_example=product.example(EXAMPLE_DAYS),
        pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS],
        metadata=metadata,
    )


def _collect_product(runs: Runs, arm: Any, folder: Path) -> ProductModel:
    """Copy the members and the calibration of an arm's product into a folder, and load it."""
    folder.mkdir()
    root = runs.workspace.url("models")
    for seed in models.list_seeds(root, arm):
        data = files.read_bytes(models.checkpoint_url(root, ModelKey(arm, models.ALL_SITES, seed)))
        (folder / f"seed-{seed:03d}.safetensors").write_bytes(data)
    calibration = models.read_calibrations(root, arm)[models.fold_name(models.ALL_SITES)]
    (folder / CALIBRATION_FILE).write_text(calibration.model_dump_json())
    return ProductModel.load(folder)
