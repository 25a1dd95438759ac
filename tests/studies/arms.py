"""Arms: multiscale against each other arm, ridge, and the satellite itself, with 30 sites."""

from __future__ import annotations

from studies import figures, text
from studies.case import INPUTS, Case
from studies.world import ARMS

OTHERS = (*ARMS, "ridge", "footprint")
N_SITES = 30


def cases(seeds):
    """One a planet."""
    return [Case(world(s), settings(s), f"arms-{s}", judge) for s in seeds]


def world(seed):
    """Name of the planet's folder."""
    return f"planet{seed}"


def settings(seed, *more):
    """Of the planet of a seed."""
    return (f"planet.seed={seed}", f"planet.n_sites={N_SITES}", INPUTS, *more)


def judge(world):
    """Scores of every arm, ridge and the satellite."""
    weight = world.level_weight("multiscale")
    scores = {arm: world.score(world.series(arm, weight)) for arm in ARMS}
    scores["ridge"] = world.score(world.ridge())
    scores["footprint"] = world.score(world.footprint())
    return {"level_weight": weight, "n_cells": len(world.where), "scores": scores}


def report(results, seeds, docs):
    """Draw the figure; the table."""
    found = [results[f"arms-{s}"]["scores"] for s in seeds]
    figures.arms(found, OTHERS, docs / "studies-arms.png")
    chosen = [results[f"arms-{s}"]["level_weight"] for s in seeds]
    lines = [
        f"Planets {seeds[0]}-{seeds[-1]}, {N_SITES} sites. Mean over planets of the median over "
        "cells; differences are multiscale minus the other, paired, with 95 % t intervals over "
        f"planets. Level weights chosen: {text.listed(chosen)}.",
        "",
        text.table(found, OTHERS, "multiscale"),
    ]
    return "\n".join(lines)
