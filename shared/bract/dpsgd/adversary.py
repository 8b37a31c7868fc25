"""Whom the falsifier adds to which crowd: the neighbouring data sets that break wrong objectives.

Near-duplicates make all gradients point one way, so that a coupled loss turns them all at once; a spread crowd has room
to be moved; subjects of unequal size show private denominators.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from bract.objectives.batch import Batch
from bract.objectives.objective import GroupObjective, Objective

_OTHERS = 15
_IN_GROUPS = 24
_PLACES = 2
_NEAR = 1e-2

NOT_FINITE = "not a number"
"""The stranger whose gradient is not finite: it must add nothing and spoil nobody's."""


@dataclass(frozen=True)
class Neighbours:
    """Crowds of n subjects, and strangers of one subject each, by name; all with the same number of places."""

    crowds: dict[str, Batch]
    strangers: dict[str, Batch]


def neighbours(objective: Objective, records: Tensor, seed: int) -> Neighbours:
    """Data sets for an objective, made of example records (N, …) of its encoder.

    Every record's draws are its own and stay with it, whoever else is there.
    """
    generator = torch.Generator().manual_seed(seed)
    places, others = (1, _IN_GROUPS) if isinstance(objective, GroupObjective) else (_PLACES, _OTHERS)

    def batch(rows: Tensor, filled: int, alike: bool = False) -> Batch:
        present = torch.zeros(rows.shape[:2], dtype=torch.bool)
        present[:, :filled] = True
        draws = objective.draw(1 if alike else present.numel(), generator)
        if draws.is_floating_point():
            draws = draws.to(next(objective.parameters()).dtype)
        draws = draws.expand(present.numel(), *draws.shape[1:]).clone()
        return Batch(rows, present, draws.reshape(*present.shape, *draws.shape[1:]))

    # one more here than there, so that a physical batch of a power of two is once filled and once overflows
    spread = _some(records, (others + 1, places), generator)
    close = _near(records[:1].expand(others * places, *records.shape[1:]), generator)
    close = close.reshape(others, places, *records.shape[1:])
    crowds = {
        "spread": batch(spread, places),
        "near-duplicates": batch(close, places),
        # their draws are alike too: a bound that needs luck in the draws is none
        "twins of one record": batch(close, 1, alike=True),
    }
    added = {name: one.expand(places, *one.shape)[None] for name, one in _strangers(records, generator).items()}
    return Neighbours(crowds, {name: batch(one, places) for name, one in added.items()})


def varied(added: Batch, scale: float, generator: torch.Generator) -> Batch:
    """The same subject with its records moved at random: one try of a search."""
    records = added.records
    if not records.is_floating_point():
        return added
    size = records.abs().amax().clamp(min=1)
    moved = records + scale * size * torch.randn(records.shape, generator=generator, dtype=torch.float64).to(records)
    return Batch(moved, added.present, added.draws)


def inserted(others: Batch, added: Batch, place: int) -> Batch:
    """The others in their order, with the added subject before the one at `place`."""
    return Batch.join([others.part(0, place), added, others.part(place, len(others) - place)])


def _strangers(records: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    one, last = records[0], records[-1]
    if not records.is_floating_point():
        top = torch.full_like(one, int(records.max()))
        return {"duplicate": one, "another": last, "zeros": torch.zeros_like(one), "largest": top}
    return {
        "duplicate": one,
        "antipode": -one,
        "outlier": 100 * torch.randn(one.shape, generator=generator, dtype=torch.float64).to(one) + 7,
        "zeros": torch.zeros_like(one),
        "another": last,
        NOT_FINITE: torch.full_like(one, torch.nan),
    }


def _some(records: Tensor, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    return records[torch.randint(len(records), shape, generator=generator)]


def _near(records: Tensor, generator: torch.Generator) -> Tensor:
    if not records.is_floating_point():
        return records.clone()
    return records + _NEAR * torch.randn(records.shape, generator=generator, dtype=torch.float64).to(records)
