"""The linear baseline: ridge regression on lagged and trailing forcing and on statics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from model.features import trailing_means

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.sampling import Places

LAGS, MEANS = (1, 2, 3), (3, 7, 30, 90)  # days
PENALTIES = tuple(10.0**k for k in range(7))
GROUPS = 5  # of sites, where no folds are there to choose the penalty by


@dataclass(frozen=True)
class Ridge:
    """Weights (feature,), the last for the constant; predicts in the target's unit."""

    weights: NDArray[np.float64]
    penalty: float

    def predict(self, places: Places) -> NDArray[np.float32]:
        """(place, day) of every place and day."""
        series = [design(places, i) @ self.weights for i in range(len(places.static))]
        return np.array(series, np.float32).reshape(len(places.static), places.n_days)


def design(places: Places, place: int) -> NDArray[np.float64]:
    """Regressors of one place, (day, feature).

    Every forcing today, lagged by 1 to 3 days, and its means over 3, 7, 30 and 90 days, all of
    asinh of the scaled value, which tames rain; the statics; a constant. Missing values are 0.
    """
    lead, n_days = max(MEANS) - 1, places.n_days
    index = torch.tensor([place], device=places.static.device)
    forcing = torch.asinh(places.window(index, torch.zeros_like(index), n_days, lead)[0])
    columns = [forcing[lead - lag : lead - lag + n_days] for lag in (0, *LAGS)]
    means = trailing_means(forcing.T, MEANS, n_days)  # (forcing, day, length)
    columns += list(means.permute(2, 1, 0))
    columns += [places.static[index].expand(n_days, -1), torch.ones(n_days, 1, device=index.device)]
    return torch.nan_to_num(torch.cat(columns, 1)).double().cpu().numpy()


class Moments:
    """Sums over the days of each site from which any ridge regression follows."""

    def __init__(self, places: Places, observed: NDArray[np.float32]) -> None:
        """Gather X'X, X'y, y'y and n of every site; `observed` is (site, day), NaN if missing."""
        self.gram, self.cross, self.square, self.n = [], [], [], []
        for site, values in enumerate(observed):
            valid = np.isfinite(values)
            x, y = design(places, site)[valid], values[valid].astype(np.float64)
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
