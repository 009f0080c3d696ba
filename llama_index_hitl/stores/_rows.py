"""A commit as rows of the tables of `SqlStore`: encoded, and encrypted where there is a cipher."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from llama_index_hitl.audit import AuditEntry
from llama_index_hitl.stores._encoding import (
    GrantRow,
    Place,
    RequestRow,
    json_bytes,
    micros_of,
    optional_micros_of,
)
from llama_index_hitl.stores._feed import FeedRow, feed_rows
from llama_index_hitl.stores.encryption import Sealer
from llama_index_hitl.stores.protocol import (
    Commit,
    Effect,
    Message,
    Notice,
    Run,
    StoredGrant,
    StoredRequest,
)

Row: TypeAlias = dict[str, Any]
"""Values by the names of their columns."""


@dataclass(frozen=True, slots=True)
class CommitRows:
    """The rows of a commit, made before its transaction begins.

    Attributes:
        run: The row of the run.
        parts: What is large in the run, a row for each part that is written.
        requests: Rows of requests, by id.
        messages: Rows of messages, in order.
        applied: Keys of the messages to take out.
        effects: Rows of effects, by key.
        grants: Rows of standing approvals, by id.
        notices: Rows of notices, in order.
        told: Keys of the notices to take out.
        audit: Entries by run; each becomes a row when the end of its run's chain is known.
        feed: Rows of the feed, in order.
    """

    run: Row | None
    parts: tuple[Row, ...]
    requests: tuple[Row, ...]
    messages: tuple[Row, ...]
    applied: tuple[Row, ...]
    effects: tuple[Row, ...]
    grants: tuple[Row, ...]
    notices: tuple[Row, ...]
    told: tuple[Row, ...]
    audit: dict[str, list[AuditEntry]]
    feed: tuple[Row, ...]


def rows_of(commit: Commit, sealer: Sealer) -> CommitRows:
    """Return the rows of a commit.

    Raises:
        StoreError: Something in it cannot be stored.
    """
    # By id, as far as the order means nothing: who takes locks in the same order as everybody else
    # rarely has to be broken off.
    requests = sorted(commit.requests, key=lambda request: request.request_id)
    effects = sorted(commit.effects, key=lambda effect: effect.key)
    grants = sorted(commit.grants, key=lambda grant: grant.grant_id)
    audit: dict[str, list[AuditEntry]] = {}
    for entry in commit.audit:
        audit.setdefault(entry.run_id, []).append(entry)
    return CommitRows(
        run=None if commit.run is None else _run_row(commit.run, sealer),
        parts=() if commit.run is None else _part_rows(commit.run, sealer),
        requests=tuple(_request_row(request, sealer) for request in requests),
        messages=tuple(_message_row(message, sealer) for message in commit.messages),
        applied=tuple({"message_id": message_id} for message_id in sorted(commit.applied)),
        effects=tuple(_effect_row(effect, sealer) for effect in effects),
        grants=tuple(_grant_row(grant, sealer) for grant in grants),
        notices=tuple(_notice_row(notice, sealer) for notice in commit.notices),
        told=tuple({"notice_id": notice_id} for notice_id in sorted(commit.told)),
        audit=audit,
        feed=tuple(_feed_row(row, sealer) for row in feed_rows(commit)),
    )


def _run_row(run: Run, sealer: Sealer) -> Row:
    return {
        "run_id": run.run_id,
        "workflow": run.workflow,
        "status": run.status.value,
        "created_at": micros_of(run.created_at),
        "updated_at": micros_of(run.updated_at),
        "revision": run.revision + 1,
        "version": run.version,
        "fingerprint": run.fingerprint,
        "tags": _list(run.tags),
        "lease_owner": run.lease_owner,
        "lease_until": optional_micros_of(run.lease_until),
        "attempts": run.attempts,
        "error": None if run.error is None else sealer.seal(json_bytes(run.error)),
        "started_by": run.started_by,
    }


def _part_rows(run: Run, sealer: Sealer) -> tuple[Row, ...]:
    contents = {"start": run.start, "snapshot": run.snapshot, "result": run.result}
    return tuple(
        {"run_id": run.run_id, "part": part, "content": sealer.seal(content)}
        for part, content in contents.items()
        if content is not None
    )


def _request_row(request: StoredRequest, sealer: Sealer) -> Row:
    row = RequestRow.of(request)
    return {
        **row.place._asdict(),
        "run_id": row.run_id,
        "revision": row.revision,
        "next_due": row.next_due,
        "claimed_by": row.claimed_by,
        "claimed_until": row.claimed_until,
        "is_open": int(row.is_open),
        "workflow": row.workflow,
        "gate": row.gate,
        "entries": _list(row.entries),
        "tags": _list(row.tags),
        "record": sealer.seal(row.record),
    }


def _message_row(message: Message, sealer: Sealer) -> Row:
    return {
        "message_id": message.message_id,
        "run_id": message.run_id,
        "request_id": message.request_id,
        "kind": message.kind,
        "payload": sealer.seal(json_bytes(message.payload)),
    }


def _effect_row(effect: Effect, sealer: Sealer) -> Row:
    return {
        "key": effect.key,
        "run_id": effect.run_id,
        "status": effect.status,
        "owner": effect.owner,
        "at": micros_of(effect.at),
        "revision": effect.revision + 1,
        "result": None if effect.result is None else sealer.seal(effect.result),
    }


def _grant_row(grant: StoredGrant, sealer: Sealer) -> Row:
    row = GrantRow.of(grant)
    return {
        "grant_id": row.grant_id,
        "revision": row.revision,
        "workflow": row.workflow,
        "agent": row.agent,
        "tool": row.tool,
        "owner": row.owner,
        "request_id": row.request_id,
        "granted_at": row.granted_at,
        "is_over": int(row.is_over),
        "until": row.until,
        "content": sealer.seal(row.content),
    }


def _notice_row(notice: Notice, sealer: Sealer) -> Row:
    return {
        "notice_id": notice.notice_id,
        "kind": notice.kind.value,
        "run_id": notice.run_id,
        "request_id": notice.request_id,
        "at": micros_of(notice.at),
        "due": micros_of(notice.due),
        "attempts": notice.attempts,
        "revision": notice.revision + 1,
        "payload": sealer.seal(json_bytes(notice.payload)),
    }


def _feed_row(row: FeedRow, sealer: Sealer) -> Row:
    content = None if row.content is None else sealer.seal(row.content)
    return {**row._asdict(), "content": content}


def _list(words: Iterable[str]) -> str:
    return json.dumps(tuple(words))


# --------------------------------------------------------------------------- rows that help to find


def run_tag_rows(run: Row) -> list[Row]:
    """Return the rows by which the tags of a run find it."""
    found_by = {"created_at": run["created_at"], "run_id": run["run_id"]}
    return [{"tag": tag, **found_by} for tag in dict.fromkeys(json.loads(run["tags"]))]


def request_tag_rows(request: Row) -> list[Row]:
    """Return the rows by which the tags of a request find it, open or closed."""
    found_by = {"is_open": request["is_open"], **_place(request)}
    return [{"tag": tag, **found_by} for tag in json.loads(request["tags"])]


def audience_rows(request: Row) -> list[Row]:
    """Return the rows by which reviewer entries find a request; a closed one has none."""
    entries = json.loads(request["entries"]) if request["is_open"] else ()
    return [{"entry": entry, **_place(request)} for entry in entries]


def _place(request: Row) -> Row:
    return {name: request[name] for name in Place._fields}
