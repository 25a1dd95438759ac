"""Borders of the United States, for maps of the Earth; borders.json names licence and origin.

Places on the page: the frame of maps, the sections with maps and with sites on a map.

Where the next probes would tell most, on the page: two maps and the ranked table.
"""

from __future__ import annotations

import importlib.resources
import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipeline import files
from pipeline.evaluate.report import map_fields, style
from pipeline.evaluate.report.map_fields import Frame, Scale
from pipeline.experiment import config
from pipeline.experiment.config import REFERENCE_ARM, reference_arm
from pipeline.grid import ease, spatial_blocks
from pipeline.storage import maps_schema, zarr_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.evaluate.report.map_fields import Fields, Line
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.storage.artefacts import Workspace
    from pipeline.storage.cube import Cube


def border_lines(bounds: tuple[float, float, float, float]) -> list[Line]:
    """Lines (x, y), metres of the grid, that touch a box of left, bottom, right, top."""
    stored = json.loads(
        importlib.resources.files("pipeline.evaluate.report").joinpath("borders.json").read_text()
    )
    left, bottom, right, top = bounds
    found = []
    for steps in stored["arcs"]:
        # An arc is its first point and the steps from point to point: longitude, latitude.
        lon, lat = np.cumsum(np.reshape(steps, (-1, 2)), 0).T * stored["unit_degrees"]
        x, y = ease.project(lat, lon)
        if x.max() > left and x.min() < right and y.max() > bottom and y.min() < top:
            found.append((x, y))
    return found


WET, SPREAD, SIGNED = "cividis_r", "viridis_r", "BrBG"
SPARSE = 0.25  # share of cells with values under which they are drawn as squares, not filled


def frame(experiment: Experiment, cube: Cube) -> Frame:
    """The region with its sites, and borders where it lies on the Earth."""
    window = config.window(experiment)
    lat, lon = np.zeros(0), np.zeros(0)
    if cube.sites is not None:
        lat, lon = cube.sites["lat"].values, cube.sites["lon"].values
    lines = border_lines(window.bounds) if experiment.planet is None else []
    return Frame(
        window.bounds,
        window.cell_lat,
        window.cell_lon,
        window.cell_y,
        window.cell_x,
        ease.project(lat, lon),
        lines,
    )


def reference(experiment: Experiment) -> str:
    """The arm the page speaks of: multiscale where there is one."""
    return reference_arm(experiment.arms)


def maps_section(fields: Fields, on: Frame) -> Json:
    """A day and the period's mean, of every arm, the satellite and the truth, on one scale each."""
    experiment = fields.experiment
    first = reference(experiment)
    unit = style.units(experiment.table[experiment.target].units)
    name = experiment.table[experiment.target].long_name
    mapped = fields.mapped(first)
    known = np.isfinite(mapped.mean)
    if known.mean() < SPARSE:
        on = replace(on, scattered=max(int(known.sum()), 1))
    day = fields.chosen_day(mapped.contrast)
    readers = _readers(fields, first)
    of_day = {key: read(day)[0] for key, read in readers.items()}
    means = {
        key: mapped.mean if key == first else fields.mean(read) for key, read in readers.items()
    }
    made: Json = {"name": name, "unit": unit, "first": style.label(first)}
    made["day"] = style.day(day[0])
    made["sites"] = 0 if on.scattered else len(on.places[0])
    made["refined"] = experiment.domain.refinement > 1
    made["wide"], made["scattered"] = on.is_wide, on.scattered
    for key, panels, when in (
        ("of_day", of_day, made["day"]),
        ("means", means, "mean of the test period"),
    ):
        scale = Scale.over(name, unit, WET, list(panels.values()))
        made[key] = _panels(on, panels, scale, when)
    made["truth"], made["satellite"] = "truth" in readers, "footprint" in readers
    scale = Scale.over("standard deviation", unit, SPREAD, [mapped.std])
    alt = f"Map of the standard deviation of {style.label(first)}, mean over days"
    made["std"] = _panel("standard deviation, mean over days", on, mapped.std, scale, alt)
    if mapped.level is not None and np.isfinite(mapped.level).any():
        scale = Scale.over("product minus satellite", unit, SIGNED, [mapped.level], centred=True)
        alt = f"Map of the footprint mean of {style.label(first)} minus the satellite"
        made["level"] = _panel("footprint mean minus satellite", on, mapped.level, scale, alt)
        made["level_digits"] = style.format_number(float(np.nanmean(mapped.level)), 3, "+")
        made["level_spread"] = style.format_number(float(np.nanstd(mapped.level)), 3)
    return made


def sites_section(experiment: Experiment, scores: pd.DataFrame, cube: Cube, on: Frame) -> Json:
    """RMSE, R and bias of the reference arm at each site, over the blocks that were held out."""
    first = reference(experiment)
    unit = style.units(experiment.table[experiment.target].units)
    rows = scores[(scores.target == "site") & (scores.arm == first)]
    shades = _blocks(experiment)
    panels = []
    for metric, colours in (("rmse", "viridis_r"), ("correlation", "viridis"), ("bias", SIGNED)):
        own = rows[rows.metric == metric].set_index("id").value.reindex(list(cube.site_ids))
        values = own.to_numpy(float)
        name = style.METRICS[metric]
        scale = Scale.over(
            name, "" if metric == "correlation" else unit, colours, [values], metric == "bias"
        )
        alt = f"Map of the sites coloured by {name} of {style.label(first)}"
        picture = map_fields.at_places(on, values, shades, scale, alt)
        panels.append({"title": name, "picture": picture, "bar": map_fields.colour_bar(scale)})
    blocks_held_out = experiment.folds.kind == "block"
    return {"panels": panels, "first": style.label(first), "blocks": blocks_held_out}


def _readers(fields: Fields, first: str) -> dict[str, Any]:
    """By name, in the order of the page: the reference, what it is held against, other arms."""
    readers = {first: fields.arm(first)}
    beside = {"truth": fields.truth(), "footprint": fields.satellite()}
    readers |= {key: read for key, read in beside.items() if read is not None}
    return readers | {arm: fields.arm(arm) for arm in fields.experiment.arms if arm != first}


def _panels(on: Frame, panels: dict[str, NDArray[Any]], scale: Scale, when: str) -> Json:
    titles = {"truth": "truth", "footprint": "satellite itself"}
    made = []
    for key, values in panels.items():
        title = titles.get(key, style.label(key))
        made.append(
            {
                "title": title,
                "picture": map_fields.mapped(on, values, scale, f"Map of {title}, {when}"),
                "key": key,
            }
        )
    return {"panels": made, "bar": map_fields.colour_bar(scale)}


def _panel(title: str, on: Frame, values: NDArray[Any], scale: Scale, alt: str) -> Json:
    picture = map_fields.mapped(on, values, scale, alt)
    return {"title": title, "picture": picture, "bar": map_fields.colour_bar(scale)}


def _blocks(experiment: Experiment) -> NDArray[np.int64]:
    """(fy, fx) 0 or 1 by block of the folds, so that neighbours differ; -1 without blocks."""
    window = config.window(experiment)
    folds = experiment.folds
    if folds.kind != "block":
        return np.full(window.footprint_shape, -1)
    lat, lon = np.meshgrid(window.footprint_lat, window.footprint_lon, indexing="ij")
    label = spatial_blocks.block_labels(lat, lon, folds.block_km, folds.block_offset_footprints)
    row, col = divmod(label, ease.FOOTPRINT_COLS + 2)
    return np.asarray((row + col) % 2)


def next_probes(experiment: Experiment, workspace: Workspace, on: Frame) -> Json | None:
    """The layers `attribute_distance` and `probe_gain`, and next_probes.csv; None without them."""
    if not files.exists(workspace.url(maps_schema.NEXT_PROBES)):
        return None
    arms = sorted(experiment.arms, key=lambda arm: arm != REFERENCE_ARM)
    groups = (zarr_arrays.open_group(workspace.url("maps", f"{arm}.zarr"), "") for arm in arms)
    arm, mapped = next(
        (arm, group) for arm, group in zip(arms, groups, strict=True) if "probe_gain" in group
    )
    table = pd.read_csv(io.BytesIO(files.read_bytes(workspace.url(maps_schema.NEXT_PROBES))))
    distance, gain = mapped["attribute_distance"].values, 100 * mapped["probe_gain"].values
    known = np.isfinite(distance)
    if known.mean() < SPARSE:
        on = replace(on, scattered=max(int(known.sum()), 1))
    numbered = replace(on, numbered=ease.project(table["lat"].to_numpy(), table["lon"].to_numpy()))
    panels = []
    for title, frame, values, unit in (
        ("attribute distance", on, distance, ""),
        ("gain of a further probe", numbered, gain, "%"),
    ):
        scale = Scale.over(title, unit, SPREAD, [values])
        picture = map_fields.mapped(frame, values, scale, f"Map of the {title} of every cell")
        panels.append({"title": title, "picture": picture, "bar": map_fields.colour_bar(scale)})
    rows = [
        [
            style.count(int(row["rank"])),
            *(style.format_number(row[name], 3) for name in ("lat", "lon", "std")),
            style.format_number(row["attribute_distance"], 2),
            style.format_number(100 * row["gain"], 2),
        ]
        for row in table.to_dict("records")
    ]
    return {
        "panels": panels,
        "rows": rows,
        "first": style.label(arm),
        "file": maps_schema.NEXT_PROBES,
    }
