"""Tests of a store: what is to be done next, and from which instant on."""

# ruff: noqa: S101 - these are tests, and they assert.

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta, timezone

import pytest

from llama_index_hitl.stores.protocol import Commit, RunStatus, Store
from llama_index_hitl.testing._store_rows import (
    LATER,
    NEVER,
    NOON,
    a_message,
    a_notice,
    a_request,
    a_run,
    an_effect,
)

TICK = timedelta(microseconds=1)
ELSEWHERE = timezone(timedelta(hours=-5))


class QueueTests:
    """Messages, runs to advance, deadlines, notices and effects."""

    # ----------------------------------------------------------------------- messages

    async def test_messages_of_a_run_come_in_the_order_in_which_they_were_stored(
        self, store: Store, other: Store
    ) -> None:
        names = ["z", "a", "m", "B", "y"]
        await store.commit(Commit(messages=tuple(map(a_message, names[:3]))))
        await other.commit(Commit(messages=(a_message("of another", run_id="another"),)))
        await other.commit(Commit(messages=(a_message(names[3]),)))
        await store.commit(Commit(messages=(a_message(names[4]),)))
        for handle in (store, other):
            assert [message.message_id for message in await handle.messages("run")] == names

    async def test_messages_that_were_applied_are_gone_and_the_rest_keep_their_order(
        self, store: Store
    ) -> None:
        await store.commit(Commit(messages=tuple(map(a_message, "dcba"))))
        await store.commit(Commit(applied=("c",)))
        await store.commit(Commit(applied=("a",), messages=(a_message("0"), a_message("c"))))
        assert [message.message_id for message in await store.messages("run")] == list("db0c")
        await store.commit(Commit(applied=tuple("db0c")))
        await store.commit(Commit(messages=(a_message("z"), a_message("a"))))
        assert [message.message_id for message in await store.messages("run")] == ["z", "a"]

    async def test_no_message_is_lost_where_many_are_stored_and_applied(
        self, store: Store, other: Store
    ) -> None:
        applied: list[str] = []

        async def tell(number: int) -> None:
            handle = (store, other)[number % 2]
            for place in range(5):
                await handle.commit(Commit(messages=(a_message(f"{number} {place}"),)))

        async def apply() -> None:
            while len(applied) < 20:
                waiting = [message.message_id for message in await store.messages("run")]
                await store.commit(Commit(applied=tuple(waiting)))
                applied.extend(waiting)
                await asyncio.sleep(0)  # a store in memory never lets the others go on

        await asyncio.wait_for(asyncio.gather(apply(), *map(tell, range(4))), 30)
        assert sorted(applied) == sorted(f"{n} {place}" for n in range(4) for place in range(5))
        for number in range(4):
            ours = [name for name in applied if name.startswith(f"{number} ")]
            assert ours == sorted(ours)

    # ----------------------------------------------------------------------- ready

    @pytest.mark.parametrize("status", RunStatus)
    async def test_of_runs_with_messages_those_that_wait_are_ready(
        self, store: Store, status: RunStatus
    ) -> None:
        told = a_run("told", status=status, lease_until=LATER)
        await store.commit(Commit(run=told, messages=(a_message(run_id="told"),)))
        await store.commit(Commit(run=a_run("not told", status=status, lease_until=LATER)))
        assert list(await store.ready(NOON)) == (["told"] if status is RunStatus.WAITING else [])
        await store.commit(Commit(applied=("message",)))
        assert list(await store.ready(NOON)) == []

    async def test_running_runs_are_ready_from_the_instant_at_which_their_lease_ends(
        self, store: Store
    ) -> None:
        leased = a_run("leased", status=RunStatus.RUNNING, lease_owner="me", lease_until=LATER)
        await store.commit(Commit(run=leased))
        await store.commit(Commit(run=a_run("free", status=RunStatus.RUNNING, updated_at=LATER)))
        assert list(await store.ready(LATER - TICK)) == ["free"]
        assert list(await store.ready(LATER.astimezone(ELSEWHERE))) == ["leased", "free"]
        await store.commit(
            Commit(run=replace(leased, revision=1, lease_until=LATER + timedelta(hours=1)))
        )
        assert list(await store.ready(LATER)) == ["free"]

    @pytest.mark.parametrize(
        "status", [status for status in RunStatus if status is not RunStatus.RUNNING]
    )
    async def test_a_lease_that_ended_matters_to_running_runs_only(
        self, store: Store, status: RunStatus
    ) -> None:
        await store.commit(Commit(run=a_run(status=status, lease_until=NOON - TICK)))
        assert list(await store.ready(NOON)) == []

    async def test_a_message_without_a_run_makes_nothing_ready(self, store: Store) -> None:
        await store.commit(Commit(messages=(a_message(),)))
        assert list(await store.ready(NEVER)) == []

    async def test_runs_are_ready_oldest_first_then_by_id_each_once(self, store: Store) -> None:
        wanted = [
            a_run("z", updated_at=NOON - TICK, created_at=LATER),
            a_run("B", status=RunStatus.RUNNING),
            a_run("a"),
            a_run("ä", status=RunStatus.RUNNING),
            a_run("A", updated_at=NOON + TICK),
        ]
        for run in reversed(wanted):
            messages = [a_message(f"{run.run_id} {n}", run_id=run.run_id) for n in range(3)]
            await store.commit(Commit(run=run, messages=tuple(messages)))
        names = [run.run_id for run in wanted]
        assert list(await store.ready(NOON)) == names
        for limit in (1, 3, 5):
            assert list(await store.ready(NOON, limit=limit)) == names[:limit]

    # ----------------------------------------------------------------------- due

    async def test_open_requests_are_due_from_their_instant_on(self, store: Store) -> None:
        await store.commit(
            Commit(
                requests=(
                    a_request("due", next_due=LATER),
                    a_request("never"),
                    a_request("closed", next_due=LATER, is_open=False),
                )
            )
        )
        assert not await store.due(LATER - TICK)
        (due,) = await store.due(LATER.astimezone(ELSEWHERE))
        assert due == a_request("due", next_due=LATER, revision=1)
        await store.commit(Commit(requests=(replace(due, next_due=LATER + TICK),)))
        assert not await store.due(LATER)
        assert [request.request_id for request in await store.due(LATER + TICK)] == ["due"]

    async def test_the_longest_overdue_comes_first_then_by_id(self, store: Store) -> None:
        wanted = [
            a_request("z", next_due=NOON - TICK, priority="low"),
            a_request("B", next_due=NOON),
            a_request("a", next_due=NOON, priority="urgent"),
            a_request("ä", next_due=NOON),
            a_request("A", next_due=NOON + TICK),
        ]
        await store.commit(Commit(requests=tuple(reversed(wanted))))
        names = [request.request_id for request in wanted]
        for limit in (1, 3, 5, 100):
            due = await store.due(NOON + TICK, limit=limit)
            assert [request.request_id for request in due] == names[:limit]

    # ----------------------------------------------------------------------- notices

    async def test_notices_are_given_from_their_instant_on_until_they_are_told(
        self, store: Store
    ) -> None:
        await store.commit(Commit(notices=(a_notice(due=LATER),)))
        assert not await store.notices(LATER - TICK)
        (notice,) = await store.notices(LATER.astimezone(ELSEWHERE))
        assert notice == a_notice(due=LATER, revision=1)
        failed = replace(notice, due=LATER + TICK, attempts=1)
        await store.commit(Commit(notices=(failed,)))
        assert not await store.notices(LATER)
        assert list(await store.notices(LATER + TICK)) == [replace(failed, revision=2)]
        await store.commit(Commit(told=("notice",)))
        assert not await store.notices(NEVER)

    async def test_notices_come_longest_overdue_first_then_as_they_were_stored(
        self, store: Store
    ) -> None:
        await store.commit(
            Commit(
                notices=(
                    a_notice("z", due=NOON + TICK),
                    a_notice("y"),
                    a_notice("c"),
                    a_notice("a", due=NOON - TICK),
                )
            )
        )
        await store.commit(Commit(notices=(a_notice("b"), a_notice("y", revision=1, attempts=1))))
        names = ["a", "y", "c", "b", "z"]
        for limit in (1, 3, 5, 100):
            found = await store.notices(LATER, limit=limit)
            assert [notice.notice_id for notice in found] == names[:limit]

    # ----------------------------------------------------------------------- effects

    async def test_effects_are_found_by_run_and_status_by_time_then_by_key(
        self, store: Store
    ) -> None:
        wanted = [
            an_effect("z", at=NOON - TICK, run_id="a"),
            an_effect("B", run_id="b", status="done"),
            an_effect("a", run_id="a", status="done"),
            an_effect("ä", run_id="b"),
            an_effect("A", run_id="a", at=NOON + TICK),
        ]
        await store.commit(Commit(effects=tuple(reversed(wanted))))
        for run_id in (None, "a", "b", "c"):
            for status in (None, "begun", "done"):
                found = await store.effects(run_id=run_id, status=status)
                assert [effect.key for effect in found] == [
                    effect.key
                    for effect in wanted
                    if run_id in (None, effect.run_id) and status in (None, effect.status)
                ]

    async def test_an_effect_that_is_done_is_no_longer_begun(self, store: Store) -> None:
        await store.commit(Commit(effects=(an_effect(),)))
        assert [effect.key for effect in await store.effects(status="begun")] == ["effect"]
        done = an_effect(revision=1, status="done", at=LATER, result=b"1")
        await store.commit(Commit(effects=(done,)))
        assert not await store.effects(status="begun")
        assert list(await store.effects(status="done")) == [replace(done, revision=2)]
