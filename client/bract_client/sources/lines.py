"""CSV files line by line: a line that does not parse is reported, and the next one is read.

A record is one line: a quoted line break is refused, so that a forgotten quotation mark cannot swallow the lines after it.
"""

import csv
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bract.errors import BAD_RECORD, BractError
from bract_client.sources.record import Reason, Unreadable

MAX_LINE_BYTES = 1 << 16

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Dialect:
    """How a file separates its fields and encodes its text; the encoding keeps ASCII as it is."""

    delimiter: str = ","
    encoding: str = "utf-8"


CSV = Dialect()


def lines(
    path: Path,
    required: Sequence[str],
    optional: Sequence[str] = (),
    *,
    dialect: Dialect = CSV,
    others: bool = False,
) -> Iterator[tuple[int, dict[str, str]] | Unreadable]:
    """Each data line as its number and its named fields, or why it is unreadable [RFC 4180].

    Bytes that are not of the encoding stay visible as unprintable characters, so that only their own line is refused.

    Args:
        path: a regular file.
        required: columns that the header must name.
        optional: columns that it may name.
        dialect: separator and encoding.
        others: whether it may have further columns, which are left alone.

    Raises:
        BractError: `bad-record` when the file is missing or its header is not the expected one.
    """
    with open_regular(path) as file:
        header: Sequence[str] | None = None
        for number, line in enumerate(physical(file), start=1):
            row = None if line is None else _fields(line, dialect, first=number == 1)
            if header is None:
                header = _header(row, path.name, required, optional, others)
                wanted = {name: place for place, name in enumerate(header) if name in {*required, *optional}}
            elif line is None:
                yield Unreadable(number, Reason.TOO_LONG)
            elif row is None:
                yield Unreadable(number, Reason.BAD_LINE)
            elif len(row) == len(header):
                yield number, {name: row[place] for name, place in wanted.items()}
            elif row:
                yield Unreadable(number, Reason.BAD_LINE)
        if header is None:
            _header([], path.name, required, optional, others)


def open_regular(path: Path) -> BinaryIO:
    """The file for reading; never a pipe or a device, which could make us wait for ever.

    Raises:
        BractError: `bad-record` when it is missing or no regular file.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise BractError(BAD_RECORD, f"{path.name}: cannot be opened") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise BractError(BAD_RECORD, f"{path.name}: not a regular file")
    return os.fdopen(handle, "rb")


def physical(file: BinaryIO, limit: int = MAX_LINE_BYTES) -> Iterator[bytes | None]:
    """The lines of a file without their ends; None for one of more than `limit` bytes, which is skipped unread.

    Raises:
        BractError: `bad-record` when the disk does not give them.
    """
    try:
        while line := file.readline(limit + 1):
            if len(line) > limit and not line.endswith(b"\n"):
                while line and not line.endswith(b"\n"):
                    line = file.readline(limit)
                yield None
            else:
                yield line.rstrip(b"\r\n")
    except OSError as error:
        raise BractError(BAD_RECORD, "the file cannot be read to its end") from error


def _fields(line: bytes, dialect: Dialect, *, first: bool) -> list[str] | None:
    if first and dialect.encoding == "utf-8":
        line = line.removeprefix(_BOM)
    if b"\0" in line:
        return None
    text = line.decode(dialect.encoding, errors="surrogateescape")
    if '"' not in text and "\r" not in text:
        return text.split(dialect.delimiter) if text else []
    try:
        return next(csv.reader((text,), delimiter=dialect.delimiter, strict=True), [])
    except csv.Error:
        return None


def _header(
    header: list[str] | None, name: str, required: Sequence[str], optional: Sequence[str], others: bool
) -> Sequence[str]:
    if header is None:
        raise BractError(BAD_RECORD, f"{name}: the header cannot be read")
    missing = [column for column in required if column not in header]
    if missing:
        raise BractError(BAD_RECORD, f"{name}: the header lacks {', '.join(missing)}")
    known: Mapping[str, int] = {column: header.count(column) for column in {*required, *optional}}
    if max(known.values()) > 1 or not (others or set(header) <= set(known)):
        raise BractError(BAD_RECORD, f"{name}: the header has unknown or repeated columns")
    return header
