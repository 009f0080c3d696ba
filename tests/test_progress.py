"""What runs say on the way is kept, and nothing else that is on their stream."""

import asyncio
import logging
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentStream, ToolCall
from workflows import Context, Workflow, step
from workflows.events import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StepStateChanged,
    StopEvent,
    WorkflowIdleEvent,
)

from llama_index_hitl import Approve, Approved, Review
from llama_index_hitl.errors import StoreError
from llama_index_hitl.models import JsonObject
from llama_index_hitl.prebuilt import ProgressEvent
from llama_index_hitl.progress import keep_progress, progress_of
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import MemoryStore
from llama_index_hitl.stores.protocol import PROGRESS, FeedEvent, RunStatus, Store
from llama_index_hitl.testing import ManualClock
from llama_index_hitl.testing.faults import FaultyStore, Point


class Draft(Event):
    text: str


class Report(Workflow):
    """Says what it does, before and after it is approved."""

    @step
    async def write(self, ctx: Context, ev: StartEvent) -> Draft:
        ctx.write_event_to_stream(ProgressEvent(message="Researching mice"))
        ctx.write_event_to_stream(Event(msg="Writing", words=[1, 2]))
        return Draft(text="About mice.")

    approval = Review(Draft)

    @step
    async def publish(self, ctx: Context, ev: Approved) -> StopEvent:
        ctx.write_event_to_stream(ProgressEvent(message="Publishing"))
        return StopEvent(result="published")


def runner_on(store: Store, **options: Any) -> Runner:
    return Runner(store, {"report": Report(timeout=None)}, clock=ManualClock(), **options)


async def said(store: Store) -> list[FeedEvent]:
    return [event for event in await store.feed() if event.kind == "progress"]


async def test_what_a_run_says_is_in_the_feed_where_it_was_said(store: Store) -> None:
    runner = runner_on(store)
    keep_progress(runner)
    keep_progress(runner)
    run = await runner.start("report")
    (record,) = await runner.pending()
    await runner.answer(record.request_id, Approve(), by="alice")
    await runner.advance(run.run_id)
    feed = await store.feed(run_id=run.run_id)
    assert [event.data.get("message", event.kind) for event in feed] == [
        "started",
        "Researching mice",
        "Writing",
        "opened",
        "answered",
        "Publishing",
        "finished",
    ]
    assert feed[2].data == {
        "type": "Event",
        "message": "Writing",
        "data": {"msg": "Writing", "words": [1, 2]},
    }
    assert feed[1].data["type"] == "ProgressEvent"
    assert feed[1].at == runner.clock()


async def test_it_is_kept_as_it_is_said_and_not_when_the_run_rests() -> None:
    class Slow(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.write_event_to_stream(ProgressEvent(message="Half way"))
            await go_on.wait()
            return StopEvent(result="done")

    go_on, stored = asyncio.Event(), asyncio.Event()
    store = MemoryStore()
    watched = FaultyStore(
        store, times=0, watch=lambda point: stored.set() if point == Point.PROGRESS else None
    )
    runner = Runner(watched, {"slow": Slow(timeout=None)})
    keep_progress(runner)
    running = asyncio.create_task(runner.start("slow"))
    await stored.wait()
    assert [event.data["message"] for event in await said(store)] == ["Half way"]
    go_on.set()
    assert (await running).status is RunStatus.FINISHED


@pytest.mark.parametrize(
    "event",
    [
        StartEvent(message="x"),
        StopEvent(result="x"),
        InputRequiredEvent(message="x"),
        HumanResponseEvent(message="x"),
        WorkflowIdleEvent(),
        StepStateChanged.model_construct(name="x"),
        AgentStream(delta="wo", response="Hello wo", current_agent_name="a"),
        Event(delta="wo"),
        Approved.model_construct(),
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_is_no_progress_is_not_kept(event: Event) -> None:
    assert progress_of(event) is None


def test_other_events_of_agents_are_progress() -> None:
    call = ToolCall(tool_name="search", tool_kwargs={"word": "mice"}, tool_id="1")
    assert progress_of(call) == {
        "type": "ToolCall",
        "message": "",
        "data": {"tool_name": "search", "tool_kwargs": {"word": "mice"}, "tool_id": "1"},
    }
    assert progress_of(Event(delta=3)) is not None


NESTED: list[Any] = []
NESTED.append(NESTED)


@pytest.mark.parametrize(
    "unfit",
    [object(), "x" * 70_000, NESTED, {1, lambda: 1}],
    ids=["object", "large", "nested", "set"],
)
async def test_what_cannot_be_kept_whole_is_kept_in_short(unfit: Any) -> None:
    kept = progress_of(Event(message="Half way", unfit=unfit))
    assert kept == {"type": "Event", "message": "Half way", "data": {}}


def test_a_message_that_is_too_long_is_cut() -> None:
    assert progress_of(Event(msg="x" * 70_000)) == {
        "type": "Event",
        "message": "x" * 2_000,
        "data": {},
    }
    assert progress_of(Event(message=7, msg="seven")) == {
        "type": "Event",
        "message": "seven",
        "data": {"message": 7, "msg": "seven"},
    }


async def test_what_may_not_be_kept_is_not_kept() -> None:
    def without_mice(kind: str, data: JsonObject) -> JsonObject:
        return {"type": data["type"], "message": "Working"} if kind == "progress" else data

    store = MemoryStore()
    runner = runner_on(store, redact=without_mice)
    keep_progress(runner)
    await runner.start("report", topic="mice")
    kept = [event.data for event in await store.feed() if event.kind == PROGRESS]
    assert kept
    assert all(data == {"type": data["type"], "message": "Working"} for data in kept)


async def test_a_store_that_fails_harms_no_run_and_tells_the_log_nothing_private(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStore()
    error = StoreError("cannot store mice")
    runner = runner_on(FaultyStore(store, at=Point.PROGRESS, times=2, error=error))
    keep_progress(runner)
    with caplog.at_level(logging.INFO):
        run = await runner.start("report")
    assert run.status is RunStatus.WAITING
    assert await said(store) == []
    assert caplog.text.count("was not stored: StoreError") == 2
    assert "mice" not in caplog.text
