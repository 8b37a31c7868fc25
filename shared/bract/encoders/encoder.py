"""What every encoder is to those who use it: inputs to features."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """A module whose trainable arrays travel, and whose features others build on. `dim` is their width."""

    dim: int

    @abstractmethod
    def features(self, inputs: Tensor) -> Tensor:
        """Features (B, dim) of inputs (B, …)."""
