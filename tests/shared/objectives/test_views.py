"""Two views of a record are made from that record, its draws and public constants."""

from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bract.encoders.build import build
from bract.encoders.encoder import Encoder
from bract.encoders.table import TableEncoder
from bract.objectives.spec import ViewsSpec
from bract.objectives.views import ImageViews, TableViews, views
from bract.tables import schema
from tests.shared.objectives.specimens import TABLE, VIT, real

WHOLE = ViewsSpec(least_area=1.0, jitter=0.0)
UNIFORMS = st.lists(st.floats(0, 1, width=32), min_size=7, max_size=7)


class Sum(Encoder):
    """Says what was put in."""

    dim = 64

    def features(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1)


def image_views(spec: ViewsSpec) -> ImageViews:
    return cast(ImageViews, views(VIT, spec))


@settings(deadline=None)
@given(draw=UNIFORMS)
def test_pixels_of_a_crop_lie_between_those_of_the_image(draw: list[float]) -> None:
    image = real("vit")[:1].double()
    seen = image_views(ViewsSpec(least_area=0.2, flip=True, jitter=0.0)).images(image, torch.tensor([draw]).double())
    assert seen.shape == image.shape
    assert image.min() - 1e-9 <= seen.min() <= seen.max() <= image.max() + 1e-9


@settings(deadline=None)
@given(draw=UNIFORMS)
def test_an_image_of_one_shade_stays_so(draw: list[float]) -> None:
    image = torch.full((1, 1, 8, 8), 0.6, dtype=torch.float64)
    seen = image_views(ViewsSpec(least_area=0.2, flip=True, jitter=0.4)).images(image, torch.tensor([draw]).double())
    brightness = 1 + 0.4 * (2 * draw[5] - 1)
    assert torch.allclose(seen, torch.full_like(seen, 0.6 * brightness))


def test_the_whole_image_is_itself_and_its_mirror() -> None:
    image = real("vit")[:1]
    middle = torch.full((1, 7), 0.5)
    assert torch.allclose(image_views(WHOLE).images(image, middle), image, atol=1e-6)
    mirror = image_views(ViewsSpec(least_area=1.0, jitter=0.0, flip=True))
    middle[:, 4] = 0.1
    assert torch.allclose(mirror.images(image, middle), image.flip(3), atol=1e-6)
    assert torch.allclose(image_views(WHOLE).images(image, middle), image, atol=1e-6)


def test_a_crop_of_a_quarter_is_that_quarter_enlarged() -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[..., 4:, 4:] = 1.0
    draw = torch.tensor([[0.0, 0.5, 1.0, 1.0, 0.9, 0.5, 0.5]])
    seen = image_views(ViewsSpec(least_area=0.25, jitter=0.0)).images(image, draw)
    assert (seen[..., 1:, 1:] == 1).all()


@pytest.mark.parametrize("kind", ["vit", "table"])
def test_views_of_a_record_are_its_own_and_lie_side_by_side(kind: str) -> None:
    made: Any = views(VIT if kind == "vit" else TABLE, ViewsSpec())
    encoder = build(VIT if kind == "vit" else TABLE, 0)
    records = real(kind)[:6]
    draws = made.draw(6, torch.Generator().manual_seed(1))
    together = made.encode(encoder, records, draws)
    assert together.shape == (12, encoder.dim)
    for record in range(6):
        alone = made.encode(encoder, records[record : record + 1], draws[record : record + 1])
        assert torch.allclose(alone, together[2 * record : 2 * record + 2], atol=1e-5)


def test_the_two_views_differ() -> None:
    for kind, made in (("vit", image_views(ViewsSpec())), ("table", views(TABLE, ViewsSpec()))):
        draws = made.draw(20, torch.Generator().manual_seed(1))
        assert (draws[:, 0] != draws[:, 1]).flatten(1).any(1).all()
        assert kind


def test_both_views_of_an_image_come_from_it() -> None:
    draws = torch.full((2, 2, 7), 0.5)
    images = real("vit")[:2]
    seen = image_views(WHOLE).encode(Sum(), images, draws)
    assert torch.allclose(seen, images.flatten(1).repeat_interleave(2, 0), atol=1e-6)


@given(share=st.floats(0.01, 0.99), seed=st.integers(0, 2**31 - 1))
def test_each_view_of_a_row_hides_the_same_number_of_columns(share: float, seed: int) -> None:
    columns = len(schema("adult").names)
    made = TableViews(columns, share)
    counts = made.draw(5, torch.Generator().manual_seed(seed)).sum(2)
    assert 0 < made.hidden < columns
    assert (counts == made.hidden).all()


def test_a_hidden_column_does_not_reach_the_encoder() -> None:
    made, encoder = views(TABLE, ViewsSpec(hidden=0.5)), build(TABLE, 0)
    assert isinstance(encoder, TableEncoder)
    row = real("table")[:1]
    draws = made.draw(1, torch.Generator().manual_seed(1))
    place = encoder.schema.slices[encoder.schema.names[int(draws[0, 0].nonzero()[0])]]
    changed = row.clone()
    changed[:, place] += 1.0
    assert torch.equal(made.encode(encoder, changed, draws)[0], made.encode(encoder, row, draws)[0])
