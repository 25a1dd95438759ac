"""CONUS and the land of the Earth over ten years, projected from what was measured here.

Reads bench.json and conus.json, writes a table into docs/scaling.md. What was not measured is an
assumption, named as such: rates of a GPU, of a network, and prices.
"""

from __future__ import annotations

import json
from math import ceil
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from studies.page import placed
from studies.text import rows

from pipeline.storage import schema

ROOT = Path(__file__).resolve().parents[2]
DAYS, SPINUP, FORCINGS, ARMS, SEEDS, MODELS = 3653, 365, 7, 3, 3, 39
WINDOW = 150

# Sequences a step of the models of each arm: 18 multiscale, 18 insitu, 3 satellite.
SEQUENCES = 18 * (32 * 16 + 32) + 18 * 32 + 3 * 32 * 16

# Assumed: dense bf16 products of an LSTM on one H100, dollars, MB/s from a bucket to one core.
GPU_TFLOPS, GPU_HOUR, CORE_HOUR, NETWORK = 30.0, 4.0, 0.04, 50.0
PUT, GIGABYTE_MONTH = 5e-6, 0.023
FLOP_TRAIN = 6 * 4 * 128 * (128 + 25)  # a sequence-day: forward, and twice that backward


class Region(NamedTuple):
    """How large: land cells, columns of 256 x 256 cells, updates of a model, GB of sources."""

    name: str
    cells: float
    columns: int
    updates: int
    gigabytes: float


class Machine(NamedTuple):
    """What it has."""

    name: str
    gpus: int
    cores: int


REGIONS = (Region("CONUS", 1e5, 6, 4000, 130), Region("Earth", 1.6e6, 96, 10000, 6500))

MACHINES = (
    Machine("2 cores", 0, 2),
    Machine("64 cores", 0, 64),
    Machine("1 GPU, 16 cores", 1, 16),
    Machine("10 GPUs, 160 cores", 10, 160),
)


def rates(folder):
    """Of one core: sequence-days, cell-days and MB a second; MB of cube and maps a cell-day."""
    benches = json.loads((folder / "bench.json").read_text())
    large = json.loads((folder / "conus.json").read_text())["conus"]

    def of(section, beginning):
        found = next(r for r in benches[section]["rows"] if r["what"].startswith(beginning))
        return sorted(found["samples"])[len(found["samples"]) // 2]

    cell_days = large["cells"][0] * large["cells"][1] * large["days"]
    stages = large["stages"]
    return {
        "train": of("training", "whole loop, recipe default, bf16"),
        "predict": of("prediction", "a block of 32 days walked, recipe default"),
        "prepare": of("preparing", "a block of"),
        "cube": stages["prepare"]["megabytes"] / cell_days,
        "maps": stages["predict"]["megabytes"] / cell_days,
        "walked": large["cells"][0] * large["cells"][1] * (large["days"] + SPINUP)
        / stages["predict"]["seconds"] / large["machine"]["cores"],
    }  # fmt: skip


def line(region, machine, rate):
    """Hours of every stage, what is stored and asked, money, and what limits first."""
    cell_days = region.cells * DAYS
    cube = cell_days * FORCINGS * 4 / 1e6
    read = region.gigabytes * 1e3 / NETWORK / machine.cores
    hours = {"prepare": (cube / rate["prepare"] / machine.cores + read) / 3600}
    sequence_days = region.updates * WINDOW * SEQUENCES
    gpu = GPU_TFLOPS * 1e12 / FLOP_TRAIN
    speed = machine.gpus * gpu or min(machine.cores, MODELS) * rate["train"]
    hours["train"] = sequence_days / speed / 3600
    walked = ARMS * SEEDS * region.cells * (DAYS + SPINUP)
    # On a GPU the LSTM is not what takes the time: a process reads and packs so many cell-days.
    workers = min(machine.gpus * 4 or machine.cores, region.columns * ARMS)
    each = rate["walked"] * SEEDS if machine.gpus else rate["predict"]
    hours["predict"] = walked / (workers * each) / 3600
    blocks = ceil(DAYS / schema.BLOCK_DAYS)
    objects = region.columns * blocks * (FORCINGS + 3 * ARMS * (1 + 1 / 12))
    stored = cell_days * (rate["cube"] + ARMS * rate["maps"]) / 1e3
    total = sum(hours.values())
    money = total * (machine.gpus * GPU_HOUR + machine.cores * CORE_HOUR) + objects * PUT
    first = max(hours, key=hours.__getitem__)
    return [
        region.name,
        machine.name,
        *(f"{hours[stage]:,.1f}" for stage in ("prepare", "train", "predict")),
        f"{stored:,.0f}",
        f"{objects:,.0f}",
        f"{money:,.0f} + {stored * GIGABYTE_MONTH:,.0f} a month",
        first,
    ]


def table(rate):
    """Every region on every machine, in Markdown."""
    head = ["", "on", "prepare, h", "train, h", "predict, h", "stored, GB", "objects", "USD"]
    lines = [line(region, machine, rate) for region in REGIONS for machine in MACHINES]
    measured = (
        f"Rates of one core here: {rate['train']:,.0f} sequence-days a second in training, "
        f"{rate['predict']:,.0f} cell-days in prediction, {rate['prepare']:.1f} MB of cube in "
        f"prepare; a cell-day takes {rate['cube'] * 1e6:.1f} bytes of cube and "
        f"{rate['maps'] * 1e6:.1f} of an arm's maps and state."
    )
    assumed = (
        f"Assumed: {GPU_TFLOPS:g} TFLOP/s of an H100 in training; {rate['walked']:,.0f} cell-days "
        f"a second and member that one process reads, packs and writes beside a small network, "
        f"four of them on a GPU; {NETWORK:g} MB/s from a bucket to a core; {GPU_HOUR:g} USD an "
        f"hour of a GPU, {CORE_HOUR:g} of a core, {PUT * 1e6:g} a million objects, "
        f"{GIGABYTE_MONTH:g} a GB and month."
    )
    return f"{rows([*head, 'longest'], lines)}\n\n{measured} {assumed}"


def main(
    folder: Annotated[Path, typer.Option(help="Where the JSON files lie.")] = ROOT
    / "workspace/bench",
    docs: Annotated[Path, typer.Option(help="Where scaling.md lies.")] = ROOT / "docs",
) -> None:
    """Put the table into docs/scaling.md, where both measurements are there."""
    if not all((folder / name).exists() for name in ("bench.json", "conus.json")):
        raise typer.BadParameter(f"{folder} needs bench.json (make bench), conus.json (make conus)")
    page = docs / "scaling.md"
    made = table(rates(folder))
    page.write_text(placed(page.read_text(), "projection", made, "make projection"))


if __name__ == "__main__":
    typer.run(main)
