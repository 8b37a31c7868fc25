"""Lineage as a table: one row an edge, and one for each node that no edge touches."""

from typing import Any

from bract.export.facts import Facts
from bract.export.tabular import Column, Table, Type

COLUMNS = (
    Column("src_kind"),
    Column("src"),
    Column("src_name"),
    Column("relation"),
    Column("role"),
    Column("dst_kind"),
    Column("dst"),
    Column("dst_name"),
    Column("src_at"),
    Column("src_facts", Type.JSON),
)

DEFINITION = (
    "Edges of lineage, from the newer thing to the older one, in the relations of W3C PROV-DM; a node without edges has a row "
    "of its own, with its own columns only."
)


def edge_table(facts: Facts) -> Table:
    """The edges, in the order of lineage."""
    return Table(COLUMNS, _rows(facts), DEFINITION)


def _rows(facts: Facts) -> list[dict[str, Any]]:
    nodes = {(node.kind, node.ref): node for node in facts.lineage.nodes}
    ends = set[tuple[str, str]]()
    rows: list[dict[str, Any]] = []
    for edge in facts.lineage.edges:
        src, dst = nodes[edge.src_kind, edge.src], nodes[edge.dst_kind, edge.dst]
        ends |= {(src.kind, src.ref), (dst.kind, dst.ref)}
        rows.append(
            _source(src)
            | {"relation": edge.relation.value, "role": edge.role.value if edge.role else None}
            | {"dst_kind": dst.kind.value, "dst": dst.ref, "dst_name": dst.name}
        )
    return rows + [_source(node) for key, node in nodes.items() if key not in ends]


def _source(node: Any) -> dict[str, Any]:
    return {
        "src_kind": node.kind.value,
        "src": node.ref,
        "src_name": node.name,
        "src_at": None if node.at is None else node.at.isoformat(),
        "src_facts": node.body,
    }
