"""Who may answer, and what a set of answers comes to. Pure functions of their arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from llama_index_hitl.models import (
    ROLE_PREFIX,
    Abstain,
    Answer,
    Approve,
    Edit,
    Escalate,
    Outcome,
    Reject,
    RequestStatus,
    Respond,
    Reviewer,
    ReviewPolicy,
    Revise,
)


def why_not_allowed(policy: ReviewPolicy, reviewer: Reviewer) -> str | None:
    """Say why this person may not answer under this policy.

    Args:
        policy: Who may answer.
        reviewer: Who wants to.

    Returns:
        The reason, to complete "X may not answer because: ...", or None: they may.

    Example:
        >>> from llama_index_hitl.models import ReviewPolicy
        >>> policy = ReviewPolicy(reviewers=("role:legal",))
        >>> why_not_allowed(policy, Reviewer(id="bob"))
        'the request is for role:legal'
        >>> why_not_allowed(policy, Reviewer(id="lena", roles=("legal",))) is None
        True
    """
    if (reason := policy.barred.get(reviewer.id)) is not None:
        return reason
    if not policy.reviewers:
        return None
    wanted = set(policy.reviewers)
    if reviewer.id in wanted or any(ROLE_PREFIX + role in wanted for role in reviewer.roles):
        return None
    return "the request is for " + ", ".join(policy.reviewers)


def tally(answers: Iterable[Answer], policy: ReviewPolicy, now: datetime) -> Outcome:
    """Count answers in the order in which they were taken.

    Counting stops as soon as the result is certain: later answers cannot change it. An answer that
    does not count is passed over: of somebody who may not answer, of somebody who has answered
    before, or given at or after the deadline.

    Args:
        answers: Answers to one request, in the order in which they were taken.
        policy: Who may answer and how many it takes.
        now: The present instant, time zone included; it matters to the deadline only.

    Returns:
        The outcome; `open` as long as more answers can still change it.

    Example:
        >>> at = utc_now()
        >>> request = ReviewRequest(
        ...     request_id="r-1", title="Publish?", policy={"approvals": 2}, created_at=at
        ... )
        >>> yes = [Answer.to(request, Approve(), by=person, at=at) for person in ("erin", "bob")]
        >>> [tally(yes[:count], request.policy, at).status.value for count in (1, 2)]
        ['open', 'approved']
    """
    counted: list[Answer] = []
    voted: set[str] = set()
    for answer in answers:
        late = policy.deadline is not None and answer.at >= policy.deadline
        if late or answer.by.id in voted or why_not_allowed(policy, answer.by) is not None:
            continue
        voted.add(answer.by.id)
        counted.append(answer)
        outcome = _outcome(counted, policy)
        if outcome.status is not RequestStatus.OPEN:
            return outcome
    outcome = _outcome(counted, policy)
    if policy.deadline is not None and now >= policy.deadline:
        return outcome.model_copy(
            update={
                "status": RequestStatus.EXPIRED,
                "reason": f"The deadline {policy.deadline.isoformat()} passed without a decision.",
            }
        )
    return outcome


def _outcome(counted: Sequence[Answer], policy: ReviewPolicy) -> Outcome:
    """Count votes that are known to count; only the last of them can have decided."""
    approving = [a for a in counted if isinstance(a.decision, Approve | Edit)]
    rejecting = [a for a in counted if isinstance(a.decision, Reject)]
    abstaining = [a for a in counted if isinstance(a.decision, Abstain)]
    needed = approvals_needed(policy)
    status, decided, reason = _verdict(counted, approving, rejecting, needed, policy)
    return Outcome(
        status=status,
        approvals=len(approving),
        needed=needed,
        rejections=len(rejecting),
        abstentions=len(abstaining),
        decided_by=tuple(a.by.id for a in decided),
        reason=reason,
    )


def _verdict(
    counted: Sequence[Answer],
    approving: Sequence[Answer],
    rejecting: Sequence[Answer],
    needed: int,
    policy: ReviewPolicy,
) -> tuple[RequestStatus, Sequence[Answer], str]:
    last = counted[-1:]
    match last[0].decision if last else None:
        case Revise():
            return RequestStatus.REVISED, last, f"{last[0].by.id} sent it back."
        case Respond():
            return RequestStatus.RESPONDED, last, f"{last[0].by.id} responded."
        case Escalate():
            return RequestStatus.ESCALATED, last, f"{last[0].by.id} escalated it."
        case Edit() if not policy.single or policy.second_person_for_edit:
            return RequestStatus.EDITED, last, f"{last[0].by.id} edited it; it is asked anew."
        case Reject() if _vetoes(last[0], policy) or len(rejecting) >= policy.rejections:
            return RequestStatus.REJECTED, rejecting, f"{_names(rejecting)} rejected it."
        case _:
            pass
    if _enough(approving, needed, policy):
        return RequestStatus.APPROVED, approving, f"{_names(approving)} approved it."
    if not _still_possible(counted, approving, needed, policy):
        return (
            RequestStatus.NO_QUORUM,
            counted,
            f"{needed} approvals are needed and can no longer be reached.",
        )
    return RequestStatus.OPEN, (), f"{_reached(approving, policy)} of {needed} approvals."


def _names(answers: Iterable[Answer]) -> str:
    return ", ".join(answer.by.id for answer in answers)


def _vetoes(answer: Answer, policy: ReviewPolicy) -> bool:
    return any(role in policy.veto_roles for role in answer.by.roles)


def _electorate(policy: ReviewPolicy) -> set[str] | None:
    """Ids of all who can vote, or None where roles or nobody in particular are named."""
    if not policy.reviewers or any(r.startswith(ROLE_PREFIX) for r in policy.reviewers):
        return None
    return set(policy.reviewers) - set(policy.barred)


def approvals_needed(policy: ReviewPolicy) -> int:
    """Return how many approvals a policy needs, at least 1.

    Args:
        policy: The policy.

    Example:
        >>> from llama_index_hitl.models import ReviewPolicy
        >>> approvals_needed(ReviewPolicy(per_role={"legal": 2, "finance": 1}))
        3
    """
    if policy.per_role:
        return sum(policy.per_role.values())
    if policy.approvals == "all":
        # A barred reviewer cannot be waited for; nobody at all cannot approve.
        return max(1, len(_electorate(policy) or ()))
    return policy.approvals


def _enough(approving: Sequence[Answer], needed: int, policy: ReviewPolicy) -> bool:
    return _reached(approving, policy) >= needed


def _reached(approving: Sequence[Answer], policy: ReviewPolicy) -> int:
    """Return how many of the approvals needed are there."""
    return _seats_filled(approving, policy.per_role) if policy.per_role else len(approving)


def _still_possible(
    counted: Sequence[Answer], approving: Sequence[Answer], needed: int, policy: ReviewPolicy
) -> bool:
    electorate = _electorate(policy)
    if electorate is None:
        return True
    left = electorate - {answer.by.id for answer in counted}
    # Which roles those hold who have not answered, nobody knows yet: any.
    return _reached(approving, policy) + len(left) >= needed


def _seats_filled(approving: Sequence[Answer], per_role: Mapping[str, int]) -> int:
    """Return how many of the approvals that roles need are there, shared out as well as can be.

    One person counts for one role only, so somebody with two roles must not fill both: this is a
    bipartite matching of persons to seats, found by augmenting paths (Kuhn's algorithm).
    """
    seats = [role for role, count in per_role.items() for _ in range(count)]
    holder: dict[int, int] = {}

    def seat(person: int, tried: set[int]) -> bool:
        answer = approving[person]
        roles = {answer.role} if answer.role is not None else set(answer.by.roles)
        for index, role in enumerate(seats):
            if role not in roles or index in tried:
                continue
            tried.add(index)
            if index not in holder or seat(holder[index], tried):
                holder[index] = person
                return True
        return False

    for person in range(len(approving)):
        seat(person, set())
    return len(holder)
