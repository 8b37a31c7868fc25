"""Every document of any lineage holds every node once and no other, is read by others' libraries, and names stay text."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from openlineage.client.event_v2 import DatasetEvent, InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.generated.base import StaticDataset
from openlineage.client.serde import Serde
from prov.model import (
    ProvActivity,
    ProvAgent,
    ProvAssociation,
    ProvAttribution,
    ProvDocument,
    ProvEntity,
    ProvRelation,
)

from bract.errors import BractError
from bract.export.card import card
from bract.export.croissant import croissant, snapshots
from bract.export.edges import edge_table
from bract.export.facts import Facts, ancestry, cut
from bract.export.mlbom import mlbom
from bract.export.names import NAMESPACE, document, iri
from bract.export.openlineage import events, ndjson
from bract.export.prov import activities, prov_json
from bract.model import Edge, Lineage, Node, NodeKind, Relation, Role
from tests.shared.export import graphs
from tests.shared.export.graphs import AT, HOSTILE

few = settings(max_examples=40, deadline=None)


def all_strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from all_strings(key)
            yield from all_strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from all_strings(inner)


def names_of(facts: Facts) -> set[str]:
    return {iri(node) for node in facts.lineage.nodes}


@few
@given(graphs.lineages())
def test_names_are_different_for_different_things_and_safe_to_write(lineage: Lineage) -> None:
    names = [iri(node) for node in lineage.nodes]
    assert len(set(names)) == len(names)
    for node, name in zip(lineage.nodes, names, strict=True):
        assert re.fullmatch(r"urn:bract:[a-z-]+/[A-Za-z0-9._~:%-]+", name)
        assert not name.endswith(("/.", "/.."))
        assert unquote(name).partition("/")[2] == node.ref


@few
@given(graphs.facts())
def test_prov_json_is_read_by_the_prov_library_node_for_node_and_edge_for_edge(facts: Facts) -> None:
    told = document(prov_json(facts))
    assert told == document(prov_json(facts))
    read = ProvDocument.deserialize(content=told.decode(), format="json")
    active = activities(facts)
    found = {
        kind: {str(record.identifier and record.identifier.uri) for record in read.get_records(kind)}
        for kind in (ProvActivity, ProvEntity)
    }
    expected = {True: set[str](), False: set[str]()}
    for node in facts.lineage.nodes:
        expected[(node.kind, node.ref) in active].add(iri(node))
    assert (found[ProvActivity], found[ProvEntity]) == (expected[True], expected[False])
    things = [*read.get_records(ProvActivity), *read.get_records(ProvEntity)]
    assert len(things) == len(facts.lineage.nodes)
    relations = [
        one for one in read.get_records(ProvRelation) if not isinstance(one, ProvAssociation | ProvAttribution)
    ]
    ends = Counter(tuple(value.uri for _, value in one.formal_attributes[:2]) for one in relations)
    nodes = {(node.kind, node.ref): iri(node) for node in facts.lineage.nodes}
    assert ends == Counter(
        (nodes[edge.src_kind, edge.src], nodes[edge.dst_kind, edge.dst]) for edge in facts.lineage.edges
    )
    agents = [str(one.identifier and one.identifier.uri) for one in read.get_records(ProvAgent)]
    assert all(name.startswith(f"{NAMESPACE}agent/") for name in agents)


def built(event: dict[str, Any]) -> Any:
    """The event by OpenLineage's own classes, which check it."""
    common = {"eventTime": event["eventTime"], "producer": event["producer"]}
    if "dataset" in event:
        return DatasetEvent(dataset=StaticDataset(**event["dataset"]), **common)
    return RunEvent(
        eventType=RunState(event["eventType"]),
        run=Run(**event["run"]),
        job=Job(**event["job"]),
        inputs=[InputDataset(**one) for one in event["inputs"]],
        outputs=[OutputDataset(**one) for one in event["outputs"]],
        **common,
    )


def without_empty(value: Any) -> Any:
    """Without what their serialiser leaves out."""
    if isinstance(value, dict):
        inner = {key: without_empty(one) for key, one in value.items()}
        return {key: one for key, one in inner.items() if one not in (None, {}, [])}
    return [without_empty(one) for one in value] if isinstance(value, list) else value


@few
@given(graphs.facts())
def test_openlineage_tells_every_node_once_and_its_library_says_the_same(facts: Facts) -> None:
    found = events(facts)
    lines = ndjson(found).decode("ascii").splitlines()
    assert [json.loads(line) for line in lines] == json.loads(json.dumps(found))
    made = Counter[str]()
    for event in found:
        assert event["schemaURL"].endswith(("#/$defs/RunEvent", "#/$defs/DatasetEvent"))
        assert without_empty(Serde.to_dict(built(event))) == without_empty(Serde.to_dict(json.loads(json.dumps(event))))
        if "dataset" in event:
            made[event["dataset"]["name"]] += 1
        elif event["eventType"] != "START":
            made.update(one["name"] for one in event["outputs"])
    active = activities(facts)
    things = [iri(node) for node in facts.lineage.nodes if (node.kind, node.ref) not in active]
    assert made == Counter(things)
    runs = Counter(event["run"]["runId"] for event in found if "run" in event)
    assert set(runs.values()) <= {2}
    acts = [event for event in found if event.get("eventType") == "START" and event["run"]["facets"]["bract"]["kind"]]
    refs = Counter((e["run"]["facets"]["bract"]["kind"], e["run"]["facets"]["bract"]["ref"]) for e in acts)
    assert all(refs[kind.value, ref] == 1 for kind, ref in active)
    used = {one["name"] for event in found if "run" in event for one in event["inputs"]}
    assert used <= set(things)


@few
@given(graphs.facts())
def test_the_bill_of_materials_is_valid_cyclonedx_and_lists_every_node_once(facts: Facts) -> None:
    told = document(mlbom(facts))
    assert told == document(mlbom(facts))
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(told.decode())
    assert error is None, error
    bill = json.loads(told)
    listed = [one["bom-ref"] for one in bill["components"]] + [bill["metadata"]["component"]["bom-ref"]]
    flows = [flow["bom-ref"] for formula in bill.get("formulation", []) for flow in formula["workflows"]]
    assert Counter(listed + flows) == Counter(names_of(facts))
    assert {one["ref"] for one in bill["dependencies"]} == names_of(facts)
    assert {ref for one in bill["dependencies"] for ref in one["dependsOn"]} <= names_of(facts)


@few
@given(graphs.facts())
def test_a_croissant_file_tells_of_one_snapshot_and_of_no_number(facts: Facts) -> None:
    for node in snapshots(facts):
        told = json.loads(document(croissant(facts, node)))
        assert told["@id"] == iri(node)
        assert "distribution" not in told
        assert "recordSet" not in told
        numbers = [value for key, value in told.items() if isinstance(value, int | float) and key != "isLiveDataset"]
        assert numbers == []


@few
@given(graphs.facts())
def test_the_table_of_edges_has_every_node_and_every_edge(facts: Facts) -> None:
    rows = list(edge_table(facts).rows)
    found = {(row["src_kind"], row["src"]) for row in rows}
    found |= {(row["dst_kind"], row["dst"]) for row in rows if row.get("dst")}
    assert found == {(node.kind.value, node.ref) for node in facts.lineage.nodes}
    assert sum(row.get("relation") is not None for row in rows) == len(facts.lineage.edges)


@few
@given(graphs.lineages())
def test_an_ancestry_holds_what_can_be_reached_and_nothing_else(lineage: Lineage) -> None:
    last = lineage.nodes[-1]
    found = ancestry(lineage, (last.kind, last.ref))
    reached, grew = {(last.kind, last.ref)}, True
    while grew:  # by brute force, as an oracle
        more = {(e.dst_kind, e.dst) for e in lineage.edges if (e.src_kind, e.src) in reached} - reached
        grew = bool(more)
        reached |= more
    assert {(node.kind, node.ref) for node in found.nodes} == reached
    assert set(found.edges) == {e for e in lineage.edges if (e.src_kind, e.src) in reached}


@few
@given(graphs.lineages())
def test_a_cut_holds_nothing_that_was_recorded_later(lineage: Lineage) -> None:
    at = AT + timedelta(seconds=5000)
    kept = cut(lineage, at)
    keys = {(node.kind, node.ref) for node in kept.nodes}
    for node in lineage.nodes:
        if node.at is not None and node.kind is not NodeKind.DATASET:
            assert ((node.kind, node.ref) in keys) == (node.at <= at)
    assert all((e.src_kind, e.src) in keys and (e.dst_kind, e.dst) in keys for e in kept.edges)


def test_there_is_no_ancestry_of_what_is_not_there() -> None:
    with pytest.raises(BractError):
        ancestry(Lineage((), ()), (NodeKind.VERSION, "x"))
    with pytest.raises(BractError):
        card(Facts("hub", AT, Lineage((), ())))


def small_world() -> Facts:
    """A round of one site: data set, snapshot, contribution, round, two versions, a fine-tune and its evaluation."""

    def node(kind: NodeKind, ref: str, **body: Any) -> Node:
        return Node(kind, ref, f"name of {ref}", AT, body, ("ssl-pretraining",), ("DUO:0000022=CH,DE",))

    nodes = (
        node(NodeKind.DATASET, "alder/adult", site="alder", dataset="adult"),
        node(NodeKind.SNAPSHOT, "alder/sha256:1", site="alder", snapshot="sha256:1", purposes=["ssl-pretraining"]),
        node(NodeKind.CONTRIBUTION, "c", site="alder"),
        node(NodeKind.VERSION, "v0"),
        node(NodeKind.ROUND, "r"),
        node(NodeKind.VERSION, "v1"),
        node(NodeKind.FINETUNE, "f"),
    )
    kinds = {one.ref: one.kind for one in nodes}
    links = [
        ("alder/sha256:1", Relation.DERIVED, Role.DRAWN, "alder/adult"),
        ("c", Relation.DERIVED, Role.TRAINED, "alder/sha256:1"),
        ("r", Relation.USED, None, "c"),
        ("v1", Relation.GENERATED, None, "r"),
        ("v1", Relation.DERIVED, Role.INITIALISED, "v0"),
        ("f", Relation.DERIVED, Role.INITIALISED, "v1"),
    ]
    edges = tuple(Edge(kinds[src], src, relation, role, kinds[dst], dst) for src, relation, role, dst in links)
    return Facts("hub", AT, Lineage(nodes, edges), (NodeKind.FINETUNE, "f"), parts=(graphs.part("r", "alder"),))


def test_a_round_is_an_activity_between_what_it_used_and_what_it_made() -> None:
    told = prov_json(small_world())
    assert set(told["activity"]) == {"bract:round/r"}
    assert list(told["used"].values()) == [{"prov:activity": "bract:round/r", "prov:entity": "bract:contribution/c"}]
    assert list(told["wasGeneratedBy"].values()) == [
        {"prov:entity": "bract:version/v1", "prov:activity": "bract:round/r"}
    ]
    assert "wasInfluencedBy" not in told
    assert {one["prov:agent"] for one in told["wasAttributedTo"].values()} == {"bract:agent/site/alder"}


def test_a_round_s_run_carries_its_clearances_and_its_ledger_entries() -> None:
    (end,) = (
        one
        for one in events(small_world())
        if one.get("eventType") == "COMPLETE" and one["job"]["name"].startswith("round/")
    )
    facets = end["run"]["facets"]
    assert [one["purpose"] for one in facets["consentClearance"]["clearances"]] == ["ssl-pretraining"]
    (entry,) = facets["privacyLedger"]["entries"]
    assert entry["event"]["class_name"] == "SelfComposedDpEvent"
    assert [one["name"] for one in end["outputs"]] == ["urn:bract:version/v1"]
    assert [one["name"] for one in end["inputs"]] == ["urn:bract:contribution/c", "urn:bract:version/v0"]


def test_conditions_of_use_are_duo_terms() -> None:
    facts = small_world()
    (snapshot,) = snapshots(facts)
    offer, term = croissant(facts, snapshot)["usageInfo"]
    assert [one["odrl:action"]["@id"] for one in offer["odrl:permission"]] == ["bract:purpose:ssl-pretraining"]
    assert (term["termCode"], term["description"]) == ("DUO_0000022", "CH,DE")
    assert term["url"] == "http://purl.obolibrary.org/obo/DUO_0000022"


@pytest.mark.filterwarnings("ignore")
def test_mlcroissant_takes_our_file(tmp_path: Path) -> None:
    """mlcroissant brings pandas and rdflib, so it is no dependency; where it is there, it judges."""
    library = pytest.importorskip("mlcroissant")
    facts = small_world()
    for name in ("adult", *HOSTILE):
        (snapshot,) = snapshots(facts)
        path = tmp_path / "snapshot.json"
        path.write_bytes(document(croissant(facts, replace(snapshot, name=name))))
        metadata = library.Dataset(jsonld=path).metadata
        assert not metadata.ctx.issues.errors
        assert metadata.name == name
    spoiled = croissant(facts, snapshots(facts)[0]) | {"@type": "sc:Person"}
    path.write_bytes(document(spoiled))
    with pytest.raises(library.ValidationError):
        library.Dataset(jsonld=path)
