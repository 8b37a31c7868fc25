"""What a notice of withdrawal touches, recorded: all of it at once, with one log entry over the rows.

What is made later is looked at when it is made (`extend`); so is what only turns out later to descend from withdrawn data.
A row is never changed: a newer one takes its place, and a decision about the older one does not count for it.
"""

from collections.abc import Collection, Set
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, Select, func, insert, select
from sqlalchemy.orm import Session, aliased

from bract.model import NodeKind
from bract.objectives.spec import PrivacyStructure
from bract.signing import parse_envelope
from bract.update import Contribution, WithdrawalNotice
from bract.value import decode
from bract_server.registry.campaigns import plan_of
from bract_server.registry.graph import Graph, load
from bract_server.registry.lineage import above, nodes_of, snapshot_ref
from bract_server.registry.models import (
    CampaignRow,
    ContributionRow,
    EdgeRow,
    ImpactRow,
    NodeRow,
    NoticeRow,
    NoticeSnapshotRow,
    RoundRow,
)
from bract_server.registry.spreads import SPREAD, digest_of_rows, line
from bract_server.registry.unit import Unit
from bract_server.withdrawal import Effect, Part, Touched, effect, remedies, spread

DECIDE_WITHIN = timedelta(days=30)
"""A request is answered within a month [GDPR art. 12(3)]: so long an impact may be undecided."""

_FEW = 500
"""Both databases bound how many values a query may carry; beyond this the whole table is read."""


def record(unit: Unit, notice: NoticeRow, value: WithdrawalNotice) -> None:
    """Record everything that descends from what a new notice names."""
    refs = [snapshot_ref(value.site, snapshot) for snapshot in value.snapshots]
    named = set(nodes_of(unit.session, NodeKind.SNAPSHOT, refs).values())
    due = min(value.noticed_at, unit.at) + DECIDE_WITHIN
    if named:
        _keep(unit, notice, _touched(unit.session, notice.site, load(unit.session), named), {}, due)


def extend(unit: Unit, nodes: Collection[int]) -> None:
    """Look at nodes that were just made, or that just got another parent: whatever notice touches them lists them."""
    session, new = unit.session, set(nodes)
    few = len(new) < _FEW
    graph: Graph | None = None
    for notice in session.scalars(_touching(new) if few else select(NoticeRow).order_by(NoticeRow.id)):
        graph = graph or load(session, above(new) if few else None)
        named = set(session.scalars(_named(notice.id))) & graph.kinds.keys()
        found = _touched(session, notice.site, graph, named)
        kept = newest(notice.id).where(ImpactRow.node_id.in_(new)) if few else newest(notice.id)
        before = {row.node_id: row for row in session.scalars(kept)}
        wanted = {node: touched for node, touched in found.items() if node in new}
        _keep(unit, notice, wanted, before, unit.at + DECIDE_WITHIN)


def newest(notice: int | None = None) -> Select[ImpactRow]:
    """The rows that count, of one notice or of all."""
    later = aliased(ImpactRow)
    newer = (
        select(later.batch)
        .where(
            later.notice_id == ImpactRow.notice_id, later.node_id == ImpactRow.node_id, later.batch > ImpactRow.batch
        )
        .exists()
    )
    wanted = select(ImpactRow).where(~newer)
    return wanted if notice is None else wanted.where(ImpactRow.notice_id == notice)


def _touching(nodes: Collection[int]) -> Select[NoticeRow]:
    """The notices that touch a parent of these nodes, or name one."""
    parents = select(EdgeRow.dst).where(EdgeRow.src.in_(nodes))
    by_parent = select(ImpactRow.notice_id).where(ImpactRow.node_id.in_(parents))
    by_name = (
        select(NoticeSnapshotRow.notice_id)
        .join(NodeRow, (NodeRow.ref == NoticeSnapshotRow.ref) & (NodeRow.kind == NodeKind.SNAPSHOT))
        .where(NodeRow.id.in_(parents))
    )
    return select(NoticeRow).where(NoticeRow.id.in_(by_parent) | NoticeRow.id.in_(by_name)).order_by(NoticeRow.id)


def _named(notice: int) -> Select[int]:
    return (
        select(NodeRow.id)
        .join(NoticeSnapshotRow, NoticeSnapshotRow.ref == NodeRow.ref)
        .where(NodeRow.kind == NodeKind.SNAPSHOT, NoticeSnapshotRow.notice_id == notice)
    )


def _touched(session: Session, site: str, graph: Graph, named: Set[int]) -> dict[int, Touched]:
    own = f"{site}/"
    snapshots = {
        node for node, ref in graph.refs.items() if graph.kinds[node] == NodeKind.SNAPSHOT and ref.startswith(own)
    }
    return spread(graph.kinds, graph.parents, named, snapshots, _parts(session, site, graph.kinds.keys()))


def _parts(session: Session, site: str, nodes: Set[int]) -> dict[int, Part]:
    """The site's contributions among these nodes, each with what bounds one subject's influence on it."""
    wanted = (
        select(NodeRow.id, ContributionRow.envelope, RoundRow.campaign)
        .join(ContributionRow, ContributionRow.digest == NodeRow.ref)
        .join(RoundRow, RoundRow.id == ContributionRow.round_id)
        .where(NodeRow.kind == NodeKind.CONTRIBUTION, ContributionRow.site == site, ContributionRow.accepted)
        .order_by(NodeRow.id)
    )
    campaigns = dict[str, tuple[PrivacyStructure, float]]()
    found = dict[int, Part]()
    for node, envelope, campaign in session.execute(wanted):
        if node not in nodes:
            continue
        if campaign not in campaigns:
            plan = plan_of(session.get_one(CampaignRow, campaign))
            campaigns[campaign] = plan.structure, plan.privacy.delta
        structure, delta = campaigns[campaign]
        value = decode(Contribution, parse_envelope(envelope or b"").payload)
        private = effect([(structure, value.private)]) is Effect.BOUNDED
        found[node] = Part(value.spent if private else None, delta)
    return found


def _keep(
    unit: Unit, notice: NoticeRow, touched: dict[int, Touched], before: dict[int, ImpactRow], due: datetime
) -> None:
    """Add rows for what is new or different, and one log entry over them."""
    session = unit.session
    batch = 1 + int(session.scalar(select(func.max(ImpactRow.batch)).where(ImpactRow.notice_id == notice.id)) or 0)
    named = _names(session, {*touched, *(one.clean for one in touched.values() if one.clean is not None)})
    bounds = dict[int, dict[str, Any]]()
    rows, lines = list[dict[str, Any]](), list[bytes]()
    for node in sorted(touched):
        one = touched[node]
        bound = bounds.setdefault(id(one.bound), _bound(one))
        if node in before and _same(before[node], one, bound):
            continue
        kind, ref = named[node].kind, named[node].ref
        due_at = due if remedies(kind, one.bound.effect) else None
        clean = None if one.clean is None else named[one.clean].ref
        lines.append(line(kind, ref, one.bound.effect, bound, one.path_length, clean, due_at))
        rows.append(
            {
                "notice_id": notice.id,
                "node_id": node,
                "batch": batch,
                "effect": str(one.bound.effect),
                "bound": bound,
                "path_length": one.path_length,
                "clean": one.clean,
                "due_at": due_at,
                "recorded_at": unit.at,
            }
        )
    if rows:
        session.execute(insert(ImpactRow), rows)
        told = digest_of_rows(notice.digest, batch, lines)
        unit.log(SPREAD, told, notice=notice.digest, batch=batch, things=len(rows))


def _same(row: ImpactRow, touched: Touched, bound: dict[str, Any]) -> bool:
    kept = (row.effect, row.bound, row.path_length, row.clean)
    return kept == (touched.bound.effect, bound, touched.path_length, touched.clean)


def _names(session: Session, nodes: Set[int]) -> dict[int, Row[int, str, str]]:
    wanted = select(NodeRow.id, NodeRow.kind, NodeRow.ref)
    if len(nodes) < _FEW:
        wanted = wanted.where(NodeRow.id.in_(nodes))
    return {row.id: row for row in session.execute(wanted)}


def _bound(touched: Touched) -> dict[str, Any]:
    mechanisms = [
        {"noise_multiplier": m.noise_multiplier, "sampling_rate": m.sampling_rate, "steps": m.steps}
        for m in touched.bound.mechanisms
    ]
    return {"mechanisms": mechanisms, "delta": touched.bound.delta}
