"""The envelopes: what they show to code that was written for plain events, and how they travel."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flows import Draft, LegalApproved, Live, Note, SetClock, Transfer, drafts, made, person
from pydantic import ValidationError
from workflows import Workflow, step
from workflows.context.serializers import JsonSerializer
from workflows.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent

from llama_index_hitl import (
    Abstain,
    Answer,
    Approve,
    Approved,
    Delegate,
    Edit,
    Escalate,
    Expired,
    Reject,
    Rejected,
    Respond,
    Responded,
    Review,
    ReviewDeadlineEvent,
    Reviewer,
    ReviewRecord,
    ReviewRefusedEvent,
    ReviewRequest,
    ReviewRequestEvent,
    ReviewResponseEvent,
    ReviewUpdatedEvent,
    ReviewWithdrawEvent,
    Revise,
    Revision,
    RevisionsExhausted,
    utc_now,
)
from llama_index_hitl.errors import FieldProblem
from llama_index_hitl.lifecycle import Command, close, open_record, take_answer, withdraw
from llama_index_hitl.models import DecisionKind, Feedback, RequestStatus, StageApproval, Subject
from llama_index_hitl.rendering import render_prompt

NOW = SetClock().now


def request(**changes: Any) -> ReviewRequest:
    return ReviewRequest(
        **{
            "request_id": "review-1",
            "gate": "review",
            "title": "Publish it?",
            "subject": Subject(type="Draft", data={"text": "AI"}),
            "allowed": tuple(DecisionKind),
            "response_schema": Note.model_json_schema(),
            "escalate_to": ("chief",),
            "created_at": NOW,
            **changes,
        }
    )


def answer(decision: Any, by: str = "erin", **changes: Any) -> Answer:
    return Answer.to(request(**changes), decision, by=by, at=NOW)


def record(*decisions: Any, **changes: Any) -> ReviewRecord:
    found = open_record(request(**changes))
    for number, decision in enumerate(decisions):
        taken = Answer.to(found.request, decision, by=f"person {number}", at=NOW)
        found = take_answer(found, taken)
    return found


# --------------------------------------------------------------------------- the two envelopes


def test_they_are_upstreams_own_kinds_of_event():
    assert issubclass(ReviewRequestEvent, InputRequiredEvent)
    assert issubclass(ReviewResponseEvent, HumanResponseEvent)
    assert issubclass(ReviewDeadlineEvent, HumanResponseEvent)


def test_the_prefix_is_all_that_a_person_needs_as_text():
    event = ReviewRequestEvent(request=request(body="Please read it."))
    assert event.prefix == render_prompt(event.request)
    for part in ("Publish it?", "Please read it.", "text: AI", "approve", "reject"):
        assert part in event.prefix
    assert event.request_id == "review-1"


@pytest.mark.parametrize(
    ("decision", "text"),
    [
        (Approve(), "approve"),
        (Approve(comment="fine"), "approve: fine"),
        (Reject(comment="no"), "reject: no"),
        (Revise(feedback="shorter", comment="sorry"), "revise: shorter"),
        (Edit(subject={"text": "x"}, comment="typo"), "edit: typo"),
        (Respond(response="four"), "four"),
        (Respond(response={"b": 1, "a": "ä"}), '{\n  "a": "ä",\n  "b": 1\n}'),
        (Respond(response=4), "4"),
        (Escalate("chief"), "escalate"),
        (Delegate(to="frank", comment="on leave"), "delegate: on leave"),
        (Abstain(), "abstain"),
    ],
)
def test_the_response_is_the_answer_as_text(decision: Any, text: str):
    event = ReviewResponseEvent(answer=answer(decision))
    assert event.response == text
    assert event.request_id == "review-1"


async def test_code_for_plain_events_shows_and_answers_a_gate():
    live = Live(drafts(title="Publish it?"))
    shown: list[str] = []
    log: list[str] = []
    async for event in live.handler.stream_events():
        if isinstance(event, InputRequiredEvent):
            shown.append(event.prefix)
            reply = HumanResponseEvent(
                response="approve", request_id=event.request_id, by="user at the keyboard"
            )
            log.append(reply.response)
            live.handler.ctx.send_event(reply)
    assert shown[0].startswith("Publish it?")
    assert (await live.handler).answers[0].by.id == "user at the keyboard"
    assert log == ["approve"]


def test_a_misspelt_payload_is_an_error():
    with pytest.raises(ValidationError, match="answer"):
        ReviewResponseEvent(anwser=answer(Approve()))
    with pytest.raises(ValidationError, match="request"):
        ReviewRequestEvent(reqeust=request())
    with pytest.raises(ValidationError):
        ReviewResponseEvent(answer={**answer(Approve()).model_dump(), "chanel": "web"})
    with pytest.raises(ValidationError):
        ReviewResponseEvent(response="approve")


def test_a_payload_cannot_be_changed():
    event = ReviewResponseEvent(answer=answer(Approve()))
    with pytest.raises(ValidationError, match="frozen"):
        event.answer.decision = Reject()
    with pytest.raises(ValidationError, match="frozen"):
        event.answer.decision.comment = "x"


def test_what_rides_along_in_the_envelope_changes_neither_id_nor_text():
    event = ReviewResponseEvent(
        answer=answer(Reject()), request_id="other-1", response="approve", prefix="approve"
    )
    assert (event.request_id, event.response) == ("review-1", "reject")


def test_an_answer_is_made_from_the_question():
    event = ReviewRequestEvent(request=request())
    before = utc_now()
    made_now = event.answer(Approve(), by="erin").answer
    assert before <= made_now.at <= utc_now()
    assert made_now.by == Reviewer(id="erin")
    assert (made_now.request_id, made_now.digest) == ("review-1", event.request.digest)
    assert (made_now.channel, made_now.role) == ("api", None)
    lena = Reviewer(id="lena", roles=("legal",))
    at = NOW + timedelta(hours=1)
    full = event.answer(Reject(comment="no"), by=lena, at=at, role="legal", channel="web").answer
    assert (full.by, full.at, full.role, full.channel) == (lena, at, "legal", "web")
    with pytest.raises(ValidationError, match="does not hold the role"):
        event.answer(Approve(), by="erin", role="legal")


def test_instants_have_a_time_zone():
    naive = datetime(2030, 1, 1)  # noqa: DTZ001 - that is the point
    with pytest.raises(ValidationError):
        ReviewDeadlineEvent(request_id="review-1", at=naive)
    with pytest.raises(ValidationError):
        ReviewRequestEvent(request=request()).answer(Approve(), by="erin", at=naive)
    assert ReviewDeadlineEvent(request_id="review-1", at=naive.replace(tzinfo=UTC)).at == NOW


# --------------------------------------------------------------------------- as JSON


def expired():
    return close(record(), Command.EXPIRE, at=NOW, reason="Nobody came.")


EVENTS: list[Event] = [
    ReviewRequestEvent(request=request()),
    ReviewResponseEvent(answer=answer(Edit(subject={"text": "x", "n": [1, None, 2.5]}))),
    ReviewResponseEvent(answer=answer(Respond(response={"grade": 4}))),
    ReviewDeadlineEvent(request_id="review-1", at=NOW),
    ReviewWithdrawEvent(request_id="review-1", by=person("bob", "legal"), at=NOW, reason="paid"),
    ReviewUpdatedEvent(record=record(Approve(comment="fine"))),
    ReviewRefusedEvent(
        request_id=None,
        code="invalid_answer",
        reason="why",
        problems=(FieldProblem("subject.amount", "too much"),),
        by="erin",
    ),
    Approved(record=record(Approve()), proposal=Draft(text="AI")),
    LegalApproved(record=record(Approve()), proposal=Transfer(to="bob"), earlier=(record(),)),
    Rejected(record=record(Reject()), proposal=Draft(text="AI", undeclared={"a": [1]})),
    Revision(record=record(Revise(feedback="more")), proposal=Draft(text="AI")),
    RevisionsExhausted(record=record(Revise(feedback="more")), proposal=Draft(text="AI")),
    Responded(record=record(Respond(response={"grade": 4})), proposal=Draft(text="x"), response=4),
    Expired(record=expired(), proposal=Draft(text="AI")),
    Rejected(record=withdraw(record(), by=person("bob"), at=NOW), proposal=Draft(text="AI")),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
def test_every_envelope_survives_upstreams_serializer(event: Event):
    serializer = JsonSerializer(allowed_types=[type(event), Draft, Transfer])
    again = serializer.deserialize(json.loads(json.dumps(serializer.serialize(event))))
    assert type(again) is type(event)
    assert again.model_dump() == event.model_dump()
    assert isinstance(event.model_dump_json(), str)


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
def test_every_envelope_has_a_json_schema(event: Event):
    if isinstance(
        event, ReviewRequestEvent | ReviewResponseEvent | ReviewDeadlineEvent | ReviewWithdrawEvent
    ):
        assert type(event).model_json_schema()["properties"]


# --------------------------------------------------------------------------- outcomes


def test_an_outcome_is_read_through_the_event():
    event = Approved(record=record(Approve(comment="fine")), proposal=Draft(text="AI"))
    assert event.subject == Draft(text="AI")
    assert event.request == event.record.request
    assert event.request_id == event.effect_key == "review-1"
    assert event.answers == event.record.answers
    assert event.outcome == event.record.outcome
    assert (event.revision, event.feedback) == (1, "fine")
    assert event.approvals == (
        StageApproval(stage="review", request_id="review-1", answers=event.answers),
    )
    assert event.approvals[0].approvers == ("person 0",)


def test_the_subject_may_be_a_field_of_the_proposal():
    class Order(Event):
        note: Note

    event = Rejected(
        record=record(Reject()), proposal=Order(note=Note(grade=1)), subject_field="note"
    )
    assert event.subject == Note(grade=1)


def test_only_an_approval_adds_to_the_chain_of_stages():
    chain = (StageApproval(stage="legal", request_id="legal-1", answers=(answer(Approve()),)),)
    rejected = Rejected(record=record(Reject(), approvals=chain), proposal=Draft(text="AI"))
    approved = Approved(record=record(Approve(), approvals=chain), proposal=Draft(text="AI"))
    assert rejected.approvals == chain
    assert [a.stage for a in approved.approvals] == ["legal", "review"]


def test_proposed_and_edited_values_stand_side_by_side():
    event = Approved(record=record(Edit(subject={"text": "mine"})), proposal=Draft(text="mine"))
    assert (event.proposed, event.edited) == ({"text": "AI"}, {"text": "mine"})
    plain = Approved(record=record(Approve()), proposal=Draft(text="AI"))
    assert (plain.proposed, plain.edited) == ({"text": "AI"}, None)
    assert (
        Approved(
            record=record(Approve(), subject=None, allowed=("approve",)), proposal=Draft(text="AI")
        ).proposed
        == {}
    )


def test_a_revision_has_the_whole_history():
    before = Feedback(revision=1, by="frank", at=NOW, text="longer")
    event = Revision(
        record=record(Revise(feedback="shorter"), feedback=(before,), revision=2),
        proposal=Draft(text="AI"),
    )
    assert event.feedback == "shorter"
    assert [(f.revision, f.by, f.text) for f in event.history] == [
        (1, "frank", "longer"),
        (2, "person 0", "shorter"),
    ]


def test_a_subclass_may_type_the_response():
    class Graded(Responded):
        response: Note

    event = Graded(
        record=record(Respond(response={"grade": 4})),
        proposal=Draft(text="x"),
        response={"grade": 4},
    )
    assert event.response == Note(grade=4)


async def test_an_empty_subclass_is_enough_to_route():
    class Flow(Workflow):
        @step
        async def write(self, ev: StartEvent) -> Draft | Transfer:
            return Draft(text="x") if ev.get("draft") else Transfer(to="bob")

        drafts = Review(Draft, approved=LegalApproved)
        payments = Review(Transfer)

        @step
        async def publish(self, ev: LegalApproved) -> StopEvent:
            return StopEvent(result="published")

        @step
        async def pay(self, ev: Approved) -> StopEvent:
            return StopEvent(result="paid")

    for draft, result in ((True, "published"), (False, "paid")):
        live = Live(made(Flow), draft=draft)
        (event,) = await live.open()
        await live.tell(event.answer(Approve(), by="erin"))
        assert await live.result() == result


@pytest.mark.parametrize(
    "make",
    [
        lambda: Approved(record=record(), proposal=Draft(text="AI")),
        lambda: Approved(record=record(Reject()), proposal=Draft(text="AI")),
        lambda: Rejected(record=record(Approve()), proposal=Draft(text="AI")),
        lambda: Revision(record=record(Approve()), proposal=Draft(text="AI")),
        lambda: Expired(record=record(Reject()), proposal=Draft(text="AI")),
    ],
)
def test_an_outcome_that_its_record_does_not_hold_cannot_be_made(make):
    with pytest.raises(ValueError, match="cannot be made of a request that is"):
        make()


def test_an_approval_that_its_answers_do_not_come_to_cannot_be_made():
    forged = record()
    forged = forged.model_copy(
        update={"outcome": forged.outcome.model_copy(update={"status": RequestStatus.APPROVED})}
    )
    with pytest.raises(ValueError, match="do not come to an approval"):
        Approved(record=forged, proposal=Draft(text="mine"))
