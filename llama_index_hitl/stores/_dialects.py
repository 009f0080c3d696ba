"""The one place that knows how SQLite and PostgreSQL differ."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Protocol

from sqlalchemy import (
    URL,
    ColumnElement,
    Engine,
    and_,
    bindparam,
    case,
    create_engine,
    event,
    func,
    literal_column,
    make_url,
    select,
    tuple_,
)
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from llama_index_hitl._extras import require
from llama_index_hitl.errors import StoreError
from llama_index_hitl.stores._statements import Session, Statement


class Dialect(Protocol):
    """What one kind of database does in its own way."""

    begin: ClassVar[Mapping[bool, Sequence[str]]]
    """SQL that begins a transaction, by whether it must survive a loss of power by itself."""

    writers: int
    """How many threads write at the same time."""

    readers: int
    """How many more threads there are to read; 0: those that write read as well."""

    words: ClassVar[Mapping[str, str]]
    """What the words in `Migration.statements` stand for."""

    def engine(self) -> Engine:
        """Return an engine whose connections begin no transactions of their own."""
        ...

    def is_conflict(self, error: Exception) -> bool:
        """Tell whether the driver says that somebody else was first; nothing was stored then."""
        ...

    def holds(self, text: str) -> bool:
        """Tell whether this text can be stored."""
        ...

    def lock_audit(self, session: Session, run_ids: Iterable[str]) -> None:
        """Let nobody else add to the audit trails of these runs until the transaction ends."""
        ...

    def lock_schema(self, session: Session) -> None:
        """Let nobody else change the schema until the transaction ends."""
        ...

    def adopt_feed(self, session: Session) -> None:
        """Put rows of the feed that another server has written before those that this one will."""
        ...


def dialect_of(
    url: str | os.PathLike[str] | URL, *, connections: int, lock_timeout: timedelta
) -> Dialect:
    """Return the dialect for a database that is named in one of the ways users name it.

    Args:
        url: A URL, or the path of a SQLite file.
        connections: How many connections at most.
        lock_timeout: How long to wait for others who hold a lock.

    Raises:
        StoreError: It names no database that can be used.
        MissingExtra: The driver for PostgreSQL is not installed.
    """
    if not isinstance(url, URL) and "://" not in os.fspath(url):
        return Sqlite(URL.create("sqlite", database=os.fspath(url)), connections, lock_timeout)
    try:
        parsed = make_url(os.fspath(url) if isinstance(url, os.PathLike) else url)
    except (ArgumentError, ValueError) as error:
        raise StoreError(f"This is not the URL of a database: {error}") from error
    match parsed.drivername:
        case "sqlite" | "sqlite+aiosqlite" | "sqlite+pysqlite":
            return Sqlite(parsed, connections, lock_timeout)
        case "postgres" | "postgresql" | "postgresql+psycopg" | "postgresql+psycopg_async":
            return Postgres(parsed, connections, lock_timeout)
        case other:
            raise StoreError(
                f"A store cannot be kept at {other}://. Use sqlite:///file.db, or "
                "postgresql://user@host/database, which is reached with psycopg."
            )


class Sqlite:
    """A file that any number of processes on one machine share, in WAL mode.

    One thread writes: SQLite has one writer at a time anyway, and within a process a queue is
    fairer than SQLite's lock. Others read meanwhile.
    """

    begin: ClassVar[Mapping[bool, Sequence[str]]] = {
        True: ("PRAGMA synchronous=FULL", "BEGIN IMMEDIATE"),
        False: ("PRAGMA synchronous=NORMAL", "BEGIN IMMEDIATE"),
    }
    words: ClassVar[Mapping[str, str]] = {
        "key": "TEXT",
        "bytes": "BLOB",
        "sequence": "INTEGER NOT NULL",
        "clustered": "WITHOUT ROWID",
        "transaction": "0",
    }
    _TAKEN = frozenset(
        {"SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_ROWID"}
    )

    def __init__(self, url: URL, connections: int, lock_timeout: timedelta) -> None:
        path = url.database or ""
        if path in ("", ":memory:") or "mode=memory" in str(url) or path.startswith("file::memory"):
            raise StoreError(
                "SQLite in memory would lose what it holds with each connection. Use MemoryStore() "
                "in a test, or name a file."
            )
        self.writers = 1
        self.readers = max(1, connections - 1)
        # A relative path must mean the same file when the process has gone elsewhere.
        database = path if path.startswith("file:") else str(Path(path).absolute())
        self._url = url.set(drivername="sqlite+pysqlite", database=database)
        self._lock_timeout = lock_timeout.total_seconds()

    def engine(self) -> Engine:
        """Return an engine for the file."""
        engine = create_engine(
            self._url,
            paramstyle="named",
            pool_size=self.writers + self.readers,
            # Without an isolation level the driver begins nothing by itself; its own BEGIN comes
            # too late, and waits for no lock.
            connect_args={
                "isolation_level": None,
                "timeout": self._lock_timeout,
                "check_same_thread": False,
            },
        )
        event.listen(engine, "connect", self._set_up)
        return engine

    def _set_up(self, connection: sqlite3.Connection, _record: object) -> None:
        self._use_wal(connection)
        # A commit that was reported survives the loss of power, not only of the process.
        connection.execute("PRAGMA synchronous=FULL")

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        """Switch the file to WAL, once; the switch itself does not wait for other processes."""
        give_up = time.monotonic() + self._lock_timeout
        while True:
            try:
                (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorname.startswith("SQLITE_BUSY")
                if not busy or time.monotonic() >= give_up:
                    raise
                time.sleep(0.01)
                continue
            if mode != "wal":
                raise StoreError(
                    f"SQLite cannot keep a write-ahead log beside {self._url.database} (journal "
                    f"mode: {mode}). Put the file on a local disk."
                )
            return

    def is_conflict(self, error: Exception) -> bool:
        """Tell whether a row with the same key was there."""
        return getattr(error, "sqlite_errorname", None) in self._TAKEN

    def holds(self, text: str) -> bool:
        """Everything but halves of surrogate pairs."""
        return _is_unicode(text)

    def lock_audit(self, session: Session, run_ids: Iterable[str]) -> None:
        """Nothing to do: whoever writes is alone."""

    def lock_schema(self, session: Session) -> None:
        """Nothing to do: whoever writes is alone."""

    def adopt_feed(self, session: Session) -> None:
        """Nothing to do: transactions have no numbers."""


_LOCK = Statement(
    select(func.pg_advisory_xact_lock(bindparam("kind"), func.hashtext(bindparam("name"))))
)
_TO_COME = "pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
"""A number that no transaction has had that can be seen; nor any above it."""

_AUDIT_LOCK = 0x48495401
_SCHEMA_LOCK = 0x48495402
"""Kinds of advisory locks, to tell them from those of whoever else uses the database."""


class Postgres:
    """A server; any number of machines use it. Each transaction sees what was committed before."""

    begin: ClassVar[Mapping[bool, Sequence[str]]] = {
        True: ("BEGIN ISOLATION LEVEL READ COMMITTED",),
        False: ("BEGIN ISOLATION LEVEL READ COMMITTED", "SET LOCAL synchronous_commit = off"),
    }
    words: ClassVar[Mapping[str, str]] = {
        "key": 'TEXT COLLATE "C"',
        "bytes": "BYTEA",
        "sequence": "BIGINT GENERATED ALWAYS AS IDENTITY",
        "clustered": "",
        "transaction": "(pg_current_xact_id()::text::bigint)",
    }
    _UNIQUE_VIOLATION, _SERIALIZATION_FAILURE, _DEADLOCK = "23505", "40001", "40P01"

    def __init__(self, url: URL, connections: int, lock_timeout: timedelta) -> None:
        require("psycopg", extra="postgres", purpose="a store on PostgreSQL")
        self.writers = connections
        self.readers = 0
        self._url = url.set(drivername="postgresql+psycopg")
        # In milliseconds, and not 0, which means for ever.
        self._lock_timeout = max(1, round(lock_timeout.total_seconds() * 1000))

    def engine(self) -> Engine:
        """Return an engine for the server."""
        engine = create_engine(
            self._url,
            pool_size=self.writers,
            max_overflow=0,
            pool_pre_ping=True,  # the server may have been started anew since
            use_native_hstore=False,  # spares a query for each connection
        )
        event.listen(engine, "connect", self._set_up)
        return engine

    def _set_up(self, connection: Any, _record: object) -> None:
        connection.autocommit = True
        connection.execute(f"SET lock_timeout = {self._lock_timeout}")

    def is_conflict(self, error: Exception) -> bool:
        """Tell whether a key was taken, or the server broke off one of two that were at odds."""
        return getattr(error, "sqlstate", None) in (
            self._UNIQUE_VIOLATION,
            self._SERIALIZATION_FAILURE,
            self._DEADLOCK,
        )

    def holds(self, text: str) -> bool:
        """Everything but NUL and halves of surrogate pairs."""
        return "\0" not in text and _is_unicode(text)

    def lock_audit(self, session: Session, run_ids: Iterable[str]) -> None:
        """Lock by name: there may be no row yet, and a locked last row stays the last one seen."""
        for run_id in sorted(run_ids):
            session.row(_LOCK, kind=_AUDIT_LOCK, name=run_id)

    def lock_schema(self, session: Session) -> None:
        """Lock by name."""
        session.row(_LOCK, kind=_SCHEMA_LOCK, name="")

    def adopt_feed(self, session: Session) -> None:
        """Take the number from rows whose transactions this server has not come to.

        Such are in a database that was copied from another server, which was further on.
        """
        session.script(
            "UPDATE hitl_feed SET xid = 0"
            " WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
        )


class Unread(ColumnElement[bool]):
    """A row of the feed stands behind a place, and nothing can come before it any more.

    Rows are read in the order of the numbers of their transactions, and of none above one that is
    under way: PostgreSQL gives out the numbers of rows before it is known which transaction ends
    first, so that a row may come to be seen after another one with a higher number. SQLite has one
    writer at a time, whose transactions all have the number 0.

    Args:
        xid: The column with the number of the transaction.
        sequence: The column with the number of the row.
        after: The place; None: before the first row.
    """

    inherit_cache = False

    def __init__(
        self,
        xid: ColumnElement[int],
        sequence: ColumnElement[int],
        after: tuple[ColumnElement[int], ColumnElement[int]] | None = None,
    ) -> None:
        self.xid = xid
        self.sequence = sequence
        self.after = after


@compiles(Unread, "sqlite")
def _unread_on_sqlite(unread: Unread, compiler: SQLCompiler, **options: Any) -> str:
    # Compared as a pair, the second one would not be looked up in an index.
    condition = unread.xid == literal_column("0")
    if unread.after is not None:
        condition = and_(condition, unread.sequence > unread.after[1])
    return compiler.process(condition, **options)


_UNDER_WAY: ColumnElement[int] = literal_column(
    "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
)
"""The lowest number of a transaction that has not ended."""


@compiles(Unread, "postgresql")
def _unread_on_postgres(unread: Unread, compiler: SQLCompiler, **options: Any) -> str:
    condition = unread.xid < _UNDER_WAY
    if unread.after is not None:
        xid, sequence = unread.after
        # A place from before the database was copied, as `adopt_feed` says.
        here = case((xid < literal_column(_TO_COME), xid), else_=0)
        condition = and_(tuple_(unread.xid, unread.sequence) > tuple_(here, sequence), condition)
    return compiler.process(condition, **options)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
