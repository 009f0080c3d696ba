"""How `SqlStore` reads: statements that find rows, and how the rows become values again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, get_args

from sqlalchemy import (
    BindParameter,
    Select,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    union_all,
)

from llama_index_hitl.audit import AuditRow
from llama_index_hitl.stores import _tables as tables
from llama_index_hitl.stores._cursors import FeedPlace, feed_cursor
from llama_index_hitl.stores._dialects import Unread
from llama_index_hitl.stores._encoding import (
    audit_row,
    instant_of,
    json_object,
    optional_instant_of,
    stored_grant,
    stored_request,
)
from llama_index_hitl.stores._feed import FeedRow, feed_event
from llama_index_hitl.stores._statements import Statement
from llama_index_hitl.stores.encryption import Sealer
from llama_index_hitl.stores.protocol import (
    Effect,
    EffectStatus,
    FeedEvent,
    Message,
    Notice,
    NoticeKind,
    Run,
    RunStatus,
    StoredGrant,
    StoredRequest,
)

# --------------------------------------------------------------------------- runs

RUN_COLUMNS = tuple(tables.runs.columns)

FIND_RUN = Statement(select(*RUN_COLUMNS).where(tables.runs.c.run_id == bindparam("run_id")))

FIND_WHOLE_RUN = Statement(
    select(*RUN_COLUMNS, tables.run_parts.c.part, tables.run_parts.c.content)
    .outerjoin(tables.run_parts, tables.run_parts.c.run_id == tables.runs.c.run_id)
    .where(tables.runs.c.run_id == bindparam("run_id"))
)
"""Gives a row for each part of the run, and one without a part where there is none."""


def run_of(row: Sequence[Any], sealer: Sealer, parts: dict[str, bytes] | None = None) -> Run:
    """Read a run from the columns of its row, which come first.

    Args:
        row: The row.
        sealer: Decrypts what is encrypted.
        parts: Its large parts, as they are stored; those that are not there are None.

    Raises:
        StoreError: It cannot be read.
    """
    found = dict(zip(tables.runs.columns.keys(), row, strict=False))
    opened = {part: sealer.unseal(content) for part, content in (parts or {}).items()}
    error = found["error"]
    return Run(
        run_id=found["run_id"],
        workflow=found["workflow"],
        status=RunStatus(found["status"]),
        created_at=instant_of(found["created_at"]),
        updated_at=instant_of(found["updated_at"]),
        revision=found["revision"],
        version=found["version"],
        fingerprint=found["fingerprint"],
        tags=tuple(json.loads(found["tags"])),
        lease_owner=found["lease_owner"],
        lease_until=optional_instant_of(found["lease_until"]),
        attempts=found["attempts"],
        error=None
        if error is None
        else json_object(sealer.unseal(error), f"The error of run {found['run_id']}"),
        started_by=found["started_by"],
        **opened,
    )


def whole_run_of(rows: Sequence[Sequence[Any]], sealer: Sealer) -> Run:
    """Read a run from the rows of `FIND_WHOLE_RUN`, of which there is at least one."""
    parts = {part: content for *_, part, content in rows if part is not None}
    return run_of(rows[0], sealer, parts)


def _ready() -> Select[Any]:
    runs = tables.runs
    place = (runs.c.run_id, runs.c.updated_at)
    # Runs that wait are many and messages few, for they are taken out when they are applied. The
    # coalesce keeps the database from going through the runs by their status instead.
    told = select(*place).where(
        runs.c.run_id.in_(select(tables.messages.c.run_id)),
        func.coalesce(runs.c.status, literal_column("''")) == literal_column("'waiting'"),
    )
    left = select(*place).where(
        runs.c.status == literal_column("'running'"),
        or_(runs.c.lease_until.is_(None), runs.c.lease_until <= bindparam("now")),
    )
    ready = union_all(told, left).subquery()
    oldest_first = select(ready.c.run_id).order_by(ready.c.updated_at, ready.c.run_id)
    return oldest_first.limit(bindparam("limit"))


FIND_READY = Statement(_ready())

# --------------------------------------------------------------------------- requests

REQUEST_COLUMNS = (
    tables.requests.c.request_id,
    tables.requests.c.run_id,
    tables.requests.c.revision,
    tables.requests.c.next_due,
    tables.requests.c.claimed_by,
    tables.requests.c.claimed_until,
    tables.requests.c.record,
)

FIND_REQUEST = Statement(
    select(*REQUEST_COLUMNS).where(tables.requests.c.request_id == bindparam("request_id"))
)

FIND_DUE = Statement(
    select(*REQUEST_COLUMNS)
    .where(tables.requests.c.next_due <= bindparam("now"), tables.requests.c.is_open == 1)
    .order_by(tables.requests.c.next_due, tables.requests.c.request_id)
    .limit(bindparam("limit"))
)


def request_of(row: Sequence[Any], sealer: Sealer) -> StoredRequest:
    """Read a request from the columns of its row, which come first.

    Raises:
        StoreError: It cannot be read.
    """
    (request_id, run_id, revision, next_due, claimed_by, claimed_until, record) = row[
        : len(REQUEST_COLUMNS)
    ]
    return stored_request(
        request_id, run_id, revision, next_due, claimed_by, claimed_until, sealer.unseal(record)
    )


# --------------------------------------------------------------------------- messages, notices

FIND_MESSAGES = Statement(
    select(*(column for column in tables.messages.columns if column.name != "sequence"))
    .where(tables.messages.c.run_id == bindparam("run_id"))
    .order_by(tables.messages.c.sequence)
)

FIND_NOTICES = Statement(
    select(*(column for column in tables.notices.columns if column.name != "sequence"))
    .where(tables.notices.c.due <= bindparam("now"))
    .order_by(tables.notices.c.due, tables.notices.c.sequence)
    .limit(bindparam("limit"))
)


def message_of(row: Sequence[Any], sealer: Sealer) -> Message:
    """Read a message from its row.

    Raises:
        StoreError: It cannot be read.
    """
    message_id, run_id, request_id, kind, payload = row
    return Message(
        message_id=message_id,
        run_id=run_id,
        request_id=request_id,
        kind=kind,
        payload=json_object(sealer.unseal(payload), f"Message {message_id}"),
    )


def notice_of(row: Sequence[Any], sealer: Sealer) -> Notice:
    """Read a notice from its row.

    Raises:
        StoreError: It cannot be read.
    """
    notice_id, kind, run_id, request_id, at, due, attempts, revision, payload = row
    return Notice(
        notice_id=notice_id,
        kind=NoticeKind(kind),
        run_id=run_id,
        request_id=request_id,
        at=instant_of(at),
        due=instant_of(due),
        attempts=attempts,
        revision=revision,
        payload=json_object(sealer.unseal(payload), f"Notice {notice_id}"),
    )


# --------------------------------------------------------------------------- effects

_EFFECT_COLUMNS = tuple(tables.effects.columns)

FIND_EFFECT = Statement(select(*_EFFECT_COLUMNS).where(tables.effects.c.key == bindparam("which")))


def _effects(*, of_run: bool, status: EffectStatus | None) -> Statement:
    found = select(*_EFFECT_COLUMNS)
    if of_run:
        found = found.where(tables.effects.c.run_id == bindparam("run_id"))
    if status is not None:
        # In the text of the statement, so that the index on the few that are begun can be used.
        found = found.where(tables.effects.c.status == literal_column(f"'{status}'"))
    return Statement(found.order_by(tables.effects.c["at"], tables.effects.c.key))


FIND_EFFECTS = {
    (of_run, status): _effects(of_run=of_run, status=status)
    for of_run in (False, True)
    for status in (None, *get_args(EffectStatus))
}
"""By whether those of one run are wanted, and of which status."""


def effect_of(row: Sequence[Any], sealer: Sealer) -> Effect:
    """Read an effect from its row.

    Raises:
        StoreError: It cannot be read.
    """
    key, run_id, status, owner, at, revision, result = row
    return Effect(
        key=key,
        run_id=run_id,
        status=status,
        owner=owner,
        at=instant_of(at),
        revision=revision,
        result=None if result is None else sealer.unseal(result),
    )


# --------------------------------------------------------------------------- grants

GRANT_COLUMNS = (tables.grants.c.grant_id, tables.grants.c.revision, tables.grants.c.content)

FIND_GRANT = Statement(
    select(*GRANT_COLUMNS).where(tables.grants.c.grant_id == bindparam("grant_id"))
)


def grant_of(row: Sequence[Any], sealer: Sealer) -> StoredGrant:
    """Read a standing approval from the columns of its row, which come first.

    Raises:
        StoreError: It cannot be read.
    """
    grant_id, revision, content = row[: len(GRANT_COLUMNS)]
    return stored_grant(grant_id, revision, sealer.unseal(content))


# --------------------------------------------------------------------------- audit

FIND_AUDIT = Statement(
    select(*tables.audit.columns)
    .where(tables.audit.c.run_id == bindparam("run_id"))
    .order_by(tables.audit.c.number)
)


def audit_of(row: Sequence[Any], sealer: Sealer) -> AuditRow:
    """Read a row of the audit trail.

    Raises:
        StoreError: It cannot be read.
    """
    run_id, number, previous, own_hash, entry = row
    return audit_row(run_id, number, sealer.unseal(entry), previous, own_hash)


# --------------------------------------------------------------------------- feed

_FEED_PLACE = (tables.feed.c.xid, tables.feed.c.sequence)


def _feed(*, of_run: bool) -> Statement:
    after: tuple[BindParameter[int], BindParameter[int]]
    after = bindparam("after_xid"), bindparam("after_sequence")
    found = select(*_FEED_PLACE, *(tables.feed.c[name] for name in FeedRow._fields))
    found = found.where(Unread(*_FEED_PLACE, after))
    if of_run:
        found = found.where(tables.feed.c.run_id == bindparam("run_id"))
    return Statement(found.order_by(*_FEED_PLACE).limit(bindparam("limit")))


FIND_FEED = {of_run: _feed(of_run=of_run) for of_run in (False, True)}
"""By whether that of one run is wanted."""

FIND_FEED_END = Statement(
    select(*_FEED_PLACE)
    .where(Unread(*_FEED_PLACE))
    .order_by(*(column.desc() for column in _FEED_PLACE))
    .limit(1)
)


def feed_event_of(row: Sequence[Any], sealer: Sealer) -> FeedEvent:
    """Read an event of the feed from its row.

    Raises:
        StoreError: It cannot be read.
    """
    xid, sequence, *values = row
    found = FeedRow._make(values)
    if found.content is not None:
        found = found._replace(content=sealer.unseal(found.content))
    return feed_event(feed_cursor(FeedPlace(xid, sequence)), found)
