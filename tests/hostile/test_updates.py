"""Updates: arrays files with changed bytes and values, and contributions that are well formed and say something false."""

import dataclasses
import math
import struct
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.numpy import load

from bract.arrays import from_bytes, read_arrays, read_layout, to_bytes
from bract.digest import digest
from bract.plan import Place
from bract.privacy.spec import Mechanism
from bract.update import Contribution
from bract_server.arrays import HEADER_ROOM
from bract_server.verify import Expected, verify, verify_arrays
from tests.hostile.attacks import broken, held, seen, strike

LAYOUT = {"encoder.bias": (7,), "encoder.weight": (5, 7), "norm": (1,)}
MAX_NORM = 50.0
_DRAWN = np.random.default_rng(3)
ARRAYS = {name: _DRAWN.standard_normal(shape).astype(np.float32) for name, shape in LAYOUT.items()}
VALID = to_bytes(ARRAYS)
D, E = digest(b"x"), digest(b"y")
MECHANISM = Mechanism(1.0, 0.1, 5)
KEY = Ed25519PrivateKey.generate().public_key()
EXPECTED = Expected(Place("north", D, E), D, MECHANISM, len(VALID), MAX_NORM, LAYOUT, KEY, True, frozenset())
TRUE = Contribution("north", D, D, E, MECHANISM, digest(VALID), len(VALID))

FLOATS = (
    0x7FC00000,
    0x7F800000,
    0xFF800000,
    0x7F800001,
    0x7F7FFFFF,
    0xFF7FFFFF,
    0x00000001,
    0x80000000,
    0x5A000000,
    0x42000000,
)
"""NaN, infinities, a signalling NaN, the largest, the least, −0, and values around the norm bound, as bits."""


def with_values(seed: int) -> bytes:
    """A file of the right form, some of whose numbers are others."""
    random, out, start = Random(seed), bytearray(VALID), len(VALID) - 4 * 43
    for _ in range(random.choice((1, 1, 2, 30))):
        struct.pack_into("<I", out, start + 4 * random.randrange(43), random.choice(FLOATS))
    return bytes(out)


def is_right(data: bytes) -> bool:
    """By the safetensors library and plain arithmetic: these names, these shapes, float32, finite, within the norm."""
    try:
        found = load(data)
    except (SafetensorError, ValueError, TypeError):
        return False
    shapes = {name: array.shape for name, array in found.items()}
    if shapes != LAYOUT or any(array.dtype != np.float32 for array in found.values()):
        return False
    values = [float(one) for array in found.values() for one in array.ravel()]
    return all(map(math.isfinite, values)) and math.sqrt(math.fsum(v * v for v in values)) <= MAX_NORM


def of_size(data: bytes) -> Contribution:
    """A contribution that is honest about its file's size, so that the other rules have to find what is wrong."""
    return dataclasses.replace(TRUE, update_bytes=max(1, len(data)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "update"


def test_only_finite_arrays_of_the_plans_form_and_norm_pass(file: Path) -> None:
    def read(data: bytes) -> None:
        file.write_bytes(data)
        verify_arrays(file, of_size(data), EXPECTED)

    def unbounded(data: bytes) -> None:
        file.write_bytes(data)
        verify_arrays(file, of_size(data), dataclasses.replace(EXPECTED, max_norm=math.inf))

    def right(data: bytes, _: None) -> bool:
        return is_right(data)

    assert is_right(VALID)
    inputs = st.integers(0, 2**64 - 1).map(with_values)
    held(strike("updates, changed values", inputs, read, right, count=600))
    seen(strike("control", inputs, unbounded, right, count=200, record=False))
    held(strike("updates, changed bytes", broken([VALID]), read, right, count=600))


def test_what_is_read_of_a_file_is_what_any_safetensors_reader_reads(file: Path) -> None:
    def read(data: bytes) -> dict[str, np.ndarray]:
        file.write_bytes(data)
        return dict(read_arrays(file, LAYOUT))

    def in_memory(data: bytes) -> dict[str, np.ndarray]:
        return from_bytes(data, LAYOUT)

    def same(data: bytes, found: dict[str, np.ndarray]) -> bool:
        theirs = load(data)
        return set(theirs) == set(found) and all(
            np.array_equal(theirs[name], found[name]) and found[name].dtype == np.float32 for name in found
        )

    def careless(data: bytes) -> dict[str, np.ndarray]:
        flat = np.frombuffer(data[-4 * 43 :], "<f4")
        return {"encoder.bias": flat[:7], "encoder.weight": flat[7:42].reshape(5, 7), "norm": flat[42:]}

    inputs = st.one_of(broken([VALID]), st.integers(0, 2**64 - 1).map(with_values))
    held(strike("arrays files", inputs, read, same, count=500))
    held(strike("arrays in memory", inputs, in_memory, same, count=500))
    unreadable = (ValueError, TypeError, SafetensorError)

    def judged(data: bytes, found: dict[str, np.ndarray]) -> bool:
        try:
            return same(data, found)
        except unreadable:
            return False

    seen(strike("control", inputs, careless, judged, count=100, refusals=unreadable, record=False))


def test_a_layout_is_read_only_of_a_header_that_is_ours(file: Path) -> None:
    def read(data: bytes) -> dict[str, tuple[int, ...]]:
        file.write_bytes(data)
        return read_layout(file)

    def right(data: bytes, layout: dict[str, tuple[int, ...]]) -> bool:
        length = int.from_bytes(data[:8], "little")
        empty = to_bytes({name: np.zeros(shape, np.float32) for name, shape in layout.items()})
        return sum(map(math.prod, layout.values())) < 10**7 and data[: 8 + length] == empty[: 8 + length]

    held(strike("arrays headers", broken([VALID[:-172], VALID]), read, right, count=600))


def false_word(seed: int) -> Contribution:
    """The true contribution with some of its fields saying something else."""
    random = Random(seed)
    others: dict[str, tuple[Any, ...]] = {
        "site": ("south", "north-2"),
        "plan": (E,),
        "clearance": (E,),
        "reservation": (D,),
        "spent": tuple(
            Mechanism(sigma, rate, steps)
            for sigma in (0.999, 1.0, 1.001, 1e6)
            for rate in (0.0999, 0.1, 0.1001, 1.0)
            for steps in (1, 5, 6, 10**6)
        ),
        "update_bytes": (1, len(VALID) - 1, len(VALID) + HEADER_ROOM, len(VALID) + HEADER_ROOM + 1, 2**60),
        "private": (False,),
    }
    changed = random.sample(sorted(others), random.choice((1, 1, 2)))
    return dataclasses.replace(TRUE, **{name: random.choice(others[name]) for name in changed})


def is_true(word: Contribution, _: object) -> bool:
    """By the rules of the page, written down again."""
    spent = word.spent
    return (
        (word.site, word.plan, word.clearance, word.reservation, word.private) == ("north", D, D, E, True)
        and spent.noise_multiplier >= 1.0
        and spent.sampling_rate <= 0.1
        and spent.steps <= 5
        and word.update_bytes <= len(VALID) + HEADER_ROOM
    )


def test_a_contribution_that_says_anything_false_is_refused() -> None:
    inputs = st.integers(0, 2**64 - 1).map(false_word)
    assert is_true(TRUE, None)
    verify(TRUE, EXPECTED)
    held(strike("contributions, false words", inputs, lambda word: verify(word, EXPECTED), is_true, count=600))
    half = dataclasses.replace(EXPECTED, mechanism=Mechanism(1e-9, 1.0, 10**7))
    seen(strike("control", inputs, lambda word: verify(word, half), is_true, count=200, record=False))
