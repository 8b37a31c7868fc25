"""A row's numbers are its own, and fit the public schema or are refused."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bract.errors import BAD_RECORD, MALFORMED, BractError
from bract.tables import LIMIT, encode_rows, schema

Row = dict[str, Any]
ADULT = schema("adult")
ROWS = st.fixed_dictionaries(
    {
        **{c.name: st.floats(-1e9, 1e9) | st.integers(-(10**9), 10**9) for c in ADULT.numeric},
        **{c.name: st.sampled_from(c.values) for c in ADULT.categorical},
    }
)


def columns(rows: list[Row]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in ADULT.names}


@given(st.lists(ROWS, min_size=1, max_size=6), ROWS)
def test_a_row_is_encoded_the_same_in_any_company(rows: list[Row], stranger: Row) -> None:
    alone = [encode_rows(ADULT, columns([row]))[0] for row in rows]
    together = encode_rows(ADULT, columns([*rows, stranger]))[:-1]
    assert np.array_equal(together, np.array(alone))


@given(ROWS)
def test_numbers_are_bounded_and_categories_one_hot(row: Row) -> None:
    encoded = encode_rows(ADULT, columns([row]))[0]
    assert encoded.shape == (ADULT.width,)
    assert encoded.dtype == np.float32
    assert np.abs(encoded).max() <= LIMIT
    for category in ADULT.categorical:
        bits = encoded[ADULT.slices[category.name]]
        assert bits.sum() == 1
        assert bits[category.values.index(row[category.name])] == 1


def test_slices_tile_the_row() -> None:
    ends = [(part.start, part.stop) for part in ADULT.slices.values()]
    assert ends[0][0] == 0
    assert ends[-1][1] == ADULT.width == 103
    assert all(left[1] == right[0] for left, right in pairwise(ends))


def test_the_label_is_never_an_input() -> None:
    assert ADULT.label not in ADULT.names


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("age", "39"),
        ("age", None),
        ("age", float("nan")),
        ("age", float("inf")),
        ("age", True),
        ("sex", "?"),
        ("sex", 1),
        ("sex", None),
    ],
)
def test_what_does_not_fit_the_schema_is_refused_without_its_value(column: str, value: object) -> None:
    row = {**{c.name: 1 for c in ADULT.numeric}, **{c.name: c.values[0] for c in ADULT.categorical}}
    with pytest.raises(BractError) as caught:
        encode_rows(ADULT, columns([row, {**row, column: value}]))
    assert caught.value.code == BAD_RECORD
    assert caught.value.detail.startswith(f"row 1: {column}")
    assert "39" not in caught.value.detail


def test_missing_and_ragged_columns_are_refused() -> None:
    row: dict[str, list[Any]] = {
        **{c.name: [1] for c in ADULT.numeric},
        **{c.name: [c.values[0]] for c in ADULT.categorical},
    }
    for bad in ({k: v for k, v in row.items() if k != "race"}, {**row, "age": [1, 2]}):
        with pytest.raises(BractError) as caught:
            encode_rows(ADULT, bad)
        assert caught.value.code == BAD_RECORD


def test_no_rows_encode_to_no_rows() -> None:
    assert encode_rows(ADULT, {name: [] for name in ADULT.names}).shape == (0, ADULT.width)


def test_an_unknown_schema_is_refused() -> None:
    with pytest.raises(BractError) as caught:
        schema("nobody")
    assert caught.value.code == MALFORMED
