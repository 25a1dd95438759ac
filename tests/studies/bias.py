"""Satellite bias: none, the table's, twice that; all else of a planet stays bit-identical."""

from __future__ import annotations

from studies import arms, figures, text
from studies.case import Case

SIZES = {0: "planet.omit_errors=[satellite_bias]", 1: "", 2: "planet.kind=biased"}


def cases(seeds):
    """One a planet and size; those of size 1 are the study of arms'."""
    others = [
        Case(
            f"{arms.world(s)}-bias{size}", arms.settings(s, setting), f"bias-{s}-{size}", arms.judge
        )
        for s in seeds
        for size, setting in SIZES.items()
        if setting
    ]
    return [*arms.cases(seeds), *others]


def report(results, seeds, docs):
    """Draw the figure; the tables."""
    kept = {
        size: [results[f"bias-{s}-{size}" if SIZES[size] else f"arms-{s}"] for s in seeds]
        for size in SIZES
    }
    found = {size: [each["scores"] for each in every] for size, every in kept.items()}
    figures.bias(found, docs / "studies-bias.png")
    parts = [
        f"Planets {seeds[0]}-{seeds[-1]}, {arms.N_SITES} sites; columns as in the study of arms."
    ]
    for size, every in kept.items():
        weights = text.listed(each["level_weight"] for each in every)
        parts += ["", f"Bias times {size}; level weights chosen: {weights}.", ""]
        parts.append(text.table(found[size], arms.OTHERS, "multiscale"))
    return "\n".join(parts)
