"""Words of people, models and errors, made fit to be stored and shown."""

from __future__ import annotations

import re
import traceback

_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)


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


def without_example(docstring: str) -> str:
    """Return what a docstring says before its example."""
    return docstring.partition("\n\nExample:\n")[0]


def origin_of(error: Exception) -> str:
    """Return the type of an error and where it came from, for a log.

    What it says is left out: it may quote what is confidential.
    """
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"


def visible(text: str) -> str:
    """Return a text in which nothing acts on a screen and nothing is hidden.

    Control characters, and those that only turn or hide others, become visible signs; line ends
    and tabs stay.
    """
    return _INVISIBLE.sub(_sign, text.replace("\r\n", "\n"))


def visible_line(text: str, limit: int | None = None) -> str:
    """Return a text as one visible line, shortened if it is longer than `limit`."""
    line = " ".join(visible(text).split())
    return line if limit is None or len(line) <= limit else f"{line[: limit - 1]}…"


def _sign(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)  # the pictures of the control characters
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
