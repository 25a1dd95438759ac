"""The maps that are asked about: those of an experiment in a workspace, or of a release."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import ConfigError, StoreError
from pipeline.experiment.config import experiment_window, reference_arm
from pipeline.storage import publications
from pipeline.storage.artefacts import Workspace

if TYPE_CHECKING:
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.grid.ease import Window
    from pipeline.storage.publications import Release


@dataclass(frozen=True)
class Subject:
    """The maps of one arm, the cell and the day.

    Attributes:
      home: The folder of the experiment, or of the release, which has tables of the same names.
      release: The release; None for an experiment in a workspace.
      experiment: The experiment that was run.
      window: The cells of the maps.
      arm: The arm.
      lat: The latitude that was asked for, in degrees north.
      lon: The longitude, in degrees east.
      day: The day.
      row: Row of the cell.
      col: Column of the cell.
    """

    home: Workspace
    release: Release | None
    experiment: Experiment
    window: Window
    arm: str
    lat: float
    lon: float
    day: date
    row: int
    col: int

    @property
    def footprint(self) -> tuple[int, int]:
        """Row and column of the footprint that contains the cell."""
        refinement = self.window.refinement
        return self.row // refinement, self.col // refinement


def find_subject(url: str, lat: float, lon: float, day: date, arm: str | None) -> Subject:
    """Find the maps at a URL, and the cell at a place.

    Args:
      url: URL of an experiment's folder, of a publication or of a release, or of the maps of an arm
        in one of them (maps/ARM.zarr).
      lat: Degrees north.
      lon: Degrees east.
      day: The day.
      arm: The arm; None for `multiscale`, or else the first.

    Raises:
      StoreError: If there are no complete maps at the URL.
      ConfigError: If the arm, the place or the day is not in the maps; it names all problems.
    """
    url, arm = _split(files.make_absolute(url).rstrip("/"), arm)
    release = publications.find_release(url)
    home = Workspace(url if release is None else release.url)
    experiment = home.described()
    through = str(release.manifest["complete_through"]) if release else _complete_through(home)
    experiment = experiment if release else home.place(experiment)
    window = experiment_window(experiment)
    first, last = experiment.period[0], date.fromisoformat(through)
    row, col = window.cell_at(lat, lon)
    problems = []
    if arm is not None and arm not in experiment.arms:
        problems.append(f"arm {arm}: the maps have the arms {', '.join(experiment.arms)}")
    if row < 0:
        lats, lons = window.cell_edges
        problems.append(
            f"{format_place(lat, lon)} is outside of the maps, which cover {lats[-1]:.2f} to "
            f"{lats[0]:.2f} degrees north and {lons[0]:.2f} to {lons[-1]:.2f} degrees east"
        )
    if not first <= day <= last:
        problems.append(f"{day} is outside of the maps, which cover {first} to {last}")
    if problems:
        raise ConfigError(url, *problems)
    chosen = arm or reference_arm(experiment.arms)
    return Subject(home, release, experiment, window, chosen, lat, lon, day, row, col)


def _split(url: str, arm: str | None) -> tuple[str, str | None]:
    """Return the folder that maps are in, and the arm.

    Raises:
      ConfigError: If the URL is that of maps alone, or of those of another arm.
    """
    folder, found = publications.split_store(url)
    if found is None and url.endswith(publications.STORE):
        problem = "maps alone do not say what they were made from"
        hint = "give the experiment's folder in its workspace, or the URL of a publication"
        raise ConfigError(url, problem, remedy=hint)
    if found is not None and arm not in (None, found):
        raise ConfigError(f"--arm {arm}", f"{url} has the maps of {found}")
    return folder, found or arm


def _complete_through(home: Workspace) -> str:
    """Return the last day of an experiment's maps, after a check that they are complete.

    Raises:
      StoreError: If they are not, or an object differs from the manifest.
    """
    artefact = home.artefact("maps")
    manifest: Json | None = artefact.manifest()
    if manifest is None:
        name = home.root.rpartition("/")[2]
        hint = f"make them first: soilweave predict {name}"
        raise StoreError(home.url("maps"), "no complete maps to explain", remedy=hint)
    artefact.check_objects(manifest)
    return str(manifest.get("complete_through", home.described().period[1]))


def format_place(lat: float, lon: float) -> str:
    """Return a place as text, such as `39.120 N 101.350 W`."""
    north, east = "N" if lat >= 0 else "S", "E" if lon >= 0 else "W"
    return f"{abs(lat):.3f} {north} {abs(lon):.3f} {east}"
