"""A LayerNorm MLP over one encoded row and the columns that are masked in it."""

import torch
from torch import Tensor, nn

from bract.encoders.encoder import Encoder
from bract.encoders.spec import TableSpec
from bract.tables import TableSchema, schema


class TableEncoder(Encoder):
    """Rows (B, D) and masks (B, K), True where a column is hidden, to features (B, dim).

    A hidden column's numbers become zero, and its flag one; so a zero is never mistaken for a mask.
    """

    owner: Tensor

    def __init__(self, spec: TableSpec) -> None:
        super().__init__()
        self.dim = spec.dim
        self.schema: TableSchema = schema(spec.schema)
        widths = self.schema.widths
        owner = torch.repeat_interleave(torch.arange(len(widths)), torch.tensor(widths))
        self.register_buffer("owner", owner, persistent=False)
        layers: list[nn.Module] = []
        inputs = self.schema.width + len(widths)
        for _ in range(spec.depth):
            layers += [nn.Linear(inputs, spec.dim), nn.LayerNorm(spec.dim), nn.GELU()]
            inputs = spec.dim
        self.layers = nn.Sequential(*layers)

    def forward(self, rows: Tensor, hidden: Tensor) -> Tensor:
        """Features of rows of which some columns are hidden."""
        seen = rows * (~hidden)[..., self.owner].to(rows.dtype)
        features: Tensor = self.layers(torch.cat([seen, hidden.to(rows.dtype)], dim=-1))
        return features

    def features(self, rows: Tensor) -> Tensor:
        """Features (B, dim) of whole rows (B, D)."""
        hidden = torch.zeros(*rows.shape[:-1], len(self.schema.names), dtype=torch.bool, device=rows.device)
        features: Tensor = self(rows, hidden)
        return features
