"""How many probes: arms against the number of sites.

A planet has 300 probes, of which the first n report, so that n + 1 sites are n and one more. Every
n is judged at the same cells: two cells or more from all 300, in footprints where none of the first
100 lies. Probes' offsets are centred over all 300; those of the first n have a mean, as real
networks' have.
"""

from __future__ import annotations

import numpy as np

from pipeline.evaluate.stage import cells_away_from_sites
from pipeline.storage.models import ALL_SITES
from studies import arms, figures, text
from studies.case import Case

NUMBERS = (10, 20, 30, 60, 100, 300)
EMPTY = 100  # sites up to which the judged cells' footprints hold none
LEARNT = ("multiscale", "insitu", "ridge")


def cases(seeds):
    """One a planet and number, and one of what does not depend on the number."""
    made = []
    for seed in seeds:
        what = (f"planet{seed}-crowded", arms.settings(seed, f"planet.n_sites={NUMBERS[-1]}"))
        made.append(Case(*what, f"sites-{seed}-none", satellite))
        made += [Case(*what, f"sites-{seed}-{n}", lambda w, n=n: judge(w, n)) for n in NUMBERS]
    return made


def judged(world):
    """Cells that every number of sites is judged at."""
    far = world.indexes(cells_away_from_sites(world.cube, empty=False))
    refinement = world.cube.refinement
    first = world.with_sites(EMPTY).packed.training_sites(ALL_SITES, 0.0)
    y, x = world.window.cells_of(world.packed.lat[first], world.packed.lon[first])
    taken = set(zip((y // refinement).tolist(), (x // refinement).tolist(), strict=True))
    footprint = (world.cells[far] // refinement).tolist()
    return far[np.array([tuple(each) not in taken for each in footprint])]


def satellite(world):
    """Scores of what sees no site."""
    world.judge_at(judged(world))
    scores = {"satellite": world.score(world.series("satellite"))}
    scores["footprint"] = world.score(world.footprint())
    return {"n_cells": len(world.where), "scores": scores}


def judge(world, n):
    """Scores of what learns from the first n sites."""
    world.judge_at(judged(world))
    reporting = world.with_sites(n)
    weight = reporting.level_weight("multiscale")
    series = {arm: reporting.series(arm, weight) for arm in ("multiscale", "insitu")}
    scores = {arm: world.score(each) for arm, each in series.items()}
    scores["ridge"] = world.score(reporting.ridge())
    return {"level_weight": weight, "scores": scores}


def report(results, seeds, docs):
    """Draw the figure; the table."""
    every = [results[f"sites-{s}-none"] for s in seeds]
    alone = [each["scores"] for each in every]
    found = {n: [results[f"sites-{s}-{n}"]["scores"] for s in seeds] for n in NUMBERS}
    joined = {n: [a | b for a, b in zip(found[n], alone, strict=True)] for n in NUMBERS}
    figures.sites(joined, docs / "studies-sites.png")
    lines = []
    for n, each in joined.items():
        weights = [results[f"sites-{s}-{n}"]["level_weight"] for s in seeds]
        lines.append(
            [str(n)]
            + [text.mean(each, arm, metric) for metric in ("correlation", "rmse") for arm in LEARNT]
            + [
                text.told(*text.difference(each, "multiscale", "insitu", "rmse")),
                text.told(*text.difference(each, "multiscale", "satellite", "rmse")),
                text.told(*text.difference(each, "insitu", "satellite", "rmse")),
                text.listed(weights),
            ]
        )
    short = ("multiscale", "in situ", "ridge")
    header = ["sites", *(f"{m}, {a}" for m in ("R", "RMSE") for a in short)]
    header += ["RMSE: multiscale - in situ", "multiscale - satellite", "in situ - satellite"]
    fixed = [
        f"{name} R {text.mean(alone, key, 'correlation')}, RMSE {text.mean(alone, key, 'rmse')}"
        for key, name in (("satellite", "arm satellite"), ("footprint", "the satellite itself"))
    ]
    told = (
        f"Planets {seeds[0]}-{seeds[-1]}; {', '.join(str(e['n_cells']) for e in every)} cells, the "
        f"same for every number. Without any site: {'; '.join(fixed)}."
    )
    return "\n".join([told, "", text.rows([*header, "level weights"], lines)])
