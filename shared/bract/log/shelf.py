"""Tiles in the database: a full one is kept when its last hash is there, and proofs read a few of them.

A tile at the edge is not kept. At level 0 its hashes are those of the last entries, above they are the roots of the full
tiles below; at most 255 rows each.
"""

from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, case, false, func, or_, select

from bract.errors import LOG, BractError
from bract.log.entry import LogEntry, entry_data
from bract.log.merkle import SIZE, leaf_hash, parse_frontier
from bract.log.schema import LogTables
from bract.log.tiles import HEIGHT, WIDTH, TiledTree, fold


def leaves(connection: Connection, log: LogTables, begin: int, end: int) -> list[bytes]:
    """The leaf hashes of the entries from `begin` (from 0) up to, not including, `end`.

    Raises:
        BractError: `log-inconsistent` when one is missing.
    """
    e = log.entry.c
    wanted = select(e.seq, e.kind, e.at, e.actor, e.about, e.commitment).where(e.seq > begin, e.seq <= end)
    found = [leaf_hash(entry_data(*row)) for row in connection.execute(wanted.order_by(e.seq))]
    if len(found) != end - begin:
        raise BractError(LOG, f"an entry from {begin + 1} to {end} is missing")
    return found


def grow(connection: Connection, log: LogTables, size: int) -> None:
    """Keep the tiles that the tree's last leaf has filled: one every 256 entries, two every 65 536, and so on.

    Args:
        connection: in the transaction that added the leaf.
        log: the tables.
        size: leaves in the tree, the last one included.
    """
    level = 0
    while size % WIDTH == 0:
        size //= WIDTH
        hashes = _edge(connection, log, level, size - 1, WIDTH)
        row = {"level": level, "number": size - 1, "root": fold(hashes), "hashes": b"".join(hashes)}
        connection.execute(log.tile.insert(), row)
        level += 1


def build(connection: Connection, log: LogTables) -> None:
    """Make every full tile of a log that has none yet, as a migration does. Memory does not grow with the log."""
    size = connection.scalar(select(log.entry.c.seq).order_by(log.entry.c.seq.desc()).limit(1)) or 0
    for end in range(WIDTH, size + 1, WIDTH):
        grow(connection, log, end)


def tree(
    connection: Connection,
    log: LogTables,
    size: int,
    *,
    peaks: tuple[bytes, ...] | None = None,
    leaf: int | None = None,
) -> TiledTree:
    """The tree of the first `size` entries, which gives roots and proofs.

    Args:
        connection: only read.
        log: the tables.
        size: of the tree.
        peaks: its frontier's; asked for unless given.
        leaf: whose path (from 0) will be wanted: all of its tiles are read at once.
    """
    seen = {} if leaf is None else _around(connection, log, size, leaf)

    def read(level: int, number: int) -> bytes:
        if (level, number) in seen:
            return seen[level, number]
        width = (size >> (HEIGHT * level)) - number * WIDTH
        if width >= WIDTH:
            t = log.tile.c
            kept: bytes | None = connection.scalar(select(t.hashes).where(t.level == level, t.number == number))
            if kept is None:
                raise BractError(LOG, f"tile {number} of level {level} is missing")
            return kept
        return b"".join(_edge(connection, log, level, number, max(width, 0)))

    if peaks is None:
        c = log.checkpoint.c
        edge = connection.scalar(select(c.frontier).where(c.size == size))
        peaks = () if edge is None else parse_frontier(size, edge).peaks
    return TiledTree(size, read, peaks)


def _around(connection: Connection, log: LogTables, size: int, leaf: int) -> dict[tuple[int, int], bytes]:
    """The tiles with a leaf's path, by level and number, in one statement; one that is missing is left out.

    The lowest one of a leaf at the edge is left out as well: its hashes are those of entries.
    """
    asked, whole, edge = dict[str, int](), list[int](), list[int]()
    for level in range((size.bit_length() - 1) // HEIGHT + 1):
        number, width = leaf >> (HEIGHT * (level + 1)), size >> (HEIGHT * level)
        begin, end = number * WIDTH, min((number + 1) * WIDTH, width)
        if end - begin == WIDTH:
            whole.append(level)
            asked[f"number_{level}"] = number
        elif level and begin < end:
            edge.append(level)
            asked |= {f"begin_{level}": begin, f"end_{level}": end}
    if not asked:
        return {}
    rows = {(row[0], row[1]): row for row in connection.execute(_tiles(log, tuple(whole), tuple(edge)), asked)}
    seen = {place: bytes(row[3]) for place, row in rows.items() if row[3] is not None}
    for level in edge:
        begin, end = asked[f"begin_{level}"], asked[f"end_{level}"]
        below = [rows[level - 1, one][2] for one in range(begin, end) if (level - 1, one) in rows]
        if len(below) == end - begin:
            seen[level, begin // WIDTH] = b"".join(below)
    return seen


@lru_cache
def _tiles(log: LogTables, whole: tuple[int, ...], edge: tuple[int, ...]) -> Select[*tuple[Any, ...]]:
    """A full tile of each of these levels with its hashes, and the roots below the partial tile of each of those."""
    t = log.tile.c
    full = [and_(t.level == level, t.number == bindparam(f"number_{level}")) for level in whole]
    below = [
        and_(t.level == level - 1, t.number >= bindparam(f"begin_{level}"), t.number < bindparam(f"end_{level}"))
        for level in edge
    ]
    hashes = case((or_(false(), *full), t.hashes))
    return select(t.level, t.number, t.root, hashes).where(or_(*full, *below))


def _edge(connection: Connection, log: LogTables, level: int, number: int, width: int) -> list[bytes]:
    """The hashes of a tile, put together from what is below it."""
    begin = number * WIDTH
    if level == 0:
        return leaves(connection, log, begin, begin + width)
    t = log.tile.c
    below = select(t.root).where(t.level == level - 1, t.number >= begin, t.number < begin + width).order_by(t.number)
    roots = list(connection.scalars(below))
    if len(roots) != width:
        raise BractError(LOG, f"a tile below tile {number} of level {level} is missing")
    return roots


class Recount:
    """Makes every tile anew from the leaves of a whole log, and compares it with the one that is kept.

    A tile that differs tells that it or an entry was changed; only a signed root tells which. So it is told at the `end`.
    """

    def __init__(self, connection: Connection, log: LogTables) -> None:
        self._connection, self._log = connection, log
        self._rows: list[list[bytes]] = []
        self._full = 0
        self._odd: str | None = None
        self.odd_entry: str | None = None

    def add(self, leaf: bytes) -> None:
        """The next leaf hash."""
        level, value = 0, leaf
        while True:
            if level == len(self._rows):
                self._rows.append([])
            row = self._rows[level]
            row.append(value)
            if len(row) < WIDTH:
                return
            value = fold(row)
            self._compare(level, row, value)
            row.clear()
            level += 1

    def end(self, size: int) -> None:
        """That every tile is that of the tree, and that there is none more than `size` leaves fill.

        Raises:
            BractError: `log-inconsistent`, naming the first tile that differs.
        """
        if self._odd is not None:
            raise BractError(LOG, self._odd)
        if (self._connection.scalar(select(func.count()).select_from(self._log.tile)) or 0) != self._full:
            raise BractError(LOG, f"there are more tiles than {size} entries fill")

    def _compare(self, level: int, row: list[bytes], root: bytes) -> None:
        number = 0
        for above in reversed(self._rows[level + 1 :]):
            number = number * WIDTH + len(above)
        t = self._log.tile.c
        kept = self._connection.execute(select(t.root, t.hashes).where(t.level == level, t.number == number)).first()
        self._full += 1
        if self._odd is not None or (kept is not None and (kept.root, kept.hashes) == (root, b"".join(row))):
            return
        self._odd = f"tile {number} of level {level} is missing or was changed"
        if level == 0 and kept is not None and len(kept.hashes) == WIDTH * SIZE:
            first = next((i for i, hashed in enumerate(row) if hashed != kept.hashes[i * SIZE : (i + 1) * SIZE]), None)
            self.odd_entry = None if first is None else f"log entry {number * WIDTH + first + 1}"


def entry_at(connection: Connection, log: LogTables, seq: int) -> LogEntry | None:
    """The entry of that number."""
    e = log.entry.c
    wanted = select(e.seq, e.kind, e.at, e.actor, e.about, e.commitment).where(e.seq == seq)
    found = connection.execute(wanted).first()
    return None if found is None else LogEntry(*found)


def newest_about(connection: Connection, log: LogTables, kind: str, about: str) -> LogEntry | None:
    """The newest entry of that kind about that name or digest."""
    e = log.entry.c
    wanted = select(e.seq, e.kind, e.at, e.actor, e.about, e.commitment).where(e.about == about, e.kind == kind)
    found = connection.execute(wanted.order_by(e.seq.desc()).limit(1)).first()
    return None if found is None else LogEntry(*found)
