"""Runs: every life of a campaign's process, its number (the epoch), and what ended the one before.

Rules:
    1. A run is on record before anything is started for it.
    2. Epochs of a campaign go up by one and are never used again; only the newest may write (`lease`).
    3. A process tells once which Flower run it is; another one cannot take the same epoch.
    4. A run that failed without closing a round counts as a try; a closed round, or somebody's word, starts anew.
"""

from datetime import datetime
from typing import Self

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import STATE, SUPERSEDED, BractError
from bract_server.lifecycle import CampaignState
from bract_server.registry.campaigns import campaign_row, named_campaign
from bract_server.registry.lease import Lease, check_lease, newest_epoch
from bract_server.registry.models import OutcomeRow, RoundRow, RunRow
from bract_server.registry.unit import Store
from bract_server.registry.views import Run


class Runs(Store):
    """The part of the registry that knows which process may speak for a campaign."""

    def open_run(self, name: str, after: str | None, *, failed: bool, at: datetime) -> Run:
        """Open the campaign's next run; from now on no former one may write.

        Args:
            name: the campaign.
            after: the code of why the former run ended, None for the first.
            failed: whether the former run failed by itself, so that this is one more try.
            at: now.

        Raises:
            BractError: `unknown-campaign`; `wrong-state` when it is not running.
        """
        with self.writing(at) as unit:
            row = named_campaign(unit.session, name)
            if row.state != CampaignState.RUNNING:
                raise BractError(STATE, f"campaign {name} is {row.state}")
            before = _newest(unit.session, row.digest)
            again = before is not None and failed and not before.progressed
            run = RunRow(
                campaign=row.digest,
                epoch=newest_epoch(unit.session, row.digest) + 1,
                tries=before.tries + 1 if before is not None and again else 1,
                after=after,
                opened_at=at,
            )
            unit.session.add(run)
            parent = _parent(unit.session, row.digest)
            unit.log("run.open", row.digest, epoch=run.epoch, tries=run.tries, after=after, parent=parent)
            return _view(unit.session, run)

    def take_run(self, name: str, epoch: int, flower_run: str, at: datetime) -> Lease:
        """Tell that this Flower run is that run of the campaign; the same again is fine.

        Raises:
            BractError: `unknown-campaign`; `superseded` unless it is the newest run and nobody else's.
        """
        with self.writing(at) as unit:
            lease = Lease(Digest(named_campaign(unit.session, name).digest), epoch)
            check_lease(unit.session, lease)
            row = unit.session.get(RunRow, (lease.campaign, epoch))
            if row is None or row.flower_run not in (None, flower_run):
                raise BractError(SUPERSEDED, f"run {epoch} is another process")
            if row.flower_run is None:
                parent = _parent(unit.session, lease.campaign)
                row.flower_run = flower_run
                unit.log("run.take", lease.campaign, epoch=epoch, flower_run=flower_run, parent=parent)
            return lease

    def fenced(self, lease: Lease) -> Self:
        """This registry for one run: every write is refused with `superseded` once another run was opened."""
        return type(self)(self._engine, self._key, self._origin, lease)

    def newest_run(self, campaign: Digest) -> Run | None:
        """The campaign's newest run, None before the first."""
        with self.seeing() as session:
            return _newest(session, campaign)

    def runs(self, campaign: Digest) -> tuple[Run, ...]:
        """Every run of a campaign, oldest first.

        Raises:
            BractError: `unknown-campaign`.
        """
        with self.seeing() as session:
            campaign_row(session, campaign)
            rows = session.scalars(select(RunRow).where(RunRow.campaign == campaign).order_by(RunRow.epoch))
            return tuple(_view(session, row) for row in rows)


def _newest(session: Session, campaign: str) -> Run | None:
    newest = select(RunRow).where(RunRow.campaign == campaign).order_by(RunRow.epoch.desc()).limit(1)
    row = session.scalar(newest)
    return None if row is None else _view(session, row)


def _parent(session: Session, campaign: str) -> str | None:
    """The newest Flower run that is known of the campaign."""
    known = select(RunRow.flower_run).where(RunRow.campaign == campaign, RunRow.flower_run.is_not(None))
    return session.scalar(known.order_by(RunRow.epoch.desc()).limit(1))


def _view(session: Session, row: RunRow) -> Run:
    closed = exists().where(
        OutcomeRow.round_id == RoundRow.id, RoundRow.campaign == row.campaign, OutcomeRow.closed_at > row.opened_at
    )
    progressed = bool(session.scalar(select(closed)))
    return Run(Digest(row.campaign), row.epoch, row.tries, row.after, row.flower_run, row.opened_at, progressed)
