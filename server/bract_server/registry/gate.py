"""The release gate: one look at everything above a release, criterion by criterion.

    sources        every way up ends in a snapshot that its site cleared, a registered external source, or registered or
                   public-seed weights; nothing uses a data set but through a snapshot
    licences       no external source reserved its rights against mining
    purpose        everything above the model permits the channel (`bract.use`)
    modifiers      the release's terms honour every modifier of the data above it
    reservations   every reservation of a round above it has ended in the ledger
    withdrawals    no withdrawal that touches it or what is above it waits for a decision beyond its time
    standing       nothing above it is retired, and the model itself is not to be made again
    randomness     no update above it was made with a seeded test's foreseeable noise
    card           the model has a card
    evaluation     an evaluation of this very model is told with it
    signature      the author's signature covers these weights, and the hub's what was registered
    approvals      the policy's number of persons, over its offices, none of them the author, of the card as it stands;
                   nobody rejected it
    witnesses      the policy's number of witnesses (`standing_witnesses`) cosigned the log up to everything that the
                   release rests on, each counted once

A criterion that fails names what is in its way. Some may be overridden by an office (`bract.release.MAY_OVERRIDE`), but
never by the release's author: an override that came before the proposal is shown, and lets nothing pass.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import BractError
from bract.model import SOURCES, Derived, ExternalSource, NodeKind, Role
from bract.release import DEFAULT_POLICIES, Approval, Criterion, Policy, ReleaseProposal, Remedy
from bract.signing import parse_envelope, unseal, verify_key
from bract.use import shown
from bract.value import decode
from bract_server.registry.contributions import contribution_of
from bract_server.registry.graph import Allowance, Graph, allowances, load
from bract_server.registry.impacts import newest
from bract_server.registry.lineage import above
from bract_server.registry.models import (
    LOG,
    ApprovalRow,
    ArtefactRow,
    CardRow,
    ContributionRow,
    DecidedRow,
    EntryRow,
    ImpactRow,
    NodeRow,
    PolicyRow,
    ReleaseRow,
    ReservationRow,
    RoundPlanRow,
    VersionRow,
)
from bract_server.registry.persons import known_person, overriding, roles_of
from bract_server.registry.sources import cleared, lacking, sources
from bract_server.registry.standing import last_remedies
from bract_server.registry.verdict import GateReport, Verdict
from bract_server.registry.witnesses import standing_witnesses

_RESERVED = "reserved"


@dataclass(frozen=True)
class _Case:
    session: Session
    at: datetime
    hub: Ed25519PublicKey
    row: ReleaseRow
    proposal: ReleaseProposal
    policy: Policy
    graph: Graph
    own: dict[int, Allowance]
    permits: dict[int, Allowance]

    def named(self, nodes: set[int]) -> tuple[str, ...]:
        return tuple(sorted(self.graph.refs[node] for node in nodes))


def examine(session: Session, row: ReleaseRow, hub: Ed25519PublicKey, at: datetime) -> GateReport:
    """How a release stands at the gate, in the caller's transaction."""
    proposal = decode(ReleaseProposal, parse_envelope(row.envelope).payload)
    graph = load(session, above([row.node_id]))
    own = sources(session, graph)
    policy = policy_of(session, proposal.channel)
    case = _Case(session, at, hub, row, proposal, policy, graph, own, allowances(graph, own))
    bearing = overriding(session, set(graph.refs.values()))
    author = known_person(session, row.author).name
    given = {one.criterion: one.digest for one in bearing if one.about == row.digest and one.by != author}
    verdicts = []
    for criterion, rule in _RULES.items():
        offenders, detail = rule(case)
        verdict = Verdict(criterion, not offenders, detail, offenders)
        verdicts.append(verdict if verdict.ok else replace(verdict, overridden_by=given.get(criterion)))
    target = graph.refs[row.target_id]
    return GateReport(Digest(row.digest), row.name, target, proposal.channel, at, tuple(verdicts), bearing)


def policy_of(session: Session, channel: str) -> Policy:
    """What releases through a channel ask for now."""
    wanted = select(PolicyRow.envelope).where(PolicyRow.channel == channel).order_by(PolicyRow.id.desc()).limit(1)
    kept = session.scalar(wanted)
    if kept is not None:
        return decode(Policy, parse_envelope(kept).payload)
    return next(policy for known, policy in DEFAULT_POLICIES.items() if known == channel)


_Found = tuple[tuple[str, ...], str]
"""What is in the way (nothing: the criterion holds), and a sentence for people."""


def _sources(case: _Case) -> _Found:
    kinds, graph = case.graph.kinds, case.graph
    given = cleared(case.session, graph)
    bad = {node for node, kind in kinds.items() if kind == NodeKind.SNAPSHOT and node not in given}
    for node, kind in kinds.items():
        ends = not graph.parents[node]
        if (ends and kind not in SOURCES | {NodeKind.DATASET}) or (
            kind in (NodeKind.EXTERNAL, NodeKind.BASE) and node not in case.own
        ):
            bad.add(node)
        if kind != NodeKind.SNAPSHOT:
            bad |= {older for older in graph.parents[node] if kinds[older] == NodeKind.DATASET}
    counted = sum(kind in SOURCES for kind in kinds.values())
    return case.named(bad), f"{counted} sources above it"


def _licences(case: _Case) -> _Found:
    kept = case.session.scalars(select(ArtefactRow).where(ArtefactRow.kind == NodeKind.EXTERNAL))
    bad = set()
    for row in kept:
        if row.node_id in case.graph.kinds:
            signal = decode(ExternalSource, parse_envelope(row.envelope).payload).signal
            if signal is not None and signal.reserved:
                bad.add(row.node_id)
    return case.named(bad), "rights reserved against mining" if bad else "no source reserves its rights"


def _purpose(case: _Case) -> _Found:
    if case.proposal.channel in case.permits[case.row.node_id].uses:
        return (), f"{case.proposal.channel} is permitted"
    found = lacking(case.graph, case.own, case.proposal.channel, [case.row.target_id])
    return tuple(found), f"{case.proposal.channel} is not permitted by all that is above it"


def _modifiers(case: _Case) -> _Found:
    asked = {shown(modifier) for modifier in case.permits[case.row.node_id].modifiers}
    missing = asked - {shown(modifier) for modifier in case.proposal.honours}
    return tuple(sorted(missing)), f"{len(asked)} modifiers go along with the data"


def _reservations(case: _Case) -> _Found:
    rounds = [case.graph.refs[node] for node, kind in case.graph.kinds.items() if kind == NodeKind.ROUND]
    ended = select(EntryRow.reservation_id).where(EntryRow.state != _RESERVED)
    unsettled = (
        select(ReservationRow.digest, RoundPlanRow.digest)
        .join(RoundPlanRow, RoundPlanRow.round_id == ReservationRow.round_id)
        .where(ReservationRow.id.not_in(ended))
    )
    inside = set(rounds)
    found = sorted(digest for digest, plan in case.session.execute(unsettled) if plan in inside)
    return tuple(found), f"{len(inside)} rounds above it"


def _withdrawals(case: _Case) -> _Found:
    decided = select(DecidedRow.node_id).where(
        DecidedRow.notice_id == ImpactRow.notice_id,
        DecidedRow.node_id == ImpactRow.node_id,
        DecidedRow.batch == ImpactRow.batch,
    )
    late = newest().where(ImpactRow.due_at <= case.at, ~decided.exists())
    bad = {row.node_id for row in case.session.scalars(late)} & case.graph.kinds.keys()
    return case.named(
        bad
    ), "withdrawals without a decision beyond their time" if bad else "nothing waits beyond its time"


def _standing(case: _Case) -> _Found:
    last = last_remedies(case.session)
    bad = {node for node in case.graph.kinds if Remedy.RETIRE in last.get(node, ())}
    if {Remedy.RETRAIN, Remedy.UNLEARN} & set(last.get(case.row.target_id, ())):
        bad.add(case.row.target_id)
    return case.named(bad), "retired, or to be made again" if bad else "nothing above it is retired"


def _randomness(case: _Case) -> _Found:
    inside = {case.graph.refs[node] for node, kind in case.graph.kinds.items() if kind == NodeKind.CONTRIBUTION}
    accepted = case.session.scalars(select(ContributionRow).where(ContributionRow.accepted))
    bad = sorted(row.digest for row in accepted if row.digest in inside and not contribution_of(row).private)
    return tuple(bad), "made in a seeded test: No DP guarantee" if bad else f"{len(inside)} updates above it"


def _card(case: _Case) -> _Found:
    found = case.session.scalar(select(func.count()).where(CardRow.node_id == case.row.target_id))
    return (() if found else case.named({case.row.target_id})), "the model's card"


def _evaluation(case: _Case) -> _Found:
    judged = {src for src, dst, _, role in case.graph.links if role == Role.EVALUATED and dst == case.row.target_id}
    told = {dst for src, dst, _, role in case.graph.links if role == Role.EVIDENCE and src == case.row.node_id}
    counted = len(judged & told)
    return (() if counted else case.named({case.row.target_id})), f"{counted} evaluations of it"


def _signature(case: _Case) -> _Found:
    author = known_person(case.session, case.row.author)
    target = case.graph.refs[case.row.target_id]
    try:
        unseal(ReleaseProposal, parse_envelope(case.row.envelope), verify_key(author.key))
        weights = weights_of(case.session, case.row.target_id, case.hub)
    except BractError as error:
        return (target,), error.detail
    if weights != case.proposal.weights:
        return (target,), "the author signed other weights"
    return (), f"signed by {author.name}"


def weights_of(session: Session, node: int, hub: Ed25519PublicKey) -> str | None:
    """The digest of a model's weights; of a registered one, under the hub's signature.

    Raises:
        BractError: `untrusted` when that does not verify.
    """
    row = session.get(ArtefactRow, node)
    if row is not None:
        return unseal(Derived, parse_envelope(row.envelope), hub).content
    found = session.scalar(
        select(VersionRow.arrays).join(NodeRow, NodeRow.ref == VersionRow.digest).where(NodeRow.id == node)
    )
    return found


def _approvals(case: _Case) -> _Found:
    session, policy = case.session, case.policy
    approved, held, against, early = set[str](), set[str](), list[str](), list[str]()
    counted = {row.digest for row in counting(session, case.row)}
    for row in session.scalars(select(ApprovalRow).where(ApprovalRow.release == case.row.digest)):
        person = known_person(session, row.person)
        unseal(Approval, parse_envelope(row.envelope), verify_key(person.key))
        if row.decision == "reject":
            against.append(person.name)
        elif row.digest not in counted:
            early.append(person.name)
        elif person.fingerprint != case.row.author:
            approved.add(person.name)
            held |= set(roles_of(session, row.person))
    missing = [f"{policy.required - len(approved)} more"] if len(approved) < policy.required else []
    missing += [str(role) for role in policy.roles if role not in held]
    said = f"{len(approved)} of {policy.required} approve"
    said += f"; rejected by {', '.join(sorted(against))}" if against else ""
    said += f"; {', '.join(sorted(early))} approved another card: propose the release anew" if early else ""
    return (*sorted(against), *missing), said


def counting(session: Session, row: ReleaseRow) -> list[ApprovalRow]:
    """The approvals of a release that were given with the model's card as it stands, by digest."""
    c = LOG.entry.c
    cards = select(CardRow.digest).where(CardRow.node_id == row.target_id)
    carded = session.scalar(select(func.max(c.seq)).where(c.kind == "card.add", c.about.in_(cards))) or 0
    given = select(c.about).where(c.kind == "approval.take", c.seq > carded)
    wanted = select(ApprovalRow).where(ApprovalRow.release == row.digest, ApprovalRow.decision == "approve")
    return list(session.scalars(wanted.where(ApprovalRow.digest.in_(given)).order_by(ApprovalRow.digest)))


def _witnesses(case: _Case) -> _Found:
    if case.policy.witnesses == 0:
        return (), "none asked for"
    session = case.session
    approvals = session.scalars(select(ApprovalRow.digest).where(ApprovalRow.release == case.row.digest))
    cards = session.scalars(select(CardRow.digest).where(CardRow.node_id == case.row.target_id))
    about = {case.row.digest, case.graph.refs[case.row.target_id], *case.proposal.evaluations, *approvals, *cards}
    last = session.scalar(select(func.max(LOG.entry.c.seq)).where(LOG.entry.c.about.in_(about))) or 0
    c = LOG.cosignature.c
    signed = set(session.scalars(select(c.verify_key).where(c.size >= last)))
    count = len(signed & standing_witnesses(session))
    said = f"{count} of {case.policy.witnesses} witnesses cosigned the log up to entry {last}"
    return (() if count >= case.policy.witnesses else (f"entry {last}",)), said


_RULES: dict[Criterion, Callable[[_Case], _Found]] = {
    Criterion.SOURCES: _sources,
    Criterion.LICENCES: _licences,
    Criterion.PURPOSE: _purpose,
    Criterion.MODIFIERS: _modifiers,
    Criterion.RESERVATIONS: _reservations,
    Criterion.WITHDRAWALS: _withdrawals,
    Criterion.STANDING: _standing,
    Criterion.RANDOMNESS: _randomness,
    Criterion.CARD: _card,
    Criterion.EVALUATION: _evaluation,
    Criterion.SIGNATURE: _signature,
    Criterion.APPROVALS: _approvals,
    Criterion.WITNESSES: _witnesses,
}
