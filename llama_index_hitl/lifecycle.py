"""The life of a request: one literal table, and the pure functions that follow it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from llama_index_hitl.errors import (
    AlreadyAnswered,
    FieldProblem,
    InvalidAnswer,
    InvalidTransition,
    NotAllowed,
    RequestClosed,
    RequestExpired,
    StaleRequest,
    UnknownRequest,
)
from llama_index_hitl.models import (
    ROLE_PREFIX,
    Answer,
    Approve,
    Delegate,
    Escalate,
    Expire,
    Reject,
    Remind,
    RequestStatus,
    Reviewer,
    ReviewPolicy,
    ReviewRecord,
    ReviewRequest,
    RuleVerdict,
    Rung,
    Widen,
)
from llama_index_hitl.policies import tally, why_not_allowed


class Command(StrEnum):
    """What can happen to a request."""

    RECORD = "record"
    """Take an answer that does not decide yet."""
    DELEGATE = "delegate"
    """Let somebody else vote in the place of one."""
    APPROVE = "approve"
    """Let it happen."""
    REJECT = "reject"
    """Do not let it happen."""
    GIVE_UP = "give_up"
    """Close it, for nobody is left who could decide."""
    REVISE = "revise"
    """Send it back."""
    EDIT = "edit"
    """Close it, for it is asked anew with an edit."""
    RESPOND = "respond"
    """Answer it."""
    ESCALATE = "escalate"
    """Pass it up."""
    EXPIRE = "expire"
    """Close it undecided, as its time is over."""
    SUPERSEDE = "supersede"
    """Let a newer request take its place."""
    WITHDRAW = "withdraw"
    """Take it back."""


_TIME = Reviewer(id="rule:deadline", kind="rule")
"""Who decides where time has passed and nobody else has decided."""

_NO_RULE_FROM_OUTSIDE = "a rule decides before anybody is asked, and cannot answer from outside"

_FINAL: Mapping[Command, RequestStatus] = MappingProxyType({})

TRANSITIONS: Mapping[RequestStatus, Mapping[Command, RequestStatus]] = MappingProxyType(
    {
        RequestStatus.OPEN: MappingProxyType(
            {
                Command.RECORD: RequestStatus.OPEN,
                Command.DELEGATE: RequestStatus.OPEN,
                Command.APPROVE: RequestStatus.APPROVED,
                Command.REJECT: RequestStatus.REJECTED,
                Command.GIVE_UP: RequestStatus.NO_QUORUM,
                Command.REVISE: RequestStatus.REVISED,
                Command.EDIT: RequestStatus.EDITED,
                Command.RESPOND: RequestStatus.RESPONDED,
                Command.ESCALATE: RequestStatus.ESCALATED,
                Command.EXPIRE: RequestStatus.EXPIRED,
                Command.SUPERSEDE: RequestStatus.SUPERSEDED,
                Command.WITHDRAW: RequestStatus.WITHDRAWN,
            }
        ),
        RequestStatus.APPROVED: _FINAL,
        RequestStatus.REJECTED: _FINAL,
        RequestStatus.NO_QUORUM: _FINAL,
        RequestStatus.REVISED: _FINAL,
        RequestStatus.EDITED: _FINAL,
        RequestStatus.RESPONDED: _FINAL,
        RequestStatus.ESCALATED: _FINAL,
        RequestStatus.EXPIRED: _FINAL,
        RequestStatus.SUPERSEDED: _FINAL,
        RequestStatus.WITHDRAWN: _FINAL,
    }
)
"""Every transition there is: `TRANSITIONS[status][command]` is the next status."""

_COMMAND_FOR: Mapping[RequestStatus, Command] = MappingProxyType(
    {
        after: command
        for command, after in TRANSITIONS[RequestStatus.OPEN].items()
        if after is not RequestStatus.OPEN
    }
    | {RequestStatus.OPEN: Command.RECORD}
)


def next_status(status: RequestStatus, command: Command) -> RequestStatus:
    """Return the status after a command.

    Args:
        status: How the request stands.
        command: What happens to it.

    Raises:
        InvalidTransition: The table has no such transition.

    Example:
        >>> next_status(RequestStatus.OPEN, Command.ESCALATE).value
        'escalated'
    """
    try:
        return TRANSITIONS[status][command]
    except KeyError:
        raise InvalidTransition(status, command) from None


def open_record(request: ReviewRequest) -> ReviewRecord:
    """Return the record of a request that has just been asked.

    Args:
        request: The request.

    Example:
        >>> request = ReviewRequest(request_id="r-1", title="Publish?", created_at=utc_now())
        >>> open_record(request)
        ReviewRecord('r-1', 'open')
    """
    outcome = tally((), request.policy, request.created_at)
    return ReviewRecord(
        request=request,
        policy=request.policy,
        outcome=outcome.model_copy(update={"status": RequestStatus.OPEN}),
    )


def take_answer(record: ReviewRecord, answer: Answer) -> ReviewRecord:
    """Take an answer, or refuse it.

    The same answer again, by the same person, returns the record as it is: the first one counts.
    Rungs of the ladder that are due when the answer is given are passed first, whether or not
    anybody has kept the time, so the same answers in the same order come to the same record
    everywhere. What the decision holds is checked by `forms.check_decision`, not here.

    Args:
        record: The request with what has become of it.
        answer: What somebody decided; `answer.at` says whether it is in time.

    Returns:
        The new record, or the very same one for an answer that was taken before.

    Raises:
        UnknownRequest: The answer names another request.
        StaleRequest: The digest is not that of this request; or, as a `RequestClosed`, it was
            closed without a decision, such as by a newer request that took its place.
        AlreadyAnswered: The request is decided, or this person has voted otherwise.
        RequestExpired: The answer is late.
        NotAllowed: This person may not answer, or it is said to be a rule.
        InvalidAnswer: The request does not allow such a decision.

    Example:
        >>> at = utc_now()
        >>> request = ReviewRequest(request_id="r-1", title="Publish?", created_at=at)
        >>> answer = Answer.to(request, Approve(), by="erin", at=at)
        >>> record = take_answer(open_record(request), answer)
        >>> record, take_answer(record, answer) is record
        (ReviewRecord('r-1', 'approved'), True)
    """
    request = record.request
    if answer.request_id != request.request_id:
        raise UnknownRequest(answer.request_id)
    if answer.by.kind == "rule":
        raise NotAllowed(request.request_id, by=answer.by.id, reason=_NO_RULE_FROM_OUTSIDE)
    if any(answer.same_as(taken) for taken in record.answers):
        return record
    if answer.digest != request.digest:
        raise StaleRequest(request.request_id, reason="it was made for other content (digest)")
    _refuse_closed(record)
    if answer.at < request.created_at:
        raise StaleRequest(request.request_id, reason="it was given before the question was asked")
    if record.policy.deadline is not None and answer.at >= record.policy.deadline:
        raise RequestExpired(request.request_id, deadline=record.policy.deadline)
    record, _ = pass_time(record, answer.at)  # in time, so none of these rungs closes it
    if (reason := why_not_allowed(record.policy, answer.by)) is not None:
        raise NotAllowed(request.request_id, by=answer.by.id, reason=reason)
    _refuse_second_vote(record, answer)
    _refuse_forbidden_decision(request, answer)
    if isinstance(answer.decision, Delegate):
        return _delegate(record, answer, answer.decision)
    return _with_answers(record, (*record.answers, answer), answer.at)


def _refuse_closed(record: ReviewRecord) -> None:
    if record.status is RequestStatus.OPEN:
        return
    request_id = record.request.request_id
    if record.superseded_by is not None and record.status is RequestStatus.SUPERSEDED:
        raise RequestClosed(
            request_id,
            reason=f"{record.superseded_by} has taken its place",
            status=record.status,
            superseded_by=record.superseded_by,
        )
    if record.status is RequestStatus.EXPIRED and record.policy.deadline is not None:
        raise RequestExpired(request_id, deadline=record.policy.deadline)
    if record.outcome.decided_by:  # else it was closed by other means than answers
        last = record.answers[-1]
        raise AlreadyAnswered(request_id, status=record.status, by=last.by.id, at=last.at)
    raise RequestClosed(request_id, reason=f"it is {record.status}", status=record.status)


def _refuse_second_vote(record: ReviewRecord, answer: Answer) -> None:
    for taken in record.answers:
        if taken.by.id == answer.by.id:
            raise AlreadyAnswered(
                record.request.request_id, status=record.status, by=taken.by.id, at=taken.at
            )


def _refuse_forbidden_decision(request: ReviewRequest, answer: Answer) -> None:
    decision = answer.decision
    if decision.kind not in request.allowed:
        allowed = ", ".join(request.allowed)
        raise InvalidAnswer(
            request.request_id,
            [
                FieldProblem(
                    "decision", f"{decision.kind!r} is not allowed here (allowed: {allowed})"
                )
            ],
        )
    if isinstance(decision, Escalate):
        strangers = sorted(set(decision.to) - set(request.escalate_to))
        if strangers:
            raise InvalidAnswer(
                request.request_id,
                [FieldProblem("to", f"cannot escalate to {', '.join(strangers)}")],
            )


def _delegate(record: ReviewRecord, answer: Answer, decision: Delegate) -> ReviewRecord:
    """Move one vote to another person; the request stays open and the votes so far stand."""
    policy, giver = record.policy, answer.by
    problem = None
    if policy.per_role:
        problem = "a role's approval cannot be handed to somebody whose roles are not known"
    elif decision.to == giver.id:
        problem = "cannot delegate to oneself"
    elif decision.to.startswith(ROLE_PREFIX):
        problem = "a vote is delegated to a person, not to a role"
    elif decision.to in policy.barred:
        problem = f"{decision.to} may not answer: {policy.barred[decision.to]}"
    elif decision.to in policy.reviewers or any(a.by.id == decision.to for a in record.answers):
        problem = f"{decision.to} has a vote of their own"
    if problem is not None:
        raise InvalidAnswer(record.request.request_id, [FieldProblem("to", problem)])
    # Where anybody may answer, naming one reviewer would lock all others out.
    kept = tuple(entry for entry in policy.reviewers if entry != giver.id)
    moved = policy.model_copy(
        update={
            "reviewers": (*kept, decision.to) if policy.reviewers else (),
            "barred": {**policy.barred, giver.id: f"delegated to {decision.to}"},
        }
    )
    next_status(record.status, Command.DELEGATE)
    return record.model_copy(update={"answers": (*record.answers, answer), "policy": moved})


def _with_answers(record: ReviewRecord, answers: tuple[Answer, ...], at: datetime) -> ReviewRecord:
    # As long as more people will be asked, the approvals are not out of reach.
    outcome = tally(answers, widest_policy(record), at)
    status = next_status(record.status, _COMMAND_FOR[outcome.status])
    closed_at = None if status is RequestStatus.OPEN else at
    return record.model_copy(
        update={"answers": answers, "outcome": outcome, "closed_at": closed_at}
    )


def widest_policy(record: ReviewRecord) -> ReviewPolicy:
    """Return the policy of a request as it will be when its ladder has asked all that it will.

    Args:
        record: The request with what has become of it.

    Example:
        >>> from datetime import timedelta
        >>> at = utc_now()
        >>> request = ReviewRequest(
        ...     request_id="r-1",
        ...     title="Publish?",
        ...     policy={"reviewers": ["erin"]},
        ...     ladder=[Rung(at=at + timedelta(hours=4), action=Widen("bob"))],
        ...     created_at=at,
        ... )
        >>> widest_policy(open_record(request)).reviewers
        ('erin', 'bob')
    """
    policy = record.policy
    for rung in record.request.rungs[record.rungs_passed :]:
        if rung.closes:
            break
        policy = _widened(policy, rung)
    return policy


def _widened(policy: ReviewPolicy, rung: Rung) -> ReviewPolicy:
    if not isinstance(rung.action, Widen) or not policy.reviewers:
        return policy
    more = (entry for entry in rung.action.to if entry not in policy.reviewers)
    return policy.model_copy(update={"reviewers": (*policy.reviewers, *dict.fromkeys(more))})


# --------------------------------------------------------------------------- as time passes


def next_due(record: ReviewRecord) -> datetime | None:
    """Return the instant of the next rung to pass; None: the request is closed, or has no more.

    Args:
        record: The request with what has become of it.

    Example:
        >>> from datetime import timedelta
        >>> at = utc_now()
        >>> ladder = [Rung(at=at + timedelta(hours=4), action=Remind())]
        >>> request = ReviewRequest(request_id="r-1", title="Go?", ladder=ladder, created_at=at)
        >>> str(next_due(open_record(request)) - at)
        '4:00:00'
    """
    if record.status is not RequestStatus.OPEN:
        return None
    left = record.request.rungs[record.rungs_passed :]
    return left[0].at if left else None


def pass_time(record: ReviewRecord, now: datetime) -> tuple[ReviewRecord, tuple[Rung, ...]]:
    """Pass every rung of a request's ladder that is due.

    A rung takes effect as of its own instant, however late it is passed: after days without a
    sweep several are passed at once, in order. One that closes the request is the last.

    Args:
        record: The request with what has become of it.
        now: The present instant, time zone included.

    Returns:
        The new record, and the rungs that were passed; the very same record and none, where
        nothing was due.

    Example:
        >>> from datetime import timedelta
        >>> at = utc_now()
        >>> ladder = [Rung(at=at + timedelta(hours=4), action=Remind())]
        >>> request = ReviewRequest(request_id="r-1", title="Go?", ladder=ladder, created_at=at)
        >>> record, passed = pass_time(open_record(request), at + timedelta(days=2))
        >>> [rung.action.kind for rung in passed], record.rungs_passed
        (['remind'], 1)
    """
    passed: list[Rung] = []
    while (due := next_due(record)) is not None and due <= now:
        rung = record.request.rungs[record.rungs_passed]
        record = _pass(record, rung)
        passed.append(rung)
    return record, tuple(passed)


def _pass(record: ReviewRecord, rung: Rung) -> ReviewRecord:
    climbed = record.model_copy(update={"rungs_passed": record.rungs_passed + 1})
    match rung.action:
        case Remind():
            return climbed
        case Widen():
            return climbed.model_copy(update={"policy": _widened(climbed.policy, rung)})
        case Expire():
            reason = "The deadline passed without a decision."
            return close(climbed, Command.EXPIRE, at=rung.at, reason=reason)
        case Escalate() | Reject() as decision:
            answer = Answer.to(record.request, decision, by=_TIME, at=rung.at, channel="rule")
            return decide_without_person(climbed, answer)


# --------------------------------------------------------------------------- closed otherwise


def withdraw(record: ReviewRecord, *, by: Reviewer, at: datetime, reason: str = "") -> ReviewRecord:
    """Take a question back.

    Args:
        record: The request, still open.
        by: Who takes it back.
        at: When, time zone included.
        reason: Why, for people.

    Returns:
        The closed record. Nobody is said to have decided.

    Raises:
        InvalidTransition: The request is closed.

    Example:
        >>> at = utc_now()
        >>> request = ReviewRequest(request_id="r-1", title="Publish?", created_at=at)
        >>> withdraw(open_record(request), by=Reviewer(id="erin"), at=at, reason="a mistake")
        ReviewRecord('r-1', 'withdrawn')
    """
    said = f"{by.id} withdrew it: {reason}" if reason else f"{by.id} withdrew it."
    return close(record, Command.WITHDRAW, at=at, reason=said)


def close(
    record: ReviewRecord,
    command: Command,
    *,
    at: datetime,
    reason: str,
    superseded_by: str | None = None,
) -> ReviewRecord:
    """Close an open request for a reason other than an answer.

    Args:
        record: The request with what has become of it.
        command: `expire`, `give_up` (nobody is left to decide), `supersede` or `withdraw`.
        at: When, time zone included.
        reason: Why, as a sentence for people.
        superseded_by: The request that takes its place.

    Returns:
        The closed record.

    Raises:
        InvalidTransition: The request is closed, or the command is not one of these.

    Example:
        >>> at = utc_now()
        >>> request = ReviewRequest(request_id="r-1", title="Publish?", created_at=at)
        >>> record = open_record(request)
        >>> close(record, Command.SUPERSEDE, at=at, reason="a newer draft", superseded_by="r-2")
        ReviewRecord('r-1', 'superseded')
    """
    if command not in (Command.EXPIRE, Command.GIVE_UP, Command.SUPERSEDE, Command.WITHDRAW):
        raise InvalidTransition(record.status, command)
    status = next_status(record.status, command)
    outcome = record.outcome.model_copy(update={"status": status, "reason": reason})
    return record.model_copy(
        update={"outcome": outcome, "closed_at": at, "superseded_by": superseded_by}
    )


def decide_without_person(record: ReviewRecord, answer: Answer) -> ReviewRecord:
    """Let a rule or a deadline decide, on the record like a person's decision.

    Args:
        record: The request, still open.
        answer: The decision; `answer.by.kind` must be `rule`.

    Returns:
        The closed record.

    Raises:
        StaleRequest: The decision names another request, or other content.
        InvalidTransition: The request is closed; the decision is none that a rule may take; or it
            is an approval and the request does not hold the rule's own verdict to approve.

    Example:
        >>> at = utc_now()
        >>> rule = Reviewer(id="rule:weekdays only", kind="rule")
        >>> request = ReviewRequest(request_id="r-1", title="Publish?", created_at=at)
        >>> said = Answer.to(request, Reject(), by=rule, at=at)
        >>> decide_without_person(open_record(request), said)
        ReviewRecord('r-1', 'rejected')
    """
    commands: dict[type, Command] = {
        Approve: Command.APPROVE,
        Reject: Command.REJECT,
        Escalate: Command.ESCALATE,
    }
    if (answer.request_id, answer.digest) != (record.request.request_id, record.request.digest):
        raise StaleRequest(record.request.request_id, reason="the decision is about another one")
    command = commands.get(type(answer.decision))
    rule = record.request.rule
    consented = rule is not None and rule.verdict is RuleVerdict.APPROVE
    if (
        command is None
        or answer.by.kind != "rule"
        or (command is Command.APPROVE and not consented)
    ):
        raise InvalidTransition(
            record.status, f"be decided by {answer.by.id} ({answer.decision.kind})"
        )
    outcome = record.outcome.model_copy(
        update={
            "status": next_status(record.status, command),
            "decided_by": (answer.by.id,),
            "reason": answer.comment or f"{answer.by.id} decided.",
        }
    )
    return record.model_copy(
        update={
            "answers": (*record.answers, answer),
            "outcome": outcome,
            "closed_at": answer.at,
        }
    )
