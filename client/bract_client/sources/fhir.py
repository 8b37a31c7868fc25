"""FHIR Consent resources of R4B and R5: NDJSON files, bundles, single resources, and folders of them.

Their structure is checked by `fhir.resources` (extra `[fhir]`), what they mean is read by `fhir_consent`. R4's Consent is
R4B's. A line counts from 1: of an NDJSON file its line, of a bundle its entry, of a folder its file in the order of names.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from bract.errors import BAD_RECORD, NOT_INSTALLED, BractError
from bract_client.handles import plausible
from bract_client.sources.consent_mapping import FhirMapping
from bract_client.sources.fhir_consent import R4B, R5, ConsentReader
from bract_client.sources.fhir_subject import People
from bract_client.sources.folder import Folder
from bract_client.sources.json_lines import json_object
from bract_client.sources.lines import open_regular, physical
from bract_client.sources.record import BadLine, Reason, Unreadable
from bract_client.sources.statement import Statement

MAX_RESOURCE_BYTES = 8 << 20
MAX_BUNDLE_BYTES = 64 << 20
NDJSON = frozenset({".ndjson", ".jsonl"})

_MODULES = {R4B: "fhir.resources.R4B.consent", R5: "fhir.resources.consent"}


def read_fhir(path: Path, mapping: FhirMapping) -> Iterator[Statement | Unreadable]:
    """Every resource as what it says, or why it says nothing that we understand.

    Raises:
        BractError: `bad-record` when the file or folder as a whole cannot be read; `not-installed` without the extra.
    """
    for version in _MODULES:
        _model(version)
    reader = _Resources(mapping)
    if path.is_dir():
        yield from reader.folder(Folder(path))
    elif path.suffix.lower() in NDJSON:
        yield from reader.ndjson(path)
    else:
        yield from reader.document(path)


class _Resources:
    def __init__(self, mapping: FhirMapping) -> None:
        self._mapping = mapping
        self._reader = ConsentReader(mapping)
        self._nobody = People(mapping)

    def ndjson(self, path: Path) -> Iterator[Statement | Unreadable]:
        """One resource a line; empty lines are none."""
        with open_regular(path) as file:
            for number, line in enumerate(physical(file, MAX_RESOURCE_BYTES), start=1):
                if line is None:
                    yield Unreadable(number, Reason.TOO_LONG)
                elif line.strip():
                    yield self._one(number, partial(json_object, line), self._nobody)

    def folder(self, folder: Folder) -> Iterator[Statement | Unreadable]:
        """One resource a file."""
        for number, name in enumerate(folder.names(".json"), start=1):
            yield self._one(number, partial(_file, folder, name), self._nobody)

    def document(self, path: Path) -> Iterator[Statement | Unreadable]:
        """A bundle, or a single resource. Patients in a bundle are no lines; they tell who is meant."""
        with open_regular(path) as file:
            data = file.read(MAX_BUNDLE_BYTES + 1)
        if len(data) > MAX_BUNDLE_BYTES:
            raise BractError(BAD_RECORD, f"{path.name}: over {MAX_BUNDLE_BYTES >> 20} MiB; export it as NDJSON")
        try:
            whole = json_object(data)
        except BadLine as error:
            raise BractError(BAD_RECORD, f"{path.name}: not JSON") from error
        if whole.get("resourceType") != "Bundle":
            yield self._one(1, partial(_given, whole), self._nobody)
            return
        entries = whole.get("entry", [])
        if not isinstance(entries, list):
            raise BractError(BAD_RECORD, f"{path.name}: not a bundle")
        yield from self._entries(entries)

    def _entries(self, entries: list[Any]) -> Iterator[Statement | Unreadable]:
        found = [entry if isinstance(entry, dict) else {} for entry in entries]
        patients = [
            (url if isinstance(url := entry.get("fullUrl"), str) else None, one)
            for entry in found
            if isinstance(one := entry.get("resource"), dict) and one.get("resourceType") == "Patient"
        ]
        people = People(self._mapping, patients)
        for number, entry in enumerate(found, start=1):
            resource = entry.get("resource")
            if not isinstance(resource, dict) or resource.get("resourceType") != "Patient":
                yield self._one(number, partial(_given, resource), people)

    def _one(self, number: int, get: Callable[[], Any], people: People) -> Statement | Unreadable:
        resource: Any = None
        try:
            resource = get()
            if not isinstance(resource, dict) or resource.get("resourceType") != "Consent":
                raise BadLine(Reason.NOT_FHIR)
            version = self._mapping.version or (R4B if "scope" in resource else R5)
            check_structure(resource, version)
            return self._reader.statement(number, resource, version, people)
        except BadLine as bad:
            return Unreadable(number, bad.reason, _named(resource))
        except RecursionError:
            return Unreadable(number, Reason.NOT_FHIR, _named(resource))


def _named(resource: Any) -> str | None:
    name = resource.get("id") if isinstance(resource, dict) else None
    return name if isinstance(name, str) and plausible(name) else None


def _file(folder: Folder, name: str) -> dict[str, Any]:
    return json_object(folder.read(name, MAX_RESOURCE_BYTES))


def _given(resource: object) -> object:
    return resource


def check_structure(resource: dict[str, Any], version: str) -> None:
    """That the resource has the elements of its version's Consent and no others, each of its type.

    `scope` is required of R4B and unknown to R5, so that a resource is of one of the two at most. FHIR's JSON has no empty
    arrays and objects, and null nowhere that we read [HL7 FHIR, JSON Representation of Resources]: a refusal whose purposes
    are an empty list would refuse nothing.

    Raises:
        BadLine: when it is not; BractError: `not-installed`.
    """
    if _hollow(resource):
        raise BadLine(Reason.NOT_FHIR)
    try:
        _model(version).model_validate(resource)
    except Exception:  # noqa: BLE001 - foreign code on foreign input; its messages hold values and must not travel
        raise BadLine(Reason.NOT_FHIR) from None


def _hollow(value: Any) -> bool:
    if isinstance(value, dict):
        return not value or any(_hollow(one) for one in value.values())
    if isinstance(value, list):
        return not value or any(_hollow(one) for one in value)
    return value is None


@cache
def _model(version: str) -> Any:
    try:
        return import_module(_MODULES[version]).Consent
    except ImportError as error:
        raise BractError(NOT_INSTALLED, "FHIR: pip install 'bract[fhir]'") from error
