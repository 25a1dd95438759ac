"""What the header of a stranger's CSV says: which column is what, in which units."""

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

# Words of a header without spaces, signs and capitals, likelier ones first.
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
# Words of columns whose names have a depth: that of a logger's `T_5cm` is in the soil.
WIDE = {TARGET: WORDS[TARGET].split(), TEMPERATURE: [*WORDS[TEMPERATURE].split(), "st", "ts", "t"]}
_DEGREES = dict.fromkeys(["", "deg", "degree", "degrees", "dd", "decimal", "wgs84", "n", "e"], "")
_DEGREES |= dict.fromkeys(["degn", "dege", "degreesnorth", "degreeseast", "decimaldegrees"], "")
_LENGTHS = {"": "", "m": "m", "meter": "m", "metre": "m", "meters": "m", "metres": "m"}
_LENGTHS |= {"cm": "cm", "mm": "mm", "in": "inch", "inch": "inch", "inches": "inch"}
_SHARES = {"": "", **dict.fromkeys(["m3m3", "cm3cm3", "vv", "fraction", "frac"], FRACTION)}
_SHARES |= dict.fromkeys(["%", "percent", "pct", "perc", "vol%", "%vol", "volpercent"], PERCENT)
# What may follow the word, and what it says of units or zone.
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
    """Columns by role, or our name; what their names say of units or zone; and problems.

    `depths` has, by our name, the columns that have one depth each, with their depths in m; the
    first of them is in `columns`.
    """

    columns: dict[str, str] = field(default_factory=dict)
    depths: dict[str, dict[str, Any]] = field(default_factory=dict)
    hints: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def recognised(raw: pd.DataFrame, given: dict[str, str], known: Collection[str] = ()) -> Recognised:
    """What the header says.

    Args:
      raw: of `pipeline.sources.table.text.split`.
      given: {role: column} that are known; `value` and `temperature` are roles too.
      known: roles that need no column, since they are said of the only station.
    """
    made = Recognised()
    ours = {"value": TARGET, "temperature": TEMPERATURE}
    made.columns = {ours.get(role, role): column for role, column in given.items()}
    absent = [c for c in made.columns.values() if c not in raw]
    made.problems += [
        f"column '{c}' missing; the header has {', '.join(raw.columns)}" for c in absent
    ]
    made.columns = {role: c for role, c in made.columns.items() if c in raw}
    free = [c for c in raw.columns if c not in made.columns.values()]
    for role, words in WORDS.items():
        if role in known:
            continue
        units = UNITS.get(role, {"": ""})
        found = {
            column: units[_plain(column).removeprefix(word)]
            for word in words.split()
            for column in ([made.columns[role]] if role in made.columns else free)
            if _plain(column).startswith(word) and _plain(column).removeprefix(word) in units
        }
        if found:
            first = _time_column(raw, list(found), made) if role == "time" else next(iter(found))
            made.columns.setdefault(role, first)
            made.hints[role] = found[first]
    _of_depths(raw, made)
    if len(made.depths.get(TARGET, ())) == 1 and {"depth", "depth_to"} & made.columns.keys():
        made.depths.clear()  # the table is a long one
    if made.depths:
        made.columns.pop("depth", None)
    if "depth_from" in made.columns and "depth_to" in made.columns:
        made.columns.pop("depth", None)
    else:
        made.columns.pop("depth_from", None)
        made.columns.pop("depth_to", None)
    if "id" not in made.columns and "id" not in known and "sensor" in made.columns:
        made.columns["id"] = made.columns.pop("sensor")
    made.hints = {role: hint for role, hint in made.hints.items() if hint}
    return made


def _of_depths(raw: pd.DataFrame, made: Recognised) -> None:
    """Columns of one depth each, where no other column has the target; and units of the logger."""
    if TARGET not in made.columns:
        for name, words in WIDE.items():
            free = [c for c in raw.columns if c not in made.columns.values()]
            found, units = wide.of_variable(free, words, UNITS[name])
            if found and (name == TARGET or TARGET in made.depths) and name not in made.columns:
                made.depths[name] = found
                made.columns[name] = next(iter(found))
                made.hints[name] = units
    told = raw.attrs.get("units", {})
    for name in (TARGET, TEMPERATURE):
        if name in made.columns and not made.hints.get(name):
            made.hints[name] = UNITS[name].get(_plain(told.get(made.columns[name], "")), "")


def _time_column(raw: pd.DataFrame, found: list[str], made: Recognised) -> str:
    """That with date and time, else that with dates."""
    texts = {column: raw[column][raw[column] != ""] for column in found}
    whole = [c for c, text in texts.items() if (text.str.len() > 10).any()]
    clocks = [c for c, text in texts.items() if text.str.match(r"\d{1,2}:\d\d").any()]
    dates = [c for c in found if c not in (*whole, *clocks)]
    if not whole and dates and clocks:
        both = f"{dates[0]} and {clocks[0]}"
        made.problems.append(f"time is in two columns, {both}: join them, as 2019-05-01T13:00")
    return (whole or dates or found)[0]


def _plain(name: str) -> str:
    name = name.lower().replace("\N{SUPERSCRIPT THREE}", "3")
    return re.sub(r"[^a-z0-9%]", "", name)
