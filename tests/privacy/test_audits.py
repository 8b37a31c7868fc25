"""Audits of the real private step stay below the claimed ε, and mechanisms that cost more than they claim are caught."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from bract.dpsgd.audit import lower_bound
from bract.dpsgd.audit_run import Audited, audit_run
from bract.dpsgd.clipper import ClippedSum, Clipper, engine, trained
from bract.dpsgd.engine import private_steps
from bract.dpsgd.noise import SecureNoise
from bract.dpsgd.sampler import SecureSampler
from bract.dpsgd.specimen import decode_spec, specimen
from bract.dpsgd.vmap import explicit_gradient
from bract.encoders.spec import TableSpec
from bract.objectives.batch import Batch
from bract.objectives.build import build
from bract.objectives.objective import Objective
from bract.objectives.public_records import public_records
from bract.plan import LocalOptimizer
from bract.privacy.accounting import epsilon
from bract.privacy.spec import Mechanism, PrivacySpec
from tests.privacy.conftest import Tell
from tests.privacy.controls import InBatchInfoNCE

pytestmark = pytest.mark.privacy

TITLE = "audits: ε claimed, lower bound of one run at 95 %, estimate (no bound)"
ENCODER = TableSpec("table", "adult", dim=16)
CANARIES, ORDINARY = 1000, 16


def spec_of(sigma: float, rate: float, steps: int) -> PrivacySpec:
    return PrivacySpec(clip=0.7, noise_multiplier=sigma, sampling_rate=rate, steps=steps, delta=1e-5)


def told(tell: Callable[[str], Tell], name: str, found: Audited) -> Audited:
    figure = f"claimed {found.claimed:5.2f}  bound {found.bound.epsilon:5.2f}  estimate {found.estimate.epsilon:6.2f}"
    tell(TITLE)(name, figure, "REFUTED" if found.refuted else "not refuted")
    return found


@pytest.mark.parametrize(
    ("kind", "sigma", "rate", "steps", "power"),
    [
        ("masked-table", 2.0, 1.0, 4, 0.4),
        ("masked-table", 1.0, 0.25, 16, 0.4),
        ("bucket-contrast", 1.0, 0.5, 8, 0.4),
        ("vicreg", 1.0, 0.5, 8, 0.4),
    ],
)
def test_a_real_run_shows_no_more_than_is_claimed(
    kind: str, sigma: float, rate: float, steps: int, power: float, tell: Callable[[str], Tell]
) -> None:
    objective = build(ENCODER, decode_spec(kind), 0)
    records = public_records(ENCODER, ORDINARY, 0)
    found = audit_run(objective, records, spec_of(sigma, rate, steps), canaries=CANARIES)
    told(tell, f"{kind}, σ {sigma:g}, q {rate:g}, {steps} steps", found)
    assert power < found.bound.epsilon <= found.claimed


class Faint(SecureNoise):
    """The secure noise, an eighth as strong as it was asked to be."""

    def normal(self, count: int) -> NDArray[np.float64]:
        return super().normal(count) / 8

    def add_to(self, total: Tensor, scale: float) -> None:
        super().add_to(total, scale / 8)


def test_an_eighth_of_the_noise_is_caught(tell: Callable[[str], Tell]) -> None:
    objective = build(ENCODER, decode_spec("masked-table"), 0)
    spec = spec_of(3.0, 0.5, 8)
    found = audit_run(objective, public_records(ENCODER, ORDINARY, 0), spec, canaries=CANARIES, noise=Faint())
    assert told(tell, "control: noise ÷ 8", found).refuted


class Rota:
    """A fixed partition, batch after batch, accounted as if it were Poisson sampling."""

    private = True

    def __init__(self, batches: int) -> None:
        self.batches, self._step = batches, -1
        self._coins = SecureSampler()

    def draw(self, subjects: int, rate: float) -> NDArray[np.int64]:
        self._step += 1
        return np.arange(self._step % self.batches, subjects, self.batches, dtype=np.int64)

    def uniforms(self, count: int) -> NDArray[np.float64]:
        return self._coins.uniforms(count)


class Shuffled(Rota):
    """A partition that is drawn afresh for each epoch and kept secret."""

    def draw(self, subjects: int, rate: float) -> NDArray[np.int64]:
        self._step += 1
        if self._step % self.batches == 0:
            self._order = self._coins.uniforms(subjects).argsort()
        return np.sort(self._order[self._step % self.batches :: self.batches])


def test_a_fixed_partition_accounted_as_poisson_is_caught(tell: Callable[[str], Tell]) -> None:
    batches, epochs = 50, 4
    places = ORDINARY + np.arange(CANARIES)
    found = audit_run(
        build(ENCODER, decode_spec("masked-table"), 0),
        public_records(ENCODER, ORDINARY, 0),
        spec_of(1.0, 1 / batches, batches * epochs),
        canaries=CANARIES,
        sampler=Rota(batches),
        foreseen=lambda step: places % batches == step % batches,
    )
    assert told(tell, "control: fixed partition as Poisson", found).refuted


def sizes_are_poisson(draw: Callable[[int, float], NDArray[np.int64]]) -> bool:
    """Whether batch sizes vary as independent coins make them, N q (1 − q); a false alarm has probability 10⁻⁶."""
    subjects, rate, draws = 400, 0.05, 2000
    sizes = np.array([len(draw(subjects, rate)) for _ in range(draws)])
    dispersion = ((sizes - subjects * rate) ** 2).sum() / (subjects * rate * (1 - rate))
    return bool(stats.chi2.cdf(dispersion, draws) > 1e-6 and stats.chi2.sf(dispersion, draws) > 1e-6)


def test_a_secret_shuffle_does_not_have_the_sizes_of_poisson_sampling(tell: Callable[[str], Tell]) -> None:
    """One run of a secret shuffle can look as private as Poisson sampling to this audit; its batch sizes cannot."""
    assert sizes_are_poisson(SecureSampler().draw)
    assert not sizes_are_poisson(Shuffled(20).draw)
    tell(TITLE)("control: secret shuffle as Poisson", "batch sizes do not vary", "REFUTED by their variance")


class Trials:
    """A crowd that is always there and one subject that each step's coin puts in: every step is a trial of its own."""

    def __init__(self, crowd: Tensor, stranger: Tensor) -> None:
        self.all = torch.cat([crowd, stranger])
        self.coins: list[bool] = []
        self._source = SecureSampler()
        self.private = True

    def __len__(self) -> int:
        return len(self.all)

    def draw(self, subjects: int, rate: float) -> NDArray[np.int64]:
        self.coins.append(bool(self._source.uniforms(1)[0] <= 0.5))
        return np.arange(subjects - 1 + self.coins[-1], dtype=np.int64)

    def uniforms(self, count: int) -> NDArray[np.float64]:
        return self._source.uniforms(count)

    def records(self, indices: NDArray[np.int64], _: torch.Generator) -> tuple[Tensor, Tensor]:
        return self.all[indices][:, None], torch.ones(len(indices), 1, dtype=torch.bool)


class Remembered:
    """The engine's own sums without and with the stranger, draws frozen, so that every step is the same trial.

    The run's self-check would stop the control; it alone is shown what an explicit computation gives.
    """

    def __init__(self, objective: Objective, people: Tensor, clip: float) -> None:
        self._objective = objective
        draws = objective.draw(len(people), torch.Generator().manual_seed(2))
        everyone = Batch(people[:, None], torch.ones(len(people), 1, dtype=torch.bool), draws[:, None])
        real: Clipper = engine()(objective)
        batches = (everyone.part(0, len(people) - 1), everyone)
        self.sums = {len(batch): real.clipped_sum(batch, clip).gradients for batch in batches}
        self.slack = real.slack

    def clipped_sum(self, batch: Batch, clip: float) -> ClippedSum:
        if len(batch) not in self.sums:
            return explicit_sum(self._objective, batch, clip)
        return ClippedSum(tuple(gradient.clone() for gradient in self.sums[len(batch)]), 0)


def explicit_sum(objective: Objective, batch: Batch, clip: float) -> ClippedSum:
    total = [torch.zeros_like(parameter) for parameter in trained(objective).values()]
    for place in range(len(batch)):
        gradients = list(explicit_gradient(objective, batch.part(place, 1)).values())
        norm = float(torch.stack([gradient.norm() for gradient in gradients]).norm())
        total = [
            one + gradient * min(1.0, clip / max(norm, 1e-30)) for one, gradient in zip(total, gradients, strict=True)
        ]
    return ClippedSum(tuple(total), 0)


def flat(tensors: Iterable[Tensor | None]) -> Tensor:
    return torch.cat([tensor.flatten().double() for tensor in tensors if tensor is not None])


def trials(objective: Objective, steps: int, clip: float) -> tuple[float, float, float]:
    """One step's ε as claimed, its audited bound, and how far the stranger moves the sum, in units of C."""
    one = specimen("masked-table").records[:1]
    crowd = one + 1e-3 * torch.randn(24, *one.shape[1:], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    people = Trials(crowd, torch.zeros_like(one))
    remembered = Remembered(objective, people.all, clip)
    released: list[Tensor] = []
    private_steps(
        objective,
        people,
        PrivacySpec(clip=clip, noise_multiplier=4.0, sampling_rate=1.0, steps=steps, delta=1e-5),
        LocalOptimizer("sgd", 1e-6),
        len(people),
        sampler=people,
        noise=SecureNoise(),
        clipper=lambda _: remembered,
        progress=lambda _: released.append(flat(parameter.grad for parameter in objective.parameters())),
    )
    apart = flat(remembered.sums[len(crowd) + 1]) - flat(remembered.sums[len(crowd)])
    scores = (torch.stack(released) @ apart).numpy()
    found = lower_bound(scores, np.array(people.coins), 1e-5)
    return epsilon([Mechanism(4.0, 1.0, 1)], 1e-5), found.epsilon, float(apart.norm()) / clip


class OneView(InBatchInfoNCE):
    """Nothing is hidden: each record's two views are the same, and near-duplicates stay near."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.zeros_like(super().draw(count, generator))


def test_a_coupled_loss_costs_more_than_it_claims(tell: Callable[[str], Tell]) -> None:
    claimed, bound, moved = trials(OneView(), 1000, 0.01)
    figure = f"claimed {claimed:5.2f}  bound {bound:5.2f}  Δ = {moved:.2f} C"
    tell(TITLE)("control: in-batch InfoNCE, one step", figure, "REFUTED" if bound > claimed else "not refuted")
    assert bound > claimed
    assert moved > 3


def test_an_honest_loss_audited_alike_does_not(tell: Callable[[str], Tell]) -> None:
    claimed, bound, moved = trials(build(ENCODER, decode_spec("masked-table"), 0), 1000, 0.01)
    figure = f"claimed {claimed:5.2f}  bound {bound:5.2f}  Δ = {moved:.2f} C"
    tell(TITLE)("masked-table audited alike, one step", figure, "REFUTED" if bound > claimed else "not refuted")
    assert bound <= claimed
    assert 0.9 < moved <= 1 + 1e-3
