"""The network as plain operations day by day, which `torch.vmap` can batch over models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from model.network import Network

if TYPE_CHECKING:
    from torch import Tensor

    from model.network import State


class Unrolled(Network):
    """The same network with the same weights; dropout masks are buffers, which can be stacked."""

    mask_ih: Tensor
    mask_hh: Tensor
    precision: torch.dtype

    @classmethod
    def from_network(cls, network: Network, precision: torch.dtype) -> Unrolled:
        """Build a network of the same architecture; recurrent products have the given precision."""
        unrolled = cls(network.config, network.n_features, network.likelihood)
        unrolled.precision = precision
        for name in ("mask_ih", "mask_hh"):
            unrolled.register_buffer(name, torch.ones(()))
        return unrolled

    def _weights(self, generator: torch.Generator | None) -> list[Tensor]:
        w_ih, w_hh, b_ih, b_hh = self.lstm.all_weights[0]
        return [w_ih * self.mask_ih, w_hh * self.mask_hh, b_ih, b_hh]

    def _lstm(self, x: Tensor, state: State, weights: list[Tensor]) -> tuple[Tensor, State]:
        w_ih, w_hh, b_ih, b_hh = weights
        recurrent = w_hh.T.to(self.precision)
        projected = x.to(self.precision) @ w_ih.T.to(self.precision) + (b_ih + b_hh).to(
            self.precision
        )
        h, c = state[0][0], state[1][0]
        days = []
        for day in projected.unbind(0):
            i, f, g, o = (day + h.to(self.precision) @ recurrent).chunk(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            days.append(h)
        return torch.stack(days), (h[None], c[None])
