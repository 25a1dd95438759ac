"""Series at sites and values of footprints as small JSON files, which a browser can read.

  sites.geojson: the sites as points, with fold, block, the name of their file, and `scores` by arm.
  sites/{number}.json: one site, with `observation`, `satellite` (the footprint's value), and for
    each arm and baseline `mean`, `std`, `scores` and `status`, which says if the site was held out.
  footprints.json: the names of the following files, by row of the grid of footprints.
  footprints/{row}.json: the footprints of a row, with `observation` and, where arm satellite is
    scored at footprints, `prediction`.

Series have one value for each day of the test period, from `first_day` on, in `units`; null is a
missing value.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files
from pipeline.storage import tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd
    from numpy.typing import NDArray

    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.storage.artefacts import Workspace
    from pipeline.storage.cube import Cube
    from pipeline.storage.tables import SitePredictions


SHOWN_SCORES = ("correlation", "rmse", "ubrmse", "bias")
SCORE_DECIMALS, DEGREE_DECIMALS = 5, 5


def site_files(
    experiment: Experiment, workspace: Workspace, cube: Cube
) -> Iterator[tuple[str, bytes]]:
    """Yield the key and content of the files of the sites.

    Args:
      experiment: The experiment, which has trained models of its own.
      workspace: The experiment's folder in the workspace.
      cube: Its cube, with sites.

    Raises:
      StoreError: If a table is not there.
      DamagedError: If a table cannot be decoded.
    """
    columns = ("observation", "prediction", "std", "status")
    table = tables.read_site_predictions(workspace, *columns)
    folds = tables.read_table(workspace.url("folds.parquet")).set_index("site")
    places = folds.loc[list(table.ids)].to_dict("records")
    test, number = cube.day_index(experiment.test_period), _Rounding(experiment)
    satellite = None
    if cube.footprints is not None:
        satellite, _ = cube.satellite_at_sites(test, experiment.judging.max_footprint_km)
    predictions = _predictions_at_sites(workspace, table, test, number)
    observed, features = table.observed[:, test], []
    for row, (site, place) in enumerate(zip(table.ids, places, strict=True)):
        key = f"sites/{row:04d}.json"
        about = {"site": site, "fold": place["fold"], "block": place["block"]}
        lon, lat = (round(float(place[axis]), DEGREE_DECIMALS) for axis in ("lon", "lat"))
        point = {"type": "Point", "coordinates": [lon, lat]}
        content = about | {"lat": lat, "lon": lon} | _days(experiment)
        content["observation"] = number.list(observed[row])
        if satellite is not None:
            content["satellite"] = number.list(satellite[row])
        content["predictions"] = {name: of_site(row) for name, of_site in predictions.items()}
        yield key, _encode(content)
        scores = {name: each["scores"] for name, each in content["predictions"].items()}
        told = about | {"file": key, "scores": scores}
        features.append({"type": "Feature", "geometry": point, "properties": told})
    yield "sites.geojson", _encode({"type": "FeatureCollection", "features": features})


def _predictions_at_sites(
    workspace: Workspace, table: SitePredictions, test: slice, number: _Rounding
) -> dict[str, Callable[[int], Json]]:
    """Return, for each arm and baseline, a function of a site's row that gives its predictions."""
    scores = _scores_by_site(tables.read_table(workspace.url("scores.parquet")))

    def of_candidate(name: str) -> Callable[[int], Json]:
        mean, std = (table.values(name, column)[:, test] for column in ("prediction", "std"))
        status = table.values(name, "status")[:, 0]

        def of_site(row: int) -> Json:
            return {
                "status": str(status[row]),
                "mean": number.list(mean[row]),
                "std": number.list(std[row]),
                "scores": scores.get((name, table.ids[row]), {}),
            }

        return of_site

    return {name: of_candidate(name) for name in table.rows}


def footprint_files(
    experiment: Experiment, workspace: Workspace, cube: Cube
) -> Iterator[tuple[str, bytes]]:
    """Yield the key and content of the files of the footprints, of those that have a value.

    Args:
      experiment: The experiment.
      workspace: The experiment's folder in the workspace.
      cube: Its cube, with footprints.

    Raises:
      DamagedError: If a table cannot be decoded.
    """
    assert cube.footprints is not None
    test, number = cube.day_index(experiment.test_period), _Rounding(experiment)
    observed = cube.series(cube.footprints, cube.target)[test]
    lat, lon = (cube.footprints[axis].values for axis in ("lat", "lon"))
    predicted = _predictions_of_footprints(experiment, workspace)
    index: dict[str, str] = {}
    for row in range(observed.shape[1]):
        footprints = []
        for col in np.flatnonzero(np.isfinite(observed[:, row]).any(0)).tolist():
            described: Json = {"column": col, "lon": round(float(lon[col]), DEGREE_DECIMALS)}
            described["observation"] = number.list(observed[:, row, col])
            if (prediction := predicted.get(f"{row},{col}")) is not None:
                described["prediction"] = number.list(prediction)
            footprints.append(described)
        if footprints:
            index[str(row)] = key = f"footprints/{row:04d}.json"
            place = {"row": row, "lat": round(float(lat[row]), DEGREE_DECIMALS)}
            yield key, _encode(place | _days(experiment) | {"footprints": footprints})
    yield "footprints.json", _encode({"rows": index} | _days(experiment))


def _days(experiment: Experiment) -> Json:
    """Return what the values of a series are, and of which days."""
    first, last = experiment.test_period
    variable = experiment.table[experiment.target]
    days = {"first_day": str(first), "n_days": (last - first).days + 1}
    return {"variable": experiment.target, "units": variable.units} | days


def _scores_by_site(table: pd.DataFrame) -> dict[tuple[str, str], Json]:
    """Return the scores of each arm or baseline at each site, by their names."""
    chosen = (table.target == "site") & (table.period == "test") & table.metric.isin(SHOWN_SCORES)
    scores: dict[tuple[str, str], Json] = {}
    rows = table[chosen & np.isfinite(table.value)]
    for arm, site, metric, value in zip(
        rows.arm, rows.id, rows.metric, rows.value.tolist(), strict=True
    ):
        scores.setdefault((arm, site), {})[metric] = round(value, SCORE_DECIMALS)
    return scores


def _predictions_of_footprints(
    experiment: Experiment, workspace: Workspace
) -> dict[str, NDArray[np.float32]]:
    """Return the (day,) predictions of arm satellite in the test period, by footprint."""
    url = workspace.url("footprints.parquet")
    if not experiment.judging.footprints or not files.exists(url):
        return {}
    table = tables.read_table(url, ["seed", "footprint", "time", "prediction"])
    seeds = table.seed.unique().tolist()
    first, last = (np.datetime64(day) for day in experiment.test_period)
    table = table[table.seed == ("ensemble" if "ensemble" in seeds else seeds[0])]
    table = table[(table.time >= first) & (table.time <= last)]
    return {str(name): rows.prediction.to_numpy() for name, rows in table.groupby("footprint")}


class _Rounding:
    """Rounds values to the step in which the maps store them, to keep the files small."""

    def __init__(self, experiment: Experiment) -> None:
        step = experiment.table[experiment.target].scale_factor
        self._decimals = max(0, math.ceil(-math.log10(step)))

    def list(self, values: NDArray[Any]) -> list[float | None]:
        """Return rounded values, None where they are missing."""
        rounded = np.round(values.astype(np.float64), self._decimals).tolist()
        return [value if math.isfinite(value) else None for value in rounded]


def _encode(value: Json) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
