"""How far each site is in a round, read from what stands here: answers, places, contributions, receipts."""

from sqlalchemy import Exists, bindparam, exists, select
from sqlalchemy.orm import Session

from bract_server.lifecycle import TASK, RoundState, TaskMove, TaskState
from bract_server.registry.models import (
    ClearanceRow,
    ContributionRow,
    OutcomeRow,
    ParticipantRow,
    ReceiptRow,
    RefusalRow,
    ReservationRow,
    RoundRow,
)

_ANSWERS = {
    (False, False): TaskState.PLANNED,
    (True, False): TaskState.CLEARED,
    (False, True): TaskState.RESERVED,
    (True, True): TaskState.READY,
}


def _there(table: type[ClearanceRow | ReservationRow | RefusalRow | ParticipantRow]) -> Exists:
    return exists().where(table.round_id == bindparam("nth"), table.site == bindparam("of"))


_STANDS = select(_there(ParticipantRow), _there(RefusalRow), _there(ClearanceRow), _there(ReservationRow))


def task_state(session: Session, row: RoundRow, site: str) -> TaskState:
    """How far the site is in the round."""
    placed, refused, cleared, reserved = session.execute(_STANDS, {"nth": row.id, "of": site}).one()
    if placed:
        return _placed(session, row, site)
    if not refused and row.state != RoundState.PLANNED:
        return TaskState.OUT
    return answered(refused, cleared, reserved)


def answered(refused: bool, cleared: bool, reserved: bool) -> TaskState:
    """How far a site is in a round that is only proposed, by what it gave."""
    return TaskState.REFUSED if refused else _ANSWERS[cleared, reserved]


def move(session: Session, row: RoundRow, site: str, event: TaskMove) -> TaskState:
    """What the site's task becomes by this; nothing is changed here.

    Raises:
        BractError: `wrong-state` when that may not happen now.
    """
    return TASK.after(task_state(session, row, site), event, f"of {site} in round {row.number}")


def _placed(session: Session, row: RoundRow, site: str) -> TaskState:
    """Of a site with a place."""
    accepted = exists().where(
        ContributionRow.round_id == row.id, ContributionRow.site == site, ContributionRow.accepted
    )
    if row.state == RoundState.RUNNING:
        return TaskState.CONTRIBUTED if session.scalar(select(accepted)) else TaskState.RUNNING
    receipt = exists().where(
        OutcomeRow.round_id == row.id, ReceiptRow.version == OutcomeRow.version, ReceiptRow.site == site
    )
    return TaskState.AGGREGATED if session.scalar(select(receipt)) else TaskState.OUT
