"""Masked features of a row: hidden columns are predicted from the others [BERT 1810.04805; TabNet 1908.07442 §3].

Each row hides the same number of columns. Its loss is the mean over its own hidden columns: squared error of a
standardised number, cross-entropy of a category divided by ln(its values), so that a blind guess costs about one
everywhere.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from bract.encoders.spec import TableSpec
from bract.encoders.table import TableEncoder
from bract.objectives.objective import Objective
from bract.objectives.spec import MaskedTableSpec


class MaskedTable(Objective):
    """Rows (B, D); draws (B, K), True where a column is hidden."""

    encoder: TableEncoder

    def __init__(self, encoder: TableSpec, spec: MaskedTableSpec) -> None:
        super().__init__()
        self.encoder = TableEncoder(encoder)
        self.schema = self.encoder.schema
        columns = len(self.schema.names)
        self.hidden = min(columns - 1, max(1, round(spec.mask_ratio * columns)))
        self.decoder = nn.Sequential(
            nn.Linear(encoder.dim, encoder.dim), nn.GELU(), nn.Linear(encoder.dim, self.schema.width)
        )

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Which columns are hidden: the same number in every row, chosen evenly."""
        columns = len(self.schema.names)
        ranks = torch.rand(count, columns, generator=generator).argsort(1).argsort(1)
        return ranks < self.hidden

    def record_loss(self, records: Tensor, draws: Tensor) -> Tensor:
        """The mean error over a row's own hidden columns (B,)."""
        guesses = self.decoder(self.encoder(records, draws))
        numbers = len(self.schema.numeric)
        errors = [(guesses[:, :numbers] - records[:, :numbers]).square()]
        for column in self.schema.categorical:
            place = self.schema.slices[column.name]
            words = functional.log_softmax(guesses[:, place], dim=1)
            errors.append(-(words * records[:, place]).sum(1, keepdim=True) / math.log(len(column.values)))
        return (torch.cat(errors, dim=1) * draws.to(records.dtype)).sum(1) / self.hidden
