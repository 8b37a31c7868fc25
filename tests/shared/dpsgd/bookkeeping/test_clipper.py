"""The book-keeping engine's sum does not depend on how it is made: routes, physical batches, memory."""

from typing import Any

import pytest
import torch
from torch import Tensor

from bract.dpsgd.bookkeeping import clipper as engine
from bract.dpsgd.bookkeeping.clipper import BookKeeping
from bract.encoders.spec import TableSpec, ViTSpec
from bract.objectives.batch import Batch
from bract.objectives.build import build
from bract.objectives.objective import Objective
from bract.objectives.spec import MaskedImageSpec, MaskedTableSpec

VIT = ViTSpec("vit", image_size=8, patch_size=2, dim=16, depth=1, heads=2)


def images() -> Objective:
    return build(VIT, MaskedImageSpec("masked-image", decoder_dim=8, decoder_heads=2), 0)


def batch_of(objective: Objective, units: int, *shape: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    records = torch.rand(units, 2, *shape, generator=generator)
    draws = objective.draw(2 * units, generator)
    present = torch.rand(units, 2, generator=generator) < 0.8
    return Batch(records, present, draws.reshape(units, 2, *draws.shape[1:]))


def flat(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])


@pytest.mark.parametrize("physical", [1, 3, 8, 64])
def test_any_physical_batch_gives_the_same_sum(physical: int) -> None:
    objective = images()
    batch = batch_of(objective, 21, 1, 8, 8)
    expected = flat(BookKeeping(objective, physical=21, tune=False).clipped_sum(batch, 0.1).gradients)
    found = flat(BookKeeping(objective, physical=physical, tune=False).clipped_sum(batch, 0.1).gradients)
    assert (found - expected).norm() <= 1e-6 * expected.norm()


def test_measured_routes_keep_to_their_memory_and_give_the_same_sum() -> None:
    objective = images()
    batch = batch_of(objective, 8, 1, 8, 8)
    small, large = BookKeeping(objective, memory=0.0), BookKeeping(objective, memory=1e6)
    first, second = flat(small.clipped_sum(batch, 0.1).gradients), flat(large.clipped_sum(batch, 0.1).gradients)
    assert (first - second).norm() <= 1e-6 * first.norm()
    free = {name for name, route in small.picks.items() if route == "direct"}
    assert free <= set(large.picks)
    for name in free:
        layer: Any = small._tape.layers[name, "linear"]  # type: ignore[union-attr]
        assert layer.stored_bytes(8) == 0


def test_without_tuning_two_engines_agree_to_the_bit() -> None:
    objective = build(TableSpec("table", "adult", dim=16), MaskedTableSpec("masked-table"), 0)
    batch = batch_of(objective, 40, 103)
    first, second = (BookKeeping(objective, tune=False).clipped_sum(batch, 0.1) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first.gradients, second.gradients, strict=True))


def test_when_memory_does_not_suffice_half_the_units_go_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = images()
    batch = batch_of(objective, 16, 1, 8, 8)
    expected = flat(BookKeeping(objective, physical=16, tune=False).clipped_sum(batch, 0.1).gradients)
    tight = BookKeeping(objective, physical=16, tune=False)
    whole = BookKeeping._pass

    def scarce(self: BookKeeping, tape: Any, part: Batch) -> Any:
        if len(part) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, tape, part)

    monkeypatch.setattr(BookKeeping, "_pass", scarce)
    found = flat(tight.clipped_sum(batch, 0.1).gradients)
    assert tight.physical == 4
    assert (found - expected).norm() <= 1e-6 * expected.norm()


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = images()

    def broken(self: BookKeeping, tape: Any, part: Batch) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(engine.BookKeeping, "_pass", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        BookKeeping(objective).clipped_sum(batch_of(objective, 4, 1, 8, 8), 0.1)


def test_the_model_is_left_as_it_was() -> None:
    objective = images()
    before = dict(objective.named_parameters())
    BookKeeping(objective).clipped_sum(batch_of(objective, 4, 1, 8, 8), 0.1)
    after = dict(objective.named_parameters())
    assert all(after[name] is parameter and parameter.grad is None for name, parameter in before.items())
