"""How `SqlStore` writes a commit: one function for each kind of row, all in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Table, bindparam, delete, insert, select, update

from llama_index_hitl.audit import AuditEntry
from llama_index_hitl.stores import _tables as tables
from llama_index_hitl.stores._conflicts import stale
from llama_index_hitl.stores._dialects import Dialect
from llama_index_hitl.stores._encoding import Link, chain
from llama_index_hitl.stores._rows import (
    CommitRows,
    Row,
    audience_rows,
    request_tag_rows,
    run_tag_rows,
)
from llama_index_hitl.stores._statements import Session, Statement
from llama_index_hitl.stores.encryption import Sealer


def write_commit(session: Session, rows: CommitRows, dialect: Dialect, sealer: Sealer) -> None:
    """Write a commit; the transaction around it must be rolled back if this raises.

    Raises:
        Conflict: A row is not as it was read.
    """
    dialect.lock_audit(session, rows.audit)
    if rows.run is not None:
        _write_run(session, rows.run, rows.parts)
    _write_requests(session, rows.requests)
    _write_each(_EFFECTS, session, rows.effects)
    _write_each(_GRANTS, session, rows.grants)
    _write_messages(session, rows.messages, rows.applied)
    _write_notices(session, rows.notices, rows.told)
    for run_id, entries in rows.audit.items():
        _write_audit(session, run_id, entries, sealer)
    # Last, so that others wait as short as can be for what they may not read past.
    session.change_each(_INSERT_FEED, rows.feed)


# --------------------------------------------------------------------------- rows of any kind


_GIVEN = ("sequence", "xid")
"""Columns that the database fills by itself."""


def _columns(table: Table) -> list[str]:
    return [column.name for column in table.columns if column.name not in _GIVEN]


def _insert(table: Table) -> Statement:
    return Statement(insert(table), _columns(table))


def _delete(table: Table, *keys: str) -> Statement:
    return Statement(delete(table).where(*(table.c[key] == bindparam(key) for key in keys)))


class _Revised:
    """The rows of a table that has a revision in each row.

    Args:
        what: What a row is called.
        table: The table.
        key: The column that it is known by.
        needed: Columns to read of a row that is changed, beside its revision.
    """

    def __init__(self, what: str, table: Table, key: str, needed: Sequence[str] = ()) -> None:
        self._what = what
        self._key = key
        self._needed = ("revision", *needed)
        is_it = table.c[key] == bindparam("which")
        read = select(*(table.c[name] for name in self._needed)).where(is_it).with_for_update()
        self._read = Statement(read)
        self._insert = _insert(table)
        changed = [name for name in _columns(table) if name != key]
        self._update = Statement(update(table).where(is_it), changed)

    def insert(self, session: Session, rows: Sequence[Row]) -> None:
        """Write rows that must not be there; the database refuses those that are."""
        session.change_each(self._insert, rows)

    def change(self, session: Session, row: Row) -> Row:
        """Write a row that must be there, and return what was stored of it.

        Raises:
            Conflict: It is not there, or has another revision than the one before.
        """
        key, read_at = row[self._key], row["revision"] - 1
        # Nobody else can write it from here on, until the transaction ends.
        found = session.row(self._read, which=key)
        revision = 0 if found is None else found[0]
        if found is None or revision != read_at:
            raise stale(self._what, key, wanted=read_at, found=revision)
        values = {name: value for name, value in row.items() if name != self._key}
        session.change(self._update, which=key, **values)
        return {self._key: key, **dict(zip(self._needed, found, strict=True))}


class _Found:
    """The rows of a table by which others are found: written and removed, never changed."""

    def __init__(self, table: Table) -> None:
        self._insert = _insert(table)
        self._delete = _delete(table, *_columns(table))

    def insert(self, session: Session, rows: Sequence[Row]) -> None:
        """Write rows."""
        session.change_each(self._insert, rows)

    def replace(self, session: Session, before: Sequence[Row], after: Sequence[Row]) -> None:
        """Write what is to be there now, and remove what was before and is not."""
        session.change_each(self._delete, [row for row in before if row not in after])
        session.change_each(self._insert, [row for row in after if row not in before])


# --------------------------------------------------------------------------- runs

_RUNS = _Revised("run", tables.runs, "run_id", ["created_at", "tags"])
_RUN_TAGS = _Found(tables.run_tags)
_INSERT_PART = _insert(tables.run_parts)
_UPDATE_PART = Statement(
    update(tables.run_parts).where(
        tables.run_parts.c.run_id == bindparam("which_run"),
        tables.run_parts.c.part == bindparam("which_part"),
    ),
    ["content"],
)


def _write_run(session: Session, run: Row, parts: Sequence[Row]) -> None:
    if run["revision"] == 1:
        _RUNS.insert(session, [run])
        _RUN_TAGS.insert(session, run_tag_rows(run))
        session.change_each(_INSERT_PART, parts)
        return
    before = _RUNS.change(session, run)
    _RUN_TAGS.replace(session, run_tag_rows(before), run_tag_rows(run))
    for part in parts:
        which = {"which_run": part["run_id"], "which_part": part["part"]}
        if not session.change(_UPDATE_PART, **which, content=part["content"]):
            session.change(_INSERT_PART, **part)


# --------------------------------------------------------------------------- requests

_REQUESTS = _Revised(
    "request",
    tables.requests,
    "request_id",
    ["is_open", "rank", "created_at", "entries", "tags"],
)
_AUDIENCE = _Found(tables.audience)
_REQUEST_TAGS = _Found(tables.request_tags)


def _write_requests(session: Session, requests: Sequence[Row]) -> None:
    new = [row for row in requests if row["revision"] == 1]
    _REQUESTS.insert(session, new)
    _AUDIENCE.insert(session, [found for row in new for found in audience_rows(row)])
    _REQUEST_TAGS.insert(session, [found for row in new for found in request_tag_rows(row)])
    for row in requests:
        if row["revision"] > 1:
            before = _REQUESTS.change(session, row)
            _AUDIENCE.replace(session, audience_rows(before), audience_rows(row))
            _REQUEST_TAGS.replace(session, request_tag_rows(before), request_tag_rows(row))


# --------------------------------------------------------------------------- effects, grants

_EFFECTS = _Revised("effect", tables.effects, "key")
_GRANTS = _Revised("standing approval", tables.grants, "grant_id")


def _write_each(kind: _Revised, session: Session, rows: Sequence[Row]) -> None:
    for row in rows:
        if row["revision"] == 1:
            kind.insert(session, [row])
        else:
            kind.change(session, row)


# --------------------------------------------------------------------------- messages, notices

_NOTICES = _Revised("notice", tables.notices, "notice_id")
_TAKE_NOTICE = _delete(tables.notices, "notice_id")
_PUT_MESSAGE = _insert(tables.messages)
_TAKE_MESSAGE = _delete(tables.messages, "message_id")


def _write_messages(session: Session, messages: Sequence[Row], applied: Sequence[Row]) -> None:
    session.change_each(_TAKE_MESSAGE, applied)
    session.change_each(_PUT_MESSAGE, messages)


def _write_notices(session: Session, notices: Sequence[Row], told: Sequence[Row]) -> None:
    session.change_each(_TAKE_NOTICE, told)
    _NOTICES.insert(session, [row for row in notices if row["revision"] == 1])
    for row in notices:
        if row["revision"] > 1:
            _NOTICES.change(session, row)


# --------------------------------------------------------------------------- audit

_LAST_LINK = Statement(
    select(tables.audit.c.number, tables.audit.c.hash)
    .where(tables.audit.c.run_id == bindparam("run_id"))
    .order_by(tables.audit.c.number.desc())
    .limit(1)
)
_INSERT_AUDIT = _insert(tables.audit)
_INSERT_FEED = _insert(tables.feed)


def _write_audit(
    session: Session, run_id: str, entries: Sequence[AuditEntry], sealer: Sealer
) -> None:
    last = session.row(_LAST_LINK, run_id=run_id)
    rows = [
        {
            "run_id": run_id,
            "number": row.number,
            "previous": row.previous,
            "hash": row.hash,
            "entry": sealer.seal(row.entry.model_dump_json().encode()),
        }
        for row in chain(None if last is None else Link(*last), entries)
    ]
    session.change_each(_INSERT_AUDIT, rows)
