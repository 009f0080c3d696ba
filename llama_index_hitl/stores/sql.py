"""A store in a database: SQLite in a file, or PostgreSQL."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from sqlalchemy import URL

from llama_index_hitl.audit import AuditRow
from llama_index_hitl.errors import StoreError
from llama_index_hitl.stores import _reading as reading
from llama_index_hitl.stores._commit import write_commit
from llama_index_hitl.stores._cursors import FEED_START, FeedPlace, feed_cursor, feed_place
from llama_index_hitl.stores._database import Database
from llama_index_hitl.stores._dialects import dialect_of
from llama_index_hitl.stores._encoding import micros_of
from llama_index_hitl.stores._listing import list_grants, list_requests, list_runs
from llama_index_hitl.stores._rotation import CONTENTS, Content
from llama_index_hitl.stores._rows import rows_of
from llama_index_hitl.stores._statements import Session
from llama_index_hitl.stores.encryption import Cipher, Sealer
from llama_index_hitl.stores.protocol import (
    Commit,
    Cursor,
    Effect,
    EffectStatus,
    FeedEvent,
    GrantQuery,
    Message,
    Notice,
    Page,
    RequestQuery,
    Run,
    RunQuery,
    StoredGrant,
    StoredRequest,
)

T = TypeVar("T")


class SqlStore:
    """A `Store` in a database, for any number of processes at once.

    SQLite needs no server: a file, written ahead and synchronized with each commit, so that what
    was committed survives a crash of the process and the loss of power. PostgreSQL needs the extra
    `postgres`. Tables are made, and brought up to date, at the first use; their names begin with
    `hitl_`.

    Each method is one call into a thread of the store's own, where the database's driver works
    without going back and forth to the event loop.

    Args:
        url: `sqlite:///hitl.db`, `sqlite+aiosqlite:///hitl.db`, the path of a SQLite file, or
            `postgresql://user@host/database`.
        cipher: Encrypts what is stored, as `encryption` says; None: it is stored in plain.
        connections: How many connections to the database at most, from 1. With SQLite one of them
            writes and the others, at least one, read.
        lock_timeout: How long a commit waits for others who are writing.

    Raises:
        StoreError: The URL names no database that can be used, such as SQLite in memory.
        MissingExtra: The driver for PostgreSQL is not installed.

    Example:
        >>> async def main():
        ...     store = SqlStore("sqlite:///hitl.db")  # or postgresql://user@host/database
        ...     runs = await store.runs(RunQuery())
        ...     await store.close()
        ...     return len(runs)
        >>> asyncio.run(main())
        0
    """

    def __init__(
        self,
        url: str | os.PathLike[str] | URL,
        *,
        cipher: Cipher | None = None,
        connections: int = 5,
        lock_timeout: timedelta = timedelta(seconds=30),
    ) -> None:
        dialect = dialect_of(url, connections=connections, lock_timeout=lock_timeout)
        self._database = Database(dialect)
        self._sealer = Sealer(cipher)
        self._writers = ThreadPoolExecutor(dialect.writers, "hitl-store")
        self._readers = (
            ThreadPoolExecutor(dialect.readers, "hitl-store-reader")
            if dialect.readers
            else self._writers
        )
        self._closed = False

    # ----------------------------------------------------------------------- writing

    async def commit(self, commit: Commit) -> None:
        """Store a change, all of it or nothing; see `Store.commit`."""
        await self._in_thread(self._writers, lambda: self._commit(commit))

    def _commit(self, commit: Commit) -> None:
        rows = rows_of(commit, self._sealer)
        self._database.write(
            lambda session: write_commit(session, rows, self._database.dialect, self._sealer),
            durable=commit.durable,
        )

    async def rotate(self) -> int:
        """Encrypt everything that is not encrypted with the newest key of the cipher anew with it.

        What was stored without a cipher is encrypted, too. Others may write meanwhile; what they
        write is left as it is. If it breaks off, the next call goes on with what is left.

        Returns:
            How many values were encrypted anew. When it is 0, and all who write have the newest
            key, the older keys are needed no more.

        Raises:
            StoreError: The store has no cipher, or none of its keys decrypts a value.
        """
        return sum([await self._reseal(content) for content in CONTENTS])

    async def _reseal(self, content: Content) -> int:
        count, after = await self._in_thread(
            self._writers, partial(content.reseal, self._database, self._sealer)
        )
        while after is not None:
            step = partial(content.reseal, self._database, self._sealer, after)
            changed, after = await self._in_thread(self._writers, step)
            count += changed
        return count

    # ----------------------------------------------------------------------- reading

    async def run(self, run_id: str, *, whole: bool = False) -> Run | None:
        """Return a run, or None; see `Store.run`."""
        if not self._holds(run_id):
            return None

        def work(session: Session) -> Run | None:
            if whole:
                rows = session.rows(reading.FIND_WHOLE_RUN, run_id=run_id)
                return reading.whole_run_of(rows, self._sealer) if rows else None
            row = session.row(reading.FIND_RUN, run_id=run_id)
            return None if row is None else reading.run_of(row, self._sealer)

        return await self._read(work)

    async def request(self, request_id: str) -> StoredRequest | None:
        """Return a request, or None; see `Store.request`."""
        if not self._holds(request_id):
            return None

        def work(session: Session) -> StoredRequest | None:
            row = session.row(reading.FIND_REQUEST, request_id=request_id)
            return None if row is None else reading.request_of(row, self._sealer)

        return await self._read(work)

    async def requests(self, query: RequestQuery) -> Page[StoredRequest]:
        """Return requests, the most urgent first; see `Store.requests`."""
        if not self._holds(query.run_id, query.workflow, query.gate, query.tag):
            return Page(())
        if query.entries is not None:
            entries = tuple(entry for entry in query.entries if self._holds(entry))
            query = replace(query, entries=entries)
        return await self._read(lambda session: list_requests(session, query, self._sealer))

    async def runs(self, query: RunQuery) -> Page[Run]:
        """Return runs, without their bytes, the newest first; see `Store.runs`."""
        if not self._holds(query.workflow, query.tag, query.started_by):
            return Page(())
        return await self._read(lambda session: list_runs(session, query, self._sealer))

    async def messages(self, run_id: str) -> Sequence[Message]:
        """Return what a run has yet to be told, in order; see `Store.messages`."""
        if not self._holds(run_id):
            return []

        def work(session: Session) -> Sequence[Message]:
            rows = session.rows(reading.FIND_MESSAGES, run_id=run_id)
            return [reading.message_of(row, self._sealer) for row in rows]

        return await self._read(work)

    async def ready(self, now: datetime, *, limit: int = 100) -> Sequence[str]:
        """Return ids of runs that can be advanced; see `Store.ready`."""

        def work(session: Session) -> Sequence[str]:
            rows = session.rows(reading.FIND_READY, now=micros_of(now), limit=limit)
            return [run_id for (run_id,) in rows]

        return await self._read(work)

    async def due(self, now: datetime, *, limit: int = 100) -> Sequence[StoredRequest]:
        """Return open requests with something due, the longest overdue first; see `Store.due`."""

        def work(session: Session) -> Sequence[StoredRequest]:
            rows = session.rows(reading.FIND_DUE, now=micros_of(now), limit=limit)
            return [reading.request_of(row, self._sealer) for row in rows]

        return await self._read(work)

    async def effect(self, key: str) -> Effect | None:
        """Return an effect, or None; see `Store.effect`."""
        if not self._holds(key):
            return None

        def work(session: Session) -> Effect | None:
            row = session.row(reading.FIND_EFFECT, which=key)
            return None if row is None else reading.effect_of(row, self._sealer)

        return await self._read(work)

    async def effects(
        self, *, run_id: str | None = None, status: EffectStatus | None = None
    ) -> Sequence[Effect]:
        """Return effects, by time and then by key; see `Store.effects`."""
        if not self._holds(run_id):
            return []
        statement = reading.FIND_EFFECTS[run_id is not None, status]
        given = {} if run_id is None else {"run_id": run_id}

        def work(session: Session) -> Sequence[Effect]:
            rows = session.rows(statement, **given)
            return [reading.effect_of(row, self._sealer) for row in rows]

        return await self._read(work)

    async def grant(self, grant_id: str) -> StoredGrant | None:
        """Return a standing approval, or None; see `Store.grant`."""
        if not self._holds(grant_id):
            return None

        def work(session: Session) -> StoredGrant | None:
            row = session.row(reading.FIND_GRANT, grant_id=grant_id)
            return None if row is None else reading.grant_of(row, self._sealer)

        return await self._read(work)

    async def grants(self, query: GrantQuery) -> Page[StoredGrant]:
        """Return standing approvals, the newest first; see `Store.grants`."""
        texts = (query.workflow, query.agent, query.tool, query.owner, query.request_id)
        if not self._holds(*texts):
            return Page(())
        return await self._read(lambda session: list_grants(session, query, self._sealer))

    async def notices(self, now: datetime, *, limit: int = 100) -> Sequence[Notice]:
        """Return notices that are due, the longest overdue first; see `Store.notices`."""

        def work(session: Session) -> Sequence[Notice]:
            rows = session.rows(reading.FIND_NOTICES, now=micros_of(now), limit=limit)
            return [reading.notice_of(row, self._sealer) for row in rows]

        return await self._read(work)

    async def audit(self, run_id: str) -> Sequence[AuditRow]:
        """Return what happened in a run, in order; see `Store.audit`."""
        if not self._holds(run_id):
            return []

        def work(session: Session) -> Sequence[AuditRow]:
            rows = session.rows(reading.FIND_AUDIT, run_id=run_id)
            return [reading.audit_of(row, self._sealer) for row in rows]

        return await self._read(work)

    async def feed(
        self, *, run_id: str | None = None, after: Cursor | None = None, limit: int = 100
    ) -> Sequence[FeedEvent]:
        """Return what was stored, in the order in which it became readable; see `Store.feed`.

        What was stored before the database knew a feed is not in it. On PostgreSQL an event is seen
        when every transaction of the server that had written by then has ended, also those of
        others who use the same server.
        """
        place = FEED_START if after is None else feed_place(after)
        if not self._holds(run_id):
            return []
        given = {} if run_id is None else {"run_id": run_id}

        def work(session: Session) -> Sequence[FeedEvent]:
            rows = session.rows(
                reading.FIND_FEED[run_id is not None],
                after_xid=place.xid,
                after_sequence=place.sequence,
                limit=limit,
                **given,
            )
            return [reading.feed_event_of(row, self._sealer) for row in rows]

        return await self._read(work)

    async def feed_end(self) -> Cursor:
        """Return the place behind all that can be read of the feed now."""

        def work(session: Session) -> Cursor:
            found = session.row(reading.FIND_FEED_END)
            return feed_cursor(FEED_START if found is None else FeedPlace(*found))

        return await self._read(work)

    # ----------------------------------------------------------------------- threads

    async def close(self) -> None:
        """Finish what is under way, and let go of threads and connections."""
        self._closed = True
        await asyncio.to_thread(self._shut_down)

    def _shut_down(self) -> None:
        self._writers.shutdown()
        self._readers.shutdown()
        self._database.close()

    async def _read(self, work: Callable[[Session], T]) -> T:
        return await self._in_thread(self._readers, lambda: self._database.read(work))

    async def _in_thread(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        if self._closed:
            raise StoreError("This store is closed.")
        return await asyncio.get_running_loop().run_in_executor(threads, work)

    def _holds(self, *texts: str | None) -> bool:
        """Tell whether the database can hold these texts; what it cannot hold is not there."""
        return all(text is None or self._database.dialect.holds(text) for text in texts)
