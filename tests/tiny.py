"""Small recipes, places and training data, and the network's arithmetic written out by hand."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from model.checkpoint import Trained
from model.features import Features, SlowFeature
from model.loss import LossConfig
from model.network import Network, NetworkConfig
from model.predict import Prediction
from model.recipe import InputsConfig, Recipe, TrainConfig
from model.ridge import Ridge
from model.sampling import Places, TrainingData
from model.scaling import Scale, Scaler

if TYPE_CHECKING:
    from collections.abc import Iterator

NETWORK = {
    "hidden_size": 5,
    "input_layer": False,
    "heads": "two",
    "forget_bias": 2.0,
    "weight_dropout": 0.3,
}
LOSS = {"insitu_weight": 0.3, "anomaly": True, "likelihood": "laplace"}
TRAIN = {
    "window_days": 6,
    "warmup_days": 2,
    "footprints_per_step": 3,
    "sites_per_step": 4,
    "updates": 7,
    "optimiser": "adamw",
    "learning_rate": 0.01,
    "weight_decay": 0.01,
    "gradient_clip": 1.0,
    "static_noise": 0.5,
    "mask_ceiling": False,
    "footprint_operator": "outputs",
    "precision": "fp32",
}
SLOW = (SlowFeature(variable="rain", days=(2, 5), transform="log1p"),)
FEATURES = Features(("rain", "warmth"), ("sand", "clay", "height"), SLOW)  # 7 in all
SCALER = Scaler(
    {
        "rain": Scale(1.5, 2.0),
        "warmth": Scale(280.0, 10.0),
        "rain_mean_2d": Scale(0.9, 0.5),
        "rain_mean_5d": Scale(0.8, 0.25),
    }
)
MEMBERS = ((0, 1, 2, -1), (3, -1, -1, -1), (-1, 4, 5, -1), (6, 7, 8, 9), (10, -1, -1, -1))
N_CELLS, N_SITES = 11, 6
N_REGRESSORS = 2 * (1 + 3 + 4) + 3 + 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in one order, and no waiting for other processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def network_config(**changes) -> NetworkConfig:
    return NetworkConfig(**NETWORK | changes)


def recipe(**changes) -> Recipe:
    """A recipe with some settings changed, whichever section they are in."""
    parts = [part | {k: changes.pop(k) for k in part if k in changes} for part in sections()]
    assert not changes, f"no setting of a recipe: {changes}"
    network, loss, train = parts
    return Recipe(
        inputs=InputsConfig(forcing="all", static="all"),
        network=NetworkConfig(**network),
        loss=LossConfig(**loss),
        train=TrainConfig(**train),
    )


def sections() -> tuple[dict, dict, dict]:
    return NETWORK, LOSS, TRAIN


def places(n: int, n_days: int, seed: int = 0, missing: float = 0.1) -> Places:
    """Random scaled inputs; the given share of forcing is missing, and one static."""
    rng = np.random.default_rng(seed)
    forcing = rng.normal(size=(n, n_days, 2)).astype(np.float16)
    forcing[rng.random(forcing.shape) < missing] = np.nan
    static = rng.normal(size=(n, 3)).astype(np.float32)
    static[-1, 1] = np.nan
    return Places.from_arrays(forcing, static, "cpu")


def training_data(seed: int = 0, record: int = 40, first: int = 9, days: int = 25) -> TrainingData:
    """Data of five ragged footprints and six sites, of which site 2 is held out."""
    rng = np.random.default_rng([seed, 1])

    def observed(n: int) -> torch.Tensor:
        values = rng.normal(0.2, 0.08, (n, record)).astype(np.float32)
        values[rng.random(values.shape) < 0.4] = np.nan
        return torch.from_numpy(values)

    return TrainingData(
        FEATURES,
        SCALER,
        Scale(0.22, 0.07),
        first,
        days,
        places(N_CELLS, record, seed),
        np.array(MEMBERS),
        observed(len(MEMBERS)),
        np.arange(len(MEMBERS)),
        places(N_SITES, record, seed + 1),
        observed(N_SITES),
        np.array([0, 1, 3, 4, 5]),
    )


def trained(seed: int = 0, likelihood: bool = True, **changes) -> Trained:
    """A network with random weights, ready to predict."""
    torch.manual_seed(seed)
    network = Network(network_config(**changes), len(FEATURES.names), likelihood)
    heads, target = ("site", "satellite"), Scale(0.22, 0.07)
    origin, linear = {"seed": seed, "arm": "multiscale"}, None
    if network.config.linear_weight:
        linear = Ridge(np.random.default_rng(seed).normal(0, 0.05, N_REGRESSORS), 10.0)
    return Trained(network, FEATURES, SCALER, target, heads, origin, linear)


def prediction(site, satellite, width=0.0, site_level=0.0, satellite_level=0.0) -> Prediction:
    """A member's series (place, day); a scalar stands for a constant."""
    site = np.asarray(site, np.float32)
    full = [np.broadcast_to(np.float32(a), site.shape) for a in (satellite, width)]
    levels = [np.broadcast_to(np.float32(a), site.shape[:1]) for a in (site_level, satellite_level)]
    return Prediction(site, *full, *levels)


def inputs_by_hand(where: Places, place: int, day: int) -> np.ndarray:
    """(feature,) input of one place and day, from the definitions of FEATURES."""
    forcing, static = where.forcing[place].double().numpy(), where.static[place].numpy()
    year = min(365, len(forcing))

    def on(when: int) -> np.ndarray:
        return forcing[when if when >= 0 else when % year]

    slow = []
    for length in (2, 5):
        rain = [on(day - back)[0] * 2.0 + 1.5 for back in range(length)]  # scaled -> mm
        logs = [np.log(1 + max(mm, 0.0)) for mm in rain if np.isfinite(mm)]
        scale = SCALER.scales[f"rain_mean_{length}d"]
        slow.append((sum(logs) / len(logs) - scale.mean) / scale.std if logs else np.nan)
    x = np.array([*on(day), *slow, *static])
    return np.where(np.isfinite(x), x, 0.0)


def forward_by_hand(network, x, masks=(1.0, 1.0), state=None):
    """Outputs (batch, time, output), state (h, c): the equations, one day after the other."""
    weights = {k: v.detach().double().numpy() for k, v in network.state_dict().items()}
    x = np.asarray(x, np.float64)
    hidden = network.config.hidden_size
    h, c = (np.zeros((len(x), hidden)), np.zeros((len(x), hidden))) if state is None else state
    w_ih, w_hh = (weights[f"lstm.weight_{k}_l0"] for k in ("ih", "hh"))
    outputs = []
    for day in range(x.shape[1]):
        into = x[:, day]
        if network.config.input_layer:
            into = np.maximum(into @ weights["input.weight"].T + weights["input.bias"], 0)
        gates = into @ (w_ih * masks[0]).T + h @ (w_hh * masks[1]).T
        gates = gates + weights["lstm.bias_ih_l0"] + weights["lstm.bias_hh_l0"]
        i, f, g, o = (gates[:, k * hidden : (k + 1) * hidden] for k in range(4))
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        outputs.append(h @ weights["output.weight"].T + weights["output.bias"])
    return np.stack(outputs, 1), (h, c)


def masks_by_hand(network, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Inverted dropout masks of W_ih, then of W_hh, drawn from a generator."""
    keep = 1 - network.config.weight_dropout
    shapes = (network.lstm.weight_ih_l0.shape, network.lstm.weight_hh_l0.shape)
    w_ih, w_hh = ((torch.rand(s, generator=generator) < keep).numpy() / keep for s in shapes)
    return w_ih, w_hh
