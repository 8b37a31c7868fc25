from collections.abc import Iterator
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, insert, select
from sqlalchemy.orm import Session

from bract.consent import ConsentEvent, Decision, Purpose, Verdict, resolve
from bract_client.registry import decisions
from bract_client.registry.decisions import NewEvent
from bract_client.registry.models import ConsentCurrent, Subject
from tests.client.site_world import HOUR, T0, open_registry

TIMES = st.integers(0, 6).map(lambda hours: T0 + hours * HOUR)
PURPOSES = st.sampled_from([Purpose.PRETRAINING, Purpose.EVALUATION])


@st.composite
def events(draw: st.DrawFn) -> ConsentEvent:
    begin = draw(TIMES)
    ends = st.none() | st.integers(1, 4).map(lambda hours: begin + hours * HOUR)
    scope = draw(st.sampled_from([None, "adult", "other"]))
    return ConsentEvent(draw(PURPOSES), draw(st.sampled_from(Decision)), begin, draw(ends), scope)


BATCHES = st.lists(st.lists(st.tuples(st.integers(1, 3), events()), max_size=4), max_size=4)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine, _ = open_registry(database_url)
    with Session(engine) as session, session.begin():
        rows = [{"subject_no": n, "handle": bytes([n]) * 32, "key_id": "k", "created_at": T0} for n in (1, 2, 3)]
        session.execute(insert(Subject), rows)
    yield engine
    engine.dispose()


def resolved(
    session: Session, at: datetime, consent_seq: int | None = None
) -> dict[int, tuple[Verdict, datetime | None]]:
    rows = decisions.verdicts(session, Purpose.PRETRAINING, "adult", at, consent_seq)
    return {row.subject_no: (Verdict(row.verdict), row.until) for row in session.execute(select(rows))}


def expected(known: list[tuple[int, ConsentEvent]], subject: int, at: datetime) -> tuple[Verdict, datetime | None]:
    resolution = resolve([event for one, event in known if one == subject], Purpose.PRETRAINING, "adult", at)
    return resolution.verdict, resolution.until


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=BATCHES)
def test_the_database_resolves_every_history_as_the_rule_does(
    engine: Engine, batches: list[list[tuple[int, ConsentEvent]]]
) -> None:
    nothing = (Verdict.NO_CONSENT, None)
    with Session(engine) as session:
        known: list[tuple[int, ConsentEvent]] = []
        states: list[tuple[int, list[tuple[int, ConsentEvent]]]] = []
        for number, batch in enumerate(batches):
            new = [NewEvent(s, event, "test", f"{number}/{place}") for place, (s, event) in enumerate(batch)]
            decisions.record(session, new, T0 + number * HOUR)
            known.extend(batch)
            states.append((decisions.newest(session), list(known)))
        for hours in range(-1, 12):
            at = T0 + hours * HOUR
            now = resolved(session, at)
            for subject in (1, 2, 3):
                verdict, until = now.get(subject, nothing)
                wanted = expected(known, subject, at)
                assert verdict == wanted[0]
                assert verdict is not Verdict.ADMITTED or until == wanted[1]
        for seq, earlier in states:
            then = resolved(session, T0 + 3 * HOUR, seq)
            for subject in (1, 2, 3):
                assert then.get(subject, nothing)[0] == expected(earlier, subject, T0 + 3 * HOUR)[0]
        assert decisions.drift(session) == 0
        session.rollback()


def test_a_changed_state_is_found_and_mended(engine: Engine) -> None:
    event = ConsentEvent(Purpose.PRETRAINING, Decision.DENY, T0)
    with Session(engine) as session:
        decisions.record(session, [NewEvent(1, event, "test", "1")], T0)
        for row in session.scalars(select(ConsentCurrent)):
            row.decision = "permit"
        session.flush()
        assert decisions.drift(session) == 2
        assert resolved(session, T0)[1][0] is Verdict.ADMITTED
        decisions.rebuild(session)
        assert decisions.drift(session) == 0
        assert resolved(session, T0)[1][0] is Verdict.DENIED
        session.rollback()


def test_the_same_event_again_is_not_recorded(engine: Engine) -> None:
    event = NewEvent(1, ConsentEvent(Purpose.PRETRAINING, Decision.PERMIT, T0), "test", "1")
    with Session(engine) as session:
        assert decisions.record(session, [event, event], T0) is not None
        assert decisions.record(session, [event], T0 + HOUR) is None
        assert len(decisions.history(session, 1)) == 1
        session.rollback()


def test_recorded_times_never_go_back_even_if_the_clock_does(engine: Engine) -> None:
    with Session(engine) as session:
        for number, at in enumerate([T0 + HOUR, T0, T0 + 2 * HOUR]):
            event = ConsentEvent(Purpose.PRETRAINING, Decision.PERMIT, T0)
            decisions.record(session, [NewEvent(1, event, "test", str(number))], at)
        times = [one.recorded_at for one in decisions.history(session, 1)]
        assert times == [T0 + HOUR, T0 + HOUR, T0 + 2 * HOUR]
        session.rollback()
