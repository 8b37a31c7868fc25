"""Releases and the words on them as frozen values."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import MALFORMED, BractError
from bract.model import Overriding
from bract.release import Approval, PersonRole, ReleaseProposal, Withdrawn
from bract.signing import parse_envelope
from bract.value import decode
from bract_server.registry.lineage import above
from bract_server.registry.models import ApprovalRow, NodeRow, PersonRow, PublicationRow, ReleaseRow, TakenBackRow
from bract_server.registry.persons import overriding, roles_of


@dataclass(frozen=True)
class ApprovalView:
    """A person's word on a release."""

    release: Digest
    release_name: str
    by: str
    roles: tuple[PersonRole, ...]
    author: str
    decision: str
    reason: str
    received_at: datetime
    digest: Digest
    envelope: bytes


@dataclass(frozen=True)
class ReleaseView:
    """A release as it stands: proposed, rejected, published or withdrawn.

    Attributes:
        report: the gate's report with which it was published.
        overrides: every override that bears on it, its own and those of what it descends from.
    """

    digest: Digest
    name: str
    state: str
    proposal: ReleaseProposal
    author: str
    proposed_at: datetime
    approvals: tuple[ApprovalView, ...]
    overrides: tuple[Overriding, ...]
    published_at: datetime | None = None
    report: dict[str, Any] | None = None
    envelope: bytes | None = None
    withdrawn_at: datetime | None = None
    withdrawn_reason: str = ""


def release_row(session: Session, release: str) -> ReleaseRow:
    """The row of a release, by its name or digest.

    Raises:
        BractError: `malformed` when there is none.
    """
    row = session.scalar(select(ReleaseRow).where((ReleaseRow.digest == release) | (ReleaseRow.name == release)))
    if row is None:
        raise BractError(MALFORMED, "no such release")
    return row


def state_of(session: Session, row: ReleaseRow) -> str:
    """How a release stands: proposed, rejected, published or withdrawn."""
    if session.get(TakenBackRow, row.digest) is not None:
        return "withdrawn"
    if session.get(PublicationRow, row.digest) is not None:
        return "published"
    against = select(ApprovalRow.person).where(ApprovalRow.release == row.digest, ApprovalRow.decision == "reject")
    return "proposed" if session.scalar(against.limit(1)) is None else "rejected"


def approval_views(session: Session) -> tuple[ApprovalView, ...]:
    """Every approval and rejection, oldest first."""
    wanted = (
        select(ApprovalRow, ReleaseRow)
        .join(ReleaseRow, ReleaseRow.digest == ApprovalRow.release)
        .order_by(ApprovalRow.received_at, ApprovalRow.digest)
    )
    names = {person.fingerprint: person.name for person in session.scalars(select(PersonRow))}
    return tuple(
        ApprovalView(
            release=Digest(row.release),
            release_name=release.name,
            by=names[row.person],
            roles=roles_of(session, row.person),
            author=names[row.author],
            decision=row.decision,
            reason=decode(Approval, parse_envelope(row.envelope).payload).reason,
            received_at=row.received_at,
            digest=Digest(row.digest),
            envelope=row.envelope,
        )
        for row, release in session.execute(wanted)
    )


def view(session: Session, row: ReleaseRow, words: tuple[ApprovalView, ...]) -> ReleaseView:
    """A release with the words on it, from all words."""
    published, back = session.get(PublicationRow, row.digest), session.get(TakenBackRow, row.digest)
    reached = above([row.node_id])
    bearing = set(session.scalars(select(NodeRow.ref).join(reached, reached.c.id == NodeRow.id)))
    return ReleaseView(
        digest=Digest(row.digest),
        name=row.name,
        state=state_of(session, row),
        proposal=decode(ReleaseProposal, parse_envelope(row.envelope).payload),
        author=session.get_one(PersonRow, row.author).name,
        proposed_at=row.proposed_at,
        approvals=tuple(word for word in words if word.release == row.digest),
        overrides=overriding(session, bearing),
        published_at=published.published_at if published else None,
        report=json.loads(published.report) if published else None,
        envelope=published.envelope if published else None,
        withdrawn_at=back.withdrawn_at if back else None,
        withdrawn_reason=decode(Withdrawn, parse_envelope(back.envelope).payload).reason if back else "",
    )
