"""Rounds: proposed, opened over clearances and reservations, and what their sites may read and send."""

from datetime import datetime

from sqlalchemy import Select, exists, func, select
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import (
    MALFORMED,
    NO_CLEARANCE,
    QUORUM,
    STATE,
    TOO_LARGE,
    BractError,
)
from bract.plan import Proposal, RoundPlan
from bract.receipt import EncoderVersion
from bract.signing import Envelope, parse_envelope
from bract.value import decode
from bract_server.arrays import HEADER_ROOM
from bract_server.lifecycle import ROUND, RoundMove, RoundState
from bract_server.registry.campaigns import campaign_row, plan_of
from bract_server.registry.models import (
    CampaignRow,
    ContributionRow,
    ParticipantRow,
    RoundPlanRow,
    RoundRow,
    VersionRow,
)
from bract_server.registry.places import place_rows, round_row
from bract_server.registry.unit import Store

OPEN = (RoundState.PLANNED, RoundState.RUNNING)


class Rounds(Store):
    """The part of the registry that proposes rounds and opens them."""

    def propose(self, campaign: Digest, at: datetime) -> Proposal:
        """Propose the next round to the plan's sites. Numbers are never used again.

        Raises:
            BractError: `unknown-campaign`; `wrong-state` when the campaign is not running or another round is open.
        """
        with self.writing(at) as unit:
            _running_campaign(unit.session, campaign)
            rounds = select(RoundRow.number).where(RoundRow.campaign == campaign)
            if (number := unit.session.scalar(rounds.where(RoundRow.state.in_(OPEN)))) is not None:
                raise BractError(STATE, f"round {number} is still open")
            highest = unit.session.scalar(select(func.max(RoundRow.number)).where(RoundRow.campaign == campaign))
            proposal = Proposal(campaign, (highest or 0) + 1, at)
            envelope = unit.sign(proposal)
            unit.session.add(
                RoundRow(
                    campaign=campaign,
                    number=proposal.number,
                    proposal=envelope.to_json(),
                    proposed_at=at,
                    state=RoundState.PLANNED,
                )
            )
            unit.log("round.propose", envelope.name, campaign=campaign, number=proposal.number)
        return proposal

    def open_round(self, plan: RoundPlan, at: datetime) -> Envelope:
        """Sign the plan and open its round, if every place in it stands on a live clearance and a reservation.

        Raises:
            BractError: `no-clearance`, `no-reservation`, `stale-clearance`, `off-purpose` or `unknown-site`, naming the
                site, or the code of that site's refusal; `malformed` when the plan does not fit the campaign and its newest
                version; `no-quorum`; `wrong-state`; `unknown-campaign`.
        """
        with self.writing(at) as unit:
            row = round_row(unit.session, plan.campaign, plan.number)
            campaign = plan_of(_running_campaign(unit.session, plan.campaign))
            state = ROUND.after(RoundState(row.state), RoundMove.OPEN, plan.number)
            if plan.deadline <= at:
                raise BractError(STATE, f"the deadline of round {plan.number} is over")
            sites = [place.site for place in plan.cohort]
            if len(set(sites)) != len(sites) or not set(sites) <= {site.name for site in campaign.sites}:
                raise BractError(MALFORMED, "cohort: a site twice, or one that the campaign does not name")
            if len(sites) < campaign.quorum:
                raise BractError(QUORUM, f"{len(sites)} of {campaign.quorum} sites")
            _check_parent(unit.session, plan)
            places = [(place.site, *place_rows(unit, row, campaign, place)) for place in plan.cohort]
            envelope = unit.sign(plan)
            unit.session.add(
                RoundPlanRow(
                    round_id=row.id,
                    digest=envelope.name,
                    parent=plan.parent,
                    arrays=plan.arrays,
                    arrays_bytes=plan.arrays_bytes,
                    envelope=envelope.to_json(),
                    opened_at=at,
                )
            )
            unit.session.flush()
            for site, clearance, reservation in places:
                unit.session.add(
                    ParticipantRow(round_id=row.id, site=site, clearance_id=clearance.id, reservation_id=reservation.id)
                )
            row.state = state
            unit.log("round.open", envelope.name, campaign=plan.campaign, number=plan.number, sites=sites)
        return envelope

    def round_plan(self, campaign: Digest, number: int) -> Envelope | None:
        """The signed plan of a round, None while it is only proposed."""
        with self.seeing() as session:
            row = session.get(RoundPlanRow, round_row(session, campaign, number).id)
            return None if row is None else parse_envelope(row.envelope)

    def may_get(self, site: str, digest: Digest, at: datetime) -> None:
        """The site may read this array now: it is what a running round in which the site has a place starts from.

        Raises:
            BractError: `no-clearance`.
        """
        del at  # a round that is over is no longer running
        with self.seeing() as session:
            wanted = _places(site).where(RoundPlanRow.arrays == digest)
            if session.scalar(wanted.with_only_columns(func.count())) == 0:
                raise BractError(NO_CLEARANCE, "no running round of the site starts from this array")

    def may_put(self, site: str, digest: Digest, size: int, at: datetime) -> None:
        """The site may send an array of this size now: it has a place in a running round and has not contributed yet.

        Raises:
            BractError: `no-clearance` without such a place; `too-large` for more than the round's arrays and a header.
        """
        del digest, at
        sent = exists().where(
            ContributionRow.round_id == ParticipantRow.round_id,
            ContributionRow.site == site,
            ContributionRow.accepted,
        )
        with self.seeing() as session:
            limits = session.scalars(_places(site).where(~sent)).all()
        if not limits:
            raise BractError(NO_CLEARANCE, "no running round awaits an array of the site")
        if size > max(limits) + HEADER_ROOM:
            raise BractError(TOO_LARGE, "more bytes than the round's arrays")


def _places(site: str) -> Select[int]:
    """The sizes of the arrays of the running rounds in which a site has a place."""
    return (
        select(RoundPlanRow.arrays_bytes)
        .join(ParticipantRow, ParticipantRow.round_id == RoundPlanRow.round_id)
        .join(RoundRow, RoundRow.id == RoundPlanRow.round_id)
        .where(ParticipantRow.site == site, RoundRow.state == "running")
    )


def _running_campaign(session: Session, digest: str) -> CampaignRow:
    row = campaign_row(session, digest)
    if row.state != "running":
        raise BractError(STATE, f"campaign {row.name} is {row.state}")
    return row


def _check_parent(session: Session, plan: RoundPlan) -> None:
    """The round starts from the campaign's newest version."""
    newest = select(VersionRow).where(VersionRow.campaign == plan.campaign).order_by(VersionRow.number.desc()).limit(1)
    row = session.scalars(newest).one()
    value = decode(EncoderVersion, row.body)
    if (plan.parent, plan.arrays, plan.arrays_bytes) != (row.digest, value.arrays, value.arrays_bytes):
        raise BractError(MALFORMED, "the round does not start from the campaign's newest version")
