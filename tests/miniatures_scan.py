"""AWDB's answers and the 412-cell set's files in small, in their exact form."""

from __future__ import annotations

import contextlib
import importlib.resources
import json
import re
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import intake
import numpy as np
import web

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from web import Site

PUBLIC = importlib.resources.files("catalogs").joinpath("scan-public.yaml").read_text()
SETS = re.search(r"https://raw\.githubusercontent\.com\S+", PUBLIC).group()
SERVICE = re.search(r"https://wcc\.sc\S+", PUBLIC).group()
# A leap day, frozen soil, and the step from one year's folder to the next.
PERIOD = (date(2016, 2, 20), date(2016, 4, 10))
DAYS = np.arange(*(np.datetime64(day) for day in PERIOD)).astype("datetime64[D]")
DAYS = np.append(DAYS, np.datetime64(PERIOD[1]))
CONSTANTS = re.findall(r"from: const/(\w+)", PUBLIC)
UNITS = {"SMS": "pct", "STO": "degF", "PRCP": "in", "TAVG": "degF", "RHUM": "pct"}
UNITS["LRADT"] = "langley"
LONGEST = 500_000


@dataclass
class Awdb:
    """The service: sites, and series by (triplet, element, duration).

    `sensors` holds what stands in `data` of an answer; tests spoil them in place.
    """

    sites: list[dict[str, Any]] = field(default_factory=list)
    sensors: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)

    def serve(self, site: Site) -> str:
        """Answer on a loopback server; gives the service's URL."""
        site.made.append((r"/v1/stations\?", self._stations))
        site.made.append((r"/v1/data\?", self._data))
        return f"{site.url}/awdbRestApi/services/v1"

    def add_site(self, triplet: str, lat: float, lon: float, feet: float, zone: float) -> None:
        """A site, as `/stations` tells it."""
        number, state, network = triplet.split(":")
        self.sites.append(
            {
                "stationTriplet": triplet,
                "stationId": number,
                "stateCode": state,
                "networkCode": network,
                "name": f"Site {number}",
                "latitude": lat,
                "longitude": lon,
                "elevation": feet,
                "dataTimeZone": zone,
                "beginDate": "1999-10-01 00:00",
                "endDate": "2100-01-01 00:00",
            }
        )

    def add(
        self,
        triplet: str,
        element: str,
        days: NDArray[np.datetime64],
        values: Any,
        flags: Any = None,
        ordinal: int = 1,
    ) -> dict[str, Any]:
        """A sensor's series; hours where `values` is (day, 24). NaN is no value, as are the hours
        of a day of NaN."""
        code, _, depth = element.partition(":")
        values = np.asarray(values, float)
        duration = "HOURLY" if values.ndim == 2 else "DAILY"
        if duration == "HOURLY":
            stamps = [f"{day} {hour:02}:00" for day in days for hour in range(24)]
        else:
            stamps = [str(day) for day in days]
        letters = np.broadcast_to("V" if flags is None else flags, values.shape).ravel()
        told = [
            {"date": stamp, "value": float(value), "qcFlag": str(letter), "qaFlag": "P"}
            for stamp, value, letter in zip(stamps, values.ravel(), letters, strict=True)
            if np.isfinite(value)
        ]
        about = {
            "elementCode": code,
            "ordinal": ordinal,
            "heightDepth": int(depth) if depth else None,
            "durationName": duration,
            "dataPrecision": 1,
            "storedUnitCode": UNITS[code],
            "originalUnitCode": UNITS[code],
            "beginDate": "1999-10-01 00:00",
            "endDate": "2100-01-01 00:00",
            "derivedData": False,
        }
        sensor = {"stationElement": about, "values": told}
        self.sensors[triplet, f"{element}/{ordinal}", duration] = sensor
        return sensor

    def _stations(self, path: str) -> bytes:
        asked = parse_qs(urlsplit(unquote(path)).query)
        (wanted,) = asked["stationTriplets"]
        network = wanted.rpartition(":")[2]
        return json.dumps([s for s in self.sites if s["networkCode"] == network]).encode()

    def _data(self, path: str) -> bytes | None:
        asked = {k: v[0] for k, v in parse_qs(urlsplit(unquote(path)).query).items()}
        triplets, elements = (asked[k].split(",") for k in ("stationTriplets", "elements"))
        assert asked["returnFlags"] == asked["returnSuspectData"] == "true"
        assert asked["periodRef"] == {"DAILY": "END", "HOURLY": "START"}[asked["duration"]]
        begin, end = asked["beginDate"], asked["endDate"]
        days = int((np.datetime64(end) - np.datetime64(begin)).astype(int)) + 1
        per_day = 24 if asked["duration"] == "HOURLY" else 1
        if len(triplets) * len(elements) * days * per_day > LONGEST:
            return None
        answer = []
        for triplet in triplets:
            data = [
                sensor | {"values": [v for v in sensor["values"] if begin <= v["date"][:10] <= end]}
                for (place, element, duration), sensor in self.sensors.items()
                if place == triplet
                and element.partition("/")[0] in elements
                and duration == asked["duration"]
            ]
            answer.append({"stationTriplet": triplet, "data": data})
        return json.dumps(answer).encode()


def geolearn(
    folder: Path,
    places: NDArray[np.float64],
    days: NDArray[np.datetime64],
    series: dict[str, NDArray[np.float32]],
    constants: dict[str, NDArray[np.float32]],
) -> None:
    """The set's folder: a file of a variable for each year from 1 April, -9999 where missing.

    Args:
      folder: made here.
      places: (cell, 2) lat and lon.
      days: of the series, whole years of the set or parts of them.
      series: (cell, day) by the provider's names.
      constants: (cell,) likewise.
    """
    (folder / "const").mkdir(parents=True)
    _write(folder / "crd.csv", places)
    for name, values in constants.items():
        _write(folder / "const" / f"{name}.csv", values[:, None])
    months = days.astype("datetime64[M]").astype(int)
    year = 1970 + (months - 3) // 12
    for one in np.unique(year):
        (folder / str(one)).mkdir()
        chosen = year == one
        (folder / str(one) / "timeStr.csv").write_text("".join(f"{d}\n" for d in days[chosen]))
        for name, values in series.items():
            _write(folder / str(one) / f"{name}.csv", values[:, chosen])


@contextlib.contextmanager
def published(folder: Path, service: Awdb, ids: list[str]) -> Iterator[tuple[Site, str]]:
    """A copy of the public catalog that reads from a loopback server, and fewer sites."""
    with web.serve(folder) as site:
        text = PUBLIC.replace(SETS, f"{site.url}/set").replace(SERVICE, service.serve(site))
        text, n = re.subn(r"sites: \[[^\]]*\]", f"sites: [{', '.join(ids)}]", text)
        assert n == 1
        (folder / "catalog.yaml").write_text(text)
        yield site, str(folder / "catalog.yaml")


def opened(path: str, name: str, period: tuple[date, date] = PERIOD) -> Any:
    """The driver of an entry, told the period."""
    source = intake.open_catalog(path)[name]
    source.period = period
    return source


def _write(file: Path, values: NDArray[np.floating[Any]]) -> None:
    lines = [",".join("-9999" if np.isnan(v) else repr(v.item()) for v in row) for row in values]
    file.write_text("\n".join(lines) + "\n")
