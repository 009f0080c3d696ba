"""Cursors: where a page ended, as a word that means nothing to anybody else."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from llama_index_hitl.errors import StoreError
from llama_index_hitl.stores._encoding import Place
from llama_index_hitl.stores.protocol import Cursor, Page

S = TypeVar("S")
T = TypeVar("T")

_INT64 = range(-(2**63), 2**63)
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")


class InvalidCursor(StoreError, ValueError):
    """A cursor is not what a page of this kind ended with.

    Attributes:
        cursor: What was given.

    Example:
        >>> async def main():
        ...     await MemoryStore().runs(RunQuery(after="nonsense"))
        >>> asyncio.run(main())
        Traceback (most recent call last):
            ...
        llama_index_hitl.stores._cursors.InvalidCursor: 'nonsense' is not where a page of this
        list ended. Give `after` of the page before, or leave it out to begin at the first
        page.
    """

    def __init__(self, cursor: str) -> None:
        super().__init__(
            f"{cursor[:80]!r} is not where a page of this list ended. Give `after` of the page "
            "before, or leave it out to begin at the first page."
        )
        self.cursor = cursor


def request_cursor(place: Place) -> Cursor:
    """Return the cursor of a page of requests that ends here."""
    return _written(["requests", *place])


def request_place(cursor: Cursor) -> Place:
    """Return where a page of requests ended.

    Raises:
        InvalidCursor: It did not end with this.
    """
    match _read(cursor):
        case ["requests", int(rank), int(created_at), str(request_id)] if (
            rank in _INT64 and created_at in _INT64
        ):
            return Place(rank, created_at, request_id)
    raise InvalidCursor(cursor)


def run_cursor(created_at: int, run_id: str) -> Cursor:
    """Return the cursor of a page of runs that ends here."""
    return _written(["runs", created_at, run_id])


def run_place(cursor: Cursor) -> tuple[int, str]:
    """Return where a page of runs ended: `created_at` and id of the last run.

    Raises:
        InvalidCursor: It did not end with this.
    """
    match _read(cursor):
        case ["runs", int(created_at), str(run_id)] if created_at in _INT64:
            return created_at, run_id
    raise InvalidCursor(cursor)


def grant_cursor(granted_at: int, grant_id: str) -> Cursor:
    """Return the cursor of a page of standing approvals that ends here."""
    return _written(["grants", granted_at, grant_id])


def grant_place(cursor: Cursor) -> tuple[int, str]:
    """Return where a page of standing approvals ended: `granted_at` and id of the last one.

    Raises:
        InvalidCursor: It did not end with this.
    """
    match _read(cursor):
        case ["grants", int(granted_at), str(grant_id)] if granted_at in _INT64:
            return granted_at, grant_id
    raise InvalidCursor(cursor)


class FeedPlace(NamedTuple):
    """Where an event stands in the feed.

    Attributes:
        xid: Number of the transaction that stored it; 0 where there is one writer at a time.
        sequence: Its number.
    """

    xid: int
    sequence: int


FEED_START = FeedPlace(0, 0)
"""Before every event."""


def feed_cursor(place: FeedPlace) -> Cursor:
    """Return the cursor of an event that stands here."""
    return _written(["feed", *place])


def feed_place(cursor: Cursor) -> FeedPlace:
    """Return where an event stands.

    Raises:
        InvalidCursor: None stands at this.
    """
    match _read(cursor):
        case ["feed", int(xid), int(sequence)] if xid in _INT64 and sequence in _INT64:
            return FeedPlace(xid, sequence)
    raise InvalidCursor(cursor)


def _written(parts: list[Any]) -> Cursor:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def _read(cursor: Cursor) -> Any:
    try:
        parts = json.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
    except (ValueError, RecursionError) as error:
        raise InvalidCursor(cursor) from error
    return parts if isinstance(parts, list) and all(map(_can_be_looked_for, parts)) else None


def _can_be_looked_for(part: Any) -> bool:
    """Tell whether a store can compare with this: a cursor comes from outside, like a query."""
    if isinstance(part, str):
        return not _NO_TEXT.search(part)
    return type(part) is int  # a bool is one for Python, and none for databases


def page_of(
    found: Sequence[S], limit: int, *, read: Callable[[S], T], cursor_of: Callable[[S], Cursor]
) -> Page[T]:
    """Return a page.

    Args:
        found: What belongs on it, and one more where there is more.
        limit: How many it holds.
        read: Makes an item.
        cursor_of: Makes the cursor of a page that ends with this.
    """
    more = cursor_of(found[limit - 1]) if len(found) > limit else None
    return Page(tuple(map(read, found[:limit])), more)
