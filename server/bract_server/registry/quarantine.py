"""Sites that keep sending what has to be refused are set apart, until a named person lifts it.

Rules:
    1. Only a contribution that broke a rule counts (`FAULTS`): one that came too late, or whose clearance somebody ended by
       withdrawing, does not.
    2. `Patience.refused` of them within the newest `Patience.rounds` rounds in which the site had a place, and since it was
       last set free, begin a quarantine, in the transaction that keeps the last of them.
    3. In quarantine a site is proposed nothing, clears and reserves nothing, has no place, and no contribution of it counts.
       Its refusals, withdrawals and what it gives back are heard as ever.
"""

from datetime import datetime

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from bract.errors import (
    BAD_ARRAYS,
    DIGEST_MISMATCH,
    MALFORMED,
    NO_CLEARANCE,
    NO_RESERVATION,
    NOT_FINITE,
    OVERSPEND,
    POLICY,
    QUARANTINED,
    REPLAY,
    STATE,
    TOO_LARGE,
    UNKNOWN_SITE,
    UNTRUSTED,
    BractError,
)
from bract_server.patience import Patience
from bract_server.registry.models import ContributionRow, LiftRow, ParticipantRow, QuarantineRow, SiteRow
from bract_server.registry.unit import Store, Unit
from bract_server.registry.views import Quarantine

FAULTS = frozenset(
    {
        MALFORMED,
        UNTRUSTED,
        DIGEST_MISMATCH,
        UNKNOWN_SITE,
        NO_CLEARANCE,
        NO_RESERVATION,
        OVERSPEND,
        POLICY,
        BAD_ARRAYS,
        NOT_FINITE,
        TOO_LARGE,
        REPLAY,
    }
)
"""Codes of contributions that an honest site's software never sends."""


class Quarantines(Store):
    """The part of the registry that knows which sites are set apart."""

    def quarantines(self) -> tuple[Quarantine, ...]:
        """Every quarantine, also those that were lifted, oldest first."""
        wanted = select(QuarantineRow, LiftRow).outerjoin(LiftRow, LiftRow.quarantine_id == QuarantineRow.id)
        with self.seeing() as session:
            return tuple(_view(row, lift) for row, lift in session.execute(wanted.order_by(QuarantineRow.id)))

    def lift_quarantine(self, site: str, person: str, reason: str, at: datetime) -> None:
        """Let a site take part again; what it sent before counts no more.

        Raises:
            BractError: `unknown-site`; `wrong-state` when it is not in quarantine.
        """
        with self.writing(at) as unit:
            if unit.session.get(SiteRow, site) is None:
                raise BractError(UNKNOWN_SITE, site)
            row = unit.session.scalar(standing(site))
            if row is None:
                raise BractError(STATE, f"{site} is not in quarantine")
            unit.session.add(LiftRow(quarantine_id=row.id, person=person, reason=reason, lifted_at=at))
            unit.log("quarantine.lift", site, actor=person, reason=reason, began_at=row.began_at.isoformat())


def check_free(session: Session, site: str) -> None:
    """The site is not set apart.

    Raises:
        BractError: `quarantined`.
    """
    if session.scalar(standing(site)) is not None:
        raise BractError(QUARANTINED, site)


def apart(session: Session) -> frozenset[str]:
    """The sites that are set apart now."""
    return frozenset(session.scalars(_free().with_only_columns(QuarantineRow.site)))


def is_apart(site: InstrumentedAttribute[str] | ColumnElement[str]) -> ColumnElement[bool]:
    """For a query: whether that column's site, or that parameter's, is set apart now."""
    return _free().where(QuarantineRow.site == site).exists()


def judge(unit: Unit, site: str, patience: Patience) -> None:
    """Begin a quarantine if the site has used up the patience (rule 2)."""
    session = unit.session
    session.flush()
    if session.scalar(standing(site)) is not None:
        return
    freed = select(func.max(LiftRow.lifted_at)).join(QuarantineRow).where(QuarantineRow.site == site)
    since = session.scalar(freed)
    newest = (
        select(ParticipantRow.round_id)
        .where(ParticipantRow.site == site)
        .order_by(ParticipantRow.round_id.desc())
        .limit(patience.rounds)
    )
    refused = select(ContributionRow.code, func.count()).where(
        ContributionRow.site == site,
        ContributionRow.code.in_(FAULTS),
        ContributionRow.round_id.in_(newest.scalar_subquery()),
    )
    if since is not None:
        refused = refused.where(ContributionRow.received_at > since)
    codes: dict[str, int] = {
        str(code): count for code, count in session.execute(refused.group_by(ContributionRow.code))
    }
    if sum(codes.values()) >= patience.refused:
        session.add(QuarantineRow(site=site, codes=codes, began_at=unit.at))
        unit.log("quarantine.begin", site, codes=codes, rounds=patience.rounds)


def _free() -> Select[QuarantineRow]:
    return select(QuarantineRow).where(QuarantineRow.id.not_in(select(LiftRow.quarantine_id)))


def standing(site: str) -> Select[QuarantineRow]:
    """The quarantine that the site is in."""
    return _free().where(QuarantineRow.site == site).limit(1)


def _view(row: QuarantineRow, lift: LiftRow | None) -> Quarantine:
    codes = {code: int(count) for code, count in row.codes.items()}
    if lift is None:
        return Quarantine(row.site, codes, row.began_at)
    return Quarantine(row.site, codes, row.began_at, lift.person, lift.reason, lift.lifted_at)
