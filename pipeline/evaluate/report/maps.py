"""Make the sections of the report with maps.

These are the maps of one day and of the mean (`maps_section`), scores at the sites
(`sites_section`), and where further probes would gain most (`next_probes_section`). Coasts, borders
and the states of the United States are drawn on maps of the Earth; borders.json names their licence
and origin.
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
from pipeline.evaluate.report.site_table import site_anchor, site_texts
from pipeline.experiment import config
from pipeline.experiment.config import REFERENCE_ARM, reference_arm
from pipeline.grid import distance_matching, ease, lookup, spatial_blocks
from pipeline.storage import maps_schema, zarr_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.evaluate.report.map_fields import Line, MapFields
    from pipeline.evaluate.report.style import Picture
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.storage.artefacts import Workspace
    from pipeline.storage.cube import Cube


# Colour maps: of the target, of other positive quantities, and of differences.
TARGET_COLOURS, POSITIVE_COLOURS, DIFFERENCE_COLOURS = "cividis_r", "viridis_r", "BrBG"

# If a smaller share of the cells has values, cells are drawn as squares and not as a filled field.
MIN_FILLED_SHARE = 0.25


def main_arm(experiment: Experiment) -> str:
    """Return the arm that the report is about: multiscale if the experiment has it."""
    return reference_arm(experiment.arms)


def map_frame(experiment: Experiment, cube: Cube) -> Frame:
    """Return the region of an experiment with its sites, and with coasts unless on a planet."""
    window = config.experiment_window(experiment)
    lat, lon = np.zeros(0), np.zeros(0)
    if cube.sites is not None:
        lat, lon = cube.sites["lat"].values, cube.sites["lon"].values
    lines = read_borders(window.bounds) if experiment.planet is None else []
    return Frame(
        window.bounds,
        window.cell_lat,
        window.cell_lon,
        window.cell_y,
        window.cell_x,
        ease.project(lat, lon),
        lines,
    )


def read_borders(bounds: tuple[float, float, float, float]) -> list[Line]:
    """Return the coasts and borders that touch a region.

    Args:
      bounds: left, bottom, right and top of the region, metres of the grid.

    Returns:
      Lines, each x and y in metres of the grid.
    """
    stored = json.loads(
        importlib.resources.files("pipeline.evaluate.report").joinpath("borders.json").read_text()
    )
    left, bottom, right, top = bounds
    # An arc is its first point and the steps from point to point: longitude, latitude.
    arcs = [np.cumsum(np.reshape(steps, (-1, 2)), 0) for steps in stored["arcs"]]
    lon, lat = np.concatenate(arcs).T * stored["unit_degrees"]
    ends = np.cumsum([len(arc) for arc in arcs])[:-1]
    x, y = (np.split(along, ends) for along in ease.project(lat, lon))
    lines = [
        (u, v)
        for u, v in zip(x, y, strict=True)
        if u.max() > left and u.min() < right and v.max() > bottom and v.min() < top
    ]
    return lines


def maps_section(fields: MapFields, region: Frame) -> Json:
    """Map one day and the mean of the test period, for every arm, the satellite and the truth.

    All maps of a day, and all maps of the mean, share one colour scale. The section also has maps
    of the standard deviation of the reference arm, and of its difference from the satellite.

    Args:
      fields: reads the fields.
      region: the region.
    """
    experiment = fields.experiment
    first = main_arm(experiment)
    unit = style.format_units(experiment.table[experiment.target].units)
    name = experiment.table[experiment.target].long_name
    summary = fields.summarise(first)
    has_value = np.isfinite(summary.mean)
    if has_value.mean() < MIN_FILLED_SHARE:
        region = replace(region, n_sparse=max(int(has_value.sum()), 1))
    day = fields.choose_day(summary.contrast)
    readers = _field_readers(fields, first)
    on_day = {key: read(day)[0] for key, read in readers.items()}
    means = {
        key: summary.mean if key == first else fields.mean(read) for key, read in readers.items()
    }
    section: Json = {
        "name": name,
        "unit": unit,
        "first": style.label(first),
        "day": style.format_day(day[0]),
        "sites": 0 if region.n_sparse else len(region.sites[0]),
        "refined": experiment.domain.refinement > 1,
        "wide": region.is_wide,
        "scattered": region.n_sparse,
        "truth": "truth" in readers,
        "satellite": "footprint" in readers,
    }
    for key, panels, when in (
        ("of_day", on_day, section["day"]),
        ("means", means, "mean of the test period"),
    ):
        scale = Scale.from_values(name, unit, TARGET_COLOURS, list(panels.values()))
        section[key] = _draw_panels(region, panels, scale, when)
    scale = Scale.from_values("standard deviation", unit, POSITIVE_COLOURS, [summary.std])
    alt = f"Map of the standard deviation of {style.label(first)}, mean over days"
    section["std"] = _draw_panel(
        "standard deviation, mean over days", region, summary.std, scale, alt
    )
    if summary.level is not None and np.isfinite(summary.level).any():
        section |= _draw_level(summary.level, region, unit, first)
    return section


def _draw_level(level: NDArray[Any], region: Frame, unit: str, arm: str) -> Json:
    """Map the difference of an arm's footprint mean from the satellite, with mean and spread."""
    scale = Scale.from_values(
        "product minus satellite", unit, DIFFERENCE_COLOURS, [level], centred=True
    )
    alt = f"Map of the footprint mean of {style.label(arm)} minus the satellite"
    return {
        "level": _draw_panel("footprint mean minus satellite", region, level, scale, alt),
        "level_digits": style.format_number(float(np.nanmean(level)), 3, "+"),
        "level_spread": style.format_number(float(np.nanstd(level)), 3),
    }


def _field_readers(fields: MapFields, first: str) -> dict[str, Any]:
    """Return readers by name in the order of the page: reference, truth, satellite, other arms."""
    readers = {first: fields.arm_reader(first)}
    others = {"truth": fields.truth_reader(), "footprint": fields.satellite_reader()}
    readers |= {key: read for key, read in others.items() if read is not None}
    return readers | {arm: fields.arm_reader(arm) for arm in fields.experiment.arms if arm != first}


def _draw_panels(region: Frame, fields: dict[str, NDArray[Any]], scale: Scale, when: str) -> Json:
    """Draw several fields (y, x), by name, and their colour scale."""
    titles = {"truth": "truth", "footprint": "satellite itself"}
    panels = []
    for key, values in fields.items():
        title = titles.get(key, style.label(key))
        picture = map_fields.draw_field(region, values, scale, f"Map of {title}, {when}")
        panels.append({"title": title, "picture": picture, "key": key})
    return {"panels": panels, "bar": map_fields.draw_colour_bar(scale)}


def _draw_panel(title: str, region: Frame, values: NDArray[Any], scale: Scale, alt: str) -> Json:
    """Draw one field (y, x) and its colour scale."""
    picture = map_fields.draw_field(region, values, scale, alt)
    return {"title": title, "picture": picture, "bar": map_fields.draw_colour_bar(scale)}


def sites_section(experiment: Experiment, scores: pd.DataFrame, cube: Cube, region: Frame) -> Json:
    """Map RMSE, R and bias of the reference arm at each site, over the blocks of the folds."""
    first = main_arm(experiment)
    unit = style.format_units(experiment.table[experiment.target].units)
    rows = scores[(scores.target == "site") & (scores.arm == first)]
    blocks = _block_parity(experiment)
    told = site_texts(scores, first, unit)
    texts = [told.get(site, site) for site in cube.site_ids]
    links = [site_anchor(row) for row in range(len(texts))]
    panels = []
    for metric, colour_map in (
        ("rmse", "viridis_r"),
        ("correlation", "viridis"),
        ("bias", DIFFERENCE_COLOURS),
    ):
        by_site = rows[rows.metric == metric].set_index("id").value.reindex(list(cube.site_ids))
        values = by_site.to_numpy(float)
        name = style.METRICS[metric]
        metric_unit = "" if metric == "correlation" else unit
        scale = Scale.from_values(name, metric_unit, colour_map, [values], centred=metric == "bias")
        alt = f"Map of the sites coloured by {name} of {style.label(first)}"
        picture = map_fields.draw_site_values(region, values, blocks, scale, alt, texts, links)
        panels.append({"title": name, "picture": picture, "bar": map_fields.draw_colour_bar(scale)})
    has_blocks = experiment.folds.kind == "block"
    fold = rows[rows.metric == "rmse"].set_index("id").fold.reindex(list(cube.site_ids))
    return {
        "panels": panels,
        "first": style.label(first),
        "blocks": has_blocks,
        "distances": _draw_distances(cube, fold.to_numpy()) if fold.nunique() > 1 else None,
    }


def _draw_distances(cube: Cube, fold: NDArray[Any]) -> Picture:
    """Draw how far held-out sites are from training sites, and the map's cells from sites.

    Args:
      cube: the cube.
      fold: (site,) name of the fold that holds out each site, null for none.
    """
    assert cube.sites is not None
    known = ~pd.isna(fold)
    lat, lon = (cube.sites[name].values[known] for name in ("lat", "lon"))
    cells = distance_matching.sample_cells(
        *(cube.cells[name].values for name in ("mask", "lat", "lon"))
    )
    curves = {
        "held-out site to training site": distance_matching.distances_to_others(
            lat, lon, fold[known]
        ),
        "cell of the map to site": lookup.find_nearest(*cells, lat, lon)[1],
    }
    with style.canvas(3.6, 2.4) as figure:
        axes = figure.subplots()
        for (name, distance), line in zip(curves.items(), ("-", (0, (4, 2))), strict=True):
            axes.ecdf(distance, label=name, color=style.INK, linestyle=line, linewidth=1.4)
        axes.set_xlabel("distance to the nearest [km]")
        axes.set_ylabel("share")
        axes.set_xlim(left=0)
        axes.legend(fontsize=7, loc="lower right")
        return style.embed_figure(figure, "Distances of held-out sites, and of cells, from sites")


def _block_parity(experiment: Experiment) -> NDArray[np.int64]:
    """Return (fy, fx) 0 or 1, so that neighbouring blocks differ; -1 if folds have no blocks."""
    window = config.experiment_window(experiment)
    folds = experiment.folds
    if folds.kind != "block":
        return np.full(window.footprint_shape, -1)
    lat, lon = np.meshgrid(window.footprint_lat, window.footprint_lon, indexing="ij")
    label = spatial_blocks.block_labels(lat, lon, folds.block_km, folds.block_offset_footprints)
    row, col = divmod(label, ease.FOOTPRINT_COLS + 2)
    return np.asarray((row + col) % 2)


def next_probes_section(experiment: Experiment, workspace: Workspace, region: Frame) -> Json | None:
    """Map where further probes would gain most, with the ranked table of next_probes.csv.

    Returns:
      The section; None if the experiment has no next_probes.csv.
    """
    if not files.exists(workspace.url(maps_schema.NEXT_PROBES)):
        return None
    arms = sorted(experiment.arms, key=lambda arm: arm != REFERENCE_ARM)
    groups = (zarr_arrays.open_group(workspace.url("maps", f"{arm}.zarr"), "") for arm in arms)
    arm, layers = next(
        (arm, group) for arm, group in zip(arms, groups, strict=True) if "probe_gain" in group
    )
    table = pd.read_csv(io.BytesIO(files.read_bytes(workspace.url(maps_schema.NEXT_PROBES))))
    distance, gain = layers["attribute_distance"].values, 100 * layers["probe_gain"].values
    has_value = np.isfinite(distance)
    if has_value.mean() < MIN_FILLED_SHARE:
        region = replace(region, n_sparse=max(int(has_value.sum()), 1))
    numbered = replace(
        region, numbered=ease.project(table["lat"].to_numpy(), table["lon"].to_numpy())
    )
    panels = []
    for title, panel_region, values, unit in (
        ("attribute distance", region, distance, ""),
        ("gain of a further probe", numbered, gain, "%"),
    ):
        scale = Scale.from_values(title, unit, POSITIVE_COLOURS, [values])
        picture = map_fields.draw_field(
            panel_region, values, scale, f"Map of the {title} of every cell"
        )
        panels.append(
            {"title": title, "picture": picture, "bar": map_fields.draw_colour_bar(scale)}
        )
    rows = [
        [
            style.format_count(int(row["rank"])),
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
