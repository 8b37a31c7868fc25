"""A request and a bundle say what their makers said, or are refused with the right code."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from bract.digest import Digest
from bract.enrolment import (
    EnrolBundle,
    EnrolRequest,
    grouped,
    hub_fingerprint,
    open_bundle,
    open_request,
    read_fingerprint,
)
from bract.errors import CERTIFICATE, FINGERPRINT, MALFORMED, UNTRUSTED, BractError
from bract.identity import (
    certificate_pem,
    new_authority,
    new_node_key,
    new_tls_key,
    public_pem,
    signing_request,
    site_certificate,
)
from bract.signing import key_text, sign
from bract.value import decode, encode

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
AUTHORITY_KEY, HUB, SITE, TLS, NODE = (
    new_tls_key(),
    Ed25519PrivateKey.generate(),
    Ed25519PrivateKey.generate(),
    new_tls_key(),
    new_node_key(),
)
AUTHORITY = new_authority(AUTHORITY_KEY, "hub", AT)
REQUEST = EnrolRequest(
    site="clinic",
    csr=signing_request(TLS, "clinic").decode(),
    node_key=public_pem(NODE.public_key()).decode(),
    verify_key=key_text(SITE.public_key()),
    subjects_floor=500,
    created_at=AT,
)


def certificate(site: str = "clinic", key: object = TLS, at: datetime = AT) -> str:
    csr = signing_request(key, site)  # type: ignore[arg-type]  # a table of keys of one kind
    return certificate_pem(site_certificate(AUTHORITY, AUTHORITY_KEY, csr, site, at=at)).decode()


BUNDLE = EnrolBundle(
    site="clinic",
    certificate=certificate(),
    authority=certificate_pem(AUTHORITY).decode(),
    hub_key=key_text(HUB.public_key()),
    fleet="hub.example:8000",
    wire="[::1]:8001",
    issued_at=AT,
)
CONFIRMED = hub_fingerprint(BUNDLE.authority.encode(), BUNDLE.hub_key)


def opened(data: bytes, confirmed: Digest = CONFIRMED, site: str = "clinic", at: datetime = AT) -> EnrolBundle:
    return open_bundle(data, confirmed=confirmed, site=site, tls_key=TLS.public_key(), at=at)


def code_of(data: bytes, **asked: object) -> str:
    with pytest.raises(BractError) as refused:
        opened(data, **asked)  # type: ignore[arg-type]  # names are checked by opened itself
    return refused.value.code


@given(
    site=st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True),
    floor=st.integers(1, 10**12),
    at=st.datetimes(timezones=st.just(UTC)),
)
@settings(max_examples=30, deadline=None)
def test_a_request_comes_back_as_it_was_signed(site: str, floor: int, at: datetime) -> None:
    csr = signing_request(TLS, site).decode()
    request = replace(REQUEST, site=site, csr=csr, subjects_floor=floor, created_at=at)
    assert decode(EnrolRequest, encode(request)) == request
    assert open_request(sign(request, SITE).to_json()) == request


def test_a_bundle_comes_back_as_it_was_signed() -> None:
    assert opened(sign(BUNDLE, HUB).to_json()) == BUNDLE


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_changed_byte_of_a_request_or_bundle_goes_unseen(data: st.DataObject) -> None:
    sealed = data.draw(st.sampled_from([sign(REQUEST, SITE).to_json(), sign(BUNDLE, HUB).to_json()]))
    place = data.draw(st.integers(0, len(sealed) - 1))
    changed = bytearray(sealed)
    changed[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != sealed[place]))
    is_request = b"enrolrequest" in sealed
    with pytest.raises(BractError) as refused:
        open_request(bytes(changed)) if is_request else opened(bytes(changed))
    assert refused.value.code in {MALFORMED, UNTRUSTED, FINGERPRINT}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"verify_key": key_text(HUB.public_key())}, UNTRUSTED),
        ({"site": "bank"}, UNTRUSTED),
        ({"csr": signing_request(TLS, "bank").decode()}, UNTRUSTED),
        ({"node_key": public_pem(TLS.public_key()).decode()}, MALFORMED),
        ({"csr": "junk"}, MALFORMED),
        ({"subjects_floor": 0}, MALFORMED),
        ({"site": "../etc"}, MALFORMED),
    ],
)
def test_a_request_whose_parts_disagree_is_refused(change: dict[str, object], code: str) -> None:
    with pytest.raises(BractError) as refused:
        open_request(sign(replace(REQUEST, **change), SITE).to_json())  # type: ignore[arg-type]  # a table of fields
    assert refused.value.code == code


def payload_changed(sealed: bytes, **change: object) -> bytes:
    """The envelope with other values inside and the old signature."""
    body = json.loads(sealed)
    values = json.loads(base64.b64decode(body["payload"])) | change
    body["payload"] = base64.b64encode(json.dumps(values, separators=(",", ":"), sort_keys=True).encode()).decode()
    return json.dumps(body).encode()


def test_tampering_with_a_bundle_has_the_right_code() -> None:
    sealed = sign(BUNDLE, HUB).to_json()
    other_key = new_tls_key()
    other = certificate_pem(new_authority(other_key, "hub", AT)).decode()
    mallory = Ed25519PrivateKey.generate()
    assert code_of(payload_changed(sealed, wire="evil.example:1")) == UNTRUSTED
    assert code_of(payload_changed(sealed, certificate=certificate("bank"))) == UNTRUSTED
    assert code_of(payload_changed(sealed, authority=other)) == FINGERPRINT
    assert code_of(payload_changed(sealed, hub_key=key_text(mallory.public_key()))) == FINGERPRINT
    assert code_of(payload_changed(sealed, extra=1)) == MALFORMED
    assert code_of(sign(BUNDLE, mallory).to_json()) == UNTRUSTED
    resigned = replace(BUNDLE, hub_key=key_text(mallory.public_key()))
    assert code_of(sign(resigned, mallory).to_json()) == FINGERPRINT
    assert code_of(sign(REQUEST, SITE).to_json()) in {MALFORMED, UNTRUSTED}
    assert code_of(b"{") == MALFORMED


@pytest.mark.parametrize(
    "bundle",
    [
        replace(BUNDLE, site="bank"),
        replace(BUNDLE, site="bank", certificate=certificate("bank")),
        replace(BUNDLE, certificate=certificate("bank")),
        replace(BUNDLE, certificate=certificate(key=new_tls_key())),
        replace(BUNDLE, certificate=certificate(at=AT - timedelta(days=366))),
        replace(BUNDLE, certificate=BUNDLE.authority),
    ],
)
def test_a_certificate_that_is_not_this_sites_is_refused(bundle: EnrolBundle) -> None:
    assert code_of(sign(bundle, HUB).to_json()) == CERTIFICATE


def test_another_confirmed_fingerprint_or_an_expired_bundle_is_refused() -> None:
    sealed = sign(BUNDLE, HUB).to_json()
    assert code_of(sealed, confirmed=Digest("sha256:" + "0" * 64)) == FINGERPRINT
    assert code_of(sealed, at=AT + timedelta(days=365)) == CERTIFICATE
    assert code_of(sealed, site="bank") == CERTIFICATE


@given(st.binary(min_size=32, max_size=32), st.booleans(), st.booleans(), st.booleans())
def test_a_fingerprint_is_read_as_people_write_it(raw: bytes, prefixed: bool, upper: bool, spaced: bool) -> None:
    fingerprint = Digest(f"sha256:{raw.hex()}")
    text = grouped(fingerprint) if spaced else raw.hex()
    text = text.upper() if upper else text
    assert read_fingerprint(f"  sha256:{text}\n" if prefixed else text) == fingerprint
    assert grouped(fingerprint).startswith(grouped(fingerprint, 4))


@pytest.mark.parametrize("text", ["", "ab12", "0" * 63, "0" * 65, "g" * 64])
def test_a_shortened_or_wrong_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(BractError) as refused:
        read_fingerprint(text)
    assert refused.value.code == MALFORMED
