"""Masks: uniform words from ChaCha20 [RFC 8439], keyed by HKDF [RFC 5869] over X25519 [RFC 7748].

Each pair of sites shares one secret a round, 256 bits, bound to the round's plan and roster and to both names. Of a pair
the site whose name comes first adds the stream and the other takes it away, so that both vanish in the sum. A second
stream, of a site's own seed, hides what is left of it should its pairs be opened for a site that was only late.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bract.digest import Digest, canonical
from bract.secure.agreement import exchanged
from bract.secure.ring import Words

_BLOCK = 1 << 20
_ZEROS = bytes(_BLOCK)


class MaskStream:
    """Uniform 32-bit words, the same for everybody who has the secret. A secret is the key of one stream only."""

    def __init__(self, secret: bytes) -> None:
        # the key is used for this one stream, so the nonce and counter may start at zero
        self._encryptor = Cipher(ChaCha20(secret, bytes(16)), mode=None).encryptor()

    def take(self, count: int) -> Words:
        """The next `count` words."""
        words = np.empty(count, "<u4")
        target = words.view(np.uint8)
        for start in range(0, len(target), _BLOCK):
            part = target[start : start + _BLOCK]
            part[:] = np.frombuffer(self._encryptor.update(_ZEROS[: len(part)]), np.uint8)
        return words


def pair_stream(own: X25519PrivateKey, peer: str, context: Digest, names: tuple[str, str]) -> MaskStream:
    """The stream that two sites share.

    Args:
        own: the mask key of one of them.
        peer: the other's public one, base64.
        context: of the round's plan and roster.
        names: of both sites, in any order.

    Raises:
        BractError: `untrusted` for a key that gives no secret.
    """
    return MaskStream(_derived(exchanged(own, peer), "pair", context, sorted(names)))


def own_stream(seed: bytes, context: Digest, name: str) -> MaskStream:
    """The stream of one site's seed."""
    return MaskStream(_derived(seed, "own", context, [name]))


def adds(site: str, peer: str) -> bool:
    """Whether `site` adds the stream that it shares with `peer`; else it takes it away."""
    return site < peer


@dataclass(frozen=True)
class Masks:
    """Streams to add and streams to take away."""

    plus: tuple[MaskStream, ...]
    minus: tuple[MaskStream, ...]

    def apply(self, words: Words) -> Words:
        """The words under the streams' next words, modulo 2^32."""
        masked = words.copy()
        for stream in self.plus:
            masked += stream.take(len(words))
        for stream in self.minus:
            masked -= stream.take(len(words))
        return masked


def site_masks(
    own: X25519PrivateKey, seed: bytes, context: Digest, name: str, peers: Iterable[tuple[str, str]]
) -> Masks:
    """What one site puts over its update: its own stream, and one for each peer (name, public mask key)."""
    pairs = [(adds(name, peer), pair_stream(own, key, context, (name, peer))) for peer, key in peers]
    return Masks(
        (own_stream(seed, context, name), *(stream for plus, stream in pairs if plus)),
        tuple(stream for plus, stream in pairs if not plus),
    )


def _derived(secret: bytes, kind: str, context: Digest, names: list[str]) -> bytes:
    info = canonical({"for": f"bract secure mask {kind}", "context": context, "names": names})
    return HKDF(SHA256(), 32, None, info).derive(secret)
