"""Rounds: proposed, opened over clearances and reservations, filled with contributions."""

from datetime import datetime

from sqlalchemy import Select, exists, func, select
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import (
    MALFORMED,
    NO_CLEARANCE,
    OVERSPEND,
    QUORUM,
    REPLAY,
    STALE_CLEARANCE,
    STATE,
    TOO_LARGE,
    UNTRUSTED,
    BractError,
)
from bract.plan import Proposal, RoundPlan
from bract.privacy.spec import Mechanism
from bract.receipt import EncoderVersion
from bract.signing import Envelope, parse_envelope, unseal, verify_key
from bract.update import Contribution
from bract.value import decode
from bract_server.arrays import HEADER_ROOM
from bract_server.lifecycle import ROUND, RoundMove, RoundState, TaskMove
from bract_server.patience import Patience
from bract_server.registry import ledger
from bract_server.registry.answers import place_rows, round_row, within
from bract_server.registry.campaigns import campaign_row, plan_of
from bract_server.registry.models import (
    CampaignRow,
    ClearanceRow,
    ContributionRow,
    ParticipantRow,
    ReservationRow,
    RevocationRow,
    RoundPlanRow,
    RoundRow,
    VersionRow,
)
from bract_server.registry.quarantine import check_free, is_apart, judge
from bract_server.registry.sites import live_site
from bract_server.registry.tasks import move
from bract_server.registry.unit import Store
from bract_server.registry.views import Accepted

OPEN = (RoundState.PLANNED, RoundState.RUNNING)


class Rounds(Store):
    """The part of the registry that takes a round from its proposal to its last contribution."""

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
            BractError: `no-clearance`, `no-reservation`, `stale-clearance` or `unknown-site`, naming the site, or the
                code of that site's refusal; `malformed` when the plan does not fit the campaign and its newest version;
                `no-quorum`; `wrong-state`; `unknown-campaign`.
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
            places = [(place.site, *place_rows(unit, row, place)) for place in plan.cohort]
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

    def accept(self, envelope: Envelope, site: str, at: datetime) -> None:
        """Keep a contribution as part of its round. What the arrays hold was verified before.

        Raises:
            BractError: `unknown-site`, `untrusted` (signature, site, plan, clearance or reservation is not the
                round's), `wrong-state` (the round is not running), `stale-clearance` (revoked by a withdrawal since),
                `overspend` (more than reserved), `no-reservation` (expired or given back), `replay` (the site is in the
                round already), `quarantined`.
        """
        with self.writing(at) as unit:
            value = unseal(Contribution, envelope, verify_key(live_site(unit.session, site).verify_key))
            check_free(unit.session, site)
            row, reservation = _check_account(unit.session, value, site)
            already = select(ContributionRow.id).where(
                ContributionRow.round_id == row.id, ContributionRow.site == site, ContributionRow.accepted
            )
            if unit.session.scalar(already) is not None:
                raise BractError(REPLAY, site)
            move(unit.session, row, site, TaskMove.ACCEPT)
            ledger.commit(unit, reservation, envelope.name, value.spent)
            unit.session.add(
                ContributionRow(
                    round_id=row.id,
                    site=site,
                    accepted=True,
                    digest=envelope.name,
                    update_digest=value.update,
                    envelope=envelope.to_json(),
                    received_at=at,
                )
            )
            unit.log("contribution.accept", envelope.name, site, plan=value.plan, update=value.update)

    def reject(
        self,
        site: str,
        campaign: Digest,
        number: int,
        code: str,
        contribution: Digest | None,
        at: datetime,
        patience: Patience = Patience(),  # noqa: B008 - a frozen value
    ) -> None:
        """Keep that a contribution was refused and why; its digest too, if it could be read. It may end the patience.

        Raises:
            BractError: `unknown-campaign`; `wrong-state` when the site has no place in that round.
        """
        with self.writing(at) as unit:
            row = round_row(unit.session, campaign, number)
            if unit.session.get(ParticipantRow, (row.id, site)) is None:
                raise BractError(STATE, f"{site} has no place in round {number}")
            move(unit.session, row, site, TaskMove.REJECT)
            unit.session.add(
                ContributionRow(
                    round_id=row.id, site=site, accepted=False, code=code, digest=contribution, received_at=at
                )
            )
            about = contribution or campaign
            unit.log("contribution.reject", about, site, campaign=campaign, number=number, code=code)
            judge(unit, site, patience)

    def updates(self, campaign: Digest, number: int) -> tuple[Digest, ...]:
        """The updates of everything that was sent in a round, whatever became of it: what is to be deleted after it."""
        with self.seeing() as session:
            row = round_row(session, campaign, number)
            wanted = select(ContributionRow.update_digest).where(
                ContributionRow.round_id == row.id, ContributionRow.update_digest.is_not(None)
            )
            return tuple(Digest(update) for update in session.scalars(wanted.distinct()) if update)

    def contributions(self, campaign: Digest, number: int) -> tuple[Accepted, ...]:
        """The accepted contributions of a round by site, without revoked ones and those of sites that are set apart."""
        with self.seeing() as session:
            row = round_row(session, campaign, number)
            return tuple(_accepted(one) for one, _ in included(session, row.id))

    def is_revoked(self, clearance: Digest) -> bool:
        """Whether a withdrawal has ended a clearance."""
        revoked = select(RevocationRow.clearance_id).join(ClearanceRow).where(ClearanceRow.digest == clearance)
        with self.seeing() as session:
            return session.scalar(revoked) is not None

    def rejections(self, campaign: Digest, number: int) -> dict[str, str]:
        """The sites whose contributions to a round were refused, and the code of the last refusal."""
        with self.seeing() as session:
            row = round_row(session, campaign, number)
            refused = select(ContributionRow.site, ContributionRow.code).where(
                ContributionRow.round_id == row.id, ~ContributionRow.accepted
            )
            return {site: str(code) for site, code in session.execute(refused.order_by(ContributionRow.id))}

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


def included(session: Session, round_id: int) -> list[tuple[ContributionRow, ClearanceRow]]:
    """A round's accepted contributions by site with their clearances.

    Without those whose clearance a withdrawal has revoked, and those of sites that were set apart since.
    """
    revoked = exists().where(RevocationRow.clearance_id == ClearanceRow.id)
    wanted = (
        select(ContributionRow, ClearanceRow)
        .join(
            ParticipantRow,
            (ParticipantRow.round_id == ContributionRow.round_id) & (ParticipantRow.site == ContributionRow.site),
        )
        .join(ClearanceRow, ClearanceRow.id == ParticipantRow.clearance_id)
        .where(
            ContributionRow.round_id == round_id, ContributionRow.accepted, ~revoked, ~is_apart(ContributionRow.site)
        )
        .order_by(ContributionRow.site)
    )
    return list(session.execute(wanted))


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


def _check_account(session: Session, value: Contribution, site: str) -> tuple[RoundRow, ReservationRow]:
    """A contribution cites its place in a running round, holds to its reservation, and no withdrawal is in its way."""
    found = session.execute(
        select(RoundRow, ClearanceRow, ReservationRow)
        .join(RoundPlanRow, RoundPlanRow.round_id == RoundRow.id)
        .join(ParticipantRow, (ParticipantRow.round_id == RoundRow.id) & (ParticipantRow.site == site))
        .join(ClearanceRow, ClearanceRow.id == ParticipantRow.clearance_id)
        .join(ReservationRow, ReservationRow.id == ParticipantRow.reservation_id)
        .where(RoundPlanRow.digest == value.plan)
    ).first()
    if found is None or value.site != site:
        raise BractError(UNTRUSTED, "the site has no place under that plan")
    row, clearance, reservation = found
    if row.state != "running":
        raise BractError(STATE, f"round {row.number} is {row.state}")
    if (value.clearance, value.reservation) != (clearance.digest, reservation.digest):
        raise BractError(UNTRUSTED, "not the clearance and reservation of the round")
    if session.get(RevocationRow, clearance.id) is not None:
        raise BractError(STALE_CLEARANCE, site)
    reserved = Mechanism(reservation.noise_multiplier, reservation.sampling_rate, reservation.steps)
    if not within(value.spent, reserved):
        raise BractError(OVERSPEND, site)
    return row, reservation


def _accepted(row: ContributionRow) -> Accepted:
    value = contribution_of(row)
    return Accepted(row.site, Digest(row.digest or ""), value.update, value.update_bytes)


def contribution_of(row: ContributionRow) -> Contribution:
    """What an accepted contribution's envelope holds; its signature was verified when it came."""
    return decode(Contribution, parse_envelope(row.envelope or b"").payload)
