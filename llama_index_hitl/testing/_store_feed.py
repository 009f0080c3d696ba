"""Tests of a store: the feed, claims, and who started a run."""

# ruff: noqa: S101 - these are tests, and they assert.

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from llama_index_hitl.audit import AuditKind
from llama_index_hitl.errors import Conflict, StoreError
from llama_index_hitl.stores.protocol import (
    Claim,
    Commit,
    FeedEvent,
    Progress,
    RequestQuery,
    RunQuery,
    Store,
)
from llama_index_hitl.testing._store_rows import (
    LATER,
    NOON,
    a_request,
    a_run,
    an_entry,
    some_progress,
)
from llama_index_hitl.testing._store_values import INSTANTS, JSON, TEXTS

_ABOUT_RUNS = {"started", "retried", "finished", "failed", "cancelled"}
_NEVER_TOLD = {
    "effect_begun",
    "effect_done",
    "effect_in_doubt",
    "effect_settled",
    "granted",
    "grant_used",
    "grant_revoked",
}


_TRIES = 1000
"""How often the feed is read, a hundredth of a second apart, until what is missing is lost."""


async def _followed(
    store: Store, *, run_id: str | None = None, after: str | None = None, limit: int = 100
) -> list[FeedEvent]:
    """Read on, a few at a time, to the end."""
    found: list[FeedEvent] = []
    while events := await store.feed(run_id=run_id, after=after, limit=limit):
        assert len(events) <= limit
        found += events
        after = events[-1].cursor
    return found


async def _fed(store: Store, count: int, **query: Any) -> list[FeedEvent]:
    """Read the feed until it tells of so much: it may lag while others write to the database."""
    for _ in range(_TRIES):
        if len(found := list(await store.feed(**query))) >= count:
            break
        await asyncio.sleep(0.01)
    return found


def _told(events: Sequence[FeedEvent]) -> list[tuple[str, str]]:
    return [(event.run_id, event.kind) for event in events]


class FeedTests:
    """The feed tells everything once and in order, to whoever reads on; claims come back."""

    async def test_an_empty_store_has_an_empty_feed(self, store: Store) -> None:
        assert list(await store.feed()) == []
        assert list(await store.feed(run_id="run")) == []
        assert list(await store.feed(after=await store.feed_end())) == []

    async def test_what_is_told_comes_back_as_it_was(self, store: Store, other: Store) -> None:
        await store.commit(
            Commit(
                audit=(an_entry("run", request_id="request", at=LATER),),
                progress=(Progress(run_id="run", at=NOON, data=JSON),),
            )
        )
        opened, said = await _fed(other, 2)
        assert opened == FeedEvent(
            cursor=opened.cursor, kind="opened", run_id="run", at=LATER, request_id="request"
        )
        assert said == FeedEvent(
            cursor=said.cursor, kind="progress", run_id="run", at=NOON, data=JSON
        )

    async def test_what_is_about_a_request_or_a_whole_run_is_told(self, store: Store) -> None:
        entries = [
            an_entry(kind, kind=kind, request_id=about)
            for kind in AuditKind
            for about in (None, "request")
        ]
        await store.commit(Commit(audit=tuple(entries)))
        wanted = [
            (entry.kind, entry.request_id)
            for entry in entries
            if entry.kind in _ABOUT_RUNS or (entry.request_id and entry.kind not in _NEVER_TOLD)
        ]
        found = await _fed(store, len(wanted), limit=2 * len(entries))
        assert [(event.kind, event.request_id) for event in found] == wanted

    async def test_a_commit_is_told_in_its_order_and_progress_last(self, store: Store) -> None:
        kinds = (AuditKind.OPENED, AuditKind.CLAIMED, AuditKind.ANSWERED)
        await store.commit(
            Commit(
                progress=(some_progress("a", text="1"), some_progress("b", text="2")),
                audit=tuple(
                    an_entry(run_id, kind=kind, request_id="request")
                    for kind in kinds
                    for run_id in ("b", "a")
                ),
            )
        )
        await store.commit(Commit(audit=(an_entry("a", kind=AuditKind.FINISHED),)))
        wanted = [(run_id, str(kind)) for kind in kinds for run_id in ("b", "a")]
        wanted += [("a", "progress"), ("b", "progress"), ("a", "finished")]
        assert _told(await _fed(store, len(wanted))) == wanted

    async def test_who_reads_on_gets_everything_once_and_in_order(
        self, store: Store, other: Store
    ) -> None:
        for number in range(9):
            await store.commit(
                Commit(
                    progress=tuple(
                        some_progress("abc"[(number + part) % 3], text=f"{number}.{part}")
                        for part in range(number % 3 + 1)
                    )
                )
            )
        said = [f"{number}.{part}" for number in range(9) for part in range(number % 3 + 1)]
        await _fed(store, len(said))
        whole = await _followed(store)
        assert [event.data["text"] for event in whole] == said
        for limit in (1, 2, 5, 18):
            assert await _followed(other, limit=limit) == whole
        for run_id in "abc":
            own = [event for event in whole if event.run_id == run_id]
            assert await _followed(other, run_id=run_id, limit=2) == own
        for place, event in enumerate(whole):
            rest = [later for later in whole[place + 1 :] if later.run_id == "a"]
            # A place in the whole feed is one in that of a run, too.
            assert await _followed(other, run_id="a", after=event.cursor, limit=3) == rest

    async def test_the_end_of_the_feed_is_behind_all_that_can_be_read(
        self, store: Store, other: Store
    ) -> None:
        nowhere = await store.feed_end()
        await store.commit(Commit(progress=(some_progress("a", text="1"),)))
        await _fed(other, 1)
        first = await other.feed_end()
        await store.commit(
            Commit(progress=(some_progress("a", text="2"), some_progress("b", text="3")))
        )
        assert [e.data["text"] for e in await _fed(other, 3, after=nowhere)] == ["1", "2", "3"]
        assert [e.data["text"] for e in await other.feed(after=first)] == ["2", "3"]
        assert [e.data["text"] for e in await other.feed(after=first, run_id="b")] == ["3"]
        last = await other.feed_end()
        assert list(await other.feed(after=last)) == []
        assert (await other.feed())[-1].cursor == last

    async def test_commits_at_the_same_time_are_each_told_once(
        self, store: Store, other: Store
    ) -> None:
        done = asyncio.Event()

        async def write(handle: Store, name: str) -> None:
            for number in range(10):
                said = (some_progress(name, text=f"{name}{number}"),)
                await handle.commit(Commit(progress=said, durable=False))

        async def write_all() -> None:
            await asyncio.gather(
                *(write(handle, f"{name}{i}") for name in "ab" for i, handle in enumerate(both))
            )
            done.set()

        async def follow() -> list[str]:
            found: list[str] = []
            after: str | None = None
            left = _TRIES
            while True:
                was_done = done.is_set()
                events = await other.feed(after=after, limit=7)
                await asyncio.sleep(0)  # a store that never waits lets nobody else go on
                found += [str(event.data["text"]) for event in events]
                if events:
                    after = events[-1].cursor
                elif was_done and (len(found) == everything or not (left := left - 1)):
                    return found
                elif was_done:
                    await asyncio.sleep(0.01)

        both = (store, other)
        everything = 2 * len(both) * 10
        told, _ = await asyncio.gather(follow(), write_all())
        assert sorted(told) == sorted(
            f"{name}{i}{number}" for name in "ab" for i in range(2) for number in range(10)
        )
        for name in ("a0", "a1", "b0", "b1"):
            own = [text for text in told if text.startswith(name)]
            assert own == [f"{name}{number}" for number in range(10)]

    async def test_a_commit_that_fails_is_told_to_nobody(self, store: Store) -> None:
        await store.commit(Commit(run=a_run("there")))
        for failing in (
            Commit(run=a_run("there"), progress=(some_progress(),)),
            Commit(run=a_run("there"), audit=(an_entry(request_id="request"),)),
        ):
            with pytest.raises(Conflict):
                await store.commit(failing)
        for said in (
            Progress(run_id="run", at=NOON.replace(tzinfo=None), data={}),
            Progress(run_id="run", at=NOON, data={"number": float("nan")}),
            Progress(run_id="run", at=NOON, data={"what": {1, 2}}),  # type: ignore[dict-item]
        ):
            with pytest.raises(StoreError):
                await store.commit(Commit(run=a_run("new"), progress=(said,)))
        assert list(await store.feed()) == []
        assert await store.run("new") is None

    async def test_progress_that_need_not_be_durable_is_seen_at_once(
        self, store: Store, other: Store
    ) -> None:
        await store.commit(Commit(progress=(some_progress(text="1"),), durable=False))
        assert [event.data["text"] for event in await _fed(other, 1)] == ["1"]

    async def test_instants_of_the_feed_and_of_claims_come_back(self, store: Store) -> None:
        for name, at in INSTANTS.items():
            claimed = replace(a_request(name), claim=Claim(by="a", until=at))
            said = Progress(run_id="run", at=at, data={})
            await store.commit(Commit(requests=(claimed,), progress=(said,)))
            found = await store.request(name)
            assert found is not None
            assert found.claim == claimed.claim
        events = await _fed(store, len(INSTANTS))
        assert [event.at for event in events] == list(INSTANTS.values())
        assert all(event.at.tzinfo is not None for event in events)

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
    async def test_a_feed_and_runs_are_found_by_exactly_their_text(
        self, store: Store, text: str
    ) -> None:
        await store.commit(Commit(run=a_run("other"), progress=(some_progress("other"),)))
        said, claim = some_progress(text[:200], text=text), Claim(by=text, until=NOON)
        commit = Commit(
            run=a_run(started_by=text[:200]),
            requests=(replace(a_request(), claim=claim),),
            progress=(said,),
        )
        try:
            await store.commit(commit)
        except Conflict:
            raise
        except StoreError:
            assert not text.isprintable()
            assert list(await store.feed(run_id=text)) == []
            assert len(await store.runs(RunQuery(started_by=text))) == 0
            return
        (event,) = await _fed(store, 1, run_id=text[:200])
        assert (event.run_id, event.data["text"]) == (text[:200], text)
        (run,) = await store.runs(RunQuery(started_by=text[:200]))
        assert run.started_by == text[:200]
        request = await store.request("request")
        assert request is not None
        assert request.claim == claim

    async def test_what_is_stored_of_the_feed_cannot_be_changed_from_outside(
        self, store: Store
    ) -> None:
        given: dict[str, Any] = {"a": [1]}
        await store.commit(Commit(progress=(Progress(run_id="run", at=NOON, data=given),)))
        given["a"].append(2)
        for _ in range(2):
            (event,) = await _fed(store, 1)
            assert event.data == {"a": [1]}
            event.data["b"] = 1

    @pytest.mark.parametrize("after", ["", "x", "W10=", "[]", "WyJmZWVkIiwgIngiLCAxXQ=="])
    async def test_what_is_no_place_in_the_feed_is_refused(self, store: Store, after: str) -> None:
        with pytest.raises(StoreError) as caught:
            await store.feed(after=after)
        assert isinstance(caught.value, ValueError)

    async def test_the_end_of_a_list_is_no_place_in_the_feed(self, store: Store) -> None:
        for name in ("a", "b"):
            await store.commit(Commit(run=a_run(name), progress=(some_progress(name),)))
        page = await store.runs(RunQuery(limit=1))
        assert page.after is not None
        with pytest.raises(StoreError):
            await store.feed(after=page.after)
        with pytest.raises(StoreError):
            await store.runs(RunQuery(after=await store.feed_end()))

    # ----------------------------------------------------------------------- claims

    async def test_a_claim_comes_back_with_its_request(self, store: Store, other: Store) -> None:
        claimed = replace(a_request(), claim=Claim(by="ann", until=LATER))
        await store.commit(Commit(requests=(claimed, a_request("free"))))
        assert await other.request("request") == replace(claimed, revision=1)
        free = await other.request("free")
        assert free is not None
        assert free.claim is None
        listed = await other.requests(RequestQuery())
        assert [stored.claim for stored in listed] == [None, claimed.claim]
        await store.commit(Commit(requests=(a_request(revision=1, next_due=NOON),)))
        (due,) = await other.due(NOON)
        assert due.claim is None

    async def test_a_claim_is_as_much_a_change_as_any(self, store: Store) -> None:
        await store.commit(Commit(requests=(a_request(),)))
        claimed = replace(a_request(revision=1), claim=Claim(by="ann", until=LATER))
        await store.commit(Commit(requests=(claimed,)))
        late = replace(claimed, claim=Claim(by="bob", until=LATER))
        with pytest.raises(Conflict):
            await store.commit(Commit(requests=(late,)))
        found = await store.request("request")
        assert found is not None
        assert (found.claim, found.revision) == (claimed.claim, 2)

    # ----------------------------------------------------------------------- who started a run

    async def test_runs_are_found_by_who_started_them_the_newest_first(self, store: Store) -> None:
        runs = [
            a_run(
                f"{number:02}",
                started_by=("ann", "Ann", None)[number % 3],
                tags=("t",) if number % 2 else (),
                created_at=NOON + timedelta(seconds=number % 4),
            )
            for number in range(12)
        ]
        for run in runs:
            await store.commit(Commit(run=run))
        runs.sort(key=lambda run: (-run.created_at.timestamp(), run.run_id))
        for query in (RunQuery(started_by="ann"), RunQuery(started_by="ann", tag="t")):
            wanted = [
                replace(run, revision=1)
                for run in runs
                if run.started_by == "ann" and (query.tag is None or query.tag in run.tags)
            ]
            assert list(await store.runs(query)) == wanted
            assert len(wanted) > 1
            first = await store.runs(replace(query, limit=1))
            rest = await store.runs(replace(query, after=first.after))
            assert [*first, *rest] == wanted
        assert len(await store.runs(RunQuery(started_by="zoe"))) == 0
        assert len(await store.runs(RunQuery())) == len(runs)
