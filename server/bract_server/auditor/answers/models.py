"""Questions 6, 12 and 15 at the hub: where models come from, what they were tried on, what their documents lack."""

from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any

from sqlalchemy import select

from bract.errors import MALFORMED, BractError
from bract.model import MODELS, Edge, Lineage, Node, NodeKind, Role
from bract.question import Cite, Draft, Moment, stamp
from bract_server.auditor.sight import Arguments, Sight
from bract_server.registry.contributions import contribution_of
from bract_server.registry.models import CardRow, ContributionRow, NodeRow

_ENTRY = {
    NodeKind.VERSION: "version.add",
    NodeKind.ROUND: "round.open",
    NodeKind.CONTRIBUTION: "contribution.accept",
    NodeKind.RELEASE: "*",
    NodeKind.FINETUNE: "*",
    NodeKind.STUDENT: "*",
    NodeKind.EVALUATION: "*",
    NodeKind.EXTERNAL: "*",
}


def ancestry(sight: Sight, when: Moment, arguments: Arguments) -> Draft:
    """Question 6. Takes `of`: a model or release; without it, the newest one."""
    sight = sight.then(when.known)
    columns = ("depth", "kind", "name", "ref", "at", "comes_from", "plan", "code", "permits", "modifiers", "entry")
    asked = arguments.of or _newest(sight, when)
    if asked is None:
        return Draft(columns, (), ("No model was registered by then.",))
    found = sight.ancestry(asked)
    top = _asked(found)
    if top.at is not None and top.at > when.known:
        raise BractError(MALFORMED, "of: it was not known then")
    depths = _depths(found.edges, top.ref)
    rows = [_node_row(node, depths.get(node.ref, 0), found.edges) for node in found.nodes if _known(node, when)]
    rows.sort(key=lambda row: (row["depth"], row["kind"], row["ref"]))
    notes = [
        "Code: of fine-tunes, students and evaluations as their operator registered it. Of rounds no program version is "
        "recorded: each site runs what it installed, under the plan whose digest stands here."
    ]
    rows.extend(_signed_rows(sight, found, when))
    if not any(row["kind"] == "approval" for row in rows):
        notes.append("No approval is recorded for it: it is in no release that somebody approved.")
    return Draft(columns, tuple(rows), tuple(notes))


def _newest(sight: Sight, when: Moment) -> str | None:
    """The newest release, or else the newest model."""
    releases = [one for one in sight.releases() if one.proposed_at <= when.known]
    if releases:
        return str(releases[-1].digest)
    models = [one for one in sight.lineage().nodes if one.kind in MODELS - {NodeKind.BASE} and _known(one, when)]
    return models[-1].ref if models else None


def _asked(found: Lineage) -> Node:
    """The node whose ancestry it is: the one that nothing in it comes from."""
    older = {edge.dst for edge in found.edges}
    return next(node for node in found.nodes if node.ref not in older)


def _known(node: Node, when: Moment) -> bool:
    return node.at is None or node.at <= when.known


def _depths(edges: Iterable[Edge], top: str) -> dict[str, int]:
    """How many edges each node is away from the asked one, by the shortest way."""
    parents: dict[str, list[str]] = defaultdict(list)
    for edge in edges:
        parents[edge.src].append(edge.dst)
    depths, todo = {top: 0}, deque([top])
    while todo:
        here = todo.popleft()
        for older in parents[here]:
            if older not in depths:
                depths[older] = depths[here] + 1
                todo.append(older)
    return depths


def _node_row(node: Node, depth: int, edges: Iterable[Edge]) -> dict[str, Any]:
    cite: Cite | None = (_ENTRY[node.kind], node.ref) if node.kind in _ENTRY else None
    return {
        "depth": depth,
        "kind": str(node.kind),
        "name": node.name,
        "ref": node.ref,
        "at": stamp(node.at),
        "comes_from": [f"{edge.relation} {edge.dst}" for edge in edges if edge.src == node.ref],
        "plan": node.ref if node.kind is NodeKind.ROUND else node.body.get("campaign"),
        "code": node.body.get("code") or None,
        "permits": list(node.permits),
        "modifiers": list(node.modifiers),
        "entry": cite,
    }


def _signed_rows(sight: Sight, found: Lineage, when: Moment) -> list[dict[str, Any]]:
    """Approvals and overrides that bear on what was asked about."""
    refs = {node.ref for node in found.nodes}
    empty: dict[str, Any] = dict.fromkeys(("plan", "code"), None) | {"permits": [], "modifiers": []}
    rows = [
        empty
        | {"depth": 0, "kind": "approval", "name": one.by, "ref": one.release, "at": stamp(one.received_at)}
        | {"comes_from": [f"{one.decision}: {one.reason}"], "entry": None}
        for one in sight.approvals()
        if one.release in refs and one.received_at <= when.known
    ]
    rows += [
        empty
        | {"depth": 0, "kind": "override", "name": one.by, "ref": one.about, "at": stamp(one.at)}
        | {"comes_from": [f"{one.criterion}: {one.reason}"], "entry": ("*", one.digest)}
        for one in found.overrides
        if one.at <= when.known
    ]
    return rows


def leakage(sight: Sight, when: Moment, arguments: Arguments) -> Draft:
    """Question 12. Takes nothing."""
    columns = ("evaluation", "model", "evaluated_on", "overlap", "check", "at", "entry")
    sight = sight.then(when.known)
    whole = sight.lineage()
    nodes = {node.ref: node for node in whole.nodes if _known(node, when)}
    above = _Above(whole.edges)
    rows: list[dict[str, Any]] = []
    for node in nodes.values():
        if node.kind is not NodeKind.EVALUATION:
            continue
        told = [edge for edge in whole.edges if edge.src == node.ref]
        models = [edge.dst for edge in told if edge.role is Role.EVALUATED]
        for used in (edge for edge in told if edge.role is Role.EVALUATED_ON):
            for model in models:
                overlap, check = _overlap(above, nodes, model, used.dst)
                about = {"evaluation": node.name, "model": model, "evaluated_on": used.dst, "overlap": overlap}
                rows.append(about | {"check": check, "at": stamp(node.at), "entry": ("*", node.ref)})
    notes = ["Checked by lineage: no record leaves a site, so equal records in different data sets are not seen here."]
    if not rows:
        notes.insert(0, "No evaluation is registered with the data that it was made on.")
    return Draft(columns, tuple(rows), tuple(notes))


class _Above:
    """What is above each node, worked out when it is asked for."""

    def __init__(self, edges: Iterable[Edge]) -> None:
        self._edges = tuple(edges)

    def of(self, ref: str) -> set[str]:
        """Everything that it descends from, itself included."""
        return set(_depths(self._edges, ref))


def _overlap(above: _Above, nodes: dict[str, Node], model: str, used: str) -> tuple[str, str]:
    trained = above.of(model)
    if used in trained:
        return "yes", "the model descends from this very set (lineage)"
    mine = {ref for ref in above.of(used) if ref in nodes and nodes[ref].kind is NodeKind.DATASET}
    if mine & trained:
        return "possible", "both are drawn from one data set (lineage); only its site can compare the records"
    return "none found", "nothing in the model's lineage is this set or of its data set"


_CARD, _ANNEX, _SUMMARY = "model card", "AI Act annex IV", "AI Act art. 53(1)(d) summary"

_FIELDS: tuple[tuple[str, str, str], ...] = (
    (_CARD, "name and version", "name"),
    (_CARD, "text: intended use, limits, risks", "card"),
    (_CARD, "training data", "data"),
    (_CARD, "privacy guarantee", "privacy"),
    (_CARD, "evaluation results", "evaluation"),
    (_CARD, "licence and uses permitted", "permits"),
    (_ANNEX, "1: general description, provider, version", "card"),
    (_ANNEX, "2(b): design, objective, optimisation", "plan"),
    (_ANNEX, "2(d): data, origin, collection, labelling", "terms"),
    (_ANNEX, "2(e), 3: human oversight, limits, foreseeable misuse", "card"),
    (_ANNEX, "2(g): validation and testing, metrics", "evaluation"),
    (_ANNEX, "2(h): cybersecurity measures", "card"),
    (_ANNEX, "4: appropriateness of the metrics", "card"),
    (_ANNEX, "5: risk management system", "nowhere"),
    (_ANNEX, "6: changes over the lifecycle", "lineage"),
    (_ANNEX, "7: harmonised standards", "nowhere"),
    (_ANNEX, "8: declaration of conformity", "nowhere"),
    (_ANNEX, "9: post-market monitoring", "nowhere"),
    (_SUMMARY, "1: general information, modality, size", "plan"),
    (_SUMMARY, "2: list of data sources", "data"),
    (_SUMMARY, "2.1, 2.2: licences of publicly available sources", "licences"),
    (_SUMMARY, "3.1: text and data mining reservations", "signals"),
    (_SUMMARY, "3.2: removal of illegal content", "nowhere"),
)
"""(document, field, what gives it). The fields are ours, shortened from Annex IV of Regulation (EU) 2024/1689 and from the
three parts of the Commission's summary template; the legal text decides."""

_WHERE = {
    "name": "registry: version or registered name",
    "card": "the model's card: presence only, whether its text covers this nobody checked",
    "data": "lineage: snapshots and external sources",
    "privacy": "contributions' mechanisms, ledger (question 5)",
    "evaluation": "registered evaluations",
    "permits": "lineage: what everything above permits",
    "plan": "the signed campaign plan",
    "terms": "signed terms of every data set",
    "lineage": "lineage (question 6)",
    "licences": "external sources, base models",
    "signals": "external sources' recorded signals",
    "nowhere": "the registry has no place for it: keep it with the release",
}


def completeness(sight: Sight, when: Moment, arguments: Arguments) -> Draft:
    """Question 15. Takes `of`: one model; without it, every fine-tune, student and each campaign's newest version."""
    columns = ("model", "name", "document", "field", "present", "where")
    sight = sight.then(when.known)
    whole = sight.lineage()
    nodes = {node.ref: node for node in whole.nodes if _known(node, when)}
    chosen = _current(nodes.values()) if arguments.of is None else [_asked(sight.ancestry(arguments.of))]
    above, carded, private = _Above(whole.edges), _carded(sight, when), _private(sight, when)
    rows = []
    for model in chosen:
        has = _has(model, [nodes[ref] for ref in above.of(model.ref) if ref in nodes], whole, nodes, carded, private)
        rows += [
            {
                "model": model.ref,
                "name": model.name,
                "document": d,
                "field": f,
                "present": has[key],
                "where": _WHERE[key],
            }
            for d, f, key in _FIELDS
        ]
    missing = sum(not row["present"] for row in rows)
    notes = [f"{len(chosen)} models, {missing} of {len(rows)} fields missing. Present means recorded, not judged."]
    if not rows:
        notes = ["No model was registered by then."]
    return Draft(columns, tuple(rows), tuple(notes))


def _current(nodes: Iterable[Node]) -> list[Node]:
    newest: dict[Any, Node] = {}
    for node in nodes:
        if node.kind is NodeKind.VERSION:
            campaign = node.body.get("campaign")
            if campaign not in newest or newest[campaign].body["number"] < node.body["number"]:
                newest[campaign] = node
        elif node.kind in (NodeKind.FINETUNE, NodeKind.STUDENT):
            newest[node.ref] = node
    return list(newest.values())


def _carded(sight: Sight, when: Moment) -> set[str]:
    """The references of what has a card."""
    with sight.known(when.known) as session:
        return set(session.scalars(select(NodeRow.ref).join(CardRow, CardRow.node_id == NodeRow.id)))


def _private(sight: Sight, when: Moment) -> set[str]:
    """The contributions that were made with really random noise, by digest."""
    with sight.known(when.known) as session:
        rows = session.scalars(select(ContributionRow).where(ContributionRow.accepted))
        return {row.digest or "" for row in rows if contribution_of(row).private}


def _has(
    model: Node,
    above: list[Node],
    whole: Lineage,
    nodes: dict[str, Node],
    carded: set[str],
    private: set[str],
) -> dict[str, bool]:
    kinds = {node.kind for node in above}
    outside = [node for node in above if node.kind is NodeKind.EXTERNAL]
    inside = {one for node in above if node.kind is NodeKind.VERSION for one in node.body.get("contributions", ())}
    tried = {edge.dst for edge in whole.edges if edge.role is Role.EVALUATED and edge.src in nodes}
    sets = [node for node in above if node.kind is NodeKind.DATASET]
    return {
        "name": True,
        "card": model.ref in carded,
        "data": bool(kinds & {NodeKind.SNAPSHOT, NodeKind.EXTERNAL}),
        "privacy": bool(inside) and inside <= private,
        "evaluation": model.ref in tried,
        "permits": bool(model.permits),
        "plan": NodeKind.ROUND in kinds,
        "terms": bool(sets) and all(node.body.get("terms") for node in sets),
        "lineage": bool(above),
        "licences": all(node.body.get("licence") for node in outside),
        "signals": all(node.body.get("signal") for node in outside),
        "nowhere": False,
    }
