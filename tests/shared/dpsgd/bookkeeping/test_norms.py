"""A unit's norm is never taken for smaller than it is, however its terms cancel."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bract.dpsgd.bookkeeping.clipper import SLACK, BookKeeping
from bract.dpsgd.bookkeeping.layer import Form
from bract.dpsgd.bookkeeping.linear import Linear, gram_norms, rounding
from bract.encoders.encoder import Encoder
from bract.objectives.batch import Batch
from bract.objectives.objective import Objective


def exact(x: Tensor, g: Tensor, *, biased: bool) -> Tensor:
    each = torch.bmm(g.double().transpose(1, 2), x.double())
    square = each.flatten(1).square().sum(1)
    return square + g.double().sum(1).square().sum(1) if biased else square


def cancelling(units: int, positions: int, inputs: int, outputs: int, rest: float, seed: int) -> tuple[Tensor, Tensor]:
    """Positions in pairs whose gradients cancel up to a small rest."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(units, positions, inputs, generator=generator)
    g = torch.randn(units, positions, outputs, generator=generator)
    half = positions // 2
    x[:, half : 2 * half] = x[:, :half]
    g[:, half : 2 * half] = -g[:, :half] + rest * torch.randn(units, half, outputs, generator=generator)
    g[:, 2 * half :] = 0
    return x, g


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 150), st.integers(1, 40), st.integers(1, 40), st.floats(-9, 0), st.floats(-6, 6), st.booleans(),
    st.integers(0, 10_000),
)  # fmt: skip
def test_the_squared_norm_is_within_the_proved_error_of_the_true_one(
    positions: int, inputs: int, outputs: int, rest: float, size: float, biased: bool, seed: int
) -> None:
    x, g = cancelling(3, positions, inputs, outputs, 10**rest, seed)
    x = x * 10**size
    value, reach = gram_norms(x, g, biased=biased)
    error = rounding(torch.float32, inputs + outputs) * reach.double().square()
    assert ((value - exact(x, g, biased=biased)).abs() <= error).all()


def test_cancellation_does_fool_a_norm_without_the_error_term() -> None:
    x, g = cancelling(64, 128, 32, 32, 1e-7, 0)
    value, _ = gram_norms(1e3 * x, g, biased=False)
    true = exact(1e3 * x, g, biased=False)
    assert (value < 0.9 * true).any()


class Cancels(Objective):
    """A linear layer whose gradient is a sum of positions that nearly cancel."""

    encoder: Encoder

    def __init__(self, rest: float) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)
        self.rest = rest

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, 64, 16, generator=generator)

    def record_loss(self, records: Tensor, draws: Tensor) -> Tensor:
        twice = torch.cat([records, records], 1)
        signs = torch.cat([draws, -draws * (1 - self.rest)], 1)
        losses: Tensor = (self.layer(twice) * signs).sum((1, 2))
        return losses


@settings(max_examples=25, deadline=None)
@given(st.floats(-8, -2), st.floats(-4, 4), st.integers(0, 10_000))
def test_no_unit_adds_more_than_the_clip_and_the_slack_even_where_terms_cancel(
    rest: float, size: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    objective = Cancels(10**rest)
    clipper = BookKeeping(objective, tune=False)
    records = torch.randn(1, 1, 64, 16, generator=generator) * 10**size
    draws = objective.draw(1, generator)[:, None]
    layer = Linear("layer.weight", "layer.bias", Form(1, (128, 16), torch.float32, torch.device("cpu")), 16)
    layer.route = "ghost"
    x = torch.cat([records[0, 0], records[0, 0]])[None]
    g = torch.cat([draws[0, 0], -draws[0, 0] * (1 - objective.rest)])[None]
    assert (layer.squares([x, g], 1).value >= -1e30).all()
    clip = 0.5 * float(exact(x, g, biased=True).sqrt())
    added = clipper.clipped_sum(Batch(records, torch.ones(1, 1, dtype=torch.bool), draws), clip).gradients
    assert torch.stack([each.double().norm() for each in added]).norm() <= clip * (1 + SLACK) + 1e-3 * clip
