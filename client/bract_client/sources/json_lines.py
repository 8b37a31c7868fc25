"""JSON, where what cannot be read in one way only is refused; and files of one JSON object a line."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bract_client.sources.lines import open_regular, physical
from bract_client.sources.record import BadLine, Reason, Unreadable


def json_lines(
    path: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, Any]] | Unreadable]:
    """Each line as its number and its object, or why it is unreadable; a line with other names is unreadable.

    Raises:
        BractError: `bad-record` when the file is missing or no regular file.
    """
    with open_regular(path) as file:
        for number, line in enumerate(physical(file), start=1):
            if line is None:
                yield Unreadable(number, Reason.TOO_LONG)
            elif line.strip():
                try:
                    row = json_object(line)
                except BadLine as bad:
                    yield Unreadable(number, bad.reason)
                    continue
                if set(required) <= set(row) <= {*required, *optional}:
                    yield number, row
                else:
                    yield Unreadable(number, Reason.BAD_LINE)


def json_object(data: bytes) -> dict[str, Any]:
    """A JSON object. A name that stands twice in one object is refused: readers differ in which of the two they take.

    Raises:
        BadLine: for anything else.
    """
    try:
        value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadLine(Reason.BAD_LINE) from error
    if not isinstance(value, dict):
        raise BadLine(Reason.BAD_LINE)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def _no_constant(_: str) -> NoReturn:
    raise ValueError("not a number of JSON")
