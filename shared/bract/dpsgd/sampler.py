"""Poisson sampling of subjects: each joins a step by its own coin, independently of all others."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bract.dpsgd.keystream import Keystream


class Sampler(Protocol):
    """Who takes part in a step."""

    @property
    def private(self) -> bool:
        """Whether nobody can foresee the draws; False voids amplification by sampling, and so every guarantee."""

    def draw(self, subjects: int, rate: float) -> NDArray[np.int64]:
        """Positions, ascending, of the subjects of one step; each is in with probability `rate`. May be empty."""


class SecureSampler:
    """Unforeseeable coins: the only source whose runs may be called private."""

    def __init__(self) -> None:
        self._stream = Keystream()

    @property
    def private(self) -> bool:
        """True."""
        return True

    def draw(self, subjects: int, rate: float) -> NDArray[np.int64]:
        """Positions of the subjects of one step."""
        return _coins(self._stream, subjects, rate)


class SeededSampler:
    """Repeatable coins for tests: runs are marked not private."""

    def __init__(self, seed: int) -> None:
        self._stream = Keystream(seed, "sampler")

    @property
    def private(self) -> bool:
        """False."""
        return False

    def draw(self, subjects: int, rate: float) -> NDArray[np.int64]:
        """Positions of the subjects of one step, the same for the same seed."""
        return _coins(self._stream, subjects, rate)


def _coins(stream: Keystream, subjects: int, rate: float) -> NDArray[np.int64]:
    """Uniforms are multiples of 2^-53 in (0, 1], so P(uniform ≤ rate) is the rate rounded down to such a multiple."""
    return np.flatnonzero(stream.uniforms(subjects) <= rate).astype(np.int64)
