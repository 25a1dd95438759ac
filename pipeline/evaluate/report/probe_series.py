"""Draw the series of a user's probes beside what models predict: `score --figure`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from model.calibration import interval_half_width
from pipeline.errors import DataError
from pipeline.evaluate.report import style
from pipeline.experiment.config import SATELLITE_BASELINE, reference_arm

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pipeline.evaluate.probes import Scored
    from pipeline.evaluate.scoring import Candidate
    from pipeline.experiment.variables import Variable
    from pipeline.files import Json


MAX_PROBES = 8  # that have a panel each; the first of the file that are scored
INTERVAL = 0.9  # share of values within the shaded band
_WIDTH, _PANEL_HEIGHT = 10.4, 1.75  # inches


def draw_probes(scored: Scored, name: str, variable: Variable) -> bytes:
    """Draw a panel for each probe: observed, predicted with its interval, and the satellite.

    Args:
      scored: what `pipeline.evaluate.probes.score_probes` returned.
      name: the target, in words.
      variable: the target.

    Returns:
      The content of a PNG file.

    Raises:
      DataError: If no probe has a prediction on a day with an observation.
    """
    arms = [c for c in scored.candidates if c.is_arm]
    main = next(c for c in arms if c.name == reference_arm([a.name for a in arms]))
    seen = [c for c in scored.candidates if c.name == SATELLITE_BASELINE]
    observed = scored.probes.sites.observed
    shown = np.flatnonzero((np.isfinite(observed) & np.isfinite(main.prediction)).any(1))
    if not len(shown):
        raise DataError("--figure", "no probe has predictions on the days that it observed")
    drawn = shown[:MAX_PROBES].tolist()
    described = {probe["id"]: probe for probe in scored.summary["probes"]}
    unit = style.format_units(variable.units)
    with style.canvas(_WIDTH, 0.6 + _PANEL_HEIGHT * len(drawn)) as figure:
        panels = np.atleast_1d(figure.subplots(len(drawn), 1, sharey=True))
        for axes, row in zip(panels, drawn, strict=True):
            site = scored.probes.sites.ids[row]
            _draw_panel(axes, scored, row, [main, *seen], variable)
            axes.set_title(_title(described[site], main.name), loc="left", fontsize=8.5)
            axes.set_ylabel(style.label_with_unit(name, unit), fontsize=7.5)
            style.short_ticks(axes.yaxis, 4)
            axes.grid(axis="y")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
        left_out = len(shown) - len(drawn)
        if left_out:
            figure.supxlabel(f"{left_out} more probes are not drawn", fontsize=8)
        return style.figure_bytes(figure)


def _draw_panel(
    axes: Axes, scored: Scored, row: int, candidates: list[Candidate], variable: Variable
) -> None:
    """Draw the days from the first to the last observation of a probe."""
    sites, (main, *seen) = scored.probes.sites, candidates
    held = np.flatnonzero(np.isfinite(sites.observed[row]))
    days = slice(int(held[0]), int(held[-1]) + 1)
    time = sites.days[days].astype("datetime64[ns]")
    colour, mean = style.colour(main.name), main.prediction[row, days]
    if main.std is not None:
        half = main.std[row, days] * interval_half_width(INTERVAL)
        low, high = (
            np.clip(mean + side * half, variable.minimum, variable.maximum) for side in (-1, 1)
        )
        shade: dict[str, Any] = {"color": colour, "alpha": 0.18, "linewidth": 0}
        axes.fill_between(time, low, high, label=f"{INTERVAL:.0%} interval", **shade)
    for candidate in seen:
        point: dict[str, Any] = {"color": style.colour(candidate.name), "markersize": 2.5}
        values = candidate.prediction[row, days]
        axes.plot(time, values, "o", label=style.label(candidate.name), alpha=0.6, **point)
    axes.plot(time, mean, color=colour, linewidth=1.2, label=style.label(main.name))
    observed = sites.observed[row, days]
    axes.plot(time, observed, color=style.INK, linewidth=0.9, marker=".", markersize=2.5,
              label="probe")  # fmt: skip
    axes.set_xlim(time[0], time[-1])


def _title(probe: Json, arm: str) -> str:
    """Return the id, the place and the scores of a probe."""
    scores = probe["scores"][arm]
    text = f"{probe['id']} ({probe['lat']:.3f}, {probe['lon']:.3f})"
    if scores["rmse"] is None:
        text += f": {scores['n']} days, too few to be scored"
    else:
        numbers = [
            f"{label} {style.format_number(scores[metric], 3, '+' if metric == 'bias' else '')}"
            for metric, label in style.METRICS.items()
        ]
        text += f": {', '.join(numbers)}, {scores['n']} days"
    if probe["cell_km"]:
        text += f"; inputs of a cell {probe['cell_km']:.0f} km away"
    return text + ("; the models have learnt here" if probe["group"] == "trained" else "")
