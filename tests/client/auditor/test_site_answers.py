"""What a site answers: consents as believed then and as known now, on both databases; every reading is recorded."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from bract.consent import ConsentEvent, Decision, Evidence
from bract.database import open_engine
from bract.digest import Digest, digest
from bract.errors import FORBIDDEN, LOG, MALFORMED, UNKNOWN_SUBJECT, BractError
from bract.log.checkpoint import Checkpoint
from bract.privacy.accounting import epsilon, rounded_up
from bract.privacy.budget import bound
from bract.question import Answer, SnapshotAnswer, moment
from bract.retention import RetentionRule
from bract.roles import Role
from bract.signing import unseal
from bract.value import digest_value
from bract_client.auditor.questions import ask, signed
from bract_client.auditor.report import report
from bract_client.auditor.sight import Arguments, SiteSight
from bract_client.handles import handle
from bract_client.registry.access import Reader
from bract_client.registry.store import SiteRegistry
from tests.client.site_world import (
    HOUR,
    KEY,
    PRETRAINING,
    SIGNING,
    T0,
    add_table,
    campaign,
    open_registry,
    persons,
    write_table,
)

DAY = timedelta(days=1)
LATER = T0 + 10 * DAY
STEWARD = Reader("sam", Role.SITE, "yearly audit")


@dataclass
class Ward:
    """Six persons, two rounds a day apart; reading goes over connections that cannot write."""

    engine: Engine
    registry: SiteRegistry
    sight: SiteSight
    snapshots: list[Digest]

    def ask(
        self,
        number: int,
        who: Reader = STEWARD,
        *,
        known: datetime | None = None,
        valid: datetime | None = None,
        at: datetime = LATER,
        **arguments: Any,
    ) -> Answer:
        given = Arguments(**arguments)
        return ask(self.sight, self.registry, who, number, moment(valid, known, at), at, arguments=given)


@pytest.fixture
def ward(database_url: str, tmp_path: Path) -> Iterator[Ward]:
    engine, registry = open_registry(database_url)
    add_table(registry, write_table(tmp_path / "adult.parquet", persons(6)), retention=RetentionRule(1000))
    registry.ingest("adult", T0)
    roots = []
    for number, at in ((1, T0), (2, T0 + DAY)):
        plan = campaign()
        snapshot = registry.freeze("adult", PRETRAINING, at)
        registry.clearance(plan, number, snapshot, DAY, 1, at)
        registry.reserve(digest_value(plan), number, "adult", plan.privacy.mechanism, at, HOUR)
        registry.begin_training(digest_value(plan), number, at)
        roots.append(snapshot.root)
        if number == 1:
            registry.withdraw("P-0", T0 + HOUR)
    reader = open_engine(database_url, read_only=True)
    yield Ward(engine, registry, SiteSight(reader, KEY, SIGNING, "ward"), roots)
    registry.verify_log()
    reader.dispose()
    engine.dispose()


def counts(told: Answer, number: int) -> dict[tuple[str, str], int]:
    rows = [row for row in told.rows if row["round"] == number]
    return {(row["believed_then"], row["known_now"]): row["subjects"] for row in rows}


def test_consents_as_believed_then_and_as_known_now(ward: Ward) -> None:
    assert counts(ward.ask(2), 1) == {("admitted", "admitted"): 6}
    assert counts(ward.ask(2), 2) == {("admitted", "admitted"): 5, ("withdrawn", "withdrawn"): 1}
    # P-1 had refused before the first round, which the site learns five days later
    (first,) = [one for one in ward.registry.history("P-1") if one.event.purpose == PRETRAINING]
    refusal = ConsentEvent(PRETRAINING, Decision.DENY, T0 - DAY, dataset="adult")
    ward.registry.correct("P-1", first.seq, Evidence(digest=digest(b"form 7")), T0 + 5 * DAY, refusal)
    told = ward.ask(2)
    assert counts(told, 1) == {("admitted", "admitted"): 5, ("admitted", "denied"): 1}
    assert [row["differs"] for row in told.rows if row["round"] == 1] == [False, True]
    assert counts(ward.ask(2, known=T0 + 4 * DAY), 1) == {("admitted", "admitted"): 6}
    (row,) = [one for one in ward.ask(2, listed=True).rows if one["round"] == 1]
    assert (row["believed_then"], row["known_now"]) == ("admitted", "denied")
    assert all("subject_no" not in one for one in told.rows)

    found = {(r["round"], r["what"][:9], r["verdict"]): r["subjects"] for r in ward.ask(7).rows}
    assert found == {
        (1, "lawful th", "withdrawn"): 1,
        (1, "corrected", "denied"): 1,
        (2, "corrected", "denied"): 1,
    }
    before = ward.ask(7, known=T0 + 2 * DAY, valid=T0 + 2 * DAY)
    assert {(r["round"], r["verdict"]) for r in before.rows} == {(1, "withdrawn")}
    assert ward.ask(7, known=T0, valid=T0).rows == ()
    for answer in (told, ward.ask(7)):
        assert answer.proof.entries
        for seq in answer.proof.entries:
            ward.sight.proof(seq).verify(SIGNING.public_key())


def test_one_person_is_found_by_identifier_or_handle_and_the_hub_hears_snapshots_only(ward: Ward) -> None:
    name = handle(KEY, "P-0").hex()
    for person in ("P-0", name):
        assert [row["snapshot"] for row in ward.ask(1, person=person).rows] == ward.snapshots[:1]
    assert len(ward.ask(1, person="P-2").rows) == 2
    answer = ward.ask(1, person="P-0")
    envelope = signed(ward.sight, answer, SIGNING, Arguments(person="P-0"), LATER)
    value = unseal(SnapshotAnswer, envelope, SIGNING.public_key())
    assert (value.site, value.question, value.snapshots) == ("ward", 1, tuple(ward.snapshots[:1]))
    assert b"P-0" not in envelope.to_json() and name.encode() not in envelope.to_json()
    assert value.log_size == answer.proof.size
    for number in (2, 7):
        mine = signed(ward.sight, ward.ask(number), SIGNING, Arguments(), LATER)
        assert unseal(SnapshotAnswer, mine, SIGNING.public_key()).snapshots == (
            tuple(ward.snapshots[:1]) if number == 7 else ()
        )
    with pytest.raises(BractError) as refused:
        signed(ward.sight, ward.ask(5), SIGNING, Arguments(), LATER)
    assert refused.value.code == MALFORMED
    for stranger, code in (("nobody", UNKNOWN_SUBJECT), (None, MALFORMED)):
        with pytest.raises(BractError) as refused:
            ward.ask(1, person=stranger)
        assert refused.value.code == code and "nobody" not in str(refused.value)

    told = report(ward.sight, name, LATER)
    assert [one["decision"] for one in told["consents"]["history"]][-1] == "withdraw"
    verdicts = {one["purpose"]: one["verdict"] for one in told["consents"]["now"]}
    assert verdicts["ssl-pretraining"] == "withdrawn"
    assert [(one["number"], one["held"], one["trained"]) for one in told["rounds"]] == [
        (1, True, True),
        (2, False, True),
    ]
    mechanism = campaign().privacy.mechanism
    assert told["privacy"]["epsilon"] == rounded_up(epsilon([mechanism], 1e-6))
    assert told["data"] == [
        {"dataset": "adult", "records": 1, "closed": 0, "collected_from": "2026-01-01T00:00:00+00:00"}
    ]
    assert told["models"] == [] and told["notices"][0]["sent_at"] is None
    assert told["proof"]["entries"] and "P-0" not in str(told)
    _every_reading_is_recorded(ward)


def _every_reading_is_recorded(ward: Ward) -> None:
    told = ward.ask(14)
    asked = [(row["asked"], row["one_person"]) for row in told.rows]
    assert asked.count(("question 1", True)) == 4
    assert ("question 1", False) in asked and ("question 2", False) in asked  # also of an unknown person, and of all
    assert {row["purpose"] for row in told.rows} == {"yearly audit"}
    assert len(ward.ask(14, person="P-2").rows) == 2  # that one, and this very question
    with ward.engine.connect() as connection:
        bodies = connection.scalars(text("SELECT body FROM log_body")).all()
        entries = connection.execute(text("SELECT kind, actor, about FROM log_entry")).all()
    said = b"".join(bytes(one) for one in bodies) + str(entries).encode()
    assert b"access.read" in said and b"P-0" not in said and handle(KEY, "P-0").hex().encode() not in said
    for statement in ("UPDATE access_log SET purpose = ''", "DELETE FROM access_log"):
        with pytest.raises(DBAPIError, match="keeps its rows"), ward.engine.begin() as connection:
            connection.execute(text(statement))


def test_the_other_questions_of_a_site_and_who_may_ask(ward: Ward) -> None:
    point = ward.registry.checkpoint(T0 + 2 * DAY)
    kept = unseal(Checkpoint, point, SIGNING.public_key())
    assert {row["holds"] for row in ward.ask(3, checkpoint=kept).rows} == {True}
    with pytest.raises(BractError) as refused:
        ward.ask(3, checkpoint=Checkpoint("ward", kept.size, digest(b"another"), T0))
    assert refused.value.code == LOG

    assert ward.ask(4).rows == ()
    end = datetime(2026, 1, 1, tzinfo=T0.tzinfo) + timedelta(days=1000)
    (due,) = ward.ask(4, valid=end).rows
    assert (due["object"], due["scopes"], due["due_at"]) == ("6 records", ["adult"], end.isoformat())
    assert len(ward.ask(4, valid=end, listed=True).rows) == 6

    (spent,) = ward.ask(5).rows
    (account,) = ward.sight.accounts()
    left = account.cap_epsilon - bound(account.spent, account.delta)
    assert spent["remaining"] == pytest.approx(left, abs=2e-4)
    assert spent["remaining"] < account.cap_epsilon - spent["epsilon_cumulative"]
    mechanism = campaign().privacy.mechanism
    assert (spent["rounds"], spent["epsilon_alone"]) == (2, rounded_up(epsilon([mechanism, mechanism], 1e-6)))
    assert ward.ask(5, known=T0 + HOUR).rows[0]["rounds"] == 1
    assert ward.ask(5, known=T0 - HOUR).rows == ()

    (queued,) = ward.ask(9).rows
    assert (queued["state"], queued["breach"]) == ("queued", True)
    assert ward.ask(9, valid=T0 + DAY).rows[0]["breach"] is False
    matrix = {row["purpose"]: row for row in ward.ask(11).rows}
    assert (matrix["ssl-pretraining"]["rounds"], matrix["ssl-pretraining"]["keep_days"]) == (2, 1000)
    assert matrix["ssl-pretraining"]["bases"] == ["not stated"]

    for who, number, listed, code in (
        (Reader("olga", Role.OPERATOR), 2, False, FORBIDDEN),
        (Reader("ada", Role.AUDITOR), 2, True, FORBIDDEN),
        (STEWARD, 6, False, MALFORMED),
        (STEWARD, 16, False, MALFORMED),
    ):
        with pytest.raises(BractError) as refused:
            ward.ask(number, who, listed=listed)
        assert refused.value.code == code
    assert ward.ask(2, Reader("dora", Role.DPO), listed=True).number == 2
    with pytest.raises((BractError, DBAPIError)):  # nothing is read that cannot be recorded
        ask(ward.sight, ward.sight, STEWARD, 2, moment(None, None, LATER), LATER)
