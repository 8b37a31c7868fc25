"""Tables come back as they were written, in every form, and no spreadsheet takes their text for a formula."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bract.digest import canonical
from bract.errors import ALREADY_EXISTS, DISK, MALFORMED, BractError
from bract.export.tabular import (
    BATCH,
    Column,
    Table,
    Type,
    columns_of,
    escape,
    read_csv,
    table_of,
    unescape,
    write_tables,
)
from tests.shared.export.graphs import HOSTILE, plain, texts
from tests.small_disk import on_small_disk

SOME: list[dict[str, Any]] = [
    {"site": "=1+1", "rounds": -3, "share": 0.5, "open": True, "more": ["=x", 1]},
    {"site": None, "rounds": 2**62, "share": 1, "open": False, "more": {"é": '"'}},
    {"site": "", "rounds": None, "share": None, "open": None, "more": None},
]
NAMES = ("site", "rounds", "share", "open", "more")

rows = st.lists(
    st.fixed_dictionaries(
        {
            "text": st.none() | texts,
            "integer": st.none() | st.integers(-(2**63), 2**63 - 1),
            "number": st.none() | st.floats(allow_nan=False, allow_infinity=False),
            "boolean": st.none() | st.booleans(),
            "json": plain,
        }
    ),
    max_size=6,
)
COLUMNS = tuple(Column(one.value, one) for one in Type)


def written(folder: Path, table: Table, *names: str) -> list[Path]:
    targets = [folder / name for name in names]
    for target in targets:
        target.unlink(missing_ok=True)
    write_tables(targets, table)
    return targets


def as_text(value: Any) -> str:
    """What a cell of ours says to whoever reads it with Python's own csv module."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    return repr(value) if isinstance(value, int | float) else canonical(value).decode()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows)
def test_every_form_gives_back_what_was_written(tmp_path: Path, found: list[dict[str, Any]]) -> None:
    table = Table(COLUMNS, found, "any rows")
    sheet, lines, parquet = written(tmp_path, table, "a.csv", "a.ndjson", "a.parquet")
    head, *cells = read_csv(sheet)
    assert head == [column.name for column in COLUMNS]
    assert cells == [[as_text(row[column.name]) for column in COLUMNS] for row in found]
    assert [json.loads(line) for line in lines.read_bytes().splitlines()] == found
    stored = [{**row, "json": None if row["json"] is None else canonical(row["json"]).decode()} for row in found]
    assert pq.read_table(parquet).to_pylist() == stored


@given(texts)
def test_escaping_is_undone_and_leaves_no_formula(text: str) -> None:
    told = escape(text)
    assert unescape(told) == text
    assert told.lstrip(" \ufeff")[:1] not in tuple("=+-@\t\r\n")
    assert told in (text, f"'{text}")


@pytest.mark.parametrize(
    "text", ["=1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", " =1", "'=1", "''=1", "＝1", "\ufeff=1"]
)
def test_what_a_spreadsheet_computes_gets_an_apostrophe(text: str) -> None:
    assert escape(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "a=1", "'", "it's", "'tis", "1", "sha256:0"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert escape(text) == text


def test_the_bytes_of_a_csv_file_are_those_of_the_rule(tmp_path: Path) -> None:
    """RFC 4180; numbers bare, so that a program reads -3 as a number and not as escaped text."""
    (sheet,) = written(tmp_path, table_of(NAMES, SOME, "some"), "a.csv")
    assert sheet.read_bytes().decode() == (
        '"site","rounds","share","open","more"\r\n'
        '"\'=1+1",-3,0.5,true,"[""=x"",1]"\r\n'
        ',4611686018427387904,1,false,"{""é"":""\\""""}"\r\n'
        '"",,,,\r\n'
    )
    with sheet.open(encoding="utf-8", newline="") as file:
        assert [len(row) for row in csv.reader(file, strict=True)] == [5] * 4


def test_a_row_of_one_absent_cell_is_still_a_row(tmp_path: Path) -> None:
    (sheet,) = written(tmp_path, table_of(("a",), [{"a": None}, {"a": "b"}], "one column"), "a.csv")
    assert list(read_csv(sheet)) == [["a"], [""], ["b"]]


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    table = table_of(NAMES, SOME, "some")
    first = [path.read_bytes() for path in written(tmp_path, table, "a.csv", "a.ndjson", "a.parquet")]
    assert [path.read_bytes() for path in written(tmp_path, table, "b.csv", "b.ndjson", "b.parquet")] == first


def test_a_parquet_file_carries_its_definition(tmp_path: Path) -> None:
    (parquet,) = written(tmp_path, table_of(NAMES, SOME, "what it is"), "a.parquet")
    told = json.loads(pq.read_schema(parquet).metadata[b"bract"])
    assert told["definition"] == "what it is"
    assert told["types"]["rounds"] == "integer"
    assert told["types"]["share"] == "number"


def test_types_are_the_narrowest_that_fit() -> None:
    found: list[dict[str, Any]] = [
        {"a": 1, "b": True, "c": 1, "d": "x", "e": None},
        {"a": 2, "b": None, "c": 0.5, "d": 1, "e": None},
    ]
    assert [column.type for column in columns_of(("a", "b", "c", "d", "e"), found)] == [
        Type.INTEGER,
        Type.BOOLEAN,
        Type.NUMBER,
        Type.JSON,
        Type.TEXT,
    ]


def test_rows_are_read_once_and_not_kept(tmp_path: Path) -> None:
    alive: list[int] = []

    class Seen(dict[str, Any]):
        def __del__(self) -> None:
            alive[-1] -= 1

    def many() -> Iterator[dict[str, Any]]:
        alive.append(0)
        for number in range(3 * BATCH):
            alive[-1] += 1
            assert alive[-1] <= 2 * BATCH
            yield Seen(n=number)

    targets = [tmp_path / "a.csv", tmp_path / "a.parquet"]
    assert write_tables(targets, Table((Column("n", Type.INTEGER),), many(), "many")) == 3 * BATCH
    assert pq.read_table(targets[1])["n"].to_pylist() == list(range(3 * BATCH))


WRONG: list[tuple[Type, Any]] = [
    (Type.INTEGER, 2**63),
    (Type.INTEGER, True),
    (Type.INTEGER, 1.0),
    (Type.NUMBER, math.nan),
    (Type.NUMBER, math.inf),
    (Type.NUMBER, 2**53 + 1),
    (Type.NUMBER, 10**400),
    (Type.TEXT, 1),
    (Type.TEXT, "\ud800"),
    (Type.BOOLEAN, 1),
    (Type.JSON, {"a": math.nan}),
    (Type.JSON, "\ud800"),
    (Type.JSON, object()),
]


@pytest.mark.parametrize(("kind", "value"), WRONG)
def test_a_value_that_is_not_of_its_column_is_refused_and_nothing_is_left(
    tmp_path: Path, kind: Type, value: Any
) -> None:
    targets = [tmp_path / "a.csv", tmp_path / "a.ndjson", tmp_path / "a.parquet"]
    with pytest.raises(BractError) as refusal:
        write_tables(targets, Table((Column("a", kind),), [{"a": None}, {"a": value}], "wrong"))
    assert refusal.value.code == MALFORMED
    assert list(tmp_path.iterdir()) == []


def test_names_of_columns_and_files_are_checked(tmp_path: Path) -> None:
    one = Table((Column("a"),), [], "one")
    attempts: list[tuple[list[Path], Table]] = [
        ([tmp_path / "a.xlsx"], one),
        ([tmp_path / "none" / "a.csv"], one),
        ([tmp_path / "a.csv", tmp_path / "a.csv"], one),
        ([tmp_path / "a.csv"], Table((), [], "none")),
        ([tmp_path / "a.csv"], Table((Column("a"), Column("a")), [], "twice")),
    ]
    for targets, table in attempts:
        with pytest.raises(BractError) as refusal:
            write_tables(targets, table)
        assert refusal.value.code == MALFORMED
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"mine")
    with pytest.raises(BractError) as refusal:
        write_tables([tmp_path / "a.csv", tmp_path / "a.parquet"], table_of(NAMES, SOME, "some"))
    assert refusal.value.code == ALREADY_EXISTS
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.parquet", b"mine")]


FULL = """
import sys
from pathlib import Path
from bract.errors import BractError
from bract.export.tabular import Column, Table, write_tables
folder = Path(sys.argv[1])
rows = ({"a": "x" * 1000} for _ in range(20_000))
try:
    write_tables([folder / "a.csv", folder / "a.parquet", folder / "a.ndjson"], Table((Column("a"),), rows, "big"))
except BractError as refusal:
    print(refusal.code, refusal.detail)
print(len(list(folder.iterdir())))
"""


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    assert on_small_disk(tmp_path / "disk", 256, FULL).split() == [DISK, "ENOSPC", "0"]


def test_the_hostile_texts_hold_formulas() -> None:
    """The properties above say nothing unless their texts are dangerous."""
    assert sum(escape(text) != text for text in HOSTILE) >= 3
