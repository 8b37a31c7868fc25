"""Parameters that are added or multiplied in: LayerScale, positions, biases, the scale of RMSNorm."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.autograd import Function


class ScaleStep(Function):
    """y = x · p with p broadcast over the rows of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parameter: Tensor, units: int, kept: Tensor) -> Tensor:
        ctx.save_for_backward(x, parameter)
        ctx.units = units
        return x * parameter

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, parameter = ctx.saved_tensors
        back = g * parameter if ctx.needs_input_grad[0] else None
        return _as(back, x), None, None, _as(over_units(g * x, parameter.shape, ctx.units), parameter)


class ShiftStep(Function):
    """y = x + p with p broadcast over the rows of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parameter: Tensor, units: int, kept: Tensor) -> Tensor:
        ctx.shape, ctx.units, ctx.dtypes = parameter.shape, units, (x.dtype, parameter.dtype)
        return x + parameter

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        back = g.to(ctx.dtypes[0]) if ctx.needs_input_grad[0] else None
        return back, None, None, over_units(g, ctx.shape, ctx.units).to(ctx.dtypes[1])


def broadcasts(parameter: Sequence[int], rows: Sequence[int]) -> bool:
    """Whether a parameter's shape is spread over the leading axis of `rows`, and the result has the shape of `rows`."""
    if len(parameter) > len(rows):
        return False
    padded = (*[1] * (len(rows) - len(parameter)), *parameter)
    return len(rows) > 0 and padded[0] == 1 and all(one in (1, other) for one, other in zip(padded, rows, strict=True))


def over_units(each: Tensor, shape: Sequence[int], units: int) -> Tensor:
    """Sums (n, *shape) of (R, …) over a unit's rows and over the axes along which the parameter was spread."""
    padded = (*[1] * (each.ndim - len(shape)), *shape)
    spread = [axis for axis in range(1, each.ndim) if padded[axis] == 1 and each.shape[axis] != 1]
    summed = each.sum(spread, keepdim=True) if spread else each
    return summed.reshape(units, -1, *padded[1:]).sum(1).reshape(units, *shape)


def _as(each: Tensor | None, like: Tensor) -> Tensor | None:
    return None if each is None else each.to(like.dtype)
