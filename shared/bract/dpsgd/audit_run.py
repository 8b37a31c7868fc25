"""The one-run audit of the private step itself: canaries at the clipped-gradient interface of a real run.

A canary is a subject whose clipped gradient is set, not computed: a direction of its own, of norm C (2C where groups couple
subjects), orthogonal to those of all others. It has a place in the data whether its coin put it in or not; the run's own
sampler chooses places, and the canaries among them that are in are added to the clipped sum that the engine made of ordinary,
invented subjects. Noise, scales, denominators and sampling are those of `private_steps`. Nobody's data is touched.

The auditor sees each released noised sum, as the analysis assumes, and knows all directions. A canary's score is the
log-likelihood ratio of what was seen along its direction: in with rate q against out, noise as claimed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bract.dpsgd.audit import Bound, lower_bound
from bract.dpsgd.canary_estimate import Estimate, scores_estimate
from bract.dpsgd.clipper import ClippedSum, Clipper, Engine, engine, trained
from bract.dpsgd.engine import private_steps
from bract.dpsgd.grouping import groups
from bract.dpsgd.noise import NoiseSource, SecureNoise
from bract.dpsgd.sampler import Sampler, SecureSampler
from bract.dpsgd.scales import scales
from bract.errors import MALFORMED, BractError
from bract.objectives.batch import Batch
from bract.objectives.objective import GroupObjective, MomentObjective, Objective
from bract.objectives.spec import PrivacyStructure
from bract.plan import LocalOptimizer
from bract.privacy.accounting import epsilon
from bract.privacy.spec import PrivacySpec

_MARK = 2.0**20
"""Records whose first number is below minus this are canaries; float32 holds their numbers exactly."""

Foreseen = Callable[[int], NDArray[np.bool_]]
"""Step to which canaries (m,) the sampler may draw then, for whoever can foresee it."""


@dataclass(frozen=True)
class Audited:
    """The claim and what one run says about it.

    Attributes:
        claimed: ε by the PLD accountant.
        bound: what the run refutes.
        estimate: what the scores suggest if they are normal; an estimate, not a bound.
    """

    claimed: float
    bound: Bound
    estimate: Estimate

    @property
    def refuted(self) -> bool:
        """Whether the claim is false, at the bound's confidence."""
        return self.bound.epsilon > self.claimed


def audit_run(
    objective: Objective,
    ordinary: Tensor,
    privacy: PrivacySpec,
    *,
    canaries: int = 1000,
    confidence: float = 0.95,
    sampler: Sampler | None = None,
    noise: NoiseSource | None = None,
    clipper: Engine | None = None,
    foreseen: Foreseen | None = None,
) -> Audited:
    """Train the objective by `private_steps` with canaries among its subjects; what that says about its ε.

    Args:
        objective: trained in place; its parameters must outnumber the canaries.
        ordinary: invented records (N, …), float, of subjects that are always in.
        privacy: what is claimed.
        canaries: m; more of them make the bound tighter.
        confidence: of the bound.
        sampler: under audit, and so are the two that follow.
        noise: see `sampler`.
        clipper: see `sampler`.
        foreseen: what is known beforehand of a sampler that can be foreseen.

    Raises:
        BractError: `malformed` for more canaries than parameters; as `private_steps`.
    """
    coins = (torch.from_numpy(SecureSampler().uniforms(canaries)) <= 0.5).numpy()
    planted = _Planted(objective, ordinary, privacy, coins, clipper or engine())
    witness = _Witness(planted, foreseen)
    private_steps(
        objective,
        planted,
        privacy,
        LocalOptimizer("sgd", 1e-3),
        len(planted),
        sampler=sampler or SecureSampler(),
        noise=noise or SecureNoise(),
        clipper=planted.engine,
        progress=witness.see,
    )
    return Audited(
        claimed=epsilon([privacy.mechanism], privacy.delta),
        bound=lower_bound(witness.scores, coins, privacy.delta, confidence),
        estimate=scores_estimate(witness.sums, coins, privacy.delta),
    )


class _Planted:
    """Subjects of whom the last m are canaries, and the engine that knows them by their marks."""

    def __init__(
        self, objective: Objective, ordinary: Tensor, privacy: PrivacySpec, coins: NDArray[np.bool_], made: Engine
    ) -> None:
        self.objective, self.privacy, self.made = objective, privacy, made
        self.ordinary, self.coins = ordinary, coins
        numbers = sum(parameter.numel() for parameter in trained(objective).values())
        if numbers < len(coins):
            raise BractError(MALFORMED, f"{len(coins)} canaries need as many parameters; the objective has {numbers}")
        self.reach = 2.0 if objective.structure is PrivacyStructure.PER_GROUP else 1.0
        generator = torch.Generator().manual_seed(int(SecureSampler().uniforms(1)[0] * 2**53))
        self._block = numbers // len(coins)
        self._places = torch.randperm(numbers, generator=generator)[: self._block * len(coins)]
        signs = torch.randint(2, (len(self._places),), generator=generator).double() * 2 - 1
        self._values = (signs / self._block**0.5).reshape(len(coins), self._block)

    def __len__(self) -> int:
        return len(self.ordinary) + len(self.coins)

    def records(self, indices: NDArray[np.int64], _: torch.Generator) -> tuple[Tensor, Tensor]:
        """One record each; a canary's bears its number, and is there if its coin says so."""
        number = torch.from_numpy(indices - len(self.ordinary))
        rows = self.ordinary[torch.from_numpy(indices).clamp(max=len(self.ordinary) - 1)].clone()
        flat = rows.flatten(1)
        flat[number >= 0] = 0.0
        flat[number >= 0, 0] = -_MARK - number[number >= 0].to(flat.dtype)
        there = torch.from_numpy(np.concatenate([np.ones(len(self.ordinary), bool), self.coins])[indices])
        return flat.reshape(rows.shape)[:, None], there[:, None]

    def engine(self, objective: Objective) -> Clipper:
        """The engine under audit, with the canaries' gradients put in."""
        return _Planting(self, self.made(objective))

    def directions(self, numbers: Tensor) -> Tensor:
        """The sum of these canaries' directions, float64 (P,)."""
        total = torch.zeros(sum(p.numel() for p in trained(self.objective).values()), dtype=torch.float64)
        places = self._places.reshape(len(self.coins), -1)[numbers]
        total[places.flatten()] = self._values[numbers].flatten()
        return total

    def along(self, vector: Tensor) -> NDArray[np.float64]:
        """Products (m,) of a vector (P,) with every canary's direction."""
        products: NDArray[np.float64] = (vector[self._places].reshape(self._values.shape) * self._values).sum(1).numpy()
        return products


class _Planting:
    """A clipper that takes marked records out, and puts their canaries' gradients in."""

    def __init__(self, planted: _Planted, inner: Clipper) -> None:
        self._planted, self._inner = planted, inner

    @property
    def slack(self) -> float:
        """That of the engine under audit."""
        return self._inner.slack

    def clipped_sum(self, batch: Batch, clip: float) -> ClippedSum:
        """See `Clipper`."""
        first = batch.records.flatten(2)[..., 0]
        marked = first <= -_MARK
        drawn = torch.unique(-first[marked & batch.present] - _MARK).long()
        spare = batch.records.masked_fill(marked.reshape(*marked.shape, *[1] * (batch.records.ndim - 2)), 0.0)
        rest = Batch(spare, batch.present & ~marked, batch.draws)
        summed = self._inner.clipped_sum(rest, clip)
        added = self._planted.directions(drawn.cpu()) * clip * (1 + self.slack) * self._planted.reach
        pieces = torch.split(added, [gradient.numel() for gradient in summed.gradients])
        planted = tuple(
            gradient.to("cpu", torch.float64) + piece.reshape(gradient.shape)
            for gradient, piece in zip(summed.gradients, pieces, strict=True)
        )
        return ClippedSum(planted, summed.dropped)


class _Witness:
    """Whoever reads what each step releases."""

    def __init__(self, planted: _Planted, foreseen: Foreseen | None) -> None:
        self._planted, self._foreseen = planted, foreseen
        privacy, objective = planted.privacy, planted.objective
        ratio = objective.moment_noise if isinstance(objective, MomentObjective) else 0.0
        noise = scales(objective.structure, privacy.noise_multiplier, privacy.clip, ratio).gradient
        self._unit = privacy.clip * planted.reach
        self._variance = (noise / self._unit) ** 2
        self._denominator = privacy.sampling_rate * len(planted)
        if isinstance(objective, GroupObjective):
            self._denominator = groups(privacy.sampling_rate, len(planted), objective.group_size)
        self.scores, self.sums = np.zeros((2, len(planted.coins)))

    def see(self, step: int) -> None:
        """Add the step's evidence to every canary's score."""
        released = [parameter.grad for parameter in trained(self._planted.objective).values()]
        flat = torch.cat([grad.flatten().to("cpu", torch.float64) for grad in released if grad is not None])
        seen = self._planted.along(flat) * self._denominator / self._unit
        self.sums += seen
        evidence = (seen - 0.5) / self._variance
        rate = self._planted.privacy.sampling_rate
        if self._foreseen is not None:
            self.scores += np.where(self._foreseen(step - 1), evidence, 0.0)
        elif rate == 1:
            self.scores += evidence
        else:
            self.scores += np.logaddexp(np.log1p(-rate), np.log(rate) + evidence)
