"""Ridge regression on lagged and averaged forcing and static attributes.

It is a baseline, and can be blended into the site head. The method is that of Hoerl and Kennard
(1970).
"""

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


LAGS, MEANS = (1, 2, 3), (3, 7, 30, 90)  # lags and lengths of trailing means, days
LEAD_DAYS = max(MEANS) - 1  # days of forcing needed before the first day
MAX_BANDED_DAYS = 128  # longest window for a banded matrix; for longer ones it is mostly zeros
PENALTIES = tuple(10.0**k for k in range(7))
PENALTY_GROUPS = 5  # groups of sites for choosing the penalty if there are no folds


@dataclass(frozen=True)
class Ridge:
    """A fitted ridge regression.

    Attributes:
      weights: (feature,) weights of the regressors, the last for the constant.
      penalty: the penalty that was chosen.
    """

    weights: NDArray[np.float64]
    penalty: float

    def predict(self, places: Places) -> NDArray[np.float32]:
        """Return the prediction for every place and day, (place, day) in the target's unit."""
        n_days = places.n_days
        series = [
            self.window(site.days(-LEAD_DAYS, n_days), site.static, n_days).cpu().numpy()
            for site in places.split(1)
        ]
        return np.concatenate(series)

    def window(self, forcing: Tensor, static: Tensor, n_days: int) -> Tensor:
        """Return the prediction for the last days of windows.

        Args:
          forcing: (batch, LEAD_DAYS or more + n_days, forcing) scaled forcing, NaN where missing.
          static: (batch, static) scaled static attributes, NaN where missing.
          n_days: number of days to predict.

        Returns:
          (batch, n_days) predictions in the target's unit.
        """
        weights = torch.from_numpy(self.weights).to(static.device)
        if bool(forcing.sum().isfinite()) and n_days <= MAX_BANDED_DAYS:
            return self._filtered(forcing, _zero_missing(static), weights, n_days)
        return (design_matrix(forcing, static, n_days).double() @ weights).float()

    def _filtered(self, forcing: Tensor, static: Tensor, weights: Tensor, n_days: int) -> Tensor:
        """Compute `window` by one product with a banded matrix, if no forcing is missing."""
        n = forcing.shape[2]
        columns = weights[: n * (1 + len(LAGS) + len(MEANS))].reshape(-1, n)
        # Weights of the forcing by age in days; the last row is zero, for days outside of a window.
        kernel = weights.new_zeros(LEAD_DAYS + 2, n)
        kernel[[0, *LAGS]] = columns[: 1 + len(LAGS)]
        for length, column in zip(MEANS, columns[1 + len(LAGS) :], strict=True):
            kernel[:length] += column / length
        day = torch.arange(LEAD_DAYS + n_days, device=forcing.device)
        age = day[LEAD_DAYS:] - day[:, None]
        outside = (age < 0) | (age > LEAD_DAYS)
        band = kernel[torch.where(outside, LEAD_DAYS + 1, age)].transpose(1, 2).flatten(0, 1)
        series = _asinh(forcing[:, -(LEAD_DAYS + n_days) :]).flatten(1) @ band.float()
        constant_part = static.double() @ weights[columns.numel() : -1] + weights[-1]
        return series + constant_part.float()[:, None]


def design_matrix(forcing: Tensor, static: Tensor, n_days: int) -> Tensor:
    """Return the regressors for the last days of windows.

    They are the inverse hyperbolic sine of the scaled forcing, which reduces the weight of heavy
    rain, on the day itself, lagged by 1 to 3 days and averaged over the last 3, 7, 30 and 90 days;
    the static attributes; and a constant. Missing and infinite values are 0.

    Args:
      forcing: (batch, LEAD_DAYS or more + n_days, forcing) scaled forcing, NaN where missing.
      static: (batch, static) scaled static attributes, NaN where missing.
      n_days: number of days.

    Returns:
      (batch, n_days, feature) regressors.
    """
    forcing = _asinh(forcing[:, -(LEAD_DAYS + n_days) :])
    columns = [forcing[:, LEAD_DAYS - lag : LEAD_DAYS - lag + n_days] for lag in (0, *LAGS)]
    series = forcing.transpose(1, 2).flatten(0, 1)  # (batch x forcing, day)
    means = trailing_means(series, MEANS, n_days)
    means = means.reshape(len(forcing), forcing.shape[2], *means.shape[1:])
    columns += list(means.permute(3, 0, 2, 1))
    columns += [static[:, None].expand(-1, n_days, -1), torch.ones_like(forcing[:, :n_days, :1])]
    return _zero_missing(torch.cat(columns, 2))


def _zero_missing(values: Tensor) -> Tensor:
    """Return the values with missing and infinite ones set to 0."""
    return torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def _asinh(forcing: Tensor) -> Tensor:
    """Return asinh, computed from a logarithm and a root: five times as fast as torch's own."""
    root = (forcing * forcing).add_(1).sqrt_()
    return root.add_(forcing.abs()).log_().copysign_(forcing)


def fit_ridge(
    places: Places,
    observed: NDArray[np.float32],
    sites: NDArray[np.int64],
    fold: NDArray[np.int64],
    place: NDArray[np.int64] | None = None,
) -> Ridge:
    """Fit a ridge regression on some sites only.

    Args:
      places: inputs of all sites.
      observed: (site, day) observations, NaN where missing.
      sites: indexes of the training sites.
      fold: (site,) fold of every site; all equal if there are no folds.
      place: (site,) label of the location of every site, whose sites are left out together; None if
        all sites are at different locations.

    Raises:
      ValueError: If no penalty gives a finite error.
    """
    chosen = np.zeros(len(observed), bool)
    chosen[sites] = True
    moments = SiteMoments(places.select(chosen), observed[chosen])
    label = None if place is None else place[chosen]
    return moments.fit(np.arange(int(chosen.sum())), fold[chosen], label)


def _penalty_groups(fold: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the (site,) groups that are left out in turn when the penalty is chosen.

    Sites at one location share the fold of the first of them. Without folds, locations are
    distributed over five groups.
    """
    _, first, number = np.unique(place, return_index=True, return_inverse=True)
    groups = fold[first][number]
    return np.asarray(groups if len(np.unique(groups)) > 1 else number % PENALTY_GROUPS)


class SiteMoments:
    """Sums over the days of each site, from which ridge regressions on any sites are computed."""

    def __init__(self, places: Places, observed: NDArray[np.float32]) -> None:
        """Compute X'X, X'y, y'y and n of every site; `observed` (site, day) is NaN if missing."""
        self.gram, self.cross, self.square, self.n = [], [], [], []
        for site, values in zip(places.split(1), observed, strict=False):
            valid = np.isfinite(values)
            regressors = design_matrix(
                site.days(-LEAD_DAYS, site.n_days), site.static, site.n_days
            )[0]
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
        """Fit the regression on some sites, with the penalty chosen by cross-validation.

        Each fold of the training sites is left out in turn.

        Args:
          sites: indexes of the training sites.
          fold: (site,) fold of every site; all equal if there are no folds.
          place: (site,) label of the location of every site, whose sites are left out together;
            None if all sites are at different locations.

        Raises:
          ValueError: If no penalty gives a finite error.
        """
        label = np.arange(len(fold)) if place is None else place
        groups = _penalty_groups(fold[sites], label[sites])
        errors = dict.fromkeys(PENALTIES, 0.0)
        for group in np.unique(groups):
            kept, left_out = sites[groups != group], sites[groups == group]
            if len(kept):
                for penalty in PENALTIES:
                    errors[penalty] += self._error(self._solve(kept, penalty), left_out)
        finite_errors = {penalty: error for penalty, error in errors.items() if np.isfinite(error)}
        if not finite_errors:
            msg = (
                "no ridge regression has a finite error: the forcing, the static attributes or the "
                "observations hold values that are too large"
            )
            raise ValueError(msg)
        best = min(finite_errors, key=finite_errors.__getitem__)
        return Ridge(self._solve(sites, best), best)

    def _solve(self, sites: NDArray[np.int64], penalty: float) -> NDArray[np.float64]:
        gram = np.sum([self.gram[i] for i in sites], 0)
        cross = np.sum([self.cross[i] for i in sites], 0)
        diagonal = np.full(len(gram), penalty)
        diagonal[-1] = 1e-6  # the constant is not penalised
        return np.linalg.solve(gram + np.diag(diagonal), cross)

    def _error(self, weights: NDArray[np.float64], sites: NDArray[np.int64]) -> float:
        """Return the sum over sites of the mean squared error, so that each site counts once."""
        return float(
            sum(
                (self.square[i] - 2 * weights @ self.cross[i] + weights @ self.gram[i] @ weights)
                / max(self.n[i], 1)
                for i in sites
            )
        )
