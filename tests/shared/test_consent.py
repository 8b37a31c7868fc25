"""The consent rule as a truth table, and what holds for every history."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bract.consent import (
    REFUSALS,
    RULE_DIGEST,
    ConsentEvent,
    Decision,
    Evidence,
    Modifier,
    Purpose,
    UseContext,
    Verdict,
    resolve,
    sound,
    uncorrected,
)
from bract.digest import digest
from bract.errors import MALFORMED, BractError
from bract.retention import RetentionRule
from bract.vocabulary.modifiers import modifier

NOW = datetime(2026, 6, 1, tzinfo=UTC)
P, OTHER = Purpose.PRETRAINING, Purpose.EVALUATION
BROAD, HEALTH, ANY = "DUO:0000042", "DUO:0000006", "any-use"
NO_METHODS = modifier("DUO:0000015")


def event(
    decision: Decision,
    days: int,
    *,
    until: int | None = None,
    dataset: str | None = None,
    purpose: str = P,
    modifiers: tuple[Modifier, ...] = (),
) -> ConsentEvent:
    end = None if until is None else NOW + timedelta(days=until)
    return ConsentEvent(purpose, decision, NOW + timedelta(days=days), end, dataset, modifiers)


PERMIT, DENY, WITHDRAW, OBJECT = Decision.PERMIT, Decision.DENY, Decision.WITHDRAW, Decision.OBJECT
EXPIRE = Decision.EXPIRE
TABLE = {
    "silence is no": ([], Verdict.NO_CONSENT),
    "a permit counts": ([event(PERMIT, -9)], Verdict.ADMITTED),
    "a permit for another purpose does not": ([event(PERMIT, -9, purpose=OTHER)], Verdict.NO_CONSENT),
    "a permit for another data set does not": ([event(PERMIT, -9, dataset="b")], Verdict.NO_CONSENT),
    "a permit that begins tomorrow does not": ([event(PERMIT, 1)], Verdict.NO_CONSENT),
    "a permit that begins now does": ([event(PERMIT, 0)], Verdict.ADMITTED),
    "a permit that ends now is over": ([event(PERMIT, -9, until=0)], Verdict.EXPIRED),
    "a denial is a denial": ([event(DENY, -9)], Verdict.DENIED),
    "an objection is a denial": ([event(PERMIT, -9), event(OBJECT, -5)], Verdict.DENIED),
    "a withdrawal takes a permit back": ([event(PERMIT, -9), event(WITHDRAW, -5)], Verdict.WITHDRAWN),
    "a withdrawal from tomorrow on does not yet": ([event(PERMIT, -9), event(WITHDRAW, 1)], Verdict.ADMITTED),
    "a later permit counts again": ([event(WITHDRAW, -9), event(PERMIT, -5)], Verdict.ADMITTED),
    "of the same time the refusal wins": ([event(DENY, -9), event(PERMIT, -9)], Verdict.DENIED),
    "a refusal has no end": ([event(DENY, -9, until=-5)], Verdict.DENIED),
    "a denial of one data set beats a permit of all": (
        [event(PERMIT, -5), event(DENY, -9, dataset="a")],
        Verdict.DENIED,
    ),
    "a denial of all beats a permit of one": ([event(DENY, -9), event(PERMIT, -5, dataset="a")], Verdict.DENIED),
    "one live permit of two is enough": (
        [event(PERMIT, -9, until=-1), event(PERMIT, -9, dataset="a")],
        Verdict.ADMITTED,
    ),
    "a broad permit covers what is below it": ([event(PERMIT, -9, purpose=BROAD)], Verdict.ADMITTED),
    "a narrow permit does not cover what is above it": ([event(PERMIT, -9, purpose="release")], Verdict.NO_CONSENT),
    "a broad refusal covers what is below it": ([event(PERMIT, -5), event(DENY, -9, purpose=BROAD)], Verdict.DENIED),
    "a later narrow permit does not undo a broad refusal": (
        [event(WITHDRAW, -9, purpose="research"), event(PERMIT, -5)],
        Verdict.WITHDRAWN,
    ),
    "a later broad permit does not undo a narrow refusal": (
        [event(DENY, -9), event(PERMIT, -5, purpose="research")],
        Verdict.DENIED,
    ),
    "a withdrawal shows even beside a denial": (
        [event(DENY, -5), event(WITHDRAW, -9, purpose=BROAD)],
        Verdict.WITHDRAWN,
    ),
    "a permit of anything permits nothing": ([event(PERMIT, -9, purpose=ANY)], Verdict.CONDITION),
    "a refusal of anything refuses everything": ([event(PERMIT, -5), event(DENY, -9, purpose=ANY)], Verdict.DENIED),
    "an end ends a permit": ([event(PERMIT, -9), event(EXPIRE, -5)], Verdict.EXPIRED),
    "an end at the same time ends it too": ([event(PERMIT, -9), event(EXPIRE, -9)], Verdict.EXPIRED),
    "an end from now on is an end": ([event(PERMIT, -9), event(EXPIRE, 0)], Verdict.EXPIRED),
    "an end tomorrow is not yet": ([event(PERMIT, -9), event(EXPIRE, 1)], Verdict.ADMITTED),
    "an end before a permit does not end it": ([event(EXPIRE, -9), event(PERMIT, -5)], Verdict.ADMITTED),
    "an end of one purpose does not end another's": (
        [event(PERMIT, -9), event(EXPIRE, -5, purpose="research")],
        Verdict.ADMITTED,
    ),
    "an end for one data set does not end a permit for all": (
        [event(PERMIT, -9), event(EXPIRE, -5, dataset="a")],
        Verdict.ADMITTED,
    ),
    "an end never ends a refusal": ([event(DENY, -9), event(EXPIRE, -5)], Verdict.DENIED),
    "an end alone is silence": ([event(EXPIRE, -5)], Verdict.NO_CONSENT),
    "an earlier end stays when a later one comes": (
        [event(PERMIT, -9), event(EXPIRE, -5), event(EXPIRE, 5)],
        Verdict.EXPIRED,
    ),
    "a condition that is not known to hold does not": ([event(PERMIT, -9, modifiers=(NO_METHODS,))], Verdict.CONDITION),
    "another permit may have none": (
        [event(PERMIT, -9, modifiers=(NO_METHODS,)), event(PERMIT, -9, purpose=BROAD)],
        Verdict.ADMITTED,
    ),
    "a kind of use that is not known does not count": ([event(PERMIT, -9, purpose=HEALTH)], Verdict.CONDITION),
    "but its refusal does": ([event(PERMIT, -9), event(DENY, -9, purpose=HEALTH)], Verdict.DENIED),
    "what is over shows before what is unmet": (
        [event(PERMIT, -9, until=-1, modifiers=(NO_METHODS,))],
        Verdict.EXPIRED,
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_truth_table(name: str) -> None:
    events, verdict = TABLE[name]
    assert resolve(events, P, "a", NOW).verdict is verdict
    assert resolve(reversed(events), P, "a", NOW).verdict is verdict


# Decision, purpose and scope of one event, whether it has begun, whether it has ended, what its condition comes to.
SELF, ABOVE, BELOW = P, "research", Purpose.DISTILLATION


def one_event_says(
    decision: Decision, purpose: str, scope: str | None, begun: bool, over: bool, met: bool | None
) -> Verdict:
    if purpose == BELOW or scope == "b" or not begun:
        return Verdict.NO_CONSENT
    if decision in REFUSALS:
        return REFUSALS[decision]
    if decision is EXPIRE:
        return Verdict.NO_CONSENT
    if over:
        return Verdict.EXPIRED
    return Verdict.CONDITION if met is False else Verdict.ADMITTED


@pytest.mark.parametrize("decision", [one for one in Decision if one is not Decision.CORRECT])
def test_every_combination_of_one_event(decision: Decision) -> None:
    conditions = (None, True, False) if decision is PERMIT else (None,)
    combined = product((SELF, ABOVE, BELOW), (None, "a", "b"), (True, False), (True, False), conditions)
    for purpose, scope, begun, over, met in combined:
        modifiers = () if met is None else (NO_METHODS,)
        begin = -9 if begun else 1
        one = event(
            decision, begin, until=begin + 2 if over else None, dataset=scope, purpose=purpose, modifiers=modifiers
        )
        found = resolve([one], P, "a", NOW, UseContext(methods=False if met else None))
        assert found.verdict is one_event_says(decision, purpose, scope, begun, over, met), (
            purpose,
            scope,
            begun,
            over,
        )


def test_every_pair_of_a_permit_and_a_refusal_is_refused_unless_the_permit_came_later_in_the_same_place() -> None:
    places = list(product((SELF, ABOVE), (None, "a")))
    for refusal, (mine, theirs), days in product(REFUSALS, product(places, places), (-5, 0, 5)):
        permit = event(PERMIT, -20, purpose=mine[0], dataset=mine[1])
        no = event(refusal, -20 + days, purpose=theirs[0], dataset=theirs[1])
        later = mine == theirs and days < 0
        assert (resolve([permit, no], P, "a", NOW).verdict is Verdict.ADMITTED) == later


CONDITIONS = [
    ("DUO:0000007", ("MONDO:1", "MONDO:2"), {"diseases": ("MONDO:1",)}, {"diseases": ("MONDO:1", "MONDO:3")}),
    ("DUO:0000012", ("any",), None, {"kinds": ("any",)}),
    ("DUO:0000015", (), {"methods": False}, {"methods": True}),
    ("DUO:0000016", (), {"genetic": True}, {"genetic": False}),
    ("DUO:0000018", (), {"non_profit": True, "commercial": False}, {"non_profit": True}),
    ("DUO:0000019", (), {"met": ("DUO:0000019",)}, {"met": ("DUO:0000020",)}),
    ("DUO:0000020", (), {"met": ("DUO:0000020",)}, {}),
    ("DUO:0000021", (), {"met": ("DUO:0000021",)}, {}),
    ("DUO:0000022", ("CH", "DE"), {"regions": ("CH",)}, {"regions": ("CH", "US")}),
    ("DUO:0000024", (), {"met": ("DUO:0000024",)}, {}),
    ("DUO:0000026", ("Ann",), {"users": ("Ann",)}, {"users": ("Ann", "Bob")}),
    ("DUO:0000027", ("P1",), {"projects": ("P1",)}, {"projects": ("P2",)}),
    ("DUO:0000028", ("ETH",), {"institutions": ("ETH",)}, {"institutions": ("MIT",)}),
    ("DUO:0000029", (), {"met": ("DUO:0000029",)}, {}),
    ("DUO:0000043", (), {}, None),
    ("DUO:0000044", (), {"ancestry": False}, {"ancestry": True}),
    ("DUO:0000045", (), {"non_profit": True}, {"non_profit": False}),
    ("DUO:0000046", (), {"commercial": False}, {"commercial": True}),
]


@pytest.mark.parametrize(("code", "values", "met", "unmet"), CONDITIONS)
def test_a_condition_holds_only_if_it_is_known_to(
    code: str, values: tuple[str, ...], met: dict[str, object] | None, unmet: dict[str, object] | None
) -> None:
    permit = [event(PERMIT, -9, modifiers=(modifier(code, values),))]

    def verdict(known: dict[str, object]) -> Verdict:
        return resolve(permit, P, "a", NOW, UseContext(**known)).verdict  # type: ignore[arg-type]

    if met is not None:
        assert verdict(met) is Verdict.ADMITTED
    if unmet is not None:
        assert verdict(unmet) is Verdict.CONDITION
        assert verdict({}) is Verdict.CONDITION, "nothing is known"


def test_a_time_limit_ends_a_permit() -> None:
    limit = modifier("DUO:0000025", [(NOW + timedelta(days=1)).isoformat()])
    found = resolve([event(PERMIT, -9, until=5, modifiers=(limit,))], P, "a", NOW)
    assert (found.verdict, found.until) == (Verdict.ADMITTED, NOW + timedelta(days=1))
    over = resolve([event(PERMIT, -9, modifiers=(limit,))], P, "a", NOW + timedelta(days=1))
    assert over.verdict is Verdict.EXPIRED


@pytest.mark.parametrize(
    ("purpose", "use", "verdict"),
    [
        (HEALTH, UseContext(kinds=(HEALTH,)), Verdict.ADMITTED),
        (HEALTH, UseContext(diseases=("MONDO:1",)), Verdict.ADMITTED),
        (HEALTH, UseContext(kinds=(HEALTH, "DUO:0000011")), Verdict.CONDITION),
        ("DUO:0000011", UseContext(kinds=("DUO:0000011",)), Verdict.ADMITTED),
        ("DUO:0000007", UseContext(diseases=("MONDO:1",)), Verdict.CONDITION),
        ("dpv:NonCommercialResearch", UseContext(kinds=("dpv:NonCommercialResearch",)), Verdict.ADMITTED),
        ("dpv:NonCommercialResearch", UseContext(), Verdict.CONDITION),
        ("dpv:ResearchAndDevelopment", UseContext(), Verdict.ADMITTED),
        (ANY, UseContext(kinds=(ANY,)), Verdict.CONDITION),
    ],
)
def test_a_permit_of_a_kind_counts_for_uses_known_to_be_of_it(purpose: str, use: UseContext, verdict: Verdict) -> None:
    assert resolve([event(PERMIT, -9, purpose=purpose)], P, "a", NOW, use).verdict is verdict


def test_a_correction_takes_an_event_away_and_nothing_brings_it_back() -> None:
    said = event(PERMIT, -9)
    wrong = ConsentEvent(P, Decision.CORRECT, NOW, supersedes=1)
    undone = ConsentEvent(P, Decision.CORRECT, NOW, supersedes=2)
    better = replace(event(PERMIT, -3), supersedes=1)

    def verdict(*events: ConsentEvent) -> Verdict:
        return resolve(uncorrected(enumerate(events, start=1)), P, "a", NOW).verdict

    assert verdict(said) is Verdict.ADMITTED
    assert verdict(said, wrong) is Verdict.NO_CONSENT
    assert verdict(said, wrong, undone) is Verdict.NO_CONSENT
    assert verdict(said, better) is Verdict.ADMITTED
    assert uncorrected([(1, said), (2, better)]) == (better,)
    assert verdict(event(DENY, -9), better) is Verdict.ADMITTED


UNSOUND = [
    {"purpose": "marketing"},
    {"valid_to": NOW - timedelta(days=9)},
    {"modifiers": (Modifier("DUO:1"),)},
    {"modifiers": (Modifier("DUO:0000022", ("DE", "CH")),)},
    {"modifiers": (NO_METHODS,), "decision": DENY},
    {"modifiers": (modifier("DUO:0000025", [NOW.isoformat()]),), "valid_from": NOW},
    {"decision": Decision.CORRECT},
    {"evidence": Evidence(legal_basis="dpv:Whim")},
    {"evidence": Evidence(notice="n" * 129)},
    {"evidence": Evidence(actor="a" * 65)},
]


@pytest.mark.parametrize("changes", UNSOUND)
def test_what_is_not_sound_is_refused(changes: dict[str, object]) -> None:
    good = event(PERMIT, -9)
    sound(replace(good, evidence=Evidence("eu-gdpr:A6-1-a", digest(b"form"), "n" * 128, actor="a" * 64)))
    with pytest.raises(BractError) as caught:
        sound(replace(good, **changes))  # type: ignore[arg-type]
    assert caught.value.code == MALFORMED


EVENTS = st.lists(
    st.builds(
        event,
        st.sampled_from([one for one in Decision if one is not Decision.CORRECT]),
        st.integers(-50, 50),
        until=st.none() | st.integers(-49, 99),
        dataset=st.sampled_from([None, "a", "b"]),
        purpose=st.sampled_from([P, OTHER, BROAD, "research"]),
    ),
    max_size=8,
)


@given(EVENTS)
def test_a_refusal_of_everything_now_always_wins(events: list[ConsentEvent]) -> None:
    events = [e for e in events if e.valid_from < NOW]
    assert resolve([*events, event(WITHDRAW, 0)], P, "a", NOW).verdict in (Verdict.WITHDRAWN, Verdict.DENIED)


def live(one: ConsentEvent, events: Iterable[ConsentEvent]) -> bool:
    """Whether a permit counts at NOW, said in another way than the rule's own code says it."""
    if one.decision is not PERMIT or one.purpose == OTHER or one.dataset == "b" or one.valid_from > NOW:
        return False
    ended = any(
        (e.decision, e.purpose, e.dataset) == (EXPIRE, one.purpose, one.dataset)
        and one.valid_from <= e.valid_from <= NOW
        for e in events
    )
    return not ended and (one.valid_to is None or one.valid_to > NOW)


@given(EVENTS)
def test_admission_needs_a_permit_in_force(events: list[ConsentEvent]) -> None:
    found = resolve(events, P, "a", NOW)
    if found.verdict is Verdict.ADMITTED:
        assert any(live(one, events) for one in events)
        assert found.until is None or found.until > NOW


@given(EVENTS, st.sampled_from([P, BROAD, "research", ANY, HEALTH]), st.sampled_from([None, "a"]))
def test_a_refusal_of_anything_above_refuses(events: list[ConsentEvent], purpose: str, dataset: str | None) -> None:
    said = [e for e in events if e.valid_from < NOW]
    assert resolve([*said, event(DENY, 0, purpose=purpose, dataset=dataset)], P, "a", NOW).verdict in (
        Verdict.DENIED,
        Verdict.WITHDRAWN,
    )


@given(EVENTS)
def test_an_end_or_a_condition_never_admits_anybody(events: list[ConsentEvent]) -> None:
    before = resolve(events, P, "a", NOW).verdict
    tighter = [replace(e, modifiers=(NO_METHODS,)) if e.decision is PERMIT else e for e in events]
    for more in ([*events, event(EXPIRE, -1)], tighter):
        assert before is Verdict.ADMITTED or resolve(more, P, "a", NOW).verdict is not Verdict.ADMITTED


@given(EVENTS, st.integers(0, 40))
def test_a_verdict_stands_until_it_says(events: list[ConsentEvent], days: int) -> None:
    found = resolve(events, P, "a", NOW)
    later = NOW + timedelta(days=days)
    decided = [e for e in events if e.valid_from <= NOW or e.decision is EXPIRE]
    if found.verdict is Verdict.ADMITTED and (found.until is None or later < found.until):
        assert resolve(decided, P, "a", later).verdict is Verdict.ADMITTED


def test_the_rule_has_a_name_that_clearances_cite() -> None:
    assert RULE_DIGEST.startswith("sha256:")


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_retention_ends_a_record_at_its_ceiling(ceiling: int, age: int) -> None:
    collected = NOW - timedelta(days=age)
    assert RetentionRule(ceiling).over(collected, NOW) == (age >= ceiling)
    assert not RetentionRule(None).over(collected, NOW)
