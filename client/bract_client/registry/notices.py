"""Withdrawals on their way to the hub: queued at once, told in batches, so that no notice points at one person."""

import secrets
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import STATE, BractError
from bract.update import WithdrawalNotice
from bract_client.registry.models import NoticeOutbox


def queue(session: Session, snapshots: Iterable[Digest], at: datetime) -> None:
    """Puts the snapshots that someone left into the outbox; none is nothing to tell."""
    roots = sorted(snapshots)
    if roots:
        session.execute(insert(NoticeOutbox), {"snapshots": roots, "queued_at": at})


def take(session: Session, site: str, at: datetime, every: timedelta) -> tuple[WithdrawalNotice | None, bool]:
    """The notice to send, and whether it is new: the one that is under way, else one over all that is queued.

    Notices leave on a public grid of `every` since 1970, and carry the grid's time: when somebody withdrew within it stays
    here. None while there is nothing to tell or the oldest was queued since the last point of the grid.
    """
    box = NoticeOutbox
    waiting = select(box).where(box.sent_at.is_(None)).order_by(box.no)
    rows = session.scalars(waiting).all()
    going = [row for row in rows if row.notice is not None]
    if going:
        rows = [row for row in going if row.notice == going[0].notice]
    elif not rows or (every and min(row.queued_at for row in rows) >= _point(at, every)):
        return None, False
    else:
        name = secrets.token_hex(16)
        for row in rows:
            row.notice, row.noticed_at = name, _point(at, every)
    roots = sorted({root for row in rows for root in row.snapshots})
    return WithdrawalNotice(site, rows[0].notice or "", tuple(map(Digest, roots)), rows[0].noticed_at or at), not going


def _point(at: datetime, every: timedelta) -> datetime:
    """The last point of the grid."""
    return at - (at - datetime(1970, 1, 1, tzinfo=UTC)) % every if every else at


def sent(session: Session, notice: str, at: datetime) -> bool:
    """Notes that the hub has a notice; False if it was noted before.

    Raises:
        BractError: `wrong-state` for a notice that was never taken.
    """
    box = NoticeOutbox
    if session.scalar(select(box.no).where(box.notice == notice).limit(1)) is None:
        raise BractError(STATE, "there is no such notice")
    unsent = select(box).where(box.notice == notice, box.sent_at.is_(None))
    rows = session.scalars(unsent).all()
    for row in rows:
        row.sent_at = at
    return bool(rows)
