"""Adding one subject moves the clipped sum by at most C; objectives that couple records are caught."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from bract.dpsgd.falsifier import movement
from bract.dpsgd.gradients import Batch, Gradients, subject_gradients
from bract.encoders.spec import TableSpec, ViTSpec
from bract.objectives.build import build
from bract.objectives.objective import Objective
from bract.objectives.spec import MaskedImageSpec, MaskedTableSpec
from bract.samples import adult_parts, digits_parts

pytestmark = pytest.mark.privacy

Case = tuple[Objective, Tensor]
Weights = dict[str, Tensor]
Source = Callable[[Objective, Batch], Gradients]
CLIPS = (1e-3, 1.0)
OTHERS, MOST = 63, 3
BOUND = 1 + 1e-6


@pytest.fixture(scope="module")
def tables() -> Case:
    objective = build(TableSpec("table", "adult", dim=16), MaskedTableSpec("masked-table"), 0)
    return objective, torch.from_numpy(adult_parts(1, 0).pool.inputs[:600])


@pytest.fixture(scope="module")
def images() -> Case:
    encoder = ViTSpec("vit", image_size=8, patch_size=2, dim=16, depth=1, heads=2)
    objective = build(encoder, MaskedImageSpec("masked-image", decoder_dim=8, decoder_heads=2), 0)
    return objective, torch.from_numpy(digits_parts(1, 0).pool.inputs)


def batch(objective: Objective, records: Tensor, masks_seed: int) -> Batch:
    count, most = records.shape[:2]
    masks = objective.draw(count * most, torch.Generator().manual_seed(masks_seed))
    return Batch(records, torch.ones(count, most, dtype=torch.bool), masks.reshape(count, most, *masks.shape[1:]))


def crowds(data: Tensor) -> dict[str, Tensor]:
    """Others that are spread out, and others that are near-duplicates of one record."""
    generator = torch.Generator().manual_seed(2)
    spread = data[torch.randint(len(data), (OTHERS, MOST), generator=generator)]
    close = data[:1].expand(OTHERS * MOST, *data.shape[1:])
    close = close + 1e-3 * torch.randn(close.shape, generator=generator)
    return {"spread": spread, "close": close.reshape(OTHERS, MOST, *data.shape[1:])}


def strangers(data: Tensor) -> dict[str, Tensor]:
    """Who is added: a duplicate, its antipode, an outlier, nothing but zeros."""
    one = data[:1].expand(MOST, *data.shape[1:])[None]
    return {"duplicate": one, "antipode": -one, "outlier": 100 * one + 7, "zeros": torch.zeros_like(one)}


def worst(
    objective: Objective, data: Tensor, clips: tuple[float, ...] = CLIPS, gradients: Source = subject_gradients
) -> float:
    return max(
        movement(objective, batch(objective, crowd, 3), batch(objective, stranger, 4), clip, gradients)
        for crowd in crowds(data).values()
        for stranger in strangers(data).values()
        for clip in clips
    )


@pytest.mark.parametrize("kind", ["tables", "images"])
def test_one_subject_moves_the_sum_by_at_most_the_clip(kind: str, request: pytest.FixtureRequest) -> None:
    objective, data = request.getfixturevalue(kind)
    found = worst(objective, data)
    assert 0.9 < found <= BOUND


@pytest.mark.parametrize("kind", ["tables", "images"])
def test_it_stays_so_after_training_and_keeps_no_state_of_data(kind: str, request: pytest.FixtureRequest) -> None:
    fresh, data = request.getfixturevalue(kind)
    objective = copy.deepcopy(fresh)
    buffers = {name: buffer.clone() for name, buffer in objective.named_buffers()}
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    assert worst(objective, data) <= BOUND
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in objective.named_buffers())


def by_rows(loss_of_batch: Callable[[Objective, Weights, Batch], Tensor]) -> Source:
    """Per-row gradients as hooks see them: each row has its own copy of the weights, one loss couples the rows."""

    def gradients(objective: Objective, batch: Batch) -> Gradients:
        weights = {name: p.detach() for name, p in objective.named_parameters()}
        copies = {name: p.expand(len(batch.records), *p.shape) for name, p in weights.items()}
        found: Gradients = grad(lambda stacked: loss_of_batch(objective, stacked, batch))(copies)
        return found

    return gradients


class Call(torch.nn.Module):
    """Any of an objective's functions as a forward pass."""

    def __init__(self, objective: Objective, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.objective, self.function = objective, function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(self.objective, *inputs)


def rowwise(objective: Objective, stacked: Weights, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    def one(weights: Weights, *inputs: Tensor) -> Tensor:
        found: Tensor = functional_call(
            Call(objective, function), {f"objective.{k}": v for k, v in weights.items()}, inputs
        )
        return found

    rows: Tensor = vmap(one)(stacked, *inputs)
    return rows


def mean_over_all_records(objective: Objective, stacked: Weights, batch: Batch) -> Tensor:
    """B5: the mean over all hidden parts of the batch, times its size; one long subject dilutes everybody."""
    losses = rowwise(objective, stacked, lambda o, x, m: o.record_loss(x, m), batch.records, batch.masks)
    there = batch.present.to(losses.dtype)
    present_subjects = (there.sum(1) > 0).sum()
    return (losses * there).sum() / there.sum().clamp(min=1) * present_subjects


def contrast_in_the_batch(objective: Objective, stacked: Weights, batch: Batch) -> Tensor:
    """B1: InfoNCE between a masked and a whole view; every other row is a negative."""
    hidden = rowwise(objective, stacked, lambda o, x, m: o.encoder(x, m)[0], batch.records, batch.masks)
    whole = rowwise(objective, stacked, lambda o, x: o.encoder.features(x)[0], batch.records)
    likeness = functional.normalize(hidden, dim=1) @ functional.normalize(whole, dim=1).T / 0.2
    there = batch.present.any(1)
    likeness = likeness.masked_fill(~there[None, :], -1e9)
    losses = functional.cross_entropy(likeness, torch.arange(len(likeness)), reduction="none")
    return (losses * there).sum()


def test_a_loss_averaged_over_the_batch_is_caught(tables: Case) -> None:
    objective, data = tables
    crowd = batch(objective, crowds(data)["close"], 3)
    crowd = Batch(crowd.records, torch.tensor([True, False, False]).expand(OTHERS, MOST), crowd.masks)
    clips = [2.0**power for power in range(-3, 6)]
    cases = [(batch(objective, stranger, 4), clip) for stranger in strangers(data).values() for clip in clips]
    control = by_rows(mean_over_all_records)
    assert max(movement(objective, crowd, stranger, clip, control) for stranger, clip in cases) > 1.2
    assert max(movement(objective, crowd, stranger, clip) for stranger, clip in cases) <= BOUND


def test_a_contrastive_loss_within_the_batch_is_caught(tables: Case) -> None:
    objective, data = tables
    assert worst(objective, data, gradients=by_rows(contrast_in_the_batch)) > 1.5
