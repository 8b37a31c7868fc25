"""A model in somebody's training script, as the engine sees it: the forward pass here, the backward pass there.

A script calls its model, makes a loss of the outputs, calls `backward`; the engine wants all three at once. So the pass
is cut in two: `forward` runs the model on the engine's tape, `clipped` reads what autograd left there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from bract.dpsgd.bookkeeping.clipper import BookKeeping
from bract.dpsgd.bookkeeping.tape import Key, Tape
from bract.dpsgd.canary import check_canaries
from bract.dpsgd.clipper import ClippedSum
from bract.errors import NO_CERTIFICATE, BractError
from bract.objectives.batch import Batch
from bract.objectives.objective import Objective

_CANARIES = 4


@dataclass(frozen=True)
class Call:
    """The arguments of one call of the model; tensors whose leading axis has n rows hold a row a sample.

    Attributes:
        args: by position.
        kwargs: by name.
        rows: n.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    rows: int

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> "Call":
        """With the leading axis of the first tensor as samples.

        Raises:
            BractError: `no-certificate`, if there is no tensor with a leading axis.
        """
        for each in _pytree.tree_leaves((args, kwargs)):
            if isinstance(each, Tensor) and each.ndim > 0:
                return cls(args, kwargs, len(each))
        raise BractError(NO_CERTIFICATE, "the model was called without a batch")

    def at(self, positions: Tensor) -> "Call":
        """The call with the samples at these positions (k,) alone."""
        return self._changed(lambda each: each[positions.to(each.device)], len(positions))

    def invented(self, count: int) -> "Call":
        """A call of the same form with samples that nobody has: uniform numbers; of whole numbers, zeros."""
        generator = torch.Generator().manual_seed(0)

        def sample(each: Tensor) -> Tensor:
            shape = (count, *each.shape[1:])
            if not each.is_floating_point():
                return each.new_zeros(shape)
            return torch.rand(shape, generator=generator).to(each.device, each.dtype)

        return self._changed(sample, count)

    def form(self) -> tuple[object, ...]:
        """What a tape depends on: shapes beyond the leading axis, and types."""
        leaves, structure = _pytree.tree_flatten((self.args, dict(self.kwargs)))
        return str(structure), *(
            (*each.shape[1:], each.dtype) if self._sampled(each) else _kind(each) for each in leaves
        )

    def _sampled(self, each: Any) -> bool:
        return isinstance(each, Tensor) and each.ndim > 0 and len(each) == self.rows

    def _changed(self, change: Any, rows: int) -> "Call":
        args, kwargs = _pytree.tree_map(
            lambda each: change(each) if self._sampled(each) else each, (self.args, dict(self.kwargs))
        )
        return Call(args, kwargs, rows)


_NOBODY = Call((), {}, 0)


class Script(Objective):
    """The model of a script on the call it holds; a record is a position in that call.

    Its loss, used by self-checks alone, is a fixed curved function of each sample's outputs: what the script's own
    criterion does with rows of outputs is the script's affair, as it is in Opacus.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.call = _NOBODY

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Positions, one after the other."""
        return torch.arange(count)

    def record_loss(self, records: Tensor, draws: Tensor) -> Tensor:
        """One number a sample (B,)."""
        call = self.call.at(draws.reshape(-1))
        outputs = self.model(*call.args, **call.kwargs)
        found = [_curved(each, call.rows) for each in _pytree.tree_leaves(outputs) if _of_rows(each, call.rows)]
        if not found:
            raise BractError(NO_CERTIFICATE, "the model's outputs have no row a sample")
        return torch.stack(found).sum(0)

    def batch(self) -> Batch:
        """The call's samples as units of one record."""
        positions = torch.arange(self.call.rows)[:, None]
        return Batch(torch.zeros(self.call.rows, 1), torch.ones(self.call.rows, 1, dtype=torch.bool), positions)


class SplitPass(BookKeeping):
    """The engine's one pass in two halves, for calls of one form."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self._script = script

    def forward(self, call: Call) -> "tuple[Any, Pass]":
        """The model's outputs, and the pass that a backward pass will fill."""
        self._script.call = call
        try:
            tape = self._ready(self._script.batch())
        finally:
            self._script.call = _NOBODY
        taps = self._begin(tape, call.rows)
        try:
            with self._watched(tape):
                outputs = self._script.model(*call.args, **call.kwargs)
        finally:
            tape.counting = False
            tape.taps = {}
        return outputs, Pass(self, tape, taps, call.rows)

    def clipped(self, done: "Pass", clip: float, scale: float) -> ClippedSum:
        """The clipped sum of a pass whose backward is done.

        Args:
            done: the pass.
            clip: C.
            scale: what one sample's loss was divided by: n where the script took a mean, else 1.
        """
        kept = self._kept({key: [tap.grad for tap in taps] for key, taps in done.taps.items()})
        totals = self.totals()
        dropped = self._add(done.tape, kept, self._norms(done.tape, kept, done.rows), clip / scale, totals)
        return ClippedSum(tuple(each.mul_(scale) for each in totals.values()), dropped)


@dataclass(frozen=True, eq=False)
class Pass:
    """A forward pass that waits for its backward pass.

    Attributes:
        engine: what made it.
        tape: its layers.
        taps: where autograd leaves what each layer keeps.
        rows: n.
    """

    engine: SplitPass
    tape: Tape
    taps: Mapping[Key, tuple[Tensor, ...]]
    rows: int

    @property
    def used(self) -> bool:
        """Whether a backward pass has come by."""
        return any(tap.grad is not None for taps in self.taps.values() for tap in taps)


def check(script: Script, like: Call, clip: float) -> None:
    """Compare the engine with an explicit loop on invented samples in full precision.

    Raises:
        BractError: `canary`, when they differ: something mixes samples, or the engine gets a layer wrong.
    """
    script.call = like.invented(_CANARIES)
    try:
        with torch.autocast(next(script.parameters()).device.type, enabled=False):
            check_canaries(script, BookKeeping(script, tune=False), script.batch(), clip)
    finally:
        script.call = _NOBODY


def _kind(each: Any) -> object:
    return each if isinstance(each, bool | int | str | None) else type(each).__name__


def _of_rows(each: Any, rows: int) -> bool:
    return isinstance(each, Tensor) and each.is_floating_point() and each.ndim > 0 and len(each) == rows


def _curved(outputs: Tensor, rows: int) -> Tensor:
    """A sum a sample (B,) in which no two outputs have the same part, and which is nowhere flat for long."""
    each = outputs.reshape(rows, -1)
    weights = torch.linspace(0.5, 1.5, each.shape[1], dtype=each.dtype, device=each.device)
    return ((each * weights).sin() + 0.5 * each * weights).sum(1)
