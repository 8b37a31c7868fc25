"""A proposed round as it stands: whom it waits for, and each site's place in it with what that stands on."""

from datetime import datetime

from sqlalchemy import bindparam, exists, select
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import NO_CLEARANCE, NO_RESERVATION, STALE_CLEARANCE, STATE, UNKNOWN_SITE, BractError
from bract.plan import CampaignPlan, Place
from bract_server.registry import ledger
from bract_server.registry.campaigns import campaign_row, plan_of
from bract_server.registry.models import (
    CampaignRow,
    CampaignSiteRow,
    ClearanceRow,
    RefusalRow,
    ReservationRow,
    RevocationRow,
    RoundRow,
    SiteRow,
)
from bract_server.registry.quarantine import apart, check_free
from bract_server.registry.sources import check_declared
from bract_server.registry.unit import Store, Unit
from bract_server.registry.views import RoundAnswers

_ROUND = select(RoundRow).where(RoundRow.campaign == bindparam("of"), RoundRow.number == bindparam("nth"))
"""Built once: other writers wait while it is asked."""


class Places(Store):
    """The part of the registry that says how sites answered."""

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


def round_row(session: Session, campaign: str, number: int) -> RoundRow:
    """The row of a round.

    Raises:
        BractError: `unknown-campaign`; `wrong-state` when there is no such round.
    """
    row = session.scalar(_ROUND, {"of": campaign, "nth": number})
    if row is None:
        raise never_proposed(session, campaign, number)
    return row


def never_proposed(session: Session, campaign: str, number: int) -> BractError:
    """Why there is no such round: the campaign is unknown, or has not come that far.

    Raises:
        BractError: `unknown-campaign`.
    """
    campaign_row(session, campaign)
    return BractError(STATE, f"round {number} was never proposed")


def _check_live(session: Session, clearance: ClearanceRow, at: datetime) -> None:
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
    clearance, reservation = _given(session, round_id, site)
    if clearance is not None:
        _check_live(session, clearance, at)
    if reservation is not None:
        ledger.live(session, reservation, at)
    if clearance is None or reservation is None:
        return None
    return Place(site, Digest(clearance.digest), Digest(reservation.digest))


def _given(session: Session, round_id: int, site: str) -> tuple[ClearanceRow | None, ReservationRow | None]:
    """What a site gave for a round so far."""
    return (
        session.scalar(select(ClearanceRow).where(ClearanceRow.round_id == round_id, ClearanceRow.site == site)),
        session.scalar(select(ReservationRow).where(ReservationRow.round_id == round_id, ReservationRow.site == site)),
    )


def place_rows(unit: Unit, row: RoundRow, plan: CampaignPlan, place: Place) -> tuple[ClearanceRow, ReservationRow]:
    """The rows behind a place in a round that is being opened: the gate.

    Raises:
        BractError: `no-clearance`, `no-reservation`, `stale-clearance`, `unknown-site`, `off-purpose`, or the site's own
            refusal.
    """
    clearance, reservation = _given(unit.session, row.id, place.site)
    if clearance is None or clearance.digest != place.clearance:
        raise BractError(NO_CLEARANCE, place.site)
    if reservation is None or reservation.digest != place.reservation:
        raise BractError(NO_RESERVATION, place.site)
    _place(unit.session, row.id, plan, place.site, unit.at)
    return clearance, reservation
