"""What of a commit goes to the feed, and how it comes back; the same for every store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from llama_index_hitl.audit import AuditEntry, AuditKind
from llama_index_hitl.stores._encoding import instant_of, json_bytes, json_object, micros_of
from llama_index_hitl.stores.protocol import PROGRESS, Commit, Cursor, FeedEvent

_ABOUT_RUNS = frozenset(
    {
        AuditKind.STARTED,
        AuditKind.RETRIED,
        AuditKind.FINISHED,
        AuditKind.FAILED,
        AuditKind.CANCELLED,
    }
)
"""What is about a run as a whole."""

_LEFT_OUT = frozenset(
    {
        AuditKind.EFFECT_BEGUN,
        AuditKind.EFFECT_DONE,
        AuditKind.EFFECT_IN_DOUBT,
        AuditKind.EFFECT_SETTLED,
        AuditKind.GRANTED,
        AuditKind.GRANT_USED,
        AuditKind.GRANT_REVOKED,
    }
)
"""What is about effects and standing approvals, even where it names a request."""


class FeedRow(NamedTuple):
    """An event of the feed as a table holds it.

    Attributes:
        run_id: The run.
        kind: What happened.
        request_id: The request that it is about.
        at: When, in microseconds since 1970.
        content: What was said, as JSON; None: nothing was.
    """

    run_id: str
    kind: str
    request_id: str | None
    at: int
    content: bytes | None


def feed_rows(commit: Commit) -> tuple[FeedRow, ...]:
    """Return what a commit puts at the end of the feed, in order.

    Raises:
        StoreError: Some of it cannot be stored.
    """
    return (*_of_audit(commit), *_of_progress(commit))


def _of_audit(commit: Commit) -> Iterator[FeedRow]:
    for entry in commit.audit:
        if _is_told(entry):
            yield FeedRow(
                entry.run_id, entry.kind.value, entry.request_id, micros_of(entry.at), None
            )


def _is_told(entry: AuditEntry) -> bool:
    if entry.kind in _ABOUT_RUNS:
        return True
    return entry.request_id is not None and entry.kind not in _LEFT_OUT


def _of_progress(commit: Commit) -> Iterator[FeedRow]:
    for said in commit.progress:
        yield FeedRow(said.run_id, PROGRESS, None, micros_of(said.at), json_bytes(said.data))


def feed_event(cursor: Cursor, row: FeedRow) -> FeedEvent:
    """Read an event from its place and the parts of its row.

    Raises:
        StoreError: It cannot be read.
    """
    content = row.content
    return FeedEvent(
        cursor=cursor,
        kind=row.kind,
        run_id=row.run_id,
        at=instant_of(row.at),
        request_id=row.request_id,
        data={} if content is None else json_object(content, f"What run {row.run_id} said"),
    )
