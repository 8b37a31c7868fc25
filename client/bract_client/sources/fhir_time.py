"""Times of FHIR, which may be known to the year, month or day only.

A day in a period counts wholly, as FHIR says of periods: both ends are part of it [HL7 FHIR R4B and R5, datatypes, Period].
A year or a month is a time somewhere within it, and so is the day on which somebody decided; `Moment` tells what follows.
"""

import re
from datetime import date, datetime, timedelta, tzinfo
from enum import Enum

from bract_client.sources.record import BadLine, Reason
from bract_client.sources.statement import Moment, local, moment

_FORM = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(T\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d))?)?)?")


class Edge(Enum):
    """What a time is of."""

    START = "the beginning of a period"
    END = "the end of a period"
    POINT = "something that happened"


def fhir_time(text: object, zone: tzinfo | None, edge: Edge) -> Moment:
    """A FHIR date, dateTime or instant.

    Raises:
        BadLine: when it is none, or a date where nobody said in which zone.
    """
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise BadLine(Reason.BAD_TIME)
    year, month, day, clock = found.groups()
    if clock:
        return moment(found.string, None, None)
    if zone is None:
        raise BadLine(Reason.NO_ZONE)
    try:
        first = date(int(year), int(month or 1), int(day or 1))
        after = _after(first, month, day)
    except (ValueError, OverflowError) as error:
        raise BadLine(Reason.BAD_TIME) from error
    begin, end = _midnight(first, zone), _midnight(after, zone)
    if day and edge is not Edge.POINT:
        return begin if edge is Edge.START else end
    return Moment(begin.first, end.last)


def _after(first: date, month: str | None, day: str | None) -> date:
    """The first day after the year, month or day that begins on `first`."""
    if day:
        return first + timedelta(days=1)
    if month and first.month < 12:
        return first.replace(month=first.month + 1)
    return date(first.year + 1, 1, 1)


def _midnight(day: date, zone: tzinfo) -> Moment:
    return local(datetime(day.year, day.month, day.day), zone)  # noqa: DTZ001 - local() gives it its zone
