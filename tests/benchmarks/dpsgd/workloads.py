"""The rows: models of real size with their objectives. Data are random numbers of the right form: only time is measured."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bract.encoders.spec import TableSpec, ViTSpec
from bract.objectives.batch import Batch
from bract.objectives.masked_image import MaskedImage
from bract.objectives.masked_table import MaskedTable
from bract.objectives.objective import Objective
from bract.objectives.spec import MaskedImageSpec, MaskedTableSpec
from tests.benchmarks.dpsgd.series import MaskedSeries, series
from tests.benchmarks.dpsgd.turned import Turned, pictures
from tests.benchmarks.dpsgd.words import MaskedWords, texts

_SEED = 7


@dataclass(frozen=True)
class Workload:
    """A row.

    Attributes:
        make: the objective; given True, its plain parameters are moved into layers (where it has any).
        records: data (n, …) for it.
        plain_parameters: whether it has parameters that belong to no layer.
    """

    make: Callable[[bool], Objective]
    records: Callable[[Any, int, torch.Generator], Tensor]
    plain_parameters: bool = False

    def objective(self, *, layers: bool = False) -> Objective:
        """The same weights each time."""
        torch.manual_seed(_SEED)
        return self.make(layers).train()

    def batch(self, objective: Objective, count: int) -> Batch:
        """Units of one record each, the same each time."""
        generator = torch.Generator().manual_seed(_SEED)
        records = self.records(objective, count, generator)
        draws = objective.draw(count, generator)
        return Batch(records[:, None], torch.ones(count, 1, dtype=torch.bool), draws[:, None])


def _mae(side: int, patch: int, dim: int, depth: int, heads: int, decoder: tuple[int, int, int]) -> Workload:
    """Masked autoencoding, three quarters hidden [He et al. 2022, 2111.06377]."""
    encoder = ViTSpec("vit", side, patch, channels=3, dim=dim, depth=depth, heads=heads, mlp_ratio=4.0)
    spec = MaskedImageSpec("masked-image", 0.75, *decoder)
    return Workload(
        lambda _: MaskedImage(encoder, spec),
        lambda _, count, generator: torch.rand(count, 3, side, side, generator=generator),
    )


def _mlm(vocabulary: int, dim: int, depth: int, *, tied: bool) -> Workload:
    """128 words, of which 15 % are hidden."""
    return Workload(lambda _: MaskedWords(vocabulary, 128, 19, dim, depth, tied=tied), texts)


def _table(dim: int, depth: int) -> Workload:
    encoder, spec = TableSpec("table", "adult", dim, depth), MaskedTableSpec("masked-table")
    return Workload(lambda _: MaskedTable(encoder, spec), _rows)


def _rows(objective: MaskedTable, count: int, generator: torch.Generator) -> Tensor:
    """Random rows: normal numbers, and one of each column's values."""
    schema = objective.schema
    rows = torch.zeros(count, schema.width)
    rows[:, : len(schema.numeric)] = torch.randn(count, len(schema.numeric), generator=generator)
    for column in schema.categorical:
        values = torch.randint(0, len(column.values), (count, 1), generator=generator)
        rows[:, schema.slices[column.name]] = torch.zeros(count, len(column.values)).scatter(1, values, 1.0)
    return rows


def _series(dim: int, depth: int) -> Workload:
    """Eight channels of 512 numbers in patches of 16."""
    return Workload(lambda layers: MaskedSeries(8, 512, 16, dim, depth, layers=layers), series, plain_parameters=True)


def _conv(widths: tuple[int, ...], depth: int) -> Workload:
    return Workload(lambda _: Turned(widths, depth, 32), pictures)


FULL = {
    "mae-tiny-32": _mae(32, 4, 192, 12, 3, (128, 2, 4)),
    "mae-small-32": _mae(32, 4, 384, 12, 6, (192, 2, 6)),
    "mae-tiny-224": _mae(224, 16, 192, 12, 3, (128, 2, 4)),
    "mlm": _mlm(8192, 256, 4, tied=False),
    "mlm-tied": _mlm(8192, 256, 4, tied=True),
    "series": _series(192, 6),
    "table": _table(256, 4),
    "conv": _conv((32, 64, 128), 2),
}
"""The rows of the README's figures."""

SMALL = {
    "mae-tiny-32": _mae(32, 4, 96, 3, 3, (64, 1, 4)),
    "mlm": _mlm(1024, 64, 2, tied=False),
    "series": _series(64, 2),
    "table": _table(64, 2),
    "conv": _conv((16, 32), 1),
}
"""Of the same kinds, for CI: that it runs, not how fast."""


def workloads(*, small: bool) -> dict[str, Workload]:
    """The rows by name."""
    return SMALL if small else FULL
