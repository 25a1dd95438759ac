"""The recurrence of several models as Triton kernels: the product and the gates of a day in one.

The arithmetic is that of `forward` and `backward` in `recurrence.py`, which also say what the
arguments are. A kernel's program computes a tile of sequences and units of one model. With
TRITON_INTERPRET=1 the kernels run on a CPU, slowly, for tests.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor


# The fastest tile on an H200, of those tried.
SEQUENCES, UNITS = tl.constexpr(64), tl.constexpr(32)
WARPS, STAGES = 4, 3
DEPTH_BYTES = 128  # of a row of an operand that is loaded at a time

# Triton 3.9 warns unless this is said; with it, a * b + c is rounded once.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")


@triton.jit
def _tanh(x, FAST: tl.constexpr):
    if FAST:
        return tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    return 2.0 / (1.0 + tl.exp(-2.0 * x)) - 1.0


@triton.jit
def _sigmoid(x, FAST: tl.constexpr):
    if FAST:
        return 0.5 * _tanh(0.5 * x, True) + 0.5
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _add_product(a, b, total, INTERPRETED: tl.constexpr):
    if INTERPRETED:  # whose products of bfloat16 are wrong
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total)


@triton.jit(do_not_specialize=["day"])
def _forward_day(
    projected,
    w_hh,
    hidden,
    cell,
    gates,
    day,
    n_days,
    n_sequences,
    H: tl.constexpr,
    DEPTH: tl.constexpr,
    FAST: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    model = tl.program_id(2).to(tl.int64)
    sequence = tl.program_id(1) * SEQUENCES + tl.arange(0, SEQUENCES)
    unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    inside = (sequence < n_sequences)[:, None]
    row = ((model * n_days + day) * n_sequences + sequence)[:, None]
    at = row * H + unit[None, :]  # in arrays of units; the day before is n_sequences rows back
    gate = row * 4 * H + unit[None, :]
    i = tl.zeros((SEQUENCES, UNITS), tl.float32)
    f = tl.zeros((SEQUENCES, UNITS), tl.float32)
    g = tl.zeros((SEQUENCES, UNITS), tl.float32)
    o = tl.zeros((SEQUENCES, UNITS), tl.float32)
    if day > 0:
        before = hidden + (row - n_sequences) * H
        w = w_hh + model * 4 * H * H + (unit * H)[None, :]
        for start in range(0, H, DEPTH):
            k = start + tl.arange(0, DEPTH)
            h = tl.load(before + k[None, :], mask=inside, other=0.0)
            i = _add_product(h, tl.load(w + k[:, None]), i, INTERPRETED)
            f = _add_product(h, tl.load(w + H * H + k[:, None]), f, INTERPRETED)
            g = _add_product(h, tl.load(w + 2 * H * H + k[:, None]), g, INTERPRETED)
            o = _add_product(h, tl.load(w + 3 * H * H + k[:, None]), o, INTERPRETED)
    i = _sigmoid(i + tl.load(projected + gate, mask=inside, other=0.0), FAST)
    f = _sigmoid(f + tl.load(projected + gate + H, mask=inside, other=0.0), FAST)
    g = _tanh(g + tl.load(projected + gate + 2 * H, mask=inside, other=0.0), FAST)
    o = _sigmoid(o + tl.load(projected + gate + 3 * H, mask=inside, other=0.0), FAST)
    c = i * g
    if day > 0:
        c += f * tl.load(cell + at - n_sequences * H, mask=inside, other=0.0)
    tl.store(cell + at, c, mask=inside)
    kept = gates.dtype.element_ty
    tl.store(hidden + at, (o * _tanh(c, FAST)).to(kept), mask=inside)
    tl.store(gates + gate, i.to(kept), mask=inside)
    tl.store(gates + gate + H, f.to(kept), mask=inside)
    tl.store(gates + gate + 2 * H, g.to(kept), mask=inside)
    tl.store(gates + gate + 3 * H, o.to(kept), mask=inside)


@triton.jit(do_not_specialize=["day"])
def _backward_day(
    gradient,
    w_hh,
    cell,
    gates,
    of_gates,
    of_cell,
    day,
    n_days,
    n_sequences,
    H: tl.constexpr,
    DEPTH: tl.constexpr,
    FAST: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    model = tl.program_id(2).to(tl.int64)
    sequence = tl.program_id(1) * SEQUENCES + tl.arange(0, SEQUENCES)
    unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    inside = (sequence < n_sequences)[:, None]
    row = ((model * n_days + day) * n_sequences + sequence)[:, None]
    at = row * H + unit[None, :]
    gate = row * 4 * H + unit[None, :]
    dh = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
    if day < n_days - 1:
        after = of_gates + (row + n_sequences) * 4 * H
        w = w_hh + model * 4 * H * H + unit[None, :]
        for start in range(0, 4 * H, DEPTH):
            k = start + tl.arange(0, DEPTH)
            d = tl.load(after + k[None, :], mask=inside, other=0.0)
            dh = _add_product(d, tl.load(w + (k * H)[:, None]), dh, INTERPRETED)
    i = tl.load(gates + gate, mask=inside, other=0.0).to(tl.float32)
    f = tl.load(gates + gate + H, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(gates + gate + 2 * H, mask=inside, other=0.0).to(tl.float32)
    o = tl.load(gates + gate + 3 * H, mask=inside, other=0.0).to(tl.float32)
    bounded = _tanh(tl.load(cell + at, mask=inside, other=0.0), FAST)
    carried = of_cell + ((model * n_sequences + sequence) * H)[:, None] + unit[None, :]
    dc = dh * o * (1 - bounded * bounded)
    if day < n_days - 1:
        dc += tl.load(carried, mask=inside, other=0.0)
    before = tl.zeros((SEQUENCES, UNITS), tl.float32)
    if day > 0:
        before = tl.load(cell + at - n_sequences * H, mask=inside, other=0.0)
    tl.store(carried, dc * f, mask=inside)
    kept = of_gates.dtype.element_ty
    tl.store(of_gates + gate, (dc * g * i * (1 - i)).to(kept), mask=inside)
    tl.store(of_gates + gate + H, (dc * before * f * (1 - f)).to(kept), mask=inside)
    tl.store(of_gates + gate + 2 * H, (dc * i * (1 - g * g)).to(kept), mask=inside)
    tl.store(of_gates + gate + 3 * H, (dh * bounded * o * (1 - o)).to(kept), mask=inside)


def forward(projected: Tensor, w_hh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run all days, as `recurrence.forward` does; the number of units is a multiple of 64."""
    shape, units = projected.shape[:3], w_hh.shape[2]
    hidden, gates = projected.new_empty(*shape, units), torch.empty_like(projected)
    cell = projected.new_empty(*shape, units, dtype=torch.float32)
    grid, options = _launch(shape, units, projected.dtype)
    for day in range(shape[1]):
        _forward_day[grid](projected, w_hh, hidden, cell, gates, day, *shape[1:], **options)
    return hidden, cell, gates


def backward(gradient: Tensor, w_hh: Tensor, cell: Tensor, gates: Tensor) -> Tensor:
    """Run all days backwards, as `recurrence.backward` does."""
    shape, units = gates.shape[:3], w_hh.shape[2]
    of_gates, of_cell = torch.empty_like(gates), torch.empty_like(cell[:, 0])
    grid, options = _launch(shape, units, gates.dtype)
    for day in reversed(range(shape[1])):
        arguments = gradient, w_hh, cell, gates, of_gates, of_cell, day
        _backward_day[grid](*arguments, *shape[1:], **options)
    return of_gates


def _launch(
    shape: torch.Size, units: int, dtype: torch.dtype
) -> tuple[tuple[int, int, int], dict[str, int]]:
    """Return the grid of programs, and the constants of a kernel."""
    interpreted = not isinstance(_forward_day, triton.JITFunction)
    options = {
        "H": units,
        "DEPTH": DEPTH_BYTES // dtype.itemsize,
        # The GPU's own tanh is as exact as bf16 is.
        "FAST": dtype == torch.bfloat16 and not interpreted and torch.version.cuda is not None,
        "INTERPRETED": interpreted,
        "num_warps": WARPS,
        "num_stages": STAGES,
    }
    return (units // UNITS.value, triton.cdiv(shape[2], SEQUENCES.value), shape[0]), options
