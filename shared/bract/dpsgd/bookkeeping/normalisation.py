"""LayerNorm and GroupNorm: the gradients of their scales and shifts are small, so each unit's are kept."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


class LayerNormStep(Function):
    """y = normalised x · w + b; either may be missing, the shift only together with its tap."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        shape: tuple[int, ...],
        weight: Tensor,
        bias: Tensor | None,
        eps: float,
        units: int,
        scale: Tensor,
        shift: Tensor | None,
    ) -> Tensor:
        y, mean, rstd = torch.native_layer_norm(x, shape, weight, bias, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.bias, ctx.shape, ctx.units = bias is not None, shape, units
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight, mean, rstd = ctx.saved_tensors
        g = g.contiguous()
        back = None
        if ctx.needs_input_grad[0]:
            only_input = [True, False, False]
            back = torch.ops.aten.native_layer_norm_backward(g, x, ctx.shape, mean, rstd, weight, None, only_input)[0]
        scale, shift = layer_norm_gradients(x, g, mean, rstd, ctx.units)
        shape = (ctx.units, *ctx.shape)
        return back, None, None, None, None, None, scale.reshape(shape), shift.reshape(shape) if ctx.bias else None


def layer_norm_gradients(x: Tensor, g: Tensor, mean: Tensor, rstd: Tensor, units: int) -> tuple[Tensor, Tensor]:
    """Each unit's gradients (n, d) of scale and shift.

    Σ_t g_t (x_t − m_t) r_t = Σ_t r_t (g_t x_t) − Σ_t m_t r_t g_t, with the sums over t as products of small matrices: the
    gradient is read twice, not five times.
    """
    r = rstd.reshape(units, 1, -1)
    g = g.reshape(units, r.shape[2], -1)
    sums = torch.bmm(torch.cat([mean.reshape(units, 1, -1) * r, torch.ones_like(r)], 1), g)
    return torch.bmm(r, g * x.reshape(g.shape))[:, 0] - sums[:, 0], sums[:, 1]


class GroupNormStep(Function):
    """y = x normalised over groups of channels · w + b, x (R, C, …)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        groups: int,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        units: int,
        scale: Tensor,
        shift: Tensor,
    ) -> Tensor:
        rows, channels = x.shape[:2]
        x = x.contiguous()
        y, mean, rstd = torch.native_group_norm(x, weight, bias, rows, channels, x[0, 0].numel(), groups, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.groups, ctx.units = groups, units
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight, mean, rstd = ctx.saved_tensors
        rows, channels = x.shape[:2]
        g = g.contiguous()
        back = None
        if ctx.needs_input_grad[0]:
            back = torch.ops.aten.native_group_norm_backward(
                g, x, mean, rstd, weight, rows, channels, x[0, 0].numel(), ctx.groups, [True, False, False]
            )[0]
        grouped = x.reshape(rows, ctx.groups, -1)
        normal = (grouped - mean[..., None]).mul_(rstd[..., None]).reshape(rows, channels, -1)
        flat = g.reshape(rows, channels, -1)
        scale = normal.mul_(flat).sum(2).reshape(ctx.units, -1, channels).sum(1)
        shift = flat.sum(2).reshape(ctx.units, -1, channels).sum(1)
        return back, None, None, None, None, None, scale, shift
