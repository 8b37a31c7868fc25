"""The tree in tiles is the tree of the RFC, in the files of C2SP tlog-tiles."""

import random
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bract.digest import Digest
from bract.errors import LOG, MALFORMED, BractError
from bract.log import merkle
from bract.log.entry import LogEntry
from bract.log.tiles import WIDTH, Tile, TiledTree, cut, fold, path, row, tiles
from bract.value import encode

LEAVES = [merkle.leaf_hash(b"%d" % i) for i in range(70_000)]


def stored(size: int) -> dict[tuple[int, int], bytes]:
    """Every tile of the tree, by the definition: MTH(D[(256n + i)·256^l : (256n + i + 1)·256^l])."""
    made: dict[tuple[int, int], bytes] = {}
    hashes = LEAVES[:size]
    for level in range(4):
        for tile in row(size, level):
            begin = tile.number * WIDTH
            made[level, tile.number] = b"".join(hashes[begin : begin + tile.width])
        hashes = [fold(hashes[i : i + WIDTH]) for i in range(0, len(hashes) - WIDTH + 1, WIDTH)]
    return made


def tree(size: int) -> TiledTree:
    made = stored(size)
    return TiledTree(size, lambda level, number: made[level, number])


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 511, 512, 700, 65_535, 65_536, 65_537, 70_000])
def test_roots_and_proofs_from_tiles_are_those_of_the_tree(size: int) -> None:
    draw, tiled = random.Random(size), tree(size)
    edge = merkle.Edge()
    roots = {}
    for leaf in LEAVES[:size]:
        edge.add(leaf)
        if edge.size in (1, size // 2, size - 1, size):
            roots[edge.size] = edge.frontier.root
    assert tiled.root() == roots[size]
    for index in {0, size - 1, size // 2, draw.randrange(size)}:
        merkle.verify_inclusion(LEAVES[index], index, size, tiled.inclusion(index), roots[size])
    for old in {1, size // 2 or 1, size - 1 or 1, size}:
        assert tiled.root(old) == roots[old]
        merkle.verify_consistency(old, size, roots[old], roots[size], tiled.consistency(old))
    old = size // 2 or 1  # a proof within the past
    merkle.verify_consistency(1, old, roots[1], roots[old], tiled.consistency(1, old))


def test_small_trees_have_the_very_proofs_of_the_rfc() -> None:
    tiled = tree(300)
    for size in (1, 2, 7, 8, 255, 256, 300):
        for index in range(0, size, 37):
            assert tiled.inclusion(index, size) == merkle.prove_inclusion(index, LEAVES[:size])
        for old in range(1, size + 1, 41):
            assert tiled.consistency(old, size) == merkle.prove_consistency(old, LEAVES[:size])


def test_the_standards_own_examples_hold() -> None:
    """C2SP tlog-tiles, "Merkle Tree" and "Partial Tiles"."""
    assert path(0, 1_234_067) == "tile/0/x001/x234/067"
    assert path("entries", 0, 112) == "tile/entries/000.p/112"
    of_70_000 = list(tiles(70_000))
    assert sum(t == Tile(0, t.number, WIDTH) for t in of_70_000) == 273
    assert of_70_000[273:] == [Tile(0, 273, 112), Tile(1, 0, WIDTH), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert list(tiles(256)) == [Tile(0, 0, WIDTH), Tile(1, 0, 1)]


def test_what_is_outside_the_tree_is_refused() -> None:
    tiled = tree(10)
    for refused in (
        lambda: tiled.root(11),
        lambda: tiled.inclusion(10),
        lambda: tiled.inclusion(3, 3),
        lambda: tiled.consistency(0),
        lambda: tiled.consistency(5, 4),
    ):
        with pytest.raises(BractError) as told:
            refused()
        assert told.value.code == MALFORMED
    for data in (b"", bytes(31), bytes(33), bytes(257 * 32)):
        with pytest.raises(BractError) as told:
            cut(data)
        assert told.value.code == LOG


def test_a_tile_that_is_too_narrow_gives_no_proof() -> None:
    made = stored(300)
    short = TiledTree(300, lambda level, number: made[level, number][:-32] or bytes(32))
    with pytest.raises(BractError, match="too narrow"):
        short.root()


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


@given(
    seq=st.integers(1, 2**53 - 1),
    at=st.datetimes(
        datetime(1970, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
        datetime(2200, 1, 1),  # noqa: DTZ001
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=9))]),
    ),
    actor=TEXT.filter(bool),
    about=TEXT,
)
def test_an_entry_written_by_hand_is_its_canonical_form(seq: int, at: datetime, actor: str, about: str) -> None:
    entry = LogEntry(seq, "thing.made", at, actor, about, Digest("sha256:" + "0" * 64))
    in_utc = LogEntry(seq, "thing.made", at.astimezone(UTC), actor, about, entry.commitment)
    assert entry.data == encode(in_utc)
