"""CSV files line by line: a line that does not parse is reported, and the next one is read."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from bract.errors import BAD_RECORD, BractError
from bract_client.sources.record import Reason, Unreadable


def lines(
    path: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str]] | Unreadable]:
    """Each data line as its number and its fields by column name, or why it is unreadable [RFC 4180].

    Bytes that are not UTF-8 stay visible as unprintable characters, so that only their own line is refused.

    Raises:
        BractError: `bad-record` when the file is missing or its header is not the expected one.
    """
    try:
        file = path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
    except OSError as error:
        raise BractError(BAD_RECORD, f"{path.name}: cannot be opened") from error
    with file:
        reader = csv.reader(file, strict=True)
        header = _header(reader, path.name, required, optional)
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error:
                yield Unreadable(reader.line_num, Reason.BAD_LINE)
                continue
            if len(row) == len(header):
                yield reader.line_num, dict(zip(header, row, strict=True))
            elif row:
                yield Unreadable(reader.line_num, Reason.BAD_LINE)


def _header(reader: Iterator[list[str]], name: str, required: Sequence[str], optional: Sequence[str]) -> Sequence[str]:
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise BractError(BAD_RECORD, f"{name}: the header cannot be read") from error
    missing = [column for column in required if column not in header]
    if missing:
        raise BractError(BAD_RECORD, f"{name}: the header lacks {', '.join(missing)}")
    if len(set(header)) != len(header) or not set(header) <= {*required, *optional}:
        raise BractError(BAD_RECORD, f"{name}: the header has unknown or repeated columns")
    return header
