"""What an objective is to the engine: one loss a unit, its randomness drawn apart from the data, its structure declared.

Objective         units are subjects; a loss depends on that subject, its draws, the parameters, released values: Δ = C
GroupObjective    units are groups of subjects made by independent coins; a loss couples a group's members: Δ = 2C
MomentObjective   as `Objective`, given a noised sum of bounded statistics that each step releases first
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from bract.encoders.encoder import Encoder
from bract.objectives.batch import Batch
from bract.objectives.spec import PrivacyStructure


class Objective(nn.Module, ABC):
    """An encoder, whatever else the loss needs, and a loss a unit.

    Parameters that require a gradient are trained and travel. Whatever else the module holds (a slow copy of the
    weights, embeddings of public items) must be a function of parameters and public values alone, made in `begin` or
    `after_step`.
    """

    structure: PrivacyStructure = PrivacyStructure.PER_RECORD
    encoder: Encoder

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws for `count` records, (count, …): a function of the generator only, never of data."""

    @abstractmethod
    def record_loss(self, records: Tensor, draws: Tensor) -> Tensor:
        """One loss a record (B,). Each trained layer is applied once, to rows of which a record's lie side by side."""

    def unit_loss(self, batch: Batch) -> Tensor:
        """One loss a unit (n,): the mean over its records."""
        return batch.mean(self.record_loss(*batch.rows()))

    def begin(self) -> None:
        """Called once the round's arrays are in place: make what is derived from them."""

    def after_step(self) -> None:
        """Called when a noised step was taken: bring up to date what is derived from the parameters."""


class GroupObjective(Objective):
    """A loss over groups of subjects, one record each. Who is in which group is drawn afresh and independently.

    Attributes:
        group_size: subjects expected in a group; public.
        group_capacity: places in a group; of more members, those with the least random priorities stay.
    """

    structure = PrivacyStructure.PER_GROUP
    group_size: int
    group_capacity: int

    @abstractmethod
    def unit_loss(self, batch: Batch) -> Tensor:
        """One loss a group (n,) of members (n, group_capacity, …); zero for a group without two members."""

    def record_loss(self, records: Tensor, draws: Tensor) -> Tensor:
        """Each record as a group of its own (B,)."""
        present = torch.zeros(len(records), self.group_capacity, dtype=torch.bool, device=records.device)
        present[:, 0] = True
        spread = [each.new_zeros(len(each), self.group_capacity, *each.shape[1:]) for each in (records, draws)]
        spread[0][:, 0], spread[1][:, 0] = records, draws
        return self.unit_loss(Batch(spread[0], present, spread[1]))


class MomentObjective(Objective):
    """A loss that needs the mean of a statistic over all subjects, released with noise in the same step.

    Attributes:
        moment_noise: σ_m as a multiple of the gradient's own noise multiplier; public.
        moment_width: k, the numbers of one moment.
    """

    structure = PrivacyStructure.RELEASED_MOMENT
    moment_noise: float
    moment_width: int

    @abstractmethod
    def moment(self, batch: Batch) -> Tensor:
        """A statistic a unit (n, k), of L2 norm at most one; the engine scales down any that is above. No gradient."""

    @abstractmethod
    def receive(self, moment: Tensor) -> None:
        """Keep the noised mean (k,), float32, which losses take as a constant until the next one comes."""
