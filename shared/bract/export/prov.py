"""Lineage as PROV-JSON [W3C Member Submission, 24 April 2013] in the terms of PROV-DM [W3C Rec., 30 April 2013].

Rounds are activities, as is whatever only used and made things; all else are entities. Where an edge's relation asks for an
activity and the node is an entity, the edge is `wasInfluencedBy`, of which all others are special cases (PROV-DM §5.3.4),
and `bract:relation` says which it was. So every node is there once, and every edge once.
"""

from typing import Any

from bract.digest import canonical
from bract.export.facts import Facts, Key
from bract.export.names import NAMESPACE, agent, local, moment
from bract.model import Edge, Node, NodeKind, Relation

_PREFIX = "bract"


def prov_json(facts: Facts) -> dict[str, Any]:
    """The lineage as a PROV-JSON document; sites and the hub are its agents."""
    active = activities(facts)
    found: dict[str, dict[str, Any]] = {"prefix": {_PREFIX: NAMESPACE}}
    for node in facts.lineage.nodes:
        kind = "activity" if (node.kind, node.ref) in active else "entity"
        found.setdefault(kind, {})[_name(node.kind, node.ref)] = _attributes(facts, node, kind == "activity")
    for number, edge in enumerate(facts.lineage.edges, start=1):
        relation, body = _relation(edge, active)
        found.setdefault(relation, {})[f"_:edge{number}"] = body
    _agents(facts, active, found)
    return found


def activities(facts: Facts) -> set[Key]:
    """The nodes that are activities."""
    acting, being = set[Key](), set[Key]()
    for edge in facts.lineage.edges:
        src, dst = (edge.src_kind, edge.src), (edge.dst_kind, edge.dst)
        (acting if edge.relation is Relation.USED else being).add(src)
        (acting if edge.relation is Relation.GENERATED else being).add(dst)
    rounds = {(node.kind, node.ref) for node in facts.lineage.nodes if node.kind is NodeKind.ROUND}
    return rounds | (acting - being)


def _name(kind: NodeKind, ref: str) -> str:
    return f"{_PREFIX}:{local(kind, ref)}"


def _attributes(facts: Facts, node: Node, active: bool) -> dict[str, Any]:
    told: dict[str, Any] = {
        "prov:type": {"$": f"{_PREFIX}:{node.kind.value}", "type": "prov:QUALIFIED_NAME"},
        "prov:label": node.name,
        "bract:ref": node.ref,
        "bract:facts": canonical(node.body).decode(),
        "bract:permits": list(node.permits),
        "bract:modifiers": [str(one) for one in node.modifiers],
    }
    if active:
        ended = [made.at for made in facts.newer(node, Relation.GENERATED) if made.at is not None]
        told |= {"prov:startTime": moment(node.at)} if node.at else {}
        told |= {"prov:endTime": moment(max(ended))} if ended else {}
    elif node.at is not None:
        told["bract:recordedAt"] = {"$": moment(node.at), "type": "xsd:dateTime"}
    return {key: value for key, value in told.items() if value != []}


def _relation(edge: Edge, active: set[Key]) -> tuple[str, dict[str, Any]]:
    src, dst = _name(edge.src_kind, edge.src), _name(edge.dst_kind, edge.dst)
    acts, used = (edge.src_kind, edge.src) in active, (edge.dst_kind, edge.dst) in active
    role = {} if edge.role is None else {"prov:role": edge.role.value}
    match edge.relation:
        case Relation.USED if acts and not used:
            return "used", {"prov:activity": src, "prov:entity": dst, **role}
        case Relation.GENERATED if used and not acts:
            return "wasGeneratedBy", {"prov:entity": src, "prov:activity": dst, **role}
        case Relation.DERIVED if not acts and not used:
            body = {"prov:generatedEntity": src, "prov:usedEntity": dst}
            return "wasDerivedFrom", body | ({"bract:role": edge.role.value} if edge.role else {})
    body = {"prov:influencee": src, "prov:influencer": dst, "bract:relation": edge.relation.value}
    return "wasInfluencedBy", body | ({"bract:role": edge.role.value} if edge.role else {})


def _agents(facts: Facts, active: set[Key], found: dict[str, dict[str, Any]]) -> None:
    """The hub ran the activities; what comes from a site is attributed to it."""
    hub = f"{_PREFIX}:{agent('hub', facts.origin)}"
    found["agent"] = {hub: _agent(facts.origin)}
    for number, node in enumerate(facts.lineage.nodes, start=1):
        name = _name(node.kind, node.ref)
        if (node.kind, node.ref) in active:
            body = {"prov:activity": name, "prov:agent": hub}
            found.setdefault("wasAssociatedWith", {})[f"_:association{number}"] = body
        elif isinstance(site := node.body.get("site"), str):
            there = f"{_PREFIX}:{agent('site', site)}"
            found["agent"][there] = _agent(site)
            body = {"prov:entity": name, "prov:agent": there}
            found.setdefault("wasAttributedTo", {})[f"_:attribution{number}"] = body


def _agent(name: str) -> dict[str, Any]:
    return {"prov:type": {"$": "prov:Organization", "type": "prov:QUALIFIED_NAME"}, "prov:label": name}
