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
FILTERED_DAYS = 128  # a banded matrix of longer windows would be mostly zeros
PENALTIES = tuple(10.0**k for k in range(7))
GROUPS = 5  # of sites, where no folds are there to choose the penalty by


@dataclass(frozen=True)
class Ridge:
    """Weights (feature,), the last for the constant; predicts in the target's unit."""

    weights: NDArray[np.float64]
    penalty: float

    def predict(self, places: Places) -> NDArray[np.float32]:
        """(place, day) of every place and day."""
        n_days = places.n_days
        series = [
            self.window(site.days(-LEAD_DAYS, n_days), site.static, n_days).cpu().numpy()
            for site in places.split(1)
        ]
        return np.concatenate(series)

    def window(self, forcing: Tensor, static: Tensor, n_days: int) -> Tensor:
        """(batch, n_days) of the last days of a window; arguments as of `design`."""
        weights = torch.from_numpy(self.weights).to(static.device)
        if bool(forcing.sum().isfinite()) and n_days <= FILTERED_DAYS:
            return self._filtered(forcing, _known(static), weights, n_days)
        return (design(forcing, static, n_days).double() @ weights).float()

    def _filtered(self, forcing: Tensor, static: Tensor, weights: Tensor, n_days: int) -> Tensor:
        """`window` where no forcing is missing: one product with a banded matrix."""
        n = forcing.shape[2]
        columns = weights[: n * (1 + len(LAGS) + len(MEANS))].reshape(-1, n)
        kernel = weights.new_zeros(LEAD_DAYS + 2, n)  # by age in days; the last row is nothing
        kernel[[0, *LAGS]] = columns[: 1 + len(LAGS)]
        for length, column in zip(MEANS, columns[1 + len(LAGS) :], strict=True):
            kernel[:length] += column / length
        day = torch.arange(LEAD_DAYS + n_days, device=forcing.device)
        age = day[LEAD_DAYS:] - day[:, None]
        outside = (age < 0) | (age > LEAD_DAYS)
        band = kernel[torch.where(outside, LEAD_DAYS + 1, age)].transpose(1, 2).flatten(0, 1)
        series = _tamed(forcing[:, -(LEAD_DAYS + n_days) :]).flatten(1) @ band.float()
        rest = static.double() @ weights[columns.numel() : -1] + weights[-1]
        return series + rest.float()[:, None]


def design(forcing: Tensor, static: Tensor, n_days: int) -> Tensor:
    """Regressors of the last `n_days` of windows, (batch, n_days, feature).

    `forcing` is (batch, LEAD_DAYS or more + n_days, forcing), `static` (batch, static). Every
    forcing today, lagged by 1 to 3 days, and its means over 3, 7, 30 and 90 days, all of asinh of
    the scaled value, which tames rain; the statics; a constant. Values that are missing or
    infinite are 0.
    """
    forcing = _tamed(forcing[:, -(LEAD_DAYS + n_days) :])
    columns = [forcing[:, LEAD_DAYS - lag : LEAD_DAYS - lag + n_days] for lag in (0, *LAGS)]
    series = forcing.transpose(1, 2).flatten(0, 1)  # (batch x forcing, day)
    means = trailing_means(series, MEANS, n_days)
    means = means.reshape(len(forcing), forcing.shape[2], *means.shape[1:])
    columns += list(means.permute(3, 0, 2, 1))
    columns += [static[:, None].expand(-1, n_days, -1), torch.ones_like(forcing[:, :n_days, :1])]
    return _known(torch.cat(columns, 2))


def _known(values: Tensor) -> Tensor:
    """Values that are missing or infinite as 0."""
    return torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def _tamed(forcing: Tensor) -> Tensor:
    """asinh, from a logarithm and a root, five times as fast as torch's own."""
    root = (forcing * forcing).add_(1).sqrt_()
    return root.add_(forcing.abs()).log_().copysign_(forcing)


def fitted(
    places: Places,
    observed: NDArray[np.float32],
    sites: NDArray[np.int64],
    fold: NDArray[np.int64],
    place: NDArray[np.int64] | None = None,
) -> Ridge:
    """Regression on some sites alone; arguments as of `Moments` and its `fit`."""
    chosen = np.zeros(len(observed), bool)
    chosen[sites] = True
    moments = Moments(places.at(chosen), observed[chosen])
    at = None if place is None else place[chosen]
    return moments.fit(np.arange(int(chosen.sum())), fold[chosen], at)


def _groups(fold: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.int64]:
    """(site,) group: the fold of the first site at a place; GROUPS of places without folds."""
    _, first, number = np.unique(place, return_index=True, return_inverse=True)
    groups = fold[first][number]
    return np.asarray(groups if len(np.unique(groups)) > 1 else number % GROUPS)


class Moments:
    """Sums over the days of each site from which any ridge regression follows."""

    def __init__(self, places: Places, observed: NDArray[np.float32]) -> None:
        """Gather X'X, X'y, y'y and n of every site; `observed` is (site, day), NaN if missing."""
        self.gram, self.cross, self.square, self.n = [], [], [], []
        for site, values in zip(places.split(1), observed, strict=False):
            valid = np.isfinite(values)
            regressors = design(site.days(-LEAD_DAYS, site.n_days), site.static, site.n_days)[0]
            x = regressors.double().cpu().numpy()[valid]
            y = values[valid].astype(np.float64)
            self.gram.append(x.T @ x)
            self.cross.append(x.T @ y)
            self.square.append(float(y @ y))
            self.n.append(len(y))

    def fit(
        self,
        sites: NDArray[np.int64],
        fold: NDArray[np.int64],
        place: NDArray[np.int64] | None = None,
    ) -> Ridge:
        """Regression on some sites; the penalty by leaving out one of their folds at a time.

        Args:
          sites: indexes of the training sites.
          fold: (site,) fold of every site; all equal where there are none.
          place: (site,) label of the place of every site, whose sites are left out together; None
            where all are apart.

        Raises:
          ValueError: no penalty has a finite error.
        """
        at = np.arange(len(fold)) if place is None else place
        groups = _groups(fold[sites], at[sites])
        errors = dict.fromkeys(PENALTIES, 0.0)
        for group in np.unique(groups):
            inside, outside = sites[groups != group], sites[groups == group]
            if len(inside):
                for penalty in PENALTIES:
                    errors[penalty] += self._error(self._solve(inside, penalty), outside)
        known = {penalty: error for penalty, error in errors.items() if np.isfinite(error)}
        if not known:
            msg = "no ridge regression has a finite error: regressors or observations are too large"
            raise ValueError(msg)
        best = min(known, key=known.__getitem__)
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
