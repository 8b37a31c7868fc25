"""Tables: one Parquet file with record_id, subject_id, collected_at, purposes and the inputs of a public schema.

The label of a schema is never read. A row is what the encoder gets: its payload digest is that of its encoded numbers.
"""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bract.errors import BAD_RECORD, BractError
from bract.tables import TableSchema, encode_rows
from bract_client.sources.record import (
    BadLine,
    Payloads,
    Reason,
    SourceRecord,
    Unreadable,
    fields,
)

_COLUMNS = ("record_id", "subject_id", "collected_at", "purposes")
_BATCH = 4096

Row = npt.NDArray[np.float32]


class Table:
    """A Parquet file whose rows fit a public schema."""

    def __init__(self, path: Path, schema: TableSchema) -> None:
        self._path = path
        self._schema = schema

    def records(self) -> Iterator[SourceRecord | Unreadable]:
        """See `Source.records`."""
        line = 0
        for columns in self._batches((*_COLUMNS, *self._schema.names)):
            rows = _encode(self._schema, columns)
            for place, row in enumerate(rows):
                line += 1
                try:
                    yield _record(columns, place, row, line)
                except BadLine as bad:
                    yield Unreadable(line, bad.reason)

    def load(self, record_ids: Sequence[str]) -> Payloads:
        """See `Source.load`; float32 (n, D)."""
        place = {record_id: number for number, record_id in enumerate(record_ids)}
        values = np.zeros((len(record_ids), self._schema.width), dtype=np.float32)
        digests: list[bytes | None] = [None] * len(record_ids)
        for columns in self._batches(("record_id", *self._schema.names)):
            wanted = [number for number, one in enumerate(columns["record_id"]) if one in place]
            if not wanted:
                continue
            part = {name: [columns[name][number] for number in wanted] for name in self._schema.names}
            for number, row in zip(wanted, _encode(self._schema, part), strict=True):
                if row is not None:
                    target = place[columns["record_id"][number]]
                    values[target] = row
                    digests[target] = _digest(row)
        return Payloads(values, tuple(digests))

    def _batches(self, names: Sequence[str]) -> Iterator[dict[str, list[Any]]]:
        try:
            with pq.ParquetFile(self._path) as file:
                missing = [name for name in names if name not in file.schema_arrow.names]
                if missing:
                    raise BractError(BAD_RECORD, f"{self._path.name}: no column {', '.join(missing)}")
                for batch in file.iter_batches(batch_size=_BATCH, columns=list(names)):
                    yield {name: batch.column(name).to_pylist() for name in names}
        except (OSError, pa.ArrowException, ValueError, OverflowError) as error:
            # the last two: a text that is not UTF-8, a time that no calendar has
            raise BractError(BAD_RECORD, f"{self._path.name}: not a readable Parquet file") from error


def _encode(schema: TableSchema, columns: Mapping[str, Sequence[Any]]) -> list[Row | None]:
    """Each row's numbers, None where it does not fit the schema; a batch that fails is halved down to one row."""
    count = len(columns[schema.names[0]])
    if count == 0:
        return []
    try:
        return list(encode_rows(schema, columns))
    except BractError as error:
        if error.code != BAD_RECORD:
            raise
    if count == 1:
        return [None]
    half = count // 2
    first = _encode(schema, {name: columns[name][:half] for name in schema.names})
    return first + _encode(schema, {name: columns[name][half:] for name in schema.names})


def _record(columns: Mapping[str, Sequence[Any]], place: int, row: Row | None, line: int) -> SourceRecord:
    purposes = columns["purposes"][place]
    if not isinstance(purposes, list):
        raise BadLine(Reason.BAD_LINE)
    named = fields(columns["record_id"][place], columns["subject_id"][place], columns["collected_at"][place], purposes)
    if row is None:
        raise BadLine(Reason.BAD_PAYLOAD)
    return named.record(_digest(row), line)


def _digest(row: Row) -> bytes:
    return sha256(row.astype("<f4").tobytes()).digest()
