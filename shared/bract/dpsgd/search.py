"""The falsifier's search: one objective on many neighbouring data sets, and the furthest that any moved its clipped sum."""

import copy
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bract.dpsgd.adversary import NOT_FINITE, Neighbours, inserted, neighbours, varied
from bract.dpsgd.clipper import Engine
from bract.dpsgd.grouping import grouped
from bract.dpsgd.leaks import state_leaks
from bract.dpsgd.moments import moment_sum
from bract.objectives.batch import Batch
from bract.objectives.objective import GroupObjective, MomentObjective, Objective
from bract.objectives.spec import PrivacyStructure

DECLARED = {
    PrivacyStructure.PER_RECORD: 1.0,
    PrivacyStructure.PER_GROUP: 2.0,
    PrivacyStructure.RELEASED_MOMENT: 1.0,
    PrivacyStructure.NONE: math.inf,
}
"""Δ/C that each structure declares for the clipped sum."""

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
"""What rounding may add to a movement of one."""

_CLIPS = (1e-3, 0.5, 2.0)
_TRIES = 8
_STIR = 0.3


@dataclass(frozen=True)
class Case:
    """One pair of neighbouring data sets, and how far it moved the clipped sum.

    Attributes:
        weights: at the first values, or after a random move.
        crowd: who is there both times.
        added: who is there once.
        clip: C.
        movement: in units of C.
    """

    weights: str
    crowd: str
    added: str
    clip: float
    movement: float


class Search:
    """The cases of one objective, at its first weights and after a random move."""

    def __init__(self, objective: Objective, records: Tensor, made: Engine) -> None:
        self.pristine, self.made = objective, made
        self.objective = copy.deepcopy(objective)
        self.sums = made(self.objective)
        self.pairs: Neighbours = neighbours(objective, records, 1)
        self.generator = torch.Generator().manual_seed(2)
        self.coins = np.random.default_rng(3)
        self.cases: list[Case] = []
        self.moment = 0.0 if isinstance(objective, MomentObjective) else None
        self.leaks: tuple[str, ...] = ()
        self.poisoned = False

    def look(self) -> list[str]:
        """Try everything; what is wrong besides movements and leaks."""
        faults = self._losses_of_others()
        if faults and faults[0].startswith("losses have"):
            self.cases.append(Case("first", "-", "-", 0.0, math.inf))
            return faults
        for weights in ("first", "moved"):
            if weights == "moved":
                self._stir()
            self.objective.begin()
            self._receive()
            for crowd in self.pairs.crowds:
                self._crowd(weights, crowd)
        self._refine(max(self.cases, key=lambda case: case.movement))
        self.leaks = self._leaks()
        if self.poisoned:
            faults.append("a subject whose numbers are not finite moves the sum further than declared")
        return faults

    def _crowd(self, weights: str, crowd: str) -> None:
        """Every stranger at every clip, added at another place each time."""
        others = self.pairs.crowds[crowd]
        units, _ = self._units(others, None, 0)
        for ratio in _CLIPS:
            clip = ratio * self._typical(units)
            before = self.sums.clipped_sum(units, clip).gradients
            for place, (name, added) in enumerate(self.pairs.strangers.items()):
                if name == NOT_FINITE and ratio != _CLIPS[0]:
                    continue
                _, joined = self._units(others, added, place * len(others) // len(self.pairs.strangers))
                moved = _apart(self.sums.clipped_sum(joined, clip).gradients, before) / clip
                if name == NOT_FINITE:
                    self.poisoned |= moved > DECLARED[self.objective.structure] * (1 + TOLERANCE[torch.float32])
                else:
                    self.cases.append(Case(weights, crowd, name, clip, moved))
                if isinstance(self.objective, MomentObjective) and ratio == _CLIPS[0]:
                    apart = moment_sum(self.objective, joined) - moment_sum(self.objective, units)
                    self.moment = max(self.moment or 0.0, _finite(float(apart.norm())))

    def _refine(self, start: Case) -> None:
        """A greedy random walk of the added subject from the worst case so far, at the last weights."""
        others, added = self.pairs.crowds[start.crowd], self.pairs.strangers[start.added]
        units, _ = self._units(others, None, 0)
        before = self.sums.clipped_sum(units, start.clip).gradients
        best = 0.0
        for scale in (0.5, 0.05):
            for _ in range(_TRIES // 2):
                tried = varied(added, scale, self.generator)
                _, joined = self._units(others, tried, len(others) // 2)
                moved = _apart(self.sums.clipped_sum(joined, start.clip).gradients, before) / start.clip
                self.cases.append(replace(start, weights="moved", added=f"{start.added}, searched", movement=moved))
                if moved > best:
                    best, added = moved, tried

    def _units(self, others: Batch, added: Batch | None, place: int) -> tuple[Batch, Batch]:
        """The units without and with the added subject: subjects themselves, or groups of them by frozen coins."""
        joined = others if added is None else inserted(others, added, place)
        if not isinstance(self.objective, GroupObjective):
            return others, joined
        coins: NDArray[np.float64] = 1 - np.random.default_rng(4).random((2, len(others)))
        own = [1 - self.coins.random(), float(self.coins.choice([1e-9, 0.5, 1.0]))]
        both = coins if added is None else np.insert(coins, place, own, axis=1)
        count, capacity = max(2, len(others) // self.objective.group_size), self.objective.group_capacity
        return grouped(others, count, capacity, coins), grouped(joined, count, capacity, both)

    def _typical(self, units: Batch) -> float:
        """The norm of the first unit that has a gradient: clips are chosen around it."""
        for place in range(min(3, len(units))):
            norm = _norm(self.sums.clipped_sum(units.part(place, 1), 1e12).gradients)
            if 0 < norm < math.inf:
                return norm
        return 1.0

    def _stir(self) -> None:
        with torch.no_grad():
            for parameter in self.objective.parameters():
                noise = torch.randn(parameter.shape, generator=self.generator, dtype=torch.float64)
                parameter.add_(_STIR * noise.to(parameter))
        self.objective.after_step()

    def _receive(self) -> None:
        """A released moment, the same for both data sets: the crowd's own mean with noise."""
        if isinstance(self.objective, MomentObjective):
            crowd = self.pairs.crowds["spread"]
            noise = torch.randn(self.objective.moment_width, generator=self.generator, dtype=torch.float64)
            released = moment_sum(self.objective, crowd) / len(crowd) + 0.05 * noise
            self.objective.receive(released.to(next(self.objective.parameters())))

    def _losses_of_others(self) -> list[str]:
        """Losses are one a unit, and the others' stay as they are when a subject is added."""
        looked = copy.deepcopy(self.pristine)
        looked.begin()
        faults: list[str] = []
        for crowd, others in self.pairs.crowds.items():
            for name, added in self.pairs.strangers.items():
                units, joined = self._units(others, added, len(others))
                before, after = (losses_of(looked, each) for each in (units, joined))
                if before.shape != (len(units),) or after.shape != (len(joined),):
                    return [f"losses have the shape {tuple(before.shape)} for {len(units)} units, not one a unit"]
                if isinstance(looked, GroupObjective):
                    same = (units.present == joined.present).flatten(1).all(1) & (
                        (units.records == joined.records).flatten(1).all(1)
                    )
                    before, after = before[same], after[same]
                else:
                    after = after[: len(before)]
                gap = (after - before).abs() / before.abs().clamp(min=1e-9)
                if not bool((gap <= TOLERANCE[before.dtype]).all()):
                    faults.append(f"the losses of others ({crowd}) change when a subject is added ({name})")
        return faults[:1]

    def _leaks(self) -> tuple[str, ...]:
        others = self.pairs.crowds["spread"]
        units, joined = self._units(others, self.pairs.strangers["another"], 0)
        return state_leaks(self.pristine, self.made, units, joined, units, self._typical(units))


def losses_of(objective: Objective, batch: Batch) -> Tensor:
    """One loss a unit, if the objective keeps its contract; no gradient."""
    with torch.no_grad():
        return objective.unit_loss(batch)


def _apart(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> float:
    return _finite(_norm(tuple(a.double() - b.double() for a, b in zip(one, other, strict=True))))


def _norm(gradients: tuple[Tensor, ...]) -> float:
    return float(torch.stack([gradient.double().norm() for gradient in gradients]).norm())


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.inf
