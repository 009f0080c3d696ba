"""The feed on PostgreSQL: nobody reads past what is still being written."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest

from llama_index_hitl.stores import Commit, FeedEvent, SqlStore
from llama_index_hitl.stores._cursors import feed_cursor, feed_place
from llama_index_hitl.testing._store_rows import an_entry, some_progress


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[SqlStore]:
    store = SqlStore(postgres_url, connections=2)
    await store.commit(Commit())
    yield store
    await store.close()


@pytest.fixture
def slow(postgres_url: str, store: SqlStore) -> Iterator["psycopg.Connection[Any]"]:
    """A connection of somebody else, whose transactions end when a test says so."""
    with psycopg.connect(postgres_url) as connection:
        yield connection


def write(connection: "psycopg.Connection[Any]", run_id: str) -> None:
    """Write a row of the feed as a store does, and leave the transaction open."""
    connection.execute(
        "INSERT INTO hitl_feed (run_id, kind, at) VALUES (%s, 'started', 0)", (run_id,)
    )


class Follower:
    """Reads on from where it has come to."""

    def __init__(self, store: SqlStore, **about: Any) -> None:
        self.store = store
        self.after: str | None = None
        self._about = about

    async def read(self) -> list[str]:
        events: list[FeedEvent] = list(await self.store.feed(after=self.after, **self._about))
        if events:
            self.after = events[-1].cursor
        return [event.run_id for event in events]


async def test_a_row_that_comes_to_be_seen_late_is_not_passed_over(
    store: SqlStore, slow: "psycopg.Connection[Any]"
) -> None:
    follower = Follower(store)
    write(slow, "first")  # it has the lower numbers, and is committed last
    await store.commit(Commit(progress=(some_progress("second"),)))
    told = await follower.read()
    slow.commit()
    told += await follower.read()
    assert told == ["first", "second"]


async def test_a_row_of_a_transaction_that_began_early_and_wrote_late_is_not_passed_over(
    store: SqlStore, slow: "psycopg.Connection[Any]"
) -> None:
    follower = Follower(store)
    slow.execute("SELECT pg_current_xact_id()")  # its rows will have the higher numbers
    await store.commit(Commit(progress=(some_progress("quick"),)))
    told = await follower.read()
    write(slow, "slow")
    slow.commit()
    await store.commit(Commit(progress=(some_progress("quick again"),)))
    told += await follower.read()
    assert sorted(told) == ["quick", "quick again", "slow"]


async def test_rows_are_read_in_the_order_of_their_transactions(
    store: SqlStore, slow: "psycopg.Connection[Any]"
) -> None:
    follower = Follower(store, limit=1)
    slow.execute("SELECT pg_current_xact_id()")
    await store.commit(Commit(progress=(some_progress("later"),)))
    write(slow, "earlier")  # with a higher number than the one above
    slow.commit()
    # By their own numbers, who reads one at a time would pass over the second one.
    assert [await follower.read() for _ in range(3)] == [["earlier"], ["later"], []]


async def test_the_end_of_the_feed_is_before_what_is_still_being_written(
    store: SqlStore, slow: "psycopg.Connection[Any]"
) -> None:
    await store.commit(Commit(audit=(an_entry("before", request_id="request"),)))
    write(slow, "first")
    await store.commit(Commit(progress=(some_progress("second"),)))
    end = await store.feed_end()
    slow.commit()
    assert [event.run_id for event in await store.feed(after=end)] == ["first", "second"]


async def test_a_transaction_that_is_undone_holds_up_nobody(
    store: SqlStore, slow: "psycopg.Connection[Any]"
) -> None:
    follower = Follower(store, run_id="told")
    write(slow, "told")
    await store.commit(Commit(progress=(some_progress("told"),)))
    assert await follower.read() == []
    slow.rollback()
    assert await follower.read() == ["told"]


async def test_a_feed_that_was_copied_from_another_server_goes_on_here(
    store: SqlStore, slow: "psycopg.Connection[Any]", postgres_url: str
) -> None:
    follower = Follower(store, limit=2)
    for name in ("one", "two", "three"):
        await store.commit(Commit(progress=(some_progress(name),)))
    assert await follower.read() == ["one", "two"]
    # There, numbers were higher by far than those that this server gives out.
    slow.execute("UPDATE hitl_feed SET xid = xid + 1000000000")
    slow.commit()
    cursor = feed_place(follower.after)
    follower.after = feed_cursor(cursor._replace(xid=cursor.xid + 1_000_000_000))

    opened = SqlStore(postgres_url, connections=2)
    follower.store = opened
    assert await follower.read() == ["three"]
    await opened.commit(Commit(progress=(some_progress("here"),)))
    assert await follower.read() == ["here"]
    whole = await opened.feed()
    assert [event.run_id for event in whole] == ["one", "two", "three", "here"]
    assert whole[-1].cursor == await opened.feed_end()
    await opened.close()
