"""Predict long series: spin-up, state carried from block to block, and the mean over members."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from model.features import assemble
from model.sampling import SPINUP_DAYS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from model.checkpoint import Trained
    from model.network import Heads, State
    from model.sampling import Places

BLOCK_DAYS, PLACES = 365, 512  # days and places per forward pass, which bound the memory


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


def predict(trained: Trained, places: Places) -> Prediction:
    """Predict all days at every place.

    The network is first run over the first year of the record, as a spin-up from zero state.
    """
    trained.network.eval()
    with torch.inference_mode():
        parts = [_predict_part(trained, part) for part in places.split(PLACES)]
    return Prediction(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _predict_part(trained: Trained, places: Places) -> tuple[NDArray[np.float32], ...]:
    spinup_days = min(SPINUP_DAYS, places.n_days)
    spinup_heads, state = run(trained, places, -spinup_days, 0, None)
    heads, _ = run(trained, places, 0, places.n_days, state)
    levels = (
        trained.target.invert(head.mean(1)) for head in (spinup_heads.site, spinup_heads.satellite)
    )
    return (*trained.physical(heads), *(level.cpu().numpy() for level in levels))


def run(
    trained: Trained, places: Places, first: int, last: int, state: State | None
) -> tuple[Heads, State]:
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
    for start in range(first, last, BLOCK_DAYS):
        n_days = min(BLOCK_DAYS, last - start)
        forcing = places.days(start - lead, start + n_days)
        recent = forcing[:, lead - features.lead_days :]
        x = assemble(recent, places.static, features, trained.scaler, n_days)
        heads, state = trained.network(x, state)
        blocks.append(_blended(trained, heads, forcing, places.static))
    assert state is not None
    return _join(blocks), state


def _blended(trained: Trained, heads: Heads, forcing: torch.Tensor, static: torch.Tensor) -> Heads:
    """Return the heads, with the ridge regression blended into the site head."""
    if trained.linear is None:
        return heads
    weight = trained.network.config.linear_weight
    linear = trained.linear.window(forcing, static, heads.site.shape[1])
    return heads._replace(site=(1 - weight) * heads.site + weight * trained.target.apply(linear))


def _join(blocks: Sequence[Heads]) -> Heads:
    def columns() -> Iterator[torch.Tensor | None]:
        for parts in zip(*blocks, strict=True):
            yield None if parts[0] is None else torch.cat(parts, 1)

    return type(blocks[0])(*columns())  # type: ignore[arg-type]


def gathered(pieces: dict[int, Prediction], by: NDArray[np.int64]) -> Prediction:
    """Merge predictions of groups of places into one prediction of all places.

    Args:
      pieces: prediction of each group by its label; places are in the order that they have in `by`.
      by: (place,) label of the group of every place.
    """
    arrays = []
    for group_arrays in zip(*(_fields(piece) for piece in pieces.values()), strict=True):
        merged = np.empty((len(by), *group_arrays[0].shape[1:]), np.float32)
        for label, group_array in zip(pieces, group_arrays, strict=True):
            merged[by == label] = group_array
        arrays.append(merged)
    return Prediction(*arrays)


def _fields(piece: Prediction) -> tuple[NDArray[np.float32], ...]:
    return (piece.site, piece.satellite, piece.width, piece.site_level, piece.satellite_level)


def product(
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
