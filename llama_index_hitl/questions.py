"""Questions that are asked inline: wait for a person in the middle of a step or a tool.

A gate is the better place where there is one: it takes several votes, deadlines and revisions, and
repeats nothing. A question suits a tool, or a step that needs one short answer.

Upstream runs a waiting step again from its first line when the answer comes. So ask first, and act
after: what stands before `ask` runs again, what stands after it runs once.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ValidationError
from workflows import Context
from workflows.events import CollectionReleaseEvent, Event

from llama_index_hitl._ledger import recalled, remembered_from_now_on, remembered_once
from llama_index_hitl._proposals import describe, rebuilt
from llama_index_hitl._siblings import others_at_rest
from llama_index_hitl._upstream import (
    Execution,
    event_for_waiter,
    events_received,
    execution_of_step,
    forget_waiter,
    keep_waiting,
    may_be_repeated,
    resolve_from_every_snapshot,
    run_id_of,
    state_of_run,
    warn_of_timeout,
    work_item_of,
    workflow_of,
)
from llama_index_hitl.clock import Clock, present_clock
from llama_index_hitl.errors import AnswerRefused, FieldProblem, InvalidAnswer, QuestionError
from llama_index_hitl.events import (
    ReviewRefusedEvent,
    ReviewRequestEvent,
    ReviewResponseEvent,
    ReviewUpdatedEvent,
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
)
from llama_index_hitl.policies import tally

resolve_from_every_snapshot(ReviewRequestEvent, ReviewResponseEvent, ReviewUpdatedEvent)

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
        grantable: What an approval may let happen from now on without asking; None: nothing.
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
    tags: Sequence[str] = ()
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
    """
    execution = execution_of_step()
    workflow = workflow_of(ctx)
    own: Clock | None = getattr(workflow, "clock", None)
    now = clock or own or present_clock()
    warn_of_timeout(workflow)
    session = state_of_run(_Session)
    session.listen(ctx)
    place = session.place_of(execution, key)
    taken = recalled(ctx, f"{place}:answer")
    if session.passed_elsewhere(place, execution, again=taken is not None):
        _refuse_late(ctx, session, session.passed[place].record)
        await _stand_aside(ctx, place)
    request = _request(ctx, question, place, now)
    if taken is not None:
        # An earlier call of this step was given the answer, and then waited again or failed.
        resolution = _resolve(question, request, Answer.model_validate(taken))
    else:
        resolution = await _first_valid(ctx, question, request, session, execution)
        remembered_from_now_on(ctx, f"{place}:answer", resolution.answer.model_dump(mode="json"))
        ctx.write_event_to_stream(ReviewUpdatedEvent(record=resolution.record))
    forget_waiter(execution, request.request_id)
    session.passed[place] = _Passed(execution, resolution.record)
    _refuse_late(ctx, session, resolution.record)
    return resolution


async def _first_valid(
    ctx: Context[Any],
    question: Question,
    request: ReviewRequest,
    session: _Session,
    execution: Execution,
) -> Resolution:
    """Return what the first valid answer comes to; without one, wait."""
    request_id = request.request_id
    requirements = {"request_id": request_id}
    woken_by = event_for_waiter(execution, request_id)
    session.hear(woken_by)
    for answer in session.unheard(request_id):
        try:
            return _resolve(question, request, answer)
        except AnswerRefused as error:
            _refuse(ctx, error, answer)
        except RecursionError:
            problem = FieldProblem("", "this is nested too deeply")
            _refuse(ctx, InvalidAnswer(request_id, [problem]), answer)
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
    """
    reviewers, response = question.reviewers, question.response
    return ReviewRequest(
        request_id=request_id,
        run_id=run_id_of(ctx),
        workflow=workflow_of(ctx).workflow_name,
        title=question.title,
        body=question.body,
        subject=None if question.subject is None else describe(question.subject),
        evidence=tuple(question.evidence),
        allowed=question.allowed,
        response_schema=None if response is None else response.model_json_schema(),
        policy=ReviewPolicy(
            reviewers=(reviewers,) if isinstance(reviewers, str) else tuple(reviewers),
            barred=question.barred,
        ),
        grantable=question.grantable,
        requester=question.requester,
        created_at=at,
        rule=question.rule,
        priority=question.priority,
        tags=tuple(question.tags),
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
    # Of questions that older versions asked the workflow is not known.
    own = {"request_id", "run_id", "workflow", "created_at", "digest"}
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
    ctx.write_event_to_stream(
        ReviewRefusedEvent(
            request_id=error.request_id,
            code=error.code,
            reason=str(error),
            problems=error.problems,
            by=answer.by.id,
        )
    )


def _refuse_late(ctx: Context[Any], session: _Session, record: ReviewRecord) -> None:
    """Refuse what came after the answer that was taken, except for that same answer."""
    for answer in session.unheard(record.request.request_id):
        try:
            take_answer(record, answer)
        except AnswerRefused as error:
            _refuse(ctx, error, answer)


async def _stand_aside(ctx: Context[Any], place: str) -> None:
    """End a call of the step that a second copy of the answer began; never returns.

    Upstream calls a waiting step once for every matching event, even while the first call is at
    work. A step cannot end without a result, but it can wait for something that never comes; this
    event type is never sent, is known to every snapshot, and has no requirement to be asked for.
    """
    await ctx.wait_for_event(CollectionReleaseEvent, waiter_id=f"aside-{place}", timeout=None)


@dataclass(frozen=True)
class _Passed:
    """The call of a step that went on with an answer, and what that came to."""

    execution: Execution
    record: ReviewRecord


class _Session:
    """What one run in one process has heard, and which questions have been passed.

    After a restore there is nothing to know: a snapshot is taken when no step is at work, and by
    then the waiters of passed questions are gone, or their answers kept.
    """

    def __init__(self) -> None:
        self.passed: dict[str, _Passed] = {}
        self._counts: dict[int, tuple[Execution, dict[str, int]]] = {}
        self._answers: dict[str, list[Answer]] = {}
        self._heard: dict[str, int] = {}
        self._position = 0
        self._resting: list[Execution] = []

    def listen(self, ctx: Context[Any]) -> None:
        """Note the answers that have come since the last time."""
        events, self._position = events_received(ctx, self._position)
        for event in events:
            if isinstance(event, ReviewResponseEvent):
                self._answers.setdefault(event.request_id, []).append(event.answer)

    def hear(self, event: Event | None) -> None:
        """Note an answer that came before this process did, or that the log does not show."""
        if not isinstance(event, ReviewResponseEvent):
            return
        known = self._answers.setdefault(event.request_id, [])
        if event.answer not in known:
            known.insert(self._heard.get(event.request_id, 0), event.answer)

    def unheard(self, request_id: str) -> Iterator[Answer]:
        """Yield the answers to a question that nobody has looked at, each one once."""
        answers = self._answers.get(request_id, [])
        while (position := self._heard.get(request_id, 0)) < len(answers):
            self._heard[request_id] = position + 1
            yield answers[position]

    def rest(self, execution: Execution) -> None:
        """Note that a call of a step is about to end, to be repeated when an answer comes."""
        at_work = (other for other in self._resting if not other.sends.closed)
        self._resting = [*at_work, execution]

    def place_of(self, execution: Execution, key: str) -> str:
        """Name the question by the work item, its key, and how many came before it in this call."""
        self._counts = {
            number: entry for number, entry in self._counts.items() if not entry[0].sends.closed
        }
        _, counts = self._counts.setdefault(id(execution), (execution, {}))
        counts[key] = counts.get(key, -1) + 1
        return f"{work_item_of(execution)}:{key}:{counts[key]}"

    def passed_elsewhere(self, place: str, execution: Execution, *, again: bool) -> bool:
        """Tell whether another call of the step has passed this question.

        Args:
            place: The question.
            execution: The call that asks.
            again: It began with an answer taken by an earlier call, so it may be that call's
                repetition: it goes on where that one has ended without completing the step.
        """
        other = self.passed.get(place)
        if other is None or other.execution is execution:
            return False
        repeated = may_be_repeated(other.execution) or any(
            execution is other.execution for execution in self._resting
        )
        return not (again and repeated)
