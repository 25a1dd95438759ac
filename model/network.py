"""The network: forcing and static attributes of a place in, soil moisture of that place out.

Its architecture follows Liu et al. (2022, doi:10.1029/2021GL096847).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from model.recurrence import lstm, stacked_linear, stacked_lstm
from model.seeds import hash_seed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from model.recurrence import LSTMState


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
        x = self._inputs(x)
        if state is None:
            zero = x.new_zeros(1, x.shape[1], self.config.hidden_size)
            state = (zero, zero)
        hidden, state = lstm(x, state, self._weights(generator), self.training)
        return self._outputs(hidden), state

    def _inputs(self, x: Tensor) -> Tensor:
        """Return the (..., time, batch, feature) inputs of the LSTM."""
        # The LSTM works on days first inside; this order avoids a copy of its large output.
        x = x.transpose(-3, -2)
        return x if self.input is None else torch.relu(self._linear(self.input, x))

    def _outputs(self, hidden: Tensor) -> Heads:
        """Return the heads of (..., time, batch, unit) hidden states."""
        return self._heads(self._linear(self.output, hidden).float().transpose(-3, -2))

    def _linear(self, layer: nn.Linear, x: Tensor) -> Tensor:
        result: Tensor = layer(x)
        return result

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
            gain, offset = self._gain(self.gain)
            satellite = gain * satellite + offset
        width = nn.functional.softplus(out[..., -1]) + MINIMUM_WIDTH if self.likelihood else None
        return Heads(out[..., 0], satellite, width)

    def _gain(self, gain: Tensor) -> Sequence[Tensor]:
        return gain[0], gain[1]


class StackedNetwork(Network):
    """Several networks of one architecture as one: every weight has a leading dimension of models.

    The trained weights are views of one array, so that a gradient is clipped and an update is made
    in a few operations. Dropout is drawn into buffers before a pass, so that the pass itself can be
    recorded as a CUDA graph.

    Attributes:
      trained: names of the weights that are trained, in the order of the parameters.
      flat: (model, weight) the values of these weights.
      precision: dtype of the operands of products.
    """

    def __init__(
        self,
        network: Network,
        weights: Mapping[str, Tensor],
        trained: Sequence[str],
        precision: torch.dtype,
    ) -> None:
        """Stack networks like `network`, whose (model, ...) weights are given by name."""
        with torch.device("meta"):  # without weights of its own
            super().__init__(network.config, network.n_features, network.likelihood)
        self.precision, self.trained = precision, tuple(trained)
        self.flat = torch.cat([weights[name].flatten(1) for name in trained], 1)
        self._shapes = [weights[name].shape for name in trained]
        views = self.views(self.flat)
        for name, weight in weights.items():
            module, _, own = name.rpartition(".")
            values = nn.Parameter(views.get(name, weight), requires_grad=name in views)
            setattr(self.get_submodule(module), own, values)
        w_ih, w_hh, *_ = self.lstm.all_weights[0]
        self._uniform = [torch.zeros_like(w, requires_grad=False) for w in (w_ih, w_hh)]

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Return views (model, ...) of an array like `flat`, by the names of the weights."""
        sizes = [shape[1:].numel() for shape in self._shapes]
        parts = zip(torch.split(flat, sizes, 1), self._shapes, strict=True)
        return dict(zip(self.trained, (part.view(shape) for part, shape in parts), strict=True))

    def run(self, x: Tensor) -> Heads:
        """Run the days in order from zero state, under the dropout that was drawn last.

        Args:
          x: (model, batch, time, feature) scaled inputs without NaN.

        Returns:
          The outputs, (model, batch, time) each.
        """
        return self._outputs(stacked_lstm(self._inputs(x).to(self.precision), self._weights(None)))

    def draw_dropout(self, generators: Iterable[torch.Generator]) -> None:
        """Draw the dropout of the next pass, from one generator for each model."""
        for i, generator in enumerate(generators):
            for uniform in self._uniform:
                torch.rand(uniform.shape[1:], generator=generator, out=uniform[i])

    def _linear(self, layer: nn.Linear, x: Tensor) -> Tensor:
        is_last = layer is self.output
        return stacked_linear(x.to(self.precision), layer.weight, layer.bias, wide=is_last)

    def _weights(self, generator: torch.Generator | None) -> list[Tensor]:
        """Return the LSTM's weights under the dropout that was drawn last."""
        w_ih, w_hh, b_ih, b_hh = self.lstm.all_weights[0]
        rate = self.config.weight_dropout
        if rate == 0:
            return [w_ih, w_hh, b_ih, b_hh]
        masks = [kept_weights(uniform, rate) for uniform in self._uniform]
        return [w_ih * masks[0], w_hh * masks[1], b_ih, b_hh]

    def _gain(self, gain: Tensor) -> Sequence[Tensor]:
        return gain[:, 0, None, None], gain[:, 1, None, None]


def dropout_mask(shape: torch.Size, rate: float, generator: torch.Generator) -> Tensor:
    """Return a mask of inverted dropout, on the generator's device.

    Applied to weights, this is DropConnect (Wan et al. 2013).
    """
    return kept_weights(torch.rand(shape, generator=generator, device=generator.device), rate)


def kept_weights(uniform: Tensor, rate: float) -> Tensor:
    """Return 1 / (1 - rate) where a uniform number in [0, 1) keeps a value, 0 elsewhere."""
    return (uniform < 1.0 - rate) / (1.0 - rate)


def seeded_network(
    config: NetworkConfig, n_features: int, likelihood: bool, key: Iterable[int]
) -> Network:
    """Return a network whose initial weights depend on `key` only, not on global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hash_seed(key))
        return Network(config, n_features, likelihood)
