"""Facts for an export, read from the registry in one transaction, as they were known at a time."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from bract.errors import MALFORMED, BractError
from bract.export.facts import Clearing, Facts, Key, Part, Published, Touch, ancestry, cut
from bract.log.citing import cited
from bract.model import Lineage, Node, NodeKind, Relation, Role
from bract.objectives.certificate import Certificate, certificate
from bract.plan import CampaignPlan
from bract.question import ProofReference
from bract.signing import parse_envelope
from bract.update import Clearance, Contribution
from bract.value import decode, utc
from bract_server.export.known import as_known
from bract_server.registry.bodies import told
from bract_server.registry.campaigns import plan_of
from bract_server.registry.graph import allowances, load
from bract_server.registry.lineage import above, snapshot_ref
from bract_server.registry.models import (
    LOG,
    CampaignRow,
    ClearanceRow,
    ContributionRow,
    DecidedRow,
    DecisionRow,
    EdgeRow,
    ImpactRow,
    NodeRow,
    NoticeRow,
    ReceiptRow,
    ReleaseRow,
    RoundPlanRow,
)
from bract_server.registry.references import find
from bract_server.registry.release_views import ReleaseView, approval_views, view
from bract_server.registry.sources import sources
from bract_server.registry.store import HubRegistry


def read_facts(
    registry: HubRegistry, origin: str, ref: str | None, known_at: datetime, *, model: bool = False
) -> Facts:
    """What was known by `known_at` of a thing in lineage and all that it descends from, or of all of lineage.

    Args:
        registry: the hub's.
        origin: the hub's name.
        ref: a reference, the beginning of a digest, `CAMPAIGN/ROUND`, or a name; None for everything.
        known_at: not in the future.
        model: of a release, take the model that it releases.

    Raises:
        BractError: `malformed` when there is no such thing, or several, or it was not known yet.
    """
    with registry.seeing() as session:
        as_known(session, known_at)
        start = None if ref is None else _start(session, ref, model)
        graph = load(session, None if start is None else above([start.id]))
        about = _key(start)
        lineage = cut(told(session, graph, allowances(graph, sources(session, graph))), known_at)
        lineage = _timely(lineage, known_at)
        if about is not None:
            lineage = ancestry(lineage, about)
        proof, _ = cited(session.connection(), LOG, registry.verify_key, origin, known_at, frozenset())
        return _facts(session, lineage, start, known_at, proof)


def _start(session: Session, ref: str, model: bool) -> NodeRow:
    found = find(session, ref)
    if not model or found.kind != NodeKind.RELEASE:
        return found
    target = select(NodeRow).join(ReleaseRow, ReleaseRow.target_id == NodeRow.id).where(ReleaseRow.digest == found.ref)
    return session.scalars(target).one()


def _key(start: NodeRow | None) -> Key | None:
    return None if start is None else (NodeKind(start.kind), start.ref)


def _timely(lineage: Lineage, at: datetime) -> Lineage:
    """Without what was learnt later of things that were known: a data set's terms, how a round ended."""
    ended = {edge.dst for edge in lineage.edges if edge.relation is Relation.GENERATED}
    edges = tuple(
        edge
        for edge in lineage.edges
        # what a round used was recorded when it ended
        if edge.src_kind is not NodeKind.ROUND or edge.src in ended
    )
    return replace(lineage, nodes=tuple(_then(node, at, ended) for node in lineage.nodes), edges=edges)


def _then(node: Node, at: datetime, ended: set[str]) -> Node:
    if node.kind is NodeKind.ROUND and node.ref not in ended:
        return replace(node, body={**node.body, "state": "running"})
    said = node.body.get("terms") if node.kind is NodeKind.DATASET else None
    if isinstance(said, dict) and utc(said["given_at"]) > at:
        return replace(node, at=None, body={**node.body, "terms": None})
    return node


def _facts(
    session: Session, lineage: Lineage, start: NodeRow | None, known_at: datetime, proof: ProofReference
) -> Facts:
    about = _key(start)
    refs = {node.ref for node in lineage.nodes}
    named = {str(node.body.get("campaign")) for node in lineage.nodes}
    rows = session.scalars(select(CampaignRow).order_by(CampaignRow.created_at))
    plans = {row.digest: plan_of(row) for row in rows if row.digest in named}
    return Facts(
        origin=proof.origin,
        known_at=known_at,
        lineage=lineage,
        about=about,
        plans=plans,
        parts=_parts(session, refs),
        evaluations=_evaluations(session, start, known_at),
        certificates=_certificates(plans.values()),
        touches=_touches(session, refs),
        releases=_releases(session, about),
        checkpoint_size=proof.size,
        checkpoint_root=proof.root,
    )


def _parts(session: Session, versions: set[str]) -> tuple[Part, ...]:
    """The contributions that are in these encoder versions, in the order of their receipts."""
    wanted = (
        select(
            ReceiptRow.version,
            RoundPlanRow.digest,
            ContributionRow.digest,
            ContributionRow.envelope,
            ClearanceRow.envelope,
        )
        .join(ContributionRow, ContributionRow.id == ReceiptRow.contribution_id)
        .join(RoundPlanRow, RoundPlanRow.round_id == ContributionRow.round_id)
        .join(
            ClearanceRow,
            (ClearanceRow.round_id == ContributionRow.round_id) & (ClearanceRow.site == ContributionRow.site),
        )
        .order_by(ReceiptRow.id)
    )
    return tuple(
        _part(version, plan, digest or "", envelope or b"", clearance)
        for version, plan, digest, envelope, clearance in session.execute(wanted)
        if version in versions
    )


def _part(version: str, plan: str, digest: str, envelope: bytes, clearance: bytes) -> Part:
    told, sealed = decode(Contribution, parse_envelope(envelope).payload), parse_envelope(clearance)
    given = decode(Clearance, sealed.payload)
    return Part(
        digest=digest,
        round=plan,
        version=version,
        snapshot=snapshot_ref(given.site, given.snapshot),
        reservation=told.reservation,
        mechanism=told.spent,
        private=told.private,
        clearing=Clearing(
            digest=sealed.name,
            site=given.site,
            dataset=given.dataset,
            purpose=str(given.purpose),
            rule=given.rule,
            issued_at=given.issued_at,
            expires_at=given.expires_at,
        ),
    )


def _evaluations(session: Session, start: NodeRow | None, at: datetime) -> tuple[Node, ...]:
    """The evaluations of a model."""
    if start is None:
        return ()
    wanted = select(EdgeRow.src).where(EdgeRow.dst == start.id, EdgeRow.role == Role.EVALUATED)
    graph = load(session, above(session.scalars(wanted).all()))
    whole = told(session, graph, {})
    found = {edge.src for edge in whole.edges if (edge.dst, edge.role) == (start.ref, Role.EVALUATED)}
    return tuple(node for node in whole.nodes if node.ref in found and node.at is not None and node.at <= at)


def _certificates(plans: Iterable[CampaignPlan]) -> dict[str, Certificate | str]:
    """The certificates of these plans' objectives, of the code that is installed here and now."""
    found: dict[str, Certificate | str] = {}
    for kind in {plan.objective.kind for plan in plans}:
        try:
            found[kind] = certificate(kind)
        except BractError as refusal:
            found[kind] = refusal.detail or refusal.cause
    return found


def _touches(session: Session, refs: set[str]) -> tuple[Touch, ...]:
    decided: dict[tuple[int, int], str] = {}
    for notice, node, remedy in session.execute(
        select(DecidedRow.notice_id, DecidedRow.node_id, DecisionRow.remedy)
        .join(DecisionRow, DecisionRow.id == DecidedRow.decision_id)
        .order_by(DecisionRow.id)
    ):
        decided[notice, node] = remedy
    wanted = (
        select(ImpactRow, NoticeRow.site, NoticeRow.received_at, NodeRow.ref)
        .join(NoticeRow, NoticeRow.id == ImpactRow.notice_id)
        .join(NodeRow, NodeRow.id == ImpactRow.node_id)
        .order_by(ImpactRow.notice_id, ImpactRow.node_id)
    )
    newest: dict[tuple[int, int], Touch] = {}
    for row, site, received_at, ref in session.execute(wanted):
        if ref in refs:
            key = (row.notice_id, row.node_id)
            newest[key] = Touch(site, ref, row.effect, decided.get(key), received_at)
    return tuple(newest.values())


def _releases(session: Session, about: Key | None) -> tuple[Published, ...]:
    words = approval_views(session)
    rows = session.scalars(select(ReleaseRow).order_by(ReleaseRow.proposed_at, ReleaseRow.digest))
    views = [view(session, row, words) for row in rows]
    return tuple(_published(one) for one in views if about is None or about[1] in (one.digest, one.proposal.target))


def _published(one: ReleaseView) -> Published:
    return Published(
        digest=one.digest,
        name=one.name,
        target=one.proposal.target,
        channel=str(one.proposal.channel),
        state=one.state,
        proposed_at=one.proposed_at,
        published_at=one.published_at,
        approvals=tuple(word.digest for word in one.approvals if word.decision == "approve"),
        overrides=tuple(override.digest for override in one.overrides),
    )


def as_of(text: str | None, at: datetime) -> datetime:
    """The asked time, now if none is; nothing can be known of the future.

    Raises:
        BractError: `malformed`.
    """
    asked = at if text is None else utc(text)
    if asked > at:
        raise BractError(MALFORMED, "--as-of: that time is still to come")
    return asked


def plain_arguments(**given: Any) -> dict[str, Any]:
    """Arguments for a manifest: those that were given."""
    return {name: value for name, value in given.items() if value is not None}
