"""Instants as text, always in UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def moment(at: datetime | None) -> str | None:
    """Return an instant for programs: ISO 8601, to the microsecond; None for none."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def minute(at: datetime | None) -> str:
    """Return an instant for people, to the minute; nothing for none."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def named_minute(at: datetime | None) -> str:
    """Return an instant for people, with its zone; nothing for none."""
    return "" if at is None else f"{minute(at)} UTC"
