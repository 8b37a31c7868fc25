"""Decisions from a CSV file, read by a mapping (`consent_mapping`): our own columns, or whatever a clinic's system writes."""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from bract.consent import Capacity, ConsentEvent, Decision, Evidence
from bract.digest import Digest, parse_digest
from bract.errors import MALFORMED, BractError
from bract.vocabulary.legal import legal_basis
from bract.vocabulary.modifiers import Modifier, modifier
from bract.vocabulary.purposes import named
from bract_client.handles import plausible
from bract_client.sources.consent_mapping import ERROR, OURS, CsvMapping, zone
from bract_client.sources.lines import lines
from bract_client.sources.record import BadLine, Reason, Unreadable, subject
from bract_client.sources.statement import Statement, moment, stated

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_OWN_COLUMNS = 5
_NOTICE = 128
_REMEMBERED = 65_536


def read_consent(
    path: Path, mapping: CsvMapping | None = None, exported: datetime | None = None
) -> Iterator[Statement | Unreadable]:
    """Every line as what it says, or why it says nothing that we understand.

    Without a mapping the file has our own columns and no others. An empty `valid_to` means no end, an empty `dataset` all
    data sets, an empty reference that the line is known by its content. All lines were made when the file was exported.

    Raises:
        BractError: `bad-record` when the file is missing or lacks a column; `malformed` for a mapping of another form.
    """
    used = mapping or OURS.csv
    if used is None:
        raise BractError(MALFORMED, "the mapping has no [csv]")
    columns = used.columns.named()
    needed = columns if mapping else columns[:_OWN_COLUMNS]
    reader = _Reader(used, exported)
    for item in lines(path, needed, columns, dialect=used.dialect, others=mapping is not None):
        if isinstance(item, Unreadable):
            yield item
            continue
        number, row = item
        try:
            yield reader.statement(number, row)
        except BadLine as bad:
            yield Unreadable(number, bad.reason, reader.named(row))


class _Reader:
    """One file's lines by one mapping."""

    def __init__(self, mapping: CsvMapping, exported: datetime | None) -> None:
        self._exported = exported
        self._columns: dict[str, str | None] = dict(vars(mapping.columns))
        self._fixed: dict[str, Any] = {**dict(vars(mapping.fixed)), "evidence": None}
        self._words: dict[str, Mapping[str, Any]] = {
            "purpose": mapping.purposes,
            "decision": mapping.decisions,
            "legal_basis": mapping.legal_bases,
            "capacity": mapping.capacities,
            "modifiers": mapping.conditions,
        }
        self._layouts = mapping.layouts
        self._through = mapping.last_day_counts
        self._zone = zone(mapping.zone)
        self._known: dict[tuple[str, str], Any] = {}

    def statement(self, number: int, row: Mapping[str, str]) -> Statement:
        """What a line says.

        Raises:
            BadLine: for the first field that we do not understand.
        """
        reference = _reference(self._text("reference", row) or "")
        word = self._field("decision", row)
        if word == ERROR:
            if reference is None:
                raise BadLine(Reason.BAD_REFERENCE)
            return Statement(number, None, (), reference, self._evidence(row), changed=self._exported)
        person = subject(self._text("subject", row))
        return Statement(number, person, self._events(Decision(word), row), reference, changed=self._exported)

    def named(self, row: Mapping[str, str]) -> str | None:
        """The line's own name, None where it has none or it cannot be read."""
        text = self._text("reference", row) or ""
        return text if plausible(text) else None

    def _events(self, decision: Decision, row: Mapping[str, str]) -> tuple[ConsentEvent, ...]:
        purposes: tuple[str, ...] = self._field("purpose", row)
        begin = moment(self._text("valid_from", row) or "", self._layouts.valid_from, self._zone)
        until = self._text("valid_to", row)
        end = moment(until, self._layouts.valid_to, self._zone, through=self._through) if until else None
        dataset = self._field("dataset", row)
        evidence = self._evidence(row)
        # the conditions of a refusal would only weaken it
        conditions = self._field("modifiers", row) if decision is Decision.PERMIT else ()
        return tuple(
            event
            for purpose in purposes
            for event in stated(decision, purpose, begin, end, dataset=dataset, modifiers=conditions, evidence=evidence)
        )

    def _evidence(self, row: Mapping[str, str]) -> Evidence:
        return Evidence(*(self._field(name, row) for name in ("legal_basis", "evidence", "notice", "capacity")))

    def _text(self, name: str, row: Mapping[str, str]) -> str | None:
        column = self._columns[name]
        return None if column is None else row.get(column)

    def _field(self, name: str, row: Mapping[str, str]) -> Any:
        """The field's value: what holds for the whole file, or what its column says, remembered as values repeat."""
        text = self._text(name, row)
        if text is None:
            return self._fixed[name]
        key = name, text
        if key not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = _READ[name](text, self._words.get(name, {}))
        return self._known[key]


def _reference(text: str) -> str | None:
    if text and not plausible(text):
        raise BadLine(Reason.BAD_REFERENCE)
    return text or None


def _purpose(text: str, words: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The purposes that a word stands for; one that stands for none is as unknown as one that is not there."""
    found = words.get(text, ()) if words else (text,)
    try:
        purposes = tuple(named(code) for code in found)
    except BractError as error:
        raise BadLine(Reason.UNKNOWN_PURPOSE) from error
    if not purposes:
        raise BadLine(Reason.UNKNOWN_PURPOSE)
    return purposes


def _decision(text: str, words: Mapping[str, str]) -> str:
    word = words.get(text) if words else text
    if word not in {ERROR, *(one.value for one in Decision if one is not Decision.CORRECT)}:
        raise BadLine(Reason.UNKNOWN_DECISION)
    return word


def _dataset(text: str, _: Mapping[str, str]) -> str | None:
    if text and _NAME.fullmatch(text) is None:
        raise BadLine(Reason.BAD_DATASET)
    return text or None


def _basis(text: str, words: Mapping[str, str]) -> str | None:
    if not text:
        return None
    try:
        return legal_basis(words.get(text, "") if words else text).code
    except BractError as error:
        raise BadLine(Reason.UNKNOWN_BASIS) from error


def _capacity(text: str, words: Mapping[str, Capacity]) -> Capacity | None:
    if not text:
        return None
    try:
        return words[text] if words else Capacity(text)
    except (KeyError, ValueError) as error:
        raise BadLine(Reason.BAD_EVIDENCE) from error


def _notice(text: str, _: Mapping[str, str]) -> str | None:
    if len(text) > _NOTICE or not text.isprintable():
        raise BadLine(Reason.BAD_EVIDENCE)
    return text or None


def _evidence(text: str, _: Mapping[str, str]) -> Digest | None:
    try:
        return parse_digest(text) if text else None
    except BractError as error:
        raise BadLine(Reason.BAD_EVIDENCE) from error


def _modifiers(text: str, words: Mapping[str, tuple[Modifier, ...]]) -> tuple[Modifier, ...]:
    """Conditions by the file's own words, or written out: `DUO:0000022=DE|FR DUO:0000018`."""
    try:
        if words:
            return words[text] if text else ()
        parts = (part.partition("=") for part in text.split())
        return tuple(modifier(code, values.split("|") if equals else ()) for code, equals, values in parts)
    except (KeyError, BractError) as error:
        raise BadLine(Reason.UNKNOWN_MODIFIER) from error


_READ: dict[str, Callable[[str, Mapping[str, Any]], Any]] = {
    "purpose": _purpose,
    "decision": _decision,
    "dataset": _dataset,
    "legal_basis": _basis,
    "capacity": _capacity,
    "notice": _notice,
    "evidence": _evidence,
    "modifiers": _modifiers,
}
