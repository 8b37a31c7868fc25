"""Any t shares give the secret, fewer give none of it, and a false one is known."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bract.errors import BAD_SHARE, MALFORMED, BractError
from bract.secure.shares import PRIME, SHARE_BYTES, combine, share_digest, split
from bract.secure.spec import SecureSpec


@given(st.binary(min_size=32, max_size=32), st.integers(1, 12), st.data())
def test_any_t_shares_give_the_secret(secret: bytes, holders: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, holders))
    shares = split(secret, holders, threshold)
    chosen = data.draw(st.lists(st.integers(1, holders), min_size=threshold, max_size=holders, unique=True))
    assert combine({holder: shares[holder - 1] for holder in chosen}) == secret


@given(st.integers(3, 8), st.data())
def test_fewer_shares_fit_every_secret(threshold: int, data: st.DataObject) -> None:
    """For t − 1 shares and any other secret there is a t-th share that gives that secret: they say nothing of the true one."""
    shares = split(os.urandom(32), threshold, threshold)
    other = int.from_bytes(data.draw(st.binary(min_size=32, max_size=32)), "big")
    known = {holder: int.from_bytes(shares[holder - 1], "big") for holder in range(1, threshold)}
    missing, points = threshold, {0: other, **known}
    value = 0
    for at, y in points.items():
        above = below = 1
        for peer in points:
            if peer != at:
                above, below = above * (missing - peer) % PRIME, below * (at - peer) % PRIME
        value = (value + y * above * pow(below, -1, PRIME)) % PRIME
    filled = {h: v.to_bytes(SHARE_BYTES, "big") for h, v in {**known, missing: value}.items()}
    assert combine(filled) == other.to_bytes(32, "big")


def test_too_few_or_false_shares_are_told_or_give_another_secret() -> None:
    secret = os.urandom(32)
    shares = split(secret, 5, 3)
    for given_ in ({1: shares[0], 2: shares[1]}, {1: shares[0], 2: shares[1], 3: shares[3]}, {}):
        with pytest.raises(BractError) as caught:
            combine(given_)
        assert caught.value.code == BAD_SHARE
    assert len({share_digest(share) for share in shares}) == 5


@pytest.mark.parametrize(
    ("threshold", "colluders", "sites", "quorum", "rule"),
    [
        (2, 0, 4, 4, "twice"),
        (3, 2, 4, 4, "twice"),
        (3, 2, 3, 3, "two honest"),
        (3, 0, 4, 2, "quorum"),
        (200, 0, 300, 300, "at most"),
    ],
)
def test_a_threshold_that_would_let_two_sets_be_unmasked_is_refused(
    threshold: int, colluders: int, sites: int, quorum: int, rule: str
) -> None:
    with pytest.raises(BractError) as caught:
        SecureSpec(threshold, 1.0, colluders).check(sites, quorum)
    assert caught.value.code == MALFORMED
    assert rule in caught.value.detail or (rule == "twice" and "twice" in caught.value.detail)
    SecureSpec(3, 1.0).check(5, 3)
    SecureSpec(4, 1.0, 2).check(5, 4)
