"""The log against the tables: whatever signed thing is kept has its entry, and each such entry its thing."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from bract.digest import digest
from bract.errors import LOG as INCONSISTENT
from bract.errors import BractError
from bract.signing import parse_envelope
from bract_server.accounts import EXPIRED
from bract_server.registry import balance, spreads
from bract_server.registry.models import (
    LOG,
    ApprovalRow,
    ArtefactRow,
    CampaignRow,
    CardRow,
    ClearanceRow,
    ContributionRow,
    DecisionRow,
    EntryRow,
    NoticeRow,
    OverrideRow,
    PersonRow,
    PolicyRow,
    PublicationRow,
    ReceiptRow,
    RefusalRow,
    ReleaseRow,
    RelinquishmentRow,
    ReservationRow,
    RoundPlanRow,
    RoundRow,
    TakenBackRow,
    TermsRow,
    VersionRow,
)

ENVELOPES: dict[str, Select[Any]] = {
    "campaign.create": select(CampaignRow.envelope),
    "round.propose": select(RoundRow.proposal),
    "clearance.take": select(ClearanceRow.envelope),
    "reservation.take": select(ReservationRow.envelope),
    "relinquishment.take": select(RelinquishmentRow.envelope),
    "refusal.take": select(RefusalRow.envelope),
    "round.open": select(RoundPlanRow.envelope),
    "contribution.accept": select(ContributionRow.envelope).where(ContributionRow.accepted),
    "receipt.issue": select(ReceiptRow.envelope),
    "withdrawal.take": select(NoticeRow.envelope),
    "withdrawal.decide": select(DecisionRow.envelope),
    "lineage.add": select(ArtefactRow.envelope),
    "terms.take": select(TermsRow.envelope),
    "card.add": select(CardRow.envelope),
    "person.add": select(PersonRow.envelope),
    "override.take": select(OverrideRow.envelope),
    "release.policy": select(PolicyRow.envelope),
    "release.propose": select(ReleaseRow.envelope),
    "approval.take": select(ApprovalRow.envelope),
    "release.publish": select(PublicationRow.envelope),
    "release.withdraw": select(TakenBackRow.envelope),
}
"""Kinds of entries and the envelopes that they are about; a bundle for auditors holds each with its entry."""


def check(session: Session) -> None:
    """Compare what the log is about with what the tables hold, and the privacy accounts with both.

    Raises:
        BractError: `log-inconsistent`, naming the kind of entry and one digest that only one of the two has; or as
            `balance.check`.
    """
    for kind, kept in ENVELOPES.items():
        _compare(session, kind, (parse_envelope(data).name for data in session.scalars(kept)))
    _compare(session, "version.add", (digest(body) for body in session.scalars(select(VersionRow.body))))
    lapsed = select(ReservationRow.digest).join(EntryRow).where(EntryRow.state == EXPIRED)
    _compare(session, "reservation.expire", session.scalars(lapsed))
    _compare(session, spreads.SPREAD, spreads.digests(session))
    balance.check(session)


def _compare(session: Session, kind: str, kept: Iterable[str]) -> None:
    told = set(session.scalars(select(LOG.entry.c.about).where(LOG.entry.c.kind == kind)))
    held = set(kept)
    if odd := sorted(told ^ held):
        where = "is in the log only" if odd[0] in told else "is not in the log"
        raise BractError(INCONSISTENT, f"{kind}: {odd[0]} {where}")
