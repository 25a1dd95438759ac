"""What the maps were made from, by the digests in the manifests, and whether it is still there.

An experiment's manifests are followed from the maps to the models, the folds and the cube. A
release has its model card, which records the same digests as they were when it was published.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import files
from pipeline.storage import artefacts, origins

if TYPE_CHECKING:
    from pipeline.explain.subject import Subject
    from pipeline.files import Json


def describe_origin(subject: Subject) -> Json:
    """Return what the maps were made from.

    Returns:
      `artefacts`: digest, date and commit of each; `updates`: the days that were added later;
      `stale`: a sentence for each that was not made from what is there now; `models`: the members
      of the arm, with the SHA-256 of their checkpoints; `entries`: the catalog entries, with
      licence and DOI; `catalog`; `mlflow`: the ids of the runs, if they were logged; `release`: the
      release, if it is one.
    """
    if subject.release is not None:
        return _of_release(subject)
    manifests = origins.read_chain(subject.experiment, subject.home)
    return {
        "artefacts": origins.describe_chain(manifests),
        "updates": manifests["maps"].get("updated", []),
        "stale": origins.find_stale(subject.experiment, manifests),
        "models": origins.list_members(manifests, subject.arm),
        "catalog": subject.experiment.sources.catalog,
        "entries": _entries(manifests.get("cube", {}).get("entries", {})),
        "mlflow": _mlflow(subject, manifests),
        "release": None,
    }


def _of_release(subject: Subject) -> Json:
    """Return what a release records; see `describe_origin`."""
    assert subject.release is not None
    card = files.read_json(subject.home.url("card.json")) or {}
    keys = ("release", "created", "content_sha256")
    return {
        "artefacts": card.get("made_from", {}),
        "updates": [],
        "stale": [],
        "models": card.get("arms", {}).get(subject.arm, {}).get("checkpoints", []),
        "catalog": card.get("catalog"),
        "entries": _entries(card.get("data", {})),
        "mlflow": None,
        "release": {key: subject.release.manifest[key] for key in keys},
    }


def _entries(entries: Json) -> Json:
    """Return licence and DOI of catalog entries, by name."""
    return {
        name: {key: about.get(key, "not stated") for key in ("license", "doi")}
        for name, about in entries.items()
    }


def _mlflow(subject: Subject, manifests: dict[str, Json]) -> Json | None:
    """Return the ids of the runs in MLflow; None if these models were not logged."""
    record = files.read_json(subject.home.url("mlflow.json"))
    models = manifests.get("models")
    if record is None or models is None or record.get("models") != artefacts.digest_of(models):
        return None
    return {
        "uri": record.get("uri"),
        "run": record.get("parent"),
        "run_of_the_models": record.get("children", {}).get(f"{subject.arm}/fold=all"),
        "version": record.get("versions", {}).get(subject.arm),
    }
