"""Shamir's secret sharing of 32-byte secrets over the field of 2^521 − 1 elements [Shamir 1979, CACM 22(11)].

A secret is the value at 0 of a random polynomial of degree t − 1; holder i ≥ 1 gets the value at i. Any t values give the
secret, fewer say nothing about it. Python's whole numbers are not constant-time: whoever can time this process has
its memory in reach anyway.
"""

import hashlib
import secrets
from collections.abc import Mapping

from bract.digest import Digest
from bract.errors import BAD_SHARE, BractError
from bract.secure.agreement import SECRET_BYTES

PRIME = (1 << 521) - 1
SHARE_BYTES = 66


def split(secret: bytes, holders: int, threshold: int) -> tuple[bytes, ...]:
    """A share for each of the holders 1 … n, any `threshold` of which give the secret.

    Raises:
        ValueError: unless the secret has 32 bytes and 1 ≤ t ≤ n.
    """
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= holders:
        raise ValueError("a secret has 32 bytes, and 1 ≤ t ≤ n")
    polynomial = [int.from_bytes(secret, "big"), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return tuple(_value(polynomial, holder).to_bytes(SHARE_BYTES, "big") for holder in range(1, holders + 1))


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The secret from the shares of t holders, by number.

    Raises:
        BractError: `bad-share` when they are shares of no secret of 32 bytes.
    """
    values = {holder: int.from_bytes(share, "big") for holder, share in shares.items()}
    if not values or min(values) < 1 or max(values.values()) >= PRIME:
        raise BractError(BAD_SHARE, "not shares")
    secret = sum(value * _at_zero(holder, values) for holder, value in values.items()) % PRIME
    if secret >= 1 << (8 * SECRET_BYTES):
        raise BractError(BAD_SHARE, "shares of no secret")
    return secret.to_bytes(SECRET_BYTES, "big")


def share_digest(share: bytes) -> Digest:
    """What a dealer publishes of a share, so that a false one is known. A share is uniform: its digest says nothing of it."""
    return Digest(f"sha256:{hashlib.sha256(b'bract share' + share).hexdigest()}")


def _value(polynomial: list[int], at: int) -> int:
    value = 0
    for coefficient in reversed(polynomial):
        value = (value * at + coefficient) % PRIME
    return value


def _at_zero(holder: int, values: Mapping[int, int]) -> int:
    """The weight of a holder's value in the value at 0 [Lagrange]."""
    above = below = 1
    for other in values:
        if other != holder:
            above = above * other % PRIME
            below = below * (other - holder) % PRIME
    return above * pow(below, -1, PRIME) % PRIME
