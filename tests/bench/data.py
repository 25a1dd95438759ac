"""Training data of any size without a cube: random numbers in the form that models learn from."""

from __future__ import annotations

import numpy as np
import torch

from model.features import Features
from model.sampling import Places, TrainingData
from model.scaling import Scale, Scaler
from pipeline import resolve

FORCING = (
    "precipitation",
    "air_temperature",
    "longwave",
    "shortwave",
    "specific_humidity",
    "surface_pressure",
)
STATIC = (
    "albedo",
    "land_cover",
    "water_capacity",
    "ndvi",
    "bulk_density",
    "silt",
    "sand",
    "clay",
    "elevation",
)


def recipe(name, *settings):
    """A recipe as it is, with some settings over it."""
    return resolve.experiment("scan-tuning", [f"recipe={name}", *settings]).recipe_sections


def features(of):
    """The features of a recipe, on the inputs above."""
    chosen = of.inputs
    static = STATIC if chosen.static == "all" else chosen.static
    return Features(
        FORCING if chosen.forcing == "all" else chosen.forcing,
        tuple(name for name in static if name in STATIC),
        chosen.slow,
    )


def places(n, n_days, of, rng, device="cpu"):
    """Random scaled inputs, drawn once and repeated with shifts: drawing gigabytes takes long."""
    pattern = rng.standard_normal((64, n_days, len(of.forcing)), np.float32).astype(np.float16)
    forcing = np.concatenate([pattern] * -(-n // 64))[:n]
    static = rng.standard_normal((n, len(of.static)), np.float32)
    return Places.of(forcing, static, device)


def training_data(
    of, n_footprints=256, per_footprint=16, n_sites=120, n_days=1096, device="cpu", left_out=0
):
    """Data for a recipe; every footprint has its own cells, observed every third day.

    `left_out` sites at the end are not learnt from, as those of a fold.
    """
    rng = np.random.default_rng(0)
    described = features(of)
    names = described.names
    cells = n_footprints * per_footprint

    def observed(n):
        values = rng.normal(0.25, 0.08, (n, n_days)).astype(np.float32)
        values[:, rng.random(n_days) > 1 / 3] = np.nan
        return torch.from_numpy(values).to(device)

    return TrainingData(
        described,
        Scaler({name: Scale(0.0, 1.0) for name in names}),
        Scale(0.25, 0.08),
        0,
        n_days,
        places(cells, n_days, described, rng, device),
        torch.arange(cells, device=device).reshape(n_footprints, per_footprint),
        observed(n_footprints),
        places(n_sites, n_days, described, rng, device),
        observed(n_sites),
        torch.arange(n_sites - left_out, device=device),
    )


def sequences(of, per_footprint=16):
    """Sequences of one step of arm multiscale."""
    inner = 1 if of.train.footprint_operator == "inputs" else per_footprint
    return of.train.footprints_per_step * inner + of.train.sites_per_step


def days(of):
    """Days of a window, warm-up included."""
    return of.train.window_days + of.train.warmup_days


def flops(of, n_features, backward=True):
    """Floating point operations of one day of one sequence: the products of matrices alone."""
    hidden, inside = of.network.hidden_size, n_features
    forward = 0.0
    if of.network.input_layer:
        forward, inside = 2.0 * n_features * hidden, hidden
    forward += 2.0 * (inside + hidden) * 4 * hidden
    return forward * (3 if backward else 1)
