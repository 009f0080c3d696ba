"""A clock that stands still until you move it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class ManualClock:
    """A `Clock` for tests: the time is what you say it is.

    Args:
        start: The first instant, time zone included; noon of 1 January 2026 UTC by default.

    Raises:
        ValueError: `start` has no time zone.

    Example:
        >>> clock = ManualClock()
        >>> clock.advance(days=14)
        >>> clock().isoformat()
        '2026-01-15T12:00:00+00:00'
    """

    def __init__(self, start: datetime | None = None) -> None:
        now = start if start is not None else datetime(2026, 1, 1, 12, tzinfo=UTC)
        if now.tzinfo is None:
            raise ValueError(f"{now!r} has no time zone; say which one it is in.")
        self._now = now

    def __call__(self) -> datetime:
        """Return the present instant."""
        return self._now

    def advance(self, delta: timedelta | None = None, /, **parts: float) -> None:
        """Move on by a `timedelta`, by its parts, such as `days=2`, or by both together.

        Args:
            delta: How far to move.
            **parts: What `timedelta` takes, such as `days`, `hours` or `minutes`.

        Raises:
            ValueError: The clock would go backwards.
        """
        step = (delta or timedelta()) + timedelta(**parts)
        if step < timedelta(0):
            raise ValueError(f"time does not go backwards (by {step})")
        self._now += step
