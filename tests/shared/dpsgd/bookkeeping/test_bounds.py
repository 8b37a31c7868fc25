"""No subject moves the sum by more than C·(1 + slack), with numbers and orders that were made to break it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bract.dpsgd.bookkeeping.clipper import SLACK, BookKeeping
from bract.dpsgd.draws import rekey
from bract.dpsgd.sampler import SecureSampler, SeededSampler
from bract.encoders.encoder import Encoder
from bract.objectives.batch import Batch
from bract.objectives.objective import Objective


class Model(Objective):
    """Any loss of a record on any parameters."""

    encoder: Encoder

    def __init__(self, parts: nn.Module, loss: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.parts, self.loss = parts, loss

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(count, 1)

    def record_loss(self, records: Tensor, draws: Tensor) -> Tensor:
        return self.loss(self.parts, records)


class Token(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.ones(1, 2))


def tokens() -> Model:
    def loss(parts: nn.Module, records: Tensor) -> Tensor:
        rows: Tensor = parts.token.expand(len(records), 2)  # type: ignore[operator]
        return (rows * records).sum(1)

    return Model(Token(), loss)


def batch_of(records: Tensor) -> Batch:
    return Batch(records, torch.ones(records.shape[:2], dtype=torch.bool), torch.zeros(*records.shape[:2], 1))


def summed(objective: Objective, records: Tensor, clip: float) -> Tensor:
    found = BookKeeping(objective, tune=False).clipped_sum(batch_of(records), clip).gradients
    return torch.cat([each.double().flatten() for each in found])


@pytest.mark.parametrize("power", [10, 25, 30, 40])
def test_a_subject_whose_records_cancel_adds_nothing_and_swallows_nobody(power: int) -> None:
    others = torch.full((100, 2, 2), 0.5)
    added = torch.tensor([[[1.0, 1.0], [-1.0, -1.0]]]) * 2.0**power
    objective = tokens()
    apart = summed(objective, torch.cat([added, others]), 1.0) - summed(objective, others, 1.0)
    assert apart.norm() <= 1 + SLACK


def test_one_subject_in_front_of_very_many_moves_the_sum_no_further() -> None:
    objective = Model(nn.Linear(1, 1, bias=False), lambda parts, records: parts(records)[:, 0])
    generator = torch.Generator().manual_seed(0)
    others = 0.5 + 0.5 * torch.rand(50_000, 1, 1, generator=generator)
    first = torch.ones(1, 1, 1)
    apart = summed(objective, torch.cat([first, others]), 1.0) - summed(objective, others, 1.0)
    assert apart.norm() <= 1 + SLACK


def test_low_precision_around_the_engine_does_not_reach_its_norms() -> None:
    objective = Model(nn.Linear(2, 2, bias=False), lambda parts, records: (parts(records) * signs).sum((1, 2)))
    signs = torch.tensor([[1.0, 1.003], [-1.0, -1.0]])
    records = torch.tensor([[[[1.0, 1.001], [1.0, 1.0]]]])
    with torch.autocast("cpu", torch.bfloat16):
        low = summed(objective, records, 1e-3)
    assert low.norm() <= 1e-3 * (1 + SLACK)


class Tied(nn.Module):
    """Word vectors whose mean predicts by the same matrix: one position at the output."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(4, 2)
        self.out = nn.Linear(2, 4, bias=False)
        self.out.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.out(self.words(tokens).mean(1))
        return logits


@pytest.mark.parametrize("seed", range(20))
def test_a_tied_matrix_with_one_position_stays_within_the_clip(seed: int) -> None:
    torch.manual_seed(seed)
    objective = Model(Tied(), lambda parts, records: parts(records)[:, 0] * 3e3)
    with torch.no_grad():
        objective.parts.words.weight.mul_(1e3)  # type: ignore[union-attr, operator]
    records = torch.randint(0, 4, (1, 1, 3), generator=torch.Generator().manual_seed(seed))
    assert summed(objective, records, 1e-2).norm() <= 1e-2 * (1 + SLACK)


@pytest.mark.parametrize(("size", "small"), [(1e18, 1e-23), (1e18, 1e-22), (1e-22, 1e18), (1e8, 1e-12), (1e25, 1e-25)])
@pytest.mark.parametrize("positions", [1, 2])
def test_numbers_whose_squares_vanish_do_not_hide_a_norm(size: float, small: float, positions: int) -> None:
    objective = Model(nn.Linear(2, 2, bias=False), lambda parts, records: (parts(records) * small).sum((1, 2)))
    records = torch.full((1, 1, positions, 2), size)
    assert summed(objective, records, 1e-3).norm() <= 1e-3 * (1 + SLACK)


def test_places_that_nobody_fills_cannot_spoil_the_sum() -> None:
    objective = Model(nn.Linear(1, 1, bias=False), lambda parts, records: parts(records)[:, 0] / records[:, 0])
    for count in (15, 16, 17):
        found = summed(objective, torch.ones(count, 1, 1), 10.0)
        assert torch.equal(found, torch.tensor([float(count)], dtype=torch.float64))


def test_a_parameter_used_behind_the_engines_back_is_refused_by_name() -> None:
    layer = nn.Linear(2, 2, bias=False)
    held = [layer.weight]
    objective = Model(layer, lambda parts, records: (parts(records) + records @ held[0].T).sum(1))
    with pytest.raises(Exception, match=r"parts\.weight"):
        summed(objective, torch.ones(3, 1, 2), 1.0)


def test_draws_are_keyed_with_all_their_state_and_repeat_only_with_the_sampler() -> None:
    made = []
    for sampler in (SeededSampler(5), SeededSampler(5), SeededSampler(5 + 2**32), SecureSampler()):
        generator = torch.Generator()
        rekey(generator, sampler)
        made.append(torch.rand(2000, generator=generator))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    assert not torch.equal(made[0], made[3])
    assert abs(float(made[3].mean()) - 0.5) < 6 / (12 * 2000) ** 0.5
