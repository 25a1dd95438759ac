"""`doctor`: examine every entry and year of an experiment or a catalog before it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.doctor import pairs, recordings, rounds, targets
from pipeline.doctor.notes import NOTE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from pipeline.doctor.pairs import Row
    from pipeline.doctor.rounds import Examination, Found
    from pipeline.doctor.symptoms import Symptom
    from pipeline.progress import Progress


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
    cases = targets.of(target, settings)
    n_years = sum(len(case.years()) for case in cases)
    progress.start("doctor", n_years, "years of entries")
    examinations = [rounds.of(case, progress) for case in cases]
    site_notes, site_problems = pairs.of(examinations)
    ill = {result.case.label for result in examinations if _problems(result.findings)}
    n_problems = sum(len(_problems(result.findings)) for result in examinations)
    n_problems += len(site_problems)
    n_ill = len(ill | {label for label, _ in site_problems})
    n_entries = len(examinations)
    counts = f"{n_entries} entries, {n_years} years in all: {n_entries - n_ill} healthy"
    if n_problems:
        counts += f"; {n_problems} problems in {n_ill}"
    progress.finish(f"{n_years} years of {n_entries} entries examined")
    parts: list[Any] = [_table(examinations, site_notes, site_problems), counts]
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
    rows = recordings.record(targets.of(target, settings), folder, progress)
    return not any(row.findings for row in rows), [_of_recordings(rows)]


def replay(folder: str, progress: Progress) -> tuple[bool, list[Any]]:
    """Replay recordings without a network, and say which entries are verified.

    Args:
      folder: folder of the recordings.
      progress: advanced by every recording.

    Returns:
      Whether all recordings give the same values as when they were made, and the parts to print.
    """
    rows = recordings.replay(folder, progress)
    same = not any(row.findings for row in rows)
    return same, [_of_recordings(rows), *(recordings.verified(folder) if same else ())]


def _of_recordings(rows: list[recordings.Row]) -> Table:
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


def _problems(findings: Found) -> list[Symptom]:
    """Return the findings that are problems, not notes."""
    return [finding for finding in findings if finding.check != NOTE]


def _table(
    examinations: list[Examination], site_notes: list[Row], site_problems: list[Row]
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
            cells = [case.label, rounds.span(finding_years), *finding]
            colour = "yellow" if finding.check == NOTE else "red"
            add(cells, colour, sample if number == 0 else "")
        if not _problems(findings):
            add([case.label, years, "healthy", f"looked at {sample}", ""], "green")
    for rows, colour in ((site_notes, "yellow"), (site_problems, "red")):
        for label, finding in rows:
            add([label, "", *finding], colour)
    return table
