"""The functions of soilweave for notebooks and scripts.

    from pipeline import api as soilweave

    maps = soilweave.open_maps("workspace/demo")
    cube = soilweave.open_cube("workspace/demo")
    predicted = soilweave.predict_at("workspace/demo", forcing, static)
    scores = soilweave.score(predicted["NAME"], observed)

These names, their arguments and what they return are kept from version to version; whatever else is
in `pipeline` may change. They share their code with the command line: what `predict` maps is what
`predict_at` predicts, and `score` has the numbers of `evaluate`. Errors that a user can correct are
`pipeline.errors.SoilweaveError`, with one line that says what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from model.ensemble import combine_members, predict_series
from pipeline import files
from pipeline.errors import ConfigError, DataError, StoreError
from pipeline.evaluate import scoring
from pipeline.experiment import shipped_models
from pipeline.experiment.config import JudgingConfig, reference_arm
from pipeline.experiment.variables import VARIABLES
from pipeline.storage import ensemble, publications
from pipeline.storage import models as stored_models
from pipeline.storage.artefacts import Artefact, Workspace
from pipeline.storage.cube import Cube

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from model.checkpoint import TrainedModel
    from pipeline.experiment.variables import Variable


__all__ = ["open_cube", "open_maps", "predict_at", "score"]

GROUPS = ("cells", "footprints", "sites")
MIN_DAYS: int = JudgingConfig.model_fields["min_days"].default
ARMS = ("multiscale", "insitu", "satellite")


def open_maps(
    url: str, arm: str | None = None, group: str = "", chunks: dict[str, Any] | None = None
) -> xr.Dataset:
    """Open maps lazily.

    Args:
      url: URL or path of an experiment's folder; of a publication, whose latest release is opened;
        of a release; or of the maps of an arm in one of them (maps/ARM.zarr).
      arm: The arm; by default `multiscale`, or else the first.
      group: "" for maps of a day, or "series" for the series of a cell: the same values in chunks
        of other shapes.
      chunks: The chunks of dask, as in `xarray.open_zarr`; by default dask is not used.

    Returns:
      The mapped variable, its standard deviation and the quality flags, (time, y, x), with the
      coordinates time (UTC days), y, x (metres of EPSG:6933), lat and lon (degrees).

    Raises:
      SoilweaveError: If there are no maps at the URL, or none of the arm.
    """
    folder, found = publications.split_store(files.make_absolute(url).rstrip("/"))
    if found is not None and arm not in (None, found):
        raise ConfigError(f"arm '{arm}'", f"{url} has the maps of {found}")
    return publications.open_maps(folder, found or arm, group, chunks=chunks)


def open_cube(url: str, group: str = "cells") -> xr.Dataset:
    """Open the data that models are trained on and make maps from, lazily.

    Args:
      url: URL or path of an experiment's folder, or of its cube.zarr.
      group: "cells": forcing (time, y, x), static attributes (y, x), and the mask of valid cells;
        "footprints": the satellite's values (time, fy, fx); "sites": the observations at the sites
        (time, site), and their inputs if they have their own.

    Returns:
      The group, on the days of the cube.

    Raises:
      SoilweaveError: If there is no complete cube, or it has no such group.
    """
    url = files.make_absolute(url).rstrip("/")
    home = Workspace(url.removesuffix("/cube.zarr"))
    if home.root == url:
        home = home.prepared(home.place(home.described()))
    artefact = home.artefact("cube")
    artefact.digest()  # raises if it is not complete
    manifest, cube = artefact.manifest() or {}, Cube.open(home.url("cube.zarr"))
    opened = {"cells": cube.cells, "footprints": cube.footprints, "sites": cube.sites}
    dataset = opened.get(group)
    if dataset is None:
        known = ", ".join(name for name, each in opened.items() if each is not None)
        raise ConfigError(f"group '{group}'", f"the cube has the groups {known}")
    if group == "sites":
        dataset = dataset.assign_coords(site=("site", np.array(cube.site_ids)))
    dataset = dataset.set_coords([name for name in ("lat", "lon") if name in dataset])
    first, last = cube.attrs["period"][0], manifest.get("complete_through", cube.attrs["period"][1])
    return dataset.sel(time=slice(first, last))


def predict_at(
    models: str, forcing: xr.Dataset, static: xr.Dataset | None = None, arm: str | None = None
) -> xr.Dataset:
    """Predict at places with trained models, from inputs of your own.

    As in the maps, the network first runs over the first year of the record, from zero state; so
    give a year or more.

    Args:
      models: URL or path of an experiment's folder, or of its models/ folder; or the name of models
        that come with soilweave, such as "scan".
      forcing: The variables that the models need, each (time, ...) with the same other dimensions:
        none, one such as `site`, or two such as `y` and `x`. Times are days; days that are left out
        are missing. Values are in the units of soilweave; another attribute `units` is refused.
      static: The static attributes that the models need, with the other dimensions of `forcing`;
        None if they need none.
      arm: The arm; by default `multiscale`, or else the first.

    Returns:
      The predicted variable and its standard deviation, `NAME` and `NAME_std`, with the dimensions
      of the inputs, on all days from the first to the last. They are missing on days without any
      forcing.

    Raises:
      SoilweaveError: If there are no complete models, or inputs are missing or have other units; it
        lists all of them.
    """
    root, arm = _find_models(models, arm)
    members = stored_models.load_ensemble(root, arm)  # type: ignore[arg-type]
    static = xr.Dataset() if static is None else static
    variables = _variables(root)
    _check_inputs(root, members[0], forcing, static, variables)
    dims = [dim for dim in forcing[members[0].features.forcing[0]].dims if dim != "time"]
    given = forcing["time"].values.astype("datetime64[D]")
    # As nanoseconds only at the end: a range of days has no other step than a day.
    days = np.arange(given.min(), given.max() + 1).astype("datetime64[ns]")
    forcing = forcing.assign_coords(time=given.astype("datetime64[ns]")).reindex(time=days)
    mean, std = _predict(root, arm, members, (forcing, static), dims)
    target = str(members[0].origin["target"])
    about = {"units": variables[target].units} if target in variables else {}
    shape = [*(forcing.sizes[dim] for dim in dims), len(days)]
    fields = {target: mean, f"{target}_std": std}
    return xr.Dataset(
        {name: ((*dims, "time"), each.reshape(shape), about) for name, each in fields.items()},
        forcing.coords,
        {"arm": arm},
    )


def score(
    predictions: xr.DataArray, observations: xr.DataArray, min_days: int = MIN_DAYS
) -> xr.Dataset:
    """Score predictions against observations at each place.

    Args:
      predictions: (time, place) or (place, time), or (time,) for one place, whatever the name of
        the dimension of places; NaN where missing.
      observations: Likewise, in the same units. Only days and places that both have count.
      min_days: The smallest number of days with both values for a place to be scored.

    Returns:
      By place the number of days `n`, and bias (prediction minus observation), rmse, ubrmse,
      correlation, anomaly_correlation and kge, as `soilweave evaluate` computes them; NaN where
      there are too few days.

    Raises:
      DataError: If the two do not have one dimension of places in common, or no days.
    """
    dims = [[dim for dim in each.dims if dim != "time"] for each in (predictions, observations)]
    if dims[0] != dims[1] or len(dims[0]) > 1 or "time" not in predictions.dims:
        problem = f"have the dimensions {predictions.dims} and {observations.dims}"
        hint = "give both the dimension time, and at most one other of the same name"
        raise DataError("predictions and observations", problem, remedy=hint)
    both = xr.align(predictions, observations, join="inner", copy=False)
    if not both[0].size:
        problem = "have no days, or no places, in common"
        raise DataError("predictions and observations", problem, remedy="look at their coordinates")
    place = dims[0] or ["place"]
    p, o = (each.transpose(*dims[0], "time") for each in both)
    days, p_values, o_values = p["time"].values, np.atleast_2d(p.values), np.atleast_2d(o.values)
    scored = scoring.score_places(p_values, o_values, days.astype("datetime64[D]"), min_days)
    scored.pop("reason")
    coords = {name: each for name, each in p.coords.items() if "time" not in each.dims}
    result = xr.Dataset({name: (place, values) for name, values in scored.items()}, coords)
    return result if dims[0] else result.squeeze("place")


def _find_models(url: str, arm: str | None) -> tuple[str, str]:
    """Return the URL of complete models, and the arm to predict with.

    Raises:
      StoreError: If there are none.
      ConfigError: If there are none of the arm.
    """
    if url in shipped_models.list_names():
        url = shipped_models.home(url)
    url = files.make_absolute(url).rstrip("/")
    root = files.join(url, "models")
    if files.exists(files.join(url, "manifest.json")):
        root = url
    artefact = Artefact("models", f"{root}/")
    artefact.digest()  # raises if they are not complete
    here = files.list_folder(root)
    arms = [each for each in ARMS if each in here]
    if not arms:
        raise StoreError(root, "has models of no arm", remedy="train them: soilweave train")
    arm = arm or reference_arm(arms)
    if arm not in arms:
        raise ConfigError(f"arm '{arm}'", f"{root} has models of the arms {', '.join(arms)}")
    return root, arm


def _variables(root: str) -> Mapping[str, Variable]:
    """Return the variables that models know: those of their experiment, if it is beside them."""
    home = Workspace(root.rpartition("/")[0])
    return home.described().table if files.exists(home.url("experiment.yaml")) else VARIABLES


def _check_inputs(
    root: str,
    trained: TrainedModel,
    forcing: xr.Dataset,
    static: xr.Dataset,
    variables: Mapping[str, Variable],
) -> None:
    """Check that all inputs are there, at the same places, and in the units of soilweave.

    Raises:
      DataError: If not; it lists all problems.
    """
    problems = []
    needed = [("forcing", forcing, name) for name in trained.features.forcing]
    needed += [("static", static, name) for name in trained.features.static]
    for kind, given, name in needed:
        units = variables[name].units if name in variables else ""
        if name not in given:
            problems.append(f"{kind} lacks {name}" + (f" ({units})" if units else ""))
        elif units and given[name].attrs.get("units", units) != units:
            problems.append(f"{kind} {name} is in {given[name].attrs['units']!r}, not in {units!r}")
    problems += _time_problems(forcing)
    try:
        xr.align(forcing, static, join="exact", exclude=("time",), copy=False)
    except ValueError as error:
        problems.append(f"forcing and static are not at the same places: {error}")
    if problems:
        raise DataError("inputs", *problems, remedy=f"the models of {root} need all of these")


def _time_problems(forcing: xr.Dataset) -> list[str]:
    """Return what is wrong with the times of forcing; they must be days, each once."""
    if "time" not in forcing.dims:
        return [f"forcing has the dimensions {[*forcing.dims]}, and no time"]
    times = forcing["time"].values
    if not np.issubdtype(times.dtype, np.datetime64):
        return [f"the times of forcing are of type {times.dtype}, not datetime64"]
    days = np.unique(times.astype("datetime64[D]"))
    if not len(days):
        return ["forcing has no days"]
    if len(days) < len(times):
        return [f"forcing has {len(times)} times on {len(days)} days; give one value for each day"]
    return []


def _predict(
    root: str,
    arm: str,
    members: list[TrainedModel],
    inputs: tuple[xr.Dataset, xr.Dataset],
    dims: list[Hashable],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean and the standard deviation (place, day) of an ensemble.

    Args:
      root: URL of the models.
      arm: The arm.
      members: The models.
      inputs: Forcing on consecutive days, and static attributes.
      dims: The dimensions of places.
    """
    trained, (forcing, static) = members[0], inputs
    names = trained.features.forcing, trained.features.static
    n_places = int(np.prod([forcing.sizes[dim] for dim in dims]))
    values = _stack(forcing, names[0], (*dims, "time")).reshape(n_places, -1, len(names[0]))
    constants = _stack(static, names[1], dims).reshape(n_places, len(names[1]))
    places = ensemble.scale_inputs(trained, values, constants)
    calibration = stored_models.read_calibrations(root, arm)[
        stored_models.fold_name(stored_models.ALL_SITES)
    ]
    series = [predict_series(member, places) for member in members]
    mean, std = combine_members(series, trained.heads, calibration.level_weight)
    known = np.isfinite(values).any(2)
    std = std * np.float32(calibration.width_scale)
    return np.where(known, mean, np.nan), np.where(known, std, np.nan)


def _stack(
    dataset: xr.Dataset, names: Sequence[str], dims: Sequence[Hashable]
) -> NDArray[np.float32]:
    """Return variables as one array, with the variables last.

    Raises:
      DataError: If one has other dimensions.
    """
    try:
        fields = [dataset[name].transpose(*dims).values for name in names]
    except ValueError as error:
        problem = f"have other dimensions than {', '.join(map(str, dims))}: {error}"
        hint = "give all of them the same dimensions, and static attributes those without time"
        raise DataError(f"inputs {', '.join(names)}", problem, remedy=hint) from error
    return np.stack(fields, -1).astype(np.float32) if fields else np.zeros(0, np.float32)
