"""Examine one entry in all its years, and report each finding once, with its years."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.dates import runs_as_text, runs_of_days
from pipeline.doctor import admission, checkup, gaps
from pipeline.doctor.symptoms import Symptom, of_error
from pipeline.errors import SoilweaveError

if TYPE_CHECKING:
    from pipeline.doctor.cases import Case, Period
    from pipeline.progress import Progress

Found = dict[Symptom, list[str]]  # the years of each finding; [] if it concerns no year
PATIENCE = 2  # years in a row without an answer from a server, after which the others are skipped


class Examination(NamedTuple):
    """The result for one entry over all its years.

    Attributes:
      case: the entry.
      findings: what was found, with the years of each finding.
      years: the years that were examined, as in `2015..2018`; empty if there are none.
      sample: how much was read, in words; empty if nothing was.
    """

    case: Case
    findings: Found
    years: str
    sample: str


def of(case: Case, progress: Progress) -> Examination:
    """Examine an entry in every year for which it is needed.

    Args:
      case: the entry.
      progress: advanced by every year.
    """
    years = case.years()
    findings: Found = {finding: [] for finding in admission.of_description(case)}
    obstacles = admission.unfit(case)
    if not obstacles:
        try:
            driver = admission.driver(case)
        except SoilweaveError as error:
            obstacles = of_error(error)
    if obstacles:
        progress.advance(len(years))
        return Examination(case, findings | {finding: [] for finding in obstacles}, "", "")
    findings_of_years, sample = _over(years, case, driver, progress)
    labels = [str(year[0].year) for year in years if year]
    return Examination(case, findings | findings_of_years, span(labels), sample)


def span(years: list[str]) -> str:
    """Format years as runs: 2015, 2016, 2017, 2018, 2020 become `2015..2018, 2020`."""
    return runs_as_text(runs_of_days([int(year) for year in years if year]))


def _over(
    years: list[Period | None], case: Case, driver: Any, progress: Progress
) -> tuple[Found, str]:
    """Return the findings of all years, and how much was read in the longest year."""
    findings: Found = {}
    sample, longest, n_opened, n_silent = "", 0, 0, 0
    cadences: list[tuple[str, str]] = []
    for index, year in enumerate(years):
        label = str(year[0].year) if year else ""
        result = checkup.of(case, driver, year, first=not n_opened)
        n_opened += result.opened
        if label and result.cadence:
            cadences.append((label, result.cadence))
        days = (year[1] - year[0]).days if year else 0
        if result.sample and days >= longest:
            longest = days
            sample = f"{result.sample} in {label}" if label else result.sample
        for finding in result.findings:
            findings.setdefault(finding, []).append(label)
        progress.advance()
        n_silent = n_silent + 1 if any(map(_is_silent, result.findings)) else 0
        n_untried = len(years) - index - 1
        if n_silent == PATIENCE and n_untried:
            progress.advance(n_untried)
            return _joined(findings, f"; years not tried: {n_untried}"), sample
    findings |= gaps.between_years(cadences)
    return _joined(_missing_years(findings) if n_opened else findings), sample


def _is_silent(finding: Symptom) -> bool:
    """Return whether a server refused access or did not answer.

    Waiting for such a server in every year would take long.
    """
    no_answer = re.search("does not answer|asked . times", finding.message)
    return finding.check == "credentials" or no_answer is not None


def _missing_years(findings: Found) -> Found:
    """Report files that are not found as missing years; for entries that have other years."""
    renamed = {}
    for finding, years in findings.items():
        absent = finding.check == "opening" and re.search("not found|nothing of", finding.message)
        is_missing = absent and any(years)
        renamed[finding._replace(check="missing year") if is_missing else finding] = years
    return renamed


def _joined(findings: Found, untried: str = "") -> Found:
    """Join findings that differ only in their numbers, and keep the message of the first year.

    These are wrong values of one variable, and servers that refuse access or do not answer.

    Args:
      findings: findings with their years.
      untried: text added to the messages of such servers.
    """
    first_alike: dict[tuple[str, ...], Symptom] = {}
    joined: Found = {}
    for finding, years in findings.items():
        key: tuple[str, ...] = finding
        reported = finding
        if finding.check in ("units", "range"):
            variable = finding.message.partition(":")[0]
            key = (finding.check, variable, finding.hint)
        elif _is_silent(finding):
            key = (finding.check, finding.hint)
            reported = finding._replace(message=finding.message + untried)
        joined.setdefault(first_alike.setdefault(key, reported), []).extend(years)
    return joined
