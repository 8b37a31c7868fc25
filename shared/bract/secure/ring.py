"""Updates as whole numbers modulo 2^32, where masks are uniform and sums exact.

A value x, |x| ≤ clip, becomes round(x / step), step = clip / levels. `levels` is so small that the sum over every site of the
plan stays within ±(2^31 − 1): it cannot wrap, whoever takes part. A file is one little-endian 32-bit word for each number
of the update, in the order of its arrays file, and nothing else: its form is its length.
"""

import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bract.arrays import Array
from bract.errors import BAD_ARRAYS, MALFORMED, BractError
from bract.files import disk_errors, publish
from bract.secure.spec import LARGEST, SecureSpec

Words = NDArray[np.uint32]

BLOCK = 1 << 18
"""Numbers that are in memory at a time."""

_WORD = np.dtype("<u4")
_LEAST_LEVELS = 1 << 10


@dataclass(frozen=True)
class Scale:
    """How values become whole numbers.

    Attributes:
        clip: largest magnitude of a value.
        levels: what it becomes.
    """

    clip: float
    levels: int

    @property
    def step(self) -> float:
        """The value of one unit; rounding moves a value by half of it at most."""
        return self.clip / self.levels


def scale(clip: float, sites: int) -> Scale:
    """The finest scale at which the sum of so many sites cannot wrap.

    Raises:
        BractError: `malformed` when so many sites leave fewer than 1024 levels.
    """
    levels = LARGEST // max(1, sites)
    if sites < 1 or levels < _LEAST_LEVELS:
        raise BractError(MALFORMED, f"secure: the sum of {sites} sites leaves the ring too few levels")
    return Scale(clip, levels)


def scale_of(spec: SecureSpec, sites: int) -> Scale:
    """The scale of a campaign of so many sites: with noise a coarser one, at which the noise is drawn exactly.

    Raises:
        BractError: as `scale`.
    """
    if spec.noise is None:
        return scale(spec.clip, sites)
    return Scale(spec.clip, spec.noise.levels(spec.honest))


def quantised(values: Array, factor: float, at: Scale) -> Words:
    """The values times `factor`, to the nearest level. What lies beyond the clip is brought to it."""
    whole = np.rint(values.astype(np.float64) * (factor / at.step))
    return np.clip(whole, -at.levels, at.levels).astype(np.int64).astype(_WORD)


def real(total: Words, factor: float, at: Scale) -> NDArray[np.float64]:
    """A sum of quantised values as numbers again, times `factor`."""
    return total.view("<i4").astype(np.float64) * (at.step * factor)


def shortening(norm: float, clip: float) -> float:
    """What brings a vector of this L2 norm within `clip`: 1 if it is already."""
    return 1.0 if norm <= clip else clip / norm


def bounded_clip(at: Scale, count: int) -> float:
    """The L2 norm from which a vector of so many numbers, rounded to levels, is no longer than `levels`.

    Rounding moves the vector by √count / 2 levels at most; the rest is for the last digits of the norm's sum.

    Raises:
        BractError: `malformed` when rounding alone could move it by half the clip.
    """
    moved = math.sqrt(count) / (2 * at.levels)
    if moved > 0.5:
        raise BractError(MALFORMED, "secure.noise: the encoder has too many numbers for so few levels")
    return at.clip * (1 - moved) * (1 - 1e-9)


def norm(values: Iterable[Array]) -> float:
    """The L2 norm of a vector that comes block by block."""
    return math.sqrt(math.fsum(float(np.dot(block, block)) for block in (v.astype(np.float64) for v in values)))


def error_bound(at: Scale, weights: Iterable[float]) -> float:
    """How far each coordinate of the weighted mean of the clipped updates may be from the exact one, before float32.

    Half a step for each site, in the mean: with the weights w_k / max w that the sites apply, n/2 · step · max w / Σ w.
    """
    given = list(weights)
    return len(given) / 2 * at.step * max(given) / math.fsum(given)


def write_words(path: Path, blocks: Iterable[Words]) -> None:
    """Write a file of words in place of what is at `path`, all or nothing.

    Raises:
        BractError: `disk`.
    """
    with disk_errors():
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".ring-")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                for block in blocks:
                    file.write(block.astype(_WORD, copy=False).data)
                file.flush()
                os.fsync(file.fileno())
            publish(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def check_words(path: Path, count: int) -> None:
    """That the file has `count` words; any word is a value.

    Raises:
        BractError: `bad-arrays`.
    """
    if not path.exists() or path.stat().st_size != _WORD.itemsize * count:
        raise BractError(BAD_ARRAYS, f"not {count} words")


def read_words(path: Path, count: int) -> Iterator[Words]:
    """A file's words, block by block as `blocks` cuts them.

    Raises:
        BractError: `bad-arrays` for another length; `disk`.
    """
    check_words(path, count)
    with disk_errors(), path.open("rb") as file:
        for start, stop in blocks(count):
            words = np.fromfile(file, _WORD, stop - start)
            if len(words) != stop - start:
                raise BractError(BAD_ARRAYS, "the file ended early")
            yield words


def blocks(count: int) -> Iterator[tuple[int, int]]:
    """Where each block of so many numbers begins and ends."""
    for start in range(0, count, BLOCK):
        yield start, min(start + BLOCK, count)
