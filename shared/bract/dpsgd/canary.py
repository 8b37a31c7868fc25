"""The self-check of every run: the engine against an explicit loop, on invented subjects, before anything is released."""

import math

import torch
from torch import Tensor

from bract.dpsgd.clipper import Clipper, trained
from bract.dpsgd.vmap import explicit_gradient
from bract.errors import CANARY, BractError
from bract.objectives.batch import Batch
from bract.objectives.objective import Objective

_UNITS = 4
_AGREEMENT = 1e-3


def check_canaries(objective: Objective, clipper: Clipper, like: Batch, clip: float) -> None:
    """Compare sums over a few units with ordinary backward passes over each alone; half of them are clipped.

    A loss that couples units, a layer that the engine gets wrong, a parameter that it misses: each makes the sum
    differ. The units are invented: what a check finds is seen outside the site, so it looks at no real record.

    Args:
        objective: as it is trained.
        clipper: the engine under test.
        like: a batch of the form that the run uses.
        clip: C of the run.

    Raises:
        BractError: `canary`, when the sum differs by more than a thousandth of its norm.
    """
    batch = synthetic(objective, like)
    alone = [explicit_gradient(objective, batch.part(position, 1)) for position in range(len(batch))]
    norms = [_norm(list(gradient.values())) for gradient in alone]
    finite = sorted(norm for norm in norms if math.isfinite(norm))
    if len(finite) < len(norms):
        raise BractError(CANARY, "the gradients of invented subjects are not finite")
    middle = finite[len(finite) // 2 - 1]
    for bound in {clip, max(middle, 1e-12)}:
        found = clipper.clipped_sum(batch, bound).gradients
        factors = [min(1.0, bound / max(norm, 1e-30)) for norm in norms]
        expected = [
            torch.stack([factor * gradient[name] for factor, gradient in zip(factors, alone, strict=True)]).sum(0)
            for name in trained(objective)
        ]
        apart = _norm([one - other for one, other in zip(found, expected, strict=True)])
        largest = max(factor * norm for factor, norm in zip(factors, norms, strict=True))
        if not apart <= _AGREEMENT * max(_norm(expected), largest) + 1e-9 * bound:
            raise BractError(CANARY, "the engine's clipped sum is not what an explicit computation gives")


def synthetic(objective: Objective, like: Batch) -> Batch:
    """A few invented units of the same form, with more and more of their places filled."""
    generator = torch.Generator().manual_seed(0)
    most = like.present.shape[1]
    form = _UNITS, most, *like.records.shape[2:]
    if like.records.is_floating_point():
        records = torch.rand(form, generator=generator).to(like.records.dtype)
    else:  # tokens: the first ones of any vocabulary
        records = torch.randint(0, 2, form, generator=generator).to(like.records.dtype)
    present = torch.arange(most) <= torch.arange(_UNITS)[:, None] * most // _UNITS
    draws = objective.draw(_UNITS * most, generator)
    return Batch(records, present, draws.reshape(_UNITS, most, *draws.shape[1:])).to(
        next(objective.parameters()).device
    )


def _norm(gradients: list[Tensor]) -> float:
    return float(torch.stack([gradient.double().norm() for gradient in gradients]).norm())
