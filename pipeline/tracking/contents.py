"""What a workspace has that can be logged to MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import files
from pipeline.experiment import config, renamed
from pipeline.storage import models, schema
from pipeline.storage.artefacts import digest_of
from pipeline.storage.cube import Cube

if TYPE_CHECKING:
    from model.recipe import ModelKey
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.storage.artefacts import Workspace


# Each is made from those before it.
ARTEFACT_CHAIN = ("cube", "folds", "models", "maps", "scores", "report")
# The items that are logged of an artefact.
LOGGED_PARTS = {
    "folds": ("folds",),
    "scores": ("scores", "summary.json", "scores.parquet"),
    "report": ("report",),
}


def loggable_digests(experiment: Experiment, workspace: Workspace) -> Json:
    """Return what the workspace has of these settings.

    Returns:
      `logged`, the digest of each item to log: `experiment kind`, `experiment` (its settings),
        `experiment.yaml`, `folds`, `models/{arm}/fold=../seed=..` (a training curve),
        `models/{arm}` (the product of an arm, and its description), `scores` (as metrics),
        `summary.json`, `scores.parquet`, `report`; `curves`, the model of each training curve, by
        item; `products`, the digest of each arm's product; `models`, the identity of the models;
        `foreign`, whether there is an artefact with other settings.
    """
    settings = config.shown_settings(experiment, exclude={*config.NOT_OF_THE_RUN})
    digest = files.sha256_of_json(renamed.with_original_names(settings))
    logged = {"experiment kind": "", "experiment": digest, "experiment.yaml": digest}
    digests: dict[str, str] = {}
    products: dict[str, str] = {}
    curves: dict[str, ModelKey] = {}
    foreign = False
    for name in ARTEFACT_CHAIN:
        holder = workspace.prepared(experiment) if name == "cube" else workspace
        artefact = holder.artefact(name)
        manifest = artefact.manifest()
        if manifest is None and name == "models":
            manifest = artefact.begun()
        if manifest is None:
            continue
        own_inputs = schema.identity(experiment, name) if holder is workspace else {}
        own_inputs = schema.as_recorded(own_inputs, manifest["inputs"])
        same = all(manifest["inputs"].get(key) == value for key, value in own_inputs.items())
        if not same or any(manifest["inputs"].get(k, d) != d for k, d in digests.items()):
            foreign = True
            break
        digests[name] = Cube.digest(manifest, experiment) if name == "cube" else digest_of(manifest)
        if name == "models":
            all_models = models.list_workspace_models(workspace, experiment)
            curves = {models.model_folder("models", key): key for key in all_models}
            histories, products = _model_digests(experiment, workspace, manifest, curves)
            logged |= histories
        elif name in LOGGED_PARTS:
            made = files.sha256_of_json([manifest["inputs_sha256"], manifest["created"]])
            logged |= dict.fromkeys(LOGGED_PARTS[name], made)
    for arm, product in products.items():  # its description has its scores
        logged[f"models/{arm}"] = files.sha256_of_json([product, logged.get("scores")])
    return {
        "logged": logged,
        "curves": curves,
        "products": products,
        "models": digests.get("models"),
        "foreign": foreign,
    }


def _model_digests(
    experiment: Experiment, workspace: Workspace, manifest: Json, curves: dict[str, ModelKey]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return digests of the curves and, once all models exist, of each arm's product by arm."""
    if "shards" not in manifest:
        root = workspace.url("models")
        unfinished = set(models.unfinished_models(root, list(curves.values())))
        return {
            item: files.sha256(files.read_bytes(workspace.url(item, "history.parquet")))
            for item, key in curves.items()
            if key not in unfinished
        }, {}
    shards = {f"models/{shard['key']}": shard["sha256"] for shard in manifest["shards"]}
    histories = {item: shards[f"{item}/history.parquet"] for item in curves}
    products: dict[str, str] = {}
    for arm in experiment.arms:
        prefixes = (
            f"models/{arm}/fold={models.fold_name(models.ALL_SITES)}/",
            f"models/{arm}/calibration",
        )
        product_shards = sorted((k, v) for k, v in shards.items() if k.startswith(prefixes))
        products[arm] = files.sha256_of_json(
            [item for item in product_shards if "history" not in item[0]]
        )
    return histories, products
