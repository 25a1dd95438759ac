"""Gradients of several models clipped, and updates of torch's optimisers made on one array."""

import pytest
import tiny
import torch

from model.network import StackedNetwork, seeded_network
from model.stacked_optimiser import StackedOptimiser, clip_gradients
from model.trainer import make_optimiser, optimiser_state

LIMIT = 0.1


def test_a_gradient_that_two_weights_share_is_clipped_once_for_each():
    """As for the biases of an LSTM, which are added: autograd may give both one tensor."""
    shared = torch.tensor([[3.0, 4.0], [0.03, 0.04]])  # of two models; the second is short enough
    other = torch.tensor([[[12.0]], [[0.0]]])
    given = shared.clone(), other.clone()
    clipped, norm = clip_gradients([given[0], given[0], given[1]], LIMIT)
    expected = torch.cat([shared, shared, other.flatten(1)], 1)
    length = expected.norm(dim=1)
    torch.testing.assert_close(norm, length)
    expected[0] *= LIMIT / (length[0] + 1e-6)
    torch.testing.assert_close(clipped, expected)
    assert torch.equal(given[0], shared)
    assert torch.equal(given[1], other)


def test_without_a_limit_nothing_is_clipped():
    gradient = torch.randn(3, 2, 4)
    clipped, norm = clip_gradients([gradient], None)
    assert torch.equal(clipped, gradient.flatten(1))
    torch.testing.assert_close(norm, gradient.flatten(1).norm(dim=1))


@pytest.mark.parametrize("settings", [{}, {"optimiser": "adadelta", "learning_rate": 0.7}])
def test_updates_and_state_are_those_of_torch(settings):
    train, updates = tiny.recipe(weight_decay=0.02, **settings).train, 9
    networks = [seeded_network(tiny.network_config(), 7, True, (key,)) for key in range(3)]
    alone = [make_optimiser(net.parameters(), train, updates) for net in networks]
    names = [name for name, _ in networks[0].named_parameters()]
    weights = {
        name: torch.stack([net.get_parameter(name).detach() for net in networks]) for name in names
    }
    stacked = StackedNetwork(networks[0], weights, names, torch.float32)
    values = optimiser_state(*alone[0])[1]
    together = StackedOptimiser(stacked, train, updates, {}, values | {"step": 0})
    random = torch.Generator().manual_seed(0)
    for _ in range(updates):
        gradients = torch.randn(stacked.flat.shape, generator=random)
        rate = together.learning_rate
        together.update(gradients, torch.tensor(together.next_rates()))
        for net, gradient, (optimiser, schedule) in zip(networks, gradients, alone, strict=True):
            assert optimiser.param_groups[0]["lr"] == rate
            sizes = [p.numel() for p in net.parameters()]
            for p, part in zip(net.parameters(), gradient.split(sizes), strict=True):
                p.grad = part.view_as(p)
            optimiser.step()
            if schedule:
                schedule.step()
    tensors, values = together.state()
    for k, (net, of_one) in enumerate(zip(networks, alone, strict=True)):
        expected, told = optimiser_state(*of_one)
        assert told == values
        assert expected.keys() == tensors.keys()
        for key, value in expected.items():
            mine = tensors[key][k] if value.ndim else tensors[key]
            torch.testing.assert_close(mine, value, rtol=1e-5, atol=1e-7, msg=key)
        for name, value in net.named_parameters():
            mine = stacked.get_parameter(name)[k]
            torch.testing.assert_close(mine, value, rtol=1e-5, atol=1e-6, msg=name)
