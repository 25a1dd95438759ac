"""The recurrence of several models against torch's LSTM, and its kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import kernel_check
import pytest
import tiny
import torch

from model import recurrence

ROOT = Path(__file__).resolve().parents[2]
SIZES = {"models": 2, "days": 4, "sequences": 3, "features": 6, "units": 5}


@pytest.fixture(autouse=True)
def one_thread():
    with tiny.one_thread():
        yield


def drawn(models, days, sequences, features, units, dtype=torch.float32):
    """Inputs, and the weights of an LSTM, of every model."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(models, *shape, generator=random, dtype=dtype)

    biases = [normal(4 * units) for _ in range(2)]
    weights = [normal(4 * units, k) / k**0.5 for k in (features, units)]
    return normal(days, sequences, features), [*weights, *biases]


@pytest.mark.parametrize("changes", [{}, {"days": 1}, {"features": 70, "units": 8}, {"models": 1}])
def test_several_models_are_torch_s_lstm_one_by_one(changes):
    x, weights = drawn(**SIZES | changes)
    weights = [w.requires_grad_() for w in weights]
    hidden = recurrence.stacked_lstm(x, weights)
    slope = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(hidden, weights, slope)
    for k in range(len(x)):
        own = [w[k].detach().requires_grad_() for w in weights]
        zero = torch.zeros(1, x.shape[2], hidden.shape[-1])
        alone, _ = recurrence.lstm(x[k], (zero, zero), own, True)
        torch.testing.assert_close(hidden[k], alone, rtol=1e-5, atol=1e-6)
        for mine, other in zip(gradients, torch.autograd.grad(alone, own, slope[k]), strict=True):
            torch.testing.assert_close(mine[k], other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("features", [6, 72])
def test_gradients_of_a_layer_are_those_of_its_formula(features, wide):
    """Where a side is narrow and where not, they are summed in another way."""
    x, (weight, _, bias, _) = drawn(
        **SIZES | {"features": features, "units": 18}, dtype=torch.double
    )
    arguments = [t.requires_grad_() for t in (x, weight, bias)]
    out = recurrence.stacked_linear(*arguments, wide)
    expected = torch.einsum("kdsf,kof->kdso", x, weight) + bias[:, None, None]
    torch.testing.assert_close(out, expected)
    slope = torch.randn_like(out)
    mine, other = (torch.autograd.grad(o, arguments, slope) for o in (out, expected))
    for one, two in zip(mine, other, strict=True):
        torch.testing.assert_close(one, two)


def test_gradients_of_the_recurrence_are_those_of_finite_differences():
    x, (_, w_hh, *_) = drawn(**SIZES | {"features": 20}, dtype=torch.double)
    torch.autograd.gradcheck(
        recurrence._Recurrence.apply, [x.requires_grad_(), w_hh.requires_grad_()]
    )


def test_in_two_bytes_sums_gates_and_states_are_not_rounded():
    """Beside float64: within what rounding the operands and the result costs."""
    x, weights = drawn(2, 30, 16, 24, 64)
    exact = recurrence.stacked_lstm(x.double(), [w.double() for w in weights])
    half = recurrence.stacked_lstm(x.bfloat16(), weights)
    assert half.dtype == torch.bfloat16
    error = (half.double() - exact).norm() / exact.norm()
    assert 1e-4 < error < 6e-3
    out = recurrence.stacked_linear(half, weights[1], weights[2], wide=True)
    assert out.dtype == torch.float32
    expected = torch.einsum("kdsf,kof->kdso", half.double(), weights[1].bfloat16().double())
    torch.testing.assert_close(
        out.double(), expected + weights[2][:, None, None], atol=1e-5, rtol=1e-5
    )


@pytest.mark.runs  # it needs Triton, which is large
@pytest.mark.parametrize("check", ["interpreted", "compiled"])
def test_kernels(check):
    """On a CPU: their results in Triton's interpreter, and their compilation for GPUs."""
    pytest.importorskip("triton", reason="Triton is not installed: extra [gpu]")
    # In a process of its own, because Triton looks for TRITON_INTERPRET when it is imported.
    change = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    change |= {"TRITON_INTERPRET": "1"} if check == "interpreted" else {}
    command = [sys.executable, kernel_check.__file__, check]
    done = subprocess.run(command, env=os.environ | change, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
