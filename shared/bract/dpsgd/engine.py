"""Private steps at the level of subjects: Poisson sample, clip each subject, add noise once, divide by a public number.

DP-SGD [Abadi et al. 2016, 1607.00133] with the subject as the unit (user-level sampling, Charles et al. 2024,
2407.07737). The promise per step: the noised sum is a Poisson-subsampled Gaussian mechanism with noise multiplier σ
and rate q, whatever the optimizer makes of it. Nothing else that depends on data leaves: no loss, no count, no norm.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bract.dpsgd.gradients import Batch, ClippedSum, explicit_gradient, subject_gradients
from bract.dpsgd.noise import NoiseSource
from bract.dpsgd.sampler import Sampler
from bract.errors import CANARY, LATE, BractError
from bract.objectives.objective import Objective
from bract.plan import LocalOptimizer
from bract.privacy.spec import PrivacySpec

_CANARIES = 4
_AGREEMENT = 1e-3


class SubjectRecords(Protocol):
    """The admitted subjects of one site, and at most m records of each at a time."""

    def __len__(self) -> int:
        """How many subjects there are. Private: it never enters a denominator."""

    def records(self, indices: NDArray[np.int64], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Records (n, m, …) of these subjects, and which are there (n, m).

        Of a subject with more than m records, m are drawn with the generator. A subject's rows depend on that subject
        alone.
        """


def private_steps(
    objective: Objective,
    subjects: SubjectRecords,
    privacy: PrivacySpec,
    optimizer: LocalOptimizer,
    subjects_floor: int,
    *,
    sampler: Sampler,
    noise: NoiseSource,
    stop: Callable[[], bool] | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Train the objective in place by `privacy.steps` private steps.

    Args:
        objective: its parameters are overwritten.
        subjects: whom to learn from.
        privacy: clip, noise, rate and steps, as reserved in the ledger.
        optimizer: what to do with the noised mean; its state begins anew.
        subjects_floor: N̄, public; the sum is divided by q·N̄, however many subjects there are.
        sampler: the run is private only if this and the noise are.
        noise: see `sampler`.
        stop: asked before each step.
        progress: told the number of steps done.

    Raises:
        BractError: `no-certificate` for modules that mix records; `canary` when the fast gradients of the first step
            disagree with explicit ones; `deadline` when `stop` said so. The objective is then half-trained and must be
            dropped; what was reserved stays spent.
    """
    sums = ClippedSum(objective)
    generator = torch.Generator().manual_seed(int.from_bytes(np.random.default_rng().bytes(7), "little"))
    descent = _optimizer(objective, optimizer)
    canaries_due = True
    for step in range(privacy.steps):
        if stop is not None and stop():
            raise BractError(LATE, f"stopped after {step} of {privacy.steps} steps")
        batch = _draw(objective, subjects, privacy.sampling_rate, sampler, generator)
        if canaries_due and batch is not None:
            check_canaries(objective, synthetic(objective, batch))
            canaries_due = False
        _set_gradient(objective, _noised(sums, batch, privacy, noise) / (privacy.sampling_rate * subjects_floor))
        descent.step()
        if progress is not None:
            progress(step + 1)


def synthetic(objective: Objective, like: Batch) -> Batch:
    """A few invented subjects of the same form. The check looks at no real one: its outcome is seen outside the site."""
    generator = torch.Generator().manual_seed(0)
    count, most = _CANARIES, like.present.shape[1]
    records = torch.rand((count, most, *like.records.shape[2:]), generator=generator)
    present = torch.arange(most) <= torch.arange(count)[:, None]
    masks = objective.draw(count * most, generator)
    return Batch(records, present, masks.reshape(count, most, *masks.shape[1:]))


def check_canaries(objective: Objective, batch: Batch) -> None:
    """Compare a few subjects' gradients with ordinary backward passes over each alone.

    Raises:
        BractError: `canary`, when one differs by more than a thousandth of its norm.
    """
    fast = subject_gradients(objective, batch)
    for position in range(len(batch.records)):
        slow = explicit_gradient(objective, batch.records[position], batch.present[position], batch.masks[position])
        apart = torch.stack([(fast[name][position] - slow[name]).norm() for name in slow]).norm()
        size = torch.stack([gradient.norm() for gradient in slow.values()]).norm()
        if not bool(apart <= _AGREEMENT * size + 1e-12):
            raise BractError(CANARY, "a subject's gradient is not what an explicit computation gives")


def _draw(
    objective: Objective, subjects: SubjectRecords, rate: float, sampler: Sampler, generator: torch.Generator
) -> Batch | None:
    """The subjects of one step, None when the coins chose nobody."""
    chosen = sampler.draw(len(subjects), rate)
    if len(chosen) == 0:
        return None
    records, present = subjects.records(chosen, generator)
    count, most = present.shape
    masks = objective.draw(count * most, generator)
    return Batch(records, present, masks.reshape(count, most, *masks.shape[1:]))


def _noised(sums: ClippedSum, batch: Batch | None, privacy: PrivacySpec, noise: NoiseSource) -> Tensor:
    """The clipped sum plus noise of standard deviation σ·C, float64 (P,); an empty step is noise alone."""
    total = torch.from_numpy(noise.normal(sums.width)) * (privacy.noise_multiplier * privacy.clip)
    return total if batch is None else total + sums.of(batch, privacy.clip)


def _set_gradient(objective: Objective, gradient: Tensor) -> None:
    offset = 0
    for parameter in objective.parameters():
        piece = gradient[offset : offset + parameter.numel()]
        parameter.grad = piece.reshape(parameter.shape).to(parameter.dtype)
        offset += parameter.numel()


def _optimizer(objective: Objective, optimizer: LocalOptimizer) -> torch.optim.Optimizer:
    match optimizer.kind:
        case "adam":
            return torch.optim.Adam(objective.parameters(), lr=optimizer.learning_rate)
        case "sgd":
            return torch.optim.SGD(objective.parameters(), lr=optimizer.learning_rate)
