"""Tables: public column schemas, and rows as numbers. A row's numbers depend on that row and the schema alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bract.errors import BAD_RECORD, MALFORMED, BractError
from bract.value import decode, strict

Columns = Mapping[str, Sequence[Any] | NDArray[Any]]
"""Values by column name; all columns of one length."""

LIMIT = 4.0
"""Standardised numbers are clipped to ±4."""


@strict
@dataclass(frozen=True)
class NumericColumn:
    """A number, clipped to public bounds, then (f(x) − mean) / std with public constants; f is x or ln(1 + x)."""

    name: str
    low: float
    high: float
    mean: float
    std: Annotated[float, Field(gt=0)]
    scale: Literal["linear", "log1p"] = "linear"


@strict
@dataclass(frozen=True)
class CategoricalColumn:
    """One of a fixed public vocabulary, as one-hot bits."""

    name: str
    values: Annotated[tuple[str, ...], Field(min_length=2)]


@strict
@dataclass(frozen=True)
class TableSchema:
    """The columns of a table in the order of their encoding, numbers first.

    Attributes:
        label: the column to predict in evaluations; never an input.
        labels: its values.
    """

    name: str
    label: str
    labels: tuple[str, ...]
    numeric: tuple[NumericColumn, ...]
    categorical: tuple[CategoricalColumn, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Every input column, in order."""
        return tuple(column.name for column in self._columns)

    @property
    def _columns(self) -> tuple[NumericColumn | CategoricalColumn, ...]:
        return (*self.numeric, *self.categorical)

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers each column takes: 1 for a number, one a value for a category."""
        return (*(1 for _ in self.numeric), *(len(column.values) for column in self.categorical))

    @property
    def width(self) -> int:
        """D, the numbers of one encoded row."""
        return sum(self.widths)

    @property
    def slices(self) -> dict[str, slice]:
        """Where each column stands in an encoded row."""
        ends = np.cumsum(self.widths).tolist()
        return {name: slice(end - width, end) for name, width, end in zip(self.names, self.widths, ends, strict=True)}


@cache
def schema(name: str) -> TableSchema:
    """The shipped schema of that name.

    Raises:
        BractError: `malformed` when there is none.
    """
    shipped = {
        entry.name.removesuffix(".schema.json"): entry
        for entry in (resources.files("bract") / "data").iterdir()
        if entry.name.endswith(".schema.json")
    }
    if name not in shipped:
        raise BractError(MALFORMED, f"no table schema of that name; there is {', '.join(sorted(shipped))}")
    return decode(TableSchema, shipped[name].read_bytes())


def encode_rows(schema: TableSchema, columns: Columns) -> NDArray[np.float32]:
    """The rows as an array (N, D), each by itself.

    Raises:
        BractError: `bad-record` for a missing column, columns of different lengths, a value that is no finite number or
            no word of its column's vocabulary. It names the column and the row's position, never the value.
    """
    missing = [name for name in schema.names if name not in columns]
    if missing:
        raise BractError(BAD_RECORD, f"column {missing[0]} is missing")
    lengths = {len(columns[name]) for name in schema.names}
    if len(lengths) != 1:
        raise BractError(BAD_RECORD, "columns differ in length")
    rows = np.zeros((lengths.pop(), schema.width), np.float32)
    slices = schema.slices
    for number in schema.numeric:
        rows[:, slices[number.name].start] = _standardised(number, columns[number.name])
    for category in schema.categorical:
        codes = _codes(category, columns[category.name])
        rows[np.arange(len(rows)), slices[category.name].start + codes] = 1.0
    return rows


def _standardised(column: NumericColumn, values: Sequence[Any] | NDArray[Any]) -> NDArray[np.float64]:
    numbers = np.array([_number(column, value, row) for row, value in enumerate(values)], np.float64)
    bounded = np.clip(numbers, column.low, column.high)
    scaled = np.log1p(bounded) if column.scale == "log1p" else bounded
    return np.clip((scaled - column.mean) / column.std, -LIMIT, LIMIT)


def _number(column: NumericColumn, value: Any, row: int) -> float:
    if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool) and np.isfinite(value):
        return float(value)
    raise BractError(BAD_RECORD, f"row {row}: {column.name} is not a number")


def _codes(column: CategoricalColumn, values: Sequence[Any] | NDArray[Any]) -> NDArray[np.int64]:
    code = {value: position for position, value in enumerate(column.values)}
    codes = np.empty(len(values), np.int64)
    for row, value in enumerate(values):
        position = code.get(value) if isinstance(value, str) else None
        if position is None:
            raise BractError(BAD_RECORD, f"row {row}: {column.name} is not a word of its vocabulary")
        codes[row] = position
    return codes
