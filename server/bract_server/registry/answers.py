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

from sqlalchemy import and_, bindparam, exists, select
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
    UNKNOWN_SITE,
    UNTRUSTED,
    BractError,
)
from bract.plan import CampaignPlan, Place
from bract.privacy.spec import Mechanism
from bract.signing import Envelope, parse_envelope, unseal
from bract.update import Clearance, Refusal, Reservation, WithdrawalNotice
from bract.value import decode
from bract_server.lifecycle import ROUND, TASK, RoundMove, RoundState, TaskMove
from bract_server.registry import ledger
from bract_server.registry.campaigns import campaign_row, plan_of
from bract_server.registry.lineage import snapshot_ref
from bract_server.registry.models import (
    CampaignRow,
    CampaignSiteRow,
    ClearanceRow,
    NoticeRow,
    NoticeSnapshotRow,
    RefusalRow,
    ReservationRow,
    RevocationRow,
    RoundRow,
    SiteRow,
)
from bract_server.registry.quarantine import apart, check_free, is_apart
from bract_server.registry.sites import site_key
from bract_server.registry.sources import check_declared
from bract_server.registry.tasks import answered
from bract_server.registry.unit import Store, Unit
from bract_server.registry.views import RoundAnswers

LONGEST = timedelta(hours=24)
"""A clearance that would live longer is refused: consent is resolved anew every day."""

# Writers wait for each other, so what every answer asks is built once, and one statement.
_ROUND = select(RoundRow).where(RoundRow.campaign == bindparam("of"), RoundRow.number == bindparam("nth"))
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

    def proposals(self, site: str, at: datetime) -> list[tuple[bytes, bytes]]:
        """Signed `Proposal` and `CampaignPlan` of each round that the site has not answered in full, oldest first."""
        del at  # a proposal is open until its round is opened or aborted
        answered = exists().where(RefusalRow.round_id == RoundRow.id, RefusalRow.site == site) | (
            exists().where(ClearanceRow.round_id == RoundRow.id, ClearanceRow.site == site)
            & exists().where(ReservationRow.round_id == RoundRow.id, ReservationRow.site == site)
        )
        wanted = (
            select(RoundRow.proposal, CampaignRow.envelope)
            .join(CampaignRow, CampaignRow.digest == RoundRow.campaign)
            .join(CampaignSiteRow, CampaignSiteRow.campaign == CampaignRow.digest)
            .where(CampaignSiteRow.site == site, RoundRow.state == "planned", CampaignRow.state == "running", ~answered)
            .order_by(RoundRow.id)
        )
        with self.seeing() as session:
            if site in apart(session):
                return []
            return [(proposal, envelope) for proposal, envelope in session.execute(wanted)]

    def answers(self, campaign: Digest, number: int, at: datetime) -> RoundAnswers:
        """How the sites of the plan answered a proposal; an answer that no longer holds counts as a refusal.

        Raises:
            BractError: `unknown-campaign`; `wrong-state` when there is no such round.
        """
        with self.seeing() as session:
            row = round_row(session, campaign, number)
            places, refusals, waiting = list[Place](), dict[str, str](), list[str]()
            plan = plan_of(campaign_row(session, campaign))
            for site in sorted(s.name for s in plan.sites):
                try:
                    place = _place(session, row.id, plan, site, at)
                except BractError as error:
                    refusals[site] = error.code
                    continue
                if place is None:
                    waiting.append(site)
                else:
                    places.append(place)
            return RoundAnswers(tuple(places), refusals, tuple(waiting))

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


def round_row(session: Session, campaign: str, number: int) -> RoundRow:
    """The row of a round.

    Raises:
        BractError: `unknown-campaign`; `wrong-state` when there is no such round.
    """
    row = session.scalar(_ROUND, {"of": campaign, "nth": number})
    if row is None:
        raise _never_proposed(session, campaign, number)
    return row


def _never_proposed(session: Session, campaign: str, number: int) -> BractError:
    campaign_row(session, campaign)
    return BractError(STATE, f"round {number} was never proposed")


def check_live(session: Session, clearance: ClearanceRow, at: datetime) -> None:
    """The clearance holds now.

    Raises:
        BractError: `stale-clearance` when it expired or was revoked by a withdrawal.
    """
    if clearance.expires_at <= at or session.get(RevocationRow, clearance.id) is not None:
        raise BractError(STALE_CLEARANCE, clearance.site)


def _place(session: Session, round_id: int, plan: CampaignPlan, site: str, at: datetime) -> Place | None:
    """The site's place in a round as far as its answers go; None while they are not complete."""
    site_row = session.get(SiteRow, site)
    if site_row is None or site_row.revoked_at is not None:
        raise BractError(UNKNOWN_SITE, site)
    check_free(session, site)
    refusal = session.scalar(select(RefusalRow).where(RefusalRow.round_id == round_id, RefusalRow.site == site))
    if refusal is not None:
        raise BractError(refusal.code, site)
    check_declared(session, site, plan, at)
    clearance, reservation = given(session, round_id, site)
    if clearance is not None:
        check_live(session, clearance, at)
    if reservation is not None:
        ledger.live(session, reservation, at)
    if clearance is None or reservation is None:
        return None
    return Place(site, Digest(clearance.digest), Digest(reservation.digest))


def given(session: Session, round_id: int, site: str) -> tuple[ClearanceRow | None, ReservationRow | None]:
    """What a site gave for a round so far."""
    return (
        session.scalar(select(ClearanceRow).where(ClearanceRow.round_id == round_id, ClearanceRow.site == site)),
        session.scalar(select(ReservationRow).where(ReservationRow.round_id == round_id, ReservationRow.site == site)),
    )


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
        raise _never_proposed(session, value.campaign, value.number)
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


def place_rows(unit: Unit, row: RoundRow, plan: CampaignPlan, place: Place) -> tuple[ClearanceRow, ReservationRow]:
    """The rows behind a place in a round that is being opened: the gate.

    Raises:
        BractError: `no-clearance`, `no-reservation`, `stale-clearance`, `unknown-site`, `off-purpose`, or the site's own
            refusal.
    """
    clearance, reservation = given(unit.session, row.id, place.site)
    if clearance is None or clearance.digest != place.clearance:
        raise BractError(NO_CLEARANCE, place.site)
    if reservation is None or reservation.digest != place.reservation:
        raise BractError(NO_RESERVATION, place.site)
    _place(unit.session, row.id, plan, place.site, unit.at)
    return clearance, reservation
