"""Predict long series: spin-up, state carried from block to block, and the mean over members.

Find ensemble members that disagree with the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from model.device import places_per_pass, tf32
from model.features import assemble_input
from model.sampling import SPINUP_DAYS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from model.checkpoint import TrainedModel
    from model.network import Heads
    from model.recurrence import LSTMState
    from model.sampling import Places


DAYS_PER_PASS = 365  # days per forward pass, which bound the memory as `places_per_pass` does


@dataclass(frozen=True)
class Prediction:
    """Predicted series of one member, in the target's unit.

    Attributes:
      site: (place, day) output of the site head.
      satellite: (place, day) output of the satellite head.
      width: (place, day) Laplace scale of the site head; 0 without likelihood.
      site_level: (place,) mean of the site head over the spin-up.
      satellite_level: (place,) mean of the satellite head over the spin-up.
    """

    site: NDArray[np.float32]
    satellite: NDArray[np.float32]
    width: NDArray[np.float32]
    site_level: NDArray[np.float32]
    satellite_level: NDArray[np.float32]


@tf32(False)
def predict_series(trained: TrainedModel, places: Places) -> Prediction:
    """Predict all days at every place.

    The network is first run over the first year of the record, as a spin-up from zero state.
    """
    trained.network.eval()
    with torch.inference_mode():
        n = places_per_pass(places.static.device.type)
        parts = [_predict_arrays(trained, part) for part in places.split(n)]
    return Prediction(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _predict_arrays(trained: TrainedModel, places: Places) -> tuple[NDArray[np.float32], ...]:
    spinup_days = min(SPINUP_DAYS, places.n_days)
    spinup_heads, state = run_network(trained, places, -spinup_days, 0, None)
    heads, _ = run_network(trained, places, 0, places.n_days, state)
    levels = (
        trained.target.invert(head.mean(1)) for head in (spinup_heads.site, spinup_heads.satellite)
    )
    return (*trained.physical(heads), *(level.cpu().numpy() for level in levels))


def run_network(
    trained: TrainedModel, places: Places, first: int, last: int, state: LSTMState | None
) -> tuple[Heads, LSTMState]:
    """Run the network over days first..last-1, block by block.

    Args:
      trained: the model.
      places: inputs of the places.
      first: first day, counted from the start of the record; negative days are in the spin-up.
      last: day after the last one.
      state: state before the first day; None for zero.

    Returns:
      The outputs, (place, last - first) each, and the state after the last day.
    """
    features, lead = trained.features, trained.lead_days
    blocks: list[Heads] = []
    for start in range(first, last, DAYS_PER_PASS):
        n_days = min(DAYS_PER_PASS, last - start)
        forcing = places.days(start - lead, start + n_days)
        recent = forcing[:, lead - features.lead_days :]
        x = assemble_input(recent, places.static, features, trained.scaler, n_days)
        heads, state = trained.network(x, state)
        blocks.append(_blend_linear(trained, heads, forcing, places.static))
    assert state is not None
    return _concatenate_heads(blocks), state


def _blend_linear(
    trained: TrainedModel, heads: Heads, forcing: torch.Tensor, static: torch.Tensor
) -> Heads:
    """Return the heads, with the ridge regression blended into the site head."""
    if trained.linear is None:
        return heads
    weight = trained.network.config.linear_weight
    linear = trained.linear.window(forcing, static, heads.site.shape[1])
    return heads._replace(site=(1 - weight) * heads.site + weight * trained.target.apply(linear))


def _concatenate_heads(blocks: Sequence[Heads]) -> Heads:
    def columns() -> Iterator[torch.Tensor | None]:
        for parts in zip(*blocks, strict=True):
            yield None if parts[0] is None else torch.cat(parts, 1)

    return type(blocks[0])(*columns())  # type: ignore[arg-type]


def merge_predictions(pieces: dict[int, Prediction], by: NDArray[np.int64]) -> Prediction:
    """Merge predictions of groups of places into one prediction of all places.

    Args:
      pieces: prediction of each group by its label; places are in the order that they have in `by`.
      by: (place,) label of the group of every place.
    """
    arrays = []
    for group_arrays in zip(*(_prediction_arrays(piece) for piece in pieces.values()), strict=True):
        merged = np.empty((len(by), *group_arrays[0].shape[1:]), np.float32)
        for label, group_array in zip(pieces, group_arrays, strict=True):
            merged[by == label] = group_array
        arrays.append(merged)
    return Prediction(*arrays)


def _prediction_arrays(piece: Prediction) -> tuple[NDArray[np.float32], ...]:
    return (piece.site, piece.satellite, piece.width, piece.site_level, piece.satellite_level)


def combine_members(
    members: Sequence[Prediction], heads: tuple[str, ...], level_weight: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean and standard deviation of the product over the members.

    The product is the site head with its level (time mean over the spin-up) moved towards that of
    the satellite head: site + (1 - level_weight) (m_satellite - m_site). Without a site head it is
    the satellite head. The variance is that of an equally weighted mixture of the members'
    distributions (Lakshminarayanan et al. 2017): the mean of the members' variances, 2 b^2 for a
    Laplace distribution of scale b, plus the variance of their means.

    Args:
      members: predictions of the members, at the same places and days.
      heads: names of the heads that the members were trained with.
      level_weight: weight of the site head's level, from 0 to 1.

    Returns:
      Mean and standard deviation, (place, day) each, in the target's unit. The standard deviation
        is NaN where the variance is 0, as for a single member without likelihood.
    """
    if "site" not in heads:
        means = np.stack([member.satellite for member in members])
        variance = np.zeros(means.shape[1:], np.float32)
    else:
        shifts = [
            (1 - level_weight) * (member.satellite_level - member.site_level) for member in members
        ]
        blended = "satellite" in heads
        means = np.stack(
            [
                member.site + blended * shift[:, None]
                for member, shift in zip(members, shifts, strict=True)
            ]
        )
        variance = np.mean([2 * member.width**2 for member in members], 0)
    spread = variance + means.var(0)
    std = np.where(spread > 0, np.sqrt(spread), np.nan).astype(np.float32)
    return means.mean(0), std


MIN_MEMBERS = 3  # members; of two that differ, neither can be called the outlier
OUTLIER_FACTOR = 5.0  # an outlier's difference, as a multiple of the others' median difference


def find_outlier_members(series: Sequence[NDArray[np.floating]]) -> list[int]:
    """Return the members whose difference from the ensemble stands out from that of the others.

    A member is an outlier if its median absolute difference from the mean of the other members
    exceeds five times the median of the others' median absolute differences. Each of the others is
    compared with the mean of the members other than itself and the candidate. If the candidate were
    part of that mean, an extreme member would shift it so far that, with six members or fewer, it
    could never stand out. If a member were part of its own mean, its difference would be too small.

    Args:
      series: predictions of each member at the same places and days, all in one shape. Entries that
        are not finite for every member are left out.

    Returns:
      Indexes of the outliers, ascending; none if there are fewer than three members or no common
        value.
    """
    if len(series) < MIN_MEMBERS:
        return []
    values = np.stack([np.ravel(one) for one in series]).astype(np.float64)
    values = values[:, np.isfinite(values).all(0)]
    if not values.size:
        return []
    return [i for i in range(len(values)) if _is_outlier(values, i)]


def _is_outlier(values: NDArray[np.float64], member: int) -> bool:
    others = np.delete(values, member, 0)
    difference = np.median(np.abs(values[member] - others.mean(0)))
    others_means = (others.sum(0) - others) / (len(others) - 1)
    return bool(
        difference > OUTLIER_FACTOR * np.median(np.median(np.abs(others - others_means), axis=1))
    )
