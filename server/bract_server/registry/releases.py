"""Releases: proposed by an author, approved by others, published through the gate, taken back.

Rules:
    1. Whoever proposes a release cannot approve it, and each person has one word; the schema says so as well.
    2. It is published only as the gate's report says at that moment, in the same transaction.
    3. What is published stays on record with its report, its approvals and its overrides, also when it is taken back.
"""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from bract.digest import Digest, canonical, digest
from bract.errors import ALREADY_EXISTS, GATE, MALFORMED, SAME_PERSON, STATE, BractError
from bract.model import MODELS, NodeKind, Relation, Role
from bract.release import Approval, PersonRole, Policy, Release, ReleaseProposal, Withdrawn
from bract.signing import Envelope, parse_envelope
from bract.value import decode
from bract_server.registry.gate import counting, examine, policy_of, weights_of
from bract_server.registry.impacts import extend
from bract_server.registry.lineage import known, link, node
from bract_server.registry.models import (
    LOG,
    ApprovalRow,
    PolicyRow,
    PublicationRow,
    ReleaseRow,
    TakenBackRow,
)
from bract_server.registry.persons import actor, signed_by
from bract_server.registry.references import find
from bract_server.registry.release_views import ApprovalView, ReleaseView, approval_views, release_row, state_of, view
from bract_server.registry.unit import Store
from bract_server.registry.verdict import GateReport

ANYBODY = frozenset(PersonRole)
TAKES_BACK = frozenset({PersonRole.OWNER, PersonRole.DPO, PersonRole.OPERATOR})


class Releases(Store):
    """The part of the registry that knows releases."""

    def set_policy(self, policy: Policy, at: datetime) -> None:
        """From now on releases through the policy's channel ask for this; signed by the hub."""
        with self.writing(at) as unit:
            envelope = unit.sign(policy)
            unit.session.add(
                PolicyRow(channel=str(policy.channel), digest=envelope.name, envelope=envelope.to_json(), set_at=at)
            )
            roles = sorted(policy.roles)
            unit.log(
                "release.policy", envelope.name, channel=str(policy.channel), required=policy.required, roles=roles
            )

    def policy(self, channel: str) -> Policy:
        """What releases through a channel ask for."""
        with self.seeing() as session:
            return policy_of(session, channel)

    def propose_release(self, envelope: Envelope, at: datetime) -> Digest:
        """Take an author's signed `ReleaseProposal`; returns its name. The same again changes nothing.

        Raises:
            BractError: `untrusted`; `already-exists` for a taken name; `malformed` when the target is no model of this
                hub, its weights are others, or an evaluation is not there.
        """
        with self.writing(at) as unit:
            session = unit.session
            author, value = signed_by(session, ReleaseProposal, envelope, ANYBODY)
            if session.get(ReleaseRow, envelope.name) is not None:
                return envelope.name
            if session.scalar(select(ReleaseRow.digest).where(ReleaseRow.name == value.name)) is not None:
                raise BractError(ALREADY_EXISTS, f"release {value.name}")
            target = find(session, value.target)
            if target.kind not in MODELS - {NodeKind.BASE}:
                raise BractError(MALFORMED, f"a {target.kind} is not released")
            if weights_of(session, target.id, self.verify_key) != value.weights:
                raise BractError(MALFORMED, "weights: not those of the model")
            told = [known(session, NodeKind.EVALUATION, ref) for ref in value.evaluations]
            if None in told:
                raise BractError(MALFORMED, "evaluations: one is not registered")
            number = node(session, NodeKind.RELEASE, envelope.name)
            link(session, number, Relation.DERIVED, [target.id])
            link(session, number, Relation.USED, [one for one in told if one is not None], Role.EVIDENCE)
            session.add(
                ReleaseRow(
                    digest=envelope.name,
                    name=value.name,
                    node_id=number,
                    target_id=target.id,
                    author=author.fingerprint,
                    envelope=envelope.to_json(),
                    proposed_at=at,
                )
            )
            session.flush()
            unit.log("release.propose", envelope.name, actor(author), name=value.name, target=target.ref)
            extend(unit, [number])
        return envelope.name

    def approve(self, envelope: Envelope, at: datetime) -> None:
        """Take a signed `Approval`, for or against; the same again changes nothing.

        Raises:
            BractError: `untrusted`; `malformed` when there is no such release; `same-person` for its author;
                `wrong-state` for a second word, or a release that is published or taken back.
        """
        with self.writing(at) as unit:
            session = unit.session
            person, value = signed_by(session, Approval, envelope, ANYBODY)
            row = session.get(ReleaseRow, value.release)
            if row is None:
                raise BractError(MALFORMED, "no such release")
            if row.author == person.fingerprint:
                raise BractError(SAME_PERSON, "the author of a release does not approve it")
            before = session.get(ApprovalRow, (row.digest, person.fingerprint))
            if before is not None and before.digest == envelope.name:
                return
            if before is not None:
                raise BractError(STATE, f"{person.name} has spoken on this release already")
            if (state := state_of(session, row)) in ("published", "withdrawn"):
                raise BractError(STATE, f"the release is {state}")
            session.add(
                ApprovalRow(
                    release=row.digest,
                    person=person.fingerprint,
                    author=row.author,
                    decision=value.decision,
                    digest=envelope.name,
                    envelope=envelope.to_json(),
                    received_at=at,
                )
            )
            session.flush()
            unit.log("approval.take", envelope.name, actor(person), release=row.digest, decision=value.decision)

    def gate(self, release: str, at: datetime) -> GateReport:
        """How a release stands at the gate.

        Raises:
            BractError: `malformed` when there is no such release.
        """
        with self.seeing() as session:
            return examine(session, release_row(session, release), self.verify_key, at)

    def publish(self, release: str, at: datetime) -> Envelope:
        """Publish a release that passes the gate now: the hub signs it, with the gate's report.

        Raises:
            BractError: `release-gate`, naming the criteria that fail; `wrong-state` when it is published or taken back;
                `malformed` when there is no such release.
        """
        with self.writing(at) as unit:
            session = unit.session
            row = release_row(session, release)
            if (state := state_of(session, row)) in ("published", "withdrawn"):
                raise BractError(STATE, f"the release is {state}")
            report = examine(session, row, self.verify_key, at)
            if not report.ok:
                raise BractError(GATE, ", ".join(one.criterion for one in report.criteria if not one.passes))
            told = canonical(report.plain())
            envelope = unit.sign(_release(session, row, report, told))
            session.add(
                PublicationRow(
                    release=row.digest,
                    digest=envelope.name,
                    report=told,
                    envelope=envelope.to_json(),
                    published_at=at,
                )
            )
            overridden = [one.criterion for one in report.overrides]
            unit.log("release.publish", envelope.name, proposal=row.digest, name=row.name, overridden=overridden)
        return envelope

    def withdraw_release(self, envelope: Envelope, at: datetime) -> None:
        """Take a release back, published or not, by a signed `Withdrawn`; the record of it stays.

        Raises:
            BractError: `untrusted`; `malformed` when there is no such release; `wrong-state` when it was before.
        """
        with self.writing(at) as unit:
            session = unit.session
            person, value = signed_by(session, Withdrawn, envelope, TAKES_BACK)
            row = release_row(session, value.release)
            if session.get(TakenBackRow, row.digest) is not None:
                raise BractError(STATE, "the release was taken back before")
            session.add(
                TakenBackRow(
                    release=row.digest,
                    person=person.fingerprint,
                    digest=envelope.name,
                    envelope=envelope.to_json(),
                    withdrawn_at=at,
                )
            )
            unit.log("release.withdraw", envelope.name, actor(person), release=row.digest)

    def releases(self) -> tuple[ReleaseView, ...]:
        """Every release, oldest first."""
        with self.seeing() as session:
            rows = session.scalars(select(ReleaseRow).order_by(ReleaseRow.proposed_at, ReleaseRow.name)).all()
            words = approval_views(session)
            return tuple(view(session, row, words) for row in rows)

    def approvals(self) -> tuple[ApprovalView, ...]:
        """Every approval and rejection, oldest first."""
        with self.seeing() as session:
            return approval_views(session)


def _release(session: Session, row: ReleaseRow, report: GateReport, told: bytes) -> Release:
    proposal = decode(ReleaseProposal, parse_envelope(row.envelope).payload)
    c = LOG.checkpoint.c
    point = session.execute(select(c.size, c.envelope).order_by(c.size.desc()).limit(1)).one()
    return Release(
        proposal=Digest(row.digest),
        target=proposal.target,
        weights=proposal.weights,
        channel=proposal.channel,
        report=digest(told),
        approvals=tuple(Digest(word.digest) for word in counting(session, row)),
        overrides=tuple(one.digest for one in report.overrides),
        log_size=point.size,
        log_checkpoint=parse_envelope(point.envelope).name,
        published_at=report.at,
    )
