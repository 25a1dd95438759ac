"""What was tried: one change each of the base, the recipe `default` in the trials' short form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from studies import changes

if TYPE_CHECKING:
    from collections.abc import Callable


# The recipe without its blend, at half its length (see the variant `400 updates`).
SHORT = ("train.updates=200", "network.linear_weight=0.0")

MORE_SLOW = (
    "inputs.slow=[{variable: precipitation, days: [3, 7, 30, 90, 365], transform: log1p}, "
    "{variable: air_temperature, days: [30, 365]}, {variable: shortwave, days: [30, 365]}, "
    "{variable: specific_humidity, days: [30, 365]}]"
)


@dataclass(frozen=True)
class Variant:
    """A change: settings, or a function of the training data; members of the ensemble."""

    settings: tuple[str, ...] = ()
    change: Callable | None = None
    members: int = 1


BASE = "base"

VARIANTS = {
    BASE: Variant(),
    "3 members": Variant(members=3),
    "0.2 of ridge": Variant(("network.linear_weight=0.2",)),
    "0.3 of ridge": Variant(("network.linear_weight=0.3",)),
    "one head": Variant(("network.heads=one",)),
    "one head, satellite affine": Variant(("network.heads=affine",)),
    "no anomaly loss": Variant(("loss.anomaly=false",)),
    "no likelihood": Variant(("loss.likelihood=none",)),
    "static noise 0": Variant(("train.static_noise=0.0",)),
    "static noise 0.5": Variant(("train.static_noise=0.5",)),
    "static noise 1.5": Variant(("train.static_noise=1.5",)),
    "rain as root": Variant(change=changes.bent_rain("root")),
    "rain as log1p": Variant(change=changes.bent_rain("log1p")),
    "window 30, no warm-up": Variant(("train.window_days=30", "train.warmup_days=0")),
    "no warm-up": Variant(("train.warmup_days=0",)),
    "400 updates": Variant(("train.updates=400",)),
    "adadelta": Variant(
        ("train.optimiser=adadelta", "train.learning_rate=1.0", "train.weight_decay=0.0")
    ),
    "peak rate 0.002": Variant(("train.learning_rate=0.002",)),
    "weight dropout 0": Variant(("network.weight_dropout=0.0",)),
    "weight dropout 0.5": Variant(("network.weight_dropout=0.5",)),
    "half the hidden units": Variant(("network.hidden_size={half}",)),
    "insitu_weight 0.25": Variant(("loss.insitu_weight=0.25",)),
    "insitu_weight 0.75": Variant(("loss.insitu_weight=0.75",)),
    "footprints near sites twice": Variant(change=changes.near_sites),
    "no slow features": Variant(("inputs.slow=[]",)),
    "slow features of a year": Variant((MORE_SLOW,)),
    "last satellite value as input": Variant(change=changes.last_satellite),
}
