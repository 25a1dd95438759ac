"""What the columns of a stranger's CSV are, from its header and the magnitude of its numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.probes import units
from pipeline.probes.units import FILLS, numbers
from pipeline.probes.words import TARGET, TEMPERATURE, WORDS, recognised
from pipeline.sources.table import stamps
from pipeline.sources.table.form import NEEDED

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.probes.words import Recognised

_GOOD = ("0", "g", "good", "ok", "pass", "passed", "valid")


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
      raw: of `pipeline.sources.table.text.split`.
      given: arguments that a person gave; `units` and `temperature_units`, and `columns` by role
        (also `value` and `temperature`) stand for the mapping.
    """
    station = _station(raw, given)
    found = recognised(raw, given.get("columns") or {}, station)
    made = Guess(found.columns, problems=found.problems)
    if "id" in station and "id" not in given:
        made.notes.append(f"id {station['id']}, from the logger's header; else --set id=NAME")
    used = {*found.columns.values(), *(c for columns in found.depths.values() for c in columns)}
    if idle := [name for name in raw.columns if name not in used]:
        made.notes.append(f"columns not used: {', '.join(idle)}")
    lacking = [n for n in (*NEEDED, TARGET) if n not in made.columns and n not in station]
    made.problems += [_absent(raw, name) for name in lacking]
    has_depth = "depth" in given or {"depth", "depth_from"} & made.columns.keys()
    if "depth" in given and found.depths:
        _one_depth(found, made)
    if not has_depth and not found.depths:
        made.problems.append("no depth: add a column depth_m, or say --set depth=0.05 (m)")
    elif not lacking:
        for name in ("depth", "depth_from", "depth_to") if "depth" in given else ():
            made.columns.pop(name, None)
        seen = units.seen(raw, found, given)
        made.problems += seen.problems
        made.notes += seen.notes
        roles = {k: v for k, v in made.columns.items() if k not in (TARGET, TEMPERATURE)}
        form, is_clear = _time_format(raw[roles["time"]], given, made)
        if not is_clear:
            return made
        zone = given.get("time_zone") or found.hints.get("time")
        zone = zone or _zone(raw[roles["time"]], form, made)
        made.args = {"mapping": seen.mapping, "columns": roles, **station, "time_zone": zone}
        made.args |= {"time_format": form} if form else {}
        made.args |= {"depth": given["depth"]} if "depth" in given else {}
        made.args["depth_units"] = seen.depth_units
        if "flag" in roles:
            made.args["good"] = given.get("good") or _good(raw[roles["flag"]], made)
        made.args["missing"] = given.get("missing") or _fills(raw, found, made)
        others = ("sensors", "min_share", "depth_class_m")
        made.args |= {name: given[name] for name in others if name in given}
    return made


def _station(raw: pd.DataFrame, given: dict[str, Any]) -> dict[str, Any]:
    """What is known of the only station: what a person gave, or its name in a logger's header."""
    told: dict[str, Any] = {role: given[role] for role in ("id", "lat", "lon") if role in given}
    has_id = "id" in told or "id" in recognised(raw, given.get("columns") or {}, ("id",)).columns
    return told if has_id or not raw.attrs["station"] else {"id": raw.attrs["station"], **told}


def _absent(raw: pd.DataFrame, name: str) -> str:
    """A column that must be there is not, and what to do."""
    told = "value" if name == TARGET else name
    examples = ", ".join(WORDS[name].split()[:4])
    header = ", ".join(raw.columns)
    absent = f"no column for {told} (such as {examples}); the header has {header}"
    station = f"; of a single station, --set {told}=..." if told in ("id", "lat", "lon") else ""
    return f"{absent}: rename one, or --set columns.{told}=NAME{station}"


def _one_depth(found: Recognised, made: Guess) -> None:
    """A depth was given, and the columns' names have others."""
    columns = list(found.depths[TARGET])
    if len(columns) > 1:
        told = f"columns {', '.join(columns)} name their depths, and depth says another"
        made.problems.append(f"{told}: leave it out, or --set columns.value=NAME")
    found.depths.clear()


def _time_format(text: pd.Series, given: dict[str, Any], made: Guess) -> tuple[str | None, bool]:
    """How stamps that are not ISO 8601 are written, and whether that is clear."""
    if "time_format" in given or stamps.is_iso(text):
        return given.get("time_format"), True
    forms = stamps.fitting(text)
    if not forms:
        made.notes.append(
            f"{made.columns['time']}: no form of dates that is known fits all of them; say it, as "
            "in --set time_format='%d/%m/%Y %H:%M'"
        )
        return None, True  # the table tells which lines are wrong
    column, first = made.columns["time"], text[text != ""].iloc[0]
    if len(forms) == 1:
        made.notes.append(f"{column}: read as {forms[0]}; else --set time_format=...")
        return forms[0], True
    choices = " or ".join(f"--set time_format='{form}'" for form in forms)
    made.problems.append(f"{column}: '{first}' and all others fit several forms: say {choices}")
    return None, False


def _zone(text: pd.Series, form: str | None, made: Guess) -> str:
    if "%z" in form if form else stamps.has_offset(text).any():
        return stamps.OFFSET
    if stamps.has_times(form) if form else not stamps.is_date(text).all():
        made.notes.append(
            "times carry no offset: days are recorded as those of local standard time; if they "
            "are not, --set time_zone=UTC, UTC-06:00 (no summer time) or an IANA name"
        )
    return stamps.LOCAL


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


def _fills(raw: pd.DataFrame, found: Recognised, made: Guess) -> list[float]:
    import pandas as pd

    names = [name for name in (TARGET, TEMPERATURE) if name in made.columns]
    columns = [c for name in names for c in found.depths.get(name, [made.columns[name]])]
    values = pd.concat([numbers(raw, column, ()) for column in columns])
    fills = [fill for fill in FILLS if np.isclose(values, fill).any()]
    if fills:
        shown = ", ".join(f"{fill:g}" for fill in fills)
        made.notes.append(f"taken as missing: {shown}; else --set missing=[...]")
    return fills or [FILLS[0]]
