"""With exact moments, losses of single records have the gradient of the paper's loss over the batch."""

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bract.dpsgd.clipper import trained
from bract.objectives.barlow import Barlow
from bract.objectives.batch import Batch
from bract.objectives.build import build
from bract.objectives.released_moment import ReleasedMoment, entries, flat, product, second, square
from bract.objectives.spec import BarlowSpec, SpectralContrastSpec, VicRegSpec
from bract.objectives.spectral_contrast import SpectralContrast
from bract.objectives.vicreg import VicReg
from tests.shared.objectives.specimens import ENCODERS, SPECS, batch_of, made, real

KINDS = ["barlow", "vicreg", "spectral-contrast"]
Paper = Callable[[ReleasedMoment, Tensor, Tensor], Tensor]


def moment_objective(kind: str, encoder: str = "table", dtype: torch.dtype = torch.float64) -> ReleasedMoment:
    return cast(ReleasedMoment, made(kind, encoder, dtype))


def both_orders(first: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    return torch.cat([first, other]), torch.cat([other, first])


def barlow(objective: ReleasedMoment, first: Tensor, other: Tensor) -> Tensor:
    """Algorithm 1 of 2103.03230, on a batch that holds each pair in both orders."""
    assert isinstance(objective, Barlow)
    left, right = both_orders(first, other)
    left = (left - left.mean(0)) / left.std(0, correction=0)
    right = (right - right.mean(0)) / right.std(0, correction=0)
    correlation = left.T @ right / len(left)
    wanted = torch.eye(len(correlation), dtype=correlation.dtype)
    weight = wanted + objective.redundancy * (1 - wanted)
    return ((correlation - wanted).square() * weight).sum()


def vicreg(objective: ReleasedMoment, first: Tensor, other: Tensor) -> Tensor:
    """Equations 1 to 6 of 2105.04906, on a batch that holds each pair in both orders; with n for n − 1."""
    assert isinstance(objective, VicReg)
    width = first.shape[1]
    left, right = both_orders(first * width**0.5, other * width**0.5)
    loss = objective.invariance * (left - right).square().sum(1).mean() / width
    for branch in (left, right):
        centred = branch - branch.mean(0)
        covariance = centred.T @ centred / len(centred)
        hinge = torch.relu(1 - (covariance.diagonal() + 1e-4).sqrt()).mean()
        off = covariance - covariance.diagonal().diag()
        loss = loss + objective.variance * hinge + objective.covariance * off.square().sum() / width
    return loss


def spectral(objective: ReleasedMoment, first: Tensor, other: Tensor) -> Tensor:
    """−2·E[f·f⁺] + E[(f·f′)²] of 2106.04156, f and f′ over all views of the batch."""
    assert isinstance(objective, SpectralContrast)
    views = torch.cat([first, other]) * objective.radius**0.5
    alike = (first * other).sum(1).mean() * objective.radius
    every: Tensor = views @ views.T
    return every.square().mean() - 2 * alike


PAPERS: dict[str, Paper] = {"barlow": barlow, "vicreg": vicreg, "spectral-contrast": spectral}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encoder", ["vit", "table"])
def test_the_mean_of_records_losses_has_the_paper_s_value_and_gradient(kind: str, encoder: str) -> None:
    spec = SPECS[kind]
    if isinstance(spec, BarlowSpec):
        spec = replace(spec, floor=1e-6)  # the paper divides by any variance
    objective = build(ENCODERS[encoder], spec, 0).double()
    assert isinstance(objective, ReleasedMoment)
    objective.begin()
    records = real(encoder)[:80].double()
    draws = objective.draw(80, torch.Generator().manual_seed(1))
    batch = Batch(records[:, None], torch.ones(80, 1, dtype=torch.bool), draws[:, None])
    objective.receive(objective.moment(batch).mean(0))
    parameters = list(trained(objective).values())
    ours = objective.unit_loss(batch).mean()
    views = objective.embeddings(records, draws)
    papers = PAPERS[kind](objective, views[:, 0], views[:, 1])
    assert torch.allclose(ours, papers, rtol=1e-9)
    pairs = zip(torch.autograd.grad(ours, parameters), torch.autograd.grad(papers, parameters), strict=True)
    scale = max(
        float(gradient.norm()) for gradient in torch.autograd.grad(objective.unit_loss(batch).mean(), parameters)
    )
    assert scale > 1e-3
    assert all((one - other).norm() <= 1e-6 * scale for one, other in pairs)


def test_a_moment_of_another_batch_gives_another_gradient() -> None:
    objective = moment_objective("barlow")
    batch = batch_of(objective, real("table"), 30, torch.Generator().manual_seed(1))
    found = []
    for rows in (batch, batch.part(0, 3)):
        objective.receive(objective.moment(rows).mean(0))
        found.append(torch.autograd.grad(objective.unit_loss(batch).mean(), list(trained(objective).values()))[0])
    assert (found[0] - found[1]).norm() > 0.01 * found[0].norm()


NUMBERS = st.floats(-1e3, 1e3)
PAIRS = st.lists(st.lists(NUMBERS, min_size=16, max_size=16), min_size=1, max_size=4)


@pytest.mark.parametrize("kind", KINDS)
@given(rows=PAIRS)
def test_a_record_s_statistic_has_norm_at_most_one(kind: str, rows: list[list[float]]) -> None:
    objective = CACHE[kind]
    raw = torch.tensor(rows, dtype=torch.float64).reshape(-1, 2, 8)
    norms = raw.norm(dim=2, keepdim=True)
    statistic = objective.statistic(torch.where(norms > 0, raw / norms.clamp(min=1e-300), raw))
    assert statistic.shape == (len(rows), objective.moment_width)
    assert float(statistic.norm(dim=1).max()) <= 1 + 1e-12


CACHE = {kind: moment_objective(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_of_the_statistic_is_not_a_loose_one(kind: str) -> None:
    axis = torch.zeros(1, 2, 8, dtype=torch.float64)
    axis[..., 0] = 1
    assert float(CACHE[kind].statistic(axis).norm()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encoder", ["vit", "table"])
def test_a_subject_s_moment_has_norm_at_most_one_whatever_its_records(kind: str, encoder: str) -> None:
    objective = moment_objective(kind, encoder, torch.float32)
    batch = batch_of(objective, real(encoder), 6, torch.Generator().manual_seed(1), places=3)
    for records in (batch.records, batch.records * 0, batch.records * 100 + 7, -batch.records):
        moments = objective.moment(Batch(records, batch.present, batch.draws))
        assert moments.shape == (6, objective.moment_width)
        assert not moments.requires_grad
        assert float(moments.norm(dim=1).max()) <= 1 + 1e-5


@given(rows=st.lists(st.lists(NUMBERS, min_size=5, max_size=5), min_size=5, max_size=5))
def test_symmetric_matrices_and_vectors_are_the_same_thing(rows: list[list[float]]) -> None:
    matrix = torch.tensor(rows, dtype=torch.float64)
    matrix = matrix + matrix.T
    vector = flat(matrix)
    assert vector.shape == (entries(5),)
    assert torch.allclose(vector.norm(), matrix.norm())
    assert torch.allclose(square(vector, 5), matrix)


def test_moments_of_pairs_do_not_depend_on_the_order_of_the_views() -> None:
    views = torch.randn(4, 2, 5, dtype=torch.float64)
    for moment in (product, second):
        assert torch.allclose(moment(views), moment(views.flip(1)))
        assert torch.allclose(moment(views), moment(views).transpose(1, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_any_noisy_release_leaves_losses_finite(kind: str) -> None:
    objective = moment_objective(kind)
    batch = batch_of(objective, real("table"), 5, torch.Generator().manual_seed(1))
    for scale in (0.0, 0.1, 1.0, 100.0):
        noise = torch.randn(objective.moment_width, generator=torch.Generator().manual_seed(3))
        objective.receive(scale * noise)
        loss = objective.unit_loss(batch)
        gradients = torch.autograd.grad(loss.sum(), list(trained(objective).values()))
        assert torch.isfinite(loss).all()
        assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_the_running_mean_of_equal_releases_is_the_release_itself() -> None:
    spec = SpectralContrastSpec("spectral-contrast", width=8, memory=0.9)
    objective = build(ENCODERS["table"], spec, 0)
    assert isinstance(objective, SpectralContrast)
    release = torch.rand(objective.moment_width)
    for _ in range(3):
        objective.receive(release)
        assert torch.allclose(objective.slope, 2 * spec.radius**2 * release, rtol=1e-5)
    objective.begin()
    assert not objective.slope.any()


def test_a_coordinate_without_variance_is_pushed_apart_even_if_noise_makes_it_negative() -> None:
    objective = CACHE["vicreg"]
    assert isinstance(objective, VicReg)
    objective.receive(torch.full((objective.moment_width,), -0.01))
    diagonal = square(objective.slope[8:], 8).diagonal()
    assert (diagonal < 0).all()
    assert isinstance(SPECS["vicreg"], VicRegSpec)
