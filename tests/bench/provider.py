"""A provider of forcing that behaves as real ones do: late, preliminary at first, and revising.

It has one NetCDF file for each day, made from the forcing of a planet, and follows a fixed script.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr
import yaml

from pipeline.catalog import intake_catalog

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

DAY = datetime.timedelta(1)
NAME = "forcing_%Y%m%d.nc"
# How each version of a file differs from the planet's forcing: a factor of the precipitation, and
# an offset of the air temperature in K.
VERSIONS = {"final": (1.0, 0.0), "preliminary": (1.1, 0.3), "reissued": (0.8, -0.2)}


@dataclass(frozen=True)
class Script:
    """What happens on which day of the operation, counted from 1.

    Attributes:
      first: The day whose file comes on day 1.
      n_days: Days of operation.
      latency: Days between a day and its file.
      preliminary: Days between a day and its final file.
      late: The day on which nothing comes; it comes on the next.
      missing: The day whose new file never comes.
      allowed: The day on which the operator allows this gap in the catalog.
      reissued: The day on which the final file of an older day comes once more.
      reissued_back: How many days that older day lies back.
    """

    first: date
    n_days: int = 30
    latency: int = 2
    preliminary: int = 5
    late: int = 8
    missing: int = 15
    allowed: int = 17
    reissued: int = 22
    reissued_back: int = 40

    def today(self, number: int) -> date:
        """The date of a day of operation; day 0 is the one before the first."""
        return self.first + (number - 1 + self.latency) * DAY

    @property
    def gap(self) -> date:
        """The day whose file never comes."""
        return self.today(self.missing) - self.latency * DAY

    def sent(self, number: int) -> list[tuple[date, str]]:
        """The files of a day of operation: the day that each is for, and its version."""
        if number == self.late:
            return []
        sent = []
        for each in [number - 1, number] if number - 1 == self.late else [number]:
            today = self.today(each)
            pairs = [(self.latency, "preliminary"), (self.preliminary, "final")]
            sent += [(today - back * DAY, version) for back, version in pairs]
        if number == self.reissued:
            sent.append((self.today(number) - self.reissued_back * DAY, "reissued"))
        return [(day, version) for day, version in sent if day != self.gap]


@dataclass
class Provider:
    """The folder of a provider, and what a reader of it may expect.

    Attributes:
      folder: Where the files lie.
      script: What comes when.
      forcing: By day, the planet's forcing of that day.
      versions: By day, the version of the file that lies there.
    """

    folder: Path
    script: Script
    forcing: dict[date, xr.Dataset]
    versions: dict[date, str] = field(default_factory=dict)

    @classmethod
    def of_planet(cls, folder: Path, script: Script, planet: Path) -> Provider:
        """Begin with all files up to the first day of operation."""
        forcing = {}
        for path in sorted(planet.glob("forcing_*.nc")):
            with xr.open_dataset(path, engine="h5netcdf") as file:
                held = file.load()
            days = held.time.values.astype("datetime64[D]").tolist()
            forcing |= {day: held.isel(time=[i]) for i, day in enumerate(days)}
        folder.mkdir(parents=True)
        made = cls(folder, script, forcing)
        settled = script.today(0) - script.preliminary * DAY
        for day in forcing:
            if day < script.first:
                made.put(day, "final" if day <= settled else "preliminary")
        return made

    def put(self, day: date, version: str) -> None:
        """Write the file of a day, or replace it."""
        factor, offset = VERSIONS[version]
        changed = self.forcing[day].copy()
        for name, values in (
            ("APCP", changed.APCP * factor),
            ("TMP", changed.TMP + offset),
        ):
            changed[name] = values.astype("float32").assign_attrs(self.forcing[day][name].attrs)
        # NetCDF-3, which opens in a seventh of the time of NetCDF-4.
        changed.drop_encoding().to_netcdf(self.folder / day.strftime(NAME), engine="scipy")
        self.versions[day] = version

    def send(self, number: int) -> list[tuple[date, str]]:
        """Do what the script says for a day of operation, and return the files that came."""
        sent = self.script.sent(number)
        for day, version in sent:
            self.put(day, version)
        return sent

    def reach(self, number: int) -> date:
        """The last day that maps can have: what comes after a gap waits until it is allowed."""
        gap = self.script.gap
        days = set(self.versions) | ({gap} if number >= self.script.allowed else set())
        last = self.script.first - DAY
        while last + DAY in days:
            last += DAY
        return last if last in self.versions else last - DAY


def write_catalog(path: Path, provider: Provider, gaps: Sequence[date] = ()) -> None:
    """Write the catalog of the planet, with the provider's files as forcing.

    Args:
      path: The catalog.
      provider: The provider.
      gaps: Days whose files may be absent.
    """
    tree = yaml.safe_load(Path(intake_catalog.catalog_url("osse")).read_text())
    entry = tree["sources"]["forcing"]
    del entry["parameters"]
    entry["args"] |= {"urlpath": str(provider.folder / NAME)}
    if gaps:
        entry["args"]["gaps"] = [f"{day:%m-%d}" for day in gaps]
    entry["metadata"]["preliminary_days"] = provider.script.preliminary
    entry["metadata"]["origin"] = "the provider"
    entry["metadata"]["period"] = f"{min(provider.versions)}.."
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
