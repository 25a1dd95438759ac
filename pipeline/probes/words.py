"""Recognise the columns of a CSV from its header: their roles, units and depths."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.names import VARIABLES
from pipeline.probes import wide
from pipeline.sources.table import stamps

if TYPE_CHECKING:
    from collections.abc import Collection

    import pandas as pd

TARGET = next(name for name, variable in VARIABLES.items() if variable.kind == "target")
TEMPERATURE = next(name for name, variable in VARIABLES.items() if variable.kind == "auxiliary")
FRACTION, PERCENT = VARIABLES[TARGET].units, "percent"

# Names of columns by role, in lower case without spaces and punctuation, likelier ones first.
WORDS: dict[str, str] = {
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
WIDE = {TARGET: WORDS[TARGET].split(), TEMPERATURE: [*WORDS[TEMPERATURE].split(), "st", "ts", "t"]}
_DEGREES = dict.fromkeys(["", "deg", "degree", "degrees", "dd", "decimal", "wgs84", "n", "e"], "")
_DEGREES |= dict.fromkeys(["degn", "dege", "degreesnorth", "degreeseast", "decimaldegrees"], "")
_LENGTHS = {"": "", "m": "m", "meter": "m", "metre": "m", "meters": "m", "metres": "m"}
_LENGTHS |= {"cm": "cm", "mm": "mm", "in": "inch", "inch": "inch", "inches": "inch"}
_SHARES = {"": "", **dict.fromkeys(["m3m3", "cm3cm3", "vv", "fraction", "frac"], FRACTION)}
_SHARES |= dict.fromkeys(["%", "percent", "pct", "perc", "vol%", "%vol", "volpercent"], PERCENT)
# What may follow such a name, and the units or time zone that it means; "" means none.
UNITS: dict[str, dict[str, str]] = {
    "lat": _DEGREES,
    "lon": _DEGREES,
    "time": {
        "": "",
        "utc": "UTC",
        "gmt": "UTC",
        "lst": stamps.LOCAL,
        "iso": "",
        "iso8601": "",
    },
    **dict.fromkeys(["depth", "depth_from", "depth_to"], _LENGTHS),
    TARGET: _SHARES,
    TEMPERATURE: {"": "", "c": "degC", "degc": "degC", "celsius": "degC", "k": "K", "kelvin": "K"}
    | {"f": "degF", "degf": "degF", "fahrenheit": "degF"},
}


@dataclass
class Recognised:
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


def recognised(
    raw: pd.DataFrame, given: dict[str, str], station: Collection[str] = ()
) -> Recognised:
    """Recognise the columns of a table.

    Args:
      raw: table of text, from `pipeline.sources.table.text.split`.
      given: {role: column} that the user states; `value` and `temperature` are roles too.
      station: roles that need no column, since they are stated for the only station.
    """
    header = Recognised()
    variables = {"value": TARGET, "temperature": TEMPERATURE}
    header.columns = {variables.get(role, role): column for role, column in given.items()}
    absent = [c for c in header.columns.values() if c not in raw]
    header.problems += [
        f"column '{c}' missing; the header has {', '.join(raw.columns)}" for c in absent
    ]
    header.columns = {role: c for role, c in header.columns.items() if c in raw}
    free = [c for c in raw.columns if c not in header.columns.values()]
    for role, words in WORDS.items():
        if role in station:
            continue
        units = UNITS.get(role, {"": ""})
        candidates = {
            column: units[_plain(column).removeprefix(word)]
            for word in words.split()
            for column in ([header.columns[role]] if role in header.columns else free)
            if _plain(column).startswith(word) and _plain(column).removeprefix(word) in units
        }
        if candidates:
            first = next(iter(candidates))
            if role == "time":
                first = _time_column(raw, list(candidates), header)
            header.columns.setdefault(role, first)
            header.hints[role] = candidates[first]
    _of_depths(raw, header)
    _drop_conflicting(header, station)
    header.hints = {role: hint for role, hint in header.hints.items() if hint}
    return header


def _drop_conflicting(header: Recognised, station: Collection[str]) -> None:
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


def _of_depths(raw: pd.DataFrame, header: Recognised) -> None:
    """Add columns of one depth each, if no other column has the target; and the logger's units."""
    if TARGET not in header.columns:
        for name, words in WIDE.items():
            free = [c for c in raw.columns if c not in header.columns.values()]
            depths, units = wide.of_variable(free, words, UNITS[name])
            is_used = name == TARGET or TARGET in header.depths
            if depths and is_used and name not in header.columns:
                header.depths[name] = depths
                header.columns[name] = next(iter(depths))
                header.hints[name] = units
    logger_units = raw.attrs.get("units", {})
    for name in (TARGET, TEMPERATURE):
        if name in header.columns and not header.hints.get(name):
            text = _plain(logger_units.get(header.columns[name], ""))
            header.hints[name] = UNITS[name].get(text, "")


def _time_column(raw: pd.DataFrame, columns: list[str], header: Recognised) -> str:
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


def _plain(name: str) -> str:
    """Return a column's name in lower case, without spaces and punctuation other than `%`."""
    name = name.lower().replace("\N{SUPERSCRIPT THREE}", "3")
    return re.sub(r"[^a-z0-9%]", "", name)
