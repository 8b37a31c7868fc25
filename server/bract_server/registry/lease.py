"""The fence: of several processes that believe to run a campaign, only the newest may write."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import SUPERSEDED, BractError
from bract_server.registry.models import RunRow


@dataclass(frozen=True)
class Lease:
    """The right to speak for a campaign, until a run with a higher epoch is opened."""

    campaign: Digest
    epoch: int


def newest_epoch(session: Session, campaign: str) -> int:
    """The epoch of the campaign's newest run, 0 before the first."""
    return session.scalar(select(func.max(RunRow.epoch)).where(RunRow.campaign == campaign)) or 0


def check_lease(session: Session, lease: Lease) -> None:
    """The lease still counts; asked under the writers' lock, so that it holds until the transaction ends.

    Raises:
        BractError: `superseded`.
    """
    newest = newest_epoch(session, lease.campaign)
    if newest != lease.epoch:
        raise BractError(SUPERSEDED, f"run {lease.epoch} speaks, and run {newest} counts")
