from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bract.consent import Purpose
from bract.errors import BAD_RECORD, BractError
from bract.tables import schema
from bract_client.sources.record import Reason, SourceRecord, Unreadable
from bract_client.sources.table import Table
from tests.client.site_world import Person, persons, write_table

ADULT = schema("adult")

BAD = [
    (Person("r9", None), Reason.BAD_SUBJECT_ID),
    (Person("r9", "P-9 "), Reason.BAD_SUBJECT_ID),
    (Person(None, "P-9"), Reason.BAD_RECORD_ID),
    (Person("P-9", "P-9"), Reason.RECORD_NAMES_SUBJECT),
    (Person("r9", "P-9", ("ssl-pretraining", "marketing")), Reason.UNKNOWN_PURPOSE),
    (Person("r9", "P-9", None), Reason.BAD_LINE),
    (Person("r9", "P-9", collected_at="yesterday"), Reason.BAD_TIME),
    (Person("r9", "P-9", collected_at="2026-01-01T00:00:00"), Reason.BAD_TIME),
    (Person("r9", "P-9", collected_at=None), Reason.BAD_TIME),
    (Person("r9", "P-9", features={"age": None}), Reason.BAD_PAYLOAD),
    (Person("r9", "P-9", features={"sex": "Other"}), Reason.BAD_PAYLOAD),
]


@pytest.mark.parametrize(("bad", "reason"), BAD, ids=lambda value: value if isinstance(value, Reason) else "row")
def test_a_bad_row_is_named_and_the_others_are_read(tmp_path: Path, bad: Person, reason: Reason) -> None:
    rows = persons(5)
    rows.insert(3, bad)
    items = list(Table(write_table(tmp_path / "t.parquet", rows), ADULT).records())
    assert [item for item in items if isinstance(item, Unreadable)] == [Unreadable(4, reason)]
    good = [item for item in items if isinstance(item, SourceRecord)]
    assert [one.record_id for one in good] == ["r0", "r1", "r2", "r3", "r4"]
    assert all(one.purposes == {Purpose.PRETRAINING} for one in good)


@settings(max_examples=20, deadline=None)
@given(bad=st.sets(st.integers(0, 29)))
def test_every_row_with_a_bad_value_is_found_and_no_other(
    tmp_path_factory: pytest.TempPathFactory, bad: set[int]
) -> None:
    rows = [Person(f"r{n}", f"P-{n}", features={"age": None if n in bad else 30 + n}) for n in range(30)]
    path = write_table(tmp_path_factory.mktemp("t") / "t.parquet", rows)
    items = list(Table(path, ADULT).records())
    assert {item.line - 1 for item in items if isinstance(item, Unreadable)} == bad


def test_payloads_come_in_the_asked_order_with_the_digests_of_the_records(tmp_path: Path) -> None:
    source = Table(write_table(tmp_path / "t.parquet", persons(6)), ADULT)
    digests = {one.record_id: one.payload_digest for one in source.records() if isinstance(one, SourceRecord)}
    loaded = source.load(["r4", "r0", "gone"])
    assert loaded.values.shape == (3, ADULT.width) and loaded.values.dtype == np.float32
    assert loaded.digests == (digests["r4"], digests["r0"], None)
    ages = loaded.values[:, 0] * ADULT.numeric[0].std + ADULT.numeric[0].mean
    assert ages[:2].tolist() == pytest.approx([24, 20])
    assert not loaded.values[2].any()


def test_a_changed_row_has_another_digest(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    before = Table(write_table(path, persons(2)), ADULT).load(["r0", "r1"]).digests
    write_table(path, [*persons(1), Person("r1", "P-1", features={"age": 99})])
    after = Table(path, ADULT).load(["r0", "r1"]).digests
    assert before[0] == after[0] and before[1] != after[1]


def test_the_label_is_never_part_of_a_payload(tmp_path: Path) -> None:
    plain = Table(write_table(tmp_path / "a.parquet", persons(2)), ADULT).load(["r0"])
    labelled = Table(write_table(tmp_path / "b.parquet", persons(2), label=True), ADULT).load(["r0"])
    assert plain.digests == labelled.digests


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not a table" * 100])
def test_what_is_no_parquet_file_is_refused_as_a_whole(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(data)
    with pytest.raises(BractError) as refused:
        list(Table(path, ADULT).records())
    assert refused.value.code == BAD_RECORD


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", persons(2))
    pq.write_table(pq.read_table(path).drop(["age"]), path)
    with pytest.raises(BractError, match="age"):
        list(Table(path, ADULT).records())


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BractError) as refused:
        Table(tmp_path / "none.parquet", ADULT).load(["r0"])
    assert refused.value.code == BAD_RECORD


def test_times_may_be_stored_as_times(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", persons(2))
    table = pq.read_table(path)
    times = pa.array([0, 1], pa.timestamp("us", tz="UTC"))
    pq.write_table(table.set_column(table.schema.get_field_index("collected_at"), "collected_at", times), path)
    (first, _) = Table(path, ADULT).records()
    assert isinstance(first, SourceRecord) and first.collected_at.year == 1970
