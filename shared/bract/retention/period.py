"""Lengths of time in years, months, weeks and days, as laws and notices state them [ISO 8601-1:2019, 5.5.2].

A period in months or years ends at the same time of the same day of a later month. Where that month has no such day it
ends with the last hour of the month, as Regulation (EEC, Euratom) No 1182/71, Article 3(2)(c) has it; so an event that
came later never ends earlier. Days have 24 hours, all times are in UTC.
"""

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from bract.errors import MALFORMED, BractError

_NUMBER = r"(0|[1-9][0-9]{0,%d})"
_FORM = re.compile(f"P(?:{_NUMBER % 2}Y)?(?:{_NUMBER % 3}M)?(?:{_NUMBER % 4}D)?")
_WEEKS = re.compile(f"P{_NUMBER % 3}W")
_MONTHS_LEAST, _MONTHS_MOST = 28, 31
_WEEK = 7
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class Period:
    """So many calendar months, and then so many days. Equal lengths are equal values: `P12M` is `P1Y`."""

    months: int = 0
    days: int = 0

    def after(self, start: datetime) -> datetime:
        """The moment at which the period that began at `start` has ended.

        Raises:
            BractError: `malformed` beyond the year 9999.
        """
        try:
            return _later(start.astimezone(UTC), self.months) + timedelta(days=self.days)
        except (OverflowError, ValueError) as error:
            raise BractError(MALFORMED, "a period ends beyond the year 9999") from error

    def cutoff(self, at: datetime) -> datetime:
        """The latest start whose period has ended at `at`: it has for a start exactly if that is not after this one.

        Raises:
            BractError: `malformed` before the year 1.
        """
        try:
            return _earlier(at.astimezone(UTC) - timedelta(days=self.days), self.months)
        except (OverflowError, ValueError) as error:
            raise BractError(MALFORMED, "a period begins before the year 1") from error

    @property
    def least_days(self) -> int:
        """No period of this length has fewer days."""
        return self.months * _MONTHS_LEAST + self.days

    @property
    def most_days(self) -> int:
        """No period of this length has more days."""
        return self.months * _MONTHS_MOST + self.days + (1 if self.months else 0)

    def __str__(self) -> str:
        years, months = divmod(self.months, 12)
        parts = ((years, "Y"), (months, "M"), (self.days, "D"))
        return "P" + ("".join(f"{number}{unit}" for number, unit in parts if number) or "0D")


def parse_period(text: str) -> Period:
    """The period of that text: `P10Y`, `P1Y6M`, `P90D`, `P2W` … Weeks stand alone; numbers have no leading zeros.

    Raises:
        BractError: `malformed` for anything else: a time of day, a fraction, a sign, an empty period.
    """
    if (weeks := _WEEKS.fullmatch(text)) is not None:
        return Period(0, _WEEK * int(weeks[1]))
    found = _FORM.fullmatch(text)
    if found is None or text == "P":
        raise BractError(MALFORMED, "not a period: write P10Y, P1Y6M, P90D or P2W")
    years, months, days = (int(number or 0) for number in found.groups())
    return Period(12 * years + months, days)


def _read(value: Any) -> Period:
    if isinstance(value, Period):
        return value
    if not isinstance(value, str):
        raise ValueError("a period is a text such as P1Y")
    try:
        return parse_period(value)
    except BractError as error:
        raise ValueError(error.detail) from error


PeriodText = Annotated[Period, BeforeValidator(_read), PlainSerializer(str, return_type=str)]
"""A period as a field of a public value: its text in JSON."""


def _month(at: datetime, shift: int) -> tuple[int, int, int]:
    """Year, month and number of days of the month `shift` months away."""
    year, month = divmod(at.year * 12 + at.month - 1 + shift, 12)
    return year, month + 1, calendar.monthrange(year, month + 1)[1]


def _later(at: datetime, months: int) -> datetime:
    year, month, length = _month(at, months)
    if at.day <= length:
        return at.replace(year=year, month=month)
    return _first(at, months + 1)


def _earlier(at: datetime, months: int) -> datetime:
    year, month, length = _month(at, -months)
    if at.day <= length:
        return at.replace(year=year, month=month)
    # every day of that month has its like in the later one, and before `at`
    return _first(at, -months + 1) - _TICK


def _first(at: datetime, shift: int) -> datetime:
    year, month, _ = _month(at, shift)
    return at.replace(year=year, month=month, day=1, hour=0, minute=0, second=0, microsecond=0)
