"""Linear layers: y = x Wᵀ + b on any number of axes.

A unit's gradient of W is Σ_t g_t x_tᵀ over its T positions. Two routes to its norm:

    ghost    ‖Σ_t g_t x_tᵀ‖² = Σ_ts (x_t·x_s)(g_t·g_s), and +1 in the first factor for the bias [Goodfellow 2015, 1510.01799;
             Li et al. 2022, 2110.05679]. Keeps x and g, which training without privacy has in memory at some time too.
    direct   the gradient itself, p·d numbers a unit. Keeps it in their place.

Rounding of the ghost route. Inner products of length d are within γ_d‖x_t‖‖x_s‖ of the truth, γ_d = d·u/(1 − d·u), for any
order of summation [Higham 2002, §3.1]; products of two of them within (γ_d + γ_p + γ_d·γ_p)·‖x_t‖‖x_s‖‖g_t‖‖g_s‖; their sum
is taken in float64. So the squared norm is within η·(Σ_t ‖x_t‖‖g_t‖)² of the truth, η = 1.01·(d + p + 4)·u. Where a unit's
terms cancel, this can be more than the norm itself: the engine then uses the upper bound (`clipper`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from bract.dpsgd.bookkeeping.layer import ROUNDING, Form, Layer, Squares, square_norms, tap

LARGEST = 2.0**30
"""A unit with a row of activations or gradients above this norm counts as not finite.

In float32 numbers below 2^-63 have no square. With rows of at most this norm, what is lost so is below 2^-33·T·√p of a
unit's norm in absolute terms: far within the slack of the least clip that a `PrivacySpec` may have.
"""

_SPLIT = 128


class Linear(Layer):
    """W (p, d), and b (p,) if it is trained."""

    def __init__(self, weight: str, bias: str | None, inputs: Form, outputs: int) -> None:
        self.names = (weight,) if bias is None else (weight, bias)
        self.inputs, self.outputs, self.biased = inputs, outputs, bias is not None
        self.width = inputs.rest[-1]
        self.positions = inputs.rows * _product(inputs.rest[:-1])
        self.route = "ghost" if 2 * self.positions**2 <= self.width * outputs else "direct"

    def taps(self, units: int) -> tuple[Tensor, ...]:
        """Ghost: x (n, T, d) and g (n, T, p). Direct: gradients, their longer side last, and (n, p)."""
        form = self.inputs
        if self.route == "ghost":
            shapes: list[tuple[int, ...]] = [(units, self.positions, size) for size in (self.width, self.outputs)]
        else:
            shapes = [(units, *sorted((self.outputs, self.width))), (units, self.outputs)]
        kept = shapes if self.route == "ghost" or self.biased else shapes[:1]
        return tuple(tap(shape, form.dtype, form.device) for shape in kept)

    def stored_bytes(self, units: int) -> int:
        """Memory that the direct route needs beyond what the ghost route would keep."""
        ghost = self.positions * (self.width + self.outputs)
        return max(0, units * (self.outputs * (self.width + 1) - ghost) * self.inputs.dtype.itemsize)

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None, taps: tuple[Tensor, ...], units: int) -> Tensor:
        """The layer itself, with its own backward."""
        first, second = (*taps, None)[:2]
        y: Tensor = _Linear.apply(x, weight, bias, first, second, units, self.route == "ghost")
        return y

    def squares(self, kept: Sequence[Tensor], units: int) -> Squares:
        """By the layer's route."""
        if self.route == "direct":
            return Squares(torch.stack([square_norms(each) for each in kept]).sum(0))
        x, g = (widened(each) for each in kept)
        if self.positions == 1:
            value, reach = one_position(x[:, 0], g[:, 0], biased=self.biased)
        else:
            value, reach = gram_norms(x, g, biased=self.biased)
        return Squares(value, reach, rounding(x.dtype, self.width + self.outputs))

    def add(self, kept: Sequence[Tensor], factors: Tensor, totals: Mapping[str, Tensor]) -> None:
        """One product of all units' rows, with the factors on the narrower side."""
        total = totals[self.names[0]]
        total = total.view(self.outputs, self.width)
        if self.route == "direct":
            if self.outputs > self.width:
                total = total.T
            summed = torch.mv(kept[0].flatten(1).to(total.dtype).T, factors.to(total.dtype))
            total.add_(summed.view(total.shape))
            if self.biased:
                totals[self.names[1]].addmv_(kept[1].to(total.dtype).T, factors.to(total.dtype))
            return
        x, g = (each.to(total.dtype) for each in kept)
        scale = factors.to(total.dtype)[:, None, None]
        if self.width <= self.outputs:
            x = x * scale
        else:
            g = g * scale
        total.addmm_(g.flatten(0, 1).T, x.flatten(0, 1))
        if self.biased:
            rows = factors.to(total.dtype).repeat_interleave(self.positions)
            if self.width <= self.outputs:
                totals[self.names[1]].addmv_(g.flatten(0, 1).T, rows)
            else:
                totals[self.names[1]].add_(g.flatten(0, 1).sum(0))


class _Linear(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        first: Tensor,
        second: Tensor | None,
        units: int,
        ghost: bool,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.units, ctx.ghost, ctx.both = units, ghost, second is not None
        return functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        back = g @ weight if ctx.needs_input_grad[0] else None
        x, g = x.reshape(ctx.units, -1, x.shape[-1]), g.reshape(ctx.units, -1, g.shape[-1])
        if ctx.ghost:
            return back, None, None, x, g, None, None
        return back, None, None, unit_gradients(x, g), g.sum(1) if ctx.both else None, None, None


def unit_gradients(x: Tensor, g: Tensor) -> Tensor:
    """Σ_t g_t x_tᵀ of each unit, with the longer side last (n, min(p, d), max(p, d)), which is quicker to make."""
    return torch.bmm(x.transpose(1, 2), g) if g.shape[2] > x.shape[2] else torch.bmm(g.transpose(1, 2), x)


def gram_norms(x: Tensor, g: Tensor, *, biased: bool) -> tuple[Tensor, Tensor]:
    """‖Σ_t g_t x_tᵀ‖² (n,) in float64 and Σ_t ‖x_t‖‖g_t‖ (n,), of x (n, T, d) and g (n, T, p).

    Long sequences are halved: the off-diagonal block of the symmetric products is computed once and counted twice.
    """
    positions = x.shape[1]
    if positions < _SPLIT:
        first = torch.bmm(x, x.transpose(1, 2))
        second = torch.bmm(g, g.transpose(1, 2))
        if biased:
            first += 1.0
        own, theirs = (each.diagonal(dim1=1, dim2=2).clamp(min=0) for each in (first, second))
        reach = (own * theirs).sqrt().sum(1)
        beyond = torch.maximum(own, theirs).amax(1) > LARGEST**2
        value = first.mul_(second).flatten(1).sum(1, dtype=torch.float64)
        return value.masked_fill(beyond, math.inf), reach
    half = positions // 2
    head, tail = (x[:, :half], g[:, :half]), (x[:, half:], g[:, half:])
    value, reach = gram_norms(*head, biased=biased)
    other, beyond = gram_norms(*tail, biased=biased)
    first = torch.bmm(head[0], tail[0].transpose(1, 2))
    if biased:
        first += 1.0
    across = first.mul_(torch.bmm(head[1], tail[1].transpose(1, 2))).flatten(1).sum(1, dtype=torch.float64)
    return value + other + 2 * across, reach + beyond


def one_position(x: Tensor, g: Tensor, *, biased: bool) -> tuple[Tensor, Tensor]:
    """The same of rows (n, d) and (n, p): a product."""
    own, theirs = square_norms(x) + float(biased), square_norms(g)
    beyond = torch.maximum(own, theirs) > LARGEST**2
    return (own * theirs).masked_fill(beyond, math.inf), (own * theirs).sqrt()


def rounding(dtype: torch.dtype, lengths: int) -> float:
    """η of the docstring above for inner products of d and p numbers, lengths = d + p."""
    return 1.01 * (lengths + 4) * ROUNDING[dtype]


def widened(each: Tensor) -> Tensor:
    """At least float32: products of bfloat16 numbers are exact there."""
    return each.to(torch.promote_types(each.dtype, torch.float32))


def _product(sizes: Sequence[int]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result
