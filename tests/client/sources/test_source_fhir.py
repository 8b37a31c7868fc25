"""What FHIR Consent resources mean to us; the samples are our own, by HL7's definitions of R4B and R5."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bract.consent import ConsentEvent, Decision, Purpose, UseContext, Verdict, resolve, sound
from bract.errors import BAD_RECORD, MALFORMED, NOT_INSTALLED, BractError
from bract_client.sources import fhir
from bract_client.sources.consent_mapping import FhirMapping, load_mapping
from bract_client.sources.fhir import read_fhir
from bract_client.sources.record import Reason, Unreadable
from bract_client.sources.statement import Statement

SAMPLES = Path(__file__).parent / "samples"
EXAMPLE = Path(__file__).parents[3] / "deploy" / "mappings" / "consent.toml"
SYSTEM = "urn:oid:2.999.1"
MAPPING = FhirMapping("identifier", SYSTEM, zone="UTC")
DUO = "http://purl.obolibrary.org/obo/duo.owl"
REASON = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
GENERAL = {"system": DUO, "code": "DUO:0000042"}
PRETRAINING = {"system": "urn:bract:purpose", "code": "ssl-pretraining"}
HEALTH = {"system": REASON, "code": "HRESCH"}
ACTOR = {"actor": [{"role": {"text": "anyone"}, "reference": {"reference": "Organization/9"}}]}
R5_ACTOR = {"actor": [{"role": {"text": "anyone"}, "reference": {"reference": "Organization/9"}}]}
LATER = datetime(2026, 6, 1, tzinfo=UTC)


def day(year: int, month: int = 1, number: int = 1) -> datetime:
    return datetime(year, month, number, tzinfo=UTC)


def r4b(provision: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    resource = {
        "resourceType": "Consent",
        "id": "c1",
        "status": "active",
        "scope": {"text": "research"},
        "category": [{"text": "research"}],
        "patient": {"identifier": {"system": SYSTEM, "value": "P-1"}},
        "dateTime": "2026-01-10T00:00:00Z",
        "policy": [{"uri": "https://clinic.example/form"}],
        "provision": provision or {"type": "permit", "purpose": [GENERAL]},
    }
    return {key: value for key, value in {**resource, **fields}.items() if value is not None}


def r5(decision: str, *provisions: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    resource = {
        "resourceType": "Consent",
        "id": "c1",
        "status": "active",
        "subject": {"identifier": {"system": SYSTEM, "value": "P-1"}},
        "date": "2026-01-09",
        "period": {"start": "2026-01-10T00:00:00Z"},
        "decision": decision,
        "provision": list(provisions) or None,
    }
    return {key: value for key, value in {**resource, **fields}.items() if value is not None}


def read(folder: Path, *resources: object, mapping: FhirMapping = MAPPING) -> list[Statement | Unreadable]:
    path = folder / "consents.ndjson"
    path.write_text("".join(json.dumps(one) + "\n" for one in resources))
    return list(read_fhir(path, mapping))


def only(folder: Path, resource: object, mapping: FhirMapping = MAPPING) -> Statement | Unreadable:
    (item,) = read(folder, resource, mapping=mapping)
    return item


def said(folder: Path, resource: object, mapping: FhirMapping = MAPPING) -> set[tuple[str, str, datetime, Any]]:
    item = only(folder, resource, mapping)
    assert isinstance(item, Statement), item
    return {(str(one.decision), str(one.purpose), one.valid_from, one.valid_to) for one in item.events}


def why(folder: Path, resource: object, mapping: FhirMapping = MAPPING) -> Reason:
    item = only(folder, resource, mapping)
    assert isinstance(item, Unreadable), item
    return item.reason


def test_the_samples_of_r4b_are_read_as_the_example_mapping_says() -> None:
    mapping = load_mapping(EXAMPLE).fhir
    assert mapping is not None
    permit, broad, actor, error = read_fhir(SAMPLES / "r4b.ndjson", mapping)
    assert isinstance(permit, Statement) and isinstance(broad, Statement) and isinstance(error, Statement)
    # the days of a period count wholly, in the clinic's zone
    winter = datetime(2026, 1, 9, 23, tzinfo=UTC)
    (event,) = permit.events
    assert (event.purpose, event.decision) == ("DUO:0000042", Decision.PERMIT)
    assert (event.valid_from, event.valid_to) == (winter, datetime(2030, 12, 31, 23, tzinfo=UTC))
    assert event.evidence.notice == "https://clinic.example/research-consent/v3"
    assert event.evidence.legal_basis == "eu-gdpr:A9-2-a" and event.evidence.digest is not None
    decisions = {(str(one.decision), str(one.purpose)) for one in broad.events}
    assert decisions == {
        ("permit", "DUO:0000042"),
        ("deny", "release-internal"),
        ("deny", "release-public"),
    }
    assert actor == Unreadable(3, Reason.NOT_EXPRESSIBLE)
    assert (error.subject_id, error.events, error.reference) == (None, (), "c-error")


def test_the_samples_of_r5_are_read() -> None:
    out, research, but = read_fhir(SAMPLES / "r5.json", MAPPING)
    assert isinstance(out, Statement) and isinstance(research, Statement) and isinstance(but, Statement)
    assert out.subject_id == "MRN-31"
    # refused somewhen on the third: from its begin on, and once more at its end
    assert {(str(one.purpose), one.decision, one.valid_from) for one in out.events} == {
        ("any-use", Decision.DENY, day(2026, 2, 3)),
        ("any-use", Decision.DENY, day(2026, 2, 4)),
    }
    assert {one.evidence.digest for one in out.events} == {f"sha256:{sha256(b'no, thanks').hexdigest()}"}
    permits = [one for one in research.events if one.decision is Decision.PERMIT]
    assert [(str(one.purpose), one.valid_to) for one in permits] == [("DUO:0000006", day(2029))]
    assert {(str(one.purpose), one.decision) for one in but.events} == {("ssl-pretraining", Decision.DENY)}
    assert "MRN" not in repr((out, research, but))


def test_a_base_permit_with_exceptions_in_r4b(tmp_path: Path) -> None:
    window = {"start": "2026-03-01T00:00:00Z", "end": "2026-04-01T00:00:00Z"}
    provision = {
        "type": "permit",
        "purpose": [GENERAL],
        "provision": [
            {"type": "deny", "purpose": [PRETRAINING]},
            {"type": "deny", "purpose": [GENERAL], "period": window},
        ],
    }
    assert said(tmp_path, r4b(provision)) == {
        ("deny", "ssl-pretraining", day(2026, 1, 10), None),
        ("deny", "DUO:0000042", day(2026, 3), None),
        ("permit", "DUO:0000042", day(2026, 1, 10), day(2026, 3)),
        ("permit", "DUO:0000042", day(2026, 4), None),
    }


def test_a_base_denial_leaves_what_its_exceptions_permit_to_them(tmp_path: Path) -> None:
    provision = {
        "type": "deny",
        "provision": [
            {"type": "permit", "purpose": [PRETRAINING], "period": {"end": "2027-01-01T00:00:00Z"}},
            {"type": "permit", "purpose": [GENERAL], **ACTOR},
        ],
    }
    found = said(tmp_path, r4b(provision))
    assert ("permit", "ssl-pretraining", day(2026, 1, 10), day(2027)) in found
    denied = {purpose for decision, purpose, *_ in found if decision == "deny"}
    assert denied == {one.value for one in Purpose if one is not Purpose.PRETRAINING}


def test_the_base_policy_of_r4b_decides_where_the_root_has_no_type(tmp_path: Path) -> None:
    def rule(code: str) -> dict[str, Any]:
        return {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": code}]}

    root = {"purpose": [GENERAL]}
    assert {one[0] for one in said(tmp_path, r4b(root, policyRule=rule("OPTIN")))} == {"permit"}
    assert {one[0] for one in said(tmp_path, r4b(root, policyRule=rule("OPTOUT")))} == {"deny"}
    assert why(tmp_path, r4b(root, policyRule=rule("hipaa-auth"))) is Reason.NO_DECISION
    assert why(tmp_path, r4b(root)) is Reason.NO_DECISION


def test_in_r5_each_level_is_the_opposite_of_the_one_above(tmp_path: Path) -> None:
    assert said(tmp_path, r5("permit", {"purpose": [HEALTH]})) == {("deny", "DUO:0000006", day(2026, 1, 10), None)}
    nested = {"purpose": [GENERAL], "provision": [{"purpose": [PRETRAINING]}]}
    assert said(tmp_path, r5("deny", nested)) >= {
        ("permit", "DUO:0000042", day(2026, 1, 10), None),
        ("deny", "ssl-pretraining", day(2026, 1, 10), None),
    }
    assert said(tmp_path, r5("deny")) == {("deny", "any-use", day(2026, 1, 10), None)}


@pytest.mark.parametrize(
    ("resource", "reason"),
    [
        (r4b({"type": "permit", "purpose": [GENERAL], **ACTOR}), Reason.NOT_EXPRESSIBLE),
        (
            r4b({"type": "permit", "purpose": [GENERAL], "provision": [{"type": "deny", **ACTOR}]}),
            Reason.NOT_EXPRESSIBLE,
        ),
        (r4b({"type": "permit", "purpose": [GENERAL], "dataPeriod": {"start": "2020"}}), Reason.NOT_EXPRESSIBLE),
        (r4b({"type": "permit", "purpose": [GENERAL], "code": [{"text": "x"}]}), Reason.NOT_EXPRESSIBLE),
        (r5("deny", {"purpose": [GENERAL], "provision": [R5_ACTOR]}), Reason.NOT_EXPRESSIBLE),
        (r4b(modifierExtension=[{"url": "urn:x", "valueBoolean": True}]), Reason.NOT_EXPRESSIBLE),
        (
            r4b({"type": "permit", "purpose": [GENERAL], "modifierExtension": [{"url": "urn:x"}]}),
            Reason.NOT_EXPRESSIBLE,
        ),
        (r4b(implicitRules="https://clinic.example/rules"), Reason.NOT_EXPRESSIBLE),
        (r4b({"type": "permit"}), Reason.NO_PURPOSE),
        (r5("permit"), Reason.NO_PURPOSE),
        (r4b({"type": "permit", "purpose": [{"system": REASON, "code": "TREAT"}]}), Reason.NO_PURPOSE),
        (r4b({"type": "permit", "purpose": [{"system": REASON, "code": "hresch"}]}), Reason.UNKNOWN_PURPOSE),
        (r4b({"type": "permit", "purpose": [{"code": "HRESCH"}]}), Reason.UNKNOWN_PURPOSE),
        (r4b({"type": "permit", "purpose": [GENERAL, {"system": DUO, "code": "DUO:0000018"}]}), Reason.UNKNOWN_PURPOSE),
        (r4b({"type": "maybe", "purpose": [GENERAL]}), Reason.NO_DECISION),
        ({key: value for key, value in r5("deny").items() if key != "decision"}, Reason.NO_DECISION),
        (r4b({"type": "permit", "purpose": [GENERAL], "provision": [{"purpose": [GENERAL]}]}), Reason.NO_DECISION),
        (r4b(status="draft"), Reason.NOT_IN_FORCE),
        (r4b(status="proposed"), Reason.NOT_IN_FORCE),
        (r4b(status="rejected"), Reason.NOT_IN_FORCE),
        (r5("permit", status="unknown"), Reason.NOT_IN_FORCE),
        (r4b(status="Active"), Reason.NOT_IN_FORCE),
        (r4b(dateTime=None), Reason.BAD_TIME),
        (r4b(dateTime="2026-02-30"), Reason.NOT_FHIR),
        (r4b(patient=None), Reason.AMBIGUOUS_SUBJECT),
        (r4b(patient={"reference": "Patient/1"}), Reason.AMBIGUOUS_SUBJECT),
        (r4b(patient={"identifier": {"system": "urn:other", "value": "P-1"}}), Reason.AMBIGUOUS_SUBJECT),
        (r4b(patient={"type": "Group", "identifier": {"system": SYSTEM, "value": "P-1"}}), Reason.AMBIGUOUS_SUBJECT),
        (r4b(patient={"identifier": {"system": SYSTEM, "value": "P-1 "}}), Reason.BAD_SUBJECT_ID),
        (
            r4b(patient={"reference": "Practitioner/1", "identifier": {"system": SYSTEM, "value": "P-1"}}),
            Reason.AMBIGUOUS_SUBJECT,
        ),
        (r4b(scope=None), Reason.NOT_FHIR),
        (r4b(decision="permit"), Reason.NOT_FHIR),
        (r4b(surprise=1), Reason.NOT_FHIR),
        (r4b({"type": "deny", "purpose": []}), Reason.NOT_FHIR),
        (r4b({"type": "deny", "purpose": None}), Reason.NOT_FHIR),
        (r4b({"type": "deny", "provision": [{}]}), Reason.NOT_FHIR),
        (r4b(id="not an id!"), Reason.NOT_FHIR),
        ({"resourceType": "Patient"}, Reason.NOT_FHIR),
        ([], Reason.BAD_LINE),
        ("text", Reason.BAD_LINE),
        (r4b(sourceAttachment={"data": "bm8=", "hash": "AAAA"}), Reason.BAD_EVIDENCE),
    ],
)
def test_what_cannot_be_told_is_set_aside(tmp_path: Path, resource: object, reason: Reason) -> None:
    assert why(tmp_path, resource) is reason


def test_an_ended_consent_permits_until_it_was_ended_and_its_refusals_stand(tmp_path: Path) -> None:
    ended: dict[str, Any] = {"status": "inactive", "meta": {"lastUpdated": "2026-05-01T00:00:00Z"}}
    assert said(tmp_path, r4b(**ended)) == {("permit", "DUO:0000042", day(2026, 1, 10), day(2026, 5))}
    assert said(tmp_path, r4b(status="inactive")) == set()
    refusal = {"type": "deny", "purpose": [GENERAL]}
    assert said(tmp_path, r4b(refusal, **ended)) == {("deny", "DUO:0000042", day(2026, 1, 10), None)}


@pytest.mark.parametrize(
    ("start", "end", "begins", "ends"),
    [
        ("2026", "2030", day(2027), day(2030)),
        ("2026-02", "2030-03", day(2026, 3), day(2030, 3)),
        ("2026-12", None, day(2027), None),
        ("2026-02-28", "2028-02-29", day(2026, 2, 28), day(2028, 3)),
        ("2026-01-10T12:00:00+02:00", "2030-01-01T00:00:00Z", datetime(2026, 1, 10, 10, tzinfo=UTC), day(2030)),
    ],
)
def test_a_partial_date_never_widens_a_permit(
    tmp_path: Path, start: str, end: str | None, begins: datetime, ends: datetime | None
) -> None:
    period = {"start": start} | ({} if end is None else {"end": end})
    resource = r4b({"type": "permit", "purpose": [GENERAL], "period": period})
    assert said(tmp_path, resource) == {("permit", "DUO:0000042", begins, ends)}


def test_a_partial_date_never_narrows_a_refusal(tmp_path: Path) -> None:
    resource = r4b({"type": "deny", "purpose": [GENERAL], "period": {"start": "2026-02"}})
    assert said(tmp_path, resource) == {
        ("deny", "DUO:0000042", day(2026, 2), None),
        ("deny", "DUO:0000042", day(2026, 3), None),
    }


def test_a_period_that_may_be_empty_permits_nothing(tmp_path: Path) -> None:
    resource = r4b({"type": "permit", "purpose": [GENERAL], "period": {"start": "2026", "end": "2026-12-31"}})
    assert why(tmp_path, resource) is Reason.NO_PURPOSE


def test_a_date_without_a_declared_zone_is_set_aside(tmp_path: Path) -> None:
    assert why(tmp_path, r4b(dateTime="2026-01-10"), replace(MAPPING, zone=None)) is Reason.NO_ZONE


def test_the_subject_is_found_in_the_reference_the_resource_or_the_bundle_and_nowhere_else(tmp_path: Path) -> None:
    def person(resource: dict[str, Any], mapping: FhirMapping = MAPPING) -> str | None:
        item = only(tmp_path, resource, mapping)
        return item.subject_id if isinstance(item, Statement) else None

    inside = {"resourceType": "Patient", "id": "p", "identifier": [{"system": SYSTEM, "value": "P-2"}]}
    assert person(r4b(patient={"reference": "#p"}, contained=[inside])) == "P-2"
    two = {**inside, "identifier": [{"system": SYSTEM, "value": "P-2"}, {"system": SYSTEM, "value": "P-3"}]}
    assert person(r4b(patient={"reference": "#p"}, contained=[two])) is None
    both = {"reference": "#p", "identifier": {"system": SYSTEM, "value": "P-1"}}
    assert person(r4b(patient=both, contained=[inside])) is None
    logical = FhirMapping("reference", server="https://fhir.example/r4/", zone="UTC")
    assert person(r4b(patient={"reference": "Patient/7"}), logical) == "7"
    assert person(r4b(patient={"reference": "https://fhir.example/r4/Patient/7/_history/2"}), logical) == "7"
    assert person(r4b(patient={"reference": "https://other.example/r4/Patient/7"}), logical) is None
    assert person(r4b(patient={"reference": "Group/7"}), logical) is None


def test_a_folder_holds_one_resource_a_file_and_links_do_not_lead_out(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.json").write_text(json.dumps(r4b()))
    (folder / "b.json").write_text("{")
    (tmp_path / "out.json").write_text(json.dumps(r4b()))
    (folder / "c.json").symlink_to(tmp_path / "out.json")
    (folder / "d.txt").write_text("left alone")
    first, second, third = read_fhir(folder, MAPPING)
    assert isinstance(first, Statement)
    assert (second, third) == (Unreadable(2, Reason.BAD_LINE), Unreadable(3, Reason.BAD_PATH))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"resourceType": "Bundle", "entry": 3}', "\ufffe"])
def test_a_document_that_is_none_refuses_the_whole_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bundle.json"
    path.write_text(text)
    with pytest.raises(BractError) as refused:
        list(read_fhir(path, MAPPING))
    assert refused.value.code == BAD_RECORD


def test_a_name_that_stands_twice_in_an_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.ndjson"
    path.write_text(json.dumps(r4b())[:-1] + ', "status": "entered-in-error"}\n')
    assert list(read_fhir(path, MAPPING)) == [Unreadable(1, Reason.BAD_LINE)]


def test_without_the_extra_it_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(fhir, "import_module", missing)
    fhir._model.cache_clear()
    with pytest.raises(BractError) as refused:
        list(read_fhir(tmp_path / "none.json", MAPPING))
    fhir._model.cache_clear()
    assert refused.value.code == NOT_INSTALLED


def test_a_mapping_of_identifiers_names_their_system(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text('source = "x"\n[fhir]\nsubject = "identifier"\n')
    with pytest.raises(BractError) as refused:
        load_mapping(path)
    assert refused.value.code == MALFORMED


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["permit", "deny", "2026", "2026-02-30", "active", "Patient/1", SYSTEM, "P-1", "\ud800"])
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    "status",
    "patient",
    "dateTime",
    "provision",
    "policyRule",
    "contained",
    "meta",
    "policy",
    "sourceAttachment",
    "id",
]


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    resource = draw(st.sampled_from([r4b(), r5("deny", {"purpose": [GENERAL]}), r5("permit")]))
    changes: dict[str, Any] = draw(
        st.dictionaries(st.sampled_from([*FIELDS, "subject", "date", "decision", "scope"]), JSON, max_size=2)
    )
    if draw(st.booleans()):
        node: dict[str, Any] = {draw(st.sampled_from(["type", "period", "purpose", "provision", "code"])): draw(JSON)}
        changes["provision"] = draw(st.sampled_from([node, [node]]))
    return {**resource, **changes}


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(resources=st.lists(damaged(), max_size=3))
def test_damaged_resources_are_set_aside_and_the_good_ones_read(tmp_path: Path, resources: list[Any]) -> None:
    items = read(tmp_path, r4b(), *resources, r5("deny"))
    assert len(items) == len(resources) + 2
    assert isinstance(items[0], Statement) and isinstance(items[-1], Statement)
    for item in items:
        if isinstance(item, Statement):
            for event in item.events:
                sound(event)


EVALUATION = {"system": "urn:bract:purpose", "code": "evaluation"}
PURPOSES = st.lists(st.sampled_from([GENERAL, HEALTH, PRETRAINING, EVALUATION]), min_size=1, max_size=2)


def nodes(depth: int) -> st.SearchStrategy[dict[str, Any]]:
    fields: dict[str, st.SearchStrategy[Any]] = {"type": st.sampled_from(["permit", "deny"])}
    options = {
        "purpose": PURPOSES,
        "period": st.sampled_from(
            [{"start": "2026-02-01T00:00:00Z"}, {"end": "2026-05-01T00:00:00Z"}, {"start": "2026-07-01T00:00:00Z"}]
        ),
    }
    if depth < 2:
        options["dataPeriod"] = st.just({"start": "2020-01-01"})
    if depth:
        options["provision"] = st.lists(nodes(depth - 1), min_size=1, max_size=2)
    return st.fixed_dictionaries(fields, optional=options)


@st.composite
def broad(draw: st.DrawFn) -> dict[str, Any]:
    """What broad consents look like: nothing but what is listed."""
    listed = st.fixed_dictionaries(
        {"type": st.just("permit"), "purpose": PURPOSES},
        optional={"period": st.just({"start": "2026-04-01T00:00:00Z", "end": "2026-08-01T00:00:00Z"})},
    )
    root = draw(st.fixed_dictionaries({"type": st.just("deny")}, optional={"purpose": PURPOSES}))
    return {
        **root,
        "provision": [*draw(st.lists(listed, min_size=1, max_size=2)), *draw(st.lists(nodes(0), max_size=1))],
    }


ROOTS = nodes(2) | broad()
COVERS = {
    "DUO:0000042": {"DUO:0000042", "DUO:0000006", "ssl-pretraining"},
    "DUO:0000006": {"DUO:0000006", "ssl-pretraining"},
    "ssl-pretraining": {"ssl-pretraining"},
    "evaluation": {"evaluation"},
}
"""By hand, for the oracle: what a health study that pretrains is an instance of, by the purposes that cover it."""


def permitted(node: Mapping[str, Any], at: datetime) -> bool:
    """Whether a plain reading of the provisions permits a health study's pretraining at `at`, in every case.

    Exceptions win over what they are exceptions to; of two that both apply a refusal wins; a condition that we cannot check
    may hold or not, so that a permit with one does not count and a refusal with one does.
    """
    start, end = node.get("period", {}).get("start"), node.get("period", {}).get("end")
    inside = (start is None or datetime.fromisoformat(start) <= at) and (
        end is None or at < datetime.fromisoformat(end)
    )
    named = "purpose" not in node or any("ssl-pretraining" in COVERS[_code(one)] for one in node["purpose"])
    if not inside or not named:
        return False
    inner = [one for one in node.get("provision", ()) if applies(one, at)]
    if any(one["type"] == "deny" for one in inner):
        return False
    if any(permitted(one, at) for one in inner):
        return True
    return node["type"] == "permit" and "dataPeriod" not in node


def applies(node: Mapping[str, Any], at: datetime) -> bool:
    plain = {key: value for key, value in node.items() if key in ("period", "purpose")}
    return permitted({**plain, "type": "permit"}, at)


def _code(coding: Mapping[str, str]) -> str:
    return "DUO:0000006" if coding["code"] == "HRESCH" else coding["code"]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(root=ROOTS, month=st.integers(2, 9))
def test_nothing_is_admitted_that_the_provisions_do_not_permit(
    tmp_path: Path, root: dict[str, Any], month: int
) -> None:
    item = only(tmp_path, r4b(root))
    events: tuple[ConsentEvent, ...] = item.events if isinstance(item, Statement) else ()
    at = day(2026, month, 15)
    verdict = resolve(events, Purpose.PRETRAINING, "adult", at, UseContext(kinds=("DUO:0000006",))).verdict
    if verdict is Verdict.ADMITTED:
        assert permitted(root, at)
