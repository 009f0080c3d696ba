"""Rows for the tests of a store: valid, and small."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from llama_index_hitl.audit import AuditEntry, AuditKind
from llama_index_hitl.grants import Grant
from llama_index_hitl.lifecycle import Command, close, open_record
from llama_index_hitl.models import GrantTerms, ReviewPolicy, ReviewRecord, ReviewRequest
from llama_index_hitl.stores.protocol import (
    Commit,
    Effect,
    Message,
    Notice,
    NoticeKind,
    Progress,
    Run,
    RunStatus,
    Store,
    StoredGrant,
    StoredRequest,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(days=1)
NEVER = datetime(9999, 1, 1, tzinfo=UTC)


def a_run(run_id: str = "run", **values: Any) -> Run:
    """Return a run that waits, with other values if they are given."""
    given = {
        "workflow": "article",
        "status": RunStatus.WAITING,
        "created_at": NOON,
        "updated_at": NOON,
        **values,
    }
    return Run(run_id=run_id, **given)


def a_record(request_id: str = "request", *, is_open: bool = True, **values: Any) -> ReviewRecord:
    """Return the record of a request, with other values of the request if they are given."""
    reviewers = values.pop("reviewers", ())
    policy = ReviewPolicy(reviewers=reviewers)
    given = {"title": "Publish?", "created_at": NOON, "policy": policy, **values}
    record = open_record(ReviewRequest(request_id=request_id, **given))
    return record if is_open else close(record, Command.WITHDRAW, at=LATER, reason="Not needed.")


def a_request(
    request_id: str = "request",
    *,
    run_id: str = "run",
    revision: int = 0,
    next_due: datetime | None = None,
    **values: Any,
) -> StoredRequest:
    """Return a request, open and for everyone unless values say otherwise; see `a_record`."""
    record = a_record(request_id, **values)
    return StoredRequest(run_id=run_id, record=record, revision=revision, next_due=next_due)


def a_message(message_id: str = "message", **values: Any) -> Message:
    """Return a message, with other values if they are given."""
    given = {"run_id": "run", "request_id": "request", "kind": "answer", "payload": {}, **values}
    return Message(message_id=message_id, **given)


def an_effect(key: str = "effect", **values: Any) -> Effect:
    """Return an effect that was begun, with other values if they are given."""
    given = {"run_id": "run", "status": "begun", "owner": "somebody", "at": NOON, **values}
    return Effect(key=key, **given)


def a_notice(notice_id: str = "notice", **values: Any) -> Notice:
    """Return a notice that is due at noon, with other values if they are given."""
    given = {"kind": NoticeKind.OPENED, "run_id": "run", "at": NOON, "due": NOON, **values}
    return Notice(notice_id=notice_id, **given)


def a_grant(grant_id: str = "grant", *, revision: int = 0, **values: Any) -> StoredGrant:
    """Return a standing approval of any call, with other values if they are given."""
    given = {
        "workflow": "bank",
        "agent": "teller",
        "tool": "transfer",
        "version": "v1",
        "terms": GrantTerms(),
        "arguments": {},
        "owner": "ann",
        "run_id": "run",
        "request_id": "request",
        "granted_at": NOON,
        **values,
    }
    return StoredGrant(grant=Grant(grant_id=grant_id, **given), revision=revision)


def an_entry(run_id: str = "run", **values: Any) -> AuditEntry:
    """Return an audit entry, with other values if they are given."""
    return AuditEntry(**{"kind": AuditKind.OPENED, "run_id": run_id, "at": NOON, **values})


def some_progress(run_id: str = "run", **data: Any) -> Progress:
    """Return what a run says at noon."""
    return Progress(run_id=run_id, at=NOON, data=data)


@dataclass(frozen=True)
class Kind:
    """A kind of row that has a revision.

    Attributes:
        name: What it is called.
        put: Makes a commit that writes a row, from its id, the revision it was read at, and a mark.
        found: Reads the revision and the mark of a row; None: it is not there.
    """

    name: str
    put: Callable[[str, int, str], Commit]
    found: Callable[[Store, str], Awaitable[tuple[int, str] | None]]

    def __str__(self) -> str:
        return self.name


async def _found_run(store: Store, run_id: str) -> tuple[int, str] | None:
    run = await store.run(run_id)
    return None if run is None else (run.revision, run.fingerprint)


async def _found_request(store: Store, request_id: str) -> tuple[int, str] | None:
    request = await store.request(request_id)
    return None if request is None else (request.revision, request.run_id)


async def _found_effect(store: Store, key: str) -> tuple[int, str] | None:
    effect = await store.effect(key)
    return None if effect is None else (effect.revision, effect.owner)


async def _found_grant(store: Store, grant_id: str) -> tuple[int, str] | None:
    grant = await store.grant(grant_id)
    return None if grant is None else (grant.revision, grant.grant.owner)


async def _found_notice(store: Store, notice_id: str) -> tuple[int, str] | None:
    for notice in await store.notices(NEVER):
        if notice.notice_id == notice_id:
            return notice.revision, str(notice.payload["mark"])
    return None


KINDS = (
    Kind(
        "run",
        lambda key, read_at, mark: Commit(run=a_run(key, revision=read_at, fingerprint=mark)),
        _found_run,
    ),
    Kind(
        "request",
        lambda key, read_at, mark: Commit(
            requests=(a_request(key, revision=read_at, run_id=mark),)
        ),
        _found_request,
    ),
    Kind(
        "effect",
        lambda key, read_at, mark: Commit(effects=(an_effect(key, revision=read_at, owner=mark),)),
        _found_effect,
    ),
    Kind(
        "grant",
        lambda key, read_at, mark: Commit(grants=(a_grant(key, revision=read_at, owner=mark),)),
        _found_grant,
    ),
    Kind(
        "notice",
        lambda key, read_at, mark: Commit(
            notices=(a_notice(key, revision=read_at, payload={"mark": mark}),)
        ),
        _found_notice,
    ),
)
"""Every kind of row that has a revision."""
