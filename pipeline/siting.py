"""Where the next probes would tell most: a layer of an arm's maps, and a ranked table.

next_probes.csv, of arm multiscale or the first that has learnt from sites: rank; lat, lon, degrees;
std, the root of the mean variance there, in the target's unit; attribute_distance to the sites;
gain, the share of all error variance explained beyond the sites and the probes ranked before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from model import siting
from pipeline import arrays, files, models, store
from pipeline.config import reference_arm
from pipeline.maps import NEXT_PROBES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.files import Json
    from pipeline.store import Workspace

RANKED = 15  # probes in the table
MOST = 4000  # cells that are to be explained and may be ranked; of more, evenly spaced ones


def write(workspace: Workspace, models_root: str, arms: Sequence[str]) -> list[Json]:
    """Write the layer of each arm, all of whose columns are there, and the table; their records."""
    space = models.space(models_root)
    if space is None or not arms:
        return []
    records: list[Json] = []
    told = reference_arm(arms)
    for arm in arms:
        layer, table = _of_arm(workspace, arm, space.unit)
        url, whole = workspace.url("maps", f"{arm}.zarr"), [slice(0, n) for n in layer.shape]
        made = arrays.write_shards(url, "probe_gain", whole, layer)
        records += [record | {"key": f"maps/{arm}.zarr/{record['key']}"} for record in made]
        if arm == told:
            text = table.to_csv(index=False, float_format="%.6f")
            files.write_bytes(workspace.url(NEXT_PROBES), text.encode())
    return [*records, store.record(workspace.root, NEXT_PROBES)]


def _of_arm(
    workspace: Workspace, arm: str, unit: float
) -> tuple[NDArray[np.float32], pd.DataFrame]:
    """The gain of a probe in every cell (y, x), and the table."""
    mapped = arrays.open_group(workspace.url("maps", f"{arm}.zarr"), "")
    state = arrays.open_group(workspace.url("state", f"{arm}.zarr"), "")
    attributes, variance = state["attributes"].values, state["mean_variance"].values
    valid = np.isfinite(attributes).all(0)
    places, distance = attributes[:, valid].T, mapped["attribute_distance"].values[valid]
    some = slice(None, None, max(1, -(-len(places) // MOST)))
    weight = siting.weights(variance[valid][some])
    layer = np.full(valid.shape, np.nan, np.float32)
    layer[valid] = siting.gains(places, places[some], weight, distance[some], unit)
    index, gain = siting.ranked(places[some], weight, distance[some], unit, RANKED)
    y, x = (rows[some][index] for rows in np.nonzero(valid))
    table = pd.DataFrame(
        {
            "rank": np.arange(1, len(index) + 1),
            "lat": mapped["lat"].values[y],
            "lon": mapped["lon"].values[x],
            "std": np.sqrt(variance[y, x]),
            "attribute_distance": distance[some][index],
            "gain": gain,
        }
    )
    return layer, table
