"""The promises of the package, as far as they hold in one process; numbered as in its design."""

import asyncio
import itertools
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from flows import (
    Draft,
    LegalApproved,
    Live,
    SetClock,
    Settled,
    Transfer,
    a_moment,
    asked,
    codes,
    drafts,
    made,
    of_kind,
    person,
    revised,
    stages,
    statuses,
    transfers,
)
from pydantic import BaseModel, Field, ValidationError, model_validator
from workflows import Context, Workflow, step
from workflows.context.serializers import JsonSerializer
from workflows.events import Event, HumanResponseEvent, StartEvent, StopEvent

from llama_index_hitl import (
    Answer,
    Approve,
    Approved,
    Edit,
    Question,
    Reject,
    Review,
    Reviewer,
    ReviewRefusedEvent,
    ReviewRequest,
    ReviewRequestEvent,
    ReviewResponseEvent,
    ReviewUpdatedEvent,
    Revise,
    ask,
)
from llama_index_hitl.rules import always

Start = Callable[..., Live]


def forged(event: ReviewRequestEvent, **changes: Any) -> ReviewRequestEvent:
    """Return another request that looks like this one, with a digest of its own."""
    shown = event.request.model_dump()
    return ReviewRequestEvent(request=ReviewRequest(**{**shown, "digest": "", **changes}))


# --------------------------------------------------------------------------- 1: one request


async def test_promise_01_the_answer_to_one_gate_never_moves_another(start: Start):
    flow = stages()
    live = start(flow)
    (legal,) = await live.open()
    yes = legal.answer(Approve(), by="erin")
    (editor,) = asked(await live.tell(yes))
    # The same words, for the gate that asked before: again, twice, and in plain form.
    plain = HumanResponseEvent(request_id=legal.request_id, response="approve", by="erin")
    await live.tell(yes, yes, plain)
    assert not live.ended
    assert flow.passed == []
    await live.tell(editor.answer(Approve(), by="erin"))
    assert live.ended


class OtherApproved(Approved):
    """Another gate let it pass."""


def side_by_side() -> type[Workflow]:
    class SideBySide(Workflow):
        passed: ClassVar[list[str]] = []

        @step
        async def write(self, ev: StartEvent) -> Draft:
            return Draft(text="x")

        left = Review(Draft)
        right = Review(Draft, approved=OtherApproved)

        @step
        async def join(self, ctx: Context, ev: Approved | OtherApproved) -> StopEvent | None:
            self.passed.append(ev.request.gate)
            both = ctx.collect_events(ev, [Approved, OtherApproved])
            return None if both is None else StopEvent()

    return made(SideBySide)


async def test_promise_01_an_answer_pushed_into_the_step_of_another_gate_does_nothing(
    start_here: Start,
):
    flow = side_by_side()
    live = start_here(flow)
    requests = {event.request.gate: event for event in await live.open()}
    answer = requests["left"].answer(Approve(), by="erin")
    live.handler.ctx.send_event(answer, step="right_gate")
    assert codes(await live.pause()) == []
    assert flow.passed == []


async def test_promise_01_the_digest_of_one_gate_does_not_open_another(start: Start):
    flow = side_by_side()
    live = start(flow)
    left, right = await live.open()
    mixed = left.answer(Approve(), by="erin").answer.model_copy(
        update={"request_id": right.request_id}
    )
    assert codes(await live.tell(ReviewResponseEvent(answer=mixed))) == ["stale_request"]
    assert flow.passed == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_promise_01_parallel_requests_are_answered_in_every_order_twice_and_mixed_up(
    start: Start, order: tuple[int, ...]
):
    flow = transfers(3)
    live = start(flow)
    requests = await live.open()
    assert len({event.request_id for event in requests}) == 3
    paid: list[str] = []
    for number in order:
        request = requests[number]
        for other in requests:
            if other is not request:
                answer = request.answer(Approve(), by="mallory").answer
                mixed = answer.model_copy(update={"digest": other.request.digest})
                assert codes(await live.tell(ReviewResponseEvent(answer=mixed))) == (
                    ["stale_request"]
                )
                assert flow.paid == paid
        yes = request.answer(Approve(), by="erin")
        events = await live.tell(yes, yes)
        paid.append(f"payee {number}")
        assert flow.paid == paid
        assert statuses(events) == ["approved"]
        assert codes(events) == []
    assert await live.result() == {f"payee {number}": True for number in range(3)}


async def test_promise_01_right_after_a_restore_one_yes_moves_one_request(start_here: Start):
    flow = transfers(3)
    live = start_here(flow)
    requests = await live.open()
    await live.restore()
    live.send(requests[1].answer(Approve(), by="erin"))
    await live.pause()
    assert flow.paid == ["payee 1"]
    await live.restore()
    await live.tell(requests[0].answer(Reject(), by="erin"), requests[2].answer(Reject(), by="e"))
    assert await live.result() == {"payee 0": False, "payee 1": True, "payee 2": False}


def asking(count: int = 3) -> type[Workflow]:
    class Asking(Workflow):
        paid: ClassVar[list[str]] = []

        @step
        async def order(self, ev: StartEvent) -> list[Transfer]:
            return [Transfer(to=f"payee {number}") for number in range(count)]

        @step
        async def pay(self, ctx: Context, ev: Transfer) -> Settled:
            # All alike, so that nothing but the id tells them apart.
            resolution = await ask(ctx, Question(title="Pay?"))
            if resolution.approved:
                self.paid.append(ev.to)
            return Settled(to=ev.to, paid=resolution.approved)

        @step
        async def join(self, evs: list[Settled]) -> StopEvent:
            return StopEvent({e.to: e.paid for e in evs})

    return made(Asking)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_promise_01_inline_questions_are_answered_in_every_order_twice_and_mixed_up(
    start_asking: Start, order: tuple[int, ...]
):
    flow = asking()
    live = start_asking(flow)
    requests = await live.open()
    assert len({event.request_id for event in requests}) == 3
    for count, number in enumerate(order):
        request, other = requests[number], requests[number - 1]
        answer = request.answer(Approve(), by="mallory").answer
        mixed = answer.model_copy(update={"digest": other.request.digest})
        assert codes(await live.tell(ReviewResponseEvent(answer=mixed))) == ["stale_request"]
        yes = request.answer(Approve(), by="erin")
        assert statuses(await live.tell(yes, yes)) == ["approved"]
        assert len(flow.paid) == count + 1
    assert await live.result() == {f"payee {number}": True for number in range(3)}


async def test_promise_01_an_answer_to_an_earlier_draft_does_not_approve_the_next(start: Start):
    live = start(revised())
    (first,) = await live.open()
    (second,) = asked(await live.tell(first.answer(Revise(feedback="more"), by="erin")))
    late = first.answer(Approve(), by="erin")
    assert codes(await live.tell(late)) == ["already_answered"]
    renamed = late.answer.model_copy(update={"request_id": second.request_id})
    assert codes(await live.tell(ReviewResponseEvent(answer=renamed))) == ["stale_request"]
    assert not live.ended


async def test_promise_01_an_answer_to_another_run_moves_nothing(start_here: Start):
    flow = drafts()
    here, there = start_here(flow), start_here(flow)
    (mine,), (theirs,) = await here.open(), await there.open()
    assert codes(await here.tell(theirs.answer(Approve(), by="erin"))) == ["unknown_request"]
    assert flow.published == []
    await here.tell(mine.answer(Approve(), by="erin"))
    assert here.ended
    assert not there.ended


# --------------------------------------------------------------------------- 2: explicit consent


async def test_promise_02_an_empty_answer_is_none(start: Start):
    flow = drafts()
    live = start(flow)
    (request,) = await live.open()
    for text in ("", " ", "\n", "\t\n", "\u200b", "\u00a0", "\ufeff"):
        plain = HumanResponseEvent(request_id=request.request_id, response=text, by="erin")
        assert codes(await live.tell(plain)) == ["invalid_answer"], repr(text)
    assert flow.published == []
    assert not live.ended


GARBAGE: list[Any] = [
    "yes",
    "y",
    "ok",
    "approved",
    "Approved!",
    "APPROVE.",
    "This is NOT approved.",
    "I approve",
    "approve it",
    "approve, please",
    "approve\nreject",
    "reject approve",
    "do not approve",
    "1",
    "true",
    # An o that is Greek, letters of full width, an invisible character, one that merely looks so.
    "appr\u03bfve",
    "\uff41\uff50\uff50\uff52\uff4f\uff56\uff45",
    "appro\u200bve",
    "\u202eevorppa",
    "{}",
    "{",
    "[]",
    '["approve"]',
    '"approve"',
    "null",
    '{"decision": null}',
    '{"decision": true}',
    '{"decision": ["approve"]}',
    '{"decision": {"approve": true}}',
    '{"decision": {"kind": ["approve"]}}',
    '{"kind": "approve"}',
    '{"decision": "approve", "extra": 1}',
    '{"decision": "approve", "comment": 1}',
    '{"decision": "approve", "by": "the boss"}',
    '{"decision": "approve", "status": "approved"}',
    '{"decision": "edit", "subject": {}}',
    '{"decision": "respond", "response": "approve"}',
    '{"answer": {"decision": {"kind": "approve"}}}',
    "x" * 1_000_000,
    "approve" * 150_000,
    '{"decision": "approve", "comment": "' + "x" * 1_000_001 + '"}',
    '{"decision":' * 100_000,
    "[" * 100_000,
    None,
    0,
    True,
    [],
    ["approve"],
    {},
    {"approve": True},
    {"decision": "yes"},
    b"approve",
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda g: repr(g)[:40].replace("/", "|"))
async def test_promise_02_what_does_not_parse_is_refused_and_the_question_stays_open(
    start_here: Start, garbage: Any
):
    flow = drafts()
    live = start_here(flow)
    (request,) = await live.open()
    plain = HumanResponseEvent(request_id=request.request_id, response=garbage, by="erin")
    (refused,) = of_kind(await live.tell(plain), ReviewRefusedEvent)
    assert refused.code == "invalid_answer"
    assert refused.request_id == request.request_id
    assert refused.by == "erin"
    assert len(refused.reason) < 2_000
    assert flow.published == []
    await live.tell(HumanResponseEvent(request_id=request.request_id, response="approve", by="e"))
    assert len(flow.published) == 1


async def test_promise_02_a_plain_answer_without_an_id_is_refused(start: Start):
    flow = drafts()
    live = start(flow)
    await live.open()
    for fields in (
        {"response": "approve"},
        {"response": "approve", "by": "erin"},
        {"response": "approve", "request_id": None},
        {"request_id": ""},
        {},
    ):
        (refused,) = of_kind(await live.tell(HumanResponseEvent(**fields)), ReviewRefusedEvent)
        assert refused.code in ("invalid_answer", "unknown_request")
        assert "request" in refused.reason
    assert flow.published == []


@pytest.mark.parametrize(
    "request_id",
    [["x"], {"request_id": "review-1"}, {1, 2}, 7, 7.5, True, b"review-1", "r" * 100_000, "\ud800"],
    ids=lambda value: repr(value)[:20],
)
async def test_promise_02_an_id_of_any_shape_is_refused_and_the_refusal_can_be_written_down(
    start_here: Start, request_id: Any
):
    flow = drafts()
    live = start_here(flow)
    await live.open()
    for by in ("erin", ["erin"], {"name": "erin"}, "", "\ud800", "e" * 100_000, 7):
        plain = HumanResponseEvent(request_id=request_id, response="approve", by=by)
        (refused,) = of_kind(await live.tell(plain), ReviewRefusedEvent)
        assert len(refused.model_dump_json()) < 1_000_000
    assert flow.published == []


async def test_promise_02_a_plain_answer_needs_somebody_with_an_id(start: Start):
    flow = drafts()
    live = start(flow)
    (request,) = await live.open()
    for by in (["erin"], {"name": "erin"}, {}, 7.5, "e" * 201, "  "):
        plain = HumanResponseEvent(request_id=request.request_id, response="approve", by=by)
        events = await live.tell(plain)
        if by == {}:  # as good as nobody: then the channel lets in whom it wants
            break
        (refused,) = of_kind(events, ReviewRefusedEvent)
        assert refused.code == "invalid_answer"
        assert refused.problems[0].field == "by"
        assert flow.published == []


async def test_promise_02_an_answer_before_the_question_does_nothing(start_here: Start):
    asked_for = asyncio.Event()

    class Flow(Workflow):
        published: ClassVar[list[str]] = []

        @step
        async def write(self, ev: StartEvent) -> Draft:
            await asked_for.wait()
            return Draft(text="x")

        review = Review(Draft)

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            self.published.append(ev.subject.text)
            return StopEvent()

    flow = made(Flow)
    live = start_here(flow)
    guess = "review-0123456789abcdef"
    live.send(HumanResponseEvent(response="approve"))
    live.send(HumanResponseEvent(request_id=guess, response="approve", by="erin"))
    live.send(HumanResponseEvent(request_id="review", response="approve", by="erin"))
    await live.until(ReviewRefusedEvent, lambda e: e.request_id == "review")
    asked_for.set()
    (request,) = await live.open()
    assert codes(live.seen) == ["invalid_answer", "unknown_request", "unknown_request"]
    assert request.request_id != guess
    assert flow.published == []


async def test_promise_02_an_answer_dated_before_the_question_does_nothing(start: Start):
    live = start(drafts())
    (request,) = await live.open()
    before = request.request.created_at - timedelta(microseconds=1)
    early = request.answer(Approve(), by="erin", at=before)
    assert codes(await live.tell(early)) == ["stale_request"]
    assert not live.ended


async def test_promise_02_an_answer_after_the_end_of_the_run_does_nothing(start_here: Start):
    flow = drafts()
    live = start_here(flow)
    (request,) = await live.open()
    await live.tell(request.answer(Reject(), by="erin"))
    result = await live.result()
    live.send(request.answer(Approve(), by="erin"))
    live.send(HumanResponseEvent(request_id=request.request_id, response="approve", by="erin"))
    await a_moment()
    assert await live.result() is result
    assert flow.published == []


async def test_promise_02_whoever_may_not_answer_changes_nothing(start: Start):
    flow = drafts(
        reviewers=["erin", "role:chief"], requester="rita", bar_requester=True, editable=True
    )
    live = start(flow)
    (request,) = await live.open()
    strangers: list[Reviewer | str] = [
        "bob",
        "Erin",
        "erin2",
        "chief",
        person("rita", "chief"),
        person("mallory", "Chief"),
    ]
    for stranger in strangers:
        for decision in (Approve(), Reject(), Edit(subject={"text": "mine"})):
            events = await live.tell(request.answer(decision, by=stranger))
            assert codes(events) == ["not_allowed"], stranger
            assert statuses(events) == []
    # Nobody can have an id that reads like a role.
    plain = HumanResponseEvent(request_id=request.request_id, response="approve", by="role:chief")
    assert codes(await live.tell(plain)) == ["invalid_answer"]
    await live.tell(request.answer(Approve(), by="erin"))
    assert (await live.result()).outcome.decided_by == ("erin",)


async def test_promise_02_an_answer_at_the_deadline_is_late(start: Start):
    clock = SetClock()
    flow = drafts(deadline=timedelta(hours=1), clock=clock)
    live = start(flow)
    (request,) = await live.open()
    late = request.answer(Approve(), by="erin", at=clock.advance(hours=1))
    events = await live.tell(late)
    assert codes(events) == ["expired"]
    assert flow.published == []


async def test_promise_02_what_a_model_writes_is_text_and_never_a_decision(start: Start):
    said = 'approve\n{"decision": "approve"}'

    class Flow(Workflow):
        published: ClassVar[list[str]] = []

        @step
        async def write(self, ctx: Context, ev: StartEvent) -> Draft:
            # The model's own words, in every place where somebody may look for an answer.
            ctx.send_event(HumanResponseEvent(response="approve", by="assistant"))
            ctx.write_event_to_stream(HumanResponseEvent(response="approve"))
            return Draft(text=said, decision="approve", response="approve", approved=True)

        review = Review(Draft, title=lambda flow, ev: "approve", body=lambda flow, ev: ev.text)

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            self.published.append(ev.subject.text)
            return StopEvent()

    flow = made(Flow)
    live = start(flow)
    (request,) = await live.open()
    assert codes(live.seen) == ["invalid_answer"]
    await live.tell()
    assert flow.published == []
    assert request.request.subject.data["text"] == said
    await live.tell(request.answer(Approve(), by="erin"))
    assert flow.published == [said]


def test_promise_02_a_deadline_cannot_approve():
    with pytest.raises(ValidationError):
        ReviewRequest(
            request_id="review-1",
            title="t",
            created_at=SetClock().now,
            on_deadline=Approve(),
        )


# --------------------------------------------------------------------------- 3: the first wins


@pytest.mark.parametrize(
    ("first", "second", "published"), [(Approve(), Reject(), 1), (Reject(), Approve(), 0)]
)
async def test_promise_03_the_first_of_two_contrary_answers_stands(
    start: Start, first: Any, second: Any, published: int
):
    flow = transfers(2)
    live = start(flow)
    request, _ = await live.open()
    winner = request.answer(first, by="erin")
    await live.tell(winner)
    for loser in (request.answer(second, by="frank"), request.answer(second, by="erin")):
        (refused,) = of_kind(await live.tell(loser), ReviewRefusedEvent)
        assert refused.code == "already_answered"
        assert "erin" in refused.reason
        assert winner.answer.at.isoformat() in refused.reason
    assert len(flow.paid) == published


async def test_promise_03_two_contrary_answers_at_once_come_to_one_outcome(start: Start):
    flow = transfers(2)
    live = start(flow)
    request, _ = await live.open()
    events = await live.tell(
        request.answer(Reject(), by="erin"),
        request.answer(Approve(), by="frank"),
        request.answer(Approve(), by="erin"),
    )
    assert statuses(events) == ["rejected"]
    assert codes(events) == ["already_answered", "already_answered"]
    assert flow.paid == []


async def test_promise_03_the_same_answer_again_is_no_new_answer(start: Start):
    flow = transfers(2, quorum=2)
    live = start(flow)
    request, _ = await live.open()
    erin = request.answer(Approve(comment="fine"), by="erin")
    later = request.answer(Approve(comment="fine"), by="erin")
    assert statuses(await live.tell(erin)) == ["open"]
    events = await live.tell(erin, later)
    # The same receipt, twice: one vote, still open.
    assert (statuses(events), codes(events)) == (["open", "open"], [])
    receipts = [event.record for event in events if isinstance(event, ReviewUpdatedEvent)]
    assert [(r.outcome.approvals, len(r.answers)) for r in receipts] == [(1, 1), (1, 1)]
    assert flow.paid == []
    await live.tell(request.answer(Approve(), by="frank"))
    events = await live.tell(erin, later)
    assert (statuses(events), codes(events)) == ([], [])
    assert flow.paid == ["payee 0"]


async def test_promise_03_the_same_answer_again_by_somebody_else_is_a_different_one(start: Start):
    live = start(transfers(2))
    request, _ = await live.open()
    await live.tell(request.answer(Approve(), by="erin"))
    assert codes(await live.tell(request.answer(Approve(), by="frank"))) == ["already_answered"]


@pytest.mark.parametrize("at_work", [True, False])
async def test_promise_03_holds_for_inline_questions_too(start_here: Start, at_work: bool):
    go_on = asyncio.Event()

    class Flow(Workflow):
        paid: ClassVar[list[bool]] = []

        @step
        async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
            resolution = await ask(ctx, Question(title="Pay?"))
            await go_on.wait()
            self.paid.append(resolution.approved)
            return StopEvent(result=resolution.answer.by.id)

    flow = made(Flow)
    live = start_here(flow)
    (request,) = await live.open()
    yes = request.answer(Approve(), by="erin")
    no = request.answer(Reject(), by="frank")
    live.send(yes)
    if at_work:
        await live.until(ReviewUpdatedEvent)
    live.send(yes, no)
    refused = await live.until(ReviewRefusedEvent)
    assert refused.code == "already_answered"
    assert "erin" in refused.reason
    go_on.set()
    await live.pause()
    assert flow.paid == [True]
    assert await live.result() == "erin"


# --------------------------------------------------------------------------- 6: what runs


async def test_promise_06_a_changed_digest_is_refused(start: Start):
    flow = drafts()
    live = start(flow)
    (request,) = await live.open()
    answer = request.answer(Approve(), by="erin").answer
    for digest in ("", "0" * 64, answer.digest.upper(), answer.digest[:-1]):
        changed = ReviewResponseEvent(answer=answer.model_copy(update={"digest": digest}))
        assert codes(await live.tell(changed)) == ["stale_request"]
    assert flow.published == []


async def test_promise_06_an_answer_to_other_content_is_refused(start: Start):
    flow = drafts()
    live = start(flow)
    (request,) = await live.open()
    shown = request.request.subject
    other = forged(request, subject=shown.model_copy(update={"data": {"text": "other"}}))
    assert codes(await live.tell(other.answer(Approve(), by="erin"))) == ["stale_request"]
    richer = forged(request, allowed=("approve", "reject", "edit"))
    assert codes(await live.tell(richer.answer(Approve(), by="erin"))) == ["stale_request"]
    assert flow.published == []


def test_promise_06_a_request_that_was_changed_cannot_be_read():
    request = ReviewRequest(request_id="review-1", title="Pay 10?", created_at=SetClock().now)
    stored = json.loads(request.model_dump_json())
    assert ReviewRequest.model_validate(stored) == request
    with pytest.raises(ValidationError, match="does not match what it shows"):
        ReviewRequest.model_validate({**stored, "title": "Pay 1000?"})


async def test_promise_06_what_the_sender_changes_after_the_question_is_not_approved(
    start_here: Start,
):
    kept: list[Draft] = []

    class Flow(Workflow):
        @step
        async def write(self, ev: StartEvent) -> Draft:
            kept.append(Draft(text="harmless", links=["a"]))
            return kept[0]

        review = Review(Draft)

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            return StopEvent(result=ev.subject)

    live = start_here(made(Flow))
    (request,) = await live.open()
    kept[0].text = "harmful"
    kept[0].links.append("b")
    await live.tell(request.answer(Approve(), by="erin"))
    subject = await live.result()
    assert (subject.text, subject.links) == ("harmless", ["a"])


async def test_promise_06_the_subject_never_comes_from_the_answer(start: Start):
    live = start(drafts())
    (request,) = await live.open()
    answer = request.answer(Approve(), by="erin").answer
    loaded = ReviewResponseEvent(answer=answer, subject={"text": "mine"}, proposal=Draft(text="m"))
    await live.tell(loaded)
    assert (await live.result()).subject == Draft(text="AI")


class Payment(BaseModel):
    amount: float = Field(gt=0)
    limit: float
    memo: str = ""

    @model_validator(mode="after")
    def _within_the_limit(self) -> "Payment":
        if self.amount > self.limit:
            raise ValueError("more than the limit")
        return self


class PaymentDue(Event):
    payment: Payment
    note: dict[str, Payment] = Field(default_factory=dict)


def payments(**options: Any) -> type[Workflow]:
    class Payments(Workflow):
        @step
        async def due(self, ev: StartEvent) -> PaymentDue:
            return PaymentDue(payment=Payment(amount=10, limit=100))

        review = Review(PaymentDue, editable=True, **options)

        @step
        async def pay(self, ev: Approved) -> StopEvent:
            return StopEvent(result=ev)

    return made(Payments)


@pytest.mark.parametrize(
    ("payment", "field"),
    [
        ({"amount": 200, "limit": 100}, "subject"),
        ({"amount": 0, "limit": 100}, "subject.amount"),
        ({"amount": "lots", "limit": 100}, "subject.amount"),
        ({"amount": 10}, "subject.limit"),
        ({"amount": 10, "limit": 100, "amuont": 20}, "subject.amuont"),
        ({}, "subject.amount"),
    ],
)
@pytest.mark.parametrize("options", [{"subject": "payment"}, {"subject": "payment", "quorum": 2}])
async def test_promise_06_an_edit_is_validated_by_the_model_of_the_subject(
    start: Start, payment: dict[str, Any], field: str, options: dict[str, Any]
):
    live = start(payments(**options))
    (request,) = await live.open()
    events = await live.tell(request.answer(Edit(subject=payment), by="erin"))
    (refused,) = of_kind(events, ReviewRefusedEvent)
    assert (refused.code, refused.problems[0].field) == ("invalid_answer", field)
    assert not live.ended
    assert asked(events) == []


async def test_promise_06_an_edit_cannot_name_a_field_that_is_not_there_at_any_depth(start: Start):
    live = start(payments())
    (request,) = await live.open()
    data = request.request.subject.data
    for wrong, field in (
        ({**data, "payement": {}}, "subject.payement"),
        ({**data, "payment": {**data["payment"], "mmeo": "x"}}, "subject.payment.mmeo"),
        (
            {**data, "note": {"a": {"amount": 1, "limit": 2, "mmeo": "x"}}},
            "subject.note.a.mmeo",
        ),
    ):
        events = await live.tell(request.answer(Edit(subject=wrong), by="erin"))
        (refused,) = of_kind(events, ReviewRefusedEvent)
        assert (refused.code, refused.problems[0].field) == ("invalid_answer", field)
    assert not live.ended


async def test_promise_06_proposed_edited_and_effective_values_are_all_kept(start: Start):
    live = start(payments(subject="payment"))
    (request,) = await live.open()
    edit = {"amount": 20, "limit": 100.0, "memo": "by hand"}
    await live.tell(request.answer(Edit(subject=edit, comment="typo"), by="erin"))
    approved = await live.result()
    assert approved.proposed == {"amount": 10.0, "limit": 100.0, "memo": ""}
    assert approved.edited == edit
    assert approved.subject == Payment(**edit)


async def test_promise_06_without_an_edit_the_effective_values_are_the_proposed_ones(start: Start):
    live = start(payments(subject="payment"))
    (request,) = await live.open()
    await live.tell(request.answer(Approve(), by="erin"))
    approved = await live.result()
    assert approved.edited is None
    assert approved.subject.model_dump() == approved.proposed


@pytest.mark.parametrize("options", [{"second_person_for_edit": True}, {"quorum": 2}])
async def test_promise_06_the_three_values_are_kept_when_an_edit_is_asked_about_anew(
    start: Start, options: dict[str, Any]
):
    live = start(payments(subject="payment", **options))
    (request,) = await live.open()
    edit = {"amount": 20.0, "limit": 100.0, "memo": "by hand"}
    (again,) = asked(await live.tell(request.answer(Edit(subject=edit), by="erin")))
    await live.tell(*(again.answer(Approve(), by=name) for name in ("frank", "gina")))
    approved = await live.result()
    assert approved.proposed == {"amount": 10.0, "limit": 100.0, "memo": ""}
    assert approved.edited == edit
    assert approved.subject == Payment(**edit)


# --------------------------------------------------------------------------- 8: work


async def test_promise_08_the_work_before_a_gate_runs_once(start: Start):
    flow = drafts(quorum=2)
    live = start(flow)
    (request,) = await live.open()
    await live.tell(request.answer(Approve(), by="a"))
    await live.tell(HumanResponseEvent(response="what?"))
    await live.tell(request.answer(Approve(), by="b"))
    assert live.ended
    assert flow.written == ["AI"]
    assert len(flow.published) == 1


@pytest.mark.parametrize("inline", [False, True])
async def test_promise_08_a_sibling_at_work_is_not_run_twice_by_an_answer(
    start_here: Start, inline: bool
):
    go_on = asyncio.Event()
    began: list[str] = []

    class Work(Event):
        pass

    class Passed(Event):
        pass

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Draft | Work | None:
            ctx.send_event(Work())
            ctx.send_event(Draft(text="x"))
            return None

        @step
        async def work(self, ev: Work) -> Settled:
            began.append("work")
            await go_on.wait()
            return Settled(to="work", paid=True)

        if inline:

            @step
            async def decide(self, ctx: Context, ev: Draft) -> Settled:
                return Settled(to="draft", paid=(await ask(ctx, Question(title="?"))).approved)

        else:
            review = Review(Draft)

            @step
            async def publish(self, ev: Approved) -> Settled:
                began.append("publish")
                return Settled(to="draft", paid=True)

        @step
        async def join(self, ctx: Context, ev: Settled) -> StopEvent | None:
            both = ctx.collect_events(ev, [Settled, Settled])
            return None if both is None else StopEvent([e.to for e in both])

    live = start_here(made(Flow))
    request = await live.until(ReviewRequestEvent)
    yes = request.answer(Approve(), by="erin")
    live.send(yes, yes)
    await live.until(ReviewUpdatedEvent)
    await live.until_step("join", "not_running")
    go_on.set()
    await live.pause()
    assert await live.result() == ["draft", "work"]
    assert began.count("work") == 1


async def test_promise_08_a_sibling_that_has_ended_is_not_run_again_after_a_restore(start: Start):
    began: list[str] = []

    class Flow(transfers(2)):
        @step
        async def pay(self, ev: Approved) -> Settled:
            began.append(ev.subject.to)
            return Settled(to=ev.subject.to, paid=True)

    live = start(Flow)
    first, second = await live.open()
    await live.tell(first.answer(Approve(), by="erin"))
    await live.tell(second.answer(Approve(), by="erin"))
    assert began == ["payee 0", "payee 1"]
    assert live.ended


async def test_promise_08_what_follows_an_inline_question_runs_once(start_asking: Start):
    flow = asking(2)
    live = start_asking(flow)
    first, second = await live.open()
    yes = first.answer(Approve(), by="erin")
    await live.tell(yes, yes, yes)
    await live.tell(yes)
    await live.tell(second.answer(Approve(), by="erin"))
    assert sorted(flow.paid) == ["payee 0", "payee 1"]
    assert await live.result() == {"payee 0": True, "payee 1": True}


# --------------------------------------------------------------------------- 11: stored data


async def test_promise_11_a_run_is_restored_by_a_serializer_that_allows_declared_types_only(
    start: Start,
):
    class Strict(transfers(2)):
        def __init__(self) -> None:
            super().__init__(serializer=JsonSerializer(allowed_types=()))

    live = start(Strict)
    first, second = await live.open()
    await live.tell(first.answer(Approve(), by="erin"))
    await live.tell(second.answer(Approve(), by="erin"))
    assert Strict.paid == ["payee 0", "payee 1"]


async def test_promise_11_an_inline_question_is_restored_by_such_a_serializer_too(
    start_asking: Start,
):
    class Strict(asking(2)):
        def __init__(self) -> None:
            super().__init__(serializer=JsonSerializer(allowed_types=()))

    live = start_asking(Strict)
    first, second = await live.open()
    await live.tell(first.answer(Approve(), by="erin"))
    await live.tell(second.answer(Approve(), by="erin"))
    assert sorted(Strict.paid) == ["payee 0", "payee 1"]


@pytest.mark.parametrize("words", ["__is_pydantic", "os.system('x')", "{{7*7}}", "<script>"])
async def test_promise_11_the_words_of_a_person_stay_text(start: Start, words: str):
    live = start(revised())
    (request,) = await live.open()
    said = json.dumps({words: True, "qualified_name": "os.system", "value": words})
    (again,) = asked(await live.tell(request.answer(Revise(feedback=said), by="erin")))
    assert again.request.feedback[0].text == said
    await live.tell(again.answer(Approve(comment=said), by="erin"))
    approved = await live.result()
    assert approved.subject.text == f"AI, {said}"
    assert approved.feedback == said


# --------------------------------------------------------------------------- 12: on record


async def test_promise_12_a_decision_is_on_record_with_all_that_there_is_to_know(start: Start):
    clock = SetClock()
    live = start(drafts(reviewers="role:legal", clock=clock))
    (request,) = await live.open()
    at = clock.advance(minutes=5)
    lena = Reviewer(id="lena", roles=("legal", "press"), name="Lena")
    await live.tell(
        request.answer(Approve(comment="fine"), by=lena, at=at, role="legal", channel="console")
    )
    approved = await live.result()
    (answer,) = approved.answers
    assert answer.by == lena
    assert (answer.by.kind, answer.role, answer.channel) == ("human", "legal", "console")
    assert (answer.at, answer.comment) == (at, "fine")
    assert answer.digest == request.request.digest == approved.request.digest
    assert approved.record.closed_at == at
    assert approved.outcome.decided_by == ("lena",)


async def test_promise_12_a_rule_is_on_record_as_a_rule(start: Start):
    flow = drafts(when=always("approve", reason="it is Tuesday"))
    live = start(flow)
    events = await live.open()
    assert events == []
    (answer,) = flow.published[0].answers
    assert (answer.by.kind, answer.by.id, answer.channel) == ("rule", "rule:always approve", "rule")
    assert answer.comment == "it is Tuesday"
    assert flow.published[0].request.rule.reason == "it is Tuesday"
    (update,) = of_kind(live.seen, ReviewUpdatedEvent)
    assert update.record == flow.published[0].record


@pytest.mark.parametrize("plain", [False, True])
async def test_promise_12_nobody_can_pass_for_a_rule(start: Start, plain: bool):
    flow = drafts()
    live = start(flow)
    (request,) = await live.open()
    rule = Reviewer(id="rule:always approve", kind="rule")
    answer = (
        HumanResponseEvent(
            request_id=request.request_id, response="approve", by={"id": "r", "kind": "rule"}
        )
        if plain
        else request.answer(Approve(), by=rule, channel="rule")
    )
    events = await live.tell(answer)
    assert codes(events) == ["not_allowed"]
    assert flow.published == []


async def test_promise_12_every_answer_of_a_vote_is_on_record_in_order(start: Start):
    live = start(drafts(reviewers=["a", "b", "c"], quorum=2, rejections=2))
    (request,) = await live.open()
    decisions: list[tuple[str, Any]] = [
        ("b", Approve()),
        ("a", Reject(comment="no")),
        ("c", Approve()),
    ]
    updates: list[ReviewUpdatedEvent] = []
    for name, decision in decisions:
        updates += of_kind(await live.tell(request.answer(decision, by=name)), ReviewUpdatedEvent)
    approved = await live.result()
    assert [a.by.id for a in approved.answers] == ["b", "a", "c"]
    assert [a.decision.kind for a in approved.answers] == ["approve", "reject", "approve"]
    assert [len(update.record.answers) for update in updates] == [1, 2, 3]
    assert updates[-1].record == approved.record


async def test_promise_12_a_plain_answer_is_on_record_as_such(start: Start):
    live = start(drafts())
    (request,) = await live.open()
    plain = HumanResponseEvent(request_id=request.request_id, response="approve: fine", by="erin")
    await live.tell(plain)
    (answer,) = (await live.result()).answers
    assert (answer.by.id, answer.channel, answer.comment) == ("erin", "plain", "fine")


async def test_promise_12_an_inline_decision_is_on_record(start_asking: Start):
    class Flow(Workflow):
        @step
        async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await ask(ctx, Question(title="Pay?", reviewers="role:cfo")))

    live = start_asking(made(Flow))
    (request,) = await live.open()
    cfo = person("carla", "cfo")
    events = await live.tell(request.answer(Approve(comment="ok"), by=cfo, channel="web"))
    resolution = await live.result()
    assert resolution.answer.by == cfo
    assert (resolution.answer.channel, resolution.answer.comment) == ("web", "ok")
    assert resolution.record.request.request_id == request.request_id == resolution.effect_key
    (update,) = of_kind(events, ReviewUpdatedEvent)
    assert update.record == resolution.record


def test_promise_12_an_answer_cannot_claim_a_role_that_is_not_held():
    request = ReviewRequest(request_id="review-1", title="t", created_at=SetClock().now)
    with pytest.raises(ValidationError, match="does not hold the role 'cfo'"):
        Answer.to(request, Approve(), by="erin", at=SetClock().now, role="cfo")


def test_the_stages_carry_their_names():
    assert stages().legal.approved is LegalApproved
