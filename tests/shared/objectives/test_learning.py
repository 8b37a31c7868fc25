"""Without noise, every objective learns something of real records and keeps them apart."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bract.objectives.objective import Objective
from bract.objectives.paired import Paired
from tests.shared.objectives.specimens import CASES, batch_of, losses_of_plain_steps, made, real

STEPS = 40
FLOOR = 0.05


def spread(objective: Objective, records: Tensor) -> float:
    """How far normalised embeddings lie from their mean, root mean square; zero when all are one, one at most.

    Of projections, where the loss would make them collapse; of features, where there are none.
    """
    with torch.no_grad():
        if isinstance(objective, Paired):
            draws = objective.draw(len(records), torch.Generator().manual_seed(0))
            embedded = objective.embeddings(records, draws)[:, 0]
        else:
            embedded = functional.normalize(objective.encoder.features(records), dim=1)
    return float(embedded.var(0, correction=0).sum().sqrt())


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "encoder"), CASES, ids=["-on-".join(case) for case in CASES])
def test_plain_steps_bring_the_loss_down_and_embeddings_do_not_collapse(kind: str, encoder: str) -> None:
    objective, records = made(kind, encoder), real(encoder)
    losses = losses_of_plain_steps(objective, records, STEPS)
    first, last = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
    assert last < first - 0.02 * abs(first)
    assert spread(objective, records) > FLOOR


def test_a_collapsed_encoder_is_seen() -> None:
    objective = made("simsiam", "vit")
    with torch.no_grad():
        for name, parameter in objective.named_parameters():
            if name == "projector.3.weight":
                parameter.mul_(1e-3)
            if name == "projector.3.bias":
                parameter.fill_(1.0)
    assert spread(objective, real("vit")) < FLOOR


def test_a_batch_of_the_specimens_has_groups_and_gaps() -> None:
    objective = made("bucket-contrast", "table")
    batch = batch_of(objective, real("table"), 50, torch.Generator().manual_seed(0))
    assert batch.present.shape == (50, 6)
    assert 0 < (~batch.present).sum() < 200
