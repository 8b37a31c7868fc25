"""Whatever people decide and whenever a site freezes, nobody is admitted whom the pure rule does not admit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from bract.consent import ConsentEvent, Decision, Modifier, Purpose, UseContext, Verdict, resolve, uncorrected
from bract.digest import Digest
from bract_client.registry import decisions, snapshots
from bract_client.registry.decisions import NewEvent
from bract_client.registry.derived import derive
from bract_client.registry.keys import SiteKeys
from bract_client.registry.store import SiteRegistry
from tests.benchmarks.registry.world import fill
from tests.client.site_world import HOUR, KEY, SIGNING, T0, open_registry

SUBJECTS, RECORDS = 4, 2
P = Purpose.PRETRAINING
KEYS = SiteKeys("ward", KEY, SIGNING)
KNOWN = UseContext(methods=False)
CONDITIONS: tuple[tuple[Modifier, ...], ...] = ((), (), (Modifier("DUO:0000015"),), (Modifier("DUO:0000022", ("CH",)),))
FREEZE = "freeze"


@dataclass(frozen=True)
class Step:
    """One thing that happens, an hour after the one before: somebody decides, or the site freezes and looks again."""

    what: str
    subject: int
    purpose: str
    scope: str | None
    shift: int
    lasts: int | None
    modifiers: tuple[Modifier, ...]
    wrong: int


STEPS = st.lists(
    st.builds(
        Step,
        what=st.sampled_from(["permit", "permit", "permit", "withdraw", "deny", "expire", "correct", FREEZE, FREEZE]),
        subject=st.integers(1, SUBJECTS),
        purpose=st.sampled_from([P.value, P.value, "research", "DUO:0000042", "evaluation"]),
        scope=st.sampled_from([None, None, "adult", "other"]),
        shift=st.sampled_from([-3, 0, 0, 0, 2]),
        lasts=st.none() | st.integers(1, 6),
        modifiers=st.sampled_from(CONDITIONS),
        wrong=st.integers(0, 9),
    ),
    min_size=4,
    max_size=16,
)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine, _ = open_registry(database_url)
    fill(SiteRegistry(engine, KEY, SIGNING, "ward"), SUBJECTS, RECORDS, 0, start=T0)
    yield engine
    engine.dispose()


class Site:
    """The registry's tables and, beside them, a plain list of what was said."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.said: list[tuple[int, int, ConsentEvent]] = []
        self.frozen: list[tuple[Digest, set[int]]] = []

    def consented(self, at: datetime) -> set[int]:
        found = set()
        for subject in range(1, SUBJECTS + 1):
            mine = uncorrected((seq, event) for seq, who, event in self.said if who == subject)
            if resolve(mine, P, "adult", at, KNOWN).verdict is Verdict.ADMITTED:
                found.add(subject)
        return found

    def decide(self, step: Step, at: datetime) -> None:
        seq, decision = len(self.said) + 1, Decision(step.what)
        mine = [number for number, who, _ in self.said if who == step.subject]
        supersedes = mine[step.wrong % len(mine)] if decision is Decision.CORRECT and mine else None
        if decision is Decision.CORRECT and supersedes is None:
            return
        begin = at + step.shift * HOUR
        end = None if step.lasts is None else begin + step.lasts * HOUR
        modifiers = step.modifiers if decision is Decision.PERMIT else ()
        event = ConsentEvent(step.purpose, decision, begin, end, step.scope, modifiers, supersedes)
        self.said.append((seq, step.subject, event))
        decisions.record(self.session, [NewEvent(step.subject, event, "test", str(seq))], at)

    def freeze(self, at: datetime) -> None:
        snapshot, _ = snapshots.freeze(self.session, KEYS, "adult", P, at, KNOWN)
        held, allowed = self.held(snapshot.root, at), self.consented(at)
        assert held <= allowed, "somebody is admitted who did not consent"
        assert held == allowed and snapshot.records == RECORDS * len(held)
        self.frozen.append((snapshot.root, held))

    def held(self, root: Digest, at: datetime) -> set[int]:
        return {member.subject_no for member in snapshots.usable(self.session, root, at, KNOWN)}

    def look_again(self, at: datetime) -> None:
        """Whoever is in a snapshot may be used later only while they consent, and nobody comes in."""
        for root, held in self.frozen:
            assert self.held(root, at) == held & self.consented(at)


def play(engine: Engine, steps: Sequence[Step]) -> None:
    with Session(engine) as session:
        site = Site(session)
        at = T0
        for at in (T0 + hours * HOUR for hours in range(1, len(steps) + 1)):
            step = steps[round((at - T0) / HOUR) - 1]
            if step.what == FREEZE:
                site.freeze(at)
            else:
                site.decide(step, at)
        site.look_again(at)
        site.look_again(at + 3 * HOUR)
        session.rollback()


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_nobody_is_admitted_who_does_not_consent(engine: Engine, steps: list[Step]) -> None:
    play(engine, steps)


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_nobody_is_admitted_who_does_not_consent_in_many_histories(engine: Engine, steps: list[Step]) -> None:
    """30 on each database, beside those of `test_interleavings`."""
    play(engine, steps)


def test_the_check_finds_an_admission_that_nobody_consented_to(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: a state that is not renewed after a withdrawal is seen."""
    steps = [Step("permit", 1, P.value, None, 0, None, (), 0), Step("withdraw", 1, P.value, None, 0, None, (), 0)]
    freeze = Step(FREEZE, 1, P.value, None, 0, None, (), 0)
    play(engine, [*steps, freeze])
    monkeypatch.setattr(decisions, "derive", lambda session, after: derive(session, after) if after == 0 else None)
    with pytest.raises(AssertionError, match="did not consent"):
        play(engine, [*steps, freeze])
