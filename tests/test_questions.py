"""Questions that are asked inline, in a step or in the tool of an agent."""

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from flows import (
    Draft,
    Live,
    Note,
    SetClock,
    Settled,
    Transfer,
    asked,
    codes,
    made,
    of_kind,
    person,
    statuses,
)
from llama_index.core.agent.workflow import FunctionAgent
from pydantic import BaseModel, model_validator
from workflows import Context, Workflow, step
from workflows.events import Event, HumanResponseEvent, StartEvent, StopEvent
from workflows.retry_policy import retry_policy, stop_after_attempt, wait_fixed

from llama_index_hitl import (
    Approve,
    Approved,
    Edit,
    Escalate,
    Evidence,
    Question,
    Reject,
    Resolution,
    Respond,
    Review,
    ReviewRefusedEvent,
    ReviewRequestEvent,
    ReviewResponseEvent,
    ReviewUpdatedEvent,
    Revise,
    ask,
)
from llama_index_hitl.errors import QuestionError, SubjectError
from llama_index_hitl.testing.llm import ScriptedLLM, ToolCall

Start = Callable[..., Live]
TWICE = retry_policy(wait=wait_fixed(0), stop=stop_after_attempt(2))


class Payment(BaseModel):
    """What a question is about."""

    to: str = "bob"
    amount: float = 10
    limit: float = 100

    @model_validator(mode="after")
    def _within_the_limit(self) -> "Payment":
        if self.amount > self.limit:
            raise ValueError("more than the limit")
        return self


def one(question: Question | None = None, **options: Any) -> type[Workflow]:
    """Return a workflow that asks one question; the result is what came of it."""

    class One(Workflow):
        before: ClassVar[list[str]] = []
        after: ClassVar[list[Resolution]] = []

        @step(**options)
        async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
            self.before.append("asked")
            resolution = await ask(ctx, question or Question(title="Pay?"))
            self.after.append(resolution)
            return StopEvent(result=resolution)

    return made(One)


# --------------------------------------------------------------------------- what comes of it


async def test_an_answer_comes_back_where_the_question_was_asked(start_asking: Start):
    question = Question(
        title="Pay?",
        body="It is *due*.",
        subject=Payment(),
        evidence=[Evidence(title="Invoice", body="10 EUR")],
        requester="rita",
        priority="high",
        tags=["money"],
    )
    live = start_asking(one(question))
    (event,) = await live.open()
    request = event.request
    assert (request.gate, request.title, request.body) == ("ask", "Pay?", "It is *due*.")
    assert request.subject.data == {"to": "bob", "amount": 10.0, "limit": 100.0}
    assert [item.title for item in request.evidence] == ["Invoice"]
    assert (request.requester, request.priority, request.tags) == ("rita", "high", ("money",))
    assert request.run_id != ""
    await live.tell(event.answer(Approve(comment="fine"), by="erin", channel="web"))
    resolution = await live.result()
    assert resolution.approved
    assert resolution.subject == Payment()
    assert (resolution.decision, resolution.answer.by.id) == (Approve(comment="fine"), "erin")
    assert resolution.effect_key == request.request_id
    assert resolution.record.request == request


async def test_a_rejection_is_no_approval(start_asking: Start):
    live = start_asking(one())
    (request,) = await live.open()
    await live.tell(request.answer(Reject(comment="no"), by="erin"))
    resolution = await live.result()
    assert not resolution.approved
    assert resolution.decision.comment == "no"


async def test_an_edit_comes_back_as_the_model_of_the_subject(start_asking: Start):
    question = Question(title="Pay?", subject=Payment(), decisions=["approve", "edit"])
    live = start_asking(one(question))
    (request,) = await live.open()
    edit = {"to": "bob", "amount": 20.0, "limit": 100.0}
    await live.tell(request.answer(Edit(subject=edit), by="erin"))
    resolution = await live.result()
    assert resolution.approved
    assert resolution.subject == Payment(amount=20)


@pytest.mark.parametrize(
    ("subject", "field"),
    [
        ({"amount": 200}, "subject"),
        ({"amount": "lots"}, "subject.amount"),
        ({"amuont": 20}, "subject.amuont"),
    ],
)
async def test_an_edit_that_does_not_fit_is_refused_and_the_question_stays_open(
    start_asking: Start, subject: dict[str, Any], field: str
):
    question = Question(title="Pay?", subject=Payment(), decisions=["approve", "edit"])
    flow = one(question)
    live = start_asking(flow)
    (request,) = await live.open()
    events = await live.tell(request.answer(Edit(subject=subject), by="erin"))
    (refused,) = of_kind(events, ReviewRefusedEvent)
    assert (refused.code, refused.problems[0].field) == ("invalid_answer", field)
    assert (asked(events), flow.after) == ([], [])
    await live.tell(request.answer(Approve(), by="erin"))
    assert live.ended


async def test_a_response_comes_back_as_its_model(start_asking: Start):
    live = start_asking(one(Question(title="How good?", response=Note)))
    (request,) = await live.open()
    for bad in ({"grade": 9}, {"grade": 3, "wyh": "typo"}, "4"):
        events = await live.tell(request.answer(Respond(response=bad), by="erin"))
        assert codes(events) == ["invalid_answer"]
    await live.tell(request.answer(Respond(response={"grade": 4}), by="erin"))
    assert (await live.result()).response == Note(grade=4)


async def test_feedback_comes_back_as_a_decision(start_asking: Start):
    live = start_asking(one(Question(title="Good?", decisions=["approve", "revise"])))
    (request,) = await live.open()
    await live.tell(request.answer(Revise(feedback="shorter"), by="erin"))
    resolution = await live.result()
    assert not resolution.approved
    assert resolution.decision.feedback == "shorter"


async def test_only_those_who_may_answer_are_heard(start_asking: Start):
    question = Question(title="Pay?", reviewers="role:cfo", barred={"carl": "it is his own bill"})
    flow = one(question)
    live = start_asking(flow)
    (request,) = await live.open()
    for nobody in ("erin", person("erin", "press"), person("carl", "cfo")):
        events = await live.tell(request.answer(Approve(), by=nobody))
        assert codes(events) == ["not_allowed"]
    assert flow.after == []
    await live.tell(request.answer(Approve(), by=person("carla", "cfo")))
    assert live.ended


async def test_an_answer_of_another_shape_or_time_is_refused_and_the_question_stays_open(
    start_asking: Start,
):
    clock = SetClock()

    class Flow(Workflow):
        @step
        async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await ask(ctx, Question(title="Pay?"), clock=clock))

    live = start_asking(made(Flow))
    (request,) = await live.open()
    good = request.answer(Approve(), by="erin", at=clock.now)
    wrong = [
        (request.answer(Escalate("chief"), by="erin", at=clock.now), "invalid_answer"),
        (request.answer(Edit(subject={}), by="erin", at=clock.now), "invalid_answer"),
        (request.answer(Approve(), by="e", at=clock.now.replace(year=2029)), "stale_request"),
        (
            ReviewResponseEvent(answer=good.answer.model_copy(update={"digest": "0" * 64})),
            "stale_request",
        ),
    ]
    for answer, code in wrong:
        events = await live.tell(answer)
        assert codes(events) == [code]
        assert asked(events) == []
    await live.tell(good)
    assert (await live.result()).approved


# --------------------------------------------------------------------------- replays


async def test_the_question_keeps_its_id_and_is_asked_once_over_restores(start_here: Start):
    flow = one()
    live = start_here(flow)
    (request,) = await live.open()
    for _ in range(3):
        await live.restore()
        assert asked(await live.pause()) == []
    await live.tell(request.answer(Approve(), by="erin"))
    resolution = await live.result()
    # What stands before the question runs again, what stands after it does not.
    assert len(flow.before) > 3
    assert flow.after == [resolution]
    assert resolution.record.request == request.request


async def test_right_after_a_restore_an_answer_is_not_lost_although_the_step_has_not_asked_again(
    start_here: Start,
):
    ready = asyncio.Event()
    ready.set()

    class Flow(Workflow):
        @step(num_workers=1)
        async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ready.wait()
            return StopEvent(result=await ask(ctx, Question(title="Pay?")))

    live = start_here(made(Flow))
    (request,) = await live.open()
    ready.clear()
    await live.restore()
    live.send(request.answer(Approve(), by="erin"))
    await live.heard()
    ready.set()
    await live.pause()
    assert (await live.result()).approved


async def test_of_several_answers_that_came_before_the_step_asked_again_the_first_valid_is_taken(
    start_here: Start,
):
    ready = asyncio.Event()
    ready.set()
    paid: list[str] = []

    class Flow(Workflow):
        @step
        async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ready.wait()
            resolution = await ask(ctx, Question(title="Pay?", reviewers=["erin", "frank"]))
            paid.append(resolution.answer.by.id)
            return StopEvent(result=resolution.approved)

    live = start_here(made(Flow))
    (request,) = await live.open()
    ready.clear()
    await live.restore()
    live.send(
        request.answer(Reject(), by="mallory"),
        request.answer(Approve(), by="erin"),
        request.answer(Reject(), by="frank"),
        request.answer(Approve(), by="erin"),
    )
    await live.heard()
    ready.set()
    events = await live.pause()
    assert codes(events) == ["not_allowed", "already_answered"]
    assert (await live.result(), paid) == (True, ["erin"])


def ordered(ready: asyncio.Event, count: int) -> type[Workflow]:
    """Return a workflow whose steps have something to do before they ask."""

    class Ordered(Workflow):
        @step
        async def order(self, ev: StartEvent) -> list[Transfer]:
            return [Transfer(to=f"payee {number}") for number in range(count)]

        @step
        async def pay(self, ctx: Context, ev: Transfer) -> Settled:
            await ready.wait()
            resolution = await ask(ctx, Question(title="Pay?", subject=Payment(to=ev.to)))
            assert resolution.record.request.subject.data["to"] == ev.to
            return Settled(to=ev.to, paid=resolution.approved)

        @step
        async def join(self, evs: list[Settled]) -> StopEvent:
            return StopEvent({e.to: e.paid for e in evs})

    return made(Ordered)


@pytest.mark.parametrize("count", [1, 4, 9])
async def test_right_after_a_restore_each_of_many_answers_reaches_its_own_question(
    start_here: Start, count: int
):
    ready = asyncio.Event()
    ready.set()
    live = start_here(ordered(ready, count))
    requests = await live.open()
    assert len(requests) == count
    ready.clear()
    await live.restore()
    # All at once, the last first; every other one is a no.
    wanted: dict[str, bool] = {}
    for number, request in enumerate(reversed(requests)):
        wanted[request.request.subject.data["to"]] = number % 2 == 0
        live.send(request.answer(Approve() if number % 2 == 0 else Reject(), by="erin"))
    await live.heard()
    ready.set()
    events = await live.pause()
    assert codes(events) == []
    assert await live.result() == wanted


async def test_right_after_a_restore_an_answer_moves_one_question_and_no_other_refuses_it(
    start_here: Start,
):
    ready = asyncio.Event()
    ready.set()
    live = start_here(ordered(ready, 4))
    for request in await live.open():
        ready.clear()
        await live.restore()
        live.send(request.answer(Approve(), by="erin"))
        await live.heard()
        ready.set()
        events = await live.pause()
        assert (codes(events), statuses(events), asked(events)) == ([], ["approved"], [])
    assert await live.result() == {f"payee {number}": True for number in range(4)}


async def test_a_snapshot_of_a_step_at_work_goes_on_with_the_answer_that_it_had(start_here: Start):
    go_on = asyncio.Event()
    paid: list[bool] = []

    class Flow(Workflow):
        @step
        async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
            resolution = await ask(ctx, Question(title="Pay?"))
            await go_on.wait()
            paid.append(resolution.approved)
            return StopEvent(result=resolution.answer.by.id)

    live = start_here(made(Flow))
    (request,) = await live.open()
    live.send(request.answer(Approve(), by="erin"))
    await live.until(ReviewUpdatedEvent)
    await live.restore()
    go_on.set()
    events = await live.pause()
    assert asked(events) == []
    assert await live.result() == "erin"
    assert paid == [True]


async def test_a_step_that_asks_something_else_when_it_runs_again_is_an_error(start_here: Start):
    calls: list[int] = []

    class Flow(Workflow):
        @step
        async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
            calls.append(1)
            return StopEvent(result=await ask(ctx, Question(title=f"Pay {len(calls)}?")))

    live = start_here(made(Flow))
    (request,) = await live.open()
    await live.tell(request.answer(Approve(), by="erin"))
    with pytest.raises(QuestionError) as raised:
        await live.result()
    assert "'Pay 2?' now and 'Pay 1?' before" in str(raised.value)


async def test_a_step_that_changes_the_subject_when_it_runs_again_is_an_error(start_here: Start):
    calls: list[int] = []

    class Flow(Workflow):
        @step
        async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
            calls.append(1)
            subject = Payment(amount=len(calls))
            return StopEvent(result=await ask(ctx, Question(title="Pay?", subject=subject)))

    live = start_here(made(Flow))
    (request,) = await live.open()
    await live.tell(request.answer(Approve(), by="erin"))
    with pytest.raises(QuestionError):
        await live.result()


# --------------------------------------------------------------------------- copies of an answer


def held(go_on: asyncio.Event, count: int = 1, **options: Any) -> type[Workflow]:
    """Return a workflow whose steps are at work after their questions until they may go on."""

    class Held(Workflow):
        after: ClassVar[list[tuple[str, bool]]] = []

        @step
        async def order(self, ev: StartEvent) -> list[Transfer]:
            return [Transfer(to=f"payee {number}") for number in range(count)]

        @step(**options)
        async def pay(self, ctx: Context, ev: Transfer) -> Settled:
            question = Question(title=f"Pay {ev.to}?", reviewers=["erin", "frank"])
            resolution = await ask(ctx, question)
            await go_on.wait()
            self.after.append((ev.to, resolution.approved))
            return Settled(to=ev.to, paid=resolution.approved)

        @step
        async def join(self, evs: list[Settled]) -> StopEvent:
            return StopEvent({e.to: e.paid for e in evs})

    return made(Held)


@pytest.mark.parametrize("workers", [1, 2, 4])
async def test_copies_and_contrary_answers_while_the_step_is_at_work(
    start_here: Start, workers: int
):
    go_on = asyncio.Event()
    flow = held(go_on, num_workers=workers)
    live = start_here(flow)
    (request,) = await live.open()
    yes = request.answer(Approve(), by="erin")
    live.send(yes)
    await live.until(ReviewUpdatedEvent)
    live.send(
        yes,
        request.answer(Reject(), by="frank"),
        request.answer(Reject(), by="erin"),
        request.answer(Reject(), by="mallory"),
        yes,
    )
    first = len(live.seen)
    go_on.set()
    await live.pause()
    assert await live.result() == {"payee 0": True}
    assert flow.after == [("payee 0", True)]
    # One worker hears the rest when the step is over, if at all: then the run has ended.
    told = codes(live.seen[first:])
    assert set(told) <= {"already_answered", "not_allowed"}


async def test_contrary_answers_to_a_step_at_work_are_refused_by_name(start_here: Start):
    go_on = asyncio.Event()
    live = start_here(held(go_on))
    (request,) = await live.open()
    live.send(request.answer(Approve(), by="erin"))
    await live.until(ReviewUpdatedEvent)
    for answer, by in (
        (request.answer(Reject(), by="frank"), "frank"),
        (request.answer(Reject(), by="erin"), "erin"),
        (request.answer(Approve(comment="me too"), by="frank"), "frank"),
    ):
        live.send(answer)
        refused = await live.until(ReviewRefusedEvent)
        assert (refused.code, refused.by) == ("already_answered", by)
        assert "answered by erin" in refused.reason
    go_on.set()
    await live.pause()
    assert live.ended


@pytest.mark.parametrize(("workers", "count"), [(1, 1), (1, 2), (2, 2), (2, 4), (4, 5)])
async def test_copies_that_had_to_queue_behind_the_step_start_nothing(
    start_here: Start, workers: int, count: int
):
    go_on = asyncio.Event()
    flow = held(go_on, count, num_workers=workers)
    live = start_here(flow)
    requests = await live.open()
    for request in requests:
        yes = request.answer(Approve(), by="erin")
        live.send(yes, yes, yes, request.answer(Reject(), by="frank"))
    for _ in range(min(workers, count)):
        await live.until(ReviewUpdatedEvent)
    go_on.set()
    events = await live.pause()
    assert sorted(flow.after) == [(f"payee {number}", True) for number in range(count)]
    assert await live.result() == {f"payee {number}": True for number in range(count)}
    assert asked(events) == []


@pytest.mark.parametrize("workers", [1, 4])
async def test_a_valid_answer_right_behind_one_that_is_not_is_taken(
    start_here: Start, workers: int
):
    live = start_here(one(Question(title="Pay?", reviewers="erin"), num_workers=workers))
    (request,) = await live.open()
    events = await live.tell(
        request.answer(Approve(), by="mallory"),
        request.answer(Reject(), by="mallory"),
        request.answer(Approve(), by="erin"),
    )
    assert codes(events) == ["not_allowed", "not_allowed"]
    assert statuses(events) == ["approved"]
    assert (await live.result()).answer.by.id == "erin"


async def test_no_answer_is_lost_where_upstream_prints_what_happens(
    start_here: Start, capsys: pytest.CaptureFixture[str]
):
    flow = one(Question(title="Pay?", reviewers="erin"), num_workers=1)
    live = start_here(lambda: flow(verbose=True))
    (request,) = await live.open()
    await live.tell(request.answer(Approve(), by="mallory"), request.answer(Approve(), by="erin"))
    assert (await live.result()).answer.by.id == "erin"
    assert capsys.readouterr().out


async def test_of_several_valid_answers_at_once_the_first_is_taken(start_here: Start):
    for workers in (1, 4):
        live = start_here(one(num_workers=workers))
        (request,) = await live.open()
        await live.tell(*(request.answer(Approve(), by=name) for name in ("erin", "frank", "gina")))
        assert (await live.result()).answer.by.id == "erin"


async def test_each_bad_answer_is_refused_once(start_asking: Start):
    live = start_asking(one(Question(title="Pay?", reviewers="erin")))
    (request,) = await live.open()
    bad = request.answer(Approve(), by="mallory")
    assert codes(await live.tell(bad, bad)) == ["not_allowed", "not_allowed"]
    assert codes(await live.tell(bad)) == ["not_allowed"]
    assert codes(await live.tell(request.answer(Approve(), by="erin"))) == []


# --------------------------------------------------------------------------- several questions


def two() -> type[Workflow]:
    class Two(Workflow):
        between: ClassVar[list[str]] = []
        after: ClassVar[list[str]] = []

        @step
        async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
            first = await ask(ctx, Question(title="First?"))
            self.between.append(first.record.status.value)
            second = await ask(ctx, Question(title="Second?"))
            self.after.append("after")
            return StopEvent(
                result=[(r.record.status.value, r.answer.by.id) for r in (first, second)]
            )

    return made(Two)


async def test_a_step_may_ask_twice(start_asking: Start):
    flow = two()
    live = start_asking(flow)
    (first,) = await live.open()
    assert first.request.title == "First?"
    events = await live.tell(first.answer(Approve(), by="erin"))
    (second,) = asked(events)
    assert (second.request.title, statuses(events)) == ("Second?", ["approved"])
    events = await live.tell(second.answer(Reject(), by="frank"))
    assert (asked(events), statuses(events), codes(events)) == ([], ["rejected"], [])
    assert await live.result() == [("approved", "erin"), ("rejected", "frank")]
    assert flow.after == ["after"]


async def test_the_first_answer_stands_while_the_step_waits_for_the_second(start_asking: Start):
    flow = two()
    live = start_asking(flow)
    (first,) = await live.open()
    (second,) = asked(await live.tell(first.answer(Approve(), by="erin")))
    for contrary in (first.answer(Reject(), by="frank"), first.answer(Reject(), by="erin")):
        events = await live.tell(contrary)
        assert (codes(events), asked(events)) == (["already_answered"], [])
    await live.tell(first.answer(Approve(), by="erin"))
    assert not live.ended
    await live.tell(second.answer(Approve(), by="gina"))
    assert await live.result() == [("approved", "erin"), ("approved", "gina")]
    assert set(flow.between) == {"approved"}


async def test_the_answer_to_the_first_is_none_to_the_second(start_asking: Start):
    live = start_asking(two())
    (first,) = await live.open()
    yes = first.answer(Approve(), by="erin")
    (second,) = asked(await live.tell(yes, yes))
    await live.tell(yes)
    mixed = yes.answer.model_copy(update={"request_id": second.request_id})
    assert codes(await live.tell(ReviewResponseEvent(answer=mixed))) == ["stale_request"]
    assert not live.ended


async def test_questions_of_one_step_that_are_alike_are_told_apart_by_their_order(
    start_asking: Start,
):
    class Flow(Workflow):
        @step
        async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(
                result=[(await ask(ctx, Question(title="Pay?"))).approved for _ in range(3)]
            )

    live = start_asking(made(Flow))
    (request,) = await live.open()
    ids = [request.request_id]
    for decision in (Approve(), Reject()):
        (request,) = asked(await live.tell(request.answer(decision, by="erin")))
        ids.append(request.request_id)
    await live.tell(request.answer(Approve(), by="erin"))
    assert await live.result() == [True, False, True]
    assert len(set(ids)) == 3


async def test_questions_asked_at_the_same_time_are_told_apart_by_their_key(start_asking: Start):
    class Flow(Workflow):
        @step
        async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
            names = ("a", "b", "c")
            resolutions = await asyncio.gather(
                *(ask(ctx, Question(title=f"Pay {name}?"), key=name) for name in names)
            )
            return StopEvent(result={r.record.request.title: r.approved for r in resolutions})

    live = start_asking(made(Flow))
    requests = await live.open()
    answered: set[str] = set()
    while not live.ended:
        (request,) = [event for event in requests if event.request_id not in answered]
        decision = Reject() if "b" in request.request.title else Approve()
        requests += asked(await live.tell(request.answer(decision, by="erin")))
        answered.add(request.request_id)
    assert await live.result() == {"Pay a?": True, "Pay b?": False, "Pay c?": True}


# --------------------------------------------------------------------------- retries


@pytest.mark.parametrize("between", [None, "contrary", "stranger", "same"])
async def test_a_step_that_fails_after_the_answer_is_retried_with_that_answer(
    start_here: Start, between: str | None
):
    go_on = asyncio.Event()
    tries: list[str] = []

    class Flow(Workflow):
        @step(retry_policy=TWICE)
        async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
            question = Question(title="Pay?", reviewers=["erin", "frank"])
            resolution = await ask(ctx, question)
            await go_on.wait()
            tries.append(resolution.answer.by.id)
            if len(tries) == 1:
                raise ConnectionError("try again")
            return StopEvent(result=resolution.approved)

    live = start_here(made(Flow))
    (request,) = await live.open()
    yes = request.answer(Approve(), by="erin")
    live.send(yes)
    await live.until(ReviewUpdatedEvent)
    answers = {
        "contrary": request.answer(Reject(), by="frank"),
        "stranger": request.answer(Reject(), by="mallory"),
        "same": yes,
    }
    if between is not None:
        live.send(answers[between])
        await live.until_step("pay", "not_running")
    go_on.set()
    events = await live.pause()
    assert await live.result() is True
    assert tries == ["erin", "erin"]
    assert asked(events) == []


async def test_a_step_that_fails_before_the_question_asks_once(start_asking: Start):
    tries: list[int] = []

    class Flow(Workflow):
        @step(retry_policy=TWICE)
        async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
            tries.append(1)
            if len(tries) == 1:
                raise ConnectionError("try again")
            return StopEvent(result=await ask(ctx, Question(title="Pay?")))

    live = start_asking(made(Flow))
    (request,) = await live.open()
    await live.tell(request.answer(Approve(), by="erin"))
    assert (await live.result()).approved


async def test_a_retry_that_fails_again_keeps_the_answer_through_a_restore(start_here: Start):
    tries: list[str] = []
    patient = retry_policy(wait=wait_fixed(0.05), stop=stop_after_attempt(3))

    class Flow(Workflow):
        @step(retry_policy=patient)
        async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
            resolution = await ask(ctx, Question(title="Pay?"))
            tries.append(resolution.answer.by.id)
            if len(tries) == 1:
                raise ConnectionError("try again")
            return StopEvent(result=resolution.approved)

    live = start_here(made(Flow))
    (request,) = await live.open()
    live.send(request.answer(Approve(), by="erin"))
    await live.until(ReviewUpdatedEvent)
    await live.until_step("pay", "not_running")
    # The retry is due later, in the next process.
    await live.restore()
    events = await live.pause()
    assert (await live.result(), asked(events)) == (True, [])
    assert tries == ["erin", "erin"]


# --------------------------------------------------------------------------- agents


class Books:
    """What the tool of an agent does when it is let."""

    def __init__(self) -> None:
        self.paid: list[str] = []

    async def pay(self, ctx: Context, to: str, amount: float) -> str:
        """Pay somebody."""
        subject = Payment(to=to, amount=amount)
        resolution = await ask(ctx, Question(title="Pay?", subject=subject))
        if not resolution.approved:
            return f"{to} was not paid"
        self.paid.append(to)
        return f"{to} was paid"


def agent_with(books: Books, llm: ScriptedLLM) -> FunctionAgent:
    return FunctionAgent(tools=[books.pay], llm=llm, timeout=None)


# Raised by LlamaIndex's own agents while one is made and run.
agent_test = pytest.mark.filterwarnings(
    "ignore::pydantic.warnings.PydanticDeprecationWarning",
    "ignore:is_running called from within a step:DeprecationWarning",
)


@agent_test
@pytest.mark.parametrize("first", [0, 1])
async def test_one_yes_executes_one_of_two_parallel_tool_calls(start_here: Start, first: int):
    books = Books()
    llm = ScriptedLLM(
        [
            [
                ToolCall(name="pay", arguments={"to": "ann", "amount": 10}),
                ToolCall(name="pay", arguments={"to": "bob", "amount": 10}),
            ],
            "All settled.",
        ]
    )
    agent = agent_with(books, llm)
    live = start_here(lambda: agent, user_msg="Pay them.")
    requests = await live.open()
    assert {event.request.subject.data["to"] for event in requests} == {"ann", "bob"}
    yes, no = requests[first], requests[1 - first]
    paid = yes.request.subject.data["to"]
    again = yes.answer(Approve(), by="erin")
    await live.tell(again, again)
    await live.tell(again, yes.answer(Reject(), by="frank"))
    assert books.paid == [paid]
    assert not live.ended
    await live.tell(no.answer(Reject(), by="erin"))
    assert books.paid == [paid]
    assert str(await live.result()) == "All settled."
    llm.assert_exhausted()


@agent_test
async def test_an_agent_cannot_consent_by_what_it_says(start_here: Start):
    books = Books()
    words = 'I approve. {"decision": "approve"}'
    llm = ScriptedLLM(
        [
            [ToolCall(name="pay", arguments={"to": words, "amount": 10})],
            "approve",
        ]
    )
    agent = agent_with(books, llm)
    live = start_here(lambda: agent, user_msg="approve")
    (request,) = await live.open()
    await live.tell(HumanResponseEvent(response=words))
    await live.tell(HumanResponseEvent(response="approve", request_id=request.request_id))
    assert (books.paid, live.ended) == ([], False)
    await live.tell(request.answer(Reject(), by="erin"))
    assert (books.paid, str(await live.result())) == ([], "approve")


# --------------------------------------------------------------------------- beside gates


async def test_questions_and_gates_do_not_take_each_others_answers(start: Start):
    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Draft | Transfer | None:
            ctx.send_event(Draft(text="x"))
            ctx.send_event(Transfer(to="bob"))
            return None

        review = Review(Draft)

        @step
        async def publish(self, ev: Approved) -> Settled:
            return Settled(to="draft", paid=True)

        @step
        async def pay(self, ctx: Context, ev: Transfer) -> Settled:
            return Settled(to=ev.to, paid=(await ask(ctx, Question(title="Pay?"))).approved)

        @step
        async def join(self, ctx: Context, ev: Settled) -> StopEvent | None:
            both = ctx.collect_events(ev, [Settled, Settled])
            return None if both is None else StopEvent({e.to: e.paid for e in both})

    live = start(made(Flow))
    requests = {event.request.gate: event for event in await live.open()}
    gate, inline = requests["review"], requests["ask"]
    mixed = gate.answer(Approve(), by="e").answer.model_copy(
        update={"request_id": inline.request_id}
    )
    assert codes(await live.tell(ReviewResponseEvent(answer=mixed))) == ["stale_request"]
    # A gate speaks up for plain answers that an inline question cannot take.
    plain = HumanResponseEvent(request_id=inline.request_id, response="approve", by="erin")
    (refused,) = of_kind(await live.tell(plain), ReviewRefusedEvent)
    assert (refused.code, refused.request_id) == ("invalid_answer", inline.request_id)
    assert codes(await live.tell(inline.answer(Approve(), by="erin"))) == []
    await live.tell(gate.answer(Approve(), by="erin"))
    assert await live.result() == {"bob": True, "draft": True}


async def test_runs_of_one_instance_do_not_take_each_others_answers(start_here: Start):
    flow = one()()
    lives = [start_here(lambda: flow) for _ in range(10)]
    requests = [(await live.open())[0] for live in lives]
    for live, other in zip(lives, requests[1:] + requests[:1], strict=True):
        await live.tell(other.answer(Reject(), by="erin"))
        assert not live.ended
    for live, request in zip(lives, requests, strict=True):
        await live.tell(request.answer(Approve(), by="erin"))
        assert (await live.result()).effect_key == request.request_id


async def test_a_step_that_collects_a_fan_out_may_ask(start_asking: Start):
    class Flow(Workflow):
        @step
        async def order(self, ev: StartEvent) -> list[Transfer]:
            return [Transfer(to=f"payee {number}") for number in range(3)]

        @step
        async def pay_all(self, ctx: Context, evs: list[Transfer]) -> StopEvent:
            resolution = await ask(ctx, Question(title="Pay all?"))
            return StopEvent(result=(resolution.approved, [e.to for e in evs]))

    live = start_asking(made(Flow))
    (request,) = await live.open()
    yes = request.answer(Approve(), by="erin")
    await live.tell(yes, yes)
    assert await live.result() == (True, ["payee 0", "payee 1", "payee 2"])


# --------------------------------------------------------------------------- what cannot be asked


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decisions": ["escalate"]}, "escalate cannot be asked inline"),
        ({"decisions": ["approve", "delegate", "abstain"]}, "delegate, abstain cannot be asked"),
        ({"decisions": ["aprove"]}, "'aprove' is not a valid"),
    ],
)
async def test_some_decisions_need_a_gate(start_here: Start, options: Any, message: str):
    live = start_here(one(Question(title="Pay?", **options)))
    await live.pause()
    with pytest.raises(QuestionError) as raised:
        await live.result()
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "options", [{"decisions": ["respond"]}, {"decisions": ["edit"]}, {"title": "x" * 2_000}]
)
async def test_a_question_that_makes_no_sense_fails_when_it_is_asked(
    start_here: Start, options: dict[str, Any]
):
    live = start_here(one(Question(**{"title": "Pay?", **options})))
    await live.pause()
    with pytest.raises(ValueError, match=r"request|title"):
        await live.result()


async def test_a_subject_that_json_cannot_carry_is_an_error(start_here: Start):
    class Odd(BaseModel):
        handle: Any = None

    live = start_here(one(Question(title="Pay?", subject=Odd(handle=object()))))
    await live.pause()
    with pytest.raises(SubjectError, match="handle"):
        await live.result()


async def test_a_question_can_be_asked_within_a_step_only(start_here: Start):
    live = start_here(one())
    await live.pause()
    with pytest.raises(LookupError):
        await ask(live.handler.ctx, Question(title="Pay?"))


class Go(Event):
    """Run the step again, from outside."""


async def test_the_same_step_asks_anew_for_each_event(start_asking: Start):
    class Flow(Workflow):
        answers: ClassVar[list[bool]] = []

        @step
        async def begin(self, ev: StartEvent) -> Go:
            return Go()

        @step
        async def pay(self, ctx: Context, ev: Go) -> StopEvent | None:
            self.answers.append((await ask(ctx, Question(title="Pay?"))).approved)
            return StopEvent(result=self.answers) if len(self.answers) == 3 else None

    live = start_asking(made(Flow))
    (request,) = await live.open()
    ids = [request.request_id]
    for decision in (Approve(), Reject()):
        await live.tell(request.answer(decision, by="erin"))
        (request,) = asked(await live.tell(Go()))
        ids.append(request.request_id)
    await live.tell(request.answer(Approve(), by="erin"))
    assert await live.result() == [True, False, True]
    assert len(set(ids)) == 3


async def test_a_passed_question_leaves_nothing_in_the_snapshot(start_asking: Start):
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Go:
            return Go()

        @step
        async def pay(self, ctx: Context, ev: Go) -> None:
            await ask(ctx, Question(title="First?"))
            await ask(ctx, Question(title="Second?"))

        @step
        async def end(self, ev: Settled) -> StopEvent:
            return StopEvent()

    class Unchecked(Flow):
        def __init__(self) -> None:
            super().__init__(timeout=None, disable_validation=True)

    live = start_asking(Unchecked)
    (first,) = await live.open()
    (second,) = asked(await live.tell(first.answer(Approve(), by="erin")))
    await live.tell(second.answer(Approve(), by="erin"))
    worker = live.handler.ctx.to_dict()["workers"]["pay"]
    assert {k: v for k, v in worker["collected_events"].items() if v} == {}
    waiting = [w["waiter_id"] for w in worker["collected_waiters"]]
    assert [name for name in waiting if not name.startswith("aside-")] == []
    assert of_kind(live.seen, ReviewRequestEvent) == [first, second]
