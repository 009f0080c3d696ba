"""What a read or a commit costs does not depend on what is stored beside it.

Measured in steps of SQLite's virtual machine, which are the same on every machine, and by the plan
of every statement that is run.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool

from llama_index_hitl.models import GrantTerms
from llama_index_hitl.stores import (
    Commit,
    GrantQuery,
    RequestQuery,
    RunQuery,
    RunStatus,
    SqlStore,
)
from llama_index_hitl.testing._store_rows import (
    LATER,
    NOON,
    a_grant,
    a_message,
    a_notice,
    a_request,
    a_run,
    an_effect,
    an_entry,
    some_progress,
)

_GRAIN = 10
"""Steps between two counts."""


@dataclass
class Watched:
    """What SQLite did."""

    statements: list[str] = field(default_factory=list)
    steps: int = 0

    def count(self) -> int:
        self.steps += _GRAIN
        return 0  # go on


@contextmanager
def watching() -> Iterator[Watched]:
    """Watch every connection that is opened in the block."""
    watched = Watched()

    def watch(connection: sqlite3.Connection, _record: object) -> None:
        connection.set_trace_callback(watched.statements.append)
        connection.set_progress_handler(watched.count, _GRAIN)

    event.listen(Pool, "connect", watch)
    try:
        yield watched
    finally:
        event.remove(Pool, "connect", watch)


async def fill(store: SqlStore, count: int) -> None:
    """Store what ann and her run have, and so much of everything beside it."""
    for number in range(3):
        ours = {"reviewers": ("ann", "role:legal"), "tags": ("ours",), "workflow": "ours"}
        await store.commit(
            Commit(
                run=a_run(
                    f"ours {number}", tags=("ours",), status=RunStatus.FAILED, started_by="ann"
                ),
                requests=(a_request(f"ours {number}", run_id="ours 0", next_due=NOON, **ours),),
                messages=(a_message(f"ours {number}", run_id="ours 0"),),
                effects=(an_effect(f"ours {number}", run_id="ours 0"),),
                grants=(
                    a_grant(
                        f"ours {number}",
                        tool="ours",
                        owner="ann",
                        request_id=f"ours {number}",
                        terms=GrantTerms(uses=5),
                    ),
                ),
                notices=(a_notice(f"ours {number}"),),
                audit=(an_entry("ours 0"),),
                progress=(some_progress("ours 0"),),
            )
        )
    await store.commit(
        Commit(
            run=a_run("left", status=RunStatus.RUNNING, lease_until=NOON),
            messages=(a_message("told", run_id="waits"),),
        )
    )
    await store.commit(Commit(run=a_run("waits")))
    for start in range(0, count, 100):
        numbers = range(start, min(start + 100, count))
        await store.commit(
            Commit(
                requests=tuple(
                    a_request(
                        f"other {number}",
                        run_id="ours 0" if number % 2 else f"other {number}",
                        is_open=number % 2 == 0,
                        reviewers=("bob",) if number % 4 else ("ann",) if number % 2 else ("eve",),
                        next_due=LATER + timedelta(seconds=number) if number % 2 == 0 else None,
                        priority=("urgent", "low")[number % 3 % 2],
                        workflow="other",
                        tags=("other",) if number % 4 else ("ours",) if number % 2 else (),
                    )
                    for number in numbers
                ),
                effects=tuple(
                    an_effect(f"other {number}", run_id=f"other {number}", status="done")
                    for number in numbers
                ),
                grants=tuple(
                    a_grant(
                        f"other {number}",
                        tool="other" if number % 2 else "ours",
                        owner="eve",
                        request_id=f"other {number}",
                        terms=GrantTerms(uses=1),
                        used=1,
                    )
                    for number in numbers
                ),
                notices=tuple(a_notice(f"other {number}", due=LATER) for number in numbers),
                audit=tuple(an_entry(f"other {number % 7}") for number in numbers),
            )
        )
        for number in numbers:
            await store.commit(
                Commit(
                    run=a_run(f"other {number}", tags=("other",), started_by="eve"),
                    progress=(some_progress(f"other {number % 7}"),),
                )
            )


def by_ann(**given: Any) -> Callable[[SqlStore], Awaitable[object]]:
    return lambda store: store.requests(RequestQuery(entries=("ann", "role:legal"), **given))


def listing(**given: Any) -> Callable[[SqlStore], Awaitable[object]]:
    return lambda store: store.requests(RequestQuery(**given))


def second_page(**given: Any) -> Callable[[SqlStore], Awaitable[object]]:
    async def call(store: SqlStore) -> object:
        first = await store.requests(RequestQuery(limit=2, **given))
        return await store.requests(RequestQuery(limit=2, after=first.after, **given))

    return call


async def from_the_end(store: SqlStore) -> object:
    return await store.feed(after=await store.feed_end())


async def answer(store: SqlStore) -> None:
    request = await store.request("ours 1")
    assert request is not None
    closed = a_request("ours 1", is_open=False, tags=("ours",)).record
    await store.commit(
        Commit(
            requests=(replace(request, record=closed),),
            messages=(a_message("answer"),),
            applied=("told",),
            notices=(a_notice("answer"), a_notice("ours 1", revision=1)),
            told=("ours 0",),
            effects=(an_effect("ours 1", revision=1, status="done"),),
            grants=(a_grant("ours 1", revision=1),),
            audit=(an_entry("other 1", request_id="ours 1"),),
            progress=(some_progress("ours 1"),),
        )
    )


async def park(store: SqlStore) -> None:
    await store.commit(
        Commit(
            run=a_run("ours 1", revision=1, snapshot=b"x", tags=("ours", "new")),
            requests=(a_request("new", reviewers=("ann", "bob"), tags=("ours",)),),
        )
    )


CALLS: dict[str, Callable[[SqlStore], Awaitable[object]]] = {
    "by reviewer": by_ann(),
    "by reviewer, of a workflow": by_ann(workflow="ours", gate="ask"),
    "by reviewer, with a tag": by_ann(tag="ours"),
    "by reviewer, of a run": by_ann(run_id="ours 0"),
    "by reviewer, of a priority": by_ann(priority="normal"),
    "by reviewer, by time": by_ann(created_before=LATER, due_before=LATER),
    "by reviewer, the second page": second_page(entries=("ann",)),
    "by those who have much to do, of a run": listing(entries=("bob", "eve"), run_id="ours 0"),
    "by nobody": listing(entries=("zoe",)),
    "by run": listing(run_id="ours 0"),
    "by tag": listing(tag="ours"),
    "by workflow": listing(workflow="ours"),
    "the first few": listing(limit=3),
    "of a priority": listing(priority="normal"),
    "of a priority, the second page": second_page(priority="normal"),
    "one request": lambda store: store.request("ours 1"),
    "one run": lambda store: store.run("ours 1", whole=True),
    "the newest runs": lambda store: store.runs(RunQuery(limit=3, tag="ours")),
    "runs by who started them": lambda store: store.runs(RunQuery(started_by="ann")),
    "runs by status": lambda store: store.runs(RunQuery(status=RunStatus.FAILED)),
    "messages": lambda store: store.messages("ours 0"),
    "ready": lambda store: store.ready(NOON),
    "due": lambda store: store.due(NOON),
    "notices": lambda store: store.notices(NOON),
    "one effect": lambda store: store.effect("ours 1"),
    "effects of a run": lambda store: store.effects(run_id="ours 0"),
    "effects begun": lambda store: store.effects(status="begun"),
    "one grant": lambda store: store.grant("ours 1"),
    "grants for a tool": lambda store: store.grants(
        GrantQuery(workflow="bank", agent="teller", tool="ours", active_at=NOON)
    ),
    "grants of a request": lambda store: store.grants(GrantQuery(request_id="ours 1")),
    "grants of an owner": lambda store: store.grants(GrantQuery(owner="ann")),
    "audit": lambda store: store.audit("ours 0"),
    "the feed": lambda store: store.feed(limit=3),
    "the feed from its end on": from_the_end,
    "the feed of a run": lambda store: store.feed(run_id="ours 0"),
    "the end of the feed": lambda store: store.feed_end(),
    "a commit that answers": answer,
    "a commit that parks": park,
}
"""Every read that is promised to be as fast in a large store as in a small one, and commits."""


async def test_no_call_costs_more_where_more_is_stored(tmp_path: Path) -> None:
    costs: list[dict[str, int]] = []
    for count in (100, 2000):
        with watching() as watched:
            store = SqlStore(tmp_path / f"{count}.db")
            await fill(store, count)
            cost = {}
            for name, call in CALLS.items():
                watched.steps = 0
                await call(store)
                cost[name] = watched.steps
            await store.close()
        costs.append(cost)
    small, large = costs
    grown = {
        name: (small[name], large[name])
        for name in CALLS
        if large[name] > small[name] * 1.3 + 5 * _GRAIN
    }
    assert not grown


async def test_no_statement_goes_through_a_whole_table(tmp_path: Path) -> None:
    with watching() as watched:
        store = SqlStore(tmp_path / "hitl.db")
        await fill(store, 20)
        del watched.statements[:]
        for call in CALLS.values():
            await call(store)
        await store.close()
    plans: dict[str, list[str]] = {}
    with closing(sqlite3.connect(tmp_path / "hitl.db")) as connection:
        for statement in watched.statements:
            if statement.lstrip().startswith(("SELECT", "UPDATE", "DELETE")):
                rows = connection.execute(f"EXPLAIN QUERY PLAN {statement}")
                plans[statement] = [row[3] for row in rows]
    assert len(plans) > len(CALLS)
    # Messages that wait are few: those that were applied are gone.
    allowed = "SCAN hitl_messages USING COVERING INDEX hitl_messages_by_run"
    through = {
        line
        for plan in plans.values()
        for line in plan
        if line.startswith("SCAN hitl_") and line != allowed
    }
    assert through == {"SCAN hitl_effects USING INDEX hitl_effects_begun"}


@pytest.mark.parametrize(
    "name",
    [
        "by reviewer",
        "by run",
        "by tag",
        "by workflow",
        "due",
        "ready",
        "runs by who started them",
        "the feed of a run",
    ],
)
async def test_the_calls_that_are_measured_find_something(tmp_path: Path, name: str) -> None:
    store = SqlStore(tmp_path / "hitl.db")
    await fill(store, 20)
    found: Any = await CALLS[name](store)
    assert len(found) >= 2
    await store.close()
