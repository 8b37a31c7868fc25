"""How a source's columns and codes become ours: a TOML file that the steward writes, and nothing is guessed beyond it.

`deploy/mappings/consent.toml` is an example that names every field. A value that the mapping does not list is no value of
ours: its line is set aside.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import Field

from bract.consent import Capacity
from bract.errors import MALFORMED, BractError
from bract.plan import Name
from bract.value import decode, read_toml, strict
from bract.vocabulary.legal import legal_basis
from bract.vocabulary.modifiers import Modifier, modifier
from bract.vocabulary.purposes import term
from bract_client.sources.lines import Dialect

Text = Annotated[str, Field(min_length=1, max_length=256)]
Codes = Annotated[tuple[str, ...], Field(max_length=32)]
Said = Literal["permit", "deny", "withdraw", "object", "expire", "error"]

ERROR = "error"
"""Of a line that says: what this reference said before was an error."""


@strict
@dataclass(frozen=True)
class Columns:
    """Which column holds what; the first four must be there unless `[csv.fixed]` says them for the whole file."""

    subject: Text
    purpose: Text | None = None
    decision: Text | None = None
    valid_from: Text | None = None
    valid_to: Text | None = None
    dataset: Text | None = None
    legal_basis: Text | None = None
    notice: Text | None = None
    capacity: Text | None = None
    evidence: Text | None = None
    modifiers: Text | None = None
    reference: Text | None = None

    def named(self) -> tuple[str, ...]:
        """The columns that the file must have."""
        return tuple(name for name in vars(self).values() if name is not None)


@strict
@dataclass(frozen=True)
class Fixed:
    """What holds for every line of a file that has no column for it."""

    purpose: Codes | None = None
    decision: Said | None = None
    dataset: Name | None = None
    legal_basis: str | None = None
    notice: Annotated[str, Field(max_length=128)] | None = None
    capacity: Capacity | None = None
    modifiers: tuple[Modifier, ...] = ()


@strict
@dataclass(frozen=True)
class Layouts:
    """How times are written, as `datetime.strptime` takes it; ISO 8601 where nothing is said."""

    valid_from: Text | None = None
    valid_to: Text | None = None


@strict
@dataclass(frozen=True)
class CsvMapping:
    """How to read a CSV file of decisions.

    Attributes:
        zone: of times without one, such as `Europe/Berlin`; without it their lines are set aside.
        last_day_counts: whether a `valid_to` that is a date alone means the end of that day and not its beginning.
        purposes: the file's words and the purposes of our vocabulary that each stands for; empty: the file has our codes.
        decisions: the file's words and what each says; empty: the file has our words.
        legal_bases: likewise, for the codes of `bract.vocabulary.legal`.
        capacities: likewise, for self, guardian and proxy.
        conditions: the file's words for conditions of a permit; empty: `CODE` or `CODE=value|value`, separated by spaces.
    """

    columns: Columns
    fixed: Fixed = Fixed()
    layouts: Layouts = Layouts()
    delimiter: Annotated[str, Field(pattern=r"^[,;|\t:]$")] = ","
    encoding: Literal["utf-8", "iso-8859-1", "iso-8859-15", "windows-1250", "windows-1252"] = "utf-8"
    zone: Text | None = None
    last_day_counts: bool = False
    purposes: Mapping[str, Codes] = field(default_factory=dict)
    decisions: Mapping[str, Said] = field(default_factory=dict)
    legal_bases: Mapping[str, str] = field(default_factory=dict)
    capacities: Mapping[str, Capacity] = field(default_factory=dict)
    conditions: Mapping[str, tuple[Modifier, ...]] = field(default_factory=dict)

    @property
    def dialect(self) -> Dialect:
        """Separator and encoding."""
        return Dialect(self.delimiter, self.encoding)


@strict
@dataclass(frozen=True)
class Coding:
    """A code of some system, and the purposes of our vocabulary that it stands for; none: it has nothing to do with us.

    Attributes:
        element: where in a provision it stands. `code` is about the content of data unless a profile says otherwise, so
            only what is listed here is read as a purpose there.
    """

    system: Text
    code: Text
    purposes: Codes
    element: Literal["purpose", "code"] = "purpose"


@strict
@dataclass(frozen=True)
class FhirMapping:
    """How to read FHIR Consent resources.

    Attributes:
        subject: `identifier`: the patient's business identifier of `system`, in the reference itself, a contained Patient or
            one in the same bundle. `reference`: the logical id in a reference to `Patient/…`.
        system: the identifier's system, which must be one that never names two persons.
        server: the base URL that absolute references may have; others are ambiguous.
        zone: of dates; without it resources that have only dates are set aside.
        version: of the resources; without it each one's own required elements tell.
        dataset: the data set that they are about; None: all of them.
        legal_basis: of all of them.
        codings: beyond those that we pin (`fhir_terms`), and before them.
    """

    subject: Literal["identifier", "reference"]
    system: Text | None = None
    server: Text | None = None
    zone: Text | None = None
    version: Literal["R4B", "R5"] | None = None
    dataset: Name | None = None
    legal_basis: str | None = None
    codings: tuple[Coding, ...] = ()


@strict
@dataclass(frozen=True)
class ConsentMapping:
    """A mapping file.

    Attributes:
        source: which system the files come from; a line's own name counts within it.
    """

    source: Name
    csv: CsvMapping | None = None
    fhir: FhirMapping | None = None


OURS = ConsentMapping(
    "bract",
    CsvMapping(
        Columns(
            "subject_id",
            "purpose",
            "decision",
            "valid_from",
            "valid_to",
            dataset="dataset",
            legal_basis="legal_basis",
            notice="notice",
            capacity="capacity",
            evidence="evidence",
            modifiers="modifiers",
            reference="reference",
        )
    ),
)
"""Our own CSV: the first five columns, and of the others those that are wished."""


def load_mapping(path: Path) -> ConsentMapping:
    """The mapping in a TOML file.

    Raises:
        BractError: `malformed`, naming the field, when it is none, or names a purpose, condition, legal basis or zone that
            there is not.
    """
    return check_mapping(decode(ConsentMapping, read_toml(path)))


def check_mapping(mapping: ConsentMapping) -> ConsentMapping:
    """The mapping, if all that it names exists.

    Raises:
        BractError: `malformed`, naming the field.
    """
    if mapping.csv is not None:
        _check_csv(mapping.csv)
    if mapping.fhir is not None:
        _check_fhir(mapping.fhir)
    return mapping


def zone(name: str | None) -> ZoneInfo | None:
    """The zone of that name of the IANA database; None for none.

    Raises:
        BractError: `malformed` when there is no such zone.
    """
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise BractError(MALFORMED, "zone: not one of the IANA database") from error


def _check_csv(mapping: CsvMapping) -> None:
    columns, fixed = mapping.columns, mapping.fixed
    for name in ("purpose", "decision", "dataset", "legal_basis", "notice", "capacity"):
        if getattr(columns, name) is not None and getattr(fixed, name) is not None:
            raise BractError(MALFORMED, f"csv: {name} is both a column and fixed")
    if columns.modifiers is not None and fixed.modifiers:
        raise BractError(MALFORMED, "csv: modifiers are both a column and fixed")
    for name in ("purpose", "decision"):
        if getattr(columns, name) is None and getattr(fixed, name) is None:
            raise BractError(MALFORMED, f"csv: neither a column nor [csv.fixed] says the {name}")
    if columns.valid_from is None:
        raise BractError(MALFORMED, "csv.columns.valid_from: a decision has a time")
    if len(set(columns.named())) != len(columns.named()):
        raise BractError(MALFORMED, "csv.columns: one column for two things")
    if columns.reference is None and ERROR in (fixed.decision, *mapping.decisions.values()):
        raise BractError(MALFORMED, "csv: an error can be told only of a line with a reference")
    for codes in (*mapping.purposes.values(), fixed.purpose or ()):
        _check_purposes(codes)
    for basis in (*mapping.legal_bases.values(), *([fixed.legal_basis] if fixed.legal_basis else [])):
        legal_basis(basis)
    for conditions in (*mapping.conditions.values(), fixed.modifiers):
        for one in conditions:
            modifier(one.code, one.values)
    zone(mapping.zone)


def _check_fhir(mapping: FhirMapping) -> None:
    if (mapping.subject == "identifier") != (mapping.system is not None):
        raise BractError(
            MALFORMED, "fhir.system: which system's identifier a subject has, if and only if by identifier"
        )
    for coding in mapping.codings:
        _check_purposes(coding.purposes)
    if mapping.legal_basis is not None:
        legal_basis(mapping.legal_basis)
    zone(mapping.zone)


def _check_purposes(codes: Codes) -> None:
    for code in codes:
        term(code)
