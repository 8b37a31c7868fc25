"""The book-keeping engine: one forward, one backward, exact flat clipping [Bu et al. 2023, 2210.00038].

1. Every trained parameter is replaced by a stand-in that sees each of its uses (`parameter`, `rules`).
2. One backward pass of the sum of all units' losses gives what each layer keeps, and no gradient of any parameter.
3. Squared norms of the layers add up to each unit's norm; factors follow; one product a layer gives Σ_i factor_i·gradient_i.

What holds for the sum that is returned, however badly a unit's numbers behave:

    bound        ‖factor_i · gradient_i‖ ≤ C·(1 + `slack`) in exact arithmetic on the values that are kept. A norm is used as
                 computed if rounding can have lowered its square by at most a part of `slack`, and else its upper bound
                 (`linear` has the proof). Sums of squares are exact to about 10⁻⁴ of themselves and within `slack`.
    not finite   a unit whose norm is not finite (or that has a row above 2³⁰, `linear.LARGEST`) has factor zero, and what is
                 kept of it is set to zero before it meets others: it adds nothing, and so keeps every bound. No layer of
                 ours mixes rows in the forward pass, so a unit's numbers are in its own rows only.
    not covered  the rounding of sums over units: float32 within a physical batch, float64 across them, so about
                 n·C·2⁻²⁴ when a unit shifts all others by a place; and kernels that round a row otherwise in other company.

Fails closed: an operation without a rule, a layer used twice, a parameter without a gradient, a tensor whose leading axis is
not the batch, a loss that is not one number a unit: each is refused with the parameter's name before a step is taken.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from bract.dpsgd.bookkeeping.autotune import autotune
from bract.dpsgd.bookkeeping.embedding import tied_squares
from bract.dpsgd.bookkeeping.layer import Layer
from bract.dpsgd.bookkeeping.linear import Linear
from bract.dpsgd.bookkeeping.parameter import PrivateParameter
from bract.dpsgd.bookkeeping.rules import RuleBook
from bract.dpsgd.bookkeeping.tape import Key, Tape
from bract.dpsgd.clipper import ClippedSum, trained
from bract.dpsgd.modules import check_modules
from bract.errors import NO_CERTIFICATE, BractError
from bract.objectives.batch import Batch
from bract.objectives.objective import Objective

SLACK = 2.0**-7

Kept = dict[Key, tuple[Tensor, ...]]
Losses = Callable[[Batch], Tensor]


class BookKeeping:
    """Clipped sums in about the time of plain training.

    Args:
        objective: what is trained; its modules stay as they are.
        physical: units that pass through the model at a time. Halved when memory does not suffice.
        tune: whether routes are measured; else they follow sizes alone, the same on every machine.
        memory: share of plain training's activations by which quicker routes may raise the peak. At 1 the peak is that of
            plain training on twice the physical batch.
        compiled: whether the pass is compiled (`torch.compile`).
        precision: autocast type of the pass, None for none.
    """

    slack = SLACK

    def __init__(
        self,
        objective: Objective,
        *,
        physical: int = 128,
        tune: bool = True,
        memory: float = 1.0,
        compiled: bool = False,
        precision: torch.dtype | None = None,
    ) -> None:
        check_modules(objective)
        self.objective, self.physical = objective, physical
        self._tune, self._memory, self._precision = tune, memory, precision
        self._parameters = trained(objective)
        self._device = next(iter(self._parameters.values())).device
        self._tape: Tape | None = None
        self._tied: dict[str, Key] = {}
        self.picks: dict[str, str] = {}
        self._losses: Losses = torch.compile(self._forward) if compiled else self._forward

    def clipped_sum(self, batch: Batch, clip: float) -> ClippedSum:
        """See `Clipper`."""
        whole: dict[str, Tensor] = {}
        totals: dict[str, Tensor] = {}
        dropped, start = 0, 0
        while start < len(batch):
            part = batch.part(start, min(self.physical, _rounded(len(batch) - start, self.physical))).to(self._device)
            try:
                tape = self._ready(part)
                kept = self._pass(tape, part)
                norms = self._norms(tape, kept, len(part))
            except RuntimeError as error:
                if not _out_of_memory(error) or self.physical == 1:
                    raise
                self.physical = max(1, self.physical // 2)
                continue
            totals = self.totals()
            dropped += self._add(tape, kept, norms, clip, totals, ~part.present.any(1))
            start += len(part)
            if start < len(batch) or whole:
                whole = {name: total + whole.get(name, 0.0) for name, total in _double(totals).items()}
        return ClippedSum(tuple((whole or totals or self.totals()).values()), dropped)

    def totals(self) -> dict[str, Tensor]:
        """Zeros in the form of the parameters, at least float32."""
        return {
            name: torch.zeros(p.shape, dtype=_wide(p.dtype), device=p.device) for name, p in self._parameters.items()
        }

    @torch.no_grad()
    def _add(
        self,
        tape: Tape,
        kept: Kept,
        norms: Tensor,
        clip: float,
        totals: dict[str, Tensor],
        absent: Tensor | None = None,
    ) -> int:
        """Add what is kept of one pass, clipped, to the totals; how many units were not finite.

        Args:
            tape: the pass.
            kept: what its layers kept; emptied.
            norms: of the units.
            clip: C.
            totals: changed in place.
            absent: units that only fill up the batch, and add nothing.
        """
        absent = torch.zeros_like(norms, dtype=torch.bool) if absent is None else absent
        bad = ~torch.isfinite(norms)
        dropped = int((bad & ~absent).sum())
        without = bad | absent
        factors = torch.where(without, 0.0, clip / norms.clamp(min=clip))
        clear = bool(bad.any())
        with _exact(self._device):
            for key in list(kept):
                layer = tape.layers[key]
                each = kept.pop(key)
                layer.add(layer.clear(each, without) if clear else each, factors, totals)
        return dropped

    def _pass(self, tape: Tape, batch: Batch) -> Kept:
        """What every layer keeps of one forward and one backward pass."""
        taps = self._begin(tape, len(batch))
        with self._watched(tape), self._without_gradients(), torch.enable_grad():
            losses = self._losses(batch)
            tape.counting = False  # checkpointed blocks run again in the backward pass
            if losses.shape != (len(batch),):
                raise BractError(NO_CERTIFICATE, f"the loss has shape {tuple(losses.shape)}, not one value a unit")
            flat = [tap for each in taps.values() for tap in each]
            asked = [*flat, *self._parameters.values()]
            results = torch.autograd.grad(losses.sum(), asked, allow_unused=True)
        tape.taps = {}
        for name, raw in zip(self._parameters, results[len(flat) :], strict=True):
            if raw is not None:
                raise BractError(NO_CERTIFICATE, f"{name}: it is used behind the engine's back")
        found = iter(results)
        return self._kept({key: [next(found) for _ in each] for key, each in taps.items()})

    def _begin(self, tape: Tape, units: int) -> Mapping[Key, tuple[Tensor, ...]]:
        """New taps for a pass of so many units."""
        tape.units, tape.uses, tape.counting = units, {}, True
        tape.taps = {key: layer.taps(units) for key, layer in tape.layers.items()}
        return tape.taps

    def _kept(self, found: Mapping[Key, Sequence[Tensor | None]]) -> Kept:
        """What autograd left at the taps, all of it there."""
        for key, values in found.items():
            if any(value is None for value in values):
                raise BractError(NO_CERTIFICATE, f"{key[0]}: it takes no part in the loss")
        return {key: tuple(value for value in values if value is not None) for key, values in found.items()}

    @contextmanager
    def _without_gradients(self) -> Iterator[None]:
        """No parameter has a gradient before the pass, and none may have one after it; what was there comes back."""
        before = {name: parameter.grad for name, parameter in self._parameters.items()}
        for parameter in self._parameters.values():
            parameter.grad = None
        try:
            yield
            for name, parameter in self._parameters.items():
                if parameter.grad is not None:
                    raise BractError(NO_CERTIFICATE, f"{name}: a gradient that is not clipped reached it")
        finally:
            for name, parameter in self._parameters.items():
                parameter.grad = before[name]

    @torch.no_grad()
    def _norms(self, tape: Tape, kept: Kept, units: int) -> Tensor:
        """Norms of the units' gradients (n,), or bounds from above where rounding leaves them open."""
        with _exact(self._device):
            return self._bounds(tape, kept, units)

    def _bounds(self, tape: Tape, kept: Kept, units: int) -> Tensor:
        value = torch.zeros(units, dtype=torch.float64, device=self._device)
        error = torch.zeros_like(value)
        reaches: dict[str, tuple[Tensor, float]] = {}
        for key, each in kept.items():
            squares = tape.layers[key].squares(each, units)
            value += squares.value
            if squares.reach is not None:
                before, eta = reaches.get(key[0], (0.0, 0.0))
                reaches[key[0]] = before + squares.reach.double(), max(eta, squares.rounding)
        for name, key in self._tied.items():
            value += tied_squares(kept[key], kept[name, "linear"])
        for reach, eta in reaches.values():
            error += eta * reach.square()
        open_ = (error - SLACK * value.clamp(min=0)).clamp(min=0)
        return (value.clamp(min=0) + open_).sqrt()

    def _ready(self, batch: Batch) -> Tape:
        """The tape with its layers; made at the first batch."""
        if self._tape is None:
            tape = self._recorded(batch, 3)
            small = self._recorded(batch, 2)
            if {key: _forms(layer) for key, layer in tape.layers.items()} != {
                key: _forms(layer) for key, layer in small.layers.items()
            }:
                raise BractError(NO_CERTIFICATE, "a layer's rows do not grow with the batch")
            self._check_uses(tape)
            self._route(tape, batch)
            self._tape = tape
        return self._tape

    def _recorded(self, batch: Batch, units: int) -> Tape:
        """Run a few units without gradients and note each use of a parameter; a compiled model runs as it was written."""
        tape = Tape(units, batch.present.shape[1])
        with torch.compiler.set_stance("force_eager"), self._watched(tape), torch.no_grad():
            losses = self._forward(batch.part(0, units))
        if losses.shape != (units,):
            raise BractError(NO_CERTIFICATE, f"the loss has shape {tuple(losses.shape)}, not one value a unit")
        tape.recording = False
        return tape

    def _check_uses(self, tape: Tape) -> None:
        """Every parameter is used, and once: but a matrix may be embedding and output layer."""
        uses: dict[str, list[Key]] = {name: [] for name in self._parameters}
        for key, layer in tape.layers.items():
            for name in layer.names:
                uses[name].append(key)
        for name, keys in uses.items():
            if not keys:
                raise BractError(NO_CERTIFICATE, f"{name}: it takes no part in the loss")
            if len(keys) == 2 and {kind for _, kind in keys} == {"embedding", "linear"}:
                self._tied[name] = (name, "embedding")
            elif len(keys) > 1:
                raise BractError(NO_CERTIFICATE, f"{name}: it is used twice in one step")

    def _route(self, tape: Tape, batch: Batch) -> None:
        units = self.physical
        linear = {key[0]: layer for key, layer in tape.layers.items() if key[1] in ("linear", "convolution")}
        for layer in linear.values():
            if isinstance(layer, Linear) and (self._tune or layer.names[0] in self._tied):
                layer.route = "ghost"
        if self._tune:
            self.picks = autotune(linear, units, self._room(batch, linear), frozenset(self._tied))
        else:
            self.picks = {name: layer.route for name, layer in linear.items()}

    def _room(self, batch: Batch, layers: Mapping[str, Layer]) -> int:
        """Bytes that direct routes may keep beyond ghost ones without raising the peak by more than the share allowed.

        While the backward pass goes from the last layer to the first, activations are freed and what is kept grows. So the
        peak stays where it is without privacy, before the first gradient, as long as all that is kept fits into the place
        of all activations.
        """
        few = 2
        seen: dict[int, int] = {}
        own = {parameter.untyped_storage().data_ptr() for parameter in self.objective.parameters()}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        with self._without_gradients(), torch.enable_grad(), hooks:
            self._forward(batch.part(0, few))
        activations = sum(seen.values()) * self.physical // few
        taps = (tap for layer in layers.values() for tap in layer.taps(self.physical))
        kept = sum(tap.numel() * tap.element_size() for tap in taps)
        return int((1 + self._memory) * activations) - kept

    def _forward(self, batch: Batch) -> Tensor:
        if self._precision is None:
            return self.objective.unit_loss(batch)
        with torch.autocast(self._device.type, self._precision):
            return self.objective.unit_loss(batch).float()

    @contextmanager
    def _watched(self, tape: Tape) -> Iterator[None]:
        """The objective with stand-ins in the place of its trained parameters."""
        stand_ins = {id(p): PrivateParameter.of(p, name, RuleBook(tape)) for name, p in self._parameters.items()}
        places: list[tuple[Any, str, Any]] = []
        for module in self.objective.modules():
            for key, parameter in module._parameters.items():
                if id(parameter) in stand_ins:
                    places.append((module._parameters, key, parameter))
        try:
            for home, key, parameter in places:
                home[key] = stand_ins[id(parameter)]
            yield
        finally:
            for home, key, parameter in places:
                home[key] = parameter


@contextmanager
def _exact(device: torch.device) -> Iterator[None]:
    """Products in full precision, whatever the caller allows: the error bounds of norms rest on it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _double(totals: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: total.double() for name, total in totals.items()}


def _forms(layer: Layer) -> list[tuple[int, ...]]:
    """Shapes of what a layer keeps of one unit."""
    return [tuple(tap.shape) for tap in layer.taps(1)]


def _rounded(units: int, physical: int) -> int:
    """The last batch of a step is filled up to a multiple of an eighth, so that few shapes are ever seen."""
    eighth = max(1, physical // 8)
    return -(-units // eighth) * eighth


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
