"""Runs within steps of other runs: asked above, answered below, paused and resumed as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import nested
import pytest
from crash_scenarios import lines_of
from durable import NOON, kinds, runner_on
from flows import Live, codes, made, of_kind
from llama_agents.server import WorkflowServer
from nested import Hotel, Progress, Trip, note, within
from workflows import Context, Workflow, step
from workflows.events import Event, StartEvent, StopEvent
from workflows.retry_policy import retry_policy, stop_after_attempt, wait_fixed

from llama_index_hitl import (
    Answer,
    Approve,
    Approved,
    Edit,
    Question,
    Reject,
    Review,
    Reviewer,
    ask,
)
from llama_index_hitl._codec import serializer_for
from llama_index_hitl._delivery import Delivery
from llama_index_hitl.children import run_child
from llama_index_hitl.cli._documents import request_summary
from llama_index_hitl.clock import utc_now
from llama_index_hitl.effects import once
from llama_index_hitl.errors import (
    ChildError,
    ChildNotBridged,
    EffectInDoubt,
    IncompatibleSnapshot,
    NothingAsked,
    UnknownRequest,
)
from llama_index_hitl.events import (
    ReviewDeadlineEvent,
    ReviewRequestEvent,
    ReviewResponseEvent,
    ReviewUpdatedEvent,
    ReviewWithdrawEvent,
)
from llama_index_hitl.gates import gates_of
from llama_index_hitl.migrations import Migration
from llama_index_hitl.models import Respond, ReviewRecord
from llama_index_hitl.rendering import render_prompt
from llama_index_hitl.runner import Runner
from llama_index_hitl.snapshots import PausedRun, pause, resume
from llama_index_hitl.stores import MemoryStore, SqlStore, Store
from llama_index_hitl.testing import ManualClock
from llama_index_hitl.testing.crashes import CrashLab
from llama_index_hitl.testing.faults import Point

Start = Callable[..., Live]
BOARD = [Reviewer(id=name, roles=("board",)) for name in ("ann", "bea", "cat")]


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Two stores; that all of them do the same is tested elsewhere."""
    opened = MemoryStore() if request.param == "memory" else SqlStore(str(tmp_path / "hitl.db"))
    yield opened
    await opened.close()


@pytest.fixture(autouse=True)
def done() -> Iterator[list[str]]:
    """What was done in the test."""
    nested.DONE.clear()
    yield nested.DONE
    nested.DONE.clear()


def through_text(paused: PausedRun) -> PausedRun:
    return PausedRun.model_validate_json(paused.model_dump_json())


def approve(paused: PausedRun, by: str = "alice") -> list[Answer]:
    return [Answer.to(r.request, Approve(), by=by, at=utc_now()) for r in paused.requests]


# --------------------------------------------------------------------------- in every process


async def test_a_question_of_a_child_comes_up_and_its_answer_goes_down(
    start_asking: Start, done: list[str]
):
    live = start_asking(made(Trip))
    (asked,) = await live.open()
    assert asked.request.path == ("WithoutLimit.plan",)
    assert asked.request.workflow.endswith("Hotel")
    assert asked.request.gate == "approval"
    assert done == ["look in Rome"]
    assert [e.said for e in of_kind(live.seen, Progress)] == ["looking in Rome"]
    await live.tell(asked.answer(Approve(), by="alice"))
    assert await live.result() == "trip: book Rome"
    assert done == ["look in Rome", "book Rome"]
    (updated,) = of_kind(live.seen, ReviewUpdatedEvent)
    assert updated.request_id == asked.request_id


async def test_a_question_is_asked_once(start_asking: Start):
    live = start_asking(made(Trip))
    (asked,) = await live.open()
    await live.tell(asked.answer(Approve(), by="mallory"))
    assert codes(live.seen) == ["not_allowed"]
    assert len(of_kind(live.seen, ReviewRequestEvent)) == 1
    await live.tell(asked.answer(Approve(), by="alice"))
    assert await live.result() == "trip: book Rome"


async def test_a_child_that_is_refused_says_so_to_its_parent(start_asking: Start, done: list[str]):
    live = start_asking(made(Trip))
    (asked,) = await live.open()
    await live.tell(asked.answer(Reject(comment="no"), by="alice"))
    assert await live.result() == "no trip: Rejected"
    assert done == ["look in Rome"]


async def test_the_path_of_a_grandchild_leads_through_both_runs(
    start_asking: Start, done: list[str]
):
    live = start_asking(made(nested.Tour))
    (asked,) = await live.open()
    assert asked.request.path[0] == "WithoutLimit.sell"
    assert asked.request.path[1] == "Trip.plan"
    await live.tell(asked.answer(Approve(), by="mallory"))
    assert codes(live.seen) == ["not_allowed"]
    await live.tell(asked.answer(Approve(), by="alice"))
    assert await live.result() == "tour of trip: book Rome"
    assert done == ["look in Rome", "book Rome"]


@pytest.mark.parametrize("flow", [nested.Gathered, nested.Side])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_children_at_the_same_time_are_answered_in_any_order(
    start_asking: Start, flow: type[Workflow], order: tuple[int, int], done: list[str]
):
    live = start_asking(made(flow))
    asked = await live.open()
    assert len(asked) == 2
    for number in order:
        assert not live.ended
        await live.tell(asked[number].answer(Approve(), by="alice"))
    assert sorted(await live.result()) == ["book Paris", "book Rome"]
    assert sorted(done) == ["book Paris", "book Rome", "look in Paris", "look in Rome"]


@pytest.mark.parametrize("flow", [nested.Gathered, nested.Side])
async def test_answers_to_both_may_come_at_once(
    start_asking: Start, flow: type[Workflow], done: list[str]
):
    live = start_asking(made(flow))
    yes = [event.answer(Approve(), by="alice") for event in await live.open()]
    await live.tell(yes[1], yes[0], yes[1])
    assert sorted(await live.result()) == ["book Paris", "book Rome"]
    assert sorted(done) == ["book Paris", "book Rome", "look in Paris", "look in Rome"]


async def test_a_child_that_has_ended_is_not_run_again(start_asking: Start, done: list[str]):
    live = start_asking(made(nested.Row))
    for _ in range(3):
        asked = (await live.open())[-1]
        by = "anybody" if asked.request.gate == "ask" else "alice"
        await live.tell(asked.answer(Approve(), by=by))
    assert await live.result() == ["book Rome", "book Paris", True]
    assert done == ["look in Rome", "book Rome", "look in Paris", "book Paris", "pay"]


async def test_a_quorum_in_a_child_takes_every_vote(start_asking: Start):
    live = start_asking(made(within(nested.Committee)))
    (asked,) = await live.open()
    await live.tell(asked.answer(Approve(), by=BOARD[0]))
    assert not live.ended
    await live.tell(asked.answer(Approve(), by=BOARD[0]))  # the same vote again
    assert not live.ended
    assert codes(live.seen) == []
    await live.tell(asked.answer(Approve(), by=BOARD[1]))
    assert await live.result() == ["ann", "bea"]


async def test_votes_may_come_at_once(start_asking: Start):
    live = start_asking(made(within(nested.Committee)))
    (asked,) = await live.open()
    await live.tell(*(asked.answer(Approve(), by=by) for by in BOARD))
    assert await live.result() == ["ann", "bea"]


async def test_an_answer_for_another_request_changes_nothing(start_asking: Start, done: list[str]):
    live = start_asking(made(Trip))
    (asked,) = await live.open()
    yes = asked.answer(Approve(), by="alice").answer
    await live.tell(
        ReviewResponseEvent(answer=yes.model_copy(update={"request_id": "approval-0"})),
        ReviewResponseEvent(answer=yes.model_copy(update={"digest": "0" * 64})),
    )
    assert not live.ended
    assert codes(live.seen) == ["stale_request"]
    assert done == ["look in Rome"]
    await live.tell(ReviewResponseEvent(answer=yes))
    assert await live.result() == "trip: book Rome"


async def test_another_answer_to_what_was_answered_is_refused_by_name(start_here: Start):
    live = start_here(made(nested.Gathered))
    first, second = await live.open()
    await live.tell(first.answer(Approve(), by="alice"))
    await live.tell(first.answer(Reject(), by="bob"), first.answer(Approve(), by="alice"))
    assert codes(live.seen) == ["already_answered"]
    await live.tell(second.answer(Approve(), by="alice"))
    assert sorted(await live.result()) == ["book Paris", "book Rome"]


async def test_an_inline_question_of_a_child_is_asked_above(start_asking: Start):
    live = start_asking(made(within(nested.Visa)))
    (asked,) = await live.open()
    assert asked.request.path == ("WithoutLimit.run_it",)
    await live.tell(asked.answer(Approve(), by="mallory"))
    assert codes(live.seen) == ["not_allowed"]
    await live.tell(asked.answer(Approve(), by="carol"))
    assert await live.result() is True


@pytest.mark.parametrize("child", [nested.Greeter, nested.Plain])
async def test_a_plain_question_of_a_child_comes_up_as_a_request(
    start_asking: Start, child: type[Workflow]
):
    live = start_asking(made(within(child)))
    (asked,) = await live.open()
    assert asked.request.title in ("Your name?", "What is your name?")
    assert asked.request.path == ("WithoutLimit.run_it",)
    await live.tell(asked.answer(Approve(), by="ada"))
    assert codes(live.seen) == ["invalid_answer"]
    await live.tell(asked.answer(Respond(response="Ada"), by="ada"))
    assert await live.result() == "Hello, Ada!"


async def test_a_gate_of_the_parent_does_not_speak_for_a_child(start_asking: Start):
    live = start_asking(made(nested.Desk))
    asked = {event.request.subject.data["city"]: event for event in await live.open()}
    await live.tell(asked["Rome"].answer(Approve(), by="alice"))
    assert codes(live.seen) == []
    assert nested.DONE == ["look in Rome", "book Rome", "book Rome"]
    await live.tell(asked["Oslo"].answer(Approve(), by="alice"))
    assert await live.result() == "Oslo"


async def test_time_and_withdrawal_reach_a_child(start_asking: Start):
    live = start_asking(made(nested.Gathered))
    first, second = await live.open()
    late = first.request.deadline
    await live.tell(ReviewDeadlineEvent(request_id=first.request_id, at=late))
    await live.tell(
        ReviewWithdrawEvent(request_id=second.request_id, by=Reviewer(id="op"), at=utc_now())
    )
    assert [type(each).__name__ for each in await live.result()] == ["Expired", "Rejected"]


# --------------------------------------------------------------------------- by hand


async def test_both_are_paused_and_resumed_as_one(done: list[str]):
    paused = await pause(Trip(timeout=None).run())
    (asked,) = paused.requests
    assert (asked.asked_by, asked.step) == ("child", "plan")
    paused = through_text(paused)
    other = approve(paused)[0].model_copy(update={"request_id": "approval-0"})
    with pytest.raises(UnknownRequest):
        resume(Trip(timeout=None), paused, [other])
    handler = resume(Trip(timeout=None), paused, approve(paused))
    assert await handler == "trip: book Rome"
    assert done == ["look in Rome", "book Rome"]


async def test_a_run_that_is_paused_again_and_again_does_not_grow(done: list[str]):
    paused = await pause(Trip(timeout=None).run())
    sizes = []
    for _ in range(4):
        wrong = [a.model_copy(update={"by": Reviewer(id="mallory")}) for a in approve(paused)]
        handler = resume(Trip(timeout=None), through_text(paused))
        handler.ctx.send_event(ReviewResponseEvent(answer=wrong[0]))
        paused = await pause(handler)
        sizes.append(len(paused.model_dump_json()))
    assert max(sizes) - min(sizes) < 50
    assert await resume(Trip(timeout=None), paused, approve(paused)) == "trip: book Rome"
    assert done == ["look in Rome", "book Rome"]


async def test_a_child_that_asks_again_and_again_does_not_grow():
    class Round(Event):
        number: int

    class Asker(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent | Round) -> Round | StopEvent:
            number = 1 if isinstance(ev, StartEvent) else ev.number
            await ask(ctx, Question(title=f"Round {number}?"))
            return Round(number=number + 1) if number < 8 else StopEvent(result=number)

    class Outer(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await run_child(ctx, Asker(timeout=None)))

    paused = await pause(Outer(timeout=None).run())
    sizes, answers = [], approve(paused)
    for _ in range(7):
        paused = through_text(await pause(resume(Outer(timeout=None), paused, answers)))
        sizes.append(len(paused.model_dump_json()))
        with pytest.raises(UnknownRequest):
            resume(Outer(timeout=None), paused, answers)
        answers = approve(paused)
    assert max(sizes) - min(sizes) < 50
    assert await resume(Outer(timeout=None), paused, answers) == 8


async def test_promise_10_a_child_that_no_longer_fits_takes_no_answer(
    monkeypatch: pytest.MonkeyPatch, store: Store
):
    runner = parked_runner(store)
    await runner.start("trip", run_id="run")
    (record,) = await runner.pending()

    class Changed(Workflow):
        @step
        async def look(self, ctx: Context, ev: StartEvent) -> nested.Booking:
            return nested.Booking(city="Rome")

        consent = Review(nested.Booking)

        @step
        async def book(self, ev: Approved) -> StopEvent:
            return StopEvent(result="booked without having been asked")

    monkeypatch.setattr(nested, "Hotel", Changed)
    await runner.answer(record.request_id, Approve(), by="alice")
    run = await parked_runner(store).advance("run")
    assert run.status == "failed", run
    assert run.error["type"] == IncompatibleSnapshot.__name__
    assert len(await store.messages("run")) == 1
    monkeypatch.undo()
    await parked_runner(store).retry("run", by="operator")
    assert await parked_runner(store).result("run") == "trip: book Rome"


async def test_what_a_child_returns_need_not_be_storable_if_nobody_waits_after():
    class Rich(Workflow):
        @step
        async def make(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=asyncio.Lock())

    assert isinstance(await within(Rich)(timeout=None).run(), asyncio.Lock)


async def test_the_path_stays_when_the_outer_run_comes_back_under_another_id(start_asking: Start):
    class Twice(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            for number in range(2):
                await ask(ctx, Question(title=f"Question {number}?"))
            return StopEvent(result="asked")

    live = start_asking(made(within(Twice)))
    (first,) = await live.open()
    await live.tell(first.answer(Approve(), by="alice"))
    second = (await live.open())[-1]
    assert second.request.title == "Question 1?"
    assert second.request.path == first.request.path != ()
    await live.tell(second.answer(Approve(), by="alice"))
    assert await live.result() == "asked"


async def test_several_answers_wake_a_step_once():
    paused = await pause(nested.Gathered(timeout=None).run())
    flow = nested.Gathered(timeout=None)
    delivery = Delivery(flow, paused.context, serializer_for(flow))
    for given in approve(paused):
        assert delivery.to_question(ReviewResponseEvent(answer=given))
        assert delivery.to_question(ReviewResponseEvent(answer=given))
    worker = delivery.context["workers"]["plan"]
    assert len(worker["queue"]) == 1
    assert sum(waiter["resolved_event"] is not None for waiter in worker["collected_waiters"]) == 2
    unknown = approve(paused)[0].model_copy(update={"request_id": "approval-0"})
    assert not delivery.to_question(ReviewResponseEvent(answer=unknown))


async def test_after_a_restore_what_is_withdrawn_is_the_one_that_is_named():
    paused = await pause(nested.Gathered(timeout=None).run())
    first, second = (request.request_id for request in paused.requests)
    handler = resume(nested.Gathered(timeout=None), through_text(paused))
    handler.ctx.send_event(ReviewWithdrawEvent(request_id=second, by=Reviewer(id="operator")))
    paused = await pause(handler)
    assert [request.request_id for request in paused.requests] == [first]


# --------------------------------------------------------------------------- at work


async def test_a_child_that_fails_fails_its_step():
    with pytest.raises(OSError, match="burnt down"):
        await within(nested.Failing)(timeout=None).run()


async def test_a_child_is_cancelled_with_its_parent():
    seen = asyncio.Event()
    ended: list[str] = []

    class Slow(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            seen.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cancelled")
            return StopEvent()

    handler = within(Slow)(timeout=None).run()
    await seen.wait()
    await handler.cancel_run()
    assert ended == ["cancelled"]


async def test_a_child_that_nobody_can_wake_is_an_error():
    class Stuck(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Progress | StopEvent | None:
            return None

        @step
        async def end(self, ev: Progress) -> StopEvent:
            return StopEvent()

    with pytest.raises(NothingAsked):
        await within(Stuck)(timeout=None).run()


async def test_a_served_instance_is_no_child():
    served = Hotel(timeout=None)
    WorkflowServer().add_workflow("hotel", served)

    class Outer(Workflow):
        @step
        async def run_it(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await run_child(ctx, served, city="Rome"))

    with pytest.raises(ChildError, match="of its own"):
        await Outer(timeout=None).run()


async def test_a_child_may_be_verbose(done: list[str], capsys: Any):
    class Outer(Workflow):
        @step
        async def run_it(self, ctx: Context, ev: StartEvent) -> StopEvent:
            child = Hotel(timeout=None, verbose=True)
            return StopEvent(result=await run_child(ctx, child, city="Rome"))

    paused = await pause(Outer(timeout=None, verbose=True).run())
    again = resume(Outer(timeout=None, verbose=True), paused, approve(paused))
    assert await again == "book Rome"
    assert done == ["look in Rome", "book Rome"]


async def test_a_child_belongs_into_a_step():
    handler = Trip(timeout=None).run()
    with pytest.raises(ChildError, match="in a step"):
        await run_child(handler.ctx, Hotel(timeout=None))
    await handler.cancel_run()


async def test_a_question_beside_a_child_loses_neither(start_asking: Start, done: list[str]):
    class Both(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            room, said = await asyncio.gather(
                run_child(ctx, Hotel(timeout=None), city="Rome"),
                ask(ctx, Question(title="Pay?")),
            )
            return StopEvent(result=[room, said.approved])

    live = start_asking(made(Both))
    for _ in range(2):
        asked = (await live.open())[-1]
        await live.tell(asked.answer(Approve(), by="alice"))
    assert await live.result() == ["book Rome", True]
    assert done == ["look in Rome", "book Rome"]


async def test_a_child_with_a_time_limit_is_not_killed_by_it_while_it_waits(done: list[str]):
    class Outer(Workflow):
        @step
        async def run_it(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await run_child(ctx, Hotel(timeout=30), city="Rome"))

    paused = await pause(Outer(timeout=None).run())
    assert await resume(Outer(timeout=None), paused, approve(paused)) == "book Rome"


# --------------------------------------------------------------------------- without the bridge


def unbridged(child: type[Workflow]) -> type[Workflow]:
    class Outer(Workflow):
        @step
        async def run_it(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await child(timeout=None).run(city="Rome"))

    return Outer


@pytest.mark.parametrize("child", [Hotel, nested.Visa])
async def test_a_child_that_asks_without_the_bridge_is_a_clear_error(child: type[Workflow]):
    with pytest.raises(ChildNotBridged, match="run_child"):
        await unbridged(child)(timeout=None).run()


async def test_so_is_a_child_of_a_child():
    with pytest.raises(ChildNotBridged, match="Hotel asks"):
        await within(unbridged(Hotel))(timeout=None).run()


async def test_a_child_whose_stream_is_read_needs_no_bridge(done: list[str]):
    class Outer(Workflow):
        @step
        async def run_it(self, ctx: Context, ev: StartEvent) -> StopEvent:
            handler = Hotel(timeout=None).run(city="Rome")
            async for event in handler.stream_events():
                if isinstance(event, ReviewRequestEvent):
                    handler.ctx.send_event(event.answer(Approve(), by="alice"))
            return StopEvent(result=await handler)

    assert await Outer(timeout=None).run() == "book Rome"


async def test_a_runner_within_a_step_needs_no_bridge(store: Store):
    class Outer(Workflow):
        @step
        async def run_it(self, ctx: Context, ev: StartEvent) -> StopEvent:
            run = await parked_runner(store).start("trip")
            return StopEvent(result=run.status)

    assert await Outer(timeout=None).run() == "waiting"


# --------------------------------------------------------------------------- in a store


def parked_runner(store: Store, clock: ManualClock | None = None) -> Runner:
    """Return a runner as a fresh process has it."""
    return runner_on(store, clock=clock, workflows=nested.workflows())


async def answer(store: Store, record: ReviewRecord, decision: Any, by: Any = "alice") -> None:
    await parked_runner(store).answer(record.request_id, decision, by=by)
    await parked_runner(store).advance("run")


async def test_promise_08_each_answer_is_given_in_another_process(store: Store, done: list[str]):
    await parked_runner(store).start("tour", run_id="run")
    (record,) = await parked_runner(store).pending(run_id="run")
    assert record.request.run_id == "run"
    assert record.request.path == ("Tour.sell", "Trip.plan")
    await answer(store, record, Edit(subject={"city": "Nice", "ledger": ""}))
    assert await parked_runner(store).result("run") == "tour of trip: book Nice"
    assert done == ["look in Rome", "book Nice"]
    (effect,) = await store.effects(run_id="run")
    assert effect.status == "done"


@pytest.mark.parametrize("name", ["gathered", "side"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_parallel_children_in_a_store(
    store: Store, name: str, order: tuple[int, int], done: list[str]
):
    await parked_runner(store).start(name, run_id="run")
    records = list(await parked_runner(store).pending())
    for number in order:
        await answer(store, records[number], Approve())
    assert sorted(await parked_runner(store).result("run")) == ["book Paris", "book Rome"]
    assert sorted(done) == ["book Paris", "book Rome", "look in Paris", "look in Rome"]


async def test_a_row_of_children_in_a_store(store: Store, done: list[str]):
    await parked_runner(store).start("row", run_id="run")
    for _ in range(3):
        (record,) = await parked_runner(store).pending()
        await answer(store, record, Approve())
    assert await parked_runner(store).result("run") == ["book Rome", "book Paris", True]
    assert done == ["look in Rome", "book Rome", "look in Paris", "book Paris", "pay"]
    assert len(await store.effects(run_id="run")) == 2


async def test_votes_in_a_store_are_told_one_by_one_or_together(store: Store):
    for run_id, apart in (("apart", True), ("together", False)):
        await parked_runner(store).start("within committee", run_id=run_id)
        (record,) = await parked_runner(store).pending(run_id=run_id)
        for by in BOARD[:2]:
            await parked_runner(store).answer(record.request_id, Approve(), by=by)
            if apart:
                await parked_runner(store).advance(run_id)
                seen = await store.request(record.request_id)
                assert by.id in [a.by.id for a in seen.record.answers]
        await parked_runner(store).advance(run_id)
        assert await parked_runner(store).result(run_id) == ["ann", "bea"]


async def test_what_a_rule_decides_in_a_child_is_on_record(store: Store):
    await parked_runner(store).start("within passing", run_id="run")
    assert await parked_runner(store).result("run") == "agreed"
    assert "rule_decided" in kinds(await store.audit("run"))


async def test_time_passes_in_a_child(store: Store):
    await parked_runner(store).start("trip", run_id="run")
    clock = ManualClock(NOON + timedelta(days=2))
    await parked_runner(store, clock).sweep()
    await parked_runner(store, clock).advance("run")
    assert await parked_runner(store).result("run") == "no trip: Expired"


async def test_a_request_of_a_child_can_be_withdrawn(store: Store):
    runner = parked_runner(store)
    await runner.start("trip", run_id="run")
    (record,) = await runner.pending()
    await runner.withdraw(record.request_id, by="operator", reason="no money")
    await parked_runner(store).advance("run")
    assert await runner.result("run") == "no trip: Rejected"


async def test_the_audit_trail_says_where_it_was_asked(store: Store):
    await parked_runner(store).start("trip", run_id="run")
    (opened,) = [row for row in await store.audit("run") if row.entry.kind == "opened"]
    assert opened.entry.details["path"] == ["Trip.plan"]
    (record,) = await parked_runner(store).pending()
    assert "Asked within Trip.plan" in render_prompt(record.request)
    assert request_summary(record)["path"] == ["Trip.plan"]


@pytest.mark.parametrize("name", ["within greeter", "within plain"])
async def test_plain_children_in_a_store(store: Store, name: str):
    await parked_runner(store).start(name, run_id="run")
    (record,) = await parked_runner(store).pending()
    await answer(store, record, Respond(response="Ada"))
    assert await parked_runner(store).result("run") == "Hello, Ada!"


async def test_a_migration_reaches_a_child(monkeypatch: pytest.MonkeyPatch, done: list[str]):
    paused = await pause(Trip(timeout=None).run())

    class Renamed(Workflow):
        @step
        async def look(self, ctx: Context, ev: StartEvent) -> nested.Booking:
            raise AssertionError("it has looked before")

        consent = Review(nested.Booking, reviewers="alice", editable=True)

        @step
        async def book(self, ev: Approved) -> StopEvent:
            return StopEvent(result=note(f"book {ev.subject.city}"))

    monkeypatch.setattr(nested, "Hotel", Renamed)
    migration = Migration(
        Renamed.__name__,
        to_version="2",
        rename_steps={
            gates_of(Hotel)["approval"].step_name: gates_of(Renamed)["consent"].step_name
        },
    )
    again = resume(
        Trip(timeout=None), through_text(paused), approve(paused), migrations=[migration]
    )
    assert await again == "trip: book Rome"
    assert done == ["look in Rome", "book Rome"]


async def test_an_effect_of_a_child_may_give_what_only_the_child_knows(store: Store):
    runner = Runner(store, {"outer": within(only_here())(timeout=None)})
    run = await runner.start("outer")
    assert await runner.result(run.run_id) == 3


def only_here() -> type[Workflow]:
    class Quote(Event):
        amount: int

    class Pricing(Workflow):
        snapshot_types = (Quote,)

        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            quote = await once("price:1", lambda: Quote(amount=3))
            return StopEvent(result=quote.amount)

    return Pricing


async def test_an_effect_before_the_wait_happens_once_in_one_process(done: list[str]):
    class Careful(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await once("reserve", lambda: note("reserve"))
            said = await ask(ctx, Question(title="Go on?"))
            return StopEvent(result=said.approved)

    live = Live(made(within(Careful)))
    (asked,) = await live.open()
    await live.tell(asked.answer(Approve(), by="alice"))
    assert await live.result() is True
    assert done == ["reserve"]


async def test_a_child_that_fails_is_tried_again_with_the_same_answer(done: list[str]):
    class Flaky(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            said = await ask(ctx, Question(title="Go on?"))
            if len(done) < 2:
                note("failed")
                raise ConnectionError("not now")
            return StopEvent(result=said.approved)

    class Outer(Workflow):
        @step(retry_policy=retry_policy(wait=wait_fixed(0), stop=stop_after_attempt(5)))
        async def run_it(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await run_child(ctx, Flaky(timeout=None)))

    live = Live(made(Outer))
    (asked,) = await live.open()
    yes = asked.answer(Approve(), by="alice")
    await live.tell(yes, yes)
    assert await live.result() is True
    assert done == ["failed", "failed"]


# --------------------------------------------------------------------------- processes that die


@pytest.fixture(scope="module")
def lab() -> Iterator[CrashLab]:
    with CrashLab() as lab:
        yield lab


async def test_promise_07_a_process_that_dies_loses_nothing_of_a_child(
    lab: CrashLab, tmp_path: Path
):
    url, ledgers = str(tmp_path / "hitl.db"), str(tmp_path)
    clock = ManualClock(NOON + timedelta(hours=1))
    deaths = (
        {"when": "after", "at": Point.PARK},
        {"when": "after", "at": Point.ANSWER},
        {"when": "before", "at": "before the room is booked"},
        {"when": "before", "at": "after the room is booked"},
        {"when": "before", "at": Point.FINISH},
    )
    store = SqlStore(url)
    for number, death in enumerate(deaths):
        run_id = f"run-{number}"
        ledger = f"{ledgers}/{run_id}"
        scenario = ("nested:one_trip", url, run_id, ledger)
        died = await lab.play(*scenario, die=death["when"], at=death["at"])
        assert died.killed, death
        await parked_runner(store, clock).recover()
        assert not await parked_runner(store, clock).effects_in_doubt()
        again = await lab.play(*scenario, "2")
        assert again.result == "trip: book Rome", death
        assert lines_of(ledger) == ["look in Rome", "book Rome"], death
    await store.close()


async def test_an_effect_of_a_child_that_was_cut_off_is_in_doubt(lab: CrashLab, tmp_path: Path):
    url, ledger = str(tmp_path / "hitl.db"), str(tmp_path / "ledger")
    store, clock = SqlStore(url), ManualClock(NOON + timedelta(hours=1))
    died = await lab.play(
        "nested:one_trip", url, "run", ledger, die="before", at="while the room is booked"
    )
    assert died.killed
    (run,) = await parked_runner(store, clock).recover()
    assert run.error["type"] == EffectInDoubt.__name__
    (effect,) = await store.effects(run_id="run")
    runner = parked_runner(store, clock)
    await runner.settle(effect.key, by="operator", happened=True, result="book Rome")
    await runner.retry("run", by="operator")
    assert await runner.result("run") == "trip: book Rome"
    assert lines_of(ledger) == ["look in Rome", "book Rome"]
    await store.close()
