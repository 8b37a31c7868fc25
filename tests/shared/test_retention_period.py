"""Periods are read strictly, and end as calendars and the law have it."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bract.errors import MALFORMED, BractError
from bract.retention import Period, parse_period

MOMENTS = st.integers(0, 4 * 10**15).map(lambda tick: datetime(1990, 1, 1, tzinfo=UTC) + timedelta(microseconds=tick))
PERIODS = st.builds(Period, st.integers(0, 400), st.integers(0, 4000))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("P1Y", "2024-02-28T12:00", "2025-02-28T12:00"),
        ("P1Y", "2024-02-29T12:00", "2025-03-01T00:00"),
        ("P1M", "2026-01-31T12:00", "2026-03-01T00:00"),
        ("P1M", "2026-01-28T23:00", "2026-02-28T23:00"),
        ("P1M", "2026-12-15T01:00", "2027-01-15T01:00"),
        ("P1Y1M1D", "2024-01-31T06:00", "2025-03-02T00:00"),
        ("P2W", "2026-03-01T00:00", "2026-03-15T00:00"),
        ("P10Y", "2026-03-01T00:00", "2036-03-01T00:00"),
        ("P0D", "2026-03-01T07:00", "2026-03-01T07:00"),
    ],
)
def test_a_period_ends_on_the_calendar(text: str, start: str, end: str) -> None:
    assert parse_period(text).after(at(start)) == at(end)


@pytest.mark.parametrize(
    "text",
    [
        *[
            "",
            "P",
            "1Y",
            "P1",
            "PT1H",
            "P1DT1H",
            "P1.5Y",
            "P-1Y",
            "+P1Y",
            "P01Y",
            "P1Y2W",
            "P1D1Y",
            "p1y",
            "P1Y ",
            " P1Y",
        ],
        *["P1000Y", "P100000D", "P١Y", "P1Y\n", "P1Y1Y"],
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(BractError) as refused:
        parse_period(text)
    assert refused.value.code == MALFORMED


def test_equal_lengths_are_one_value_and_one_text() -> None:
    assert parse_period("P12M") == parse_period("P1Y")
    assert str(parse_period("P12M")) == "P1Y"
    assert str(parse_period("P2W")) == "P14D"


@given(PERIODS)
def test_a_period_is_read_as_it_was_written(period: Period) -> None:
    assert parse_period(str(period)) == period


@given(PERIODS, MOMENTS, MOMENTS)
def test_what_began_later_never_ends_earlier(period: Period, one: datetime, other: datetime) -> None:
    assert period.after(min(one, other)) <= period.after(max(one, other))


@given(PERIODS, MOMENTS, st.integers(-40, 40), st.integers(-2, 2))
def test_the_cutoff_is_the_last_start_that_has_ended(period: Period, now: datetime, days: int, ticks: int) -> None:
    """Near the cutoff, where a mistake of a month's end or a tick would be."""
    cutoff = period.cutoff(now)
    start = cutoff + timedelta(days=days, microseconds=ticks)
    assert (period.after(start) <= now) == (start <= cutoff)
    assert period.after(cutoff) <= now < period.after(cutoff + timedelta(microseconds=1))


@given(PERIODS, MOMENTS)
def test_no_period_is_shorter_or_longer_than_it_says(period: Period, start: datetime) -> None:
    length = period.after(start) - start
    assert timedelta(days=period.least_days) <= length <= timedelta(days=period.most_days)
