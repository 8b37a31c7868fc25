"""Public values: a strict way in, one canonical way out, and a name that depends on the content alone."""

import json
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from bract.consent import Purpose
from bract.digest import canonical, digest, digest_of, parse_digest
from bract.encoders.spec import TableSpec, ViTSpec
from bract.errors import MALFORMED, UNTRUSTED, BractError
from bract.objectives.spec import MaskedImageSpec, MaskedTableSpec
from bract.plan import CampaignPlan, Proposal, SitePlan
from bract.privacy.spec import Mechanism, PrivacySpec
from bract.signing import Envelope, parse_envelope, sign, unseal
from bract.value import decode, digest_value, encode, plain

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text() | st.floats(-1e15, 1e15),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
PRIVACY = st.builds(
    PrivacySpec,
    clip=st.floats(1e-3, 10),
    noise_multiplier=st.floats(0.5, 20),
    sampling_rate=st.floats(1e-4, 1),
    steps=st.integers(1, 1000),
    delta=st.floats(1e-9, 9e-7),
)


@st.composite
def plans(draw: st.DrawFn) -> CampaignPlan:
    image = draw(st.booleans())
    names = draw(
        st.lists(st.from_regex(r"[a-z0-9][a-z0-9-]{0,10}", fullmatch=True), min_size=1, max_size=4, unique=True)
    )
    return CampaignPlan(
        name=draw(st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True)),
        purpose=draw(st.sampled_from(Purpose)),
        dataset="adult",
        encoder=ViTSpec("vit", 8, 4) if image else TableSpec("table", "adult"),
        objective=MaskedImageSpec("masked-image") if image else MaskedTableSpec("masked-table"),
        privacy=draw(PRIVACY),
        sites=tuple(SitePlan(name, draw(st.floats(0.1, 5)), draw(st.integers(1, 10**6))) for name in names),
        rounds=draw(st.integers(1, 50)),
        quorum=draw(st.integers(1, len(names))),
    ).check()


@given(JSON)
def test_canonical_form_survives_a_round_trip_and_ignores_the_order_of_keys(value: object) -> None:
    once = canonical(value)
    assert canonical(json.loads(once)) == once
    if isinstance(value, dict):
        assert digest_of(dict(reversed(value.items()))) == digest_of(value)


@given(plans())
def test_a_plan_is_what_it_was_after_a_round_trip(plan: CampaignPlan) -> None:
    assert decode(CampaignPlan, encode(plan)) == plan
    assert digest_value(decode(CampaignPlan, plain(plan))) == digest_value(plan)


@given(plans(), plans())
def test_two_plans_share_a_name_only_if_they_are_equal(one: CampaignPlan, other: CampaignPlan) -> None:
    assert (digest_value(one) == digest_value(other)) == (one == other)


@given(plans(), st.data())
def test_a_typo_is_refused_and_named(plan: CampaignPlan, data: st.DataObject) -> None:
    values = plain(plan)
    key = data.draw(st.sampled_from(sorted(values)))
    values[key + "x"] = values.pop(key)
    with pytest.raises(BractError) as caught:
        decode(CampaignPlan, values).check()
    assert caught.value.code == MALFORMED
    assert key + "x" in caught.value.detail


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**60, {1, 2}])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(BractError, match="canonical"):
        canonical({"value": value})


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha256:" + "g" * 64, "sha256:" + "A" * 64, "md5:" + "0" * 32, "sha256:" + "0" * 64 + "\n"]
)
def test_only_digests_are_digests(text: str) -> None:
    with pytest.raises(BractError):
        parse_digest(text)


KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


@given(plans())
def test_a_signed_value_opens_with_its_key_and_type_alone(plan: CampaignPlan) -> None:
    sealed = parse_envelope(sign(plan, KEY).to_json())
    assert unseal(CampaignPlan, sealed, KEY.public_key()) == plan
    assert sealed.name == digest_value(plan)
    for cls, key in ((CampaignPlan, OTHER), (Proposal, KEY)):
        with pytest.raises(BractError) as caught:
            unseal(cls, sealed, key.public_key())
        assert caught.value.code == UNTRUSTED


@given(st.binary(max_size=200), st.integers(0, 10_000))
def test_no_change_of_an_envelope_goes_unnoticed(noise: bytes, place: int) -> None:
    value = Mechanism(1.0, 0.1, 3)
    sealed = sign(value, KEY)
    forged = sealed.to_json()
    cut = place % len(forged)
    changed = forged[:cut] + noise + forged[cut + len(noise) :]
    try:
        opened = unseal(Mechanism, parse_envelope(changed), KEY.public_key())
    except BractError:
        return
    assert opened == value


@given(st.binary(max_size=400))
def test_no_bytes_make_the_parsers_fail_otherwise_than_by_refusal(data: bytes) -> None:
    for parse in (parse_envelope, lambda raw: decode(CampaignPlan, raw), lambda raw: decode(Envelope, raw)):
        try:
            parse(data)
        except BractError as error:
            assert error.remedy


def test_a_payload_in_another_form_is_refused_although_it_is_signed() -> None:
    value = Proposal(digest(b"c"), 1, datetime(2026, 1, 1, tzinfo=UTC))
    loose = json.dumps(plain(value), indent=1).encode()
    kind = sign(value, KEY).payload_type
    pae = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(loose), loose)
    sealed = Envelope(kind, loose, sign(value, KEY).keyid, KEY.sign(pae))
    with pytest.raises(BractError, match="canonical"):
        unseal(Proposal, sealed, KEY.public_key())
