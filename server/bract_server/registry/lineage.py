"""Lineage: which snapshot went into which round, which round made which version, what was made from versions.

Edges point from the newer node to the older one: a version `wasDerivedFrom` its parent and `wasGeneratedBy` a round; a
round `used` the contributions that are in its version; a contribution `wasDerivedFrom` a snapshot, and that from its data
set.

Lineage has no circles. A newer node has a higher number, and the schema refuses an edge to a higher one, but for edges
that were learnt late; those are looked at one by one before they are made (`link`).
"""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import CTE, Select, func, select
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import STATE, BractError
from bract.model import NodeKind, Relation, Role
from bract.receipt import EncoderVersion
from bract.value import digest_value, encode
from bract_server.registry.models import EdgeRow, NodeRow, ServerStateRow, VersionRow
from bract_server.registry.unit import Unit

SNAPSHOT, ROUND, VERSION = NodeKind.SNAPSHOT, NodeKind.ROUND, NodeKind.VERSION


def snapshot_ref(site: str, snapshot: str) -> str:
    """A snapshot as lineage names it: under its site, so that no site can speak of another's."""
    return f"{site}/{snapshot}"


def dataset_ref(site: str, dataset: str) -> str:
    """A data set as lineage names it."""
    return f"{site}/{dataset}"


def add_version(unit: Unit, version: EncoderVersion, server_state: Digest | None) -> Digest:
    """Keep a version, its node and its log entry; edges are `link`ed by whoever knows them.

    A first version descends from the public weights that the campaign's signed plan gives rise to.
    """
    digest = digest_value(version)
    unit.session.add(
        VersionRow(
            digest=digest,
            campaign=version.campaign,
            number=version.number,
            parent=version.parent,
            arrays=version.arrays,
            body=encode(version),
            created_at=unit.at,
        )
    )
    unit.session.flush()
    if server_state is not None:
        unit.session.add(ServerStateRow(version=digest, digest=server_state))
    if version.parent is None:
        weights = node(unit.session, NodeKind.BASE, version.arrays)
        made = node(unit.session, VERSION, digest)
        link(unit.session, made, Relation.DERIVED, [weights], Role.INITIALISED)
    node(unit.session, VERSION, digest)
    unit.log("version.add", digest, campaign=version.campaign, number=version.number, server_state=server_state)
    return digest


def known(session: Session, kind: str, ref: str) -> int | None:
    """The number of a node, None if there is none."""
    return session.scalar(select(NodeRow.id).where(NodeRow.kind == kind, NodeRow.ref == ref))


def node(session: Session, kind: str, ref: str) -> int:
    """The number of a node, made now if it is new: a newer node always has a higher number."""
    found = known(session, kind, ref)
    if found is not None:
        return found
    highest = session.scalar(select(func.coalesce(func.max(NodeRow.id), 0)))
    session.add(NodeRow(id=(made := int(highest or 0) + 1), kind=str(kind), ref=ref))
    session.flush()
    return made


def link(
    session: Session,
    src: int,
    relation: Relation,
    dst: Iterable[int],
    role: Role | None = None,
    learnt_at: datetime | None = None,
) -> bool:
    """Add edges, and tell whether any is new; one that is there already stays as it is.

    Args:
        session: of the caller's transaction.
        src: the newer node.
        relation: in the words of PROV.
        dst: the older ones.
        role: what they were for.
        learnt_at: when, for an edge that does not come with `src`.

    Raises:
        BractError: `wrong-state` when an edge would close a circle.
    """
    there = set(session.scalars(select(EdgeRow.dst).where(EdgeRow.src == src, EdgeRow.relation == relation)))
    new = sorted(set(dst) - there)
    for older in new:
        late = older >= src
        if late and src in _ids(session, above([older])):
            raise BractError(STATE, "the edge would close a circle: what it is to point to descends from it")
        session.add(
            EdgeRow(src=src, dst=older, relation=str(relation), role=role and str(role), late=late, learnt_at=learnt_at)
        )
        session.flush()
    return bool(new)


def above(nodes: Iterable[int]) -> CTE:
    """These nodes and everything that they descend from."""
    return _reach(_start(nodes), down=False)


def below(nodes: Iterable[int]) -> CTE:
    """These nodes and everything that descends from them."""
    return _reach(_start(nodes), down=True)


def _start(nodes: Iterable[int]) -> Select[int]:
    return select(NodeRow.id.label("id")).where(NodeRow.id.in_(list(nodes)))


def _reach(start: Select[int], *, down: bool) -> CTE:
    reached = start.cte("reached", recursive=True)
    here, there = (EdgeRow.dst, EdgeRow.src) if down else (EdgeRow.src, EdgeRow.dst)
    return reached.union(select(there).join(reached, here == reached.c.id))


def _ids(session: Session, reached: CTE) -> set[int]:
    return set(session.scalars(select(reached.c.id)))


def nodes_of(session: Session, kind: str, refs: Iterable[str]) -> dict[str, int]:
    """The numbers of those of these nodes that there are, by reference."""
    found = select(NodeRow.ref, NodeRow.id).where(NodeRow.kind == kind, NodeRow.ref.in_(list(refs)))
    return dict(session.execute(found).all())


def descendants(session: Session, kind: str, refs: Iterable[str]) -> tuple[Digest, ...]:
    """The encoder versions that descend from these nodes, oldest first."""
    start = select(NodeRow.id.label("id")).where(NodeRow.kind == kind, NodeRow.ref.in_(list(refs)))
    return tuple(Digest(ref) for ref in _refs(session, _reach(start, down=True), VERSION))


def ancestors(session: Session, version: str, kind: str) -> tuple[str, ...]:
    """The references of all nodes of a kind that a version descends from (itself included, if it is of that kind)."""
    start = select(NodeRow.id.label("id")).where(NodeRow.kind == VERSION, NodeRow.ref == version)
    return _refs(session, _reach(start, down=False), kind)


def _refs(session: Session, reached: CTE, kind: str) -> tuple[str, ...]:
    statement = select(NodeRow.ref).join(reached, reached.c.id == NodeRow.id)
    return tuple(session.scalars(statement.where(NodeRow.kind == kind).order_by(NodeRow.id)))
