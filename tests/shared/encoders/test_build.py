"""An encoder is a function of its public spec and seed; its arrays come out and go in by name."""

import pytest
import torch
from torch import Tensor

from bract.arrays import from_bytes, to_bytes
from bract.digest import digest
from bract.encoders.build import build
from bract.encoders.spec import TableSpec, ViTSpec
from bract.encoders.vit import ViTEncoder
from bract.encoders.weights import arrays_of, fill, layout, put_arrays
from bract.errors import BAD_ARRAYS, MALFORMED, BractError
from bract.tables import schema

VIT = ViTSpec("vit", image_size=8, patch_size=2, dim=24, depth=2, heads=3)
TABLE = TableSpec("table", "adult", dim=16, depth=2)
SPECS = pytest.mark.parametrize(
    ("spec", "inputs"),
    [(VIT, torch.rand(5, 1, 8, 8)), (TABLE, torch.rand(5, schema("adult").width))],
    ids=["vit", "table"],
)


@SPECS
def test_features_have_the_encoder_s_width_and_are_each_record_s_own(spec: ViTSpec | TableSpec, inputs: Tensor) -> None:
    encoder = build(spec, 0)
    together = encoder.features(inputs)
    assert together.shape == (5, spec.dim)
    alone = torch.cat([encoder.features(inputs[i : i + 1]) for i in range(5)])
    assert torch.allclose(together, alone, atol=1e-5)


@SPECS
def test_the_seed_alone_decides_the_arrays(spec: ViTSpec | TableSpec, inputs: Tensor) -> None:
    torch.manual_seed(1)
    first = to_bytes(arrays_of(build(spec, 7)))
    torch.manual_seed(2)
    assert to_bytes(arrays_of(build(spec, 7))) == first
    assert to_bytes(arrays_of(build(spec, 8))) != first


def test_the_initial_arrays_have_a_known_digest_on_any_machine() -> None:
    named = digest(to_bytes(arrays_of(build(TableSpec("table", "adult", dim=8, depth=1), 0))))
    assert named == "sha256:22f40113825c68641e53c6d8d0b814746bbc3d5d46a3d0c047b4146ef76461ba"


@SPECS
def test_building_leaves_the_global_random_state_alone(spec: ViTSpec | TableSpec, inputs: Tensor) -> None:
    before = torch.get_rng_state()
    build(spec, 0)
    assert torch.equal(torch.get_rng_state(), before)


@SPECS
def test_arrays_travel_and_give_the_same_features(spec: ViTSpec | TableSpec, inputs: Tensor) -> None:
    sender, receiver = build(spec, 0), build(spec, 1)
    carried = from_bytes(to_bytes(arrays_of(sender)), layout(receiver))
    put_arrays(receiver, carried)
    assert torch.equal(sender.features(inputs), receiver.features(inputs))


def test_arrays_of_another_encoder_are_refused_and_change_nothing() -> None:
    encoder = build(TABLE, 0)
    before = to_bytes(arrays_of(encoder))
    other = arrays_of(build(TableSpec("table", "adult", dim=24, depth=2), 0))
    with pytest.raises(BractError) as caught:
        put_arrays(encoder, other)
    assert caught.value.code == BAD_ARRAYS
    assert to_bytes(arrays_of(encoder)) == before


def test_what_is_not_trained_is_neither_filled_nor_sent_nor_overwritten() -> None:
    encoder = build(TABLE, 0)
    name, frozen = next(iter(encoder.named_parameters()))
    frozen.requires_grad = False
    before = frozen.clone()
    fill(encoder, 1)
    assert torch.equal(frozen, before)
    assert name not in layout(encoder)
    carried = arrays_of(encoder)
    assert carried.keys() == layout(encoder).keys()
    put_arrays(encoder, {key: array + 1 for key, array in carried.items()})
    assert torch.equal(frozen, before)
    assert all((arrays_of(encoder)[key] == carried[key] + 1).all() for key in carried)


def test_positions_are_fixed_and_do_not_travel() -> None:
    encoder = build(VIT, 0)
    assert isinstance(encoder, ViTEncoder)
    assert not any("position" in name for name in layout(encoder))
    assert len({tuple(row.tolist()) for row in encoder.positions}) == 16


@pytest.mark.parametrize(
    "spec",
    [
        ViTSpec("vit", image_size=8, patch_size=3),
        ViTSpec("vit", image_size=8, patch_size=2, dim=20, heads=3),
        TableSpec("table", "nobody"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(spec: ViTSpec | TableSpec) -> None:
    with pytest.raises(BractError) as caught:
        build(spec, 0)
    assert caught.value.code == MALFORMED
