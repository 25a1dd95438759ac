"""The network: forcing and static attributes of a place in, soil moisture of that place out.

Its architecture follows Liu et al. (2022, doi:10.1029/2021GL096847).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from model.seeds import hash_seed

if TYPE_CHECKING:
    from collections.abc import Iterable


LSTMState = tuple[Tensor, Tensor]
MINIMUM_WIDTH = 1e-3  # keeps the Laplace likelihood finite, in scaled units


class NetworkConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Architecture and regularisation of the network."""

    hidden_size: int = Field(ge=1, le=8_192, description="hidden units of the LSTM")
    input_layer: bool = Field(description="a linear layer and ReLU before the LSTM, as published")
    heads: Literal["one", "affine", "two"] = Field(
        description="one: one output for both sources, as published; affine: the satellite's "
        "output is a learned gain and offset of it; two: one output for each source"
    )
    forget_bias: float = Field(ge=-100, le=100, description="initial bias of the forget gate")
    weight_dropout: float = Field(
        ge=0, lt=1, description="dropout on the LSTM's weights; one mask per forward pass"
    )
    linear_weight: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="weight of a ridge regression that is blended into the site head",
    )


class Heads(NamedTuple):
    """Outputs of the network, each (batch, time) in scaled units.

    Attributes:
      site: soil moisture as a sensor observes it.
      satellite: soil moisture as the satellite observes it; the same tensor as `site` if the
        network has one head.
      width: Laplace scale of the site head; None without likelihood.
    """

    site: Tensor
    satellite: Tensor
    width: Tensor | None


class Network(nn.Module):
    """LSTM over daily inputs: (batch, time, feature) in, `Heads` of (batch, time) out."""

    def __init__(self, config: NetworkConfig, n_features: int, likelihood: bool) -> None:
        """Build the network with fresh weights; `likelihood` adds the width of the site head."""
        super().__init__()
        hidden = config.hidden_size
        self.config, self.n_features, self.likelihood = config, n_features, likelihood
        self.input = nn.Linear(n_features, hidden) if config.input_layer else None
        self.lstm = nn.LSTM(hidden if config.input_layer else n_features, hidden, batch_first=True)
        self.output = nn.Linear(hidden, (2 if config.heads == "two" else 1) + likelihood)
        affine = config.heads == "affine"
        self.gain = nn.Parameter(torch.tensor([1.0, 0.0])) if affine else None
        _, _, b_ih, b_hh = self.lstm.all_weights[0]
        with torch.no_grad():
            b_ih[hidden : 2 * hidden] = config.forget_bias
            b_hh[hidden : 2 * hidden] = 0.0

    def forward(
        self, x: Tensor, state: LSTMState | None = None, generator: torch.Generator | None = None
    ) -> tuple[Heads, LSTMState]:
        """Run the days in order.

        Args:
          x: (batch, time, feature) scaled inputs without NaN.
          state: hidden and cell state before the first day, (1, batch, hidden) each; None for zero.
          generator: random generator of the dropout mask; None switches dropout off.

        Returns:
          The outputs, and the state after the last day.
        """
        # The LSTM works on days first inside; this order avoids a copy of its large output.
        x = x.transpose(0, 1)
        if self.input is not None:
            x = torch.relu(self.input(x))
        if state is None:
            zero = x.new_zeros(1, x.shape[1], self.config.hidden_size)
            state = (zero, zero)
        hidden, state = self._lstm(x, state, self._weights(generator))
        return self._heads(self.output(hidden).float().transpose(0, 1)), state

    def _lstm(self, x: Tensor, state: LSTMState, weights: list[Tensor]) -> tuple[Tensor, LSTMState]:
        """Return the (time, batch, unit) outputs and the last state."""
        hidden, h, c = torch.lstm(x, state, weights, True, 1, 0.0, self.training, False, False)
        return hidden, (h, c)

    def _weights(self, generator: torch.Generator | None) -> list[Tensor]:
        """Return the LSTM's weights, with one fresh dropout mask each on W_ih and W_hh."""
        w_ih, w_hh, b_ih, b_hh = self.lstm.all_weights[0]
        if generator is None or self.config.weight_dropout == 0:
            return [w_ih, w_hh, b_ih, b_hh]
        return [self._dropped(w_ih, generator), self._dropped(w_hh, generator), b_ih, b_hh]

    def _dropped(self, weight: Tensor, generator: torch.Generator) -> Tensor:
        return weight * dropout_mask(weight.shape, self.config.weight_dropout, generator)

    def _heads(self, out: Tensor) -> Heads:
        satellite = out[..., 1] if self.config.heads == "two" else out[..., 0]
        if self.gain is not None:
            satellite = self.gain[0] * satellite + self.gain[1]
        width = nn.functional.softplus(out[..., -1]) + MINIMUM_WIDTH if self.likelihood else None
        return Heads(out[..., 0], satellite, width)


def dropout_mask(shape: torch.Size, rate: float, generator: torch.Generator) -> Tensor:
    """Return a mask of inverted dropout: 1 / (1 - rate) where a value is kept, 0 elsewhere.

    Applied to weights, this is DropConnect (Wan et al. 2013). The mask is on the generator's
    device.
    """
    uniform = torch.rand(shape, generator=generator, device=generator.device)
    return (uniform < 1.0 - rate) / (1.0 - rate)


def seeded_network(
    config: NetworkConfig, n_features: int, likelihood: bool, key: Iterable[int]
) -> Network:
    """Return a network whose initial weights depend on `key` only, not on global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hash_seed(key))
        return Network(config, n_features, likelihood)
