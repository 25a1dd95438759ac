"""What CONUS at its own size took and is worth, in Markdown, from what `bench.conus_full` keeps."""

from __future__ import annotations

from bench import machine
from bench.truth_reader import SHOWN

STAGES = ("start", "planet", "prepare", "folds", "train", "predict", "evaluate", "report")
ON_GPU = ("train", "predict")
HEAD = (
    "stage",
    "pieces",
    "wall, s",
    "CPU, s",
    "GPU held, s",
    "written, MB",
    "objects",
    "driver, MB",
    "a worker, MB",
    "USD",
)


def page(kept):
    """A table of all stages, the scores, and the money."""
    rows, cols = kept["cells"]
    cluster = kept["cluster"]
    commits = sorted({piece["commit"] for piece in kept["pieces"]})
    told = (
        f"**{kept['size']}**: {rows} x {cols} cells, a head and {cluster['workers']} workers with "
        f"{cluster['cpus']} CPU each and {cluster['gpus']} GPU in all, in {len(kept['pieces'])} "
        f"pieces; {machine.in_words(kept['machine'])}; commit {', '.join(commits)}."
    )
    table = [f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}"]
    table += [f"| {' | '.join(row)} |" for row in _rows(kept)]
    parts = [told, "\n".join(table), _money(kept)]
    if "scores" in kept:
        parts += _scores(kept["scores"])
    return "\n\n".join(parts)


def costs(kept):
    """USD of each stage: the machines while it runs, and the objects that it writes."""
    prices, cluster = kept["prices"], kept["cluster"]
    hour = cluster["workers"] * cluster["cpus"] * prices["core"] + cluster["gpus"] * prices["gpu"]
    stored = kept.get("stored", {})
    return {
        stage: own["seconds"] / 3600 * hour
        + stored.get(stage, {}).get("objects", 0) * prices["put"]
        for stage, own in total(kept).items()
    }


def total(kept):
    """Of each stage, in the order in which they come: what all pieces took."""
    found = {}
    for piece in kept["pieces"]:
        for stage, own in piece["stages"].items():
            both = found.setdefault(stage, {"pieces": 0, "seconds": 0.0, "cpu": 0.0})
            both["pieces"] += 1
            for name in ("seconds", "cpu"):
                both[name] += own[name]
            for name in ("driver", "worker"):
                both[name] = max(both.get(name, 0), own[name])
    order = {stage: i for i, stage in enumerate(STAGES)}
    return dict(sorted(found.items(), key=lambda item: order.get(item[0], len(STAGES))))


def _rows(kept):
    spent, stored, gpus = costs(kept), kept.get("stored", {}), kept["cluster"]["gpus"]
    for stage, own in total(kept).items():
        made = stored.get(stage)
        yield [
            {"start": "starting the job"}.get(stage, stage),
            str(own["pieces"]),
            f"{own['seconds']:,.0f}",
            f"{own['cpu']:,.0f}",
            f"{own['seconds'] * gpus:,.0f}" if stage in ON_GPU else "0",
            f"{made['megabytes']:,.1f}" if made else "",
            f"{made['objects']:,}" if made else "",
            f"{own['driver']:,}" if own["driver"] else "",
            f"{own['worker']:,}" if own["worker"] else "",
            f"{spent[stage]:.4f}",
        ]


def _money(kept):
    prices, stored = kept["prices"], kept.get("stored", {})
    gigabytes = sum(each["megabytes"] for each in stored.values()) / 1e3
    spent, month = sum(costs(kept).values()), gigabytes * prices["month"]
    return (
        f"In all {spent:.2f} USD, and {month:.2f} a month for {gigabytes:.2f} GB: "
        f"{prices['core']:g} USD an hour of a core and {prices['gpu']:g} of a GPU, all of them as "
        f"long as a stage runs, {prices['put'] * 1e6:g} a million objects written, "
        f"{prices['month']:g} a GB and month. Requests that read are not counted."
    )


def _scores(scores):
    names = [*SHOWN]
    first = next(iter(scores["arms"]))
    lines = [f"| arm | {' | '.join(SHOWN.values())} |", f"|{' --- |' * (len(names) + 1)}"]
    for arm, each in scores["arms"].items():
        lines.append(f"| `{arm}` | {' | '.join(_interval(each[n]) for n in names)} |")
    for arm, each in scores["paired"].items():
        cells = " | ".join(_interval(each[n], "+") for n in names)
        lines.append(f"| `{first}` minus `{arm}` | {cells} |")
    yield (
        f"The published maps against the truth, {scores['cells']:,} cells in "
        f"{scores['footprints']:,} footprints, {scores['days']} days without frost; medians over "
        "footprints [95 % interval, blocks of 400 km], the same cells and days for all arms:"
    )
    yield "\n".join(lines)


def _interval(values, sign=""):
    middle, low, high = values
    return f"{middle:{sign}.4f} [{low:{sign}.4f}, {high:{sign}.4f}]"
