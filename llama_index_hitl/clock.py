"""Time as a parameter: nothing in this package reads the wall clock behind your back."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

Clock: TypeAlias = Callable[[], datetime]
"""A function without arguments that returns the present instant, time zone included."""


def utc_now() -> datetime:
    """Return the present instant in UTC, to the microsecond."""
    return datetime.now(UTC)
