"""The tree of RFC 9162 §2.1: roots, inclusion and consistency proofs, and their verification. Pure.

A tree is given by its leaf hashes (32 bytes each) in order. A verifier needs nothing but hashes: it returns, or raises
`BractError(log-inconsistent)`.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from bract.errors import LOG, MALFORMED, BractError

SIZE = 32
"""Bytes of a hash."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of one entry (RFC 9162 §2.1.1)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two neighbours; the other prefix keeps an inner node from passing for an entry."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True)
class Frontier:
    """The roots of the complete subtrees of a tree of `size` leaves, largest first: all that appending needs."""

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def add(self, leaf: bytes) -> Self:
        """The frontier after one more leaf hash; amortised two hashes."""
        peaks, carry, size = list(self.peaks), leaf, self.size
        while size & 1:
            carry = node_hash(peaks.pop(), carry)
            size >>= 1
        return type(self)(self.size + 1, (*peaks, carry))

    @property
    def root(self) -> bytes:
        """The tree's root (RFC 9162 §2.1.1); of no leaves, the hash of nothing."""
        if not self.peaks:
            return hashlib.sha256(b"").digest()
        *rest, top = self.peaks
        for peak in reversed(rest):
            top = node_hash(peak, top)
        return top

    def to_bytes(self) -> bytes:
        """The peaks, one after the other; the size tells them apart."""
        return b"".join(self.peaks)


class Edge:
    """A frontier that grows in place, for whoever adds many leaves."""

    __slots__ = ("peaks", "size")

    def __init__(self, start: Frontier | None = None) -> None:
        self.size, self.peaks = (0, []) if start is None else (start.size, list(start.peaks))

    def add(self, leaf: bytes) -> None:
        """One more leaf hash."""
        size, peaks = self.size, self.peaks
        self.size = size + 1
        while size & 1:
            leaf = hashlib.sha256(b"\x01" + peaks.pop() + leaf).digest()
            size >>= 1
        peaks.append(leaf)

    @property
    def frontier(self) -> Frontier:
        """As it is now."""
        return Frontier(self.size, tuple(self.peaks))


def frontier(leaves: Iterable[bytes]) -> Frontier:
    """The frontier of a tree with these leaf hashes."""
    edge = Frontier()
    for leaf in leaves:
        edge = edge.add(leaf)
    return edge


def parse_frontier(size: int, data: bytes) -> Frontier:
    """A frontier from `Frontier.to_bytes`.

    Raises:
        BractError: `malformed` when there are not as many peaks as a tree of that size has.
    """
    if size < 0 or len(data) != size.bit_count() * SIZE:
        raise BractError(MALFORMED, "a frontier does not fit its size")
    return Frontier(size, tuple(data[i : i + SIZE] for i in range(0, len(data), SIZE)))


def root(leaves: Sequence[bytes]) -> bytes:
    """The root of a tree with these leaf hashes."""
    level: Sequence[bytes] = leaves
    if not level:
        return Frontier().root
    sha256 = hashlib.sha256  # level by level, as a call of a function more for each node would cost as much as its hash
    while len(level) > 1:
        pairs = iter(level)
        above = [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=False)]
        if len(level) & 1:
            above.append(level[-1])
        level = above
    return level[0]


def _split(size: int) -> int:
    """The largest power of two below `size` (two or more): where RFC 9162 cuts a tree."""
    return 1 << ((size - 1).bit_length() - 1)


def prove_inclusion(index: int, leaves: Sequence[bytes]) -> tuple[bytes, ...]:
    """The path from leaf `index` (from 0) to the root of these leaves (RFC 9162 §2.1.3.1).

    Raises:
        BractError: `malformed` when there is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise BractError(MALFORMED, "no such leaf")
    if len(leaves) == 1:
        return ()
    cut = _split(len(leaves))
    if index < cut:
        return (*prove_inclusion(index, leaves[:cut]), root(leaves[cut:]))
    return (*prove_inclusion(index - cut, leaves[cut:]), root(leaves[:cut]))


def prove_consistency(size: int, leaves: Sequence[bytes]) -> tuple[bytes, ...]:
    """That the first `size` of these leaves are the tree that had that size (RFC 9162 §2.1.4.1).

    Raises:
        BractError: `malformed` when `size` is not between 1 and the number of leaves.
    """
    if not 1 <= size <= len(leaves):
        raise BractError(MALFORMED, "no such earlier tree")
    return _subproof(size, leaves, whole=True)


def _subproof(size: int, leaves: Sequence[bytes], *, whole: bool) -> tuple[bytes, ...]:
    if size == len(leaves):
        return () if whole else (root(leaves),)
    cut = _split(len(leaves))
    if size <= cut:
        return (*_subproof(size, leaves[:cut], whole=whole), root(leaves[cut:]))
    return (*_subproof(size - cut, leaves[cut:], whole=False), root(leaves[:cut]))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Leaf `index` of the tree of `size` leaves with this root has this hash (RFC 9162 §2.1.3.2).

    Raises:
        BractError: `log-inconsistent`.
    """
    if not 0 <= index < size:
        raise BractError(LOG, "the leaf is outside the tree")
    position, last, value = index, size - 1, leaf
    for part in proof:
        if last == 0:
            raise BractError(LOG, "the proof is too long")
        if position & 1 or position == last:
            value = node_hash(part, value)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            value = node_hash(value, part)
        position, last = position >> 1, last >> 1
    if last != 0 or value != root:
        raise BractError(LOG, "the leaf is not in the tree")


def verify_consistency(size: int, later: int, root: bytes, later_root: bytes, proof: Sequence[bytes]) -> None:
    """The tree of `later` leaves begins with the tree of `size` leaves (RFC 9162 §2.1.4.2).

    Raises:
        BractError: `log-inconsistent`.
    """
    if not 1 <= size <= later:
        raise BractError(LOG, "the earlier tree is not smaller")
    if size == later:
        if proof or root != later_root:
            raise BractError(LOG, "two trees of one size differ")
        return
    # A complete subtree is its own first part, and the RFC leaves it out of the proof.
    path = [root, *proof] if size & (size - 1) == 0 else list(proof)
    if not path:
        raise BractError(LOG, "the proof is empty")
    position, last = size - 1, later - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old = new = path[0]
    for part in path[1:]:
        if last == 0:
            raise BractError(LOG, "the proof is too long")
        if position & 1 or position == last:
            old, new = node_hash(part, old), node_hash(part, new)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new = node_hash(new, part)
        position, last = position >> 1, last >> 1
    if last != 0 or old != root or new != later_root:
        raise BractError(LOG, "the log was rewritten")
