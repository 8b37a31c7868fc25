"""A witness signs only what continues what it saw: every way to rewrite a log, shown to one."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from bract.errors import LOG_FORKED, MALFORMED, STATE, UNTRUSTED, BractError
from bract.log import merkle
from bract.log.note import Head, sign_head
from bract.log.witness import Shown, judge, meet

KEY = Ed25519PrivateKey.generate()
LEAVES = [merkle.leaf_hash(b"%d" % i) for i in range(40)]
OTHERS = [*LEAVES[:7], *(merkle.leaf_hash(b"other %d" % i) for i in range(33))]


def head(size: int, leaves: list[bytes] = LEAVES) -> Head:
    return Head("hub", size, merkle.root(leaves[:size]))


def shown(old: int, size: int, leaves: list[bytes] = LEAVES, key: Ed25519PrivateKey = KEY) -> Shown:
    proof = merkle.prove_consistency(old, leaves[:size]) if 0 < old < size else ()
    return Shown(sign_head(head(size, leaves), key).to_bytes(), old, proof)


def refused(what: Shown, seen: Head | None) -> str:
    with pytest.raises(BractError) as refusal:
        judge(what, KEY.public_key(), seen)
    return refusal.value.code


def test_a_log_that_grows_is_followed() -> None:
    seen = judge(shown(0, 3), KEY.public_key(), None)
    for size in (3, 8, 9, 40):
        seen = judge(shown(seen.size, size), KEY.public_key(), seen)
    assert seen == head(40)


@given(old=st.integers(1, 40), size=st.integers(1, 40))
def test_any_two_states_of_one_log_are_followed_in_their_order_only(old: int, size: int) -> None:
    if size >= old:
        assert judge(shown(old, size), KEY.public_key(), head(old)) == head(size)
    else:
        assert refused(shown(old, size), head(old)) == LOG_FORKED


@given(old=st.integers(8, 40), size=st.integers(8, 40))
def test_another_history_is_never_followed(old: int, size: int) -> None:
    assert refused(shown(old, size, OTHERS), head(old)) == LOG_FORKED


def test_a_log_that_was_cut_back_is_a_fork() -> None:
    with pytest.raises(BractError, match="has 5 entries, and had 9") as refusal:
        judge(shown(0, 5), KEY.public_key(), head(9))
    assert refusal.value.code == LOG_FORKED


def test_a_proof_that_proves_nothing_is_a_fork() -> None:
    honest = shown(7, 20)
    for proof in ((), honest.proof[:-1], (*honest.proof, bytes(32)), tuple(reversed(honest.proof))):
        assert refused(Shown(honest.note, 7, proof), head(7)) == LOG_FORKED


def test_a_key_that_signs_for_another_log_is_a_fork() -> None:
    other = sign_head(Head("hub-2", 9, head(9).root), KEY).to_bytes()
    assert refused(Shown(other, 9, ()), head(9)) == LOG_FORKED


def test_whatever_its_log_did_not_sign_tells_nothing() -> None:
    assert refused(shown(7, 20, key=Ed25519PrivateKey.generate()), head(7)) == UNTRUSTED
    assert refused(Shown(b"hub", 0, ()), None) == MALFORMED
    assert refused(Shown(shown(7, 20).note, 7, (bytes(31),)), head(7)) == MALFORMED
    assert refused(Shown(shown(7, 20).note, 7, (bytes(32),) * 64), head(7)) == MALFORMED
    assert refused(Shown(sign_head(Head("hub", 0, bytes(32)), KEY).to_bytes(), 0, ()), None) == MALFORMED


def test_a_proof_from_elsewhere_is_asked_for_again() -> None:
    assert refused(shown(3, 20), head(7)) == STATE
    assert judge(shown(7, 20), KEY.public_key(), head(7)) == head(20)


def test_two_witnesses_who_were_shown_two_histories_find_out_when_they_meet() -> None:
    one, other = (judge(shown(0, 20, leaves), KEY.public_key(), None) for leaves in (LEAVES, OTHERS))
    with pytest.raises(BractError, match="two histories of 20 entries") as refusal:
        meet(one, other)
    assert refusal.value.code == LOG_FORKED
    meet(one, head(20))
    meet(one, head(19))
    with pytest.raises(BractError):  # and neither follows the other's log from here
        judge(shown(20, 25, OTHERS), KEY.public_key(), one)
