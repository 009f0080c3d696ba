"""Instants and lengths of time, as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

_UNITS = (
    (timedelta(days=1), "day", "days"),
    (timedelta(hours=1), "hour", "hours"),
    (timedelta(minutes=1), "minute", "minutes"),
    (timedelta(seconds=1), "second", "seconds"),
)


def duration(length: timedelta) -> str:
    """Return a length of time in its largest unit, with the next one where that is not round."""
    for index, (unit, one, many) in enumerate(_UNITS):
        if length < unit:
            continue
        count, left = divmod(length, unit)
        said = f"{count} {one if count == 1 else many}"
        if index + 1 < len(_UNITS):
            smaller, one, many = _UNITS[index + 1]
            rest = left // smaller
            said += f" {rest} {one if rest == 1 else many}" if rest else ""
        return said
    return "less than a second"


def day(at: datetime) -> str:
    """Return the day of an instant, in UTC."""
    at = at.astimezone(UTC)
    return f"{at.day} {at:%b %Y}"


def time(at: datetime, *, seconds: bool = False) -> str:
    """Return the time of day of an instant, in UTC."""
    return f"{at.astimezone(UTC):%H:%M:%S}" if seconds else f"{at.astimezone(UTC):%H:%M}"


def moment(at: datetime) -> str:
    """Return the day and time of an instant, in UTC."""
    return f"{day(at)}, {time(at)}"


def needs_seconds(instants: Sequence[datetime]) -> bool:
    """Tell whether some of these instants look the same without their seconds, and are not."""
    return any(a != b and time(a) == time(b) and day(a) == day(b) for a, b in pairwise(instants))
