"""A model as a CycloneDX 1.6 machine-learning bill of materials [ECMA-424, 1st edition].

The model is the bill's subject; models and data that it descends from are components, rounds are workflows of its
formulation, and every edge of lineage is a dependency. The same facts give the same bytes, the serial number included.
"""

import re
from typing import Any

from bract import __version__
from bract.digest import canonical
from bract.export.facts import Facts
from bract.export.names import iri, moment, uuid_of
from bract.export.privacy import privacy_of
from bract.model import MODELS, Node, NodeKind

_HEX = re.compile(r"sha256:([0-9a-f]{64})")


def mlbom(facts: Facts) -> dict[str, Any]:
    """The bill of materials of the model that the facts are about."""
    subject = facts.subject
    others = [node for node in facts.lineage.nodes if node != subject]
    rounds = [node for node in others if node.kind is NodeKind.ROUND]
    bill: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid_of(f'{iri(subject)} {moment(facts.known_at)}')}",
        "version": 1,
        "metadata": {
            "timestamp": moment(facts.known_at),
            "tools": {"components": [{"type": "application", "name": "bract", "version": __version__}]},
            "component": _component(subject) | {"modelCard": _card(facts)},
            "properties": _properties({"log.size": facts.checkpoint_size, "log.root": facts.checkpoint_root}),
        },
        "components": [_component(node) for node in others if node.kind is not NodeKind.ROUND],
        "dependencies": [
            {"ref": iri(node), "dependsOn": sorted({iri(one) for one in facts.older(node)})}
            for node in facts.lineage.nodes
        ],
    }
    if rounds:
        bill["formulation"] = [{"bom-ref": "urn:bract:formulation", "workflows": [_workflow(one) for one in rounds]}]
    return bill


def _component(node: Node) -> dict[str, Any]:
    model = node.kind in MODELS
    told: dict[str, Any] = {
        "type": "machine-learning-model" if model else "data",
        "bom-ref": iri(node),
        "name": node.name or node.ref,
        "version": node.ref,
        "properties": _properties(
            {"kind": node.kind.value, "facts": node.body, "permits": node.permits, "modifiers": node.modifiers}
        ),
    }
    weights = node.body.get("arrays") or node.body.get("weights") or node.body.get("content") or node.ref
    if (found := _HEX.fullmatch(str(weights))) is not None and node.kind is not NodeKind.CONTRIBUTION:
        told["hashes"] = [{"alg": "SHA-256", "content": found[1]}]
    if not model:
        told["data"] = [_data(node)]
    return told


def _data(node: Node) -> dict[str, Any]:
    kinds = {NodeKind.DATASET: "dataset", NodeKind.SNAPSHOT: "dataset", NodeKind.EXTERNAL: "dataset"}
    told: dict[str, Any] = {"type": kinds.get(node.kind, "other"), "name": node.name or node.ref}
    if node.kind in (NodeKind.DATASET, NodeKind.SNAPSHOT):
        told["classification"] = "personal data; stays at its site"
        if isinstance(site := node.body.get("site"), str) and site:
            told["governance"] = {"custodians": [{"organization": {"name": site}}]}
    return told


def _workflow(node: Node) -> dict[str, Any]:
    told: dict[str, Any] = {"bom-ref": iri(node), "uid": node.ref, "name": node.name, "taskTypes": ["build"]}
    told |= {} if node.at is None else {"timeStart": moment(node.at)}
    return told | {"properties": _properties({"kind": node.kind.value, "facts": node.body})}


def _card(facts: Facts) -> dict[str, Any]:
    privacy = privacy_of(facts)
    plans = [one.plan for one in privacy.terms]
    data = facts.of(NodeKind.DATASET, NodeKind.SNAPSHOT, NodeKind.EXTERNAL)
    parameters: dict[str, Any] = {"datasets": [{"ref": iri(node)} for node in data]}
    if plans:
        parameters |= {
            "approach": {"type": "self-supervised"},
            "task": "representation learning",
            "architectureFamily": ", ".join(sorted({plan.encoder.kind for plan in plans})),
        }
    risks = [
        {"name": f"Withdrawal at {one.site}", "mitigationStrategy": one.decision or "undecided"}
        for one in facts.touches
    ]
    told: dict[str, Any] = {
        "modelParameters": parameters,
        "properties": _properties(
            {
                "privacy.guaranteed": privacy.guaranteed,
                "privacy.unit": "subject",
                "privacy.adjacency": "add-or-remove-one",
                "privacy.epsilon": privacy.epsilon,
                "privacy.delta": privacy.delta,
                "privacy.why_not": privacy.broken,
            }
        ),
    }
    if measures := _measures(facts):
        told["quantitativeAnalysis"] = {"performanceMetrics": measures}
    return told | ({"considerations": {"ethicalConsiderations": risks}} if risks else {})


def _measures(facts: Facts) -> list[dict[str, str]]:
    return [
        {"type": str(measure), "value": str(value), "slice": node.name}
        for node in facts.evaluations
        for measure, value in sorted((node.body.get("measures") or {}).items())
    ]


def _properties(values: dict[str, Any]) -> list[dict[str, str]]:
    """Name and value pairs under `bract:`; what is absent is left out, what is no text is canonical JSON."""
    return [
        {"name": f"bract:{name}", "value": value if isinstance(value, str) else canonical(_listed(value)).decode()}
        for name, value in values.items()
        if value is not None
    ]


def _listed(value: Any) -> Any:
    return [str(one) for one in value] if isinstance(value, tuple) else value
