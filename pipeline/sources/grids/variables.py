"""What an entry's mapping asks for: names, units, how to a day, and variables made from others.

{from: NAME, units: UNITS, to: OUR UNITS}             as it is, in our units
fill: NUMBER, or a list                               stored values that are missing, though the
                                                      file does not declare it
daily: mean | sum | max | min                         where steps are shorter than a day; a sum
                                                      of UNITS has UNITS day-1
accumulated: hourly | since_00                        amounts of each step, however long, or
                                                      since 00 UTC; stamped at their end
stamp: start | middle | end | instant                 other than the entry's `day.stamp`
{from: [NAME, ...], units: [UNITS, ...], by: RULE}    one of RULES, at the provider's steps
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import DataError
from pipeline.sources.grids.days import HOWS, SINCE_00, STAMPS
from pipeline.sources.shared.units import RULES, conversion, known, linear, same

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    Arrays = list[Any]


KEYS = {"from", "units", "to", "fill", "daily", "accumulated", "stamp", "by"}


@dataclass(frozen=True)
class Term:
    """One of our variables, as the mapping has it.

    Attributes:
      inputs: the provider's names and units.
      rule: how it is made from them; None where it is the one input.
      how: from steps to a day, None for data that are daily.
      since_00: whether it accumulates from 00 UTC on.
      stamp: of its steps, None for the entry's.
      units: of what the rule and the day make.
      to: ours.
    """

    inputs: tuple[tuple[str, str], ...]
    rule: str | None
    how: str | None
    since_00: bool
    stamp: str | None
    units: str
    to: str

    def stamp_over(self, entrys: str) -> str:
        """Where the time of a step lies in its interval, given the entry's; or SINCE_00."""
        return SINCE_00 if self.since_00 else self.stamp or entrys

    def make(self, arrays: Arrays) -> Any:
        """The variable at the provider's steps, from arrays of its inputs, in their units."""
        if self.rule is None:
            return arrays[0]
        rule, first = RULES[self.rule], self.inputs[0][1]
        taken = [
            linear(array, units, wanted or first)
            for array, (_, units), wanted in zip(arrays, self.inputs, rule.takes, strict=True)
        ]
        return rule.make(*taken).astype("float32")

    def ours(self, arrays: Arrays, to_days: Callable[[Any], Any] | None = None) -> Any:
        """The variable in our units, from arrays of its inputs, in their units.

        Args:
          arrays: of the inputs, at the provider's steps.
          to_days: what makes days of steps.
        """
        made = self.make(arrays)
        return linear(to_days(made) if to_days else made, self.units, self.to)


def terms(mapping: dict[str, dict[str, Any]]) -> dict[str, Term]:
    """The mapping, checked.

    Raises:
      ValueError: listing what cannot be understood in it.
    """
    problems = [f"{name}: {told}" for name, spec in mapping.items() for told in _wrong(spec)]
    if problems:
        raise ValueError(f"mapping: {'; '.join(problems)}")
    return {name: _term(spec) for name, spec in mapping.items()}


def inputs_of(made: dict[str, Term]) -> dict[str, str]:
    """{provider's name: its units} of all that a mapping reads."""
    return {name: units for term in made.values() for name, units in term.inputs}


def input_problems(raw: xr.Dataset, made: dict[str, Term]) -> list[str]:
    """Inputs that a file lacks or has in other units, and units that are not of one dimension."""
    problems = []
    for name, units in inputs_of(made).items():
        if name not in raw:
            problems.append(f"{name}: missing; the file has {[str(v) for v in raw.data_vars]}")
            continue
        found = raw[name].attrs.get("units")
        if found is not None and not same(str(found), units):
            problems.append(f"{name}: units '{found}', expected '{units}'")
    for term in made.values():
        pairs = [(term.units, term.to)]
        if term.rule:
            takes = zip(term.inputs, RULES[term.rule].takes, strict=True)
            pairs += [(units, wanted) for (_, units), wanted in takes if wanted]
        for found, wanted in pairs:
            try:
                conversion(found, wanted)
            except DataError as error:
                problems.append(f"{', '.join(name for name, _ in term.inputs)}: {error}")
    return problems


def _term(spec: dict[str, Any]) -> Term:
    names, units = _listed(spec["from"]), _listed(spec["units"])
    inputs = tuple(zip(names, units * len(names) if len(units) == 1 else units, strict=True))
    rule, how = spec.get("by"), spec.get("daily")
    result = (RULES[rule].gives if rule else None) or units[0]
    result = f"{known(result)} day-1" if how == "sum" else result
    accumulated = spec.get("accumulated")
    stamp = "end" if accumulated else spec.get("stamp")
    since = accumulated == "since_00"
    return Term(inputs, rule, how, since, stamp, result, spec.get("to", result))


def _wrong(spec: dict[str, Any]) -> list[str]:
    told = [f"no key '{key}'" for key in spec.keys() - KEYS]
    for key, accepted in (
        ("daily", HOWS),
        ("accumulated", ("hourly", "since_00")),
        ("stamp", STAMPS),
        ("by", tuple(RULES)),
    ):
        if key in spec and spec[key] not in accepted:
            told.append(f"{key} '{spec[key]}', expected {', '.join(accepted)}")
    names, units = _listed(spec["from"]), _listed(spec["units"])
    if len(units) not in (1, len(names)):
        told.append(f"{len(names)} names and {len(units)} units")
    takes = len(RULES[spec["by"]].takes) if spec.get("by") in RULES else 1
    if len(names) != takes:
        told.append(f"from {len(names)} variables, expected {takes}; `by` says how")
    if "accumulated" in spec and spec.get("daily") != "sum":
        told.append("accumulated amounts need `daily: sum`")
    return told


def _listed(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, (list, tuple)) else [str(value)]
