"""Questions that are asked inline: wait for a person in the middle of a step or a tool.

A gate is the better place where there is one: it takes several votes, deadlines and revisions, and
repeats nothing. A question suits a tool, or a step that needs one short answer.

Upstream runs a waiting step again from its first line when the answer comes. So ask first, and act
after: what stands before `ask` runs again, what stands after it runs once.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from workflows import Context

from llama_index_hitl._heard import Heard, Passed, stand_aside
from llama_index_hitl._ledger import recalled, remembered_from_now_on, remembered_once
from llama_index_hitl._origin import check_can_wait, origin_of
from llama_index_hitl._proposals import describe, rebuilt
from llama_index_hitl._requests import tagged
from llama_index_hitl._siblings import others_at_rest
from llama_index_hitl._upstream import (
    Execution,
    event_for_waiter,
    execution_of_step,
    forget_waiter,
    keep_waiting,
    resolve_from_every_snapshot,
    run_id_of,
    state_of_run,
    workflow_of,
)
from llama_index_hitl.clock import Clock, clock_of
from llama_index_hitl.errors import AnswerRefused, FieldProblem, InvalidAnswer, QuestionError
from llama_index_hitl.events import (
    ReviewRefusedEvent,
    ReviewRequestEvent,
    ReviewResponseEvent,
    ReviewUpdatedEvent,
    Told,
)
from llama_index_hitl.forms import check_decision, problems_of
from llama_index_hitl.lifecycle import open_record, take_answer
from llama_index_hitl.models import (
    INLINE_GATE,
    Answer,
    Decision,
    DecisionKind,
    Edit,
    Evidence,
    GrantOffer,
    Priority,
    RequestStatus,
    Respond,
    ReviewPolicy,
    ReviewRecord,
    ReviewRequest,
    RuleResult,
    digest_of,
    entries_of,
)
from llama_index_hitl.policies import tally

resolve_from_every_snapshot(ReviewRequestEvent, ReviewUpdatedEvent, *get_args(Told))

_INLINE = (
    DecisionKind.APPROVE,
    DecisionKind.REJECT,
    DecisionKind.REVISE,
    DecisionKind.EDIT,
    DecisionKind.RESPOND,
)


@dataclass(frozen=True, kw_only=True)
class Question:
    """Something to ask inline.

    Attributes:
        title: One line that says what this is about.
        body: What there is to know, in Markdown.
        subject: The thing to decide on, a pydantic model; None for a plain question.
        response: Pydantic model of a structured answer; None: approve or reject.
        decisions: The decisions to allow, where `approve` and `reject` (or `respond`, with a
            response model) do not fit: any but escalating, delegating and abstaining.
        reviewers: Ids and `role:...` entries; empty: anyone whom the channel lets in.
        barred: Persons who may not answer, with the reason.
        evidence: What helps to decide.
        requester: Id of the person on whose behalf this is asked.
        priority: How urgent it is.
        tags: Words to find it by.
        rule: What rules said about the subject, and so why a person is asked; None: nothing.
        grantable: What an approval may let happen from now on without asking; None: nothing. Only
            a `Runner` keeps such standing approvals.

    Example:
        >>> from pydantic import BaseModel
        >>> class Colour(BaseModel):
        ...     name: str
        >>> [kind.value for kind in Question(title="Delete it?").allowed]
        ['approve', 'reject']
        >>> [kind.value for kind in Question(title="Which colour?", response=Colour).allowed]
        ['respond']
    """

    title: str
    body: str = ""
    subject: BaseModel | None = None
    response: type[BaseModel] | None = None
    decisions: Sequence[DecisionKind | str] = ()
    reviewers: Sequence[str] | str = ()
    barred: dict[str, str] = field(default_factory=dict)
    evidence: Sequence[Evidence] = ()
    requester: str | None = None
    priority: Priority = "normal"
    tags: Sequence[str] | str = ()
    rule: RuleResult | None = None
    grantable: GrantOffer | None = None

    @property
    def allowed(self) -> tuple[DecisionKind, ...]:
        """The decisions that can be taken.

        Raises:
            QuestionError: One of them cannot be taken inline.
        """
        default = ("approve", "reject") if self.response is None else ("respond",)
        try:
            kinds = tuple(DecisionKind(kind) for kind in self.decisions or default)
        except ValueError as error:
            raise QuestionError(f"decisions: {error}") from None
        if strangers := [kind for kind in kinds if kind not in _INLINE]:
            raise QuestionError(f"{', '.join(strangers)} cannot be asked inline; use a gate.")
        return kinds


@dataclass(frozen=True)
class Resolution:
    """What came of a question.

    Attributes:
        record: The request, the answer to it, and the outcome.
        subject: The effective subject, of its own type: an edit is in it. None without a subject.
        response: The structured answer, of the response model; None without one.

    Example:
        >>> from llama_index_hitl.lifecycle import open_record, take_answer
        >>> request = ReviewRequest(request_id="r-1", title="Delete it?", created_at=utc_now())
        >>> yes = Answer.to(request, Approve(), by="erin", at=utc_now())
        >>> resolution = Resolution(take_answer(open_record(request), yes))  # what `ask` returns
        >>> resolution.approved, resolution.answer.by.id, resolution.effect_key
        (True, 'erin', 'r-1')
    """

    record: ReviewRecord
    subject: Any = None
    response: Any = None

    @property
    def approved(self) -> bool:
        """Whether it may happen: somebody approved it, as it was or edited."""
        return self.record.status is RequestStatus.APPROVED

    @property
    def decision(self) -> Decision:
        """What was decided."""
        return self.record.answers[-1].decision

    @property
    def answer(self) -> Answer:
        """Who decided what, when and where."""
        return self.record.answers[-1]

    @property
    def effect_key(self) -> str:
        """Key for the effect that was approved: the same in every retry, replay and process."""
        return self.record.request.request_id


async def ask(
    ctx: Context[Any], question: Question, *, key: str = "", clock: Clock | None = None
) -> Resolution:
    """Ask a person and wait for the answer, in the middle of a step or a tool.

    Only an answer with the id and digest of this very question counts: not one for a sibling that
    waits beside it, not one that a restored run hands to every waiter. An answer that does not
    count is refused with a `ReviewRefusedEvent` on the stream, and the question stays open.

    The step runs again from its first line when the answer comes, and what follows `ask` runs once,
    however often the answer is sent. Survives a snapshot of the run: the question keeps its id.

    Args:
        ctx: Context of the step.
        question: What to ask. When the step runs again it must ask the same.
        key: Tells questions apart that one step asks at the same time, with `asyncio.gather`.
        clock: Where the time comes from; by default the workflow's attribute `clock`, or UTC now.

    Returns:
        What came of it.

    Raises:
        QuestionError: The question cannot be asked inline, nobody may answer it, or the step asked
            something else when it ran before.
        SubjectError: The subject does not survive being written as JSON.

    Example:
        >>> from workflows import Context, Workflow, step
        >>> from workflows.events import StartEvent, StopEvent
        >>> from llama_index_hitl.testing import ScriptedReviewer, review_with
        >>> class Cleaning(Workflow):
        ...     @step
        ...     async def clean(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ...         said = await ask(ctx, Question(title=f"Delete {ev.file}?"))
        ...         return StopEvent(result="deleted" if said.approved else "kept")
        >>> async def main():
        ...     erin = ScriptedReviewer([Reject(comment="it is needed")], by="erin")
        ...     return await review_with(Cleaning(timeout=None).run(file="notes.txt"), erin)
        >>> asyncio.run(main())
        'kept'
    """
    execution = execution_of_step()
    now = clock or clock_of(workflow_of(ctx))
    session = state_of_run(Heard)
    session.listen(ctx)
    place = session.place_of(execution, key)
    if session.stands_back(execution):
        session.hear_all(execution)
        await stand_aside(ctx, place)
    taken = recalled(ctx, f"{place}:answer")
    if session.passed_elsewhere(place, execution, again=taken is not None):
        _refuse_late(ctx, session, session.passed[place].record)
        await stand_aside(ctx, place)
    request = _request(ctx, question, place, now)
    if taken is not None:
        # An earlier call of this step was given the answer, and then waited again or failed.
        resolution = _resolve(question, request, Answer.model_validate(taken))
    else:
        resolution = await _first_valid(ctx, question, request, session, execution)
        remembered_from_now_on(ctx, f"{place}:answer", resolution.answer.model_dump(mode="json"))
        ctx.write_event_to_stream(ReviewUpdatedEvent(record=resolution.record))
    forget_waiter(execution, request.request_id)
    session.passed[place] = Passed(execution, resolution.record)
    _refuse_late(ctx, session, resolution.record)
    return resolution


async def _first_valid(
    ctx: Context[Any],
    question: Question,
    request: ReviewRequest,
    session: Heard,
    execution: Execution,
) -> Resolution:
    """Return what the first valid answer comes to; without one, wait."""
    request_id = request.request_id
    requirements = {"request_id": request_id}
    woken_by = event_for_waiter(execution, request_id)
    session.hear(woken_by)
    if not session.waiting(request_id):
        await others_at_rest()
        session.listen(ctx)
    for answer in session.unheard(request_id):
        try:
            return _resolve(question, request, answer)
        except AnswerRefused as error:
            _refuse(ctx, error, answer)
        except RecursionError:
            problem = FieldProblem("", "this is nested too deeply")
            _refuse(ctx, InvalidAnswer(request_id, [problem]), answer)
    check_can_wait(ctx)
    await others_at_rest()
    session.rest(execution)
    if woken_by is not None:
        keep_waiting(ReviewResponseEvent, request_id, requirements)
    await ctx.wait_for_event(
        ReviewResponseEvent,
        waiter_event=ReviewRequestEvent(request=request),
        waiter_id=request_id,
        requirements=requirements,
        timeout=None,
    )
    raise AssertionError("a waiter that nothing has woken must wait")


def request_for(
    ctx: Context[Any], question: Question, *, request_id: str, at: datetime
) -> ReviewRequest:
    """Return a question as the request that people see.

    Args:
        ctx: Context of the step that asks.
        question: What to ask.
        request_id: Id to give the request.
        at: When it is asked.

    Raises:
        QuestionError: It cannot be asked inline.
        SubjectError: The subject does not survive being written as JSON.

    Example:
        >>> from workflows import Context, Workflow, step
        >>> from workflows.events import StartEvent, StopEvent
        >>> class Showing(Workflow):
        ...     @step
        ...     async def show(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ...         question = Question(title="Go?")
        ...         request = request_for(ctx, question, request_id="r-1", at=utc_now())
        ...         return StopEvent(result=(request.gate, request.title))
        >>> async def main():
        ...     return await Showing().run()
        >>> asyncio.run(main())
        ('ask', 'Go?')
    """
    response = question.response
    origin = origin_of(run_id_of(ctx))
    return ReviewRequest(
        request_id=request_id,
        run_id=origin.run_id,
        workflow=workflow_of(ctx).workflow_name,
        path=origin.path,
        title=question.title,
        body=question.body,
        subject=None if question.subject is None else describe(question.subject),
        evidence=tuple(question.evidence),
        allowed=question.allowed,
        response_schema=None if response is None else response.model_json_schema(),
        policy=ReviewPolicy(
            reviewers=entries_of(question.reviewers),
            barred=question.barred,
        ),
        grantable=question.grantable,
        requester=question.requester,
        created_at=at,
        rule=question.rule,
        priority=question.priority,
        tags=tagged(question.tags, question.rule),
    )


def _request(ctx: Context[Any], question: Question, place: str, clock: Clock) -> ReviewRequest:
    """Make the request, or bring back the one that this call of the step made the first time."""
    fresh = request_for(
        ctx, question, request_id=f"{INLINE_GATE}-{secrets.token_hex(8)}", at=clock()
    )
    if tally((), fresh.policy, fresh.created_at).status is RequestStatus.NO_QUORUM:
        raise QuestionError(f"Nobody is left who may answer {question.title!r}: all are barred.")
    kept = remembered_once(ctx, place, fresh.model_dump(mode="json"))
    request = ReviewRequest.model_validate(kept)
    if _what_is_asked(request) != _what_is_asked(fresh):
        raise QuestionError(
            f"The step asked {fresh.title!r} now and {request.title!r} before it waited. What a "
            "step asks must depend on nothing but its event; tell questions that it asks at the "
            "same time apart with key=."
        )
    return request


def _what_is_asked(request: ReviewRequest) -> str:
    # Of questions that older versions asked the workflow is not known; and what leads to the run
    # may have been given other names since.
    own = {"request_id", "run_id", "workflow", "path", "created_at", "digest"}
    return digest_of(request.model_dump(mode="json", exclude=own))


def _resolve(question: Question, request: ReviewRequest, answer: Answer) -> Resolution:
    check_decision(request, answer.decision)
    subject, response = question.subject, None
    try:
        if isinstance(answer.decision, Edit) and subject is not None:
            subject = rebuilt(subject, request.request_id, answer.decision.subject)
        if isinstance(answer.decision, Respond) and question.response is not None:
            response = question.response.model_validate(answer.decision.response)
    except ValidationError as error:
        raise InvalidAnswer(request.request_id, problems_of(error, prefix="response")) from None
    return Resolution(take_answer(open_record(request), answer), subject, response)


def _refuse(ctx: Context[Any], error: AnswerRefused, answer: Answer) -> None:
    ctx.write_event_to_stream(ReviewRefusedEvent.of(error, by=answer.by.id))


def _refuse_late(ctx: Context[Any], session: Heard, record: ReviewRecord) -> None:
    """Refuse what came after the answer that was taken, except for that same answer."""
    for answer in session.unheard(record.request.request_id):
        try:
            take_answer(record, answer)
        except AnswerRefused as error:
            _refuse(ctx, error, answer)
