"""Slow copies of weights: a running mean of the trained ones, which are noised, and so post-processing of releases."""

import copy
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def still(module: M) -> M:
    """A copy that is not trained and does not travel."""
    return copy.deepcopy(module).requires_grad_(requires_grad=False)


def follow(slow: nn.Module, fast: nn.Module, keep: float) -> None:
    """Move a copy's weights towards those it follows: slow ← keep·slow + (1 − keep)·fast."""
    with torch.no_grad():
        for one, other in zip(slow.parameters(), fast.parameters(), strict=True):
            one.mul_(keep).add_(other, alpha=1 - keep)
