"""Who may ask what stands in one table; what is not in it is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bract.errors import FORBIDDEN, BractError
from bract.question import QUESTIONS
from bract.roles import Role, Verb, check, may

WHAT = [*QUESTIONS, *Verb]


@given(st.sampled_from(list(Role)), st.sampled_from(WHAT), st.booleans())
def test_check_refuses_exactly_what_is_not_allowed(role: Role, what: int | Verb, at_site: bool) -> None:
    if may(role, what, at_site=at_site):
        check(role, what, at_site=at_site)
        return
    with pytest.raises(BractError) as refused:
        check(role, what, at_site=at_site)
    assert refused.value.code == FORBIDDEN


def test_at_the_hub_a_site_asks_only_what_is_told_of_itself() -> None:
    assert {what for what in WHAT if may(Role.SITE, what)} == {3, 5, 8, 9, 13, Verb.PROOFS}


def test_only_the_owner_gives_access_and_only_steward_and_dpo_see_a_person() -> None:
    assert [role for role in Role if may(role, Verb.TOKENS)] == [Role.OWNER]
    assert {role for role in Role if may(role, Verb.PERSON, at_site=True)} == {Role.SITE, Role.DPO}
    assert not any(may(role, Verb.PERSON) for role in Role)


def test_an_auditor_may_ask_everything_on_both_sides_and_nobody_unknown_anything() -> None:
    assert all(may(Role.AUDITOR, number, at_site=site) for number in QUESTIONS for site in (True, False))
    assert not may(Role.AUDITOR, 16)
    assert not may(Role.OPERATOR, 1) and not may(Role.OPERATOR, 14)
