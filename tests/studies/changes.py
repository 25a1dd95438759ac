"""Changes of training data that no setting makes: what was tried and is not in the product."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from model.features import Features
from model.scaling import Scale, Scaler, fit_plain_scale
from pipeline.grid import lookup

RAIN = "precipitation"
GAIN = 3.0  # as much as the trimmed z-score gives rain beside the other inputs
BENDS = {"root": np.sqrt, "log1p": np.log1p}
NEAR = 0.5  # share of the footprints drawn from those nearest to a site


@dataclass(frozen=True)
class Bent(Scale):
    """A scale of a transform of the physical value: its root, or log1p."""

    kind: str = "root"

    def apply(self, values):
        """Physical -> scaled."""
        return super().apply(BENDS[self.kind](values))

    def invert(self, values):
        """Scaled -> physical."""
        bent = torch.as_tensor(super().invert(values)).clamp(min=0.0)
        return bent.square() if self.kind == "root" else bent.expm1()


def bent_rain(kind):
    """Rain as its root or its log1p, standardised, times GAIN; slow features as they were."""

    def change(packed, cube):
        column = packed.features.forcing.index(RAIN)
        old = packed.scaler.scales[RAIN]
        cells, sites = (
            np.maximum(old.invert(forcing[..., column].astype(np.float32)), 0.0)
            for forcing in (packed.cell_forcing, packed.site_forcing)
        )
        plain = fit_plain_scale(BENDS[kind](cells))
        scale = Bent(plain.mean, plain.std / GAIN, kind)
        made = {
            "cell_forcing": packed.cell_forcing.copy(),
            "site_forcing": packed.site_forcing.copy(),
        }
        made["cell_forcing"][..., column] = scale.apply(cells)
        made["site_forcing"][..., column] = scale.apply(sites)
        return replace(packed, scaler=Scaler(packed.scaler.scales | {RAIN: scale}), **made)

    return change


def last_satellite(packed, cube):
    """The footprint's last value before each day as one more input; of sites the nearest one's."""
    before = _last(packed.satellite)
    name, scale = "last_satellite", fit_plain_scale(packed.satellite)
    cells = np.full((len(packed.cell_forcing), before.shape[1]), np.nan, np.float32)
    for values, members in zip(before, packed.members, strict=True):
        cells[members[members >= 0]] = values
    row, col = packed.footprints.T
    lat, lon = cube.footprints["lat"].values[row], cube.footprints["lon"].values[col]
    nowhere = np.full(len(packed.lat), -1)
    sites, _ = lookup.satellite_at_sites(
        before, (lat, lon), (packed.lat, packed.lon), nowhere, 200.0
    )
    features = packed.features
    return replace(
        packed,
        features=Features((*features.forcing, name), features.static, features.slow),
        scaler=Scaler(packed.scaler.scales | {name: scale}),
        cell_forcing=_beside(packed.cell_forcing, scale.apply(cells)),
        site_forcing=_beside(packed.site_forcing, scale.apply(sites)),
    )


def near_sites(packed, cube):
    """Footprints of the half that is nearest to a site drawn twice as often as the others."""
    row, col = packed.footprints.T
    lat, lon = cube.footprints["lat"].values[row], cube.footprints["lon"].values[col]
    _, far = lookup.find_nearest(lat, lon, packed.lat, packed.lon)
    twice = np.concatenate([np.arange(len(far)), np.flatnonzero(far <= np.quantile(far, NEAR))])
    return replace(
        packed,
        members=packed.members[twice],
        footprints=packed.footprints[twice],
        satellite=packed.satellite[twice],
        learn_satellite=packed.learn_satellite[twice],
    )


def _last(values):
    """(place, day) the last value before each day; NaN before the first."""
    day = np.where(np.isfinite(values), np.arange(values.shape[1]), -1)
    last = np.maximum.accumulate(day, 1)
    last = np.concatenate([np.full((len(values), 1), -1), last[:, :-1]], 1)
    held = np.take_along_axis(values, np.maximum(last, 0), 1)
    return np.where(last >= 0, held, np.nan).astype(np.float32)


def _beside(forcing, column):
    return np.concatenate([forcing, column[..., None].astype(np.float16)], 2)
