"""Stateful prediction: run one model at many places block by block, keeping its state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from model.device import places_per_pass, tf32
from model.ensemble import Prediction, run_network
from model.sampling import Places, as_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from model.checkpoint import TrainedModel
    from model.recurrence import LSTMState


class StatefulPredictor:
    """One model at many places: warmed up over a year, then advanced block by block of days.

    Blocks of forcing are (place, day, forcing) float16, scaled, NaN where missing, and of any
    number of days. Between blocks, the LSTM's state and the last days that the model looks back on
    are kept.

    Attributes:
      before: the last days before the next block.
      levels: (2, place) means of the site and the satellite head over the warm-up.
    """

    def __init__(self, trained: TrainedModel, static: NDArray[np.float32], device: str) -> None:
        """Set up the places, given their (place, static) scaled attributes; nothing is run yet."""
        self.trained, self.device = trained, device
        trained.network.to(device)
        self.static = as_tensor(static, device)
        self._n_places = places_per_pass(device)  # of a part, which is run at a time
        n_parts = len(torch.split(self.static, self._n_places))
        self.states: list[LSTMState | None] = [None] * n_parts
        self.before = torch.zeros(0)
        self.levels = np.zeros((2, len(static)), np.float32)

    def warm_up(self, before: NDArray[np.float16], year: Iterable[NDArray[np.float16]]) -> None:
        """Run the first year of the record, or all of a shorter one, from zero state.

        This is the spin-up, over which the levels are computed.

        Args:
          before: the last days of that year, as many as the model looks back on.
          year: blocks of that year.
        """
        warm_up([self], before, year)

    def restore(
        self,
        before: NDArray[np.float16],
        state: tuple[NDArray[np.float32], NDArray[np.float32]],
        levels: NDArray[np.float32],
    ) -> None:
        """Continue from the state of another run.

        Args:
          before: the last days before the next block, as many as the model looks back on.
          state: hidden and cell state, as returned by `state`.
          levels: (2, place) levels of the warm-up.
        """
        self.before, self.levels = as_tensor(before, self.device), levels
        hidden, cell = (torch.split(as_tensor(a, self.device), self._n_places) for a in state)
        self.states = [(h[None], c[None]) for h, c in zip(hidden, cell, strict=True)]

    @tf32(False)
    def advance(self, block: NDArray[np.float16]) -> Prediction:
        """Predict the days of the next block, (place, day) in the target's unit."""
        forcing = torch.cat([self.before, as_tensor(block, self.device)], 1)
        lead = self.before.shape[1]
        self.before = forcing[:, forcing.shape[1] - lead :].clone()
        n_days = forcing.shape[1]
        self.trained.network.eval()
        arrays = []
        with torch.inference_mode():
            for i, part in enumerate(Places(forcing, self.static).split(self._n_places)):
                heads, self.states[i] = run_network(
                    self.trained, part, lead, n_days, self.states[i]
                )
                arrays.append(self.trained.physical(heads))
        site, satellite, width = (np.concatenate(parts) for parts in zip(*arrays, strict=True))
        return Prediction(site, satellite, width, *self.levels)

    def state(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return hidden and cell state, (place, unit) each; zero before the first day."""
        size = self.trained.network.config.hidden_size
        if None in self.states:
            zero = np.zeros((len(self.static), size), np.float32)
            return zero, zero
        joined = (torch.cat([s[k][0] for s in self.states if s], 0).cpu() for k in (0, 1))
        hidden, cell = (tensor.numpy() for tensor in joined)
        return hidden, cell


def warm_up(
    predictors: Sequence[StatefulPredictor],
    before: NDArray[np.float16],
    year: Iterable[NDArray[np.float16]],
) -> None:
    """Run several models over their first year together, so that it is read once.

    Args:
      predictors: the models, at the same places and with the same inputs.
      before: the last days of that year, as many as the models look back on.
      year: blocks of that year.
    """
    for predictor in predictors:
        predictor.before = as_tensor(before, predictor.device)
    totals, n_days = [np.zeros_like(predictor.levels, np.float64) for predictor in predictors], 0
    for block in year:
        for predictor, total in zip(predictors, totals, strict=True):
            prediction = predictor.advance(block)
            total += [prediction.site.sum(1, np.float64), prediction.satellite.sum(1, np.float64)]
        n_days += block.shape[1]
    for predictor, total in zip(predictors, totals, strict=True):
        predictor.levels = (total / n_days).astype(np.float32)
        predictor.before = as_tensor(before, predictor.device)  # the first year is repeated
