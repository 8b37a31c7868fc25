"""Lineage: which snapshot went into which round, which round made which version, which version came from which.

Edges point from the newer node to the older one: a version `wasDerivedFrom` its parent and `wasGeneratedBy` a round;
a round `used` the snapshots of the contributions that are in its version.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import CTE, Select, func, select
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.receipt import EncoderVersion
from bract.value import digest_value, encode
from bract_server.registry.models import EdgeRow, NodeRow, ServerStateRow, VersionRow
from bract_server.registry.unit import Unit

SNAPSHOT, ROUND, VERSION = "snapshot", "round", "version"


def snapshot_ref(site: str, snapshot: str) -> str:
    """A snapshot as lineage names it: under its site, so that no site can speak of another's."""
    return f"{site}/{snapshot}"


def add_version(unit: Unit, version: EncoderVersion, server_state: Digest | None) -> Digest:
    """Keep a version, its node and its log entry; edges are `link`ed by whoever knows them."""
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
    node(unit.session, VERSION, digest)
    unit.log("version.add", digest, campaign=version.campaign, number=version.number, server_state=server_state)
    return digest


def node(session: Session, kind: str, ref: str) -> int:
    """The number of a node, made now if it is new: a newer node always has a higher number."""
    found = session.scalar(select(NodeRow.id).where(NodeRow.kind == kind, NodeRow.ref == ref))
    if found is not None:
        return found
    highest = session.scalar(select(func.coalesce(func.max(NodeRow.id), 0)))
    session.add(NodeRow(id=(made := int(highest or 0) + 1), kind=kind, ref=ref))
    session.flush()
    return made


def link(session: Session, src: int, relation: str, dst: Iterable[int]) -> None:
    """Add edges from one node to older ones; the schema refuses any other."""
    session.add_all(EdgeRow(src=src, dst=older, relation=relation) for older in sorted(set(dst)))
    session.flush()


def _reach(start: Select[int], *, down: bool) -> CTE:
    """Every node reached from `start` along edges: `down` to what descends from it, else up to its ancestors."""
    reached = start.cte("reached", recursive=True)
    here, there = (EdgeRow.dst, EdgeRow.src) if down else (EdgeRow.src, EdgeRow.dst)
    return reached.union(select(there).join(reached, here == reached.c.id))


def descendants(session: Session, kind: str, refs: Iterable[str]) -> tuple[Digest, ...]:
    """The versions that descend from these nodes, oldest first."""
    start = select(NodeRow.id.label("id")).where(NodeRow.kind == kind, NodeRow.ref.in_(list(refs)))
    return tuple(Digest(ref) for ref in _refs(session, _reach(start, down=True), VERSION))


def ancestors(session: Session, version: str, kind: str) -> tuple[str, ...]:
    """The references of all nodes of a kind that a version descends from (itself included, if it is of that kind)."""
    start = select(NodeRow.id.label("id")).where(NodeRow.kind == VERSION, NodeRow.ref == version)
    return _refs(session, _reach(start, down=False), kind)


def _refs(session: Session, reached: CTE, kind: str) -> tuple[str, ...]:
    statement: Select[Any] = select(NodeRow.ref).join(reached, reached.c.id == NodeRow.id)
    return tuple(session.scalars(statement.where(NodeRow.kind == kind).order_by(NodeRow.id)))
