"""Public records and slow copies: made from seeds and weights, never from anybody's record."""

import pytest
import torch
from torch import Tensor

from bract.dpsgd.clipper import trained
from bract.encoders.spec import EncoderSpec, ViTSpec
from bract.encoders.weights import layout
from bract.objectives.byol import Byol
from bract.objectives.latent_image import LatentImage
from bract.objectives.public_contrast import PublicContrast
from bract.objectives.public_records import public_records
from bract.tables import LIMIT, schema
from tests.shared.objectives.specimens import TABLE, VIT, made, real

COLOUR = ViTSpec("vit", image_size=12, patch_size=4, channels=3, dim=24)


def nudge(objective: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in objective.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))


@pytest.mark.parametrize("encoder", [VIT, COLOUR, TABLE])
def test_public_records_come_from_their_seed_alone(encoder: EncoderSpec) -> None:
    torch.manual_seed(1)
    first = public_records(encoder, 8, 5)
    torch.manual_seed(2)
    assert torch.equal(public_records(encoder, 8, 5), first)
    assert not torch.equal(public_records(encoder, 8, 6), first)
    assert first.dtype == torch.float32


def test_dead_leaves_are_images_of_several_shades() -> None:
    images = public_records(COLOUR, 20, 0)
    assert images.shape == (20, 3, 12, 12)
    assert 0 <= images.min() < 0.1
    assert 0.9 < images.max() <= 1
    assert all(len(set(image[0].flatten().tolist())) > 4 for image in images)


def test_invented_rows_fit_the_schema() -> None:
    rows, table = public_records(TABLE, 500, 0), schema("adult")
    assert rows.shape == (500, table.width)
    numbers = rows[:, : len(table.numeric)]
    assert numbers.abs().max() <= LIMIT
    assert numbers.mean().abs() < 0.1
    assert 0.9 < float(numbers.std()) < 1.1
    for column in table.categorical:
        bits = rows[:, table.slices[column.name]]
        assert (bits.sum(1) == 1).all()
        assert set(bits.flatten().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("encoder", ["vit", "table"])
def test_negatives_are_embedded_by_the_encoder_as_it_is(encoder: str) -> None:
    objective = made("public-contrast", encoder)
    assert isinstance(objective, PublicContrast)
    before = objective.bank.clone()
    assert torch.allclose(before.norm(dim=1), torch.ones(len(before)), atol=1e-4)
    nudge(objective)
    assert torch.equal(objective.bank, before)
    objective.after_step()
    assert not torch.allclose(objective.bank, before, atol=1e-2)
    assert not objective.bank.requires_grad
    held: Tensor = objective.embeddings(objective.items, objective.item_draws).flatten(0, 1)
    assert torch.allclose(objective.bank, held, atol=1e-5)


def test_negatives_are_renewed_every_so_many_steps() -> None:
    objective = made("public-contrast", "table")
    assert isinstance(objective, PublicContrast)
    objective.refresh = 3
    before = objective.bank.clone()
    nudge(objective)
    renewed = []
    for _ in range(4):
        objective.after_step()
        renewed.append(not torch.equal(objective.bank, before))
    assert renewed == [False, False, True, True]


@pytest.mark.parametrize("encoder", ["vit", "table"])
def test_features_of_public_records_are_standardised(encoder: str) -> None:
    objective = made("public-contrast", encoder)
    assert isinstance(objective, PublicContrast)
    with torch.no_grad():
        features = objective.views.encode(objective.encoder, objective.items, objective.item_draws)
    standard = (features - objective.centre) / objective.spread
    assert standard.mean(0).abs().max() < 1e-3
    assert float(standard.std(0).median()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("kind", "encoder"), [("byol", "vit"), ("byol", "table"), ("latent-image", "vit")])
def test_a_slow_copy_begins_equal_follows_and_stays_at_home(kind: str, encoder: str) -> None:
    objective = made(kind, encoder)
    assert isinstance(objective, Byol | LatentImage)
    slow, fast = objective.slow_encoder, objective.encoder
    pairs = list(zip(slow.parameters(), fast.parameters(), strict=True))
    assert all(torch.equal(one, other) for one, other in pairs)
    before = [one.clone() for one, _ in pairs]
    nudge(objective)
    objective.after_step()
    for (one, other), old in zip(pairs, before, strict=True):
        assert torch.allclose(one, objective.keep * old + (1 - objective.keep) * other, atol=1e-6)
    assert not any(name.startswith("slow") for name in layout(objective))
    assert not any(name.startswith("slow") for name in trained(objective))
    assert any(name.startswith("slow") for name, _ in objective.named_parameters())


def test_the_hidden_region_is_the_neighbourhood_of_a_point_and_moves_about() -> None:
    objective = made("latent-image", "vit")
    assert isinstance(objective, LatentImage)
    orders = objective.draw(500, torch.Generator().manual_seed(0))
    assert (orders.sort(1).values == torch.arange(16)).all()
    hidden = orders[:, objective.visible :]
    rows, columns = hidden // 4, hidden % 4
    widths = rows.amax(1) - rows.amin(1), columns.amax(1) - columns.amin(1)
    assert float((widths[0] + widths[1]).float().mean()) < 5.5  # of 8 patches anywhere it is about 6
    counts = torch.bincount(hidden.flatten(), minlength=16)
    assert counts.min() > 50
    assert real("vit").shape[1:] == (1, 8, 8)
