"""The log in a database: append in the caller's transaction, sign checkpoints, recompute and verify everything.

Rules of `verify`, each found by its own test:
    1. Entries are numbered from 1 without gaps.
    2. A body that is there matches its entry's commitment; one that is not was erased by a later entry that says so.
    3. Every stored checkpoint is signed by the owner, and the tree of its size has its root.
    4. The log is not shorter than any checkpoint, stored or remembered elsewhere.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    LargeBinary,
    MetaData,
    Row,
    Select,
    String,
    Table,
    func,
    select,
    text,
)
from sqlalchemy.orm import Session

from bract.database import DigestText, Number, Utc, allow_changes, refuse_changes
from bract.digest import Digest, canonical
from bract.errors import LOG, STATE, BractError
from bract.log.checkpoint import Checkpoint, root_digest
from bract.log.entry import LogEntry, commitment, new_salt
from bract.log.merkle import Frontier, parse_frontier
from bract.signing import Envelope, parse_envelope, sign, unseal

ERASED = "log.erase"
"""The kind of the entry that says a body was erased; it is about that body's number."""

_PAGE = 1000
_ENTRY, _BODY, _CHECKPOINT = "log_entry", "log_body", "log_checkpoint"


@dataclass(frozen=True)
class LogTables:
    """The log's three tables in one side's schema."""

    entry: Table
    body: Table
    checkpoint: Table


@dataclass(frozen=True)
class LogReport:
    """What `verify` recomputed. `checkpoint_size` is how many entries the newest stored checkpoint covers."""

    entries: int
    root: Digest
    checkpoint_size: int
    verified: bool = True


def tables(metadata: MetaData) -> LogTables:
    """Declare the log's tables in a schema."""
    return LogTables(
        entry=Table(
            _ENTRY,
            metadata,
            Column("seq", Number, primary_key=True, autoincrement=False),
            Column("kind", String(64), nullable=False, index=True),
            Column("at", Utc(), nullable=False),
            Column("actor", String(200), nullable=False),
            Column("about", String(200), nullable=False, index=True),
            Column("commitment", DigestText, nullable=False),
        ),
        body=Table(
            _BODY,
            metadata,
            Column("seq", Number, ForeignKey(f"{_ENTRY}.seq"), primary_key=True, autoincrement=False),
            Column("salt", LargeBinary, nullable=False),
            Column("body", LargeBinary, nullable=False),
        ),
        checkpoint=Table(
            _CHECKPOINT,
            metadata,
            Column("size", Number, ForeignKey(f"{_ENTRY}.seq"), primary_key=True, autoincrement=False),
            Column("envelope", LargeBinary, nullable=False),
            Column("frontier", LargeBinary, nullable=False),
        ),
    )


def guards(dialect: str) -> tuple[str, ...]:
    """DDL of the triggers that keep the log; only a whole body may be deleted."""
    return (
        *refuse_changes(dialect, _ENTRY),
        *refuse_changes(dialect, _CHECKPOINT),
        *refuse_changes(dialect, _BODY, deletes=False),
    )


def unguards(dialect: str) -> tuple[str, ...]:
    """DDL that takes `guards` back."""
    return tuple(ddl for table in (_ENTRY, _CHECKPOINT, _BODY) for ddl in allow_changes(dialect, table))


def hold(on: Connection | Session, log: LogTables) -> None:
    """Take the log's write lock until the transaction ends: from here on transactions run one after the other.

    `append` takes it too. A transaction that also locks rows takes this one first, so that no two can wait in a circle.
    """
    connection = _connection(on)
    if connection.dialect.name == "postgresql":
        # Readers go on; SQLite's BEGIN IMMEDIATE already did the same.
        connection.execute(text(f"LOCK TABLE {log.entry.name} IN EXCLUSIVE MODE"))


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
    seq = int(connection.scalar(select(func.coalesce(func.max(log.entry.c.seq), 0))) or 0) + 1
    salt, data = new_salt(), canonical(dict(body))
    row = {"seq": seq, "kind": kind, "at": at, "actor": actor, "about": about, "commitment": commitment(salt, data)}
    connection.execute(log.entry.insert(), row)
    connection.execute(log.body.insert(), {"seq": seq, "salt": salt, "body": data})
    return seq


def erase(on: Connection | Session, log: LogTables, seq: int, *, actor: str, reason: str, at: datetime) -> int:
    """Delete an entry's body and salt for good, and say so in a new entry; the tree still verifies.

    Returns:
        The number of the new entry.

    Raises:
        BractError: `wrong-state` when there is no such body.
    """
    hold(on, log)
    connection = _connection(on)
    if connection.execute(log.body.delete().where(log.body.c.seq == seq)).rowcount != 1:
        raise BractError(STATE, f"log entry {seq} has no body")
    return append(connection, log, kind=ERASED, actor=actor, about=str(seq), body={"reason": reason}, at=at)


def entries(on: Connection | Session, log: LogTables, after: int = 0) -> Iterator[LogEntry]:
    """The entries beyond `after`, in order.

    Raises:
        BractError: `log-inconsistent` for a number that is missing or does not follow.
    """
    return (entry for entry, _ in _read(_connection(on), log, after))


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
    last = connection.execute(select(log.checkpoint).order_by(log.checkpoint.c.size.desc()).limit(1)).first()
    edge = Frontier()
    if last is not None:
        before = _opened(last, key.public_key())
        edge = parse_frontier(last.size, last.frontier)
        if root_digest(edge.root) != before.root:
            raise BractError(LOG, f"the checkpoint of {last.size} entries is not its own")
    for entry in entries(connection, log, edge.size):
        edge = edge.add(entry.leaf)
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
    edge, good, erased, absent = Frontier(), 0, set[str](), dict[str, int]()
    for entry, has_body in _read(connection, log, 0, check=True):
        edge = edge.add(entry.leaf)
        if not has_body:
            absent[str(entry.seq)] = entry.seq
        if entry.kind == ERASED:
            erased.add(entry.about)
        root = expected.pop(edge.size, None)
        if root is not None and root != root_digest(edge.root):
            raise BractError(LOG, f"one of the log entries {good + 1} to {edge.size} was changed")
        good = good if root is None else edge.size
    if expected:
        raise BractError(LOG, f"log entry {edge.size + 1} is missing: {max(expected)} entries were signed")
    if lost := [seq for about, seq in absent.items() if about not in erased]:
        raise BractError(LOG, f"log entry {min(lost)} has lost its body")
    return LogReport(edge.size, root_digest(edge.root), max(signed, default=0))


def _read(
    connection: Connection, log: LogTables, after: int, *, check: bool = False
) -> Iterator[tuple[LogEntry, bool]]:
    """Entries beyond `after` in order, each with whether its body is there; `check` compares commitments."""
    place = after
    while rows := connection.execute(_page(log, place, check)).all():
        for row in rows:
            place += 1
            if row.seq != place:
                raise BractError(LOG, f"log entry {place} is missing")
            if check and row.body is not None and commitment(row.salt, row.body) != row.commitment:
                raise BractError(LOG, f"log entry {place} has another body than it was made with")
            entry = LogEntry(row.seq, row.kind, row.at, row.actor, row.about, row.commitment)
            yield entry, check and row.body is not None


def _page(log: LogTables, after: int, bodies: bool) -> Select[Any]:
    entry = log.entry
    if bodies:
        whole = entry.outerjoin(log.body, log.body.c.seq == entry.c.seq)
        statement = select(entry, log.body.c.salt, log.body.c.body).select_from(whole)
    else:
        statement = select(entry)
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
