"""The units of one private step, as tensors of fixed shape."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from bract.errors import NO_CERTIFICATE, BractError


@dataclass(frozen=True)
class Batch:
    """n units (subjects, or groups of them) with m places for records each.

    Attributes:
        records: (n, m, …), padded with zeros.
        present: (n, m), True where there is a record.
        draws: (n, m, …), each record's own randomness: masks, crops, noise.
    """

    records: Tensor
    present: Tensor
    draws: Tensor

    def __len__(self) -> int:
        """How many units there are."""
        return len(self.present)

    def rows(self) -> tuple[Tensor, Tensor]:
        """Records and draws with units and places as one axis (n·m, …), all of a unit's rows side by side."""
        return self.records.flatten(0, 1), self.draws.flatten(0, 1)

    def mean(self, losses: Tensor) -> Tensor:
        """The mean over each unit's records that are there (n,) of losses (n·m,); zero for a unit that has none.

        Raises:
            BractError: `no-certificate`, when there is not one loss a record.
        """
        if losses.numel() != self.present.numel():
            raise BractError(NO_CERTIFICATE, f"losses of shape {tuple(losses.shape)} are not one a record")
        there = self.present.to(losses.dtype)
        return (losses.reshape(there.shape) * there).sum(1) / there.sum(1).clamp(min=1)

    def chunks(self, size: int) -> Iterator[Self]:
        """The batch in pieces of `size` units, the last filled up with absent ones."""
        for start in range(0, len(self), size):
            yield self.part(start, size)

    def part(self, start: int, size: int) -> Self:
        """`size` units from `start`; absent ones stand in for those beyond the end."""
        return type(self)(*(_filled(each[start : start + size], size) for each in self._tensors()))

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        return type(self)(*(each.to(device, non_blocking=True) for each in self._tensors()))

    @classmethod
    def join(cls, batches: Sequence[Self]) -> Self:
        """Several batches of equal m, one after the other."""
        return cls(*(torch.cat(parts) for parts in zip(*(each._tensors() for each in batches), strict=True)))

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.records, self.present, self.draws


def _filled(part: Tensor, size: int) -> Tensor:
    if len(part) == size:
        return part
    return torch.cat([part, part.new_zeros(size - len(part), *part.shape[1:])])
