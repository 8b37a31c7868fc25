"""Lineage in memory: the whole of it, or what is above some nodes, and what flows along its edges."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import CTE, select
from sqlalchemy.orm import Session

from bract.model import Role
from bract.use import NONE, Uses, narrowed
from bract.vocabulary.modifiers import Modifier
from bract_server.registry.models import EdgeRow, NodeRow
from bract_server.withdrawal import parents_first

Link = tuple[int, int, str, str | None]
"""(src, dst, relation, role)."""


@dataclass(frozen=True)
class Graph:
    """Nodes by number, and edges; `parents` has every node, also those that point nowhere."""

    kinds: dict[int, str]
    refs: dict[int, str]
    links: tuple[Link, ...]
    parents: dict[int, tuple[int, ...]]

    def children(self) -> dict[int, tuple[int, ...]]:
        """Of every node, what points to it."""
        found: dict[int, list[int]] = {node: [] for node in self.kinds}
        for src, dst, _, _ in self.links:
            found[dst].append(src)
        return {node: tuple(children) for node, children in found.items()}

    def part(self, nodes: Iterable[int]) -> "Graph":
        """These nodes and the edges among them."""
        kept = set(nodes)
        links = tuple(link for link in self.links if link[0] in kept and link[1] in kept)
        kinds = {node: kind for node, kind in self.kinds.items() if node in kept}
        return Graph(kinds, {node: self.refs[node] for node in kinds}, links, _parents(kinds, links))


def load(session: Session, within: CTE | None = None) -> Graph:
    """The graph, or the nodes of `within` and the edges from them; `within` must hold all that its nodes point to."""
    nodes = select(NodeRow.id, NodeRow.kind, NodeRow.ref).order_by(NodeRow.id)
    edges = select(EdgeRow.src, EdgeRow.dst, EdgeRow.relation, EdgeRow.role).order_by(EdgeRow.src, EdgeRow.dst)
    if within is not None:
        nodes = nodes.join(within, within.c.id == NodeRow.id)
        edges = edges.join(within, within.c.id == EdgeRow.src)
    kinds, refs = dict[int, str](), dict[int, str]()
    for number, kind, ref in session.execute(nodes):
        kinds[number], refs[number] = kind, ref
    links = tuple((src, dst, relation, role) for src, dst, relation, role in session.execute(edges))
    return Graph(kinds, refs, links, _parents(kinds, links))


def reach(neighbours: dict[int, tuple[int, ...]], start: Iterable[int]) -> set[int]:
    """The start and everything reached from it."""
    found, todo = set(start), list(start)
    while todo:
        for other in neighbours[todo.pop()]:
            if other not in found:
                found.add(other)
                todo.append(other)
    return found


@dataclass(frozen=True)
class Allowance:
    """What a node permits, and the modifiers that go with it."""

    uses: Uses
    modifiers: frozenset[Modifier]


NOTHING = Allowance(NONE, frozenset())


def allowances(graph: Graph, own: dict[int, Allowance]) -> dict[int, Allowance]:
    """What every node of a graph permits (`bract.use`, rules 4 and 5).

    Args:
        graph: with everything above its nodes.
        own: of each source, what it permits by itself; sources are not narrowed by what they were drawn from.
    """
    above: dict[int, list[int]] = {node: [] for node in graph.parents}
    for src, dst, _, role in graph.links:
        if role != Role.EVIDENCE:
            above[src].append(dst)
    found: dict[int, Allowance] = {}
    for node in parents_first(graph.parents):
        if node in own:
            found[node] = own[node]
            continue
        parents = [found[older] for older in above[node]]
        first = parents[0] if parents else NOTHING
        # Long chains hand the same two sets on and on; they are not made anew each time.
        if all(parent.uses == first.uses and parent.modifiers == first.modifiers for parent in parents):
            found[node] = first
            continue
        gone_along = frozenset[Modifier]().union(*(parent.modifiers for parent in parents))
        found[node] = Allowance(narrowed(parent.uses for parent in parents), gone_along)
    return found


def _parents(kinds: dict[int, str], links: Iterable[Link]) -> dict[int, tuple[int, ...]]:
    found: dict[int, list[int]] = {node: [] for node in kinds}
    for src, dst, _, _ in links:
        found[src].append(dst)
    return {node: tuple(dict.fromkeys(olders)) for node, olders in found.items()}
