"""What large planets took, in Markdown, from the JSON that `bench.growth` keeps."""

from __future__ import annotations

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
    parts += [line for line in (_area(runs), _years(runs)) if line]
    return "\n\n".join(parts)


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


def _area(runs):
    """Time of CONUS over that of its half."""
    if not {"conus", "half"} <= runs.keys():
        return None
    whole, half = runs["conus"], runs["half"]
    area = _cells(whole) / _cells(half)
    ratio = whole["seconds"] / half["seconds"]
    return f"{area:.2f} times the area took {ratio:.2f} times the time."


def _years(runs):
    """Memory over four years beside that over two, stage by stage."""
    two, four = runs.get("quarter"), runs.get("quarter, four years")
    if two is None or four is None:
        return None
    told = []
    for stage in two["stages"]:
        for role in ("worker", "driver"):
            peaks = [run["stages"][stage][role] for run in (two, four)]
            if None in peaks:
                continue
            own = peaks[1]["own_mb"] / peaks[0]["own_mb"]
            private = peaks[1]["private_mb"] / peaks[0]["private_mb"]
            told.append(f"| {stage}, {role} | {own:.2f} | {private:.2f} |")
    head = "| memory at four years over that at two | its own | private |\n| --- | --- | --- |"
    return "\n".join([head, *told])


def _cells(run):
    return run["cells"][0] * run["cells"][1]
