"""The tree in tiles (C2SP tlog-tiles): 256 hashes of one height side by side, and every proof from a few of them. Pure.

The n-th tile of level l holds the roots of the subtrees of 256^l leaves from number 256·n on. A full tile never changes;
the last one of a level is partial, and its parts are the roots of full tiles below, so that it need not be kept.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from bract.errors import LOG, MALFORMED, BractError
from bract.log.merkle import SIZE, node_hash

HEIGHT = 8
WIDTH = 1 << HEIGHT
"""Hashes in a full tile."""

ENTRIES = "entries"
"""Stands for the level in the paths of entry bundles."""

Read = Callable[[int, int], bytes]
"""A tile's hashes by level and number: the full tile, or the partial one at the edge."""

_THOUSAND = 1000


@dataclass(frozen=True)
class Tile:
    """The place of a tile: its level, its number there, and how many hashes wide it is."""

    level: int
    number: int
    width: int


def fold(hashes: Sequence[bytes]) -> bytes:
    """The root over these neighbours (RFC 9162 §2.1.1); one that has no partner goes up as it is."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    row = list(hashes)
    sha256 = hashlib.sha256
    while len(row) > 1:
        above = [sha256(b"\x01" + left + right).digest() for left, right in zip(row[::2], row[1::2], strict=False)]
        if len(row) & 1:
            above.append(row[-1])
        row = above
    return row[0]


def cut(data: bytes) -> list[bytes]:
    """The hashes of a tile.

    Raises:
        BractError: `log-inconsistent` when it is not 1 to 256 whole hashes.
    """
    if not data or len(data) % SIZE or len(data) > WIDTH * SIZE:
        raise BractError(LOG, "a tile is not 1 to 256 hashes wide")
    return [data[place : place + SIZE] for place in range(0, len(data), SIZE)]


def row(size: int, level: int) -> Iterator[Tile]:
    """The tiles of one level of a tree of `size` leaves: all full ones, then the partial one if there is one."""
    count = size >> (HEIGHT * level)
    for number in range(count // WIDTH):
        yield Tile(level, number, WIDTH)
    if count % WIDTH:
        yield Tile(level, count // WIDTH, count % WIDTH)


def tiles(size: int) -> Iterator[Tile]:
    """Every tile of a tree of `size` leaves, level by level."""
    level = 0
    while size >> (HEIGHT * level):
        yield from row(size, level)
        level += 1


def path(level: int | str, number: int, width: int = WIDTH) -> str:
    """Where a tile stands: `tile/L/x001/x234/067`, with `.p/W` when it is partial (C2SP tlog-tiles, "Merkle Tree")."""
    last, above = f"{number % _THOUSAND:03}", number // _THOUSAND
    while above:
        last, above = f"x{above % _THOUSAND:03}/{last}", above // _THOUSAND
    partial = "" if width == WIDTH else f".p/{width}"
    return f"tile/{level}/{last}{partial}"


@dataclass
class TiledTree:
    """A tree of `size` leaves behind its tiles; each tile is read once.

    What is read is not trusted: whoever gets a proof verifies it against a signed root.

    Attributes:
        peaks: the tree's frontier (`bract.log.merkle.Frontier.peaks`), if it is known: the edge need not be read then.
    """

    size: int
    read: Read
    peaks: tuple[bytes, ...] = ()
    _seen: dict[tuple[int, int], list[bytes]] = field(default_factory=dict)

    def root(self, size: int | None = None) -> bytes:
        """The root of the tree when it had `size` leaves; of all of them by default.

        Raises:
            BractError: `malformed` when the tree is smaller; `log-inconsistent` when a tile is missing or too narrow.
        """
        end = self._sized(self.size if size is None else size)
        return self._span(0, end) if end else fold(())

    def inclusion(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """The path from leaf `index` (from 0) to the root of the first `size` leaves (RFC 9162 §2.1.3.1).

        Raises:
            BractError: as `root`.
        """
        begin, end = 0, self._sized(self.size if size is None else size)
        if not 0 <= index < end:
            raise BractError(MALFORMED, "no such leaf")
        found: list[bytes] = []
        while end - begin > 1:
            middle = begin + _half(end - begin)
            if index < middle:
                found.append(self._span(middle, end))
                end = middle
            else:
                found.append(self._span(begin, middle))
                begin = middle
        return tuple(reversed(found))

    def consistency(self, old: int, size: int | None = None) -> tuple[bytes, ...]:
        """That the first `old` leaves are the tree that had that size (RFC 9162 §2.1.4.1).

        Raises:
            BractError: as `root`.
        """
        begin, end = 0, self._sized(self.size if size is None else size)
        if not 1 <= old <= end:
            raise BractError(MALFORMED, "no such earlier tree")
        found: list[bytes] = []
        while old != end:
            middle = begin + _half(end - begin)
            if old <= middle:
                found.append(self._span(middle, end))
                end = middle
            else:
                found.append(self._span(begin, middle))
                begin = middle
        if begin:
            found.append(self._span(begin, end))
        return tuple(reversed(found))

    def _sized(self, size: int) -> int:
        if not 0 <= size <= self.size:
            raise BractError(MALFORMED, "the tree is smaller")
        return size

    def _span(self, begin: int, end: int) -> bytes:
        """The root over the leaves from `begin` to `end`, where `begin` is where RFC 9162 would cut."""
        count = end - begin
        if count & (count - 1) == 0:
            return self._whole(count.bit_length() - 1, begin)
        middle = begin + _half(count)
        return node_hash(self._span(begin, middle), self._span(middle, end))

    def _whole(self, height: int, begin: int) -> bytes:
        """The root of the complete subtree of 2^height leaves from `begin`."""
        above = self.size >> (height + 1) << (height + 1)
        if self.peaks and begin == above and self.size >> height & 1:
            return self.peaks[(self.size >> (height + 1)).bit_count()]
        level, rest = divmod(height, HEIGHT)
        number, offset = divmod(begin >> (HEIGHT * level), WIDTH)
        if (level, number) not in self._seen:
            self._seen[level, number] = cut(self.read(level, number))
        part = self._seen[level, number][offset : offset + (1 << rest)]
        if len(part) != 1 << rest:
            raise BractError(LOG, f"tile {number} of level {level} is too narrow")
        return fold(part)


def _half(count: int) -> int:
    """The largest power of two below `count` (two or more)."""
    return 1 << ((count - 1).bit_length() - 1)
