"""Proofs about one snapshot: that a record is in it, or that it is not. Nobody else is told anything.

A snapshot is a Merkle tree (RFC 9162 §2.1) over leaves in ascending order, each a salted hash of a record. A leaf between two
neighbours of the tree is not in it; neighbours are shown as salted hashes, and their salt stays at the site. Proofs tell how
many records the snapshot has. That a leaf belongs to a certain person is the site's word.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from bract.digest import Digest
from bract.errors import LOG, BractError
from bract.log.merkle import leaf_hash, verify_inclusion

EMPTY = Digest("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
"""The root of a snapshot without records (RFC 9162 §2.1.1)."""


@dataclass(frozen=True)
class Membership:
    """That a leaf is in the tree of `size` leaves, at `index` from 0."""

    leaf: bytes
    index: int
    size: int
    proof: tuple[bytes, ...]


@dataclass(frozen=True)
class Absence:
    """That a leaf is not in the tree: its neighbours there, None beyond an end; neither in an empty tree."""

    leaf: bytes
    size: int
    before: Membership | None
    after: Membership | None


@dataclass(frozen=True)
class SubjectMembership:
    """One subject's records of a snapshot's data set, as they were then: which are in the snapshot, and which are not.

    Neither means that the data set had no record of the subject when the snapshot was taken.
    """

    snapshot: Digest
    present: tuple[Membership, ...]
    absent: tuple[Absence, ...]


class Tree:
    """A snapshot's whole tree, for whoever has all leaves: its root and any number of proofs."""

    def __init__(self, leaves: Iterable[bytes]) -> None:
        """In any order; they are sorted here."""
        self._leaves = sorted(leaves)
        level = [sha256(b"\x00" + leaf).digest() for leaf in self._leaves]
        self._levels = [level]
        while len(level) > 1:
            pairs = iter(level)
            above = [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=False)]
            if len(level) & 1:
                above.append(level[-1])
            self._levels.append(level := above)

    @property
    def root(self) -> Digest:
        """What names the snapshot."""
        top = self._levels[-1]
        return Digest(f"sha256:{top[0].hex()}") if top else EMPTY

    def present(self, leaf: bytes) -> Membership | None:
        """The proof that the leaf is in the tree, None if it is not."""
        place = bisect_left(self._leaves, leaf)
        return self._at(place) if self._leaves[place : place + 1] == [leaf] else None

    def absent(self, leaf: bytes) -> Absence | None:
        """The proof that the leaf is not in the tree, None if it is."""
        place = bisect_left(self._leaves, leaf)
        if self._leaves[place : place + 1] == [leaf]:
            return None
        before = self._at(place - 1) if place else None
        after = self._at(place) if place < len(self._leaves) else None
        return Absence(leaf, len(self._leaves), before, after)

    def _at(self, place: int) -> Membership:
        path, index = [], place
        for level in self._levels[:-1]:
            if (beside := index ^ 1) < len(level):
                path.append(level[beside])
            index >>= 1
        return Membership(self._leaves[place], place, len(self._leaves), tuple(path))


def verify_present(one: Membership, snapshot: Digest) -> None:
    """The leaf is in the snapshot.

    Raises:
        BractError: `log-inconsistent`.
    """
    root = bytes.fromhex(snapshot.removeprefix("sha256:"))
    verify_inclusion(leaf_hash(one.leaf), one.index, one.size, one.proof, root)


def verify_absent(one: Absence, snapshot: Digest) -> None:
    """The leaf is not in the snapshot.

    Raises:
        BractError: `log-inconsistent`.
    """
    before, after = one.before, one.after
    for neighbour in (before, after):
        if neighbour is not None:
            verify_present(neighbour, snapshot)
            if neighbour.size != one.size:
                raise BractError(LOG, "a neighbour is of a tree of another size")
    last = -1 if before is None else before.index
    next_ = one.size if after is None else after.index
    between = (before is None or before.leaf < one.leaf) and (after is None or one.leaf < after.leaf)
    if next_ != last + 1 or not between:
        raise BractError(LOG, "the leaf is not between two neighbours")
    if one.size == 0 and snapshot != EMPTY:
        raise BractError(LOG, "the snapshot is not empty")
