"""The network against its equations."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from model.network import Network, seeded_network
from model.seeds import hash_seed

N_FEATURES = 7
BOOLS = (False, True)


def network(likelihood=False, **changes):
    torch.manual_seed(3)
    return Network(tiny.network_config(**changes), N_FEATURES, likelihood)


@pytest.fixture
def x():
    return torch.from_numpy(np.random.default_rng(4).normal(size=(3, 6, N_FEATURES))).float()


def close(actual, expected):
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("input_layer", BOOLS)
@pytest.mark.parametrize("likelihood", BOOLS)
@pytest.mark.parametrize("heads", ["one", "two"])
def test_forward_is_the_equations_of_an_lstm(x, input_layer, likelihood, heads):
    net = network(likelihood, input_layer=input_layer, heads=heads)
    out, (h, c) = net(x)
    expected, state = tiny.forward_by_hand(net, x)
    assert expected.shape == (3, 6, (heads == "two") + 1 + likelihood)
    close(out.site, expected[..., 0])
    close(out.satellite, expected[..., 1 if heads == "two" else 0])
    close(h[0], state[0])
    close(c[0], state[1])
    if likelihood:
        close(out.width, np.log(1 + np.exp(expected[..., -1])) + 1e-3)
    else:
        assert out.width is None


def test_an_affine_satellite_is_a_learned_line_of_the_site_head(x):
    net = network(False, heads="affine")
    assert torch.equal(net(x)[0].site, net(x)[0].satellite)  # at first
    with torch.no_grad():
        net.gain.copy_(torch.tensor([0.5, -2.0]))
    out, _ = net(x)
    close(out.satellite, 0.5 * out.site.detach().numpy() - 2.0)
    out.satellite.sum().backward()
    assert net.gain.grad.abs().min() > 0


@pytest.mark.parametrize("heads", ["one", "two"])
def test_only_two_heads_differ(x, heads):
    out, _ = network(True, heads=heads)(x)
    assert torch.equal(out.site, out.satellite) == (heads == "one")


def test_width_stays_positive(x):
    net = network(likelihood=True)
    with torch.no_grad():
        net.output.bias[-1] = -1e4
    assert (net(x)[0].width > 0).all()


def test_forget_gate_starts_at_its_bias():
    net = network(forget_bias=2.5)
    bias = (net.lstm.bias_ih_l0 + net.lstm.bias_hh_l0).detach().numpy()
    assert (bias[5:10] == 2.5).all()
    assert (np.abs(np.delete(bias, np.s_[5:10])) < 1).all()


@pytest.mark.parametrize("input_layer", BOOLS)
def test_dropout_is_one_mask_of_the_weights_for_all_days(x, input_layer):
    net = network(input_layer=input_layer)
    drawn, again = (torch.Generator().manual_seed(8) for _ in range(2))
    passes = [net(x, generator=drawn)[0].site for _ in range(2)]
    for out in passes:  # of the same generator: the second pass has fresh masks
        masks = tiny.masks_by_hand(net, again)
        close(out, tiny.forward_by_hand(net, x, masks)[0][..., 0])
    assert not torch.allclose(*passes)


def test_dropped_weights_learn_nothing_and_others_do(x):
    net = network()
    net(x, generator=torch.Generator().manual_seed(8))[0].site.sum().backward()
    masks = tiny.masks_by_hand(net, torch.Generator().manual_seed(8))
    for weight, mask in zip((net.lstm.weight_ih_l0, net.lstm.weight_hh_l0), masks, strict=True):
        np.testing.assert_array_equal(weight.grad.numpy() != 0, mask > 0)


def test_share_of_dropped_weights():
    net = network(hidden_size=64, weight_dropout=0.3)
    _, mask = tiny.masks_by_hand(net, torch.Generator().manual_seed(1))
    dropped = net._weights(torch.Generator().manual_seed(1))[0].detach().numpy()
    assert np.mean(dropped == 0) == pytest.approx(0.3, abs=0.03)
    assert mask.max() == pytest.approx(1 / 0.7)


@pytest.mark.parametrize("training", BOOLS)
def test_no_dropout_without_a_generator_or_a_rate(x, training):
    net = network().train(training)
    close(net(x)[0].site, tiny.forward_by_hand(net, x)[0][..., 0])
    net = network(weight_dropout=0).train(training)
    dropped, _ = net(x, generator=torch.Generator().manual_seed(8))
    close(dropped.site, tiny.forward_by_hand(net, x)[0][..., 0])


def test_state_carries_from_one_half_to_the_other(x):
    net = network(likelihood=True, input_layer=True)
    whole, last = net(x)
    first, state = net(x[:, :2])
    second, end = net(x[:, 2:], state)
    for i in range(3):
        close(torch.cat([first[i], second[i]], 1), whole[i].detach())
    for one, other in zip(end, last, strict=True):
        close(one, other.detach())


def test_published_number_of_weights():
    config = tiny.network_config(hidden_size=256, input_layer=True, heads="one")
    net = Network(config, 14, likelihood=False)
    assert sum(p.numel() for p in net.parameters()) == 530_433


def test_seeded_weights_depend_on_the_key_alone():
    def weights(key):
        net = seeded_network(tiny.network_config(), N_FEATURES, True, key)
        return torch.cat([p.flatten() for p in net.parameters()])

    torch.manual_seed(1)
    first = weights((0, 1, 5))
    after = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(3))  # nor do they touch the global stream
    assert torch.equal(first, weights((0, 1, 5)))
    assert not torch.allclose(first, weights((1, 1, 5)))
    assert not torch.allclose(first, weights((0, 2, 5)))


def test_seeds_fit_a_generator_and_differ():
    seeds = {
        hash_seed((seed, fold, step, 3)) for seed in (0, 1) for fold in (0, 1) for step in (0, 7)
    }
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)
