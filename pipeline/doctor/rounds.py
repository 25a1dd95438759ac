"""One entry over all its years: what is wrong, told once, with the years in which it is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pipeline.dates import runs_as_text, runs_of_days
from pipeline.doctor import admission, checkup, gaps
from pipeline.doctor.symptoms import Symptom, of_error
from pipeline.errors import SoilweaveError

if TYPE_CHECKING:
    from pipeline.doctor.cases import Case, Period
    from pipeline.progress import Progress

Found = dict[Symptom, list[str]]
PATIENCE = 2  # years in a row in which a server may refuse, or not answer


def of(case: Case, progress: Progress) -> tuple[Found, str]:
    """Examine an entry in every year that is needed.

    Args:
      case: the entry.
      progress: told of each year.

    Returns:
      what is wrong, each with its years (none where it is of no year); the years, and after a
      blank what was looked at.
    """
    years = case.years()
    found: Found = {symptom: [] for symptom in admission.of_description(case)}
    unfit = admission.unfit(case)
    if not unfit:
        try:
            driver = admission.driver(case)
        except SoilweaveError as error:
            unfit = of_error(error)
    if unfit:
        progress.advance(len(years))
        return found | {symptom: [] for symptom in unfit}, ""
    seen, note = _over(years, case, driver, progress)
    labels = [str(year[0].year) for year in years if year]
    return found | seen, f"{span(labels)} {note}"


def span(years: list[str]) -> str:
    """`2015..2018, 2020` of 2015, 2016, 2017, 2018, 2020."""
    return runs_as_text(runs_of_days([int(year) for year in years if year]))


def _over(
    years: list[Period | None], case: Case, driver: Any, progress: Progress
) -> tuple[Found, str]:
    """What is wrong in each year, and what was looked at in the last of the longest."""
    found: Found = {}
    note, longest, reached, silent = "", 0, 0, 0
    cadences: list[tuple[str, str]] = []
    for at, year in enumerate(years):
        label = str(year[0].year) if year else ""
        seen = checkup.of(case, driver, year, first=not reached)
        reached += seen.opened
        if label and seen.cadence:
            cadences.append((label, seen.cadence))
        days = (year[1] - year[0]).days if year else 0
        if seen.note and days >= longest:
            longest = days
            note = f"{seen.note} in {label}" if label else seen.note
        for symptom in seen.symptoms:
            found.setdefault(symptom, []).append(label)
        progress.advance()
        silent = silent + 1 if any(map(_is_silent, seen.symptoms)) else 0
        untried = len(years) - at - 1
        if silent == PATIENCE and untried:
            progress.advance(untried)
            return _joined(found, f"; years not tried: {untried}"), note
    found |= gaps.between_years(cadences)
    return _joined(_missing_years(found) if reached else found), note


def _is_silent(symptom: Symptom) -> bool:
    """Whether a server refuses us or does not answer: to ask it for every year takes long."""
    busy = re.search("does not answer|asked . times", symptom.found)
    return symptom.check == "credentials" or busy is not None


def _missing_years(found: Found) -> Found:
    """Files that are not there, of an entry whose other years are, are years that are missing."""
    named = {}
    for symptom, years in found.items():
        absent = symptom.check == "opening" and re.search("not found|nothing of", symptom.found)
        told = symptom._replace(check="missing year") if absent and any(years) else symptom
        named[told] = years
    return named


def _joined(found: Found, untried: str = "") -> Found:
    """Wrong magnitudes of a variable, and refusals: once, as the first year tells them."""
    alike: dict[tuple[str, ...], Symptom] = {}
    joined: Found = {}
    for symptom, years in found.items():
        key: tuple[str, ...] = symptom
        told = symptom
        if symptom.check in ("units", "range"):
            key = (symptom.check, symptom.found.partition(":")[0], symptom.remedy)
        elif _is_silent(symptom):
            key = (symptom.check, symptom.remedy)
            told = symptom._replace(found=symptom.found + untried)
        joined.setdefault(alike.setdefault(key, told), []).extend(years)
    return joined
