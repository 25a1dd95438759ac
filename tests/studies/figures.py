"""Figures of the studies, in the colours of the report."""

from __future__ import annotations

import numpy as np

from pipeline.evaluate.report import style
from studies import text

UNIT = "m³ m⁻³"
PANELS = {"correlation": "R", "rmse": f"RMSE [{UNIT}]"}
LINES = {"linewidth": 1.6, "markersize": 4.5, "marker": "o"}


def arms(found, names, path):
    """Scores by arm, a dot a planet; and what multiscale gains on each other."""
    with style.canvas(7.4, 3.8) as figure:
        axes = figure.subplots(2, 2, sharey="row", height_ratios=(len(names), len(names) - 1))
        for (metric, label), column in zip(PANELS.items(), axes.T, strict=True):
            for row, name in enumerate(names):
                values = [each[name][metric] for each in found]
                colour = style.colour(name)
                column[0].plot(values, [row] * len(values), "o", color=colour, alpha=0.35, ms=4)
                column[0].plot(np.mean(values), row, "|", color=colour, ms=15, mew=2.5)
            for row, name in enumerate(names[1:]):
                _bar(column[1], row, *text.difference(found, names[0], name, metric), name)
            column[1].axvline(0, color=style.INK, linewidth=0.9)
            column[0].set_xlabel(label)
            column[1].set_xlabel(f"multiscale {style.MINUS} other, {label}")
            better = {"correlation": ("right", "better →"), "rmse": ("left", "← better")}[metric]
            column[1].set_title(better[1], loc=better[0], fontsize=7.5)
        for row, shown in zip(axes, (names, names[1:]), strict=True):
            row[0].set_yticks(range(len(shown)), [style.label(name) for name in shown])
            row[0].set_ylim(len(shown) - 0.5, -0.5)
        save(figure, axes, path)


def sites(found, path):
    """Scores against the number of sites, and what multiscale gains on in situ only."""
    learnt, numbers = ("multiscale", "insitu", "ridge"), list(found)
    with style.canvas(7.4, 2.9) as figure:
        axes = figure.subplots(1, 3)
        for metric, panel in zip(PANELS, axes, strict=False):
            for name in ("satellite", "footprint"):
                level = np.mean([each[name][metric] for each in found[numbers[0]]])
                panel.axhline(level, color=style.colour(name), linestyle=(0, (5, 2)), linewidth=1.4)
            _series(panel, numbers, found, learnt, metric)
            panel.set_ylabel(PANELS[metric])
        _gains(axes[2], numbers, found)
        for panel in axes:
            panel.set_xscale("log")
            panel.set_xticks(numbers, [str(n) for n in numbers])
            panel.minorticks_off()
            panel.set_xlabel("sites")
        _legend(figure, (*learnt, "satellite", "footprint"))
        save(figure, axes, path)


def bias(found, path):
    """Scores against the size of the satellite's bias, and what multiscale gains on in situ."""
    names, sizes = ("multiscale", "insitu", "satellite", "footprint"), list(found)
    with style.canvas(7.4, 2.9) as figure:
        axes = figure.subplots(1, 3)
        for metric, panel in zip(PANELS, axes, strict=False):
            _series(panel, sizes, found, names, metric)
            panel.set_ylabel(PANELS[metric])
        _gains(axes[2], sizes, found)
        for panel in axes:
            panel.set_xticks(sizes, ["none", "once", "twice"])
            panel.set_xlabel("satellite bias")
        _legend(figure, names)
        save(figure, axes, path)


def refinement(found, path):
    """Scores against the size of cells: at the finest truth (full), at the cells' own (dashed)."""
    names, steps = ("multiscale", "insitu", "satellite"), list(found)
    with style.canvas(7.4, 2.9) as figure:
        axes = figure.subplots(1, 2)
        for metric, panel in zip(PANELS, axes, strict=True):
            for judge, dashes in (("finest", "-"), ("own", (0, (2, 1.5)))):
                for name in names:
                    values = np.array(
                        [[each[name][metric] for each in found[r][judge]] for r in steps]
                    )
                    drawn = LINES | {"color": style.colour(name), "linestyle": dashes}
                    panel.plot(range(len(steps)), values.mean(1), **drawn)
            panel.set_xticks(range(len(steps)), [f"{36 / r:g}" for r in steps])
            panel.set_xlabel("cells [km]")
            panel.set_ylabel(PANELS[metric])
        axes[1].plot([], [], "-", color=style.INK, label="against the truth at 4.5 km")
        axes[1].plot([], [], linestyle=(0, (2, 1.5)), color=style.INK, label="of the own cell")
        axes[1].legend(fontsize=7.5)
        _legend(figure, names)
        save(figure, axes, path)


def _series(panel, where, found, names, metric):
    """Mean over planets, and each planet faintly."""
    for name in names:
        values = np.array([[each[name][metric] for each in found[at]] for at in where])
        colour = style.colour(name)
        panel.plot(where, values, color=colour, linewidth=0.6, alpha=0.35)
        panel.plot(where, values.mean(1), color=colour, **LINES)


def _gains(panel, where, found):
    """RMSE of multiscale minus that of in situ only, with t intervals over planets."""
    panel.axhline(0, color=style.INK, linewidth=0.9)
    for at in where:
        mean, half = text.difference(found[at], "multiscale", "insitu", "rmse")
        panel.errorbar(at, mean, yerr=half, fmt="o", ms=4.5, color=style.colour("insitu"))
    panel.set_ylabel(f"{PANELS['rmse']}\nmultiscale {style.MINUS} in situ only")


def _bar(panel, row, mean, half, name):
    panel.errorbar(mean, row, xerr=half, fmt="o", ms=4.5, color=style.colour(name))


def _legend(figure, names):
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=style.colour(n), linewidth=2, label=style.label(n)) for n in names
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(names))


def save(figure, axes, path):
    for panel in np.ravel(axes):
        panel.grid(True)
    path.write_bytes(style.figure_bytes(figure))
