"""The log against the tables: whatever signed thing is kept has its entry, and each such entry its thing."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from bract.digest import digest
from bract.errors import LOG as INCONSISTENT
from bract.errors import BractError
from bract.signing import parse_envelope
from bract_server.registry.models import (
    LOG,
    CampaignRow,
    ClearanceRow,
    ContributionRow,
    NoticeRow,
    ReceiptRow,
    RefusalRow,
    ReservationRow,
    RoundPlanRow,
    RoundRow,
    VersionRow,
)

_ENVELOPES: dict[str, Select[Any]] = {
    "campaign.create": select(CampaignRow.envelope),
    "round.propose": select(RoundRow.proposal),
    "clearance.take": select(ClearanceRow.envelope),
    "reservation.take": select(ReservationRow.envelope),
    "refusal.take": select(RefusalRow.envelope),
    "round.open": select(RoundPlanRow.envelope),
    "contribution.accept": select(ContributionRow.envelope).where(ContributionRow.accepted),
    "receipt.issue": select(ReceiptRow.envelope),
    "withdrawal.take": select(NoticeRow.envelope),
}


def check(session: Session) -> None:
    """Compare what the log is about with what the tables hold.

    Raises:
        BractError: `log-inconsistent`, naming the kind of entry and one digest that only one of the two has.
    """
    for kind, kept in _ENVELOPES.items():
        _compare(session, kind, (parse_envelope(data).name for data in session.scalars(kept)))
    _compare(session, "version.add", (digest(body) for body in session.scalars(select(VersionRow.body))))


def _compare(session: Session, kind: str, kept: Iterable[str]) -> None:
    told = set(session.scalars(select(LOG.entry.c.about).where(LOG.entry.c.kind == kind)))
    held = set(kept)
    if odd := sorted(told ^ held):
        where = "is in the log only" if odd[0] in told else "is not in the log"
        raise BractError(INCONSISTENT, f"{kind}: {odd[0]} {where}")
