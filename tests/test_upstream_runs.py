"""What we use of upstream's runs from outside: each test fails when a release changes it."""

import asyncio
import json
from typing import Any

import pytest
from flows import Draft, drafts
from workflows import Context, Workflow, step
from workflows.context.serializers import JsonSerializer
from workflows.events import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    WorkflowCancelledEvent,
)

from llama_index_hitl._upstream import (
    is_live,
    let_arrive,
    require_again,
    result_of,
    serialized,
    session_of,
    steps_taking,
    stop,
    streamed,
    until_idle,
    waits_of,
)
from llama_index_hitl.errors import SnapshotError


class Named(HumanResponseEvent):
    who: str


class Three(Workflow):
    """Asks in the three ways in which an event can become a question."""

    @step
    async def plan(self, ctx: Context, ev: StartEvent) -> InputRequiredEvent:
        ctx.write_event_to_stream(InputRequiredEvent(prefix="written"))
        ctx.send_event(InputRequiredEvent(prefix="sent"))
        return InputRequiredEvent(prefix="returned")

    @step
    async def end(self, ev: HumanResponseEvent) -> StopEvent:
        return StopEvent(result=ev.response)


class Two(Workflow):
    """Waits twice for the same kind of event, for different people."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.calls: list[str] = []

    @step
    async def plan(self, ctx: Context, ev: StartEvent) -> Draft | None:
        ctx.send_event(Draft(text="ann"))
        ctx.send_event(Draft(text="ben"))
        return None

    @step(num_workers=2)
    async def wait(self, ctx: Context, ev: Draft) -> StopEvent | None:
        self.calls.append(ev.text)
        answer = await ctx.wait_for_event(
            Named,
            waiter_event=InputRequiredEvent(prefix=ev.text),
            waiter_id=ev.text,
            requirements={"who": ev.text},
        )
        return StopEvent(result=f"{ev.text} heard {answer.who}")


async def test_until_idle_gives_the_state_of_a_run_that_waits() -> None:
    handler = drafts()(timeout=None).run()
    state = await until_idle(handler)
    assert state is not None
    assert state.is_running
    assert not any(worker.in_progress for worker in state.workers.values())
    await stop(handler)


async def test_until_idle_gives_nothing_for_a_run_that_ends() -> None:
    class Ending(Workflow):
        @step
        async def end(self, ev: StartEvent) -> StopEvent:
            await asyncio.sleep(0)
            return StopEvent(result=1)

    handler = Ending(timeout=None).run()
    assert await until_idle(handler) is None
    assert result_of(handler) == 1


async def test_what_was_sent_before_has_arrived() -> None:
    handler = Three(timeout=None).run()
    await until_idle(handler)
    handler.ctx.send_event(HumanResponseEvent(response="yes"))
    await let_arrive(handler)
    assert await until_idle(handler) is None
    assert result_of(handler) == "yes"


async def test_the_context_is_written_as_upstream_writes_it() -> None:
    handler = drafts()(timeout=None).run()
    state = await until_idle(handler)
    serializer = JsonSerializer()
    ours = serialized(handler, state, serializer)
    assert ours == json.loads(json.dumps(handler.ctx.to_dict(serializer)))
    await stop(handler)


async def test_the_stream_can_be_taken_at_once() -> None:
    handler = Three(timeout=None).run()
    await until_idle(handler)
    prefixes = [e.prefix for e in streamed(handler) if isinstance(e, InputRequiredEvent)]
    assert sorted(prefixes) == ["returned", "written"]
    assert not streamed(handler)
    await stop(handler)


async def test_a_stopped_run_ends_its_stream_and_frees_its_id() -> None:
    workflow = Three(timeout=None)
    handler = workflow.run(run_id="seven")
    watching = asyncio.create_task(_all(handler))
    await until_idle(handler)
    assert is_live(workflow, "seven")
    await stop(handler)
    assert isinstance((await watching)[-1], WorkflowCancelledEvent)
    assert not is_live(workflow, "seven")
    again = workflow.run(run_id="seven")
    await until_idle(again)
    await stop(again)


async def _all(handler: Any) -> list[Event]:
    return [event async for event in handler.stream_events()]


async def test_questions_are_found_however_they_were_asked() -> None:
    handler = Three(timeout=None).run()
    await until_idle(handler)
    session = session_of(handler)
    assert sorted(q.prefix for q in session.questions) == ["returned", "sent", "written"]
    handler.ctx.send_event(HumanResponseEvent(response="no"))
    await let_arrive(handler)
    await until_idle(handler)
    assert [type(event) for event in session_of(handler).told][-1] is HumanResponseEvent


async def test_waits_have_what_they_ask_and_require() -> None:
    handler = Two(timeout=None).run()
    state = await until_idle(handler)
    waits = waits_of(state, session_of(handler))
    assert [(w.step, w.waiter_id, w.requirements) for w in waits] == [
        ("wait", "ann", {"who": "ann"}),
        ("wait", "ben", {"who": "ben"}),
    ]
    assert [w.question.prefix for w in waits] == ["ann", "ben"]
    assert all(w.event_type is Named for w in waits)
    assert not session_of(handler).questions
    await stop(handler)


@pytest.mark.parametrize("again", [True, False])
async def test_a_restored_wait_requires_what_it_did_and_runs_nothing_again(again: bool) -> None:
    handler = Two(timeout=None).run()
    state = await until_idle(handler)
    serializer = JsonSerializer(allowed_types=[*Two(timeout=None).events, Named])
    context = serialized(handler, state, serializer)
    await stop(handler)

    workflow = Two(timeout=None)
    restored = workflow.run(ctx=Context.from_dict(workflow, context, serializer))
    if again:
        require_again(restored, lambda step, waiter_id, _: {"who": waiter_id})
    await until_idle(restored)
    # Without it upstream runs both steps, to learn what they require.
    assert sorted(workflow.calls) == ([] if again else ["ann", "ben"])
    restored.ctx.send_event(Named(who="ben"))
    assert await restored == "ben heard ben"


async def test_steps_that_take_an_event() -> None:
    class Broad(Workflow):
        @step(accept_event_subclasses=True)
        async def any_answer(self, ev: StartEvent | HumanResponseEvent) -> StopEvent:
            return StopEvent()

    assert steps_taking(Broad(timeout=None), Named(who="x")) == ["any_answer"]
    assert steps_taking(Three(timeout=None), Named(who="x")) == []
    assert steps_taking(Three(timeout=None), HumanResponseEvent()) == ["end"]


async def test_a_run_of_another_runtime_is_refused() -> None:
    handler = Three(timeout=None).run()
    await until_idle(handler)
    adapter, handler._external_adapter = handler._external_adapter, object()  # type: ignore[assignment]
    with pytest.raises(SnapshotError, match="object"):
        await until_idle(handler)
    handler._external_adapter = adapter
    await stop(handler)
