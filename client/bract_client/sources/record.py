"""What every source gives: records with their subject and purposes, or the line that could not be read and why."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bract.consent import Purpose
from bract.errors import BractError
from bract.value import utc
from bract_client.handles import plausible


class Reason(StrEnum):
    """Why a line of a source was not taken. The list is closed, and no reason tells what stood in the line."""

    BAD_LINE = "bad-line"
    TOO_LONG = "line-too-long"
    BAD_RECORD_ID = "bad-record-id"
    BAD_SUBJECT_ID = "bad-subject-id"
    RECORD_NAMES_SUBJECT = "record-id-is-subject-id"
    DUPLICATE = "duplicate-record-id"
    BAD_TIME = "bad-time"
    UNKNOWN_PURPOSE = "unknown-purpose"
    UNKNOWN_DECISION = "unknown-decision"
    BAD_DATASET = "bad-dataset-name"
    BAD_PAYLOAD = "bad-payload"
    BAD_PATH = "bad-path"
    MISSING_FILE = "missing-file"
    TOO_LARGE = "too-large"
    WRONG_SHAPE = "wrong-shape"
    WRONG_DIGEST = "wrong-digest"
    # of decisions
    NO_ZONE = "time-without-zone"
    UNKNOWN_BASIS = "unknown-legal-basis"
    UNKNOWN_MODIFIER = "unknown-modifier"
    BAD_EVIDENCE = "bad-evidence"
    BAD_REFERENCE = "bad-reference"
    SAID_TWICE = "reference-twice"
    REPLACED = "replaced-before"
    UNDATED = "wider-without-export-date"
    REFUSAL_STANDS = "refusal-without-evidence"
    # of FHIR resources
    NOT_FHIR = "not-a-resource"
    NOT_IN_FORCE = "not-in-force"
    AMBIGUOUS_SUBJECT = "ambiguous-subject"
    NO_PURPOSE = "no-purpose"
    NO_DECISION = "no-decision"
    NOT_EXPRESSIBLE = "not-expressible"


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """One record as its source describes it. Identifiers are kept out of its printed form.

    Attributes:
        purposes: what the source says the subject permitted when the record was collected.
        payload_digest: sha256 of the payload, 32 bytes.
        line: where it stands in the source, as in `Unreadable`.
    """

    record_id: str = field(repr=False)
    subject_id: str = field(repr=False)
    purposes: frozenset[Purpose]
    collected_at: datetime
    payload_digest: bytes = field(repr=False)
    line: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line that was not taken; lines count from 1, as an editor shows them (a Parquet row's line is its number).

    Attributes:
        reference: the source's own name of the line, where it has one that can be read.
    """

    line: int
    reason: Reason
    reference: str | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Payloads:
    """Payloads as the encoder takes them, and what they were when they were read.

    Attributes:
        values: float32 (n, D) for tables, (n, C, H, W) in [0, 1] for images; zeros where there is no digest.
        digests: for each its payload digest, or None when it is gone or cannot be read any more.
    """

    values: npt.NDArray[np.float32]
    digests: tuple[bytes | None, ...]


class Source(Protocol):
    """Where records lie."""

    def records(self) -> Iterator[SourceRecord | Unreadable]:
        """Every record, or its line and why it is unreadable; one bad record never stops the others.

        Raises:
            BractError: `bad-record` when the source as a whole is not of its form.
        """
        ...

    def load(self, record_ids: Sequence[str]) -> Payloads:
        """These records' payloads in this order; digests are taken from the very bytes that are returned.

        Raises:
            BractError: `bad-record` when the source as a whole is not of its form.
        """
        ...


class BadLine(Exception):  # noqa: N818 - it is an outcome inside a reader, never shown to anyone
    """Ends the reading of one line."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason
        super().__init__(reason)


def subject(text: object) -> str:
    """The text as a subject's identifier; `BadLine` if it cannot be one."""
    if not isinstance(text, str) or not plausible(text):
        raise BadLine(Reason.BAD_SUBJECT_ID)
    return text


def purpose(text: object) -> Purpose:
    """The text as a purpose; `BadLine` if it is none of ours."""
    if not isinstance(text, str):
        raise BadLine(Reason.UNKNOWN_PURPOSE)
    try:
        return Purpose(text)
    except ValueError as error:
        raise BadLine(Reason.UNKNOWN_PURPOSE) from error


def time(value: object) -> datetime:
    """An ISO 8601 text, or a time, with a zone, as UTC time; `BadLine` for anything else."""
    if isinstance(value, datetime):
        value = value.isoformat()
    if not isinstance(value, str):
        raise BadLine(Reason.BAD_TIME)
    try:
        return utc(value)
    except (BractError, OverflowError) as error:
        raise BadLine(Reason.BAD_TIME) from error


@dataclass(frozen=True, slots=True)
class Fields:
    """The part of a record that every source has."""

    record_id: str = field(repr=False)
    subject_id: str = field(repr=False)
    purposes: frozenset[Purpose]
    collected_at: datetime

    def record(self, payload_digest: bytes, line: int) -> SourceRecord:
        """The record with this payload."""
        return SourceRecord(self.record_id, self.subject_id, self.purposes, self.collected_at, payload_digest, line)


def fields(record_id: object, subject_id: object, collected_at: object, purposes: Sequence[object]) -> Fields:
    """The checked common fields; `BadLine` for the first that is wrong.

    A record's identifier is stored (it finds the payload again), so it must not be the subject's own.
    """
    if not isinstance(record_id, str) or not plausible(record_id):
        raise BadLine(Reason.BAD_RECORD_ID)
    person = subject(subject_id)
    if record_id == person:
        raise BadLine(Reason.RECORD_NAMES_SUBJECT)
    return Fields(record_id, person, frozenset(purpose(p) for p in purposes), time(collected_at))
