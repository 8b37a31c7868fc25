"""The form of questions and answers."""

from datetime import UTC, datetime, timedelta

import pytest

from bract.errors import MALFORMED, BractError
from bract.question import QUESTIONS, Draft, ProofReference, finish, moment, question, when

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_there_are_fifteen_questions_each_with_its_definition() -> None:
    assert list(QUESTIONS) == list(range(1, 16))
    assert all(q.number == number and len(q.definition) > 20 for number, q in QUESTIONS.items())
    with pytest.raises(BractError) as refused:
        question(16)
    assert refused.value.code == MALFORMED


def test_nothing_can_be_known_of_the_future_but_the_future_can_be_asked_about() -> None:
    assert moment(None, None, AT) == moment(AT, AT, AT)
    assert moment(AT + timedelta(days=9), None, AT).valid == AT + timedelta(days=9)
    with pytest.raises(BractError, match="still to come"):
        moment(None, AT + timedelta(seconds=1), AT)


def test_a_date_is_its_first_moment_and_a_time_needs_its_zone() -> None:
    assert when("2026-11-22") == datetime(2026, 11, 22, tzinfo=UTC)
    assert when("2026-11-22T13:00:00+01:00") == AT
    for bad in ("2026-11-22T13:00:00", "Friday", "2026-13-01"):
        with pytest.raises(BractError):
            when(bad)


def test_what_the_checkpoint_does_not_cover_has_no_number() -> None:
    rows = (
        {"a": 1, "entry": ("x.y", "covered")},
        {"a": 2, "entry": ("x.y", "not")},
        {"a": 3, "entries": [("x.y", "covered")]},
    )
    draft = Draft(("a", "entry"), rows)
    assert draft.cites == {("x.y", "covered"), ("x.y", "not")}
    made = finish(
        question(3), draft, "hub", moment(None, None, AT), ProofReference("hub", 9, None, ()), {("x.y", "covered"): 7}
    )
    assert [row.get("entry") for row in made.rows] == [7, None, None]
    assert made.rows[2]["entries"] == [7]
    assert made.proof.entries == (7,)
