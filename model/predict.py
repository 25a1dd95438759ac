"""Long series: spin-up, warm state carried from day to day, and the mean over members."""

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

BLOCK_DAYS, PLACES = 365, 512  # days and places of one forward pass


@dataclass(frozen=True)
class Prediction:
    """One member's series in the target's unit, each (place, day).

    `site_level` and `satellite_level` (place,) are each head's mean over the spin-up pass; `width`
    is the Laplace scale of the site head, 0 without likelihood.
    """

    site: NDArray[np.float32]
    satellite: NDArray[np.float32]
    width: NDArray[np.float32]
    site_level: NDArray[np.float32]
    satellite_level: NDArray[np.float32]


def predict(trained: Trained, places: Places) -> Prediction:
    """Series of all days at every place, after a spin-up over the first year, repeated."""
    trained.network.eval()
    with torch.inference_mode():
        parts = [_predict_part(trained, part) for part in places.split(PLACES)]
    return Prediction(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _predict_part(trained: Trained, places: Places) -> tuple[NDArray[np.float32], ...]:
    spinup = min(SPINUP_DAYS, places.n_days)
    warm, state = run(trained, places, -spinup, 0, None)
    heads, _ = run(trained, places, 0, places.n_days, state)
    levels = (trained.target.back(head.mean(1)) for head in (warm.site, warm.satellite))
    return (*trained.physical(heads), *(level.cpu().numpy() for level in levels))


def run(
    trained: Trained, places: Places, first: int, last: int, state: State | None
) -> tuple[Heads, State]:
    """Heads of days first..last-1, in blocks, and the state after them."""
    features, lead = trained.features, trained.lead_days
    blocks: list[Heads] = []
    for start in range(first, last, BLOCK_DAYS):
        n_days = min(BLOCK_DAYS, last - start)
        forcing = places.days(start - lead, start + n_days)
        seen = forcing[:, lead - features.lead_days :]
        x = assemble(seen, places.static, features, trained.scaler, n_days)
        heads, state = trained.network(x, state)
        blocks.append(_blended(trained, heads, forcing, places.static))
    assert state is not None
    return _join(blocks), state


def _blended(trained: Trained, heads: Heads, forcing: torch.Tensor, static: torch.Tensor) -> Heads:
    """The heads, the site's with its share of the linear model."""
    if trained.linear is None:
        return heads
    weight = trained.network.config.linear_weight
    linear = trained.linear.window(forcing, static, heads.site.shape[1])
    return heads._replace(site=(1 - weight) * heads.site + weight * trained.target.to(linear))


def _join(blocks: Sequence[Heads]) -> Heads:
    def columns() -> Iterator[torch.Tensor | None]:
        for parts in zip(*blocks, strict=True):
            yield None if parts[0] is None else torch.cat(parts, 1)

    return type(blocks[0])(*columns())  # type: ignore[arg-type]


def gathered(pieces: dict[int, Prediction], by: NDArray[np.int64]) -> Prediction:
    """One prediction of all places from those of parts of them.

    Args:
      pieces: by label, the prediction of the places with that label, in their order.
      by: (place,) label of every place.
    """
    arrays = []
    for parts in zip(*(_fields(piece) for piece in pieces.values()), strict=True):
        whole = np.empty((len(by), *parts[0].shape[1:]), np.float32)
        for label, part in zip(pieces, parts, strict=True):
            whole[by == label] = part
        arrays.append(whole)
    return Prediction(*arrays)


def _fields(piece: Prediction) -> tuple[NDArray[np.float32], ...]:
    return (piece.site, piece.satellite, piece.width, piece.site_level, piece.satellite_level)


def product(
    members: Sequence[Prediction], heads: tuple[str, ...], level_weight: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of the product over the members, each (place, day).

    The product is the site head, its level (time mean over the spin-up) moved towards the
    satellite head's: site + (1 - level_weight) (m_satellite - m_site); the satellite head alone
    where no site was learnt from. Variance: mean of the members' variances (2 b^2 of a Laplace
    distribution of scale b) + variance of their means; NaN where neither says anything.
    """
    if "site" not in heads:
        means = np.stack([m.satellite for m in members])
        variance = np.zeros(means.shape[1:], np.float32)
    else:
        shifts = [(1 - level_weight) * (m.satellite_level - m.site_level) for m in members]
        blended = "satellite" in heads
        means = np.stack(
            [m.site + blended * s[:, None] for m, s in zip(members, shifts, strict=True)]
        )
        variance = np.mean([2 * m.width**2 for m in members], 0)
    spread = variance + means.var(0)
    std = np.where(spread > 0, np.sqrt(spread), np.nan).astype(np.float32)
    return means.mean(0), std
