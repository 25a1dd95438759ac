"""`doctor`: every entry and year of an experiment or a catalog, examined before it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.doctor import rounds, targets
from pipeline.doctor.notes import NOTE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from pipeline.doctor.cases import Case
    from pipeline.doctor.rounds import Found
    from pipeline.doctor.symptoms import Symptom
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
    problems = sum(len(_problems(found)) for _, found, _ in seen)
    ill = sum(bool(_problems(found)) for _, found, _ in seen)
    counts = f"{len(seen)} entries, {years} years of them: {len(seen) - ill} healthy"
    if problems:
        counts += f"; {problems} problems in {ill}"
    progress.finish(f"{years} years of {len(seen)} entries looked at")
    shown: list[Any] = [_table(seen), counts]
    unproven = [case.label for case, _, _ in seen if case.metadata.get("verified") is False]
    if unproven:
        shown.append(f"never run against the live place before: {', '.join(unproven)}")
    return not problems, shown


def _problems(found: Found) -> list[Symptom]:
    return [symptom for symptom in found if symptom.check != NOTE]


def _table(seen: list[tuple[Case, Found, str]]) -> Table:
    """A row for every problem and note, and one for every entry without a problem."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in ("entry", "year", "check", "found", "remedy"):
        table.add_column(name, overflow="fold")
    for case, found, note in seen:
        for symptom, years in found.items():
            row = (case.label, rounds.span(years), symptom.check, symptom.found, symptom.remedy)
            colour = "yellow" if symptom.check == NOTE else "red"
            table.add_row(*(Text(text, colour if at == 2 else "") for at, text in enumerate(row)))
        if not _problems(found):
            span, _, looked = note.partition(" ")
            row = (case.label, span, "healthy", f"looked at {looked}", "")
            table.add_row(*(Text(text, "green" if at == 2 else "") for at, text in enumerate(row)))
    return table
