"""What the verbs about consent promise: broad consent, conditions, corrections, ends, and proofs about one person."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from bract.consent import ConsentEvent, Decision, Evidence, Purpose, UseContext, Verdict
from bract.database import open_engine
from bract.digest import Digest, canonical, digest
from bract.errors import LOG, MALFORMED, UNKNOWN_SUBJECT, BractError
from bract.membership import verify_absent, verify_present
from bract.migrations import migrate
from bract.vocabulary.modifiers import modifier
from bract_client.handles import handle
from bract_client.registry import MIGRATIONS
from bract_client.registry.consent import _statement
from bract_client.registry.store import SiteRegistry
from tests.benchmarks.registry.world import DAY as STEP
from tests.benchmarks.registry.world import event_of, fill
from tests.client.site_world import (
    HOUR,
    KEY,
    PRETRAINING,
    SIGNING,
    T0,
    Person,
    add_table,
    open_registry,
    persons,
    write_table,
)

DAY = timedelta(days=1)
NO_METHODS = modifier("DUO:0000015")
SHOWN = Evidence(digest=digest(b"letter"))


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine, _ = open_registry(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def registry(engine: Engine, tmp_path: Path) -> SiteRegistry:
    """Four people of whom nobody has decided anything."""
    registry = SiteRegistry(engine, KEY, SIGNING, "ward")
    add_table(registry, write_table(tmp_path / "t.parquet", persons(4, ())))
    registry.ingest("adult", T0)
    return registry


def refused(code: str) -> pytest.RaisesExc[BractError]:
    return pytest.RaisesExc(BractError, check=lambda error: error.code == code)


def admitted(registry: SiteRegistry, at_hours: int = 1) -> int:
    return registry.admission("adult", PRETRAINING, T0 + at_hours * HOUR).admitted_subjects


def test_a_broad_consent_admits_to_what_it_covers_and_its_withdrawal_ends_that(registry: SiteRegistry) -> None:
    registry.decide("P-1", "DUO:0000042", Decision.PERMIT, T0)
    assert admitted(registry) == 1
    assert registry.admission("adult", Purpose.RELEASE_PUBLIC, T0).admitted_subjects == 0
    snapshot = registry.freeze("adult", PRETRAINING, T0)
    assert registry.decide("P-1", "research", Decision.WITHDRAW, T0 + HOUR) == (snapshot.root,)
    assert registry.admission("adult", PRETRAINING, T0 + HOUR).refused == {
        Verdict.WITHDRAWN: 1,
        Verdict.NO_CONSENT: 3,
    }
    registry.check()


def test_a_condition_admits_only_where_the_site_knows_that_it_holds(engine: Engine, registry: SiteRegistry) -> None:
    registry.decide("P-1", "research", Decision.PERMIT, T0, modifiers=[NO_METHODS])
    registry.decide("P-2", "research", Decision.PERMIT, T0)
    knowing = SiteRegistry(engine, KEY, SIGNING, "ward", UseContext(methods=False))
    assert registry.admission("adult", PRETRAINING, T0).refused == {Verdict.CONDITION: 1, Verdict.NO_CONSENT: 2}
    assert (admitted(registry), admitted(knowing)) == (1, 2)
    wide, narrow = knowing.freeze("adult", PRETRAINING, T0), registry.freeze("adult", PRETRAINING, T0)
    assert (wide.subjects, narrow.subjects) == (2, 1)
    assert len(knowing.usable(wide.root, T0)) == 2
    assert len(registry.usable(wide.root, T0)) == 1, "what is not known any more does not satisfy a condition"
    assert registry.prove_membership(wide.root, "r1") is not None, "a snapshot is judged by what was known of its use"
    assert registry.prove_membership(narrow.root, "r1") is None
    assert registry.decide("P-1", PRETRAINING, Decision.DENY, T0 + HOUR) == (wide.root,)
    registry.check()


def test_a_correction_is_believed_from_then_on_and_not_before(registry: SiteRegistry) -> None:
    registry.decide("P-1", PRETRAINING, Decision.PERMIT, T0)
    registry.decide("P-2", PRETRAINING, Decision.PERMIT, T0)
    first = registry.freeze("adult", PRETRAINING, T0 + HOUR)
    wrong = registry.history("P-1")[-1].seq
    assert registry.correct("P-1", wrong, Evidence(), T0 + DAY) == (first.root,), "it should never have held P-1"
    assert admitted(registry, 24) == 1

    def verdict(known_hours: int) -> Verdict:
        return registry.believed("P-1", PRETRAINING, "adult", T0 + HOUR, T0 + known_hours * HOUR).verdict

    def counts(known_hours: int) -> dict[Verdict, int]:
        return registry.consents(PRETRAINING, "adult", T0 + HOUR, T0 + known_hours * HOUR)

    assert (verdict(1), verdict(24)) == (Verdict.ADMITTED, Verdict.NO_CONSENT)
    assert (counts(1), counts(24)) == ({Verdict.ADMITTED: 2}, {Verdict.ADMITTED: 1})
    assert registry.prove_membership(first.root, "r1") is not None, "what was frozen then stays what it was"
    registry.check()


def test_a_correction_may_say_what_should_have_been_recorded(registry: SiteRegistry) -> None:
    registry.decide("P-1", PRETRAINING, Decision.PERMIT, T0)
    snapshot = registry.freeze("adult", PRETRAINING, T0 + HOUR)
    better = ConsentEvent(PRETRAINING, Decision.PERMIT, T0, T0 + 2 * DAY)
    assert registry.correct("P-1", 1, SHOWN, T0 + DAY, better) == (), "it was rightly held all the same"
    assert [admitted(registry, hours) for hours in (24, 47, 48)] == [1, 1, 0]
    assert registry.history("P-1")[-1].event == replace(better, supersedes=1, evidence=SHOWN)
    assert registry.freeze("adult", PRETRAINING, T0 + DAY).until == T0 + 2 * DAY
    assert snapshot.until is None


def test_a_refusal_is_taken_back_only_with_evidence_and_by_whom_it_is_about(registry: SiteRegistry) -> None:
    registry.decide("P-1", PRETRAINING, Decision.PERMIT, T0)
    registry.decide("P-1", PRETRAINING, Decision.DENY, T0 + HOUR)
    with refused(MALFORMED):
        registry.correct("P-1", 2, Evidence(), T0 + 2 * HOUR)
    with refused(MALFORMED):
        registry.correct("P-2", 2, SHOWN, T0 + 2 * HOUR)
    with refused(MALFORMED):
        registry.correct("P-1", 7, SHOWN, T0 + 2 * HOUR)
    with refused(MALFORMED):
        registry.decide("P-1", PRETRAINING, Decision.CORRECT, T0 + 2 * HOUR)
    assert admitted(registry, 2) == 0
    registry.correct("P-1", 2, SHOWN, T0 + 2 * HOUR)
    assert admitted(registry, 2) == 1


def test_an_end_that_is_told_late_names_only_snapshots_after_it(registry: SiteRegistry, tmp_path: Path) -> None:
    registry.decide("P-1", PRETRAINING, Decision.PERMIT, T0)
    early = registry.freeze("adult", PRETRAINING, T0 + HOUR)
    late = registry.freeze("adult", PRETRAINING, T0 + 3 * HOUR)
    path = tmp_path / "c.csv"
    path.write_text(
        "subject_id,purpose,decision,valid_from,valid_to\nP-1,ssl-pretraining,expire,2026-03-01T02:00:00Z,\n"
    )
    registry.import_consent(path, T0 + 4 * HOUR)
    assert admitted(registry, 4) == 0
    assert registry.admission("adult", PRETRAINING, T0 + 4 * HOUR).refused[Verdict.EXPIRED] == 1
    notice = registry.take_notice(T0 + 5 * HOUR, timedelta(0))
    assert notice is not None and notice.snapshots == (late.root,) and early.root != late.root


def test_a_snapshot_proves_for_one_person_what_it_held_and_what_not(engine: Engine, tmp_path: Path) -> None:
    registry = SiteRegistry(engine, KEY, SIGNING, "ward")
    rows = [*persons(9), Person("more", "P-3"), Person("silent", "P-10", ())]
    add_table(registry, write_table(tmp_path / "t.parquet", rows))
    registry.ingest("adult", T0)
    registry.withdraw("P-4", T0 + HOUR)
    snapshot = registry.freeze("adult", PRETRAINING, T0 + HOUR)
    registry.withdraw("P-3", T0 + 2 * HOUR)
    leaves: set[bytes] = set()
    for number in range(9):
        told = registry.prove_subject_membership(f"P-{number}", snapshot.root)
        assert (len(told.present), len(told.absent)) == ((0, 1) if number == 4 else (2 if number == 3 else 1, 0))
        for inside in told.present:
            verify_present(inside, snapshot.root)
            leaves.add(inside.leaf)
        for outside in told.absent:
            verify_absent(outside, snapshot.root)
    assert len(leaves) == snapshot.records == 9
    outside = registry.prove_subject_membership("P-10", snapshot.root).absent[0]
    beside = outside.before or outside.after
    assert beside is not None
    with refused(LOG):
        verify_present(replace(beside, leaf=outside.leaf), snapshot.root)
    for member in leaves:
        with refused(LOG):
            verify_absent(replace(outside, leaf=member), snapshot.root)
    with refused(LOG):
        verify_absent(replace(outside, before=None), snapshot.root)
    with refused(UNKNOWN_SUBJECT):
        registry.prove_subject_membership("P-99", snapshot.root)
    write_table(tmp_path / "t.parquet", [*rows, Person("new", "P-11")])
    registry.ingest("adult", T0 + 2 * DAY)
    nothing = registry.prove_subject_membership("P-11", snapshot.root)
    assert (nothing.present, nothing.absent) == ((), ())


def test_an_empty_snapshot_holds_nobody(registry: SiteRegistry) -> None:
    snapshot = registry.freeze("adult", PRETRAINING, T0)
    assert (snapshot.subjects, snapshot.records, snapshot.until) == (0, 0, None)
    outside = registry.prove_subject_membership("P-1", snapshot.root).absent[0]
    verify_absent(outside, snapshot.root)
    with refused(LOG):
        verify_absent(outside, digest(b"another"))


def test_a_statement_is_named_by_its_canonical_form() -> None:
    for event in (
        ConsentEvent(PRETRAINING, Decision.PERMIT, T0),
        ConsentEvent("DUO:0000042", Decision.PERMIT, T0 + timedelta(microseconds=1), T0 + DAY, "adult"),
        ConsentEvent("research", Decision.PERMIT, T0, None, None, (modifier("DUO:0000026", ['Zoë "X"\n', "é\u2028"]),)),
        ConsentEvent("research", Decision.DENY, T0 - 40_000 * DAY, supersedes=7),
    ):
        name = handle(KEY, "P-1").hex()
        parts: list[object] = [name, str(event.purpose), event.decision.value, event.valid_from.timestamp()]
        parts += [None if event.valid_to is None else event.valid_to.timestamp(), event.dataset]
        if event.modifiers or event.supersedes is not None:
            parts += [[[one.code, list(one.values)] for one in event.modifiers], event.supersedes]
        assert _statement(name, event) == canonical(parts)


FIRST_SCHEMA = """
INSERT INTO subject VALUES (1, :handle, 'k', :at);
INSERT INTO subject VALUES (2, :other, 'k', :at);
INSERT INTO consent_event VALUES (1, 1, 'ssl-pretraining', '', 'permit', :at, NULL, :at, 'csv', '1');
INSERT INTO consent_event VALUES (2, 2, 'ssl-pretraining', 'adult', 'withdraw', :at, NULL, :at, 'csv', '2');
INSERT INTO consent_current VALUES ('ssl-pretraining', '', 1, 'permit', 0, :at, NULL, 1);
INSERT INTO consent_current VALUES ('ssl-pretraining', 'adult', 2, 'withdraw', 1, :at, NULL, 2)
"""


def test_decisions_of_the_first_schema_mean_what_they_meant_and_their_log_entries_still_hold(database_url: str) -> None:
    engine = open_engine(database_url)
    migrate(engine, MIGRATIONS, "0001")
    registry = SiteRegistry(engine, KEY, SIGNING, "ward")
    rows = [
        ["1", "1", "ssl-pretraining", "", "permit", f"{T0}", "None", f"{T0}", "csv", "1"],
        ["2", "2", "ssl-pretraining", "adult", "withdraw", f"{T0}", "None", f"{T0}", "csv", "2"],
    ]
    values = {"handle": b"1" * 32, "other": b"2" * 32, "at": f"{T0.replace(tzinfo=None)}.000000"}
    with engine.begin() as connection:
        for statement in FIRST_SCHEMA.strip().split(";"):
            connection.execute(text(statement), values)
    migrate(engine, MIGRATIONS)
    body = {"first": 1, "last": 2, "rows": digest("".join(map(repr, rows)).encode())}
    with registry._write() as session:
        registry._log(session, "consent.record", "csv", body, T0)
    registry.check()
    found = registry.consents(PRETRAINING, "adult", T0, T0)
    assert found == {Verdict.ADMITTED: 1, Verdict.WITHDRAWN: 1}
    drop = "DROP TRIGGER keep_consent_event_update" + (" ON consent_event" if "postgres" in database_url else "")
    with engine.begin() as connection:
        connection.execute(text(drop))
        connection.execute(text("UPDATE consent_event SET actor = 'nobody' WHERE seq = 1"))
    with refused(LOG):
        registry.check()
    engine.dispose()


def test_what_a_measurement_fills_in_is_what_the_verbs_would_have_made(engine: Engine, tmp_path: Path) -> None:
    registry = SiteRegistry(engine, KEY, SIGNING, "ward")
    fill(registry, 20, 2, 6, start=T0)
    registry.check()
    assert registry.verify_log().entries == 1 + 1 + 2 * 6
    for number in (1, 3, 5, 15, 16):
        told = [one.event for one in registry.history(f"P-{number}")]
        assert told == [event_of(number, place, T0) for place in range(6)]
    at = T0 + 30 * STEP
    report = registry.admission("adult", PRETRAINING, at)
    assert (report.admitted_subjects, report.admitted_records) == (20, 40)
    assert registry.freeze("adult", PRETRAINING, T0 + 3 * STEP).subjects == 14, "one in three withdrew for two days"
    held = registry.prove_subject_membership("P-3", Digest(registry.freeze("adult", PRETRAINING, at).root))
    assert len(held.present) == 2
