"""A planet, its cube and its truth; models of it are trained in this process, on one thread."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np

from model import metrics
from model.calibration import calibrate
from model.ensemble import combine_members, merge_predictions, predict_series
from model.ridge import SiteMoments
from model.sampling import Places
from pipeline.catalog import experiment_sources
from pipeline.evaluate.stage import cells_away_from_sites
from pipeline.experiment import config, load
from pipeline.grid import spatial_blocks
from pipeline.planet import stage as planet_stage
from pipeline.prepare import folds
from pipeline.prepare import stage as prepare_stage
from pipeline.progress import SilentProgress
from pipeline.storage import models, tables
from pipeline.storage.artefacts import Workspace
from pipeline.storage.cube import Cube
from pipeline.train import training_data
from studies.training import trained

ARMS = ("multiscale", "insitu", "satellite")
REPORTED = ("correlation", "rmse", "ubrmse", "bias")
MOST = 800  # cells judged; of more, a fixed random draw: a median needs no more


def some(indexes):
    """The indexes, or MOST of them."""
    if len(indexes) <= MOST:
        return indexes
    return np.sort(np.random.default_rng(0).choice(indexes, MOST, replace=False))


class World:
    """The artefacts of an experiment up to its folds, and where it is judged.

    Cells in footprints without a site, two cells or more from any, unless a study sets others.
    """

    def __init__(self, folder, name, settings):
        workspace = Workspace(str(folder / name))
        self.experiment = workspace.place(load.load_experiment("demo", settings, name))
        for stage in (planet_stage, prepare_stage, folds):
            stage.run(self.experiment, workspace, SilentProgress())
        workspace.lease.release()
        self.window = config.experiment_window(self.experiment)
        self.cube = Cube.open(workspace.url("cube.zarr"))
        dealt = tables.read_table(workspace.url("folds.parquet"))
        self.packed = training_data.pack_data(self.experiment, self.cube, dealt)
        self.cells, _, _ = self.cube.membership()
        self.judge_at(self.indexes(cells_away_from_sites(self.cube)))

    def judge_at(self, where):
        """Judge at these cells (index,), or MOST of them."""
        self.where = some(where)
        y, x = self.cells[self.where].T
        days = self.cube.days.astype("datetime64[ns]")
        self.truth = experiment_sources.open_truth(self.experiment).on_days(days)[:, y, x].T

    def indexes(self, cells):
        """Indexes of valid cells, given as (cell, 2) rows and columns."""
        number = np.full(self.cells.max(0) + 1, -1)
        number[tuple(self.cells.T)] = np.arange(len(self.cells))
        return number[tuple(cells.T)]

    def with_sites(self, n):
        """The same world where only its first n sites report, dealt into folds anew.

        Of the others nothing is learnt and nothing judged; which fold they are in says nothing.
        """
        packed, dealing = self.packed, self.experiment.folds
        first = {f"site-{i:02d}" for i in range(n)}
        reports = np.array([site in first for site in packed.site_ids])
        offset = dealing.block_offset_footprints
        labels = spatial_blocks.block_labels(packed.lat, packed.lon, dealing.block_km, offset)
        fold = np.zeros_like(packed.fold)
        fold[reports] = spatial_blocks.assign_blocks(labels[reports], dealing.n_folds, dealing.seed)
        learnt = np.where(reports[:, None], packed.learn_insitu, np.float32(np.nan))
        made = copy.copy(self)
        made.packed = replace(packed, learn_insitu=learnt, fold=fold)
        return made

    @property
    def places(self):
        """Inputs of the cells that are judged."""
        every = self.packed.cells("cpu")
        return Places(every.forcing[self.where], every.static[self.where])

    def model(self, arm, fold=models.ALL_SITES, seed=0):
        """One model, trained to its end."""
        return trained(self.experiment, self.packed, arm, fold, seed)

    def level_weight(self, arm, seed=0):
        """The weight of the site head's level: chosen on folds, 1 where there is one head."""
        heads, fold = models.trained_heads(self.experiment, arm), self.packed.fold
        if len(heads) < 2:
            return 1.0
        sites = self.packed.sites("cpu")
        pieces = {
            k: predict_series(self.model(arm, k, seed), sites.select(fold == k))
            for k in np.unique(fold).tolist()
        }
        every = np.ones(len(fold), bool)
        member = merge_predictions(pieces, fold)
        return calibrate([member], heads, self.packed.learn_insitu, every).level_weight

    def series(self, arm, level_weight=1.0, seed=0):
        """(judged cell, day) of an arm's product: one model, trained on all sites."""
        member = predict_series(self.model(arm, models.ALL_SITES, seed), self.places)
        return combine_members([member], models.trained_heads(self.experiment, arm), level_weight)[
            0
        ]

    def ridge(self):
        """(judged cell, day) of the linear baseline, fitted on all sites."""
        packed = self.packed
        sites = packed.training_sites(models.ALL_SITES, self.experiment.folds.buffer_km)
        moments = SiteMoments(packed.sites("cpu"), packed.learn_insitu)
        return moments.fit(sites, packed.fold).predict(self.places)

    def footprint(self):
        """(judged cell, day) of the satellite's footprint that holds each cell."""
        series = np.full((len(self.cells), len(self.cube.days)), np.nan, np.float32)
        for values, cells in zip(self.packed.satellite, self.packed.members, strict=True):
            series[cells[cells >= 0]] = values
        return series[self.where]

    def score(self, series, truth=None):
        """Medians over the judged cells, against the truth."""
        truth = self.truth if truth is None else truth
        scored = metrics.scores(series, truth, self.cube.days)
        return {metric: float(np.nanmedian(scored[metric])) for metric in REPORTED}
