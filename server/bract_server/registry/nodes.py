"""Lineage beyond rounds: what is registered in it, and its whole graph as frozen values.

Rules:
    1. What a thing is made from must be in lineage already, and be of a kind that its role fits.
    2. Everything above it must permit its purpose, or somebody who may has signed an override.
    3. Nothing is made from a model that somebody decided to retire.
    4. A data set's terms are signed by its site, or by the hub's data protection officer.
"""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import ALREADY_EXISTS, MALFORMED, OFF_PURPOSE, STATE, UNTRUSTED, BractError
from bract.model import (
    MODELS,
    DatasetTerms,
    Derived,
    ExternalSource,
    Lineage,
    ModelCard,
    NodeKind,
    PublicWeights,
    Relation,
    Role,
)
from bract.release import Criterion, PersonRole, Remedy
from bract.signing import Envelope, key_id, unseal, verify_key
from bract.value import digest_value
from bract_server.registry.bodies import told
from bract_server.registry.gate import weights_of
from bract_server.registry.graph import NOTHING, allowances, load, reach
from bract_server.registry.impacts import extend
from bract_server.registry.lineage import above, below, dataset_ref, known, link, node
from bract_server.registry.models import ArtefactRow, CardRow, SiteRow, TermsRow
from bract_server.registry.persons import actor, signed_by, take_override
from bract_server.registry.references import find
from bract_server.registry.sites import live_site
from bract_server.registry.sources import lacking, sources
from bract_server.registry.standing import last_remedies
from bract_server.registry.unit import Store, Unit

_DATA = frozenset({NodeKind.SNAPSHOT, NodeKind.EXTERNAL})
_FITS: dict[Role, frozenset[NodeKind]] = {
    Role.INITIALISED: MODELS,
    Role.DISTILLED: MODELS,
    Role.EVALUATED: MODELS,
    Role.TRAINED: _DATA,
    Role.EVALUATED_ON: _DATA,
}
_NEEDS = {
    NodeKind.FINETUNE: Role.INITIALISED,
    NodeKind.STUDENT: Role.DISTILLED,
    NodeKind.EVALUATION: Role.EVALUATED,
}
_RELATION = {Role.INITIALISED: Relation.DERIVED, Role.DISTILLED: Relation.DERIVED, Role.EVALUATED: Relation.DERIVED}


class Nodes(Store):
    """The part of the registry that knows what came of what."""

    def add_source(self, value: ExternalSource | PublicWeights, at: datetime) -> str:
        """Register data or weights from elsewhere; returns their reference.

        Raises:
            BractError: `already-exists` for a taken name, or the same thing.
        """
        external = isinstance(value, ExternalSource)
        kind = NodeKind.EXTERNAL if external else NodeKind.BASE
        content = value.content if isinstance(value, ExternalSource) else value.weights
        with self.writing(at) as unit:
            ref = digest_value(value) if external else content
            _register(unit, kind, ref, value, content)
        return ref

    def derive(self, value: Derived, at: datetime, override: Envelope | None = None) -> Digest:
        """Register a fine-tune, a student or an evaluation; returns its reference.

        Args:
            value: what it is, and what it was made from.
            at: now.
            override: a signed `bract.release.Override` of `purpose` about the digest of `value`.

        Raises:
            BractError: `off-purpose`, naming what does not permit it; `malformed` for inputs that are not there or do
                not fit; `wrong-state` for a retired one; `already-exists`; `untrusted` for an override by somebody else.
        """
        ref = digest_value(value)
        with self.writing(at) as unit:
            inputs = _inputs(unit.session, value)
            if override is not None:
                given = take_override(unit, override)
                if (given.about, given.criterion) != (ref, Criterion.PURPOSE):
                    raise BractError(UNTRUSTED, "the override is about something else")
            else:
                _check_purpose(unit.session, value, [number for number, _ in inputs])
            number = _register(unit, value.kind, ref, value, value.content, value.purpose)
            for older, role in inputs:
                link(unit.session, number, _RELATION.get(role, Relation.USED), [older], role)
            extend(unit, [number])
        return ref

    def relate(self, src: str, dst: str, role: Role, at: datetime) -> None:
        """Add an edge between two things that are in lineage already, because it was learnt late. Again changes nothing.

        Whatever notice of withdrawal now touches what descends from `src` lists it.

        Raises:
            BractError: `wrong-state` when it would close a circle; `malformed` for things that are not there or do not
                fit the role.
        """
        with self.writing(at) as unit:
            session = unit.session
            newer, older = find(session, src), find(session, dst)
            if newer.kind in (NodeKind.RELEASE, NodeKind.ROUND) or older.kind not in _FITS.get(role, frozenset()):
                raise BractError(MALFORMED, f"{role}: a {newer.kind} and a {older.kind} do not fit")
            if not link(session, newer.id, _RELATION.get(role, Relation.USED), [older.id], role, at):
                return
            unit.log("lineage.relate", newer.ref, to=older.ref, role=str(role))
            extend(unit, list(session.scalars(select(below([newer.id]).c.id))))

    def declare(self, site: str, envelope: Envelope, at: datetime) -> None:
        """Take a data set's `DatasetTerms` from its site, which must have signed them itself (see `set_terms`)."""
        self.set_terms(envelope, at, site)

    def set_terms(self, envelope: Envelope, at: datetime, by: str | None = None) -> None:
        """Take a data set's signed `DatasetTerms`; they take the place of earlier ones. The same again changes nothing.

        Raises:
            BractError: `untrusted` unless the site signed it, or the data protection officer; `unknown-site`.
        """
        with self.writing(at) as unit:
            session = unit.session
            signer, value = _terms_signer(session, envelope)
            if by not in (None, signer):
                raise BractError(UNTRUSTED, f"not signed by {by}")
            live_site(session, value.site)
            if session.scalar(select(TermsRow.id).where(TermsRow.digest == envelope.name)) is not None:
                return
            ref = dataset_ref(value.site, value.dataset)
            node(session, NodeKind.DATASET, ref)
            row = TermsRow(
                dataset=ref,
                digest=envelope.name,
                signer=envelope.keyid,
                envelope=envelope.to_json(),
                received_at=at,
            )
            session.add(row)
            unit.log("terms.take", envelope.name, signer, dataset=ref, declares=sorted(value.declares))

    def add_card(self, card: ModelCard, at: datetime) -> Digest:
        """Keep a model's card, signed by the hub; it takes the place of an earlier one.

        Raises:
            BractError: `malformed` when there is no such model; `already-exists` for the same card again.
        """
        with self.writing(at) as unit:
            about = find(unit.session, card.about)
            if about.kind not in MODELS:
                raise BractError(MALFORMED, f"a {about.kind} has no card")
            envelope = unit.sign(card)
            if unit.session.scalar(select(CardRow.id).where(CardRow.digest == envelope.name)) is not None:
                raise BractError(ALREADY_EXISTS, "this very card")
            unit.session.add(
                CardRow(node_id=about.id, digest=envelope.name, envelope=envelope.to_json(), registered_at=at)
            )
            unit.log("card.add", envelope.name, of=about.ref)
        return envelope.name

    def thing(self, ref: str) -> tuple[NodeKind, str]:
        """The kind and whole reference of what somebody means (see `bract_server.registry.references`).

        Raises:
            BractError: `malformed` when there is no such thing, or several.
        """
        with self.seeing() as session:
            row = find(session, ref)
            return NodeKind(row.kind), row.ref

    def weights(self, ref: str) -> Digest:
        """The digest of the weights of a version, a fine-tune or a student.

        Raises:
            BractError: `malformed` when there is no such model.
        """
        with self.seeing() as session:
            row = find(session, ref)
            found = weights_of(session, row.id, self.verify_key) if row.kind in MODELS - {NodeKind.BASE} else None
            if found is None:
                raise BractError(MALFORMED, f"a {row.kind} has no weights here")
            return Digest(found)

    def lineage(self) -> Lineage:
        """All of lineage."""
        with self.seeing() as session:
            graph = load(session)
            return told(session, graph, allowances(graph, sources(session, graph)))

    def ancestry(self, ref: str) -> Lineage:
        """A thing and everything that it descends from.

        Raises:
            BractError: `malformed` when there is no such thing, or several.
        """
        with self.seeing() as session:
            graph = load(session, above([find(session, ref).id]))
            return told(session, graph, allowances(graph, sources(session, graph)))

    def descendants_of(self, ref: str) -> Lineage:
        """A thing and everything that descends from it; what it permits is told in the light of all that is above.

        Raises:
            BractError: `malformed` when there is no such thing, or several.
        """
        with self.seeing() as session:
            start = find(session, ref).id
            graph = load(session)
            permits = allowances(graph, sources(session, graph))
            return told(session, graph.part(reach(graph.children(), [start])), permits)


def _register(
    unit: Unit,
    kind: NodeKind,
    ref: str,
    value: ExternalSource | PublicWeights | Derived,
    content: str,
    purpose: str | None = None,
) -> int:
    session = unit.session
    number = node(session, kind, ref)
    taken = (ArtefactRow.node_id == number) | ((ArtefactRow.kind == kind) & (ArtefactRow.name == value.name))
    if session.scalar(select(ArtefactRow.node_id).where(taken)) is not None:
        raise BractError(ALREADY_EXISTS, f"{kind} {value.name}, or the same under another name")
    envelope = unit.sign(value)
    row = ArtefactRow(
        node_id=number,
        kind=str(kind),
        name=value.name,
        digest=envelope.name,
        content=content,
        purpose=purpose,
        envelope=envelope.to_json(),
        registered_at=unit.at,
    )
    session.add(row)
    session.flush()
    unit.log("lineage.add", envelope.name, node=str(kind), name=value.name)
    return number


def _inputs(session: Session, value: Derived) -> list[tuple[int, Role]]:
    """The nodes that a derived thing was made from (rules 1 and 3)."""
    roles = [one.role for one in value.inputs]
    if _NEEDS[value.kind] not in roles:
        raise BractError(MALFORMED, f"a {value.kind} needs something that it was {_NEEDS[value.kind]}")
    found = []
    for one in value.inputs:
        if one.kind not in _FITS.get(one.role, frozenset()):
            raise BractError(MALFORMED, f"{one.role}: not from a {one.kind}; name a snapshot of a data set")
        number = known(session, one.kind, one.ref)
        if number is None:
            raise BractError(MALFORMED, f"lineage has no {one.kind} {one.ref}")
        found.append((number, one.role))
    last = last_remedies(session)
    for one, (number, _) in zip(value.inputs, found, strict=True):
        if Remedy.RETIRE in last.get(number, ()):
            raise BractError(STATE, f"somebody decided to retire {one.ref}")
    return found


def _check_purpose(session: Session, value: Derived, inputs: list[int]) -> None:
    """Rule 2."""
    graph = load(session, above(inputs))
    own = sources(session, graph)
    permits = allowances(graph, own)
    if all(value.purpose in permits.get(number, NOTHING).uses for number in inputs):
        return
    named = lacking(graph, own, value.purpose, inputs)
    more = f" and {len(named) - 3} others" if len(named) > 3 else ""
    raise BractError(OFF_PURPOSE, f"{value.purpose} is not permitted by {', '.join(named[:3])}{more}")


def _terms_signer(session: Session, envelope: Envelope) -> tuple[str, DatasetTerms]:
    """Who signed a data set's terms (rule 4): the site that they are about, or a data protection officer."""
    for site in session.scalars(select(SiteRow).where(SiteRow.revoked_at.is_(None))):
        key = verify_key(site.verify_key)
        if key_id(key) == envelope.keyid:
            value = unseal(DatasetTerms, envelope, key)
            if value.site != site.name:
                raise BractError(UNTRUSTED, "a site speaks for itself only")
            return site.name, value
    person, value = signed_by(session, DatasetTerms, envelope, frozenset({PersonRole.DPO}))
    return actor(person), value
