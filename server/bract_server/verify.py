"""The rules that one contribution must pass before it may touch an encoder.

Each rule is a function that returns or raises; `RULES` is the whole list, in order. The first takes the signed envelope, the
next ones what it says, the last ones the file. What may change meanwhile (revocation, replay, reservation, quarantine) the
registry asks once more in the transaction that accepts the contribution.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bract.arrays import ArraysFile, Layout, count_of, read_arrays
from bract.digest import Digest
from bract.errors import (
    BAD_ARRAYS,
    NO_CLEARANCE,
    NO_RESERVATION,
    OVERSPEND,
    POLICY,
    REPLAY,
    STALE_CLEARANCE,
    TOO_LARGE,
    UNKNOWN_SITE,
    UNTRUSTED,
    BractError,
)
from bract.plan import Place
from bract.privacy.spec import Mechanism
from bract.secure.ring import check_words
from bract.signing import Envelope, unseal
from bract.update import Contribution
from bract.value import digest_value
from bract_server.arrays import HEADER_ROOM


@dataclass(frozen=True)
class Expected:
    """What the hub expects of the site's contribution.

    Attributes:
        seeded: its plan is a seeded test, which is never private.
        masked: its update is words under masks, of which nothing but their number can be told.
        key: the one that the site enrolled with.
        live: whether its clearance stands: it was live when the round was opened, and nobody in it has withdrawn since.
        taken: the contributions of the round that were accepted already.
    """

    place: Place
    plan: Digest
    mechanism: Mechanism
    arrays_bytes: int
    max_norm: float
    layout: Layout
    key: Ed25519PublicKey
    live: bool
    taken: frozenset[Digest]
    seeded: bool = False
    masked: bool = False


def signed(envelope: Envelope, expected: Expected) -> Contribution:
    """The site's enrolled key signed it, as a contribution and in canonical form; what it says."""
    return unseal(Contribution, envelope, expected.key)


def from_its_site(contribution: Contribution, expected: Expected) -> None:
    """It speaks for the site that was asked."""
    if contribution.site != expected.place.site:
        raise BractError(UNKNOWN_SITE, "the contribution speaks for another site")


def for_this_round(contribution: Contribution, expected: Expected) -> None:
    """It answers this round's plan, bit for bit."""
    if contribution.plan != expected.plan:
        raise BractError(UNTRUSTED, "the contribution answers another plan")


def under_its_clearance(contribution: Contribution, expected: Expected) -> None:
    """It cites the clearance under which the round was opened."""
    if contribution.clearance != expected.place.clearance:
        raise BractError(NO_CLEARANCE, "the contribution cites another clearance")


def still_cleared(_contribution: Contribution, expected: Expected) -> None:
    """Its clearance stands."""
    if not expected.live:
        raise BractError(STALE_CLEARANCE, "somebody in it has withdrawn")


def no_replay(contribution: Contribution, expected: Expected) -> None:
    """It was not accepted before; that it is of no former round its plan says already."""
    if digest_value(contribution) in expected.taken:
        raise BractError(REPLAY)


def under_its_reservation(contribution: Contribution, expected: Expected) -> None:
    """It cites the reservation with which the round was opened."""
    if contribution.reservation != expected.place.reservation:
        raise BractError(NO_RESERVATION, "the contribution cites another reservation")


def not_overspent(contribution: Contribution, expected: Expected) -> None:
    """It spent no more than was reserved: no less noise, no higher rate, no more steps."""
    spent, reserved = contribution.spent, expected.mechanism
    if (
        spent.noise_multiplier < reserved.noise_multiplier
        or spent.sampling_rate > reserved.sampling_rate
        or spent.steps > reserved.steps
    ):
        raise BractError(OVERSPEND)


def private(contribution: Contribution, expected: Expected) -> None:
    """It was not made with the seeded test sampler, whose noise anybody can take off again; in a seeded test it was."""
    if contribution.private == expected.seeded:
        raise BractError(POLICY, "a seeded test update carries no guarantee, and only a seeded test takes it")


def not_too_large(contribution: Contribution, expected: Expected) -> None:
    """Its file is no larger than the encoder's own arrays and a header."""
    if contribution.update_bytes > expected.arrays_bytes + HEADER_ROOM:
        raise BractError(TOO_LARGE, "the update is larger than the encoder")


def has_arrived(file: Path, _contribution: Contribution, _expected: Expected) -> None:
    """Its file is here, under the digest that was signed."""
    if not file.exists():
        raise BractError(BAD_ARRAYS, "the update was announced but never arrived")


def of_its_size(file: Path, contribution: Contribution, _expected: Expected) -> None:
    """It has as many bytes as were signed."""
    if not file.exists() or file.stat().st_size != contribution.update_bytes:
        raise BractError(BAD_ARRAYS, "the update has another size than was signed")


def of_its_form(file: Path, _contribution: Contribution, expected: Expected) -> None:
    """Names, shapes, dtypes, order and length are the encoder's: one rule, as the header is compared and never parsed."""
    if expected.masked:
        check_words(file, count_of(expected.layout))
        return
    with ArraysFile(file, expected.layout).opened():
        pass


def finite_and_bounded(file: Path, _contribution: Contribution, expected: Expected) -> None:
    """Every number is finite, and the L2 norm within the plan's limit. Two rules in one reading; one tensor in memory."""
    if expected.masked:
        return  # any word is a value; the sum is looked at when it is opened
    squared = sum(float(np.dot(flat, flat)) for flat in (_flat(a) for _, a in read_arrays(file, expected.layout)))
    if math.sqrt(squared) > expected.max_norm:
        raise BractError(TOO_LARGE, "the update's norm is over the plan's limit")


WORDS: tuple[Callable[[Contribution, Expected], None], ...] = (
    from_its_site,
    for_this_round,
    no_replay,
    under_its_clearance,
    still_cleared,
    under_its_reservation,
    not_overspent,
    private,
    not_too_large,
)
"""The rules for what a contribution says."""

ARRAYS: tuple[Callable[[Path, Contribution, Expected], None], ...] = (
    has_arrived,
    of_its_size,
    of_its_form,
    finite_and_bounded,
)
"""The rules for its file."""

RULES: tuple[Callable[..., object], ...] = (signed, *WORDS, *ARRAYS)
"""All of them, in order."""


def verify(contribution: Contribution, expected: Expected) -> None:
    """Apply every rule for what a contribution says; returns only if all hold.

    Raises:
        BractError: with the code of the first rule that does not hold.
    """
    for rule in WORDS:
        rule(contribution, expected)


def verify_arrays(file: Path, contribution: Contribution, expected: Expected) -> None:
    """Apply every rule for the file of a contribution's update; returns only if all hold.

    Raises:
        BractError: `bad-arrays`, `not-finite` or `too-large`.
    """
    for rule in ARRAYS:
        rule(file, contribution, expected)


def _flat(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64).ravel()
