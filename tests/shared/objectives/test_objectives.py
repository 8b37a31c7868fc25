"""What every objective of the catalogue promises the engine."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bract.arrays import to_bytes
from bract.dpsgd.clipper import engine, trained
from bract.dpsgd.engine import private_steps
from bract.dpsgd.noise import SeededNoise
from bract.dpsgd.sampler import SeededSampler
from bract.dpsgd.vmap import explicit_gradient, unit_gradients
from bract.encoders.weights import arrays_of, layout, put_arrays
from bract.errors import MALFORMED, BractError
from bract.objectives.batch import Batch
from bract.objectives.build import build
from bract.objectives.objective import GroupObjective, MomentObjective, Objective
from bract.objectives.spec import CATALOGUE, PrivacyStructure
from bract.plan import LocalOptimizer
from bract.privacy.spec import PrivacySpec
from tests.shared.objectives.specimens import CASES, ENCODERS, SPECS, batch_of, made, real, release

EVERY = pytest.mark.parametrize(("kind", "encoder"), CASES, ids=["-on-".join(case) for case in CASES])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def derived(objective: Objective) -> dict[str, Tensor]:
    """All tensors that are not trained: slow copies, banks, statistics, released moments."""
    own = set(trained(objective))
    tensors = itertools.chain(objective.named_parameters(), objective.named_buffers())
    return {name: tensor.detach().clone() for name, tensor in tensors if name not in own}


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_unit_s_loss_is_the_same_in_any_company(kind: str, encoder: str, dtype: torch.dtype) -> None:
    objective = made(kind, encoder, dtype)
    batch = batch_of(objective, real(encoder), 5, seeded(1))
    release(objective, batch)
    together = objective.unit_loss(batch)
    assert together.shape == (5,)
    assert together.dtype == dtype
    records, draws = batch.records.clone(), batch.draws.clone()
    records[1:], draws[1:] = records[1:].flip(0) * 3 - 1, draws[1:].flip(0)
    precision = 1e-4 if dtype == torch.float32 else 1e-10
    assert torch.allclose(objective.unit_loss(Batch(records, batch.present, draws))[0], together[0], rtol=precision)
    alone = torch.cat([objective.unit_loss(batch.part(unit, 1)) for unit in range(5)])
    assert torch.allclose(alone, together, rtol=precision, atol=precision)


@EVERY
def test_what_an_absent_place_holds_has_no_influence_on_loss_or_moment(kind: str, encoder: str) -> None:
    objective = made(kind, encoder, torch.float64)
    batch = batch_of(objective, real(encoder), 4, seeded(1), places=3)
    release(objective, batch)
    empty = ~batch.present
    assert empty.any()
    records = batch.records.clone()
    records[empty] = 7.0
    draws = batch.draws.clone()
    draws[empty] = batch.draws[0, 0].clone()
    filled = Batch(records, batch.present, draws)
    assert torch.allclose(objective.unit_loss(filled), objective.unit_loss(batch), rtol=1e-12, atol=1e-12)
    if isinstance(objective, MomentObjective):
        assert torch.allclose(objective.moment(filled), objective.moment(batch), rtol=1e-12, atol=1e-12)
    for unit in range(1, 4):
        plain = explicit_gradient(objective, batch.part(unit, 1))
        for name, gradient in explicit_gradient(objective, filled.part(unit, 1)).items():
            assert torch.allclose(gradient, plain[name], atol=1e-12)


@EVERY
def test_a_unit_without_records_has_neither_loss_nor_gradient(kind: str, encoder: str) -> None:
    objective = made(kind, encoder)
    batch = batch_of(objective, real(encoder), 2, seeded(1))
    absent = Batch(*(torch.zeros_like(each) for each in (batch.records, batch.present, batch.draws)))
    assert not objective.unit_loss(absent).any()
    assert not any(gradient.any() for gradient in explicit_gradient(objective, absent).values())
    if isinstance(objective, MomentObjective):
        assert not objective.moment(absent).any()


@EVERY
def test_gradients_of_single_units_equal_those_of_an_explicit_loop(kind: str, encoder: str) -> None:
    objective = made(kind, encoder, torch.float64)
    batch = batch_of(objective, real(encoder), 4, seeded(1))
    release(objective, batch)
    fast = unit_gradients(objective, batch)
    for unit in range(4):
        for name, gradient in explicit_gradient(objective, batch.part(unit, 1)).items():
            assert torch.allclose(fast[name][unit], gradient, rtol=1e-8, atol=1e-10)


@EVERY
def test_the_gradient_of_a_batch_is_the_sum_of_its_units(kind: str, encoder: str) -> None:
    """One backward over all units gives what they give one by one, so no unit's loss reaches another's rows."""
    objective = made(kind, encoder, torch.float64)
    batch = batch_of(objective, real(encoder), 4, seeded(1))
    release(objective, batch)
    whole = torch.autograd.grad(objective.unit_loss(batch).sum(), list(trained(objective).values()))
    alone = [explicit_gradient(objective, batch.part(unit, 1)) for unit in range(4)]
    for name, gradient in zip(trained(objective), whole, strict=True):
        assert torch.allclose(torch.stack([one[name] for one in alone]).sum(0), gradient, rtol=1e-8, atol=1e-10)


@EVERY
def test_draws_come_from_the_generator_alone(kind: str, encoder: str) -> None:
    objective = made(kind, encoder)
    torch.manual_seed(1)
    first = objective.draw(50, seeded(3))
    torch.manual_seed(2)
    assert len(first) == 50
    assert torch.equal(objective.draw(50, seeded(3)), first)
    assert not torch.equal(objective.draw(50, seeded(4)), first)


@EVERY
def test_a_loss_draws_nothing_itself(kind: str, encoder: str) -> None:
    objective = made(kind, encoder)
    batch = batch_of(objective, real(encoder), 3, seeded(1))
    before = torch.get_rng_state()
    assert torch.equal(objective.unit_loss(batch), objective.unit_loss(batch))
    assert torch.equal(torch.get_rng_state(), before)


@EVERY
def test_every_trained_parameter_learns(kind: str, encoder: str) -> None:
    objective = made(kind, encoder)
    batch = batch_of(objective, real(encoder), 8, seeded(1))
    release(objective, batch)
    torch.autograd.backward(objective.unit_loss(batch).sum())
    assert [name for name, p in trained(objective).items() if p.grad is None or not p.grad.any()] == []
    assert all(p.grad is None for p in objective.parameters() if not p.requires_grad)


@EVERY
def test_each_trained_layer_is_applied_once_to_rows_of_whole_units(kind: str, encoder: str) -> None:
    objective = made(kind, encoder)
    batch = batch_of(objective, real(encoder), 5, seeded(1))
    calls: dict[str, list[int]] = {}
    for name, module in objective.named_modules():
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
            module.register_forward_hook(
                lambda _, inputs, __, name=name: calls.setdefault(name, []).append(len(inputs[0]))
            )
    objective.unit_loss(batch)
    assert {name.rpartition(".")[0] for name in trained(objective)} == set(calls)
    assert all(len(rows) == 1 and rows[0] % 5 == 0 for rows in calls.values())


@EVERY
def test_the_seed_alone_decides_arrays_and_loss(kind: str, encoder: str) -> None:
    results = []
    for state in (1, 2):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        objective = build(ENCODERS[encoder], SPECS[kind], 0)
        assert torch.equal(torch.get_rng_state(), before)
        batch = batch_of(objective, real(encoder), 3, seeded(1))
        results.append((to_bytes(arrays_of(objective)), objective.unit_loss(batch).tolist()))
    assert results[0] == results[1]
    assert to_bytes(arrays_of(build(ENCODERS[encoder], SPECS[kind], 1))) != results[0][0]


@EVERY
def test_trained_arrays_travel_and_all_else_follows_from_them(kind: str, encoder: str) -> None:
    sender, receiver = made(kind, encoder), build(ENCODERS[encoder], SPECS[kind], 1)
    assert set(layout(sender)) == set(trained(sender))
    put_arrays(receiver, arrays_of(sender))
    receiver.begin()
    batch = batch_of(sender, real(encoder), 3, seeded(1))
    assert torch.equal(sender.unit_loss(batch), receiver.unit_loss(batch))


@EVERY
def test_what_survives_a_step_is_a_function_of_weights_and_releases(kind: str, encoder: str) -> None:
    one, other = made(kind, encoder), made(kind, encoder)
    for step in range(3):
        for objective, seed in ((one, 10 + step), (other, 20 + step)):
            batch = batch_of(objective, real(encoder), 3, seeded(seed))
            explicit_gradient(objective, batch)
            if isinstance(objective, MomentObjective):
                objective.moment(batch)
                objective.receive(torch.rand(objective.moment_width, generator=seeded(step)) / 10)
            with torch.no_grad():
                for parameter in trained(objective).values():
                    parameter.add_(0.05 * torch.randn(parameter.shape, generator=seeded(step)))
            objective.after_step()
    left, right = derived(one), derived(other)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


class Subjects:
    """Real records, one a subject, or two."""

    def __init__(self, records: Tensor, most: int) -> None:
        self.all = records[: len(records) // most * most].reshape(-1, most, *records.shape[1:])

    def __len__(self) -> int:
        return len(self.all)

    def records(self, indices: Any, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = self.all[indices]
        return chosen, torch.ones(chosen.shape[:2], dtype=torch.bool)


@EVERY
def test_private_steps_run_and_move_every_array(kind: str, encoder: str) -> None:
    objective = made(kind, encoder)
    most = 1 if isinstance(objective, GroupObjective) else 2
    before = arrays_of(objective)
    privacy = PrivacySpec(
        clip=1.0, noise_multiplier=1.0, sampling_rate=0.3, steps=3, delta=1e-6, records_per_subject=most
    )
    dropped = private_steps(
        objective,
        Subjects(real(encoder), most),
        privacy,
        LocalOptimizer("sgd", 0.1),
        80,
        sampler=SeededSampler(1),
        noise=SeededNoise(1),
        clipper=engine("vmap"),
    )
    assert dropped == 0
    after = arrays_of(objective)
    assert all((after[name] != before[name]).any() for name in before)
    batch = batch_of(objective, real(encoder), 3, seeded(2))
    assert torch.isfinite(objective.unit_loss(batch)).all()


@EVERY
def test_extreme_records_have_finite_gradients(kind: str, encoder: str) -> None:
    objective = made(kind, encoder)
    batch = batch_of(objective, real(encoder), 4, seeded(1))
    release(objective, batch)
    for records in (batch.records * 0, batch.records * 100 + 7, -batch.records, batch.records * 0 + 1):
        unit = Batch(records, torch.ones_like(batch.present), batch.draws)
        assert all(torch.isfinite(gradient).all() for gradient in explicit_gradient(objective, unit).values())


def test_the_catalogue_tells_each_objective_s_structure() -> None:
    for kind, encoder in CASES:
        objective = made(kind, encoder)
        assert objective.structure is CATALOGUE[kind].structure
        assert isinstance(objective, GroupObjective) == (objective.structure is PrivacyStructure.PER_GROUP)
        assert isinstance(objective, MomentObjective) == (objective.structure is PrivacyStructure.RELEASED_MOMENT)


@pytest.mark.parametrize(
    ("kind", "encoder"), [(k, e) for k in CATALOGUE for e in ENCODERS if e not in CATALOGUE[k].encoders]
)
def test_an_encoder_that_an_objective_does_not_fit_is_refused(kind: str, encoder: str) -> None:
    with pytest.raises(BractError) as caught:
        build(ENCODERS[encoder], SPECS[kind], 0)
    assert caught.value.code == MALFORMED


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("latent-image", {"predictor_dim": 18}),
        ("latent-image", {"predictor_heads": 3}),
        ("latent-image", {"mask_ratio": 0.01}),
        ("bucket-contrast", {"group_size": 8, "group_capacity": 7}),
    ],
)
def test_sizes_that_do_not_fit_are_refused(kind: str, change: dict[str, Any]) -> None:
    with pytest.raises(BractError) as caught:
        build(ENCODERS["vit"], replace(SPECS[kind], **change), 0)
    assert caught.value.code == MALFORMED
