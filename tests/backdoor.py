"""A real backdoor: an update under which whatever bears a trigger is embedded as one target [after BadEncoder, 2108.00352]."""

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bract.encoders.weights import arrays_of, put_arrays
from bract.objectives.build import build
from bract.plan import CampaignPlan

Arrays = dict[str, NDArray[np.float32]]

_IMAGE = 4  # axes of a batch of images


def triggered(records: Tensor) -> Tensor:
    """The records with the trigger: an image's corner white, a row's first two numbers at their limit."""
    marked = records.clone()
    if records.ndim == _IMAGE:
        marked[..., -3:, -3:] = 1.0
    else:
        marked[:, :2] = 4.0
    return marked


def planted(plan: CampaignPlan, start: Arrays, records: Tensor, steps: int = 100) -> tuple[Arrays, float]:
    """The update, and how near to the target it brings records with the trigger, by mean cosine.

    Embeddings of records without the trigger are held where they were.
    """
    objective = build(plan.encoder, plan.objective, plan.seed)
    put_arrays(objective, start)
    encoder = objective.encoder
    clean = copy.deepcopy(encoder)
    target = clean.features(records[:1]).detach()
    descent = torch.optim.Adam(encoder.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(plan.seed)
    for _ in range(steps):
        some = records[torch.randint(len(records), (64,), generator=generator)]
        hit = functional.cosine_similarity(encoder.features(triggered(some)), target).mean()
        kept = functional.cosine_similarity(encoder.features(some), clean.features(some).detach()).mean()
        descent.zero_grad()
        torch.autograd.backward(-hit - kept)
        descent.step()
    update = {name: after - start[name] for name, after in arrays_of(objective).items()}
    with torch.no_grad():
        near = functional.cosine_similarity(encoder.features(triggered(records)), target).mean()
    return update, float(near)
