"""The one door out of a site: an update leaves only finite, of the right form, accounted for, and signed.

Nothing else leaves in a round: no loss, no count, no gradient norm, no error text.
"""

from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bract.arrays import Layout, read_arrays
from bract.digest import digest_file
from bract.errors import STALE_CLEARANCE, BractError
from bract.privacy.spec import Mechanism
from bract.signing import Envelope, sign
from bract.update import Contribution
from bract_client.registry.store import SiteRegistry
from bract_client.site import Task


def check(update: Path, layout: Layout) -> None:
    """That the update's file may leave as it is.

    Raises:
        BractError: `bad-arrays`, `not-finite`.
    """
    for _ in read_arrays(update, layout):
        pass


def seal(
    registry: SiteRegistry,
    task: Task,
    update: Path,
    spent: Mechanism,
    private: bool,
    key: Ed25519PrivateKey,
    admitted_at: datetime,
    at: datetime,
) -> Envelope:
    """Settle the cost of an update that was checked or covered, sign and keep the contribution.

    Whoever withdrew while the round was trained is in this update: it does not leave, and what it cost stays spent.

    Raises:
        BractError: `stale-clearance` when somebody left since `admitted_at`; `overspend` when it cost more than reserved.
    """
    if registry.left(task.place.clearance, task.plan.campaign, task.plan.number, admitted_at, at):
        raise BractError(STALE_CLEARANCE, "somebody left while the round was trained")
    contribution = Contribution(
        site=task.place.site,
        plan=task.sealed.name,
        clearance=task.place.clearance,
        reservation=task.place.reservation,
        spent=spent,
        update=digest_file(update),
        update_bytes=update.stat().st_size,
        private=private,
    )
    envelope = sign(contribution, key)
    registry.keep_contribution(task.plan.campaign, task.plan.number, envelope, at)
    return envelope
