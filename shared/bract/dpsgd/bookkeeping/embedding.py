"""Embeddings, also where their matrix is the output layer's too.

A unit's gradient has row v equal to Σ_{t: token_t = v} g_t, so its squared norm is Σ_ts [token_t = token_s] g_t·g_s.

Tied to a linear layer h → h Wᵀ: the gradients add up, and ‖E + L‖² = ‖E‖² + ‖L‖² + 2⟨E, L⟩ with
⟨E, L⟩ = Σ_ts l_s[token_t] (h_s·g_t), l_s the gradient of the logits at position s.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from bract.dpsgd.bookkeeping.layer import Form, Layer, Squares, tap
from bract.dpsgd.bookkeeping.linear import rounding, widened

MOST_TOKENS = 2**24
"""Token numbers are kept as float32, which has each of them exactly up to here."""


class Embedding(Layer):
    """W (V, d); tokens of any shape."""

    route = "ghost"

    def __init__(self, weight: str, tokens: Form, width: int, dtype: torch.dtype) -> None:
        self.names = (weight,)
        self.tokens, self.width, self.dtype = tokens, width, dtype
        self.positions = tokens.rows
        for size in tokens.rest:
            self.positions *= size

    def taps(self, units: int) -> tuple[Tensor, ...]:
        """Tokens (n, T) and g (n, T, d)."""
        device = self.tokens.device
        shape = (units, self.positions, self.width)
        return tap(shape[:2], torch.float32, device), tap(shape, self.dtype, device)

    def squares(self, kept: Sequence[Tensor], units: int) -> Squares:
        """By comparing all pairs of a unit's tokens."""
        tokens, g = kept[0], widened(kept[1])
        same = tokens[:, :, None] == tokens[:, None, :]
        products = torch.bmm(g, g.transpose(1, 2))
        reach = products.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt().sum(1)
        value = products.mul_(same).flatten(1).sum(1, dtype=torch.float64)
        return Squares(value, reach, rounding(g.dtype, self.width))

    def add(self, kept: Sequence[Tensor], factors: Tensor, totals: Mapping[str, Tensor]) -> None:
        """Each position's gradient is added to its token's row."""
        total = totals[self.names[0]]
        tokens, g = kept
        scaled = g.to(total.dtype) * factors.to(total.dtype)[:, None, None]
        total.index_add_(0, tokens.flatten().long(), scaled.flatten(0, 1))


def tied_squares(embedding: Sequence[Tensor], linear: Sequence[Tensor]) -> Tensor:
    """2⟨E, L⟩ (n,) of an embedding's (tokens, g) and a ghost linear layer's (h, l) with the same matrix."""
    tokens, g = embedding[0].long(), widened(embedding[1])
    h, logits = (widened(each) for each in linear)
    chosen = logits.gather(2, tokens[:, None, :].expand(-1, logits.shape[1], -1))
    return 2 * chosen.mul_(torch.bmm(h, g.transpose(1, 2))).flatten(1).sum(1, dtype=torch.float64)


class EmbeddingStep(Function):
    """y = W[tokens]."""

    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, weight: Tensor, padding: int | None, units: int, kept: Tensor, g: Tensor
    ) -> Tensor:
        ctx.save_for_backward(tokens)
        ctx.padding, ctx.units = padding, units
        return functional.embedding(tokens, weight)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (tokens,) = ctx.saved_tensors
        tokens = tokens.reshape(ctx.units, -1)
        g = g.reshape(ctx.units, tokens.shape[1], -1)
        if ctx.padding is not None:
            g = g.masked_fill((tokens == ctx.padding)[..., None], 0)
        return None, None, None, None, tokens.to(torch.float32), g
