"""Tables as CSV, NDJSON and Parquet, written row by row; the same rows give the same bytes.

Cells are plain JSON values. What each form makes of them:

    CSV      RFC 4180 in UTF-8: CRLF, text always in quotes, numbers and `true`/`false` never, an absent value as nothing
             between two commas, lists and objects as their canonical JSON. Text that a spreadsheet could take for a
             formula (it begins with = + - @, a tab or a line break, after blanks or apostrophes if any) gets one more
             apostrophe in front [OWASP, CSV injection]; `unescape` takes it off again, so nothing is lost. Numbers stay
             numbers: -1 is not text.
    NDJSON   one object a line, keys in the order of the columns, ASCII only.
    Parquet  int64, double, boolean and UTF-8 columns; lists, objects and columns of several types as canonical JSON. The
             definition stands in the file's metadata under `bract`.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import IO, Any

from bract.digest import canonical
from bract.errors import MALFORMED, BractError
from bract.export.staging import staged

Row = Mapping[str, Any]

BATCH = 8192
"""Rows that are in memory at once, and in one group of a Parquet file."""

MEDIA = {
    ".csv": "text/csv; charset=utf-8",
    ".ndjson": "application/x-ndjson",
    ".parquet": "application/vnd.apache.parquet",
}
"""The forms, by the ending of a file's name."""

_FORMULA = re.compile(r"'*[\s\ufeff]*[=+\-@\t\r\n＝＋－＠]")
_INTEGER = 1 << 63
_EXACT = 1 << 53


class Type(StrEnum):
    """What the values of a column are, besides absent."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    JSON = "json"
    """Lists, objects, or values of several types."""


@dataclass(frozen=True)
class Column:
    """A column's name and type."""

    name: str
    type: Type = Type.TEXT


@dataclass(frozen=True)
class Table:
    """Rows under columns. Of each row the columns' fields count: a missing one is absent, others are left out.

    Attributes:
        rows: read once, and not kept.
        definition: what the table is and how it was computed.
    """

    columns: tuple[Column, ...]
    rows: Iterable[Row]
    definition: str


def columns_of(names: Sequence[str], rows: Sequence[Row]) -> tuple[Column, ...]:
    """Columns for rows that are all here: each has the narrowest type that its values have."""
    return tuple(Column(name, _type({type(row.get(name)) for row in rows})) for name in names)


def table_of(names: Sequence[str], rows: Sequence[Row], definition: str) -> Table:
    """A table of rows that are all here."""
    return Table(columns_of(names, rows), rows, definition)


def write_tables(targets: Sequence[Path], table: Table) -> int:
    """Write one table to files, in the form that each name's ending tells (`MEDIA`), in one pass; the number of rows.

    All files appear together when they are whole; memory does not grow with the rows.

    Raises:
        BractError: `malformed` for another ending, columns without name or of one name, or a value that does not fit its
            column or is not JSON; `already-exists`; `disk`.
    """
    for target in targets:
        if target.suffix not in MEDIA:
            raise BractError(MALFORMED, f"{target.name}: end it in {', '.join(MEDIA)}")
    names = [column.name for column in table.columns]
    if not names or "" in names or len(set(names)) != len(names):
        raise BractError(MALFORMED, "a table has columns, each with a name of its own")
    count = 0
    with staged(targets) as temporaries, ExitStack() as stack:
        writers = [
            stack.enter_context(_FORMS[target.suffix](temporary, table))
            for target, temporary in zip(targets, temporaries, strict=True)
        ]
        for batch in _batches(table):
            count += len(batch)
            for write in writers:
                write(batch)
    return count


def escape(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def unescape(text: str) -> str:
    """What `escape` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text[1:]) else text


def read_csv(path: Path) -> Iterator[list[str]]:
    """The rows of a CSV file of ours, the columns' names first; every cell is text."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            yield [unescape(cell) for cell in row]


Batch = list[list[Any]]
_Write = Callable[[Batch], None]


def _type(found: set[type]) -> Type:
    kinds = found - {type(None)}
    if kinds <= {str}:
        return Type.TEXT
    if kinds == {bool}:
        return Type.BOOLEAN
    if kinds == {int}:
        return Type.INTEGER
    return Type.NUMBER if kinds <= {int, float} else Type.JSON


def _batches(table: Table) -> Iterator[Batch]:
    rows = iter(table.rows)
    while some := list(islice(rows, BATCH)):
        yield [[_checked(row.get(column.name), column) for column in table.columns] for row in some]


_TAKES: dict[Type, tuple[type, ...]] = {
    Type.TEXT: (str,),
    Type.INTEGER: (int,),
    Type.NUMBER: (int, float),
    Type.BOOLEAN: (bool,),
}


def _checked(value: Any, column: Column) -> Any:
    """The value, if it is JSON and of its column's type; `true` is no number."""
    if value is None:
        return None
    takes = _TAKES.get(column.type)
    if takes is not None and type(value) not in takes:
        raise BractError(MALFORMED, f"column {column.name}: a value is not {column.type}")
    if column.type is Type.TEXT:
        _encodable(value, column)
    elif column.type is Type.INTEGER and not -_INTEGER <= value < _INTEGER:
        raise BractError(MALFORMED, f"column {column.name}: an integer is beyond 64 bits")
    elif column.type is Type.NUMBER and not (abs(value) <= _EXACT if type(value) is int else isfinite(value)):
        raise BractError(MALFORMED, f"column {column.name}: a number is not finite, or not exact as a double")
    elif column.type is Type.JSON:
        canonical(value)
    return value


def _encodable(text: str, column: Column) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BractError(MALFORMED, f"column {column.name}: a value is not Unicode text") from error


@contextmanager
def _csv(path: Path, table: Table) -> Iterator[_Write]:
    with path.open("x", encoding="utf-8", newline="") as file:
        _line(file, [column.name for column in table.columns])

        def write(batch: Batch) -> None:
            for row in batch:
                _line(file, row)

        yield write


def _line(file: IO[str], cells: Sequence[Any]) -> None:
    text = ",".join(map(_cell, cells))
    file.write(f"{text or _quoted('')}\r\n")  # a line with nothing on it would be no row


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return _quoted(escape(value))
        case _:
            return _quoted(canonical(value).decode())


def _quoted(text: str) -> str:
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


@contextmanager
def _ndjson(path: Path, table: Table) -> Iterator[_Write]:
    names = [column.name for column in table.columns]
    with path.open("x", encoding="ascii", newline="\n") as file:

        def write(batch: Batch) -> None:
            for row in batch:
                file.write(json.dumps(dict(zip(names, row, strict=True)), allow_nan=False) + "\n")

        yield write


@contextmanager
def _parquet(path: Path, table: Table) -> Iterator[_Write]:
    import pyarrow as pa  # noqa: PLC0415 - half a second, and only this form needs it
    import pyarrow.parquet as pq  # noqa: PLC0415

    types = {
        Type.TEXT: pa.string(),
        Type.INTEGER: pa.int64(),
        Type.NUMBER: pa.float64(),
        Type.BOOLEAN: pa.bool_(),
        Type.JSON: pa.string(),
    }
    told = {"definition": table.definition, "types": {column.name: column.type.value for column in table.columns}}
    fields = [pa.field(column.name, types[column.type]) for column in table.columns]
    schema = pa.schema(fields, metadata={"bract": canonical(told)})
    with path.open("xb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:

        def write(batch: Batch) -> None:
            columns = [
                pa.array([_stored(row[place], column) for row in batch], type=types[column.type])
                for place, column in enumerate(table.columns)
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=BATCH)

        yield write


def _stored(value: Any, column: Column) -> Any:
    if value is None or column.type is not Type.JSON:
        return value
    return canonical(value).decode()


_FORMS: dict[str, Any] = {".csv": _csv, ".ndjson": _ndjson, ".parquet": _parquet}
