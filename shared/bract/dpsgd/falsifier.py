"""The falsifier: tries to catch an objective whose sum moves further than declared when one subject is added.

It can refute a bound and never prove one. It runs the engine that trains, on neighbouring data sets with common random
numbers: every draw and coin belongs to a subject and stays with it, so what moves is the added subject's influence alone.

    per-record       the clipped sum may move by C
    per-group        the coins of all others are frozen, the added subject has its own: by 2C
    released-moment  the sum of moments may move by 1, and the clipped sum, given the same released moment, by C

It computes in double precision where the objective can, so that rounding neither hides nor feigns a movement. What it
looks for besides: losses of others that change, state that would outlive the step, and the run's own self-check.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bract.dpsgd.adversary import neighbours
from bract.dpsgd.canary import check_canaries
from bract.dpsgd.clipper import Engine, engine
from bract.dpsgd.grouping import grouped
from bract.dpsgd.moments import moment_sum
from bract.dpsgd.search import DECLARED, TOLERANCE, Case, Search, losses_of
from bract.errors import CANARY, NO_CERTIFICATE, BractError
from bract.objectives.objective import GroupObjective, MomentObjective, Objective
from bract.objectives.spec import PrivacyStructure

Verdict = Literal["holds", "broken", "no DP guarantee"]


@dataclass(frozen=True)
class Report:
    """What the falsifier found.

    Attributes:
        kind: the objective's name.
        structure: what it declares.
        declared: Δ/C of that structure; infinite where none is declared.
        measured: the largest movement found, in units of C.
        moment: the largest movement of the sum of moments; None where none is released.
        state_leaks: what is left in the objective after a step and depends on the added subject.
        faults: whatever else is wrong, each in a sentence.
        precision: `float64`, or `float32` for an objective that cannot do otherwise.
        tried: how many pairs.
        worst: the five pairs that moved it most.
        verdict: `broken` if any of this contradicts the declaration.
    """

    kind: str
    structure: PrivacyStructure
    declared: float
    measured: float
    moment: float | None
    state_leaks: tuple[str, ...]
    faults: tuple[str, ...]
    precision: str
    tried: int
    worst: tuple[Case, ...]
    verdict: Verdict


def falsify(objective: Objective, records: Tensor, *, kind: str = "", clipper: Engine | None = None) -> Report:
    """Try to break an objective's declaration; it stays as it was.

    Args:
        objective: under test, on the CPU.
        records: examples (N, …) of what its encoder takes, two at least.
        kind: its name in the report.
        clipper: the engine; by default the one that trains.
    """
    made = clipper or engine()
    name = kind or type(objective).__name__
    structure = objective.structure
    precise, data = _precise(objective, records)
    precision = next(precise.parameters()).dtype
    try:
        faults = _self_check(objective, records, made)
        search = Search(precise, data, made)
        faults += search.look()
    except BractError as error:
        if error.code not in {NO_CERTIFICATE, CANARY}:
            raise
        return _refused(name, structure, precision, error)
    cases = sorted(search.cases, key=lambda case: -case.movement)
    allowed = 1 + TOLERANCE[precision] + (0.0 if precision is torch.float64 else search.sums.slack)
    declared = DECLARED[structure]
    moved = cases[0].movement > declared * allowed or (search.moment or 0.0) > allowed
    verdict: Verdict = "broken" if moved or faults or search.leaks else "holds"
    return Report(
        kind=name,
        structure=structure,
        declared=declared,
        measured=cases[0].movement,
        moment=search.moment,
        state_leaks=search.leaks,
        faults=tuple(faults),
        precision=str(precision).removeprefix("torch."),
        tried=len(cases),
        worst=tuple(cases[:5]),
        verdict="no DP guarantee" if structure is PrivacyStructure.NONE else verdict,
    )


def _self_check(objective: Objective, records: Tensor, made: Engine) -> list[str]:
    """What the self-check of a run says, in the precision of a run."""
    checked = copy.deepcopy(objective)
    like = neighbours(checked, records, 1).crowds["spread"]
    if isinstance(checked, GroupObjective):
        uniforms = 1 - np.random.default_rng(4).random((2, len(like)))
        like = grouped(like, max(1, len(like) // checked.group_size), checked.group_capacity, uniforms)
    try:
        checked.begin()
        check_canaries(checked, made(checked), like, 1.0)
    except BractError as error:
        if error.code != CANARY:
            raise
        return [f"a run's own self-check stops it: {error.detail}"]
    return []


def _refused(kind: str, structure: PrivacyStructure, precision: torch.dtype, error: BractError) -> Report:
    """The engine would not run it at all."""
    nothing = Report(kind, structure, DECLARED[structure], math.inf, None, (), (), "", 0, (), "broken")
    words = (f"the engine refuses it: {error.detail or error.cause}",)
    return replace(nothing, faults=words, precision=str(precision).removeprefix("torch."))


def _precise(objective: Objective, records: Tensor) -> tuple[Objective, Tensor]:
    """A copy in double precision, and records likewise; as they are if the objective has constants of its own kind."""
    doubled = copy.deepcopy(objective).double()
    data = records.double() if records.is_floating_point() else records
    try:
        doubled.begin()
        crowd = neighbours(doubled, data, 1).crowds["spread"]
        if isinstance(doubled, MomentObjective):
            doubled.receive(moment_sum(doubled, crowd))
        if not isinstance(doubled, GroupObjective):
            losses_of(doubled, crowd)
    except RuntimeError:
        return copy.deepcopy(objective), records
    return doubled, data


def pairs_of(report: Report) -> Iterator[tuple[str, str]]:
    """The report's lines for people: what was looked at, and what was found."""
    yield "declared Δ/C", f"{report.declared:g} ({report.structure})"
    yield "measured Δ/C", f"{report.measured:.6f} over {report.tried} pairs in {report.precision}"
    if report.moment is not None:
        yield "moment's Δ", f"{report.moment:.6f} (declared 1)"
    for case in report.worst[:1]:
        words = f"{case.added} added to {case.crowd}, weights {case.weights}, C = {case.clip:.3g}"
        yield "worst case", words
    for leak in report.state_leaks:
        yield "state leak", leak
    for fault in report.faults:
        yield "fault", fault
