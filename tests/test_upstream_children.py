"""What runs within runs need of upstream: each test fails when a release changes it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from flows import Live, made, of_kind
from llama_agents.server import WorkflowServer
from workflows import Context, Workflow, step
from workflows.events import (
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
)

from llama_index_hitl import _upstream as upstream
from llama_index_hitl._ledger import keep_newest, newest, newest_of_all, without_older

Start = Callable[..., Live]


class Answered(HumanResponseEvent):
    request_id: str


class Waits(Workflow):
    """Waits for two answers at once, and counts its calls."""

    calls: list[upstream.Execution]

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"timeout": None, **options})
        self.calls = []

    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        execution = upstream.execution_of_step()
        self.calls.append(execution)
        assert not upstream.has_completed(execution)
        got = {e.request_id for e in upstream.events_for_waiters(execution)}
        left = [name for name in ("a", "b") if name not in got]
        for name in left:
            question = InputRequiredEvent(prefix=name)
            waiter = upstream.wait_too(execution, Answered, name, {"request_id": name}, question)
        if left:
            upstream.end_waiting(waiter)
        return StopEvent(result=upstream.step_of(execution))


async def test_a_step_can_wait_for_several_events_at_once(start_here: Start):
    flow = Waits()
    live = start_here(lambda: flow)
    await live.pause()
    assert [e.prefix for e in of_kind(live.seen, InputRequiredEvent)] == ["a", "b"]
    await live.tell(Answered(request_id="c"))
    assert len(flow.calls) == 1
    await live.tell(Answered(request_id="b"))
    assert len(of_kind(live.seen, InputRequiredEvent)) == 2, "asked once"
    await live.tell(Answered(request_id="a"))
    assert await live.result() == "work"
    assert [upstream.has_completed(call) for call in flow.calls] == [False, False, True]


async def test_is_waited_for_knows_the_waiters_of_the_whole_run(start_asking: Start):
    seen: list[tuple[bool, bool]] = []

    class Flow(Workflow):
        @step
        async def wait(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Answered, waiter_id="a", requirements={"request_id": "a"})
            return StopEvent()

        @step
        async def look(self, ctx: Context, ev: HumanResponseEvent) -> None:
            seen.append((upstream.is_waited_for(ctx, "a"), upstream.is_waited_for(ctx, "b")))

    live = start_asking(made(Flow))
    await live.pause()
    await live.tell(HumanResponseEvent())
    assert seen == [(True, False)]


# --------------------------------------------------------------------------- who waits for a run


class Inner(Workflow):
    """Says whether a step of another run waits for it."""

    @step
    async def look(self, ctx: Context, ev: StartEvent) -> StopEvent:
        for _ in range(10):
            await asyncio.sleep(0)
        return StopEvent(result=upstream.blocks_a_step(ctx))


async def awaited() -> Any:
    return await Inner().run()


async def gathered() -> Any:
    return (await asyncio.gather(Inner().run(), asyncio.sleep(0)))[0]


async def within_a_limit() -> Any:
    return await asyncio.wait_for(Inner().run(), 10)


async def verbose() -> Any:
    return await Inner(verbose=True).run()


async def streamed() -> Any:
    handler = Inner().run()
    async for _ in handler.stream_events():
        pass
    return await handler


async def streamed_and_awaited() -> Any:
    handler = Inner().run()
    events = handler.stream_events()
    return (await asyncio.gather(handler, anext(events)))[0]


async def left_alone() -> Any:
    handler = Inner().run()
    assert await upstream.until_idle(handler) is None
    return upstream.result_of(handler)


@pytest.mark.parametrize(
    ("wait", "blocks"),
    [
        (awaited, True),
        (gathered, True),
        (within_a_limit, True),
        (verbose, True),
        (streamed, False),
        (streamed_and_awaited, False),
        (left_alone, False),
    ],
)
async def test_blocks_a_step_is_true_of_a_run_that_a_step_awaits_blindly(
    wait: Callable[[], Any], blocks: bool, capsys: pytest.CaptureFixture[str]
):
    class Outer(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await wait())

    assert await Outer().run() is blocks
    assert await wait() is False, "nobody waits in a step"


def test_runs_in_memory_is_false_of_what_is_served():
    flow = Inner()
    assert upstream.runs_in_memory(flow)
    assert upstream.runs_in_memory(Inner(verbose=True))
    WorkflowServer().add_workflow("inner", flow)
    assert not upstream.runs_in_memory(flow)


# --------------------------------------------------------------------------- ends


async def test_stop_cancels_what_is_at_work():
    begun, ended = asyncio.Event(), []

    class Slow(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cancelled")
            return StopEvent()

    handler = Slow(timeout=None).run(run_id="slow")
    await begun.wait()
    await upstream.stop(handler)
    assert ended == ["cancelled"]
    assert handler.is_done()


async def test_the_id_of_a_verbose_run_is_free_when_it_has_ended(
    capsys: pytest.CaptureFixture[str],
):
    flow = Inner(verbose=True)
    for _ in range(2):
        handler = flow.run(run_id="the same")
        assert upstream.is_live(flow, "the same")
        await upstream.until_idle(handler)
        await upstream.stop(handler)
        assert not upstream.is_live(flow, "the same")


# --------------------------------------------------------------------------- what is kept


async def test_the_newest_value_is_there_until_the_step_completes(start_here: Start):
    seen: list[int] = []

    class Flow(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            number, value = newest(ctx, "x") or (0, {"times": 0})
            seen.append(value["times"])
            keep_newest(ctx, "x", number + 1, {"times": number + 1})
            if number < 3:
                named = {"request_id": f"{number}"}
                await ctx.wait_for_event(Answered, waiter_id=f"{number}", requirements=named)
            return StopEvent(result=number)

    live = start_here(made(Flow))
    await live.pause()
    for number in range(3):
        await live.tell(Answered(request_id=f"{number}"))
    assert await live.result() == 3
    assert seen == [0, 1, 2, 3]


def test_a_snapshot_leaves_out_what_was_replaced_and_what_nobody_waits_for():
    names = [f"llama_index_hitl:work:item_{n}:child::0#{m}" for n in (1, 2) for m in (1, 9, 10)]
    others = ["mine#1", "llama_index_hitl", "llama_index_hitl:work:item_1:a#b:0", names[2]]
    worker = {
        "collected_events": {name: ["{}"] for name in [*names, *others]},
        "collect_generations": dict.fromkeys([*names, *others], 1),
        "collected_waiters": [{"work_item_id": "item_1"}],
    }
    kept = without_older({"workers": {"work": worker}, "version": 3})
    assert sorted(kept["workers"]["work"]["collected_events"]) == sorted(others)
    assert sorted(kept["workers"]["work"]["collect_generations"]) == sorted(others)
    events = {name: [InputRequiredEvent(memory={"name": name})] for name in [*names, *others]}
    assert [m["name"] for m in newest_of_all(events)] == [names[2], names[5]]
