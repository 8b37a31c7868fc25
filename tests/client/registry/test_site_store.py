import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from bract.consent import Decision, Purpose, Verdict
from bract.errors import (
    ALREADY_EXISTS,
    BAD_RECORD,
    LOG,
    MALFORMED,
    NO_ADMITTED,
    STALE_CLEARANCE,
    STATE,
    UNKNOWN_DATASET,
    UNKNOWN_SUBJECT,
    BractError,
)
from bract.log.merkle import leaf_hash, verify_inclusion
from bract.retention import RetentionRule
from bract.signing import unseal
from bract.update import Clearance
from bract_client.registry.store import SiteRegistry
from bract_client.sources.location import FilesLocation, TableLocation
from bract_client.sources.record import Reason
from tests.client.site_world import (
    HOUR,
    PRETRAINING,
    SIGNING,
    T0,
    Person,
    add_table,
    campaign,
    open_registry,
    persons,
    write_table,
)

DAY = timedelta(days=1)
CSV = "subject_id,purpose,decision,valid_from,valid_to\n"


@pytest.fixture
def opened(database_url: str) -> Iterator[tuple[Engine, SiteRegistry]]:
    engine, registry = open_registry(database_url)
    yield engine, registry
    engine.dispose()


@pytest.fixture
def registry(opened: tuple[Engine, SiteRegistry]) -> SiteRegistry:
    return opened[1]


@pytest.fixture
def table(registry: SiteRegistry, tmp_path: Path) -> Path:
    path = write_table(tmp_path / "t.parquet", persons(5))
    add_table(registry, path)
    registry.ingest("adult", T0)
    return path


def refused(code: str) -> pytest.RaisesExc[BractError]:
    return pytest.RaisesExc(BractError, check=lambda error: error.code == code)


def admitted(registry: SiteRegistry, at_hours: int = 1) -> int:
    return registry.admission("adult", PRETRAINING, T0 + at_hours * HOUR).admitted_subjects


def test_ingest_twice_changes_nothing(opened: tuple[Engine, SiteRegistry], table: Path) -> None:
    engine, registry = opened
    tables = ("subject", "record", "consent_event", "consent_current", "dataset", "quarantine")

    def rows() -> list[object]:
        with engine.connect() as connection:
            return [sorted(map(repr, connection.execute(text(f"SELECT * FROM {name}")))) for name in tables]  # noqa: S608

    before = rows()
    report = registry.ingest("adult", T0 + HOUR)
    assert (report.taken, report.unchanged, report.removed, report.quarantined) == (0, 5, 0, {})
    assert rows() == before


def test_ingest_follows_the_source(registry: SiteRegistry, table: Path) -> None:
    rows = persons(5)
    changed = Person("r1", "P-1", features={"age": 80})
    unreadable = Person("r2", "P-2", features={"age": None})
    doubled = [Person("r8", "P-8"), Person("r8", "P-9")]
    write_table(table, [rows[0], changed, unreadable, rows[4], *doubled])
    report = registry.ingest("adult", T0 + HOUR)
    assert (report.taken, report.unchanged, report.removed) == (1, 2, 2)
    assert report.quarantined == {Reason.BAD_PAYLOAD: 1, Reason.DUPLICATE: 2}
    assert registry.quarantine("adult") == {3: Reason.BAD_PAYLOAD, 5: Reason.DUPLICATE, 6: Reason.DUPLICATE}
    now = registry.admission("adult", PRETRAINING, T0 + HOUR)
    assert (now.admitted_subjects, now.refused) == (3, {Verdict.UNREADABLE: 3})


def test_a_source_that_cannot_be_read_changes_nothing(registry: SiteRegistry, table: Path) -> None:
    table.write_bytes(b"broken")
    with refused(BAD_RECORD):
        registry.ingest("adult", T0 + HOUR)
    assert admitted(registry) == 5


def test_a_permit_that_the_source_takes_back_counts_at_once(registry: SiteRegistry, table: Path) -> None:
    for hour, purposes, wanted in [(1, (), 0), (2, (PRETRAINING.value,), 5), (3, (), 0), (4, (PRETRAINING.value,), 5)]:
        write_table(table, persons(5, purposes))
        registry.ingest("adult", T0 + hour * HOUR)
        assert admitted(registry, hour) == wanted
    registry.check()


def test_a_subject_permits_only_what_all_of_its_records_say(registry: SiteRegistry, tmp_path: Path) -> None:
    rows = [Person("a", "P-1"), Person("b", "P-1", ()), Person("c", "P-2")]
    add_table(registry, write_table(tmp_path / "t.parquet", rows))
    registry.ingest("adult", T0)
    assert registry.admission("adult", PRETRAINING, T0).refused == {Verdict.NO_CONSENT: 2}


def test_a_source_cannot_undo_a_withdrawal(registry: SiteRegistry, table: Path) -> None:
    registry.withdraw("P-1", T0 + HOUR)
    newer = Person("r9", "P-1", collected_at="2026-03-02T00:00:00Z")
    write_table(table, [*persons(5), newer])
    registry.ingest("adult", T0 + 2 * DAY)
    assert admitted(registry, 72) == 4


def test_retention_ends_each_record_by_itself(registry: SiteRegistry, tmp_path: Path) -> None:
    rows = [Person("a", "P-1"), Person("b", "P-1", collected_at="2026-02-25T00:00:00Z"), Person("c", "P-2")]
    add_table(registry, write_table(tmp_path / "t.parquet", rows), retention=RetentionRule(60))
    registry.ingest("adult", T0)
    end = T0.replace(month=1) + 60 * DAY
    before = registry.admission("adult", PRETRAINING, end - timedelta(microseconds=1))
    assert (before.admitted_subjects, before.admitted_records) == (2, 3)
    after = registry.admission("adult", PRETRAINING, end)
    assert (after.admitted_subjects, after.admitted_records) == (1, 1)
    assert after.refused == {Verdict.RETENTION: 2}


def test_imported_decisions_count_once(registry: SiteRegistry, table: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text(
        CSV
        + "P-0,ssl-pretraining,deny,2026-03-01T00:00:00Z,\n"
        + "P-1,ssl-pretraining,withdraw,2026-03-01T00:00:00Z,\n"
        + "P-7,ssl-pretraining,deny,2026-03-01T00:00:00Z,\n"
        + "P-2,ssl-pretraining,maybe,2026-03-01T00:00:00Z,\n"
    )
    first, second = registry.import_consent(path, T0), registry.import_consent(path, T0 + HOUR)
    assert (first.taken, first.known, [one.line for one in first.unreadable]) == (3, 0, [5])
    assert (second.taken, second.known) == (0, 3)
    assert registry.admission("adult", PRETRAINING, T0).refused == {Verdict.DENIED: 1, Verdict.WITHDRAWN: 1}
    write_table(table, persons(8))
    registry.ingest("adult", T0 + HOUR)
    assert registry.admission("adult", PRETRAINING, T0 + HOUR).refused == {Verdict.DENIED: 2, Verdict.WITHDRAWN: 1}


def test_history_tells_what_was_known_and_what_was_valid(registry: SiteRegistry, table: Path, tmp_path: Path) -> None:
    late = tmp_path / "c.csv"
    late.write_text(CSV + "P-1,ssl-pretraining,deny,2026-03-01T00:00:00Z,\n")
    registry.import_consent(late, T0 + 2 * DAY)
    assert [one.event.decision for one in registry.history("P-1")] == [Decision.PERMIT, Decision.DENY]

    def believed(known_days: int) -> Verdict:
        return registry.believed("P-1", PRETRAINING, "adult", T0 + DAY, T0 + known_days * DAY).verdict

    assert believed(1) is Verdict.ADMITTED
    assert believed(2) is Verdict.DENIED


def test_a_permit_may_come_back_after_a_withdrawal(registry: SiteRegistry, table: Path) -> None:
    registry.withdraw("P-1", T0 + HOUR)
    assert admitted(registry, 1) == 4
    registry.decide("P-1", PRETRAINING, Decision.PERMIT, T0 + 2 * HOUR, valid_to=T0 + 4 * HOUR)
    assert [admitted(registry, hour) for hour in (1, 2, 3)] == [4, 5, 5]
    registry.decide("P-1", PRETRAINING, Decision.OBJECT, T0 + 3 * HOUR, dataset="adult")
    assert admitted(registry, 3) == 4


def test_unknown_names_are_refused(registry: SiteRegistry, table: Path) -> None:
    with refused(UNKNOWN_SUBJECT):
        registry.withdraw("P-77", T0)
    with refused(UNKNOWN_SUBJECT):
        registry.history("P-77")
    with refused(UNKNOWN_DATASET):
        registry.ingest("other", T0)
    with refused(UNKNOWN_DATASET):
        registry.decide("P-1", PRETRAINING, Decision.DENY, T0, dataset="other")
    with refused(MALFORMED):
        registry.decide("P-1", PRETRAINING, Decision.PERMIT, T0, valid_to=T0)
    with refused(ALREADY_EXISTS):
        add_table(registry, table)
    with refused(MALFORMED):
        add_table(registry, table, "Not A Name")


def test_a_snapshot_proves_its_members_and_no_one_else(registry: SiteRegistry, table: Path) -> None:
    registry.withdraw("P-3", T0 + HOUR)
    snapshot = registry.freeze("adult", PRETRAINING, T0 + HOUR)
    assert (snapshot.subjects, snapshot.records) == (4, 4)
    root = bytes.fromhex(snapshot.root.removeprefix("sha256:"))
    for record_id in ("r0", "r1", "r2", "r4"):
        member = registry.prove_membership(snapshot.root, record_id)
        assert member is not None
        verify_inclusion(leaf_hash(member.leaf), member.index, member.size, member.proof, root)
    assert registry.prove_membership(snapshot.root, "r3") is None
    registry.withdraw("P-1", T0 + 2 * HOUR)
    write_table(table, persons(1))
    registry.ingest("adult", T0 + 2 * HOUR)
    assert registry.prove_membership(snapshot.root, "r1") is not None


def test_snapshots_are_salted_and_repeatable(registry: SiteRegistry, table: Path) -> None:
    one = registry.freeze("adult", PRETRAINING, T0)
    assert registry.freeze("adult", PRETRAINING, T0) == one
    assert registry.freeze("adult", PRETRAINING, T0 + HOUR).root != one.root


def test_a_snapshot_ends_with_the_first_consent_that_ends(registry: SiteRegistry, table: Path, tmp_path: Path) -> None:
    registry.decide("P-1", PRETRAINING, Decision.PERMIT, T0, valid_to=T0 + 5 * HOUR)
    registry.decide("P-1", PRETRAINING, Decision.PERMIT, T0, valid_to=T0 + 5 * HOUR, dataset="adult")
    assert registry.freeze("adult", PRETRAINING, T0).until == T0 + 5 * HOUR
    future = tmp_path / "c.csv"
    future.write_text(CSV + "P-2,ssl-pretraining,withdraw,2026-03-01T03:00:00Z,\n")
    registry.import_consent(future, T0)
    assert registry.freeze("adult", PRETRAINING, T0).until == T0 + 3 * HOUR
    assert registry.freeze("adult", PRETRAINING, T0 + 4 * HOUR).subjects == 4


def test_a_clearance_is_signed_short_and_counts_nobody(registry: SiteRegistry, table: Path) -> None:
    registry.decide("P-1", PRETRAINING, Decision.PERMIT, T0, valid_to=T0 + 5 * HOUR, dataset="adult")
    snapshot = registry.freeze("adult", PRETRAINING, T0)
    plan = campaign()
    envelope = registry.clearance(plan, 1, snapshot, DAY, 5, T0)
    value = unseal(Clearance, envelope, SIGNING.public_key())
    assert (value.subjects_floor, value.snapshot) == (1000, snapshot.root)
    assert value.expires_at == T0 + DAY, "the end of one person's consent cannot be read off it"
    assert registry.clearance(plan, 1, snapshot, HOUR, 5, T0) != envelope
    assert registry.cleared(envelope.name, value.campaign, 1) == value
    with refused(NO_ADMITTED):
        registry.clearance(plan, 1, snapshot, DAY, 6, T0)
    with refused(STALE_CLEARANCE):
        registry.clearance(plan, 1, snapshot, DAY, 5, T0 + 5 * HOUR)
    with refused(STATE):
        registry.clearance(campaign(purpose=Purpose.EVALUATION), 1, snapshot, DAY, 5, T0)


def test_withdrawals_are_told_in_batches(registry: SiteRegistry, table: Path) -> None:
    assert registry.withdraw("P-0", T0) == ()
    first = registry.freeze("adult", PRETRAINING, T0 + HOUR)
    assert registry.withdraw("P-1", T0 + 2 * HOUR) == (first.root,)
    second = registry.freeze("adult", PRETRAINING, T0 + 3 * HOUR)
    assert registry.withdraw("P-2", T0 + 4 * HOUR) == tuple(sorted((first.root, second.root)))
    assert registry.take_notice(T0 + 5 * HOUR, DAY) is None
    notice = registry.take_notice(T0 + 26 * HOUR, DAY)
    assert notice is not None and notice.snapshots == tuple(sorted((first.root, second.root)))
    registry.withdraw("P-3", T0 + 27 * HOUR)
    assert registry.take_notice(T0 + 60 * HOUR, DAY) == notice
    registry.mark_sent(notice.notice, T0 + 60 * HOUR)
    registry.mark_sent(notice.notice, T0 + 61 * HOUR)
    later = registry.take_notice(T0 + 60 * HOUR, DAY)
    assert later is not None and later.notice != notice.notice
    with refused(STATE):
        registry.mark_sent("never", T0)


def test_a_notice_does_not_tell_when_within_its_interval_somebody_withdrew(registry: SiteRegistry, table: Path) -> None:
    registry.freeze("adult", PRETRAINING, T0)
    registry.withdraw("P-1", T0 + 7 * HOUR)
    notice = registry.take_notice(T0 + 29 * HOUR, DAY)
    assert notice is not None and notice.noticed_at == T0 + DAY


def test_a_refusal_also_beats_a_permit_that_begins_later(registry: SiteRegistry, table: Path) -> None:
    for dataset in (None, "adult"):
        registry.decide("P-1", PRETRAINING, Decision.PERMIT, T0 + 5 * HOUR, dataset=dataset)
    registry.withdraw("P-1", T0 + HOUR)
    registry.decide("P-1", PRETRAINING, Decision.DENY, T0 + HOUR, dataset="adult")
    for hours in (1, 4, 5, 100):
        assert registry.admission("adult", PRETRAINING, T0 + hours * HOUR).admitted_subjects == 4
    registry.decide("P-1", PRETRAINING, Decision.PERMIT, T0 + 200 * HOUR)
    registry.decide("P-1", PRETRAINING, Decision.PERMIT, T0 + 200 * HOUR, dataset="adult")
    assert registry.admission("adult", PRETRAINING, T0 + 200 * HOUR).admitted_subjects == 5


def test_the_same_files_under_a_second_name_get_no_second_budget(registry: SiteRegistry, table: Path) -> None:
    with refused(ALREADY_EXISTS):
        add_table(registry, table, "twice")
    (table.parent / "soft").symlink_to(table)
    (table.parent / "hard").hardlink_to(table)
    (table.parent / "inside").mkdir()
    terms: dict[str, Any] = {"subjects_floor": 1000, "epsilon_cap": 8.0, "delta": 1e-6, "at": T0}
    for name in ("soft", "hard", "inside/../t.parquet"):
        path = f"{table.parent}/{name}"
        for location in (TableLocation("table", path, "adult"), FilesLocation("files", path)):
            with refused(ALREADY_EXISTS):
                registry.add_dataset("twice", location, retention=RetentionRule(), **terms)


def test_an_imported_refusal_is_told_too(registry: SiteRegistry, table: Path, tmp_path: Path) -> None:
    snapshot = registry.freeze("adult", PRETRAINING, T0)
    path = tmp_path / "c.csv"
    path.write_text(
        CSV + "P-1,ssl-pretraining,deny,2026-03-01T01:00:00Z,\nP-2,distillation,deny,2026-03-01T01:00:00Z,\n"
    )
    registry.import_consent(path, T0 + HOUR)
    notice = registry.take_notice(T0 + 2 * HOUR, timedelta(0))
    assert notice is not None and notice.snapshots == (snapshot.root,)


def test_every_verb_is_in_the_log_and_tampering_is_found(opened: tuple[Engine, SiteRegistry], table: Path) -> None:
    engine, registry = opened
    registry.withdraw("P-1", T0 + HOUR)
    registry.freeze("adult", PRETRAINING, T0 + HOUR)
    registry.checkpoint(T0 + HOUR)
    assert registry.verify_log().entries == 5
    registry.check()
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM consent_current"))
    with refused(LOG):
        registry.check()
    registry.rebuild(T0 + 2 * HOUR)
    registry.check()
    drop = "DROP TRIGGER keep_consent_event_update" + (
        " ON consent_event" if engine.dialect.name == "postgresql" else ""
    )
    with engine.begin() as connection:
        connection.execute(text(drop))
        connection.execute(text("UPDATE consent_event SET decision = 'permit' WHERE decision = 'withdraw'"))
    registry.rebuild(T0 + 2 * HOUR)
    with refused(LOG):
        registry.check()


def test_identifiers_leave_no_trace(
    opened: tuple[Engine, SiteRegistry], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine, registry = opened
    canary = "CANARY-4711"
    caplog.set_level(logging.DEBUG)
    rows = [Person(f"r{n}", f"{canary}-{n}") for n in range(3)]
    rows += [Person(f"{canary}-9", f"{canary}-9"), Person("r8", f"{canary}-8", features={"sex": canary})]
    add_table(registry, write_table(tmp_path / "t.parquet", rows))
    texts = [repr(registry.ingest("adult", T0)), repr(registry.freeze("adult", PRETRAINING, T0))]
    path = tmp_path / "c.csv"
    path.write_text(CSV + f"{canary}-1,ssl-pretraining,deny,2026-03-01T00:00:00Z,\n{canary}-2,{canary},deny,,\n")
    texts.append(repr(registry.import_consent(path, T0)))
    texts.append(repr(registry.withdraw(f"{canary}-2", T0 + HOUR)))
    texts.append(repr(registry.history(f"{canary}-2")))
    with pytest.raises(BractError) as error:
        registry.withdraw(f"{canary}-99", T0)
    texts.extend([str(error.value), repr(error.value), caplog.text])
    with engine.connect() as connection:
        for table in ("log_body", "subject", "record", "consent_event", "quarantine", "notice_outbox"):
            for row in connection.execute(text(f"SELECT * FROM {table}")):  # noqa: S608
                texts.append(repr(row))
    assert len(texts) > 20
    assert not [one for one in texts if canary in one]
    if engine.dialect.name == "sqlite":
        engine.dispose()
        files = list(tmp_path.glob("registry.db*"))
        assert files and not [file for file in files if canary.encode() in file.read_bytes()]
