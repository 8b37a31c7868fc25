"""Lineage told in full: every node with its public facts, one query a kind."""

import base64
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from bract.model import Edge, Lineage, Node, NodeKind, Relation, Role
from bract.use import shown
from bract.value import plain
from bract_server.registry.graph import NOTHING, Allowance, Graph
from bract_server.registry.models import (
    ArtefactRow,
    CampaignRow,
    ClearanceRow,
    ContributionRow,
    ReleaseRow,
    RoundPlanRow,
    RoundRow,
    VersionRow,
)
from bract_server.registry.persons import overriding
from bract_server.registry.sources import cleared, terms

Facts = tuple[str, datetime | None, dict[str, Any]]
"""(name for people, when, public facts)."""


def told(session: Session, graph: Graph, permits: dict[int, Allowance]) -> Lineage:
    """A graph as frozen values; `permits` of at least its nodes."""
    facts = _facts(session, graph)
    nodes = []
    for number, kind in graph.kinds.items():
        ref = graph.refs[number]
        name, at, body = facts.get((kind, ref), (ref, None, {}))
        allowance = permits.get(number, NOTHING)
        modifiers = tuple(sorted(shown(modifier) for modifier in allowance.modifiers))
        nodes.append(Node(NodeKind(kind), ref, name, at, body, tuple(sorted(allowance.uses)), modifiers))
    edges = tuple(
        Edge(
            NodeKind(graph.kinds[src]),
            graph.refs[src],
            Relation(relation),
            None if role is None else Role(role),
            NodeKind(graph.kinds[dst]),
            graph.refs[dst],
        )
        for src, dst, relation, role in graph.links
    )
    return Lineage(tuple(nodes), edges, overriding(session, set(graph.refs.values())))


def _facts(session: Session, graph: Graph) -> dict[tuple[str, str], Facts]:
    there = set(graph.kinds.values())
    found: dict[tuple[str, str], Facts] = {}
    wanted = {(kind, graph.refs[number]) for number, kind in graph.kinds.items()}
    for kind, read in _READ.items():
        if kind in there:
            found |= {(kind, ref): facts for ref, facts in read(session) if (kind, ref) in wanted}
    registered = there & {NodeKind.EXTERNAL, NodeKind.BASE, NodeKind.FINETUNE, NodeKind.STUDENT, NodeKind.EVALUATION}
    if registered:
        found |= _registered(session)
    found |= {(NodeKind.SNAPSHOT, ref): facts for ref, facts in _snapshots(session, graph)}
    found |= {(NodeKind.DATASET, ref): facts for ref, facts in _datasets(session, graph)}
    return found


def _versions(session: Session) -> Iterator[tuple[str, Facts]]:
    wanted = select(VersionRow, CampaignRow.name).join(CampaignRow, CampaignRow.digest == VersionRow.campaign)
    for row, campaign in session.execute(wanted):
        yield row.digest, (f"{campaign}/{row.number}", row.created_at, {**json.loads(row.body), "name": campaign})


def _rounds(session: Session) -> Iterator[tuple[str, Facts]]:
    wanted = (
        select(RoundPlanRow.digest, RoundPlanRow.opened_at, RoundRow, CampaignRow.name)
        .join(RoundRow, RoundRow.id == RoundPlanRow.round_id)
        .join(CampaignRow, CampaignRow.digest == RoundRow.campaign)
    )
    for digest, opened_at, row, campaign in session.execute(wanted):
        body = {"campaign": row.campaign, "name": campaign, "number": row.number, "state": row.state}
        yield digest, (f"round {row.number} of {campaign}", opened_at, body)


def _contributions(session: Session) -> Iterator[tuple[str, Facts]]:
    wanted = select(
        ContributionRow.digest, ContributionRow.site, ContributionRow.envelope, ContributionRow.received_at
    ).where(ContributionRow.accepted)
    for digest, site, envelope, received_at in session.execute(wanted):
        body = _payload(envelope or b"")
        yield digest or "", (f"part of {site}", received_at, body)


def _payload(envelope: bytes) -> dict[str, Any]:
    """What a kept envelope holds; its signature and form were checked when it came."""
    body: dict[str, Any] = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
    return body


def _releases(session: Session) -> Iterator[tuple[str, Facts]]:
    for row in session.scalars(select(ReleaseRow)):
        yield row.digest, (row.name, row.proposed_at, _payload(row.envelope))


def _bases(session: Session) -> Iterator[tuple[str, Facts]]:
    first = select(VersionRow.arrays, func.min(VersionRow.created_at)).where(VersionRow.parent.is_(None))
    for weights, at in session.execute(first.group_by(VersionRow.arrays)):
        yield weights, ("public initialisation", at, {"origin": "public-seed", "weights": weights})


_READ = {
    NodeKind.VERSION: _versions,
    NodeKind.ROUND: _rounds,
    NodeKind.CONTRIBUTION: _contributions,
    NodeKind.RELEASE: _releases,
    NodeKind.BASE: _bases,
}


def _registered(session: Session) -> dict[tuple[str, str], Facts]:
    found: dict[tuple[str, str], Facts] = {}
    for row in session.scalars(select(ArtefactRow)):
        body = _payload(row.envelope)
        ref = row.content if row.kind == NodeKind.BASE else row.digest
        found[row.kind, ref] = (row.name, row.registered_at, body)
    return found


def _snapshots(session: Session, graph: Graph) -> Iterator[tuple[str, Facts]]:
    if NodeKind.SNAPSHOT not in graph.kinds.values():
        return
    first = select(ClearanceRow.site, ClearanceRow.snapshot, func.min(ClearanceRow.received_at))
    grouped = first.group_by(ClearanceRow.site, ClearanceRow.snapshot)
    when = {f"{site}/{snapshot}": at for site, snapshot, at in session.execute(grouped)}
    given = cleared(session, graph)
    for number, kind in graph.kinds.items():
        if kind != NodeKind.SNAPSHOT:
            continue
        ref = graph.refs[number]
        site, _, snapshot = ref.partition("/")
        uses = given[number].uses if number in given else ()
        body = {
            "site": site,
            "snapshot": snapshot,
            "datasets": sorted({dataset for dataset, _ in uses}),
            "purposes": sorted({purpose for _, purpose in uses}),
        }
        yield ref, (f"{site}/{snapshot[7:19]}", when.get(ref), body)


def _datasets(session: Session, graph: Graph) -> Iterator[tuple[str, Facts]]:
    declared = terms(session)
    for number, kind in graph.kinds.items():
        if kind == NodeKind.DATASET:
            ref = graph.refs[number]
            site, _, dataset = ref.partition("/")
            said = plain(declared[ref]) if ref in declared else None
            at = declared[ref].given_at if ref in declared else None
            yield ref, (ref, at, {"site": site, "dataset": dataset, "terms": said})
