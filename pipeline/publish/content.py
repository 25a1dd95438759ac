"""Choose what a release contains: objects of the experiment, and files that are made from them.

  maps/{arm}.zarr, next_probes.csv: as `predict` and `update` have written them.
  scores.parquet, summary.json, site_scores.csv, collocated.zip, report.html, folds.parquet,
    folds.geojson: as `evaluate` and `prepare` have written them.
  export/*: GeoTIFF and NetCDF that `export` has made in the experiment's folder, if they show
    the maps as they are.
  sites.geojson, sites/*.json, footprints.json, footprints/*.json: see browser_files.
  card.md, card.json: see model_card.
  experiment.yaml: the settings, without secrets.
  README.txt, intake.yaml: see reading_files.
  collection.json, items/{arm}.json: the release in STAC, see stac.

What is made from an experiment depends on its artefacts alone, so that an unchanged experiment has
the same content.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from pipeline import files
from pipeline.errors import DamagedError, StoreError
from pipeline.experiment.config import shown_settings
from pipeline.progress import SilentProgress
from pipeline.publish import browser_files, model_card, reading_files, stac
from pipeline.storage import artefacts, exports, records, verify
from pipeline.storage.cube import Cube

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.experiment.config import Experiment
    from pipeline.experiment.product import ProductConfig
    from pipeline.files import Json
    from pipeline.storage.artefacts import Workspace
    from pipeline.storage.exports import Exported


PUBLISHED = ("folds", "maps", "scores", "report")  # artefacts whose objects are published
NEEDED = ("folds", "models", "maps", "scores", "report")
COMMANDS = artefacts.COMMANDS | {"scores": "evaluate", "report": "evaluate"}


@dataclass(frozen=True)
class Item:
    """One object of a release.

    Attributes:
      key: Its key in the release.
      size: Its size in bytes.
      sha256: Its SHA-256.
      source: URL of the object that it is a copy of; "" if it was made for the release.
      data: Its content, if it was made for the release.
    """

    key: str
    size: int
    sha256: str
    source: str = ""
    data: bytes = b""

    def read(self) -> bytes:
        """Return the content.

        Raises:
          StoreError: If the source has changed or is damaged.
        """
        if not self.source:
            return self.data
        try:
            data = files.read_bytes(self.source)
        except FileNotFoundError:
            data = None
        if data is None or files.sha256(data) != self.sha256:
            problem = "is missing" if data is None else "differs from what its manifest records"
            hint = (
                "if the experiment was being updated, publish it again; else run soilweave verify"
            )
            raise StoreError(self.source, problem, remedy=hint)
        return data


@dataclass(frozen=True)
class Content:
    """Everything that a release of an experiment contains.

    Attributes:
      experiment: The experiment.
      items: All objects, by key.
      complete_through: The last day of the maps.
    """

    experiment: Experiment
    items: tuple[Item, ...]
    complete_through: str

    @property
    def digest(self) -> str:
        """The digest of all keys and contents."""
        return files.sha256_of_json([[item.key, item.sha256] for item in self.items])


def check_publishable(workspace: Workspace) -> Experiment:
    """Check that an experiment is complete and as its manifests record, without reading shards.

    Returns:
      The experiment that was run.

    Raises:
      StoreError: If an artefact is not complete, stale or damaged, or an update is not finished.
    """
    experiment = workspace.place(workspace.described())
    name = workspace.root.rpartition("/")[2]
    if files.exists(workspace.url("update")):
        hint = f"finish it first: soilweave update {name}"
        raise StoreError(workspace.url("update"), "an update is not finished", remedy=hint)
    needed = NEEDED if experiment.models is None else ("maps",)
    missing = [each for each in needed if workspace.artefact(each).manifest() is None]
    if missing:
        verbs = dict.fromkeys(COMMANDS[each] for each in missing)
        hint = "make it first: " + ", ".join(f"soilweave {verb} {name}" for verb in verbs)
        problem = f"is not complete: there is no complete {', '.join(missing)}"
        raise StoreError(workspace.root, problem, remedy=hint)
    found = verify.verify_workspace(workspace, SilentProgress(), read=False)
    # Exported files that are missing or stale are not published.
    ours = (p for p in found.problems if p.artefact != verify.EXPORT)
    problems = [str(p) for p in ours if p.kind != verify.UNLISTED]
    if problems:
        some = "; ".join(problems[:3]) + ("; ..." if len(problems) > 3 else "")
        hint = f"make it again with: soilweave verify {name} --repair"
        raise StoreError(workspace.root, f"is not as its manifests record: {some}", remedy=hint)
    for each in needed:
        artefact = workspace.artefact(each)
        artefact.check_objects(artefact.manifest() or {})
    return experiment


def collect(workspace: Workspace, product: ProductConfig | None = None) -> Content:
    """Return the content of a release of an experiment that is complete.

    Args:
      workspace: The experiment's folder in the workspace.
      product: Licence, creator and DOI to state; None for what was stated when it was run.

    Raises:
      StoreError: If the experiment is not complete, or something cannot be read.
    """
    experiment = check_publishable(workspace)
    if product is not None:
        experiment = experiment.model_copy(update={"product": product})
    manifests = {name: workspace.artefact(name).manifest() for name in PUBLISHED}
    present = {name: manifest for name, manifest in manifests.items() if manifest is not None}
    items = [
        Item(key, record["size"], record["sha256"], workspace.url(key))
        for name, manifest in present.items()
        for key, record in _recorded(workspace, name, manifest).items()
        if not key.startswith("state/")
    ]
    cube = Cube.of(experiment, workspace) if experiment.models is None else None
    through = str(present["maps"].get("complete_through", experiment.period[1]))
    items += _made(_made_files(experiment, workspace, cube, [*present]))
    items += _made(reading_files.reading_files(experiment, workspace, through))
    keys = [item.key for item in items]
    exported = _exports(workspace)
    items += [
        Item(each.key, each.record["size"], each.record["sha256"], workspace.url(each.key))
        for each in exported
    ]
    items += _made(stac.stac_files(experiment, workspace, through, keys, exported))
    return Content(experiment, tuple(sorted(items, key=lambda item: item.key)), through)


def _exports(workspace: Workspace) -> list[Exported]:
    """Return the files in `export/` to publish: maps as they are, not tables at a user's places."""
    there = files.list_folder(workspace.url(exports.FOLDER))
    return [
        each
        for each in exports.list_exports(workspace)
        if each.is_current
        and each.record["format"] in stac.EXPORT_TYPES
        and each.key.rpartition("/")[2] in there
    ]


def _made(made: Iterator[tuple[str, bytes]]) -> list[Item]:
    """Return the items of files that are made for a release."""
    return [Item(key, len(data), files.sha256(data), data=data) for key, data in made]


def _recorded(workspace: Workspace, name: str, manifest: Json) -> dict[str, Json]:
    """Return the records of an artefact's objects; old manifests do not record the metadata."""
    recorded = records.recorded_objects(name, manifest)
    if name != "maps" or "metadata" in manifest:
        return recorded
    keys = [f"maps/{key}" for key in files.list_objects(workspace.url("maps"))]
    metadata = records.metadata_keys(workspace.root, keys)
    return recorded | {r["key"]: r for r in records.read_records(workspace.root, metadata)}


def _made_files(
    experiment: Experiment, workspace: Workspace, cube: Cube | None, present: list[str]
) -> Iterator[tuple[str, bytes]]:
    """Yield the key and content of each file that is made for a release."""
    described = yaml.safe_dump(shown_settings(experiment), sort_keys=False, allow_unicode=True)
    yield "experiment.yaml", described.encode()
    yield from model_card.card_files(experiment, workspace, "scores" in present)
    if cube is None:
        return
    try:
        if cube.site_ids:
            yield from browser_files.site_files(experiment, workspace, cube)
        if cube.footprints is not None:
            yield from browser_files.footprint_files(experiment, workspace, cube)
    except KeyError as error:
        problem = f"lacks {error}"
        raise DamagedError(workspace.root, problem, remedy=files.DAMAGED_HINT) from error
