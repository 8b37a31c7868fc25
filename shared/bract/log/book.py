"""The log in a database: append in the caller's transaction, sign checkpoints, recompute and verify everything.

Rules of `verify`, each found by its own test:
    1. Entries are numbered from 1 without gaps.
    2. A body that is there matches its entry's commitment; one that is not was erased by a later entry that says so.
    3. Every stored checkpoint is signed by the owner, and the tree of its size has its root.
    4. The log is not shorter than any checkpoint, stored or remembered elsewhere.
    5. The kept tiles are those of the tree, each as it is made from the entries.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import Connection, Row, Select, and_, bindparam, func, insert, select, text
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningInsert

from bract.digest import Digest, canonical
from bract.errors import LOG, STATE, BractError
from bract.log import shelf
from bract.log.checkpoint import Checkpoint, root_digest
from bract.log.entry import LogEntry, commitment, entry_data, new_salt
from bract.log.merkle import Edge, Frontier, leaf_hash, parse_frontier
from bract.log.schema import LogTables, guards, tables, unguards
from bract.log.tiles import WIDTH
from bract.signing import Envelope, parse_envelope, sign, unseal

__all__ = [
    "ERASED",
    "LogReport",
    "LogTables",
    "append",
    "body",
    "checkpoint",
    "entries",
    "erase",
    "guards",
    "hold",
    "tables",
    "unguards",
    "verify",
]

ERASED = "log.erase"
"""The kind of the entry that says a body was erased; it is about that body's number."""

_PAGE = 1024


@dataclass(frozen=True)
class LogReport:
    """What `verify` recomputed. `checkpoint_size` is how many entries the newest stored checkpoint covers."""

    entries: int
    root: Digest
    checkpoint_size: int
    verified: bool = True


def hold(on: Connection | Session, log: LogTables) -> None:
    """Take the log's write lock until the transaction ends: from here on transactions run one after the other.

    `append` takes it too. A transaction that also locks rows takes this one first, so that no two can wait in a circle.
    """
    connection = _connection(on)
    if connection.dialect.name != "postgresql":
        return  # BEGIN IMMEDIATE already did the same
    # A lock taken under a savepoint goes with it, so that it is remembered for the innermost transaction only.
    mine = connection.get_nested_transaction() or connection.get_transaction()
    if mine is None or connection.info.get(log.entry) is not mine:
        connection.execute(text(f"LOCK TABLE {log.entry.name} IN EXCLUSIVE MODE"))  # readers go on
        connection.info[log.entry] = connection.get_nested_transaction() or connection.get_transaction()


def append(
    on: Connection | Session,
    log: LogTables,
    *,
    kind: str,
    actor: str,
    about: str,
    body: Mapping[str, Any],
    at: datetime,
) -> int:
    """Add one entry in the caller's transaction: the fact and its entry are kept together or not at all.

    Returns:
        The entry's number.

    Raises:
        BractError: `malformed` for a body without a canonical form or a time without a zone.
    """
    hold(on, log)
    connection = _connection(on)
    salt, data = new_salt(), canonical(dict(body))
    row = {"of_kind": kind, "then": at, "by": actor, "of": about, "sealed": commitment(salt, data)}
    seq = int(connection.execute(_next(log), row).scalar_one())
    connection.execute(log.body.insert(), {"seq": seq, "salt": salt, "body": data})
    if seq % WIDTH == 0:
        shelf.grow(connection, log, seq)
    return seq


@lru_cache
def _last(log: LogTables) -> Select[*tuple[Any, ...]]:
    """The newest checkpoint."""
    return select(log.checkpoint).order_by(log.checkpoint.c.size.desc()).limit(1)


@lru_cache
def _next(log: LogTables) -> ReturningInsert[int]:
    """Adds an entry under the next number and gives that number: one statement, as every writer waits for it."""
    entry = log.entry
    told = {"kind": "of_kind", "at": "then", "actor": "by", "about": "of", "commitment": "sealed"}
    values = [bindparam(parameter, type_=entry.c[name].type) for name, parameter in told.items()]
    number = select(func.coalesce(func.max(entry.c.seq), 0) + 1, *values)
    return insert(entry).from_select(["seq", *told], number).returning(entry.c.seq)


def erase(
    on: Connection | Session,
    log: LogTables,
    seq: int,
    *,
    actor: str,
    reason: str,
    at: datetime,
    person: str | None = None,
    needed: Collection[str] = (),
) -> int:
    """Delete an entry's body and salt for good, and say so in a new entry; the tree still verifies.

    Args:
        on: the connection or session.
        log: the tables.
        seq: whose body.
        actor: of the new entry.
        reason: shown to whoever verifies the log; it names no data subject.
        at: now.
        person: who ordered it.
        needed: kinds of entries whose bodies stay; those of erasures do in any case.

    Returns:
        The number of the new entry.

    Raises:
        BractError: `wrong-state` when there is no such body, or it is needed.
    """
    hold(on, log)
    connection = _connection(on)
    entry = shelf.entry_at(connection, log, seq)
    if entry is not None and entry.kind in (ERASED, *needed):
        raise BractError(STATE, f"the body of log entry {seq} ({entry.kind}) is needed")
    if connection.execute(log.body.delete().where(log.body.c.seq == seq)).rowcount != 1:
        raise BractError(STATE, f"log entry {seq} has no body")
    body = {"reason": reason} if person is None else {"reason": reason, "person": person}
    return append(connection, log, kind=ERASED, actor=actor, about=str(seq), body=body, at=at)


def entries(on: Connection | Session, log: LogTables, after: int = 0) -> Iterator[LogEntry]:
    """The entries beyond `after`, in order.

    Raises:
        BractError: `log-inconsistent` for a number that is missing or does not follow.
    """
    return (LogEntry(*row) for row in _rows(_connection(on), log, after, bodies=False))


def body(on: Connection | Session, log: LogTables, seq: int) -> bytes | None:
    """The canonical JSON of an entry's body, None once it was erased."""
    found: bytes | None = _connection(on).scalar(select(log.body.c.body).where(log.body.c.seq == seq))
    return found


def checkpoint(on: Connection | Session, log: LogTables, key: Ed25519PrivateKey, origin: str, at: datetime) -> Envelope:
    """Sign the log as it stands in this transaction, and keep the signature; the same size is signed once.

    Costs the entries since the last checkpoint, not the whole log.

    Raises:
        BractError: `log-inconsistent` when the last checkpoint or the entries after it do not verify; `wrong-state` for
            an empty log.
    """
    hold(on, log)
    connection = _connection(on)
    last = connection.execute(_last(log)).first()
    edge = Frontier()
    if last is not None:
        before = _opened(last, key.public_key())
        edge = parse_frontier(last.size, last.frontier)
        if root_digest(edge.root) != before.root:
            raise BractError(LOG, f"the checkpoint of {last.size} entries is not its own")
    grown = Edge(edge)
    for entry in entries(connection, log, edge.size):
        grown.add(entry.leaf)
    edge = grown.frontier
    if edge.size == 0:
        raise BractError(STATE, "the log is empty")
    if last is not None and edge.size == last.size:
        return parse_envelope(last.envelope)
    envelope = sign(Checkpoint(origin, edge.size, root_digest(edge.root), at), key)
    connection.execute(
        log.checkpoint.insert(),
        {"size": edge.size, "envelope": envelope.to_json(), "frontier": edge.to_bytes()},
    )
    return envelope


def verify(
    on: Connection | Session, log: LogTables, key: Ed25519PublicKey, known: Checkpoint | None = None
) -> LogReport:
    """Recompute the log from its rows and compare it with every signature over it (see the module's rules).

    Run it in one transaction of `bract.database.reading`, so that it sees one state. Memory does not grow with the log.

    Args:
        on: the connection or session.
        log: the tables.
        key: the owner's.
        known: a checkpoint that was kept elsewhere; without one, a log cut back together with its newest checkpoints
            cannot be told from one that never was longer.

    Raises:
        BractError: `log-inconsistent`, naming the first bad entry or checkpoint.
    """
    connection = _connection(on)
    signed = {row.size: _opened(row, key) for row in connection.execute(select(log.checkpoint))}
    expected = {size: point.root for size, point in signed.items()}
    if known is not None and expected.setdefault(known.size, known.root) != known.root:
        raise BractError(LOG, f"the log was rewritten: entry {known.size} or one before it")
    edge, tiles, good, erased, absent = Edge(), shelf.Recount(connection, log), 0, set[str](), dict[str, int]()
    for row in _rows(connection, log, 0, bodies=True):
        _, kind, _, _, about, committed, salt, data = row
        leaf = leaf_hash(entry_data(*row[:6]))
        edge.add(leaf)
        tiles.add(leaf)
        if data is None:
            absent[str(edge.size)] = edge.size
        elif commitment(salt, data) != committed:
            raise BractError(LOG, f"log entry {edge.size} has another body than it was made with")
        if kind == ERASED:
            erased.add(about)
        root = expected.pop(edge.size, None)
        if root is not None and root != root_digest(edge.frontier.root):
            where = f"one of the log entries {good + 1} to {edge.size}"
            raise BractError(LOG, f"{tiles.odd_entry or where} was changed")
        good = good if root is None else edge.size
    if expected:
        raise BractError(LOG, f"log entry {edge.size + 1} is missing: {max(expected)} entries were signed")
    if lost := [seq for about, seq in absent.items() if about not in erased]:
        raise BractError(LOG, f"log entry {min(lost)} has lost its body")
    tiles.end(edge.size)
    return LogReport(edge.size, root_digest(edge.frontier.root), max(signed, default=0))


def _rows(connection: Connection, log: LogTables, after: int, *, bodies: bool) -> Iterator[Row[*tuple[Any, ...]]]:
    """Entries beyond `after` in order, with salt and body where they are asked for."""
    place, end = after, after
    while place == end:  # a page that is not full was the last
        rows = connection.execute(_page(log, bodies), {"after": place}).all()
        for row in rows:
            place += 1
            if row[0] != place:
                raise BractError(LOG, f"log entry {place} is missing")
            yield row
        end += _PAGE


@lru_cache
def _page(log: LogTables, bodies: bool) -> Select[*tuple[Any, ...]]:
    entry, after = log.entry, bindparam("after", type_=log.entry.c.seq.type)
    wanted = (entry.c.seq, entry.c.kind, entry.c.at, entry.c.actor, entry.c.about, entry.c.commitment)
    statement: Select[*tuple[Any, ...]] = select(*wanted)
    if bodies:
        # Said of both sides: else PostgreSQL may read the bodies from the first one on, for every page.
        whole = entry.outerjoin(log.body, and_(log.body.c.seq == entry.c.seq, log.body.c.seq > after))
        statement = select(*wanted, log.body.c.salt, log.body.c.body).select_from(whole)
    return statement.where(entry.c.seq > after).order_by(entry.c.seq).limit(_PAGE)


def _opened(row: Row[Any], key: Ed25519PublicKey) -> Checkpoint:
    try:
        point = unseal(Checkpoint, parse_envelope(row.envelope), key)
    except BractError as error:
        raise BractError(LOG, f"the checkpoint of {row.size} entries: {error.detail}") from error
    if point.size != row.size:
        raise BractError(LOG, f"the checkpoint of {row.size} entries is of another size")
    return point


def _connection(on: Connection | Session) -> Connection:
    return on if isinstance(on, Connection) else on.connection()
