"""USDA NRCS's Air and Water Database: SCAN and SNOTEL through its REST service, in batches.

A daily value of an instant (soil moisture, soil temperature) is, with periodRef=END, what was
read at the midnight that ends the day of its date; one of a day (precipitation, mean temperature)
is that day's. HOURLY elements are asked with periodRef=START, so that a stamp is the instant of
the reading; their mean over the readings from 0:00 to 23:00 is the day's.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources.awdb.elements import CODES, FLAGS, PER_DAY, UNCHECKED, element
from pipeline.sources.awdb.parts import Part, fetched
from pipeline.sources.awdb.sites import Site, chosen, listed
from pipeline.sources.form import Mapping, Source
from pipeline.sources.spans import span

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

BATCH = 60  # sites of one request
VALUES = 400_000  # of one request; the service refuses more than 500,000
INCH = 0.0254


class AwdbSource(Source):
    """Intake driver for networks of AWDB; gives points.

    The list of sites is fetched by `to_dask()`, values when they are computed, and kept in memory
    by the process, so that variables that come together are not asked for one by one.

    Args:
      urlpath: the service, `.../awdbRestApi/services/v1`.
      network: code of a network, SCAN or SNTL.
      mapping: {our name: {"from": element, or element:depth in inches; "units": as the service
        states them; "to": our units; and where needed "also": further units accepted, "times":
        factor to our units, "duration": HOURLY, "valid": [smallest, largest] in `units`,
        "temperature": our name of the air temperature that makes humidity specific}}.
      flag: {"from": the element whose flags are given, "good": letters that are kept}; values of
        other elements whose flag is not good are missing.
      day: `local` for days of the site's clock, `utc` where all elements are HOURLY.
      min_hours: fewest hours that the values of a day's mean cover, of HOURLY elements.
      sites: ids wanted, in this order; all of the network by default.
    """

    name = "soilweave_awdb"

    def __init__(
        self,
        urlpath: str,
        network: str,
        mapping: Mapping | list[Mapping],
        flag: dict[str, Any],
        day: str = "local",
        min_hours: int = 12,
        sites: list[Any] | None = None,
        storage_options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Keep the arguments; nothing is asked yet.

        Raises:
          ValueError: the arguments do not fit together.
        """
        super().__init__(urlpath, mapping, None, storage_options, metadata)
        self.network, self.flag, self.day, self.min_hours = network, flag, day, min_hours
        self.wanted = [str(site) for site in sites or []]
        self.elements = tuple(element(name, spec) for name, spec in self.mapping.items())
        odd = [e.name for e in self.elements if e.duration not in PER_DAY]
        if day == "utc":
            odd += [e.name for e in self.elements if e.duration != "HOURLY"]
        unknown = sorted(set(flag["good"]) - set(FLAGS))
        if odd or unknown or day not in ("utc", "local"):
            msg = f"day '{day}' (utc or local; utc needs HOURLY), {odd}, unknown flags {unknown}"
            raise ValueError(msg)

    def to_dask(self) -> xr.Dataset:
        """The sites, and their values lazily.

        Raises:
          DataError: the service refuses, or has no such sites.
        """
        import dask.array
        import xarray as xr
        from dask.delayed import delayed

        da: Any = dask.array

        sites, days, batches = self._plan()
        columns: dict[str, list[Any]] = {}
        for batch in batches:
            parts = [(delayed(fetched)(part), part.shape) for part in batch]
            for name in [*self.mapping, "provider_flag"]:
                dtype = "int8" if name == "provider_flag" else "float32"
                blocks = [da.from_delayed(arrays[name], shape, dtype) for arrays, shape in parts]
                columns.setdefault(name, []).append(da.concatenate(blocks))
        made = {
            name: (("time", "place"), da.concatenate(found, axis=1), self._attrs(name))
            for name, found in columns.items()
        }
        clock = "UTC" if self.day == "utc" else "local standard time"
        dataset = xr.Dataset(made, attrs={"time_convention": f"{clock} day"})
        return dataset.assign_coords(time=days, **self._coordinates(sites))

    read = to_dask

    def digest(self) -> str:
        """The sha256 of the sites and of all values; fetches what is not in memory yet."""
        sites, days, batches = self._plan()
        content = hashlib.sha256(repr((sites, days[0], days[-1])).encode())
        for part in (part for batch in batches for part in batch):
            for name, values in sorted(fetched(part).items()):
                content.update(name.encode() + np.ascontiguousarray(values).tobytes())
        return content.hexdigest()

    def _attrs(self, name: str) -> dict[str, Any]:
        if name != "provider_flag":
            spec = self.mapping[name]
            return {"units": spec.get("to", spec["units"]), "source": spec["from"]}
        return {
            "good": [CODES[letter] for letter in self.flag["good"]],
            "unchecked": [CODES[letter] for letter in UNCHECKED if letter in self.flag["good"]],
            "flag_values": list(CODES.values()),
            "flag_meanings": " ".join(FLAGS.values()),
        }

    def _coordinates(self, sites: list[Site]) -> dict[str, Any]:
        _, colon, inches = str(self.flag["from"]).partition(":")
        depth = abs(float(inches)) * INCH if colon else np.nan
        made = {
            "place": [site.id for site in sites],
            "lat": [site.lat for site in sites],
            "lon": [site.lon for site in sites],
            "network": [self.network] * len(sites),
            "elevation": [site.elevation for site in sites],
            "depth_from": [depth] * len(sites),
            "depth_to": [depth] * len(sites),
            "utc_offset_hours": [site.offset for site in sites],
        }
        return {name: ("place", values) for name, values in made.items()}

    def _plan(self) -> tuple[list[Site], NDArray[np.datetime64], list[list[Part]]]:
        """Sites, days, and per batch of sites the parts of the period."""
        first, last = span(self.urlpath, self.metadata, self.period)
        days = np.arange(first, last + np.timedelta64(1, "D"))
        code, period = str(self.flag["from"]), None if self.wanted else (first, last)
        sites = listed(self.urlpath, self.network, code, period, self.storage_options)
        sites = chosen(sites, self.wanted, self.region)
        if not sites:
            found = f"no site of {self.network} in the region with {code} within {first}..{last}"
            raise DataError(self.urlpath, found, remedy="widen the region or the period")
        per_day = sum(PER_DAY[e.duration] for e in self.elements)
        step = max(1, VALUES // (BATCH * per_day) - 2)
        batches = []
        for start in range(0, len(sites), BATCH):
            some = tuple(sites[start : start + BATCH])
            ranges = [(days[i], min(step, len(days) - i)) for i in range(0, len(days), step)]
            batches.append([self._part(some, begin, n) for begin, n in ranges])
        return sites, days.astype("datetime64[ns]"), batches

    def _part(self, sites: tuple[Site, ...], first: np.datetime64, days: int) -> Part:
        flag = (str(self.flag["from"]), tuple(self.flag["good"]))
        options = json.dumps(self.storage_options, sort_keys=True, default=str)
        utc = self.day == "utc"
        return Part(
            self.urlpath, sites, self.elements, first, days, *flag, self.min_hours, utc, options
        )
