"""Lineage as OpenLineage events (spec 2-0-2), one JSON object a line.

Every node is told of exactly once: an activity as the run of a job; a thing that was made as an output of one such run (if
no activity made it, of a run of its own, named for it); a thing from elsewhere by a DatasetEvent. A run has a START and a
COMPLETE event, or ABORT. Custom facets: `consentClearance` and `privacyLedger` on the run of a round, `bract` with the
node's public facts on everything. An event's time is when the thing was recorded; `bract.recordedAt` is
null where no record tells it, and the event then carries the time of the export.
"""

import json
from typing import Any

from bract.export.facts import Facts, Key, Part
from bract.export.names import NAMESPACE, PRODUCER, iri, moment, uuid_of
from bract.export.prov import activities
from bract.model import Node, Relation
from bract.privacy.events import dp_event

SPEC = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/"


def events(facts: Facts) -> list[dict[str, Any]]:
    """The events, in the order of the nodes."""
    active = activities(facts)
    told: list[dict[str, Any]] = []
    for node in facts.lineage.nodes:
        key = (node.kind, node.ref)
        if key in active:
            generated = [one for one in facts.newer(node, Relation.GENERATED) if (one.kind, one.ref) not in active]
            made = [one for one in generated if _maker(facts, one, active) == key]
            told += _run(facts, node, made, active)
        elif _maker(facts, node, active) is None:
            told += _run(facts, node, [node], active) if facts.older(node) else [_dataset_event(facts, node)]
    return told


def ndjson(found: list[dict[str, Any]]) -> bytes:
    """One event a line, ASCII only."""
    return b"".join(json.dumps(one, sort_keys=True, allow_nan=False).encode() + b"\n" for one in found)


def _maker(facts: Facts, node: Node, active: set[Key]) -> Key | None:
    """The activity of whose run the node is an output: the first, if several are said to have made it."""
    makers = [(one.kind, one.ref) for one in facts.older(node, Relation.GENERATED)]
    return next((key for key in makers if key in active), None)


def _run(facts: Facts, node: Node, outputs: list[Node], active: set[Key]) -> list[dict[str, Any]]:
    started = node.at or facts.known_at
    ended = max((one.at for one in (*outputs, node) if one.at is not None), default=facts.known_at)
    base = {
        "producer": PRODUCER,
        "schemaURL": SPEC + "RunEvent",
        "run": {"runId": uuid_of(iri(node)), "facets": _run_facets(facts, node)},
        "job": {"namespace": _namespace(facts), "name": _job(node), "facets": {"jobType": _job_type(node)}},
        "inputs": [_dataset(facts, one) for one in _inputs(facts, node, outputs, active)],
    }
    end = "COMPLETE" if outputs else "ABORT"
    return [
        {**base, "eventType": "START", "eventTime": moment(min(started, ended)), "outputs": []},
        {**base, "eventType": end, "eventTime": moment(ended), "outputs": [_dataset(facts, one) for one in outputs]},
    ]


def _inputs(facts: Facts, node: Node, outputs: list[Node], active: set[Key]) -> list[Node]:
    """What the run used: what its node points to, and what its outputs were derived from."""
    found = {(one.kind, one.ref): one for source in (node, *outputs) for one in facts.older(source)}
    return [found[key] for key in sorted(found) if key not in active and key != (node.kind, node.ref)]


def _dataset_event(facts: Facts, node: Node) -> dict[str, Any]:
    return {
        "producer": PRODUCER,
        "schemaURL": SPEC + "DatasetEvent",
        "eventTime": moment(node.at or facts.known_at),
        "dataset": _dataset(facts, node),
    }


def _dataset(facts: Facts, node: Node) -> dict[str, Any]:
    return {"namespace": _namespace(facts), "name": iri(node), "facets": {"bract": _bract(node)}}


def _run_facets(facts: Facts, node: Node) -> dict[str, Any]:
    facets = {"bract": _bract(node)}
    if parts := [one for one in facts.parts if one.round == node.ref]:
        facets["consentClearance"] = _facet("consentClearance", clearances=[_clearance(one) for one in parts])
        facets["privacyLedger"] = _facet(
            "privacyLedger", unit="subject", adjacency="add-or-remove-one", entries=[_entry(one) for one in parts]
        )
    return facets


def _clearance(part: Part) -> dict[str, Any]:
    given = part.clearing
    return {
        "clearance": given.digest,
        "site": given.site,
        "dataset": given.dataset,
        "snapshot": part.snapshot,
        "purpose": given.purpose,
        "rule": given.rule,
        "issuedAt": moment(given.issued_at),
        "expiresAt": moment(given.expires_at),
    }


def _entry(part: Part) -> dict[str, Any]:
    return {
        "site": part.clearing.site,
        "dataset": part.clearing.dataset,
        "contribution": part.digest,
        "reservation": part.reservation,
        "event": dp_event(part.mechanism),
        "private": part.private,
    }


def _bract(node: Node) -> dict[str, Any]:
    return _facet(
        "bract",
        kind=node.kind.value,
        ref=node.ref,
        label=node.name,
        facts=node.body,
        permits=list(node.permits),
        modifiers=[str(one) for one in node.modifiers],
        recordedAt=None if node.at is None else moment(node.at),
    )


def _facet(name: str, **values: Any) -> dict[str, Any]:
    return {"_producer": PRODUCER, "_schemaURL": f"{NAMESPACE}facet:{name}:1", **values}


def _namespace(facts: Facts) -> str:
    return f"bract/{facts.origin}"


def _job(node: Node) -> str:
    return f"{node.kind.value}/{node.name}"


def _job_type(node: Node) -> dict[str, Any]:
    kind = {
        "_producer": PRODUCER,
        "_schemaURL": "https://openlineage.io/spec/facets/2-0-3/JobTypeJobFacet.json#/$defs/JobTypeJobFacet",
    }
    return {**kind, "processingType": "BATCH", "integration": "BRACT", "jobType": node.kind.value.upper()}
