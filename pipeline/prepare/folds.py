"""Assign the sites of the cube to folds: cube.zarr -> folds.parquet, folds.geojson.

With `folds.kind: region` each region with sites is a fold; the sites outside all polygons are one
more fold.

Collocated sites (see pipeline.grid.collocated_sites) are in the same fold, and blocks that share a
place are merged. Regions are not merged: if collocated sites are in different regions, those
outside a fold are left out of its training, and the manifest lists them by fold as `left_out`.

The columns of folds.parquet are site (text), lat and lon (degrees), block (int) and fold (int, -1
without folds).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline import files
from pipeline.errors import ConfigError
from pipeline.experiment import config, regions
from pipeline.experiment.folds_config import REGIONS
from pipeline.grid import collocated_sites, distance_matching, spatial_blocks
from pipeline.storage import artefacts, schema, tables, zarr_arrays
from pipeline.storage.cube import Cube

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.experiment.config import Experiment
    from pipeline.experiment.folds_config import FoldsConfig
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace


def run(
    experiment: Experiment, workspace: Workspace, progress: Progress, overwrite: bool = False
) -> None:
    """Write the folds and their digest.

    Raises:
      ConfigError: If the sites cannot be assigned to folds as the settings require.
    """
    artefact = workspace.artefact("folds")
    cube, digest = Cube.source(experiment, workspace)
    inputs = schema.identity(experiment, "folds", cube=digest, **_polygons_digest(experiment.folds))
    progress.start("folds", 1, "table")
    if not artefact.claim(inputs, overwrite, progress):
        progress.finish("folds complete")
        return
    table, names = _assign_folds(experiment, cube)
    artefact.begin(inputs)
    workspace.describe(experiment)
    digest = files.sha256_of_json(table[["site", "fold"]].to_dict("list"))
    tables.write_table(workspace.url("folds.parquet"), table)
    files.write_bytes(workspace.url("folds.geojson"), _to_geojson(table, digest).encode())
    records = [
        artefacts.shard_record(workspace.root, n) for n in ("folds.parquet", "folds.geojson")
    ]
    extra: Json = {"regions": names} if names else {}
    left_out = _sites_left_out(experiment, table)
    extra |= {"left_out": left_out} if left_out else {}
    artefact.commit(inputs, records, digest=digest, **extra)
    details = f" ({', '.join(names)})" if names else ""
    if left_out:
        counts = ", ".join(f"{len(ids)} from fold {fold}" for fold, ids in left_out.items())
        details += f", left out of training because a held-out site is at the same place: {counts}"
    n = table.fold[table.fold >= 0].nunique()
    progress.finish(f"{len(table)} sites in {n} folds{details}, digest {digest[:12]}")


def _sites_left_out(experiment: Experiment, table: pd.DataFrame) -> dict[str, list[str]]:
    """Return, by fold, the sites of other folds that are collocated with one of its sites."""
    place = config.label_experiment_places(experiment, table.lat.to_numpy(), table.lon.to_numpy())
    fold, left_out = table.fold.to_numpy(), {}
    for k in np.unique(fold[fold >= 0]).tolist():
        collocated = (fold != k) & ~collocated_sites.select_elsewhere(place, fold, k)
        if collocated.any():
            left_out[str(k)] = table.site[collocated].tolist()
    return left_out


def _polygons_digest(folds: FoldsConfig) -> dict[str, str]:
    """Return the digest of the file with the regions, if the settings name one."""
    if folds.kind != "region" or folds.by in REGIONS:
        return {}
    try:
        return {"polygons": files.content_digest(folds.by)}
    except FileNotFoundError as error:
        raise ConfigError(f"folds.by {folds.by}", "not found", remedy="correct the path") from error


def _assign_folds(experiment: Experiment, cube: str) -> tuple[pd.DataFrame, list[str]]:
    """Return the table of sites with their block and fold, and the names of the folds, if any."""
    attrs = zarr_arrays.read_attributes(cube, "sites")
    ids = attrs.get("id", [])
    if not ids:
        empty: NDArray[np.int64] = np.zeros(0, np.int64)
        table = pd.DataFrame({"site": [], "lat": [], "lon": [], "block": empty, "fold": empty})
        return table.astype({"site": str, "lat": float, "lon": float}), []
    sites = zarr_arrays.open_group(cube, "sites")
    lat, lon = sites["lat"].values, sites["lon"].values
    mask = zarr_arrays.open_group(cube, "cells")["mask"].values.astype(bool)
    block, fold, names = assign_sites(experiment, lat, lon, attrs.get("network"), mask)
    columns = {"site": ids, "lat": lat, "lon": lon, "block": block, "fold": fold}
    return pd.DataFrame(columns), names


def assign_sites(
    experiment: Experiment,
    lat: NDArray[np.float64],
    lon: NDArray[np.float64],
    network: list[str] | None,
    mask: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str]]:
    """Assign sites to folds.

    Args:
      experiment: The experiment, for its settings `folds`.
      lat: (site,) degrees north.
      lon: (site,) degrees east.
      network: (site,) the name of each site's network; None if it is unknown.
      mask: (y, x) whether a cell is mapped; None if that is not known yet, and for all cells.

    Returns:
      (site,) block and (site,) fold; and the names of the folds, if they have names.

    Raises:
      ConfigError: If the sites cannot be assigned as the settings require, as when all of them are
        in one block.
    """
    folds = experiment.folds
    place = config.label_experiment_places(experiment, lat, lon)
    block = spatial_blocks.block_labels(lat, lon, folds.block_km, folds.block_offset_footprints)
    block = spatial_blocks.merge_blocks(block, place)
    names: list[str] = []
    try:
        if folds.kind == "block":
            fold = spatial_blocks.assign_blocks(block, folds.n_folds, folds.seed)
        elif folds.kind == "random":
            fold = spatial_blocks.assign_random_folds(len(lat), folds.n_folds, folds.seed, place)
        elif folds.kind == "knndm":
            window = config.experiment_window(experiment)
            all_cells = np.ones(window.cell_shape, bool) if mask is None else mask
            cells = distance_matching.sample_cells(all_cells, window.cell_lat, window.cell_lon)
            fold = distance_matching.match_distances(
                (lat, lon), cells, folds.n_folds, folds.seed, place
            )
        elif folds.kind == "none":
            fold = np.full(len(lat), -1)
        elif folds.by == "longitude":
            fold = regions.divide_by_longitude(lon, folds.n_folds)
        else:
            fold, names = regions.number_regions(_region_of_sites(folds.by, lat, lon, network))
    except ValueError as error:
        raise ConfigError("folds", str(error)) from error
    return block, fold, names


def _region_of_sites(
    by: str, lat: NDArray[np.float64], lon: NDArray[np.float64], network: list[str] | None
) -> list[str]:
    """Return the name of the region that contains each site, (site,)."""
    if by != "network":
        return regions.regions_from_polygons(
            lat, lon, regions.continents_path() if by == "continent" else by
        )
    if network is None:
        problem = "the cube does not have the networks of its sites; an older version wrote it"
        raise ConfigError("folds.by network", problem, remedy="run prepare with --overwrite")
    return network


def _to_geojson(table: pd.DataFrame, digest: str) -> str:
    """Return the table as GeoJSON points."""
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [row["lon"], row["lat"]]},
            "properties": {"site": row["site"], "block": row["block"], "fold": row["fold"]},
        }
        for row in table.to_dict("records")
    ]
    return json.dumps({"type": "FeatureCollection", "digest": digest, "features": features})
