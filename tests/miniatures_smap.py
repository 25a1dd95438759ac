"""Real files of SMAP in small: the provider's groups, names, types, fills, flags and shapes.

A grid is global, as theirs, but only the chunks that hold something are written.
"""

from __future__ import annotations

import functools
import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import h5py
import numpy as np

from pipeline.grid import Window

if TYPE_CHECKING:
    from pathlib import Path

SHAPES = {36: (406, 964), 9: (1624, 3856)}
FILL = np.float32(-9999)
GROUPS = {
    "am": ("Soil_Moisture_Retrieval_Data_AM", ""),
    "pm": ("Soil_Moisture_Retrieval_Data_PM", "_pm"),
}


@dataclass(frozen=True)
class Seen:
    """One retrieval: row, column, value, time in UTC, flag, pass."""

    row: int
    col: int
    value: float
    time: str
    flag: int = 0
    key: str = "am"


@dataclass
class L3:
    """A file of a day; spoil it with the last fields.

    Attributes:
      day: YYYY-MM-DD.
      seen: its retrievals.
      km: 36 or 9.
      production: CRID and counter of its name.
      renamed: names of groups or datasets, and what they are called instead; None drops them.
      attributes: {dataset: attributes that it has instead}.
      fill: what stands where there is no value.
      shift: added to the row indices.
    """

    day: str
    seen: list[Seen] = field(default_factory=list)
    km: int = 36
    production: str = "R19240_001"
    renamed: dict[str, str | None] = field(default_factory=dict)
    attributes: dict[str, dict] = field(default_factory=dict)
    fill: float = -9999.0
    shift: int = 0

    @property
    def name(self) -> str:
        enhanced = "_E" if self.km == 9 else ""
        day = self.day.replace("-", "")
        return f"SMAP_L3_SM_P{enhanced}_{day}_{self.production}.h5"

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.name
        with h5py.File(path, "w") as file:
            file.create_group("Metadata")
            for key, (group, suffix) in GROUPS.items():
                name = self.renamed.get(group, group)
                if name is not None:
                    self._group(file.create_group(name), key, suffix)
        return path

    def _group(self, group: h5py.Group, key: str, suffix: str) -> None:
        rows, cols = SHAPES[self.km]
        lat, lon = _centres(self.km)
        real = {"units": np.bytes_("cm**3/cm**3"), "_FillValue": FILL}
        degrees = {"units": np.bytes_("degrees"), "_FillValue": FILL}
        made = {
            "soil_moisture": ("f4", self.fill, real | {"valid_min": np.float32(0.02)}),
            "latitude": ("f4", FILL, degrees),
            "longitude": ("f4", FILL, degrees),
            "retrieval_qual_flag": ("u2", 65534, {"_FillValue": np.uint16(65534)}),
            "EASE_row_index": ("u2", 65534, {"_FillValue": np.uint16(65534)}),
            "EASE_column_index": ("u2", 65534, {"_FillValue": np.uint16(65534)}),
            "tb_time_utc": ("S24", b"N/A", {}),
            "tb_time_seconds": ("f8", -9999.0, {"units": np.bytes_("seconds")}),
        }
        data = {}
        for base, (dtype, fill, attributes) in made.items():
            name = self.renamed.get(base + suffix, base + suffix)
            if name is None:
                continue
            data[base] = group.create_dataset(
                name, (rows, cols), dtype, chunks=(58, 64), compression="gzip", fillvalue=fill
            )
            data[base].attrs.update(attributes | self.attributes.get(base + suffix, {}))
        for one in (one for one in self.seen if one.key == key):
            seconds = (np.datetime64(one.time[:-1]) - np.datetime64("2000-01-01T12:00:00")) / 1e3
            values = {
                "soil_moisture": one.value,
                "latitude": lat[one.row],
                "longitude": lon[one.col],
                "retrieval_qual_flag": one.flag,
                "EASE_row_index": one.row + self.shift,
                "EASE_column_index": one.col,
                "tb_time_utc": one.time.encode(),
                "tb_time_seconds": float(seconds.astype("i8")),
            }
            for base, value in values.items():
                if base in data:
                    data[base][one.row, one.col] = value


@functools.cache
def _places(flip: bool) -> h5py.File:
    """Latitudes and longitudes of Level 4, packed once."""
    lat, lon = _centres(9)
    made = h5py.File(io.BytesIO(), "w")
    for name, centres in (("cell_lat", lat[:: -1 if flip else 1, None]), ("cell_lon", lon[None])):
        whole = np.broadcast_to(centres.astype("f4"), SHAPES[9])
        made.create_dataset(name, data=whole, chunks=(232, 241), compression="gzip")
    return made


@dataclass
class L4:
    """A file of three hours; `values` is {(row, column): value}, all else is fill.

    Attributes:
      time: centre of the three hours, YYYY-MM-DDThh:mm:ss.
    """

    time: str
    values: dict[tuple[int, int], float]
    production: str = "Vv8011_001"
    group: str = "Geophysical_Data"
    flip: bool = False

    @property
    def name(self) -> str:
        stamp = self.time.replace("-", "").replace(":", "")
        return f"SMAP_L4_SM_gph_{stamp}_{self.production}.h5"

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.name
        shape = SHAPES[9]
        options = {"chunks": (58, 64), "compression": "gzip", "compression_opts": 1}
        with h5py.File(path, "w") as file:
            for name in ("sm_surface", "sm_rootzone"):
                data = file.create_dataset(
                    f"{self.group}/{name}", shape, "f4", fillvalue=FILL, **options
                )
                data.attrs.update(units=np.bytes_("m3 m-3"), _FillValue=FILL)
                for place, value in self.values.items():
                    data[place] = value
            for name in ("cell_lat", "cell_lon"):
                _places(self.flip).copy(name, file)
            seconds = np.datetime64(self.time) - np.datetime64("2000-01-01T11:58:55")
            file["time"] = np.array([seconds.astype("i8") + 0.816], "f8")
            file["time"].attrs["units"] = "seconds since 2000-01-01 11:58:55.816"
        return path


def _centres(km: int) -> tuple[np.ndarray, np.ndarray]:
    window = Window(0, 0, 406, 964, 36 // km)
    return window.cell_lat, window.cell_lon


def item(name: str, url: str, produced: str, size: int = 1, s3: str = "s3://absent") -> dict:
    """A granule as CMR tells it, in UMM-JSON 1.6.6."""
    day = next(part for part in name.split("_") if part[:2] == "20")
    day = f"{day[:4]}-{day[4:6]}-{day[6:8]}"
    return {
        "meta": {
            "concept-type": "granule",
            "concept-id": f"G{1000000000}-NSIDC_CPRD",
            "revision-id": 1,
            "native-id": name,
            "collection-concept-id": "C2776463920-NSIDC_CPRD",
            "provider-id": "NSIDC_CPRD",
            "format": "application/vnd.nasa.cmr.umm+json",
            "revision-date": produced,
        },
        "umm": {
            "TemporalExtent": {
                "RangeDateTime": {
                    "BeginningDateTime": f"{day}T00:00:00.000Z",
                    "EndingDateTime": f"{day}T23:59:59.999Z",
                }
            },
            "GranuleUR": name,
            "RelatedUrls": [
                {"URL": f"{url}/{name}.iso.xml", "Type": "EXTENDED METADATA"},
                {"URL": f"{url}/{name}.xml", "Type": "GET DATA", "MimeType": "text/xml"},
                {"URL": f"{url}/{name}", "Type": "GET DATA", "MimeType": "application/x-hdf5"},
                {"URL": f"{s3}/{name}", "Type": "GET DATA VIA DIRECT ACCESS"},
                {"URL": f"{url}/s3credentials", "Type": "VIEW RELATED INFORMATION"},
            ],
            "CollectionReference": {"ShortName": "SPL3SMP", "Version": "009"},
            "DataGranule": {
                "ProductionDateTime": produced,
                "DayNightFlag": "Unspecified",
                "Identifiers": [{"Identifier": name, "IdentifierType": "ProducerGranuleId"}],
                "ArchiveAndDistributionInformation": [
                    {"Name": name, "SizeInBytes": size, "Format": "HDF5"},
                    {"Name": f"{name}.iso.xml", "SizeInBytes": 1, "Format": "XML"},
                ],
            },
            "MetadataSpecification": {
                "URL": "https://cdn.earthdata.nasa.gov/umm/granule/v1.6.6",
                "Name": "UMM-G",
                "Version": "1.6.6",
            },
        },
    }


@dataclass
class Repository:
    """CMR's answers to a search of granules: hits, pages, and where the next page begins.

    Attributes:
      items: every granule of the collection.
      queries: what was asked for.
    """

    items: list[dict]
    queries: list[dict] = field(default_factory=list)

    def answer(self, path: str, search_after: str | None) -> tuple[bytes, dict[str, str]]:
        """Body and headers."""
        query = {key: value[0] for key, value in parse_qs(urlsplit(path).query).items()}
        self.queries.append(query)
        begin, end = query["temporal[]"].split(",")
        found = [
            one
            for one in self.items
            if one["umm"]["TemporalExtent"]["RangeDateTime"]["BeginningDateTime"] <= end
            and one["umm"]["TemporalExtent"]["RangeDateTime"]["EndingDateTime"] >= begin
            and one["umm"]["CollectionReference"]["Version"] == query["version"]
        ]
        first = json.loads(search_after)[0] if search_after else 0
        size = int(query["page_size"])
        part = found[first : first + size]
        headers = {
            "Content-Type": "application/vnd.nasa.cmr.umm_results+json;version=1.6.6",
            "CMR-Hits": str(len(found)),
            "CMR-Took": "7",
        }
        if part:
            headers["CMR-Search-After"] = json.dumps([first + len(part)])
        return json.dumps({"hits": len(found), "took": 7, "items": part}).encode(), headers
