"""InfoNCE within groups of subjects that independent coins made [a correction of Li et al. 2026, 2604.26467].

Each view of a member has the member's other view as positive and all views of the other members as negatives. A subject
changes one group, whose clipped gradient moves by at most 2C (`bract.dpsgd.grouping`, `bract.dpsgd.scales`).
"""

import torch
from torch import Tensor

from bract.encoders.spec import EncoderSpec
from bract.errors import MALFORMED, BractError
from bract.objectives.batch import Batch
from bract.objectives.objective import GroupObjective
from bract.objectives.paired import Paired
from bract.objectives.spec import BucketContrastSpec

_NEVER = -1e9


class BucketContrast(Paired, GroupObjective):
    """Groups (n, capacity, …); draws (n, capacity, 2, …)."""

    def __init__(self, encoder: EncoderSpec, spec: BucketContrastSpec) -> None:
        super().__init__(encoder, spec.views, spec.width)
        if spec.group_capacity < spec.group_size:
            raise BractError(MALFORMED, "objective: group_capacity is less than group_size")
        self.temperature = spec.temperature
        self.group_size, self.group_capacity = spec.group_size, spec.group_capacity

    def unit_loss(self, batch: Batch) -> Tensor:
        """The mean over a group's views (n,); zero without two members. What an absent place holds has no influence."""
        count, places = batch.present.shape
        records, draws = batch.rows()
        there = batch.present.reshape(-1, *[1] * (records.ndim - 1))
        members = torch.where(there, records, torch.zeros_like(records))
        views = self.embeddings(members, draws).reshape(count, 2 * places, -1)
        present = torch.stack([batch.present, batch.present], 2).flatten(
            1
        )  # (n, 2·places), a member's views side by side
        here = torch.arange(2 * places, device=records.device)
        barred = ~present[:, None, :] | (here[:, None] == here)
        likeness = (views @ views.transpose(1, 2) / self.temperature).masked_fill(barred, _NEVER)
        positive = likeness.gather(2, (here ^ 1).expand(count, -1)[..., None])[..., 0]
        losses = torch.where(present, likeness.logsumexp(2) - positive, torch.zeros_like(positive)).sum(1)
        members_there = batch.present.sum(1)
        share = (members_there > 1).to(losses.dtype) / (2 * members_there.clamp(min=1))
        return losses * share
