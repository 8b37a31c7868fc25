"""Every objective with each of its encoders, small, and real records to learn from."""

from functools import cache

import torch
from torch import Tensor

from bract.encoders.spec import EncoderSpec, TableSpec, ViTSpec
from bract.objectives.batch import Batch
from bract.objectives.build import build
from bract.objectives.objective import GroupObjective, MomentObjective, Objective
from bract.objectives.spec import (
    CATALOGUE,
    BarlowSpec,
    BucketContrastSpec,
    ByolSpec,
    LatentImageSpec,
    MaskedImageSpec,
    MaskedTableSpec,
    ObjectiveSpec,
    PublicContrastSpec,
    PublicRecordsSpec,
    SimSiamSpec,
    SpectralContrastSpec,
    VicRegSpec,
)
from bract.samples import adult_parts, digits_parts

VIT = ViTSpec("vit", image_size=8, patch_size=2, dim=24, depth=1, heads=3, mean=0.3, std=0.38)
TABLE = TableSpec("table", "adult", dim=32)
ENCODERS: dict[str, EncoderSpec] = {"vit": VIT, "table": TABLE}
FEW = PublicRecordsSpec(64)
SPECS: dict[str, ObjectiveSpec] = {
    spec.kind: spec
    for spec in (
        MaskedImageSpec("masked-image", decoder_dim=16, decoder_heads=2),
        MaskedTableSpec("masked-table"),
        LatentImageSpec("latent-image", predictor_dim=16, predictor_heads=2, keep=0.9),
        SimSiamSpec("simsiam", width=16, hidden=8, public=FEW),
        ByolSpec("byol", width=16, hidden=16, keep=0.9, public=FEW),
        PublicContrastSpec("public-contrast", width=16, public=FEW),
        BucketContrastSpec("bucket-contrast", width=16, group_size=4, group_capacity=6),
        BarlowSpec("barlow", width=8, public=FEW),
        VicRegSpec("vicreg", width=8, public=FEW),
        SpectralContrastSpec("spectral-contrast", width=8, public=FEW),
    )
}
CASES = [(kind, encoder) for kind, entry in CATALOGUE.items() for encoder in entry.encoders]
"""Kinds of objective and of encoder; an objective of the catalogue that has no small spec above is a KeyError."""


def made(kind: str, encoder: str, dtype: torch.dtype = torch.float32) -> Objective:
    objective = build(ENCODERS[encoder], SPECS[kind], 0).to(dtype)
    objective.begin()
    return objective


@cache
def real(encoder: str) -> Tensor:
    """Images of digits, or rows of the Adult table."""
    part = (digits_parts if encoder == "vit" else adult_parts)(1, 0).pool
    return torch.from_numpy(part.inputs[:180])


def batch_of(objective: Objective, records: Tensor, units: int, generator: torch.Generator, places: int = 2) -> Batch:
    """Units of records drawn from those; in the first all places are filled, in the others some."""
    if isinstance(objective, GroupObjective):
        places = objective.group_capacity
    chosen = records[torch.randint(len(records), (units * places,), generator=generator)]
    present = torch.rand(units, places, generator=generator) < 0.7
    present[0] = True
    draws = objective.draw(units * places, generator)
    dtype = next(objective.parameters()).dtype
    records = chosen.to(dtype).reshape(units, places, *chosen.shape[1:])
    return Batch(records * _grown(present, chosen), present, draws.reshape(units, places, *draws.shape[1:]))


def release(objective: Objective, batch: Batch) -> None:
    """What the engine does before a step, without noise."""
    if isinstance(objective, MomentObjective):
        objective.receive(objective.moment(batch).mean(0))


def losses_of_plain_steps(objective: Objective, records: Tensor, steps: int, rate: float = 2e-3) -> list[float]:
    """Train without privacy; the mean loss at each step."""
    generator = torch.Generator().manual_seed(1)
    descent = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], lr=rate)
    losses = []
    for _ in range(steps):
        batch = batch_of(objective, records, 24 if isinstance(objective, GroupObjective) else 96, generator, places=1)
        release(objective, batch)
        loss = objective.unit_loss(batch).mean()
        descent.zero_grad()
        torch.autograd.backward(loss)
        descent.step()
        objective.after_step()
        losses.append(loss.item())
    return losses


def _grown(present: Tensor, records: Tensor) -> Tensor:
    return present.reshape(*present.shape, *[1] * (records.ndim - 1))
