"""How far each site is in a round, read from what stands here: answers, places, contributions, receipts."""

from sqlalchemy import exists, select
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


def task_state(session: Session, row: RoundRow, site: str) -> TaskState:
    """How far the site is in the round."""

    def has(table: type[ClearanceRow | ReservationRow | RefusalRow | ParticipantRow]) -> bool:
        return bool(session.scalar(select(exists().where(table.round_id == row.id, table.site == site))))

    if has(ParticipantRow):
        return _placed(session, row, site)
    if has(RefusalRow):
        return TaskState.REFUSED
    if row.state != RoundState.PLANNED:
        return TaskState.OUT
    return _ANSWERS[has(ClearanceRow), has(ReservationRow)]


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
