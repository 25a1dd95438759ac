"""What a job needs, in one folder: the code, the experiment resolved, its catalogs and recipe."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline import catalog, commit, files, resolve, store
from pipeline.config import REGIONS
from pipeline.errors import ConfigError

PACKAGES = ("model", "pipeline", "catalogs")
LIMIT_MB = 4  # ours are under one; Ray's own limit, 100 MiB, would let a data set pass
ROLES = ("forcing", "static", "satellite", "insitu", "truth")


@dataclass(frozen=True)
class Order:
    """`soilweave VERB EXPERIMENT` with its options, to run as a job."""

    experiment: str
    verb: str
    workspace: str
    name: str | None = None
    overwrite: bool = False
    settings: tuple[str, ...] = ()


def gather(order: Order, folder: Path) -> str:
    """Put what a job needs into a folder: the code, its commit, the experiment resolved.

    Catalogs, a recipe and regions that are local files come along. Returns the experiment's name.

    Raises:
      ConfigError: listing every problem of the experiment, or what makes the upload too large.
    """
    tree = resolve.experiment(order.experiment, order.settings, order.name).model_dump(mode="json")
    if _is_local(tree["recipe"]):
        shutil.copyfile(tree["recipe"], folder / "recipe.yaml")
        tree["recipe"] = "recipe.yaml"
    regions = tree["folds"]["by"]
    if regions not in REGIONS and "://" not in regions:
        if not files.exists(regions):
            raise ConfigError(f"folds.by {regions}", "not found", remedy="correct the path")
        shutil.copyfile(regions, folder / "regions.geojson")
        tree["folds"]["by"] = "regions.geojson"
    brought: dict[str, str] = {}
    sources = tree["sources"]
    sources["catalog"] = _brought(sources["catalog"], folder, brought)
    for section, key in ((sources, role) for role in ROLES):
        section[key] = _renamed(section[key], folder, brought)
    tree["baselines"] = _renamed(tree["baselines"], folder, brought)
    for section, key in ((tree, "cube"), (tree, "models"), (tree["planet"] or {}, "url")):
        if section.get(key):  # nodes have another working directory
            section[key] = files.absolute(section[key])
    (folder / "experiment.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for package in PACKAGES:
        source = Path(__file__).resolve().parents[1] / package
        shutil.copytree(source, folder / package, ignore=ignored)
    if found := store.git_commit():
        (folder / "pipeline" / commit.RECORD).write_text(f"{found}\n")
    _check_size(folder)
    return str(tree["name"])


def _brought(name: str, folder: Path, brought: dict[str, str]) -> str:
    """A catalog's name in the folder; local files, and those nested in them, are copied there."""
    if "://" in name:
        return name
    found = catalog.locate(name)
    if not _is_local(name):
        return name
    if name not in brought:
        brought[name] = f"catalog-{len(brought)}.yaml" if brought else "catalog.yaml"
        tree = yaml.safe_load(files.read_bytes(found))
        for spec in (tree.get("sources") or {}).values():
            if inner := catalog.nested(files.absolute(name), spec):
                here = _brought(inner, folder, brought)
                spec["args"]["path"] = here if "://" in here else "{{CATALOG_DIR}}/" + here
        (folder / brought[name]).write_text(yaml.safe_dump(tree, sort_keys=False))
    return brought[name]


def _renamed(entries: Any, folder: Path, brought: dict[str, str]) -> Any:
    """Entries of local catalogs (`FILE.yaml:name`) by the catalogs' names in the folder."""
    if isinstance(entries, list):
        return [_renamed(entry, folder, brought) for entry in entries]
    if entries is None:
        return None
    file, colon, name = str(entries).rpartition(":")
    return f"{_brought(file, folder, brought)}:{name}" if colon and _is_local(file) else entries


def _is_local(name: str) -> bool:
    """Whether a recipe or a catalog is a local file, not a preset or a URL."""
    return "://" not in name and name.endswith((".yaml", ".yml"))


def _check_size(folder: Path) -> None:
    size = {p: p.stat().st_size / 2**20 for p in folder.rglob("*") if p.is_file()}
    if (total := sum(size.values())) > LIMIT_MB:
        largest = sorted(size, key=lambda p: -size[p])[:3]
        told = ", ".join(f"{p.relative_to(folder)} {size[p]:.1f} MB" for p in largest)
        found = f"{total:.1f} MB, at most {LIMIT_MB}; the largest: {told}"
        raise ConfigError("upload", found, remedy="move data out of the packages")
