"""What came of rounds: encoder versions, reports, receipts, and what is still needed of them."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import MALFORMED, BractError
from bract.receipt import EncoderVersion
from bract.value import decode
from bract_server.lifecycle import TaskState
from bract_server.registry.campaigns import campaign_row, plan_of
from bract_server.registry.inspections import inspection
from bract_server.registry.models import (
    CampaignRow,
    ClearanceRow,
    ContributionRow,
    OutcomeRow,
    ParticipantRow,
    ReceiptRow,
    RoundRow,
    ServerStateRow,
    VersionRow,
)
from bract_server.registry.rounds import OPEN
from bract_server.registry.tasks import task_state
from bract_server.registry.unit import Store
from bract_server.registry.views import RoundReport, Version

_Included = list[tuple[ContributionRow, ClearanceRow]]


class Versions(Store):
    """The part of the registry that knows what came of rounds."""

    def latest_version(self, campaign: Digest) -> Version:
        """The campaign's newest version.

        Raises:
            BractError: `unknown-campaign`.
        """
        with self.seeing() as session:
            campaign_row(session, campaign)
            newest = select(VersionRow).where(VersionRow.campaign == campaign).order_by(VersionRow.number.desc())
            return _view(session, session.scalars(newest.limit(1)).one())

    def version(self, digest: Digest) -> Version:
        """The version of that name.

        Raises:
            BractError: `malformed` when there is none.
        """
        with self.seeing() as session:
            row = session.get(VersionRow, digest)
            if row is None:
                raise BractError(MALFORMED, "no encoder version of that digest")
            return _view(session, row)

    def versions(self) -> tuple[Version, ...]:
        """Every version, oldest first."""
        with self.seeing() as session:
            rows = session.scalars(select(VersionRow).order_by(VersionRow.created_at, VersionRow.number))
            return tuple(_view(session, row) for row in rows)

    def rounds(self, campaign: Digest) -> tuple[RoundReport, ...]:
        """Every round of a campaign, by number.

        Raises:
            BractError: `unknown-campaign`.
        """
        with self.seeing() as session:
            campaign_row(session, campaign)
            rows = session.scalars(select(RoundRow).where(RoundRow.campaign == campaign).order_by(RoundRow.number))
            return tuple(_report(session, row) for row in rows)

    def receipts(self, site: str, after: int) -> list[tuple[int, bytes]]:
        """The site's receipts numbered above `after`: pairs of number and envelope's JSON, oldest first."""
        wanted = (
            select(ReceiptRow.id, ReceiptRow.envelope)
            .where(ReceiptRow.site == site, ReceiptRow.id > after)
            .order_by(ReceiptRow.id)
        )
        with self.seeing() as session:
            return [(number, envelope) for number, envelope in session.execute(wanted)]

    def wanted(self, campaign: Digest, number: int) -> bool:
        """Whether a round runs, and its campaign with it."""
        found = (
            select(RoundRow.id)
            .join(CampaignRow, CampaignRow.digest == RoundRow.campaign)
            .where(
                RoundRow.campaign == campaign,
                RoundRow.number == number,
                RoundRow.state == "running",
                CampaignRow.state == "running",
            )
        )
        with self.seeing() as session:
            return session.scalar(found) is not None

    def keeps(self, array: Digest) -> bool:
        """Whether a file is still needed: a version's arrays, a newest optimizer state, a running round's update."""
        update = exists().where(
            ContributionRow.update_digest == array, ContributionRow.round_id == RoundRow.id, RoundRow.state == "running"
        )
        newer = VersionRow.__table__.alias()
        state = exists().where(
            ServerStateRow.digest == array,
            ServerStateRow.version == VersionRow.digest,
            ~exists().where(newer.c.campaign == VersionRow.campaign, newer.c.number > VersionRow.number),
        )
        with self.seeing() as session:
            wanted = select(exists().where(VersionRow.arrays == array) | update | state)
            return bool(session.scalar(wanted))

    def oldest_open(self) -> datetime | None:
        """When the oldest round that is not closed was proposed, of whatever campaign."""
        with self.seeing() as session:
            return session.scalar(select(func.min(RoundRow.proposed_at)).where(RoundRow.state.in_(OPEN)))


def _view(session: Session, row: VersionRow) -> Version:
    state = session.get(ServerStateRow, row.digest)
    value = decode(EncoderVersion, row.body)
    return Version(Digest(row.digest), value, Digest(state.digest) if state else None, row.created_at)


def _report(session: Session, row: RoundRow) -> RoundReport:
    outcome = session.get(OutcomeRow, row.id)
    inside: Iterable[str]
    if outcome is None:
        inside = session.scalars(select(ParticipantRow.site).where(ParticipantRow.round_id == row.id))
    else:
        inside = session.scalars(select(ReceiptRow.site).where(ReceiptRow.version == outcome.version))
    return RoundReport(
        number=row.number,
        state=row.state,
        version=Digest(outcome.version) if outcome and outcome.version else None,
        participants=tuple(sorted(inside)),
        missing=dict(outcome.missing) if outcome else {},
        opened_at=row.proposed_at,
        closed_at=outcome.closed_at if outcome else None,
        seconds=(outcome.closed_at - row.proposed_at).total_seconds() if outcome else None,
        bytes_moved=outcome.bytes_moved if outcome else 0,
        inspection=inspection(session, row.id),
        tasks={} if outcome else _tasks(session, row),
    )


def _tasks(session: Session, row: RoundRow) -> dict[str, TaskState]:
    """How far each site of the plan is in an open round."""
    names = sorted(site.name for site in plan_of(campaign_row(session, row.campaign)).sites)
    return {name: task_state(session, row, name) for name in names}
