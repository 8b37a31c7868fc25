"""Where an answer's facts stand in a log: the checkpoint of the time, and the numbers of the entries."""

from collections.abc import Set
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, select

from bract.errors import LOG, BractError
from bract.log.checkpoint import Checkpoint
from bract.log.schema import LogTables
from bract.question import Cite, ProofReference
from bract.signing import parse_envelope, unseal

_CHUNK = 500


def cited(
    connection: Connection, log: LogTables, key: Ed25519PublicKey, origin: str, known: datetime, cites: Set[Cite]
) -> tuple[ProofReference, dict[Cite, int]]:
    """The newest checkpoint that was signed by `known`, and the numbers of those of the cited entries that it covers.

    Raises:
        BractError: `log-inconsistent` when the log's owner did not sign it.
    """
    point = _point(connection, log, key, known)
    if point is None:
        return ProofReference(origin, 0, None, ()), {}
    wanted, numbers, entry = sorted({about for _, about in cites}), dict[Cite, int](), log.entry.c
    for start in range(0, len(wanted), _CHUNK):
        part = select(entry.seq, entry.kind, entry.about).where(entry.about.in_(wanted[start : start + _CHUNK]))
        for seq, kind, about in connection.execute(part.where(entry.seq <= point.size).order_by(entry.seq)):
            for cite in ((kind, about), ("*", about)):
                if cite in cites:
                    numbers.setdefault(cite, seq)
    return ProofReference(origin, point.size, point.root, ()), numbers


def _point(connection: Connection, log: LogTables, key: Ed25519PublicKey, known: datetime) -> Checkpoint | None:
    """The newest checkpoint that is not after `known`, by bisection: signed times do not go back by more than a clock does."""
    newest = _opened(connection, log, key, newest_first=True)
    if newest is None or newest.at <= known:
        return newest
    found: Checkpoint | None = None
    low, high = 1, newest.size
    while low < high:
        middle = (low + high) // 2
        point = _opened(connection, log, key, middle)
        if point is not None and point.at <= known:
            found, low = point, point.size + 1
        else:
            high = middle
    return found


def _opened(
    connection: Connection, log: LogTables, key: Ed25519PublicKey, size: int = 1, *, newest_first: bool = False
) -> Checkpoint | None:
    """The first checkpoint of that size or more, or the last one of all."""
    c = log.checkpoint.c
    order = c.size.desc() if newest_first else c.size
    sealed = connection.scalar(select(c.envelope).where(c.size >= size).order_by(order).limit(1))
    try:
        return None if sealed is None else unseal(Checkpoint, parse_envelope(sealed), key)
    except BractError as error:
        raise BractError(LOG, f"a checkpoint is not its owner's: {error.detail}") from error
