"""What people do to a stored request, in one transaction; no workflow code is needed for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from llama_index_hitl import _entries
from llama_index_hitl._outbox import Outbox, persistently
from llama_index_hitl._plain import EVENT_GATE, WAIT_GATE
from llama_index_hitl.audit import AuditEntry, AuditKind
from llama_index_hitl.errors import (
    AnswerRefused,
    Conflict,
    FieldProblem,
    InvalidAnswer,
    QuestionError,
    UnknownRequest,
    UnknownRun,
)
from llama_index_hitl.forms import check_decision
from llama_index_hitl.grants import Grant
from llama_index_hitl.lifecycle import Command, close, next_due, pass_time, take_answer
from llama_index_hitl.models import (
    INLINE_GATE,
    Answer,
    Approve,
    Decision,
    Escalate,
    Expire,
    Reject,
    Remind,
    RequestStatus,
    Reviewer,
    ReviewRecord,
    ReviewRequest,
    Rung,
    Value,
    Widen,
    digest_of,
)
from llama_index_hitl.stores.protocol import (
    Commit,
    Message,
    NoticeKind,
    Store,
    StoredGrant,
    StoredRequest,
)


class Receipt(Value):
    """Proof that an answer was taken. The same answer again gives an equal receipt.

    Attributes:
        run_id: The run that asked.
        answer: The answer as it was taken: by whom, in what role, when by the runner's clock.
        number: Its place among the answers to the request, from 1.
        decides: Whether it closed the request.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> from llama_index_hitl.stores import MemoryStore
        >>> async def main():
        ...     runner = Runner(MemoryStore(), {"draft": DraftApproval()})
        ...     await runner.start("draft", topic="mice", content="Mice are small.")
        ...     [record] = await runner.pending()
        ...     first = await runner.answer(record.request_id, Approve(), by="erin")
        ...     again = await runner.answer(record.request_id, Approve(), by="erin")
        ...     return first.decides, first == again
        >>> asyncio.run(main())
        (True, True)
    """

    run_id: str
    answer: Answer
    number: int
    decides: bool

    @property
    def request_id(self) -> str:
        """Id of the request."""
        return self.answer.request_id


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One of several answers that are given together.

    Attributes:
        request_id: The request.
        decision: What was decided.
        digest: Digest of what the person saw: the answer counts for that only. None: the caller
            vouches that it is what is stored.
        role: In which role, where it matters.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> from llama_index_hitl.stores import MemoryStore
        >>> async def main():
        ...     runner = Runner(MemoryStore(), {"draft": DraftApproval()})
        ...     await runner.start("draft", topic="mice", content="Mice are small.")
        ...     yes = [
        ...         Submission(
        ...             request_id=record.request_id,
        ...             decision=Approve(),
        ...             digest=record.request.digest,
        ...         )
        ...         for record in await runner.pending(reviewer="erin")
        ...     ]
        ...     return [receipt.decides for receipt in await runner.answer_many(yes, by="erin")]
        >>> asyncio.run(main())
        [True]
    """

    request_id: str
    decision: Decision
    digest: str | None = None
    role: str | None = None


class Submitter:
    """Takes answers, withdrawals and passing time into a store."""

    def __init__(self, store: Store, outbox: Outbox) -> None:
        self._store = store
        self._outbox = outbox

    async def stored(self, request_id: str) -> StoredRequest:
        """Return a request.

        Raises:
            UnknownRequest: There is none with that id.
        """
        found = await self._store.request(request_id)
        if found is None:
            raise UnknownRequest(request_id)
        return found

    # ----------------------------------------------------------------- answers

    async def answer(
        self,
        stored: StoredRequest,
        submission: Submission,
        *,
        by: Reviewer,
        channel: str,
        at: datetime,
    ) -> Receipt:
        """Take an answer, or refuse it and say so in the audit trail."""
        try:
            return await self._take(stored, submission, by, channel, at)
        except Conflict:
            pass  # somebody else was first: look again at what there is now

        async def attempt() -> Receipt:
            stored = await self.stored(submission.request_id)
            return await self._take(stored, submission, by, channel, at)

        return await persistently(attempt)

    async def _take(
        self,
        stored: StoredRequest,
        submission: Submission,
        by: Reviewer,
        channel: str,
        at: datetime,
    ) -> Receipt:
        due = next_due(stored.record)
        if due is not None and due <= at:
            # What is due comes first, as if somebody had swept just now: on record, and told.
            await self.pass_time(stored, at)
            stored = await self.stored(submission.request_id)
        before = stored.record
        request = before.request
        # Another machine's clock may be ahead of this one's; nobody answers before being asked.
        at = max(at, request.created_at)
        try:
            answer = Answer(
                request_id=request.request_id,
                digest=request.digest if submission.digest is None else submission.digest,
                decision=submission.decision,
                by=by,
                role=submission.role,
                channel=channel,
                at=at,
            )
            if (receipt := _receipt_of(stored, answer)) is not None:
                return receipt
            _check(request, answer.decision, at)
            record = take_answer(before, answer)
        except AnswerRefused as error:
            await self.refused(stored, error, by=by.id, channel=channel, at=at)
            raise
        message = Message(
            message_id=f"{request.request_id}:answer:{len(record.answers)}",
            run_id=stored.run_id,
            request_id=request.request_id,
            kind="answer",
            payload=answer.model_dump(mode="json"),
        )
        grants = await self._given(stored, record, answer)
        await self._outbox.commit(
            Commit(
                requests=(_answered(stored, record, by),),
                messages=(message,),
                grants=tuple(StoredGrant(grant=grant) for grant in grants),
                notices=self._outbox.about(
                    NoticeKind.ANSWERED, stored.run_id, record, at, number=stored.revision
                ),
                audit=(
                    _entries.answered(stored.run_id, record, answer),
                    *map(_entries.granted, grants),
                ),
            )
        )
        return Receipt(
            run_id=stored.run_id,
            answer=answer,
            number=len(record.answers),
            decides=record.status is not RequestStatus.OPEN,
        )

    async def _given(
        self, stored: StoredRequest, record: ReviewRecord, answer: Answer
    ) -> tuple[Grant, ...]:
        """Return the standing approval that comes with an answer, if one does.

        Args:
            stored: The request as it was read.
            record: The request with the answer taken.
            answer: The answer.

        Raises:
            UnknownRun: The run that asks is not in the store.
        """
        offer, decision = record.request.grantable, answer.decision
        approved = record.status is RequestStatus.APPROVED
        if offer is None or not approved or not isinstance(decision, Approve) or not decision.grant:
            return ()
        run = await self._store.run(stored.run_id)
        if run is None:
            raise UnknownRun(stored.run_id)
        subject = record.request.subject
        # The request may be open again one day, and be approved with another one.
        number = digest_of([stored.request_id, stored.revision])[:16]
        grant = Grant(
            grant_id=f"grant-{number}",
            workflow=run.workflow,
            agent=offer.agent,
            tool=offer.tool,
            version=offer.version,
            terms=decision.grant,
            arguments={} if subject is None else subject.data,
            owner=answer.by.id,
            owner_roles=answer.by.roles,
            run_id=stored.run_id,
            request_id=stored.request_id,
            granted_at=answer.at,
        )
        return (grant,)

    async def refused(
        self, stored: StoredRequest, error: AnswerRefused, *, by: str, channel: str, at: datetime
    ) -> None:
        """Put a refusal on record."""
        entry = _entries.refused(
            stored.run_id,
            stored.request_id,
            error,
            at=at,
            actor=by,
            channel=channel,
            digest=stored.record.request.digest,
        )
        await persistently(lambda: self._outbox.commit(Commit(audit=(entry,))))

    # ----------------------------------------------------------------- withdrawal

    async def withdraw(self, request_id: str, *, by: Reviewer, at: datetime, reason: str) -> None:
        """Close a request without a decision."""

        async def attempt() -> None:
            stored = await self.stored(request_id)
            if stored.record.request.gate in _WITHOUT_GATE:
                raise QuestionError(
                    f"{request_id} was asked inside a step, which waits for an answer and cannot "
                    "go on without one. Answer it, or cancel the run."
                )
            record = close(stored.record, Command.WITHDRAW, at=at, reason=reason)
            message = Message(
                message_id=f"{request_id}:withdraw",
                run_id=stored.run_id,
                request_id=request_id,
                kind="withdraw",
                payload={
                    "by": by.model_dump(mode="json"),
                    "at": at.isoformat(),
                    "reason": reason,
                },
            )
            await self._outbox.commit(
                Commit(
                    requests=(replace(stored, record=record, next_due=None),),
                    messages=(message,),
                    notices=self._outbox.about(NoticeKind.CANCELLED, stored.run_id, record, at),
                    audit=(
                        _entries.closed(
                            stored.run_id, record, AuditKind.WITHDRAWN, at, reason, actor=by.id
                        ),
                    ),
                )
            )

        await persistently(attempt)

    # ----------------------------------------------------------------- time

    async def pass_time(self, stored: StoredRequest, now: datetime) -> tuple[Rung, ...]:
        """Do what is due about one request, once; nothing if somebody else was first."""
        record, rungs = pass_time(stored.record, now)
        if not rungs:
            return ()
        run_id, request_id = stored.run_id, stored.request_id
        messages: tuple[Message, ...] = ()
        if any(not isinstance(rung.action, Remind) for rung in rungs):
            messages = (
                Message(
                    message_id=f"{request_id}:deadline:{record.rungs_passed}",
                    run_id=run_id,
                    request_id=request_id,
                    kind="deadline",
                    payload={"at": now.isoformat()},
                ),
            )
        notices = [
            notice
            for number, rung in enumerate(rungs, start=stored.record.rungs_passed + 1)
            for notice in self._outbox.about(
                _NOTICE_OF[type(rung.action)],
                run_id,
                record,
                now,
                number=f"{stored.revision}.{number}",
            )
        ]
        commit = Commit(
            requests=(replace(stored, record=record, next_due=next_due(record)),),
            messages=messages,
            notices=tuple(notices),
            audit=tuple(_entry_of(run_id, record, rung, now) for rung in rungs),
        )
        try:
            await self._outbox.commit(commit)
        except Conflict:
            return ()
        return rungs


def _answered(stored: StoredRequest, record: ReviewRecord, by: Reviewer) -> StoredRequest:
    """Return a request with an answer taken; whoever gave it looks at it no more."""
    claim = stored.claim
    if claim is not None and claim.by == by.id:
        claim = None
    return replace(stored, record=record, next_due=next_due(record), claim=claim)


def _check(request: ReviewRequest, decision: Decision, at: datetime) -> None:
    if decision.kind not in request.allowed:
        return  # refused for that, when it is taken
    try:
        check_decision(request, decision, at=at)
    except RecursionError:
        problem = FieldProblem("", "this is nested too deeply")
        raise InvalidAnswer(request.request_id, [problem]) from None


def _receipt_of(stored: StoredRequest, answer: Answer) -> Receipt | None:
    """Return the receipt of an answer that was taken before."""
    answers = stored.record.answers
    for number, taken in enumerate(answers, start=1):
        if answer.same_as(taken):
            closed_by_answers = bool(stored.record.outcome.decided_by)
            return Receipt(
                run_id=stored.run_id,
                answer=taken,
                number=number,
                decides=closed_by_answers and number == len(answers),
            )
    return None


_WITHOUT_GATE = (INLINE_GATE, WAIT_GATE, EVENT_GATE)

_NOTICE_OF: dict[type, NoticeKind] = {
    Remind: NoticeKind.REMINDED,
    Widen: NoticeKind.OPENED,
    Escalate: NoticeKind.ESCALATED,
    Reject: NoticeKind.EXPIRED,
    Expire: NoticeKind.EXPIRED,
}

_KIND_OF: dict[type, AuditKind] = {
    Remind: AuditKind.REMINDED,
    Widen: AuditKind.WIDENED,
    Escalate: AuditKind.ESCALATED,
    Reject: AuditKind.DEFAULTED,
    Expire: AuditKind.EXPIRED,
}


def _entry_of(run_id: str, record: ReviewRecord, rung: Rung, now: datetime) -> AuditEntry:
    reason = f"due at {rung.at.isoformat()}"
    return _entries.closed(
        run_id, record, _KIND_OF[type(rung.action)], now, reason, actor="rule:deadline"
    )
