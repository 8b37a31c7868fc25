"""What is to happen with an object: the rule's truth table, and what holds for whatever policies there are."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bract.errors import MALFORMED, SAME_PERSON, BractError
from bract.retention import (
    Action,
    Blocker,
    Disposition,
    Kept,
    LegalHold,
    ObjectKind,
    Obstacle,
    Period,
    RetentionPolicy,
    RetentionRule,
    Selector,
    State,
    Trigger,
    Way,
    check_hold,
    check_policy,
    disposition,
    parse_period,
)
from bract.retention.receipt import is_time
from bract.value import decode, encode

T0 = datetime(2020, 1, 1, tzinfo=UTC)
RECORD = Kept(ObjectKind.RECORD, "7", ("adult",), 3)


def years(count: float) -> datetime:
    return T0 + timedelta(days=365.25 * count)


def policy(
    name: str = "p",
    *,
    floor: str | None = None,
    ceiling: str | None = None,
    trigger: Trigger = Trigger.COLLECTION,
    action: Action = Action.DELETE,
) -> RetentionPolicy:
    least, most = (None if one is None else parse_period(one) for one in (floor, ceiling))
    return RetentionPolicy(name, 1, ObjectKind.RECORD, "law", trigger, least, most, action, "Ana")


HOLD = LegalHold("case", Selector(scopes=("adult",)), "inquiry", "Ana", "Ben", T0)
ONE_YEAR, TEN = policy("one", ceiling="P1Y"), policy("ten", floor="P10Y")
ROUND = Blocker(Obstacle.ROUND, "c/1")
AWAITED = policy(floor="P0D", trigger=Trigger.STUDY_END)
COLLECTED = {Trigger.COLLECTION: T0}

TABLE = [
    # policies, holds, busy, decided, years after collection -> state, what blocks
    ([], [], [], None, 50, State.KEPT, []),
    ([ONE_YEAR], [], [], None, 0.5, State.KEPT, []),
    ([ONE_YEAR], [], [], None, 2, State.DUE, []),
    ([TEN], [], [], None, 2, State.KEPT, [Obstacle.FLOOR]),
    ([TEN], [], [], None, 20, State.KEPT, []),
    ([ONE_YEAR], [HOLD], [], None, 0.5, State.KEPT, [Obstacle.HOLD]),
    ([ONE_YEAR], [HOLD], [], None, 2, State.BLOCKED, [Obstacle.HOLD]),
    ([ONE_YEAR], [], [ROUND], None, 2, State.BLOCKED, [Obstacle.ROUND]),
    ([ONE_YEAR, TEN], [], [], None, 0.5, State.CONFLICT, [Obstacle.FLOOR, Obstacle.CONFLICT]),
    ([ONE_YEAR, TEN], [], [], None, 20, State.CONFLICT, [Obstacle.CONFLICT]),
    ([ONE_YEAR, TEN], [], [], Way.KEEP, 2, State.KEPT, [Obstacle.FLOOR]),
    ([ONE_YEAR, TEN], [], [], Way.KEEP, 20, State.DUE, []),
    ([ONE_YEAR, TEN], [], [], Way.DELETE, 0.5, State.KEPT, []),
    ([ONE_YEAR, TEN], [], [], Way.DELETE, 2, State.DUE, []),
    ([ONE_YEAR, TEN], [HOLD], [], Way.DELETE, 2, State.BLOCKED, [Obstacle.HOLD]),
    ([policy(floor="P1Y", ceiling="P2Y")], [], [], None, 1.5, State.KEPT, []),
    ([policy(floor="P1Y", ceiling="P2Y")], [], [], None, 2.5, State.DUE, []),
    ([policy(ceiling="P1Y", action=Action.REVIEW)], [], [], None, 2, State.BLOCKED, [Obstacle.PERSON]),
    ([policy(ceiling="P1Y", action=Action.REVIEW)], [], [], Way.KEEP, 2, State.KEPT, []),
    ([policy(ceiling="P1Y", action=Action.ANONYMISE)], [], [], Way.DELETE, 2, State.DUE, []),
    # a floor whose trigger is certain to come keeps already; one whose trigger may never come does not
    ([policy(floor="P1Y", trigger=Trigger.STUDY_END)], [], [], None, 9, State.KEPT, [Obstacle.FLOOR]),
    (
        [policy(floor="P0D", trigger=Trigger.STUDY_END), policy("q", ceiling="P5Y")],
        [],
        [],
        None,
        6,
        State.CONFLICT,
        [Obstacle.FLOOR, Obstacle.CONFLICT],
    ),
    ([AWAITED, policy("q", ceiling="P5Y")], [], [], None, 4, State.KEPT, [Obstacle.FLOOR]),
    ([policy(floor="P9Y", trigger=Trigger.RELEASE), ONE_YEAR], [], [], None, 2, State.DUE, []),
    ([policy(ceiling="P1D", trigger=Trigger.WITHDRAWAL)], [], [], None, 9, State.KEPT, []),
]  # fmt: skip


@pytest.mark.parametrize(("policies", "holds", "busy", "decided", "after", "state", "blocks"), TABLE)
def test_the_truth_table(
    policies: list[RetentionPolicy],
    holds: list[LegalHold],
    busy: list[Blocker],
    decided: Way | None,
    after: float,
    state: State,
    blocks: list[Obstacle],
) -> None:
    found = disposition(RECORD, policies, holds, COLLECTED, years(after), busy=busy, decided=decided)
    assert found.state is state
    assert [one.kind for one in found.blockers] == blocks


def test_of_several_policies_the_longest_floor_and_the_shortest_ceiling_count() -> None:
    several = [policy("a", ceiling="P3Y"), policy("b", ceiling="P2Y", action=Action.REVIEW), policy("c", floor="P1Y")]
    found = disposition(RECORD, [*several, policy("d", floor="P6M")], [], COLLECTED, years(0.1))
    assert found.ceiling == parse_period("P2Y").after(T0) == found.due_at
    assert found.floor == parse_period("P1Y").after(T0)
    assert found.action is Action.REVIEW


def test_policies_on_other_kinds_and_holds_on_other_things_do_not_count() -> None:
    other = replace(ONE_YEAR, applies_to=ObjectKind.LOG)
    assert disposition(RECORD, [other], [], COLLECTED, years(9)).state is State.KEPT
    for selector in (Selector(kinds=(ObjectKind.LOG,)), Selector(scopes=("x",)), Selector(objects=("8",))):
        hold = replace(HOLD, selector=selector)
        assert disposition(RECORD, [ONE_YEAR], [hold], COLLECTED, years(9)).state is State.DUE
    ended = replace(HOLD, to_at=years(3))
    assert disposition(RECORD, [ONE_YEAR], [ended], COLLECTED, years(2)).state is State.BLOCKED
    assert disposition(RECORD, [ONE_YEAR], [ended], COLLECTED, years(3)).state is State.DUE
    person = replace(HOLD, selector=Selector(subjects=(3,)))
    assert disposition(RECORD, [ONE_YEAR], [person], COLLECTED, years(2)).state is State.BLOCKED


def test_a_hold_does_not_bring_anything_back_into_use() -> None:
    for holds in ([], [HOLD]):
        assert disposition(RECORD, [ONE_YEAR], holds, COLLECTED, years(2)).over
        assert not disposition(RECORD, [ONE_YEAR], holds, COLLECTED, years(0.5)).over
    assert disposition(RECORD, [ONE_YEAR, TEN], [], COLLECTED, years(2), decided=Way.KEEP).over


PERIODS = st.one_of(st.none(), st.builds(Period, st.integers(0, 60), st.integers(0, 60)))
POLICIES = st.builds(
    RetentionPolicy,
    st.sampled_from(["a", "b", "c"]),
    st.just(1),
    st.just(ObjectKind.RECORD),
    st.just("law"),
    st.sampled_from(list(Trigger)),
    PERIODS,
    PERIODS,
    st.sampled_from(list(Action)),
    st.just("Ana"),
)
DAYS = st.integers(0, 4000).map(lambda days: T0 + timedelta(days=days))
TRIGGERS = st.dictionaries(st.sampled_from(list(Trigger)), DAYS)
HOLDS = st.lists(
    st.builds(
        LegalHold,
        st.just("h"),
        st.sampled_from([Selector(), Selector(scopes=("adult",)), Selector(scopes=("x",))]),
        st.just("m"),
        st.just("Ana"),
        st.just("Ben"),
        DAYS,
        st.one_of(st.none(), DAYS),
    ),
    max_size=3,
)
DECIDED = st.sampled_from([None, *Way])
SETS = st.lists(POLICIES, max_size=4)


@given(SETS, HOLDS, TRIGGERS, DAYS, st.sampled_from([None, Way.KEEP]))
def test_never_due_before_every_floor_has_ended(
    policies: list[RetentionPolicy],
    holds: list[LegalHold],
    triggers: dict[Trigger, datetime],
    at: datetime,
    decided: Way | None,
) -> None:
    """But by a person's decision to delete."""
    found = disposition(RECORD, policies, holds, triggers, at, decided=decided)
    if found.state is State.DUE:
        for one in policies:
            start = triggers.get(one.trigger)
            if one.floor is not None and start is not None and start <= at:
                assert one.floor.after(start) <= at


@given(SETS, HOLDS, TRIGGERS, DAYS, DECIDED)
def test_a_hold_never_lets_anything_be_deleted(
    policies: list[RetentionPolicy],
    holds: list[LegalHold],
    triggers: dict[Trigger, datetime],
    at: datetime,
    decided: Way | None,
) -> None:
    found = disposition(RECORD, policies, holds, triggers, at, decided=decided)
    held = any(one.in_force(at) and one.selector.scopes in ((), ("adult",)) for one in holds)
    free = disposition(RECORD, policies, [], triggers, at, decided=decided)
    assert not (held and found.state is State.DUE)
    if not held:
        assert found == free
    assert (found.over, found.due_at, found.ceiling) == (free.over, free.due_at, free.ceiling)


@given(SETS, POLICIES, TRIGGERS, DAYS)
def test_one_more_policy_never_moves_the_ceiling_later_nor_the_floor_earlier(
    policies: list[RetentionPolicy], more: RetentionPolicy, triggers: dict[Trigger, datetime], at: datetime
) -> None:
    def judged(mine: list[RetentionPolicy]) -> Disposition:
        return disposition(RECORD, mine, [], triggers, at)

    before, after = judged(policies), judged([*policies, more])
    if before.ceiling is not None:
        assert after.ceiling is not None
        assert after.ceiling <= before.ceiling
    if before.floor is not None:
        assert after.floor is not None
        assert after.floor >= before.floor
    assert after.over or not before.over


@given(SETS, TRIGGERS, DAYS)
def test_a_floor_beyond_a_ceiling_waits_for_a_person(
    policies: list[RetentionPolicy], triggers: dict[Trigger, datetime], at: datetime
) -> None:
    found = disposition(RECORD, policies, [], triggers, at)
    if found.floor is not None and found.ceiling is not None and found.floor > found.ceiling:
        assert found.state is State.CONFLICT
        assert disposition(RECORD, policies, [], triggers, at, decided=Way.KEEP).state is not State.CONFLICT


def test_a_policy_says_something_and_does_not_contradict_itself() -> None:
    for bad in (policy(), policy(floor="P2Y", ceiling="P1Y"), policy(floor="P3M", ceiling="P60D")):
        with pytest.raises(BractError) as refused:
            check_policy(bad)
        assert refused.value.code == MALFORMED
    check_policy(policy(floor="P1M", ceiling="P30D"))


@pytest.mark.parametrize(("one", "other"), [("Ana", "Ana"), ("Ana", "ana "), ("Ana  Ruiz", "ANA RUIZ"), ("ﬁ", "fi")])
def test_two_persons_are_two(one: str, other: str) -> None:
    with pytest.raises(BractError) as refused:
        check_hold(replace(HOLD, placed_by=one, approved_by=other))
    assert refused.value.code == SAME_PERSON
    check_hold(HOLD)


def test_a_policy_comes_back_as_it_was_written() -> None:
    value = policy(floor="P12M", ceiling="P90D")
    assert decode(RetentionPolicy, encode(value)) == value
    assert b'"floor":"P1Y"' in encode(value)
    with pytest.raises(BractError):
        decode(RetentionPolicy, encode(value).replace(b"P90D", b"90 days"))


def test_a_data_sets_days_are_a_policy() -> None:
    rule = RetentionRule(30)
    made = rule.policy("adult")
    assert made is not None
    found = disposition(RECORD, [made], [], COLLECTED, T0 + timedelta(days=30))
    assert (found.state, found.due_at) == (State.DUE, rule.ends(T0))
    assert RetentionRule().policy("adult") is None


@given(DAYS, st.integers(-200_000, 200_000))
def test_the_job_runs_once_between_two_points_of_a_public_grid(last: datetime, seconds: int) -> None:
    at = last + timedelta(seconds=seconds)
    assert is_time(last, at) == (at.date() > last.date())
    assert is_time(None, at)
