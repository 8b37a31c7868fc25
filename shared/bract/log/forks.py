"""Forks in a database: signed heads that did not continue what was seen, until a named person lifts them. Each is logged."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, Row, Select, select
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import MALFORMED, STATE, BractError
from bract.log import book
from bract.log.checkpoint import root_digest
from bract.log.exchange import remember, remembered
from bract.log.note import parse_note
from bract.log.schema import LogTables
from bract.signing import key_text

FOUND, ACCEPTED = "fork.find", "fork.accept"
"""Kinds of the entries that tell of a fork; both are about the root that did not continue."""


@dataclass(frozen=True)
class Fork:
    """A signed head that did not continue what was seen before, ours or another's. It stands until somebody lifts it."""

    number: int
    origin: str
    verify_key: str
    size: int
    root: Digest
    note: bytes
    cause: str
    at: datetime
    accepted_by: str | None
    reason: str | None


def find(
    on: Connection | Session,
    log: LogTables,
    note: bytes,
    key: Ed25519PublicKey,
    cause: str,
    *,
    actor: str,
    at: datetime,
) -> bool:
    """Keep a head that does not continue what was seen, and log it; False while a fork of that key stands already.

    One at a time: whoever forks could else fill our log with it.
    """
    if any(fork.verify_key == key_text(key) for fork in standing(on, log)):
        return False
    head = parse_note(note).head
    values = {
        "origin": head.origin,
        "verify_key": key_text(key),
        "size": head.size,
        "root": root_digest(head.root),
        "note": note,
        "cause": cause[:200],
        "at": at,
    }
    on.execute(log.fork.insert(), values)
    body = {"origin": head.origin, "size": head.size, "cause": cause[:200]}
    book.append(on, log, kind=FOUND, actor=actor, about=root_digest(head.root), body=body, at=at)
    return True


def found(on: Connection | Session, log: LogTables) -> tuple[Fork, ...]:
    """Every fork that was ever found, oldest first."""
    return tuple(_fork(row) for row in on.execute(_forks(log)))


def standing(on: Connection | Session, log: LogTables) -> tuple[Fork, ...]:
    """The forks that nobody has lifted."""
    return tuple(_fork(row) for row in on.execute(_forks(log).where(log.acceptance.c.fork.is_(None))))


def accept(
    on: Connection | Session,
    log: LogTables,
    lifted: Sequence[Fork],
    person: str,
    reason: str,
    *,
    actor: str,
    at: datetime,
) -> None:
    """Lift forks: a named person takes the new history for the right one, and the log says who and why.

    Of another's log, the forked head is remembered from now on; it is not cosigned, since it continues nothing.

    Raises:
        BractError: `wrong-state` without a fork; `malformed` without a name or a reason.
    """
    if not person.strip() or not reason.strip():
        raise BractError(MALFORMED, "a fork is lifted by a named person for a reason")
    if not lifted:
        raise BractError(STATE, "no fork stands")
    for fork in lifted:
        on.execute(log.acceptance.insert(), {"fork": fork.number, "person": person, "reason": reason, "at": at})
        if remembered(on, log, fork.verify_key) is not None:
            remember(on, log, fork.verify_key, parse_note(fork.note).head, fork.note, "", at)
        body = {"origin": fork.origin, "size": fork.size, "person": person, "reason": reason}
        book.append(on, log, kind=ACCEPTED, actor=actor, about=fork.root, body=body, at=at)


def _forks(log: LogTables) -> Select[*tuple[Any, ...]]:
    f, a = log.fork.c, log.acceptance.c
    both = log.fork.outerjoin(log.acceptance, a.fork == f.id)
    wanted = (f.id, f.origin, f.verify_key, f.size, f.root, f.note, f.cause, f.at, a.person, a.reason)
    return select(*wanted).select_from(both).order_by(f.id)


def _fork(row: Row[*tuple[Any, ...]]) -> Fork:
    return Fork(*row)
