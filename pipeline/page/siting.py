"""Where the next probes would tell most, on the page: two maps and the ranked table."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline import arrays, files, grid, maps
from pipeline.config import REFERENCE_ARM
from pipeline.figures import maps as figures
from pipeline.figures import style
from pipeline.figures.maps import Scale
from pipeline.page import atlas, text

if TYPE_CHECKING:
    from pipeline.config import Experiment
    from pipeline.figures.maps import Frame
    from pipeline.files import Json
    from pipeline.store import Workspace


def next_probes(experiment: Experiment, workspace: Workspace, on: Frame) -> Json | None:
    """The layers `attribute_distance` and `probe_gain`, and next_probes.csv; None without them."""
    if not files.exists(workspace.url(maps.NEXT_PROBES)):
        return None
    arms = sorted(experiment.arms, key=lambda arm: arm != REFERENCE_ARM)
    groups = (arrays.open_group(workspace.url("maps", f"{arm}.zarr"), "") for arm in arms)
    arm, mapped = next(
        (arm, group) for arm, group in zip(arms, groups, strict=True) if "probe_gain" in group
    )
    table = pd.read_csv(io.BytesIO(files.read_bytes(workspace.url(maps.NEXT_PROBES))))
    distance, gain = mapped["attribute_distance"].values, 100 * mapped["probe_gain"].values
    known = np.isfinite(distance)
    if known.mean() < atlas.SPARSE:
        on = replace(on, scattered=max(int(known.sum()), 1))
    numbered = replace(on, numbered=grid.project(table["lat"].to_numpy(), table["lon"].to_numpy()))
    panels = []
    for title, frame, values, unit in (
        ("attribute distance", on, distance, ""),
        ("gain of a further probe", numbered, gain, "%"),
    ):
        scale = Scale.over(title, unit, atlas.SPREAD, [values])
        picture = figures.mapped(frame, values, scale, f"Map of the {title} of every cell")
        panels.append({"title": title, "picture": picture, "bar": figures.colour_bar(scale)})
    rows = [
        [
            text.count(int(row["rank"])),
            *(text.number(row[name], 3) for name in ("lat", "lon", "std")),
            text.number(row["attribute_distance"], 2),
            text.number(100 * row["gain"], 2),
        ]
        for row in table.to_dict("records")
    ]
    return {"panels": panels, "rows": rows, "first": style.label(arm), "file": maps.NEXT_PROBES}
