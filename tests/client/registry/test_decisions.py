"""Events and what is derived from them: the database says what the pure rule says, whatever the history."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from bract.consent import (
    Capacity,
    ConsentEvent,
    Decision,
    Evidence,
    Modifier,
    Purpose,
    UseContext,
    Verdict,
    resolve,
    uncorrected,
)
from bract.digest import digest
from bract.errors import MALFORMED, BractError
from bract_client.registry import decisions, derived
from bract_client.registry.decisions import NewEvent
from bract_client.registry.models import ConsentCurrent, ConsentEffective, Subject
from bract_client.registry.resolving import known_at, verdicts
from tests.client.site_world import HOUR, T0, open_registry

P = Purpose.PRETRAINING
NO_METHODS, SWISS = Modifier("DUO:0000015"), Modifier("DUO:0000022", ("CH",))
LIMIT = Modifier("DUO:0000025", ((T0 + 5 * HOUR).isoformat(),))
CONDITIONS: list[tuple[Modifier, ...]] = [(), (NO_METHODS,), (SWISS,), (NO_METHODS, SWISS), (LIMIT,)]
USES = [
    UseContext(),
    UseContext(methods=False),
    UseContext(methods=False, regions=("CH",)),
    UseContext(kinds=("DUO:0000006",)),
]
PURPOSES = [P.value, P.value, P.value, "research", "DUO:0000042", "DUO:0000006", "any-use", "evaluation", "release"]
SAID = [Decision.PERMIT] * 4 + [Decision.DENY, Decision.WITHDRAW, Decision.OBJECT, Decision.EXPIRE, Decision.EXPIRE]
SUBJECTS = (1, 2, 3)


@dataclass(frozen=True)
class Draft:
    """An event to record; `wrong` picks an earlier event of its subject that it supersedes."""

    subject: int
    event: ConsentEvent
    wrong: int | None


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    begin = T0 + draw(st.integers(0, 6)) * HOUR
    end = draw(st.none() | st.integers(1, 4).map(lambda hours: begin + hours * HOUR))
    decision = draw(st.sampled_from(SAID))
    modifiers = draw(st.sampled_from(CONDITIONS)) if decision is Decision.PERMIT else ()
    if modifiers == (LIMIT,) and begin >= T0 + 5 * HOUR:
        modifiers = ()
    scope = draw(st.sampled_from([None, "adult", "other"]))
    event = ConsentEvent(draw(st.sampled_from(PURPOSES)), decision, begin, end, scope, modifiers)
    return Draft(draw(st.sampled_from(SUBJECTS)), event, draw(st.none() | st.none() | st.integers(0, 9)))


BATCHES = st.lists(st.lists(drafts(), max_size=4), max_size=5)
Known = list[tuple[int, int, ConsentEvent]]


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine, _ = open_registry(database_url)
    with Session(engine) as session, session.begin():
        rows = [{"subject_no": n, "handle": bytes([n]) * 32, "key_id": "k", "created_at": T0} for n in SUBJECTS]
        session.execute(insert(Subject), rows)
    yield engine
    engine.dispose()


def resolved(
    session: Session, at: datetime, use: UseContext = USES[0], known: int | None = None
) -> dict[int, tuple[Verdict, datetime | None]]:
    rows = select(verdicts(session, P, "adult", at, use, consent_seq=known))
    return {row.subject_no: (Verdict(row.verdict), row.until) for row in session.execute(rows)}


def expected(known: Known, subject: int, at: datetime, use: UseContext) -> tuple[Verdict, datetime | None]:
    mine = uncorrected((seq, event) for seq, one, event in known if one == subject)
    resolution = resolve(mine, P, "adult", at, use)
    return resolution.verdict, resolution.until


def recorded(session: Session, number: int, batch: list[Draft], known: Known) -> Known:
    """Records a batch; a draft that is wrong about an earlier event supersedes it, by a correction or by another event."""
    new: list[NewEvent] = []
    for place, draft in enumerate(batch):
        mine = [seq for seq, one, _ in known if one == draft.subject]
        event = draft.event
        if draft.wrong is not None and mine:
            said = Decision.CORRECT if draft.wrong % 2 else event.decision
            conditions = () if said is Decision.CORRECT else event.modifiers
            event = replace(event, decision=said, modifiers=conditions, supersedes=mine[draft.wrong % len(mine)])
        new.append(NewEvent(draft.subject, event, "test", f"{number}/{place}"))
    before = decisions.newest(session)
    decisions.record(session, new, T0 + number * HOUR)
    return [*known, *((before + place, one.subject_no, one.event) for place, one in enumerate(new, start=1))]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=BATCHES, asked=st.lists(st.tuples(st.integers(-1, 11), st.integers(0, 5)), min_size=3, max_size=3))
def test_the_database_resolves_every_history_as_the_rule_does(
    engine: Engine, batches: list[list[Draft]], asked: list[tuple[int, int]]
) -> None:
    nothing = (Verdict.NO_CONSENT, None)

    def agree(session: Session, known: Known, at: datetime, use: UseContext, seq: int | None) -> None:
        found = resolved(session, at, use, seq)
        for subject in SUBJECTS:
            verdict, until = found.get(subject, nothing)
            wanted = expected(known, subject, at, use)
            assert verdict is wanted[0]
            assert verdict is not Verdict.ADMITTED or until == wanted[1]

    with Session(engine) as session:
        known: Known = []
        for number, batch in enumerate(batches):
            known = recorded(session, number, batch, known)
        for hours in (2, 5, 11):  # 11 lies behind all that is recorded: there the derived state answers
            for use in USES:
                agree(session, known, T0 + hours * HOUR, use, None)
        for hours, learnt in asked:
            seq = known_at(session, T0 + learnt * HOUR)
            agree(session, [one for one in known if one[0] <= seq], T0 + hours * HOUR, USES[hours % 4], seq)
        assert derived.drift(session) == {}
        kept = [session.execute(select(table.__table__)).all() for table in (ConsentCurrent, ConsentEffective)]
        derived.rebuild(session)
        again = [session.execute(select(table.__table__)).all() for table in (ConsentCurrent, ConsentEffective)]
        assert [sorted(map(repr, rows)) for rows in kept] == [sorted(map(repr, rows)) for rows in again]
        session.rollback()


def test_a_changed_state_is_found_and_mended(engine: Engine) -> None:
    event = ConsentEvent(P, Decision.DENY, T0)
    with Session(engine) as session:
        decisions.record(session, [NewEvent(1, event, "test", "1")], T0)
        for row in session.scalars(select(ConsentEffective).where(ConsentEffective.purpose == P.value)):
            row.ok = 1
        session.flush()
        assert derived.drift(session) == {"consent_effective": 2}
        assert resolved(session, T0)[1][0] is Verdict.ADMITTED
        session.execute(text("UPDATE consent_current SET decision = 'permit'"))
        session.execute(text("DELETE FROM purpose_closure WHERE depth = 3"))
        assert set(derived.drift(session)) == {"consent_current", "consent_effective", "purpose_closure"}
        derived.rebuild(session)
        assert derived.drift(session) == {}
        assert resolved(session, T0)[1][0] is Verdict.DENIED
        session.rollback()


def test_the_same_event_again_is_not_recorded(engine: Engine) -> None:
    event = NewEvent(1, ConsentEvent(P, Decision.PERMIT, T0), "test", "1")
    with Session(engine) as session:
        assert decisions.record(session, [event, event], T0) is not None
        assert decisions.record(session, [event], T0 + HOUR) is None
        assert len(decisions.history(session, 1)) == 1
        assert (decisions.seq_of(session, "test", "1"), decisions.seq_of(session, "test", "2")) == (1, None)
        session.rollback()


def test_recorded_times_never_go_back_even_if_the_clock_does(engine: Engine) -> None:
    with Session(engine) as session:
        for number, at in enumerate([T0 + HOUR, T0, T0 + 2 * HOUR]):
            event = ConsentEvent(P, Decision.PERMIT, T0)
            decisions.record(session, [NewEvent(1, event, "test", str(number))], at)
        times = [one.recorded_at for one in decisions.history(session, 1)]
        assert times == [T0 + HOUR, T0 + HOUR, T0 + 2 * HOUR]
        assert [known_at(session, T0 + hours * HOUR) for hours in (0, 1, 2, 9)] == [0, 2, 3, 3]
        session.rollback()


def test_everything_that_an_event_says_comes_back_and_is_in_its_digest(engine: Engine) -> None:
    evidence = Evidence("eu-gdpr:A6-1-a", digest(b"form"), "notice 7", Capacity.GUARDIAN, "desk 3")
    event = ConsentEvent("DUO:0000042", Decision.PERMIT, T0, T0 + HOUR, "adult", (NO_METHODS, SWISS), None, evidence)
    with Session(engine) as session:
        first = decisions.record(session, [NewEvent(1, event, "test", "1")], T0)
        assert first is not None and decisions.history(session, 1)[0].event == event
        assert decisions.rows_digest(session, 1, 1) == first.digest
        others = [
            replace(event, evidence=replace(evidence, actor="desk 4")),
            replace(event, modifiers=(NO_METHODS,)),
            replace(event, valid_to=None),
        ]
        for number, other in enumerate(others, start=2):
            decisions.record(session, [NewEvent(1, other, "test", str(number))], T0)
        assert len({decisions.rows_digest(session, seq, seq) for seq in range(1, 5)}) == 4
        session.rollback()


def test_a_time_limit_becomes_the_events_own_end(engine: Engine) -> None:
    event = ConsentEvent(P, Decision.PERMIT, T0, None, None, (LIMIT, NO_METHODS))
    with Session(engine) as session:
        decisions.record(session, [NewEvent(1, event, "test", "1")], T0)
        kept = decisions.history(session, 1)[0].event
        assert (kept.valid_to, kept.modifiers) == (T0 + 5 * HOUR, (NO_METHODS,))
        session.rollback()


@pytest.mark.parametrize(
    "changes",
    [
        {"purpose": "marketing"},
        {"valid_to": T0},
        {"decision": Decision.DENY, "modifiers": (NO_METHODS,)},
        {"modifiers": (Modifier("DUO:9999999"),)},
        {"modifiers": (Modifier("DUO:0000022"),)},
        {"decision": Decision.CORRECT},
        {"supersedes": 2},
        {"supersedes": 9},
        {"evidence": Evidence(legal_basis="because")},
    ],
)
def test_an_event_that_is_not_sound_is_not_recorded(engine: Engine, changes: dict[str, object]) -> None:
    good = ConsentEvent(P, Decision.PERMIT, T0)
    with Session(engine) as session:
        decisions.record(session, [NewEvent(one, good, "test", str(one)) for one in (1, 2)], T0)
        with pytest.raises(BractError) as caught:
            decisions.record(session, [NewEvent(1, replace(good, **changes), "test", "3")], T0)  # type: ignore[arg-type]
        assert caught.value.code == MALFORMED
        assert decisions.newest(session) == 2
        session.rollback()


def test_the_database_itself_refuses_a_correction_of_somebody_else(engine: Engine) -> None:
    said = (
        "INSERT INTO consent_event (seq, subject_no, purpose, scope, decision, valid_from, recorded_at, source, source_ref, "
        "supersedes_seq) SELECT 3, :subject, purpose, scope, 'correct', valid_from, recorded_at, source, 'x', 1 "
        "FROM consent_event WHERE seq = 1"
    )
    with Session(engine) as session:
        good = ConsentEvent(P, Decision.PERMIT, T0)
        decisions.record(session, [NewEvent(one, good, "test", str(one)) for one in (1, 2)], T0)
        with pytest.raises(IntegrityError), session.begin_nested():
            session.execute(text(said), {"subject": 2})
        session.execute(text(said), {"subject": 1})
        session.rollback()
