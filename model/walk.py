"""Maps: many places walked through their days, block after block, the state carried along."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from model.predict import PLACES, Prediction, run
from model.sampling import Places, as_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from model.checkpoint import Trained
    from model.network import State


class Walk:
    """One member at many places: warmed up over a year, then advanced a block of days at a time.

    Forcing is (place, day, forcing) float16, scaled, NaN where missing, in any number of days a
    block; what is kept between blocks is the LSTM's state and the last days that the model
    looks back on.
    """

    def __init__(self, trained: Trained, static: NDArray[np.float32], device: str) -> None:
        """Places with `static` (place, static), scaled; nothing is run yet."""
        self.trained, self.device = trained, device
        trained.network.to(device)
        self.static = as_tensor(static, device)
        self.states: list[State | None] = [None] * len(torch.split(self.static, PLACES))
        self.before = torch.zeros(0)
        self.levels = np.zeros((2, len(static)), np.float32)  # of the site and the satellite head

    def warm_up(self, before: NDArray[np.float16], year: Iterable[NDArray[np.float16]]) -> None:
        """Run the first year (or what there is of it) from zero state: spin-up, and the levels.

        Args:
          before: the last days of that year, as many as the model looks back on.
          year: its blocks.
        """
        self.before = as_tensor(before, self.device)
        total, n_days = np.zeros((2, len(self.static))), 0
        for block in year:
            done = self.advance(block)
            total += [done.site.sum(1, np.float64), done.satellite.sum(1, np.float64)]
            n_days += block.shape[1]
        self.levels = (total / n_days).astype(np.float32)
        self.before = as_tensor(before, self.device)  # the record follows on that year, repeated

    def restore(
        self,
        before: NDArray[np.float16],
        state: tuple[NDArray[np.float32], NDArray[np.float32]],
        levels: NDArray[np.float32],
    ) -> None:
        """Stand where another walk stood.

        Args:
          before: the last days before, as many as the model looks back on.
          state: hidden and cell state, as `state` gives them.
          levels: (2, place), of the warm-up.
        """
        self.before, self.levels = as_tensor(before, self.device), levels
        hidden, cell = (torch.split(as_tensor(a, self.device), PLACES) for a in state)
        self.states = [(h[None], c[None]) for h, c in zip(hidden, cell, strict=True)]

    def advance(self, block: NDArray[np.float16]) -> Prediction:
        """Series of the next days, in the target's unit, each (place, day)."""
        forcing = torch.cat([self.before, as_tensor(block, self.device)], 1)
        lead = self.before.shape[1]
        self.before = forcing[:, forcing.shape[1] - lead :].clone()
        n_days = forcing.shape[1]
        self.trained.network.eval()
        done = []
        with torch.inference_mode():
            for i, part in enumerate(Places(forcing, self.static).split(PLACES)):
                heads, self.states[i] = run(self.trained, part, lead, n_days, self.states[i])
                done.append(self.trained.physical(heads))
        site, satellite, width = (np.concatenate(a) for a in zip(*done, strict=True))
        return Prediction(site, satellite, width, *self.levels)

    def state(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Hidden and cell state of every place, each (place, unit); zero before the first day."""
        size = self.trained.network.config.hidden_size
        if None in self.states:
            zero = np.zeros((len(self.static), size), np.float32)
            return zero, zero
        joined = (torch.cat([s[k][0] for s in self.states if s], 0).cpu() for k in (0, 1))
        hidden, cell = (tensor.numpy() for tensor in joined)
        return hidden, cell
