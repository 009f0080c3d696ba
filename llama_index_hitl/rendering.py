"""How a request reads as plain text, and how a draft differs from the one before."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable

from pydantic import JsonValue

from llama_index_hitl.forms import decisions_of
from llama_index_hitl.models import ReviewRequest, Subject, Value


class FieldDiff(Value):
    """What changed in one field of the subject since the previous revision.

    Attributes:
        field: Name of the field.
        before: Its text then.
        after: Its text now.
        lines: The change as unified diff lines, without file headers.

    Example:
        >>> at = utc_now()
        >>> request = ReviewRequest(
        ...     request_id="r-2",
        ...     title="Publish?",
        ...     subject={"type": "Draft", "data": {"content": "Mice."}},
        ...     previous={"type": "Draft", "data": {"content": "Mice are small."}},
        ...     created_at=at,
        ... )
        >>> [change] = diff_of(request)
        >>> for line in change.lines:
        ...     print(line)
        @@ -1 +1 @@
        -Mice are small.
        +Mice.
    """

    field: str
    before: str
    after: str
    lines: tuple[str, ...]


def text_of(value: JsonValue) -> str:
    """Return a JSON value as people read it: text as it is, everything else as JSON.

    Args:
        value: The value.

    Example:
        >>> print(text_of("Mice."))
        Mice.
        >>> print(text_of({"amount": 40}))
        {
          "amount": 40
        }
    """
    if isinstance(value, str):
        return value
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)


def diff_of(request: ReviewRequest) -> tuple[FieldDiff, ...]:
    """Return what changed since the previous revision, field by field; empty for the first.

    The example of `FieldDiff` shows one change.

    Args:
        request: The request, with the subject of the revision before this one.
    """
    if request.previous is None or request.subject is None:
        return ()
    before, after = request.previous.data, request.subject.data
    names = [*after, *(name for name in before if name not in after)]
    return tuple(
        _field_diff(name, _text_in(before, name), _text_in(after, name))
        for name in names
        if _written(before, name) != _written(after, name)
    )


def _written(data: dict[str, JsonValue], name: str) -> str | None:
    """Return a value so that no two different ones look alike: True is not 1, null not absent."""
    return json.dumps(data[name], sort_keys=True) if name in data else None


def _text_in(data: dict[str, JsonValue], name: str) -> str:
    return text_of(data[name]) if name in data else ""


def _field_diff(name: str, before: str, after: str) -> FieldDiff:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=3)
    # The first two lines are file headers; text may look like them, so they go by number.
    return FieldDiff(field=name, before=before, after=after, lines=tuple(lines)[2:])


def render_prompt(request: ReviewRequest) -> str:
    """Return everything a person needs to decide, as plain text.

    Args:
        request: The request.

    Example:
        >>> request = ReviewRequest(request_id="r-1", title="Publish?", created_at=utc_now())
        >>> print(render_prompt(request))
        Publish?
        <BLANKLINE>
        Decide (approve, reject):
    """
    parts: list[str] = [_heading(request)]
    if request.path:
        parts.append(f"Asked within {path_of(request)}")
    if request.body:
        parts.append(request.body)
    if request.subject is not None:
        parts.append(render_subject(request.subject))
    parts += [f"Evidence: {item.title}\n{item.body}".rstrip() for item in request.evidence]
    if request.feedback:
        parts.append(
            "\n".join(f"Feedback on {f.revision} by {f.by}: {f.text}" for f in request.feedback)
        )
    parts.append(f"Decide ({', '.join(decisions_of(request))}): ")
    return "\n\n".join(parts)


def path_of(request: ReviewRequest) -> str:
    """Return the steps that lead to the run that asks; empty if it was started by itself.

    Args:
        request: The request.

    Example:
        >>> request = ReviewRequest(
        ...     request_id="r-1", title="Go?", path=("Trip.book", "Hotel.pay"), created_at=utc_now()
        ... )
        >>> path_of(request)
        'Trip.book > Hotel.pay'
    """
    return " > ".join(request.path)


def _heading(request: ReviewRequest) -> str:
    notes: list[str] = []
    if request.revision > 1:
        notes.append(f"revision {request.revision}")
    if request.level:
        notes.append("escalated")
    if request.deadline is not None:
        notes.append(f"due {request.deadline.isoformat(timespec='minutes')}")
    return f"{request.title} ({', '.join(notes)})" if notes else request.title


def render_subject(subject: Subject) -> str:
    """Return a subject as plain text, one `field: value` a line; a single text stands alone.

    Args:
        subject: The subject.

    Example:
        >>> from llama_index_hitl.models import Subject
        >>> print(render_subject(Subject(type="Pay", data={"to": "Ann", "amount": 40})))
        to: Ann
        amount: 40
    """
    return "\n".join(_lines(subject.data.items()))


def _lines(items: Iterable[tuple[str, JsonValue]]) -> Iterable[str]:
    for name, value in items:
        text = text_of(value)
        yield f"{name}:\n{text}" if "\n" in text else f"{name}: {text}"
