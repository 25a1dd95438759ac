"""Read the names of the columns of a wide table, such as `VWC_5cm_Avg`: variable, depth, units.

Recognise the columns of a CSV from its header: their roles, units and depths.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.experiment.variables import VARIABLES
from pipeline.sources.table import rows

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import pandas as pd


METRES_PER_UNIT = {
    "cm": 0.01,
    "mm": 0.001,
    "m": 1.0,
    "in": 0.0254,
    "inch": 0.0254,
    "inches": 0.0254,
}

_NUMBER = r"\d+(?:\.\d+)?"

_DEPTH = re.compile(
    rf"(?<![\d.])(?:({_NUMBER})(_?to_?|_))?({_NUMBER})_?({'|'.join(METRES_PER_UNIT)})(?![a-z0-9])"
)

# A dash between two depths, as in `vwc 5-10cm`. In `vwc-1-5cm` it separates parts of the name.
_DASH = re.compile(rf"(?<![-.\d])({_NUMBER})\s*(?:cm|mm|m)?\s*[-\N{{EN DASH}}]\s*(?=\d)")
_INCH = re.compile(r"(?<=\d)\s*[\"\N{DOUBLE PRIME}]")
_VOLUME_FRACTION = re.compile(r"c?m\^?3\s*[/ ._*]*\s*c?m\^?-?3")  # m3 m-3 and the like

# What a logger adds to a name for the statistic of an interval that it stores, the best first.
# Columns with other statistics, such as Std or Max, are not used.
_STATISTICS = ("avg", "mean", "med", "smp", "sample", "")
_SENSOR = re.compile(r"\d{1,2}|[a-d]")


class DepthColumn(NamedTuple):
    """A column of one depth.

    Attributes:
      name: name in the header.
      rest: what the name says besides depth, sensor and statistic: variable and units.
      depth: top and bottom, m.
      top: what may be the top of a layer in m or the number of a sensor, as in `SM_5_30cm` and
        `VW_1_5cm`; None if the name is clear.
      sensor: number or letter that distinguishes the sensors of one depth.
      rank: place of its statistic in the order of preference, 0 for the best.
    """

    name: str
    rest: str
    depth: tuple[float, float]
    top: float | None
    sensor: str
    rank: int


def parse_column_name(name: str) -> DepthColumn | None:
    """Return the parts of a column's name; None if it names no depth."""
    plain = name.lower().replace("\N{SUPERSCRIPT THREE}", "3")
    plain = _INCH.sub("in", _DASH.sub(r"\1to", _VOLUME_FRACTION.sub("m3m3", plain)))
    plain = re.sub(r"[^a-z0-9.%]+", "_", plain)
    match = _DEPTH.search(plain)
    if match is None:
        return None
    first, joint, second, unit = match.groups()
    words = re.split(r"[_.]+", f"{plain[: match.start()]}_{plain[match.end() :]}")
    statistic = next((word for word in words if word in _STATISTICS and word), "")
    sensor = next((word for word in words if _SENSOR.fullmatch(word)), "")
    rest = "".join(word for word in words if word not in (statistic, sensor))
    rank = _STATISTICS.index(statistic)
    bottom = round(float(second) * METRES_PER_UNIT[unit], 6)
    top = round(float(first) * METRES_PER_UNIT[unit], 6) if first else bottom
    if joint == "_" and top > 0:
        return DepthColumn(name, rest, (bottom, bottom), top, sensor or first, rank)
    return DepthColumn(name, rest, (min(top, bottom), max(top, bottom)), None, sensor, rank)


def _resolve_layers(columns: list[DepthColumn]) -> list[DepthColumn]:
    """Decide whether a number before a depth is the top of a layer: if a layer ends there."""
    bottoms = {column.depth[1] for column in columns}
    return [
        column._replace(depth=(column.top, column.depth[1]), sensor="")
        if column.top in bottoms and column.top < column.depth[1]
        else column
        for column in columns
    ]


def find_depth_columns(
    names: Iterable[str], words: Iterable[str], units: dict[str, str]
) -> tuple[dict[str, Any], str]:
    """Return the columns of a variable with their depths, and the units that the first one names.

    Args:
      names: names in the header.
      words: names of the variable.
      units: what may follow such a name, and the units that it means.

    Returns:
      {column: depth in m, or [top, bottom] of a layer}, and the units; "" if none are named.
    """
    best: dict[tuple[tuple[float, float], str], DepthColumn] = {}
    hints = []
    for column in _resolve_layers(list(filter(None, map(parse_column_name, names)))):
        suffixes = [column.rest.removeprefix(w) for w in words if column.rest.startswith(w)]
        stated = [units[suffix] for suffix in suffixes if suffix in units]
        if not stated:
            continue
        hints.append(stated[0])
        other = best.get((column.depth, column.sensor))
        if other is None or column.rank < other.rank:
            best[column.depth, column.sensor] = column
    depths = {
        column.name: column.depth[0] if column.depth[0] == column.depth[1] else [*column.depth]
        for column in best.values()
    }
    return depths, next(iter(hints), "")


TARGET = next(name for name, variable in VARIABLES.items() if variable.kind == "target")
TEMPERATURE = next(name for name, variable in VARIABLES.items() if variable.kind == "auxiliary")
FRACTION, PERCENT = VARIABLES[TARGET].units, "percent"

# Names of columns by role, in lower case without spaces and punctuation, likelier ones first.
COLUMN_NAMES: dict[str, str] = {
    "id": "id site siteid sitename sitecode station stationid stationname stationcode probe "
    "probeid probename name location locationid plot plotid node nodeid logger loggerid",
    "lat": "lat latitude y",
    "lon": "lon long longitude lng x",
    "time": "time datetime timestamp date day measurementtime observationtime",
    "depth": "depth sensordepth soildepth measurementdepth",
    "depth_from": "depthfrom depthtop topdepth upperdepth depthupper top",
    "depth_to": "depthto depthbottom bottomdepth lowerdepth depthlower bottom",
    "sensor": "sensor sensorid sensorname port channel replicate rep",
    "flag": "flag qc qf qflag qcflag flags qualityflag quality",
    TARGET: f"{TARGET.replace('_', '')} volumetricwatercontent volumetricsoilmoisture "
    "soilwatercontent watercontent vwc vw sm swc ssm theta moisture soilwater value",
    TEMPERATURE: f"{TEMPERATURE.replace('_', '')} soiltemp tsoil soilt temperature temp",
}

# Names that count only in columns whose names include a depth: a logger's `T_5cm` is in the soil.
DEPTH_COLUMN_NAMES = {
    TARGET: COLUMN_NAMES[TARGET].split(),
    TEMPERATURE: [*COLUMN_NAMES[TEMPERATURE].split(), "st", "ts", "t"],
}

_DEGREES = dict.fromkeys(["", "deg", "degree", "degrees", "dd", "decimal", "wgs84", "n", "e"], "")


_DEGREES |= dict.fromkeys(["degn", "dege", "degreesnorth", "degreeseast", "decimaldegrees"], "")


_LENGTHS = {"": "", "m": "m", "meter": "m", "metre": "m", "meters": "m", "metres": "m"}


_LENGTHS |= {"cm": "cm", "mm": "mm", "in": "inch", "inch": "inch", "inches": "inch"}


_SHARES = {"": "", **dict.fromkeys(["m3m3", "cm3cm3", "vv", "fraction", "frac"], FRACTION)}


_SHARES |= dict.fromkeys(["%", "percent", "pct", "perc", "vol%", "%vol", "volpercent"], PERCENT)


# What may follow such a name, and the units or time zone that it means; "" means none.
UNIT_SUFFIXES: dict[str, dict[str, str]] = {
    "lat": _DEGREES,
    "lon": _DEGREES,
    "time": {
        "": "",
        "utc": "UTC",
        "gmt": "UTC",
        "lst": rows.LOCAL_STANDARD,
        "iso": "",
        "iso8601": "",
    },
    **dict.fromkeys(["depth", "depth_from", "depth_to"], _LENGTHS),
    TARGET: _SHARES,
    TEMPERATURE: {"": "", "c": "degC", "degc": "degC", "celsius": "degC", "k": "K", "kelvin": "K"}
    | {"f": "degF", "degf": "degF", "fahrenheit": "degF"},
}


@dataclass
class Header:
    """What a header says.

    Attributes:
      columns: column of each role, or of each variable by its name in this project.
      depths: by variable, its columns that have one depth each, with their depths in m; the first
        of them is in `columns` too.
      hints: units or time zone that the names of columns state, by role or variable.
      problems: what has to be corrected.
    """

    columns: dict[str, str] = field(default_factory=dict)
    depths: dict[str, dict[str, Any]] = field(default_factory=dict)
    hints: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def recognise_header(
    raw: pd.DataFrame, given: dict[str, str], station: Collection[str] = ()
) -> Header:
    """Recognise the columns of a table.

    Args:
      raw: table of text, from `pipeline.sources.table.text.split`.
      given: {role: column} that the user states; `value` and `temperature` are roles too.
      station: roles that need no column, since they are stated for the only station.
    """
    header = Header()
    variables = {"value": TARGET, "temperature": TEMPERATURE}
    header.columns = {variables.get(role, role): column for role, column in given.items()}
    absent = [c for c in header.columns.values() if c not in raw]
    if absent:
        names = ", ".join(f"'{column}'" for column in absent)
        header.problems.append(f"column {names} missing; the header has {', '.join(raw.columns)}")
    header.columns = {role: c for role, c in header.columns.items() if c in raw}
    free = [c for c in raw.columns if c not in header.columns.values()]
    for role, words in COLUMN_NAMES.items():
        if role in station:
            continue
        units = UNIT_SUFFIXES.get(role, {"": ""})
        candidates = {
            column: units[_normalise(column).removeprefix(word)]
            for word in words.split()
            for column in ([header.columns[role]] if role in header.columns else free)
            if _normalise(column).startswith(word)
            and _normalise(column).removeprefix(word) in units
        }
        if candidates:
            first = next(iter(candidates))
            if role == "time":
                first = _choose_time_column(raw, list(candidates), header)
            header.columns.setdefault(role, first)
            header.hints[role] = candidates[first]
    _add_depth_columns(raw, header)
    _drop_conflicting(header, station)
    header.hints = {role: hint for role, hint in header.hints.items() if hint}
    return header


def _drop_conflicting(header: Header, station: Collection[str]) -> None:
    """Keep one way of stating depths; use the sensor as id if there is no other."""
    columns = header.columns
    if len(header.depths.get(TARGET, ())) == 1 and {"depth", "depth_to"} & columns.keys():
        header.depths.clear()  # the table has one row per depth, which is in a column
    if header.depths:
        columns.pop("depth", None)
    if "depth_from" in columns and "depth_to" in columns:
        columns.pop("depth", None)
    else:
        columns.pop("depth_from", None)
        columns.pop("depth_to", None)
    if "id" not in columns and "id" not in station and "sensor" in columns:
        columns["id"] = columns.pop("sensor")


def _add_depth_columns(raw: pd.DataFrame, header: Header) -> None:
    """Add columns of one depth each, if no other column has the target; and the logger's units."""
    if TARGET not in header.columns:
        for name, words in DEPTH_COLUMN_NAMES.items():
            free = [c for c in raw.columns if c not in header.columns.values()]
            depths, units = find_depth_columns(free, words, UNIT_SUFFIXES[name])
            is_used = name == TARGET or TARGET in header.depths
            if depths and is_used and name not in header.columns:
                header.depths[name] = depths
                header.columns[name] = next(iter(depths))
                header.hints[name] = units
    logger_units = raw.attrs.get("units", {})
    for name in (TARGET, TEMPERATURE):
        if name in header.columns and not header.hints.get(name):
            text = _normalise(logger_units.get(header.columns[name], ""))
            header.hints[name] = UNIT_SUFFIXES[name].get(text, "")


def _choose_time_column(raw: pd.DataFrame, columns: list[str], header: Header) -> str:
    """Choose the column with date and time, else that with dates."""
    texts = {column: raw[column][raw[column] != ""] for column in columns}
    complete = [c for c, text in texts.items() if (text.str.len() > 10).any()]
    clocks = [c for c, text in texts.items() if text.str.match(r"\d{1,2}:\d\d").any()]
    dates = [c for c in columns if c not in (*complete, *clocks)]
    if not complete and dates and clocks:
        header.problems.append(
            f"time is in two columns, {dates[0]} and {clocks[0]}: join them, as 2019-05-01T13:00"
        )
    return (complete or dates or columns)[0]


def _normalise(name: str) -> str:
    """Return a column's name in lower case, without spaces and punctuation other than `%`."""
    name = name.lower().replace("\N{SUPERSCRIPT THREE}", "3")
    return re.sub(r"[^a-z0-9%]", "", name)


TABLES = (".csv", ".tsv", ".txt", ".dat")  # loggers write the last two


def is_catalog_entry(text: str) -> bool:
    """Return whether a text names an entry of a catalog, as CATALOG.yaml:NAME."""
    return re.search(r"\.ya?ml:[^/]+$", text) is not None


def is_table(url: str) -> bool:
    """Return whether the name of a file or a URL is that of a table of text."""
    return url.partition("?")[0].lower().endswith(TABLES)
