"""A site's verified update on disk, and the matrix of all of them, read block by block."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bract.arrays import Array, ArraysFile, count_of
from bract.digest import Digest

Matrix = NDArray[np.float32]
"""(n, b): b numbers of each of n sites, in the order of their names."""

BLOCK = 1 << 20
"""Numbers that a block holds at most, over all sites: 4 MiB."""


@dataclass(frozen=True)
class SiteUpdate:
    """One site's verified update, its declared weight, and the digest of its file."""

    site: str
    weight: float
    digest: Digest
    arrays: ArraysFile


def by_site(updates: Sequence[SiteUpdate]) -> tuple[SiteUpdate, ...]:
    """The updates in the order of their sites' names."""
    return tuple(sorted(updates, key=lambda update: update.site))


def blocks(files: Sequence[ArraysFile]) -> Iterator[tuple[int, Matrix]]:
    """Where each block begins, and the block (n, b): the same numbers of every file, which all have one layout.

    Raises:
        BractError: `bad-arrays` when a file is not of its layout, `not-finite`, `disk`.
    """
    size, width = count_of(files[0].layout), max(1, BLOCK // len(files))
    with ExitStack() as stack:
        opened = [stack.enter_context(file.opened()) for file in files]
        for start in range(0, size, width):
            stop = min(start + width, size)
            rows = np.empty((len(files), stop - start), np.float32)
            for row, numbers in zip(rows, opened, strict=True):
                row[:] = numbers.read(start, stop)
            yield start, rows


def vector(file: ArraysFile, start: int = 0, stop: int | None = None) -> Iterator[Array]:
    """A part of a file's numbers, in blocks.

    Raises:
        BractError: as `blocks`.
    """
    end = count_of(file.layout) if stop is None else stop
    with file.opened() as numbers:
        for at in range(start, end, BLOCK):
            yield numbers.read(at, min(at + BLOCK, end))
