"""Training data of any size without a cube: random numbers in the form that models learn from."""

from __future__ import annotations

import numpy as np

from model.features import Features
from model.recipe import ModelKey
from model.scaling import Scale, Scaler
from pipeline.experiment import load
from pipeline.storage import models
from pipeline.train.training_data import PackedData

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
    return load.load_experiment("scan-tuning", [f"recipe={name}", *settings]).recipe_sections


def features(of):
    """The features of a recipe, on the inputs above."""
    chosen = of.inputs
    static = STATIC if chosen.static == "all" else chosen.static
    return Features(
        FORCING if chosen.forcing == "all" else chosen.forcing,
        tuple(name for name in static if name in STATIC),
        chosen.slow,
    )


def places(n, n_days, of, rng):
    """Random scaled inputs; 64 places are drawn and repeated, as drawing gigabytes takes long."""
    pattern = rng.standard_normal((64, n_days, len(of.forcing)), np.float32).astype(np.float16)
    forcing = np.concatenate([pattern] * -(-n // 64))[:n]
    return forcing, rng.standard_normal((n, len(of.static)), np.float32)


def packed(of, n_footprints=256, per_footprint=16, n_sites=120, n_days=1096, n_folds=5):
    """What a recipe's models learn from; every footprint has its own cells.

    Footprints and sites are observed every third day, sites are dealt into folds in turn.
    """
    rng = np.random.default_rng(0)
    described = features(of)
    cells = n_footprints * per_footprint

    def observed(n):
        values = rng.normal(0.25, 0.08, (n, n_days)).astype(np.float32)
        values[:, rng.random(n_days) > 1 / 3] = np.nan
        return values

    cell_forcing, cell_static = places(cells, n_days, described, rng)
    site_forcing, site_static = places(n_sites, n_days, described, rng)
    satellite, insitu = observed(n_footprints), observed(n_sites)
    number = np.arange(n_footprints)
    return PackedData(
        features=described,
        scaler=Scaler({name: Scale(0.0, 1.0) for name in described.names}),
        first_day=0,
        n_days=n_days,
        cell_forcing=cell_forcing,
        cell_static=cell_static,
        members=np.arange(cells).reshape(n_footprints, per_footprint),
        footprints=np.stack([number, number], 1),
        satellite=satellite,
        learn_satellite=satellite,
        site_forcing=site_forcing,
        site_static=site_static,
        insitu=insitu,
        learn_insitu=insitu,
        site_ids=tuple(f"site-{i}" for i in range(n_sites)),
        lat=np.linspace(30, 45, n_sites),
        lon=np.linspace(-120, -70, n_sites),
        fold=np.arange(n_sites) % n_folds,
        dropped=np.full(n_sites, -1),
        place=np.arange(n_sites),
    )


def training_data(of, device="cpu", **sizes):
    """The same as one model sees it, the one of all sites."""
    return packed(of, **sizes).data(ModelKey("multiscale", models.ALL_SITES, 0), 0.0, device)


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
