"""Importing decisions into the registry: what is taken, what is known, and what a second file may change."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from bract.consent import Decision, Purpose, Resolution, Verdict, resolve
from bract.errors import BAD_RECORD, MALFORMED, BractError
from bract_client.registry import imports, leavers
from bract_client.registry.decisions import KnownEvent
from bract_client.registry.store import SiteRegistry
from bract_client.sources.consent_csv import read_consent
from bract_client.sources.consent_mapping import Columns, ConsentMapping, CsvMapping, FhirMapping
from bract_client.sources.record import Reason, Unreadable
from tests.client.site_world import HOUR, T0, Person, add_table, open_registry, write_table

DAY = timedelta(days=1)
SAMPLES = Path(__file__).parent / "sources" / "samples"
COLUMNS = Columns("who", "what", "how", "since", "until", evidence="form", reference="line")
NAMED = ConsentMapping("clinic", CsvMapping(COLUMNS), FhirMapping("identifier", "urn:oid:2.999.1", zone="UTC"))
HEADER = "who,what,how,since,until,form,line\n"
FORM = f"sha256:{'b' * 64}"


@pytest.fixture
def world(database_url: str) -> Iterator[tuple[Engine, SiteRegistry]]:
    engine, registry = open_registry(database_url)
    yield engine, registry
    engine.dispose()


@pytest.fixture
def registry(world: tuple[Engine, SiteRegistry]) -> SiteRegistry:
    return world[1]


def named(path: Path, *rows: str) -> Path:
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return path


def taken(registry: SiteRegistry, path: Path, hours: int = 0, **options: Any) -> tuple[int, int, list[Reason]]:
    report = registry.import_consent(path, T0 + hours * HOUR, mapping=NAMED, **options)
    assert len(report.unreadable) == sum(report.set_aside.values())
    return report.taken, report.known, [one.reason for one in report.unreadable]


def verdict(registry: SiteRegistry, person: str, days: int = 400, purpose: Purpose = Purpose.EVALUATION) -> Verdict:
    at = T0 + days * DAY
    return registry.believed(person, purpose, "adult", at, at).verdict


def line(
    number: int, how: str = "permit", since: str = "2026-01-01", until: str = "", form: str = "", who: str = ""
) -> str:
    end = f"{until}T00:00:00Z" if until else ""
    return f"{who or f'P-{number}'},evaluation,{how},{since}T00:00:00Z,{end},{form},L{number}"


def own(path: Path, rows: list[str]) -> Path:
    path.write_text("subject_id,purpose,decision,valid_from,valid_to\n" + "".join(f"{row}\n" for row in rows))
    return path


ROWS = [f"P-{n},{purpose},permit,2026-01-0{n}T00:00:00Z," for n in range(1, 6) for purpose in Purpose]


@pytest.mark.parametrize("kind", ["own", "named", "fhir"])
def test_the_same_file_again_in_any_order_changes_nothing_and_one_new_line_is_one(
    registry: SiteRegistry, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "BATCH", 4)
    rows = {
        "own": ROWS[:12],
        "named": [line(n) for n in range(12)],
        "fhir": [json.dumps(consent(f"P-{n}", f"c{n}")) for n in range(12)],
    }[kind]
    path = tmp_path / ("c.ndjson" if kind == "fhir" else "c.csv")

    def imported(lines: list[str], hour: int) -> tuple[int, int, list[Reason]]:
        head = {"own": "subject_id,purpose,decision,valid_from,valid_to\n", "named": HEADER, "fhir": ""}[kind]
        path.write_text(head + "".join(f"{one}\n" for one in lines))
        report = registry.import_consent(path, T0 + hour * HOUR, mapping=None if kind == "own" else NAMED)
        return report.taken, report.known, list(report.set_aside)

    assert imported(rows[:-1], 0) == (11, 0, [])
    assert imported(rows[:-1], 1) == (0, 11, [])
    shuffled = rows[:]
    random.Random(7).shuffle(shuffled)
    assert imported([one for one in shuffled if one != rows[-1]], 2) == (0, 11, [])
    assert imported(shuffled, 3) == (1, 11, [])
    assert imported([*rows, *rows], 4) == (0, 24, [])
    registry.check()
    registry.verify_log()


def test_a_second_system_may_use_the_same_line_names(registry: SiteRegistry, tmp_path: Path) -> None:
    path = named(tmp_path / "c.csv", line(1))
    assert taken(registry, path) == (1, 0, [])
    other = replace(NAMED, source="lab")
    path = named(tmp_path / "c.csv", line(1, "deny"))
    assert registry.import_consent(path, T0 + HOUR, mapping=other).taken == 1
    assert verdict(registry, "P-1") is Verdict.DENIED


def test_a_later_decision_of_a_line_is_a_new_one_and_the_old_one_counted_until_then(
    registry: SiteRegistry, tmp_path: Path
) -> None:
    taken(registry, named(tmp_path / "c.csv", line(1)))
    assert taken(registry, named(tmp_path / "c.csv", line(1, "deny", "2026-06-01")), 1) == (1, 0, [])
    assert verdict(registry, "P-1", 30) is Verdict.ADMITTED
    assert verdict(registry, "P-1", 200) is Verdict.DENIED


def test_a_line_that_says_otherwise_of_the_same_time_was_an_error(registry: SiteRegistry, tmp_path: Path) -> None:
    taken(registry, named(tmp_path / "c.csv", line(1, since="2026-01-01", until="2029-01-01")))
    assert taken(registry, named(tmp_path / "c.csv", line(1, since="2026-01-01", until="2026-04-01")), 1) == (1, 0, [])
    assert verdict(registry, "P-1") is Verdict.EXPIRED
    first, second = registry.history("P-1")
    assert second.event.supersedes == first.seq
    registry.check()


def test_an_old_file_brings_no_permit_back_but_refusals_always_count(registry: SiteRegistry, tmp_path: Path) -> None:
    permit, refusal = line(1), line(1, "deny", "2026-06-01")
    again = line(1, since="2026-09-01")
    path = tmp_path / "c.csv"
    assert taken(registry, named(path, permit))[0] == 1
    assert taken(registry, named(path, refusal), 1)[0] == 1
    assert taken(registry, named(path, permit), 2) == (0, 0, [Reason.REPLACED])
    assert verdict(registry, "P-1") is Verdict.DENIED
    assert taken(registry, named(path, again), 3)[0] == 1
    assert verdict(registry, "P-1") is Verdict.ADMITTED
    assert taken(registry, named(path, refusal), 4)[0] == 1
    assert verdict(registry, "P-1") is Verdict.DENIED
    assert taken(registry, named(path, refusal), 5) == (0, 1, [])


def test_an_older_export_never_widens_what_a_line_permits(registry: SiteRegistry, tmp_path: Path) -> None:
    """Longer, earlier, or instead of a refusal; never imported before."""
    path = tmp_path / "c.csv"
    newest = [line(1, since="2026-01-01", until="2026-04-01"), line(2, "deny", form=FORM)]
    assert taken(registry, named(path, *newest), 1) == (2, 0, [])
    older = (
        line(1, since="2026-01-01"),
        line(1, since="2026-01-01", until="2029-01-01"),
        line(1, since="2025-12-01", until="2026-04-01"),
        line(2, form=FORM),
    )
    for said in older:
        assert taken(registry, named(path, said), 2) == (0, 0, [Reason.UNDATED]), said
        for exported in (T0, T0 + HOUR):  # before, and when, what it would replace was recorded
            assert taken(registry, path, 2, exported=exported) == (0, 0, [Reason.REPLACED]), said
    assert (verdict(registry, "P-1"), verdict(registry, "P-2")) == (Verdict.EXPIRED, Verdict.DENIED)
    for said in (older[0], older[-1]):
        assert taken(registry, named(path, said), 4, exported=T0 + 3 * HOUR) == (1, 0, [])
    assert (verdict(registry, "P-1"), verdict(registry, "P-2")) == (Verdict.ADMITTED, Verdict.ADMITTED)
    assert taken(registry, named(path, line(1, since="2026-01-01", until="2026-05-01")), 5) == (1, 0, [])
    with pytest.raises(BractError) as refused:
        taken(registry, path, 6, exported=T0 + 7 * HOUR)
    assert refused.value.code == MALFORMED
    registry.check()


def test_an_older_export_brings_nothing_back_from_before_a_later_decision(
    registry: SiteRegistry, tmp_path: Path
) -> None:
    """The name permitted without an end, then anew from June to December; its words of March lie between the two."""
    path = tmp_path / "c.csv"
    assert taken(registry, named(path, line(1)), 1) == (1, 0, [])
    assert taken(registry, named(path, line(1, since="2026-06-01", until="2026-12-31")), 2) == (1, 0, [])
    assert verdict(registry, "P-1") is Verdict.EXPIRED
    between = line(1, since="2026-03-01")
    assert taken(registry, named(path, between), 3) == (0, 0, [Reason.UNDATED])
    assert taken(registry, path, 4, exported=T0 + HOUR) == (0, 0, [Reason.REPLACED])
    assert verdict(registry, "P-1") is Verdict.EXPIRED
    assert verdict(registry, "P-1", 200) is Verdict.ADMITTED


@pytest.mark.parametrize(("of", "purpose"), [("P-9", "evaluation"), ("P-8", "distillation")])
def test_what_a_line_permits_no_more_ends_at_once_and_what_it_permits_instead_waits_for_a_date(
    registry: SiteRegistry, tmp_path: Path, of: str, purpose: str
) -> None:
    path = tmp_path / "c.csv"
    taken(registry, named(path, line(1, who="P-8")))
    said = line(1, who=of).replace("evaluation", purpose)
    for hours in (1, 2):
        assert taken(registry, named(path, said), hours) == (0, 0, [Reason.UNDATED])
        assert verdict(registry, "P-8") is Verdict.NO_CONSENT
        assert verdict(registry, of, purpose=Purpose(purpose)) is Verdict.NO_CONSENT
        assert len(registry.history("P-8")) == 2, "the second time changes nothing"
    assert taken(registry, path, 4, exported=T0 + 3 * HOUR) == (1, 0, [])
    assert verdict(registry, of, purpose=Purpose(purpose)) is Verdict.ADMITTED
    registry.check()


def test_a_refusal_counts_beside_a_permit_that_does_not(registry: SiteRegistry, tmp_path: Path) -> None:
    path = tmp_path / "c.ndjson"
    assert taken(registry, fhir(path, consent("P-1", "c1", meta={"versionId": "1"}))) == (1, 0, [])
    codes = {use: [{"system": "urn:bract:purpose", "code": use}] for use in ("evaluation", "distillation")}
    both = {
        "type": "permit",
        "purpose": [*codes["distillation"], *codes["evaluation"]],
        "provision": [{"type": "deny", "purpose": codes["evaluation"]}],
    }
    for hours in (1, 2):
        assert taken(registry, fhir(path, consent("P-1", "c1", provision=both)), hours) == (0, 0, [Reason.REPLACED])
        assert verdict(registry, "P-1") is Verdict.DENIED
        assert verdict(registry, "P-1", purpose=Purpose.DISTILLATION) is Verdict.NO_CONSENT
    after = {"lastUpdated": (T0 + 3 * HOUR).isoformat()}
    assert taken(registry, fhir(path, consent("P-1", "c1", provision=both, meta=after)), 4) == (1, 0, [])
    assert verdict(registry, "P-1") is Verdict.DENIED
    assert verdict(registry, "P-1", purpose=Purpose.DISTILLATION) is Verdict.ADMITTED
    registry.check()


SAYINGS = st.builds(
    lambda how, until, who, use: line(1, how, "2026-01-01", until, who=who).replace("evaluation", use),
    st.sampled_from(["permit", "permit", "deny"]),
    st.sampled_from(["", "2026-06-01", "2027-06-01"]),
    st.sampled_from(["P-1", "P-2"]),
    st.sampled_from(["evaluation", "distillation"]),
)


@given(st.lists(SAYINGS, min_size=2, max_size=5))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_without_a_date_nothing_but_less_is_permitted(
    tmp_path_factory: pytest.TempPathFactory, said: list[str]
) -> None:
    """Whatever a line of one beginning says, one after the other; and what it refuses is refused."""
    tmp_path = tmp_path_factory.mktemp("said")
    engine, registry = open_registry(f"sqlite:///{tmp_path}/registry.db")
    known = [line(n, who=f"P-{n - 7}").replace("evaluation", Purpose.PRETRAINING) for n in (8, 9)]
    taken(registry, named(tmp_path / "c.csv", *known))
    before: set[tuple[str, Purpose, int]] | None = None
    for hours, row in enumerate(said):
        taken(registry, named(tmp_path / "c.csv", row), hours)
        admitted = {
            (who, use, days)
            for who in ("P-1", "P-2")
            for use in (Purpose.EVALUATION, Purpose.DISTILLATION)
            for days in (30, 300, 800)
            if verdict(registry, who, days, use) is Verdict.ADMITTED
        }
        assert before is None or admitted <= before
        who, use, how = row.split(",")[:3]
        assert how != "deny" or not [one for one in admitted if one[:2] == (who, Purpose(use)) and one[2] == 30]
        before = admitted
    registry.check()
    engine.dispose()


def test_a_refusal_is_taken_back_only_with_evidence(registry: SiteRegistry, tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    taken(registry, named(path, line(1, "deny"), line(2, "deny")))
    changed = [line(1, "permit"), line(2, "error", who="-")]
    assert taken(registry, named(path, *changed), 1) == (0, 0, [Reason.REFUSAL_STANDS] * 2)
    assert verdict(registry, "P-1") is Verdict.DENIED
    shown = [line(1, "permit", form=FORM), line(2, "error", form=FORM)]
    assert taken(registry, named(path, *shown), 2, exported=T0 + 2 * HOUR) == (2, 0, [])
    assert (verdict(registry, "P-1"), verdict(registry, "P-2")) == (Verdict.ADMITTED, Verdict.NO_CONSENT)
    assert taken(registry, named(path, *shown), 3) == (0, 2, [])
    registry.check()


def test_a_line_that_cannot_be_read_any_more_is_pointed_at_while_it_still_permits(
    registry: SiteRegistry, tmp_path: Path
) -> None:
    path = tmp_path / "c.csv"
    taken(registry, named(path, line(1), line(2, "deny"), line(3)))
    bad = named(path, *(line(number, "maybe") for number in (1, 2, 3, 4)))
    report = registry.import_consent(bad, T0 + HOUR, mapping=NAMED)
    assert report.set_aside == {Reason.UNKNOWN_DECISION: 4}
    assert report.doubtful == (2, 4)
    assert verdict(registry, "P-1") is Verdict.ADMITTED


def test_an_end_is_taken_back_only_with_evidence(registry: SiteRegistry, tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    taken(registry, named(path, line(1), line(2, "expire", "2026-06-01", who="P-1")))
    assert verdict(registry, "P-1") is Verdict.EXPIRED
    assert taken(registry, named(path, line(2, "error")), 1) == (0, 0, [Reason.REFUSAL_STANDS])
    assert taken(registry, named(path, line(2, "deny", "2026-06-01", who="P-1")), 2) == (1, 0, [])
    assert verdict(registry, "P-1") is Verdict.DENIED


def test_a_line_may_turn_out_to_be_of_another_person(registry: SiteRegistry, tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    taken(registry, named(path, line(1, who="P-8")))
    assert taken(registry, named(path, line(1, who="P-9")), 1, exported=T0 + HOUR) == (1, 0, [])
    assert (verdict(registry, "P-8"), verdict(registry, "P-9")) == (Verdict.NO_CONSENT, Verdict.ADMITTED)
    assert registry.history("P-8")[-1].event.decision is Decision.CORRECT
    registry.check()


@pytest.mark.parametrize("batch", [1, 5_000])
def test_a_name_that_stands_twice_in_a_file_with_other_words_is_set_aside(
    registry: SiteRegistry, tmp_path: Path, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "BATCH", batch)
    path = named(tmp_path / "c.csv", line(1), line(1), line(1, "deny"), line(2))
    assert taken(registry, path) == (2, 1, [Reason.SAID_TWICE])
    assert taken(registry, path, 1) == (0, 3, [Reason.SAID_TWICE])


def consent(person: str, name: str, **fields: Any) -> dict[str, Any]:
    return {
        "resourceType": "Consent",
        "id": name,
        "status": "active",
        "scope": {"text": "research"},
        "category": [{"text": "research"}],
        "patient": {"identifier": {"system": "urn:oid:2.999.1", "value": person}},
        "dateTime": "2026-01-10T00:00:00Z",
        "provision": {"type": "permit", "purpose": [{"system": "urn:bract:purpose", "code": "evaluation"}]},
        **fields,
    }


def fhir(path: Path, *resources: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in resources))
    return path


def test_a_fhir_consent_is_followed_through_its_life(registry: SiteRegistry, tmp_path: Path) -> None:
    path = tmp_path / "c.ndjson"
    active = consent("P-1", "c1", meta={"versionId": "1"})
    assert taken(registry, fhir(path, active)) == (1, 0, [])
    assert taken(registry, fhir(path, consent("P-1", "c1", meta={"versionId": "2"})), 1) == (0, 1, [])
    ended = consent("P-1", "c1", status="inactive", meta={"lastUpdated": "2026-05-01T00:00:00Z"})
    assert taken(registry, fhir(path, ended), 2) == (1, 0, [])
    assert (verdict(registry, "P-1", 30), verdict(registry, "P-1")) == (Verdict.ADMITTED, Verdict.EXPIRED)
    assert taken(registry, fhir(path, active), 3) == (0, 0, [Reason.REPLACED])
    error = {**consent("", "c1", status="entered-in-error"), "patient": None}
    error = {key: value for key, value in error.items() if value is not None}
    assert taken(registry, fhir(path, error), 4) == (1, 0, [])
    assert verdict(registry, "P-1", 30) is Verdict.NO_CONSENT
    assert taken(registry, fhir(path, error), 5) == (0, 1, [])
    before: tuple[KnownEvent, ...] = registry.history("P-1")
    assert [one.event.decision for one in before] == [Decision.PERMIT, Decision.PERMIT, Decision.CORRECT]
    registry.check()
    registry.verify_log()


def test_an_older_version_that_comes_late_brings_nobody_back(registry: SiteRegistry, tmp_path: Path) -> None:
    path, early, late = (
        tmp_path / "c.ndjson",
        {"lastUpdated": "2026-01-10T00:00:00Z"},
        {"lastUpdated": "2026-05-01T00:00:00Z"},
    )
    refusal = {"type": "deny", "purpose": [{"system": "urn:bract:purpose", "code": "evaluation"}]}
    versions: tuple[dict[str, Any], ...] = ({"provision": refusal}, {"status": "inactive"})
    for number, newest in enumerate(versions, start=1):
        person, name = f"P-{number}", f"c{number}"
        assert taken(registry, fhir(path, consent(person, name, meta=late, **newest)), 1) == (1, 0, [])
        for meta in (early, {"versionId": "1"}):
            assert taken(registry, fhir(path, consent(person, name, meta=meta)), 2) == (0, 0, [Reason.REPLACED])
        assert verdict(registry, person, 300) is not Verdict.ADMITTED
        after = (T0 + timedelta(days=200)).isoformat()
        assert taken(registry, fhir(path, consent(person, name, meta={"lastUpdated": after})), 300) == (1, 0, [])
        assert verdict(registry, person, 300) is Verdict.ADMITTED


def test_the_samples_go_in_once(registry: SiteRegistry) -> None:
    assert taken(registry, SAMPLES / "r5.json") == (3, 0, [])
    assert taken(registry, SAMPLES / "r5.json", 1) == (0, 3, [])
    assert verdict(registry, "MRN-31") is Verdict.DENIED


def test_fhir_needs_a_mapping_and_a_broken_file_records_nothing(registry: SiteRegistry, tmp_path: Path) -> None:
    with pytest.raises(BractError) as refused:
        registry.import_consent(SAMPLES / "r5.json", T0)
    assert refused.value.code == MALFORMED
    path = tmp_path / "c.csv"
    path.write_text("who,what\n")
    with pytest.raises(BractError) as refused:
        registry.import_consent(path, T0, mapping=NAMED)
    assert refused.value.code == BAD_RECORD
    with pytest.raises(BractError):
        registry.history("P-1")


def test_a_reader_that_fails_midway_leaves_nothing_behind(
    registry: SiteRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "BATCH", 1)

    def items() -> Iterator[Any]:
        yield from read_consent(own(tmp_path / "c.csv", ROWS[:3]))
        raise BractError(BAD_RECORD, "the disk went away")

    with pytest.raises(BractError):
        registry.import_statements(items(), "csv", "clinic", T0)
    assert registry.import_consent(tmp_path / "c.csv", T0).taken == 3


HOSTILE = [
    "=cmd|'/c calc'!A1",
    "'; DROP TABLE consent_event; --",
    "../../etc/passwd",
    "%s%n",
    "P\u202e-1",
    "+1",
    "@SUM(A1)",
]


def test_hostile_names_are_only_names_and_are_kept_nowhere(world: tuple[Engine, SiteRegistry], tmp_path: Path) -> None:
    engine, registry = world
    good = [name for name in HOSTILE if name.isprintable()]
    rows = [f'"{name}",evaluation,permit,2026-01-01T00:00:00Z,,,"{name}"' for name in HOSTILE]
    count, _, aside = taken(registry, named(tmp_path / "c.csv", *rows))
    assert (count, len(aside)) == (len(good), len(HOSTILE) - len(good))
    assert {verdict(registry, name) for name in good} == {Verdict.ADMITTED}
    with engine.connect() as connection:
        kept = ""
        for table in ("subject", "consent_event", "consent_current", "log_entry", "log_body"):
            kept += repr(connection.execute(text(f"SELECT * FROM {table}")).all())  # noqa: S608 - names of our tables
    assert not [name for name in good if name in kept]


def test_many_refusals_do_not_resolve_every_person_for_every_snapshot(
    registry: SiteRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of who never permitted, and whose permit is over, no snapshot is worked out; who was held is found."""
    ended = [f"P-{n},ssl-pretraining,permit,2025-01-01T00:00:00Z,2026-01-01T00:00:00Z" for n in range(200)]
    rows = [Person(f"r{n}", f"P-{n}", ()) for n in range(400)] + [Person("held", "Q-1")]
    add_table(registry, write_table(tmp_path / "t.parquet", rows))
    registry.ingest("adult", T0)
    registry.import_consent(own(tmp_path / "c.csv", ended), T0)
    held = [registry.freeze("adult", Purpose.PRETRAINING, T0 + hour * HOUR).root for hour in range(1, 6)]
    asked = list[str]()

    def counted(events: Any, purpose: Purpose, dataset: str, *more: Any) -> Resolution:
        asked.append(dataset)
        return resolve(events, purpose, dataset, *more)

    monkeypatch.setattr(leavers, "resolve", counted)
    refusals = [f"P-{n},ssl-pretraining,deny,2026-01-01T00:00:00Z," for n in range(400)]
    assert registry.import_consent(own(tmp_path / "c.csv", refusals), T0 + DAY).taken == 400
    assert not asked and registry.take_notice(T0 + 9 * DAY, HOUR) is None
    registry.import_consent(own(tmp_path / "c.csv", ["Q-1,ssl-pretraining,deny,2026-01-01T00:00:00Z,"]), T0 + DAY)
    notice = registry.take_notice(T0 + 9 * DAY, HOUR)
    assert notice is not None and set(notice.snapshots) == set(held) and len(asked) == len(set(held))


def test_a_report_names_lines_up_to_a_limit_and_counts_them_all(
    registry: SiteRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "KEPT", 2)
    report = registry.import_consent(own(tmp_path / "c.csv", ["x"] * 5 + ROWS[:1]), T0)
    assert report.unreadable == (Unreadable(2, Reason.BAD_LINE), Unreadable(3, Reason.BAD_LINE))
    assert (report.taken, report.set_aside) == (1, {Reason.BAD_LINE: 5})


CELLS = st.sampled_from(["permit", "deny", "withdraw", "expire", "error"])
DAYS = st.integers(1, 4).map(lambda number: f"2026-0{number}-01")
LINES = st.builds(
    line, st.integers(1, 3), CELLS, DAYS, st.sampled_from(["", "2026-03-15"]), st.sampled_from(["", FORM])
)
FILES = st.lists(st.lists(LINES | st.text(alphabet="Px,;\"'-=", max_size=9), max_size=4), min_size=1, max_size=3)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=FILES)
def test_any_files_one_after_the_other_add_up_and_the_last_one_again_is_known(
    registry: SiteRegistry, tmp_path: Path, files: list[list[str]]
) -> None:
    for hour, rows in enumerate(files):
        path = named(tmp_path / "c.csv", *rows)
        first, again = taken(registry, path, hour), taken(registry, path, hour)
        assert first[0] + first[1] + len(first[2]) == sum(bool(row) for row in rows)
        assert again[0] == 0
    registry.check()
