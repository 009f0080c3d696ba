"""Commits of a runner: redacted, with the notices that they cause, told after they are stored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from llama_index_hitl._entries import Redact, redacted
from llama_index_hitl.errors import Conflict
from llama_index_hitl.models import JsonObject, RequestStatus, ReviewRecord
from llama_index_hitl.stores.protocol import Commit, Notice, NoticeKind, Store, StoredRequest

T = TypeVar("T")

_ATTEMPTS = 50
"""How often a change is tried anew when somebody else was first; each time somebody else won."""


async def persistently(attempt: Callable[[], Awaitable[T]]) -> T:
    """Try a change until it does not come between somebody else's.

    Raises:
        Conflict: It never got through.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return await attempt()
        except Conflict:
            continue
    return await attempt()


def _unclaimed_if_closed(stored: StoredRequest) -> StoredRequest:
    if stored.claim is None or stored.record.status is RequestStatus.OPEN:
        return stored
    return replace(stored, claim=None)


class Outbox:
    """Stores the commits of a runner.

    Args:
        store: Where to.
        keeps: Whether notices are kept to be told at all.
        redact: What may be said in audit rows and notices; None: everything.
    """

    def __init__(self, store: Store, *, keeps: bool, redact: Redact | None = None) -> None:
        self._store = store
        self._keeps = keeps
        self._redact = redact

    async def commit(self, commit: Commit) -> None:
        """Store a change, with what it says about people redacted.

        Nobody looks at a request any more that is closed by it.

        Raises:
            Conflict: Somebody else was first.
        """
        commit = replace(commit, requests=tuple(map(_unclaimed_if_closed, commit.requests)))
        redact = self._redact
        if redact is not None:
            commit = replace(
                commit,
                audit=tuple(redacted(entry, redact) for entry in commit.audit),
                notices=tuple(
                    replace(n, payload=redact(n.kind, n.payload)) for n in commit.notices
                ),
            )
        await self._store.commit(commit)

    def about(
        self,
        kind: NoticeKind,
        run_id: str,
        record: ReviewRecord,
        at: datetime,
        *,
        number: int | str = 0,
    ) -> tuple[Notice, ...]:
        """Return the notice about a request, if notices are kept.

        Args:
            kind: What happened.
            run_id: The run.
            record: The request, as it is after that.
            at: When.
            number: Tells it from others of its kind about the same request at the same time, such
                as the revision that the request had before.
        """
        if not self._keeps:
            return ()
        request = record.request
        payload: JsonObject = {
            "workflow": request.workflow,
            "gate": request.gate,
            "title": request.title,
            "status": record.status,
            "reviewers": list(record.policy.reviewers),
            "priority": request.priority,
            "deadline": None if request.deadline is None else request.deadline.isoformat(),
            "digest": request.digest,
        }
        if record.status is not RequestStatus.OPEN:
            payload["reason"] = record.outcome.reason
            payload["decided_by"] = list(record.outcome.decided_by)
        return (
            Notice(
                notice_id=f"{request.request_id}:{kind}:{at.timestamp():.6f}:{number}",
                kind=kind,
                run_id=run_id,
                at=at,
                due=at,
                request_id=request.request_id,
                payload=payload,
            ),
        )

    def of_run(
        self, kind: NoticeKind, run_id: str, workflow: str, at: datetime, *, number: int
    ) -> tuple[Notice, ...]:
        """Return the notice about a run, if notices are kept."""
        if not self._keeps:
            return ()
        return (
            Notice(
                notice_id=f"{run_id}:{kind}:{at.timestamp():.6f}:{number}",
                kind=kind,
                run_id=run_id,
                at=at,
                due=at,
                payload={"workflow": workflow},
            ),
        )
