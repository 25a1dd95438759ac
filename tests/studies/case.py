"""A case of a study: what is judged where. Cases that are done are read, not run again."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.progress import track

from pipeline.cluster import ray_cluster
from pipeline.experiment import load
from studies.world import World

if TYPE_CHECKING:
    from collections.abc import Callable


INPUTS = "train.footprint_operator=inputs"  # as skilled at 9 km as outputs, 3.5 times as fast


@dataclass(frozen=True)
class Case:
    """One result: `judge` of the world that settings over the experiment `demo` make.

    Cases of one `world` share its artefacts; `name` tells what of it is judged. Settings may name
    `{folder}`, where worlds lie.
    """

    world: str
    settings: tuple[str, ...]
    name: str
    judge: Callable[[World], dict]


def results(cases, folder, more=()):
    """{name: result} of every case, made where it is lacking or was made with other settings.

    `more` are settings over those of every case.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found, world, of = {}, None, None
    with ray_cluster.connected():
        for case in track(cases, "studies"):
            settings = [setting.format(folder=folder) for setting in (*case.settings, *more)]
            experiment = load.load_experiment("demo", settings, case.world)
            made_of = experiment.model_dump(mode="json", exclude={"planet": {"url"}})
            path = folder / f"{case.name}.json"
            kept = json.loads(path.read_text()) if path.exists() else {}
            if kept.get("made_of") != made_of:
                begun = time.perf_counter()
                if of != made_of:
                    world, of = World(folder, case.world, settings), made_of
                kept = {"made_of": made_of, "result": case.judge(world)}
                kept["seconds"] = time.perf_counter() - begun
                path.write_text(json.dumps(kept, indent=1))
            found[case.name] = kept["result"]
    return found
