"""What a hub's registry knows of some models at a time: the one value from which every document is made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from bract.digest import Digest
from bract.errors import MALFORMED, BractError
from bract.model import Edge, Lineage, Node, NodeKind, Relation
from bract.objectives.certificate import Certificate
from bract.plan import CampaignPlan
from bract.privacy.spec import Mechanism

Key = tuple[NodeKind, str]


@dataclass(frozen=True)
class Clearing:
    """The clearance under which a contribution was made, as its site signed it."""

    digest: Digest
    site: str
    dataset: str
    purpose: str
    rule: Digest
    issued_at: datetime
    expires_at: datetime


@dataclass(frozen=True)
class Part:
    """A contribution that is in an encoder version, and under which clearance and mechanism it was made.

    Attributes:
        round: the round's reference in lineage.
        version: of the encoder version that the round made.
        snapshot: the snapshot's reference, `SITE/DIGEST`.
        private: False when it was made with a test sampler.
    """

    digest: str
    round: str
    version: str
    snapshot: str
    reservation: str
    mechanism: Mechanism
    private: bool
    clearing: Clearing


@dataclass(frozen=True)
class Touch:
    """A withdrawal that touches a model, what is known of its influence, and what was decided, if anything was."""

    site: str
    ref: str
    effect: str
    decision: str | None
    noticed_at: datetime


@dataclass(frozen=True)
class Published:
    """A release of a model: its state, and digests of what was signed for it."""

    digest: str
    name: str
    target: str
    channel: str
    state: str
    proposed_at: datetime
    published_at: datetime | None
    approvals: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """Facts that were recorded by `known_at`; nothing in them is about a person.

    Attributes:
        origin: the hub's name.
        about: the node that was asked for; None for all of lineage.
        plans: the campaigns' plans by their digest.
        parts: the contributions in the encoder versions that are in the lineage.
        evaluations: of the node that was asked for.
        certificates: the valid certificate of each objective in the plans, or why there is none.
        checkpoint_size: of the log's newest checkpoint by then; 0 before there was one.
    """

    origin: str
    known_at: datetime
    lineage: Lineage
    about: Key | None = None
    plans: Mapping[str, CampaignPlan] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    evaluations: tuple[Node, ...] = ()
    certificates: Mapping[str, Certificate | str] = field(default_factory=dict)
    touches: tuple[Touch, ...] = ()
    releases: tuple[Published, ...] = ()
    checkpoint_size: int = 0
    checkpoint_root: Digest | None = None

    @property
    def subject(self) -> Node:
        """The node that was asked for.

        Raises:
            BractError: `malformed` when none was, or lineage has it not.
        """
        if self.about is None or self.about not in self._nodes:
            raise BractError(MALFORMED, "name a model of the registry")
        return self._nodes[self.about]

    def of(self, *kinds: NodeKind) -> tuple[Node, ...]:
        """The nodes of these kinds, oldest first."""
        return tuple(node for node in self.lineage.nodes if node.kind in kinds)

    def older(self, node: Node, *relations: Relation) -> tuple[Node, ...]:
        """What the node points to by these relations (by any, if none is named)."""
        found = self._edges[0].get((node.kind, node.ref), ())
        return tuple(
            self._nodes[edge.dst_kind, edge.dst] for edge in found if not relations or edge.relation in relations
        )

    def newer(self, node: Node, *relations: Relation) -> tuple[Node, ...]:
        """What points to the node by these relations (by any, if none is named)."""
        found = self._edges[1].get((node.kind, node.ref), ())
        return tuple(
            self._nodes[edge.src_kind, edge.src] for edge in found if not relations or edge.relation in relations
        )

    @cached_property
    def _nodes(self) -> dict[Key, Node]:
        return {(node.kind, node.ref): node for node in self.lineage.nodes}

    @cached_property
    def _edges(self) -> tuple[dict[Key, list[Edge]], dict[Key, list[Edge]]]:
        """By their source, and by what they point to."""
        down, up = dict[Key, list[Edge]](), dict[Key, list[Edge]]()
        for edge in self.lineage.edges:
            down.setdefault((edge.src_kind, edge.src), []).append(edge)
            up.setdefault((edge.dst_kind, edge.dst), []).append(edge)
        return down, up


def cut(lineage: Lineage, at: datetime) -> Lineage:
    """Lineage as it was recorded by then.

    A node whose own time no record tells, and a data set, whose terms may have come later, was known when something that
    points to it was, as edges point to older things.
    """
    by_key = {(node.kind, node.ref): node for node in lineage.nodes}
    kept = {key for key, node in by_key.items() if node.at is not None and node.at <= at}
    todo = list(kept)
    below: dict[Key, list[Key]] = {}
    for edge in lineage.edges:
        below.setdefault((edge.src_kind, edge.src), []).append((edge.dst_kind, edge.dst))
    while todo:
        for older in below.get(todo.pop(), ()):
            if older not in kept and (by_key[older].at is None or older[0] is NodeKind.DATASET):
                kept.add(older)
                todo.append(older)
    nodes = tuple(node for node in lineage.nodes if (node.kind, node.ref) in kept)
    overrides = tuple(one for one in lineage.overrides if one.at <= at)
    return Lineage(nodes, _among(lineage.edges, kept), overrides)


def ancestry(lineage: Lineage, about: Key) -> Lineage:
    """A node and everything that it descends from.

    Raises:
        BractError: `malformed` when lineage has no such node.
    """
    if about not in {(node.kind, node.ref) for node in lineage.nodes}:
        raise BractError(MALFORMED, "lineage has no such node at that time")
    below: dict[Key, list[Key]] = {}
    for edge in lineage.edges:
        below.setdefault((edge.src_kind, edge.src), []).append((edge.dst_kind, edge.dst))
    kept, todo = {about}, [about]
    while todo:
        for older in below.get(todo.pop(), ()):
            if older not in kept:
                kept.add(older)
                todo.append(older)
    nodes = tuple(node for node in lineage.nodes if (node.kind, node.ref) in kept)
    refs = {ref for _, ref in kept}
    overrides = tuple(one for one in lineage.overrides if one.about in refs)
    return Lineage(nodes, _among(lineage.edges, kept), overrides)


def _among(edges: tuple[Edge, ...], kept: set[Key]) -> tuple[Edge, ...]:
    return tuple(edge for edge in edges if (edge.src_kind, edge.src) in kept and (edge.dst_kind, edge.dst) in kept)
