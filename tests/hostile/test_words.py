"""Signed words: envelopes with changed bytes, and words with changed fields that their true sender signed all the same."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bract.consent import Purpose
from bract.digest import digest
from bract.encoders.spec import TableSpec, ViTSpec
from bract.errors import BractError
from bract.objectives.spec import MaskedImageSpec, MaskedTableSpec
from bract.plan import CampaignPlan, Place, Proposal, RoundPlan, SitePlan
from bract.privacy.spec import Mechanism, PrivacySpec
from bract.secure.stages import Advert, Agreement, Dealing, Dealt, Revealed, Unmasking
from bract.signing import parse_envelope, payload_type, sign, unseal
from bract.update import Clearance, Contribution, Refusal, Relinquishment, Reservation, WithdrawalNotice
from bract.value import decode, encode
from tests.hostile.attacks import bent, broken, held, json_bytes, seen, strike
from tests.hostile.oracle import RULES, fits, sealed

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
AT = datetime(2026, 11, 22, 12, 0, 0, 250_000, tzinfo=UTC)
D = digest(b"x")
MECHANISM = Mechanism(1.0, 0.1, 5)
PRIVACY = PrivacySpec(1.0, 1.0, 0.1, 5, 1e-6)
SITES = (SitePlan("north"), SitePlan("south", 2.5, 2000))

WORDS: tuple[Any, ...] = (
    Contribution("north", D, D, D, MECHANISM, D, 1000),
    Clearance("north", D, 1, "adult", Purpose.PRETRAINING, D, D, 1000, AT, AT),
    Reservation("north", D, 1, "adult", MECHANISM, 1.5, 8.0, 1e-6, AT, AT),
    Relinquishment("north", D, 1, D, AT),
    Refusal("north", D, 1, "policy"),
    WithdrawalNotice("north", "n-1", (D, digest(b"y")), AT),
    Proposal(D, 1, AT),
    RoundPlan(D, 1, D, D, 1000, (Place("north", D, D), Place("south", D, D)), AT, AT),
    Advert("north", D, "a" * 43 + "=", "b" * 43 + "="),
    Dealing("north", D, D, D, (Dealt("north", "c" * 64, D, D), Dealt("south", "d" * 64, D, D))),
    Agreement("north", D, D, ("north", "south", "west"), ("north", "south")),
    Unmasking("north", D, (Revealed("north", "e" * 44), Revealed("south", "f" * 44)), (Revealed("west", "g" * 44),)),
)
TABLE, IMAGE = MaskedTableSpec("masked-table"), MaskedImageSpec("masked-image")
PLANS = (
    CampaignPlan("a", Purpose.PRETRAINING, "adult", TableSpec("table", "adult"), TABLE, PRIVACY, SITES, 3, 2),
    CampaignPlan("b", Purpose.PRETRAINING, "xrays", ViTSpec("vit", 28, 7), IMAGE, PRIVACY, SITES, 3, 1),
)
SIGNED = [sign(word, KEY) for word in (*WORDS, *PLANS)]
TYPES = {payload_type(type(word)): type(word) for word in (*WORDS, *PLANS)}
SAID = {
    envelope.payload_type: {e.payload for e in SIGNED if e.payload_type == envelope.payload_type} for envelope in SIGNED
}


def opened(data: bytes) -> Any:
    """What a hub or site does with an envelope: it asks for the type it expects, and verifies."""
    envelope = parse_envelope(data)
    return unseal(TYPES.get(envelope.payload_type, Contribution), envelope, KEY.public_key())


def was_said(data: bytes, value: Any) -> bool:
    """What is accepted is what somebody signed, to the byte."""
    return encode(value) in SAID[payload_type(type(value))]


def believing(data: bytes) -> Any:
    """A reader that forgets the signature."""
    envelope = parse_envelope(data)
    return decode(TYPES.get(envelope.payload_type, Contribution), envelope.payload)


def test_of_a_changed_envelope_only_what_was_signed_is_accepted() -> None:
    inputs = broken([envelope.to_json() for envelope in SIGNED])
    held(strike("envelopes, changed bytes", inputs, opened, was_said, count=1000))
    seen(strike("control", inputs, believing, was_said, count=300, record=False))


def test_of_an_envelope_with_changed_parts_only_what_was_signed_is_accepted() -> None:
    inputs = bent([json.loads(envelope.to_json()) for envelope in SIGNED]).map(json_bytes)
    held(strike("envelopes, changed parts", inputs, opened, was_said, count=500))


def resigned(kind: str) -> Any:
    """A sender that means harm signs whatever it likes with its own true key."""
    return lambda word: sealed(kind, json_bytes(word), KEY)


@pytest.mark.parametrize("word", WORDS, ids=lambda word: type(word).__name__)
def test_a_word_whose_sender_means_harm_is_accepted_only_in_the_form_of_its_type(word: Any) -> None:
    name, kind = type(word).__name__, payload_type(type(word))
    rule, plain = RULES[name], json.loads(encode(word))
    assert rule(plain), "the table fits the valid word"

    def right(data: dict[str, Any], value: Any) -> bool:
        return rule(data) and json.loads(encode(value)) == data

    inputs = bent([plain])
    tally = strike(f"signed {name}, changed fields", inputs, lambda w: opened(resigned(kind)(w)), right, count=500)
    held(tally)
    careless = lambda w: decode(type(word), plain)  # noqa: E731 - a reader that looks at another value than it was given
    seen(strike("control", inputs, careless, right, count=100, record=False))


def test_a_campaign_whose_hub_means_harm_is_accepted_only_if_it_fits_together() -> None:
    kind, plain = payload_type(CampaignPlan), [json.loads(encode(plan)) for plan in PLANS]
    assert all(RULES["CampaignPlan"](one) and fits(one) for one in plain)

    def read(data: dict[str, Any]) -> CampaignPlan:
        return unseal(CampaignPlan, parse_envelope(resigned(kind)(data)), KEY.public_key()).check()

    def unchecked(data: dict[str, Any]) -> CampaignPlan:
        return unseal(CampaignPlan, parse_envelope(resigned(kind)(data)), KEY.public_key())

    def right(data: dict[str, Any], value: CampaignPlan) -> bool:
        return RULES["CampaignPlan"](data) and fits(data) and json.loads(encode(value)) == data

    inputs = bent(plain)
    held(strike("signed CampaignPlan, changed fields", inputs, read, right, count=600))
    seen(strike("control", inputs, unchecked, right, count=400, record=False))


def test_a_key_that_is_not_the_senders_opens_nothing() -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    for word in (*WORDS, *PLANS):
        kind = payload_type(type(word))
        with pytest.raises(BractError):
            opened(sealed(kind, encode(word), other))
        assert opened(sealed(kind, encode(word), KEY)) == word
