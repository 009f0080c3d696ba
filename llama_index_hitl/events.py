"""The envelopes in which requests, answers and outcomes travel through LlamaIndex Workflows.

Each has one typed payload: a misspelt keyword of a payload is an error, whereas an `Event` itself
takes any keyword without a word.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Self, TypeAlias

from pydantic import AwareDatetime, Field, model_validator
from workflows.events import Event, HumanResponseEvent, InputRequiredEvent, SerializableEvent

from llama_index_hitl.clock import utc_now
from llama_index_hitl.errors import AnswerRefused, FieldProblem
from llama_index_hitl.models import (
    Answer,
    Decision,
    Edit,
    Feedback,
    Outcome,
    RequestStatus,
    Respond,
    Reviewer,
    ReviewRecord,
    ReviewRequest,
    Revise,
    RuleVerdict,
    StageApproval,
    Text,
)
from llama_index_hitl.policies import tally
from llama_index_hitl.rendering import render_prompt, text_of


class ReviewRequestEvent(InputRequiredEvent):
    """A person is asked. On the stream as soon as the question is open.

    Attributes:
        request: What is asked.

    Example:
        >>> from llama_index_hitl.prebuilt import ApproveAction
        >>> async def main():
        ...     handler = ApproveAction().run(action="Refund 40")
        ...     async for event in handler.stream_events():
        ...         if isinstance(event, ReviewRequestEvent):
        ...             print(event.request.title)
        ...             handler.ctx.send_event(event.answer(Approve(comment="fine"), by="erin"))
        ...     return await handler
        >>> asyncio.run(main()).status.value
        Approval required: Refund 40
        'approved'
    """

    request: ReviewRequest

    @property
    def request_id(self) -> str:
        """Id of the request."""
        return self.request.request_id

    @property
    def prefix(self) -> str:
        """The request as plain text, for code that was written for `InputRequiredEvent`."""
        return render_prompt(self.request)

    def answer(
        self,
        decision: Decision,
        *,
        by: Reviewer | str,
        at: datetime | None = None,
        role: str | None = None,
        channel: str = "api",
    ) -> ReviewResponseEvent:
        """Return the event that answers this request.

        Args:
            decision: What was decided.
            by: Who decided; a plain id stands for a person without roles.
            at: When, time zone included; now, if left out.
            role: In which role, where it matters.
            channel: Where it was said.

        Raises:
            pydantic.ValidationError: A value is not valid, such as a role that is not held.
        """
        return ReviewResponseEvent(
            answer=Answer.to(
                self.request, decision, by=by, at=at or utc_now(), role=role, channel=channel
            )
        )


class ReviewResponseEvent(HumanResponseEvent):
    """Somebody answers one request.

    Attributes:
        answer: What they decided.

    Example:
        >>> request = ReviewRequest(request_id="r-1", title="Publish?", created_at=utc_now())
        >>> said = ReviewRequestEvent(request=request).answer(Reject(), by="erin", channel="mail")
        >>> said.request_id, said.answer.decision.kind  # for `handler.ctx.send_event(said)`
        ('r-1', 'reject')
    """

    answer: Answer

    @property
    def request_id(self) -> str:
        """Id of the request that this answers."""
        return self.answer.request_id

    @property
    def response(self) -> str:
        """The answer as text, for code that was written for `HumanResponseEvent`."""
        decision = self.answer.decision
        if isinstance(decision, Respond):
            return text_of(decision.response)
        words = decision.feedback if isinstance(decision, Revise) else decision.comment
        return f"{decision.kind}: {words}" if words else decision.kind


class ReviewDeadlineEvent(HumanResponseEvent):
    """Something on the ladder of a request is due, its deadline say; sent by who keeps the time.

    Attributes:
        request_id: The request.
        at: The present instant; every rung up to it is passed. Now, if left out.

    Example:
        >>> from datetime import timedelta
        >>> from llama_index_hitl.prebuilt import ApproveAction
        >>> async def main():
        ...     handler = ApproveAction(deadline=timedelta(days=2)).run(action="Refund 40")
        ...     async for event in handler.stream_events():
        ...         if isinstance(event, ReviewRequestEvent):
        ...             late = event.request.deadline + timedelta(days=5)
        ...             told = ReviewDeadlineEvent(request_id=event.request_id, at=late)
        ...             handler.ctx.send_event(told)  # a runner's `sweep` does this
        ...     return await handler
        >>> asyncio.run(main()).status.value
        'expired'
    """

    request_id: str
    at: AwareDatetime = Field(default_factory=utc_now)


class ReviewWithdrawEvent(HumanResponseEvent):
    """A question is taken back: it is not to be answered any more, and nothing is to happen.

    Attributes:
        request_id: The request.
        by: Who takes it back.
        at: When; now, if left out.
        reason: Why, for people.

    Example:
        >>> from llama_index_hitl.prebuilt import ApproveAction
        >>> async def main():
        ...     handler = ApproveAction().run(action="Refund 40")
        ...     async for event in handler.stream_events():
        ...         if isinstance(event, ReviewRequestEvent):
        ...             erin = Reviewer(id="erin")
        ...             gone = ReviewWithdrawEvent(request_id=event.request_id, by=erin)
        ...             handler.ctx.send_event(gone)
        ...     return await handler
        >>> asyncio.run(main()).status.value
        'rejected'
    """

    request_id: str
    by: Reviewer
    at: AwareDatetime = Field(default_factory=utc_now)
    reason: Text = ""


Told: TypeAlias = ReviewResponseEvent | ReviewDeadlineEvent | ReviewWithdrawEvent
"""What a run can be told about one of its requests."""


class ReviewRelayEvent(Event):
    """What a paused run is told about one request, where that is more than one thing.

    Attributes:
        told: Everything, in order.

    Example:
        >>> passed = ReviewDeadlineEvent(request_id="r-1")
        >>> len(ReviewRelayEvent(told=(passed,)).told)
        1
    """

    told: tuple[Told, ...]


class ReviewUpdatedEvent(Event):
    """A request has moved: an answer was taken, time has passed, or it was closed. On the stream.

    Attributes:
        record: The request with everything that has become of it.

    Example:
        >>> from llama_index_hitl.prebuilt import ApproveAction
        >>> async def main():
        ...     handler = ApproveAction().run(action="Refund 40")
        ...     async for event in handler.stream_events():
        ...         if isinstance(event, ReviewRequestEvent):
        ...             handler.ctx.send_event(event.answer(Approve(), by="erin"))
        ...         elif isinstance(event, ReviewUpdatedEvent):
        ...             print(event.outcome.reason)
        ...     await handler
        >>> asyncio.run(main())
        erin approved it.
    """

    record: ReviewRecord

    @property
    def request_id(self) -> str:
        """Id of the request."""
        return self.record.request.request_id

    @property
    def outcome(self) -> Outcome:
        """What the answers come to so far."""
        return self.record.outcome


class ReviewRefusedEvent(Event):
    """An answer was not taken, and why. On the stream; nothing else changed.

    Attributes:
        request_id: The request that the answer named, if it named one.
        code: Kind of refusal: `invalid_answer`, `unknown_request`, `already_answered`,
            `not_allowed`, `stale_request` or `expired`.
        reason: Why, as a sentence for people.
        problems: What is wrong, field by field.
        by: Id of the person, if known.

    Example:
        >>> from llama_index_hitl.prebuilt import ApproveAction
        >>> async def main():
        ...     handler = ApproveAction(reviewers="erin").run(action="Refund 40")
        ...     async for event in handler.stream_events():
        ...         if isinstance(event, ReviewRequestEvent):
        ...             for person in ("bob", "erin"):
        ...                 handler.ctx.send_event(event.answer(Approve(), by=person))
        ...         elif isinstance(event, ReviewRefusedEvent):
        ...             print(event.code, event.by)
        ...     await handler
        >>> asyncio.run(main())
        not_allowed bob
    """

    request_id: str | None
    code: str
    reason: str
    problems: tuple[FieldProblem, ...] = ()
    by: str | None = None

    @classmethod
    def of(cls, error: AnswerRefused, *, by: str | None) -> Self:
        """Return the event that tells of a refusal.

        Args:
            error: Why the answer was not taken.
            by: Id of the person who gave it; None: it is no answer, or not known.
        """
        return cls(
            request_id=error.request_id,
            code=error.code,
            reason=str(error),
            problems=error.problems,
            by=by,
        )


# --------------------------------------------------------------------------- outcomes


class ReviewOutcomeEvent(Event):
    """What a request came to, on its way to the next step. Made by gates only.

    Subclass `Approved` and the others to route outcomes of different gates to different steps:
    an empty subclass is enough.

    Attributes:
        record: The request, every answer to it, and the outcome.
        proposal: The event that was reviewed, with the effective subject: an edit is in it.
        subject_field: The field of `proposal` that is the subject; None: it is the subject itself.
        earlier: The requests that this one took the place of by an edit or an escalation, in order.

    Example:
        >>> issubclass(Approved, ReviewOutcomeEvent), issubclass(Rejected, ReviewOutcomeEvent)
        (True, True)
        >>> [status.value for status in RequestStatus if status in Approved.statuses]
        ['approved']
    """

    statuses: ClassVar[frozenset[RequestStatus]] = frozenset(RequestStatus)
    """What the record of such an event can say."""

    record: ReviewRecord
    proposal: SerializableEvent
    subject_field: str | None = None
    earlier: tuple[ReviewRecord, ...] = ()

    @model_validator(mode="after")
    def _says_what_the_record_says(self) -> Self:
        if self.record.status not in self.statuses:
            name = type(self).__name__
            raise ValueError(f"{name} cannot be made of a request that is {self.record.status}")
        return self

    @property
    def subject(self) -> Any:
        """The effective subject, of its own type."""
        return (
            self.proposal
            if self.subject_field is None
            else getattr(self.proposal, self.subject_field)
        )

    @property
    def request(self) -> ReviewRequest:
        """What was asked."""
        return self.record.request

    @property
    def request_id(self) -> str:
        """Id of the request."""
        return self.record.request.request_id

    @property
    def answers(self) -> tuple[Answer, ...]:
        """Every answer taken, in order."""
        return self.record.answers

    @property
    def outcome(self) -> Outcome:
        """What the answers came to."""
        return self.record.outcome

    @property
    def revision(self) -> int:
        """Number of the draft, from 1."""
        return self.record.request.revision

    @property
    def feedback(self) -> str:
        """What people said about this draft: feedback and comments, in order."""
        said = (
            a.decision.feedback if isinstance(a.decision, Revise) else a.comment
            for a in self.answers
        )
        return "\n".join(text for text in said if text)

    @property
    def approvals(self) -> tuple[StageApproval, ...]:
        """Who let this and the earlier stages pass, in order."""
        return self.record.request.approvals


class Approved(ReviewOutcomeEvent):
    """It may happen: exactly `subject`, which is what was shown, or what somebody edited it to.

    A step reads `subject`, and `answers` for who said what; `effect_key` is for `once`.

    Raises:
        pydantic.ValidationError: The record does not hold the answers that it takes.

    Example:
        >>> from workflows.events import StartEvent
        >>> class LegalApproved(Approved): ...  # an empty subclass routes it to a step of its own
        >>> Review(StartEvent, approved=LegalApproved).approved.__name__
        'LegalApproved'
    """

    statuses = frozenset({RequestStatus.APPROVED})

    @model_validator(mode="after")
    def _is_approved(self) -> Self:
        record, rule = self.record, self.record.request.rule
        by_rule = rule is not None and rule.verdict is RuleVerdict.APPROVE
        answers = record.answers
        at = answers[-1].at if answers else record.request.created_at
        if not by_rule and tally(answers, record.policy, at).status is not RequestStatus.APPROVED:
            raise ValueError("the answers on record do not come to an approval")
        return self

    @property
    def effect_key(self) -> str:
        """Key for the effect that was approved: the same in every retry, replay and process."""
        return self.record.request.request_id

    @property
    def proposed(self) -> dict[str, Any]:
        """The subject as it was proposed, as JSON."""
        subject = (*self.earlier, self.record)[0].request.subject
        return dict(subject.data) if subject is not None else {}

    @property
    def edited(self) -> dict[str, Any] | None:
        """The subject as somebody edited it, as JSON; None: nobody did."""
        edits = [*self._earlier_edits, *(a for a in self.answers if isinstance(a.decision, Edit))]
        decision = edits[-1].decision if edits else None
        return dict(decision.subject) if isinstance(decision, Edit) else None

    @property
    def _earlier_edits(self) -> tuple[Answer, ...]:
        answers = (answer for record in self.earlier for answer in record.answers)
        return tuple(a for a in answers if isinstance(a.decision, Edit))

    @property
    def approvals(self) -> tuple[StageApproval, ...]:
        """Who let this and the earlier stages pass, in order."""
        request = self.record.request
        mine = StageApproval(
            stage=request.stage or request.gate,
            request_id=request.request_id,
            # Whoever edited it has had a hand in it, also where somebody else approved the edit.
            answers=(*(a for record in self.earlier for a in record.answers), *self.answers),
        )
        return (*request.approvals, mine)


class Rejected(ReviewOutcomeEvent):
    """It may not happen: rejected, approvals cannot be reached, or the question was withdrawn.

    A step reads `outcome.reason` for what happened, and `feedback` for what people said about it.

    Example:
        >>> from workflows.events import StartEvent
        >>> class TooRisky(Rejected): ...  # goes to the step that accepts it
        >>> Review(StartEvent, rejected=TooRisky).rejected.__name__
        'TooRisky'
    """

    statuses = frozenset({RequestStatus.REJECTED, RequestStatus.NO_QUORUM, RequestStatus.WITHDRAWN})


class Expired(ReviewOutcomeEvent):
    """It may not happen: nobody decided in time. Expired is not rejected.

    Example:
        >>> from datetime import timedelta
        >>> from workflows.events import StartEvent
        >>> Review(StartEvent, deadline=timedelta(days=2), expired=Expired).expired.__name__
        'Expired'
    """

    statuses = frozenset({RequestStatus.EXPIRED})


class Revision(ReviewOutcomeEvent):
    """It was sent back: make a new draft from `subject`, `feedback` and `history`.

    Where several drafts are under way at one gate, build the new one with
    `revision_of=event.request_id`, or give the gate a `key`.

    Example:
        >>> from workflows.events import StartEvent
        >>> review = Review(StartEvent, revise=Revision)
        >>> [kind.value for kind in review.allowed]
        ['approve', 'reject', 'revise']
    """

    statuses = frozenset({RequestStatus.REVISED})

    @property
    def history(self) -> tuple[Feedback, ...]:
        """What people asked to change so far, this time included, oldest first."""
        return (*self.record.request.feedback, *feedback_in(self.record))


class RevisionsExhausted(ReviewOutcomeEvent):
    """It was sent back more often than the gate lets it.

    Example:
        >>> from workflows.events import StartEvent
        >>> review = Review(
        ...     StartEvent, revise=Revision, max_revisions=3, exhausted=RevisionsExhausted
        ... )
        >>> review.max_revisions
        3
    """

    statuses = frozenset({RequestStatus.REVISED})


class Responded(ReviewOutcomeEvent):
    """A question was answered.

    Attributes:
        response: The response as JSON. A subclass may declare the field with a pydantic model as
            its type, and gets that.

    Example:
        >>> from pydantic import BaseModel
        >>> from workflows.events import StartEvent
        >>> class Colour(BaseModel):
        ...     name: str
        >>> class ColourChosen(Responded):
        ...     response: Colour
        >>> review = Review(StartEvent, response=Colour, responded=ColourChosen)
        >>> [kind.value for kind in review.allowed]
        ['respond']
    """

    statuses = frozenset({RequestStatus.RESPONDED})

    response: Any = None


def feedback_in(record: ReviewRecord) -> tuple[Feedback, ...]:
    """Return what people asked to change in the answers to one request.

    Args:
        record: The request with its answers.

    Example:
        >>> from llama_index_hitl.lifecycle import open_record, take_answer
        >>> at = utc_now()
        >>> request = ReviewRequest(
        ...     request_id="r-1", title="Publish?", allowed=("approve", "revise"), created_at=at
        ... )
        >>> answer = Answer.to(request, Revise(feedback="shorter"), by="erin", at=at)
        >>> [said.text for said in feedback_in(take_answer(open_record(request), answer))]
        ['shorter']
    """
    return tuple(
        Feedback(revision=record.request.revision, by=a.by.id, at=a.at, text=a.decision.feedback)
        for a in record.answers
        if isinstance(a.decision, Revise)
    )
