"""Deal the sites of the cube into folds: cube.zarr -> folds.parquet, folds.geojson.

folds.parquet: site (text), lat, lon (degrees), block (int), fold (int, -1 where there are none).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline import arrays, blocks, files, schema, store, tables
from pipeline.cube import Cube
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.config import Experiment, FoldsConfig
    from pipeline.progress import Progress
    from pipeline.store import Workspace


def run(
    experiment: Experiment, workspace: Workspace, progress: Progress, overwrite: bool = False
) -> None:
    """Write the folds and the digest of them.

    Raises:
      ConfigError: the sites cannot be dealt as asked.
    """
    artefact = workspace.artefact("folds")
    cube, digest = Cube.source(experiment, workspace)
    inputs = schema.identity(experiment, "folds", cube=digest)
    progress.start("folds", 1, "table")
    if not artefact.claim(inputs, overwrite, progress):
        progress.finish("folds complete")
        return
    table = _dealt(experiment.folds, cube)
    artefact.begin(inputs)
    workspace.describe(experiment)
    digest = files.sha256_of(table[["site", "fold"]].to_dict("list"))
    tables.write(workspace.url("folds.parquet"), table)
    files.write_bytes(workspace.url("folds.geojson"), _geojson(table, digest).encode())
    names = ("folds.parquet", "folds.geojson")
    artefact.commit(inputs, [store.record(workspace.root, n) for n in names], digest=digest)
    progress.finish(f"{len(table)} sites in {table.fold.nunique()} folds, digest {digest[:12]}")


def _dealt(folds: FoldsConfig, cube: str) -> pd.DataFrame:
    """The table of sites with their block and fold."""
    ids = arrays.attributes(cube, "sites").get("id", [])
    if not ids:
        empty: NDArray[np.int64] = np.zeros(0, np.int64)
        table = pd.DataFrame({"site": [], "lat": [], "lon": [], "block": empty, "fold": empty})
        return table.astype({"site": str, "lat": float, "lon": float})
    sites = arrays.open_group(cube, "sites")
    lat, lon = sites["lat"].values, sites["lon"].values
    block = blocks.block_labels(lat, lon, folds.block_km, folds.block_offset_footprints)
    try:
        if folds.kind == "block":
            fold = blocks.deal(block, folds.n_folds, folds.seed)
        elif folds.kind == "random":
            fold = blocks.random_folds(len(ids), folds.n_folds, folds.seed)
        else:
            fold = np.full(len(ids), -1)
    except ValueError as error:
        raise ConfigError("folds", str(error)) from error
    return pd.DataFrame({"site": ids, "lat": lat, "lon": lon, "block": block, "fold": fold})


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
