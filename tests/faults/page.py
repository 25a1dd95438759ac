"""The table of faults, in Markdown and for the terminal."""

from __future__ import annotations

from rich.table import Table

from faults import registry, trial
from pipeline.cli.run_stages import RUN

HEAD = ("stage", "promise", "fault and mechanism", "tried", "outcome", "shown by")


def by_stage(faults):
    """Rows in the order of the stages of `run`, then of others as the registry first names them."""
    order = [*RUN, *dict.fromkeys(fault.stage for fault in faults)]
    return sorted(faults, key=lambda fault: order.index(fault.stage))


def for_page(faults, outcomes):
    """The table in Markdown: {name of a row: Outcome}."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}"]
    for fault in by_stage(faults):
        found = outcomes.get(fault.name, trial.UNTRIED)
        tests = ", ".join(f"`{test.rpartition('::')[2]}`" for test in fault.tests)
        mechanism = f"`{fault.name}`: {fault.mechanism}"
        cells = (fault.stage, fault.promise, mechanism, str(found.tried), found.text, tests)
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)


def summary(faults, outcomes):
    """One line: rows, kinds, tries, and how many are broken."""
    found = [outcomes.get(fault.name, trial.UNTRIED) for fault in faults]
    broken = sum(bool(each.broken) for each in found)
    untried = sum(not each.broken and not each.tried for each in found)
    return (
        f"{len(faults)} rows, {len({fault.kind for fault in faults})} kinds of fault, "
        f"{sum(each.tried for each in found)} tries: {len(found) - broken - untried} rows held, "
        f"{broken} broken, {untried} not tried"
    )


def written(kept):
    """All that is on the page, from what is kept of each row that was tried."""
    outcomes = {name: trial.Outcome(**each["outcome"]) for name, each in kept.items()}
    places = {tuple(each["where"].items()): each["where"] for each in kept.values()}
    lines = [
        f"{where['at']}, commit {where['commit']}, {where['minutes']:g} minutes on "
        f"{where['machine']}."
        for where in sorted(places.values(), key=lambda where: where["at"])
    ]
    table = for_page(registry.FAULTS, outcomes)
    return "\n\n".join([*lines, f"{summary(registry.FAULTS, outcomes)}.", table])


def for_terminal(faults, outcomes=None):
    """A rich table; without outcomes, what would be tried."""
    table = Table(title="make faults", expand=True)
    for name in ("name", "stage", "promise", "mechanism", *(("outcome",) if outcomes else ())):
        table.add_column(name, overflow="fold")
    for fault in by_stage(faults):
        told = (outcomes[fault.name].text.replace("[", r"\["),) if outcomes else ()
        table.add_row(fault.name, fault.stage, fault.promise, fault.mechanism, *told)
    return table
