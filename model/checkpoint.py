"""Serialise a trained model as one safetensors object: weights and all that prediction needs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch

from model.features import Features, SlowFeature
from model.network import Network, NetworkConfig
from model.ridge import LEAD_DAYS, Ridge
from model.scaling import Scale, Scaler

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from model.network import Heads


FORMAT_VERSION = 1
LINEAR_KEY = "linear.weights"


@dataclass(frozen=True)
class TrainedModel:
    """A trained network with the scales of its inputs and its target, and its provenance.

    Attributes:
      network: the network, with its trained weights.
      features: the input features, in order.
      scaler: scales of the input features.
      target: scale of the target.
      heads: names of the heads that were trained.
      origin: arm, fold, seed, recipe and digests of the data.
      linear: ridge regression blended into the site head; None if `linear_weight` is 0.
    """

    network: Network
    features: Features
    scaler: Scaler
    target: Scale
    heads: tuple[str, ...]
    origin: dict[str, Any]
    linear: Ridge | None = None

    @property
    def lead_days(self) -> int:
        """Return the days of forcing needed before the first day of a series."""
        return max(self.features.lead_days, LEAD_DAYS if self.linear else 0)

    def physical(self, heads: Heads) -> tuple[NDArray[np.float32], ...]:
        """Return site head, satellite head and width in the target's unit.

        The width is 0 for a network without likelihood.
        """
        site, satellite = self.target.invert(heads.site), self.target.invert(heads.satellite)
        width = torch.zeros_like(site) if heads.width is None else heads.width * self.target.std
        return tuple(t.cpu().numpy() for t in (site, satellite, width))


def pack_safetensors(tensors: dict[str, Tensor], values: dict[str, Any]) -> bytes:
    """Return tensors and JSON values as one safetensors object, the values in its header."""
    header = {"soilweave": json.dumps(values, sort_keys=True)}
    contiguous = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    return safetensors.torch.save(contiguous, header)


def unpack_safetensors(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and JSON values of a safetensors object.

    Raises:
      ValueError: If the bytes are not a complete safetensors object written by soilweave.
    """
    try:
        tensors = safetensors.torch.load(data)
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])["__metadata__"]
        return tensors, json.loads(header["soilweave"])
    except (safetensors.SafetensorError, KeyError, json.JSONDecodeError) as error:
        msg = f"not a complete safetensors object written by soilweave: {error}"
        raise ValueError(msg) from error


def model_to_bytes(trained: TrainedModel) -> bytes:
    """Return a trained model as bytes; equal models give equal bytes."""
    features = trained.features
    values = {
        "format": FORMAT_VERSION,
        "network": trained.network.config.model_dump(),
        "likelihood": trained.network.likelihood,
        "forcing": features.forcing,
        "static": features.static,
        "slow": [slow.model_dump() for slow in features.slow],
        "scaler": trained.scaler.as_dict(),
        "target": [trained.target.mean, trained.target.std],
        "heads": trained.heads,
        "origin": trained.origin,
    }
    weights = trained.network.state_dict()
    if trained.linear is not None:
        weights |= {LINEAR_KEY: torch.from_numpy(trained.linear.weights)}
        values["penalty"] = trained.linear.penalty
    return pack_safetensors(weights, values)


def model_from_bytes(data: bytes) -> TrainedModel:
    """Return the trained model stored in the bytes of a checkpoint.

    Raises:
      ValueError: If the bytes are not a checkpoint, or have another format version.
    """
    weights, values = unpack_safetensors(data)
    if values.get("format") != FORMAT_VERSION:
        msg = (
            f"the checkpoint has format {values.get('format')}; this version of soilweave reads "
            f"format {FORMAT_VERSION}"
        )
        raise ValueError(msg)
    slow = tuple(SlowFeature(**item) for item in values["slow"])
    features = Features(tuple(values["forcing"]), tuple(values["static"]), slow)
    linear = weights.pop(LINEAR_KEY, None)
    network = Network(NetworkConfig(**values["network"]), len(features.names), values["likelihood"])
    network.load_state_dict(weights)
    return TrainedModel(
        network.eval(),
        features,
        Scaler.from_dict(values["scaler"]),
        Scale(*values["target"]),
        tuple(values["heads"]),
        values["origin"],
        None if linear is None else Ridge(linear.numpy(), values["penalty"]),
    )
