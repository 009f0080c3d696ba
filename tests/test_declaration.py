"""What a gate refuses when it is declared, and what it refuses to show."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from pydantic import BaseModel
from workflows import Context, Workflow, step
from workflows.events import Event, StartEvent, StopEvent, WorkflowIdleEvent

from llama_index_hitl import (
    Approve,
    Approved,
    Escalate,
    Expire,
    Expired,
    Reject,
    Rejected,
    Remind,
    Review,
    ReviewDeadlineEvent,
    ReviewRefusedEvent,
    ReviewRequestEvent,
    ReviewWithdrawEvent,
    Widen,
    WorkingHours,
    gates_of,
)
from llama_index_hitl.errors import GateError, SubjectError
from llama_index_hitl.rules import never
from llama_index_hitl.testing import ScriptedReviewer, review_with

HOUR = timedelta(hours=1)


class Draft(Event):
    text: str = "x"


class Checked(Approved):
    pass


class Noted(Approved):
    note: str


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("deadline= must be a timedelta", {"deadline": 5}),
        ("longer than no time", {"deadline": timedelta(0)}),
        ("silence is never consent", {"deadline": timedelta(1), "on_deadline": Approve()}),
        ("silence is never consent", {"deadline": timedelta(1), "on_deadline": "reject"}),
        ("needs deadline=", {"on_deadline": Reject()}),
        ("ladder= or deadline=", {"deadline": HOUR, "ladder": {HOUR: Expire()}}),
        ("needs deadline=", {"on_deadline": Reject(), "ladder": {HOUR: Remind()}}),
        ("ladder= must be a dict", {"ladder": [(HOUR, Expire())]}),
        ("after which time", {"ladder": {5: Expire()}}),
        ("after which time", {"ladder": {timedelta(0): Expire()}}),
        ("after which time", {"ladder": {-HOUR: Remind()}}),
        ("silence is never consent", {"ladder": {HOUR: Approve()}}),
        ("silence is never consent", {"ladder": {HOUR: "expire"}}),
        ("silence is never consent", {"ladder": {HOUR: Expire}}),
        ("behind Expire", {"ladder": {2 * HOUR: Remind(), HOUR: Expire()}}),
        ("behind Reject", {"ladder": {HOUR: Reject(), 2 * HOUR: Expire()}}),
        ("somebody to escalate to", {"ladder": {HOUR: Escalate()}}),
        ("a role is written 'role:legal'", {"ladder": {HOUR: Widen("roles:legal")}}),
        ("a role is written 'role:legal'", {"ladder": {HOUR: Escalate("group:legal")}}),
        ("quorum='all'", {"reviewers": ["a"], "quorum": "all", "ladder": {HOUR: Widen("b")}}),
        ("function of the workflow and the event", {"ladder": lambda event: {}}),
        ("calendar= needs", {"calendar": WorkingHours(time_zone="UTC")}),
        ("must be WorkingHours", {"deadline": HOUR, "calendar": "UTC"}),
        ("priority= must be one of", {"priority": "asap"}),
        ("a role is written 'role:legal'", {"reviewers": "roles:legal"}),
        ("a role is written 'role:legal'", {"reviewers": ["role:"]}),
        ("not empty", {"escalate_to": [""]}),
        ("must be words", {"reviewers": 5}),
        ("when= takes a Rule", {"when": True}),
        ("function of the workflow and the event", {"when": lambda subject: True}),
        ("function of the workflow and the event", {"title": lambda: "x"}),
        ("is str, not a pydantic model", {"subject": "text"}),
        ("fields that nobody fills: note", {"approved": Noted}),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(message: str, options: dict) -> None:
    with pytest.raises(GateError, match=message):
        Review(Draft, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"ladder": {HOUR: Remind(), 2 * HOUR: Widen("role:legal")}},
        {"ladder": {HOUR: Escalate()}, "escalate_to": "boss"},
        {"ladder": {}},
        {
            "ladder": {HOUR: Escalate("b"), 2 * HOUR: Widen("c")},
            "reviewers": ["a"],
            "quorum": "all",
        },
    ],
)
def test_a_ladder_that_can_be_climbed_is_taken(options: dict) -> None:
    assert Review(Draft, **options).ladder == options["ladder"]


@pytest.mark.parametrize("options", [{}, {"deadline": HOUR}, {"ladder": {HOUR: Remind()}}])
def test_every_gate_takes_deadlines_and_withdrawals(options: dict) -> None:
    # So that a run that is paused now fits a gate that is given a deadline later.
    accepts = Review(Draft, **options).accepts
    assert {ReviewDeadlineEvent, ReviewWithdrawEvent} <= set(accepts)


@pytest.mark.parametrize(
    ("options", "expires"),
    [
        ({}, False),
        ({"deadline": HOUR}, True),
        ({"ladder": {HOUR: Remind()}}, False),
        ({"ladder": {HOUR: Escalate("b"), 2 * HOUR: Expire()}}, True),
        ({"ladder": lambda flow, event: None}, True),
    ],
)
def test_a_gate_says_whether_its_requests_may_expire(options: dict, expires: bool) -> None:
    gate = Review(Draft, expired=Expired, rejected=Rejected, **options)
    assert (Expired in gate.outcome_types, gate.ends_run) == (expires, False)
    assert Review(Draft, rejected=Rejected, **options).ends_run is expires


@pytest.mark.parametrize("name", ["run", "clock", "ask"])
def test_a_gate_cannot_hide_what_a_workflow_needs(name: str) -> None:
    with pytest.raises((GateError, RuntimeError)) as caught:
        type("Flow", (Workflow,), {name: Review(Draft)})
    assert "cannot be named" in str(caught.value.__cause__ or caught.value)


def test_two_gates_that_would_approve_the_same_twice_are_refused() -> None:
    with pytest.raises((GateError, RuntimeError)) as caught:
        type("Flow", (Workflow,), {"review": Review(Draft), "reviw": Review(Draft)})
    assert "would be done twice" in str(caught.value.__cause__ or caught.value)


class Writing(Workflow):
    @step
    async def write(self, ev: StartEvent) -> Draft:
        return Draft(text="AI")

    check = Review(Draft, reviewers="erin", approved=Checked)
    release = Review(Checked, when=never(), rejected=Rejected)

    @step
    async def publish(self, ev: Approved) -> StopEvent:
        return StopEvent(result=ev.effect_key)

    @step
    async def stop(self, ev: Rejected) -> StopEvent:
        return StopEvent(result=None)


async def paused(flow: Workflow) -> tuple[ReviewRequestEvent, dict]:
    handler, asked = flow.run(), []
    async for event in handler.stream_events(expose_internal=True):
        if isinstance(event, ReviewRequestEvent):
            asked.append(event)
        if isinstance(event, WorkflowIdleEvent) and asked:
            break
    state = json.loads(json.dumps(handler.ctx.to_dict()))
    await handler.cancel_run()
    return asked[0], state


async def test_the_effect_key_is_the_same_however_often_a_run_is_recovered() -> None:
    flow = Writing(timeout=None)
    asked, state = await paused(flow)
    answer = asked.answer(Approve(), by="erin")
    keys = set()
    for _ in range(2):
        handler = flow.run(ctx=Context.from_dict(flow, state))
        handler.ctx.send_event(answer)
        keys.add(await handler)
    assert len(keys) == 1
    assert keys.pop().startswith("release-")


async def test_two_runs_never_share_a_request_id() -> None:
    flow = Writing(timeout=None)
    (first, _), (second, _) = await paused(flow), await paused(flow)
    assert first.request_id != second.request_id


async def test_what_was_changed_in_the_snapshot_does_not_run() -> None:
    flow = Writing(timeout=None)
    asked, state = await paused(flow)
    forged = json.loads(
        json.dumps(state).replace('\\"text\\": \\"AI\\"', '\\"text\\": \\"no\\"', 1)
    )
    assert forged != state
    handler = flow.run(ctx=Context.from_dict(flow, forged))
    handler.ctx.send_event(asked.answer(Approve(), by="erin"))
    with pytest.raises(SubjectError, match="does not come back as it was shown"):
        await handler


class Payment(BaseModel):
    to: str


class Wire(Payment):
    amount: int


class Proposed(Event):
    payment: Payment


class Paying(Workflow):
    @step
    async def propose(self, ev: StartEvent) -> Proposed:
        return Proposed(payment=Wire(to="bob", amount=5))

    review = Review(Proposed, subject="payment")

    @step
    async def pay(self, ev: Approved) -> StopEvent:
        return StopEvent(result=ev.subject)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
async def test_a_subject_that_would_come_back_as_less_than_was_shown_is_refused() -> None:
    with pytest.raises(SubjectError):
        await Paying(timeout=None).run()


async def test_a_gate_that_a_subclass_hides_still_takes_its_answers() -> None:
    class Hidden(Writing):
        check = None  # type: ignore[assignment]

    assert list(gates_of(Hidden)) == ["check", "release"]
    erin = ScriptedReviewer([Approve()], by="erin")
    assert await review_with(Hidden(timeout=None).run(), erin)


class Nobody(Workflow):
    @step
    async def write(self, ev: StartEvent) -> Draft:
        return Draft()

    review = Review(Draft, reviewers=lambda flow, ev: [])

    @step
    async def publish(self, ev: Approved) -> StopEvent:
        return StopEvent()


async def test_a_look_up_that_finds_nobody_does_not_let_everybody_in() -> None:
    with pytest.raises(GateError, match="found nobody"):
        await Nobody(timeout=None).run()


async def test_an_answer_that_is_nested_without_end_is_refused_and_kills_nothing() -> None:
    deep: object = "x"
    for _ in range(3_000):
        deep = [deep]
    flow = Writing(timeout=None)
    handler = flow.run()
    refused = []
    async for event in handler.stream_events():
        if isinstance(event, ReviewRequestEvent):
            raw = {"request_id": event.request_id, "response": {"decision": "approve", "x": deep}}
            from workflows.events import HumanResponseEvent

            handler.ctx.send_event(HumanResponseEvent(by="erin", **raw))
            handler.ctx.send_event(event.answer(Approve(), by="erin"))
        if isinstance(event, ReviewRefusedEvent):
            refused.append(event.code)
    assert refused == ["invalid_answer"]
    assert await handler
