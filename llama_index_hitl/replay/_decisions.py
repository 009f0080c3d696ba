"""What people's answers to a request came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from llama_index_hitl.models import (
    Answer,
    Edit,
    RequestStatus,
    ReviewRecord,
    ReviewRequest,
    digest_of,
)


class HumanDecision(StrEnum):
    """What people's answers to a request came to."""

    APPROVED = "approved"
    """They let it happen as it was."""
    EDITED = "edited"
    """They let it happen with other values."""
    SENT_BACK = "sent_back"
    """They wanted a new draft."""
    REJECTED = "rejected"
    """They did not let it happen."""
    NO_QUORUM = "no_quorum"
    """Too few of them let it happen."""
    RESPONDED = "responded"
    """They answered a question."""


_DECISIONS: Mapping[RequestStatus, HumanDecision] = {
    RequestStatus.APPROVED: HumanDecision.APPROVED,
    RequestStatus.EDITED: HumanDecision.EDITED,
    RequestStatus.REVISED: HumanDecision.SENT_BACK,
    RequestStatus.REJECTED: HumanDecision.REJECTED,
    RequestStatus.NO_QUORUM: HumanDecision.NO_QUORUM,
    RequestStatus.RESPONDED: HumanDecision.RESPONDED,
}


def human_decision(record: ReviewRecord) -> HumanDecision | None:
    """Return what people decided about a request; None: they did not.

    Not decided by people is what is open, expired, was withdrawn, superseded or passed on to
    others, and what a rule or a deadline decided.

    Args:
        record: The request with what has become of it.

    Example:
        >>> from llama_index_hitl.lifecycle import open_record, take_answer
        >>> at = utc_now()
        >>> request = ReviewRequest(request_id="r-1", title="Publish?", created_at=at)
        >>> record = open_record(request)
        >>> print(human_decision(record))
        None
        >>> yes = Answer.to(request, Approve(), by="erin", at=at)
        >>> human_decision(take_answer(record, yes)).value
        'approved'
    """
    deciders = deciders_of(record)
    if not deciders or any(answer.by.kind != "human" for answer in deciders):
        return None
    decision = _DECISIONS.get(record.status)
    # One person's edit passes at once, and the request is approved: with other values.
    edited = any(_changes(record.request, answer) for answer in deciders)
    if decision is HumanDecision.APPROVED and edited:
        return HumanDecision.EDITED
    return decision


def _changes(request: ReviewRequest, answer: Answer) -> bool:
    """Tell whether an answer changes what was proposed; an edit that does not is an approval."""
    if not isinstance(answer.decision, Edit):
        return False
    proposed = None if request.subject is None else request.subject.data
    return digest_of(answer.decision.subject) != digest_of(proposed)


def deciders_of(record: ReviewRecord) -> Sequence[Answer]:
    """Return the answers that made the outcome."""
    decided = record.outcome.decided_by
    return [answer for answer in record.answers if answer.by.id in decided]


def why_not_counted(record: ReviewRecord) -> str:
    """Return in words why a request that people have not decided does not count."""
    by_rule = record.status in _DECISIONS and record.answers
    return "decided without people" if by_rule else record.status.value
