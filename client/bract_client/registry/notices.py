"""Withdrawals on their way to the hub: queued at once, told in batches, so that no notice points at one person."""

import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta

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


def take(session: Session, site: str, at: datetime, not_before: timedelta) -> tuple[WithdrawalNotice | None, bool]:
    """The notice to send, and whether it is new: the one that is under way, else one over all that is queued.

    None while there is nothing to tell or the oldest waits for less than `not_before`.
    """
    box = NoticeOutbox
    waiting = select(box).where(box.sent_at.is_(None)).order_by(box.no)
    rows = session.scalars(waiting).all()
    going = [row for row in rows if row.notice is not None]
    if going:
        rows = [row for row in going if row.notice == going[0].notice]
    elif not rows or min(row.queued_at for row in rows) + not_before > at:
        return None, False
    else:
        name = secrets.token_hex(16)
        for row in rows:
            row.notice, row.noticed_at = name, at
    roots = sorted({root for row in rows for root in row.snapshots})
    return WithdrawalNotice(site, rows[0].notice or "", tuple(map(Digest, roots)), rows[0].noticed_at or at), not going


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
