import hmac
import unicodedata
from hashlib import sha256

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bract_client.handles import handle, plausible, record_digest

KEY = bytes(range(32))


def test_a_handle_is_the_hmac_of_the_normal_form() -> None:
    assert handle(KEY, "Zoë") == hmac.new(KEY, b"subject\0" + "Zo\u00eb".encode(), sha256).digest()


@given(st.text(min_size=1))
def test_both_ways_to_write_a_name_give_one_handle(text: str) -> None:
    assert handle(KEY, unicodedata.normalize("NFC", text)) == handle(KEY, unicodedata.normalize("NFD", text))


@given(st.text(min_size=1), st.binary(min_size=32, max_size=32))
def test_two_sites_know_one_person_by_different_handles(text: str, other: bytes) -> None:
    assume(other != KEY)
    assert handle(KEY, text) != handle(other, text)


@given(st.tuples(st.text(), st.text(), st.binary()), st.tuples(st.text(), st.text(), st.binary()))
def test_record_digests_differ_wherever_a_part_differs(
    one: tuple[str, str, bytes], two: tuple[str, str, bytes]
) -> None:
    same = (one[0], unicodedata.normalize("NFC", one[1]), one[2]) == (
        two[0],
        unicodedata.normalize("NFC", two[1]),
        two[2],
    )
    assert (record_digest(KEY, *one) == record_digest(KEY, *two)) == same


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        handle(b"short", "P-1")


@pytest.mark.parametrize("text", ["", " ", "P-1 ", " P-1", "P\n1", "P\x00", "\udc80", "x" * 257])
def test_what_cannot_be_an_identifier_is_not_repaired(text: str) -> None:
    assert not plausible(text)
    assert plausible("P-1") and plausible("Zoë 7")
