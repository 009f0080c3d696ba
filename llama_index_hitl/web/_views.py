"""What the API says of runs and requests, in the shapes that OpenAPI documents."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, cast

from pydantic import AwareDatetime, BaseModel, JsonValue
from pydantic_core import PydanticSerializationError, to_json

from llama_index_hitl._text import storable
from llama_index_hitl.forms import LABELS, FormField, decisions_of, fields_of
from llama_index_hitl.models import (
    Answer,
    DecisionKind,
    JsonObject,
    Outcome,
    Priority,
    RequestStatus,
    Reviewer,
    ReviewPolicy,
    ReviewRequest,
    Value,
)
from llama_index_hitl.policies import why_not_allowed
from llama_index_hitl.rendering import FieldDiff, diff_of
from llama_index_hitl.stores.protocol import Run, RunStatus, StoredRequest

_LONGEST_TEXT = 100_000


class ClaimView(Value):
    """Who is looking at a request, and until when that counts."""

    by: str
    until: AwareDatetime


class RequestSummary(Value):
    """A request as it stands in a list.

    Attributes:
        can_answer: Whether the person who asks may answer it now.
        voted: Whether they have.
        overdue: Whether its deadline has passed.
        digest: Digest of what it shows; an answer that carries it counts for nothing else.
    """

    request_id: str
    run_id: str
    workflow: str
    gate: str
    stage: str | None = None
    title: str
    status: RequestStatus
    priority: Priority
    created_at: AwareDatetime
    deadline: AwareDatetime | None = None
    overdue: bool
    revision: int
    level: int
    reviewers: tuple[str, ...]
    tags: tuple[str, ...]
    claim: ClaimView | None = None
    approvals: int
    needed: int
    rejections: int
    can_answer: bool
    voted: bool
    digest: str


class DecisionOption(Value):
    """One of the decisions that a request allows, with what has to be typed for it."""

    kind: DecisionKind
    label: str
    fields: tuple[FormField, ...]


class RequestDetail(RequestSummary):
    """A request with everything that its reader may see.

    Attributes:
        request: What is asked; hidden fields are masked.
        policy: Who may answer, as it stands now.
        answers: The answers so far.
        outcome: What they come to.
        decisions: What can be decided, in the order in which to offer it.
        diff: What changed since the revision before.
    """

    request: ReviewRequest
    policy: ReviewPolicy
    answers: tuple[Answer, ...]
    outcome: Outcome
    closed_at: AwareDatetime | None = None
    superseded_by: str | None = None
    decisions: tuple[DecisionOption, ...]
    diff: tuple[FieldDiff, ...]


class RunView(Value):
    """A run as it stands.

    Attributes:
        error: What it failed with: type and message, never more.
        open_requests: Ids of what it waits for, as far as their reader may see them.
        held_up: Why it does not go on although it was answered: how it differs from the code that
            runs here, one sentence each. Looked at for one run, not for a list.
    """

    run_id: str
    workflow: str
    status: RunStatus
    created_at: AwareDatetime
    updated_at: AwareDatetime
    started_by: str | None = None
    tags: tuple[str, ...]
    error: JsonObject | None = None
    open_requests: tuple[str, ...] = ()
    held_up: tuple[str, ...] = ()


def summary_of(stored: StoredRequest, person: Reviewer, now: datetime) -> RequestSummary:
    """Return what a list says of a request that was made fit for its reader."""
    return RequestSummary.model_construct(**_summary(stored, person, now))


def detail_of(stored: StoredRequest, person: Reviewer, now: datetime) -> RequestDetail:
    """Return all that is said of a request that was made fit for its reader."""
    record = stored.record
    request = record.request
    options = tuple(
        DecisionOption(kind=kind, label=LABELS[kind], fields=fields_of(request, kind))
        for kind in decisions_of(request)
    )
    # Not validated: a request with hidden fields keeps the digest of what is stored.
    return RequestDetail.model_construct(
        **_summary(stored, person, now),
        request=request,
        policy=record.policy,
        answers=record.answers,
        outcome=record.outcome,
        closed_at=record.closed_at,
        superseded_by=record.superseded_by,
        decisions=options,
        diff=diff_of(request),
    )


def _summary(stored: StoredRequest, person: Reviewer, now: datetime) -> dict[str, Any]:
    record = stored.record
    request, outcome = record.request, record.outcome
    is_open = record.status is RequestStatus.OPEN
    voted = any(answer.by.id == person.id for answer in record.answers)
    allowed = why_not_allowed(record.policy, person) is None
    claim = stored.claim if stored.claim is not None and stored.claim.until > now else None
    return {
        "request_id": request.request_id,
        "run_id": stored.run_id,
        "workflow": request.workflow,
        "gate": request.gate,
        "stage": request.stage,
        "title": request.title,
        "status": record.status,
        "priority": request.priority,
        "created_at": request.created_at,
        "deadline": record.policy.deadline,
        "overdue": is_open and record.policy.deadline is not None and record.policy.deadline <= now,
        "revision": request.revision,
        "level": request.level,
        "reviewers": record.policy.reviewers,
        "tags": request.tags,
        "claim": None if claim is None else ClaimView(by=claim.by, until=claim.until),
        "approvals": outcome.approvals,
        "needed": outcome.needed,
        "rejections": outcome.rejections,
        "can_answer": is_open and allowed and not voted,
        "voted": voted,
        "digest": request.digest,
    }


def run_view(run: Run, open_requests: tuple[str, ...] = ()) -> RunView:
    """Return what is said of a run."""
    error = run.error and {name: run.error.get(name) for name in ("type", "message")}
    return RunView(
        run_id=run.run_id,
        workflow=run.workflow,
        status=run.status,
        created_at=run.created_at,
        updated_at=run.updated_at,
        started_by=run.started_by,
        tags=run.tags,
        error=error,
        open_requests=open_requests,
    )


def json_of(value: Any) -> JsonValue:
    """Return what a run came to as JSON: models as their fields, and what is no JSON as its text.

    A thing without words of its own is named by its type: what Python shows of it is for nobody.
    """
    try:
        text = to_json(value, fallback=_in_words, bytes_mode="base64", inf_nan_mode="strings")
        found = json.loads(text)
    except (PydanticSerializationError, ValueError, RecursionError):
        return _in_words(value)
    return cast("JsonValue", _flat(found) if isinstance(value, BaseModel) else found)


def _flat(fields: Any) -> Any:
    """Return the fields of an event with those that its class does not declare among them."""
    more = fields.get("_data") if isinstance(fields, dict) else None
    if not isinstance(more, dict):
        return fields
    return {**{name: value for name, value in fields.items() if name != "_data"}, **more}


def _in_words(value: object) -> str:
    spoken = type(value).__str__ is not object.__str__ and not isinstance(value, BaseModel)
    return storable(str(value) if spoken else type(value).__name__, _LONGEST_TEXT)
