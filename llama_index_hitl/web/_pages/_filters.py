"""Filters of the templates: times, names and numbers as people read them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from llama_index_hitl._html.reviews import typed
from llama_index_hitl._text import visible
from llama_index_hitl.forms import FormField
from llama_index_hitl.models import ROLE_PREFIX

if TYPE_CHECKING:
    from llama_index_hitl._html.reviews import FieldView

_NOW = 60  # seconds that are not counted
_FEW = 10
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def span(seconds: float) -> str:
    """Return a length of time in one unit, such as `3 h`."""
    size = abs(seconds)
    each, unit = next((pair for pair in _UNITS if size >= pair[0]), (1, "s"))
    return f"{int(size // each)} {unit}"


def left(seconds: float) -> str:
    """Return a length of time that people plan with, such as `1 h 59 min`.

    Of few hours or days one says the part of the next as well: `1 h` would hide almost another.
    """
    size = int(abs(seconds))
    for (each, unit), (part, smaller) in pairwise(_UNITS[:3]):
        count, rest = divmod(size, each)
        if 0 < count < _FEW and rest >= part:
            return f"{count} {unit} {rest // part} {smaller}"
    return span(size)


def ago(at: datetime, now: datetime) -> str:
    """Return how long ago an instant is, or in how much time it comes, such as `3 h ago`."""
    seconds = (now - at).total_seconds()
    if abs(seconds) < _NOW:
        return "just now"
    return f"{span(seconds)} ago" if seconds > 0 else f"in {span(seconds)}"


def moment(at: datetime) -> str:
    """Return an instant in UTC; scripts put it into the reader's own time."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def time_tag(at: datetime, now: datetime, style: str = "ago") -> Markup:
    """Return an instant as `<time>`, which a script keeps current.

    Args:
        at: The instant.
        now: The present instant.
        style: `ago`: how long ago or in how much time; `age`: the same in fewer words; `moment`:
            date and time; `deadline`: the time left, or for how long it is overdue.
    """
    shown = moment(at) if style == "moment" else ago(at, now)
    if style == "age":
        age = (now - at).total_seconds()
        shown = "now" if abs(age) < _NOW else span(age)
    if style == "deadline":
        ahead = (at - now).total_seconds()
        shown = f"{left(ahead)} {'left' if ahead > 0 else 'overdue'}"
    return Markup('<time datetime="{}" data-time="{}" title="{}">{}</time>').format(
        at.astimezone(UTC).isoformat(timespec="milliseconds"), style, moment(at), shown
    )


def entry(name: str) -> str:
    """Return a reviewer entry as people say it: `role:legal` is legal, an id is itself."""
    return name.removeprefix(ROLE_PREFIX)


def words(name: str) -> str:
    """Return a name in code as words."""
    return name.replace("_", " ").replace("-", " ").strip()


def short_name(name: str) -> str:
    """Return the name of a class without the module that it is in, as a title."""
    name = visible(name).rpartition(".")[2] or visible(name)
    return titled(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name))


def titled(name: str) -> str:
    """Return a name in code as words, of which the first is capitalized."""
    spoken = words(name)
    return spoken[:1].upper() + spoken[1:]


def initials(name: str) -> str:
    """Return one or two letters that stand for a person."""
    parts = [part for part in words(name).replace(".", " ").split() if part[0].isalnum()]
    return "".join(part[0] for part in parts[:2]).upper() or "?"


def groups(fields: Iterable[FieldView]) -> list[list[FieldView]]:
    """Return fields that follow each other together: short ones, and long ones."""
    return [list(group) for _, group in groupby(fields, key=lambda field: field.short)]


def reject_names(fields: Iterable[FormField], names: Collection[str]) -> list[FormField]:
    """Return fields without those of some names."""
    return [field for field in fields if field.name not in names]


def has_grant(problems: Iterable[str]) -> bool:
    """Tell whether something is wrong with the terms of a standing approval."""
    return any(name.startswith("grant.") for name in problems)


FILTERS: Mapping[str, Callable[..., Any]] = {
    "ago": ago,
    "entry": entry,
    "groups": groups,
    "has_grant": has_grant,
    "initials": initials,
    "moment": moment,
    "reject_names": reject_names,
    "short_name": short_name,
    "span": span,
    "time_tag": time_tag,
    "titled": titled,
    "typed": typed,
    "visible": visible,
    "words": words,
}
