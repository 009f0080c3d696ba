"""Those who follow a store: nothing is lost, nothing comes twice, and nothing stays behind."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from durable import NOON
from workflows.events import Event

from llama_index_hitl.errors import StoreError
from llama_index_hitl.stores import Commit, InvalidCursor, MemoryStore, SqlStore, Store
from llama_index_hitl.stores.protocol import FeedEvent, Progress
from llama_index_hitl.web._hub import Follower, Hub

NEVER = timedelta(hours=1)
SOON = timedelta(milliseconds=5)
AT_ONCE = timedelta(0)
PATIENT = timedelta(seconds=10)


class Delta(Event):
    delta: Any = ""


async def say(store: Store, *words: str, run_id: str = "run") -> None:
    said = tuple(Progress(run_id=run_id, at=NOON, data={"message": word}) for word in words)
    await store.commit(Commit(progress=said))


async def hear(follower: Follower, count: int) -> list[str]:
    """Return so many words that somebody hears."""
    words: list[str] = []
    while len(words) < count:
        news = await follower.news(within=PATIENT)
        assert news is not None, f"only {words} came"
        words += words_of(news.events)
    return words


def words_of(events: tuple[FeedEvent, ...]) -> list[str]:
    return [str(event.data["message"]) for event in events]


class Unreliable(MemoryStore):
    """Cannot be reached so many times, counts how often it is read, and is slow if told to."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0
        self.failures_of_run = 0
        self.reads = 0
        self.end = asyncio.Event()
        self.end.set()

    async def feed(self, **options: Any) -> Any:
        self.reads += 1
        if self.failures > 0:
            self.failures -= 1
            raise StoreError("the store cannot be reached")
        if options.get("run_id") is not None and self.failures_of_run > 0:
            self.failures_of_run -= 1
            raise StoreError("the store cannot be reached")
        return await super().feed(**options)

    async def feed_end(self) -> str:
        await self.end.wait()
        return await super().feed_end()


async def test_what_was_stored_comes_first_and_then_what_is_stored(store: Store):
    hub = Hub(store, every=NEVER)
    await say(store, "one", "two")
    with hub.follow() as follower:
        assert await hear(follower, 2) == ["one", "two"]
        await say(store, "three")
        hub.ring()
        assert await hear(follower, 1) == ["three"]
        place = follower.place
    await say(store, "four")
    with hub.follow(after=place) as follower:
        assert await hear(follower, 1) == ["four"]
    await hub.close()


async def test_nothing_is_lost_or_doubled_while_many_write_and_followers_come_and_go(store: Store):
    hub = Hub(store, every=SOON)
    writers, each = 4, 12

    async def write(writer: int) -> None:
        for number in range(each):
            await say(store, f"{writer}:{number}", run_id=f"run {writer}")

    async def follow(run_id: str | None, lifetime: int) -> list[str]:
        """Follow in short lives; each begins where the one before it ended."""
        words: list[str] = []
        place = None
        wanted = each if run_id else writers * each
        while len(words) < wanted:
            with hub.follow(run_id=run_id, after=place) as follower:
                for _ in range(lifetime):
                    news = await follower.news(within=SOON)
                    assert news is not None
                    words += words_of(news.events)
                place = follower.place
        return words

    follows = [follow(None, 1), follow(None, 3), follow("run 2", 1), follow("run 2", 5)]
    *_, all_one, all_three, some_one, some_five = await asyncio.gather(
        *(write(writer) for writer in range(writers)), *follows
    )
    whole = words_of(tuple(await store.feed(limit=1000)))
    assert len(whole) == writers * each
    assert all_one == whole
    assert all_three == whole
    assert some_one == some_five == [f"2:{number}" for number in range(each)]
    await hub.close()


async def test_what_another_process_stores_is_seen_without_a_ring(tmp_path: Path):
    ours, theirs = SqlStore(tmp_path / "hitl.db"), SqlStore(tmp_path / "hitl.db")
    hub = Hub(ours, every=SOON)
    with hub.follow(after=await ours.feed_end()) as follower:
        assert (await follower.news(within=SOON)) is not None
        await say(theirs, "from afar")
        assert await hear(follower, 1) == ["from afar"]
    await hub.close()
    await ours.close()
    await theirs.close()


async def test_those_who_follow_a_run_are_not_woken_by_others():
    store = Unreliable()
    hub = Hub(store, every=NEVER)
    with hub.follow(run_id="mine") as mine, hub.follow() as everything:
        await mine.news(within=AT_ONCE)
        await everything.news(within=AT_ONCE)
        await asyncio.sleep(0)
        await mine.news(within=AT_ONCE)  # the first look of the hub wakes everybody
        before = store.reads
        await say(store, "hello", run_id="theirs")
        hub.ring("theirs")
        assert await hear(everything, 1) == ["hello"]
        assert (await mine.news(within=AT_ONCE)) is not None
        assert store.reads - before <= 3  # twice the hub, once who follows everything
    await hub.close()


async def test_what_many_want_at_the_same_time_is_read_once():
    store = Unreliable()
    hub = Hub(store, every=NEVER)
    with hub.follow() as one, hub.follow() as two, hub.follow() as three:
        for _ in range(2):  # the first look of the hub wakes everybody
            for follower in (one, two, three):
                await follower.news(within=AT_ONCE)
            await asyncio.sleep(0)
        before = store.reads
        await say(store, "hello")
        hub.ring()
        heard = await asyncio.gather(hear(one, 1), hear(two, 1), hear(three, 1))
        assert heard == [["hello"]] * 3
        assert store.reads - before <= 3  # twice the hub, once for all of them
    await hub.close()


async def test_a_store_that_cannot_be_reached_is_waited_for():
    store = Unreliable()
    hub = Hub(store, every=SOON)
    with hub.follow() as follower:
        await follower.news(within=AT_ONCE)
        store.failures = 6
        await say(store, "after the storm")
        assert await hear(follower, 1) == ["after the storm"]
        assert store.failures == 0
    await hub.close()


async def test_a_read_that_fails_for_one_follower_only_is_made_up_for():
    store = Unreliable()
    hub = Hub(store, every=SOON)
    with hub.follow(run_id="run") as follower:
        for _ in range(3):  # the first look of the hub is over
            await follower.news(within=SOON)
        store.failures_of_run = 1
        await say(store, "hello")
        assert await hear(follower, 1) == ["hello"]
        assert store.failures_of_run == 0
    await hub.close()


async def test_what_comes_between_a_read_and_the_first_look_is_not_missed():
    store = Unreliable()
    hub = Hub(store, every=NEVER)
    for word in ("once", "and again"):  # whoever follows later is no worse off
        store.end.clear()
        with hub.follow(after=await MemoryStore.feed_end(store)) as follower:
            await follower.news(within=AT_ONCE)
            await say(store, word)
            store.end.set()
            assert await hear(follower, 1) == [word]
        await asyncio.sleep(0)
    await hub.close()


async def test_a_place_that_is_none_is_refused():
    hub = Hub(MemoryStore())
    with hub.follow(after="nowhere") as follower, pytest.raises(InvalidCursor):
        await follower.news(within=PATIENT)
    await hub.close()


async def test_without_news_the_wait_ends():
    hub = Hub(MemoryStore(), every=NEVER)
    with hub.follow() as follower:
        for _ in range(3):
            news = await follower.news(within=SOON)
            assert news is not None
            assert (news.events, news.text, news.more) == ((), "", False)
    await hub.close()


async def test_a_long_past_is_told_in_pages():
    store = MemoryStore()
    words = [f"{number}" for number in range(450)]
    await say(store, *words)
    hub = Hub(store)
    with hub.follow() as follower:
        heard, more = [], []
        while len(heard) < len(words):
            news = await follower.news(within=PATIENT)
            assert news is not None
            heard += words_of(news.events)
            more.append(news.more)
    assert heard == words
    assert more == [True, True, False]
    await hub.close()


async def test_closing_ends_those_who_wait_and_those_who_come_later():
    hub = Hub(MemoryStore(), every=NEVER)
    with hub.follow() as follower:
        await follower.news(within=AT_ONCE)
        waiting = asyncio.create_task(follower.news(within=NEVER))
        await asyncio.sleep(0)
        await hub.close()
        assert await waiting is None
    with hub.follow() as late:
        assert await late.news(within=NEVER) is None


async def test_nobody_looks_at_the_store_when_nobody_follows_it():
    store = Unreliable()
    hub = Hub(store, every=SOON)
    others = asyncio.all_tasks()
    for _ in range(3):
        with hub.follow() as follower:
            await follower.news(within=SOON)
    while asyncio.all_tasks() != others:  # noqa: ASYNC110 - there is no event for that
        await asyncio.sleep(0)
    assert hub.followers == 0
    before = store.reads
    hub.ring()
    await asyncio.sleep(0)
    assert store.reads == before


async def test_text_that_is_being_written_reaches_who_follows_that_run():
    hub = Hub(MemoryStore(), every=NEVER)
    hub.overhear("run", Delta(delta="nobody listens"))
    with hub.follow(run_id="run") as follower, hub.follow(run_id="other") as other:
        await follower.news(within=AT_ONCE)
        await other.news(within=AT_ONCE)
        for text in ("Once ", "", None, 7, "upon"):
            hub.overhear("run", Delta(delta=text))
        hub.overhear("run", Event())
        news = await follower.news(within=PATIENT)
        assert news is not None
        assert news.text == "Once upon"
        assert (await follower.news(within=SOON)).text == ""
        assert (await other.news(within=SOON)).text == ""
    await hub.close()


async def test_who_is_slow_to_read_what_is_written_keeps_its_end_only():
    hub = Hub(MemoryStore(), every=NEVER)
    with hub.follow(run_id="run") as follower:
        for number in range(300):
            hub.overhear("run", Delta(delta=f"{number:04}" * 250))
        news = await follower.news(within=AT_ONCE)
        assert news is not None
        assert len(news.text) == 64_000
        assert news.text.endswith("0299")
    await hub.close()


async def test_a_ring_is_heard_at_once():
    store = MemoryStore()
    hub = Hub(store, every=NEVER)
    with hub.follow() as follower:
        await follower.news(within=AT_ONCE)
        await asyncio.sleep(0)
        begun = time.monotonic()
        waiting = asyncio.create_task(hear(follower, 1))
        await say(store, "now")
        hub.ring()
        assert await waiting == ["now"]
        assert time.monotonic() - begun < 1
    await hub.close()
