"""What a gate does with each event that reaches its step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError
from workflows import Context, Workflow
from workflows.events import Event, HumanResponseEvent, StopEvent

from llama_index_hitl._ledger import ClosedReview, Ledger, Memory, OpenReview, remembered
from llama_index_hitl._origin import check_can_wait
from llama_index_hitl._proposals import (
    ProposalStore,
    data_of,
    describe,
    edited,
    proposal_in,
    subject_in,
)
from llama_index_hitl._requests import FEEDBACK_LIMIT, RequestMaker, again, shown
from llama_index_hitl._upstream import is_waited_for, state_of_run, steps_accepting
from llama_index_hitl.clock import clock_of
from llama_index_hitl.errors import (
    AlreadyAnswered,
    AmbiguousRevision,
    AnswerRefused,
    FieldProblem,
    InvalidAnswer,
    RequestExpired,
    StaleRequest,
    SubjectError,
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
    ReviewWithdrawEvent,
    RevisionsExhausted,
    Told,
    feedback_in,
)
from llama_index_hitl.forms import check_decision, parse_answer, problems_of
from llama_index_hitl.lifecycle import (
    Command,
    close,
    decide_without_person,
    open_record,
    pass_time,
    take_answer,
    widest_policy,
    withdraw,
)
from llama_index_hitl.models import (
    INLINE_GATE,
    Answer,
    Approve,
    Edit,
    Reject,
    RequestStatus,
    Respond,
    Reviewer,
    ReviewRecord,
    ReviewRequest,
    RuleVerdict,
)
from llama_index_hitl.policies import tally

if TYPE_CHECKING:
    from llama_index_hitl.gates import Review


class Gatekeeper:
    """One gate at work on one event of one run."""

    def __init__(self, gate: Review, workflow: Workflow, ctx: Context[Any]) -> None:
        self._gate = gate
        self._workflow = workflow
        self._ctx = ctx
        self._proposals = ProposalStore(workflow)
        clock = gate.clock or clock_of(workflow)
        self._now = clock()

    def _requests(self, memory: Memory) -> RequestMaker:
        number = memory.ledger.asked
        memory.ledger = memory.ledger.model_copy(update={"asked": number + 1})
        return RequestMaker(self._gate, self._workflow, self._ctx, self._now, number)

    def _loaded(self, review: OpenReview) -> Event:
        """Return the proposal of a request, if it and the request are as they were shown.

        Raises:
            SubjectError: They are not.
        """
        request = review.record.request
        proposal: Event = self._proposals.load(review.proposal)
        shown = None if request.subject is None else request.subject.data
        kept = data_of(subject_in(proposal, review.subject_field))
        if kept != shown or request.digest != request.actual_digest():
            name = type(proposal).__name__
            raise SubjectError(
                f"{name} of {request.request_id} does not come back as it was shown. Declare its "
                "fields with the types of their values; if it was so before, what is stored has "
                "been changed."
            )
        return proposal

    async def handle(self, event: Event) -> Event | None:
        """Take one event and return what it leads to, if anything."""
        if type(event) is self._gate.event:
            async with remembered(self._ctx) as memory:
                return await self._review(memory, event)
        if isinstance(event, ReviewResponseEvent):
            return await self._attempt(
                event, event.answer.by.id, lambda m: self._answer(m, event.answer)
            )
        if isinstance(event, ReviewDeadlineEvent):
            return await self._attempt(event, None, lambda m: self._pass_time(m, event))
        if isinstance(event, ReviewWithdrawEvent):
            return await self._attempt(event, event.by.id, lambda m: self._withdraw(m, event))
        if isinstance(event, HumanResponseEvent):
            return await self._plain(event)
        return None

    # ----------------------------------------------------------------- a subject arrives

    async def _review(self, memory: Memory, event: Event) -> Event:
        """Ask about a new subject, or let the rules decide."""
        proposal, subject_field = proposal_in(event, self._gate.subject)
        thread = self._thread_of(proposal)
        older = self._older(memory, proposal, thread)
        request = await self._requests(memory).about(event, proposal, subject_field, older)
        self._supersede(memory, thread, by=request)
        review = OpenReview(
            record=open_record(request),
            proposal=self._proposals.dump(proposal),
            subject_field=subject_field,
            thread=thread,
        )
        self._loaded(review)  # refuses what would not come back as it is shown
        if request.rule is None or request.rule.verdict is RuleVerdict.ASK:
            return self._ask(memory, review)
        decision = (
            Approve(comment=request.rule.reason)
            if request.rule.verdict is RuleVerdict.APPROVE
            else Reject(comment=request.rule.reason)
        )
        answer = self._answer_of_rule(request, f"rule:{request.rule.rule}", decision)
        return self._finish(memory, review, decide_without_person(review.record, answer))

    def _ask(self, memory: Memory, review: OpenReview) -> Event:
        """Open a request; where nobody is left who could decide, give it up instead of waiting."""
        record = review.record
        at_once = tally((), widest_policy(record), self._now)
        if at_once.status is RequestStatus.NO_QUORUM:
            record = close(record, Command.GIVE_UP, at=self._now, reason=at_once.reason)
            return self._finish(memory, review, record)
        later, _ = pass_time(record, self._now)
        if later.status is not RequestStatus.OPEN:
            return self._finish(memory, review, later)
        check_can_wait(self._ctx)
        memory.ledger = memory.ledger.with_open(review)
        return ReviewRequestEvent(request=record.request)

    def _answer_of_rule(self, request: ReviewRequest, name: str, decision: Any) -> Answer:
        by = Reviewer(id=name, kind="rule")
        return Answer.to(request, decision, by=by, at=self._now, channel="rule")

    def _thread_of(self, proposal: Event) -> str:
        key = self._gate.key
        if key is None:
            return ""
        try:
            return f"{key}={getattr(proposal, key)}"
        except AttributeError:
            name = type(proposal).__name__
            raise SubjectError(
                f"{name} has no {key!r}, the key of gate {self._gate.name!r}."
            ) from None

    def _older(self, memory: Memory, proposal: Event, thread: str) -> ReviewRequest | None:
        """Find the request that the new subject is the next draft of, and take it off the list."""
        ledger = memory.ledger
        revision_of = getattr(proposal, "revision_of", None)
        found: ReviewRequest | None = None
        if revision_of is not None:
            found = self._named(ledger, revision_of)
        elif thread:
            found = _last_of(ledger, thread)
        elif len(ledger.awaiting) > 1:
            raise AmbiguousRevision(self._gate.name, ledger.awaiting)
        else:
            found = next((awaited.request for awaited in ledger.awaiting.values()), None)
        if found is not None:
            awaiting = {k: v for k, v in ledger.awaiting.items() if k != found.request_id}
            memory.ledger = ledger.model_copy(update={"awaiting": awaiting})
        return found

    def _named(self, ledger: Ledger, revision_of: str) -> ReviewRequest | None:
        """Find the request that a draft says it revises; None: it is another gate's.

        Raises:
            SubjectError: There is no such request here.
        """
        if revision_of in ledger.awaiting:
            return ledger.awaiting[revision_of].request
        if revision_of in ledger.open:
            return ledger.open[revision_of].record.request
        other = revision_of.rpartition("-")[0]
        if other != self._gate.name and other in self._gate.siblings(self._workflow):
            return None
        if ledger.closed_review(revision_of) is not None:
            return None  # its next draft has come before: this is another thing
        raise SubjectError(
            f"revision_of={revision_of!r} names no request of gate {self._gate.name!r} that is "
            "open or waits for a revision; give it the request_id of the Revision event."
        )

    def _supersede(self, memory: Memory, thread: str, *, by: ReviewRequest) -> None:
        """Close the open requests for older drafts of the same thing."""
        for review in list(memory.ledger.open.values()):
            older = review.record.request.request_id == by.supersedes
            if older or (thread and review.thread == thread):
                record = close(
                    review.record,
                    Command.SUPERSEDE,
                    at=self._now,
                    reason=f"{by.request_id} asks about a newer draft.",
                    superseded_by=by.request_id,
                )
                memory.ledger = memory.ledger.with_closed(record)
                self._tell(record)

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
        return await self._attempt(event, str(by), parse)

    async def _attempt(
        self, event: Event, by: str | None, act: Callable[[Memory], Event | None]
    ) -> Event | None:
        """Do something with an answer; a refusal is told on the stream and changes nothing."""
        async with remembered(self._ctx) as memory:
            request_id = getattr(event, "request_id", None)
            if not self._speaks_for(event, known=memory.ledger.knows(request_id)):
                return None
            try:
                return act(memory)
            except AnswerRefused as error:
                self._tell_refusal(error, by)
            except RecursionError:
                problem = FieldProblem("", "this is nested too deeply")
                self._tell_refusal(InvalidAnswer(str(request_id), [problem]), by)
            return None

    def _speaks_for(self, event: Event, *, known: bool) -> bool:
        """Tell whether this gate is the one to say something to an event.

        That is the gate that has asked, whatever name the id begins with: the gate may have been
        renamed since. Of an id that no gate knows the last one to see it says so.
        """
        request_id = str(getattr(event, "request_id", None))
        inline = request_id.rpartition("-")[0] == INLINE_GATE
        if (
            not known
            and isinstance(event, Told)
            and (inline or is_waited_for(self._ctx, request_id))
        ):
            return False  # a step waits with the question, and takes its answers itself
        gates = self._gate.siblings(self._workflow)
        seen = state_of_run(_Unclaimed)
        return seen.is_unclaimed(event, self._gate.name, gates, known=known) or known

    def _open_review(self, memory: Memory, request_id: Any) -> OpenReview:
        if not isinstance(request_id, str):
            problem = FieldProblem("request_id", "say which request this answers")
            raise InvalidAnswer(None, [problem])
        if request_id.startswith(f"{INLINE_GATE}-"):
            problem = FieldProblem("", "an inline question takes a ReviewResponseEvent only")
            raise InvalidAnswer(request_id, [problem])
        if (review := memory.ledger.open.get(request_id)) is not None:
            return review
        closed = memory.ledger.closed_review(request_id)
        if closed is None:
            raise UnknownRequest(str(request_id))
        raise _refusal_of_closed(closed)

    def _answer(self, memory: Memory, answer: Answer) -> Event | None:
        closed = memory.ledger.closed_review(answer.request_id)
        if closed is not None and closed.has(answer):
            return None  # the same answer again: it was taken the first time
        review = self._open_review(memory, answer.request_id)
        before = review.record
        check_decision(before.request, answer.decision)
        proposal = self._effective(review, answer)
        try:
            record = take_answer(before, answer)
        except RequestExpired as error:
            if self._now < error.deadline:
                raise  # only by the time that the sender claims it to be
            self._tell_refusal(error, answer.by.id)
            return self._climb(memory, review, self._now)
        if record is before:
            self._tell(record)  # the same answer again: the same receipt
            return None
        return self._moved(memory, review, record, proposal)

    def _effective(self, review: OpenReview, answer: Answer) -> Event:
        """Return the proposal as this answer would let it pass; its own model has the last word."""
        proposal = self._loaded(review)
        match answer.decision:
            case Edit(subject=data):
                return edited(proposal, review.subject_field, answer.request_id, data)
            case Respond(response=response) if (model := self._response_to(proposal)) is not None:
                try:
                    model.model_validate(response)
                except ValidationError as error:
                    problems = problems_of(error, prefix="response")
                    raise InvalidAnswer(answer.request_id, problems) from None
        return proposal

    def _response_to(self, proposal: Event) -> type[BaseModel] | None:
        return self._gate.response_model(self._workflow, proposal)

    def _pass_time(self, memory: Memory, event: ReviewDeadlineEvent) -> Event | None:
        review = self._open_review(memory, event.request_id)
        # Whoever keeps the time says what it is, as a channel says who answers.
        self._now = max(self._now, event.at)
        return self._climb(memory, review, event.at)

    def _climb(self, memory: Memory, review: OpenReview, now: datetime) -> Event | None:
        """Do what the ladder of a request says about the time that has passed.

        Raises:
            StaleRequest: It says nothing, as of yet.
        """
        record, passed = pass_time(review.record, now)
        if not passed:
            raise StaleRequest(record.request_id, reason="nothing about it is due yet")
        return self._moved(memory, review, record)

    def _withdraw(self, memory: Memory, event: ReviewWithdrawEvent) -> Event:
        review = self._open_review(memory, event.request_id)
        record = withdraw(review.record, by=event.by, at=event.at, reason=event.reason)
        return self._finish(memory, review, record)

    def _moved(
        self,
        memory: Memory,
        review: OpenReview,
        record: ReviewRecord,
        proposal: Event | None = None,
    ) -> Event | None:
        """Keep what has become of a request, or go on with it if that closes it."""
        if record.status is not RequestStatus.OPEN:
            return self._finish(memory, review, record, proposal)
        memory.ledger = memory.ledger.with_open(review.model_copy(update={"record": record}))
        self._tell(record)
        return None

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
        proposal = proposal if proposal is not None else self._loaded(review)
        follow_up: ReviewRequest | None = None
        if record.status is RequestStatus.ESCALATED:
            follow_up = self._requests(memory).escalated(record)
        elif record.status is RequestStatus.EDITED:
            subject = describe(subject_in(proposal, review.subject_field))
            follow_up = self._requests(memory).edited(record, subject, proposal)
        if follow_up is not None:
            record = record.model_copy(update={"superseded_by": follow_up.request_id})
        memory.ledger = memory.ledger.with_closed(record)
        self._tell(record)
        if follow_up is not None:
            next_review = review.model_copy(
                update={
                    "record": open_record(follow_up),
                    "earlier": (*review.earlier, record),
                    "proposal": self._proposals.dump(proposal),
                }
            )
            return self._ask(memory, next_review)
        content = {
            "record": record,
            "proposal": proposal,
            "subject_field": review.subject_field,
            "earlier": review.earlier,
        }
        if record.status is RequestStatus.REVISED and not _exhausted(request):
            self._await_revision(memory, record, review.thread)
            assert gate.revise is not None  # noqa: S101 - a gate that allows it has it
            return gate.revise(**content)
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
        waiting = again(request, feedback=feedback, previous=None, sent_back=request.sent_back + 1)
        memory.ledger = memory.ledger.with_awaited(waiting, thread)

    def _tell_refusal(self, error: AnswerRefused, by: str | None) -> None:
        self._ctx.write_event_to_stream(
            ReviewRefusedEvent(
                request_id=shown(error.request_id),
                code=error.code,
                reason=str(error),
                problems=error.problems,
                by=shown(by),
            )
        )

    def _tell(self, record: ReviewRecord) -> None:
        self._ctx.write_event_to_stream(ReviewUpdatedEvent(record=record))


# --------------------------------------------------------------------------- helpers


class _Unclaimed:
    """Events that no gate of a run has claimed so far, in this process.

    An event goes to every gate, and no gate can see what another one remembers.
    """

    def __init__(self) -> None:
        self._seen: dict[int, tuple[Event, Counter[str], set[bool]]] = {}

    def is_unclaimed(self, event: Event, gate: str, gates: Collection[str], *, known: bool) -> bool:
        """Note that a gate has seen an event; tell whether now all have, and none knows it."""
        # The event is kept with its id, which could be that of another one otherwise.
        _, times, answers = self._seen.setdefault(id(event), (event, Counter(), set()))
        rounds = min(times[name] for name in gates)
        times[gate] += 1
        answers.add(known)
        if min(times[name] for name in gates) == rounds:
            return False
        if len(set(times.values())) == 1:
            del self._seen[id(event)]
        return True not in answers


def _last_of(ledger: Ledger, thread: str) -> ReviewRequest | None:
    """Find the request about the last draft of a thing under review that has a key."""
    opened = [review.record.request for review in ledger.open.values() if review.thread == thread]
    awaited = [item.request for item in ledger.awaiting.values() if item.thread == thread]
    return next(iter([*opened[-1:], *awaited[-1:]]), None)


def _exhausted(request: ReviewRequest) -> bool:
    return request.max_revisions is not None and request.sent_back >= request.max_revisions


def _or_stop(
    kind: type[ReviewOutcomeEvent] | None,
    default: type[ReviewOutcomeEvent],
    content: dict[str, Any],
) -> Event:
    return kind(**content) if kind is not None else StopEvent(result=default(**content))


def _refusal_of_closed(closed: ClosedReview) -> AnswerRefused:
    undecided = (RequestStatus.SUPERSEDED, RequestStatus.WITHDRAWN, RequestStatus.EXPIRED)
    if closed.by is not None and closed.status not in undecided:
        return AlreadyAnswered(closed.request_id, status=closed.status, by=closed.by, at=closed.at)
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
