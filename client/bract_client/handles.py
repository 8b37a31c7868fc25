"""Handles: the keyed names under which a site's registry knows subjects and records.

A plain hash of an identifier can be found by trying all identifiers; a keyed one cannot be without the site's key.
Handles of two sites differ for the same person, so that nobody can link them.
"""

import hmac
import unicodedata
from hashlib import sha256

KEY_BYTES = 32

_MAX_ID = 256


def plausible(identifier: str) -> bool:
    """Whether the text can serve as an identifier: printable, trimmed, of 1 to 256 characters.

    `"P-1 "` and `"P-1"` look alike and give different handles, so the first is refused rather than repaired.
    """
    return 0 < len(identifier) <= _MAX_ID and identifier.isprintable() and identifier.strip() == identifier


def handle(key: bytes, subject_id: str) -> bytes:
    """HMAC-SHA256 of a subject's identifier in Unicode normal form C [RFC 2104; UAX 15]: 32 bytes."""
    return _mac(key, b"subject\0" + unicodedata.normalize("NFC", subject_id).encode())


def record_digest(key: bytes, dataset: str, record_id: str, payload_digest: bytes) -> bytes:
    """HMAC-SHA256 over a record's data set, identifier and payload digest: 32 bytes, others for another payload."""
    parts = (dataset.encode(), unicodedata.normalize("NFC", record_id).encode(), payload_digest)
    return _mac(key, b"record\0" + b"".join(len(part).to_bytes(4, "big") + part for part in parts))


def snapshot_salt(key: bytes, about: bytes) -> bytes:
    """The secret salt of one snapshot's leaves, from what the snapshot is about: 32 bytes."""
    return _mac(key, b"snapshot\0" + about)


def event_reference(key: bytes, event: bytes) -> str:
    """A keyed name of a decision, by which the same decision is recognised when it comes again."""
    return _mac(key, b"event\0" + event).hex()


def _mac(key: bytes, message: bytes) -> bytes:
    if len(key) != KEY_BYTES:
        raise ValueError("a site's subject key has 32 bytes")
    return hmac.digest(key, message, sha256)
