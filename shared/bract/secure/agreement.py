"""Keys of one secure round, and boxes that only their receiver opens.

Each site makes two X25519 keys a round: one to encrypt shares with (`channel`), one that its masks come from (`mask`). Both
are signed with the site's registered Ed25519 key, which the round's plan names; nothing is taken from an unsigned key.
A box is ChaCha20-Poly1305 [RFC 8439] under a key for one sender, receiver, round and roster.
"""

import base64
import binascii
import os
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bract.digest import Digest, canonical
from bract.errors import BAD_SHARE, MALFORMED, UNTRUSTED, BractError

SECRET_BYTES = 32
_NONCE = 12


@dataclass(frozen=True)
class RoundKeys:
    """A site's secrets of one round: both private keys and the seed of its own mask. `repr` shows none of them."""

    channel: X25519PrivateKey
    mask: X25519PrivateKey
    seed: bytes

    def __repr__(self) -> str:
        return "RoundKeys(…)"


def new_keys() -> RoundKeys:
    """Fresh secrets."""
    return RoundKeys(X25519PrivateKey.generate(), X25519PrivateKey.generate(), os.urandom(SECRET_BYTES))


def public_text(key: X25519PrivateKey) -> str:
    """Base64 of the public half's 32 bytes."""
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def private_key(data: bytes) -> X25519PrivateKey:
    """A private key from its 32 bytes.

    Raises:
        BractError: `malformed`.
    """
    try:
        return X25519PrivateKey.from_private_bytes(data)
    except ValueError as error:
        raise BractError(MALFORMED, "not an X25519 key") from error


def exchanged(own: X25519PrivateKey, peer: str) -> bytes:
    """The 32-byte secret of two keys, the other's in base64.

    Raises:
        BractError: `malformed`; `untrusted` for a point of low order, with which the secret would be public.
    """
    try:
        other = X25519PublicKey.from_public_bytes(base64.b64decode(peer, validate=True))
    except (ValueError, binascii.Error) as error:
        raise BractError(MALFORMED, "not an X25519 key") from error
    try:
        return own.exchange(other)
    except ValueError as error:
        raise BractError(UNTRUSTED, "a key of low order") from error


def seal_box(own: X25519PrivateKey, peer: str, context: Digest, names: tuple[str, str], content: bytes) -> str:
    """The content for one receiver, base64.

    Args:
        own: the sender's channel key.
        peer: the receiver's public one, base64.
        context: of the round's plan and roster.
        names: sender and receiver, in this order.
        content: what to encrypt.

    Raises:
        BractError: as `exchanged`.
    """
    nonce = os.urandom(_NONCE)
    box = _cipher(own, peer, context, names).encrypt(nonce, content, None)
    return base64.b64encode(nonce + box).decode()


def open_box(own: X25519PrivateKey, peer: str, context: Digest, names: tuple[str, str], box: str) -> bytes:
    """The content of a box from `names[0]` to `names[1]`, who opens it.

    Raises:
        BractError: `bad-share` when it was not sealed by that sender for this receiver, round and roster; as `exchanged`.
    """
    try:
        data = base64.b64decode(box, validate=True)
        return _cipher(own, peer, context, names).decrypt(data[:_NONCE], data[_NONCE:], None)
    except (InvalidTag, ValueError, binascii.Error) as error:
        raise BractError(BAD_SHARE, f"the box of {names[0]}") from error


def _cipher(own: X25519PrivateKey, peer: str, context: Digest, names: tuple[str, str]) -> ChaCha20Poly1305:
    info = canonical({"for": "bract secure share", "context": context, "names": list(names)})
    return ChaCha20Poly1305(HKDF(SHA256(), SECRET_BYTES, None, info).derive(exchanged(own, peer)))
