"""The private step keeps its promises: one gradient a subject, noise once, public denominators."""

import copy
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from bract.arrays import to_bytes
from bract.dpsgd.bookkeeping.clipper import SLACK
from bract.dpsgd.canary import check_canaries
from bract.dpsgd.clipper import engine, trained
from bract.dpsgd.engine import private_steps
from bract.dpsgd.noise import SecureNoise, SeededNoise
from bract.dpsgd.sampler import SecureSampler, SeededSampler
from bract.dpsgd.vmap import VmapClipper, clipped, explicit_gradient, unit_gradients
from bract.encoders.spec import TableSpec, ViTSpec
from bract.encoders.weights import arrays_of
from bract.errors import CANARY, LATE, NO_CERTIFICATE, BractError
from bract.objectives.batch import Batch
from bract.objectives.build import build
from bract.objectives.objective import Objective
from bract.objectives.spec import MaskedImageSpec, MaskedTableSpec
from bract.plan import LocalOptimizer
from bract.privacy.spec import PrivacySpec
from bract.samples import adult_parts

TABLE = TableSpec("table", "adult", dim=16, depth=2)
VIT = ViTSpec("vit", image_size=8, patch_size=2, dim=16, depth=1, heads=2)
Make = Callable[..., tuple[Objective, tuple[int, ...]]]
PLAIN = LocalOptimizer("sgd", 1.0)


class Held:
    """Subjects held in memory: (N, m, …) records and which are there."""

    def __init__(self, records: Tensor, present: Tensor) -> None:
        self.all, self.there = records, present

    def __len__(self) -> int:
        return len(self.all)

    def records(self, indices: NDArray[np.int64], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self.all[indices], self.there[indices]


class Fixed:
    """A sampler that chooses whom it is told to."""

    private = False

    def __init__(self, *chosen: int) -> None:
        self.chosen = np.array(chosen, np.int64)

    def draw(self, subjects: int, rate: float) -> NDArray[np.int64]:
        return self.chosen

    def uniforms(self, count: int) -> NDArray[np.float64]:
        return np.full(count, 0.5)


class Silence:
    """Noise that is none."""

    private = False

    def normal(self, count: int) -> NDArray[np.float64]:
        return np.zeros(count)

    def add_to(self, total: Tensor, scale: float) -> None:
        pass


def tables(dtype: torch.dtype = torch.float32) -> tuple[Objective, tuple[int, ...]]:
    return build(TABLE, MaskedTableSpec("masked-table"), 0).to(dtype), (103,)


def images(dtype: torch.dtype = torch.float32) -> tuple[Objective, tuple[int, ...]]:
    spec = MaskedImageSpec("masked-image", decoder_dim=8, decoder_heads=2)
    return build(VIT, spec, 0).to(dtype), (1, 8, 8)


def batch_of(objective: Objective, shape: tuple[int, ...], subjects: int, most: int, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    dtype = next(objective.parameters()).dtype
    records = torch.rand(subjects, most, *shape, generator=generator, dtype=dtype)
    present = torch.rand(subjects, most, generator=generator) < 0.7
    masks = objective.draw(subjects * most, generator)
    return Batch(records, present, masks.reshape(subjects, most, *masks.shape[1:]))


def summed(objective: Objective, batch: Batch, clip: float) -> Tensor:
    return torch.cat([one.flatten() for one in VmapClipper(objective).clipped_sum(batch, clip).gradients])


def spec_of(**changes: Any) -> PrivacySpec:
    base = {"clip": 1.0, "noise_multiplier": 1.0, "sampling_rate": 0.5, "steps": 1, "delta": 1e-6}
    return PrivacySpec(**{**base, **changes})


def held(subjects: int = 40, most: int = 1) -> tuple[Objective, Held]:
    objective, shape = tables()
    batch = batch_of(objective, shape, subjects, most)
    return objective, Held(batch.records, batch.present)


@pytest.mark.parametrize("make", [tables, images])
@pytest.mark.parametrize("most", [1, 3])
def test_per_subject_gradients_equal_an_explicit_loop(make: Make, most: int) -> None:
    objective, shape = make(torch.float64)
    batch = batch_of(objective, shape, 9, most)
    fast = unit_gradients(objective, batch)
    for subject in range(9):
        slow = explicit_gradient(objective, batch.part(subject, 1))
        for name, gradient in slow.items():
            assert (fast[name][subject] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-14


@pytest.mark.parametrize("make", [tables, images])
def test_the_sum_is_that_of_each_subject_clipped_alone(make: Make) -> None:
    objective, shape = make()
    batch = batch_of(objective, shape, 150, 2)
    expected = torch.zeros(sum(p.numel() for p in trained(objective).values()), dtype=torch.float64)
    for subject in range(150):
        slow = explicit_gradient(objective, batch.part(subject, 1))
        flat = torch.cat([slow[name].flatten() for name, _ in objective.named_parameters()]).double()
        expected = expected + flat * min(1.0, 0.3 / max(float(flat.norm()), 1e-30))
    found = summed(objective, batch, 0.3)
    assert (found - expected).norm() <= 1e-5 * expected.norm()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.floats(1e-6, 1e3), st.floats(-30, 30), st.integers(0, 1000))
def test_no_subject_adds_more_than_the_clip(subjects: int, clip: float, exponent: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    gradients = {
        "a": torch.randn(subjects, 3, 4, generator=generator) * 10**exponent,
        "b": torch.randn(subjects, 5, generator=generator),
    }
    workspace = torch.empty(subjects, 17, dtype=torch.float64)
    assert clipped(gradients, clip, workspace)[0].norm() <= subjects * clip * (1 + 1e-12)
    for subject in range(subjects):
        one = {name: gradient[subject : subject + 1] for name, gradient in gradients.items()}
        assert clipped(one, clip, workspace[:1])[0].norm() <= clip * (1 + 1e-12)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_a_gradient_that_is_not_finite_counts_as_zero_and_spoils_no_other(poison: float) -> None:
    gradients = {"a": torch.ones(3, 4)}
    gradients["a"][1, 2] = poison
    total, dropped = clipped(gradients, 10.0, torch.empty(3, 4, dtype=torch.float64))
    assert dropped == 1
    assert torch.equal(total, torch.full((4,), 2.0, dtype=torch.float64))


def test_a_subject_without_records_adds_nothing() -> None:
    objective, shape = tables()
    batch = batch_of(objective, shape, 4, 2)
    absent = Batch(batch.records, torch.zeros_like(batch.present), batch.draws)
    assert not summed(objective, absent, 1.0).any()


def test_a_subject_with_more_records_weighs_no_more() -> None:
    objective, shape = tables()
    one = batch_of(objective, shape, 1, 1)
    present = torch.ones(1, 5, dtype=torch.bool)
    many = Batch(one.records.expand(1, 5, *shape), present, one.draws.expand(1, 5, -1))
    single = Batch(one.records, torch.ones(1, 1, dtype=torch.bool), one.draws)
    left, right = summed(objective, many, 10.0), summed(objective, single, 10.0)
    assert (left - right).norm() <= 1e-5 * right.norm()


def test_the_step_divides_by_the_public_floor_whatever_the_number_of_subjects() -> None:
    moves = []
    for subjects in (10, 30):
        objective, data = held(30)
        before = torch.cat([p.detach().flatten() for p in objective.parameters()])
        few = Held(data.all[:subjects], data.there[:subjects])
        private_steps(objective, few, spec_of(), PLAIN, 100, sampler=Fixed(), noise=SeededNoise(5))
        moves.append(before - torch.cat([p.detach().flatten() for p in objective.parameters()]))
    assert torch.equal(moves[0], moves[1])
    noise = torch.from_numpy(SeededNoise(5).normal(len(moves[0]))) * (1 + SLACK)
    assert torch.allclose(moves[0].double(), noise / (0.5 * 100), atol=1e-5)


def test_an_empty_draw_still_adds_noise_of_the_right_size() -> None:
    objective, data = held()
    before = torch.cat([p.detach().flatten() for p in objective.parameters()]).double()
    spec = spec_of(clip=3.0, noise_multiplier=2.0)
    private_steps(objective, data, spec, PLAIN, 1, sampler=Fixed(), noise=SecureNoise())
    moved = (before - torch.cat([p.detach().flatten() for p in objective.parameters()]).double()).numpy()
    assert stats.kstest(moved / (3.0 * 2.0 / 0.5), "norm").pvalue > 1e-6


def test_noise_is_added_once_a_step_over_all_chunks() -> None:
    objective, data = held(400)
    reference = copy.deepcopy(objective)
    everyone = Fixed(*range(400))
    private_steps(objective, data, spec_of(noise_multiplier=50.0), PLAIN, 100, sampler=everyone, noise=SecureNoise())
    private_steps(reference, data, spec_of(noise_multiplier=50.0), PLAIN, 100, sampler=everyone, noise=Silence())
    pairs = zip(objective.parameters(), reference.parameters(), strict=True)
    apart = torch.cat([(a - b).detach().flatten() for a, b in pairs])
    assert apart.std().item() == pytest.approx(50.0 / (0.5 * 100), rel=0.05)


def test_two_private_runs_differ_and_seeded_ones_share_their_noise() -> None:
    results = []
    for _ in range(2):
        objective, data = held()
        private_steps(objective, data, spec_of(), PLAIN, 40, sampler=SecureSampler(), noise=SecureNoise())
        results.append(to_bytes(arrays_of(objective)))
    assert results[0] != results[1]
    assert not (SeededSampler(1).private or SeededNoise(1).private)


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_training_brings_the_loss_down(kind: Literal["adam", "sgd"]) -> None:
    objective, _ = tables()
    rows = torch.from_numpy(adult_parts(1, 0).pool.inputs[:200])[:, None]
    data = Held(rows, torch.ones(200, 1, dtype=torch.bool))
    masks = objective.draw(200, torch.Generator().manual_seed(9))

    def loss() -> float:
        with torch.no_grad():
            return objective.record_loss(data.all[:, 0], masks).mean().item()

    before = loss()
    rate = {"adam": 5e-3, "sgd": 0.2}[kind]
    spec = spec_of(noise_multiplier=0.1, steps=40)
    private_steps(objective, data, spec, LocalOptimizer(kind, rate), 200, sampler=SecureSampler(), noise=SecureNoise())
    assert loss() < 0.9 * before


def test_progress_is_told_and_a_stop_is_a_refusal() -> None:
    told: list[int] = []
    objective, data = held()

    def run(stop: Callable[[], bool] | None) -> None:
        sampler, noise, spec = SecureSampler(), SecureNoise(), spec_of(steps=3)
        private_steps(objective, data, spec, PLAIN, 40, sampler=sampler, noise=noise, stop=stop, progress=told.append)

    run(None)
    assert told == [1, 2, 3]
    with pytest.raises(BractError) as caught:
        run(lambda: len(told) >= 4)
    assert caught.value.code == LATE
    assert told == [1, 2, 3, 1]


def test_no_subjects_at_all_still_steps() -> None:
    objective, data = held()
    none = Held(data.all[:0], data.there[:0])
    before = to_bytes(arrays_of(objective))
    private_steps(objective, none, spec_of(), PLAIN, 40, sampler=SecureSampler(), noise=SecureNoise())
    assert to_bytes(arrays_of(objective)) != before


@pytest.mark.parametrize("part", [nn.BatchNorm1d(16), nn.Dropout(0.1), nn.GRU(4, 4)])
def test_modules_that_mix_records_or_draw_for_themselves_are_refused(part: nn.Module) -> None:
    objective, data = held()
    objective.add_module("stranger", part)
    before = to_bytes(arrays_of(objective))
    with pytest.raises(BractError) as caught:
        private_steps(objective, data, spec_of(), PLAIN, 40, sampler=SecureSampler(), noise=SecureNoise())
    assert caught.value.code == NO_CERTIFICATE
    assert to_bytes(arrays_of(objective)) == before


class WrongInCompany(torch.autograd.Function):
    """A layer whose gradient is wrong for many rows: what a bad kernel would do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.many = len(x) > 2
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * 1.5 if ctx.many else gradient


def test_a_wrong_gradient_is_caught_before_the_first_step() -> None:
    objective, shape = tables()
    batch = batch_of(objective, shape, 6, 2)
    check_canaries(objective, engine()(objective), batch, 1.0)
    layers: Any = objective.encoder.layers
    right = layers.forward
    layers.forward = lambda x: WrongInCompany.apply(right(x))
    before = to_bytes(arrays_of(objective))
    data = Held(batch.records, torch.ones_like(batch.present))
    with pytest.raises(BractError) as caught:
        private_steps(objective, data, spec_of(), PLAIN, 40, sampler=Fixed(0, 1, 2), noise=SecureNoise())
    assert caught.value.code == CANARY
    assert to_bytes(arrays_of(objective)) == before
