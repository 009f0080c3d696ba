"""Words of people, models and errors, made fit to be stored and shown."""

from __future__ import annotations


def storable(text: str, limit: int) -> str:
    """Return a text that can be stored and shown: without half characters, and not endless.

    Args:
        text: The text; a surrogate in it, which UTF-8 cannot carry, is spelt out.
        limit: How many characters at most; a longer text ends in an ellipsis.
    """
    sound = text.encode("utf-8", "backslashreplace").decode()
    return sound if len(sound) <= limit else f"{sound[: limit - 1]}…"


def one_line(text: str, limit: int) -> str:
    """Return a text likewise, as one line."""
    return storable(" ".join(text.split()), limit)
