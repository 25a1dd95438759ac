"""Deal the sites of the cube into folds: cube.zarr -> folds.parquet, folds.geojson.

A region that sites lie in is a fold; so are, together, the sites that lie in no polygon.

Sites at one place (see pipeline.twins) are dealt together, and blocks that share a place are one.
Regions are held out as they are: where they part a place, a fold's models do not learn from its
sites in other regions, which the manifest lists by fold under `left_out`.

folds.parquet: site (text), lat, lon (degrees), block (int), fold (int, -1 where there are none).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline import files
from pipeline.errors import ConfigError
from pipeline.experiment import config, regions
from pipeline.experiment.config import REGIONS
from pipeline.grid import collocated_sites, spatial_blocks
from pipeline.storage import artefacts, schema, tables, zarr_arrays
from pipeline.storage.cube import Cube

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.experiment.config import Experiment, FoldsConfig
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace


def run(
    experiment: Experiment, workspace: Workspace, progress: Progress, overwrite: bool = False
) -> None:
    """Write the folds and the digest of them.

    Raises:
      ConfigError: the sites cannot be dealt as asked.
    """
    artefact = workspace.artefact("folds")
    cube, digest = Cube.source(experiment, workspace)
    inputs = schema.identity(experiment, "folds", cube=digest, **_polygons(experiment.folds))
    progress.start("folds", 1, "table")
    if not artefact.claim(inputs, overwrite, progress):
        progress.finish("folds complete")
        return
    table, names = _dealt(experiment, cube)
    artefact.begin(inputs)
    workspace.describe(experiment)
    digest = files.sha256_of(table[["site", "fold"]].to_dict("list"))
    tables.write(workspace.url("folds.parquet"), table)
    files.write_bytes(workspace.url("folds.geojson"), _geojson(table, digest).encode())
    records = [artefacts.record(workspace.root, n) for n in ("folds.parquet", "folds.geojson")]
    told: Json = {"regions": names} if names else {}
    left_out = _left_out(experiment, table)
    told |= {"left_out": left_out} if left_out else {}
    artefact.commit(inputs, records, digest=digest, **told)
    which = f" ({', '.join(names)})" if names else ""
    if left_out:
        lost = ", ".join(f"{len(ids)} from fold {fold}" for fold, ids in left_out.items())
        which += f", at the place of a held-out site and left out of training: {lost}"
    n = table.fold[table.fold >= 0].nunique()
    progress.finish(f"{len(table)} sites in {n} folds{which}, digest {digest[:12]}")


def _left_out(experiment: Experiment, table: pd.DataFrame) -> dict[str, list[str]]:
    """By fold the sites of other folds that are at the place of one of its own."""
    place = config.number_places(experiment, table.lat.to_numpy(), table.lon.to_numpy())
    fold, made = table.fold.to_numpy(), {}
    for k in np.unique(fold[fold >= 0]).tolist():
        lost = (fold != k) & ~collocated_sites.elsewhere(place, fold, k)
        if lost.any():
            made[str(k)] = table.site[lost].tolist()
    return made


def _polygons(folds: FoldsConfig) -> dict[str, str]:
    """Digest of the file of regions, where one is asked for."""
    if folds.kind != "region" or folds.by in REGIONS:
        return {}
    try:
        return {"polygons": files.digest(folds.by)}
    except FileNotFoundError as error:
        raise ConfigError(f"folds.by {folds.by}", "not found") from error


def _dealt(experiment: Experiment, cube: str) -> tuple[pd.DataFrame, list[str]]:
    """The table of sites with their block and fold; names of the folds, where they have any."""
    folds = experiment.folds
    attrs = zarr_arrays.attributes(cube, "sites")
    ids = attrs.get("id", [])
    if not ids:
        empty: NDArray[np.int64] = np.zeros(0, np.int64)
        table = pd.DataFrame({"site": [], "lat": [], "lon": [], "block": empty, "fold": empty})
        return table.astype({"site": str, "lat": float, "lon": float}), []
    sites = zarr_arrays.open_group(cube, "sites")
    lat, lon = sites["lat"].values, sites["lon"].values
    place = config.number_places(experiment, lat, lon)
    block = spatial_blocks.block_labels(lat, lon, folds.block_km, folds.block_offset_footprints)
    block = spatial_blocks.joined(block, place)
    names: list[str] = []
    try:
        if folds.kind == "block":
            fold = spatial_blocks.deal(block, folds.n_folds, folds.seed)
        elif folds.kind == "random":
            fold = spatial_blocks.random_folds(len(ids), folds.n_folds, folds.seed, place)
        elif folds.kind == "none":
            fold = np.full(len(ids), -1)
        elif folds.by == "longitude":
            fold = regions.bands(lon, folds.n_folds)
        else:
            fold, names = regions.numbered(_regions(folds.by, lat, lon, attrs.get("network")))
    except ValueError as error:
        raise ConfigError("folds", str(error)) from error
    columns = {"site": ids, "lat": lat, "lon": lon, "block": block, "fold": fold}
    return pd.DataFrame(columns), names


def _regions(
    by: str, lat: NDArray[np.float64], lon: NDArray[np.float64], network: list[str] | None
) -> list[str]:
    """(site,) name of the region that holds each site."""
    if by != "network":
        return regions.named(lat, lon, regions.continents() if by == "continent" else by)
    if network is None:
        found = "the cube was made before networks were kept"
        raise ConfigError("folds.by network", found, remedy="prepare it with --overwrite")
    return network


def _geojson(table: pd.DataFrame, digest: str) -> str:
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [row["lon"], row["lat"]]},
            "properties": {"site": row["site"], "block": row["block"], "fold": row["fold"]},
        }
        for row in table.to_dict("records")
    ]
    return json.dumps({"type": "FeatureCollection", "digest": digest, "features": features})
