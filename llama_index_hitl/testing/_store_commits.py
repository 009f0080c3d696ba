"""Tests of a store: all of a commit is stored, or nothing, and only if nobody was faster."""

# ruff: noqa: S101 - these are tests, and they assert.

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from llama_index_hitl.audit import AuditKind, AuditRow
from llama_index_hitl.errors import Conflict, StoreError
from llama_index_hitl.stores.protocol import (
    Commit,
    GrantQuery,
    Progress,
    RequestQuery,
    RunQuery,
    RunStatus,
    Store,
)
from llama_index_hitl.testing._store_rows import (
    KINDS,
    LATER,
    NEVER,
    NOON,
    Kind,
    a_grant,
    a_message,
    a_notice,
    a_request,
    a_run,
    an_effect,
    an_entry,
    some_progress,
)

every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)

WHOLE = Commit(
    run=a_run("run", tags=("t",)),
    requests=(a_request("r1", reviewers=("ann",), tags=("t",)), a_request("r2")),
    messages=(a_message("m1"), a_message("m2")),
    effects=(an_effect("e1"), an_effect("e2")),
    grants=(a_grant("g1"), a_grant("g2")),
    notices=(a_notice("n1"), a_notice("n2")),
    audit=(
        an_entry("run", request_id="r1"),
        an_entry("run", kind=AuditKind.ANSWERED),
        an_entry("other"),
    ),
    progress=(some_progress("run"), some_progress("other")),
)
"""A commit with some of everything."""

THERE = Commit(
    run=a_run("run there"),
    requests=(a_request("request there"),),
    messages=(a_message("message there", run_id="old"),),
    effects=(an_effect("effect there", run_id="old"),),
    grants=(a_grant("grant there"),),
    notices=(a_notice("notice there", run_id="old"),),
    audit=(an_entry("old"),),
)
"""What is stored before `WHOLE`."""

FAILING = {
    "a run that is there": {"run": a_run("run there")},
    "a run that is not": {"run": a_run("run", revision=1)},
    "a run that was changed": {"run": a_run("run there", revision=2)},
    "a request that is there": {"requests": (*WHOLE.requests, a_request("request there"))},
    "a request that is not": {"requests": (*WHOLE.requests, a_request("r3", revision=1))},
    "a request that was changed": {
        "requests": (a_request("request there", revision=2), *WHOLE.requests)
    },
    "a request twice": {"requests": (*WHOLE.requests, *WHOLE.requests)},
    "a request changed twice": {"requests": (a_request("request there", revision=1),) * 2},
    "a message that is there": {"messages": (*WHOLE.messages, a_message("message there"))},
    "a message twice": {"messages": (*WHOLE.messages, *WHOLE.messages)},
    "an effect that is there": {"effects": (*WHOLE.effects, an_effect("effect there"))},
    "an effect that is not": {"effects": (*WHOLE.effects, an_effect("e3", revision=1))},
    "an effect that was changed": {"effects": (an_effect("effect there", revision=2),)},
    "an effect twice": {"effects": (*WHOLE.effects, *WHOLE.effects)},
    "a grant that is there": {"grants": (*WHOLE.grants, a_grant("grant there"))},
    "a grant that is not": {"grants": (*WHOLE.grants, a_grant("g3", revision=1))},
    "a grant that was changed": {"grants": (a_grant("grant there", revision=2),)},
    "a grant twice": {"grants": (*WHOLE.grants, *WHOLE.grants)},
    "a notice that is there": {"notices": (*WHOLE.notices, a_notice("notice there"))},
    "a notice that is not": {"notices": (*WHOLE.notices, a_notice("n3", revision=1))},
    "a notice that was changed": {"notices": (a_notice("notice there", revision=2),)},
    "a notice twice": {"notices": (*WHOLE.notices, *WHOLE.notices)},
}
"""Parts that make `WHOLE` a conflict with `THERE`."""

_NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001 - what must be refused

UNSTORABLE = {
    "a run without a time zone": {"run": a_run("run", updated_at=_NAIVE)},
    "a lease without a time zone": {"run": a_run("run", lease_until=_NAIVE)},
    "a request without a time zone": {"requests": (a_request("r1", next_due=_NAIVE),)},
    "an effect without a time zone": {"effects": (an_effect("e1", at=_NAIVE),)},
    "a notice without a time zone": {"notices": (a_notice("n1", due=_NAIVE),)},
    "a message that is no JSON": {"messages": (a_message("m1", payload={"a": object()}),)},
    "a message with a NaN": {"messages": (a_message("m1", payload={"a": float("nan")}),)},
    "a notice that is no JSON": {"notices": (a_notice("n1", payload={"a": {1}}),)},
    "progress without a time zone": {"progress": (Progress(run_id="run", at=_NAIVE, data={}),)},
    "progress that is no JSON": {"progress": (some_progress(text=object()),)},
    "an error that is no JSON": {"run": a_run("run", error={"a": b""})},
}
"""Parts that no store can hold."""


async def everything(store: Store) -> list[Any]:
    """Return all that `WHOLE` and `THERE` could have written."""
    keys = ("run", "run there", "old", "other")
    return [
        [await store.run(run_id, whole=True) for run_id in keys],
        list(await store.requests(RequestQuery(open=None))),
        list(await store.requests(RequestQuery(entries=("ann",)))),
        list(await store.requests(RequestQuery(tag="t"))),
        [list(await store.messages(run_id)) for run_id in keys],
        list(await store.effects()),
        list(await store.grants(GrantQuery())),
        list(await store.notices(NEVER)),
        [list(await store.audit(run_id)) for run_id in keys],
        list(await store.feed()),
    ]


async def outcomes(*attempts: Awaitable[None]) -> list[bool]:
    """Run commits at the same time; tell which were stored. Others must be conflicts."""
    done = await asyncio.gather(*attempts, return_exceptions=True)
    for outcome in done:
        if outcome is not None and not isinstance(outcome, Conflict):
            raise outcome
    return [outcome is None for outcome in done]


def assert_chained(rows: list[AuditRow], run_id: str) -> None:
    """Assert that these are all the rows of a run, in order, and unchanged."""
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    assert [row.previous for row in rows] == ["", *(row.hash for row in rows)][: len(rows)]
    assert all(row.hash == row.actual_hash() for row in rows)
    assert {row.entry.run_id for row in rows} <= {run_id}


class CommitTests:
    """Compare-and-set, all or nothing, at the same time, for good."""

    # ----------------------------------------------------------------------- compare and set

    @every_kind
    async def test_a_new_row_is_stored_at_revision_1(self, store: Store, kind: Kind) -> None:
        assert await kind.found(store, "a") is None
        await store.commit(kind.put("a", 0, "first"))
        assert await kind.found(store, "a") == (1, "first")
        assert await kind.found(store, "b") is None

    @every_kind
    async def test_a_row_that_is_as_it_was_read_is_changed(self, store: Store, kind: Kind) -> None:
        await store.commit(kind.put("a", 0, "first"))
        await store.commit(kind.put("b", 0, "other"))
        for revision in (1, 2, 3):
            await store.commit(kind.put("a", revision, f"change {revision}"))
            assert await kind.found(store, "a") == (revision + 1, f"change {revision}")
        assert await kind.found(store, "b") == (1, "other")

    @every_kind
    async def test_a_new_row_that_is_there_is_a_conflict(self, store: Store, kind: Kind) -> None:
        await store.commit(kind.put("a", 0, "first"))
        with pytest.raises(Conflict):
            await store.commit(kind.put("a", 0, "second"))
        assert await kind.found(store, "a") == (1, "first")

    @every_kind
    async def test_a_change_of_a_row_that_is_not_there_is_a_conflict(
        self, store: Store, kind: Kind
    ) -> None:
        with pytest.raises(Conflict):
            await store.commit(kind.put("a", 1, "second"))
        assert await kind.found(store, "a") is None

    @every_kind
    @pytest.mark.parametrize("read_at", [1, 3])
    async def test_a_change_of_a_row_that_was_changed_is_a_conflict(
        self, store: Store, kind: Kind, read_at: int
    ) -> None:
        await store.commit(kind.put("a", 0, "first"))
        await store.commit(kind.put("a", 1, "second"))
        with pytest.raises(Conflict):
            await store.commit(kind.put("a", read_at, "third"))
        assert await kind.found(store, "a") == (2, "second")

    async def test_a_conflict_is_a_store_error_that_names_the_row(self, store: Store) -> None:
        with pytest.raises(StoreError, match="the-run"):
            await store.commit(Commit(run=a_run("the-run", revision=3)))

    async def test_a_message_id_is_free_again_when_the_message_is_taken_out(
        self, store: Store
    ) -> None:
        await store.commit(Commit(messages=(a_message("m", payload={"n": 1}),)))
        with pytest.raises(Conflict):
            await store.commit(Commit(messages=(a_message("m", run_id="another"),)))
        await store.commit(
            Commit(applied=("m",), messages=(a_message("m", payload={"n": 2}),)),
        )
        assert [message.payload for message in await store.messages("run")] == [{"n": 2}]

    async def test_a_notice_id_is_free_again_when_the_notice_is_taken_out(
        self, store: Store
    ) -> None:
        await store.commit(Commit(notices=(a_notice("n", attempts=4),)))
        await store.commit(Commit(told=("n",), notices=(a_notice("n", attempts=5),)))
        (notice,) = await store.notices(NOON)
        assert (notice.attempts, notice.revision) == (5, 1)

    async def test_what_is_to_be_taken_out_need_not_be_there(self, store: Store) -> None:
        await store.commit(Commit(messages=(a_message("m"),), notices=(a_notice("n"),)))
        await store.commit(Commit(applied=("x", "m", "y", "m"), told=("x", "n", "y", "n")))
        assert not await store.messages("run")
        assert not await store.notices(NEVER)

    # ----------------------------------------------------------------------- all or nothing

    async def test_a_commit_stores_all_of_its_parts(self, store: Store) -> None:
        await store.commit(WHOLE)
        assert (await store.run("run")) == replace(a_run("run", tags=("t",)), revision=1)
        assert {r.request_id for r in await store.requests(RequestQuery())} == {"r1", "r2"}
        assert [message.message_id for message in await store.messages("run")] == ["m1", "m2"]
        assert [effect.key for effect in await store.effects()] == ["e1", "e2"]
        assert [grant.grant_id for grant in await store.grants(GrantQuery())] == ["g1", "g2"]
        assert [notice.notice_id for notice in await store.notices(NOON)] == ["n1", "n2"]
        assert [len(await store.audit(run_id)) for run_id in ("run", "other")] == [2, 1]
        assert [event.run_id for event in await store.feed()] == ["run", "run", "other"]

    async def test_an_empty_commit_stores_nothing(self, store: Store) -> None:
        before = await everything(store)
        await store.commit(Commit())
        assert await everything(store) == before

    @pytest.mark.parametrize("parts", FAILING.values(), ids=FAILING)
    async def test_nothing_is_stored_if_one_part_conflicts(
        self, store: Store, parts: dict[str, Any]
    ) -> None:
        await store.commit(THERE)
        before = await everything(store)
        failing = replace(WHOLE, **parts)
        if not parts.keys() & {"messages", "notices"}:  # else that part would be no conflict
            failing = replace(failing, applied=("message there",), told=("notice there",))
        with pytest.raises(Conflict):
            await store.commit(failing)
        assert await everything(store) == before
        await store.commit(WHOLE)  # nor is anything left locked

    @pytest.mark.parametrize("parts", UNSTORABLE.values(), ids=UNSTORABLE)
    async def test_nothing_is_stored_if_one_part_cannot_be(
        self, store: Store, parts: dict[str, Any]
    ) -> None:
        await store.commit(THERE)
        before = await everything(store)
        with pytest.raises(StoreError) as caught:
            await store.commit(
                replace(WHOLE, applied=("message there",), told=("notice there",), **parts)
            )
        assert not isinstance(caught.value, Conflict)
        assert await everything(store) == before
        await store.commit(WHOLE)

    # ----------------------------------------------------------------------- what is left out

    @pytest.mark.parametrize("part", ["start", "snapshot", "result"])
    async def test_bytes_that_are_none_are_left_as_they_are_stored(
        self, store: Store, part: str
    ) -> None:
        await store.commit(Commit(run=a_run(start=b"1", snapshot=b"2", result=b"3")))
        changed: dict[str, Any] = {part: b"new"}
        await store.commit(Commit(run=a_run(revision=1, **changed)))
        await store.commit(Commit(run=a_run(revision=2, status=RunStatus.FINISHED)))
        run = await store.run("run", whole=True)
        expected: dict[str, Any] = {"start": b"1", "snapshot": b"2", "result": b"3", part: b"new"}
        assert run == a_run(revision=3, status=RunStatus.FINISHED, **expected)

    async def test_a_new_run_has_no_bytes_unless_they_are_given(self, store: Store) -> None:
        await store.commit(Commit(run=a_run(start=b"")))
        assert await store.run("run", whole=True) == a_run(revision=1, start=b"")
        await store.commit(Commit(run=a_run(revision=1, snapshot=b"")))
        assert await store.run("run", whole=True) == a_run(revision=2, start=b"", snapshot=b"")

    async def test_everything_else_of_a_row_is_written_anew(self, store: Store) -> None:
        first = a_run(
            version="1",
            tags=("a", "b"),
            lease_owner="me",
            lease_until=NOON,
            attempts=3,
            error={"type": "KeyError"},
        )
        await store.commit(Commit(run=first, effects=(an_effect(result=b"1"),)))
        await store.commit(Commit(run=a_run(revision=1), effects=(an_effect(revision=1),)))
        assert await store.run("run") == a_run(revision=2)
        assert await store.effect("effect") == an_effect(revision=2)

    # ----------------------------------------------------------------------- at the same time

    @every_kind
    @pytest.mark.parametrize("read_at", [0, 1])
    @pytest.mark.parametrize("told", ["nobody", "the audit trail"])
    async def test_of_many_changes_at_the_same_time_one_is_stored(
        self, store: Store, other: Store, kind: Kind, read_at: int, told: str
    ) -> None:
        if read_at:
            await store.commit(kind.put("a", 0, "first"))
        audited = told == "the audit trail"  # without it nothing else makes the commits wait
        commits = [
            replace(
                kind.put("a", read_at, f"change {number}"),
                audit=(an_entry("race", reason=f"change {number}"),) if audited else (),
            )
            for number in range(12)
        ]
        stored = await outcomes(
            *((store, other)[number % 2].commit(each) for number, each in enumerate(commits))
        )
        assert sum(stored) == 1
        winner = f"change {stored.index(True)}"
        assert await kind.found(store, "a") == (read_at + 1, winner)
        trail = [row.entry.reason for row in await other.audit("race")]
        assert trail == ([winner] if audited else [])

    async def test_of_many_messages_with_one_id_one_is_stored(
        self, store: Store, other: Store
    ) -> None:
        stored = await outcomes(
            *(
                (store, other)[number % 2].commit(Commit(messages=(a_message(run_id=f"{number}"),)))
                for number in range(12)
            )
        )
        assert sum(stored) == 1
        found = [len(await store.messages(f"{number}")) for number in range(12)]
        assert [bool(count) for count in found] == stored

    async def test_the_audit_trail_has_no_gap_when_many_write_it(
        self, store: Store, other: Store
    ) -> None:
        commits = [
            Commit(
                requests=(a_request(f"r{number}"),),
                audit=(an_entry("run", reason=f"{number}a"), an_entry("run", reason=f"{number}b")),
            )
            for number in range(20)
        ]
        await asyncio.gather(
            *((store, other)[number % 2].commit(each) for number, each in enumerate(commits))
        )
        rows = list(await store.audit("run"))
        assert_chained(rows, "run")
        reasons = [row.entry.reason for row in rows]
        assert sorted(reasons) == sorted(f"{number}{part}" for number in range(20) for part in "ab")
        assert [a[:-1] for a in reasons[::2]] == [b[:-1] for b in reasons[1::2]]

    async def test_what_was_committed_is_seen_elsewhere_at_once(
        self, store: Store, other: Store
    ) -> None:
        for number in range(5):
            await store.commit(Commit(run=a_run(f"{number}"), messages=(a_message(f"{number}"),)))
            assert await other.run(f"{number}") is not None
            assert len(await other.messages("run")) == number + 1

    async def test_a_read_gives_what_one_commit_left(self, store: Store, other: Store) -> None:
        await store.commit(Commit(run=a_run(start=b"0", snapshot=b"0", fingerprint="0")))

        async def write() -> None:
            for revision in range(1, 30):
                mark = f"{revision}".encode()
                changed = a_run(
                    revision=revision, start=mark, snapshot=mark, fingerprint=f"{revision}"
                )
                await store.commit(Commit(run=changed))

        async def read() -> None:
            for _ in range(60):
                run = await other.run("run", whole=True)
                assert run is not None
                mark = run.fingerprint.encode()
                assert (run.start, run.snapshot, run.revision) == (mark, mark, int(mark) + 1)

        await asyncio.gather(write(), read(), read())

    # ----------------------------------------------------------------------- for good

    async def test_what_was_committed_outlives_the_store(self, store: Store, other: Store) -> None:
        await store.commit(WHOLE)
        before = await everything(store)
        if other is store:
            pytest.skip("This store has no second handle: its data ends with it.")
        await store.close()
        assert await everything(other) == before

    async def test_a_closed_store_refuses_everything(self, store: Store) -> None:
        await store.commit(WHOLE)
        await store.close()
        calls = (
            store.commit(Commit(run=a_run("another"))),
            store.run("run"),
            store.request("r1"),
            store.requests(RequestQuery()),
            store.runs(RunQuery()),
            store.messages("run"),
            store.ready(LATER),
            store.due(LATER),
            store.effect("e1"),
            store.effects(),
            store.grant("g1"),
            store.grants(GrantQuery()),
            store.notices(LATER),
            store.audit("run"),
            store.feed(),
            store.feed_end(),
        )
        for call in calls:
            with pytest.raises(StoreError, match="closed"):
                await call
