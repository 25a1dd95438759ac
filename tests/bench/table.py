"""The table, for the terminal and for the page."""

from __future__ import annotations

from rich.table import Table

from bench.measure import spread

HEAD = (
    "what",
    "measured",
    "beside",
    "ratio",
    "of the machine's limit",
    "aim",
    "met?",
    "in the way",
)


def number(value):
    """Three digits, as people read them."""
    if value == 0:
        return "0"
    if value != value:
        return "?"
    if abs(value) >= 1e6:
        return f"{value / 1e6:.3g} M"
    if abs(value) >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:.3g}"


def value(samples, unit):
    """Median, quartiles and unit; a single sample has no spread."""
    found = spread(samples)
    if len(samples) < 2:
        return f"{number(found.median)} {unit}".strip()
    return f"{number(found.median)} [{number(found.low)}, {number(found.high)}] {unit}".strip()


def aim(row):
    """The aim in signs."""
    if row.aim is None:
        return ""
    sign = ">=" if row.aim.least else "<="
    what = "x" if row.aim.of_ratio else f" {row.unit}".rstrip()
    floor = "" if row.aim.floor is None else f", >= {number(row.aim.floor)}{what}"
    return f"{sign} {number(row.aim.number)}{what}{floor}".replace(" ,", ",").strip()


def verdict(row):
    """Met, or by how much not."""
    missed = row.missed
    if missed is None:
        return ""
    return "met" if missed == 0 else f"missed by {100 * missed:.2g} %"


def cells(row):
    """One line of the table, as text."""
    ratio = row.ratio
    beside = f"{row.beside}: {value(row.beside_samples, '')}" if ratio else row.beside
    share = "" if row.share is None else f"{100 * row.share:.2g} % of {row.limit_of}"
    judged = "" if ratio is None else f"{number(ratio.median)}"
    if ratio is not None and len(row.samples) == len(row.beside_samples) > 1:
        judged += f" [{number(ratio.low)}, {number(ratio.high)}]"
    way = row.way if row.missed else ""
    what = f"{row.what} ({row.note})" if row.note else row.what
    return (what, value(row.samples, row.unit), beside, judged, share, aim(row), verdict(row), way)


def for_terminal(rows, title):
    """A rich table, a section after the other."""
    table = Table(title=title, show_lines=False, expand=True)
    for name in HEAD:
        table.add_column(name, overflow="fold", ratio=2 if name in HEAD[:3] else 1)
    section = None
    for row in rows:
        if row.section != section:
            if section is not None:
                table.add_section()
            table.add_row(f"[bold]{row.section}[/bold]")
            section = row.section
        table.add_row(*(text.replace("[", r"\[") for text in cells(row)))
    return table


def for_page(rows):
    """The same in Markdown."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}"]
    section = None
    for row in rows:
        if row.section != section:
            lines.append(f"| **{row.section}** |{' |' * (len(HEAD) - 1)}")
            section = row.section
        lines.append(f"| {' | '.join(text.replace('|', '/') for text in cells(row))} |")
    return "\n".join(lines)
