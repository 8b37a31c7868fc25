"""Convolutions in one and two dimensions, grouped too.

A kernel as large as its stride, without padding, is a linear layer over patches and is treated as one (patch embeddings,
1×1 convolutions). For all others each unit's gradient is kept, made by one of three routes that give the same numbers:

    unfold   patches times gradients, one product a group
    grouped  one convolution with the rows as groups
    loop     one convolution a row
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from bract.dpsgd.bookkeeping.layer import Form, StoredLayer

ROUTES = ("unfold", "grouped", "loop")
Pair = tuple[int, int]


class Geometry(NamedTuple):
    """Of a two-dimensional convolution."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1


class Convolution(StoredLayer):
    """W (p, C / groups, kh, kw), and b (p,) if it is trained; inputs (R, C, H, W)."""

    route = "unfold"

    def __init__(
        self, weight: str, bias: str | None, inputs: Form, kernel: tuple[int, ...], geometry: Geometry
    ) -> None:
        one = Form(1, kernel, inputs.dtype, inputs.device)
        forms = [one] if bias is None else [one, Form(1, kernel[:1], inputs.dtype, inputs.device)]
        super().__init__([weight] if bias is None else [weight, bias], forms)
        self.inputs, self.kernel, self.geometry = inputs, kernel, geometry
        if geometry.groups > 1:
            self.route = "grouped"

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None, taps: tuple[Tensor, ...], units: int) -> Tensor:
        """The convolution itself, with its own backward."""
        first, second = (*taps, None)[:2]
        y: Tensor = _Convolution.apply(x, weight, bias, first, second, units, self.route, self.geometry)
        return y


class _Convolution(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        first: Tensor,
        second: Tensor | None,
        units: int,
        route: str,
        geometry: Geometry,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.units, ctx.route, ctx.geometry, ctx.biased = units, route, geometry, second is not None
        return functional.conv2d(x, weight, bias, geometry.stride, geometry.padding, geometry.dilation, geometry.groups)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        back = _back(x, weight, g, ctx.geometry, [True, False, False])[0] if ctx.needs_input_grad[0] else None
        rows = row_gradients(x, g, weight, ctx.geometry, ctx.route)
        each = rows.reshape(ctx.units, -1, *weight.shape).sum(1)
        shift = g.sum((2, 3)).reshape(ctx.units, -1, g.shape[1]).sum(1) if ctx.biased else None
        return back, None, None, each, shift, None, None, None


def row_gradients(x: Tensor, g: Tensor, weight: Tensor, geometry: Geometry, route: str) -> Tensor:
    """The kernel's gradient by each row (R, p, C / groups, kh, kw)."""
    match route:
        case "unfold":
            return _unfolded(x, g, weight, geometry)
        case "grouped":
            return _grouped(x, g, weight, geometry)
        case _:
            only_kernel = [False, True, False]
            one_by_one = [_back(x[i : i + 1], weight, g[i : i + 1], geometry, only_kernel)[1] for i in range(len(x))]
            return torch.stack(one_by_one)


def _unfolded(x: Tensor, g: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    rows, groups = len(x), geometry.groups
    kernel = (weight.shape[2], weight.shape[3])
    patches = functional.unfold(x, kernel, geometry.dilation, geometry.padding, geometry.stride)
    places = patches.shape[2]
    patches = patches.reshape(rows * groups, -1, places)
    found = torch.bmm(g.reshape(rows * groups, -1, places), patches.transpose(1, 2))
    return found.reshape(rows, *weight.shape)


def _grouped(x: Tensor, g: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    rows, groups = len(x), geometry.groups
    wide = x.reshape(1, -1, *x.shape[2:])
    repeated = weight.repeat(rows, 1, 1, 1)
    stretched = geometry._replace(groups=groups * rows)
    found: Tensor = _back(wide, repeated, g.reshape(1, -1, *g.shape[2:]), stretched, [False, True, False])[1]
    return found.reshape(rows, *weight.shape)


def _back(x: Tensor, weight: Tensor, g: Tensor, geometry: Geometry, wanted: list[bool]) -> Any:
    stride, padding, dilation, groups = geometry
    return torch.ops.aten.convolution_backward(
        g, x, weight, None, stride, padding, dilation, False, [0, 0], groups, wanted
    )
