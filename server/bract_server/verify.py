"""The rules that one contribution must pass before it may touch an encoder.

Each rule is a function that returns or raises; `RULES` is the whole list, in order. Two more are kept elsewhere: the signature
(`bract.signing.unseal`, before there is a contribution at all) and "not a replay" (the registry's unique key).
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bract.arrays import Layout, count_of, read_arrays
from bract.digest import Digest
from bract.errors import (
    BAD_ARRAYS,
    NO_CLEARANCE,
    NO_RESERVATION,
    OVERSPEND,
    POLICY,
    TOO_LARGE,
    UNKNOWN_SITE,
    UNTRUSTED,
    BractError,
)
from bract.plan import Place
from bract.privacy.spec import Mechanism
from bract.secure.ring import check_words
from bract.update import Contribution

HEADER_ROOM = 64 << 10
"""Bytes an update may be larger than the encoder's own arrays: names and shapes in another order."""


@dataclass(frozen=True)
class Expected:
    """What the hub expects of the site's contribution.

    Attributes:
        seeded: its plan is a seeded test, which is never private.
        masked: its update is words under masks, of which nothing but their number can be told.
    """

    place: Place
    plan: Digest
    mechanism: Mechanism
    arrays_bytes: int
    max_norm: float
    layout: Layout
    seeded: bool = False
    masked: bool = False


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


def within_its_reservation(contribution: Contribution, expected: Expected) -> None:
    """It cites the reservation, and spent no more: the same σ and rate, at most the reserved steps."""
    if contribution.reservation != expected.place.reservation:
        raise BractError(NO_RESERVATION, "the contribution cites another reservation")
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


RULES = (
    from_its_site,
    for_this_round,
    under_its_clearance,
    within_its_reservation,
    private,
    not_too_large,
)


def verify(contribution: Contribution, expected: Expected) -> None:
    """Apply every rule; returns only if all hold.

    Raises:
        BractError: with the code of the first rule that does not hold.
    """
    for rule in RULES:
        rule(contribution, expected)


def verify_arrays(path: Path, expected: Expected) -> None:
    """The update's arrays are the encoder's: names, shapes, float32, finite, and of bounded norm. One tensor in memory.

    Raises:
        BractError: `bad-arrays`, `not-finite` or `too-large`.
    """
    if expected.masked:
        check_words(path, count_of(expected.layout))
        return
    if not path.exists():
        raise BractError(BAD_ARRAYS, "the update was announced but never arrived")
    squared = sum(float(np.dot(flat, flat)) for flat in (_flat(a) for _, a in read_arrays(path, expected.layout)))
    if math.sqrt(squared) > expected.max_norm:
        raise BractError(TOO_LARGE, "the update's norm is over the plan's limit")


def _flat(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64).ravel()
