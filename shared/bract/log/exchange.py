"""Showing our log and watching others', in a database: proofs, notes, cosignatures and memories.

What a witness remembers and what others signed for us is kept by rows of its own, not by entries of the log: an entry a
cosignature would make each log grow because the other did.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import Connection, Select, and_, bindparam, func, select
from sqlalchemy.orm import Session

from bract.errors import MALFORMED, STATE, UNTRUSTED, BractError
from bract.log import book, shelf
from bract.log.checkpoint import Checkpoint, root_digest
from bract.log.entry import LogEntry
from bract.log.merkle import parse_frontier
from bract.log.note import (
    Head,
    Note,
    Signature,
    check_cosignature,
    cosign,
    parse_note,
    parse_signature,
    sign_head,
)
from bract.log.proof import Proof
from bract.log.schema import LogTables
from bract.log.witness import Shown, judge
from bract.signing import Envelope, key_text, parse_envelope
from bract.signing import key_id as signer
from bract.value import decode

PADDING = "log.pad"
STEP = 32
"""A site shows heads of whole steps only: from how many entries an interval has, decisions could be counted."""


@dataclass(frozen=True)
class Memory:
    """What we cosigned last of another log; the line is empty for a head that was taken by hand after a fork."""

    head: Head
    cosignature: str


def newest(on: Connection | Session, log: LogTables) -> tuple[Head, Envelope] | None:
    """Our newest signed head, None before there is one."""
    wanted = select(log.checkpoint.c.envelope).order_by(log.checkpoint.c.size.desc()).limit(1)
    sealed = on.scalar(wanted)
    if sealed is None:
        return None
    envelope = parse_envelope(sealed)
    return head_in(decode(Checkpoint, envelope.payload)), envelope


def newest_step(on: Connection | Session, log: LogTables) -> Checkpoint | None:
    """Our newest checkpoint of whole steps (`STEP`), None before there is one."""
    c = log.checkpoint.c
    sealed = on.scalar(select(c.envelope).where(c.size % STEP == 0).order_by(c.size.desc()).limit(1))
    return None if sealed is None else decode(Checkpoint, parse_envelope(sealed).payload)


def pad(on: Connection | Session, log: LogTables, *, actor: str, at: datetime) -> None:
    """Fill the log up to a whole step with entries that say nothing, so that its length counts nothing."""
    size = on.scalar(select(func.max(log.entry.c.seq))) or 0
    for _ in range(-size % STEP):
        book.append(on, log, kind=PADDING, actor=actor, about="", body={}, at=at)


def head_of(on: Connection | Session, log: LogTables, size: int) -> Head:
    """Our signed head of that size.

    Raises:
        BractError: `wrong-state` when the log never signed one.
    """
    sealed = on.scalar(select(log.checkpoint.c.envelope).where(log.checkpoint.c.size == size))
    if sealed is None:
        raise BractError(STATE, f"the log has no checkpoint of {size} entries")
    return head_in(decode(Checkpoint, parse_envelope(sealed).payload))


def note_of(on: Connection | Session, log: LogTables, key: Ed25519PrivateKey, head: Head) -> Note:
    """One of our heads as a note, with every cosignature that we have of it."""
    c = log.cosignature.c
    lines = on.scalars(select(c.line).where(c.size == head.size).order_by(c.witness))
    mine = sign_head(head, key)
    return Note(head, (*mine.signatures, *(parse_signature(line) for line in lines)))


def prove(on: Connection | Session, log: LogTables, key: Ed25519PrivateKey, seq: int) -> Proof:
    """The proof that our log has an entry, under the newest checkpoint; it reads a few tiles.

    Raises:
        BractError: `wrong-state` when there is no such entry, or it is not signed yet.
    """
    connection = on.connection() if isinstance(on, Session) else on
    found = connection.execute(_signed_entry(log), {"nth": seq}).first()
    if found is None:
        raise BractError(STATE, f"there is no signed log entry {seq}")
    *entry, sealed, edge = found
    envelope = parse_envelope(sealed)
    head = head_in(decode(Checkpoint, envelope.payload))
    tree = shelf.tree(connection, log, head.size, peaks=parse_frontier(head.size, edge).peaks, leaf=seq - 1)
    return Proof(
        LogEntry(*entry), tree.inclusion(seq - 1), envelope, note_of(connection, log, key, head).to_bytes().decode()
    )


@lru_cache
def _signed_entry(log: LogTables) -> Select[*tuple[Any, ...]]:
    """An entry, beside the newest checkpoint if that has it."""
    e, c = log.entry.c, log.checkpoint.c
    last = c.size == select(func.max(c.size)).scalar_subquery()
    wanted = select(e.seq, e.kind, e.at, e.actor, e.about, e.commitment, c.envelope, c.frontier)
    return wanted.join_from(log.entry, log.checkpoint, and_(last, e.seq <= c.size)).where(e.seq == bindparam("nth"))


def show(on: Connection | Session, log: LogTables, key: Ed25519PrivateKey, old: int, head: Head | None = None) -> Shown:
    """A head of ours for a witness who remembers `old` entries; the newest one unless another is given.

    Raises:
        BractError: `wrong-state` before anything is signed.
    """
    if head is None:
        last = newest(on, log)
        if last is None:
            raise BractError(STATE, "the log is empty")
        head = last[0]
    note = sign_head(head, key).to_bytes()
    if not 0 < old < head.size:
        return Shown(note, old, ())
    connection = on.connection() if isinstance(on, Session) else on
    return Shown(note, old, shelf.tree(connection, log, head.size).consistency(old))


def remembered(on: Connection | Session, log: LogTables, key: str) -> Memory | None:
    """What we remember of the log of this key."""
    w = log.witnessed.c
    row = on.execute(select(w.note, w.cosignature).where(w.verify_key == key).order_by(w.id.desc()).limit(1)).first()
    return None if row is None else Memory(parse_note(row.note).head, row.cosignature)


def watch(
    on: Connection | Session,
    log: LogTables,
    shown: Shown,
    theirs: Ed25519PublicKey,
    *,
    name: str,
    key: Ed25519PrivateKey,
    at: datetime,
) -> Head:
    """Judge another log's head, remember it and cosign it; the same head again changes nothing.

    Args:
        on: a transaction that holds the log's lock, so that nothing is remembered in between.
        log: our tables.
        shown: what the other shows.
        theirs: its key.
        name: ours, as a witness.
        key: ours.
        at: now.

    Raises:
        BractError: as `bract.log.witness.judge`; nothing is remembered then.
    """
    last = remembered(on, log, key_text(theirs))
    head = judge(shown, theirs, None if last is None else last.head)
    if last is None or last.head != head:
        line = cosign(head, name, key, int(at.timestamp())).line
        remember(on, log, key_text(theirs), head, shown.note, line, at)
    return head


def keep(
    on: Connection | Session, log: LogTables, one: Signature, key: Ed25519PublicKey, size: int, at: datetime
) -> bool:
    """Keep a witness' cosignature of our checkpoint of that size; False if that witness' was kept before.

    Raises:
        BractError: `untrusted` unless that key made it, for our own key, and for a name or key that is another witness';
            `wrong-state` when there is no such checkpoint; `malformed` for a time after now.
    """
    if check_cosignature(head_of(on, log, size), one, one.name, key) > at.timestamp() + _AHEAD_S:
        raise BractError(MALFORMED, "the cosignature is from the future")
    if (last := newest(on, log)) is not None and last[1].keyid == signer(key):
        raise BractError(UNTRUSTED, "a log is no witness of itself")
    c = log.cosignature.c
    named, keyed = c.witness == one.name, c.verify_key == key_text(key)
    if on.scalar(select(c.size).where(named != keyed).limit(1)) is not None:
        raise BractError(UNTRUSTED, "a witness keeps its name and its key: the log knows one of these with another")
    if on.scalar(select(c.size).where(c.size == size, c.witness == one.name)) is not None:
        return False
    values = {"size": size, "witness": one.name, "verify_key": key_text(key), "line": one.line, "kept_at": at}
    on.execute(log.cosignature.insert(), values)
    return True


def cosigned(on: Connection | Session, log: LogTables, key: Ed25519PublicKey) -> int:
    """How many of our entries the witness of that key has cosigned, 0 if none."""
    c = log.cosignature.c
    return on.scalar(select(func.coalesce(func.max(c.size), 0)).where(c.verify_key == key_text(key))) or 0


_AHEAD_S = 300
"""Seconds that a witness' clock may be ahead of ours."""


def head_in(point: Checkpoint) -> Head:
    """The head that a checkpoint says."""
    return Head(point.origin, point.size, bytes.fromhex(point.root.removeprefix("sha256:")))


def remember(
    on: Connection | Session, log: LogTables, key: str, head: Head, note: bytes, cosignature: str, at: datetime
) -> None:
    """Take a head for the last one of the log of this key."""
    values = {
        "origin": head.origin,
        "verify_key": key,
        "size": head.size,
        "root": root_digest(head.root),
        "note": note,
        "cosignature": cosignature,
        "at": at,
    }
    on.execute(log.witnessed.insert(), values)
