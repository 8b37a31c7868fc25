"""Private steps at the level of subjects: Poisson sample, clip each unit, add noise once, divide by a public number.

DP-SGD [Abadi et al. 2016, 1607.00133] with the subject as the unit (user-level sampling, Charles et al. 2024,
2407.07737). The promise per step: what is released is one Poisson-subsampled Gaussian mechanism with noise multiplier
σ and rate q (`bract.dpsgd.scales` proves it for each structure), whatever the optimizer makes of it. Nothing else that
depends on data leaves: no loss, no count, no norm.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bract.dpsgd.canary import check_canaries
from bract.dpsgd.clipper import Clipper, Engine, engine, trained
from bract.dpsgd.draws import rekey
from bract.dpsgd.grouping import grouped, groups
from bract.dpsgd.moments import moment_sum
from bract.dpsgd.noise import NoiseSource
from bract.dpsgd.sampler import Sampler
from bract.dpsgd.scales import Scales, scales
from bract.errors import LATE, MALFORMED, BractError
from bract.objectives.batch import Batch
from bract.objectives.objective import GroupObjective, MomentObjective, Objective
from bract.plan import LocalOptimizer
from bract.privacy.spec import PrivacySpec

_BLOCK = 1 << 16  # numbers in float64 at a time: half a megabyte stays in the cache


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
    clipper: Engine | None = None,
    stop: Callable[[], bool] | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Train the objective in place by `privacy.steps` private steps; how many units' gradients were not finite.

    Args:
        objective: its parameters are overwritten.
        subjects: whom to learn from.
        privacy: clip, noise, rate and steps, as reserved in the ledger.
        optimizer: what to do with the noised mean; its state begins anew.
        subjects_floor: N̄, public; the sum is divided by q·N̄, however many subjects there are.
        sampler: the run is private only if this and the noise are.
        noise: see `sampler`.
        clipper: the engine; book-keeping by default, which repeats itself to the bit if the sampler does.
        stop: asked before each step.
        progress: told the number of steps done.

    Raises:
        BractError: `malformed` for a spec that is not private, or δ ≥ 1/N̄; `no-certificate` for a model or structure
            without a bound; `canary` when the engine's gradients disagree with explicit ones; `deadline` when `stop`
            said so. The objective is then half-trained and must be dropped; what was reserved stays spent.
    """
    privacy.check(subjects_floor)
    run = _Run(objective, privacy, subjects_floor, sampler, noise, clipper or engine(tune=sampler.private))
    descent = _optimizer(objective, optimizer)
    objective.begin()
    for step in range(privacy.steps):
        if stop is not None and stop():
            raise BractError(LATE, f"stopped after {step} of {privacy.steps} steps")
        run.set_gradients(run.draw(subjects))
        descent.step()
        objective.after_step()
        if progress is not None:
            progress(step + 1)
    return run.dropped


class _Run:
    """What stays the same from step to step."""

    def __init__(
        self,
        objective: Objective,
        privacy: PrivacySpec,
        subjects_floor: int,
        sampler: Sampler,
        noise: NoiseSource,
        clipper: Engine,
    ) -> None:
        self.objective, self.privacy = objective, privacy
        self.sampler, self.noise = sampler, noise
        self.clipper: Clipper = clipper(objective)
        ratio = objective.moment_noise if isinstance(objective, MomentObjective) else 0.0
        bound = privacy.clip * (1 + self.clipper.slack)
        self.scales: Scales = scales(objective.structure, privacy.noise_multiplier, bound, ratio)
        self.expected = privacy.sampling_rate * subjects_floor
        self.groups = 0
        if isinstance(objective, GroupObjective):
            if privacy.records_per_subject != 1 or privacy.views_per_record != 1:
                raise BractError(MALFORMED, "privacy: an objective over groups takes one record and one view a subject")
            self.groups = groups(privacy.sampling_rate, subjects_floor, objective.group_size)
        self.generator = torch.Generator()
        self.device = next(objective.parameters()).device
        self.dropped = 0
        self._checked = False

    def draw(self, subjects: SubjectRecords) -> Batch | None:
        """The units of one step, None when the coins chose nobody."""
        rekey(self.generator, self.sampler)
        chosen = self.sampler.draw(len(subjects), self.privacy.sampling_rate)
        if len(chosen) == 0:
            return None
        records, present = subjects.records(chosen, self.generator)
        batch = self._with_draws(records, present)
        if isinstance(self.objective, GroupObjective):
            coins = self.sampler.uniforms(2 * len(batch)).reshape(2, -1)
            batch = grouped(batch, self.groups, self.objective.group_capacity, coins)
        if not self._checked:
            check_canaries(self.objective, self.clipper, batch, self.privacy.clip)
            self._checked = True
        return batch

    def set_gradients(self, batch: Batch | None) -> None:
        """The noised sum over its public denominator, in each parameter's `grad`; an empty step is noise alone."""
        if isinstance(self.objective, MomentObjective):
            self._release_moment(self.objective, batch)
        denominator = self.groups or self.expected
        summed = None if batch is None else self.clipper.clipped_sum(batch, self.privacy.clip)
        if summed is not None:
            self.dropped += summed.dropped
        for index, parameter in enumerate(trained(self.objective).values()):
            exact = None if summed is None else summed.gradients[index]
            parameter.grad = self._noised(exact, parameter, denominator)

    def _noised(self, exact: Tensor | None, parameter: Tensor, denominator: float) -> Tensor:
        """The sum (zero in an empty step) with noise, over its denominator; float64 until the noise is in."""
        noised = torch.empty_like(parameter, memory_format=torch.contiguous_format).view(-1)
        flat = None if exact is None else exact.reshape(-1)
        for start in range(0, len(noised), _BLOCK):
            part = noised[start : start + _BLOCK]
            total = (
                torch.zeros_like(part, dtype=torch.float64) if flat is None else flat[start : start + _BLOCK].double()
            )
            self.noise.add_to(total, self.scales.gradient)
            part.copy_(total.div_(denominator))
        return noised.view(parameter.shape)

    def _release_moment(self, objective: MomentObjective, batch: Batch | None) -> None:
        """The mean of the statistic with its own noise, over the public denominator."""
        total = torch.zeros(objective.moment_width, dtype=torch.float64)
        if batch is not None:
            total += moment_sum(objective, batch)
        self.noise.add_to(total, self.scales.moment)
        objective.receive((total / self.expected).to(self.device, torch.float32))

    def _with_draws(self, records: Tensor, present: Tensor) -> Batch:
        """Each record K times, each time with a draw of its own."""
        views = self.privacy.views_per_record
        if views > 1:
            records, present = records.repeat_interleave(views, 1), present.repeat_interleave(views, 1)
        count, most = present.shape
        draws = self.objective.draw(count * most, self.generator)
        return Batch(records, present, draws.reshape(count, most, *draws.shape[1:]))


def _optimizer(objective: Objective, optimizer: LocalOptimizer) -> torch.optim.Optimizer:
    parameters = list(trained(objective).values())
    match optimizer.kind:
        case "adam":
            return torch.optim.Adam(parameters, lr=optimizer.learning_rate)
        case "sgd":
            return torch.optim.SGD(parameters, lr=optimizer.learning_rate)
