"""Consent decisions from a CSV file: subject_id,purpose,decision,valid_from,valid_to and, if wished, dataset."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bract.consent import ConsentEvent, Decision
from bract_client.sources.lines import lines
from bract_client.sources.record import BadLine, Reason, Unreadable, purpose, subject, time

_COLUMNS = ("subject_id", "purpose", "decision", "valid_from", "valid_to")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True)
class ConsentLine:
    """One subject's decision as the file has it."""

    line: int
    subject_id: str = field(repr=False)
    event: ConsentEvent


def read_consent(path: Path) -> Iterator[ConsentLine | Unreadable]:
    """Every line as a decision, or why it is none. Empty `valid_to` and `dataset` mean no end and all data sets.

    Raises:
        BractError: `bad-record` when the file is missing or its header is not the expected one.
    """
    for item in lines(path, _COLUMNS, ("dataset",)):
        if isinstance(item, Unreadable):
            yield item
            continue
        number, row = item
        try:
            yield ConsentLine(number, subject(row["subject_id"]), _event(row))
        except BadLine as bad:
            yield Unreadable(number, bad.reason)


def _event(row: dict[str, str]) -> ConsentEvent:
    try:
        decision = Decision(row["decision"])
    except ValueError as error:
        raise BadLine(Reason.UNKNOWN_DECISION) from error
    begin = time(row["valid_from"])
    end = time(row["valid_to"]) if row["valid_to"] else None
    if end is not None and end <= begin:
        raise BadLine(Reason.BAD_TIME)
    dataset = row.get("dataset") or None
    if dataset is not None and _NAME.fullmatch(dataset) is None:
        raise BadLine(Reason.BAD_DATASET)
    return ConsentEvent(purpose(row["purpose"]), decision, begin, end, dataset)
