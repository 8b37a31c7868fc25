"""What the hub's tables know of its files: which arrays are whose, when their triggers came, what still needs them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from bract.model import NodeKind
from bract.retention import Blocker, ObjectKind, Obstacle, Trigger
from bract_server.registry.models import (
    LOG,
    CampaignRow,
    ContributionRow,
    ImpactRow,
    NodeRow,
    PublicationRow,
    ReceiptRow,
    ReleaseRow,
    RoundPlanRow,
    RoundRow,
    ServerStateRow,
    VersionRow,
)

_OVER = ("completed", "stopped", "failed")


@dataclass
class ArraysFacts:
    """What is known of one array's file.

    Attributes:
        kind: checkpoint, server state or update.
        scopes: the campaigns that it belongs to.
        made_at: when it was registered first.
        used_at: when a round last started from it, or when it was made.
    """

    kind: ObjectKind
    made_at: datetime
    used_at: datetime
    scopes: set[str] = field(default_factory=set)

    def more(self, scope: str, made_at: datetime, used_at: datetime) -> None:
        """The same file under one more name."""
        self.scopes.add(scope)
        self.made_at, self.used_at = min(self.made_at, made_at), max(self.used_at, used_at)


def arrays(session: Session) -> dict[str, ArraysFacts]:
    """Every array that the registry names, by digest. A checkpoint stays one, whatever else has the same bytes."""
    found: dict[str, ArraysFacts] = {}
    for kind, rows in ((ObjectKind.CHECKPOINT, _versions(session)), (ObjectKind.SERVER_STATE, _states(session))):
        for digest, campaign, made_at, used_at in rows:
            found.setdefault(digest, ArraysFacts(kind, made_at, made_at)).more(campaign, made_at, used_at or made_at)
    updates = (
        select(ContributionRow.update_digest, RoundRow.campaign, ContributionRow.received_at)
        .join(RoundRow, RoundRow.id == ContributionRow.round_id)
        .where(ContributionRow.update_digest.is_not(None))
    )
    for update, campaign, received_at in session.execute(updates):
        facts = found.setdefault(str(update), ArraysFacts(ObjectKind.UPDATE, received_at, received_at))
        facts.more(campaign, received_at, received_at)
    return found


def _versions(session: Session) -> Iterable[tuple[str, str, datetime, datetime | None]]:
    opened = select(RoundPlanRow.parent, func.max(RoundPlanRow.opened_at).label("at")).group_by(RoundPlanRow.parent)
    last = opened.subquery()
    rows = session.execute(
        select(VersionRow.arrays, VersionRow.campaign, VersionRow.created_at, last.c.at).outerjoin(
            last, last.c.parent == VersionRow.digest
        )
    )
    return [(arrays, campaign, made_at, at) for arrays, campaign, made_at, at in rows]


def _states(session: Session) -> Iterable[tuple[str, str, datetime, datetime | None]]:
    rows = session.execute(
        select(ServerStateRow.digest, VersionRow.campaign, VersionRow.created_at).join(
            VersionRow, VersionRow.digest == ServerStateRow.version
        )
    )
    return [(digest, campaign, made_at, None) for digest, campaign, made_at in rows]


def needed(session: Session) -> dict[str, tuple[Blocker, ...]]:
    """By array, what needs it now: a running round, a campaign that goes on, a receipt that is not given yet."""
    found: dict[str, tuple[Blocker, ...]] = {}

    def add(digest: str, blocker: Blocker) -> None:
        found[digest] = (*found.get(digest, ()), blocker)

    running = select(RoundRow.id, RoundRow.campaign, RoundRow.number).where(RoundRow.state == "running").subquery()
    parents = select(RoundPlanRow.arrays, running.c.campaign, running.c.number).join(
        running, running.c.id == RoundPlanRow.round_id
    )
    sent = (
        select(ContributionRow.update_digest, running.c.campaign, running.c.number)
        .join(running, running.c.id == ContributionRow.round_id)
        .where(ContributionRow.accepted)
    )
    for digest, campaign, number in [*session.execute(parents), *session.execute(sent)]:
        add(str(digest), Blocker(Obstacle.ROUND, f"{campaign}/{number}"))
    newest = select(VersionRow.campaign, func.max(VersionRow.number).label("number")).group_by(VersionRow.campaign)
    last = newest.subquery()
    going = (
        select(VersionRow.arrays, ServerStateRow.digest, CampaignRow.name)
        .join(last, (last.c.campaign == VersionRow.campaign) & (last.c.number == VersionRow.number))
        .join(CampaignRow, CampaignRow.digest == VersionRow.campaign)
        .outerjoin(ServerStateRow, ServerStateRow.version == VersionRow.digest)
        .where(CampaignRow.state.in_(["created", "running"]))
    )
    for digest, state, name in session.execute(going):
        add(digest, Blocker(Obstacle.RUNNING, name))
        if state is not None:
            add(state, Blocker(Obstacle.RUNNING, name))
    waiting = (
        select(ContributionRow.update_digest, ContributionRow.digest)
        .join(RoundRow, RoundRow.id == ContributionRow.round_id)
        .outerjoin(ReceiptRow, ReceiptRow.contribution_id == ContributionRow.id)
        .where(ContributionRow.accepted, RoundRow.state == "committed", ReceiptRow.id.is_(None))
    )
    for digest, contribution in session.execute(waiting):
        add(str(digest), Blocker(Obstacle.RECEIPT, str(contribution)))
    return found


def campaigns_going(session: Session) -> tuple[Blocker, ...]:
    """Campaigns that Flower's state is needed for."""
    names = select(CampaignRow.name).where(CampaignRow.state == "running").order_by(CampaignRow.name)
    return tuple(Blocker(Obstacle.RUNNING, name) for name in session.scalars(names))


def campaign_ends(session: Session) -> dict[str, datetime]:
    """By campaign, when it ended; one that was taken up again has not."""
    entry = LOG.entry
    rows = session.execute(
        select(CampaignRow.digest, func.max(entry.c.at))
        .join(entry, (entry.c.about == CampaignRow.digest) & (entry.c.kind == "campaign.move"))
        .where(CampaignRow.state.in_(_OVER))
        .group_by(CampaignRow.digest)
    )
    return {row[0]: row[1] for row in rows}


def events(session: Session) -> dict[str, dict[Trigger, datetime]]:
    """By array of a version: when it was released first, and when somebody withdrew who is in it."""
    found: dict[str, dict[Trigger, datetime]] = {}
    node = (NodeRow.kind == NodeKind.VERSION.value) & (NodeRow.ref == VersionRow.digest)
    released = (
        select(VersionRow.arrays, func.min(PublicationRow.published_at))
        .join(NodeRow, node)
        .join(ReleaseRow, ReleaseRow.target_id == NodeRow.id)
        .join(PublicationRow, PublicationRow.release == ReleaseRow.digest)
        .group_by(VersionRow.arrays)
    )
    withdrawn = (
        select(VersionRow.arrays, func.min(ImpactRow.recorded_at))
        .join(NodeRow, node)
        .join(ImpactRow, ImpactRow.node_id == NodeRow.id)
        .group_by(VersionRow.arrays)
    )
    for trigger, rows in ((Trigger.RELEASE, released), (Trigger.WITHDRAWAL, withdrawn)):
        for arrays_digest, came_at in session.execute(rows):
            found.setdefault(arrays_digest, {})[trigger] = came_at
    return found
