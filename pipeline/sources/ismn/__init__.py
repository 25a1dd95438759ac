"""The International Soil Moisture Network: an archive that its user downloaded, as daily sites.

In: a zip of ismn.earth or the folder it unpacks to, hourly values in UTC with flags. Out, as
`to_dask()` gives it to anyone:

  dims time, place; coords time (datetime64, a day), place (network_site), lat, lon (degrees),
  network, sensor, elevation (m), depth_from, depth_to (m), utc_offset_hours
  our names, float32, in our units; provider_flag (time, place), sums of bits, with flag_masks,
  flag_values and flag_meanings, `good` and `unchecked` (no check was applied)
  attributes time_convention, and notes: which records join several sensors
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.errors import DataError
from pipeline.sources import daily, http_errors, places
from pipeline.sources.form import Mapping, Source
from pipeline.sources.ismn import archive, choice, sensors
from pipeline.sources.ismn.days import TOLD, good_days, record

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.sources.ismn.choice import Record
    from pipeline.sources.ismn.sensors import Sensor

CONVENTION = {"utc": "UTC day", "local": "local standard time day"}


class IsmnSource(Source):
    """Intake driver for archives of the International Soil Moisture Network.

    Sensors of one depth that follow one another, such as a sensor and its replacement, are one
    record. Of several records the one with most good days in the wanted period is read, so that
    another period may have another one.

    Args:
      urlpath: the zip, or the folder it unpacks to; a zip elsewhere is copied to the user's cache.
      mapping: {our name: {"from": ISMN's name, "units": its units, "to": our units}}, or a list
        of such. Places are where the target (else the first) is measured; provider_flag is its.
      depth: top and bottom of the class of depths, m; a sensor lies within it.
      day: `utc`, or `local` for days of local standard time by the longitude.
      min_hours: hours of a day that good values must cover; each covers the time until the next
        one. Half a day by default: readings follow the soil's temperature through the day, and
        the mean of a night is not that of a day.
      several: of several records at one site in the class: the one that is `longest` in the
        period, by its good days, or the `mean` of all.
      login: as of Source.
      storage_options: passed to fsspec.
      metadata: what the catalog says of the entry.
    """

    name = "soilweave_ismn"

    def __init__(
        self,
        urlpath: str,
        mapping: Mapping | list[Mapping],
        depth: tuple[float, float] = (0.0, 0.075),
        day: Literal["utc", "local"] = "utc",
        min_hours: int = 12,
        several: Literal["longest", "mean"] = "longest",
        login: str | None = None,
        storage_options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Keep the arguments; nothing is opened yet."""
        super().__init__(urlpath, mapping, login, storage_options, metadata)
        if day not in CONVENTION:
            raise ValueError(f"day '{day}'; accepted: {', '.join(CONVENTION)}")
        if several not in ("longest", "mean"):
            raise ValueError(f"several '{several}'; accepted: longest, mean")
        if self.fills:
            raise ValueError("fill: not accepted; values of -999 and below are missing in ISMN")
        if not 1 <= min_hours <= 24:
            raise ValueError(f"min_hours {min_hours}; accepted: 1 to 24")
        self.depth = (float(depth[0]), float(depth[1]))
        self.day, self.min_hours, self.several = day, min_hours, several

    def digest(self) -> str:
        """Identifies the sensors' files, wherever and in whichever form the archive lies.

        Raises:
          DataError: there is none, or it is damaged.
        """
        return archive.digest(self.urlpath, self.storage_options, self.login)

    def to_dask(self) -> xr.Dataset:
        """The data in our names and units; the records are read when they are asked for.

        Raises:
          DataError: the archive is absent or damaged, or has no such sensor in the region.
        """
        import xarray as xr
        from dask.delayed import delayed

        path = archive.local(self.urlpath, self.storage_options, self.login)
        sites, left_out = self._sites(path)
        firsts = [chosen[0][0] for chosen in sites]
        offsets = [self._offset(first) for first in firsts]
        days = self._days(sites, offsets)
        where = (path, self.urlpath, self.storage_options, self.login)
        read = delayed(record, nout=2)
        parts = [
            read(where, [[r.members for r in h] for h in chosen], days, self.min_hours, offset)
            for chosen, offset in zip(sites, offsets, strict=True)
        ]
        names = places.by_target(self.mapping)
        held = places.side_by_side([part[0] for part in parts], len(days), names, "float32")
        flags = places.side_by_side([part[1] for part in parts], len(days), ["flag"], "int32")
        raw = xr.Dataset({name: (("time", "place"), values) for name, values in held.items()})
        made = self.translated(raw)
        made["provider_flag"] = xr.DataArray(flags["flag"], dims=("time", "place"), attrs=TOLD)
        coords = _coordinates(firsts) | {"utc_offset_hours": ("place", np.array(offsets))}
        coords["time"] = ("time", days.astype("datetime64[ns]"))
        attrs: dict[str, Any] = {"time_convention": CONVENTION[self.day]}
        if told := choice.notes(sites, left_out):
            attrs["notes"] = told
        return xr.Dataset(made, coords, attrs)

    read = to_dask

    def _sites(self, path: str) -> tuple[list[list[list[Record]]], list[tuple[Record, Record]]]:
        """For each site, for each variable, the records that are read; none where it lacks one.

        And records of the first variable that are read beside those that are not, although they
        have other days.
        """
        names = places.by_target(self.mapping)
        found, others = sensors.sensors(path, names, self.depth)
        groups: dict[tuple[str, str], list[Sensor]] = {}
        for sensor in found:
            if places.inside(sensor.lat, sensor.lon, self.region):
                groups.setdefault((sensor.network, sensor.site), []).append(sensor)
        sites: list[list[list[Record]]] = []
        left_out: list[tuple[Record, Record]] = []
        for _, group in sorted(groups.items()):
            records = choice.joined(group)
            first = self._chosen(path, records, names[0], None)
            if first:
                rest = [self._chosen(path, records, name, first[0]) for name in names[1:]]
                sites.append([first, *rest])
                held = [r for r in records if r.sensors[0].variable == names[0] and r not in first]
                left_out += [(first[0], r) for r in choice.longer(first[0], held, self._period)]
        if not sites:
            top, bottom = self.depth
            where = "" if self.region is None else " in the region"
            wanted = f"no {names[0]} at {top:g} to {bottom:g} m{where}"
            has = f"; it has {'; '.join(others)}" if others else ""
            place = http_errors.shown(self.urlpath)
            raise DataError(place, wanted + has, remedy="choose another depth or region")
        return sites, left_out

    def _chosen(
        self, path: str, records: list[Record], name: str, beside: Record | None
    ) -> list[Record]:
        """Records of a variable at a site: all of them, or the best of the period."""
        held = [record for record in records if record.sensors[0].variable == name]
        if self.several == "mean":
            return choice.ranked(held, beside, None, lambda record: self._good_days(path, record))
        period = self._period
        found = choice.ranked(held, beside, period, lambda record: self._good_days(path, record))
        return found[:1]

    def _good_days(self, path: str, record: Record) -> NDArray[np.datetime64]:
        return good_days(path, record.members, self.min_hours, self._offset(record))

    def _offset(self, record: Record) -> int:
        """Hours from UTC to the time whose days are meant."""
        return daily.utc_offset(record.sensors[0].lon) if self.day == "local" else 0

    @property
    def _period(self) -> tuple[np.datetime64, np.datetime64] | None:
        if self.period is None:
            return None
        return np.datetime64(self.period[0], "D"), np.datetime64(self.period[1], "D")

    def _days(self, sites: list[list[list[Record]]], offsets: list[int]) -> NDArray[np.datetime64]:
        """(time,) the days that are wanted, or all that the sensors have."""
        if (period := self._period) is not None:
            return np.arange(period[0], period[1] + 1)
        ends = [
            np.array([sensor.first, sensor.last]) + np.timedelta64(offset, "h")
            for chosen, offset in zip(sites, offsets, strict=True)
            for record in chosen[0]
            for sensor in record.sensors
        ]
        days = np.array(ends).astype("datetime64[D]")
        return np.arange(days.min(), days.max() + 1)


def _coordinates(records: list[Record]) -> dict[str, Any]:
    sensors = [record.sensors[0] for record in records]
    ids = [f"{sensor.network}_{sensor.site}" for sensor in sensors]
    made: dict[str, Any] = {"place": ("place", ids)}
    for name in ("lat", "lon", "elevation", "depth_from", "depth_to"):
        made[name] = ("place", np.array([getattr(sensor, name) for sensor in sensors], float))
    made["network"] = ("place", [sensor.network for sensor in sensors])
    made["sensor"] = ("place", [record.instrument for record in records])
    return made
