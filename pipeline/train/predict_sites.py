"""Predict at sites and footprints with the trained models, and calibrate the predictions.

sites.parquet has one row per arm, site and day; values are in the target's unit:
  arm: text; `ridge` is the linear baseline.
  fold, site: text.
  status: "out_of_fold" if the fold's models have not seen the site, "unseen" if the arm learns from
    no site, else "trained".
  period: "train" or "other".
  time, observation, prediction: prediction is the mean over seeds.
  std: the standard deviation after calibration; std_raw before it.
  site_head, satellite_head: mean over seeds; NaN if the arm did not train that head.

members.parquet, written if there are two or more seeds, has the predictions of single members:
  arm, site, time: the rows of sites.parquet, without the linear baseline.
  member_0, member_1 and so on: predictions by seed, calibrated as those of the ensemble are, in the
    target's unit. Their spread is what training alone makes of the same data.

footprints.parquet, written if `judging.footprints` is set, has the predictions of arm satellite:
  seed: text, a number or "ensemble".
  footprint: its row and column, as "fy,fx".
  time, observation, prediction.
  at_ceiling: whether the observation is stuck at the footprint's maximum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from model import ensemble as ensemble_module
from model.attribute_space import AttributeSpace, RunningSum
from model.calibration import UNCALIBRATED, Calibration, calibrate
from model.ensemble import find_outlier_members
from model.loss import footprint_mean
from model.recipe import ModelKey
from model.ridge import SiteMoments
from pipeline import files
from pipeline.storage import ensemble, models, tables
from pipeline.storage.ensemble import combine_calibrated, evaluation_folds, predict_members
from pipeline.train import training_data

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.experiment.config import Experiment
    from pipeline.storage.artefacts import Workspace
    from pipeline.storage.cube import Cube
    from pipeline.storage.ensemble import Ensemble
    from pipeline.train.training_data import PackedData


PREDICTION_TABLES = ("sites.parquet", "footprints.parquet", tables.MEMBERS)


def write_predictions(
    experiment: Experiment, workspace: Workspace, cube: Cube, packed: PackedData
) -> list[dict[str, Any]]:
    """Predict at every site with the models it is scored with, calibrate, and write the tables.

    Args:
      experiment: The experiment that was trained.
      workspace: The experiment's folder in the workspace.
      cube: Its cube.
      packed: Its training data.

    Returns:
      The outliers: arm, fold and seed of members that predict something else than the others.

    Raises:
      TrainingError: If a model predicts nothing at some place.
    """
    root = workspace.url("models")
    files.write_json(models.attributes_url(root), _attribute_space(packed).as_dict())
    frames, of_members, outliers = [], [], []
    for arm in experiment.arms:
        calibrations = {models.fold_name(models.ALL_SITES): UNCALIBRATED}
        if packed.site_ids:
            by = evaluation_folds(experiment, arm, packed.fold)
            members = predict_members(experiment, root, arm, packed.sites("cpu"), by)
            calibrations = _calibrate_folds(experiment, arm, members, packed)
            frames.append(_arm_rows(experiment, arm, members, calibrations, cube, packed))
            if experiment.n_seeds > 1:
                of_members.append(
                    _member_rows(experiment, arm, members, calibrations, cube, packed)
                )
            if (by != models.ALL_SITES).any():
                outliers += _find_outliers(experiment, arm, members, by, calibrations)
        outliers += _find_outliers(
            experiment, arm, *_predict_sample(experiment, root, arm, packed), calibrations
        )
        values = {name: c.model_dump() for name, c in calibrations.items()}
        files.write_json(files.join(root, arm, "calibration.json"), values)
    if np.isfinite(packed.learn_insitu).any():
        frames.append(_ridge_rows(experiment, root, cube, packed))
    if frames:
        tables.write_table(workspace.url("sites.parquet"), pd.concat(frames, ignore_index=True))
    if of_members:
        tables.write_table(workspace.url(tables.MEMBERS), pd.concat(of_members, ignore_index=True))
    else:
        files.remove(workspace.url(tables.MEMBERS))
    if experiment.judging.footprints:
        rows = _footprint_rows(experiment, root, cube, packed)
        tables.write_table(workspace.url("footprints.parquet"), rows)
    return outliers


def _predict_sample(
    experiment: Experiment, root: str, arm: str, packed: PackedData
) -> tuple[Ensemble, NDArray[np.int64]]:
    """Predict with the members that leave no site out, at a sample of sites, or else of cells.

    Returns the predictions, and the fold left out at each place (place,), which is ALL everywhere.
    """
    places = packed.sites("cpu") if packed.site_ids else packed.cells("cpu")
    sampled = places.take(ensemble.sample_places(len(places.static)))
    by = np.full(len(sampled.static), models.ALL_SITES)
    return predict_members(experiment, root, arm, sampled, by), by


def _find_outliers(
    experiment: Experiment,
    arm: str,
    members: Ensemble,
    by: NDArray[np.int64],
    calibrations: dict[str, Calibration],
) -> list[dict[str, Any]]:
    """Return arm, fold and seed of members that are unlike the others where `by` is their fold."""
    heads = models.trained_heads(experiment, arm)
    series = [combine_calibrated([member], heads, by, calibrations)[0] for member in members]
    return [
        {"arm": arm, "fold": models.fold_name(fold), "seed": seed}
        for fold in np.unique(by).tolist()
        for seed in find_outlier_members([values[by == fold] for values in series])
    ]


def _attribute_space(packed: PackedData) -> AttributeSpace:
    """Return the space of the sites' attributes, scaled by the spread among the cells."""
    cells, sites = (
        np.concatenate([static, RunningSum.from_array(forcing).mean], 1)
        for static, forcing in (
            (packed.cell_static, packed.cell_forcing),
            (packed.site_static, packed.site_forcing),
        )
    )
    space = AttributeSpace.from_attributes(
        cells, sites, np.asarray(np.isfinite(packed.learn_insitu).any(1))
    )
    return space.with_limit(packed.fold, packed.place)


def _calibrate_folds(
    experiment: Experiment, arm: str, members: Ensemble, packed: PackedData
) -> dict[str, Calibration]:
    """Return calibrations by fold, each fitted on the other folds; `all` on every fold."""
    folds = models.folds_of_arm(experiment, arm, packed.fold)
    if folds == [models.ALL_SITES]:
        return {models.fold_name(models.ALL_SITES): UNCALIBRATED}
    heads = models.trained_heads(experiment, arm)
    observed = packed.learn_insitu
    return {
        models.fold_name(fold): calibrate(members, heads, observed, packed.elsewhere(fold))
        for fold in folds
    }


def _arm_rows(
    experiment: Experiment,
    arm: str,
    members: Ensemble,
    calibrations: dict[str, Calibration],
    cube: Cube,
    packed: PackedData,
) -> pd.DataFrame:
    """Return the rows of one arm."""
    heads, by = (
        models.trained_heads(experiment, arm),
        evaluation_folds(experiment, arm, packed.fold),
    )
    mean, std, raw = combine_calibrated(members, heads, by, calibrations)
    unseen = "unseen" if arm == "satellite" else "trained"
    status = np.where(by == models.ALL_SITES, unseen, "out_of_fold")
    columns = {"prediction": mean, "std": std, "std_raw": raw}
    for head in ("site", "satellite"):
        series = np.mean([getattr(member, head) for member in members], 0)
        columns[f"{head}_head"] = series if head in heads else np.full_like(mean, np.nan)
    return _rows(experiment, arm, by, status, cube, packed, columns)


def _member_rows(
    experiment: Experiment,
    arm: str,
    members: Ensemble,
    calibrations: dict[str, Calibration],
    cube: Cube,
    packed: PackedData,
) -> pd.DataFrame:
    """Return the rows of one arm in members.parquet."""
    heads = models.trained_heads(experiment, arm)
    by = evaluation_folds(experiment, arm, packed.fold)
    n_sites, n_days = packed.insitu.shape
    return pd.DataFrame(
        {
            "arm": arm,
            "site": np.repeat(packed.site_ids, n_days),
            "time": np.tile(cube.days.astype("datetime64[ns]"), n_sites),
        }
        | {
            tables.member_column(seed): combine_calibrated([member], heads, by, calibrations)[
                0
            ].ravel()
            for seed, member in enumerate(members)
        }
    )


def _ridge_rows(experiment: Experiment, root: str, cube: Cube, packed: PackedData) -> pd.DataFrame:
    """Fit the linear baseline for every fold and for `all`, save it, and return its rows."""
    sites = packed.sites("cpu")
    moments = SiteMoments(sites, packed.learn_insitu)
    by = packed.fold
    prediction = np.full(packed.insitu.shape, np.nan, np.float32)
    for fold in [*np.unique(by[by >= 0]).tolist(), models.ALL_SITES]:
        trainable = packed.training_sites(fold, experiment.folds.buffer_km)
        ridge = moments.fit(trainable, packed.fold, packed.place)
        models.save_ridge(root, fold, ridge)
        in_fold = by == fold
        prediction[in_fold] = ridge.predict(sites.select(in_fold))
    status = np.where(by == models.ALL_SITES, "trained", "out_of_fold")
    missing = np.full_like(prediction, np.nan)
    names = ("std", "std_raw", "site_head", "satellite_head")
    columns = {"prediction": prediction} | dict.fromkeys(names, missing)
    return _rows(experiment, "ridge", by, status, cube, packed, columns)


def _rows(
    experiment: Experiment,
    arm: str,
    by: NDArray[np.int64],
    status: NDArray[Any],
    cube: Cube,
    packed: PackedData,
    columns: dict[str, NDArray[np.float32]],
) -> pd.DataFrame:
    """Return the rows of one arm, site by site.

    Args:
      experiment: The experiment.
      arm: Name of the arm.
      by: (site,) fold whose models predict at the site.
      status: (site,) text.
      cube: The cube.
      packed: The training data.
      columns: (site, day) values, by name of the column.
    """
    n_sites, n_days = packed.insitu.shape
    days = np.arange(n_days)
    train = cube.day_index(experiment.train_period)
    period = np.where((days >= train.start) & (days < train.stop), "train", "other")
    return pd.DataFrame(
        {
            "arm": arm,
            "fold": np.repeat([models.fold_name(int(fold)) for fold in by], n_days),
            "site": np.repeat(packed.site_ids, n_days),
            "status": np.repeat(status, n_days),
            "period": np.tile(period, n_sites),
            "time": np.tile(cube.days.astype("datetime64[ns]"), n_sites),
            "observation": packed.insitu.ravel(),
            **{name: values.ravel() for name, values in columns.items()},
        }
    )


def _footprint_rows(
    experiment: Experiment, root: str, cube: Cube, packed: PackedData
) -> pd.DataFrame:
    """Return the rows of footprints.parquet: arm satellite at the footprints that it learns from.

    Raises:
      TrainingError: If a model predicts nothing at some cell.
    """
    series, problems = {}, list[str]()
    for seed in range(experiment.n_seeds):
        key = ModelKey("satellite", models.ALL_SITES, seed)
        predicted = ensemble_module.predict_series(
            models.load_model(root, key), packed.cells("cpu")
        )
        problems += ensemble.check_finite(key, ("satellite",), predicted)
        cells = torch.from_numpy(predicted.satellite)
        series[str(seed)] = footprint_mean(cells, packed.members).numpy()
    ensemble.raise_problems(root, problems)
    series["ensemble"] = np.mean(list(series.values()), 0)
    below = np.isfinite(training_data.mask_ceiling(packed.satellite))
    at_ceiling = np.isfinite(packed.satellite) & ~below
    names = [f"{row},{col}" for row, col in packed.footprints.tolist()]
    n_footprints, n_days = packed.satellite.shape
    return pd.concat(
        pd.DataFrame(
            {
                "seed": seed,
                "footprint": np.repeat(names, n_days),
                "time": np.tile(cube.days.astype("datetime64[ns]"), n_footprints),
                "observation": packed.satellite.ravel(),
                "at_ceiling": at_ceiling.ravel(),
                "prediction": prediction.ravel(),
            }
        )
        for seed, prediction in series.items()
    )
