"""Refinement: one planet of 4.5 km cells, seen in cells of 36, 18, 9 and 4.5 km.

Truth, forcing, attributes, footprints and probes are the same files; what is coarser is their mean
over a cell. Judged are the same 4.5 km cells at every refinement, against the truth there and
against the truth of the cell that holds them. Seeds of training are the replicates.
"""

from __future__ import annotations

import numpy as np

from pipeline.catalog import experiment_sources
from pipeline.evaluate.report import style
from pipeline.experiment import config
from studies import arms, figures, text
from studies.case import Case
from studies.world import ARMS, some

REFINEMENTS = (8, 4, 2, 1)  # the finest first: it makes the planet
FINEST = max(REFINEMENTS)
AWAY_M = 18_000.0  # two cells of 9 km, as in the other studies
SEEDS = range(3)
NAMES = (*ARMS, "footprint")


def cases(seeds):
    """One a refinement, of the first planet alone."""
    made, place = [], f"planet{seeds[0]}-cells"
    for r in REFINEMENTS:
        own = [f"domain.refinement={r}"]
        if r < FINEST:
            own.append(f"planet.url={{folder}}/{place}{FINEST}/planet")
        what = (f"{place}{r}", arms.settings(seeds[0], *own))
        made.append(Case(*what, f"refinement-{seeds[0]}-{r}", judge))
    return made


def finest(world):
    """The experiment at the finest refinement, and rows and columns of the cells judged there."""
    box = world.experiment.domain.model_copy(update={"refinement": FINEST})
    experiment = world.experiment.model_copy(update={"domain": box})
    window = config.experiment_window(experiment)
    sites = np.stack(window.cells_of(world.packed.lat, world.packed.lon), 1)
    cells = np.argwhere(np.ones(window.cell_shape, bool))
    steps = np.abs(cells[:, None] - sites).max(2)
    shares = (cells[:, None] // FINEST == sites // FINEST).all(2)
    near = ((steps * 36_000.0 / FINEST < AWAY_M) | shares).any(1)
    return experiment, cells[some(np.flatnonzero(~near))]


def judge(world):
    """Scores of every arm and the satellite, by seed, at the finest truth and at the cells' own."""
    experiment, fine = finest(world)
    days = world.cube.days.astype("datetime64[ns]")
    y, x = fine.T
    truth = experiment_sources.open_truth(experiment).on_days(days)[:, y, x].T
    where, held = np.unique(
        world.indexes(fine // (FINEST // world.cube.refinement)), return_inverse=True
    )
    world.judge_at(where)
    weight = world.level_weight("multiscale")

    def both(series):
        own = world.score(series[held], world.truth[held])
        return {"finest": world.score(series[held], truth), "own": own}

    scores = [
        {arm: both(world.series(arm, weight, seed)) for arm in ARMS}
        | {"footprint": both(world.footprint())}
        for seed in SEEDS
    ]
    return {"level_weight": weight, "n_cells": len(fine), "scores": scores}


def report(results, seeds, docs):
    """Draw the figure; the table."""
    kept = {r: results[f"refinement-{seeds[0]}-{r}"] for r in reversed(REFINEMENTS)}
    found = {
        r: {
            judge: [{n: each[n][judge] for n in NAMES} for each in result["scores"]]
            for judge in ("finest", "own")
        }
        for r, result in kept.items()
    }
    figures.refinement(found, docs / "studies-refinement.png")
    lines = [
        [f"{36 / r:g} km", style.label(name)]
        + [
            text.mean(found[r][judge], name, metric)
            for judge in ("finest", "own")
            for metric in ("correlation", "rmse", "ubrmse")
        ]
        for r in kept
        for name in NAMES
    ]
    header = [
        "cells",
        "",
        *(f"{m}, {j}" for j in ("4.5 km", "own") for m in ("R", "RMSE", "ubRMSE")),
    ]
    gains = []
    for name in ARMS:
        for coarse, fine in ((1, 2), (2, 4), (4, 8)):
            pairs = zip(found[fine]["finest"], found[coarse]["finest"], strict=True)
            joined = [{"a": a[name], "b": b[name]} for a, b in pairs]
            change = text.told(*text.difference(joined, "a", "b", "rmse"))
            gains.append([style.label(name), f"{36 / coarse:g} -> {36 / fine:g} km", change])
    weights = text.listed(result["level_weight"] for result in kept.values())
    told = (
        f"Planet {seeds[0]}, {arms.N_SITES} sites, {kept[1]['n_cells']} cells of 4.5 km, "
        f"{len(SEEDS)} seeds; mean over seeds. Level weights chosen, coarse to fine: {weights}."
    )
    changes = text.rows(["", "cells", "change of RMSE at 4.5 km, t interval over seeds"], gains)
    return "\n".join([told, "", text.rows(header, lines), "", changes])
