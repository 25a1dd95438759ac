"""What the server shows: a publication, or an experiment in a workspace in the form of one.

A page of the viewer reads `latest.json` and then the objects of one release. A publication is
served as it is. Of an experiment, what a release would have is made when it is asked for: the
collection, and the series of sites and footprints, which are kept in a temporary folder.
"""

from __future__ import annotations

import json
import re
import tempfile
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pipeline import files
from pipeline.errors import ConfigError, SoilweaveError, StoreError, redact_urls
from pipeline.publish import browser_files, stac
from pipeline.storage import publications
from pipeline.storage.cube import Cube
from pipeline.storage.publications import COLLECTION, LATEST, RELEASES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.experiment.config import Experiment
    from pipeline.storage.artefacts import Workspace
    from pipeline.storage.publications import Release


# No part of a key begins with a dot, so none leads out of the folder.
KEY = re.compile(r"[\w=+-][\w.=+-]*(?:/[\w=+-][\w.=+-]*)*", re.ASCII)
FOLDER = "experiment"  # stands for the folder of a release
SITES, FOOTPRINTS = "sites", "footprints"  # how the keys of the series begin
INDEX = "sites.geojson"
SCORES = "scores.parquet"  # without them there are no series of sites
COPIED = ("report.html",)  # of an experiment, beside its maps


@dataclass(frozen=True)
class Served:
    """An object that is served.

    Attributes:
      url: Its URL; "" if `data` is its content.
      data: Its content, if it has no URL.
      immutable: Whether it never changes.
    """

    url: str = ""
    data: bytes = b""
    immutable: bool = False


class Shown(Protocol):
    """What is shown.

    Attributes:
      arms: The arms that have maps.
    """

    arms: tuple[str, ...]

    def find(self, key: str) -> Served | None:
        """Return the object at a key, which exists or not; None if none is served there."""

    def close(self) -> None:
        """Remove what was made."""


def find_shown(url: str, workspace: Workspace) -> Shown:
    """Return what is to be shown.

    Args:
      url: URL of the folder of an experiment, of a publication or of a release.
      workspace: The same, as a workspace.

    Raises:
      StoreError: If there are no complete maps.
    """
    release = publications.find_release(url)
    if release is None:
        return ShownExperiment(workspace)
    return ShownPublication(url, release)


class ShownPublication:
    """A publication, or one of its releases."""

    def __init__(self, url: str, release: Release) -> None:
        """Show the latest release, or the one at the URL."""
        url = url.rstrip("/")
        self.arms = tuple(release.manifest["arms"])
        root, _, name = url.rpartition(f"/{RELEASES}/")
        self._root, self._only = (root, name) if root else (url, "")

    def find(self, key: str) -> Served | None:
        """Return the object at a key; see `Shown`."""
        if key == LATEST:
            return Served(data=self._latest())
        if KEY.fullmatch(key) and key.startswith(f"{RELEASES}/"):
            return Served(files.join(self._root, key), immutable=True)
        return None

    def close(self) -> None:
        """Do nothing: there is nothing of its own."""

    def _latest(self) -> bytes:
        """Return latest.json, with the URL of the release."""
        path = f"{RELEASES}/{self._only}"
        if not self._only:
            found = publications.read_latest(self._root)
            if found is None:
                raise FileNotFoundError(files.join(self._root, LATEST))
            path = found[0]["path"]
        return _latest(path, files.join(self._root, path))


class ShownExperiment:
    """An experiment in a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        """Show the maps of an experiment.

        Raises:
          StoreError: If it has no complete maps.
        """
        self._workspace, self._experiment = workspace, workspace.place(workspace.described())
        manifest = workspace.artefact("maps").manifest()
        if manifest is None:
            hint = f"make them first: soilweave predict {workspace.root.rpartition('/')[2]}"
            raise StoreError(workspace.url("maps"), "no complete maps to view", remedy=hint)
        self.arms: tuple[str, ...] = tuple(self._experiment.arms)
        self._through = str(manifest.get("complete_through", self._experiment.period[1]))
        makers = {SITES: browser_files.site_files, FOOTPRINTS: browser_files.footprint_files}
        self._made = {name: Made(self._series(make)) for name, make in makers.items()}

    def find(self, key: str) -> Served | None:
        """Return the object at a key; see `Shown`."""
        folder, _, name = key.partition("/")
        if key == LATEST:
            return Served(data=_latest(FOLDER, self._workspace.root))
        if folder != FOLDER or not KEY.fullmatch(key):
            return None
        if name == COLLECTION:
            return Served(data=self._collection())
        if name.startswith("maps/") or name in COPIED:
            return Served(self._workspace.url(name))
        for begins, made in self._made.items():
            if name.startswith(begins):
                data = made.read(name)
                return None if data is None else Served(data=data)
        return None

    def close(self) -> None:
        """Remove the series."""
        for made in self._made.values():
            made.close()

    def _collection(self) -> bytes:
        present = [name for name in COPIED if files.exists(self._workspace.url(name))]
        if self._experiment.models is None and files.exists(self._workspace.url(SCORES)):
            present.append(INDEX)
        made = stac.stac_files(self._experiment, self._workspace, self._through, present)
        return dict(made)[COLLECTION]

    def _series(
        self, make: Callable[[Experiment, Workspace, Cube], Iterator[tuple[str, bytes]]]
    ) -> Callable[[], Iterator[tuple[str, bytes]]]:
        """Return what makes the files of sites or of footprints; nothing if there are none."""

        def files_of() -> Iterator[tuple[str, bytes]]:
            if self._experiment.models is not None:
                return
            cube = Cube.of(self._experiment, self._workspace)
            present = cube.site_ids if make is browser_files.site_files else cube.footprints
            if present is not None and len(present):
                yield from make(self._experiment, self._workspace, cube)

        return files_of


class Made:
    """Files that are made when the first of them is asked for, and kept in a temporary folder."""

    def __init__(self, make: Callable[[], Iterator[tuple[str, bytes]]]) -> None:
        """Keep what makes them."""
        self._make, self._lock = make, threading.Lock()
        self._keys: dict[str, str] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def read(self, key: str) -> bytes | None:
        """Return the content of a file; None if there is none.

        An experiment that was not evaluated has no series; its maps are shown without them.
        """
        with self._lock:
            if self._keys is None:
                self._keys = self._written()
        path = self._keys.get(key)
        return None if path is None else files.read_bytes(path)

    def close(self) -> None:
        """Remove the folder."""
        with self._lock:
            if self._folder is not None:
                self._folder.cleanup()

    def _written(self) -> dict[str, str]:
        """Make the files, and return the path of each by its key."""
        paths: dict[str, str] = {}
        try:
            for key, data in self._make():
                self._folder = self._folder or tempfile.TemporaryDirectory(prefix="soilweave-view-")
                paths[key] = files.join(self._folder.name, str(len(paths)))
                files.write_bytes(paths[key], data)
        except SoilweaveError:
            return {}
        return paths


def check_arm(shown: Shown, arm: str | None, url: str) -> None:
    """Check that there are maps of an arm.

    Raises:
      ConfigError: If not.
    """
    if arm is not None and arm not in shown.arms:
        raise ConfigError(f"--arm {arm}", f"{url} has the arms {', '.join(shown.arms)}")


def _latest(path: str, source: str) -> bytes:
    return json.dumps({"path": path, "source": redact_urls(source)}).encode()
