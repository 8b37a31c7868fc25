"""Masked words [BERT, Devlin et al. 2019, 1810.04805]: hidden tokens are predicted from the others, one loss a text.

A fixed number of places is hidden in each text, and only those go through the head, as in RoBERTa's and fairseq's code.
"""

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from bract.objectives.objective import Objective

_MASK = 0


class MaskedWords(Objective):
    """Texts (B, T) of token numbers; draws (B, K), the places that are hidden."""

    order: Tensor

    def __init__(self, vocabulary: int, length: int, hidden: int, dim: int, depth: int, *, tied: bool) -> None:
        super().__init__()
        self.vocabulary, self.length, self.hidden = vocabulary, length, hidden
        self.words = nn.Embedding(vocabulary, dim)
        self.places = nn.Embedding(length, dim)
        self.register_buffer("order", torch.arange(length), persistent=False)
        self.blocks = nn.Sequential(*(Block(dim, 4, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, vocabulary, bias=not tied)
        for table in (self.words, self.places):
            nn.init.normal_(table.weight, std=0.02)
        if tied:
            self.head.weight = self.words.weight

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Places that are hidden, each text's own."""
        return torch.rand(count, self.length, generator=generator).argsort(1)[:, : self.hidden]

    def record_loss(self, records: Tensor, draws: Tensor) -> Tensor:
        """Mean cross-entropy over a text's own hidden places (B,)."""
        seen = records.scatter(1, draws, _MASK)
        tokens = self.words(seen) + self.places(self.order.repeat(len(records), 1))
        encoded = self.norm(self.blocks(tokens))
        guesses = self.head(torch.take_along_dim(encoded, draws[..., None], dim=1))
        answers = torch.take_along_dim(records, draws, dim=1)
        return functional.cross_entropy(guesses.transpose(1, 2).float(), answers, reduction="none").mean(1)


def texts(objective: MaskedWords, count: int, generator: torch.Generator) -> Tensor:
    """Random texts (count, T), never of the mask itself."""
    return torch.randint(1, objective.vocabulary, (count, objective.length), generator=generator)
