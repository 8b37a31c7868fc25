"""A group's loss is InfoNCE among the members that are there."""

import pytest
import torch

from bract.dpsgd.clipper import engine, trained
from bract.dpsgd.vmap import explicit_gradient
from bract.objectives.batch import Batch
from bract.objectives.bucket_contrast import BucketContrast
from tests.shared.objectives.specimens import batch_of, made, real


def groups(encoder: str = "table") -> tuple[BucketContrast, Batch]:
    objective = made("bucket-contrast", encoder, torch.float64)
    assert isinstance(objective, BucketContrast)
    return objective, batch_of(objective, real(encoder), 6, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("encoder", ["vit", "table"])
def test_the_loss_is_that_of_a_plain_loop_over_members(encoder: str) -> None:
    objective, batch = groups(encoder)
    losses = objective.unit_loss(batch)
    for group in range(6):
        there = batch.present[group]
        views = objective.embeddings(batch.records[group][there], batch.draws[group][there])
        expected = []
        for member in range(len(views)):
            others = torch.cat([views[:member], views[member + 1 :]]).flatten(0, 1)
            for view in (0, 1):
                anchor, positive = views[member, view], views[member, 1 - view]
                scores = torch.cat([positive[None], others]) @ anchor / objective.temperature
                expected.append(scores.logsumexp(0) - scores[0])
        assert torch.allclose(losses[group], torch.stack(expected).mean())


@pytest.mark.parametrize("members", [0, 1])
def test_a_group_without_two_members_is_zero_and_so_is_its_gradient(members: int) -> None:
    objective, batch = groups()
    present = torch.zeros_like(batch.present)
    present[:, 3 : 3 + members] = True
    lonely = Batch(batch.records, present, batch.draws)
    assert not objective.unit_loss(lonely).any()
    assert not any(gradient.any() for gradient in explicit_gradient(objective, lonely).values())


def test_a_record_alone_has_no_loss() -> None:
    objective, batch = groups()
    assert objective.record_loss(batch.records[0], batch.draws[0]).tolist() == [0.0] * 6


def test_nothing_in_an_absent_place_matters_not_even_what_is_no_number() -> None:
    objective, batch = groups()
    records = batch.records.clone()
    records[~batch.present] = float("nan")
    spoilt = Batch(records, batch.present, batch.draws)
    assert torch.equal(objective.unit_loss(spoilt), objective.unit_loss(batch))
    for name, gradient in explicit_gradient(objective, spoilt).items():
        assert torch.allclose(gradient, explicit_gradient(objective, batch)[name])


def test_the_place_of_a_member_does_not_matter() -> None:
    objective, batch = groups()
    order = torch.randperm(6, generator=torch.Generator().manual_seed(2))
    moved = Batch(batch.records[:, order], batch.present[:, order], batch.draws[:, order])
    assert torch.allclose(objective.unit_loss(moved), objective.unit_loss(batch))


def test_one_more_member_moves_the_sum_by_at_most_twice_the_clip_and_by_more_than_none() -> None:
    objective, batch = groups()
    sums = engine("vmap")(objective)
    absent = batch.present.clone()
    absent[0, 2] = False
    for clip in (1e-3, 1.0):
        both = sums.clipped_sum(batch, clip).gradients
        less = sums.clipped_sum(Batch(batch.records, absent, batch.draws), clip).gradients
        moved = torch.stack([(one - other).norm() for one, other in zip(both, less, strict=True)]).norm() / clip
        assert 0.05 < float(moved) <= 2
    assert trained(objective)
