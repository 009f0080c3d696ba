"""Promises 1, 2, 3 and 8 on every runtime.

On a runtime that releases runs from memory, a run is out of memory before anything is sent to it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar

import pytest
from flows import Draft, Settled, Transfer, drafts, made, person, revised, stages, transfers
from runtime_hosts import Memory, Run, dbos_server, plain, runs_of, sqlite_server
from workflows import Context, Workflow, step
from workflows.events import Event, StartEvent, StopEvent

from llama_index_hitl import (
    Approve,
    Approved,
    Question,
    Reject,
    Review,
    ReviewRequestEvent,
    ReviewResponseEvent,
    Revise,
    Revision,
    ask,
)

Start = Callable[..., Any]


@pytest.fixture(params=["memory", "server", "dbos"])
async def start(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Start]:
    """Start runs of a workflow on one of the runtimes."""
    make_server = {"server": sqlite_server, "dbos": dbos_server}.get(request.param)
    async with AsyncExitStack() as stack:
        serving: dict[type[Workflow], Start] = {}

        async def start(flow: type[Workflow], **start_event: Any) -> Run:
            if make_server is None:
                run = Memory(flow, **start_event)
                stack.push_async_callback(run.live.close)
                return run
            if flow not in serving:
                context = runs_of(make_server(tmp_path), flow)
                serving[flow] = await stack.enter_async_context(context)
            return await serving[flow](**start_event)

        yield start


# --------------------------------------------------------------------------- 1: one request


async def test_promise_01_the_answer_to_one_gate_never_moves_another(start: Start):
    flow = stages()
    run = await start(flow)
    (legal,) = await run.open()
    yes = legal.answer(Approve(), by="erin")
    assert await run.send(yes) == "ok"
    (editor,) = await run.open()
    assert editor.request.gate == "editor"
    assert await run.send(yes) == "ok"  # the same answer again: it was taken
    assert await run.send(plain(legal.request_id, by="fred")) == "already_answered"
    mixed = yes.answer.model_copy(update={"request_id": editor.request_id})
    assert await run.send(ReviewResponseEvent(answer=mixed)) == "stale_request"
    assert not await run.ended()
    assert flow.passed == []
    assert await run.send(editor.answer(Approve(), by="erin")) == "ok"
    assert await run.ended()
    assert flow.passed == ["AI"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
async def test_promise_01_parallel_requests_are_answered_in_any_order(
    start: Start, order: tuple[int, ...]
):
    flow = transfers(3)
    run = await start(flow)
    requests = {event.request.subject.data["to"]: event for event in await run.open()}
    assert sorted(requests) == ["payee 0", "payee 1", "payee 2"]
    for done, number in enumerate(order, 1):
        decision = Reject() if number == 1 else Approve()
        assert await run.send(requests[f"payee {number}"].answer(decision, by="erin")) == "ok"
        assert len(await run.open()) == 3 - done
    assert await run.result() == {"payee 0": True, "payee 1": False, "payee 2": True}
    assert sorted(flow.paid) == ["payee 0", "payee 2"]
    assert flow.orders == [3]  # 8: what was done before the pauses was done once


async def test_promise_01_an_answer_to_one_run_does_not_move_another(start: Start):
    flow = drafts()
    one, other = await start(flow, topic="one"), await start(flow, topic="other")
    (request,) = await one.open()
    await other.open()
    assert await other.send(request.answer(Approve(), by="erin")) == "unknown_request"
    assert flow.published == []
    assert await one.send(request.answer(Approve(), by="erin")) == "ok"
    assert await one.ended()
    assert [event.subject.text for event in flow.published] == ["one"]
    assert not await other.ended()


async def test_promise_01_an_answer_to_an_earlier_draft_does_not_let_the_next_one_pass(
    start: Start,
):
    run = await start(revised(), topic="x")
    (first,) = await run.open()
    assert await run.send(first.answer(Revise(feedback="1"), by="erin")) == "ok"
    (second,) = await run.open()
    assert await run.send(first.answer(Approve(), by="erin")) == "already_answered"
    assert await run.send(second.answer(Revise(feedback="2"), by="erin")) == "ok"
    (third,) = await run.open()
    assert (third.request.revision, third.request.subject.data["text"]) == (3, "x, 1, 2")
    assert await run.send(second.answer(Approve(), by="fred")) == "already_answered"
    assert not await run.ended()
    assert await run.send(third.answer(Approve(), by="erin")) == "ok"
    assert (await run.result())["proposal"]["value"]["text"] == "x, 1, 2"


def asking_in_parallel() -> type[Workflow]:
    """Return a workflow with three workers of one step that ask, and one more question."""

    class Asking(Workflow):
        orders: ClassVar[list[int]] = []
        paid: ClassVar[list[str]] = []

        @step
        async def order(self, ctx: Context, ev: StartEvent) -> Transfer | None:
            self.orders.append(3)
            for number in range(3):
                ctx.send_event(Transfer(to=f"payee {number}"))
            return None

        @step(num_workers=3)
        async def pay(self, ctx: Context, ev: Transfer) -> Settled:
            answer = await ask(ctx, Question(title=f"Pay {ev.to}?"))
            if answer.approved:
                self.paid.append(ev.to)
            return Settled(to=ev.to, paid=answer.approved)

        @step
        async def join(self, ctx: Context, ev: Settled) -> Draft | None:
            settled = ctx.collect_events(ev, [Settled] * 3)
            return None if settled is None else Draft(text="all")

        @step
        async def close(self, ctx: Context, ev: Draft) -> StopEvent:
            first = await ask(ctx, Question(title="Close?"))
            second = await ask(ctx, Question(title="Really?"))
            return StopEvent(result=[first.approved, second.approved, sorted(self.paid)])

    return made(Asking)


@pytest.mark.parametrize("order", [(0, 2, 1), (2, 1, 0)])
async def test_promise_01_inline_questions_are_answered_in_any_order(
    start: Start, order: tuple[int, ...]
):
    flow = asking_in_parallel()
    run = await start(flow)
    requests = {event.request.title: event for event in await run.open()}
    assert sorted(requests) == [f"Pay payee {number}?" for number in range(3)]
    for done, number in enumerate(order, 1):
        decision = Reject() if number == 1 else Approve()
        request = requests[f"Pay payee {number}?"]
        assert await run.send(request.answer(decision, by="erin")) == "ok"
        if done < 3:
            assert len(await run.open()) == 3 - done
            expected = {f"payee {n}" for n in order[:done] if n != 1}
            assert set(flow.paid) == expected
    (close,) = await run.open()
    assert await run.send(close.answer(Approve(), by="erin")) == "ok"
    (really,) = await run.open()
    assert really.request.title == "Really?"
    wrong = close.answer(Approve(), by="erin").answer.model_copy(
        update={"request_id": really.request_id}
    )
    assert await run.send(ReviewResponseEvent(answer=wrong)) == "stale_request"
    assert await run.send(really.answer(Reject(), by="erin")) == "ok"
    assert await run.result() == [True, False, ["payee 0", "payee 2"]]
    assert flow.orders == [3]
    assert len(flow.paid) == 2


def gathering() -> type[Workflow]:
    """Return a workflow whose one step asks three questions at once."""

    class Gathering(Workflow):
        @step
        async def decide(self, ctx: Context, ev: StartEvent) -> StopEvent:
            names = ["a", "b", "c"]
            found = await asyncio.gather(
                *(ask(ctx, Question(title=f"{name}?"), key=name) for name in names)
            )
            return StopEvent(
                result=dict(zip(names, [each.approved for each in found], strict=True))
            )

    return made(Gathering)


async def test_promise_01_questions_of_one_step_are_answered_one_by_one(start: Start):
    run = await start(gathering())
    before: list[ReviewRequestEvent] = []
    for _ in range(3):
        (request,) = await run.open()  # upstream lets a step wait for one thing at a time
        for other in before:
            wrong = other.answer(Approve(), by="erin").answer.model_copy(
                update={"request_id": request.request_id}
            )
            assert await run.send(ReviewResponseEvent(answer=wrong)) == "stale_request"
        decision = Reject() if request.request.title == "b?" else Approve()
        assert await run.send(request.answer(decision, by="erin")) == "ok"
        before.append(request)
    assert await run.result() == {"a": True, "b": False, "c": True}


# --------------------------------------------------------------------------- 2: explicit consent


async def test_promise_02_words_that_are_no_decision_let_nothing_pass(start: Start):
    flow = drafts()
    run = await start(flow)
    (request,) = await run.open()
    for words in ("", "yes", "approved", "ok, do it", " APPROVE!", "{}"):
        assert await run.send(plain(request.request_id, words)) == "invalid_answer", words
    assert not await run.ended()
    assert flow.published == []
    assert await run.send(plain(request.request_id, "approve: fine")) == "ok"
    assert await run.ended()
    assert len(flow.published) == 1


async def test_promise_02_who_may_not_answer_lets_nothing_pass(start: Start):
    flow = drafts(reviewers="role:legal", quorum=2)
    run = await start(flow)
    (request,) = await run.open()
    assert await run.send(request.answer(Approve(), by="erin")) == "not_allowed"
    first = request.answer(Approve(), by=person("lea", "legal"))
    assert await run.send(first) == "ok"
    assert await run.send(first) == "ok"
    assert not await run.ended()
    assert await run.send(request.answer(Reject(), by=person("lea", "legal"))) == "already_answered"
    assert flow.published == []
    assert await run.send(request.answer(Approve(), by=person("lou", "legal"))) == "ok"
    assert await run.ended()
    assert len(flow.published) == 1


async def test_promise_02_a_rejection_lets_nothing_pass(start: Start):
    flow = drafts()
    run = await start(flow)
    (request,) = await run.open()
    assert await run.send(request.answer(Reject(comment="no"), by="erin")) == "ok"
    assert await run.ended()
    assert flow.published == []


# --------------------------------------------------------------------------- 3: the first answer


async def test_promise_03_the_first_answer_stands(start: Start):
    flow = stages()
    run = await start(flow)
    for round_number in range(2):
        (request,) = await run.open()
        no, yes = request.answer(Reject(), by="fred"), request.answer(Approve(), by="erin")
        assert await run.send(yes) == "ok"
        if round_number == 0:
            assert await run.send(yes) == "ok"
            assert await run.send(no) == "already_answered"
            assert await run.send(request.answer(Reject(), by="erin")) == "already_answered"
    assert await run.ended()
    assert flow.passed == ["AI"]


async def test_promise_03_the_first_answer_to_an_inline_question_stands(start: Start):
    flow = asking_in_parallel()
    run = await start(flow)
    requests = await run.open()
    first, *others = requests
    assert await run.send(first.answer(Approve(), by="erin")) == "ok"
    assert len(flow.paid) == 1
    if not isinstance(run, Memory):  # there the run itself says nothing about a step that is done
        assert await run.send(first.answer(Approve(), by="erin")) == "ok"
        assert await run.send(first.answer(Reject(), by="fred")) == "already_answered"
    for other in others:
        assert await run.send(other.answer(Approve(), by="erin")) == "ok"
    (close,) = await run.open()
    assert close.request.title == "Close?"
    assert len(flow.paid) == 3


# --------------------------------------------------------------------------- 8: not repeated


def beside_others() -> type[Workflow]:
    """Return a workflow in which other steps work before, beside and between the questions."""

    class Busy(Workflow):
        done: ClassVar[list[str]] = []

        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Draft | Transfer:
            self.done.append("begin")
            ctx.send_event(Transfer(to="sibling"))
            return Draft(text="x")

        @step
        async def sibling(self, ctx: Context, ev: Transfer) -> Settled:
            self.done.append("sibling")
            return Settled(to=ev.to, paid=True)

        review = Review(Draft, revise=Revision)

        @step
        async def again(self, ev: Revision) -> Draft:
            self.done.append("again")
            return Draft(text=ev.subject.text + "!")

        @step
        async def publish(self, ev: Approved) -> Draft2:
            self.done.append("publish")
            return Draft2(text=ev.subject.text)

        @step
        async def join(self, ctx: Context, ev: Draft2 | Settled) -> StopEvent | None:
            both = ctx.collect_events(ev, [Draft2, Settled])
            return None if both is None else StopEvent(result=both[0].text)

    return made(Busy)


class Draft2(Event):
    """A text that was let pass."""

    text: str


async def test_promise_08_work_before_a_pause_is_not_repeated(start: Start):
    flow = beside_others()
    run = await start(flow)
    for _ in range(2):
        (request,) = await run.open()
        assert await run.send(request.answer(Revise(feedback="more"), by="erin")) == "ok"
    (request,) = await run.open()
    assert await run.send(request.answer(Approve(), by="erin")) == "ok"
    assert await run.result() == "x!!"
    assert sorted(flow.done) == ["again", "again", "begin", "publish", "sibling"]


async def test_every_event_came_to_a_run_that_was_out_of_memory(start: Start):
    run = await start(stages())
    for _ in range(2):
        (request,) = await run.open()
        await run.send(request.answer(Approve(), by="erin"))
    assert await run.ended()
    assert isinstance(run, Memory) or run.releases == 2
