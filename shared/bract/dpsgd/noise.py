"""Gaussian noise for private sums.

What is done: every draw comes from AES-CTR keyed by the operating system, in float64, by Box–Muller on 53-bit
uniforms; each released draw is half the sum of four independent ones, so that the sum's low bits cannot be traced
back to one draw [Holohan and Braghin 2021, 2107.10138]. Noise is added to a float64 sum; only the noised result is
rounded to float32.

What is not done: the result is not an exact Gaussian on a lattice. It stops at 17 standard deviations, and the
floating-point attack of Mironov [2012, CCS] is made impractical here, not provably impossible; the discrete Gaussian
[Canonne et al. 2020, 2004.00010] would be the exact answer. Run time does not depend on the data, but no claim is made
about other side channels.
"""

import math
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from bract.dpsgd.keystream import Keystream

_DRAWS = 4


class NoiseSource(Protocol):
    """Where the engine's noise comes from."""

    @property
    def private(self) -> bool:
        """Whether nobody can foresee the draws; False voids every guarantee."""

    def normal(self, count: int) -> NDArray[np.float64]:
        """Independent standard normal numbers (count,)."""


class SecureNoise:
    """Unforeseeable noise: the only source whose runs may be called private."""

    def __init__(self) -> None:
        self._stream = Keystream()

    @property
    def private(self) -> bool:
        """True."""
        return True

    def normal(self, count: int) -> NDArray[np.float64]:
        """Independent standard normal numbers (count,)."""
        return _normal(self._stream, count)


class SeededNoise:
    """Repeatable noise for tests. Whoever knows the seed can subtract it: runs are marked not private."""

    def __init__(self, seed: int) -> None:
        self._stream = Keystream(seed, "noise")

    @property
    def private(self) -> bool:
        """False."""
        return False

    def normal(self, count: int) -> NDArray[np.float64]:
        """Standard normal numbers (count,), the same for the same seed."""
        return _normal(self._stream, count)


def _normal(stream: Keystream, count: int) -> NDArray[np.float64]:
    half = (count + 1) // 2
    radius = torch.from_numpy(stream.uniforms(_DRAWS * half)).log().mul(-2).sqrt()
    angle = torch.from_numpy(stream.uniforms(_DRAWS * half)).mul(2 * math.pi)
    pairs = torch.stack([radius * angle.cos(), radius * angle.sin()])
    summed: NDArray[np.float64] = (pairs.reshape(2, _DRAWS, half).sum(1) / math.sqrt(_DRAWS)).numpy()
    return summed.reshape(-1)[:count]
