"""What one line of a source says about one person's consent, and when: times that may be known to a day or a month only."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache

from bract.consent import REFUSALS, ConsentEvent, Decision, Evidence
from bract.vocabulary.modifiers import Modifier, limit
from bract_client.sources.record import BadLine, Reason


@dataclass(frozen=True, slots=True)
class Statement:
    """Everything that one line says. Identifiers are kept out of its printed form.

    Attributes:
        line: where it stands in its source, as in `Unreadable`.
        subject_id: whom it is about; None only where there are no events.
        events: what it says; none means that what it said before was an error.
        reference: the source's own name for it. The same name with other events replaces what it said before. None: it
            is known by its content.
        evidence: what shows an error, where there are no events.
        ordered: whether the source keeps versions, so that an older one may come after a newer one.
        changed: when the source made this version, where it is known: of a resource, or of the whole file.
    """

    line: int
    subject_id: str | None = field(repr=False)
    events: tuple[ConsentEvent, ...]
    reference: str | None = field(default=None, repr=False)
    evidence: Evidence = field(default=Evidence())
    ordered: bool = False
    changed: datetime | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """A time that lies somewhere from `first` to `last`, both in UTC; a sharp one has both the same.

    A permit is read as narrowly as that allows: it begins at the last and ends at the first possible time. A refusal
    begins at the first; and since a permit may have come in between, at the last possible time once more.
    """

    first: datetime
    last: datetime

    @property
    def starts(self) -> tuple[datetime, ...]:
        """When a refusal that begins here has to be stated: once, or twice where the time is not sharp."""
        return (self.first,) if self.first == self.last else (self.first, self.last)


def local(wall: datetime, zone: tzinfo) -> Moment:
    """A clock's time in a zone; when clocks are put back it comes twice [PEP 495].

    Raises:
        BadLine: for a time that cannot be told in UTC.
    """
    try:
        both = sorted(wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    except (OverflowError, ValueError) as error:
        raise BadLine(Reason.BAD_TIME) from error
    return Moment(both[0], both[1])


@lru_cache(maxsize=65_536)
def moment(text: str, layout: str | None, zone: tzinfo | None, *, through: bool = False) -> Moment:
    """A time as a file writes it. A date alone is the beginning of that day.

    Args:
        text: what stands there.
        layout: as `datetime.strptime` takes it; None for ISO 8601.
        zone: what a time without a zone is in; None if nobody said.
        through: whether a date alone is the end of that day instead.

    Raises:
        BadLine: for anything that is not a time of this layout, or has no zone where none was declared.
    """
    if layout is None and not text.isascii():  # Python takes any one character between date and time
        raise BadLine(Reason.BAD_TIME)
    try:
        wall = datetime.fromisoformat(text) if layout is None else datetime.strptime(text, layout)  # noqa: DTZ007 - below
        if wall.tzinfo is not None:
            sharp = wall.astimezone(UTC)
            return Moment(sharp, sharp)
    except (ValueError, OverflowError) as error:
        raise BadLine(Reason.BAD_TIME) from error
    if zone is None:
        raise BadLine(Reason.NO_ZONE)
    return local(wall + timedelta(days=1) if through and _date_alone(text, layout) else wall, zone)


def _date_alone(text: str, layout: str | None) -> bool:
    if layout is None:
        return "T" not in text and " " not in text and len(text) <= len("2026-W01-1")
    return not any(f"%{letter}" in layout for letter in "HIMScXfs")


def stated(
    decision: Decision,
    purpose: str,
    begin: Moment,
    end: Moment | None,
    *,
    dataset: str | None = None,
    modifiers: tuple[Modifier, ...] = (),
    evidence: Evidence = Evidence(),  # noqa: B008 - a frozen value
) -> Iterator[ConsentEvent]:
    """One decision as `sound` events, times that are not sharp read so that no more is permitted than was said (`Moment`).

    The purpose, the modifiers and the evidence are sound already.

    Raises:
        BadLine: when it ends before it begins.
    """
    if decision in REFUSALS:
        starts, until = begin.starts, None if end is None else end.last
    else:
        starts, until = (begin.last,), None if end is None else end.first
    if decision is Decision.EXPIRE:
        starts, until = (begin.first,), None
    if decision is Decision.PERMIT:
        until = min((one for one in (until, limit(modifiers)) if one is not None), default=None)
    for start in starts:
        if until is not None and until <= start:
            raise BadLine(Reason.BAD_TIME)
        yield ConsentEvent(purpose, decision, start, until, dataset, modifiers, None, evidence)
