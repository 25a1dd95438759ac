"""One model, trained in this process on one thread, as the pipeline's workers would."""

from __future__ import annotations

import torch

from model.checkpoint import Trained
from model.fit import Fitting
from model.recipe import Job
from model.ridge import fitted
from pipeline import models, train


def trained(experiment, packed, arm, fold, seed):
    """A model at its end; it does not see what the arm and the fold do not."""
    torch.set_num_threads(1)
    data = packed.data(Job(arm, fold, seed), experiment.folds.buffer_km, "cpu")
    updates = train.updates_per_model(experiment, packed)
    fitting = Fitting(experiment.recipe_sections, Job(arm, fold, seed), data, updates)
    fitting.advance(updates)
    heads, linear = models.heads(experiment, arm), None
    if experiment.network.linear_weight > 0 and "site" in heads:
        sites = packed.sites("cpu"), packed.learn_insitu, data.trainable, packed.fold
        linear = fitted(*sites)
    return Trained(fitting.network, data.features, data.scaler, data.target, heads, {}, linear)
