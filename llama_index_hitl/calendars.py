"""Working hours: how far away an instant is when only working time counts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Self, TypeAlias
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, field_validator, model_validator

from llama_index_hitl.models import Value

_DAY_NAMES = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_ONE_DAY = timedelta(days=1)
_MIDNIGHT = time()


def _number_of_day(day: Any) -> Any:
    """Return the number of a day that is given by its English name, or by the start of it."""
    if not isinstance(day, str):
        return day
    word = day.strip().lower()
    found = [n for n, name in enumerate(_DAY_NAMES) if len(word) >= 3 and name.startswith(word)]
    if not found:
        raise ValueError(f"{day!r} is no day of the week; write one such as 'mon' or 'monday'")
    return found[0]


Weekday: TypeAlias = Annotated[int, Field(ge=0, le=6), BeforeValidator(_number_of_day)]
"""A day of the week, from 0 for Monday as `date.weekday()` counts; or its name, as `mon`."""


class WorkingHours(Value):
    """When people work, to count time that they have instead of time that passes.

    Where the clocks are changed, a time that they skip or show twice is read as though they had
    not been changed yet.

    Attributes:
        time_zone: Name of the time zone that the clocks there show, such as `Europe/Berlin`.
        days: The days of the week, as names or from 0 for Monday; Monday to Friday if left out.
        start: When work begins on each of them.
        end: When it ends, later the same day; 00:00 is midnight at the end of the day.
        holidays: Days on which nobody works.

    Example:
        >>> from datetime import UTC, date, datetime
        >>> from workflows.events import StartEvent
        >>> office = WorkingHours(time_zone="Europe/Berlin", holidays={date(2026, 12, 25)})
        >>> review = Review(StartEvent, deadline=2 * office.day, calendar=office)
        >>> thursday = datetime(2026, 12, 24, 12, tzinfo=UTC)
        >>> office.after(thursday, 2 * office.day).isoformat()
        '2026-12-29T12:00:00+00:00'
    """

    time_zone: str
    days: Annotated[tuple[Weekday, ...], Field(min_length=1)] = (0, 1, 2, 3, 4)
    start: time = time(9)
    end: time = time(17)
    holidays: frozenset[date] = frozenset()

    @field_validator("time_zone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise ValueError(
                f"{name!r} is no time zone; write one such as 'Europe/Berlin'"
            ) from None
        return name

    @model_validator(mode="after")
    def _is_a_part_of_a_day(self) -> Self:
        if self.start.tzinfo is not None or self.end.tzinfo is not None:
            raise ValueError("start and end are times that the clocks show, without a time zone")
        if self.end != _MIDNIGHT and self.end <= self.start:
            raise ValueError("work must end after it starts, on the same day")
        return self

    @property
    def day(self) -> timedelta:
        """The working time of one whole day: `2 * hours.day` is two working days.

        `timedelta(days=2)` is 48 hours, also where hours are working hours: six days of eight.
        """
        return self._end_of(date.min) - datetime.combine(date.min, self.start)

    def after(self, start: datetime, duration: timedelta) -> datetime:
        """Return the first instant by which so much working time has passed.

        Args:
            start: Where to begin to count, time zone included; it need not be working time.
            duration: How much working time; none at all is `start` itself.

        Returns:
            The instant, in UTC. It may be the very end of a working day.

        Raises:
            ValueError: The duration is less than nothing, or `start` has no time zone.
            OverflowError: It would be after the year 9999.
        """
        if duration < timedelta(0):
            raise ValueError(f"working time cannot be counted backwards ({duration})")
        begin = _in_utc(start)
        if not duration:
            return begin
        left = duration
        for opens, closes in self._windows(begin):
            if left <= closes - opens:
                return opens + left
            left -= closes - opens
        raise AssertionError("days never end")

    def between(self, start: datetime, end: datetime) -> timedelta:
        """Return how much working time there is from one instant to another; none if it is past.

        Args:
            start: The one instant, time zone included.
            end: The other.

        Raises:
            ValueError: One of them has no time zone.

        Example:
            >>> from datetime import UTC, datetime
            >>> office = WorkingHours(time_zone="UTC")
            >>> friday = datetime(2026, 1, 2, 15, tzinfo=UTC)
            >>> str(office.between(friday, datetime(2026, 1, 5, 10, tzinfo=UTC)))
            '3:00:00'
        """
        last, total = _in_utc(end), timedelta(0)
        for opens, closes in self._windows(_in_utc(start)):
            if opens >= last:
                break
            total += min(closes, last) - opens
        return total

    def _windows(self, begin: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Yield the stretches of working time from an instant on, in UTC and in order."""
        zone = ZoneInfo(self.time_zone)
        # From the day before: where the clocks skip the end of its work, it ends after midnight.
        day = begin.astimezone(zone).date() - _ONE_DAY
        while True:
            if day.weekday() in self.days and day not in self.holidays:
                opens = datetime.combine(day, self.start, zone).astimezone(UTC)
                closes = self._end_of(day).replace(tzinfo=zone).astimezone(UTC)
                # A country that changes its side of the date line leaves out a whole day.
                exists = opens.astimezone(zone).date() == day
                if exists and closes > max(opens, begin):
                    yield max(opens, begin), closes
                    begin = closes
            day += _ONE_DAY

    def _end_of(self, day: date) -> datetime:
        """Return what the clocks show at the end of work."""
        following = day + _ONE_DAY if self.end == _MIDNIGHT else day
        return datetime.combine(following, self.end)


def _in_utc(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise ValueError(f"{instant.isoformat()} has no time zone")
    return instant.astimezone(UTC)
