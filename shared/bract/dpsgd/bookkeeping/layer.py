"""What a layer with trained parameters keeps of one pass, and what norms and sums are made of it.

A unit's gradient is never formed unless that is cheaper. Every layer is handed *taps*: zeros of the right shape that
take no part in the computation, and whose "gradients" are whatever the layer's backward says. So autograd itself
returns what is kept; nothing is written to by the way, and the pass compiles.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDING = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
"""Unit roundoff of the types that norms are computed in."""

_BLOCK = 4096


@dataclass(frozen=True)
class Form:
    """The form of a tensor whose leading axis is rows, those of a unit side by side.

    Attributes:
        rows: rows a unit.
        rest: the other axes.
        dtype: its type.
        device: where it is.
    """

    rows: int
    rest: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor, units: int) -> "Form | None":
        """The form of a tensor; None if its leading axis is not the same number of rows for each unit."""
        if tensor.ndim == 0 or tensor.shape[0] == 0 or tensor.shape[0] % units:
            return None
        return cls(tensor.shape[0] // units, tuple(tensor.shape[1:]), tensor.dtype, tensor.device)

    def tap(self, units: int) -> Tensor:
        """Zeros of this form that hold no memory."""
        return tap((self.rows * units, *self.rest), self.dtype, self.device)


@dataclass(frozen=True)
class Squares:
    """Squared norms of units, and how far rounding can have moved them.

    Attributes:
        value: (n,), as computed.
        reach: (n,), Σ_t ‖x_t‖‖g_t‖ where the value is a sum of products of inner products; None where it is a sum of
            squares, which rounding moves by a negligible part of itself.
        rounding: η; the value is within η·reach² of the true one.
    """

    value: Tensor
    reach: Tensor | None = None
    rounding: float = 0.0


class Layer(ABC):
    """One use of trained parameters.

    Attributes:
        names: the parameters, in the order in which the layer treats them.
        route: how it computes norms; what autotune picks.
    """

    names: tuple[str, ...]
    route: str = "stored"

    @abstractmethod
    def taps(self, units: int) -> tuple[Tensor, ...]:
        """Zeros in the form of what is kept."""

    @abstractmethod
    def squares(self, kept: Sequence[Tensor], units: int) -> Squares:
        """Squared norms of the units' gradients by this layer."""

    @abstractmethod
    def add(self, kept: Sequence[Tensor], factors: Tensor, totals: Mapping[str, Tensor]) -> None:
        """Add Σ_i factor_i · gradient_i to the totals of its parameters, in place. Factors (n,) may be zero."""

    def clear(self, kept: Sequence[Tensor], units: Tensor) -> tuple[Tensor, ...]:
        """What is kept, with those units (n,) that are not usable set to zero."""
        return tuple(zeroed(each, units) for each in kept)


class StoredLayer(Layer):
    """Keeps each unit's whole gradient: right for biases, scales, and wherever it is small against the activations."""

    def __init__(self, names: Sequence[str], shapes: Sequence[Form]) -> None:
        self.names, self.forms = tuple(names), tuple(shapes)

    def taps(self, units: int) -> tuple[Tensor, ...]:
        """One a parameter: (n·rows, …)."""
        return tuple(form.tap(units) for form in self.forms)

    def squares(self, kept: Sequence[Tensor], units: int) -> Squares:
        """Sums of squares, in blocks, so that float32 does not drift."""
        return Squares(torch.stack([square_norms(over_rows(each, units)) for each in kept]).sum(0))

    def add(self, kept: Sequence[Tensor], factors: Tensor, totals: Mapping[str, Tensor]) -> None:
        """A product of the factors with the matrix of gradients."""
        for name, each in zip(self.names, kept, strict=True):
            total = totals[name].view(-1)
            measured = over_rows(each, len(factors)).reshape(len(factors), -1)  # the very numbers whose norm was taken
            total.addmv_(measured.to(total.dtype).T, factors.to(total.dtype))


class RowsLayer(StoredLayer):
    """A parameter with leading axis 1, of which each row of the batch has a copy of its own."""

    route = "rows"

    def __init__(self, name: str, parameter: Tensor, rows: int) -> None:
        super().__init__([name], [Form(rows, tuple(parameter.shape[1:]), parameter.dtype, parameter.device)])
        self._parameter = parameter.detach()

    def taps(self, units: int) -> tuple[Tensor, ...]:
        """The copies (n·rows, …): they share the parameter's memory."""
        form = self.forms[0]
        return (self._parameter.expand(units * form.rows, *form.rest).requires_grad_(),)


def tap(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros of a shape that hold no memory, and of which autograd asks a gradient."""
    return torch.zeros((), dtype=dtype, device=device).expand(tuple(shape)).requires_grad_()


def over_rows(each: Tensor, units: int) -> Tensor:
    """Sums (n, …) over each unit's rows of (n·rows, …)."""
    return each if len(each) == units else each.reshape(units, -1, *each.shape[1:]).sum(1)


def square_norms(each: Tensor) -> Tensor:
    """‖·‖² a unit (n,) of (n, …): at least float32, summed in blocks of 4,096 and then in float64."""
    flat = each.reshape(len(each), -1)
    wide = torch.promote_types(flat.dtype, torch.float32)
    blocks = [
        torch.linalg.vector_norm(flat[:, start : start + _BLOCK], dim=1, dtype=wide).double().square()
        for start in range(0, flat.shape[1], _BLOCK)
    ]
    total: Tensor = blocks[0] if len(blocks) == 1 else torch.stack(blocks).sum(0)
    return total


def zeroed(each: Tensor, units: Tensor) -> Tensor:
    """A tensor with the rows of the marked units (n,) set to zero, whatever stood there."""
    rows = units.repeat_interleave(len(each) // len(units))
    return each.masked_fill(rows.reshape(-1, *[1] * (each.ndim - 1)), 0)
