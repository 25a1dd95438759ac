"""What maps were made from: the manifests followed from the maps to the models and the cube."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pipeline.experiment import shipped_models
from pipeline.storage import artefacts
from pipeline.storage.artefacts import Artefact
from pipeline.storage.cube import Cube

if TYPE_CHECKING:
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.storage.artefacts import Workspace


CHAIN = ("maps", "models", "folds", "cube")
CHECKPOINT = re.compile(r"(?P<arm>[^/]+)/fold=all/seed=(?P<seed>\d+)/checkpoint\.safetensors")


def read_chain(experiment: Experiment, workspace: Workspace) -> dict[str, Json]:
    """Read the manifests of the maps and of what they were made from.

    Args:
      experiment: The experiment, which may use the cube or the models of another one.
      workspace: Its folder in the workspace.

    Returns:
      The manifests of the complete artefacts, by the names in CHAIN. The `identity` of the cube is
        that of the part of it that the experiment uses.

    Raises:
      DamagedError: If a manifest cannot be decoded.
    """
    holders = {name: workspace.artefact(name) for name in CHAIN}
    holders["cube"] = workspace.prepared(experiment).artefact("cube")
    if experiment.models is not None:
        url = shipped_models.models_url(experiment.models)
        holders["models"] = Artefact("models", f"{url}/")
    manifests = {name: artefact.manifest() for name, artefact in holders.items()}
    found = {name: manifest for name, manifest in manifests.items() if manifest is not None}
    if cube := found.get("cube"):
        found["cube"] = cube | {"identity": Cube.digest(cube, experiment)}
    return found


def describe_chain(manifests: dict[str, Json]) -> dict[str, Json]:
    """Return `digest`, `made` (when) and `commit` of each artefact."""
    return {
        name: {
            "digest": artefacts.digest_of(manifest),
            "made": manifest["created"],
            "commit": manifest.get("git_commit"),
        }
        for name, manifest in manifests.items()
    }


def find_stale(experiment: Experiment, manifests: dict[str, Json]) -> list[str]:
    """Return a sentence for each artefact that was not made from those that are there.

    The models of another experiment have folds and a cube of their own, which are not here.

    Args:
      experiment: The experiment.
      manifests: Its manifests, as returned by `read_chain`.
    """
    problems = []
    borrowed = ("models",) if experiment.models is not None else ()
    for name, manifest in manifests.items():
        if name in borrowed:
            continue
        for source in CHAIN:
            recorded = manifest["inputs"].get(source, "none")
            if recorded == "none":
                continue
            made = f"{name}: made from {source} {recorded[:12]}"
            if source not in manifests:
                problems.append(f"{made}, which is not there")
            elif (present := artefacts.digest_of(manifests[source])) != recorded:
                problems.append(f"{made}, but {present[:12]} is there: stale")
    return problems


def list_members(manifests: dict[str, Json], arm: str) -> list[Json]:
    """Return `seed` and `sha256` of each checkpoint that makes the maps of an arm, by seed."""
    found = []
    for record in manifests.get("models", {}).get("shards", ()):
        match = CHECKPOINT.fullmatch(record["key"])
        if match and match["arm"] == arm:
            found.append({"seed": int(match["seed"]), "sha256": record["sha256"]})
    return sorted(found, key=lambda member: int(member["seed"]))
