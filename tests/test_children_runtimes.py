"""Runs within runs on the runtimes that keep their runs themselves.

What serves a workflow never keeps its children: those run in memory, on upstream's own runtime, and
are part of what is stored of the outer run.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import nested
import pytest
from runtime_hosts import Run, dbos_server, runs_of, sqlite_server
from workflows import Context, Workflow, step
from workflows.events import StartEvent, StopEvent

from llama_index_hitl import Approve, Reject
from llama_index_hitl.children import run_child


class Two(Workflow):
    """Two children at the same time, one of which has two rounds."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"timeout": None, **options})

    @step
    async def plan(self, ctx: Context, ev: StartEvent) -> StopEvent:
        rooms = await asyncio.gather(
            run_child(ctx, nested.Trip(timeout=None), key="a", city="Rome"),
            run_child(ctx, nested.Hotel(timeout=None), key="b", city="Paris"),
        )
        return StopEvent(result=rooms)


@pytest.fixture(params=["server", "dbos"])
async def start(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Callable[..., Any]]:
    nested.DONE.clear()
    make_server = {"server": sqlite_server, "dbos": dbos_server}[request.param]
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(runs_of(make_server(tmp_path), Two))


async def test_children_of_a_served_run_are_asked_about_and_answered(start: Callable[..., Any]):
    run: Run = await start()
    first, second = await run.open()
    assert {len(first.request.path), len(second.request.path)} == {1, 2}
    assert await run.send(first.answer(Approve(), by="mallory")) == "not_allowed"
    assert await run.send(second.answer(Approve(), by="alice")) == "ok"
    (left,) = await run.open()
    assert left.request_id == first.request_id
    assert await run.send(second.answer(Reject(), by="bob")) == "already_answered"
    assert await run.send(left.answer(Approve(), by="bob")) == "ok"
    assert await run.ended()
    assert sorted(await run.result()) == ["book Paris", "trip: book Rome"]
    assert sorted(nested.DONE) == ["book Paris", "book Rome", "look in Paris", "look in Rome"]
