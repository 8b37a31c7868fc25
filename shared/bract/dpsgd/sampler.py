"""Poisson sampling of subjects: each joins a step with the same probability, independently of all others.

A coin for each would cost as much as there are subjects. The same distribution in work that grows with the sample: how
many join is Binomial(N, q); given the number, every set of that size is equally likely. Tests compare this with coins.

How exact it is. The number comes by inversion: a 128-bit uniform among the sums of the binomial's probabilities, which are
kept in whole numbers; the tails that are cut have less than 2^-90. The set comes from whole numbers without any bias. For
up to 10^9 subjects the total variation from independent coins is below 2^-70 a step: a million steps add 1e-15 to δ. The
rate is the float64 as it stands. How long a draw takes depends on N and q, as the step that follows does.
"""

from bisect import bisect_right
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bract.dpsgd.keystream import Keystream

_SCALE = 192
_LEAST = 1 << (_SCALE - 100)
_UNIFORM = 128


class Sampler(Protocol):
    """Who takes part in a step."""

    @property
    def private(self) -> bool:
        """Whether nobody can foresee the draws; False voids amplification by sampling, and so every guarantee."""

    def draw(self, subjects: int, rate: float) -> NDArray[np.int64]:
        """Positions, ascending, of the subjects of one step; each is in with probability `rate`. May be empty."""

    def uniforms(self, count: int) -> NDArray[np.float64]:
        """Independent coins (count,) in (0, 1], for whatever else a step decides by chance."""


class SecureSampler:
    """Unforeseeable choices: the only source whose runs may be called private."""

    def __init__(self) -> None:
        self._stream = Keystream()

    @property
    def private(self) -> bool:
        """True."""
        return True

    def draw(self, subjects: int, rate: float) -> NDArray[np.int64]:
        """Positions of the subjects of one step."""
        return _poisson(self._stream, subjects, rate)

    def uniforms(self, count: int) -> NDArray[np.float64]:
        """Independent coins."""
        return self._stream.uniforms(count)


class SeededSampler:
    """Repeatable choices for tests: runs are marked not private."""

    def __init__(self, seed: int) -> None:
        self._stream = Keystream(seed, "sampler")

    @property
    def private(self) -> bool:
        """False."""
        return False

    def draw(self, subjects: int, rate: float) -> NDArray[np.int64]:
        """Positions of the subjects of one step, the same for the same seed."""
        return _poisson(self._stream, subjects, rate)

    def uniforms(self, count: int) -> NDArray[np.float64]:
        """Coins, the same for the same seed."""
        return self._stream.uniforms(count)


def _poisson(stream: Keystream, subjects: int, rate: float) -> NDArray[np.int64]:
    if subjects < 0 or not 0 < rate <= 1:
        raise ValueError("a sample is of 0 or more subjects, at a rate above 0 and up to 1")
    least, sums = binomial_sums(subjects, rate)
    uniform = int.from_bytes(stream.words(_UNIFORM // 64).tobytes(), "little")
    count = least + bisect_right(sums, uniform)
    if 2 * count <= subjects:
        return _distinct(stream, subjects, count)
    joins = np.ones(subjects, dtype=bool)
    joins[_distinct(stream, subjects, subjects - count)] = False
    return np.flatnonzero(joins).astype(np.int64)


def _distinct(stream: Keystream, subjects: int, count: int) -> NDArray[np.int64]:
    """The first `count` different ones of an endless series of independent positions, in ascending order.

    By symmetry every set is equally likely. No more are drawn at a time than are missing, so none is drawn in vain but
    repetitions; up to half of the subjects are wanted, so these are few.
    """
    if count > subjects // 16:
        chosen = np.zeros(subjects, dtype=bool)
        while (missing := count - int(np.count_nonzero(chosen))) > 0:
            chosen[stream.below(subjects, missing)] = True
        return np.flatnonzero(chosen).astype(np.int64)
    kept = np.empty(0, np.int64)
    while len(kept) < count:
        ordered = np.sort(np.concatenate([kept, stream.below(subjects, count - len(kept))]))
        kept = ordered[np.diff(ordered, prepend=-1) > 0]
    return kept


@lru_cache(maxsize=16)
def binomial_sums(subjects: int, rate: float) -> tuple[int, list[int]]:
    """The distribution function of Binomial(N, q): a count, and P(at most that) · 2^128 for it and each one above.

    From the most likely count outward by p(k+1) / p(k) = (N−k) q / ((k+1)(1−q)), in whole numbers on a scale where that
    count has 2^192; the recursion ends at terms below 2^-100 of it. So each step rounds off less than 2^-92 of its term.
    """
    joins, whole = rate.as_integer_ratio()
    stays = whole - joins
    mode = min(subjects, (subjects + 1) * joins // whole)
    above = [1 << _SCALE]
    for k in range(mode, subjects):
        term = above[-1] * ((subjects - k) * joins) // ((k + 1) * stays)
        if term < _LEAST:
            break
        above.append(term)
    below = [1 << _SCALE]
    for k in range(mode, 0, -1):
        term = below[-1] * (k * stays) // ((subjects - k + 1) * joins)
        if term < _LEAST:
            break
        below.append(term)
    terms = [*reversed(below[1:]), *above]
    total, sums, so_far = sum(terms), [], 0
    for term in terms:
        so_far += term
        sums.append((so_far << _UNIFORM) // total)
    return mode - len(below) + 1, sums
