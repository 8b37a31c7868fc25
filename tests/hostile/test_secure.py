"""What the hub of a secure round shows a site: rosters and agreements out of true, borrowed, repeated and forged papers."""

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import strategies as st

from bract.digest import digest
from bract.plan import Place, RoundPlan, SiteKey
from bract.secure.stages import (
    Advert,
    Agreement,
    Roster,
    RosterQuestion,
    UnmaskQuestion,
    open_agreements,
    open_roster,
)
from bract.signing import key_text, parse_envelope, sign
from bract.value import decode
from tests.hostile.attacks import broken, held, json_bytes, seen, strike

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
D, ROUND, OTHER = digest(b"x"), digest(b"this round"), digest(b"another round")
NAMES = ("east", "north", "south", "west")
KEYS = {name: Ed25519PrivateKey.from_private_bytes(digest(name.encode())[7:39].encode()) for name in NAMES}
PLAN = RoundPlan(
    D,
    1,
    D,
    D,
    1000,
    tuple(Place(name, D, D) for name in NAMES),
    AT,
    AT,
    keys=tuple(SiteKey(name, key_text(key.public_key())) for name, key in KEYS.items()),
)
LEAST = 3


def _public(name: str) -> str:
    key = X25519PrivateKey.from_private_bytes(digest(name.encode())[7:39].encode())
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def papers(words: Sequence[Advert | Agreement]) -> list[bytes]:
    """Each word as its site signed it for this round; then for another round, in a peer's name, and by a stranger."""
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    made = [sign(word, KEYS[word.site]) for word in words]
    made += [sign(replace(word, plan=OTHER), KEYS[word.site]) for word in words]
    made += [sign(replace(word, site=peer), KEYS[word.site]) for word in words for peer in NAMES if peer != word.site]
    made += [sign(word, stranger) for word in words]
    return [one.to_json() for one in made]


ADVERTS = [Advert(name, ROUND, _public(name), _public(f"{name} mask")) for name in NAMES]
SET = Agreement("east", ROUND, D, NAMES, NAMES)
AGREED = [replace(SET, site=name) for name in NAMES]
SPLIT = [replace(SET, site=name, survivors=NAMES[:3]) for name in NAMES]


def handfuls(valid: list[bytes], all_: list[bytes]) -> st.SearchStrategy[tuple[bytes, ...]]:
    """A few papers at once, the same one perhaps twice; most of them true, or nothing would ever be accepted."""
    paper = st.one_of(st.sampled_from(valid), st.sampled_from(valid), st.sampled_from(all_), broken(valid))
    return st.one_of(st.lists(paper, min_size=1, max_size=4), st.permutations(valid).map(lambda all4: all4[:3])).map(
        tuple
    )


def text(papers_: tuple[bytes, ...]) -> tuple[str, ...]:
    return tuple(one.decode("utf-8", "replace") for one in papers_)


def true(shown: tuple[bytes, ...], words: Sequence[Advert | Agreement]) -> list[str] | None:
    """The sites of these papers, if each holds what its site signed for this round, payload and signature; else None."""
    signed = {_parts(sign(word, KEYS[word.site]).to_json()): word.site for word in words}
    sites = [signed.get(_parts(one)) for one in shown]
    return None if None in sites else [site for site in sites if site is not None]


def _parts(paper: bytes) -> tuple[str, str] | None:
    try:
        said = json.loads(paper)
        return said["payload"], said["signatures"][0]["sig"]
    except (ValueError, KeyError, TypeError, IndexError):
        return None


def test_a_roster_is_accepted_only_if_each_of_its_sites_made_its_keys_for_this_round() -> None:
    valid, all_ = papers(ADVERTS)[: len(NAMES)], papers(ADVERTS)

    def read(shown: tuple[bytes, ...]) -> Roster:
        return open_roster(RosterQuestion(text(shown)), PLAN, ROUND)

    def believing(shown: tuple[bytes, ...]) -> Roster:
        """A reader that forgets the signatures."""
        adverts = [decode(Advert, parse_envelope(one).payload) for one in shown]
        return Roster(ROUND, {advert.site: advert for advert in adverts})

    def right(shown: tuple[bytes, ...], found: Roster) -> bool:
        sites = true(shown, ADVERTS)
        return sites is not None and sorted(sites) == list(found.names) and len(set(sites)) == len(sites)

    inputs = handfuls(valid, all_)
    held(strike("rosters of secure rounds", inputs, read, right, count=600))
    seen(strike("control", inputs, believing, right, count=200, record=False))


def test_a_sum_is_opened_only_to_enough_sites_that_signed_one_and_the_same_set() -> None:
    words = [*AGREED, *SPLIT]
    valid, all_ = papers(AGREED)[: len(NAMES)], papers(words)

    def read(shown: tuple[bytes, ...]) -> bool:
        open_agreements(UnmaskQuestion(text(shown)), SET, PLAN, LEAST)
        return True

    def counting(shown: tuple[bytes, ...]) -> bool:
        """A reader that counts papers and looks at none."""
        return len(shown) >= LEAST or read(shown)

    def right(shown: tuple[bytes, ...], _: bool) -> bool:
        sites = true(shown, AGREED)
        return sites is not None and len(set(sites)) == len(sites) >= LEAST

    inputs = handfuls(valid, all_)
    held(strike("agreements of secure rounds", inputs, read, right, count=600))
    seen(strike("control", inputs, counting, right, count=200, record=False))


def test_the_question_itself_is_taken_only_in_its_form() -> None:
    valid = [json_bytes({"adverts": [one.decode() for one in papers(ADVERTS)[: len(NAMES)]]})]

    def read(data: bytes) -> Roster:
        return open_roster(decode(RosterQuestion, data), PLAN, ROUND)

    def right(data: bytes, found: Roster) -> bool:
        shown = tuple(one.encode() for one in json.loads(data)["adverts"])
        return found.names == tuple(sorted(true(shown, ADVERTS) or ()))

    held(strike("questions of secure rounds", broken(valid), read, right, count=400))
