"""Masks cancel in sums and leave nothing to see of one update; keys and boxes are bound to their round and their sites."""

import itertools

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray
from scipy.stats import chi2

from bract.digest import digest
from bract.errors import BAD_SHARE, BractError
from bract.secure.agreement import RoundKeys, new_keys, open_box, public_text, seal_box
from bract.secure.masks import Masks, MaskStream, pair_stream, site_masks
from bract.secure.ring import quantised, scale

CONTEXT = digest(b"round and roster")
NAMES = ("coast", "north", "south")
COUNT = 20_000
CRITICAL = float(chi2.isf(1e-9, 255))
"""A uniform sequence of bytes has a larger statistic once in 10^9."""


def masks(keys: dict[str, RoundKeys], name: str) -> Masks:
    peers = [(peer, public_text(keys[peer].mask)) for peer in keys if peer != name]
    return site_masks(keys[name].mask, keys[name].seed, CONTEXT, name, peers)


def statistic(words: NDArray[np.uint32]) -> float:
    """χ² of the bytes against equal frequencies, 255 degrees of freedom."""
    counts = np.bincount(words.view(np.uint8), minlength=256)
    even = counts.sum() / 256
    return float(((counts - even) ** 2 / even).sum())


def update() -> NDArray[np.uint32]:
    values = (np.random.default_rng(1).standard_normal(COUNT) * 0.01).astype(np.float32)
    return quantised(values, 1.0, scale(10.0, 3))


def test_the_stream_is_chacha20() -> None:
    """The first block under a zero key and nonce [RFC 8439, A.1, test vector 1]."""
    assert MaskStream(bytes(32)).take(4).tobytes().hex() == "76b8e0ada0f13d90405d6ae55386bd28"


def test_a_stream_goes_on_where_it_stopped() -> None:
    whole, parts = MaskStream(bytes(32)).take(700_001), MaskStream(bytes(32))
    assert np.array_equal(np.concatenate([parts.take(n) for n in (1, 300_000, 400_000)]), whole)


def test_pairs_cancel_in_the_sum_of_all_and_the_own_streams_stay() -> None:
    keys = {name: new_keys() for name in NAMES}
    zero = np.zeros(1000, np.uint32)
    total = zero.copy()
    for name in NAMES:
        total += masks(keys, name).apply(zero)
    own = zero.copy()
    for name in NAMES:
        (stream, *_) = masks(keys, name).plus
        own += stream.take(1000)
    assert np.array_equal(total, own) and own.any()


def test_one_masked_update_cannot_be_told_from_uniform_and_an_unmasked_one_can() -> None:
    keys = {name: new_keys() for name in NAMES}
    masked = masks(keys, "north").apply(update())
    assert statistic(masked) < CRITICAL
    assert statistic(masked - masks(keys, "south").apply(update())) < CRITICAL, "nor the difference of two"
    assert statistic(update()) > 100 * CRITICAL, "the test sees what is not masked"


def test_a_mask_missing_still_leaves_it_uniform_and_a_mask_used_twice_is_seen() -> None:
    """The hub knows some pairs' streams: the others still hide the update. A stream that repeated would show."""
    keys = {name: new_keys() for name in NAMES}
    both = masks(keys, "north")
    assert statistic(Masks(both.plus[1:], both.minus).apply(update())) < CRITICAL
    again = masks(keys, "north").apply(update()) - masks(keys, "north").apply(np.zeros(COUNT, np.uint32))
    assert statistic(again) > 100 * CRITICAL


def test_every_pair_round_and_roster_has_a_stream_of_its_own() -> None:
    one, other, third = (X25519PrivateKey.generate() for _ in range(3))
    first = pair_stream(one, public_text(other), CONTEXT, ("a", "b")).take(8)
    assert np.array_equal(pair_stream(other, public_text(one), CONTEXT, ("b", "a")).take(8), first)
    others = [
        pair_stream(one, public_text(other), digest(b"next"), ("a", "b")),
        pair_stream(one, public_text(other), CONTEXT, ("a", "c")),
        pair_stream(one, public_text(third), CONTEXT, ("a", "b")),
    ]
    words = [first, *(stream.take(8) for stream in others)]
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(words, 2))


def test_a_box_opens_for_its_receiver_in_its_round_only() -> None:
    sender, receiver, other = (X25519PrivateKey.generate() for _ in range(3))
    box = seal_box(sender, public_text(receiver), CONTEXT, ("a", "b"), b"shares")
    assert open_box(receiver, public_text(sender), CONTEXT, ("a", "b"), box) == b"shares"
    for key, peer, context, names in (
        (other, sender, CONTEXT, ("a", "b")),
        (receiver, other, CONTEXT, ("a", "b")),
        (receiver, sender, digest(b"next"), ("a", "b")),
        (receiver, sender, CONTEXT, ("b", "a")),
    ):
        with pytest.raises(BractError) as caught:
            open_box(key, public_text(peer), context, names, box)
        assert caught.value.code == BAD_SHARE


def test_secrets_are_not_shown() -> None:
    keys = new_keys()
    assert keys.seed.hex() not in repr(keys) and repr(keys) == "RoundKeys(…)"
