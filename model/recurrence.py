"""The recurrence of the LSTM, in one place, and the choice of what computes it.

One model is run by `torch.lstm`: oneDNN on a CPU, cuDNN on a GPU. Several models of one
architecture are run as one operation on (model, day, sequence) arrays, forward and backward, by the
Triton kernels of `recurrence_triton.py` on a GPU that has them, else by plain products and
elementwise functions of torch. Both round in the same places: operands of products and what is
kept for the backward pass have the precision of the inputs; sums, gates and cell states are
float32.
"""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


LSTMState = tuple["Tensor", "Tensor"]
TRITON_UNITS = 64  # the kernels take hidden sizes that are a multiple of it
TRITON_CAPABILITY = (8, 0)  # bf16 and TF32 came with this generation of GPUs
ALIGNED = 8  # numbers of columns that tensor cores take are a multiple of it
NARROW = 64  # columns up to which a gradient of weights is summed over days in a second step


def lstm(
    x: Tensor, state: LSTMState, weights: Sequence[Tensor], training: bool
) -> tuple[Tensor, LSTMState]:
    """Run the LSTM of one model.

    Args:
      x: (day, sequence, feature) inputs.
      state: hidden and cell state before the first day, (1, sequence, unit) each.
      weights: W_ih (4 unit, feature), W_hh (4 unit, unit), and two biases (4 unit,); gates are in
        the order input, forget, cell, output.
      training: whether a backward pass follows.

    Returns:
      (day, sequence, unit) hidden states, and the state after the last day.
    """
    with warnings.catch_warnings() if x.is_cuda else contextlib.nullcontext():
        if x.is_cuda:  # with dropout, the weights are new tensors, which cuDNN joins in every call
            warnings.filterwarnings("ignore", "RNN module weights are not part of single")
        hidden, h, c = torch.lstm(x, state, [*weights], True, 1, 0.0, training, False, False)
    return hidden, (h, c)


def stacked_lstm(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Run the LSTMs of several models from zero state.

    Args:
      x: (model, day, sequence, feature) inputs, bfloat16 or float32.
      weights: as for `lstm`, float32, each with a leading dimension of models.

    Returns:
      (model, day, sequence, unit) hidden states, in the precision of the inputs.
    """
    w_ih, w_hh, b_ih, b_hh = weights
    projected = stacked_linear(x, w_ih, b_ih + b_hh)
    hidden: Tensor = _Recurrence.apply(projected, w_hh)  # type: ignore[no-untyped-call]
    return hidden


def stacked_linear(x: Tensor, weight: Tensor, bias: Tensor, wide: bool = False) -> Tensor:
    """Apply a linear layer of several models; columns are padded as tensor cores need it.

    Args:
      x: (model, day, sequence, feature) inputs, bfloat16 or float32.
      weight: (model, output, feature) weights, float32.
      bias: (model, output) biases, float32.
      wide: whether results are float32, else they have the precision of the inputs.

    Returns:
      (model, day, sequence, output) results.
    """
    n_outputs, n_features = weight.shape[1:]
    more_outputs, more_features = -n_outputs % ALIGNED, -n_features % ALIGNED
    if more_outputs or more_features:
        x = functional.pad(x, (0, more_features))
        weight = functional.pad(weight, (0, more_features, 0, more_outputs))
        bias = functional.pad(bias, (0, more_outputs))
    arguments = x.contiguous(), weight, bias, wide
    out: Tensor = _Linear.apply(*arguments)  # type: ignore[no-untyped-call]
    return out[..., :n_outputs]


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Return the batched product; of bfloat16 operands in float32, without rounding the sums."""
    if a.dtype != torch.bfloat16:
        return torch.bmm(a, b)
    if a.is_cuda:
        return torch.bmm(a, b, out_dtype=torch.float32)
    return torch.bmm(a.float(), b.float())


class _Linear(torch.autograd.Function):
    """A linear layer of several models, with float32 gradients of the weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, wide: bool) -> Tensor:
        """Return the product (model, day, sequence, row) of inputs and weights, plus the bias."""
        rounded = weight.to(x.dtype)
        ctx.save_for_backward(x, rounded)
        rows, columns = x.flatten(1, 2), rounded.mT
        if wide:
            out = _product(rows, columns) + bias[:, None]
        else:
            out = torch.baddbmm(bias[:, None].to(x.dtype), rows, columns)
        return out.view(*x.shape[:3], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of inputs, weights and bias, and None for `wide`."""
        x, weight = ctx.saved_tensors
        gradient = gradients[0].to(x.dtype).contiguous()
        n_models, n_days = x.shape[:2]
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = torch.bmm(gradient.flatten(1, 2), weight).view(x.shape)
        # One product with few columns and a hundred thousand rows would leave a GPU idle.
        parts = n_days if min(weight.shape[1:]) <= NARROW else 1
        rows = (n_models * parts, -1)
        of_weight = _product(
            gradient.reshape(*rows, gradient.shape[-1]).mT, x.reshape(*rows, x.shape[-1])
        )
        of_weight = of_weight.view(n_models, parts, *weight.shape[1:]).sum(1)
        of_bias = gradients[0].flatten(1, 2).sum(1, dtype=of_weight.dtype)
        return of_x, of_weight, of_bias, None


class _Recurrence(torch.autograd.Function):
    """Gates and states of all days, from the inputs' share of the gates."""

    @staticmethod
    def forward(ctx: Any, projected: Tensor, w_hh: Tensor) -> Tensor:
        """Return the (model, day, sequence, unit) hidden states.

        Args:
          ctx: keeps what the backward pass needs.
          projected: (model, day, sequence, 4 unit) W_ih x + b, contiguous.
          w_hh: (model, 4 unit, unit) recurrent weights.
        """
        rounded = w_hh.to(projected.dtype).contiguous()
        run = _triton().forward if _is_fused(projected) else forward
        hidden, cell, gates = run(projected, rounded)
        ctx.save_for_backward(rounded, hidden, cell, gates)
        return hidden

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of the inputs' share of the gates, and of the weights."""
        w_hh, hidden, cell, gates = ctx.saved_tensors
        run = _triton().backward if _is_fused(gates) else backward
        of_gates = run(gradients[0].contiguous(), w_hh, cell, gates)
        # The first day has no state before it.
        of_w_hh = _product(of_gates[:, 1:].flatten(1, 2).mT, hidden[:, :-1].flatten(1, 2))
        return of_gates, of_w_hh


def _is_fused(gates: Tensor) -> bool:
    """Return whether the kernels can be used: a GPU, Triton, and a size that they take."""
    return (
        gates.is_cuda
        and importlib.util.find_spec("triton") is not None
        and gates.shape[-1] % (4 * TRITON_UNITS) == 0
        and torch.cuda.get_device_capability() >= TRITON_CAPABILITY
    )


def _triton() -> Any:
    from model import recurrence_triton  # an optional package, which takes a second to import

    return recurrence_triton


def forward(projected: Tensor, w_hh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run all days in plain torch.

    Args:
      projected: (model, day, sequence, 4 unit) the inputs' share of the gates.
      w_hh: (model, 4 unit, unit) recurrent weights, in the same precision.

    Returns:
      (model, day, sequence, unit) hidden states in this precision and cell states in float32, and
        the (model, day, sequence, 4 unit) values of the gates in this precision.
    """
    shape, units = projected.shape[:3], w_hh.shape[2]
    wide = torch.promote_types(projected.dtype, torch.float32)
    hidden, gates = projected.new_empty(*shape, units), torch.empty_like(projected)
    cell = projected.new_empty(*shape, units, dtype=wide)
    for day in range(shape[1]):
        total = projected[:, day].to(wide)
        if day > 0:
            total = total + _product(hidden[:, day - 1], w_hh.mT)
        i, f, g, o = total.chunk(4, -1)
        i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
        c = i * g if day == 0 else f * cell[:, day - 1] + i * g
        cell[:, day] = c
        hidden[:, day] = o * torch.tanh(c)
        gates[:, day] = torch.cat([i, f, g, o], -1)
    return hidden, cell, gates


def backward(gradient: Tensor, w_hh: Tensor, cell: Tensor, gates: Tensor) -> Tensor:
    """Run all days backwards in plain torch.

    Args:
      gradient: (model, day, sequence, unit) gradient of the hidden states.
      w_hh: (model, 4 unit, unit) recurrent weights.
      cell: (model, day, sequence, unit) cell states.
      gates: (model, day, sequence, 4 unit) values of the gates.

    Returns:
      (model, day, sequence, 4 unit) gradient of what the gates are functions of, which is that of
        the inputs' share; in the precision of the gates.
    """
    of_gates, of_cell = torch.empty_like(gates), torch.zeros_like(cell[:, 0])
    n_days = gates.shape[1]
    for day in reversed(range(n_days)):
        of_hidden = gradient[:, day].to(cell.dtype)
        if day < n_days - 1:
            of_hidden = of_hidden + _product(of_gates[:, day + 1], w_hh)
        i, f, g, o = gates[:, day].to(cell.dtype).chunk(4, -1)
        bounded = torch.tanh(cell[:, day])
        of_cell = of_cell + of_hidden * o * (1 - bounded * bounded)
        before = cell[:, day - 1] if day > 0 else torch.zeros_like(of_cell)
        parts = [
            of_cell * g * i * (1 - i),
            of_cell * before * f * (1 - f),
            of_cell * i * (1 - g * g),
            of_hidden * bounded * o * (1 - o),
        ]
        of_gates[:, day] = torch.cat(parts, -1)
        of_cell = of_cell * f
    return of_gates
