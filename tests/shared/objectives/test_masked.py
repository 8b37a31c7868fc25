"""Each record has one loss that is its own, and only hidden parts count."""

import pytest
import torch
from torch import Tensor

from bract.encoders.spec import EncoderSpec, TableSpec, ViTSpec
from bract.encoders.weights import layout
from bract.errors import MALFORMED, BractError
from bract.objectives.build import build
from bract.objectives.masked_image import MaskedImage
from bract.objectives.masked_table import MaskedTable
from bract.objectives.objective import Objective
from bract.objectives.spec import MaskedImageSpec, MaskedTableSpec, ObjectiveSpec
from bract.samples import adult_parts, digits_parts

VIT = ViTSpec("vit", image_size=8, patch_size=2, dim=24, depth=1, heads=3)
IMAGE = MaskedImageSpec("masked-image", decoder_dim=16, decoder_heads=2)
TABLE = TableSpec("table", "adult", dim=16)
COLUMNS = MaskedTableSpec("masked-table", mask_ratio=0.4)


def table() -> MaskedTable:
    objective = build(TABLE, COLUMNS, 0)
    assert isinstance(objective, MaskedTable)
    return objective


def image() -> MaskedImage:
    objective = build(VIT, IMAGE, 0)
    assert isinstance(objective, MaskedImage)
    return objective


@pytest.fixture(scope="module")
def rows() -> Tensor:
    return torch.from_numpy(adult_parts(1, 0).pool.inputs[:64])


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.from_numpy(digits_parts(1, 0).pool.inputs[:64])


@pytest.fixture(params=["table", "image"])
def case(request: pytest.FixtureRequest, rows: Tensor, images: Tensor) -> tuple[Objective, Tensor]:
    if request.param == "table":
        return build(TABLE, COLUMNS, 0), rows
    return build(VIT, IMAGE, 0), images


def test_a_record_s_loss_is_the_same_in_any_company(case: tuple[Objective, Tensor]) -> None:
    objective, records = case
    masks = objective.draw(len(records), torch.Generator().manual_seed(1))
    together = objective.record_loss(records, masks)
    assert together.shape == (64,)
    changed = records.clone()
    changed[1:] = records[1:].flip(0) * 3 - 1
    assert torch.allclose(objective.record_loss(changed, masks)[0], together[0], atol=1e-6)
    alone = torch.cat([objective.record_loss(records[i : i + 1], masks[i : i + 1]) for i in range(8)])
    assert torch.allclose(alone, together[:8], atol=1e-5)


def test_masks_come_from_the_generator_alone(case: tuple[Objective, Tensor]) -> None:
    objective, _ = case
    torch.manual_seed(1)
    first = objective.draw(50, torch.Generator().manual_seed(3))
    torch.manual_seed(2)
    assert torch.equal(objective.draw(50, torch.Generator().manual_seed(3)), first)
    assert not torch.equal(objective.draw(50, torch.Generator().manual_seed(4)), first)


def test_the_decoder_s_arrays_travel_beside_the_encoder_s(case: tuple[Objective, Tensor]) -> None:
    objective, _ = case
    kinds = {name.split(".")[0] for name in layout(objective)}
    assert {"encoder", "decoder"} <= kinds
    assert all(parameter.requires_grad for parameter in objective.parameters())


def test_every_parameter_learns(case: tuple[Objective, Tensor]) -> None:
    objective, records = case
    masks = objective.draw(len(records), torch.Generator().manual_seed(1))
    torch.autograd.backward(objective.record_loss(records, masks).sum())
    assert [name for name, p in objective.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_few_plain_steps_bring_the_loss_down(case: tuple[Objective, Tensor]) -> None:
    objective, records = case
    generator = torch.Generator().manual_seed(1)
    descent = torch.optim.Adam(objective.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = objective.record_loss(records, objective.draw(len(records), generator)).mean()
        descent.zero_grad()
        torch.autograd.backward(loss)
        descent.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_a_hidden_column_cannot_be_seen_and_a_shown_one_costs_nothing(rows: Tensor) -> None:
    objective = table()
    masks = objective.draw(1, torch.Generator().manual_seed(1))
    names = objective.schema.names
    hidden = {name for name, flag in zip(names, masks[0].tolist(), strict=True) if flag}
    assert len(hidden) == round(0.4 * len(names))
    place = objective.schema.slices[sorted(hidden)[0]]
    changed = rows[:1].clone()
    changed[:, place] = 3.0
    assert torch.equal(objective.encoder(changed, masks), objective.encoder(rows[:1], masks))
    assert not torch.equal(objective.record_loss(changed, masks), objective.record_loss(rows[:1], masks))
    for name in set(names) - hidden:
        shown = rows[:1].clone()
        shown[:, objective.schema.slices[name]] += 1.0
        assert not torch.equal(objective.encoder(shown, masks), objective.encoder(rows[:1], masks))


def test_columns_are_hidden_equally_often(rows: Tensor) -> None:
    objective = table()
    masks = objective.draw(20_000, torch.Generator().manual_seed(1)).float()
    expected = objective.hidden / len(objective.schema.names)
    assert (masks.mean(0) - expected).abs().max() < 0.02
    assert set(masks.sum(1).tolist()) == {objective.hidden}


def test_hidden_patches_do_not_reach_the_encoder_and_shown_ones_are_no_target(images: Tensor) -> None:
    objective = image()
    masks = objective.draw(1, torch.Generator().manual_seed(1))
    one = images[:1]
    patches = objective.encoder.patches(one)
    visible = masks[:, : objective.visible]
    seen = objective.encoder(patches, visible)
    other = patches.clone()
    other[:, masks[0, objective.visible :]] = 9.0
    assert torch.equal(objective.encoder(other, visible), seen)
    with torch.no_grad():
        objective.pixels.weight.zero_()
        objective.pixels.bias.zero_()
    hidden = patches[0, masks[0, objective.visible :]]
    assert torch.allclose(objective.record_loss(one, masks)[0], hidden.square().mean())


def test_patches_are_read_row_by_row_and_standardised() -> None:
    objective = image()
    pixels = torch.arange(64.0).reshape(1, 1, 8, 8) / 64
    patches = objective.encoder.patches(pixels)
    assert torch.allclose(patches[0, 1], (torch.tensor([2.0, 3.0, 10.0, 11.0]) / 64 - 0.5) / 0.5)


@pytest.mark.parametrize(
    ("encoder", "objective"),
    [
        (TABLE, IMAGE),
        (VIT, COLUMNS),
        (VIT, MaskedImageSpec("masked-image", decoder_dim=18, decoder_heads=4)),
        (VIT, MaskedImageSpec("masked-image", mask_ratio=0.01)),
    ],
)
def test_parts_that_do_not_fit_are_refused(encoder: EncoderSpec, objective: ObjectiveSpec) -> None:
    with pytest.raises(BractError) as caught:
        build(encoder, objective, 0)
    assert caught.value.code == MALFORMED
