"""Mean of a footprint's cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.loss import footprint_mean

MEMBERS = [[4, -1, 7, 0], [-1, -1, -1, -1], [9, -1, -1, -1], [-1, 2, 2, 1], [3, 5, 6, 8]]
N_VALID = 11


def by_hand(cells):
    """Mean of each row's next cells, as many as the row has entries other than -1."""
    means, upcoming = [], list(cells)
    for row in MEMBERS:
        own = [upcoming.pop(0) for member in row if member != -1]
        means.append(sum(own) / len(own) if own else np.full(cells.shape[1:], np.nan))
    return np.stack(means)


@pytest.mark.parametrize("trailing", [(), (3,), (2, 7)])
def test_each_footprint_is_the_mean_of_its_own_cells(trailing):
    cells = np.random.default_rng(1).normal(size=(N_VALID, *trailing))
    actual = footprint_mean(torch.from_numpy(cells), np.array(MEMBERS))
    assert actual.shape == (5, *trailing)
    np.testing.assert_allclose(actual.numpy(), by_hand(cells), rtol=1e-12)


def test_a_footprint_without_a_cell_is_missing():
    actual = footprint_mean(torch.ones(N_VALID, 3), np.array(MEMBERS))
    assert torch.isnan(actual[1]).all()
    assert (actual[[0, 2, 3, 4]] == 1).all()


def test_gradient_is_shared_equally_by_the_cells_of_a_footprint():
    cells = torch.zeros(N_VALID, 2, requires_grad=True)
    mean = footprint_mean(cells, np.array(MEMBERS))
    upstream = torch.tensor([[2.0, 3.0], [0.0, 0.0], [5.0, 7.0], [11.0, 13.0], [17.0, 19.0]])
    seen = [0, 2, 3, 4]
    mean[seen].backward(upstream[seen])
    sizes = [3, 0, 1, 3, 4]
    expected = [
        (upstream[row] / sizes[row]).tolist() for row in range(5) for _ in range(sizes[row])
    ]
    np.testing.assert_allclose(cells.grad.numpy(), expected, rtol=1e-6)


def test_full_footprints_are_plain_means():
    cells = torch.from_numpy(np.random.default_rng(2).normal(size=(12, 5)))
    members = np.arange(12).reshape(3, 4)
    expected = cells.reshape(3, 4, 5).mean(1)
    torch.testing.assert_close(footprint_mean(cells, members), expected)


def test_precision_is_that_of_the_cells():
    mean = footprint_mean(torch.ones(2, 3, dtype=torch.float32), np.array([[0, 1]]))
    assert mean.dtype == torch.float32
