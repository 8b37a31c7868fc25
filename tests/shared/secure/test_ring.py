"""The ring's sums are exact and cannot wrap; what rounding costs is bounded as stated."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bract.errors import BAD_ARRAYS, MALFORMED, BractError
from bract.secure.ring import (
    blocks,
    error_bound,
    norm,
    quantised,
    read_words,
    real,
    scale,
    shortening,
    write_words,
)

numbers = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=20)


@given(st.floats(1e-3, 1e3), st.integers(1, 256))
def test_no_sum_of_all_sites_leaves_the_ring(clip: float, sites: int) -> None:
    at = scale(clip, sites)
    worst = quantised(np.array([clip * 2, -clip * 2], np.float32), 1.0, at)
    total = np.zeros(2, np.uint32)
    for _ in range(sites):
        total += worst
    assert total.view("<i4").tolist() == [sites * at.levels, -sites * at.levels]


@given(st.lists(numbers, min_size=1, max_size=6), st.data())
def test_the_mean_is_within_the_stated_bound(rows: list[list[float]], data: st.DataObject) -> None:
    width = min(map(len, rows))
    values = [np.array(row[:width], np.float32) for row in rows]
    weights = data.draw(st.lists(st.floats(0.1, 9), min_size=len(rows), max_size=len(rows)))
    at, largest = scale(20.0, len(rows)), max(weights)
    total = np.zeros(width, np.uint32)
    for row, weight in zip(values, weights, strict=True):
        total += quantised(row, weight / largest, at)
    mean = real(total, largest / sum(weights), at)
    exact = sum(w * row.astype(np.float64) for row, w in zip(values, weights, strict=True)) / sum(weights)
    assert np.abs(mean - exact).max() <= error_bound(at, weights) * 1.001


def test_too_many_sites_are_refused() -> None:
    for sites in (0, 1 << 22):
        with pytest.raises(BractError) as caught:
            scale(1.0, sites)
        assert caught.value.code == MALFORMED


@given(numbers)
def test_what_is_shortened_is_within_the_clip(row: list[float]) -> None:
    values = np.array(row, np.float32)
    factor = shortening(norm([values]), 1.0)
    assert np.linalg.norm(values.astype(np.float64) * factor) <= 1 + 1e-9
    assert factor <= 1


def test_a_file_of_words_is_read_back_and_its_length_is_its_form(tmp_path: Path) -> None:
    words = np.random.default_rng(0).integers(0, 2**32, (1 << 18) + 5, np.uint32)
    path = tmp_path / "words"
    write_words(path, (words[start:stop] for start, stop in blocks(len(words))))
    assert np.array_equal(np.concatenate(list(read_words(path, len(words)))), words)
    for count in (len(words) - 1, len(words) + 1):
        with pytest.raises(BractError) as caught:
            list(read_words(path, count))
        assert caught.value.code == BAD_ARRAYS
