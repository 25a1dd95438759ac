"""What large planets took, in Markdown, from the JSON that `bench.growth` keeps."""

from __future__ import annotations

from typing import NamedTuple


class Grown(NamedTuple):
    """One planet over another."""

    area: float
    time: float


HEAD = (
    "stage",
    "time, s",
    "a worker, MB",
    "of promised",
    "driver, MB",
    "of promised",
    "all, MB",
    "objects",
    "written, MB",
)


def page(runs):
    """A table of every run, and what two runs together say."""
    parts = [_table(name, run) for name, run in runs.items()]
    return "\n\n".join([*parts, *_in_words(runs)])


def _table(name, run):
    rows, cols = run["cells"]
    machine = run["machine"]
    told = (
        f"**{name}**: {rows} x {cols} cells, {run['days']} days, {run['seconds'] / 60:.1f} minutes "
        f"on {machine['cores']} cores with {machine['gigabytes']:.0f} GB, which had a load of "
        f"{machine['load_before']:g} as it began; commit {run['commit']}, {run['at'][:10]}."
    )
    lines = [told, "", f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}"]
    for stage, found in run["stages"].items():
        shares = found.get("of_promised", {})
        cells = [stage, f"{found['seconds']:.0f}"]
        for role in ("worker", "driver"):
            cells += [_memory(found[role]), f"{shares[role]:.0%}" if role in shares else ""]
        cells += [f"{found['all_mb']:,}", f"{found['objects']:,}", f"{found['megabytes']:,.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    if run["failed"]:
        lines.append(f"\n`{run['failed']}` failed.")
    return "\n".join(lines)


def _memory(peak):
    """Its own, and beside it what all processes of the node share."""
    if peak is None:
        return ""
    shared = f" (+ {peak['shared_mb']:,} shared)" if peak["shared_mb"] > 5 else ""
    return f"{peak['own_mb']:,}{shared}"


def area(runs):
    """Area and time of CONUS, each over that of its half; None before both were run."""
    if not {"conus", "half"} <= runs.keys():
        return None
    whole, half = runs["conus"], runs["half"]
    return Grown(_cells(whole) / _cells(half), whole["seconds"] / half["seconds"])


def years(runs):
    """Own memory over four years beside that over two, by stage and role."""
    two, four = runs.get("quarter"), runs.get("quarter, four years")
    if two is None or four is None:
        return {}
    told = {}
    for stage in two["stages"]:
        for role in ("worker", "driver"):
            peaks = [run["stages"].get(stage, {}).get(role) for run in (two, four)]
            if None not in peaks:
                told[f"{stage}, {role}"] = peaks[1]["own_mb"] / peaks[0]["own_mb"]
    return told


def _in_words(runs):
    """What two runs together say."""
    if (grown := area(runs)) is not None:
        yield f"{grown.area:.2f} times the area took {grown.time:.2f} times the time."
    if told := years(runs):
        rows = [f"| {role} | {ratio:.2f} |" for role, ratio in told.items()]
        head = "| own memory at four years over that at two | |\n| --- | --- |"
        yield "\n".join([head, *rows])


def _cells(run):
    return run["cells"][0] * run["cells"][1]
