"""An address moves no more bytes than it was allowed and a rest of the last ones; the sums by property."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bract.errors import TOO_OFTEN, BractError
from bract_server import quota
from bract_server.quota import Quota, network

moves = st.lists(st.tuples(st.floats(0, 5), st.integers(0, 1000), st.booleans()), max_size=40)


@given(st.floats(0.1, 500), st.integers(1, 2000), moves)
def test_no_more_passes_than_the_allowance_and_one_overdraft_and_answers_are_paid_for(
    rate: float, depth: int, made: list[tuple[float, int, bool]]
) -> None:
    at, moved, owed = 0.0, 0, 0
    one = Quota(rate, depth, lambda: at)
    for pause, count, answered in made:
        at += pause
        if answered:
            one.owe("192.0.2.1", count)
            owed += count
        with suppress(BractError):
            one.take("192.0.2.1", count)
            moved += count
        assert moved <= depth + rate * at + 1000 + 1e-6
        if moved + owed > depth + rate * at:
            with pytest.raises(BractError) as refused:
                one.take("192.0.2.1", 1)
            assert refused.value.code == TOO_OFTEN


def test_one_address_uses_up_nothing_of_another() -> None:
    one = Quota(1.0, 10, lambda: 0.0)
    one.take("192.0.2.1", 1000)
    with pytest.raises(BractError):
        one.take("192.0.2.1", 1)
    one.take("192.0.2.2", 1)


def test_who_has_many_addresses_of_ipv6_has_one_allowance_and_odd_addresses_have_theirs() -> None:
    assert network("2001:db8::1") == network("2001:db8::ffff:1") != network("2001:db8:0:1::1")
    assert network("192.0.2.1") != network("192.0.2.2") and network("") == ""


def test_addresses_that_rest_are_forgotten_and_debts_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "_KEPT", 4)
    at = 0.0
    one = Quota(1.0, 10, lambda: at)
    one.take("debtor", 1000)
    for number in range(100):
        at += 1.0
        one.take(f"peer {number}", 1)
        assert len(one._buckets) <= 4
    with pytest.raises(BractError):
        one.take("debtor", 1)
