"""`doctor`: every entry and year of an experiment or a catalog, examined before it is used."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pipeline import admission, checkup, targets
from pipeline.errors import SoilweaveError
from pipeline.symptoms import of_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from pipeline.cases import Case
    from pipeline.progress import Progress
    from pipeline.symptoms import Symptom

Found = dict["Symptom", list[str]]


def examine(target: str, settings: Sequence[str], progress: Progress) -> tuple[bool, list[Any]]:
    """Examine what an experiment or a catalog names; everything that is wrong, in one go.

    Args:
      target: an experiment (a preset, a file.yaml, a URL) or a catalog (likewise).
      settings: `key=value` over the experiment.
      progress: told of every year of an entry.

    Returns:
      whether nothing is wrong, and what is shown.

    Raises:
      ConfigError: the target is neither.
    """
    to_do = targets.of(target, settings)
    years = sum(len(case.years()) for case in to_do)
    progress.start("doctor", years, "years of entries")
    seen = [(case, *_examined(case, progress)) for case in to_do]
    problems = sum(len(found) for _, found, _ in seen)
    ill = sum(bool(found) for _, found, _ in seen)
    counts = f"{len(seen)} entries, {years} years of them: {len(seen) - ill} healthy"
    if problems:
        counts += f"; {problems} problems in {ill}"
    progress.finish(f"{years} years of {len(seen)} entries looked at")
    shown: list[Any] = [_table(seen), counts]
    unproven = [case.label for case, _, _ in seen if case.metadata.get("verified") is False]
    if unproven:
        shown.append(f"never run against the live place before: {', '.join(unproven)}")
    return not problems, shown


def _examined(case: Case, progress: Progress) -> tuple[Found, str]:
    """What is wrong with a case, each with its years; the years and what was looked at."""
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
    reached, note = 0, ""
    for year in years:
        label = str(year[0].year) if year else ""
        seen = checkup.of(case, driver, year, first=not reached)
        reached += seen.opened
        note = f"{seen.note} in {label}".removesuffix(" in ") if seen.note else note
        for symptom in seen.symptoms:
            found.setdefault(symptom, []).append(label)
        progress.advance()
    found = _joined(_missing_years(found, reached))
    return found, f"{_told([str(year[0].year) for year in years if year])} {note}"


def _missing_years(found: Found, reached: int) -> Found:
    """Files that are not there, of an entry whose other years are, are years that are missing."""
    if not reached:
        return found
    named = {}
    for symptom, years in found.items():
        absent = symptom.check == "opening" and re.search("not found|nothing of", symptom.found)
        told = symptom._replace(check="missing year") if absent and any(years) else symptom
        named[told] = years
    return named


def _joined(found: Found) -> Found:
    """Wrong magnitudes of a variable and refusals, told once, as of the first year."""
    alike: dict[tuple[str, ...], Symptom] = {}
    joined: Found = {}
    for symptom, years in found.items():
        key: tuple[str, ...] = symptom
        if symptom.check in ("units", "range"):
            key = (symptom.check, symptom.found.partition(":")[0], symptom.remedy)
        elif symptom.check == "credentials":
            key = (symptom.check, symptom.remedy)
        joined.setdefault(alike.setdefault(key, symptom), []).extend(years)
    return joined


def _table(seen: list[tuple[Case, Found, str]]) -> Table:
    """A row for every problem, and one for every entry without."""
    from rich.table import Table
    from rich.text import Text

    table = Table("entry", "year", "check", "found", "remedy", show_lines=False)
    for case, found, note in seen:
        for symptom, years in found.items():
            row = (case.label, _told(years), symptom.check, symptom.found, symptom.remedy)
            table.add_row(*(Text(text, "red" if at == 2 else "") for at, text in enumerate(row)))
        if not found:
            span, _, looked = note.partition(" ")
            row = (case.label, span, "healthy", f"looked at {looked}", "")
            table.add_row(*(Text(text, "green" if at == 2 else "") for at, text in enumerate(row)))
    return table


def _told(years: list[str]) -> str:
    """`2015..2018, 2020` of 2015, 2016, 2017, 2018, 2020."""
    runs: list[list[int]] = []
    for year in sorted({int(year) for year in years if year}):
        if runs and year == runs[-1][1] + 1:
            runs[-1][1] = year
        else:
            runs.append([year, year])
    return ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in runs)
