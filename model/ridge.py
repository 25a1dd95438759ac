"""Ridge regression on lagged and trailing forcing and on statics: baseline, and part of a blend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from model.features import trailing_means

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from model.sampling import Places

LAGS, MEANS = (1, 2, 3), (3, 7, 30, 90)  # days
LEAD_DAYS = max(MEANS) - 1  # days of forcing needed before the first day
PENALTIES = tuple(10.0**k for k in range(7))
GROUPS = 5  # of sites, where no folds are there to choose the penalty by


@dataclass(frozen=True)
class Ridge:
    """Weights (feature,), the last for the constant; predicts in the target's unit."""

    weights: NDArray[np.float64]
    penalty: float

    def predict(self, places: Places) -> NDArray[np.float32]:
        """(place, day) of every place and day."""
        device, n_days = places.static.device, places.n_days
        series = [
            self.window(places, index, torch.zeros_like(index), n_days)[0].cpu().numpy()
            for index in torch.arange(len(places.static), device=device)[:, None]
        ]
        return np.array(series, np.float32).reshape(len(places.static), n_days)

    def window(self, places: Places, place: Tensor, start: Tensor, n_days: int) -> Tensor:
        """(batch, n_days) of (batch,) places from (batch,) first days."""
        weights = torch.from_numpy(self.weights).to(places.static.device)
        return (design(places, place, start, n_days).double() @ weights).float()


def design(places: Places, place: Tensor, start: Tensor, n_days: int) -> Tensor:
    """Regressors of (batch,) places from (batch,) first days, (batch, n_days, feature).

    Every forcing today, lagged by 1 to 3 days, and its means over 3, 7, 30 and 90 days, all of
    asinh of the scaled value, which tames rain; the statics; a constant. Missing values are 0.
    """
    forcing = torch.asinh(places.window(place, start, n_days, LEAD_DAYS))
    columns = [forcing[:, LEAD_DAYS - lag : LEAD_DAYS - lag + n_days] for lag in (0, *LAGS)]
    series = forcing.transpose(1, 2).flatten(0, 1)  # (batch x forcing, day)
    means = trailing_means(series, MEANS, n_days)
    means = means.reshape(len(place), -1, *means.shape[1:])
    columns += list(means.permute(3, 0, 2, 1))
    static = places.static[place][:, None].expand(-1, n_days, -1)
    columns += [static, torch.ones_like(forcing[:, :n_days, :1])]
    return torch.nan_to_num(torch.cat(columns, 2))


def fitted(
    places: Places,
    observed: NDArray[np.float32],
    sites: NDArray[np.int64],
    fold: NDArray[np.int64],
) -> Ridge:
    """Regression on some sites alone; arguments as of `Moments` and its `fit`."""
    chosen = np.zeros(len(observed), bool)
    chosen[sites] = True
    moments = Moments(places.at(chosen), observed[chosen])
    return moments.fit(np.arange(int(chosen.sum())), fold[chosen])


class Moments:
    """Sums over the days of each site from which any ridge regression follows."""

    def __init__(self, places: Places, observed: NDArray[np.float32]) -> None:
        """Gather X'X, X'y, y'y and n of every site; `observed` is (site, day), NaN if missing."""
        self.gram, self.cross, self.square, self.n = [], [], [], []
        for site, values in enumerate(observed):
            valid = np.isfinite(values)
            index = torch.tensor([site], device=places.static.device)
            regressors = design(places, index, torch.zeros_like(index), places.n_days)[0]
            x = regressors.double().cpu().numpy()[valid]
            y = values[valid].astype(np.float64)
            self.gram.append(x.T @ x)
            self.cross.append(x.T @ y)
            self.square.append(float(y @ y))
            self.n.append(len(y))

    def fit(self, sites: NDArray[np.int64], fold: NDArray[np.int64]) -> Ridge:
        """Regression on some sites; the penalty by leaving out one of their folds at a time.

        Args:
          sites: indexes of the training sites.
          fold: (site,) fold of every site; all equal where there are none.
        """
        groups = fold[sites] if len(np.unique(fold[sites])) > 1 else np.arange(len(sites)) % GROUPS
        errors = dict.fromkeys(PENALTIES, 0.0)
        for group in np.unique(groups):
            inside, outside = sites[groups != group], sites[groups == group]
            if len(inside):
                for penalty in PENALTIES:
                    errors[penalty] += self._error(self._solve(inside, penalty), outside)
        best = min(errors, key=errors.__getitem__)
        return Ridge(self._solve(sites, best), best)

    def _solve(self, sites: NDArray[np.int64], penalty: float) -> NDArray[np.float64]:
        gram = np.sum([self.gram[i] for i in sites], 0)
        cross = np.sum([self.cross[i] for i in sites], 0)
        diagonal = np.full(len(gram), penalty)
        diagonal[-1] = 1e-6  # the constant is free
        return np.linalg.solve(gram + np.diag(diagonal), cross)

    def _error(self, weights: NDArray[np.float64], sites: NDArray[np.int64]) -> float:
        """Sum over sites of the mean squared error, each site counting once."""
        return float(
            sum(
                (self.square[i] - 2 * weights @ self.cross[i] + weights @ self.gram[i] @ weights)
                / max(self.n[i], 1)
                for i in sites
            )
        )
