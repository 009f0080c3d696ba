"""What a gate does with each event that reaches its step."""

from __future__ import annotations

import inspect
import secrets
import warnings
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError
from workflows import Context, Workflow
from workflows.events import Event, HumanResponseEvent, StopEvent

from llama_index_hitl._ledger import ClosedReview, Memory, OpenReview, remembered
from llama_index_hitl._proposals import ProposalStore, describe, edited, proposal_in, subject_in
from llama_index_hitl._upstream import run_id_of, steps_accepting, timeout_of
from llama_index_hitl.clock import Clock, utc_now
from llama_index_hitl.errors import (
    AlreadyAnswered,
    AmbiguousRevision,
    AnswerRefused,
    FieldProblem,
    InvalidAnswer,
    MissingApprovals,
    StaleRequest,
    UnknownRequest,
)
from llama_index_hitl.events import (
    Expired,
    Rejected,
    Responded,
    ReviewDeadlineEvent,
    ReviewOutcomeEvent,
    ReviewRefusedEvent,
    ReviewRequestEvent,
    ReviewResponseEvent,
    ReviewUpdatedEvent,
    RevisionsExhausted,
    feedback_in,
)
from llama_index_hitl.forms import check_decision, parse_answer, problems_of
from llama_index_hitl.lifecycle import (
    Command,
    close,
    decide_without_person,
    open_record,
    take_answer,
)
from llama_index_hitl.models import (
    Answer,
    Approve,
    DecisionKind,
    Edit,
    Escalate,
    Expire,
    Reject,
    RequestStatus,
    Respond,
    Reviewer,
    ReviewPolicy,
    ReviewRecord,
    ReviewRequest,
    RuleResult,
    RuleVerdict,
    StageApproval,
)
from llama_index_hitl.rules import Rule, evaluate

if TYPE_CHECKING:
    from llama_index_hitl.gates import Review

FEEDBACK_LIMIT = 20
"""Pieces of feedback that a request carries along; older ones are in the records of their own."""

_APPROVALS: TypeAdapter[tuple[StageApproval, ...]] = TypeAdapter(tuple[StageApproval, ...])


INLINE_GATE = "ask"
"""The gate of questions that are asked inline; no `Review` may have this name."""


class TimeoutWarning(UserWarning):
    """A workflow with a time limit is about to wait for people."""


class Gatekeeper:
    """One gate at work on one event of one run."""

    def __init__(self, gate: Review, workflow: Workflow, ctx: Context[Any]) -> None:
        self._gate = gate
        self._workflow = workflow
        self._ctx = ctx
        self._proposals = ProposalStore(workflow)
        own: Clock | None = getattr(workflow, "clock", None)
        clock = gate.clock or own or utc_now
        self._now = clock()

    async def handle(self, event: Event) -> Event | None:
        """Take one event and return what it leads to, if anything."""
        if type(event) is self._gate.event:
            async with remembered(self._ctx) as memory:
                return await self._review(memory, event)
        if isinstance(event, ReviewResponseEvent):
            return await self._attempt(
                event.request_id, event.answer.by.id, lambda m: self._answer(m, event.answer)
            )
        if isinstance(event, ReviewDeadlineEvent):
            return await self._attempt(event.request_id, None, lambda m: self._deadline(m, event))
        if isinstance(event, HumanResponseEvent):
            return await self._plain(event)
        return None

    # ----------------------------------------------------------------- a subject arrives

    async def _review(self, memory: Memory, event: Event) -> Event:
        """Ask about a new subject, or let the rules decide."""
        _warn_of_timeout(self._workflow)
        proposal, subject_field = proposal_in(event, self._gate.subject)
        thread = self._thread_of(event)
        older = self._older(memory, event, thread)
        request = await self._request(event, proposal, subject_field, older)
        self._supersede(memory, thread, by=request)
        review = OpenReview(
            record=open_record(request),
            proposal=self._proposals.dump(proposal),
            subject_field=subject_field,
            thread=thread,
        )
        if request.rule is None or request.rule.verdict is RuleVerdict.ASK:
            memory.ledger = memory.ledger.with_open(review)
            return ReviewRequestEvent(request=request)
        decision = (
            Approve(comment=request.rule.reason)
            if request.rule.verdict is RuleVerdict.APPROVE
            else Reject(comment=request.rule.reason)
        )
        answer = self._answer_of_rule(request, f"rule:{request.rule.rule}", decision)
        return self._finish(memory, review, decide_without_person(review.record, answer))

    def _answer_of_rule(self, request: ReviewRequest, name: str, decision: Any) -> Answer:
        by = Reviewer(id=name, kind="rule")
        return Answer.to(request, decision, by=by, at=self._now, channel="rule")

    def _thread_of(self, event: Event) -> str:
        key = self._gate.key
        return "" if key is None else f"{key}={getattr(event, key)}"

    def _older(self, memory: Memory, event: Event, thread: str) -> ReviewRequest | None:
        """Find the request that the new subject is the next draft of, and take it off the list."""
        ledger = memory.ledger
        revision_of = getattr(event, "revision_of", None)
        found: ReviewRequest | None = None
        if revision_of is not None and revision_of in ledger.awaiting:
            found = ledger.awaiting[revision_of]
        elif thread:
            opened = [r.record.request for r in ledger.open.values() if r.thread == thread]
            found = opened[-1] if opened else ledger.threads.get(thread)
        elif len(ledger.awaiting) > 1:
            raise AmbiguousRevision(self._gate.name, ledger.awaiting)
        else:
            found = next(iter(ledger.awaiting.values()), None)
        if found is not None:
            awaiting = {k: v for k, v in ledger.awaiting.items() if k != found.request_id}
            memory.ledger = ledger.model_copy(update={"awaiting": awaiting})
        return found

    def _supersede(self, memory: Memory, thread: str, *, by: ReviewRequest) -> None:
        """Close the open requests for older drafts of the same thing."""
        if not thread:
            return
        for review in list(memory.ledger.open.values()):
            if review.thread == thread:
                record = close(
                    review.record,
                    Command.SUPERSEDE,
                    at=self._now,
                    reason=f"{by.request_id} asks about a newer draft.",
                    superseded_by=by.request_id,
                )
                memory.ledger = memory.ledger.with_closed(record)
                self._tell(record)

    async def _request(
        self,
        event: Event,
        proposal: Event,
        subject_field: str | None,
        older: ReviewRequest | None,
    ) -> ReviewRequest:
        gate, value = self._gate, subject_in(proposal, subject_field)
        approvals = _approvals_of(event)
        requester = await self._resolved(gate.requester, event)
        title = await self._resolved(gate.title, event)
        kinds = gate.allowed
        return ReviewRequest(
            request_id=_new_id(gate.name),
            run_id=run_id_of(self._ctx),
            workflow=self._workflow.workflow_name,
            gate=gate.name,
            stage=gate.stage or gate.name,
            title=title or f"{gate.name.replace('_', ' ').capitalize()}: {type(value).__name__}",
            body=await self._resolved(gate.body, event),
            subject=describe(value),
            evidence=tuple(await self._resolved(gate.evidence, event)),
            previous=None if older is None else older.subject,
            feedback=() if older is None else older.feedback[-FEEDBACK_LIMIT:],
            allowed=kinds,
            response_schema=None if gate.response is None else gate.response.model_json_schema(),
            policy=await self._policy(event, requester, approvals),
            escalate_to=_entries(gate.escalate_to) if DecisionKind.ESCALATE in kinds else (),
            on_deadline=gate.on_deadline,
            requester=requester,
            created_at=self._now,
            revision=_revision_of(event, older),
            sent_back=0 if older is None else older.sent_back,
            max_revisions=await self._resolved(gate.max_revisions, event),
            supersedes=None if older is None else older.request_id,
            rule=await self._rule_result(event, value),
            approvals=approvals,
            priority=await self._resolved(gate.priority, event),
            tags=_entries(await self._resolved(gate.tags, event)),
        )

    async def _policy(
        self, event: Event, requester: str | None, approvals: Sequence[StageApproval]
    ) -> ReviewPolicy:
        gate = self._gate
        deadline = await self._resolved(gate.deadline, event)
        barred = _barred_by_stages(gate.name, _entries(gate.distinct_from), approvals)
        if gate.bar_requester and requester is not None:
            barred[requester] = "whoever requests it cannot approve it"
        return ReviewPolicy(
            reviewers=_entries(await self._resolved(gate.reviewers, event)),
            approvals=1 if isinstance(gate.quorum, dict) else gate.quorum,
            per_role=gate.quorum if isinstance(gate.quorum, dict) else {},
            rejections=gate.rejections,
            veto_roles=_entries(gate.veto_roles),
            barred=barred,
            second_person_for_edit=gate.second_person_for_edit,
            deadline=None if deadline is None else self._now + deadline,
        )

    async def _rule_result(self, event: Event, value: Any) -> RuleResult | None:
        when = self._gate.when
        rule = when if isinstance(when, Rule) else await self._resolved(when, event)
        return None if rule is None else evaluate(rule, value)

    async def _resolved(self, option: Any, event: Event) -> Any:
        value = option(self._workflow, event) if callable(option) else option
        return await value if inspect.isawaitable(value) else value

    # ----------------------------------------------------------------- an answer arrives

    async def _plain(self, event: HumanResponseEvent) -> Event | None:
        """Take a plain HumanResponseEvent, if it names a request and says one of its decisions."""
        request_id = getattr(event, "request_id", None)
        by = getattr(event, "by", None) or "anonymous"

        def parse(memory: Memory) -> Event | None:
            review = self._open_review(memory, request_id)
            reviewer = by if isinstance(by, Reviewer) else _reviewer(request_id, by)
            raw = getattr(event, "response", "")
            if not isinstance(raw, str | dict):
                raw = str(raw)
            answer = parse_answer(
                review.record.request, raw, by=reviewer, at=self._now, channel="plain"
            )
            return self._answer(memory, answer)

        if request_id is None and _taken_by_others(self._workflow, self._gate):
            return None
        return await self._attempt(request_id, str(by), parse)

    async def _attempt(
        self, request_id: Any, by: str | None, act: Callable[[Memory], Event | None]
    ) -> Event | None:
        """Do something with an answer; a refusal is told on the stream and changes nothing."""
        if not self._is_mine(request_id):
            return None
        async with remembered(self._ctx) as memory:
            try:
                return act(memory)
            except AnswerRefused as error:
                self._ctx.write_event_to_stream(
                    ReviewRefusedEvent(
                        request_id=error.request_id,
                        code=error.code,
                        reason=str(error),
                        problems=error.problems,
                        by=by,
                    )
                )
                return None

    def _is_mine(self, request_id: Any) -> bool:
        """Tell whether to speak for an id: it is this gate's, or no gate's and this is first."""
        name = str(request_id).rpartition("-")[0]
        if name == self._gate.name:
            return True
        gates = self._gate.siblings(self._workflow)
        return name not in (*gates, INLINE_GATE) and self._gate.name == next(iter(gates))

    def _open_review(self, memory: Memory, request_id: Any) -> OpenReview:
        if not isinstance(request_id, str):
            problem = FieldProblem("request_id", "say which request this answers")
            raise InvalidAnswer(None, [problem])
        if (review := memory.ledger.open.get(request_id)) is not None:
            return review
        closed = memory.ledger.closed_review(request_id)
        if closed is None:
            raise UnknownRequest(str(request_id))
        raise _refusal_of_closed(closed)

    def _answer(self, memory: Memory, answer: Answer) -> Event | None:
        closed = memory.ledger.closed_review(answer.request_id)
        if closed is not None and any(answer.same_as(taken) for taken in closed.answers):
            return None  # the same answer again: it was taken the first time
        review = self._open_review(memory, answer.request_id)
        before = review.record
        check_decision(before.request, answer.decision)
        proposal = self._effective(review, answer)
        record = take_answer(before, answer)
        if record is before:
            return None
        if record.status is RequestStatus.OPEN:
            memory.ledger = memory.ledger.with_open(review.model_copy(update={"record": record}))
            self._tell(record)
            return None
        return self._finish(memory, review, record, proposal)

    def _effective(self, review: OpenReview, answer: Answer) -> Event:
        """Return the proposal as this answer would let it pass; its own model has the last word."""
        proposal: Event = self._proposals.load(review.proposal)
        match answer.decision:
            case Edit(subject=data):
                return edited(proposal, review.subject_field, answer.request_id, data)
            case Respond(response=response) if self._gate.response is not None:
                try:
                    self._gate.response.model_validate(response)
                except ValidationError as error:
                    problems = problems_of(error, prefix="response")
                    raise InvalidAnswer(answer.request_id, problems) from None
        return proposal

    def _deadline(self, memory: Memory, event: ReviewDeadlineEvent) -> Event | None:
        review = self._open_review(memory, event.request_id)
        record, deadline = review.record, review.record.policy.deadline
        if deadline is None or event.at < deadline:
            raise StaleRequest(event.request_id, reason="its deadline has not passed")
        self._now = max(self._now, event.at)
        match record.request.on_deadline:
            case Escalate() as action if record.request.level == 0:
                answer = self._answer_of_rule(record.request, "rule:deadline", action)
                return self._finish(memory, review, decide_without_person(record, answer))
            case Reject() as action:
                answer = self._answer_of_rule(record.request, "rule:deadline", action)
                return self._finish(memory, review, decide_without_person(record, answer))
            case _:
                reason = f"The deadline {deadline.isoformat()} passed without a decision."
                expired = close(record, Command.EXPIRE, at=self._now, reason=reason)
                return self._finish(memory, review, expired)

    # ----------------------------------------------------------------- the request is closed

    def _finish(
        self,
        memory: Memory,
        review: OpenReview,
        record: ReviewRecord,
        proposal: Event | None = None,
    ) -> Event:
        """Close a request and say what follows from its outcome."""
        gate, request = self._gate, record.request
        proposal = proposal if proposal is not None else self._proposals.load(review.proposal)
        follow_up: ReviewRequest | None = None
        if record.status is RequestStatus.ESCALATED:
            follow_up = self._escalated(record)
        elif record.status is RequestStatus.EDITED:
            follow_up = self._asked_anew(
                record, describe(subject_in(proposal, review.subject_field))
            )
        if follow_up is not None:
            record = record.model_copy(update={"superseded_by": follow_up.request_id})
        memory.ledger = memory.ledger.with_closed(record)
        self._tell(record)
        if follow_up is not None:
            again = review.model_copy(
                update={
                    "record": open_record(follow_up),
                    "proposal": self._proposals.dump(proposal),
                }
            )
            memory.ledger = memory.ledger.with_open(again)
            return ReviewRequestEvent(request=follow_up)
        content = {
            "record": record,
            "proposal": proposal,
            "subject_field": review.subject_field,
        }
        if record.status is RequestStatus.REVISED and not _exhausted(request):
            self._await_revision(memory, record, review.thread)
            assert gate.revise is not None  # noqa: S101 - a gate that allows it has it
            return gate.revise(**content)
        self._close_thread(memory, request, review.thread)
        return self._outcome(record, content)

    def _outcome(self, record: ReviewRecord, content: dict[str, Any]) -> Event:
        gate = self._gate
        match record.status:
            case RequestStatus.APPROVED:
                return gate.approved(**content)
            case RequestStatus.RESPONDED:
                last = record.answers[-1].decision
                response = last.response if isinstance(last, Respond) else None
                return _or_stop(gate.responded, Responded, {**content, "response": response})
            case RequestStatus.REVISED:
                return _or_stop(gate.exhausted, RevisionsExhausted, content)
            case RequestStatus.EXPIRED:
                return _or_stop(gate.expired, Expired, content)
            case _:
                return _or_stop(gate.rejected, Rejected, content)

    def _await_revision(self, memory: Memory, record: ReviewRecord, thread: str) -> None:
        request = record.request
        feedback = (*request.feedback, *feedback_in(record))[-FEEDBACK_LIMIT:]
        waiting = _again(request, feedback=feedback, previous=None, sent_back=request.sent_back + 1)
        memory.ledger = memory.ledger.model_copy(
            update={"awaiting": {**memory.ledger.awaiting, request.request_id: waiting}}
        )
        self._close_thread(memory, waiting, thread)

    def _close_thread(self, memory: Memory, request: ReviewRequest, thread: str) -> None:
        if thread:
            memory.ledger = memory.ledger.with_thread(thread, request)

    def _escalated(self, record: ReviewRecord) -> ReviewRequest:
        request, decision = record.request, record.answers[-1].decision
        to = decision.to if isinstance(decision, Escalate) else ()
        policy = record.policy.model_copy(
            update={
                "reviewers": to or request.escalate_to,
                "approvals": 1,
                "per_role": {},
                "deadline": self._renewed(request),
            }
        )
        allowed = tuple(kind for kind in request.allowed if kind is not DecisionKind.ESCALATE)
        return self._follow_up(
            request,
            policy=policy,
            level=request.level + 1,
            allowed=allowed,
            on_deadline=_once(request),
        )

    def _asked_anew(self, record: ReviewRecord, subject: Any) -> ReviewRequest:
        """Ask about an edited subject: every vote was for something else, so all begin anew."""
        request, editor = record.request, record.answers[-1].by.id
        barred = dict(record.policy.barred)
        if record.policy.second_person_for_edit:
            barred[editor] = "whoever edited it cannot approve it"
        policy = record.policy.model_copy(
            update={"barred": barred, "deadline": self._renewed(request)}
        )
        return self._follow_up(
            request,
            policy=policy,
            subject=subject,
            previous=request.subject,
            revision=request.revision + 1,
        )

    def _renewed(self, request: ReviewRequest) -> datetime | None:
        """Give the follow-up as much time as the request had."""
        if request.deadline is None:
            return None
        return self._now + (request.deadline - request.created_at)

    def _follow_up(self, request: ReviewRequest, **changes: Any) -> ReviewRequest:
        return _again(
            request,
            request_id=_new_id(self._gate.name),
            supersedes=request.request_id,
            created_at=self._now,
            **changes,
        )

    def _tell(self, record: ReviewRecord) -> None:
        self._ctx.write_event_to_stream(ReviewUpdatedEvent(record=record))


# --------------------------------------------------------------------------- helpers


def _new_id(gate: str) -> str:
    """Return a new request id; its first part says which gate it belongs to."""
    return f"{gate}-{secrets.token_hex(8)}"


def _entries(value: Sequence[str] | str) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _again(request: ReviewRequest, **changes: Any) -> ReviewRequest:
    """Return a request with some values changed and its digest computed anew."""
    values = {name: getattr(request, name) for name in ReviewRequest.model_fields}
    return ReviewRequest(**{**values, "digest": "", **changes})


def _once(request: ReviewRequest) -> Any:
    """After one escalation a second missed deadline expires."""
    return Expire() if isinstance(request.on_deadline, Escalate) else request.on_deadline


def _exhausted(request: ReviewRequest) -> bool:
    return request.max_revisions is not None and request.sent_back >= request.max_revisions


def _revision_of(event: Event, older: ReviewRequest | None) -> int:
    """Number the draft: one more than the draft before, and what an earlier stage called it."""
    before = 0 if older is None else older.revision
    earlier_stage = event.revision if isinstance(event, ReviewOutcomeEvent) else 0
    return max(before + 1, earlier_stage)


def _or_stop(
    kind: type[ReviewOutcomeEvent] | None,
    default: type[ReviewOutcomeEvent],
    content: dict[str, Any],
) -> Event:
    return kind(**content) if kind is not None else StopEvent(result=default(**content))


def _approvals_of(event: Event) -> tuple[StageApproval, ...]:
    """Read who let earlier stages pass; an event of the user's own may carry it along."""
    return _APPROVALS.validate_python(getattr(event, "approvals", ()))


def _barred_by_stages(
    gate: str, stages: Sequence[str], approvals: Sequence[StageApproval]
) -> dict[str, str]:
    missing = [stage for stage in stages if stage not in {a.stage for a in approvals}]
    if missing:
        raise MissingApprovals(gate, missing)
    return {
        person: f"approved the earlier stage {approval.stage!r}"
        for approval in approvals
        if approval.stage in stages
        for person in approval.approvers
    }


def _refusal_of_closed(closed: ClosedReview) -> AnswerRefused:
    if closed.answers and closed.status is not RequestStatus.SUPERSEDED:
        last = closed.answers[-1]
        return AlreadyAnswered(closed.request_id, status=closed.status, by=last.by.id, at=last.at)
    taken = f", {closed.superseded_by} has taken its place" if closed.superseded_by else ""
    return StaleRequest(closed.request_id, reason=f"it is {closed.status}{taken}")


def _reviewer(request_id: Any, by: Any) -> Reviewer:
    try:
        return Reviewer.model_validate(by if isinstance(by, dict) else {"id": by})
    except ValidationError:
        problem = FieldProblem("by", "say who answers, by id")
        raise InvalidAnswer(str(request_id), [problem]) from None


def _taken_by_others(workflow: Workflow, gate: Review) -> bool:
    """Tell whether a step that is no gate accepts plain answers, so that this one may be for it."""
    gate_steps = {other.step_name for other in gate.siblings(workflow).values()}
    return bool(steps_accepting(workflow, HumanResponseEvent) - gate_steps)


def _warn_of_timeout(workflow: Workflow) -> None:
    seconds = timeout_of(workflow)
    if seconds is not None:
        warnings.warn(
            f"{type(workflow).__name__} has timeout={seconds} seconds: a run that waits for people "
            "longer than that is killed. Create it with timeout=None.",
            TimeoutWarning,
            stacklevel=2,
        )
