"""What the columns of a stranger's CSV are, from its header and the magnitude of its numbers."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.names import VARIABLES
from pipeline.sources import table_days
from pipeline.sources.table import NEEDED

if TYPE_CHECKING:
    import pandas as pd

TARGET = next(name for name, variable in VARIABLES.items() if variable.kind == "target")
TEMPERATURE = next(name for name, variable in VARIABLES.items() if variable.kind == "auxiliary")
_FRACTION, _PERCENT = VARIABLES[TARGET].units, "percent"

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
    "soilwatercontent watercontent vwc sm swc ssm theta moisture soilwater value",
    TEMPERATURE: f"{TEMPERATURE.replace('_', '')} soiltemp tsoil soilt temperature temp",
}
_DEGREES = dict.fromkeys(["", "deg", "degree", "degrees", "dd", "decimal", "wgs84", "n", "e"], "")
_DEGREES |= dict.fromkeys(["degn", "dege", "degreesnorth", "degreeseast", "decimaldegrees"], "")
_LENGTHS = {"": "", "m": "m", "meter": "m", "metre": "m", "meters": "m", "metres": "m"}
_LENGTHS |= {"cm": "cm", "mm": "mm", "in": "inch", "inch": "inch", "inches": "inch"}
_SHARES = {"": "", **dict.fromkeys(["m3m3", "cm3cm3", "vv", "fraction", "frac"], _FRACTION)}
_SHARES |= dict.fromkeys(["%", "percent", "pct", "perc", "vol%", "%vol", "volpercent"], _PERCENT)
# What may follow the word, and what it says of units or zone.
UNITS: dict[str, dict[str, str]] = {
    "lat": _DEGREES,
    "lon": _DEGREES,
    "time": {"": "", "utc": "UTC", "gmt": "UTC", "lst": table_days.LOCAL, "iso": "", "iso8601": ""},
    **dict.fromkeys(["depth", "depth_from", "depth_to"], _LENGTHS),
    TARGET: _SHARES,
    TEMPERATURE: {"": "", "c": "degC", "degc": "degC", "celsius": "degC", "k": "K", "kelvin": "K"}
    | {"f": "degF", "degf": "degF", "fahrenheit": "degF"},
}
_GOOD = ("0", "g", "good", "ok", "pass", "passed", "valid")
_FILLS = (-9999.0, -9999.9, -999.0, -999.9, -99.9, -99.0, -6999.0, 9999.0, 99999.0)


@dataclass
class Guess:
    """How a CSV is to be read.

    Attributes:
      columns: {role, or our name: column}.
      args: of `TableSource`, but for the file; none where a column that must be is not there.
      problems: what a person must mend.
      notes: what was decided, and how to decide otherwise.
    """

    columns: dict[str, str] = field(default_factory=dict)
    args: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def guess(raw: pd.DataFrame, given: dict[str, Any]) -> Guess:
    """Guess the arguments of `TableSource`.

    Args:
      raw: of `table_rows.split`.
      given: arguments that a person gave; `units` and `temperature_units`, and `columns` by role
        (also `value` and `temperature`) stand for the mapping.
    """
    made = Guess()
    hints = _recognised(raw, given.get("columns") or {}, made)
    lacking = [name for name in (*NEEDED, TARGET) if name not in made.columns]
    for name in lacking:
        told = "value" if name == TARGET else name
        examples = ", ".join(WORDS[name].split()[:4])
        found = (
            f"no column for {told} (such as {examples}); the header has {', '.join(raw.columns)}"
        )
        made.problems.append(f"{found}: rename one, or --set columns.{told}=NAME")
    if not {"depth", "depth_from"} & made.columns.keys() and "depth" not in given:
        made.problems.append("no depth: add a column depth_m, or say --set depth=0.05 (m)")
    elif not lacking:
        depths = _depths(raw, hints, given, made)
        roles = {k: v for k, v in made.columns.items() if k not in (TARGET, TEMPERATURE)}
        mapping = _mapping(raw, hints, given, made)
        zone = given.get("time_zone") or hints.get("time") or _zone(raw[roles["time"]], made)
        made.args = {"mapping": mapping, "columns": roles, "time_zone": zone}
        made.args |= depths
        if "flag" in roles:
            made.args["good"] = given.get("good") or _good(raw[roles["flag"]], made)
        made.args["missing"] = given.get("missing") or _fills(raw, made)
        others = ("sensors", "min_share", "depth_class_m")
        made.args |= {name: given[name] for name in others if name in given}
    return made


def numbers(raw: pd.DataFrame, column: str) -> pd.Series:
    """(row,) a column as numbers, NaN where there is none or what stands for none."""
    import pandas as pd

    text = raw[column]
    if raw.attrs.get("decimal") == ",":
        text = text.str.replace(",", ".", regex=False)
    values: pd.Series = pd.to_numeric(text, errors="coerce")
    return values.mask(values.isin(_FILLS))


def _recognised(raw: pd.DataFrame, given: dict[str, str], made: Guess) -> dict[str, str]:
    """Columns of the roles, and what their names say of units."""
    ours = {"value": TARGET, "temperature": TEMPERATURE}
    made.columns = {ours.get(role, role): column for role, column in given.items()}
    absent = [c for c in made.columns.values() if c not in raw]
    made.problems += [
        f"column '{c}' missing; the header has {', '.join(raw.columns)}" for c in absent
    ]
    made.columns = {role: c for role, c in made.columns.items() if c in raw}
    hints: dict[str, str] = {}
    free = [c for c in raw.columns if c not in made.columns.values()]
    for role, words in WORDS.items():
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
            hints[role] = found[first]
    if "depth_from" in made.columns and "depth_to" in made.columns:
        made.columns.pop("depth", None)
    else:
        made.columns.pop("depth_from", None)
        made.columns.pop("depth_to", None)
    if "id" not in made.columns and "sensor" in made.columns:
        made.columns["id"] = made.columns.pop("sensor")
    return {role: hint for role, hint in hints.items() if hint}


def _time_column(raw: pd.DataFrame, found: list[str], made: Guess) -> str:
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


def _mapping(
    raw: pd.DataFrame, hints: dict[str, str], given: dict[str, Any], made: Guess
) -> dict[str, dict[str, str]]:
    column = made.columns[TARGET]
    values = numbers(raw, column)
    units = given.get("units") or hints.get(TARGET)
    medians = values[values > 0].groupby(raw[made.columns["id"]]).median()
    large = medians > 1
    seen = _PERCENT if large.mean() > 0.5 else _FRACTION
    if large.any() and not large.all():
        one, other = medians.index[large][0], medians.index[~large][0]
        found = f"{one} has values about {medians[one]:.3g}, {other} about {medians[other]:.3g}"
        made.problems.append(f"{column}: {found}: bring all to one unit")
    elif units in (_PERCENT, _FRACTION) and len(medians) and units != seen:
        found = f"{column}: values about {medians.median():.3g} are no {units}"
        where = "correct --set units" if "units" in given else f"rename it, or --set units='{seen}'"
        made.problems.append(f"{found} but {seen}: {where}")
    elif not units:
        made.notes.append(f"{column}: taken to be {seen}, from its magnitude; else --set units=...")
    mapping = {TARGET: _spec(column, units or seen, _FRACTION)}
    if TEMPERATURE in made.columns:
        name = made.columns[TEMPERATURE]
        degrees = given.get("temperature_units") or hints.get(TEMPERATURE)
        if not degrees:
            degrees = "K" if numbers(raw, name).median() > 150 else "degC"
            made.notes.append(
                f"{name}: taken to be the soil's temperature in {degrees}; "
                "else --set temperature_units=..., or rename it"
            )
        mapping[TEMPERATURE] = _spec(name, degrees, VARIABLES[TEMPERATURE].units)
    return mapping


def _spec(column: str, units: str, ours: str) -> dict[str, str]:
    spec = {"from": column, "units": units}
    return spec if units == ours else spec | {"to": ours}


def _depths(
    raw: pd.DataFrame, hints: dict[str, str], given: dict[str, Any], made: Guess
) -> dict[str, Any]:
    role = "depth_to" if "depth_to" in made.columns else "depth"
    if "depth" in given:
        for name in ("depth", "depth_from", "depth_to"):
            made.columns.pop(name, None)
        return {"depth": given["depth"], "depth_units": given.get("depth_units", "m")}
    column = made.columns[role]
    values = numbers(raw, column)
    least, units = values[values > 0].min(), given.get("depth_units") or hints.get(role)
    if not units:
        units = "cm" if least >= 2 else "m"
        made.notes.append(
            f"{column}: from {least:g} on, taken to be {units}; else --set depth_units=..."
        )
    elif (units == "m" and least >= 2) or (units == "cm" and values.max() < 1):
        made.problems.append(
            f"{column}: values of {least:g} to {values.max():g} are hardly {units}: correct the "
            "header, or --set depth_units"
        )
    return {"depth_units": units}


def _zone(text: pd.Series, made: Guess) -> str:
    if table_days.has_offset(text).any():
        return table_days.OFFSET
    if not table_days.is_date(text).all():
        made.notes.append(
            "times carry no offset: days are recorded as those of local standard time; if they "
            "are not, --set time_zone=UTC, UTC-06:00 (no summer time) or an IANA name"
        )
    return table_days.LOCAL


def _good(flags: pd.Series, made: Guess) -> list[str]:
    counts = Counter(flags[flags != ""])
    known = [text for text in counts if text.lower() in _GOOD]
    chosen = known or [text for text, _ in counts.most_common(1)]
    others = ", ".join(text for text in counts if text not in chosen) or "none"
    made.notes.append(
        f"flags taken as good: {', '.join(chosen) or 'none'}; as bad: {others}; "
        "else --set good=[...]"
    )
    return chosen or ["0"]


def _fills(raw: pd.DataFrame, made: Guess) -> list[float]:
    import pandas as pd

    columns = [made.columns[name] for name in (TARGET, TEMPERATURE) if name in made.columns]
    values = pd.concat([pd.to_numeric(raw[column], errors="coerce") for column in columns])
    found = [fill for fill in _FILLS if np.isclose(values, fill).any()]
    if found:
        shown = ", ".join(f"{fill:g}" for fill in found)
        made.notes.append(f"taken as missing: {shown}; else --set missing=[...]")
    return found or [_FILLS[0]]
