"""A receipt tells one person everything that was recorded of their decisions, in terms that DPV has."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bract.consent import Capacity, ConsentEvent, Decision, Evidence, Modifier, Purpose
from bract.digest import digest
from bract.export.consent_record import Decided, receipt
from bract.export.names import document
from tests.shared.export.graphs import texts

AT = datetime(2026, 11, 22, tzinfo=UTC)
DAY = timedelta(days=1)
IDENTIFIER = "00000000-0000-4000-8000-000000000000"

DPV_2_2 = {
    "ConsentGiven", "ConsentRefused", "ConsentWithdrawn", "ConsentExpired", "ConsentInvalidated", "ConsentReceipt",
    "ConsentRecord", "ConsentNotice", "DataSubject", "DataController", "Process", "Purpose", "NotAvailable",
    "StorageDuration", "TemporalDuration", "IndeterminateDuration", "EndlessDuration", "UntilTimeDuration",
    "hasConsentStatus", "hasDataController", "hasDataSubject", "hasDuration", "hasEntity", "hasIdentifier", "hasLegalBasis",
    "hasName", "hasNotice", "hasPersonalData", "hasProcess", "hasPurpose", "hasRecipient", "hasRecordOfActivity", "hasScope",
    "hasStorageCondition", "isIndicatedAtTime", "isIndicatedBy",
}  # fmt: skip
"""Those terms of DPV 2.2 that a receipt may use."""

decisions = st.builds(
    lambda decision, purpose, days, ends, dataset, notice: ConsentEvent(
        purpose,
        decision,
        AT + days * DAY,
        AT + (days + ends) * DAY if ends else None,
        dataset,
        evidence=Evidence(notice=notice, capacity=Capacity.GUARDIAN if ends else None),
    ),
    st.sampled_from([one for one in Decision if one is not Decision.CORRECT]),
    st.sampled_from(["ssl-pretraining", "DUO:0000042", "dpv:ResearchAndDevelopment"]),
    st.integers(0, 9),
    st.integers(0, 3),
    st.none() | st.just("adult"),
    st.none() | texts,
)


def made(events: list[ConsentEvent], subject: str = "P-1") -> dict[str, Any]:
    known = [Decided(100 + 7 * number, event, AT + number * DAY) for number, event in enumerate(events)]
    told: dict[str, Any] = json.loads(
        document(receipt(IDENTIFIER, subject, "ward", known, AT, {"adult": 3650, "census": None}))
    )
    return told


def statuses(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        one for process in told["dpv:hasRecordOfActivity"]["dpv:hasProcess"] for one in process["dpv:hasConsentStatus"]
    ]


@settings(max_examples=40, deadline=None)
@given(st.lists(decisions, max_size=6), texts)
def test_every_decision_is_told_once_and_every_term_is_dpv_s(events: list[ConsentEvent], subject: str) -> None:
    told = made(events, subject)
    assert sorted(int(one["dct:identifier"]) for one in statuses(told)) == list(range(1, len(events) + 1))
    assert told["dpv:hasRecordOfActivity"]["dpv:hasDataSubject"]["dct:identifier"] == subject
    plain = json.dumps(told).replace(json.dumps(subject), '""')
    for event in events:
        plain = plain.replace(json.dumps(event.evidence.notice), '""')
    assert set(re.findall(r'"dpv:([A-Za-z]+)"', plain)) <= DPV_2_2


def test_a_receipt_has_the_fields_that_the_profile_asks_for() -> None:
    told = made([ConsentEvent(Purpose.PRETRAINING, Decision.PERMIT, AT, AT + DAY, "adult")])
    assert told["@type"] == "dpv:ConsentReceipt"
    assert told["dct:conformsTo"] == "https://w3id.org/dpv/schema/dpv-27560#receipt"
    record = told["dpv:hasRecordOfActivity"]
    assert record["dct:conformsTo"] == "https://w3id.org/dpv/schema/dpv-27560#record"
    (process,) = record["dpv:hasProcess"]
    assert process["dpv:hasPurpose"]["@id"] == "urn:bract:purpose:ssl-pretraining"
    assert process["dpv:hasPersonalData"] == process["dpv:hasLegalBasis"] == ["dpv:NotAvailable"]
    assert process["dpv:hasStorageCondition"][0]["dpv:hasDuration"]["rdf:value"] == "P3650D"
    (status,) = process["dpv:hasConsentStatus"]
    assert status["@type"] == ["dpv:ConsentGiven"]
    assert status["dpv:isIndicatedAtTime"] == "2026-11-22T00:00:00Z"
    assert status["dpv:hasDuration"]["rdf:value"] == "2026-11-23T00:00:00Z"
    assert set(process["dpv:hasDataController"]) <= set(record["dpv:hasEntity"])


def test_evidence_conditions_and_corrections_are_told() -> None:
    evidence = Evidence("eu-gdpr:A6-1-a", digest(b"form"), "notice-3", Capacity.SELF, "desk 4")
    told = made(
        [
            ConsentEvent(
                "DUO:0000042", Decision.PERMIT, AT, modifiers=(Modifier("DUO:0000022", ("CH",)),), evidence=evidence
            ),
            ConsentEvent("DUO:0000042", Decision.CORRECT, AT, supersedes=100),
        ]
    )
    (process,) = told["dpv:hasRecordOfActivity"]["dpv:hasProcess"]
    assert process["dpv:hasPurpose"]["@id"] == "http://purl.obolibrary.org/obo/DUO_0000042"
    assert process["dpv:hasLegalBasis"] == [{"@id": "https://w3id.org/dpv/legal/eu/gdpr#A6-1-a"}]
    given, corrected = process["dpv:hasConsentStatus"]
    assert given["bract:conditions"] == [{"@id": "http://purl.obolibrary.org/obo/DUO_0000022", "rdf:value": ["CH"]}]
    assert given["dpv:hasNotice"]["dpv:hasIdentifier"] == "notice-3"
    assert (given["dpv:isIndicatedBy"], given["bract:evidence"]) == ("dpv:DataSubject", digest(b"form"))
    assert corrected["dct:replaces"] == given["dct:identifier"] == "1"
    # numbers of the site's events would tell how many decisions lie between two of one person
    assert "100" not in json.dumps(told)
    assert "desk 4" not in json.dumps(told)
