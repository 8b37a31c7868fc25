"""What every objective is to the engine: one loss a record, its randomness drawn apart from the data."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from bract.encoders.encoder import Encoder


class Objective(nn.Module, ABC):
    """An encoder, a decoder and a loss a record. All of its parameters travel.

    The loss of a record may depend on that record, its own draw and the parameters, and on no other record.
    """

    encoder: Encoder

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Masks for `count` records, (count, …): a function of the generator only, never of data."""

    @abstractmethod
    def record_loss(self, records: Tensor, masks: Tensor) -> Tensor:
        """One loss a record (B,)."""
