"""One model, trained in this process on one thread, as the pipeline's workers would."""

from __future__ import annotations

import torch

from model.checkpoint import TrainedModel
from model.recipe import ModelKey
from model.ridge import fit_ridge
from model.trainer import Trainer
from pipeline.storage import models
from pipeline.train import stage


def trained(experiment, packed, arm, fold, seed):
    """A model at its end; it does not see what the arm and the fold do not."""
    torch.set_num_threads(1)
    data = packed.data(ModelKey(arm, fold, seed), experiment.folds.buffer_km, "cpu")
    updates = stage.updates_per_model(experiment, packed)
    fitting = Trainer(experiment.recipe_sections, ModelKey(arm, fold, seed), data, updates)
    fitting.advance(updates)
    heads, linear = models.trained_heads(experiment, arm), None
    if experiment.network.linear_weight > 0 and "site" in heads:
        sites = packed.sites("cpu"), packed.learn_insitu, data.trainable, packed.fold
        linear = fit_ridge(*sites)
    return TrainedModel(fitting.network, data.features, data.scaler, data.target, heads, {}, linear)
