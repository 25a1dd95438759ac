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
    found = recognised(raw, given.get("columns") or {})
    made = Guess(found.columns, problems=found.problems)
    if idle := [name for name in raw.columns if name not in found.columns.values()]:
        made.notes.append(f"columns not used: {', '.join(idle)}")
    lacking = [name for name in (*NEEDED, TARGET) if name not in made.columns]
    for name in lacking:
        told = "value" if name == TARGET else name
        examples = ", ".join(WORDS[name].split()[:4])
        header = ", ".join(raw.columns)
        absent = f"no column for {told} (such as {examples}); the header has {header}"
        made.problems.append(f"{absent}: rename one, or --set columns.{told}=NAME")
    if not {"depth", "depth_from"} & made.columns.keys() and "depth" not in given:
        made.problems.append("no depth: add a column depth_m, or say --set depth=0.05 (m)")
    elif not lacking:
        for name in ("depth", "depth_from", "depth_to") if "depth" in given else ():
            made.columns.pop(name, None)
        seen = units.seen(raw, found, given)
        made.problems += seen.problems
        made.notes += seen.notes
        roles = {k: v for k, v in made.columns.items() if k not in (TARGET, TEMPERATURE)}
        zone = given.get("time_zone") or found.hints.get("time") or _zone(raw[roles["time"]], made)
        made.args = {"mapping": seen.mapping, "columns": roles, "time_zone": zone}
        made.args |= {"depth": given["depth"]} if "depth" in given else {}
        made.args["depth_units"] = seen.depth_units
        if "flag" in roles:
            made.args["good"] = given.get("good") or _good(raw[roles["flag"]], made)
        made.args["missing"] = given.get("missing") or _fills(raw, made)
        others = ("sensors", "min_share", "depth_class_m")
        made.args |= {name: given[name] for name in others if name in given}
    return made


def _zone(text: pd.Series, made: Guess) -> str:
    if stamps.has_offset(text).any():
        return stamps.OFFSET
    if not stamps.is_date(text).all():
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


def _fills(raw: pd.DataFrame, made: Guess) -> list[float]:
    import pandas as pd

    columns = [made.columns[name] for name in (TARGET, TEMPERATURE) if name in made.columns]
    values = pd.concat([numbers(raw, column, ()) for column in columns])
    found = [fill for fill in FILLS if np.isclose(values, fill).any()]
    if found:
        shown = ", ".join(f"{fill:g}" for fill in found)
        made.notes.append(f"taken as missing: {shown}; else --set missing=[...]")
    return found or [FILLS[0]]
