"""Withdrawals: a site's notice, the clearances that it ends, what descends from its snapshots, and what is decided."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Select, Text, cast, select
from sqlalchemy.orm import Session, aliased

from bract.digest import Digest
from bract.errors import MALFORMED, STATE, UNTRUSTED, BractError
from bract.model import NodeKind
from bract.privacy.spec import Mechanism
from bract.release import ImpactDecision, PersonRole, Remedy
from bract.signing import Envelope, parse_envelope, unseal
from bract.update import WithdrawalNotice
from bract.value import decode
from bract_server.registry.impacts import newest, record
from bract_server.registry.lineage import snapshot_ref
from bract_server.registry.models import (
    ClearanceRow,
    DecidedRow,
    DecisionRow,
    ImpactRow,
    NodeRow,
    NoticeRow,
    NoticeSnapshotRow,
    RevocationRow,
    RoundRow,
    VersionRow,
)
from bract_server.registry.persons import actor, known_person, roles_of, signed_by
from bract_server.registry.sites import site_key
from bract_server.registry.unit import Store, Unit
from bract_server.registry.views import Decided, Impact, Notice
from bract_server.withdrawal import Effect, remedies

_KINDS = {str(kind): kind for kind in NodeKind}

DECIDES = frozenset({PersonRole.DPO, PersonRole.OWNER})
"""The offices that decide what is done about a touched thing."""


class Withdrawals(Store):
    """The part of the registry that knows who withdrew from what: sites and snapshots, never subjects."""

    def withdraw(self, site: str, envelope: Envelope, at: datetime) -> None:
        """Take a signed `WithdrawalNotice`; the same again changes nothing.

        Every clearance of the site over a named snapshot ends at once. Everything that descends from one is listed, and
        so is whatever will.

        Raises:
            BractError: `unknown-site`, `untrusted`; `wrong-state` when another notice had this number.
        """
        with self.writing(at) as unit:
            session = unit.session
            value = unseal(WithdrawalNotice, envelope, site_key(session, site))
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
            record(unit, row, value)

    def decide(self, envelope: Envelope, at: datetime) -> None:
        """Take a signed `ImpactDecision`; the same again changes nothing, a later one takes its place.

        Raises:
            BractError: `untrusted` for a signer who may not decide; `malformed` for a notice or thing that is not there,
                or a remedy that is no choice for it.
        """
        with self.writing(at) as unit:
            session = unit.session
            person, value = signed_by(session, ImpactDecision, envelope, DECIDES)
            if session.scalar(select(DecisionRow.id).where(DecisionRow.digest == envelope.name)) is not None:
                return
            notice = session.scalar(
                select(NoticeRow).where(NoticeRow.site == value.site, NoticeRow.notice == value.notice)
            )
            if notice is None:
                raise BractError(MALFORMED, "no such withdrawal notice")
            about = _decidable(session, notice, value)
            row = DecisionRow(
                notice_id=notice.id,
                person=person.fingerprint,
                remedy=str(value.remedy),
                digest=envelope.name,
                envelope=envelope.to_json(),
                received_at=at,
            )
            session.add(row)
            session.flush()
            session.add_all(
                DecidedRow(decision_id=row.id, notice_id=notice.id, node_id=one.node_id, batch=one.batch)
                for one in about
            )
            unit.log("withdrawal.decide", envelope.name, actor(person), notice=notice.digest, remedy=str(value.remedy))

    def withdrawals(self) -> tuple[Notice, ...]:
        """Every notice, oldest first."""
        with self.seeing() as session:
            return tuple(_view(row) for row in session.scalars(select(NoticeRow).order_by(NoticeRow.id)))

    def impacts(self, notice: str, kind: NodeKind | None = NodeKind.VERSION) -> tuple[Impact, ...]:
        """Everything of a kind that descends from the notice's snapshots, oldest first; None for every kind.

        Raises:
            BractError: `malformed` when there is no such notice.
        """
        with self.seeing() as session:
            ids = session.scalars(select(NoticeRow.id).where(NoticeRow.notice == notice)).all()
            if not ids:
                raise BractError(MALFORMED, "no such withdrawal notice")
            return _impacts(session, ids, kind)

    def impacts_all(self) -> tuple[Impact, ...]:
        """Everything that any notice touches, by notice, oldest first."""
        with self.seeing() as session:
            return _impacts(session, session.scalars(select(NoticeRow.id).order_by(NoticeRow.id)).all(), None)

    def effect_on(self, notice: str, ref: str) -> Effect:
        """What a notice means for one thing, touched or not.

        Raises:
            BractError: `malformed` when there is no such notice or thing.
        """
        with self.seeing() as session:
            if session.scalar(select(NoticeRow.id).where(NoticeRow.notice == notice)) is None:
                raise BractError(MALFORMED, "no such withdrawal notice")
            if session.scalar(select(NodeRow.id).where(NodeRow.ref == ref).limit(1)) is None:
                raise BractError(MALFORMED, "lineage has nothing of that reference")
            wanted = (
                newest()
                .join(NoticeRow, NoticeRow.id == ImpactRow.notice_id)
                .join(NodeRow, NodeRow.id == ImpactRow.node_id)
                .where(NoticeRow.notice == notice, NodeRow.ref == ref)
            )
            effects = {row.effect for row in session.scalars(wanted)}
            return Effect.UNBOUNDED if Effect.UNBOUNDED in effects else Effect(next(iter(effects), Effect.UNAFFECTED))


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


def _decidable(session: Session, notice: NoticeRow, value: ImpactDecision) -> list[ImpactRow]:
    """The rows that a decision is about, each of which may be decided so."""
    there = {
        ref: (row, kind)
        for row, kind, ref in session.execute(
            newest(notice.id).join(NodeRow, NodeRow.id == ImpactRow.node_id).add_columns(NodeRow.kind, NodeRow.ref)
        )
    }
    found = []
    for ref in dict.fromkeys(value.refs):
        if ref not in there:
            raise BractError(MALFORMED, "the notice does not touch one of the things named")
        row, kind = there[ref]
        if value.remedy not in (choices := remedies(kind, Effect(row.effect))):
            listed = ", ".join(choices) or "nothing: it is history"
            raise BractError(MALFORMED, f"{value.remedy} is no choice for this {kind}: {listed}")
        found.append(row)
    return found


def _view(row: NoticeRow) -> Notice:
    value = decode(WithdrawalNotice, parse_envelope(row.envelope).payload)
    return Notice(value.site, value.notice, value.snapshots, value.noticed_at, row.received_at)


def _impacts(session: Session, notices: Iterable[int], kind: NodeKind | None) -> tuple[Impact, ...]:
    clean = aliased(NodeRow)
    wanted: Select[Any] = (
        newest()
        .join(NodeRow, NodeRow.id == ImpactRow.node_id)
        .join(NoticeRow, NoticeRow.id == ImpactRow.notice_id)
        .outerjoin(clean, clean.id == ImpactRow.clean)
        .outerjoin(VersionRow, (VersionRow.digest == NodeRow.ref) & (NodeRow.kind == NodeKind.VERSION))
        .where(ImpactRow.notice_id.in_(list(notices)))
        .order_by(ImpactRow.notice_id, ImpactRow.node_id)
        .with_only_columns(
            *(column for column in ImpactRow.__table__.columns if column.name != "bound"),
            # Thousands of rows share a few bounds: each is read once.
            cast(ImpactRow.bound, Text).label("bound"),
            NoticeRow.site,
            NoticeRow.notice,
            NodeRow.kind,
            NodeRow.ref,
            clean.ref.label("clean_ref"),
            VersionRow.campaign,
            VersionRow.number,
        )
    )
    if kind is not None:
        wanted = wanted.where(NodeRow.kind == kind)
    decided = _decisions(session)
    bounds = dict[str, tuple[tuple[Mechanism, ...], float | None]]()
    return tuple(_impact(row, bounds, decided) for row in session.execute(wanted))


def _impact(
    row: Any,
    bounds: dict[str, tuple[tuple[Mechanism, ...], float | None]],
    decided: Mapping[tuple[int, int, int], tuple[Decided, ...]],
) -> Impact:
    if row.bound not in bounds:
        told = json.loads(row.bound)
        bounds[row.bound] = tuple(Mechanism(**one) for one in told["mechanisms"]), told.get("delta")
    mechanisms, delta = bounds[row.bound]
    return Impact(
        site=row.site,
        notice=row.notice,
        kind=_KINDS[row.kind],
        ref=row.ref,
        effect=row.effect,
        mechanisms=mechanisms,
        delta=delta,
        path_length=row.path_length,
        clean=row.clean_ref,
        options=_options(row.kind, row.effect),
        due_at=row.due_at,
        recorded_at=row.recorded_at,
        decisions=decided.get((row.notice_id, row.node_id, row.batch), ()),
        campaign=row.campaign,
        number=row.number,
    )


@cache
def _options(kind: str, effect: str) -> tuple[Remedy, ...]:
    return remedies(kind, Effect(effect))


def _decisions(session: Session) -> dict[tuple[int, int, int], tuple[Decided, ...]]:
    """Every decision by what it is about, oldest first."""
    wanted = (
        select(DecidedRow, DecisionRow)
        .join(DecisionRow, DecisionRow.id == DecidedRow.decision_id)
        .order_by(DecisionRow.id)
    )
    views = dict[int, Decided]()
    found = dict[tuple[int, int, int], tuple[Decided, ...]]()
    for one, row in session.execute(wanted):
        if row.id not in views:
            value = decode(ImpactDecision, parse_envelope(row.envelope).payload)
            by = known_person(session, row.person)
            views[row.id] = Decided(
                Digest(row.digest),
                Remedy(row.remedy),
                value.rationale,
                by.name,
                roles_of(session, row.person),
                row.received_at,
                row.envelope,
            )
        about = (one.notice_id, one.node_id, one.batch)
        found[about] = (*found.get(about, ()), views[row.id])
    return found
