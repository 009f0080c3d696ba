"""What we lean on in LlamaIndex Workflows that is not public, and the traps that we close.

The first part fails when a release of upstream changes what `_upstream.py` needs. The second part
uses upstream alone: a failure there is good news, and says which of our precautions can go.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from flows import Draft, Live, Settled, Transfer, asked, codes, made, of_kind, transfers
from pydantic import BaseModel
from workflows import Context, Workflow, step
from workflows.context.serializers import JsonSerializer
from workflows.errors import ContextSerdeError, ContextStateError, WorkflowTimeoutError
from workflows.events import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    UnhandledEvent,
)
from workflows.retry_policy import retry_policy, stop_after_attempt, wait_fixed
from workflows.runtime.types.results import AddWaiter, DeleteWaiter, WaitingForEvent

from llama_index_hitl import Approve, Approved, Review, ReviewRequestEvent
from llama_index_hitl import _upstream as upstream
from llama_index_hitl._ledger import (
    recalled,
    remembered,
    remembered_from_now_on,
    remembered_once,
)

Start = Callable[..., Live]


class Go(Event):
    """Call the step under test."""

    number: int = 0


class Answered(HumanResponseEvent):
    """What the steps here wait for."""

    request_id: str
    words: str = ""


async def once(start: Start, probe: Callable[[Context], Any], **config: Any) -> Any:
    """Return what a function says within a step."""

    class Flow(Workflow):
        @step(**config)
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=probe(ctx))

    live = start(made(Flow))
    await live.pause()
    return live, await live.result()


# --------------------------------------------------------------------------- what we lean on


async def test_run_id_of_is_the_id_of_the_handler(start_here: Start):
    live, found = await once(start_here, upstream.run_id_of)
    assert found == live.handler.run_id


def test_steps_accepting_finds_steps_by_the_exact_type():
    class Flow(Workflow):
        @step
        async def one(self, ev: StartEvent | Answered) -> Go:
            return Go()

        @step
        async def other(self, ev: Go | HumanResponseEvent) -> StopEvent:
            return StopEvent()

    flow = Flow(timeout=None)
    assert upstream.steps_accepting(flow, HumanResponseEvent) == {"other"}
    assert upstream.steps_accepting(flow, Answered) == {"one"}
    assert upstream.steps_accepting(flow, StopEvent) == set()


def test_produced_by_reads_what_a_step_returns():
    class Published(StopEvent): ...

    class Flow(Workflow):
        @step
        async def one(self, ev: StartEvent) -> Go | Published | None:
            return None

        @step
        async def other(self, ev: StartEvent) -> list[Go]:
            return []

    assert set(upstream.produced_by(Flow.one)) == {Go, Published}
    assert upstream.produced_by(Flow.other) == [Go]
    assert upstream.produced_by(len) == upstream.produced_by("x") == []


def test_timeout_of_is_what_the_workflow_was_made_with():
    flow = transfers(1)
    assert upstream.timeout_of(flow()) is None
    assert upstream.timeout_of(flow(timeout=1.5)) == 1.5


async def test_execution_of_step_is_the_same_throughout_one_call_and_unknown_outside(
    start_here: Start,
):
    def probe(ctx: Context) -> Any:
        return upstream.execution_of_step() is upstream.execution_of_step()

    assert (await once(start_here, probe))[1] is True
    with pytest.raises(LookupError):
        upstream.execution_of_step()


async def test_work_item_of_stays_the_same_over_replays_and_restores_and_differs_otherwise(
    start: Start,
):
    class Flow(Workflow):
        seen: ClassVar[dict[int, set[str]]] = {}

        @step
        async def begin(self, ev: StartEvent) -> list[Go]:
            return [Go(number=0), Go(number=1)]

        @step
        async def work(self, ctx: Context, ev: Go) -> Settled:
            item = upstream.work_item_of(upstream.execution_of_step())
            self.seen.setdefault(ev.number, set()).add(item)
            await ctx.wait_for_event(Answered, waiter_id=f"w{ev.number}", requirements={})
            return Settled(to="x", paid=True)

        @step
        async def join(self, evs: list[Settled]) -> StopEvent:
            return StopEvent()

    live = start(made(Flow))
    await live.pause()
    await live.tell(Answered(request_id="x"))
    assert live.ended
    assert [len(items) for items in Flow.seen.values()] == [1, 1]
    assert Flow.seen[0] != Flow.seen[1]
    assert all(item.startswith("work:") for items in Flow.seen.values() for item in items)


async def test_may_be_repeated_is_true_of_calls_that_wait_or_fail(start_here: Start):
    calls: list[upstream.Execution] = []

    class Flow(Workflow):
        @step(retry_policy=retry_policy(wait=wait_fixed(0), stop=stop_after_attempt(2)))
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            calls.append(upstream.execution_of_step())
            assert not upstream.may_be_repeated(calls[-1])
            if len(calls) == 1:
                raise ConnectionError
            await ctx.wait_for_event(Answered, waiter_id="w")
            return StopEvent()

    live = start_here(made(Flow))
    await live.pause()
    await live.tell(Answered(request_id="x"))
    assert live.ended
    assert [upstream.may_be_repeated(call) for call in calls] == [True, True, False]


async def test_has_collected_sees_what_was_there_when_the_call_began(start: Start):
    seen: list[bool] = []

    class Flow(Workflow):
        @step(num_workers=1)
        async def work(self, ctx: Context, ev: StartEvent | Go) -> StopEvent | None:
            execution = upstream.execution_of_step()
            seen.append(upstream.has_collected(execution, "mine"))
            ctx.collect_events(InputRequiredEvent(), [InputRequiredEvent] * 5, buffer_id="mine")
            assert upstream.has_collected(execution, "mine") is seen[-1]
            assert not upstream.has_collected(execution, "other")
            return StopEvent() if len(seen) == 2 else None

    class Unchecked(Flow):
        def __init__(self) -> None:
            super().__init__(timeout=None, disable_validation=True)

    live = start(Unchecked)
    await live.pause()
    await live.tell(Go())
    assert seen == [False, True]


async def test_event_for_waiter_is_the_last_event_that_woke_it(start_here: Start):
    seen: list[Any] = []

    class Flow(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            event = upstream.event_for_waiter(upstream.execution_of_step(), "w")
            seen.append(event and event.words)
            await ctx.wait_for_event(Answered, waiter_id="w")
            await ctx.wait_for_event(Answered, waiter_id="other", requirements={"words": "end"})
            return StopEvent()

    live = start_here(made(Flow))
    await live.pause()
    await live.tell(Answered(request_id="x", words="first"))
    await live.tell(Answered(request_id="x", words="second"))
    assert seen == [None, "first", "second"]
    assert not live.ended


async def test_forget_waiter_takes_effect_when_the_call_completes(start: Start):
    class Flow(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> Go:
            execution = upstream.execution_of_step()
            if upstream.event_for_waiter(execution, "w") is None:
                await ctx.wait_for_event(Answered, waiter_id="w")
            upstream.forget_waiter(execution, "w")
            return Go()

        @step
        async def stay(self, ctx: Context, ev: Go) -> StopEvent:
            await ctx.wait_for_event(Answered, waiter_id="end", requirements={"words": "end"})
            return StopEvent()

    live = start(made(Flow))
    await live.pause()
    await live.tell(Answered(request_id="x"))
    waiters = live.handler.ctx.to_dict()["workers"]["work"]["collected_waiters"]
    assert waiters == []
    assert DeleteWaiter(waiter_id="w").waiter_id == "w"


async def test_events_received_has_every_event_of_the_session_once(start: Start):
    seen: list[list[str]] = []

    class Flow(Workflow):
        @step(num_workers=1)
        async def work(self, ctx: Context, ev: StartEvent | Answered) -> StopEvent | None:
            events, position = upstream.events_received(ctx, 0)
            seen.append([e.words for e in events if isinstance(e, Answered)])
            assert upstream.events_received(ctx, position) == ([], position)
            return StopEvent() if seen[-1][-1:] == ["end"] else None

    class Unchecked(Flow):
        def __init__(self) -> None:
            super().__init__(timeout=None, disable_validation=True)

    live = start(Unchecked)
    await live.pause()
    await live.tell(Answered(request_id="x", words="a"))
    await live.tell(Answered(request_id="x", words="end"))
    expected = [[], ["a"], ["end"]] if live.restoring else [[], ["a"], ["a", "end"]]
    assert seen == expected


async def test_state_of_run_is_one_for_each_run_and_process(start_here: Start):
    states: list[object] = []

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Go]:
            return [Go(), Go()]

        @step
        async def work(self, ev: Go) -> Settled:
            await asyncio.sleep(0)
            states.append(upstream.state_of_run(list))
            states.append(await asyncio.create_task(self.in_a_task()))
            return Settled(to="x", paid=True)

        async def in_a_task(self) -> object:
            return upstream.state_of_run(object)

        @step
        async def join(self, evs: list[Settled]) -> StopEvent:
            return StopEvent()

    flow = made(Flow)()
    first, second = start_here(lambda: flow), start_here(lambda: flow)
    await first.pause()
    await second.pause()
    assert len(states) == 8
    assert len({id(state) for state in states}) == 4  # a list and an object for each
    with pytest.raises(LookupError):
        upstream.state_of_run(object)


def test_resolve_from_every_snapshot_makes_a_class_known_to_strict_serializers():
    class Known(Event):
        word: str

    strict = JsonSerializer(allowed_types=())
    stored = strict.serialize(Known(word="x"))
    with pytest.raises(ValueError, match="not in the serializer's allowed types"):
        strict.deserialize(stored)
    upstream.resolve_from_every_snapshot(Known)
    assert strict.deserialize(stored) == Known(word="x")


async def test_keep_waiting_puts_a_waiter_back_and_publishes_nothing(start: Start):
    class Flow(Workflow):
        woken: ClassVar[list[str]] = []

        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            event = await ctx.wait_for_event(
                Answered,
                waiter_event=InputRequiredEvent(prefix="?"),
                waiter_id="w",
                requirements={"request_id": "a"},
            )
            self.woken.append(event.words)
            if event.words != "good":
                upstream.keep_waiting(Answered, "w", {"request_id": "a"})
            return StopEvent(result="done")

    live = start(made(Flow))
    await live.pause()
    await live.tell(Answered(request_id="a", words="bad"))
    await live.tell(Answered(request_id="b", words="not for us"))
    await live.tell(Answered(request_id="a", words="good"))
    assert await live.result() == "done"
    assert Flow.woken == ["bad", "good"]
    assert len(of_kind(live.seen, InputRequiredEvent)) == 1


def test_keep_waiting_raises_what_upstream_takes_for_waiting():
    with pytest.raises(WaitingForEvent) as raised:
        upstream.keep_waiting(Answered, "w", {"request_id": "a"})
    add = raised.value.add
    assert isinstance(add, AddWaiter)
    assert (add.waiter_id, add.requirements, add.timeout) == ("w", {"request_id": "a"}, None)
    assert (add.event_type, add.waiter_event) == (Answered, None)


# --------------------------------------------------------------------------- collect buffers


async def test_fail_step_fails_the_step_through_what_turns_errors_into_words(start_here: Start):
    def tool(ctx: Context) -> str:
        try:
            upstream.fail_step(KeyError("no such account"))
        except upstream.WAITS:
            raise
        except Exception as error:  # noqa: BLE001 - as LlamaIndex's agents do
            return str(error)

    with pytest.raises(KeyError, match="no such account"):
        await once(start_here, tool)


async def test_a_gate_remembers_what_it_left_and_nothing_of_a_call_that_failed(start: Start):
    class Flow(Workflow):
        seen: ClassVar[list[int]] = []

        @step(
            num_workers=1,
            retry_policy=retry_policy(wait=wait_fixed(0), stop=stop_after_attempt(2)),
        )
        async def work(self, ctx: Context, ev: StartEvent | Go) -> StopEvent | None:
            async with remembered(ctx) as memory:
                self.seen.append(len(memory.ledger.closed))
                fails = len(self.seen) in (1, 4)
                memory.ledger = memory.ledger.model_copy(
                    update={"closed": (*memory.ledger.closed, *(_closed(),))}
                )
                if fails:
                    raise ConnectionError
            return StopEvent() if isinstance(ev, Go) and ev.number == 3 else None

    class Unchecked(Flow):
        def __init__(self) -> None:
            super().__init__(timeout=None, disable_validation=True)

    live = start(Unchecked)
    await live.pause()
    for number in (1, 2, 3):
        await live.tell(Go(number=number))
    assert live.ended
    # The first call failed, and the one for the second event.
    assert Flow.seen == [0, 0, 1, 2, 2, 3]


def _closed() -> Any:
    from llama_index_hitl import utc_now
    from llama_index_hitl._ledger import ClosedReview
    from llama_index_hitl.models import RequestStatus

    return ClosedReview(request_id="review-1", status=RequestStatus.APPROVED, at=utc_now())


async def test_what_a_waiting_call_keeps_is_there_until_it_completes(start: Start):
    class Flow(Workflow):
        seen: ClassVar[list[Any]] = []

        @step
        async def work(self, ctx: Context, ev: StartEvent) -> Go:
            first = remembered_once(ctx, "first", {"call": len(self.seen)})
            second = recalled(ctx, "second")
            self.seen.append((first, second))
            if second is None:
                remembered_from_now_on(ctx, "second", {"call": len(self.seen)})
            await ctx.wait_for_event(Answered, waiter_id="w", requirements={"words": "end"})
            return Go()

        @step
        async def stay(self, ctx: Context, ev: Go) -> StopEvent:
            await ctx.wait_for_event(Answered, waiter_id="never", requirements={"words": "?"})
            return StopEvent()

    live = start(made(Flow))
    await live.pause()
    await live.tell(Answered(request_id="x", words="end"))
    assert Flow.seen[0] == ({"call": 0}, None)
    assert Flow.seen[1:]
    assert all(seen == ({"call": 0}, {"call": 1}) for seen in Flow.seen[1:])
    buffers = live.handler.ctx.to_dict()["workers"]["work"]["collected_events"]
    assert {k: v for k, v in buffers.items() if v} == {}


# --------------------------------------------------------------------------- traps of upstream


class Payment(Event):
    """One of three transfers."""

    number: int


def three_waiters(ready: asyncio.Event) -> type[Workflow]:
    class Waiters(Workflow):
        paid: ClassVar[list[int]] = []

        @step
        async def begin(self, ev: StartEvent) -> list[Payment]:
            return [Payment(number=number) for number in range(3)]

        @step(num_workers=6)  # with fewer, the answer for one pays others and is itself lost
        async def pay(self, ctx: Context, ev: Payment) -> Settled:
            await ready.wait()  # as any step that has something to do before it asks
            await ctx.wait_for_event(
                Answered,
                waiter_event=InputRequiredEvent(prefix=f"Pay {ev.number}?"),
                waiter_id=f"pay-{ev.number}",
                requirements={"request_id": str(ev.number)},
            )
            self.paid.append(ev.number)
            return Settled(to=str(ev.number), paid=True)

        @step
        async def join(self, evs: list[Settled]) -> StopEvent:
            return StopEvent()

    return made(Waiters)


async def test_trap_one_yes_after_a_restore_resolves_all_waiters(start_here: Start):
    ready = asyncio.Event()
    ready.set()
    flow = three_waiters(ready)
    live = start_here(flow)
    await live.pause()
    ready.clear()
    await live.restore()
    # As upstream's page shows it: from_dict, run, send_event.
    live.send(Answered(request_id="1"))
    await live.heard()
    ready.set()
    await live.pause()
    assert sorted(flow.paid) == [0, 1, 2]


async def test_in_one_process_one_yes_resolves_one_waiter(start_here: Start):
    ready = asyncio.Event()
    ready.set()
    flow = three_waiters(ready)
    live = start_here(flow)
    await live.pause()
    await live.tell(Answered(request_id="1"))
    assert flow.paid == [1]


async def test_trap_every_copy_of_an_answer_starts_the_step_again(start_here: Start):
    go_on = asyncio.Event()

    class Flow(Workflow):
        paid: ClassVar[list[str]] = []

        @step
        async def pay(self, ctx: Context, ev: StartEvent) -> Settled:
            answer = await ctx.wait_for_event(Answered, waiter_id="w")
            self.paid.append(answer.words)
            await go_on.wait()
            return Settled(to="x", paid=True)

        @step
        async def stay(self, ev: Settled) -> StopEvent | None:
            return None

    live = start_here(made(Flow))
    await live.pause()
    live.send(Answered(request_id="a", words="yes"), Answered(request_id="a", words="no"))
    await live.until_step("pay", "running")
    await live.until_step("pay", "running")
    go_on.set()
    await live.pause()
    assert Flow.paid == ["yes", "no"]


async def test_trap_a_later_answer_takes_the_place_of_the_first_in_a_step_that_waits_twice(
    start_here: Start,
):
    class Flow(Workflow):
        @step
        async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
            first = await ctx.wait_for_event(
                Answered, waiter_id="1", requirements={"request_id": "1"}
            )
            await ctx.wait_for_event(Answered, waiter_id="2", requirements={"request_id": "2"})
            return StopEvent(result=first.words)

    live = start_here(made(Flow))
    await live.pause()
    await live.tell(Answered(request_id="1", words="yes"))
    await live.tell(Answered(request_id="1", words="no"))
    await live.tell(Answered(request_id="2"))
    assert await live.result() == "no"


async def test_trap_an_answer_right_after_a_restore_may_be_lost(start_here: Start):
    ready = asyncio.Event()
    ready.set()

    class Flow(Workflow):
        @step(num_workers=1)
        async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ready.wait()
            await ctx.wait_for_event(Answered, waiter_id="w", requirements={"request_id": "a"})
            return StopEvent()

    live = start_here(made(Flow))
    await live.pause()
    ready.clear()
    await live.restore()
    live.send(Answered(request_id="a"))
    await live.heard()
    ready.set()
    await live.pause()
    assert not live.ended


async def test_trap_an_answer_goes_to_every_step_that_accepts_its_type(start_here: Start):
    class Flow(Workflow):
        heard: ClassVar[list[str]] = []

        @step
        async def begin(self, ev: StartEvent) -> InputRequiredEvent:
            return InputRequiredEvent(prefix="?")

        @step
        async def legal(self, ev: HumanResponseEvent) -> None:
            self.heard.append(f"legal: {ev.response}")

        @step
        async def editor(self, ev: HumanResponseEvent) -> StopEvent | None:
            self.heard.append(f"editor: {ev.response}")
            return None

    live = start_here(made(Flow))
    await live.pause()
    await live.tell(HumanResponseEvent(response="yes"))
    assert sorted(Flow.heard) == ["editor: yes", "legal: yes"]


async def test_trap_an_answer_that_nobody_takes_is_told_of_to_nobody(start_here: Start):
    class Flow(Workflow):
        @step
        async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Answered, waiter_id="w", requirements={"request_id": "a"})
            return StopEvent()

    live = start_here(made(Flow))
    await live.pause()
    events = await live.tell(Answered(request_id="b"))
    # Only on the internal stream, and without a word about the id.
    assert of_kind(events, UnhandledEvent)[0].event_type == "Answered"


async def test_trap_a_snapshot_does_not_have_the_question(start_here: Start):
    ready = asyncio.Event()
    ready.set()
    live = start_here(three_waiters(ready))
    await live.pause()
    stored = json.dumps(live.handler.ctx.to_dict())
    assert "Pay 0?" not in stored
    await live.restore()
    assert of_kind(await live.pause(), InputRequiredEvent) == []


async def test_our_questions_are_in_the_snapshot(start_here: Start):
    live = start_here(transfers(2, title=lambda flow, ev: f"Pay {ev.to}?"))
    await live.pause()
    stored = json.dumps(live.handler.ctx.to_dict())
    assert "Pay payee 0?" in stored
    assert "Pay payee 1?" in stored


async def test_trap_a_question_that_no_step_declares_makes_a_run_unloadable(start_here: Start):
    class Undeclared(HumanResponseEvent):
        pass

    class Flow(Workflow):
        def __init__(self) -> None:
            super().__init__(timeout=None, serializer=JsonSerializer(allowed_types=()))

        @step
        async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Undeclared, waiter_id="w")
            return StopEvent()

    live = start_here(Flow)
    await live.pause()
    with pytest.raises(ContextSerdeError, match="Undeclared"):
        await live.restore()


def test_trap_the_default_serializer_imports_what_the_data_names():
    stored = json.dumps(
        {"__is_pydantic": True, "value": {"url": "x"}, "qualified_name": "json.decoder.nothing"}
    )
    with pytest.raises(AttributeError, match=r"not found in module json\.decoder"):
        JsonSerializer().deserialize(stored)


class Narrow(BaseModel):
    """A state with room for one thing."""

    spent: int = 0


async def test_trap_a_typed_state_has_no_room_for_anything_else(start_here: Start):
    class Flow(Workflow):
        @step
        async def work(self, ctx: Context[Narrow], ev: StartEvent) -> StopEvent:
            await ctx.store.set("questions", [1])
            return StopEvent()

    live = start_here(made(Flow))
    await live.pause()
    with pytest.raises(ValueError, match="questions"):
        await live.result()


async def test_trap_a_finite_timeout_kills_a_run_that_waits(start_here: Start):
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> InputRequiredEvent:
            return InputRequiredEvent(prefix="?")

        @step
        async def end(self, ev: HumanResponseEvent) -> StopEvent:
            return StopEvent()

    assert upstream.timeout_of(Flow()) == 45.0
    live = start_here(lambda: Flow(timeout=0.05))
    await live.until(StopEvent)
    with pytest.raises(WorkflowTimeoutError):
        await live.result()


async def test_trap_an_event_keeps_misspelt_keywords_without_a_word():
    assert HumanResponseEvent(respnose="yes").respnose == "yes"
    assert Answered(request_id="a").get("request_id") is None


async def test_trap_a_join_of_a_fan_out_does_not_wait_for_people(start_here: Start):
    """Upstream closes the stream of a list when a step ends in a question; use collect_events."""

    class Flow(Workflow):
        @step
        async def order(self, ev: StartEvent) -> list[Transfer]:
            return [Transfer(to="a"), Transfer(to="b")]

        release = Review(Transfer)

        @step
        async def pay(self, ev: Approved) -> Settled:
            return Settled(to=ev.subject.to, paid=True)

        @step
        async def join(self, evs: list[Settled]) -> StopEvent:
            return StopEvent(result=[e.to for e in evs])

    live = start_here(made(Flow))
    assert len(await live.open()) == 2
    assert await live.result() == []


async def test_trap_sending_before_the_run_begins_is_an_error():
    context = Context(three_waiters(asyncio.Event())())
    with pytest.raises(ContextStateError, match="before workflow started"):
        context.send_event(Answered(request_id="a"))


async def test_a_gate_hears_an_answer_that_came_as_a_targeted_event_only_if_it_is_its_own(
    start_here: Start,
):
    live = start_here(transfers(1))
    (request,) = await live.open()
    live.handler.ctx.send_event(request.answer(Approve(), by="erin"), step="release_gate")
    assert codes(await live.pause()) == []
    assert live.ended
    assert asked(live.seen) == of_kind(live.seen, ReviewRequestEvent) == [request]
    assert Draft.model_fields.keys() == {"text"}
