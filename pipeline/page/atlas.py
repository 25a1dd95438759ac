"""Places on the page: the frame of maps, the sections with maps and with sites on a map."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import blocks, grid, schema
from pipeline.config import reference_arm
from pipeline.figures import maps, style
from pipeline.figures.maps import Frame, Scale
from pipeline.page import borders, text

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from pipeline.config import Experiment
    from pipeline.cube import Cube
    from pipeline.files import Json
    from pipeline.page.fields import Fields

WET, SPREAD, SIGNED = "cividis_r", "viridis_r", "BrBG"
SPARSE = 0.25  # share of cells with values under which they are drawn as squares, not filled


def frame(experiment: Experiment, cube: Cube) -> Frame:
    """The region with its sites, and borders where it lies on the Earth."""
    window = schema.window(experiment)
    lat, lon = np.zeros(0), np.zeros(0)
    if cube.sites is not None:
        lat, lon = cube.sites["lat"].values, cube.sites["lon"].values
    lines = borders.lines(window.bounds) if experiment.planet is None else []
    return Frame(
        window.bounds,
        window.cell_lat,
        window.cell_lon,
        window.cell_y,
        window.cell_x,
        grid.project(lat, lon),
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
    made["day"] = text.day(day[0])
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
        made["level_digits"] = text.number(float(np.nanmean(mapped.level)), 3, "+")
        made["level_spread"] = text.number(float(np.nanstd(mapped.level)), 3)
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
        picture = maps.at_places(on, values, shades, scale, alt)
        panels.append({"title": name, "picture": picture, "bar": maps.colour_bar(scale)})
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
                "picture": maps.mapped(on, values, scale, f"Map of {title}, {when}"),
                "key": key,
            }
        )
    return {"panels": made, "bar": maps.colour_bar(scale)}


def _panel(title: str, on: Frame, values: NDArray[Any], scale: Scale, alt: str) -> Json:
    picture = maps.mapped(on, values, scale, alt)
    return {"title": title, "picture": picture, "bar": maps.colour_bar(scale)}


def _blocks(experiment: Experiment) -> NDArray[np.int64]:
    """(fy, fx) 0 or 1 by block of the folds, so that neighbours differ; -1 without blocks."""
    window = schema.window(experiment)
    folds = experiment.folds
    if folds.kind != "block":
        return np.full(window.footprint_shape, -1)
    lat, lon = np.meshgrid(window.footprint_lat, window.footprint_lon, indexing="ij")
    label = blocks.block_labels(lat, lon, folds.block_km, folds.block_offset_footprints)
    row, col = divmod(label, grid.FOOTPRINT_COLS + 2)
    return np.asarray((row + col) % 2)
