"""Instants as text, always in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

from llama_index_hitl.cli._failures import Misused


def moment(at: datetime | None) -> str | None:
    """Return an instant for programs: ISO 8601, to the microsecond; None for none."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def minute(at: datetime | None) -> str:
    """Return an instant for people, to the minute; nothing for none."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def named_minute(at: datetime | None) -> str:
    """Return an instant for people, with its zone; nothing for none."""
    return "" if at is None else f"{minute(at)} UTC"


def instant(text: str) -> datetime:
    """Return the instant that somebody has typed.

    Raises:
        Misused: It is none, or has no time zone.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Misused(f"{text!r} is no time; write it as 2026-03-02T12:00+01:00.") from None
    if at.tzinfo is None:
        raise Misused(f"{text!r} has no time zone; write it as {text}Z, or with +01:00.")
    return at
