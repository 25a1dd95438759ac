"""Archives and folders of in-situ networks, as their providers publish them, in miniature."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHORT = {"soil_moisture": "sm", "soil_temperature": "ts", "air_temperature": "ta"}
STATIC = """\
quantity_name;unit;depth_from[m];depth_to[m];value;description;quantity_source_name;\
quantity_source_description;
saturation;m^3*m^-3;0.00;0.30;0.46;;HWSD;Harmonized World Soil Database v1.1  by IIASA;
land cover classification;;;;130;Grassland;CCI_landcover_2010;ESA CCI Land Cover;
climate classification;;;;Cfa;Temperate - Without dry season - Hot Summer;koeppen_geiger_2007;;
"""


@dataclass
class Sensor:
    """An ISMN sensor: hours are (time, value as text, flag)."""

    network: str
    site: str
    lat: float
    lon: float
    hours: list[tuple[np.datetime64, str, str]]
    variable: str = "soil_moisture"
    depth: tuple[float, float] = (0.0, 0.05)
    name: str = "Meter-5TM_1_1"
    elevation: float = 158.0
    folder: str | None = None

    def path(self) -> str:
        """Its path in an archive; the dates are those that were asked for at download."""
        top, bottom = (f"{edge:.6f}" for edge in self.depth)
        network = self.network.replace("_", "-")  # the underscore separates the parts of a name
        names = (network, network, self.site, SHORT[self.variable], top, bottom)
        file = "_".join([*names, self.name, "19500101", "20260512"]) + ".stm"
        return f"{self.folder or self.network}/{self.site}/{file}"

    def header_values(self) -> str:
        """The layout with what belongs to the sensor in the first line."""
        top, bottom = self.depth
        first = (
            f"{self.network} {self.network} {self.site} {self.lat:.5f} {self.lon:.5f} "
            f"{self.elevation} {top:.4f} {bottom:.4f} '{self.name.split('_')[0]}'"
        )
        rows = [f"{stamp(time)} {value} {flag} M" for time, value, flag in self.hours]
        return "\n".join([first, *rows]) + "\n"

    def ceop(self) -> str:
        """The CEOP layout, with all of it in every line."""
        top, bottom = self.depth
        middle = (
            f"{self.network:<10} {self.network:<10} {self.site:<15} {self.lat:>10.5f} "
            f"{self.lon:>10.5f} {self.elevation:>7.2f} {top:>7.2f} {bottom:>7.2f}"
        )
        rows = [
            f"{stamp(time)} {stamp(time)} {middle} {value:>8} {flag} M"
            for time, value, flag in self.hours
        ]
        return "\n".join(rows) + "\n"


def stamp(time: np.datetime64) -> str:
    """As ISMN writes it."""
    return str(time.astype("datetime64[m]")).replace("-", "/").replace("T", " ")


def hours(
    first: str, n: int, value: Callable[[int], float], flag: Callable[[int], str] = lambda i: "G"
) -> list[tuple[np.datetime64, str, str]]:
    """Hourly rows from a day on."""
    start = np.datetime64(first, "h")
    return [(start + i, f"{value(i):.4f}", flag(i)) for i in range(n)]


def write_ismn(folder: Path, sensors: list[Sensor], layout: str = "header_values") -> Path:
    """The folder that an archive unpacks to."""
    for sensor in sensors:
        file = folder / sensor.path()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(getattr(sensor, layout)())
        (file.parent / f"{sensor.network}_{sensor.site}_static_variables.csv").write_text(STATIC)
    (folder / "Readme.txt").write_text("International Soil Moisture Network\n")
    (folder / "Metadata.xml").write_text("<metadata/>\n")
    return folder


def zipped(folder: Path) -> Path:
    """The archive of a folder, beside it."""
    made = folder.with_suffix(".zip")
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    return made


LIST = (
    "WBAN\tCOUNTRY\tSTATE\tLOCATION\tVECTOR\tNAME\tLATITUDE\tLONGITUDE\tELEVATION\tSTATUS\t"
    "COMMISSIONING\tCLOSING\tOPERATION\tPAIRING\tNETWORK\tSTATION_ID"
)
SITES = {
    "NM_Socorro_20_N": "03048\tUS\tNM\tSocorro\t20 N\tSevilleta National Wildlife Refuge (LTER "
    "Site)\t34.35\t-106.88\t4847\tCommissioned\t2004-01-11 19:00:00.0\t\tOperational\t\t"
    "USCRN\t1020",
    "MT_St._Mary_1_SSW": "04130\tUS\tMT\tSt. Mary\t1 SSW\tGlacier National Park (St. Mary Site)"
    "\t48.74\t-113.43\t4555\tCommissioned\t2004-01-11 19:00:00.0\t\tOperational\t\tUSCRN\t1046",
    "AK_Utqiagvik_formerly_Barrow_4_ENE": "27516\tUS\tAK\tUtqiaġvik formerly Barrow\t4 ENE\tNOAA "
    "Earth System Res. Lab. Observatory at Utqiaġvik (formerly Barrow)\t71.32\t-156.61\t15\t"
    "Commissioned\t2013-07-21 20:00:00.0\t\tOperational\t\tUSCRN\t1007",
    "SA_Tiksi_4_SSE": "37201\tRS\tSA\tTiksi\t4 SSE\tRoshydromet Observatory at Tiksi\t71.58\t"
    "128.91\t30\tNon-comissioned\t\t2018-11-05 19:00:00.0\tClosed\t\tUSCRN\t1789",
}


@dataclass
class Row:
    """A site's day: what a line of 28 columns holds; a field is text as it stands in the file."""

    wban: str
    day: str
    lon: float
    lat: float
    soil: str = "0.259"
    soil_temperature: str = "1.1"
    air: str = "-7.5"
    rain: str = "0.2"
    sun: str = "8.64"
    more: list[str] = field(default_factory=list)

    def line(self) -> str:
        """Fixed widths, at least one blank between."""
        cells = [
            *(f"{self.wban:>5}", self.day, f"{'2.622':>6}", f"{self.lon:7.2f}", f"{self.lat:7.2f}"),
            *(f"{cell:>7}" for cell in ("-1.8", "-13.9", "-7.9", self.air, self.rain)),
            *(f"{self.sun:>8}", "C", f"{'-2.3':>7}", f"{'-18.7':>7}", f"{'-9.2':>7}"),
            *["-9999.0"] * 3,
            *(f"{cell:>7}" for cell in (self.soil, "0.255", "0.252", "-99.000", "-99.000")),
            *(f"{cell:>7}" for cell in (self.soil_temperature, "1.4", "1.6", "-9999.0", "-9999.0")),
        ]
        return " ".join([*cells, *self.more]) + " "


def uscrn_year(name: str, year: int, soil: Callable[[int], str] | None = None) -> list[Row]:
    """Every day of a site's year."""
    cells = SITES[name].split("\t")
    days = np.arange(f"{year}-01-01", f"{year + 1}-01-01", dtype="datetime64[D]")
    return [
        Row(
            cells[0],
            str(day).replace("-", ""),
            float(cells[7]),
            float(cells[6]),
            **({"soil": soil(i)} if soil else {}),
        )
        for i, day in enumerate(days)
    ]


def write_uscrn(folder: Path, files: dict[tuple[str, int], list[Row]]) -> Path:
    """The list of sites, and daily01 with a folder for each year; gives daily01."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stations.tsv").write_text("\n".join([LIST, *SITES.values()]) + "\n", "utf-8")
    for (name, year), rows in files.items():
        file = folder / "daily01" / str(year) / f"CRND0103-{year}-{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{row.line()}\n" for row in rows))
    return folder / "daily01"


def index(folder: Path) -> Callable[[str], bytes | None]:
    """Pages that list folders, as the NCEI's server makes them."""

    def page(path: str) -> bytes | None:
        here = folder / path.strip("/")
        if not here.is_dir():
            return None
        rows = [
            f'<tr><td><a href="{item.name}{"/" * item.is_dir()}">{item.name}</a></td>'
            '<td align="right">2024-01-05 03:15  </td><td align="right"> 79K</td></tr>'
            for item in sorted(here.iterdir())
        ]
        top = '<tr><th><a href="?C=N;O=D">Name</a></th></tr><tr><td><a href="../">Parent</a></td>'
        return f"<html><body><table>{top}{''.join(rows)}</table></body></html>".encode()

    return page
