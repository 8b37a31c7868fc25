"""Contributions to rounds: accepted within their round and account, or refused and kept as evidence."""

from datetime import datetime

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import (
    OVERSPEND,
    REPLAY,
    STALE_CLEARANCE,
    STATE,
    UNTRUSTED,
    BractError,
)
from bract.privacy.spec import Mechanism
from bract.signing import Envelope, parse_envelope, unseal
from bract.update import Contribution
from bract.value import decode
from bract_server.lifecycle import TaskMove
from bract_server.patience import Patience
from bract_server.registry import ledger
from bract_server.registry.answers import within
from bract_server.registry.models import (
    ClearanceRow,
    ContributionRow,
    ParticipantRow,
    ReservationRow,
    RevocationRow,
    RoundPlanRow,
    RoundRow,
)
from bract_server.registry.places import round_row
from bract_server.registry.quarantine import check_free, is_apart, judge
from bract_server.registry.sites import site_key
from bract_server.registry.tasks import move
from bract_server.registry.unit import Store
from bract_server.registry.views import Accepted


class Contributions(Store):
    """The part of the registry that takes what sites send in a round."""

    def accept(self, envelope: Envelope, site: str, at: datetime) -> None:
        """Keep a contribution as part of its round. What the arrays hold was verified before.

        Raises:
            BractError: `unknown-site`, `untrusted` (signature, site, plan, clearance or reservation is not the
                round's), `wrong-state` (the round is not running), `stale-clearance` (revoked by a withdrawal since),
                `overspend` (more than reserved), `no-reservation` (expired or given back), `replay` (the site is in the
                round already), `quarantined`.
        """
        with self.writing(at) as unit:
            value = unseal(Contribution, envelope, site_key(unit.session, site))
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
