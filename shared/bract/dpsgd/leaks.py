"""State that would carry a subject past the noise: whatever a step leaves in the objective, compared bit for bit.

Two copies take one step, with and without the subject, and are given the same released values. Everything that the
objective holds afterwards must be equal, for it may depend on released values alone.
"""

import copy
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bract.dpsgd.clipper import Engine, trained
from bract.objectives.batch import Batch
from bract.objectives.objective import MomentObjective, Objective

_OWN = frozenset(vars(nn.Module()))
_DEPTH = 6


def state_leaks(
    objective: Objective, clipper: Engine, others: Batch, joined: Batch, probe: Batch, clip: float
) -> tuple[str, ...]:
    """Names of what differs after a step on the others alone and on all, both releasing the same.

    Args:
        objective: under test; it stays as it is.
        clipper: the engine.
        others: units without the added subject.
        joined: the same with it.
        probe: units on which both copies must then have the same losses, bit for bit: this shows state that no
            attribute shows.
        clip: C.
    """
    generator = torch.Generator().manual_seed(7)
    released = [torch.randn(p.shape, generator=generator).to(p) for p in trained(objective).values()]
    width = objective.moment_width if isinstance(objective, MomentObjective) else 0
    moment = torch.randn(width, generator=generator) / max(width, 1)
    kept: list[dict[str, Any]] = []
    told: list[Tensor] = []
    for batch in (others, joined):
        one = copy.deepcopy(objective)
        _step(one, clipper, batch, clip, released, moment)
        kept.append(dict(held(one)))
        with torch.no_grad():
            told.append(one.unit_loss(probe))
    differing = [name for name in sorted({*kept[0], *kept[1]}) if not _equal(*(each.get(name) for each in kept))]
    if not _equal(*told):
        differing.append("losses after the step")
    return tuple(differing)


def held(objective: nn.Module) -> Iterator[tuple[str, Any]]:
    """Everything that a module and its parts hold, by name: parameters, buffers and plain Python attributes."""
    for name, module in objective.named_modules():
        for key, value in vars(module).items():
            if key in ("_parameters", "_buffers") or key not in _OWN:
                yield from _leaves(".".join(part for part in (name, key.removeprefix("_")) if part), value, _DEPTH)


def _step(
    objective: Objective, clipper: Engine, batch: Batch, clip: float, released: list[Tensor], moment: Tensor
) -> None:
    sums = clipper(objective)
    objective.begin()
    if isinstance(objective, MomentObjective):
        with torch.no_grad():
            objective.moment(batch)
        objective.receive(moment.to(next(objective.parameters())))
    sums.clipped_sum(batch, clip)
    with torch.no_grad():
        for parameter, change in zip(trained(objective).values(), released, strict=True):
            parameter.add_(change, alpha=-1e-2)
            parameter.grad = None
    objective.after_step()


def _leaves(name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Tensor):
        yield name, value.detach().cpu().clone()
    elif isinstance(value, torch.Generator):
        yield name, value.get_state()
    elif isinstance(value, np.ndarray):
        yield name, torch.from_numpy(np.array(value)) if value.dtype.kind in "biuf" else value.tobytes()
    elif value is None or isinstance(value, str | bytes | bool | int | float | complex):
        yield name, value
    elif depth and isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(f"{name}.{key}", part, depth - 1)
    elif depth and isinstance(value, list | tuple | deque | set | frozenset):
        yield f"{name}.length", len(value)
        for position, part in enumerate(value):
            yield from _leaves(f"{name}.{position}", part, depth - 1)
    elif depth and hasattr(value, "__dict__") and not isinstance(value, type | nn.Module) and not callable(value):
        yield from _leaves(name, vars(value), depth - 1)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            return False
        return bool(((one == other) | ((one != one) & (other != other))).all())  # noqa: PLR0124 - NaN equals NaN here
    return type(one) is type(other) and bool(one == other)
