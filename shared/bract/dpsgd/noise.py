"""Gaussian noise for private sums.

What is done: every draw comes from AES-CTR keyed by the operating system, in float64, by Box–Muller on uniforms of 53 bits
(the radius' own keeps 43 significant ones however near 0 it is). Noise is added to a float64 sum, and the total is rounded
to a public grid: a power of two, 2^-13 to 2^-12 of the noise's standard deviation.

Why the grid. The attacks on floating-point noise read the low bits of what is released: which totals a sampler can reach
at all [Mironov 2012, CCS; Holohan and Braghin 2021, 2107.10138], or how fine a total is, which tells the size of the sum
under it [Haney et al. 2022, 2207.13793]. On the grid there are no such bits: some 2^40 float64 totals fall into one cell.
The sum of several draws, as in Opacus' secure mode and here before, hides low bits at two to four times the price, and
bounds nothing. Rounding is post-processing of the ideal mechanism: it costs no privacy, and adds 5e-9 of the variance.

What is left. A computed total is off by e: uniforms on a lattice, logarithm, root, cosine and sine within an ulp, one
addition. In standard deviations e is below 2^-46 (root mean square 2^-52, measured against 64-bit mantissas), and 2^-53 of
the sum comes on top; only at radii r under 2^-7 it is larger, up to 2^-53 / r, and those are as rare as r²/2. So a cell
has its ideal probability times 1 ± η, with a mean square of η = 2e / cell far below 2^-64. By the weak triangle inequality
of Rényi divergences [Mironov 2017, 1702.07476, prop. 11], used twice with p = 2^10, what runs is at order α within about
2·p·α·η²·P of the ideal mechanism at order α(1 + 2^-9): with η = 2^-32, P = 5.6 M numbers, batches up to 10^5 and α = 64
that is 4e-8 a step, 1e-3 over 25,000 steps. Radii above 13.4 do not occur (ideal: with probability 2^-129). This is an
argument that rests on the accuracy of vector functions, not a proof; exact would be the discrete Gaussian [Canonne et al.
2020, 2004.00010]. Run time does not depend on the data; no claim is made about other side channels.
"""

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bract.dpsgd.keystream import Keystream, WordBuffer

_BLOCK = 1 << 16
_GRID_BITS = 12
_FINE = np.uint64(1 << 43)


class NoiseSource(Protocol):
    """Where the engine's noise comes from."""

    @property
    def private(self) -> bool:
        """Whether nobody can foresee the draws; False voids every guarantee."""

    def normal(self, count: int) -> NDArray[np.float64]:
        """Independent standard normal numbers (count,)."""

    def add_to(self, total: Tensor, scale: float) -> None:
        """Add independent normal numbers of standard deviation `scale` in place, and round to the grid of `scale`."""


class _Noise:
    """Standard normal numbers, made a block at a time in memory that stays in the cache; the unused ones wait."""

    def __init__(self, stream: Keystream) -> None:
        self._stream = stream
        self._buffer = WordBuffer(_BLOCK)
        self._normals = torch.empty(_BLOCK, dtype=torch.float64)
        self._radius, self._angle, self._cosine = torch.empty(3, _BLOCK // 2, dtype=torch.float64)
        self._used = _BLOCK

    def normal(self, count: int) -> NDArray[np.float64]:
        """Independent standard normal numbers (count,), not rounded to any grid.

        Raises:
            RuntimeError: behind a fork.
        """
        drawn: NDArray[np.float64] = np.empty(count)
        for start, part in self._parts(count):
            drawn[start : start + len(part)] = part.numpy()
        return drawn

    def add_to(self, total: Tensor, scale: float) -> None:
        """Add noise to a sum in place and round the result to the grid; nothing but `grid(scale)` shows in its low bits.

        Args:
            total: float64, contiguous, of any shape, on any device.
            scale: standard deviation of the noise; what makes the sum private, so above zero.

        Raises:
            ValueError: the total or the scale is not as said; nothing is added.
            RuntimeError: behind a fork.
        """
        if total.dtype is not torch.float64 or not total.is_contiguous():
            raise ValueError("noise is added to a contiguous float64 sum")
        large = 1.5 * 2.0**52 * grid(scale)
        flat = total.detach().view(-1)
        for start, part in self._parts(len(flat)):
            piece = flat[start : start + len(part)]
            piece.add_(part.to(flat.device), alpha=scale)
            # Numbers about as large have the grid as their last digit: adding one rounds, to even at a tie.
            piece.add_(large).sub_(large)

    def _parts(self, count: int) -> Iterator[tuple[int, Tensor]]:
        """The next `count` numbers in pieces, each with its offset; a piece is overwritten when the next is asked for."""
        self._stream.check_process()
        done = 0
        while done < count:
            if self._used == _BLOCK:
                self._refill()
            size = min(count - done, _BLOCK - self._used)
            part = self._normals[self._used : self._used + size]
            self._used += size
            yield done, part
            done += size

    def _refill(self) -> None:
        """A block by Box–Muller [1958]: a radius √(−2 ln u), an angle, and both its cosine and its sine."""
        half = _BLOCK // 2
        words = self._buffer.refill(self._stream)
        radius = self._radius.numpy()
        np.multiply(words[:half], 2.0**-64, out=radius)
        if words[:half].min() < _FINE:
            small = np.flatnonzero(words[:half] < _FINE)
            more = self._stream.words(len(small)) * 2.0**-64 + 2.0**-65
            radius[small] = (words[small] + more) * 2.0**-64
        self._radius.log_().mul_(-2.0).sqrt_()
        np.multiply(words[half:].view(np.int64), math.pi * 2.0**-63, out=self._angle.numpy())
        torch.cos(self._angle, out=self._cosine)
        self._angle.sin_()
        torch.mul(self._radius, self._cosine, out=self._normals[:half])
        torch.mul(self._radius, self._angle, out=self._normals[half:])
        self._used = 0


class SecureNoise(_Noise):
    """Unforeseeable noise: the only source whose runs may be called private."""

    def __init__(self) -> None:
        super().__init__(Keystream())

    @property
    def private(self) -> bool:
        """True."""
        return True


class SeededNoise(_Noise):
    """Repeatable noise for tests. Whoever knows the seed can subtract it: runs are marked not private."""

    def __init__(self, seed: int) -> None:
        super().__init__(Keystream(seed, "noise"))

    @property
    def private(self) -> bool:
        """False."""
        return False


def grid(scale: float) -> float:
    """The public grid of noise of that standard deviation: a power of two from 2^-13 to 2^-12 of it.

    Raises:
        ValueError: the scale is not above zero, or so small or large that the grid would leave float64.
    """
    if not 2.0**-900 < scale < 2.0**900:
        raise ValueError("noise needs a finite standard deviation above zero")
    return 2.0 ** (math.frexp(scale)[1] - 1 - _GRID_BITS)
