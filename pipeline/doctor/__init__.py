"""`doctor`: every entry and year of an experiment or a catalog, examined before it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.doctor import recordings, rounds, targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from pipeline.doctor.cases import Case
    from pipeline.doctor.recordings import Row
    from pipeline.doctor.rounds import Found
    from pipeline.progress import Progress


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
    seen = [(case, *rounds.of(case, progress)) for case in to_do]
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


def record(
    target: str, settings: Sequence[str], folder: str, progress: Progress
) -> tuple[bool, list[Any]]:
    """Record the answers of servers that prove entries; see `recordings`.

    Args:
      target: an experiment or a catalog, as of `examine`.
      settings: `key=value` over the experiment.
      folder: that gets a folder for each entry.
      progress: told of each entry.

    Returns:
      whether nothing is wrong, and what is shown.

    Raises:
      ConfigError: the target is neither, or the folder is a URL.
    """
    rows = recordings.record(targets.of(target, settings), folder, progress)
    return not any(row.symptoms for row in rows), [_of_recordings(rows)]


def replay(folder: str, progress: Progress) -> tuple[bool, list[Any]]:
    """Replay recordings without a network, and say what catalogs may tell of their entries.

    Args:
      folder: of the recordings.
      progress: told of each.

    Returns:
      whether all give the values that they gave, and what is shown.
    """
    rows = recordings.replay(folder, progress)
    same = not any(row.symptoms for row in rows)
    return same, [_of_recordings(rows), *(recordings.verified(folder) if same else ())]


def _of_recordings(rows: list[Row]) -> Table:
    """A row for every problem, and one for every recording."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in ("entry", "days", "check", "found", "remedy"):
        table.add_column(name, overflow="fold")
    for row in rows:
        if row.told or not row.symptoms:
            table.add_row(row.label, row.days, Text(row.done, "green"), row.told, "")
        for symptom in row.symptoms:
            table.add_row(row.label, row.days, Text(symptom.check, "red"), *map(Text, symptom[1:]))
    return table


def _table(seen: list[tuple[Case, Found, str]]) -> Table:
    """A row for every problem, and one for every entry without."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in ("entry", "year", "check", "found", "remedy"):
        table.add_column(name, overflow="fold")
    for case, found, note in seen:
        for symptom, years in found.items():
            row = (case.label, rounds.span(years), symptom.check, symptom.found, symptom.remedy)
            table.add_row(*(Text(text, "red" if at == 2 else "") for at, text in enumerate(row)))
        if not found:
            span, _, looked = note.partition(" ")
            row = (case.label, span, "healthy", f"looked at {looked}", "")
            table.add_row(*(Text(text, "green" if at == 2 else "") for at, text in enumerate(row)))
    return table
