"""Ed25519 signatures in DSSE envelopes [RFC 8032; DSSE v1, secure-systems-lab].

The signature covers the payload's type as well as its bytes, so that a clearance can never pass for a contribution.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bract.digest import Digest, canonical, digest
from bract.errors import MALFORMED, UNTRUSTED, BractError
from bract.value import decode, encode

T = TypeVar("T")

MAX_ENVELOPE = 1 << 20
"""Bytes; a larger envelope is refused before it is parsed."""


def key_id(key: Ed25519PublicKey) -> Digest:
    """The digest of the raw 32 public bytes: the key's fingerprint."""
    return digest(key.public_bytes(Encoding.Raw, PublicFormat.Raw))


def verify_key(text: str) -> Ed25519PublicKey:
    """A public key from base64 of its 32 raw bytes.

    Raises:
        BractError: `malformed`.
    """
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error) as error:
        raise BractError(MALFORMED, "not an Ed25519 public key") from error


def key_text(key: Ed25519PublicKey) -> str:
    """Base64 of the key's 32 raw bytes."""
    return base64.b64encode(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


@dataclass(frozen=True)
class Envelope:
    """A DSSE envelope with exactly one signature."""

    payload_type: str
    payload: bytes
    keyid: str
    signature: bytes

    def to_json(self) -> bytes:
        """The envelope's canonical JSON."""
        return canonical(
            {
                "payloadType": self.payload_type,
                "payload": base64.b64encode(self.payload).decode(),
                "signatures": [{"keyid": self.keyid, "sig": base64.b64encode(self.signature).decode()}],
            }
        )

    @property
    def name(self) -> Digest:
        """The digest of the payload: what others cite."""
        return digest(self.payload)


def parse_envelope(data: bytes) -> Envelope:
    """An envelope from JSON; nothing is verified yet.

    Raises:
        BractError: `malformed` for anything but a well-formed envelope with one signature.
    """
    if len(data) > MAX_ENVELOPE:
        raise BractError(MALFORMED, "envelope is too long")
    try:
        body: Any = json.loads(data.decode())
        if set(body) != {"payloadType", "payload", "signatures"}:
            raise ValueError("fields")
        (one,) = body["signatures"]
        if (
            set(one) != {"keyid", "sig"}
            or not isinstance(body["payloadType"], str)
            or not isinstance(one["keyid"], str)
        ):
            raise ValueError("fields")
        return Envelope(
            body["payloadType"],
            base64.b64decode(body["payload"], validate=True),
            one["keyid"],
            base64.b64decode(one["sig"], validate=True),
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BractError(MALFORMED, "not a signed envelope") from error


def _pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def payload_type(cls: type[Any]) -> str:
    """The media type under which values of this class are signed."""
    return f"application/vnd.bract.{cls.__name__.lower()}+json; v=1"


def sign(value: Any, key: Ed25519PrivateKey) -> Envelope:
    """The value in a signed envelope."""
    kind, payload = payload_type(type(value)), encode(value)
    return Envelope(kind, payload, key_id(key.public_key()), key.sign(_pae(kind, payload)))


def check_signature(envelope: Envelope, key: Ed25519PublicKey) -> None:
    """That this key signed the envelope, whatever is in it.

    Raises:
        BractError: `untrusted`.
    """
    if envelope.keyid != key_id(key):
        raise BractError(UNTRUSTED, "signed by another key")
    try:
        key.verify(envelope.signature, _pae(envelope.payload_type, envelope.payload))
    except InvalidSignature as error:
        raise BractError(UNTRUSTED, "the signature does not verify") from error


def unseal(cls: type[T], envelope: Envelope, key: Ed25519PublicKey) -> T:
    """The value inside, if this key signed it as this type.

    Raises:
        BractError: `untrusted` for another type, key or signature, or a payload that is not canonical; `malformed` for
            a payload that is not a `cls`.
    """
    if envelope.payload_type != payload_type(cls):
        raise BractError(UNTRUSTED, f"expected a signed {cls.__name__}")
    check_signature(envelope, key)
    value = decode(cls, envelope.payload)
    if encode(value) != envelope.payload:
        raise BractError(UNTRUSTED, "the payload is not in canonical form")
    return value
