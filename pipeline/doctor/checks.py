"""Examine one entry in all its years, and report each finding once, with its years.

Compare the sites of all sources of an experiment: equal positions and equal ids.

`doctor`: examine every entry and year of an experiment or a catalog before it is used.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.catalog import experiment_sources, site_records
from pipeline.dates import runs_as_text, runs_of_days
from pipeline.doctor import entries as doctor_entries
from pipeline.doctor import one_year, recordings, targets, time_axis
from pipeline.doctor.findings import Finding, findings_from_error
from pipeline.doctor.one_year import NOTE
from pipeline.errors import SoilweaveError
from pipeline.experiment import config
from pipeline.grid import collocated_sites
from pipeline.sources.shared import open_files
from pipeline.storage import schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from rich.table import Table

    from pipeline.doctor.entries import Case, Period
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.progress import Progress


FindingYears = dict[Finding, list[str]]  # the years of each finding; [] if it concerns no year

MAX_SILENT_YEARS = (
    2  # years in a row without an answer from a server, after which the others are skipped
)


class Examination(NamedTuple):
    """The result for one entry over all its years.

    Attributes:
      case: the entry.
      findings: what was found, with the years of each finding.
      years: the years that were examined, as in `2015..2018`; empty if there are none.
      sample: how much was read, in words; empty if nothing was.
    """

    case: Case
    findings: FindingYears
    years: str
    sample: str


def examine_entry(case: Case, progress: Progress) -> Examination:
    """Examine an entry in every year for which it is needed.

    Args:
      case: the entry.
      progress: advanced by every year.
    """
    years = case.years()
    findings: FindingYears = {finding: [] for finding in doctor_entries.check_description(case)}
    obstacles = doctor_entries.find_obstacles(case)
    if not obstacles:
        try:
            driver = doctor_entries.make_driver(case)
        except SoilweaveError as error:
            obstacles = findings_from_error(error)
    if obstacles:
        progress.advance(len(years))
        return Examination(case, findings | {finding: [] for finding in obstacles}, "", "")
    with open_files.keep_open():
        findings_of_years, sample = _check_each_year(years, case, driver, progress)
    labels = [str(year[0].year) for year in years if year]
    return Examination(case, findings | findings_of_years, years_text(labels), sample)


def years_text(years: list[str]) -> str:
    """Format years as runs: 2015, 2016, 2017, 2018, 2020 become `2015..2018, 2020`."""
    return runs_as_text(runs_of_days([int(year) for year in years if year]))


def _check_each_year(
    years: list[Period | None], case: Case, driver: Any, progress: Progress
) -> tuple[FindingYears, str]:
    """Return the findings of all years, and how much was read in the longest year."""
    findings: FindingYears = {}
    sample, longest, n_opened, n_silent = "", 0, 0, 0
    cadences: list[tuple[str, str]] = []
    for index, year in enumerate(years):
        label = str(year[0].year) if year else ""
        result = one_year.check_year(case, driver, year, first=not n_opened)
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
        n_silent = n_silent + 1 if any(map(_is_without_answer, result.findings)) else 0
        n_untried = len(years) - index - 1
        if n_silent == MAX_SILENT_YEARS and n_untried:
            progress.advance(n_untried)
            return _join_alike(findings, f"; years not tried: {n_untried}"), sample
    findings |= time_axis.check_cadence_between_years(cadences)
    return _join_alike(_mark_missing_years(findings) if n_opened else findings), sample


def _is_without_answer(finding: Finding) -> bool:
    """Return whether a server refused access or did not answer.

    Waiting for such a server in every year would take long.
    """
    no_answer = re.search("does not answer|asked . times", finding.message)
    return finding.check == "credentials" or no_answer is not None


def _mark_missing_years(findings: FindingYears) -> FindingYears:
    """Report files that are not found as missing years; for entries that have other years."""
    renamed = {}
    for finding, years in findings.items():
        absent = finding.check == "opening" and re.search("not found|nothing of", finding.message)
        is_missing = absent and any(years)
        renamed[finding._replace(check="missing year") if is_missing else finding] = years
    return renamed


def _join_alike(findings: FindingYears, untried: str = "") -> FindingYears:
    """Join findings that differ only in their numbers, and keep the message of the first year.

    These are wrong values of one variable, and servers that refuse access or do not answer.

    Args:
      findings: findings with their years.
      untried: text added to the messages of such servers.
    """
    first_alike: dict[tuple[str, ...], Finding] = {}
    joined: FindingYears = {}
    for finding, years in findings.items():
        key: tuple[str, ...] = finding
        reported = finding
        if finding.check in ("units", "range"):
            variable = finding.message.partition(":")[0]
            key = (finding.check, variable, finding.hint)
        elif _is_without_answer(finding):
            key = (finding.check, finding.hint)
            reported = finding._replace(message=finding.message + untried)
        joined.setdefault(first_alike.setdefault(key, reported), []).extend(years)
    return joined


MAX_COMPARED_PAIRS = 20  # pairs of sites at one place whose records are read and compared

EntryFinding = tuple[
    str, Finding
]  # the names of the entries that a finding concerns, and the finding


def examine_places(
    examinations: Sequence[Examination],
) -> tuple[list[EntryFinding], list[EntryFinding]]:
    """Compare the positions and ids of all sites of an experiment.

    Args:
      examinations: the results for each entry.

    Returns:
      Notes about the sites, and problems in reading them.
    """
    opened, problems = [], list[EntryFinding]()
    experiment = None
    for case, findings, _, sample in examinations:
        if case.experiment is None or case.label not in case.experiment.sources.insitu:
            continue
        if findings and not sample:
            continue  # it cannot be read, which the findings of the entry say already
        experiment = case.experiment
        try:
            dataset, _ = doctor_entries.open_entry(case, doctor_entries.make_driver(case), None)
            opened.append(dataset.assign_attrs(entry=case.label))
        except Exception as error:  # noqa: BLE001  # reported here unless the entry has findings
            problems += (
                []
                if findings
                else [(case.label, finding) for finding in findings_from_error(error)]
            )
    if experiment is None or not opened:
        return [], problems
    try:
        used = [
            _select_used_sites(experiment, d)
            for d in experiment_sources.drop_excluded_sites(experiment, opened)
        ]
        return [*_note_same_ids(used), *_note_same_places(experiment, used)], problems
    except Exception as error:  # noqa: BLE001  # any error from a provider's file is a finding
        label = ", ".join(experiment.sources.insitu)
        return [], problems + [(label, finding) for finding in findings_from_error(error)]
    finally:
        for dataset in opened:
            dataset.close()


def _select_used_sites(experiment: Experiment, dataset: xr.Dataset) -> xr.Dataset:
    """Select the sites that the experiment uses: those in its domain, if inputs come from cells."""
    if experiment.inputs_from == "own":
        return dataset
    y, _ = config.experiment_window(experiment).cells_of(dataset.lat.values, dataset.lon.values)
    return dataset.isel(place=y >= 0)


def _note_same_ids(opened: Sequence[xr.Dataset]) -> list[EntryFinding]:
    """Note the ids that occur in more than one source."""
    ids, entries = _ids_and_entries(opened)
    _, repeated = site_records.qualify_duplicate_ids(ids, entries)
    if not repeated:
        return []
    message = f"ids in more than one source; these sites are named {', '.join(repeated)}"
    hint = "none is needed; qc.exclude_sites accepts entry:id too"
    return [(", ".join(dict.fromkeys(entries)), Finding("ids", message, hint))]


def _note_same_places(experiment: Experiment, opened: Sequence[xr.Dataset]) -> list[EntryFinding]:
    """Note the pairs of sites at one place, the first of them with their correlation."""
    ids, entries = _ids_and_entries(opened)
    names, _ = site_records.qualify_duplicate_ids(ids, entries)
    lat, lon = (np.concatenate([d[axis].values for d in opened]) for axis in ("lat", "lon"))
    pairs = config.find_collocated_pairs(experiment, lat, lon)
    shown = collocated_sites.Twins(pairs.pair[:MAX_COMPARED_PAIRS], pairs.km[:MAX_COMPARED_PAIRS])
    duplicates = experiment.qc.duplicate_sites
    hint = f"none is needed; {collocated_sites.TWINS_HINT}"
    if duplicates != "keep":
        hint = f"none is needed; qc.duplicate_sites={duplicates} makes them one site"
    rows, compared = [], _compare_records(experiment, opened, names, shown)
    for comparison, (a, b) in zip(compared, shown.pair, strict=True):
        both_entries = ", ".join(dict.fromkeys([entries[a], entries[b]]))
        rows.append(
            (both_entries, Finding("twins", collocated_sites.format_pair(comparison), hint))
        )
    if n_more := len(pairs.pair) - len(shown.pair):
        label = ", ".join(dict.fromkeys(entries))
        rows.append((label, Finding("twins", f"and {n_more} more pairs at one place", hint)))
    return rows


def _compare_records(
    experiment: Experiment,
    opened: Sequence[xr.Dataset],
    names: list[str],
    pairs: collocated_sites.Twins,
) -> list[Json]:
    """Describe pairs with the correlation of their records; no other site is read.

    Args:
      experiment: the experiment.
      opened: its sources of sites.
      names: a distinct name for every site of all sources.
      pairs: indices of sites, and their distances.
    """
    members, first, values = np.unique(pairs.pair), 0, []
    days = schema.period_days(experiment.period)
    for dataset in opened:
        n_sites = dataset.sizes["place"]
        in_dataset = members[(members >= first) & (members < first + n_sites)] - first
        first += n_sites
        if in_dataset.size:
            part, _ = site_records.screen_source(experiment, dataset.isel(place=in_dataset), "")
            values.append(part[experiment.target].transpose("time", "place").values)
    if not values:
        return []
    among_members = pairs._replace(pair=np.searchsorted(members, pairs.pair))
    member_names = [names[i] for i in members.tolist()]
    return collocated_sites.describe_twins(
        among_members, member_names, np.concatenate(values, 1), days
    )


def _ids_and_entries(opened: Sequence[xr.Dataset]) -> tuple[list[str], list[str]]:
    """Return the id of every site of all sources, and the short name of its entry."""
    ids = [str(i) for dataset in opened for i in dataset.place.values]
    short_names = site_records.short_entry_names(
        [str(dataset.attrs["entry"]) for dataset in opened]
    )
    entries = [short_names[str(d.attrs["entry"])] for d in opened for _ in range(d.sizes["place"])]
    return ids, entries


def examine(target: str, settings: Sequence[str], progress: Progress) -> tuple[bool, list[Any]]:
    """Examine every entry of an experiment or a catalog, and report all problems together.

    Args:
      target: an experiment or a catalog: a preset, a YAML file or a URL.
      settings: `key=value` settings of the experiment.
      progress: advanced by every year of every entry.

    Returns:
      Whether there is no problem, and the parts to print: a table, and lines below it.

    Raises:
      ConfigError: If the target is neither an experiment nor a catalog.
    """
    cases = targets.find_targets(target, settings)
    n_years = sum(len(case.years()) for case in cases)
    progress.start("doctor", n_years, "years of entries")
    examinations = [examine_entry(case, progress) for case in cases]
    site_notes, site_problems = examine_places(examinations)
    ill = {result.case.label for result in examinations if _select_problems(result.findings)}
    n_problems = sum(len(_select_problems(result.findings)) for result in examinations)
    n_problems += len(site_problems)
    n_ill = len(ill | {label for label, _ in site_problems})
    n_entries = len(examinations)
    counts = f"{n_entries} entries, {n_years} years in all: {n_entries - n_ill} healthy"
    if n_problems:
        counts += f"; {n_problems} problems in {n_ill}"
    progress.finish(f"{n_years} years of {n_entries} entries examined")
    parts: list[Any] = [_findings_table(examinations, site_notes, site_problems), counts]
    unverified = [case.label for case in cases if case.metadata.get("verified") is False]
    if unverified:
        parts.append(f"not yet verified against the live source: {', '.join(unverified)}")
    return not n_problems, parts


def record(
    target: str, settings: Sequence[str], folder: str, progress: Progress
) -> tuple[bool, list[Any]]:
    """Record the answers of servers that prove that entries can be read; see `recordings`.

    Args:
      target: an experiment or a catalog, as for `examine`.
      settings: `key=value` settings of the experiment.
      folder: local folder, in which each entry gets a folder.
      progress: advanced by every entry.

    Returns:
      Whether there is no problem, and the parts to print.

    Raises:
      ConfigError: If the target is neither, or the folder is a URL.
    """
    rows = recordings.record_entries(targets.find_targets(target, settings), folder, progress)
    return not any(row.findings for row in rows), [_recordings_table(rows)]


def replay(folder: str, progress: Progress) -> tuple[bool, list[Any]]:
    """Replay recordings without a network, and say which entries are verified.

    Args:
      folder: folder of the recordings.
      progress: advanced by every recording.

    Returns:
      Whether all recordings give the same values as when they were made, and the parts to print.
    """
    rows = recordings.replay_entries(folder, progress)
    same = not any(row.findings for row in rows)
    return same, [_recordings_table(rows), *(recordings.list_verified(folder) if same else ())]


def _recordings_table(rows: list[recordings.RecordingResult]) -> Table:
    """Make a table with a line for every recording and every problem."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in ("entry", "days", "check", "finding", "what to do"):
        table.add_column(name, overflow="fold")
    for row in rows:
        if row.summary or not row.findings:
            table.add_row(row.label, row.days, Text(row.status, "green"), row.summary, "")
        for finding in row.findings:
            texts = Text(finding.message), Text(finding.hint)
            table.add_row(row.label, row.days, Text(finding.check, "red"), *texts)
    return table


def _select_problems(findings: FindingYears) -> list[Finding]:
    """Return the findings that are problems, not notes."""
    return [finding for finding in findings if finding.check != NOTE]


def _findings_table(
    examinations: list[Examination],
    site_notes: list[EntryFinding],
    site_problems: list[EntryFinding],
) -> Table:
    """Make a table of findings and healthy entries, and below it what concerns several entries."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in ("entry", "year", "check", "finding", "what to do"):
        table.add_column(name, overflow="fold")
    has_sample = any(result.findings and result.sample for result in examinations)
    if has_sample:
        table.add_column("looked at", overflow="fold")

    def add(cells: list[str], colour: str, sample: str = "") -> None:
        """Add a row whose third cell, the check, is coloured."""
        cells = [*cells, sample] if has_sample else cells
        table.add_row(*(Text(text, colour if i == 2 else "") for i, text in enumerate(cells)))

    for case, findings, years, sample in examinations:
        for number, (finding, finding_years) in enumerate(findings.items()):
            cells = [case.label, years_text(finding_years), *finding]
            colour = "yellow" if finding.check == NOTE else "red"
            add(cells, colour, sample if number == 0 else "")
        if not _select_problems(findings):
            add([case.label, years, "healthy", f"looked at {sample}", ""], "green")
    for rows, colour in ((site_notes, "yellow"), (site_problems, "red")):
        for label, finding in rows:
            add([label, "", *finding], colour)
    return table
