"""What a witness does: it remembers a log's last head, and signs a new one only if that continues it. Pure.

Rules of `judge` (C2SP tlog-witness, `add-checkpoint`):
    1. The log's key, known before, signed the head; else `untrusted`: it may be anybody's.
    2. The head is not smaller than the one that is remembered: a log that was cut back has forgotten something.
    3. Of one size there is one root.
    4. A larger head comes with a proof that it begins with the remembered one.
A signed head that breaks rule 2, 3 or 4 is a fork (`log-forked`), and worth keeping: it is what the log's owner signed.
"""

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bract.errors import LOG_FORKED, MALFORMED, STATE, BractError
from bract.log.merkle import SIZE, verify_consistency
from bract.log.note import Head, open_note, parse_note

MAX_PROOF = 63
"""Hashes in a consistency proof."""


@dataclass(frozen=True)
class Shown:
    """A log's newest checkpoint as it is shown to a witness.

    Attributes:
        note: signed by the log.
        old: the size that the proof begins with; 0 without one.
        proof: consistency from `old` (RFC 9162 §2.1.4.1), 32 bytes a hash.
    """

    note: bytes
    old: int
    proof: tuple[bytes, ...]


@dataclass(frozen=True)
class Word:
    """What a site says to its hub when they witness each other.

    Attributes:
        shown: the site's own log.
        remembered: the size of the hub's log that the site cosigned last, 0 at first.
        cosignature: the site's line on that, empty at first.
    """

    shown: Shown
    remembered: int
    cosignature: str


@dataclass(frozen=True)
class Reply:
    """What the hub answers.

    Attributes:
        remembered: the size of the site's log that the hub has cosigned last.
        cosignature: the hub's line on it, empty when the proof began elsewhere: then it is to be shown again from there.
        shown: the hub's own log.
    """

    remembered: int
    cosignature: str
    shown: Shown


def judge(shown: Shown, key: Ed25519PublicKey, seen: Head | None) -> Head:
    """The head that may be remembered and cosigned.

    Args:
        shown: by the log.
        key: the log's.
        seen: what is remembered of it.

    Raises:
        BractError: `malformed`; `untrusted`; `log-forked`, saying which rule is broken; `wrong-state` when nothing is
            wrong but the proof begins elsewhere than at the remembered size.
    """
    if len(shown.proof) > MAX_PROOF or any(len(part) != SIZE for part in shown.proof):
        raise BractError(MALFORMED, "not a consistency proof")
    head = open_note(parse_note(shown.note), key)
    if head.size < 1:
        raise BractError(MALFORMED, "an empty log is not shown")
    if seen is None:
        return head
    if head.origin != seen.origin:
        raise BractError(LOG_FORKED, f"the key of {seen.origin} signs for {head.origin}")
    if head.size < seen.size:
        raise BractError(LOG_FORKED, f"{head.origin} has {head.size} entries, and had {seen.size}")
    if head.size == seen.size:
        if head.root != seen.root:
            raise BractError(LOG_FORKED, f"{head.origin} has two histories of {head.size} entries")
        return head
    if shown.old != seen.size:
        raise BractError(STATE, f"the proof must begin at {seen.size}")
    try:
        verify_consistency(seen.size, head.size, seen.root, head.root, shown.proof)
    except BractError as error:
        text = f"{head.origin}: {head.size} entries do not continue the {seen.size} seen before"
        raise BractError(LOG_FORKED, text) from error
    return head


def meet(one: Head, other: Head) -> None:
    """Compare what two witnesses saw of one log.

    Raises:
        BractError: `log-forked` when they were shown two histories of one size.
    """
    if (one.origin, one.size) == (other.origin, other.size) and one.root != other.root:
        raise BractError(LOG_FORKED, f"{one.origin} has two histories of {one.size} entries")
