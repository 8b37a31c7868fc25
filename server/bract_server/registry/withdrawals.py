"""Withdrawals: a site's notice, the clearances that it ends, and every version that descends from its snapshots."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import MALFORMED, STATE, UNTRUSTED, BractError
from bract.privacy.spec import Mechanism
from bract.signing import Envelope, parse_envelope, unseal, verify_key
from bract.update import Contribution, WithdrawalNotice
from bract.value import decode, plain
from bract_server.registry.campaigns import campaign_row, plan_of
from bract_server.registry.lineage import SNAPSHOT, VERSION, ancestors, descendants, snapshot_ref
from bract_server.registry.models import (
    ClearanceRow,
    ContributionRow,
    ImpactRow,
    NoticeRow,
    NoticeSnapshotRow,
    ReceiptRow,
    RevocationRow,
    RoundRow,
    VersionRow,
)
from bract_server.registry.sites import live_site
from bract_server.registry.unit import Store, Unit
from bract_server.registry.views import Impact, Notice
from bract_server.withdrawal import Effect, effect


class Withdrawals(Store):
    """The part of the registry that knows who withdrew from what: sites and snapshots, never subjects."""

    def withdraw(self, site: str, envelope: Envelope, at: datetime) -> None:
        """Take a signed `WithdrawalNotice`; the same again changes nothing.

        Every clearance of the site over a named snapshot ends at once. Every version that descends from one is listed,
        and so is each that will (`commit_round` sees to it).

        Raises:
            BractError: `unknown-site`, `untrusted`; `wrong-state` when another notice had this number.
        """
        with self.writing(at) as unit:
            session = unit.session
            value = unseal(WithdrawalNotice, envelope, verify_key(live_site(session, site).verify_key))
            if value.site != site:
                raise BractError(UNTRUSTED, "a site speaks for itself only")
            known = select(NoticeRow.digest).where(NoticeRow.site == site, NoticeRow.notice == value.notice)
            if (before := session.scalar(known)) is not None:
                if before != envelope.name:
                    raise BractError(STATE, "the site gave another notice of this number")
                return
            row = NoticeRow(
                site=site, notice=value.notice, digest=envelope.name, envelope=envelope.to_json(), received_at=at
            )
            session.add(row)
            session.flush()
            refs = {snapshot_ref(site, snapshot) for snapshot in value.snapshots}
            session.add_all(NoticeSnapshotRow(notice_id=row.id, ref=ref) for ref in sorted(refs))
            revoked = _revoke(unit, row, value)
            unit.log("withdrawal.take", envelope.name, site, snapshots=list(value.snapshots), revoked=revoked)
            _record(unit, row, descendants(session, SNAPSHOT, refs))

    def withdrawals(self) -> tuple[Notice, ...]:
        """Every notice, oldest first."""
        with self.seeing() as session:
            return tuple(_view(row) for row in session.scalars(select(NoticeRow).order_by(NoticeRow.id)))

    def impacts(self, notice: str) -> tuple[Impact, ...]:
        """Every version that descends from the notice's snapshots, oldest first.

        Raises:
            BractError: `malformed` when there is no such notice.
        """
        with self.seeing() as session:
            ids = session.scalars(select(NoticeRow.id).where(NoticeRow.notice == notice)).all()
            if not ids:
                raise BractError(MALFORMED, "no such withdrawal notice")
            wanted = (
                select(ImpactRow, VersionRow)
                .join(VersionRow, VersionRow.digest == ImpactRow.version)
                .where(ImpactRow.notice_id.in_(ids))
                .order_by(VersionRow.created_at, VersionRow.number)
            )
            return tuple(_impact(row, version) for row, version in session.execute(wanted))


def extend_impacts(unit: Unit, version: Digest) -> None:
    """A new version descends from what its parents descend from: list it under every notice that this touches."""
    refs = ancestors(unit.session, version, SNAPSHOT)
    touched = select(NoticeSnapshotRow.notice_id).where(NoticeSnapshotRow.ref.in_(refs))
    for row in unit.session.scalars(select(NoticeRow).where(NoticeRow.id.in_(touched)).order_by(NoticeRow.id)):
        _record(unit, row, [version])


def _revoke(unit: Unit, notice: NoticeRow, value: WithdrawalNotice) -> list[str]:
    """End the site's clearances over these snapshots whose round is not closed, expired or not."""
    live = (
        select(ClearanceRow)
        .join(RoundRow, RoundRow.id == ClearanceRow.round_id)
        .outerjoin(RevocationRow, RevocationRow.clearance_id == ClearanceRow.id)
        .where(
            ClearanceRow.site == notice.site,
            ClearanceRow.snapshot.in_(value.snapshots),
            RoundRow.state.in_(("planned", "running")),
            RevocationRow.clearance_id.is_(None),
        )
        .order_by(ClearanceRow.id)
    )
    rows = unit.session.scalars(live).all()
    unit.session.add_all(RevocationRow(clearance_id=row.id, notice_id=notice.id, revoked_at=unit.at) for row in rows)
    return [row.digest for row in rows]


def _record(unit: Unit, notice: NoticeRow, versions: Iterable[Digest]) -> None:
    for version in versions:
        parts = list(_parts(unit.session, notice.site, version))
        outcome = effect((plan_of(campaign_row(unit.session, campaign)).structure, c.private) for campaign, c in parts)
        mechanisms = [plain(c.spent) for _, c in parts] if outcome is Effect.BOUNDED else []
        unit.session.add(
            ImpactRow(
                notice_id=notice.id,
                version=version,
                effect=outcome,
                bound={"mechanisms": mechanisms},
                recorded_at=unit.at,
            )
        )
        unit.log("withdrawal.impact", version, notice=notice.digest, effect=outcome, mechanisms=mechanisms)
    unit.session.flush()


def _parts(session: Session, site: str, version: Digest) -> Iterable[tuple[str, Contribution]]:
    """All of a site's contributions in a version and its ancestors, oldest first, each with its campaign."""
    inside = (
        select(VersionRow.campaign, ContributionRow.envelope)
        .join(ReceiptRow, ReceiptRow.version == VersionRow.digest)
        .join(ContributionRow, ContributionRow.id == ReceiptRow.contribution_id)
        .where(ReceiptRow.site == site, VersionRow.digest.in_(ancestors(session, version, VERSION)))
        .order_by(ReceiptRow.id)
    )
    for campaign, envelope in session.execute(inside):
        yield campaign, decode(Contribution, parse_envelope(envelope or b"").payload)


def _view(row: NoticeRow) -> Notice:
    value = decode(WithdrawalNotice, parse_envelope(row.envelope).payload)
    return Notice(value.site, value.notice, value.snapshots, value.noticed_at, row.received_at)


def _impact(row: ImpactRow, version: VersionRow) -> Impact:
    mechanisms = tuple(decode(Mechanism, plain_mechanism) for plain_mechanism in row.bound["mechanisms"])
    campaign = Digest(version.campaign)
    return Impact(Digest(version.digest), campaign, version.number, row.effect, mechanisms, row.recorded_at)
