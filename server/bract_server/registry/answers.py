"""What sites answer to a proposed round: clearances, reservations, refusals, each checked before it is kept.

Rules:
    1. It is signed with the enrolled key of a site that is not revoked, and speaks of that site.
    2. Its round is proposed and not yet open, in a campaign whose plan names the site and whose data set it is about.
    3. A clearance is for the plan's purpose, under the consent rule that the hub knows, lives at most a day, and was not
       issued before somebody is known to have withdrawn from its snapshot.
    4. A reservation is for the plan's mechanism or a tighter one, within the site's cap by its word and by the hub's own
       account (`bract_server.registry.ledger`), and not over.
    5. The newest terms of the data set, its site's or the data protection officer's, leave the plan's purpose: when it clears
       and when the round is opened. Without terms the consents alone decide.
    6. A site gives each answer once: the same again changes nothing, another one is refused.
"""

from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar

from sqlalchemy import and_, bindparam, select
from sqlalchemy.orm import Session

from bract.consent import RULE_DIGEST
from bract.digest import Digest
from bract.errors import (
    BUDGET,
    CODES,
    MALFORMED,
    NO_CLEARANCE,
    NO_RESERVATION,
    OVERSPEND,
    QUARANTINED,
    STALE_CLEARANCE,
    STATE,
    UNTRUSTED,
    BractError,
)
from bract.plan import CampaignPlan
from bract.privacy.spec import Mechanism
from bract.signing import Envelope, parse_envelope, unseal
from bract.update import Clearance, Refusal, Reservation, WithdrawalNotice
from bract.value import decode
from bract_server.lifecycle import ROUND, TASK, RoundMove, RoundState, TaskMove
from bract_server.registry import ledger
from bract_server.registry.campaigns import plan_of
from bract_server.registry.lineage import snapshot_ref
from bract_server.registry.models import (
    CampaignRow,
    ClearanceRow,
    NoticeRow,
    NoticeSnapshotRow,
    RefusalRow,
    ReservationRow,
    RoundRow,
    SiteRow,
)
from bract_server.registry.places import never_proposed
from bract_server.registry.quarantine import is_apart
from bract_server.registry.sites import site_key
from bract_server.registry.sources import check_declared
from bract_server.registry.tasks import answered
from bract_server.registry.unit import Store

LONGEST = timedelta(hours=24)
"""A clearance that would live longer is refused: consent is resolved anew every day."""

# Writers wait for each other, so what every answer asks is built once, and one statement.
_ASKED = (
    select(
        RoundRow,
        CampaignRow,
        ClearanceRow.digest,
        ReservationRow.digest,
        RefusalRow.digest,
        is_apart(bindparam("by", type_=SiteRow.name.type)),
    )
    .join(CampaignRow, CampaignRow.digest == RoundRow.campaign)
    .where(RoundRow.campaign == bindparam("of"), RoundRow.number == bindparam("nth"))
)
for _table in (ClearanceRow, ReservationRow, RefusalRow):
    _ASKED = _ASKED.outerjoin(_table, and_(_table.round_id == RoundRow.id, _table.site == bindparam("by")))

Answer = TypeVar("Answer", Clearance, Reservation, Refusal)


class Answers(Store):
    """The part of the registry that takes sites' answers to proposals."""

    def clear(self, site: str, envelope: Envelope, at: datetime) -> None:
        """Take a signed `Clearance`.

        Raises:
            BractError: `unknown-site`, `untrusted`, `unknown-campaign`, `wrong-state`, `stale-clearance` (expired, or
                withdrawn from), `no-clearance` (another data set, purpose or rule, or too long a life), `off-purpose` (by
                the data set's terms), `quarantined`.
        """
        with self.writing(at) as unit:
            value = _signed_by(unit.session, site, Clearance, envelope)
            asked = _asked(unit.session, value)
            if _given_before(asked.clearance, value, envelope.name):
                return
            row, plan = _planned_round(asked, value)
            _check_free(asked, site)
            _move(asked, site, TaskMove.CLEAR)
            _check_clearance(value, plan, at)
            _check_notices(unit.session, value)
            check_declared(unit.session, site, plan, at)
            unit.session.add(
                ClearanceRow(
                    round_id=row.id,
                    site=site,
                    digest=envelope.name,
                    snapshot=value.snapshot,
                    expires_at=value.expires_at,
                    envelope=envelope.to_json(),
                    received_at=at,
                )
            )
            unit.log("clearance.take", envelope.name, site, campaign=value.campaign, number=value.number)

    def reserve(self, site: str, envelope: Envelope, at: datetime) -> None:
        """Take a signed `Reservation`.

        Raises:
            BractError: `unknown-site`, `untrusted`, `unknown-campaign`, `wrong-state`, `budget-exhausted` (over the
                site's cap, by its word or the hub's account), `overspend` (looser than the plan), `no-reservation`
                (another data set, or expired), `quarantined`.
        """
        with self.writing(at) as unit:
            value = _signed_by(unit.session, site, Reservation, envelope)
            asked = _asked(unit.session, value)
            if _given_before(asked.reservation, value, envelope.name):
                return
            row, plan = _planned_round(asked, value)
            _check_free(asked, site)
            _move(asked, site, TaskMove.RESERVE)
            _check_reservation(value, plan, at)
            ledger.reserve(unit, row.id, value, envelope)
            unit.log("reservation.take", envelope.name, site, campaign=value.campaign, number=value.number)

    def refuse(self, site: str, envelope: Envelope, at: datetime) -> None:
        """Take a signed `Refusal`.

        Raises:
            BractError: `unknown-site`, `untrusted`, `unknown-campaign`, `wrong-state`; `malformed` for an unknown code.
        """
        with self.writing(at) as unit:
            value = _signed_by(unit.session, site, Refusal, envelope)
            asked = _asked(unit.session, value)
            if _given_before(asked.refusal, value, envelope.name):
                return
            row, _ = _planned_round(asked, value)
            _move(asked, site, TaskMove.REFUSE)
            if value.code not in CODES:
                raise BractError(MALFORMED, "code: not one that a refusal may have")
            unit.session.add(
                RefusalRow(
                    round_id=row.id,
                    site=site,
                    digest=envelope.name,
                    code=value.code,
                    envelope=envelope.to_json(),
                    received_at=at,
                )
            )
            unit.log("refusal.take", envelope.name, site, campaign=value.campaign, number=value.number, code=value.code)

    def spent(self, site: str, dataset: str) -> tuple[Mechanism, ...]:
        """Every mechanism that the site reserved for a data set and did not give back unused, oldest first."""
        wanted = (
            select(ReservationRow.noise_multiplier, ReservationRow.sampling_rate, ReservationRow.steps)
            .where(ReservationRow.site == site, ReservationRow.dataset == dataset)
            .where(ReservationRow.id.not_in(ledger.given_back()))
            .order_by(ReservationRow.id)
        )
        with self.seeing() as session:
            return tuple(Mechanism(sigma, rate, steps) for sigma, rate, steps in session.execute(wanted))

    def epsilon_cap(self, site: str, dataset: str) -> float | None:
        """The cap that the site named in its newest reservation for a data set, None before there is one."""
        wanted = (
            select(ReservationRow.envelope)
            .where(ReservationRow.site == site, ReservationRow.dataset == dataset)
            .order_by(ReservationRow.id.desc())
            .limit(1)
        )
        with self.seeing() as session:
            sealed = session.scalar(wanted)
            return None if sealed is None else decode(Reservation, parse_envelope(sealed).payload).epsilon_cap


def _signed_by(session: Session, site: str, cls: type[Answer], envelope: Envelope) -> Answer:
    """The value inside, if that site signed it about itself (rule 1)."""
    value = unseal(cls, envelope, site_key(session, site))
    if value.site != site:
        raise BractError(UNTRUSTED, "a site speaks for itself only")
    return value


class _Asked(NamedTuple):
    """What stands of the round that an answer is for, and the digests of what the site gave for it before."""

    round: RoundRow
    campaign: CampaignRow
    clearance: str | None
    reservation: str | None
    refusal: str | None
    apart: bool


def _asked(session: Session, value: Clearance | Reservation | Refusal) -> _Asked:
    found = session.execute(_ASKED, {"of": value.campaign, "nth": value.number, "by": value.site}).first()
    if found is None:
        raise never_proposed(session, value.campaign, value.number)
    return _Asked(*found)


def _given_before(before: str | None, value: Clearance | Reservation | Refusal, digest: Digest) -> bool:
    """Whether this very answer was given before (rule 6)."""
    if before not in (None, digest):
        raise BractError(STATE, f"the site gave another {type(value).__name__.lower()} for this round")
    return before is not None


def _planned_round(asked: _Asked, value: Clearance | Reservation | Refusal) -> tuple[RoundRow, CampaignPlan]:
    """The proposed round that an answer is for, and its campaign's plan (rule 2)."""
    ROUND.after(RoundState(asked.round.state), RoundMove.OPEN, value.number)
    plan = plan_of(asked.campaign)
    if value.site not in {site.name for site in plan.sites}:
        raise BractError(STATE, f"the plan does not name {value.site}")
    return asked.round, plan


def _check_free(asked: _Asked, site: str) -> None:
    if asked.apart:
        raise BractError(QUARANTINED, site)


def _move(asked: _Asked, site: str, event: TaskMove) -> None:
    """That the site's task may make this move; of a round that is only proposed."""
    state = answered(asked.refusal is not None, asked.clearance is not None, asked.reservation is not None)
    TASK.after(state, event, f"of {site} in round {asked.round.number}")


def _check_clearance(value: Clearance, plan: CampaignPlan, at: datetime) -> None:
    """Rule 3."""
    if value.dataset != plan.dataset or value.purpose is not plan.purpose:
        raise BractError(NO_CLEARANCE, "the clearance is for another data set or purpose")
    if value.rule != RULE_DIGEST:
        raise BractError(NO_CLEARANCE, "the site resolves consent by another rule; update it")
    if value.expires_at <= at:
        raise BractError(STALE_CLEARANCE, "the clearance has expired")
    if value.expires_at - at > LONGEST:
        raise BractError(NO_CLEARANCE, "the clearance would live longer than a day")


def _check_notices(session: Session, value: Clearance) -> None:
    """Rule 3. A snapshot may come again, once everybody whom notices were about is in it by consent again."""
    named = select(NoticeRow.envelope).join(NoticeSnapshotRow, NoticeSnapshotRow.notice_id == NoticeRow.id)
    for envelope in session.scalars(named.where(NoticeSnapshotRow.ref == snapshot_ref(value.site, value.snapshot))):
        if value.issued_at <= decode(WithdrawalNotice, parse_envelope(envelope).payload).noticed_at:
            raise BractError(STALE_CLEARANCE, "somebody withdrew from its snapshot after it was issued")


def _check_reservation(value: Reservation, plan: CampaignPlan, at: datetime) -> None:
    """Rule 4."""
    if value.dataset != plan.dataset:
        raise BractError(NO_RESERVATION, "the reservation is for another data set")
    if value.expires_at <= at:
        raise BractError(NO_RESERVATION, "the reservation has expired")
    if not within(value.mechanism, plan.privacy.mechanism):
        raise BractError(OVERSPEND, "the reservation is looser than the plan")
    if not 0 <= value.epsilon <= value.epsilon_cap:
        raise BractError(BUDGET, "the reservation is over the site's cap")


def within(asked: Mechanism, limit: Mechanism) -> bool:
    """Whether one mechanism costs no more than another in every part: noise, rate, steps."""
    return (
        asked.noise_multiplier >= limit.noise_multiplier
        and asked.sampling_rate <= limit.sampling_rate
        and asked.steps <= limit.steps
    )
